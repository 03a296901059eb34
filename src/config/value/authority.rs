//! Host and port without a scheme, as of the host on which everybody signs in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Host name, lower-case, and port, if one is said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAndPort(String, Option<u16>);

impl HostAndPort {
    /// The host, without a final dot; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.0
    }

    /// The port; none for the scheme's default.
    pub const fn port(&self) -> Option<u16> {
        self.1
    }
}

impl fmt::Display for HostAndPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)?;
        self.1.map_or(Ok(()), |port| write!(out, ":{port}"))
    }
}

impl TryFrom<String> for HostAndPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let unclear = || {
            format!(
                "`{text}` is not a host, such as `auth.example.com` or `auth.example.com:8443`; leave scheme and path out"
            )
        };
        let (name, port) = match text.rsplit_once(':') {
            Some((name, digits)) if !digits.contains(']') => {
                let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let port = plain.then(|| digits.parse().ok()).flatten();
                (name, Some(port.filter(|port| *port != 0).ok_or_else(unclear)?))
            },
            Some(_) | None => (text.as_str(), None),
        };
        let name = name.to_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        match url::Host::parse(name) {
            Ok(host) if !name.contains('*') => Ok(Self(host.to_string(), port)),
            Ok(_) | Err(_) => Err(unclear()),
        }
    }
}

impl From<HostAndPort> for String {
    fn from(authority: HostAndPort) -> Self {
        authority.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port_are_read_and_nothing_else() {
        for (text, read) in [
            ("auth.example.com", "auth.example.com"),
            ("Auth.Example.com.", "auth.example.com"),
            ("auth.example.com:8443", "auth.example.com:8443"),
            ("127.0.0.1:4180", "127.0.0.1:4180"),
            ("[::1]", "[::1]"),
            ("[::1]:4180", "[::1]:4180"),
        ] {
            let authority = HostAndPort::try_from(text.to_owned());
            assert_eq!(authority.map(|it| it.to_string()).as_deref(), Ok(read), "{text}");
        }
        for text in [
            "",
            ":80",
            "https://auth.example.com",
            "auth.example.com/",
            "auth.example.com/oauth2",
            "user@auth.example.com",
            "*.example.com",
            "auth.example.com:",
            "auth.example.com:0",
            "auth.example.com:65536",
            "auth.example.com:+80",
            "auth example.com",
            "auth.example.com?x",
            "::1",
        ] {
            assert!(HostAndPort::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
