//! The front proxies that ask labgate about each request, by how they ask and what they make of the answer.

/// How a front proxy asks, and what it makes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// nginx `auth_request` and ingress-nginx: `X-Original-URL`; only 401 and 403 come through, without their bodies.
    Nginx,
    /// Traefik `ForwardAuth`: `X-Forwarded-*`; answers are passed on whole.
    Traefik,
    /// Caddy `forward_auth`: like Traefik.
    Caddy,
    /// `HAProxy` with an auth-request script: `X-Forwarded-*`, set by its configuration.
    Haproxy,
    /// Envoy `ext_authz` over HTTP: the request line after a prefix, and `Host`.
    Envoy,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Nginx, Self::Traefik, Self::Caddy, Self::Haproxy, Self::Envoy];

    /// The name in paths and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }
}
