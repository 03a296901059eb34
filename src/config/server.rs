//! `[server]`: sockets, names and limits of this process.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Problem,
    value::{self, HostAndPort},
};

/// Sockets, names and limits of this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// TCP address that clients connect to. Default `"0.0.0.0:4180"`.
    #[serde(deserialize_with = "value::socket_address")]
    pub listen: SocketAddr,
    /// TCP address of `/livez`, `/readyz` and `/metrics`; never public. Default `"127.0.0.1:4190"`.
    #[serde(deserialize_with = "value::socket_address")]
    pub admin: SocketAddr,
    /// TCP address where Envoy asks about requests over gRPC (`ext_authz`); only `trusted_proxies` are answered. Off unless set. Example `"0.0.0.0:4191"`.
    #[serde(deserialize_with = "value::optional_socket_address")]
    pub ext_authz: Option<SocketAddr>,
    /// Scheme, host and port that the browser sees, without a path; needed unless routes name hosts. Example `"https://app.example.com"`.
    #[serde(deserialize_with = "value::optional_origin")]
    pub public_url: Option<Url>,
    /// Peers whose `X-Forwarded-*` headers count, as networks. Default `[]`. Example `["10.0.0.0/8"]`.
    pub trusted_proxies: TrustedProxies,
    /// The one path prefix that labgate owns on every host. Default `"/oauth2"`.
    #[serde(deserialize_with = "value::prefix")]
    pub prefix: String,
    /// The one host, with its port if that is not the default, on which everybody signs in: GitLab knows its redirect URI alone, and it hands browsers over to the other hosts. Default: each host has its own. Example `"auth.example.com"`.
    pub sign_in_host: Option<HostAndPort>,
    /// What strangers may use of this process.
    pub limits: Limits,
    /// How long this process waits.
    pub timeouts: Timeouts,
}

/// Networks of peers that are trusted to say who the client is and what it asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct TrustedProxies(#[serde(deserialize_with = "value::networks")] pub Vec<IpNet>);

/// What strangers may use of this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at once. Default `10000`.
    pub connections: usize,
    /// Size of a request's head. Default `"64KiB"`.
    #[serde(with = "value::size")]
    pub header_bytes: usize,
    /// Header fields of a request. Default `100`.
    pub headers: usize,
    /// WebSockets and other upgraded connections at once. Default `1000`.
    pub tunnels: usize,
    /// Concurrent streams on one HTTP/2 connection. Default `200`.
    pub http2_streams: u32,
}

/// How long this process waits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// How long a request's head may take to be complete. Default `"10s"`.
    #[serde(with = "value::duration")]
    pub header: Duration,
    /// How long an idle connection waits for its next request. Default `"75s"`.
    #[serde(with = "value::duration")]
    pub idle: Duration,
    /// How long listening goes on after the signal to end, while `/readyz` is already red. Default `"0s"`.
    #[serde(with = "value::duration")]
    pub drain_delay: Duration,
    /// How long requests and tunnels may take to finish after that. Default `"30s"`.
    #[serde(with = "value::duration")]
    pub drain: Duration,
}

impl Server {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let (limits, timeouts) = (&self.limits, &self.timeouts);
        let zeroes = [
            ("limits.connections", limits.connections == 0),
            ("limits.header_bytes", limits.header_bytes == 0),
            ("limits.headers", limits.headers == 0),
            ("limits.http2_streams", limits.http2_streams == 0),
            ("timeouts.header", timeouts.header.is_zero()),
            ("timeouts.idle", timeouts.idle.is_zero()),
        ];
        let zero = |key| Problem::error(format!("server.{key}"), "with zero no request could pass");
        let mut problems: Vec<_> =
            zeroes.into_iter().filter(|(_, is_zero)| *is_zero).map(|(key, _)| zero(key)).collect();
        if self.listen == self.admin && self.listen.port() != 0 {
            let message = "the admin listener needs an address of its own";
            problems.push(Problem::error("server.admin", message));
        }
        let is_taken = |address: &SocketAddr| {
            address.port() != 0 && [self.listen, self.admin].contains(address)
        };
        if self.ext_authz.as_ref().is_some_and(is_taken) {
            let message = "Envoy's listener needs an address of its own";
            problems.push(Problem::error("server.ext_authz", message));
        }
        problems
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 4180)),
            admin: SocketAddr::from(([127, 0, 0, 1], 4190)),
            ext_authz: None,
            public_url: None,
            trusted_proxies: TrustedProxies::default(),
            prefix: "/oauth2".into(),
            sign_in_host: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 64 * 1024,
            headers: 100,
            tunnels: 1_000,
            http2_streams: 200,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}
