//! Whether an ID token is to be believed.
//!
//! It must be signed with RS256 by one of GitLab's keys, for this application, for this sign-in, now. CI jobs are given tokens by the same issuer,
//! signed with keys of the same set, for an audience of the job's choice: whatever has their shape is refused.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    CallError, Provider, TokenSet,
    jwt::{Audience, Jwt},
    keys::KeyError,
};
use crate::clock::Timestamp;

/// How far GitLab's clock and ours may differ.
pub(super) const LEEWAY: Duration = Duration::from_mins(1);
/// The oldest ID token at a sign-in.
const AGE: Duration = Duration::from_mins(10);

/// What a believed ID token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdClaims {
    /// Who gave it: the external URL of that GitLab.
    pub issuer: String,
    /// GitLab's user id as decimal text.
    pub sub: String,
}

/// Why an ID token is not believed.
#[derive(Debug, thiserror::Error)]
pub enum IdTokenError {
    /// GitLab gave none.
    #[error("there is no ID token")]
    Missing,
    /// It is no JWT, or a claim is missing, doubled or of the wrong type.
    #[error("the ID token is malformed")]
    Malformed,
    /// It is not signed with RS256.
    #[error("the ID token's algorithm is not RS256")]
    Algorithm,
    /// Its header has `crit`, of which we know no member.
    #[error("the ID token has critical header fields")]
    Critical,
    /// Its key id is too long or holds odd signs.
    #[error("the ID token's key id is not usable")]
    KeyId,
    /// GitLab doesn't publish the key.
    #[error("the ID token is signed with a key that GitLab does not publish")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the ID token's signature is wrong")]
    Signature,
    /// Another issuer, in the token or in discovery.
    #[error("the issuer is not {expected}")]
    Issuer {
        /// What it should be.
        expected: String,
    },
    /// Not for this application, or for others as well without naming this one in `azp`.
    #[error("the ID token is for another application")]
    Audience,
    /// `azp` names another application.
    #[error("the ID token was given to another application")]
    AuthorizedParty,
    /// `sub` is no user id.
    #[error("the ID token's subject is no user id")]
    Subject,
    /// It belongs to another sign-in.
    #[error("the ID token belongs to another sign-in")]
    Nonce,
    /// It belongs to another access token.
    #[error("the ID token belongs to another access token")]
    AccessTokenHash,
    /// It is a CI job's.
    #[error("the ID token is a CI job's")]
    Job,
    /// It is no CI job's, though one is wanted.
    #[error("the ID token is no CI job's")]
    NoJob,
    /// It is a CI job's, for another audience than labgate's own.
    #[error("the CI job's ID token is not for the audience {0}")]
    JobAudience(String),
    /// It is a CI job's that names the application as its audience, as sign-ins do.
    #[error("the CI job's ID token names the application id among its audiences")]
    SignInAudience,
    /// It is a CI job's that names another project than the one in which the job runs, as in merge requests between forks.
    #[error("the CI job runs in another project than the one that its ID token names")]
    JobElsewhere,
    /// It has expired, or a clock is wrong.
    #[error(
        "the ID token expired at {exp}, and the clock here says {now} (Unix time); are both clocks right?"
    )]
    Expired {
        /// Its end, by GitLab's clock.
        exp: Timestamp,
        /// Our clock.
        now: Timestamp,
    },
    /// It was made in the future or long ago, or a clock is wrong.
    #[error(
        "the ID token was made at {iat}, and the clock here says {now} (Unix time); are both clocks right?"
    )]
    IssuedAt {
        /// When it was made, or counts from, by GitLab's clock.
        iat: Timestamp,
        /// Our clock.
        now: Timestamp,
    },
    /// The keys or the issuer can't be had.
    #[error("GitLab's keys can't be read")]
    Unavailable {
        /// When to try again, if GitLab says so.
        retry_after: Option<Duration>,
        /// What happened.
        source: CallError,
    },
    /// The key document is none.
    #[error("GitLab's key set is malformed")]
    Keys,
}

impl IdTokenError {
    /// Whether a wrong clock, here or at GitLab, is the likeliest cause.
    pub fn is_clock(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::IssuedAt { .. })
    }
}

