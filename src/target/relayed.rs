//! What a browser asks a front proxy for, as the proxy tells it when it asks labgate: one family of headers for each dialect, never a guess.
//!
//! ```text
//! nginx                    X-Original-URL  X-Original-Method
//! Traefik, Caddy, HAProxy  X-Forwarded-{Method,Proto,Host,Uri}
//! Envoy                    request line after its prefix, Host, X-Forwarded-Proto
//! Envoy over gRPC          attributes of its message, no headers
//! ```
//!
//! Most proxies pass on whatever other headers a stranger sent. So nothing of the other family is read, and a request that has both is refused: one of
//! them is a stranger's word (threats E5, F4). All parts must be there, once, and are kept byte for byte.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, Request, header, uri::PathAndQuery};

use super::{
    Origin, Peer, Scheme, Target, Trust, only, origin::Authority, origin_of, reading::Reading,
    trust::Forwarded,
};
use crate::config::Dialect;

/// Why it can't be told what a front proxy asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayError {
    /// The peer is none of `server.trusted_proxies`.
    Untrusted(IpAddr),
    /// Its headers don't say it, or say it twice.
    Headers(&'static str),
    /// What the browser asks for is no request that can be judged.
    Malformed(&'static str),
}

/// What Envoy's message says of a request, beside the headers that came with it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The method.
    pub method: &'a Method,
    /// How the browser speaks; empty if it is not said.
    pub scheme: &'a str,
    /// The host that the browser names, with its port.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Who is connected to Envoy, unless that has no address.
    pub source: Option<IpAddr>,
}

/// What the headers of one family say.
struct Said<'a> {
    method: Method,
    /// None if it is not said.
    scheme: Option<Scheme>,
    authority: Authority,
    port: Option<u16>,
    path: &'a str,
}

impl Target {
    /// What the browser asks for about which `peer` asks with `request`; `rest` is what follows the endpoint's own path, query included. The method may
    /// be left out unless `methods_matter`.
    ///
    /// # Errors
    /// When the peer is not trusted, its headers are not exactly those of the dialect, or what they say can't be judged.
    pub fn relayed<B>(
        request: &Request<B>,
        peer: &Peer,
        dialect: Dialect,
        rest: &str,
        trust: &Trust,
        public: Option<&Origin>,
        methods_matter: bool,
    ) -> Result<Self, RelayError> {
        let ip = peer.addr.ip();
        if !trust.contains(ip) {
            return Err(RelayError::Untrusted(ip.to_canonical()));
        }
        let headers = request.headers();
        // nginx asks with GET whatever the browser's method is.
        let method = (!methods_matter).then(|| request.method());
        let said = match dialect {
            Dialect::Nginx => Said::original(headers, method),
            Dialect::Traefik | Dialect::Caddy | Dialect::Haproxy => {
                Said::forwarded(headers, method)
            },
            Dialect::Envoy => Said::requested(request, rest),
        }?;
        said.target(trust.client(ip, headers), public)
    }

    /// The same of a request that Envoy describes by a message: `headers` are the browser's, and none of them says what it asks for.
    ///
    /// # Errors
    /// When the peer is not trusted, or what the message says can't be judged.
    pub fn attributed(
        attributes: &Attributes<'_>,
        headers: &HeaderMap,
        peer: &Peer,
        trust: &Trust,
        public: Option<&Origin>,
    ) -> Result<Self, RelayError> {
        let ip = peer.addr.ip();
        if !trust.contains(ip) {
            return Err(RelayError::Untrusted(ip.to_canonical()));
        }
        // What stands before Envoy may be trusted too; `X-Forwarded-For` begins with who connected to it.
        let client = trust.client(attributes.source.unwrap_or(ip), headers);
        Said::attributed(attributes, headers)?.target(client, public)
    }
}

impl<'a> Said<'a> {
    /// nginx: one URL, put together by its configuration. The method is `or` if it is not said.
    fn original(headers: &'a HeaderMap, or: Option<&Method>) -> Result<Self, RelayError> {
        none_of(headers, &FORWARDED, "X-Original-URL and X-Forwarded-Uri or -Method at once")?;
        let url =
            one(headers, &ORIGINAL_URL, "X-Original-URL is missing, there twice, or no text")?;
        let method =
            method(headers, &ORIGINAL_METHOD, or, "X-Original-Method is missing or no method")?;
        let no_url = RelayError::Headers("X-Original-URL is no absolute http or https URL");
        let (scheme, rest) = url.split_once("://").ok_or(no_url)?;
        let scheme = Scheme::named(scheme).ok_or(no_url)?;
        let start = rest.find('/').ok_or(no_url)?;
        let (authority, path) = rest.split_at(start);
        let authority = Authority::parse(authority).ok_or(no_url)?;
        Ok(Self { method, scheme: Some(scheme), authority, port: None, path })
    }

