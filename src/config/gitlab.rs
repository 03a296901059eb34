//! `[gitlab.NAME]`: one GitLab that people may sign in with.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Problem, secret::Secret, tokens::Tokens, value};

/// One GitLab that people may sign in with.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct GitLab {
    /// Where browsers find this GitLab; may carry a path. Default `"https://gitlab.com"`.
    #[serde(deserialize_with = "value::base_url")]
    pub base_url: Url,
    /// Where labgate finds it, if that is elsewhere. Example `"http://gitlab.svc"`.
    #[serde(deserialize_with = "value::optional_base_url")]
    pub internal_url: Option<Url>,
    /// The application id that GitLab gave. Required. Example `"the application id"`.
    pub client_id: String,
    /// The application's secret; without one labgate signs in as a public client, with PKCE alone. Example `{ file = "client-secret" }`.
    pub client_secret: Option<Secret>,
    /// What the button on the sign-in page says. Default: `GitLab`, or the host if several GitLabs would be called that. Example `"Work"`.
    pub label: Option<String>,
    /// Scopes asked for; `read_api` is added when a rule needs it. Default `["openid", "email", "read_user"]`.
    #[serde(deserialize_with = "value::scopes")]
    pub scopes: Vec<String>,
    /// PEM file of certificate authorities, added to the system's. Example `"internal-ca.pem"`.
    pub ca: Option<PathBuf>,
    /// Fixed extra parameters for `/oauth/authorize`. Default `{}`. Example `{ prompt = "login" }`.
    pub authorize_params: BTreeMap<String, String>,
    /// Parameters of the sign-in endpoint that are passed on to GitLab. Default `[]`. Example `["login_hint"]`.
    pub forward_params: Vec<String>,
    /// Whether an e-mail address counts only if GitLab calls it verified. Default `true`.
    pub require_verified_email: bool,
    /// Whether membership in an archived project counts as in any other. Default `true`.
    pub archived_projects: bool,
    /// The secret token of this GitLab's hooks, at least 16 bytes: it opens `/oauth2/hooks/NAME`, so that a lost membership counts at the next request. Default: no hooks. Example `{ file = "hook-secret" }`.
    pub hook_secret: Option<Secret>,
    /// An address at which applications reach this GitLab's API as the user whose assertion they show, without seeing a token; needs `identity.assertion`. Default: none. Example `{ listen = "127.0.0.1:4192", methods = ["GET", "HEAD"] }`.
    pub api: Option<Api>,
    /// Callers without a browser.
    pub tokens: Tokens,
    /// Whether signing out also revokes the session's tokens at GitLab, which then asks for consent again at the next sign-in. Default `false`.
    pub revoke_on_sign_out: bool,
    /// Whether this may be a development GitLab, which asks for no password, although labgate listens beyond loopback. Default `false`.
    pub insecure_allow_development_gitlab: bool,
}

/// An address at which applications reach GitLab's API.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// TCP address, on loopback: it believes whoever shows an assertion. Required. Example `"127.0.0.1:4192"`.
    #[serde(deserialize_with = "value::socket_address")]
    pub listen: SocketAddr,
    /// Methods that are passed on, case-sensitive. Default `["GET", "HEAD"]`.
    #[serde(default, with = "value::methods")]
    pub methods: Option<Vec<http::Method>>,
    /// Whether other machines may connect. Default `false`.
    #[serde(default)]
    pub insecure_allow_other_machines: bool,
}

impl Api {
    /// The methods that are passed on.
    pub fn methods(&self) -> Vec<http::Method> {
        self.methods.clone().unwrap_or_else(|| vec![http::Method::GET, http::Method::HEAD])
    }
}

impl GitLab {
    /// Whether it is the one where anybody in the world can have an account.
    pub fn is_gitlab_com(&self) -> bool {
        self.base_url.host_str() == Some("gitlab.com")
    }

    pub(super) fn problems(&self, key: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.client_id.trim().is_empty() {
            let message = "the application id that GitLab gave is needed";
            problems.push(Problem::error(format!("{key}.client_id"), message));
        }
        problems.extend(self.tokens.problems(&format!("{key}.tokens"), &self.client_id));
        let fixed = self.authorize_params.keys();
        let fixed = fixed.map(|name| (format!("{key}.authorize_params.{name}"), name));
        let forwarded = self.forward_params.iter().enumerate();
        let forwarded =
            forwarded.map(|(index, name)| (format!("{key}.forward_params[{index}]"), name));
        let own = fixed.chain(forwarded).filter(|(_, name)| OWN_PARAMS.contains(&name.as_str()));
        problems.extend(own.map(|(key, name)| {
            Problem::error(key, format!("labgate sets the parameter `{name}` itself"))
        }));
        problems
    }
}

/// Parameters on which the safety of a sign-in rests.
const OWN_PARAMS: [&str; 14] = [
    "claims",
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "gl_auth_type",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

impl Default for GitLab {
    fn default() -> Self {
        Self {
            base_url: Url::parse("https://gitlab.com/").expect("a constant URL"),
            internal_url: None,
            client_id: String::new(),
            client_secret: None,
            label: None,
            scopes: ["openid", "email", "read_user"].map(String::from).to_vec(),
            ca: None,
            authorize_params: BTreeMap::new(),
            forward_params: Vec::new(),
            require_verified_email: true,
            archived_projects: true,
            hook_secret: None,
            api: None,
            tokens: Tokens::default(),
            revoke_on_sign_out: false,
            insecure_allow_development_gitlab: false,
        }
    }
}
