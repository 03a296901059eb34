//! Header fields on their way through: what belongs to one connection ends here, and what labgate says about the client is its own.
//!
//! ```text
//! request:   hop-by-hop and what Connection names ─▶ removed   X-Forwarded-{For,Proto,Host,Port}, X-Real-IP ─▶ removed, set anew
//!            overrides of the method ─▶ removed                Host ─▶ the host that was judged
//! response:  hop-by-hop and what Connection names ─▶ removed
//! ```
//!
//! Forwarded stays only if a trusted peer sent it, and is never written; Via is not added (RFC 9110, 7.6.3, asks for it: upstreams behind one
//! gate gain nothing from it). Identity headers are the identity room's, which strips and sets after [`prepare`].

use std::{fmt::Write, net::IpAddr};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Version,
    header::{self, HOST, TE},
};

use super::{tunnels::Holder, upgrade};
use crate::{body::Body, refusal::Refusal};

/// What labgate knows about a request's client and tells the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'request> {
    /// Address of the other end of the socket.
    pub peer: IpAddr,
    /// Address of the client: the peer's, or what a trusted peer said.
    pub client: IpAddr,
    /// Whether the peer is one of `server.trusted_proxies`.
    pub trusted: bool,
    /// Scheme that the browser sees.
    pub scheme: &'request str,
    /// Host that the browser sees, without the port.
    pub host: &'request str,
    /// Port that the browser sees.
    pub port: u16,
    /// Whether it was a trusted peer's word that named this host, not the request's own.
    pub relayed: bool,
}

/// What [`prepare`] learned from fields that it removed.
#[derive(Debug, Default)]
pub struct Passage {
    /// The protocol that the client wants to change to.
    pub(super) upgrade: Option<HeaderValue>,
    /// By whose leave the tunnel is opened, if there is to be one.
    pub(super) holder: Option<Holder>,
}

impl Passage {
    /// Says by whose leave a tunnel is opened; only asked if one is wanted.
    #[must_use]
    pub fn held_by(mut self, holder: impl FnOnce() -> Option<Holder>) -> Self {
        self.holder = self.upgrade.as_ref().and_then(|_| holder());
        self
    }
}

/// Removes what is not the upstream's, and sets labgate's own forwarding fields; to be called before identity headers are set.
///
/// # Errors
///
/// `Refusal::Malformed` if the request asks for a WebSocket, but not properly (RFC 6455, 4.2.1).
pub fn prepare(request: &mut Request<Body>, caller: &Caller<'_>) -> Result<Passage, Refusal> {
    let stays = |name: &&HeaderName| !passes(name.as_str(), caller.trusted);
    let unwanted: Vec<HeaderName> = request.headers().keys().filter(stays).cloned().collect();
    let mut passage = Passage::default();
    // Upgrade, TE and Connection are among what is unwanted: without any, there is nothing to look for.
    if !unwanted.is_empty() {
        passage.upgrade = upgrade::wish(request)?;
        let headers = request.headers_mut();
        let trailers = wants_trailers(headers);
        remove_nominated(headers);
        for name in unwanted {
            headers.remove(name);
        }
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }
    let headers = request.headers_mut();
    join_cookies(headers);
    set_forwarding(headers, caller);
    set_host(request, caller);
    Ok(passage)
}

/// Removes from a response what belongs to the connection that it came on.
pub fn clean_response(headers: &mut HeaderMap) {
    let unwanted =
        |headers: &HeaderMap| headers.keys().find(|name| is_hop_by_hop(name.as_str())).cloned();
    let Some(mut name) = unwanted(headers) else {
        return;
    };
    // Connection is among them.
    remove_nominated(headers);
    // There are but a few such names, and commonly one is there.
    loop {
        headers.remove(name);
        match unwanted(headers) {
            Some(next) => name = next,
            None => return,
        }
    }
}

