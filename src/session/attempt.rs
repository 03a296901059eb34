//! Sign-ins that have begun: each in its own sealed cookie, named after its state, for ten minutes, at most five at a time.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::{
    cookie::{SessionCookie, Site},
    random::Random,
    seal::{KeyRing, SealError},
};
use crate::clock::Timestamp;

/// A sign-in that has begun.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The `state` parameter; 43 characters of base64url.
    pub state: String,
    /// The `nonce` that the ID token must carry.
    pub nonce: String,
    /// The PKCE verifier (RFC 7636).
    pub verifier: Zeroizing<String>,
    /// What it is for.
    pub wish: Wish,
    /// When it began.
    pub created: Timestamp,
}

/// What a sign-in is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The name of the `[gitlab.NAME]` table.
    pub gitlab: String,
    /// Where to go afterwards; `/` if longer than 2 KiB.
    pub rd: String,
    /// The redirect URI as GitLab was told; the token request repeats it.
    pub redirect_uri: String,
}

/// Makes and takes the cookies of sign-ins.
#[derive(Clone, Debug)]
pub struct Attempts {
    cookie: SessionCookie,
    path: String,
    keys: Arc<KeyRing>,
    random: Random,
}

/// Why an answer from GitLab fits no sign-in of this browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// The browser sent no cookie for this state.
    #[error("no sign-in of this state has begun in this browser")]
    Unknown,
    /// There is a cookie, but none that labgate made for this state and host.
    #[error("the sign-in's cookie is not authentic")]
    NotAuthentic,
    /// It began more than ten minutes ago.
    #[error("the sign-in began too long ago")]
    Expired,
}

impl Attempts {
    /// Attempts beside `cookie`, whose cookies live under `path`, the prefix of labgate's endpoints.
    pub fn new(cookie: &SessionCookie, path: &str, keys: Arc<KeyRing>, random: Random) -> Self {
        Self {
            cookie: cookie.clone(),
            path: path.into(),
            keys,
            random,
        }
    }

    /// Begins a sign-in; the `Set-Cookie` values keep it and evict those that are over or too many.
    ///
    /// # Errors
    /// When there is no randomness, or `wish` is too long.
    pub fn begin(
        &self,
        request: &HeaderMap,
        site: Site<'_>,
        wish: Wish,
        now: Timestamp,
    ) -> Result<(Attempt, Vec<HeaderValue>), SealError> {
        let _ = (
            request,
            site,
            wish,
            now,
            &self.cookie,
            &self.path,
            &self.keys,
        );
        self.random.token()?;
        Err(SealError::TooLong(0))
    }

    /// Takes the sign-in of `state` out of a request's cookies, with the `Set-Cookie` that ends it.
    ///
    /// # Errors
    /// When none of this browser, host and state has begun within ten minutes.
    pub fn take(
        &self,
        request: &HeaderMap,
        site: Site<'_>,
        state: &str,
        now: Timestamp,
    ) -> Result<(Attempt, HeaderValue), AttemptError> {
        let _ = (request, site, state, now);
        Err(AttemptError::Unknown)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Attempt")
            .field("gitlab", &self.wish.gitlab)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}
