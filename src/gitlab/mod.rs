//! One GitLab, over HTTPS: where browsers are sent to sign in, and what it says about tokens and people.
//!
//! ```text
//! authorize_url ──browser──▶ code ──exchange──▶ TokenSet ──verify_id_token──▶ IdClaims { issuer, sub }
//!                                                  └───────identify─────────▶ Identity (/api/v4/user, then userinfo, then roles)
//! TokenSet.refresh ──refresh──▶ TokenSet          watch: discovery at start and while GitLab is out of reach
//! ```
//!
//! Every endpoint is a fixed path below the configured base URL; nothing that GitLab or a stranger says moves a call elsewhere. Each operation
//! has its own error, which tells apart just what its caller must decide. What follows from an error, and what is kept of the tokens, is the
//! business of whoever calls.

mod access_token;
mod api;
mod authorize;
mod breaker;
mod dial;
mod discovery;
mod failure;
mod groups;
mod http;
mod id_token;
mod job_token;
mod jwt;
mod keys;
mod lane;
mod look_up;
mod members;
mod oauth;
mod pace;
mod relay;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use url::Url;
use zeroize::Zeroizing;

pub use self::{
    access_token::{Checked, TokenError},
    api::{Ended, IdentifyError},
    authorize::AuthorizeRequest,
    dial::Roots,
    discovery::DiscoveryError,
    failure::{CallError, Certificate},
    groups::{GroupNeed, Needs},
    id_token::{IdClaims, IdTokenError},
    jwt::Unverified,
    look_up::LookedUp,
    oauth::{ExchangeError, RefreshError, RevokeError, TokenSet},
};
use crate::{config, identity::Identity};

/// Hears of every answered or failed request to a GitLab.
pub trait Observe: Send + Sync {
    /// One request to `endpoint` of `gitlab` is over: `status` is GitLab's, or a word such as `timeout`.
    fn request(&self, gitlab: &str, endpoint: &'static str, status: &str, took: Duration);
}

/// Observes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observe for Unobserved {
    fn request(&self, _: &str, _: &'static str, _: &str, _: Duration) {}
}

/// Why a `[gitlab.NAME]` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The `ca` file can't be read.
    #[error("the `ca` file can't be read")]
    CaFile(#[source] std::io::Error),
    /// The `ca` file holds no usable certificate.
    #[error("the `ca` file holds no usable PEM certificate")]
    CaContent,
    /// There is no application id.
    #[error("`client_id` is missing")]
    ClientId,
    /// Without one of these scopes GitLab won't say whether somebody is blocked.
    #[error(
        "`scopes` needs `read_user`, `read_api` or `api`: GitLab tells nothing of an account's state without it"
    )]
    Scopes,
    /// `authorize_params` or `forward_params` names what labgate itself says.
    #[error("the parameter `{0}` of `/oauth/authorize` is labgate's own")]
    Parameter(String),
    /// The forward proxy that the environment names can't be used.
    #[error("the proxy in the environment is not a plain http:// URL")]
    Proxy,
    /// TLS can't be set up at all.
    #[error("TLS can't be set up")]
    Tls(#[source] rustls::Error),
}

/// Scopes with one of which GitLab says whether an account is blocked.
pub const STATE_SCOPES: [&str; 3] = ["read_user", "read_api", "api"];

/// Calls in a minute about tokens that gitlab.com does not know. It allows 500 of nobody it knows from one address, and sign-ins need of them too;
/// other installations set no such limit by themselves, and jobs may bring them hundreds of new tokens.
const UNKNOWN_AT_COM: usize = 150;

/// One configured GitLab, shared by `Arc`.
pub struct Provider {
    name: String,
    label: String,
    base: Url,
    scopes: Vec<String>,
    verified_email: bool,
    archived: bool,
    revokes: bool,
    needs: Needs,
    client: http::Client,
    client_id: String,
    secret: Option<Zeroizing<String>>,
    authorize: authorize::Authorize,
    discovery: discovery::Discovery,
    keys: keys::Keys,
    tokens: config::Tokens,
    fingerprint: [u8; 32],
}

