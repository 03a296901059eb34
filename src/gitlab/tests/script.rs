//! A GitLab that answers by script: each request is remembered and handed to a closure, which says what bytes go back.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    /// Which connection it came by, counted from 0.
    pub(super) connection: usize,
    pub(super) line: String,
    head: String,
    pub(super) body: String,
}

impl Hit {
    /// Path and query.
    pub(super) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// What goes back, and what becomes of the connection.
#[derive(Clone)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    close: bool,
    hold: Option<Arc<Semaphore>>,
}

impl Reply {
    pub(super) fn new(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
        Self { bytes: (head + body).into_bytes(), close: false, hold: None }
    }

    pub(super) fn json(status: u16, body: &str) -> Self {
        Self::new(status, "content-type: application/json; charset=utf-8\r\n", body)
    }

    pub(super) fn page(status: u16) -> Self {
        Self::new(status, "content-type: text/html\r\n", "<html>GitLab is down for lunch</html>")
    }

    /// Breaks off before the last bytes.
    pub(super) fn cut(mut self) -> Self {
        self.bytes.truncate(self.bytes.len() - 3);
        self.closing()
    }

    pub(super) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Closes without a word.
    pub(super) fn nothing() -> Self {
        Self { bytes: Vec::new(), close: true, hold: None }
    }

    /// Waits for a permit first.
    pub(super) fn held(mut self, hold: &Arc<Semaphore>) -> Self {
        self.hold = Some(Arc::clone(hold));
        self
    }
}

type Answers = dyn Fn(&Hit) -> Reply + Send + Sync;

#[derive(Default)]
struct Seen {
    hits: Mutex<Vec<Hit>>,
    open: AtomicUsize,
    most: AtomicUsize,
    count: watch::Sender<usize>,
}

pub(super) struct Script {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Script {
    pub(super) async fn new(answers: impl Fn(&Hit) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, answers).await
    }

    pub(super) async fn tls(
        tls: TlsAcceptor,
        answers: impl Fn(&Hit) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(tls), answers).await
    }

    async fn start(
        tls: Option<TlsAcceptor>,
        answers: impl Fn(&Hit) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(listen(listener, tls, Arc::clone(&seen), Arc::new(answers)));
        Self { address, scheme, seen, task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    pub(super) fn hits(&self) -> Vec<Hit> {
        self.seen.hits.lock().unwrap().clone()
    }

    /// How often a path (query included) was asked for.
    pub(super) fn count(&self, path: &str) -> usize {
        self.hits().iter().filter(|hit| hit.path() == path).count()
    }

    /// Waits for the `count`th request.
    pub(super) async fn reached(&self, count: usize) {
        let mut seen = self.seen.count.subscribe();
        seen.wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// The most requests that waited for an answer at once.
    pub(super) fn most_at_once(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    seen: Arc<Seen>,
    answers: Arc<Answers>,
) {
    for connection in 0.. {
        let (socket, _) = listener.accept().await.unwrap();
        let (seen, answers, tls) = (Arc::clone(&seen), Arc::clone(&answers), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => converse(connection, socket, &seen, &*answers).await,
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        converse(connection, socket, &seen, &*answers).await;
                    }
                },
            }
        });
    }
}

async fn converse(
    connection: usize,
    socket: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Seen,
    answers: &Answers,
) {
    let mut socket = BufReader::new(socket);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match socket.read_line(&mut head).await {
                Ok(1..) => {},
                _ => return,
            }
        }
        let line = head.lines().next().unwrap().to_owned();
        let mut hit = Hit { connection, line, head, body: String::new() };
        let length = hit.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        hit.body = String::from_utf8(body).unwrap();
        let reply = answers(&hit);
        seen.hits.lock().unwrap().push(hit);
        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(open, Ordering::SeqCst);
        seen.count.send_modify(|count| *count += 1);
        if let Some(hold) = &reply.hold {
            hold.acquire().await.unwrap().forget();
        }
        seen.open.fetch_sub(1, Ordering::SeqCst);
        if socket.write_all(&reply.bytes).await.is_err() || socket.flush().await.is_err() {
            return;
        }
        if reply.close {
            socket.shutdown().await.ok();
            return;
        }
    }
}
