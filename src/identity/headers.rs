//! The one table of identity headers: what is written towards upstreams, and what no client may say.
//!
//! Stripped from every client, public routes included: all names in `[identity.headers]`, `X-Forwarded-{User,Email,Groups,Preferred-Username,Access-Token}`,
//! `X-Auth-Request-*`, `Remote-*`, `X-Remote-*`, `X-Webauth-*` and `X-Labgate-*`, in any case and with any other sign in place of `-`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Identity;

/// Which header says what of an identity.
#[derive(Clone, Debug, Default)]
pub struct HeaderTable {}

/// Why an entry of `[identity.headers]` can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{header}`: {reason}")]
pub struct HeaderTableError {
    /// The key as it was written.
    pub header: String,
    /// What is wrong with it.
    pub reason: String,
}

impl HeaderTable {
    /// The table that `[identity.headers]` describes: header name to claim or template.
    ///
    /// # Errors
    /// All entries with an invalid or reserved name, or with an unknown claim.
    pub fn new(headers: &BTreeMap<String, String>) -> Result<Self, Vec<HeaderTableError>> {
        let _ = headers;
        Ok(Self {})
    }

    /// Removes everything by which a client could claim an identity.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let _ = headers;
    }

    /// Whether no client may send `name`, as a header or as a trailer.
    pub fn claims(&self, name: &HeaderName) -> bool {
        let _ = name;
        false
    }

    /// The headers that say who `identity` is, ready to be kept beside it.
    pub fn render(&self, identity: &Identity) -> Vec<(HeaderName, HeaderValue)> {
        let _ = identity;
        Vec::new()
    }

    /// Writes the whole identity, empty values left out; call after [`Self::strip`].
    pub fn write(&self, identity: &Identity, headers: &mut HeaderMap) {
        let _ = (identity, headers);
    }
}
