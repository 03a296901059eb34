//! Scheme, host and port as browsers compare them, and the parser of every authority that a request names.
//!
//! One spelling each: lower-case, no final dot, IPv6 addresses in brackets and shortened, no port that is the scheme's default. Whatever
//! could be read differently by somebody else (user info, lists, escapes, odd ports) is no authority here: threats G7, G8, E9.

use std::{fmt, net::Ipv6Addr};

use url::Url;

/// How a browser speaks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The scheme of this name, in any case; those of `WebSocket`s count as what carries them.
    pub(super) fn named(name: &str) -> Option<Self> {
        let is = |other| name.eq_ignore_ascii_case(other);
        match () {
            () if is("https") || is("wss") => Some(Self::Https),
            () if is("http") || is("ws") => Some(Self::Http),
            () => None,
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port, as browsers compare them: RFC 6454; displayed as `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The scheme.
    pub scheme: Scheme,
    /// Lower-case, without a final dot; an IPv6 address in brackets.
    pub host: String,
    /// None if it is the scheme's default.
    pub port: Option<u16>,
}

impl Origin {
    /// The origin of an `http` or `https` URL; none for any other.
    pub fn of(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let mut authority = Authority::parse(url.host_str()?)?;
        authority.port = url.port();
        Some(Self::new(scheme, authority))
    }

    pub(super) fn new(scheme: Scheme, authority: Authority) -> Self {
        let port = authority.port.filter(|port| *port != scheme.default_port());
        Self { scheme, host: authority.host, port }
    }

    /// Host and port as in a `Host` field, the default port left out.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// The port, said or not.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// Whether `text` is this origin's authority to the letter, which saves reading it.
    pub(super) fn is_called(&self, text: &str) -> bool {
        let port = text.strip_prefix(self.host.as_str());
        port.is_some_and(|port| match self.port {
            None => port.is_empty(),
            Some(own) => port
                .strip_prefix(':')
                .is_some_and(|said| !said.starts_with(['0', '+']) && said.parse() == Ok(own)),
        })
    }

    /// Whether the browser sees https, so that its cookies can be `Secure`.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Https
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme.as_str(), self.host)?;
        match self.port {
            Some(port) => write!(out, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Host and port as somebody wrote them, in the one spelling of [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; none if it is anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, rest) = if let Some(inner) = text.strip_prefix('[') {
            let (address, rest) = inner.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (url::Host::<&str>::Ipv6(address).to_string(), rest)
        } else {
            let end = text.find(':').unwrap_or(text.len());
            let (name, rest) = text.split_at_checked(end)?;
            (name_of(name)?, rest)
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(port(digits)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self { host, port })
    }
}

/// A registered name or IPv4 address, lower-case and without its final dot: RFC 1035 section 2.3.4, and `_` as in container names.
fn name_of(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

/// Up to five digits, and neither 0 nor beyond 65535.
pub(super) fn port(digits: &str) -> Option<u16> {
    let plain = digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?.filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_called_by_its_very_letters_only() {
        let origin = |url: &str| Origin::of(&Url::parse(url).unwrap()).unwrap();
        let plain = origin("https://app.example.com");
        let odd = origin("https://app.example.com:8443");
        assert!(plain.is_called("app.example.com") && odd.is_called("app.example.com:8443"));
        for text in ["app.example.com.", "APP.example.com", "app.example.com:", "app.example.comx"]
        {
            assert!(!plain.is_called(text), "{text}");
        }
        for text in ["app.example.com", "app.example.com:08443", "app.example.com:+8443"] {
            assert!(!odd.is_called(text), "{text}");
        }
    }

    #[test]
    fn authorities_have_one_spelling() {
        let table = [
            ("app.example.com", "app.example.com", None),
            ("APP.Example.com", "app.example.com", None),
            ("app.example.com.", "app.example.com", None),
            ("app.example.com.:8443", "app.example.com", Some(8443)),
            ("my_app-1", "my_app-1", None),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[0:0:0:0:0:0:0:1]", "[::1]", None),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
        ];
        for (text, host, port) in table {
            let host = host.to_owned();
            assert_eq!(Authority::parse(text), Some(Authority { host, port }), "{text}");
        }
    }

    #[test]
    fn what_others_could_read_differently_is_no_authority() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127) + "a";
        let table = [
            "",
            ".",
            ":80",
            "app..example",
            ".app",
            "app.example..",
            "user@app",
            "user:secret@app",
            "app,evil",
            "app evil",
            " app",
            "app\t",
            "app/",
            "app\\",
            "app%2eevil",
            "app#x",
            "app?x",
            "\"app\"",
            "app\0",
            "b\u{fc}cher.example",
            "app:",
            "app:0",
            "app:65536",
            "app:+80",
            "app:-1",
            "app:80x",
            "app:80:80",
            "app:000080",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%eth0]",
            "[app]",
            "[127.0.0.1]",
            "::1",
            &long_label,
            &long_name,
        ];
        for text in table {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn origins_leave_the_default_port_out() {
        let table = [
            ("https://App.example.com:443/x?y", "https://app.example.com"),
            ("https://app.example.com:80", "https://app.example.com:80"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com.:443", "http://app.example.com:443"),
            ("http://[::1]:4180", "http://[::1]:4180"),
        ];
        for (url, origin) in table {
            let parsed = Origin::of(&url.parse().unwrap()).unwrap();
            assert_eq!(parsed.to_string(), origin);
            assert_eq!(parsed.authority(), origin.split_once("://").unwrap().1, "{url}");
        }
        for url in ["ftp://app", "data:x", "file:///etc"] {
            assert_eq!(Origin::of(&url.parse().unwrap()), None);
        }
    }
}
