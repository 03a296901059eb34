//! The session cookie as a browser keeps it: names, prefixes, attributes (RFC 6265bis), reading, clearing, and keeping it from upstreams.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::config::{CookieSettings, SameSite};

/// The browser's view of the site a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site<'a> {
    /// Host without port.
    pub host: &'a str,
    /// Whether the browser sees https.
    pub secure: bool,
}

/// Name and attributes of the session cookie.
#[derive(Clone, Debug)]
pub struct SessionCookie {
    name: String,
    same_site: SameSite,
    domain: Option<String>,
}

/// Values of the session cookie in one request, in the order of the browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates<'a>(Vec<&'a str>);

impl SessionCookie {
    /// The cookie of `[session] cookie`.
    pub fn new(settings: &CookieSettings) -> Self {
        Self {
            name: settings.name.clone(),
            same_site: settings.same_site,
            domain: settings.domain.clone(),
        }
    }

    /// The `Set-Cookie` that keeps `value` for `max_age`.
    pub fn set(&self, site: Site<'_>, value: &str, max_age: Duration) -> Option<HeaderValue> {
        let _ = (
            site,
            value,
            max_age,
            self.same_site,
            &self.domain,
            &self.name,
        );
        None
    }

    /// The `Set-Cookie` that ends the session cookie.
    pub fn clear(&self, site: Site<'_>) -> HeaderValue {
        let _ = site;
        HeaderValue::from_static("")
    }

    /// The values that a browser sent under the session cookie's name.
    pub fn read<'a>(&self, headers: &'a HeaderMap, site: Site<'_>) -> Candidates<'a> {
        let _ = (headers, site);
        Candidates::default()
    }

    /// Removes all of labgate's cookies from a request; the others stay byte for byte, in order.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let _ = headers;
    }

    /// Removes each `Set-Cookie` by which an upstream would set one of labgate's cookies; returns how many.
    pub fn drop_hostile_set_cookies(&self, headers: &mut HeaderMap) -> usize {
        let _ = headers;
        0
    }
}
