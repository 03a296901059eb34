//! The session cookie as a browser keeps it (RFC 6265bis): names, prefixes, attributes, reading, clearing, and keeping it from upstreams.
//!
//! ```text
//! browser sees   domain   name                         attributes
//! https          none     __Host-labgate               Path=/; HttpOnly; SameSite; Secure
//! https          set      __Secure-labgate             … Domain
//! http           any      labgate                      Path=/; HttpOnly; SameSite=Lax
//! ```
//!
//! A domain counts on its own hosts only; elsewhere the cookie is the host's. Cookies of sign-ins are `attempt`'s, their names are derived here
//! so that all of labgate's names are known in one place.

use std::{fmt::Write as _, time::Duration};

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};

use super::jar;
use crate::config::{CookieSettings, SameSite};

/// The browser's view of the site that a request is for.
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

/// Why settings make no cookie.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// The name has signs that no cookie name may have.
    #[error("`{0}` is not a cookie name")]
    Name(String),
    /// The domain is no host name.
    #[error("`{0}` is not a domain")]
    Domain(String),
}

/// Values of one cookie in one request, in the order of the browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates<'a> {
    /// At most four values that may be sealed text; the first that opens is the one.
    pub values: Vec<&'a str>,
    /// Whether the name is there at all, so that a cookie without a use can be cleared.
    pub present: bool,
}

/// More cookies of one name come from somebody else on a neighbouring host; trying on would be work at their command.
const MAX_CANDIDATES: usize = 4;

/// The most bytes of a whole `Set-Cookie` value; browsers keep 4096 of name and value (RFC 6265bis, 6.1).
pub(super) const MAX_COOKIE: usize = 4096;

const ATTEMPT: &str = "-attempt-";
const PREFIXES: [&str; 3] = ["__Host-", "__Secure-", ""];

/// The one `Cookie` line of a request without labgate's cookies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// Nobody has looked yet, or there are several lines.
    #[default]
    Unknown,
    /// Nothing is left.
    None,
    /// This is left.
    Line(HeaderValue),
}