    /// Traefik, Caddy, `HAProxy`: the parts. The method is `or` if it is not said.
    fn forwarded(headers: &'a HeaderMap, or: Option<&Method>) -> Result<Self, RelayError> {
        none_of(headers, &ORIGINAL, "X-Forwarded-Uri and X-Original-* at once")?;
        let path =
            one(headers, &FORWARDED_URI, "X-Forwarded-Uri is missing, there twice, or no text")?;
        let method =
            method(headers, &FORWARDED_METHOD, or, "X-Forwarded-Method is missing or no method")?;
        // Here the proxy has chosen the application, by a host that it may have read otherwise than whoever takes one of several.
        let host = one(headers, &FORWARDED_HOST, "X-Forwarded-Host is missing or there twice")?;
        let no_host = RelayError::Headers("X-Forwarded-Host is not one host");
        let authority = Authority::parse(host).ok_or(no_host)?;
        let said = Forwarded::read(headers).map_err(RelayError::Headers)?;
        let scheme = said.scheme.ok_or(RelayError::Headers("X-Forwarded-Proto is missing"))?;
        Ok(Self { method, scheme: Some(scheme), authority, port: said.port, path })
    }

    /// Envoy: the browser's own request line below a prefix, and its Host.
    fn requested<B>(request: &Request<B>, rest: &'a str) -> Result<Self, RelayError> {
        let headers = request.headers();
        none_of(headers, &FORWARDED, "the request line and X-Forwarded-Uri or -Method at once")?;
        none_of(headers, &ORIGINAL, "the request line and X-Original-* at once")?;
        let host = only(headers, &header::HOST);
        let host = host.map_err(|()| RelayError::Malformed("more than one Host, or no text"))?;
        let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
        let authority = host.and_then(Authority::parse);
        let authority = authority.ok_or(RelayError::Malformed("Host is no host"))?;
        let scheme = Forwarded::scheme(headers).map_err(RelayError::Headers)?;
        Ok(Self { method: request.method().clone(), scheme, authority, port: None, path: rest })
    }

    /// Envoy over gRPC: what its message says.
    fn attributed(attributes: &Attributes<'a>, headers: &HeaderMap) -> Result<Self, RelayError> {
        let Attributes { method, scheme, host, path, source: _ } = *attributes;
        let authority = Authority::parse(host).ok_or(RelayError::Malformed("Host is no host"))?;
        let other = only(headers, &header::HOST);
        let other = other.map_err(|()| RelayError::Malformed("more than one Host, or no text"))?;
        if other.is_some_and(|other| Authority::parse(other).as_ref() != Some(&authority)) {
            return Err(RelayError::Malformed(":authority and Host differ"));
        }
        let scheme = match scheme {
            "" => None,
            named => {
                let unknown = RelayError::Malformed("the scheme is neither http nor https");
                Some(Scheme::named(named).ok_or(unknown)?)
            },
        };
        Ok(Self { method: method.clone(), scheme, authority, port: None, path })
    }

    fn target(self, client: IpAddr, public: Option<&Origin>) -> Result<Target, RelayError> {
        let Self { method, scheme, authority, port, path } = self;
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(RelayError::Malformed("this method is not served here"));
        }
        let path = path_of(path, &method).ok_or(RelayError::Malformed("the path is no path"))?;
        let reading = Reading::of(path.path()).map_err(RelayError::Malformed)?;
        let said = Forwarded { scheme, authority: None, port };
        Ok(Target {
            method,
            origin: origin_of(authority, said, public),
            client,
            trusted: true,
            relayed: true,
            path,
            reading,
        })
    }
}

/// `text` as path and query, if nothing of it is lost by that, as a fragment would be.
fn path_of(text: &str, method: &Method) -> Option<PathAndQuery> {
    let is_path = text.starts_with('/') || (text == "*" && *method == Method::OPTIONS);
    let path = PathAndQuery::try_from(text).ok()?;
    (is_path && path.as_str() == text).then_some(path)
}

fn none_of(
    headers: &HeaderMap,
    names: &[HeaderName],
    error: &'static str,
) -> Result<(), RelayError> {
    match names.iter().any(|name| headers.contains_key(name)) {
        true => Err(RelayError::Headers(error)),
        false => Ok(()),
    }
}

fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    error: &'static str,
) -> Result<&'a str, RelayError> {
    only(headers, name).ok().flatten().ok_or(RelayError::Headers(error))
}

fn method(
    headers: &HeaderMap,
    name: &HeaderName,
    or: Option<&Method>,
    error: &'static str,
) -> Result<Method, RelayError> {
    if let (Some(method), false) = (or, headers.contains_key(name)) {
        return Ok(method.clone());
    }
    let method = one(headers, name, error)?;
    Method::from_bytes(method.as_bytes()).map_err(|_| RelayError::Headers(error))
}

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// What only proxies of the one family set.
const FORWARDED: [HeaderName; 2] = [FORWARDED_METHOD, FORWARDED_URI];

/// What only proxies of the other set.
const ORIGINAL: [HeaderName; 3] =
    [ORIGINAL_METHOD, ORIGINAL_URL, HeaderName::from_static("x-original-uri")];
