//! Leaves of the configuration that parse themselves, so that an error points at the very value.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use url::Url;

/// A role in a group or project, as GitLab's integer; compared, never matched.
///
/// Source: GitLab's members API, `access_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccessLevel(u8);

impl AccessLevel {
    /// Any membership at all.
    pub const MINIMAL: Self = Self(5);
    /// May see, and little more.
    pub const GUEST: Self = Self(10);
    /// May plan: issues and epics.
    pub const PLANNER: Self = Self(15);
    /// May read everything.
    pub const REPORTER: Self = Self(20);
    /// May push.
    pub const DEVELOPER: Self = Self(30);
    /// May configure.
    pub const MAINTAINER: Self = Self(40);
    /// May do all.
    pub const OWNER: Self = Self(50);

    const NAMES: [(&'static str, Self); 7] = [
        ("minimal", Self::MINIMAL),
        ("guest", Self::GUEST),
        ("planner", Self::PLANNER),
        ("reporter", Self::REPORTER),
        ("developer", Self::DEVELOPER),
        ("maintainer", Self::MAINTAINER),
        ("owner", Self::OWNER),
    ];

    /// The level that GitLab writes as `number`; none for 0, which is no membership.
    pub fn from_number(number: u8) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// GitLab's integer.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The name of the highest known role that this level reaches.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .rev()
            .find(|(_, level)| *level <= self)
            .map_or("minimal", |(name, _)| name)
    }
}

impl fmt::Display for AccessLevel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for AccessLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, level)| *level).ok_or_else(|| {
            let names = Self::NAMES.map(|(name, _)| name).join(", ");
            format!("unknown role `{text}`, expected one of {names}")
        })
    }
}

impl TryFrom<String> for AccessLevel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AccessLevel> for String {
    fn from(level: AccessLevel) -> Self {
        level.name().into()
    }
}

/// Full path of a group, such as `acme/web`; compared by whole segments, without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct GroupPath(String);

impl GroupPath {
    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this very group.
    pub fn is(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }

    /// Whether `other` is this group or an ancestor of it.
    pub fn is_within(&self, other: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), other.as_bytes());
        own.get(..other.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(other))
            && !other.is_empty()
            && own.get(other.len()).is_none_or(|next| *next == b'/')
    }
}

impl TryFrom<String> for GroupPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let segment = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        match text.split('/').all(segment) {
            true => Ok(Self(text)),
            false => Err(format!(
                "`{text}` is not the full path of a group, such as `acme/web`"
            )),
        }
    }
}

/// Which groups are handed on: a full path in which `*` stands for any characters, `/` included.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GroupPattern(String);

impl GroupPattern {
    /// The pattern that every group matches.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Whether the group at `path` matches, without regard to ASCII case.
    pub fn matches(&self, path: &str) -> bool {
        wildcard(self.0.as_bytes(), path.as_bytes())
    }
}

/// Greedy match with one point to come back to: linear in practice, quadratic at worst.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            },
            Some(wanted) if wanted.eq_ignore_ascii_case(byte) => {
                p += 1;
                t += 1;
            },
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

impl TryFrom<String> for GroupPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.is_empty() {
            true => Err("a group pattern can't be empty; `*` is every group".into()),
            false => Ok(Self(text)),
        }
    }
}

/// Host name of a route, lower-case and without a port: exact, or `*.` for any one label before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Any one label before this suffix, which is kept without `*.`.
    Wildcard(String),
}

impl HostPattern {
    /// Whether `host` (lower-case, no port, no final dot) matches.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(suffix) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == suffix),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => out.write_str(name),
            Self::Wildcard(suffix) => write!(out, "*.{suffix}"),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (lower.as_str(), false),
        };
        match url::Host::parse(name) {
            Ok(host) if !name.contains('*') => match (host, wildcard) {
                (url::Host::Domain(domain), true) => Ok(Self::Wildcard(domain)),
                (host, false) => Ok(Self::Exact(host.to_string())),
                (_, true) => Err(format!("`{text}`: an address has no labels")),
            },
            _ => Err(format!(
                "`{text}` is not a host name, such as `wiki.example.com`"
            )),
        }
    }
}

/// Path prefix of a route: begins with `/`, matches on segment borders.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The prefix, without a final slash except for `/` itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` is this prefix or lies below it.
    pub fn matches(&self, path: &str) -> bool {
        self.0 == "/"
            || path
                .strip_prefix(self.0.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".into())
    }
}

