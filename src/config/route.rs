//! `[[route]]`: what is protected, and by whom it may be used; the most specific host and path win.

use serde::{Deserialize, Serialize};

use super::{
    Problem,
    policy::Allow,
    value::{self, HostPattern, PathPrefix},
};

/// What is protected, and by whom it may be used.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Route {
    /// Host name, or `"*.example.com"` for one label. Default: any. Example `"app.example.com"`.
    pub host: Option<HostPattern>,
    /// Path prefix on segment borders. Default `"/"`.
    pub path: PathPrefix,
    /// Methods, case-sensitive. Default: all. Example `["GET", "HEAD"]`.
    #[serde(with = "value::methods")]
    pub methods: Option<Vec<http::Method>>,
    /// Name of an `[upstream.NAME]` or a URL; only where front proxies ask it can be left out. Required. Example `"http://127.0.0.1:3000"`.
    #[serde(deserialize_with = "value::one_upstream")]
    pub upstream: Option<String>,
    /// Names of the GitLabs whose users may come in here. Default: all. Example `["main"]`.
    pub gitlab: Option<Vec<String>>,
    /// Whether the page with one button per GitLab is shown even if there is one choice only. Default `false`.
    pub sign_in_page: bool,
    /// Who may pass: `"public"` is everybody, `"signed-in"` any active user of the route's GitLabs; of a list of rules one must hold, with all its conditions. Required. Example `[{ group = "acme" }]`.
    pub allow: Option<Allow>,
    /// Whether those who are refused are not told what the rules ask for and what they hold instead. Default `false`.
    pub hide_rules: bool,
    /// Whether headers of `[identity.headers]` that carry the claim `access_token` are written here: the application can then do at GitLab whatever the token's scopes allow, as that user. Default `false`.
    pub access_token: bool,
    /// Whether `allow = "signed-in"` may mean everybody who has an account at gitlab.com. Default `false`.
    pub insecure_allow_all_of_gitlab_com: bool,
}

impl Route {
    /// Whether users of the GitLab called `name` may come in here.
    pub fn admits(&self, name: &str) -> bool {
        self.gitlab.as_ref().is_none_or(|names| names.iter().any(|known| known == name))
    }

    /// What is wrong with it; `asked` says whether front proxies may ask about it.
    pub(super) fn problems(&self, key: &str, asked: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.upstream.is_none() && !asked {
            let message = "the application is needed: a URL or the name of an `[upstream.NAME]`";
            let help = "if a front proxy asks about this route, name its network in `server.trusted_proxies`";
            problems.push(Problem::error(format!("{key}.upstream"), message).help(help));
        }
        if self.access_token && matches!(self.allow, Some(Allow::Public)) {
            let message =
                "a public route gets no access tokens; guard what needs them by a route of its own";
            problems.push(Problem::error(format!("{key}.access_token"), message));
        }
        if self.gitlab.as_ref().is_some_and(Vec::is_empty) {
            let message = "nobody could sign in; leave the key out for all GitLabs";
            problems.push(Problem::error(format!("{key}.gitlab"), message));
        }
        if let Some(allow) = &self.allow {
            problems.extend(allow.problems(&format!("{key}.allow")));
        } else {
            let help = "say `\"public\"`, `\"signed-in\"` or a list of rules, such as `[{ group = \"acme\" }]`";
            let message = "it must be said who may pass";
            problems.push(Problem::error(format!("{key}.allow"), message).help(help));
        }
        problems
    }
}
