//! `[[route]]`: what is protected, and by whom it may be used; the most specific host and path win.

use serde::{Deserialize, Serialize};

use super::{
    policy::Allow,
    value::{self, HostPattern, PathPrefix},
};

/// What is protected, and by whom it may be used.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// Host name, or `"*.example.com"` for one label. Default any.
    pub host: Option<HostPattern>,
    /// Path prefix on segment borders. Default `"/"`.
    pub path: PathPrefix,
    /// Methods, case-sensitive. Default all.
    #[serde(with = "value::methods")]
    pub methods: Option<Vec<http::Method>>,
    /// Name of an `[upstream.NAME]` or a URL. Required while labgate forwards.
    pub upstream: Option<String>,
    /// Names of the GitLabs whose users may come in here. Default all.
    pub gitlab: Option<Vec<String>>,
    /// Whether the page with one button per GitLab is shown even if there is one choice only. Default `false`.
    pub sign_in_page: bool,
    /// Who may pass. Required.
    pub allow: Option<Allow>,
    /// Whether `allow = "signed-in"` may mean everybody who has an account at gitlab.com. Default `false`.
    pub insecure_allow_all_of_gitlab_com: bool,
}