/// Counts Max-Forwards down (RFC 9110, 7.6.2); true if this request may go no further.
pub(super) fn is_last_hop(method: &Method, headers: &mut HeaderMap) -> bool {
    if method != Method::OPTIONS && method != Method::TRACE {
        return false;
    }
    let Some(left) = headers.get(header::MAX_FORWARDS) else {
        return false;
    };
    let left = left.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    match left {
        Some(left @ 1..) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            false
        },
        Some(0) => true,
        // RFC 9110 has no word for it: dropped rather than guessed.
        None => {
            headers.remove(header::MAX_FORWARDS);
            false
        },
    }
}

/// Whether a trailer may carry this name: nothing that frames, routes, authenticates or says who the client is (RFC 9110, 6.5.1).
pub(super) fn may_trail(name: &str) -> bool {
    const NEVER: &[&str] = &[
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expires",
        "location",
        "max-forwards",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "trailer",
        "vary",
        "www-authenticate",
    ];
    passes(name, false) && !NEVER.contains(&name) && !ENDS_HERE.contains(&name)
}

const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Names that frame or route: an alias of one of them is never an upstream's business.
const ENDS_HERE: &[&str] = &["host", "content-length"];

/// What frameworks take for the method, past the rules for the one that was judged.
const METHODS: &[&str] = &["x-http-method", "x-http-method-override", "x-method-override"];

/// Whether a client's field goes on to the upstream under this name.
fn passes(name: &str, trusted: bool) -> bool {
    // Servers in the CGI tradition read `_`, and some read `.`, as `-`.
    if name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-') {
        let fold = |byte: u8| {
            if byte.is_ascii_alphanumeric() { char::from(byte) } else { '-' }
        };
        let folded: String = name.bytes().map(fold).collect();
        return passes(&folded, false) && !ENDS_HERE.contains(&folded.as_str());
    }
    match name.as_bytes().first() {
        Some(b'x') if METHODS.contains(&name) => false,
        Some(b'x') => {
            trusted
                || !(name.starts_with("x-forwarded-")
                    || name.starts_with("x-original-")
                    || name.starts_with("x-rewrite-")
                    || name == "x-real-ip")
        },
        Some(b'f') => trusted || name != "forwarded",
        // hyper answers 100 as soon as the upstream wants the body.
        Some(b'e') => name != "expect",
        _ => !is_hop_by_hop(name),
    }
}

/// Whether an application may take a client's field of this name for another path or method than the one that was judged; a trusted peer's aside.
pub fn misleads(name: &HeaderName) -> bool {
    let name = name.as_str();
    // As in `passes`: another sign in place of `-` is the same name for many an application.
    let is = |other: &str| folded_starts_with(name, other) && name.len() == other.len();
    METHODS.iter().any(|other| is(other))
        || PATHS.iter().any(|other| is(other))
        || PATH_STEMS.iter().any(|stem| folded_starts_with(name, stem))
}

/// What frameworks and other proxies take for the path or the method.
const PATHS: &[&str] = &["x-forwarded-method", "x-forwarded-prefix", "x-forwarded-uri"];

/// Beginnings of such names.
const PATH_STEMS: &[&str] = &["x-original-", "x-rewrite-"];

fn folded_starts_with(name: &str, start: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
    name.len() >= start.len()
        && name.bytes().zip(start.bytes()).all(|(one, other)| fold(one) == other)
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(name.as_bytes().first(), Some(b'c' | b'k' | b'p' | b't' | b'u' | b'h'))
        && HOP_BY_HOP.contains(&name)
}

/// Removes what Connection names, except what nobody may take away from a request by naming it (CVE-2025-48865 and its kin).
fn remove_nominated(headers: &mut HeaderMap) {
    let mut nominated = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        // What nearly all say.
        if value == "keep-alive" || value == "close" {
            continue;
        }
        let Ok(text) = value.to_str() else { continue };
        for name in text.split(',').map(str::trim) {
            if matches!(name, "keep-alive" | "close" | "Keep-Alive" | "Upgrade" | "upgrade" | "") {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
                && !is_kept(name.as_str())
            {
                nominated.push(name);
            }
        }
    }
    for name in nominated {
        headers.remove(name);
    }
}

