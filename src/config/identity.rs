//! `[identity]`: what upstreams are told about the user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Problem, value::GroupPattern};

/// What upstreams are told about the user.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Groups handed on beside those that rules mention, while they fit the cookie; `*` stands for any characters. Default `["*"]`.
    pub groups: Vec<GroupPattern>,
    /// Header name to claim or template; replaces the default table. Every name in it is stripped from clients. Default `{ X-Forwarded-User = "username", X-Forwarded-Email = "email", X-Forwarded-Preferred-Username = "username", X-Forwarded-Groups = "groups" }`.
    pub headers: BTreeMap<String, String>,
}

impl Identity {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let refused = self.headers.keys().filter_map(|name| {
            let message = header_mistake(name)?;
            Some(Problem::error(format!("identity.headers.{name}"), message))
        });
        refused.collect()
    }
}

/// Why `name` can't carry a claim.
fn header_mistake(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
        return Some("not the name of a header");
    }
    FRAMING
        .contains(&lower.as_str())
        .then_some("this header steers the request itself and can't carry a claim")
}

/// Headers that decide where a request goes, where it ends, or what the upstream believes of the connection.
const FRAMING: [&str; 14] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
];

impl Default for Identity {
    fn default() -> Self {
        let headers = [
            ("X-Forwarded-User", "username"),
            ("X-Forwarded-Email", "email"),
            ("X-Forwarded-Preferred-Username", "username"),
            ("X-Forwarded-Groups", "groups"),
        ];
        Self {
            groups: vec![GroupPattern::any()],
            headers: headers.map(|(name, claim)| (name.into(), claim.into())).into(),
        }
    }
}