impl TryFrom<String> for PathPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = text.starts_with('/')
            && !text.contains("//")
            && !text
                .split('/')
                .any(|segment| segment == "." || segment == "..")
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"?#%\\;".contains(&byte));
        match plain {
            true if text.len() > 1 => Ok(Self(text.trim_end_matches('/').into())),
            true => Ok(Self(text)),
            false => Err(format!(
                "`{text}` is not a plain path prefix, such as `/docs`"
            )),
        }
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| D::Error::custom(format!("`{text}` is not a duration, such as `15m`")))?;
    Duration::try_from(span).map_err(|_| D::Error::custom("a duration can't be negative"))
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

pub(super) fn byte_size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let text = String::deserialize(from)?;
    let digits = text
        .trim_end_matches(|letter: char| letter.is_ascii_alphabetic())
        .trim_end();
    let unit = text.get(digits.len()..).unwrap_or_default().trim();
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    match digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
    {
        Some(size) if factor > 0 => Ok(size),
        _ => Err(D::Error::custom(format!(
            "`{text}` is not a size, such as `64KiB`"
        ))),
    }
}

pub(super) fn socket_address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!(
            "`{text}` is not an address and port, such as `0.0.0.0:4180`"
        ))
    })
}

pub(super) fn optional_origin<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Url>, D::Error> {
    let url = http_url::<D>(from)?;
    match url.path() {
        "/" => Ok(Some(url)),
        path => Err(D::Error::custom(format!(
            "leave the path `{path}` out: scheme, host and port only"
        ))),
    }
}

pub(super) fn base_url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let mut url = http_url::<D>(from)?;
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

pub(super) fn optional_base_url<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Url>, D::Error> {
    base_url(from).map(Some)
}

fn http_url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    let url = Url::parse(&text).map_err(|error| D::Error::custom(format!("`{text}`: {error}")))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    match plain {
        true => Ok(url),
        false => Err(D::Error::custom(format!(
            "`{text}` is not a plain http or https URL"
        ))),
    }
}

pub(super) fn prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let prefix = PathPrefix::deserialize(from)?;
    match prefix.as_str() {
        "/" => Err(D::Error::custom(
            "the prefix can't be `/`: all other paths belong to upstreams",
        )),
        path => Ok(path.into()),
    }
}

pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts
        .iter()
        .map(|text| network(text).map_err(D::Error::custom))
        .collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| address());
    match network {
        Ok(network) if network.prefix_len() == 0 => Err(format!(
            "`{text}` trusts everyone; name the networks of your proxies"
        )),
        Ok(network) => Ok(network),
        Err(_) => Err(format!("`{text}` is not a network, such as `10.0.0.0/8`")),
    }
}

pub(super) fn scopes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let scopes = Vec::<String>::deserialize(from)?;
    match scopes.iter().any(|scope| scope == "openid") {
        true => Ok(scopes),
        false => Err(D::Error::custom("`openid` is needed to sign in")),
    }
}

pub(super) fn cookie_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match !name.is_empty() && name.len() <= 64 && !name.starts_with("__") && name.bytes().all(token)
    {
        true => Ok(name),
        false => Err(D::Error::custom(format!(
            "`{name}` is not a cookie name; letters, digits, `-`, `_` and `.`, no `__` at the start"
        ))),
    }
}

pub(super) fn cookie_domain<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    let domain = text.trim_start_matches('.').to_ascii_lowercase();
    let registrable = psl::domain(domain.as_bytes()).is_some();
    match registrable {
        true => Ok(Some(domain)),
        false => Err(D::Error::custom(format!(
            "`{text}` is a public suffix: every site below it would get the cookie"
        ))),
    }
}

pub(super) fn methods<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<http::Method>>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let method = |text: &String| {
        let upper = text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        let parsed = http::Method::from_bytes(text.as_bytes())
            .ok()
            .filter(|_| upper);
        parsed.ok_or_else(|| D::Error::custom(format!("`{text}` is not a method, such as `GET`")))
    };
    texts.iter().map(method).collect::<Result<_, _>>().map(Some)
}

pub(super) fn log_filter<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(D::Error::custom(format!(
            "`{text}` is not a log filter: {error}"
        ))),
    }
}