fn is_kept(name: &str) -> bool {
    const KEPT: &[&str] = &["authorization", "cookie", "set-cookie", "forwarded", "x-real-ip"];
    ENDS_HERE.contains(&name) || KEPT.contains(&name) || name.starts_with("x-forwarded-")
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        })
    })
}

/// HTTP/2 may split the cookie into several fields (RFC 9113, 8.2.3); HTTP/1.1 has one.
fn join_cookies(headers: &mut HeaderMap) {
    // No name has several values, at one look.
    if headers.len() == headers.keys_len() {
        return;
    }
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

fn set_forwarding(headers: &mut HeaderMap, caller: &Caller<'_>) {
    let client = address(caller.client);
    let chain =
        if caller.trusted { chain(headers, &FORWARDED_FOR, caller.peer) } else { client.clone() };
    let scheme = match caller.scheme {
        "https" => Some(HeaderValue::from_static("https")),
        "http" => Some(HeaderValue::from_static("http")),
        other => HeaderValue::from_str(other).ok(),
    };
    let port = match caller.port {
        443 => HeaderValue::from_static("443"),
        80 => HeaderValue::from_static("80"),
        other => HeaderValue::from(other),
    };
    let set = [
        (FORWARDED_FOR, chain),
        (REAL_IP, client),
        (FORWARDED_PROTO, scheme),
        (FORWARDED_HOST, authority(caller)),
        (FORWARDED_PORT, Some(port)),
    ];
    for (name, value) in set {
        match value {
            Some(value) => headers.insert(name, value),
            None => headers.remove(name),
        };
    }
}

fn address(address: IpAddr) -> Option<HeaderValue> {
    let IpAddr::V4(address) = address.to_canonical() else {
        return HeaderValue::from_str(&address.to_canonical().to_string()).ok();
    };
    // By hand: the general way costs as much as all else that is done to a request's headers.
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        push_number(octet.into(), &mut text);
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

fn push_number(number: u16, text: &mut Vec<u8>) {
    let (mut digits, mut left, mut first) = (*b"00000", number, 0);
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
        if left == 0 {
            first = place;
            break;
        }
    }
    text.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// The host as an URL says it, so that an upstream can build one from it: the port only if it is not the scheme's.
fn authority(caller: &Caller<'_>) -> Option<HeaderValue> {
    match (caller.scheme, caller.port) {
        ("https", 443) | ("http", 80) => HeaderValue::from_str(caller.host).ok(),
        (_, port) => {
            let mut text = Vec::with_capacity(caller.host.len() + ":65535".len());
            text.extend_from_slice(caller.host.as_bytes());
            text.push(b':');
            push_number(port, &mut text);
            HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
        },
    }
}

/// What a trusted peer said, with that peer as the last link.
fn chain(headers: &HeaderMap, name: &HeaderName, peer: IpAddr) -> Option<HeaderValue> {
    let mut chain = String::new();
    for value in headers.get_all(name) {
        let Ok(text) = value.to_str() else { continue };
        write!(chain, "{text}, ").ok()?;
    }
    write!(chain, "{}", peer.to_canonical()).ok()?;
    HeaderValue::from_str(&chain).ok()
}

/// The upstream hears the host that was judged: a trusted peer's word, or as the client said it; HTTP/2 and absolute targets say it in the
/// target (RFC 9112, 3.2.2).
fn set_host(request: &mut Request<Body>, caller: &Caller<'_>) {
    if caller.relayed {
        let host = authority(caller).unwrap_or_else(|| HeaderValue::from_static(""));
        request.headers_mut().insert(HOST, host);
        return;
    }
    let Some(authority) = request.uri().authority() else {
        return;
    };
    let text = authority.as_str();
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    if let Ok(host) = HeaderValue::from_str(host) {
        request.headers_mut().insert(HOST, host);
    }
}

/// Makes `request` one that HTTP/1.1 can carry to an upstream; path and query stay as they came.
pub(super) fn to_origin_form(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    request.extensions_mut().clear();
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    }
}
