//! HTTP/2 with prior knowledge: a client of several requests at once, and frames by hand for what no client would send.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::{
    Answer, HOST,
    wire::{PATIENCE, Wire},
};

/// One connection.
#[derive(Debug, Clone)]
pub struct Http2 {
    pub sender: SendRequest<Full<Bytes>>,
}

impl Http2 {
    pub async fn to(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { sender }
    }

    /// A GET of `path` with these fields.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(format!("http://{HOST}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(String::new()).expect("a request")).await
    }

    /// Sends a request whose URI is absolute.
    pub async fn send(&self, request: Request<String>) -> Answer {
        let answered = timeout(PATIENCE, async {
            let (parts, body) = self.open(request).await.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            Answer { status: parts.status, headers: parts.headers, body }
        });
        answered.await.expect("an answer in time")
    }

    /// Sends a request, and leaves the body of the answer to the caller.
    pub async fn open(&self, request: Request<String>) -> Response<Incoming> {
        let request = request.map(|body| Full::new(Bytes::from(body)));
        let answered = timeout(PATIENCE, self.sender.clone().send_request(request)).await;
        answered.expect("a head in time").expect("a response")
    }
}

/// The connection preface and empty settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that no table keeps.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let length = match text.len().checked_sub(127) {
            None => vec![u8::try_from(text.len()).expect("short")],
            Some(rest) => {
                assert!(rest < 128 * 128, "one field is that long");
                let low = u8::try_from(rest % 128).expect("low") | 0x80;
                vec![127, low, u8::try_from(rest / 128).expect("high")]
            },
        };
        [length, text.as_bytes().to_vec()].concat()
    };
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    fields.iter().flat_map(field).collect()
}

/// The type, stream and payload of the next frame, or none if the connection ends.
pub async fn next_frame(wire: &mut Wire) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    let read = timeout(PATIENCE, wire.stream.read_exact(&mut head)).await;
    read.expect("a frame in time").ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("a length")];
    wire.stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
