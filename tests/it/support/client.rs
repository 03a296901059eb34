//! One request, one answer, over a connection of its own; or bytes as they are.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A whole response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// A header's value, empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// All `Set-Cookie` values.
    pub fn cookies(&self) -> Vec<&str> {
        let values = self.headers.get_all("set-cookie").iter();
        values.map(|value| value.to_str().expect("text")).collect()
    }
}

/// Sends `request`, whose URI is in origin form, to `addr`.
pub async fn send(addr: SocketAddr, request: Request<String>) -> Answer {
    let stream = TcpStream::connect(addr).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    let driver = tokio::spawn(connection);
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let answered = timeout(PATIENCE, async {
        let response = sender.send_request(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    });
    let answer = answered.await.expect("an answer in time");
    driver.abort();
    answer
}

/// Sends `bytes` and reads until the other side closes or has been silent for a second.
pub async fn send_raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    stream.write_all(bytes).await.expect("bytes taken");
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(Ok(count @ 1..)) = timeout(SILENCE, stream.read(&mut chunk)).await {
        read.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

const PATIENCE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(1);
