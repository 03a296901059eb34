//! Envoy's side of `ext_authz` over gRPC: questions as it asks them, answers as it reads them, with message types that are not labgate's.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures_util::stream::pending;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, time::timeout};

use super::{HOST, Http2, wire::PATIENCE};

/// What comes of one call.
#[derive(Debug)]
pub struct Called {
    /// 0 is success.
    pub code: String,
    pub messages: Vec<Bytes>,
}

/// A question about one request.
#[derive(Clone, Debug)]
pub struct Question {
    pub method: String,
    pub path: String,
    pub host: String,
    pub scheme: String,
    pub source: String,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Whether the headers are sent as they are, or as a map.
    pub raw: bool,
    pub context: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Question {
    /// A navigation of a browser to `path`.
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET".into(),
            path: path.into(),
            host: HOST.into(),
            scheme: "https".into(),
            source: "192.0.2.7".into(),
            headers: Vec::new(),
            raw: false,
            context: Vec::new(),
            body: Vec::new(),
        }
        .with("accept", "text/html")
    }

    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub fn context(mut self, name: &str, value: &str) -> Self {
        self.context.push((name.into(), value.into()));
        self
    }

    /// The message, with the pseudo headers that Envoy sends among the others.
    pub fn encode(&self) -> Vec<u8> {
        let pseudo = [
            (":method", &self.method),
            (":path", &self.path),
            (":authority", &self.host),
            (":scheme", &self.scheme),
        ];
        let pseudo = pseudo.into_iter().map(|(name, value)| (name, value.as_bytes()));
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let fields: Vec<_> = pseudo.chain(own).collect();
        let empty = Vec::new();
        let folded = fields.iter().map(|(name, value)| Pair {
            key: (*name).into(),
            value: value.to_vec(),
            raw_value: Vec::new(),
        });
        let raw = fields.iter().map(|(name, value)| Pair {
            key: (*name).into(),
            value: empty.clone(),
            raw_value: value.to_vec(),
        });
        let http = Http {
            id: "1".into(),
            method: self.method.clone(),
            headers: if self.raw { Vec::new() } else { folded.collect() },
            path: self.path.clone(),
            host: self.host.clone(),
            scheme: self.scheme.clone(),
            size: -1,
            protocol: "HTTP/1.1".into(),
            raw_body: self.body.clone(),
            header_map: self.raw.then(|| Pairs { headers: raw.collect() }),
        };
        let socket = Socket { address: self.source.clone(), port: 1234 };
        let source = Source {
            address: Some(Address { socket: (!self.source.is_empty()).then_some(socket) }),
            principal: "somebody".into(),
        };
        let context = self.context.iter().map(|(key, value)| Pair {
            key: key.clone(),
            value: value.clone().into(),
            raw_value: Vec::new(),
        });
        let attributes = Attributes {
            source: Some(source),
            request: Some(Asked { http: Some(http) }),
            context: context.collect(),
        };
        Check { attributes: Some(attributes) }.encode_to_vec()
    }
}

/// labgate's answer, as Envoy acts on it.
#[derive(Debug)]
pub struct Verdict {
    /// 0 lets pass.
    pub code: i32,
    /// Status, headers and body for the browser, if it does not pass.
    pub denied: Option<(i32, HeaderMap, String)>,
    /// What is set for the application.
    pub set: BTreeMap<String, String>,
    pub removed: Vec<String>,
    /// What is added for the browser.
    pub added: Vec<(String, String)>,
    pub metadata: BTreeMap<String, String>,
}

impl Verdict {
    fn read(message: Bytes) -> Self {
        let answer = Answer::decode(message).expect("an answer");
        let pair = |option: Option_| {
            let header = option.header.expect("a header");
            assert!(option.keep_empty, "{header:?}");
            (header.key, String::from_utf8(header.value).expect("text"), option.action)
        };
        let ok = answer.ok.unwrap_or_default();
        let set = ok.headers.into_iter().map(pair).map(|(name, value, action)| {
            assert_eq!(action, 2, "{name} overwrites");
            (name, value)
        });
        let added = ok.added.into_iter().map(pair).map(|(name, value, action)| {
            assert_eq!(action, 0, "{name} is appended");
            (name, value)
        });
        let denied = answer.denied.map(|denied| {
            let mut headers = HeaderMap::new();
            for (name, value, action) in denied.headers.into_iter().map(pair) {
                let name: http::HeaderName = name.parse().expect("a name");
                let value = value.parse().expect("a value");
                match action {
                    0 => drop(headers.append(name, value)),
                    _ => drop(headers.insert(name, value)),
                }
            }
            (denied.status.unwrap_or_default().code, headers, denied.body)
        });
        let facts = answer.metadata.unwrap_or_default().fields.into_iter();
        Self {
            code: answer.status.expect("a status").code,
            denied,
            set: set.collect(),
            removed: ok.removed,
            added: added.collect(),
            metadata: facts.map(|(name, text)| (name, text.text)).collect(),
        }
    }

