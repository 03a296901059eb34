//! Scheme, host and port.

use std::fmt;

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
}

/// Scheme, host and port, as browsers compare them: RFC 6454.
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
    /// The origin of an `http` or `https` URL with a host.
    pub fn of(url: &Url) -> Option<Self> {
        let _ = url;
        None
    }

    /// Host and port as in a `Host` field.
    pub fn authority(&self) -> String {
        String::new()
    }

    /// Whether the browser sees https, so that cookies can be `Secure`.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Https
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme.as_str(), self.authority())
    }
}
