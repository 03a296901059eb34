//! HTTP/1 byte by byte: a connection on which anything may be said, and an application whose answers are said by hand.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// One connection, as a client or as an application has it.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    /// What was read beyond the last message.
    ahead: Vec<u8>,
}

/// One message as it came.
#[derive(Debug, Clone)]
pub struct Message {
    /// Request or status line and fields, without the empty line.
    pub head: String,
    /// Chunks joined.
    pub body: Vec<u8>,
    /// Fields behind the last chunk.
    pub trailers: String,
}

impl Message {
    /// The status of a response.
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no response: {}", self.head))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The values of all fields of this name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|field| field.split_once(':'));
        let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    }
}

impl Wire {
    pub async fn to(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.expect("a connection"), ahead: Vec::new() }
    }

    /// A connection on which `bytes` have been said.
    pub async fn say(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut wire = Self::to(addr).await;
        wire.write(bytes).await;
        wire
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let written = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        written.expect("bytes taken in time").expect("bytes taken");
    }

    /// Says `bytes` to somebody who may be gone already.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let written = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        written.expect("bytes taken or refused in time").is_ok()
    }

    /// Says no more.
    pub async fn end(&mut self) {
        // The other side may be gone already.
        drop(self.stream.shutdown().await);
    }

    /// The next message, or none if the connection ends first.
    pub async fn message(&mut self) -> Option<Message> {
        let head = self.head().await?;
        self.body(head).await
    }

    /// The next final response to a request other than HEAD.
    pub async fn answer(&mut self) -> Message {
        loop {
            let message = self.message().await.expect("an answer");
            if message.status() >= 200 || message.status() == 101 {
                return message;
            }
        }
    }

    /// The next head, without its empty line; the body stays unread.
    pub async fn head(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    async fn body(&mut self, head: String) -> Option<Message> {
        let mut message = Message { head, body: Vec::new(), trailers: String::new() };
        let chunked = message.values("transfer-encoding").contains(&"chunked");
        if !chunked {
            let length = message.values("content-length").first().map(|length| length.parse());
            message.body = self.exactly(length.unwrap_or(Ok(0)).expect("a length")).await?;
            return Some(message);
        }
        loop {
            let size = String::from_utf8(self.until(b"\r\n").await?).expect("a chunk size");
            let size = size.split(';').next().unwrap_or_default();
            match usize::from_str_radix(size, 16).expect("a chunk size") {
                0 => break,
                size => message.body.extend(self.exactly(size).await?),
            }
            self.exactly(2).await?;
        }
        loop {
            let line = self.until(b"\r\n").await?;
            if line.is_empty() {
                return Some(message);
            }
            message.trailers += &String::from_utf8_lossy(&line).to_lowercase();
            message.trailers += "\n";
        }
    }

    /// What comes before `end`, which is taken too.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.ahead.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                let before = self.ahead[..at].to_vec();
                self.ahead.drain(..at + end.len());
                return Some(before);
            }
            self.more().await?;
        }
    }

    /// So many bytes.
    pub async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.more().await?;
        }
        Some(self.ahead.drain(..count).collect())
    }

    /// Everything until the other side ends the connection.
    pub async fn rest(&mut self) -> String {
        while self.more().await.is_some() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned()
    }

    /// Waits until the other side closes or resets; panics if it says anything.
    pub async fn closed(&mut self) {
        let rest = self.rest().await;
        assert_eq!(rest, "", "said something before it closed");
    }

    async fn more(&mut self) -> Option<()> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await;
        match read.expect("bytes, or an end, in time") {
            Ok(1..) => Some(()),
            Ok(0) | Err(_) => None,
        }
    }
}

/// An application that a test plays by hand.
#[derive(Debug)]
pub struct Tap {
    listener: TcpListener,
}

impl Tap {
    pub async fn open() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The next connection that labgate opens.
    pub async fn accept(&self) -> Wire {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("a connection in time").expect("a connection");
        Wire { stream, ahead: Vec::new() }
    }
}

/// Longer than anything takes, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);
