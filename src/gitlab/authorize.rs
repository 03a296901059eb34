//! Where a browser is sent to sign in: GitLab's authorization endpoint at the URL that browsers know, with parameters that nobody else can set.

use std::fmt;

use url::Url;

use super::{Provider, ProviderError};
use crate::config;

/// Parameters of the authorization request that nobody but labgate sets.
const OURS: [&str; 13] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
    "claims",
    "gl_auth_type",
];

/// What one attempt to sign in asks of GitLab.
#[derive(Clone, Copy)]
pub struct AuthorizeRequest<'a> {
    /// Where the browser comes back to, exactly as registered.
    pub redirect_uri: &'a str,
    /// Binds the answer to this browser.
    pub state: &'a str,
    /// Binds the ID token to this attempt.
    pub nonce: &'a str,
    /// SHA-256 of the verifier in base64url, 43 characters.
    pub challenge: &'a str,
    /// Parameters that came with the sign-in; only those in `forward_params` are passed on.
    pub extra: &'a [(String, String)],
    /// Whether GitLab shall ask for the password again; it signs the person out of GitLab first.
    pub prompt_login: bool,
}

impl fmt::Debug for AuthorizeRequest<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "AuthorizeRequest(to {})", self.redirect_uri)
    }
}

/// The authorization endpoint, and what every request to it says.
pub(super) struct Authorize {
    endpoint: Url,
    client_id: String,
    scope: String,
    fixed: Vec<(String, String)>,
    forwarded: Vec<String>,
}

impl Authorize {
    pub(super) fn new(config: &config::GitLab, scope: String) -> Result<Self, ProviderError> {
        let params = config.authorize_params.keys().chain(&config.forward_params);
        if let Some(ours) = params.into_iter().find(|key| OURS.contains(&key.as_str())) {
            return Err(ProviderError::Parameter(ours.clone()));
        }
        let mut endpoint = config.base_url.clone();
        let path = endpoint.path().trim_end_matches('/').to_owned();
        endpoint.set_path(&format!("{path}/oauth/authorize"));
        let fixed = config.authorize_params.iter();
        Ok(Self {
            endpoint,
            client_id: config.client_id.clone(),
            scope,
            fixed: fixed.map(|(key, value)| (key.clone(), value.clone())).collect(),
            forwarded: config.forward_params.clone(),
        })
    }

    fn url(&self, request: &AuthorizeRequest<'_>) -> Url {
        let mut url = self.endpoint.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", request.redirect_uri)
            .append_pair("response_type", "code")
            .append_pair("scope", &self.scope)
            .append_pair("state", request.state)
            .append_pair("nonce", request.nonce)
            .append_pair("code_challenge", request.challenge)
            .append_pair("code_challenge_method", "S256");
        let taken = |key: &str| request.prompt_login && key == "prompt";
        let fixed = self.fixed.iter().filter(|(key, _)| !taken(key));
        let is_fixed = |key: &str| self.fixed.iter().any(|(fixed, _)| fixed == key);
        let forwarded = request
            .extra
            .iter()
            .filter(|(key, _)| self.forwarded.contains(key) && !is_fixed(key) && !taken(key));
        for (key, value) in fixed.chain(forwarded) {
            query.append_pair(key, value);
        }
        if request.prompt_login {
            query.append_pair("prompt", "login");
        }
        drop(query);
        url
    }
}

impl Provider {
    /// Where to send a browser that wants to sign in: always below the base URL that browsers know.
    pub fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Url {
        self.authorize.url(request)
    }
}
