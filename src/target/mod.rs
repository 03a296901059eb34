//! Peer and Target: who is at the other end of the socket, and what the browser behind it asks for.
//!
//! ```text
//! request line, Host ──────────────┐
//! X-Forwarded-* of trusted peers ──┼─▶ Target { method, origin, path, client }
//! server.public_url ───────────────┘
//! ```
//!
//! What a front proxy asks about in forward-auth is read by [`Target::relayed`], what Envoy asks over gRPC by [`Target::attributed`].
//!
//! A request of which two readers could think differently (doubled hosts, user info, odd targets) is refused here: RFC 9112 section 3.2,
//! threats G7, G8, G10. Paths are kept byte for byte, with every other reading that an upstream may make of them beside.

mod origin;
mod reading;
mod relayed;
mod trust;

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, Method, Request, Version, header, uri::PathAndQuery};

use self::{origin::Authority, reading::Reading, trust::Forwarded};
pub use self::{
    origin::{Origin, Scheme},
    reading::{covers, covers_in_any_case},
    relayed::{Attributes, RelayError},
    trust::Trust,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 128;

/// The other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// The number of the core that serves it, from 0.
    pub core: usize,
}

/// What is asked for, as the browser sees it: RFC 9110 section 7.1.
#[derive(Clone, Debug)]
pub struct Target {
    /// The method as received; never `CONNECT` or `TRACE`.
    pub method: Method,
    /// Scheme, host and port that the browser sees.
    pub origin: Origin,
    /// The client's address, behind all trusted proxies.
    pub client: IpAddr,
    /// Whether the peer is one of `server.trusted_proxies`.
    pub trusted: bool,
    /// Whether that peer named the host by a header.
    pub relayed: bool,
    path: PathAndQuery,
    reading: Reading,
}

impl Target {
    /// What `request` asks for. The scheme is that of `public`; without one, that of a trusted peer's `X-Forwarded-Proto`, else `http`. The host is that of a
    /// trusted peer's `X-Forwarded-Host`, else the request's. The port is `public`'s if the host is too; else the one beside the host, else a trusted
    /// peer's `X-Forwarded-Port`.
    ///
    /// # Errors
    /// Words for `Refusal::Malformed`.
    pub fn read<B>(
        request: &Request<B>,
        peer: &Peer,
        trust: &Trust,
        public: Option<&Origin>,
    ) -> Result<Self, &'static str> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err("this method is not served here");
        }
        let authority = authority(request, public)?;
        let path = path(request)?;
        let reading = Reading::of(path.path())?;
        let trusted = trust.contains(peer.addr.ip());
        let said = if trusted { Forwarded::read(request.headers())? } else { Forwarded::default() };
        Ok(Self {
            method: request.method().clone(),
            relayed: said.authority.is_some(),
            origin: origin_of(authority, said, public),
            client: trust.client(peer.addr.ip(), request.headers()),
            trusted,
            path,
            reading,
        })
    }

    /// The path, byte for byte as received; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        self.path.path()
    }

    /// Path and query, byte for byte as received.
    pub fn path_and_query(&self) -> &str {
        self.path.as_str()
    }

    /// The absolute URL that the browser sees, without a fragment.
    pub fn url(&self) -> String {
        match self.path_and_query() {
            "*" => self.origin.to_string(),
            path => format!("{}{path}", self.origin),
        }
    }

    /// What follows `prefix` (`/x`, no final slash) in the path as received, empty or with its slash; none if the path lies elsewhere.
    pub fn below(&self, prefix: &str) -> Option<&str> {
        let rest = self.path().strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    /// Whether some upstream may take the path for `prefix` or something below it; letters in any case.
    pub fn touches(&self, prefix: &str) -> bool {
        self.readings().any(|path| covers_in_any_case(prefix, path))
    }

    /// Every path that an upstream may take this one for, the one received first.
    pub fn readings(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.path().as_bytes()).chain(self.reading.others())
    }

    /// Whether upstreams may differ over the path's structure, so that it must not match a public route: dot segments, `//`, backslashes,
    /// control bytes, escaped slashes, escaped escapes, overlong or raw non-ASCII bytes, `%` without two digits.
    pub fn is_ambiguous(&self) -> bool {
        self.reading.is_ambiguous()
    }

    /// `X-Request-Id` from a trusted peer, if it is there once and has up to 128 visible ASCII characters.
    pub fn request_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        if !self.trusted {
            return None;
        }
        let id = only(headers, &REQUEST_ID).ok()??;
        let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
        (visible && (1..=LONGEST_REQUEST_ID).contains(&id.len())).then_some(id)
    }
}

/// Host and port that the request names: RFC 9112 section 3.2, RFC 9113 section 8.3.1.
fn authority<B>(request: &Request<B>, public: Option<&Origin>) -> Result<Authority, &'static str> {
    let host =
        only(request.headers(), &header::HOST).map_err(|()| "more than one Host, or no text")?;
    let host = match host {
        Some(text) => match public.filter(|public| public.is_called(text)) {
            Some(public) => Some(Authority { host: public.host.clone(), port: public.port }),
            None => Some(Authority::parse(text).ok_or("Host is no host")?),
        },
        None => None,
    };
    let Some(named) = request.uri().authority() else {
        return host.ok_or("Host is missing");
    };
    if !matches!(request.uri().scheme_str(), Some("http" | "https")) {
        return Err("the request target is no path");
    }
    let named = Authority::parse(named.as_str()).ok_or("the request target names no host")?;
    match host {
        // In HTTP/1.1 the target counts and Host is rewritten; HTTP/2 has no reason to differ.
        Some(host) if request.version() > Version::HTTP_11 && host != named => {
            Err(":authority and Host differ")
        },
        None if request.version() == Version::HTTP_11 => Err("Host is missing"),
        Some(_) | None => Ok(named),
    }
}

/// Path and query: origin-form or absolute-form, `*` for `OPTIONS` only.
fn path<B>(request: &Request<B>) -> Result<PathAndQuery, &'static str> {
    let path = request.uri().path_and_query().ok_or("the path is missing")?;
    match path.as_str() {
        text if text.starts_with('/') => Ok(path.clone()),
        // `http://host?query` leaves the slash to us.
        text if text.starts_with('?') => {
            PathAndQuery::try_from(format!("/{text}")).map_err(|_| "the query is no query")
        },
        "*" if request.method() == Method::OPTIONS => Ok(path.clone()),
        _ => Err("the request target is no path"),
    }
}

fn origin_of(named: Authority, said: Forwarded, public: Option<&Origin>) -> Origin {
    let mut authority = said.authority.unwrap_or(named);
    authority.port = authority.port.or(said.port);
    match public {
        Some(public) if public.host == authority.host => public.clone(),
        Some(public) => Origin::new(public.scheme, authority),
        None => Origin::new(said.scheme.unwrap_or(Scheme::Http), authority),
    }
}

/// The one value of `name`; an error if there are several or it is no text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests;