impl SessionCookie {
    /// The cookie of `[session] cookie`.
    ///
    /// # Errors
    /// When name or domain has signs that don't belong into a `Set-Cookie`.
    pub fn new(settings: &CookieSettings) -> Result<Self, CookieError> {
        let CookieSettings { name, same_site, domain } = settings;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_word) {
            return Err(CookieError::Name(name.clone()));
        }
        let bad = |domain: &&String| domain.is_empty() || !domain.bytes().all(is_word);
        if let Some(domain) = domain.as_ref().filter(bad) {
            return Err(CookieError::Domain(domain.clone()));
        }
        Ok(Self { name: name.clone(), same_site: *same_site, domain: domain.clone() })
    }

    /// The cookie's full name for a site.
    pub fn name(&self, site: Site<'_>) -> String {
        let prefix = match (site.secure, self.domain(site)) {
            (true, None) => "__Host-",
            (true, Some(_)) => "__Secure-",
            (false, _) => "",
        };
        format!("{prefix}{}", self.name)
    }

    /// Who the cookie is for: its domain, or the site's host.
    pub fn audience<'a>(&'a self, site: Site<'a>) -> &'a str {
        self.domain(site).unwrap_or(site.host)
    }

    /// The `Set-Cookie` that ends the session cookie, with the attributes that it was set with.
    pub fn clear(&self, site: Site<'_>) -> HeaderValue {
        self.set(site, "", Duration::ZERO)
    }

    /// The `Set-Cookie` that keeps `value`, a sealed text, for `max_age`.
    pub(super) fn set(&self, site: Site<'_>, value: &str, max_age: Duration) -> HeaderValue {
        let set = SetCookie {
            name: &self.name(site),
            value,
            path: "/",
            domain: self.domain(site),
            max_age,
            secure: site.secure,
            // Browsers refuse SameSite=None without Secure.
            same_site: if site.secure { self.same_site } else { SameSite::Lax },
        };
        set.header()
    }

    /// How many bytes the `Set-Cookie` of a value of `len` bytes has.
    pub(super) fn set_len(&self, site: Site<'_>, len: usize, max_age: Duration) -> usize {
        self.set(site, "", max_age).len() + len
    }

    /// The values that a browser sent as its session cookie; those that look like none are left out.
    pub fn read<'a>(&self, headers: &'a HeaderMap, site: Site<'_>) -> Candidates<'a> {
        read(headers, self.name(site).as_bytes())
    }

    /// Removes all of labgate's cookies from a request; the others stay byte for byte, in order. `others` saves the work where it is known.
    pub fn strip(&self, headers: &mut HeaderMap, others: &Others) {
        match others {
            Others::Unknown => jar::strip(headers, |name| self.owns(name)),
            Others::None => drop(headers.remove(COOKIE)),
            Others::Line(line) => drop(headers.insert(COOKIE, line.clone())),
        }
    }

    /// What is left of a `Cookie` line without labgate's cookies.
    pub(super) fn others(&self, line: &HeaderValue) -> Others {
        let mut alone = HeaderMap::with_capacity(1);
        alone.insert(COOKIE, line.clone());
        self.strip(&mut alone, &Others::Unknown);
        alone.remove(COOKIE).map_or(Others::None, Others::Line)
    }

    /// Removes each `Set-Cookie` by which an upstream would set one of labgate's cookies, keeps the others in order; returns how many went.
    pub fn drop_hostile_set_cookies(&self, headers: &mut HeaderMap) -> usize {
        let is_hostile = |value: &HeaderValue| self.owns(jar::loose_name(value.as_bytes()));
        let all = headers.get_all(SET_COOKIE).iter();
        let hostile = all.filter(|value| is_hostile(value)).count();
        if hostile == 0 {
            return 0;
        }
        let all = headers.get_all(SET_COOKIE).iter();
        let kept: Vec<_> = all.filter(|value| !is_hostile(value)).cloned().collect();
        headers.remove(SET_COOKIE);
        for value in kept {
            headers.append(SET_COOKIE, value);
        }
        hostile
    }

    /// The name of a sign-in's cookie below `path`; `__Host-` takes the whole host, so that no other host can set it.
    pub(super) fn attempt_name(&self, site: Site<'_>, path: &str, suffix: &str) -> String {
        let prefix = match (site.secure, path) {
            (true, "/") => "__Host-",
            (true, _) => "__Secure-",
            (false, _) => "",
        };
        format!("{prefix}{}{ATTEMPT}{suffix}", self.name)
    }

    /// Whether a name is one of labgate's, in any prefix form and any case: browsers compare prefixes case-insensitively.
    fn owns(&self, name: &[u8]) -> bool {
        PREFIXES.iter().any(|prefix| {
            let rest = without(name, prefix.as_bytes());
            let rest = rest.and_then(|rest| without(rest, self.name.as_bytes()));
            rest.is_some_and(|rest| rest.is_empty() || without(rest, ATTEMPT.as_bytes()).is_some())
        })
    }

    fn domain(&self, site: Site<'_>) -> Option<&str> {
        let is_within = |domain: &&str| {
            let start = site.host.len().checked_sub(domain.len());
            let Some((above, tail)) = start.and_then(|start| site.host.split_at_checked(start))
            else {
                return false;
            };
            tail.eq_ignore_ascii_case(domain) && (above.is_empty() || above.ends_with('.'))
        };
        self.domain.as_deref().filter(is_within)
    }
}

/// What goes into one `Set-Cookie`; names, paths and domains are checked before, values are sealed text.
pub(super) struct SetCookie<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) path: &'a str,
    pub(super) domain: Option<&'a str>,
    pub(super) max_age: Duration,
    pub(super) secure: bool,
    pub(super) same_site: SameSite,
}

impl SetCookie<'_> {
    pub(super) fn header(&self) -> HeaderValue {
        let Self { name, value, .. } = self;
        let mut text = format!(
            "{name}={value}; Path={}; Max-Age={}; HttpOnly; SameSite={}",
            self.path,
            self.max_age.as_secs(),
            match self.same_site {
                SameSite::Lax => "Lax",
                SameSite::None => "None",
            }
        );
        if self.secure {
            text.push_str("; Secure");
        }
        if let Some(domain) = self.domain {
            let written = write!(text, "; Domain={domain}");
            debug_assert!(written.is_ok(), "a string takes all");
        }
        let mut header =
            HeaderValue::try_from(text).expect("names, paths and domains come from configuration");
        header.set_sensitive(true);
        header
    }
}

/// The values of the cookie `name` that may be sealed text.
pub(super) fn read<'a>(headers: &'a HeaderMap, name: &[u8]) -> Candidates<'a> {
    let pairs = jar::pairs(headers, |other| other == name);
    let present = !pairs.is_empty();
    let plain = pairs.into_iter().filter(|pair| pair.plain);
    let texts = plain.filter_map(|pair| sealed_text(pair.value));
    Candidates { values: texts.take(MAX_CANDIDATES).collect(), present }
}

/// `value` if it is non-empty base64url without quotes or anything else around.
pub(super) fn sealed_text(value: &[u8]) -> Option<&str> {
    let is_sign = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let text = std::str::from_utf8(value).ok()?;
    (!value.is_empty() && value.iter().all(is_sign)).then_some(text)
}

fn without<'a>(name: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = name.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}
