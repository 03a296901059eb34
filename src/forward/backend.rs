//! One address of an upstream: its idle connections, a stack a core, and one exchange on one of them.
//!
//! The newest idle connection is taken first. A request goes out a second time only on a fresh connection, and only if the first never left
//! (hyper hands it back), or if not one byte came back and it has no body and changes nothing (RFC 9110, 9.2.2): no POST is ever doubled.

use std::{
    error::Error,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::{connect::Address, exchange::Progress, record::Record};
use crate::{body::Body, refusal::UpstreamTrouble};

/// One address, and the connections to it that wait for a request.
pub(super) struct Backend {
    address: Address,
    connect_timeout: Duration,
    response_timeout: Duration,
    builder: Builder,
    /// One stack a core: a connection's task lives on the runtime that made it.
    idle: Box<[Mutex<Vec<Connection>>]>,
}

/// A connection that nobody uses at the moment.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    record: Arc<Record>,
    since: Instant,
    /// Set again only when it fires too early: a timer for each request would cost more than its parsing.
    timer: Pin<Box<Sleep>>,
}

/// Node.js closes idle connections after 5 s; a request that crosses the close is the race to avoid.
const MAX_IDLE_TIME: Duration = Duration::from_secs(4);
/// Idle connections a core.
const MAX_IDLE: usize = 128;
const MAX_BUFFER: usize = 256 * 1024;
const MAX_RESPONSE_HEAD: usize = 128 * 1024;

impl Backend {
    pub(super) fn new(
        address: Address,
        connect_timeout: Duration,
        response_timeout: Duration,
        cores: usize,
    ) -> Self {
        let mut builder = Builder::new();
        builder
            // Head and small body in one write; large bodies pass in pieces that are no larger than hyper's read buffer.
            .writev(false)
            // Together with the server's buffer, the most that one stream holds.
            .max_buf_size(MAX_BUFFER)
            .max_header_size(MAX_RESPONSE_HEAD);
        Self {
            address,
            connect_timeout,
            response_timeout,
            builder,
            idle: (0..cores.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// Sends `request` on an idle connection or a new one; answers with the response's head and the connection that its body comes on.
    pub(super) async fn exchange(
        &self,
        request: &mut Request<Body>,
        progress: Option<&Progress>,
        core: usize,
        now: Instant,
    ) -> Result<(Response<Incoming>, Connection), UpstreamTrouble> {
        let patience = (self.response_timeout, progress);
        if let Some(mut connection) = self.take(core, now) {
            let empty = request.body().is_end_stream();
            let safe = request.method().is_safe() && request.method() != Method::TRACE;
            connection.record.begin(empty && safe);
            match connection.send(std::mem::take(request), patience, now).await {
                Ok(response) => return Ok((response, connection)),
                Err(Failure::Slow) => return Err(UpstreamTrouble::Slow),
                Err(Failure::Unsent(unsent)) => *request = *unsent,
                Err(Failure::Closed(error)) => {
                    *request = connection.record.request().ok_or_else(|| broken(error))?;
                },
                Err(Failure::Broken(error)) => return Err(broken(error)),
            }
        }
        let mut connection = self.connect().await?;
        match connection.send(std::mem::take(request), patience, Instant::now()).await {
            Ok(response) => Ok((response, connection)),
            Err(Failure::Slow) => Err(UpstreamTrouble::Slow),
            Err(Failure::Unsent(_)) => Err(UpstreamTrouble::Broken(
                "the connection closed before the request was sent".into(),
            )),
            Err(Failure::Closed(error) | Failure::Broken(error)) => Err(broken(error)),
        }
    }

    /// Keeps `connection` for the next request if it can take one.
    pub(super) fn put(&self, core: usize, mut connection: Connection) {
        if !connection.sender.is_ready() {
            return;
        }
        let now = Instant::now();
        connection.since = now;
        let Some(mut stack) = self.stack(core) else {
            return;
        };
        let stale =
            stack.iter().take_while(|idle| now.duration_since(idle.since) > MAX_IDLE_TIME).count();
        stack.drain(..stale);
        if stack.len() < MAX_IDLE {
            stack.push(connection);
        }
    }

    fn take(&self, core: usize, now: Instant) -> Option<Connection> {
        let mut stack = self.stack(core)?;
        let newest = stack.pop()?;
        if now.duration_since(newest.since) > MAX_IDLE_TIME {
            // Those below are older still.
            stack.clear();
            return None;
        }
        std::iter::once(newest)
            .chain(std::iter::from_fn(|| stack.pop()))
            .find(|connection| connection.sender.is_ready())
    }

    fn stack(&self, core: usize) -> Option<std::sync::MutexGuard<'_, Vec<Connection>>> {
        let stack = self.idle.get(core % self.idle.len().max(1))?;
        Some(stack.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn connect(&self) -> Result<Connection, UpstreamTrouble> {
        let deadline = Instant::now() + self.connect_timeout;
        let connect = async {
            let record = Arc::<Record>::default();
            let line = self.address.connect(Arc::clone(&record)).await?;
            let (sender, connection) =
                self.builder.handshake(TokioIo::new(line)).await.map_err(io::Error::other)?;
            // Ends with the sender or the socket; its errors reach whoever waits for the response.
            tokio::spawn(connection.with_upgrades());
            Ok::<_, io::Error>(Connection {
                sender,
                record,
                since: deadline,
                timer: Box::pin(sleep_until(Instant::now() + self.response_timeout)),
            })
        };
        match timeout_at(deadline, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(UpstreamTrouble::Unreachable(error.into())),
            Err(_) => Err(UpstreamTrouble::Unreachable(
                io::Error::new(io::ErrorKind::TimedOut, "connecting took too long").into(),
            )),
        }
    }
}

enum Failure {
    /// No head within the timeout.
    Slow,
    /// The request never left.
    Unsent(Box<Request<Body>>),
    /// The connection ended before a byte came back.
    Closed(hyper::Error),
    /// What came back is no response.
    Broken(hyper::Error),
}

impl Connection {
    async fn send(
        &mut self,
        request: Request<Body>,
        (patience, progress): (Duration, Option<&Progress>),
        now: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let mut deadline = now + patience;
        let mut response = pin!(self.sender.try_send_request(request));
        let timer = &mut self.timer;
        let answer = poll_fn(|context| {
            if let Poll::Ready(answer) = response.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            while timer.as_mut().poll(context).is_ready() {
                // An upstream may answer when it has the whole body: until then it is not slow.
                if progress.is_some_and(Progress::goes_on) {
                    deadline = Instant::now() + patience;
                } else if Instant::now() >= deadline {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await;
        match answer {
            Some(Ok(response)) => Ok(response),
            None => Err(Failure::Slow),
            Some(Err(mut error)) => Err(match error.take_message() {
                Some(request) => Failure::Unsent(Box::new(request)),
                None => match error.into_error() {
                    error if error.is_parse() || self.record.is_answered() => {
                        Failure::Broken(error)
                    },
                    error => Failure::Closed(error),
                },
            }),
        }
    }
}

fn broken(error: hyper::Error) -> UpstreamTrouble {
    // A client that broke off its upload is in the chain; the upstream is not to blame, but nobody is left to be told.
    let source = error.source().map(ToString::to_string);
    tracing::debug!(%error, source, "exchange with the upstream failed");
    UpstreamTrouble::Broken(error.into())
}