    /// Whether it lets pass.
    pub fn passes(&self) -> bool {
        assert_eq!(self.code == 0, self.denied.is_none(), "{self:?}");
        self.code == 0
    }

    /// Status for the browser, 200 if it passes.
    pub fn status(&self) -> i32 {
        self.denied.as_ref().map_or(200, |(status, ..)| *status)
    }

    /// A header for the browser, if it does not pass.
    pub fn header(&self, name: &str) -> &str {
        let headers = self.denied.as_ref().map(|(_, headers, _)| headers);
        headers.and_then(|headers| headers.get(name)?.to_str().ok()).unwrap_or_default()
    }

    /// The headers that the application gets of `question`.
    pub fn applied(&self, question: &Question) -> Vec<(String, String)> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let sent = question.headers.iter().map(|(name, value)| (name.clone(), text(value)));
        let kept = sent.filter(|(name, _)| !self.set.contains_key(name));
        let own = self.set.iter().map(|(name, value)| (name.clone(), value.clone()));
        kept.chain(own).filter(|(name, _)| !self.removed.contains(name)).collect()
    }
}

/// Asks labgate at `addr` over a connection of its own.
pub async fn ask(addr: SocketAddr, question: &Question) -> Verdict {
    Http2::to(addr).await.ask(question).await
}

impl Http2 {
    /// Asks what Envoy asks.
    pub async fn ask(&self, question: &Question) -> Verdict {
        let called = self.call(CHECK, &question.encode()).await;
        assert_eq!(called.code, "0", "{called:?}");
        let [message] = <[Bytes; 1]>::try_from(called.messages).expect("one message");
        Verdict::read(message)
    }

    /// A call with one message.
    pub async fn call(&self, path: &str, message: &[u8]) -> Called {
        self.call_framed(path, framed(message)).await
    }

    /// The same with whatever frame.
    pub async fn call_framed(&self, path: &str, framed: Vec<u8>) -> Called {
        let request = Request::post(format!("http://labgate{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed.into()))
            .expect("a request");
        let answered = timeout(PATIENCE, async {
            let response = self.sender.clone().send_request(request).await.expect("a response");
            let (head, body) = response.into_parts();
            assert_eq!(head.status, 200);
            assert_eq!(head.headers["content-type"], "application/grpc");
            let body = body.collect().await.expect("a whole body");
            let trailers = body.trailers().cloned().unwrap_or(head.headers);
            let code = trailers["grpc-status"].to_str().expect("text").to_owned();
            Called { code, messages: unframed(body.to_bytes()) }
        });
        answered.await.expect("an answer in time")
    }
}

/// A call whose message does not come; its code.
pub async fn silent(addr: SocketAddr) -> String {
    let stream = TcpStream::connect(addr).await.expect("a connection");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let never = StreamBody::new(pending::<Result<Frame<Bytes>, Infallible>>());
    let request = Request::post(format!("http://labgate{CHECK}"));
    let request = request.header("content-type", "application/grpc").body(never);
    let answered = timeout(PATIENCE, sender.send_request(request.expect("a request"))).await;
    let answer = answered.expect("an answer in time").expect("an answer");
    answer.headers()["grpc-status"].to_str().expect("text").to_owned()
}

/// A message as a call carries it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a length").to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// The messages that were carried.
pub fn unframed(mut bytes: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let head = bytes.split_to(5);
        assert_eq!(head[0], 0);
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        messages.push(bytes.split_to(usize::try_from(length).expect("a length")));
    }
    messages
}

/// The one method that Envoy calls.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

#[derive(Clone, PartialEq, Message)]
struct Check {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Source>,
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
    #[prost(message, repeated, tag = "10")]
    context: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket: Option<Socket>,
}

#[derive(Clone, PartialEq, Message)]
struct Socket {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Clone, PartialEq, Message)]
struct Http {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(message, repeated, tag = "3")]
    headers: Vec<Pair>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(bytes, tag = "12")]
    raw_body: Vec<u8>,
    #[prost(message, optional, tag = "13")]
    header_map: Option<Pairs>,
}

#[derive(Clone, PartialEq, Message)]
struct Pairs {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
    #[prost(bytes, tag = "3")]
    raw_value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    ok: Option<Ok_>,
    #[prost(message, optional, tag = "4")]
    metadata: Option<Struct>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Option_>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct Ok_ {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Option_>,
    #[prost(string, repeated, tag = "5")]
    removed: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    added: Vec<Option_>,
}

#[derive(Clone, PartialEq, Message)]
struct Option_ {
    #[prost(message, optional, tag = "1")]
    header: Option<Pair>,
    #[prost(int32, tag = "3")]
    action: i32,
    #[prost(bool, tag = "4")]
    keep_empty: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "3")]
    text: String,
}
