//! ID tokens of CI jobs: verified here, with GitLab's keys; it is not asked about any of them.

use std::sync::Arc;

use super::{
    token::{cause, unheard},
    token_cache::Verdict,
};
use crate::{
    clock::Timestamp,
    gitlab::{IdTokenError, Provider},
    refusal::TokenTrouble,
};

/// Which job the token was given to, and whether that is worth remembering.
pub(super) async fn ask(provider: &Provider, token: &str, now: Timestamp) -> (Verdict, bool) {
    match provider.verify_job(token, now).await {
        Ok(checked) => (Ok(Arc::new(checked)), true),
        Err(IdTokenError::Unavailable { source, retry_after }) => {
            (Err(unheard(source, retry_after)), false)
        },
        Err(error @ IdTokenError::Keys) => {
            let source = cause(error);
            (Err(TokenTrouble::Unheard { retry_after: provider.tokens().cache, source }), false)
        },
        // A key may become known, and a time come.
        Err(error @ (IdTokenError::UnknownKey | IdTokenError::IssuedAt { .. })) => {
            (Err(TokenTrouble::Invalid(cause(error))), false)
        },
        Err(error) => (Err(TokenTrouble::Invalid(cause(error))), true),
    }
}
