//! Which peers are believed, and what they say about the browser: `X-Forwarded-{Proto,Host,Port,For}`.
//!
//! A proxy that appends leaves what a stranger sent to the left of its own word, so of several values the rightmost counts. One that can't
//! be read is refused rather than skipped: a guess would build wrong redirect URLs. An empty one says nothing. Threats D7, D8, A14.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

use super::origin::{self, Authority, Scheme};
use crate::config::TrustedProxies;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The networks of `server.trusted_proxies`.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    networks: Vec<IpNet>,
}

impl Trust {
    /// Trusts these networks and no other.
    pub fn new(proxies: &TrustedProxies) -> Self {
        Self { networks: proxies.0.iter().copied().map(folded).collect() }
    }

    /// Whether `addr` lies in one of the networks; an IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.networks.iter().any(|network| network.contains(&addr))
    }

    /// The client behind `peer`: the rightmost address in `X-Forwarded-For` that is not trusted, going back from the peer.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // The word of a peer that is not trusted need not be looked for.
        if !self.contains(client) {
            return client;
        }
        for line in headers.get_all(FOR).iter().rev() {
            let Ok(line) = line.to_str() else {
                return client;
            };
            for hop in line.rsplit(',').map(str::trim) {
                if hop.is_empty() {
                    continue;
                }
                // Beyond a hop that can't be trusted or read, everything is hearsay.
                let Some(addr) = address(hop).filter(|_| self.contains(client)) else {
                    return client;
                };
                client = addr;
            }
        }
        client
    }
}

/// `::ffff:a.b.c.d/96+n` as `a.b.c.d/n`, like the addresses that are looked up.
fn folded(network: IpNet) -> IpNet {
    let mapped = |network: ipnet::Ipv6Net| -> Option<(Ipv4Addr, u8)> {
        Some((network.addr().to_ipv4_mapped()?, network.prefix_len().checked_sub(96)?))
    };
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(six) => mapped(six)
            .and_then(|(addr, length)| Ipv4Net::new(addr, length).ok())
            .map_or(network, IpNet::V4),
    }
}

/// An address, alone or with a port, IPv6 in brackets or without.
fn address(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    let addr = hop.parse().ok().or_else(bracketed).or_else(with_port);
    addr.map(|addr: IpAddr| addr.to_canonical())
}

/// What a trusted peer says that the browser asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded {
    pub(super) scheme: Option<Scheme>,
    pub(super) authority: Option<Authority>,
    pub(super) port: Option<u16>,
}

impl Forwarded {
    /// Reads only how the browser speaks to the peer.
    pub(super) fn scheme(headers: &HeaderMap) -> Result<Option<Scheme>, &'static str> {
        parsed(headers, PROTO, Scheme::named, "X-Forwarded-Proto is neither http nor https")
    }

    /// Reads what the peer says, who must be trusted.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, &'static str> {
        let (host, port) = ("X-Forwarded-Host is no host", "X-Forwarded-Port is no port");
        Ok(Self {
            scheme: Self::scheme(headers)?,
            authority: parsed(headers, HOST, Authority::parse, host)?,
            port: parsed(headers, PORT, origin::port, port)?,
        })
    }
}

/// The last value of all lines, empty if there is none; none if it is no text.
fn rightmost(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let Some(line) = headers.get_all(name).iter().next_back() else {
        return Some("");
    };
    let last = line.to_str().ok()?.rsplit(',').next();
    last.map(str::trim)
}

/// The word of header `name`, none if it is empty or not there.
fn parsed<T>(
    headers: &HeaderMap,
    name: HeaderName,
    parse: impl Fn(&str) -> Option<T>,
    error: &'static str,
) -> Result<Option<T>, &'static str> {
    match rightmost(headers, name) {
        Some("") => Ok(None),
        Some(word) => parse(word).map(Some).ok_or(error),
        None => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(networks: &[&str]) -> Trust {
        let networks = networks.iter().map(|text| text.parse().unwrap());
        Trust::new(&TrustedProxies(networks.collect()))
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn mapped_addresses_count_as_ipv4() {
        let table = [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "::ffff:11.1.2.3", false),
            ("10.0.0.0/8", "::10.1.2.3", false),
            ("fd00::/8", "fd00::1", true),
            ("fd00::/8", "fe00::1", false),
        ];
        for (network, addr, trusted) in table {
            let found = trust(&[network]).contains(addr.parse().unwrap());
            assert_eq!(found, trusted, "{addr} in {network}");
        }
        assert!(!Trust::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_address() {
        let trust = trust(&["10.0.0.0/8", "fd00::/8"]);
        let table: [(&str, &[&str], &str); 15] = [
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["127.0.0.1", "1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1:1234"], "1.1.1.1"),
            ("10.0.0.1", &["[2001:db8::1]:1234"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1], fd00::2"], "2001:db8::1"),
            ("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["1.1.1.1, ,"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("2.2.2.2", &["1.1.1.1"], "2.2.2.2"),
            ("2.2.2.2", &["1.1.1.1, 10.0.0.2"], "2.2.2.2"),
        ];
        for (peer, lines, client) in table {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let found = trust.client(peer.parse().unwrap(), &headers(&lines));
            assert_eq!(found.to_string(), client, "{peer} says {lines:?}");
        }
    }

    #[test]
    fn the_rightmost_word_counts() {
        let lines = headers(&[
            ("x-forwarded-host", "evil.example, app.example:8443"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-proto", "WSS"),
            ("x-forwarded-port", ""),
        ]);
        let said = Forwarded::read(&lines).unwrap();
        assert_eq!(said.scheme, Some(Scheme::Https));
        assert_eq!(said.authority, Authority::parse("app.example:8443"));
        assert_eq!(said.port, None);
    }

    #[test]
    fn a_word_that_cannot_be_read_is_refused() {
        let table = [
            ("x-forwarded-proto", "javascript"),
            ("x-forwarded-proto", "https http"),
            ("x-forwarded-host", "user@app.example"),
            ("x-forwarded-host", "app.example/evil"),
            ("x-forwarded-host", "app.example, evil example"),
            ("x-forwarded-port", "443x"),
            ("x-forwarded-port", "70000"),
        ];
        for (name, value) in table {
            assert!(Forwarded::read(&headers(&[(name, value)])).is_err(), "{name}: {value}");
        }
        assert_eq!(Forwarded::read(&HeaderMap::new()), Ok(Forwarded::default()));
    }
}
