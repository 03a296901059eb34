//! Traefik, or rather a peer that stands in for it: none of the registries that `tests/run` uses has a Traefik.
//!
//! It runs on the very file that `labgate front traefik` prints and does what Traefik's documentation and source say of version 3.7:
//!
//! ```text
//! entry point   X-Forwarded-{For,Host,Method,Port,Prefix,Proto,Uri} and X-Real-Ip of a client that is not trusted go; its own are set
//! routers       the highest priority whose rule holds; Host, HostRegexp and PathRegexp only, and of those only the shapes that are printed
//! headers       an empty value removes the header
//! replacePath   another path
//! forwardAuth   GET with all headers but hop-by-hop ones, without a body; X-Forwarded-* anew, or kept if `trustForwardHeader` says so; 2xx lets pass and copies the listed names,
//!               removing the client's first; everything else goes to the browser whole; no cookie of an answer that lets pass; no answer is a 500
//! services      the one server, streaming, upgrades included
//! ```
//!
//! Whatever else is in the file fails the test, so that nothing is taken to work that was not looked at.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::{front::Kind, people, strangers, time, wire};

type Body = Either<Incoming, Full<Bytes>>;

/// A running peer; gone when dropped.
pub struct Peer(AbortHandle);

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dynamic {
    http: Http,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    routers: BTreeMap<String, Router>,
    middlewares: BTreeMap<String, Middleware>,
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Router {
    entry_points: Vec<String>,
    rule: String,
    priority: u32,
    #[serde(default)]
    middlewares: Vec<String>,
    service: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum Middleware {
    #[serde(rename_all = "camelCase")]
    Headers {
        custom_request_headers: BTreeMap<String, String>,
    },
    #[serde(rename_all = "camelCase")]
    ForwardAuth {
        address: String,
        trust_forward_header: bool,
        auth_response_headers: Vec<String>,
    },
    ReplacePath {
        path: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Service {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBalancer {
    servers: Vec<Server>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    url: String,
}

impl Peer {
    /// Starts one on the dynamic configuration `text`.
    pub async fn start(text: &str, addr: SocketAddr) -> Self {
        let dynamic: Dynamic = serde_saphyr::from_str(text).expect("a configuration of Traefik's");
        let http = Arc::new(dynamic.http);
        let listener = TcpListener::bind(addr).await.expect("a free address");
        let serve = async move {
            while let Ok((stream, client)) = listener.accept().await {
                let http = Arc::clone(&http);
                let service = service_fn(move |request| {
                    let http = Arc::clone(&http);
                    async move { Ok::<_, std::convert::Infallible>(http.answer(request, client).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                tokio::spawn(connection);
            }
        };
        Self(tokio::spawn(serve).abort_handle())
    }
}

impl Http {
    async fn answer(&self, mut request: Request<Incoming>, client: SocketAddr) -> Response<Body> {
        // Of an absolute target the host counts, as in Go.
        let host = request.uri().authority().map(ToString::to_string);
        let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let Some(host) = host.or_else(|| named.map(str::to_owned)) else {
            return said(StatusCode::BAD_REQUEST);
        };
        let target =
            request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        *request.uri_mut() = target.parse().expect("it was one");
        enter(request.headers_mut(), &host, client);
        let path = request.uri().path().to_owned();
        let routers = self.routers.values().filter(|router| router.holds(&host, &path));
        let Some(router) = routers.max_by_key(|router| router.priority) else {
            return said(StatusCode::NOT_FOUND);
        };
        assert_eq!(router.entry_points, ["web"]);
        for name in &router.middlewares {
            if let Err(answer) = self.middlewares[name].apply(&mut request, &host, client).await {
                return answer;
            }
        }
        let [server] = self.services[&router.service].load_balancer.servers.as_slice() else {
            panic!("one server: {}", router.service)
        };
        pass(request, &server.url).await
    }
}

/// What the entry point does for a client that is not trusted.
fn enter(headers: &mut HeaderMap, host: &str, client: SocketAddr) {
    for name in ["for", "host", "method", "port", "prefix", "proto", "server", "uri"] {
        headers.remove(format!("x-forwarded-{name}"));
    }
    let mut set = |name, value: &str| headers.insert(name, value.parse().expect("a value"));
    set("host", host);
    set("x-forwarded-for", &client.ip().to_string());
    set("x-forwarded-host", host);
    set("x-forwarded-port", "80");
    set("x-forwarded-proto", "http");
    set("x-real-ip", &client.ip().to_string());
}

impl Router {
    fn holds(&self, host: &str, path: &str) -> bool {
        let host = host.split(':').next().unwrap_or_default();
        self.rule.split(" && ").all(|term| {
            let (matcher, pattern) = term.split_once("(`").expect("a matcher");
            let pattern = pattern.strip_suffix("`)").expect("one argument");
            let plain = pattern.replace('\\', "");
            match matcher {
                "Host" => host == pattern,
                "HostRegexp" => {
                    let suffix =
                        plain.strip_prefix("^[^.]+.").and_then(|rest| rest.strip_suffix('$'));
                    host.split_once('.').map(|(_, rest)| rest) == suffix
                },
                "PathRegexp" => {
                    let prefix =
                        plain.strip_prefix('^').and_then(|rest| rest.strip_suffix("(?:/|$)"));
                    let below = path.strip_prefix(prefix.expect("a prefix on borders"));
                    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                },
                other => panic!("a matcher that was not looked at: {other}"),
            }
        })
    }
}

impl Middleware {
    async fn apply(
        &self,
        request: &mut Request<Incoming>,
        host: &str,
        client: SocketAddr,
    ) -> Result<(), Response<Body>> {
        match self {
            Self::Headers { custom_request_headers } => {
                for (name, value) in custom_request_headers {
                    match value.as_str() {
                        "" => drop(request.headers_mut().remove(name)),
                        value => {
                            let name = HeaderName::try_from(name).expect("a name");
                            request.headers_mut().insert(name, value.parse().expect("a value"));
                        },
                    }
                }
            },
            Self::ReplacePath { path } => *request.uri_mut() = path.parse().expect("a path"),
            Self::ForwardAuth { address, trust_forward_header, auth_response_headers } => {
                let answer = ask(request, address, *trust_forward_header, host, client).await;
                let answer = answer.ok_or_else(|| said(StatusCode::INTERNAL_SERVER_ERROR))?;
                if !answer.status().is_success() {
                    return Err(answer.map(Either::Left));
                }
                for name in auth_response_headers {
                    request.headers_mut().remove(name);
                    for value in answer.headers().get_all(name) {
                        let name = HeaderName::try_from(name).expect("a name");
                        request.headers_mut().append(name, value.clone());
                    }
                }
            },
        }
        Ok(())
    }
}

/// The question about `request`.
async fn ask(
    request: &Request<Incoming>,
    address: &str,
    trust: bool,
    host: &str,
    client: SocketAddr,
) -> Option<Response<Incoming>> {
    let mut headers = request.headers().clone();
    for name in HOP {
        headers.remove(name);
    }
    let forwarded: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in forwarded.into_iter().filter(|_| !trust) {
        headers.remove(name);
    }
    let address: Uri = address.parse().expect("a URL");
    let authority = address.authority().expect("a host").as_str();
    let uri = request.uri().to_string();
    headers.remove(header::HOST);
    for (name, value) in [
        ("host", authority),
        ("x-forwarded-method", request.method().as_str()),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", host),
        ("x-forwarded-port", "80"),
        ("x-forwarded-uri", &uri),
        ("x-forwarded-for", &client.ip().to_string()),
    ] {
        // Without trust none of them is there any more.
        let value = HeaderValue::try_from(value).expect("a value");
        headers.entry(name).or_insert(value);
    }
    let mut question = Request::get(address.path()).body(Empty::<Bytes>::new()).expect("a request");
    *question.headers_mut() = headers;
    let stream = TcpStream::connect(authority).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    sender.send_request(question).await.ok()
}

/// Hands `request` to the server at `url`, and its answer back.
async fn pass(mut request: Request<Incoming>, url: &str) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    let Ok(stream) = TcpStream::connect(url.trim_start_matches("http://")).await else {
        return said(StatusCode::BAD_GATEWAY);
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = handshake else { return said(StatusCode::BAD_GATEWAY) };
    tokio::spawn(connection.with_upgrades());
    let Ok(mut answer) = sender.send_request(request).await else {
        return said(StatusCode::BAD_GATEWAY);
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let other = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(one), Ok(other)) = (upgraded.await, other.await) {
                let (mut one, mut other) = (TokioIo::new(one), TokioIo::new(other));
                drop(tokio::io::copy_bidirectional(&mut one, &mut other).await);
            }
        });
    }
    answer.map(Either::Left)
}

fn said(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = status;
    response
}

/// What belongs to one connection or body.
const HOP: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_and_are_where_they_wanted_to_be() {
    people::sign_in(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_refused_and_people_read_why() {
    people::refusals(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_who_they_are() {
    strangers::claims(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_what_they_ask_for() {
    strangers::families(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_way_around() {
    strangers::ways_around(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_whole_or_not_at_all() {
    wire::uploads(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_open_for_whom_they_should() {
    wire::web_socket(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_their_tokens() {
    time::tokens_end(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gitlab_lets_nobody_in_and_signs_nobody_out() {
    time::gitlab_gone(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_labgate_tells_nobody_anything_wrong() {
    time::restarts(Kind::Traefik).await;
}
