//! What Envoy asks about, read from its message: a request without a body, where it leads, and who is connected to Envoy.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::messages::{AttributeContext, CheckRequest, Field, HttpAttributes};
use crate::{
    body::{Body, Request},
    refusal::Refusal,
    target::{Attributes, Origin, Peer, RelayError, Target, Trust},
};

/// What Envoy asks about.
#[derive(Debug)]
pub(super) struct Asked {
    /// Method, version and headers as the browser sent them.
    pub(super) request: Request,
    /// Who is connected to Envoy; none if that has no address.
    pub(super) source: Option<IpAddr>,
    http: HttpAttributes,
    context: Vec<Field>,
}

impl Asked {
    /// What `question` is about.
    pub(super) fn of(question: CheckRequest) -> Result<Self, Refusal> {
        let AttributeContext { source, request, context_extensions } =
            question.attributes.unwrap_or_default();
        let http = request.and_then(|request| request.http);
        let mut http = http.ok_or(Refusal::Malformed("the message tells of no request"))?;
        let method = Method::from_bytes(&http.method);
        let mut request = Request::new(Body::empty());
        *request.method_mut() =
            method.map_err(|_| Refusal::Malformed("the method is no method"))?;
        *request.version_mut() = version(&http.protocol);
        let raw = http.header_map.take().map(|map| map.headers).unwrap_or_default();
        let folded = std::mem::take(&mut http.headers);
        *request.headers_mut() = headers(raw.into_iter().chain(folded))?;
        let address = source.and_then(|peer| peer.address?.socket_address);
        let source = address.and_then(|address| text(&address.address)?.parse().ok());
        Ok(Self { request, source, http, context: context_extensions })
    }

    /// Where it leads.
    pub(super) fn target(
        &self,
        peer: &Peer,
        trust: &Trust,
        public: Option<&Origin>,
    ) -> Result<Target, RelayError> {
        let http = &self.http;
        let attributes = Attributes {
            method: self.request.method(),
            scheme: text(&http.scheme).ok_or(RelayError::Malformed("the scheme is no text"))?,
            host: text(&http.host).ok_or(RelayError::Malformed("Host is no host"))?,
            path: text(&http.path).ok_or(RelayError::Malformed("the path is no path"))?,
            source: self.source,
        };
        Target::attributed(&attributes, self.request.headers(), peer, trust, public)
    }

    /// What the configuration of Envoy's route says beside.
    pub(super) fn context(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let text = |bytes| String::from_utf8_lossy(bytes);
        self.context.iter().map(move |field| (text(&field.key), text(&field.value)))
    }
}

/// The browser's fields; those of HTTP/2 that begin with a colon are said by attributes.
fn headers(fields: impl Iterator<Item = Field>) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for Field { key, value, raw_value } in fields.filter(|field| !field.key.starts_with(b":")) {
        // A name that can't be read may still reach the application.
        let name = HeaderName::from_bytes(&key).map_err(|_| Refusal::Malformed(NO_HEADER))?;
        let value = if raw_value.is_empty() { value } else { raw_value };
        let value = HeaderValue::from_maybe_shared(value);
        let value = value.map_err(|_| Refusal::Malformed(NO_HEADER))?;
        let added = headers.try_append(name, value);
        added.map_err(|_| Refusal::Malformed("there are too many headers"))?;
    }
    Ok(headers)
}

fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

/// For the log only.
fn version(protocol: &[u8]) -> Version {
    match protocol {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/2" | b"HTTP/2.0" => Version::HTTP_2,
        b"HTTP/3" => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

const NO_HEADER: &str = "a header can't be read";
