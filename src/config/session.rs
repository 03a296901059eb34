//! `[session]`: how a signed-in browser is remembered, and for how long.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Problem, secret::Secret, value};

/// How a signed-in browser is remembered, and for how long.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Keys that seal cookies, newest first: the first seals, all open. Each is 32 bytes of base64 from `labgate keygen`. Required. Example `[{ file = "session.key" }]`.
    pub keys: Vec<Secret>,
    /// How long a session lives, however busy it is. Default `"12h"`.
    #[serde(with = "value::duration")]
    pub lifetime: Duration,
    /// How long a session lives without a request. Default: no such limit. Example `"4h"`.
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
    /// Name of the cookie, which gets the prefix `__Host-` where the browser sees https and no domain is set. Default `"labgate"`.
    #[serde(deserialize_with = "value::cookie_name")]
    pub name: String,
    /// Which cross-site requests carry the cookie: `"lax"` (navigations only) or `"none"` (an app in another site's frame). Default `"lax"`.
    pub same_site: SameSite,
    /// Domain whose hosts all get the cookie. Default: only the host that set it. Example `"example.com"`.
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
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase", untagged)]
pub enum StoreKind {
    /// In this process.
    #[default]
    #[serde(serialize_with = "memory")]
    Memory,
    /// In a Redis or Valkey that all replicas share.
    Redis(RedisStore),
}

/// A Redis or Valkey that all replicas share.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisStore {
    /// Its URL, a secret since it may hold a password: `redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://host,host/master`, `redis+cluster://host,host`. Required. Example `"rediss://:password@redis.example.com:6379/0"`.
    pub redis: Secret,
    /// What all keys begin with. Default `"labgate:"`.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// Certificate authorities in PEM that the server's certificate is checked against, instead of the system's. Example `"redis-ca.pem"`.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

fn prefix() -> String {
    "labgate:".into()
}

fn memory<S: Serializer>(to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str("memory")
}

impl Session {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.keys.is_empty() {
            let help = "make one with `labgate keygen`";
            problems
                .push(Problem::error("session.keys", "no key to seal sessions with").help(help));
        }
        let zeroes = [
            ("lifetime", self.lifetime.is_zero()),
            ("idle_timeout", self.idle_timeout.is_some_and(|time| time.is_zero())),
            ("recheck", self.recheck.is_zero()),
        ];
        let zeroes = zeroes.into_iter().filter(|(_, is_zero)| *is_zero);
        problems.extend(zeroes.map(|(key, _)| {
            Problem::error(format!("session.{key}"), "with zero no session could live")
        }));
        if self.idle_timeout.is_some_and(|idle| idle > self.lifetime) {
            let message = "longer than `lifetime`, so it never counts";
            problems.push(Problem::warning("session.idle_timeout", message));
        }
        problems
    }
}

impl<'de> Deserialize<'de> for StoreKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_struct("RedisStore", &["redis", "prefix", "ca"], StoreForm)
    }
}

struct StoreForm;

impl<'de> Visitor<'de> for StoreForm {
    type Value = StoreKind;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("`memory` or `{ redis = \"redis://…\" }`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StoreKind, E> {
        match text {
            "memory" => Ok(StoreKind::Memory),
            _ => Err(E::unknown_variant(text, &["memory"])),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StoreKind, A::Error> {
        RedisStore::deserialize(MapAccessDeserializer::new(map)).map(StoreKind::Redis)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            lifetime: Duration::from_hours(12),
            idle_timeout: None,
            recheck: Duration::from_mins(5),
            recheck_timeout: Duration::from_secs(1),
            grace: Duration::from_hours(1),
            cookie: CookieSettings::default(),
            store: StoreKind::Memory,
        }
    }
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self { name: "labgate".into(), same_site: SameSite::Lax, domain: None }
    }
}
