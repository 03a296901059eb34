//! The one table of identity headers: what is written towards upstreams, and what no client may say.
//!
//! Stripped from every client, public routes included: all names in `[identity.headers]`, `X-Forwarded-{User,Email,Groups,Preferred-Username,Access-Token}`,
//! `X-Auth-Request-*`, `Remote-*`, `X-Remote-*`, `X-Webauth-*` and `X-Labgate-*`, in any case and with any other sign in place of `-`: for many an
//! application `X_Remote.User` is the same header (threat D1).
//!
//! Written are claims and templates of them. In values, control characters, non-ASCII (as UTF-8), `%` and spaces at either end are percent-encoded, in
//! lists the comma too, so that no name or group can pass for two (threat A29). Where a claim is empty the header is absent.
//!
//! Most headers are as good as the identity is and rendered once for it. Assertions and access tokens pass: they are rendered for each request, out of
//! values that its caller has ready. Hop-by-hop headers and those about the connection are `forward`'s.

mod answer;
mod template;

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, header::InvalidHeaderName};

pub use self::answer::NoRoom;
use self::template::Template;
use super::Identity;

/// Names stripped from clients beside those of the table.
const STRIPPED: [&str; 5] = [
    "x-forwarded-access-token",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
];

/// Where the assertion is by default; stripped by its stem.
const ASSERTION: &str = "x-labgate-assertion";

/// Stripped from clients alone and before another `-`.
const STRIPPED_STEMS: [&str; 5] =
    ["remote", "x-auth-request", "x-labgate", "x-remote", "x-webauth"];

/// Names that say something else, so that no identity may be written there.
const RESERVED: [&str; 38] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "x-real-ip",
];

/// Like [`RESERVED`], alone and before another `-`.
const RESERVED_STEMS: [&str; 7] = [
    "if",
    "sec",
    "x-http-method",
    "x-method-override",
    "x-original",
    "x-request-id",
    "x-rewrite-url",
];

/// Which header says what of an identity.
#[derive(Clone, Debug)]
pub struct HeaderTable {
    lasting: Vec<(HeaderName, Template)>,
    /// Those that say an assertion or an access token.
    passing: Vec<(HeaderName, Template)>,
    /// First bytes of all names that are stripped, folded, as bits: most headers of a request are done with at one look.
    initials: u128,
}

/// What may be said of a user for a while only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passing<'a> {
    /// The signed statement.
    pub assertion: Option<&'a HeaderValue>,
    /// GitLab's access token of the session, where the route asks for it.
    pub access_token: Option<&'a str>,
}

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
    /// All entries with an invalid, reserved or doubled name, or with an unknown claim.
    pub fn new(headers: &BTreeMap<String, String>) -> Result<Self, Vec<HeaderTableError>> {
        let mut written: Vec<(HeaderName, Template)> = Vec::new();
        let mut errors = Vec::new();
        for (header, says) in headers {
            match entry(header, says, &written) {
                Ok(entry) => written.push(entry),
                Err(reason) => errors.push(HeaderTableError { header: header.clone(), reason }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let own = written.iter().map(|(name, _)| name.as_str());
        let stripped = own.chain(STRIPPED).chain(STRIPPED_STEMS);
        let initials = stripped.map(initial).fold(0, |all, one| all | one);
        let passes = |(_, template): &(_, Template)| template.asserts() || template.tells_token();
        let (passing, lasting) = written.into_iter().partition(passes);
        Ok(Self { lasting, passing, initials })
    }

    /// Removes everything by which a client could claim an identity.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let claims = headers.keys().filter(|name| self.claims(name));
        let claims: Vec<HeaderName> = claims.cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }

    /// Whether a client that sends `name`, as a header or in a trailer, could claim an identity by it.
    pub fn claims(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.initials & initial(name) != 0
            && (self.written().any(|(own, _)| same(own.as_str(), name))
                || is_any(&STRIPPED, name)
                || has_stem(&STRIPPED_STEMS, name))
    }

    /// The headers that say who `identity` is, empty values left out; to be set after [`Self::strip`], and good for as long as the identity is.
    pub fn render(&self, identity: &Identity) -> Vec<(HeaderName, HeaderValue)> {
        rendered(&self.lasting, identity, Passing::default()).collect()
    }

    /// The headers beside these that say what passes, empty values left out.
    pub fn render_passing<'a>(
        &'a self,
        identity: &'a Identity,
        passing: Passing<'a>,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'a {
        rendered(&self.passing, identity, passing)
    }

    /// Whether a header says an assertion.
    pub fn asserts(&self) -> bool {
        self.passing.iter().any(|(_, template)| template.asserts())
    }

    /// The first header that says an assertion, and the first that says an access token.
    pub fn told_in_passing(&self) -> [Option<&HeaderName>; 2] {
        let first = |tells: fn(&Template) -> bool| {
            let found = self.passing.iter().find(|(_, template)| tells(template));
            found.map(|(name, _)| name)
        };
        [first(Template::asserts), first(Template::tells_token)]
    }

    /// Whether [`Self::render_passing`] has anything to say.
    pub fn has_passing(&self) -> bool {
        !self.passing.is_empty()
    }

    fn written(&self) -> impl Iterator<Item = &(HeaderName, Template)> {
        self.lasting.iter().chain(&self.passing)
    }
}

fn rendered<'a>(
    table: &'a [(HeaderName, Template)],
    identity: &'a Identity,
    passing: Passing<'a>,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'a {
    table.iter().filter_map(move |(name, template)| {
        let mut value = template.render(identity, &passing)?;
        value.set_sensitive(template.tells_token());
        Some((name.clone(), value))
    })
}

fn entry(
    header: &str,
    says: &str,
    earlier: &[(HeaderName, Template)],
) -> Result<(HeaderName, Template), String> {
    let name = name_of(header).map_err(|_| "not a header name".to_owned())?;
    if is_any(&RESERVED, name.as_str()) || has_stem(&RESERVED_STEMS, name.as_str()) {
        return Err("this header says something else and can't carry an identity".into());
    }
    let twin = |(other, _): &&(HeaderName, Template)| same(other.as_str(), name.as_str());
    if let Some((other, _)) = earlier.iter().find(twin) {
        return Err(format!("applications may take it for `{other}`, which is listed too"));
    }
    Ok((name, says.parse()?))
}

/// A name that is known when this is compiled: copying it for each request touches no count of its users.
fn name_of(header: &str) -> Result<HeaderName, InvalidHeaderName> {
    let known = STRIPPED.into_iter().chain([ASSERTION]);
    match known.into_iter().find(|known| known.eq_ignore_ascii_case(header)) {
        Some(known) => Ok(HeaderName::from_static(known)),
        None => HeaderName::try_from(header),
    }
}

/// Any sign counts as `-`; header names are in lower case already, and what is not is taken for it.
fn fold_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// The bit of a name's first byte.
fn initial(name: &str) -> u128 {
    let first = name.bytes().next().unwrap_or_default();
    1 << fold_byte(first)
}

/// Whether two names are one for an application that folds signs and case.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(one, other)| fold_byte(one) == fold_byte(other))
}

fn is_any(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| same(other, name))
}

/// Whether `name` is one of `stems`, alone or with more after a sign.
fn has_stem(stems: &[&str], name: &str) -> bool {
    stems.iter().any(|stem| {
        let head = name.get(..stem.len()).unwrap_or_default();
        let next = name.as_bytes().get(stem.len());
        same(stem, head) && next.is_none_or(|next| fold_byte(*next) == b'-')
    })
}

#[cfg(test)]
mod tests;
