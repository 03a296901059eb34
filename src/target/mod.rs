//! Peer and Target: who is at the other end of the socket, and what the browser asks for.

mod origin;
mod reading;
mod trust;

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, request::Parts, uri::PathAndQuery};

pub use self::{
    origin::{Origin, Scheme},
    trust::Trust,
};
use self::reading::Reading;

/// The other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// The core that serves it.
    pub core: usize,
}

/// What is asked for, as the browser sees it: RFC 9110 section 7.1.
#[derive(Clone, Debug)]
pub struct Target {
    /// The method, as received.
    pub method: Method,
    /// Scheme, host and port that the browser sees.
    pub origin: Origin,
    /// The address of the client, behind all trusted proxies.
    pub client: IpAddr,
    /// Whether the peer is one of `server.trusted_proxies`.
    pub trusted: bool,
    path: PathAndQuery,
    reading: Reading,
}

impl Target {
    /// What `parts` ask for.
    ///
    /// # Errors
    /// Words for `Refusal::Malformed`.
    pub fn read(
        parts: &Parts,
        peer: &Peer,
        trust: &Trust,
        public: Option<&Origin>,
    ) -> Result<Self, &'static str> {
        let _ = (parts, peer, trust, public);
        Err("")
    }

    /// The path, byte for byte as received; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        self.path.path()
    }

    /// Path and query, byte for byte as received.
    pub fn path_and_query(&self) -> &str {
        self.path.as_str()
    }

    /// The absolute URL that the browser sees.
    pub fn url(&self) -> String {
        String::new()
    }

    /// What is below `prefix`, empty or with its slash, if the path as received lies there.
    pub fn below(&self, prefix: &str) -> Option<&str> {
        let _ = prefix;
        None
    }

    /// Whether some upstream may read the path as `prefix` or something below it, in any case of letters.
    pub fn touches(&self, prefix: &str) -> bool {
        let _ = prefix;
        false
    }

    /// Every path that an upstream may take this one for; the first is the path as received.
    pub fn readings(&self) -> impl Iterator<Item = &[u8]> {
        let _ = &self.reading;
        std::iter::once(self.path().as_bytes())
    }

    /// Whether the path may mean something else to an upstream, so that it must not match a public route.
    pub fn is_ambiguous(&self) -> bool {
        false
    }

    /// `X-Request-Id` of a trusted peer: up to 128 visible ASCII characters.
    pub fn request_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let _ = headers;
        None
    }
}