impl From<KeyError> for IdTokenError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unknown => Self::UnknownKey,
            KeyError::Document => Self::Keys,
            KeyError::Unavailable(source) => {
                Self::Unavailable { retry_after: source.retry_after(), source }
            },
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    nonce: Option<String>,
    at_hash: Option<String>,
    job_id: Option<IgnoredAny>,
    pipeline_id: Option<IgnoredAny>,
    project_id: Option<IgnoredAny>,
}

impl Provider {
    /// Whether the ID token in `tokens` is to be believed. `nonce` is that of the sign-in; a refreshed ID token has none.
    ///
    /// # Errors
    /// Each check has its own variant in [`IdTokenError`].
    pub async fn verify_id_token(
        &self,
        tokens: &TokenSet,
        nonce: Option<&str>,
        now: Timestamp,
    ) -> Result<IdClaims, IdTokenError> {
        let token = tokens.id_token.as_deref().ok_or(IdTokenError::Missing)?;
        let jwt = Jwt::split(token).ok_or(IdTokenError::Malformed)?;
        self.signed(jwt).await?;
        self.check(jwt.claims()?, tokens, nonce, now).await
    }

    async fn check(
        &self,
        claims: Claims,
        tokens: &TokenSet,
        nonce: Option<&str>,
        now: Timestamp,
    ) -> Result<IdClaims, IdTokenError> {
        if claims.job_id.is_some() || claims.pipeline_id.is_some() || claims.project_id.is_some() {
            return Err(IdTokenError::Job);
        }
        let issuer = self.known_issuer().await?;
        if claims.iss != issuer {
            return Err(IdTokenError::Issuer { expected: issuer });
        }
        check_audience(&claims, &self.client_id)?;
        check_times(&claims, now)?;
        let decimal = claims.sub.bytes().all(|byte| byte.is_ascii_digit());
        if !decimal || !(1..=20).contains(&claims.sub.len()) {
            return Err(IdTokenError::Subject);
        }
        let same = |left: &str, right: &str| bool::from(left.as_bytes().ct_eq(right.as_bytes()));
        let of_this_sign_in = match (nonce, &claims.nonce) {
            (Some(wanted), Some(found)) => same(wanted, found),
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !of_this_sign_in {
            return Err(IdTokenError::Nonce);
        }
        if claims.at_hash.is_some_and(|hash| !same(&hash, &access_token_hash(&tokens.access))) {
            return Err(IdTokenError::AccessTokenHash);
        }
        Ok(IdClaims { issuer: self.issuer().to_owned(), sub: claims.sub })
    }
}

fn check_audience(claims: &Claims, client_id: &str) -> Result<(), IdTokenError> {
    let (ours, others) = match &claims.aud {
        Audience::One(one) => (one == client_id, false),
        Audience::Many(many) => {
            (many.iter().any(|one| one == client_id), many.iter().any(|one| one != client_id))
        },
    };
    match (ours, claims.azp.as_deref()) {
        (false, _) => Err(IdTokenError::Audience),
        (true, None) if others => Err(IdTokenError::Audience),
        (true, Some(azp)) if azp != client_id => Err(IdTokenError::AuthorizedParty),
        (true, _) => Ok(()),
    }
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), IdTokenError> {
    let [exp, iat] = [claims.exp, claims.iat].map(Timestamp::from_unix);
    let nbf = claims.nbf.map_or(iat, Timestamp::from_unix);
    if exp + LEEWAY <= now {
        return Err(IdTokenError::Expired { exp, now });
    }
    match [iat, nbf].into_iter().find(|start| *start > now + LEEWAY) {
        Some(iat) => Err(IdTokenError::IssuedAt { iat, now }),
        None if now.since(iat) > AGE + LEEWAY => Err(IdTokenError::IssuedAt { iat, now }),
        None => Ok(()),
    }
}

/// The left half of the token's SHA-256, by section 3.1.3.6 of the OIDC core for RS256.
fn access_token_hash(token: &str) -> String {
    let hash = Sha256::digest(token.as_bytes());
    let (left, _) = hash.as_slice().split_at(16);
    URL_SAFE_NO_PAD.encode(left)
}
