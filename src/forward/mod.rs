//! The request to an application and its response back, streaming: one exchange with its timeouts and its retry rule.
//!
//! ```text
//! prepare ─▶ (identity headers) ─▶ Upstream::send ─▶ idle or new connection ─▶ response, or tunnel after 101
//! ```
//!
//! Upstreams speak HTTP/1.1, over TLS if their URL says so. `Expect: 100-continue` is answered here once the upstream wants the body; other 1xx
//! responses end here, for hyper's server can't send them.

mod backend;
mod connect;
mod exchange;
mod headers;
mod record;
mod tunnels;
mod upgrade;

use std::{fmt, io, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::time::Instant;
use url::Url;

use self::{
    backend::{Backend, Connection},
    connect::Address,
    exchange::{Download, Progress, Upload},
};
pub use self::{
    exchange::Reserved,
    headers::{Caller, Passage, clean_response, misleads, prepare},
    tunnels::{Held, Holder, Leave, OfToken, Shown, Tunnels},
};
use crate::{
    body::{Body, Response},
    refusal::{Refusal, UpstreamTrouble},
};

/// One application.
pub struct Upstream {
    name: String,
    backend: Arc<Backend>,
    reserved: Reserved,
}

/// How to reach an application.
pub struct Settings<'config> {
    /// The table name, for logs and metrics.
    pub name: &'config str,
    /// `http` or `https`, host and port.
    pub url: &'config Url,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the response's head may take.
    pub response_timeout: Duration,
    /// Worker threads; each has its own idle connections.
    pub cores: usize,
    /// For `https`; see [`tls`].
    pub tls: &'config Arc<ClientConfig>,
    /// Names that no trailer may carry: the identity headers.
    pub reserved: Reserved,
}

impl fmt::Debug for Settings<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Settings")
            .field("name", &self.name)
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// An application at a URL; connects with the first request.
    ///
    /// # Errors
    ///
    /// If the URL has no host that can be connected to.
    pub fn new(settings: Settings<'_>) -> io::Result<Self> {
        let address = Address::new(settings.url, settings.tls).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{}` has no host to connect to", settings.url),
            )
        })?;
        Ok(Self {
            name: settings.name.to_owned(),
            backend: Arc::new(Backend::new(
                address,
                settings.connect_timeout,
                settings.response_timeout,
                settings.cores,
            )),
            reserved: settings.reserved,
        })
    }

    /// The table name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends `request`, already prepared, which is gone then, from the worker `core` at the moment `now` and answers with the upstream's response, or with 101 and a tunnel behind it.
    ///
    /// # Errors
    ///
    /// `Refusal::Upstream` with what went wrong; `Refusal::Exhausted` if no more tunnels may be opened.
    pub async fn send(
        &self,
        request: &mut Request<Body>,
        passage: Passage,
        core: usize,
        tunnels: &Arc<Tunnels>,
        now: Instant,
    ) -> Result<Response, Refusal> {
        let (method, fields) = (request.method().clone(), request.headers_mut());
        if headers::is_last_hop(&method, fields) {
            return Ok(Response::new(Body::empty()));
        }
        let change = match passage.upgrade {
            None => None,
            Some(protocol) => {
                let place = tunnels.reserve(passage.holder)?;
                let client = hyper::upgrade::on(&mut *request);
                let fields = request.headers_mut();
                fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                fields.insert(header::UPGRADE, protocol.clone());
                fields.remove(header::TE);
                Some((protocol, client, place))
            },
        };
        headers::to_origin_form(request);
        let progress = self.framed(request);
        let exchanged = self.backend.exchange(request, progress.as_deref(), core, now).await;
        let (mut response, connection) = match exchanged {
            Err(_) if progress.as_deref().is_some_and(Progress::failed) => {
                return Err(Refusal::Malformed("the body broke off"));
            },
            exchanged => exchanged?,
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self.passed_on(response, connection, progress, core)?);
        }
        let Some((protocol, client, place)) = change else {
            return Err(broken("it changed protocols, but nobody asked for it").into());
        };
        if !upgrade::is_granted(&protocol, response.headers()) {
            return Err(broken("it changed to another protocol than was asked for").into());
        }
        let upstream = hyper::upgrade::on(&mut response);
        tokio::spawn(upgrade::tunnel(client, upstream, place));
        let mut response = response.map(|_| Body::empty());
        clean_response(response.headers_mut());
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, protocol);
        Ok(response)
    }

    /// Says how the body ends: a length stays one, everything else is chunked, also where hyper would expect no body.
    fn framed(&self, request: &mut Request<Body>) -> Option<Arc<Progress>> {
        if request.body().is_end_stream() {
            return None;
        }
        let progress = Arc::<Progress>::default();
        let unknown = request.body().size_hint().exact().is_none();
        *request.body_mut() = Body::stream(Upload {
            body: std::mem::take(request.body_mut()),
            progress: Arc::clone(&progress),
            reserved: Arc::clone(&self.reserved),
        });
        if unknown {
            let fields = request.headers_mut();
            fields.remove(header::CONTENT_LENGTH);
            fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Some(progress)
    }

    fn passed_on(
        &self,
        mut response: http::Response<Incoming>,
        connection: Connection,
        upload: Option<Arc<Progress>>,
        core: usize,
    ) -> Result<Response, UpstreamTrouble> {
        check_framing(&mut response)?;
        clean_response(response.headers_mut());
        if response.body().is_end_stream() {
            self.backend.put(core, connection);
            if let Some(upload) = upload {
                upload.end();
            }
            return Ok(response.map(|_| Body::empty()));
        }
        Ok(response.map(|body| {
            Body::stream(Download {
                body,
                complete: false,
                connection: Some(connection),
                upload,
                backend: Arc::clone(&self.backend),
                core,
                reserved: Arc::clone(&self.reserved),
            })
        }))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Upstream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The TLS settings for `https` upstreams: the system's roots, or Mozilla's if there are none, as in an image from scratch.
///
/// # Errors
///
/// If the cryptography can't do TLS 1.2 and 1.3.
pub fn tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Refuses a response that two parsers may end at different bytes (RFC 9112, 6.3); hyper would repair it.
fn check_framing(response: &mut http::Response<Incoming>) -> Result<(), UpstreamTrouble> {
    let fields = response.headers_mut();
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() {
            return Err(broken("it has a transfer coding other than chunked"));
        }
        if fields.contains_key(header::CONTENT_LENGTH) {
            return Err(broken("it has a length and a transfer coding"));
        }
    }
    // Equal lengths, which hyper lets through, become one.
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(());
    };
    let only = lengths.next().is_none();
    if only && is_number(first.as_bytes()) {
        return Ok(());
    }
    let text = first.to_str().unwrap_or_default();
    let length = text.split(',').next().unwrap_or_default().trim();
    if !is_number(length.as_bytes()) {
        return Err(broken("its length is no number"));
    }
    if let Ok(length) = HeaderValue::from_str(length) {
        fields.insert(header::CONTENT_LENGTH, length);
    }
    Ok(())
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn broken(reason: &'static str) -> UpstreamTrouble {
    UpstreamTrouble::Broken(reason.into())
}

#[cfg(test)]
mod tests;
