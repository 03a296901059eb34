//! A front proxy that asks labgate about a browser's request, in any dialect, to the letter of its documentation.

use std::net::SocketAddr;

use http::{Method, Request};
use labgate::config::Dialect;

use super::{HOST, client::Answer, send};

/// A browser's request, as it arrives at the front proxy.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub method: Method,
    pub scheme: &'static str,
    pub host: String,
    /// Path and query as on the wire.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Arrived {
    /// A GET of `path` at the lab's host.
    pub fn get(path: &str) -> Self {
        let (method, headers) = (Method::GET, Vec::new());
        Self { method, scheme: "https", host: HOST.into(), path: path.into(), headers }
    }

    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// As a person who opens a page.
    pub fn navigation(self) -> Self {
        self.header("sec-fetch-mode", "navigate").header("accept", "text/html")
    }

    /// With this `Cookie`, unless it is empty.
    pub fn cookie(self, cookie: &str) -> Self {
        if cookie.is_empty() { self } else { self.header("cookie", cookie) }
    }

    /// The question that the front proxy asks about it.
    pub fn question(&self, dialect: Dialect) -> Request<String> {
        self.question_at(dialect, &format!("/oauth2/auth/{}", dialect.name()))
    }

    /// The same, asked at another endpoint.
    pub fn question_at(&self, dialect: Dialect, endpoint: &str) -> Request<String> {
        let Self { method, scheme, host, path, headers } = self;
        let request = match dialect {
            Dialect::Nginx => Request::get(endpoint)
                .header("host", "labgate.internal:4180")
                .header("x-original-url", format!("{scheme}://{host}{path}"))
                .header("x-original-method", method.as_str()),
            Dialect::Traefik | Dialect::Caddy | Dialect::Haproxy => Request::get(endpoint)
                .header("host", "labgate.internal:4180")
                .header("x-forwarded-method", method.as_str())
                .header("x-forwarded-proto", *scheme)
                .header("x-forwarded-host", host)
                .header("x-forwarded-uri", path),
            Dialect::Envoy => Request::builder()
                .method(method)
                .uri(format!("{endpoint}{path}"))
                .header("host", host)
                .header("x-forwarded-proto", *scheme),
        };
        let headers = headers.iter();
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
        request.header("x-forwarded-for", "192.0.2.7").body(String::new()).expect("a request")
    }

    /// The same request, sent to labgate as a proxy.
    pub fn proxied(&self) -> Request<String> {
        let Self { method, scheme, host, path, headers } = self;
        let request = Request::builder().method(method).uri(path.as_str()).header("host", host);
        let headers = headers.iter();
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
        let request = request.header("x-forwarded-proto", *scheme);
        request.header("x-forwarded-for", "192.0.2.7").body(String::new()).expect("a request")
    }

    /// labgate's answer to the question.
    pub async fn ask(&self, dialect: Dialect, labgate: SocketAddr) -> Answer {
        send(labgate, self.question(dialect)).await
    }
}
