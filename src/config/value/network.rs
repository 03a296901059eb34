//! Socket addresses, and networks of trusted peers.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de::Error};

/// An address with a port.
pub(in crate::config) fn socket_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    address(&text).map_err(D::Error::custom)
}

/// The same, of something that is off unless it is set.
pub(in crate::config) fn optional_socket_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SocketAddr>, D::Error> {
    socket_address(from).map(Some)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) if text == "systemd" || text.starts_with("unix:") => {
            Err(format!("`{text}` is not available in this version; use an address and port"))
        },
        Err(_) => Err(format!("`{text}` is not an address and port, such as `0.0.0.0:4180`")),
    }
}

/// Networks or single addresses; IPv4 ones also if they are written as IPv6.
pub(in crate::config) fn networks<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<IpNet>, D::Error> {
    let networks = Vec::<Network>::deserialize(from)?;
    Ok(networks.into_iter().map(|network| network.0).collect())
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Network(IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let everyone = || format!("`{text}` trusts everyone; name the networks of your proxies");
        if ["*", "everyone", "all", "any"].contains(&text.as_str()) {
            return Err(everyone());
        }
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let network = text.parse::<IpNet>().or_else(|_| address());
        let network =
            network.map_err(|_| format!("`{text}` is not a network, such as `10.0.0.0/8`"))?;
        match unmapped(network.trunc()) {
            Some(network) if network.prefix_len() > 0 => Ok(Self(network)),
            _ => Err(everyone()),
        }
    }
}

/// An IPv4-mapped network as the IPv4 network that it is; none if it holds all of IPv4 and more.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(wide) = network else {
        return Some(network);
    };
    let all = std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    match (wide.prefix_len().checked_sub(96), wide.addr().to_ipv4_mapped()) {
        (Some(length), Some(address)) => Ipv4Net::new(address, length).ok().map(IpNet::V4),
        (None, _) if wide.contains(&all) => None,
        _ => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_normalised() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            assert_eq!(Network::try_from(text.to_owned()).unwrap().0.to_string(), network);
        }
    }

    #[test]
    fn everyone_is_refused_in_every_spelling() {
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/0",
            "::/0",
            "::ffff:0:0/96",
            "::/80",
            "::/1",
            "*",
            "everyone",
            "all",
        ] {
            let error = Network::try_from(text.to_owned()).err().unwrap();
            assert!(error.contains("trusts everyone"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0", "example.com", "10.0.0.1:80", "fe80::1%eth0"] {
            let error = Network::try_from(text.to_owned()).err().unwrap();
            assert!(error.contains("is not a network"), "{text}: {error}");
        }
    }

    #[test]
    fn listeners_have_address_and_port() {
        assert!(address("127.0.0.1:4180").is_ok());
        assert!(address("[::]:4180").is_ok());
        for text in ["4180", ":4180", "localhost:4180", "0.0.0.0", "0.0.0.0:99999"] {
            assert!(address(text).unwrap_err().contains("address and port"), "{text}");
        }
        for text in ["systemd", "unix:/run/labgate.sock"] {
            assert!(address(text).unwrap_err().contains("not available in this version"));
        }
    }
}
