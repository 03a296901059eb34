//! The templates of all front proxies, each in a file of its own beside this one.

use askama::Template;

use super::{Form, setup::Setup};
use crate::config::Dialect;

/// Writes one form of one proxy's configuration.
pub(super) type Write = fn(&Setup) -> Result<String, askama::Error>;

/// How the `form` of `proxy`'s configuration is written, if there is one.
pub(super) fn of(proxy: Dialect, form: Form) -> Option<Write> {
    Some(match (proxy, form) {
        (Dialect::Nginx, Form::Config) => |setup| Nginx { setup }.render(),
        (Dialect::Nginx, Form::Annotations) => |setup| Annotations { setup }.render(),
        (Dialect::Traefik, Form::Config) => |setup| Traefik { setup }.render(),
        (Dialect::Traefik, Form::Labels) => |setup| Labels { setup }.render(),
        (Dialect::Traefik, Form::Crd) => |setup| Crd { setup }.render(),
        (Dialect::Caddy, Form::Config) => |setup| Caddy { setup }.render(),
        (Dialect::Haproxy, Form::Config) => |setup| Haproxy { setup }.render(),
        (Dialect::Haproxy, Form::Lua) => |setup| Lua { setup }.render(),
        (Dialect::Envoy, Form::Config) => |setup| Envoy { setup, grpc: false }.render(),
        (Dialect::Envoy, Form::Grpc) => |setup| Envoy { setup, grpc: true }.render(),
        (Dialect::Envoy, Form::Gateway) => |setup| Gateway { setup }.render(),
        (Dialect::Envoy, Form::Istio) => |setup| Istio { setup }.render(),
        (Dialect::Envoy, Form::GatewayApi) => |setup| GatewayApi { setup }.render(),
        _ => return None,
    })
}

/// Headers about what was asked for that are none of a client's business, beside those that each proxy sets by itself.
const FOREIGN: [&str; 9] = [
    "forwarded",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// What labgate reads of a request that Envoy asks about, beside what Envoy says in any case.
const ASKED: [&str; 13] = [
    "accept",
    "authorization",
    "cookie",
    "job-token",
    "private-token",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "x-requested-with",
];

/// Signs in names of headers that some applications take for `-`; Caddy's own `*` can't be in a pattern of its.
const SIGNS: [&str; 13] = ["!", "#", "$", "%", "&", "'", "+", ".", "^", "_", "`", "|", "~"];

#[derive(Template)]
#[template(path = "nginx.conf", escape = "none")]
struct Nginx<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "nginx.annotations.yaml", escape = "none")]
struct Annotations<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "traefik.yaml", escape = "none")]
struct Traefik<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "traefik.labels.yaml", escape = "none")]
struct Labels<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "traefik.crd.yaml", escape = "none")]
struct Crd<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "caddy.Caddyfile", escape = "none")]
struct Caddy<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "haproxy.cfg", escape = "none")]
struct Haproxy<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "haproxy.lua", escape = "none")]
struct Lua<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "envoy.yaml", escape = "none")]
struct Envoy<'a> {
    setup: &'a Setup,
    grpc: bool,
}

#[derive(Template)]
#[template(path = "envoy.gateway.yaml", escape = "none")]
struct Gateway<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "envoy.istio.yaml", escape = "none")]
struct Istio<'a> {
    setup: &'a Setup,
}

#[derive(Template)]
#[template(path = "envoy.gateway-api.yaml", escape = "none")]
struct GatewayApi<'a> {
    setup: &'a Setup,
}
