//! `[identity]`: what upstreams are told about the user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value::GroupPattern;

/// What upstreams are told about the user.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Groups handed on beside those that rules mention, while they fit the cookie. Default `["*"]`.
    pub groups: Vec<GroupPattern>,
    /// Header name to claim or template; replaces the default table. Every name in it is stripped from clients.
    pub headers: BTreeMap<String, String>,
}

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
            headers: headers
                .map(|(name, claim)| (name.into(), claim.into()))
                .into(),
        }
    }
}
