//! One connection: which HTTP it speaks, its limits, its deadlines, and its end.
//!
//! hyper's `header_read_timeout` also runs while a connection is idle and costs a timer a request; here one lazy timer a connection tells
//! a slow head from an idle connection from a peer that stalls in a body. Requests that wait for us have no deadline of the connection's.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Handler, Settings,
    live::{Busy, Counts, Link, Live, Open, Upgrade, Wait},
    progress::{Answers, Left, Tracked, Watch},
    wire::Wire,
};
use crate::body::{Body, Request, Response};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Both builders with the limits of `Settings`, made once a core.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    settings: Settings,
}

impl Protocols {
    pub(super) fn new(settings: Settings) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .half_close(false)
            .writev(false)
            .header_read_timeout(None)
            .max_header_size(readable(&settings))
            .max_buf_size(readable(&settings).max(MIN_BUFFER));
        // Only hyper's own limit is kept on the stack.
        if settings.headers != HYPERS_HEADERS {
            http1.max_headers(settings.headers);
        }
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(settings.http2_streams)
            .max_header_list_size(u32::try_from(readable(&settings)).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .max_send_buf_size(MIN_BUFFER)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(settings.idle)
            .keep_alive_timeout(PING_TIMEOUT);
        Self { http1, http2, settings }
    }

    /// Serves one socket until it is closed or has become a tunnel.
    pub(super) async fn serve<H: Handler>(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        open: Open,
        handler: Arc<H>,
    ) {
        let (core, live) = (open.core, Arc::clone(&open.live));
        let deadline = Instant::now() + self.settings.header;
        let mut ahead = Vec::new();
        {
            let mut drained = pin!(live.drain.notified());
            drained.as_mut().enable();
            if live.draining() {
                return;
            }
            let first = tokio::time::timeout_at(deadline, preface(&mut stream, &mut ahead));
            let begun = tokio::select! {
                biased;
                begun = first => matches!(begun, Ok(Ok(()))),
                // No whole request has come: nothing is lost.
                () = drained => false,
            };
            if !begun {
                return;
            }
        }
        let link = Arc::new(Link::default());
        let answers = (ahead == PREFACE).then(Answers::new);
        let service = {
            let (link, answers) = (Arc::clone(&link), answers.clone());
            let heads = Heads::new(&self.settings, Arc::clone(&live.counts));
            let served = Arc::new(Served { handler, peer, core, heads, link, answers });
            service_fn(move |request| {
                let busy = Busy::new(&served.link);
                let served = Arc::clone(&served);
                async move {
                    let answer = served.answer(request).await;
                    Ok(answer.map(|body| Tracked::new(body, busy, served.answers.as_ref())))
                }
            })
        };
        let is_http2 = answers.is_some();
        let timing = Timing::new(&self.settings, deadline, Arc::clone(&link), live, answers);
        if is_http2 {
            let io = TokioIo::new(Wire::http2(stream, link, ahead, open));
            let connection = self.http2.serve_connection(io, service);
            timing.run(pin!(connection)).await;
        } else {
            let io = TokioIo::new(Wire::http1(stream, link, ahead, open));
            let connection = self.http1.serve_connection(io, service).with_upgrades();
            timing.run(pin!(connection)).await;
        }
    }
}

