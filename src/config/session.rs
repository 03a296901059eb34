//! `[session]`: how a signed-in browser is remembered, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{secret::Secret, value};

/// How a signed-in browser is remembered, and for how long.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Keys that seal cookies, newest first: the first seals, all open. Each is 32 bytes of base64 from `labgate keygen`. Required.
    pub keys: Vec<Secret>,
    /// How long a session lives, however busy it is. Default `"12h"`.
    #[serde(with = "value::duration")]
    pub lifetime: Duration,
    /// How long a session lives without a request. Default: no such limit.
    #[serde(with = "value::duration::optional")]
    pub idle_timeout: Option<Duration>,
    /// How old GitLab's word on a user may be. Default `"5m"`.
    #[serde(with = "value::duration")]
    pub recheck: Duration,
    /// How long a request may wait for a word that is too old. Default `"1s"`.
    #[serde(with = "value::duration")]
    pub recheck_timeout: Duration,
    /// How old the last good word may be while GitLab can't be reached. Default `"1h"`.
    #[serde(with = "value::duration")]
    pub grace: Duration,
    /// The session cookie.
    pub cookie: CookieSettings,
    /// Where rotated tokens, newer memberships and revocations are kept. Default `"memory"`.
    pub store: StoreKind,
}

/// The session cookie.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CookieSettings {
    /// Its name, which gets the prefix `__Host-` where the browser sees https and no domain is set. Default `"labgate"`.
    #[serde(deserialize_with = "value::cookie_name")]
    pub name: String,
    /// Which cross-site requests carry it. Default `"lax"`.
    pub same_site: SameSite,
    /// The domain whose hosts all get it. Default: only the host that set it.
    #[serde(deserialize_with = "value::cookie_domain")]
    pub domain: Option<String>,
}

/// Which cross-site requests carry the session cookie; `strict` would lose the return from GitLab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Top-level navigations only.
    #[default]
    Lax,
    /// All of them; needed for an app inside another site's frame, and only over https.
    None,
}

/// Where rotated tokens, newer memberships and revocations are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In this process.
    #[default]
    Memory,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            lifetime: Duration::from_secs(12 * 3600),
            idle_timeout: None,
            recheck: Duration::from_secs(300),
            recheck_timeout: Duration::from_secs(1),
            grace: Duration::from_secs(3600),
            cookie: CookieSettings::default(),
            store: StoreKind::Memory,
        }
    }
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self {
            name: "labgate".into(),
            same_site: SameSite::Lax,
            domain: None,
        }
    }
}
