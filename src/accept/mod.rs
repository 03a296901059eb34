//! Sockets become requests: listeners, worker threads, one connection at a time, and the way they all end.
//!
//! ```text
//! bind ─▶ Server::accept ─▶ the core with the fewest connections ─▶ HTTP/1 (strict) or HTTP/2 ─▶ Handler
//! ```
//!
//! One `current_thread` runtime a core, so that nothing a request touches crosses cores. HTTP/2 is spoken with prior knowledge, found by its
//! preface; an `Upgrade: h2c` is ignored. What a request *means* (its host, method and target) is the handler's to judge.

mod core;
mod descriptors;
mod framing;
mod grpc;
mod listen;
mod live;
mod progress;
mod serve;
mod wire;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use self::{core::Core, live::Live};
pub use self::{
    grpc::{Code, failed, message, messages, no_call, read_message},
    listen::bind,
    live::Counts,
};
use crate::{
    body::{Request, Response},
    config,
};

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request that came from `peer` on the worker `core`, counted from 0; what it leaves of the request is dropped.
    fn handle(
        &self,
        request: &mut Request,
        peer: SocketAddr,
        core: usize,
    ) -> impl Future<Output = Response> + Send;
}

/// Limits and deadlines of every connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Client connections at once.
    pub connections: usize,
    /// Size of a request's head.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// Concurrent streams on one HTTP/2 connection.
    pub http2_streams: u32,
    /// For a request's head to be complete.
    pub header: Duration,
    /// For the next request, and for a body that stopped in the middle, either way.
    pub idle: Duration,
}

impl From<&config::Server> for Settings {
    fn from(server: &config::Server) -> Self {
        Self {
            connections: server.limits.connections,
            header_bytes: server.limits.header_bytes,
            headers: server.limits.headers,
            http2_streams: server.limits.http2_streams,
            header: server.timeouts.header,
            idle: server.timeouts.idle,
        }
    }
}

/// The worker threads, and all connections on them; dropping it closes every one.
#[derive(Debug)]
pub struct Server {
    live: Arc<Live>,
    limit: usize,
    cores: Box<[Core]>,
}

impl Server {
    /// Starts `cores` worker threads (at least one) that answer with `handler`; connections come from [`Server::accept`].
    ///
    /// Fewer connections than configured are served at once if the process may not open enough files.
    ///
    /// # Errors
    ///
    /// If a thread or its runtime can't be made.
    pub fn start<H: Handler>(
        handler: &Arc<H>,
        settings: &Settings,
        cores: usize,
    ) -> io::Result<Self> {
        let cores = cores.max(1);
        Ok(Self {
            live: Arc::new(Live::new(cores)),
            limit: descriptors::affordable(settings.connections),
            cores: (0..cores)
                .map(|number| Core::start(number, settings, Arc::clone(handler)))
                .collect::<io::Result<_>>()?,
        })
    }

    /// The counts of connections, for the metrics.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.live.counts
    }

    /// Stops accepting, closes idle connections, lets requests in flight and tunnels finish; returns how many connections are left after `patience`.
    ///
    /// Dropping the server afterwards ends those.
    pub async fn drain(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        self.live.begin_drain();
        let open = || self.live.counts.open.load(Relaxed);
        loop {
            let emptied = self.live.emptied.notified();
            if open() == 0 || timeout_at(deadline, emptied).await.is_err() {
                // Counted now: some have ended while the others were waited for.
                return open();
            }
        }
    }
}

#[cfg(test)]
mod tests;