/// What hyper parses without allocating.
const HYPERS_HEADERS: usize = 100;
/// hyper's smallest useful buffers; also what an unfinished head may take.
const MIN_BUFFER: usize = 64 * 1024;
/// Streams that a peer may have reset before we took notice (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 32;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// For a head that had begun when a drain did.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// Reads until it is certain whether HTTP/2 is spoken; what was read is in `ahead`.
async fn preface(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> std::io::Result<()> {
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(ahead) {
        let mut missing = (&mut *stream).take((PREFACE.len() - ahead.len()) as u64);
        if missing.read_buf(ahead).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// What the requests of one connection share.
struct Served<H> {
    handler: Arc<H>,
    peer: SocketAddr,
    core: usize,
    heads: Heads,
    link: Arc<Link>,
    /// For HTTP/2 only.
    answers: Option<Arc<Answers>>,
}

impl<H: Handler> Served<H> {
    async fn answer(&self, request: http::Request<Incoming>) -> Response {
        let held = self.link.upgrade() == Upgrade::Held;
        let mut request = request.map(Body::from);
        let mut response = if self.heads.refuse(&request) {
            too_large(request.version())
        } else if is_bare_authority(&request) {
            let mut response = empty(StatusCode::BAD_REQUEST);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        } else {
            // A panic is this request's alone.
            let handled = self.handler.handle(&mut request, self.peer, self.core);
            AssertUnwindSafe(handled).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!("a request ended in a panic; this is a fault of labgate");
                empty(StatusCode::INTERNAL_SERVER_ERROR)
            })
        };
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switching && !held {
            response = empty(StatusCode::BAD_GATEWAY);
        }
        if held {
            std::future::poll_fn(|context| {
                self.link.answer_upgrade(switching, context.waker());
                Poll::Ready(())
            })
            .await;
        }
        response
    }
}

/// The limits of a request's head. hyper has them too, but answers without a word, so its are wider.
struct Heads {
    fields: usize,
    bytes: usize,
    counts: Arc<Counts>,
}

impl Heads {
    fn new(settings: &Settings, counts: Arc<Counts>) -> Self {
        Self { fields: settings.headers, bytes: settings.header_bytes, counts }
    }

    /// Whether the head of `request` is too large; counts it then.
    fn refuse(&self, request: &Request) -> bool {
        let fields = request.headers();
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let bytes = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let refused = fields.len() > self.fields || target + bytes.sum::<usize>() > self.bytes;
        if refused {
            self.counts.large_heads.fetch_add(1, Relaxed);
        }
        refused
    }
}

/// How much of a head is read, so that one beyond the limit can be told so.
fn readable(settings: &Settings) -> usize {
    settings.header_bytes.saturating_mul(2)
}

fn too_large(version: Version) -> Response {
    let mut response = Response::new(Body::full(TOO_LARGE));
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

const TOO_LARGE: &str = "The header of this request is larger than this server takes.\n\n\
    If you see this in a browser, this site's cookies have grown too large: delete them and try again.\n\
    For whoever runs this site: `server.limits.header_bytes` and `server.limits.headers` say how much is taken.\n";

/// A target such as `GET example.com` is CONNECT's alone (RFC 9112, 3.2.3).
fn is_bare_authority(request: &Request) -> bool {
    let uri = request.uri();
    uri.scheme().is_none() && uri.authority().is_some() && request.method() != Method::CONNECT
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What both of hyper's connections can do.
trait Graceful: Future {
    /// Ends after the requests in flight.
    fn shut_down(self: Pin<&mut Self>);
    /// Whether to say so before closing when idle.
    const FAREWELL: bool;
}

impl<S> Graceful for http1::UpgradeableConnection<TokioIo<Wire>, S>
where
    S: HttpService<Incoming, ResBody = Tracked, Error = Infallible>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
    const FAREWELL: bool = false;
}

impl<S> Graceful for http2::Connection<TokioIo<Wire>, S, TokioExecutor>
where
    S: HttpService<Incoming, ResBody = Tracked, Error = Infallible>,
    S::Future: Send + 'static,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
    const FAREWELL: bool = true;
}

/// The deadlines of one connection, on one timer that is set again only when it fires too early.
struct Timing {
    link: Arc<Link>,
    live: Arc<Live>,
    header: Duration,
    idle: Duration,
    seen: (Wait, u32),
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
    ending: bool,
    watch: Option<Watch>,
}

impl Timing {
    fn new(
        settings: &Settings,
        first: Instant,
        link: Arc<Link>,
        live: Arc<Live>,
        answers: Option<Arc<Answers>>,
    ) -> Self {
        Self {
            link,
            live,
            header: settings.header,
            idle: settings.idle,
            seen: (Wait::Head, 0),
            deadline: Some(first),
            timer: None,
            armed: false,
            ending: false,
            watch: answers.map(|answers| Watch::new(answers, settings.idle)),
        }
    }

    async fn run<C: Graceful>(mut self, mut connection: Pin<&mut C>) {
        let live = Arc::clone(&self.live);
        let mut drain = pin!(live.drain.notified());
        drain.as_mut().enable();
        // Registers this task's waker once; afterwards the flag tells.
        let mut registered = false;
        std::future::poll_fn(move |context| {
            if !registered {
                registered = true;
                let _registered = drain.as_mut().poll(context);
            }
            if self.live.draining() && !self.ending {
                self.ending = true;
                connection.as_mut().shut_down();
                self.hurry();
            }
            if connection.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let busy = self.link.busy();
            match self.watch.as_mut().and_then(|watch| watch.look(busy, context)) {
                None => {},
                Some(Left::All) if self.ending => return Poll::Ready(()),
                Some(Left::All | Left::Some) => {
                    // Those that move get time to end; new requests go elsewhere.
                    self.ending = true;
                    connection.as_mut().shut_down();
                    context.waker().wake_by_ref();
                },
            }
            match self.expired(context) {
                false => Poll::Pending,
                true if C::FAREWELL && !self.ending => {
                    self.ending = true;
                    self.deadline = Some(Instant::now() + self.header);
                    connection.as_mut().shut_down();
                    context.waker().wake_by_ref();
                    Poll::Pending
                },
                true => Poll::Ready(()),
            }
        })
        .await;
    }

    /// A head that has begun may still be completed, but holds no drain up.
    fn hurry(&mut self) {
        self.header = self.header.min(LAST_HEAD);
        if self.link.wait().0 == Wait::Head {
            let soon = Instant::now() + self.header;
            self.deadline = self.deadline.map(|deadline| deadline.min(soon));
        }
    }

    /// Whether the peer was waited for long enough.
    fn expired(&mut self, context: &mut Context<'_>) -> bool {
        let now = self.link.wait();
        if now != self.seen {
            self.set_deadline(now);
        }
        let Some(deadline) = self.deadline else {
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.armed || deadline < timer.deadline() {
            self.armed = true;
            timer.as_mut().reset(deadline);
        } else if !timer.is_elapsed() {
            return false;
        }
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= deadline || Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }

    fn set_deadline(&mut self, now: (Wait, u32)) {
        let before = std::mem::replace(&mut self.seen, now);
        match (before.0, now.0) {
            // Bytes of a head that trickle in win no time.
            (Wait::Head, Wait::Head) => {},
            (_, Wait::Head) => self.deadline = Some(Instant::now() + self.header),
            (_, Wait::Request | Wait::Peer) => self.deadline = Some(Instant::now() + self.idle),
            (_, Wait::Us) => self.deadline = None,
        }
    }
}