impl Provider {
    /// The GitLab of table `name`; `env` is asked for `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. Calls nobody yet.
    ///
    /// # Errors
    /// When the table can't work: see [`ProviderError`].
    pub fn new(
        name: &str,
        config: &config::GitLab,
        secret: Option<Zeroizing<String>>,
        needs: Needs,
        roots: &Roots,
        env: &dyn Fn(&str) -> Option<String>,
        observe: Arc<dyn Observe>,
    ) -> Result<Self, ProviderError> {
        if config.client_id.is_empty() {
            return Err(ProviderError::ClientId);
        }
        let scopes = needs.scopes(&config.scopes);
        let tells_state = |scope: &String| STATE_SCOPES.contains(&scope.as_str());
        if !scopes.iter().any(tells_state) {
            return Err(ProviderError::Scopes);
        }
        let base = config.internal_url.as_ref().unwrap_or(&config.base_url);
        let tls = dial::tls(roots, config.ca.as_deref())?;
        let proxy = dial::proxy(base, env)?;
        let token_calls = usize::try_from(config.tokens.max_checks).unwrap_or(usize::MAX);
        let lanes = lane::Lanes::new(token_calls, config.is_gitlab_com().then_some(UNKNOWN_AT_COM));
        let parts = (name, &config.base_url, base, &config.client_id, &config.tokens, &needs);
        let flags = (config.require_verified_email, config.archived_projects);
        let parts = format!("{parts:?} {flags:?}");
        Ok(Self {
            fingerprint: Sha256::digest(parts).into(),
            name: name.into(),
            label: config.label.clone().unwrap_or_else(|| "GitLab".into()),
            base: config.base_url.clone(),
            client: http::Client::new(name, base.clone(), tls, proxy, lanes, observe),
            client_id: config.client_id.clone(),
            secret,
            authorize: authorize::Authorize::new(config, scopes.join(" "))?,
            discovery: discovery::Discovery::new(&config.base_url),
            keys: keys::Keys::default(),
            verified_email: config.require_verified_email,
            tokens: config.tokens.clone(),
            archived: config.archived_projects,
            revokes: config.revoke_on_sign_out,
            scopes,
            needs,
        })
    }

    /// The name of its table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its button says, `GitLab` unless configured.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where browsers find it.
    pub fn base_url(&self) -> &Url {
        &self.base
    }

    /// All scopes that sign-ins ask for, `read_api` included when a rule needs it.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// What identities of this GitLab are keyed by: its base URL without a final slash, whatever discovery says and whether or not it can be asked.
    pub fn issuer(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether tokens are to be revoked when somebody signs out.
    pub fn revokes_on_sign_out(&self) -> bool {
        self.revokes
    }

    /// Whether a rule mentions `group`.
    pub fn is_ruled(&self, group: &config::GroupPath) -> bool {
        self.needs.groups.iter().any(|need| need.path.is(group.as_str()))
    }

    /// How many memberships of `identity`, from the first, are in groups that rules mention.
    pub fn ruled_groups(&self, identity: &Identity) -> usize {
        let ruled = |path: &str| self.needs.groups.iter().any(|need| need.path.is(path));
        identity.groups.iter().take_while(|membership| ruled(&membership.path)).count()
    }

    /// Whether rules ask for facts that `identity` does not have, though GitLab would tell them to a token with these scopes: the session is older
    /// than the rule, or than the release that knows of it.
    pub fn lacks_facts(&self, identity: &Identity, scopes: &str) -> bool {
        self.needs.lack(identity, scopes)
    }

    /// Which tokens count, and for how long.
    pub fn tokens(&self) -> &config::Tokens {
        &self.tokens
    }

    /// The application's id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Names all that an answer about a token depends on beside the token: what was known under another name is not known under this one.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether discovery has shown that this is labgate's own development GitLab, which asks for no password.
    pub fn is_development(&self) -> bool {
        self.discovery.is_development()
    }

    /// Whether it is known to be out of reach; calls then fail at once but for one now and then, so that recovery is noticed.
    pub fn is_down(&self) -> bool {
        self.client.is_down()
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Provider({} at {})", self.name, self.base)
    }
}
