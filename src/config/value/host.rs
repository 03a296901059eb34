//! Hosts of routes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Host name of a route, lower-case and without a port: exact, or `*.` for any one label before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
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
        let lower = text.to_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (lower.as_str(), false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        match url::Host::parse(name) {
            Ok(host) if !name.contains('*') => match (host, wildcard) {
                (url::Host::Domain(domain), true) => Ok(Self::Wildcard(domain)),
                (host, false) => Ok(Self::Exact(host.to_string())),
                (_, true) => Err(format!("`{text}`: an address has no labels")),
            },
            _ => Err(format!(
                "`{text}` is not a host name without a port, such as `wiki.example.com` or `*.example.com`"
            )),
        }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_pattern_is_a_host_or_one_label_more() {
        for (text, host, matches) in [
            ("wiki.example.com", "wiki.example.com", true),
            ("WIKI.Example.com.", "wiki.example.com", true),
            ("wiki.example.com", "evil-wiki.example.com", false),
            ("wiki.example.com", "wiki.example.com.evil.org", false),
            ("*.example.com", "wiki.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "wikiexample.com", false),
            ("bücher.example", "xn--bcher-kva.example", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("[::1]", "[::1]", true),
        ] {
            assert_eq!(pattern(text).matches(host), matches, "{text} {host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "*.*.example.com",
            "a.*.com",
            "wiki.example.com:80",
            "https://a.example",
            "a b",
            "a/b",
            "*.127.0.0.1",
            "a@b",
        ] {
            assert!(HostPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_written_as_it_is_read() {
        for text in ["wiki.example.com", "*.example.com"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }
}
