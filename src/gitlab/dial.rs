//! The way to GitLab: whom labgate believes to be it, and the sockets there, through a forward proxy if the environment names one.

use std::{
    error::Error,
    future::Future,
    io::ErrorKind,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls::{CertificateError, ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;
use url::Url;

use super::{Certificate, ProviderError};
use crate::body::BoxError;

/// Until the socket stands, names resolved and proxy passed.
const CONNECT: Duration = Duration::from_secs(3);

/// Certificate authorities that every GitLab may be vouched for by.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// The system's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded); Mozilla's, compiled in, where the system has none.
    pub fn system() -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            // An image made from scratch has no store of its own.
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self(Arc::new(store))
    }

    /// No authority at all: only those that a table's `ca` names.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    fn with(&self, ca: &Path) -> Result<Arc<RootCertStore>, ProviderError> {
        let pem = std::fs::read(ca).map_err(ProviderError::CaFile)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let found = found.map_err(|_| ProviderError::CaContent)?;
        let mut store = RootCertStore::clone(&self.0);
        let (added, ignored) = store.add_parsable_certificates(found);
        match (added, ignored) {
            (0, _) | (_, 1..) => Err(ProviderError::CaContent),
            _ => Ok(Arc::new(store)),
        }
    }
}

/// The TLS side of a client that believes `roots` and the authorities in the file `ca`.
pub(super) fn tls(roots: &Roots, ca: Option<&Path>) -> Result<ClientConfig, ProviderError> {
    let roots = match ca {
        Some(ca) => roots.with(ca)?,
        None => Arc::clone(&roots.0),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ProviderError::Tls)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A forward proxy that is asked to `CONNECT`.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    /// Its address, always `http`.
    pub(super) address: Uri,
    /// What to say in `Proxy-Authorization`.
    pub(super) login: Option<HeaderValue>,
}

/// The forward proxy on the way to `base`, if the environment names one; one without TLS is always called directly.
pub(super) fn proxy(
    base: &Url,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, ProviderError> {
    if base.scheme() != "https" {
        return Ok(None);
    }
    let any = |names: [&str; 2]| names.into_iter().find_map(env).unwrap_or_default();
    let matcher = Matcher::builder()
        .all(any(["all_proxy", "ALL_PROXY"]))
        .https(any(["https_proxy", "HTTPS_PROXY"]))
        .no(any(["no_proxy", "NO_PROXY"]))
        .build();
    let uri: Uri = base.as_str().parse().map_err(|_| ProviderError::Proxy)?;
    let Some(found) = matcher.intercept(&uri) else {
        return Ok(None);
    };
    match found.uri().scheme_str() {
        Some("http") => {
            Ok(Some(Proxy { address: found.uri().clone(), login: found.basic_auth().cloned() }))
        },
        _ => Err(ProviderError::Proxy),
    }
}

/// What is wrong with a server's certificate, as far as an operator can mend it.
pub(super) fn certificate(error: &rustls::Error) -> Option<Certificate> {
    match error {
        rustls::Error::InvalidCertificate(reason) => Some(match reason {
            // A bad signature: there is an authority of that name, but with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Certificate::UnknownIssuer
            },
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Certificate::OtherName
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Certificate::Expired
            },
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Certificate::NotYetValid
            },
            other if other.to_string().contains("CaUsedAsEndEntity") => Certificate::CaAsServer,
            _ => Certificate::Other,
        }),
        _ => None,
    }
}

/// The kind of the io error and the rustls error inside `error`, wherever they are wrapped.
pub(super) fn inside<'a>(
    error: &'a (dyn Error + 'static),
) -> (Option<ErrorKind>, Option<&'a rustls::Error>) {
    let (mut kind, mut tls) = (None, None);
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        // The innermost kind is the telling one.
        kind = io.map(std::io::Error::kind).or(kind);
        tls = tls.or(error.downcast_ref());
        // An io error's `source` skips the error that it wraps.
        let wrapped = io.and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    (kind, tls)
}

/// Opens sockets to GitLab, directly or through a forward proxy.
#[derive(Clone)]
pub(super) enum Dial {
    Direct(HttpConnector),
    Proxied(Tunnel<HttpConnector>),
}

impl Dial {
    pub(super) fn new(proxy: Option<Proxy>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        match proxy {
            None => Self::Direct(tcp),
            Some(Proxy { address, login: None }) => Self::Proxied(Tunnel::new(address, tcp)),
            Some(Proxy { address, login: Some(login) }) => {
                Self::Proxied(Tunnel::new(address, tcp).with_auth(login))
            },
        }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut dial = self.clone();
        let socket = async move {
            match &mut dial {
                Self::Direct(tcp) => tcp.call(to).await.map_err(BoxError::from),
                Self::Proxied(tunnel) => tunnel.call(to).await.map_err(BoxError::from),
            }
        };
        Box::pin(async move {
            let late = |_| BoxError::from(std::io::Error::from(ErrorKind::TimedOut));
            timeout(CONNECT, socket).await.map_err(late)?
        })
    }
}
