//! The OpenID Connect side: what discovery says, whether GitLab is there at all, and whether an ID token is to be believed.
//!
//! Of discovery only the issuer is used, and only if it names the configured base URL; endpoints are fixed paths. An ID token must be signed with
//! RS256 by one of GitLab's keys, for this application, for this sign-in, now. CI jobs are given tokens by the same issuer, signed with keys of the
//! same set, for an audience of the job's choice: whatever has their shape is refused.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::{sleep, timeout};
use url::Url;

use super::{
    Provider, TokenSet,
    http::{CallError, USUAL, chain},
    keys::KeyError,
};
use crate::clock::Timestamp;

/// How far GitLab's clock and ours may differ.
const LEEWAY: Duration = Duration::from_secs(60);
/// The oldest ID token at a sign-in.
const AGE: Duration = Duration::from_secs(600);
/// Between two looks at discovery while all is well.
const RARELY: Duration = Duration::from_secs(3600);
/// Between two looks while GitLab is out of reach.
const OFTEN: Duration = Duration::from_secs(1);
/// The longest of those.
const SELDOM: Duration = Duration::from_secs(30);

/// Why discovery says nothing.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// It can't be had.
    #[error("GitLab's discovery document can't be read")]
    Unavailable(#[source] CallError),
    /// It is none.
    #[error("GitLab's discovery document is malformed")]
    Answer,
    /// It names an issuer other than the configured base URL.
    #[error("discovery names the issuer {found}, not {expected}; is `base_url` what browsers see?")]
    Issuer {
        /// What it says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
}

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
            KeyError::Unavailable(source) => Self::Unavailable {
                retry_after: source.retry_after(),
                source,
            },
        }
    }
}

/// What is known of the issuer.
pub(super) struct Discovery {
    expected: String,
    found: ArcSwapOption<Found>,
}

struct Found {
    issuer: String,
    development: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    #[serde(default)]
    labgate_development_gitlab: bool,
}

impl Discovery {
    pub(super) fn new(base: &Url) -> Self {
        let expected = base.as_str().trim_end_matches('/').to_owned();
        Self {
            expected,
            found: ArcSwapOption::empty(),
        }
    }

    pub(super) fn issuer(&self) -> String {
        let found = self.found.load();
        found
            .as_ref()
            .map_or_else(|| self.expected.clone(), |found| found.issuer.clone())
    }

    pub(super) fn is_development(&self) -> bool {
        self.found
            .load()
            .as_ref()
            .is_some_and(|found| found.development)
    }

    pub(super) fn is_known(&self) -> bool {
        self.found.load().is_some()
    }

    /// Takes over what the document says; an issuer may differ from the base URL in its final slash only.
    fn accept(&self, document: Document) -> Result<(), DiscoveryError> {
        let same = Url::parse(&document.issuer)
            .is_ok_and(|issuer| issuer.as_str().trim_end_matches('/') == self.expected);
        if !same {
            self.found.store(None);
            return Err(DiscoveryError::Issuer {
                found: document.issuer.chars().take(200).collect(),
                expected: self.expected.clone(),
            });
        }
        let found = Found {
            issuer: document.issuer,
            development: document.labgate_development_gitlab,
        };
        self.found.store(Some(found.into()));
        Ok(())
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
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

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Provider {
    /// Reads discovery once and remembers the issuer.
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    pub async fn probe(&self) -> Result<(), DiscoveryError> {
        let path = ".well-known/openid-configuration";
        let answer = self.client.get("discovery", path, None, USUAL).await;
        let answer = answer.map_err(DiscoveryError::Unavailable)?;
        match answer.status.as_u16() {
            200 => {
                let document = serde_json::from_slice(&answer.body);
                self.discovery
                    .accept(document.map_err(|_| DiscoveryError::Answer)?)
            },
            status => Err(DiscoveryError::Unavailable(CallError::Status(status, None))),
        }
    }

    /// Keeps an eye on GitLab for ever: discovery at start, rarely while all is well, often while GitLab is out of reach, so that its return is
    /// noticed although nobody waits for it. Says in the log when it goes and comes.
    pub async fn watch(&self) {
        let mut pause = OFTEN;
        let mut failing = false;
        loop {
            match self.probe().await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(gitlab.name = self.name, "GitLab answers again");
                    }
                    pause = OFTEN;
                    let _: Result<(), _> = timeout(RARELY, self.client.went_down()).await;
                },
                Err(DiscoveryError::Unavailable(CallError::Down(_))) => {},
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        self.say(&error);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(SELDOM);
                },
            }
            sleep(self.client.wait()).await;
        }
    }

    fn say(&self, error: &DiscoveryError) {
        let causes: Vec<_> = chain(error).map(ToString::to_string).collect();
        tracing::warn!(
            gitlab.name = self.name,
            gitlab.url = %self.client.url(""),
            error = causes.join(": "),
            "GitLab can't be used yet; nobody can sign in with it until it answers"
        );
    }

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
        let (message, signature) = token.rsplit_once('.').ok_or(IdTokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(IdTokenError::Malformed)?;
        if claims.contains('.') {
            return Err(IdTokenError::Malformed);
        }
        let kid = key_id(header)?;
        let keys = self.signing_keys(kid.as_deref()).await?;
        let signed = |key| crypto::verify(signature, message.as_bytes(), key, Algorithm::RS256);
        if !keys.iter().any(|key| signed(key).unwrap_or(false)) {
            return Err(IdTokenError::Signature);
        }
        self.check(part(claims)?, tokens, nonce, now).await
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
        check_audience(&claims, self.oauth.client_id())?;
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
        if claims
            .at_hash
            .is_some_and(|hash| !same(&hash, &access_token_hash(&tokens.access)))
        {
            return Err(IdTokenError::AccessTokenHash);
        }
        Ok(IdClaims {
            issuer,
            sub: claims.sub,
        })
    }

    /// The issuer; asks discovery if nobody has yet, and goes by the base URL if that can't be had.
    async fn known_issuer(&self) -> Result<String, IdTokenError> {
        if !self.discovery.is_known() {
            if let Err(DiscoveryError::Issuer { expected, .. }) = self.probe().await {
                return Err(IdTokenError::Issuer { expected });
            }
        }
        Ok(self.issuer())
    }
}

/// The key id in the token's header, after what else stands there is found harmless; `jku`, `jwk`, `x5u` and `x5c` are never looked at.
fn key_id(header: &str) -> Result<Option<String>, IdTokenError> {
    let header: Header = part(header)?;
    if header.alg != "RS256" {
        return Err(IdTokenError::Algorithm);
    }
    if header.crit.is_some() {
        return Err(IdTokenError::Critical);
    }
    let usable = |kid: &str| {
        (1..=256).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match header.kid {
        Some(kid) if !usable(&kid) => Err(IdTokenError::KeyId),
        kid => Ok(kid),
    }
}

fn part<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, IdTokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| IdTokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| IdTokenError::Malformed)
}

fn check_audience(claims: &Claims, client_id: &str) -> Result<(), IdTokenError> {
    let (ours, others) = match &claims.aud {
        Audience::One(one) => (one == client_id, false),
        Audience::Many(many) => (
            many.iter().any(|one| one == client_id),
            many.iter().any(|one| one != client_id),
        ),
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

/// The left half of the token's SHA-256, as OpenID Connect Core 3.1.3.6 has it for RS256.
fn access_token_hash(token: &str) -> String {
    let hash = Sha256::digest(token.as_bytes());
    let (left, _) = hash.as_slice().split_at(16);
    URL_SAFE_NO_PAD.encode(left)
}
