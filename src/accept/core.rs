//! One worker thread: its `current_thread` runtime serves the connections that it is handed.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread::JoinHandle,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Handler, Settings, live::Open, serve::Protocols};

/// A socket on its way to its core.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) open: Open,
}

/// A worker thread; it ends, and all its connections with it, when this is dropped.
#[derive(Debug)]
pub(super) struct Core {
    /// Bounded by the connection limit, which is counted before sending.
    arrivals: Option<UnboundedSender<Arrival>>,
    thread: Option<JoinHandle<()>>,
}

impl Core {
    pub(super) fn start<H: Handler>(
        number: usize,
        settings: &Settings,
        handler: Arc<H>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let protocols = Arc::new(Protocols::new(settings.clone()));
        let (arrivals, receiver) = unbounded_channel();
        let thread =
            std::thread::Builder::new().name(format!("core-{number}")).spawn(move || {
                runtime.block_on(work(receiver, protocols, handler));
                // Closes all connections; a name lookup that hangs must not hold the end up.
                runtime.shutdown_background();
            })?;
        Ok(Self { arrivals: Some(arrivals), thread: Some(thread) })
    }

    pub(super) fn send(&self, arrival: Arrival) {
        if let Some(arrivals) = &self.arrivals {
            // Fails only if the thread is gone; the socket is closed and uncounted then.
            drop(arrivals.send(arrival));
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.arrivals = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn work<H: Handler>(
    mut arrivals: UnboundedReceiver<Arrival>,
    protocols: Arc<Protocols>,
    handler: Arc<H>,
) {
    while let Some(Arrival { stream, peer, open }) = arrivals.recv().await {
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
            continue;
        };
        let (protocols, handler) = (Arc::clone(&protocols), Arc::clone(&handler));
        // A task of its own: a panic ends this connection, no other.
        tokio::spawn(async move { protocols.serve(stream, peer, open, handler).await });
    }
}
