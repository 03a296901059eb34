//! Serving for both halves of the demo: one socket, one task per connection, and an end that ends them all.
//!
//! ```text
//! bind ──▶ accept loop ──▶ connection task ──▶ service(request)
//!             └── cancel ──────┴── also ends tunnels that a service spawned with `Ending`
//! ```
//!
//! HTTP/1.1 only, as upstreams of labgate speak it. What is answered is left to the service.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::body::Body;

/// Told when the server ends; tasks that outlive their request watch it.
pub(super) type Ending = CancellationToken;

/// A reply that is to be dropped: the connection closes without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the reply was dropped on purpose")]
pub(super) struct Dropped;

/// A socket that listens, and the address it could not have.
#[derive(Debug)]
pub(super) struct Bound {
    listener: TcpListener,
    /// Where it listens.
    pub(super) addr: SocketAddr,
    /// The wanted address, if another program had it.
    pub(super) taken: Option<SocketAddr>,
}

/// Binds `wanted`, or any other port of the same host if it is taken and `or_other` says so.
pub(super) async fn bind(wanted: SocketAddr, or_other: bool) -> io::Result<Bound> {
    let (listener, taken) = match TcpListener::bind(wanted).await {
        Ok(listener) => (listener, None),
        Err(error) if or_other && error.kind() == io::ErrorKind::AddrInUse => {
            (TcpListener::bind(SocketAddr::new(wanted.ip(), 0)).await?, Some(wanted))
        },
        Err(error) => return Err(error),
    };
    let addr = listener.local_addr()?;
    Ok(Bound { listener, addr, taken })
}

/// A running server; dropping it ends every connection at once.
#[derive(Debug)]
pub(super) struct Server {
    ending: Ending,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `service` on `bound` until the server is stopped, on the current runtime.
    pub(super) fn start<S, F>(bound: Bound, ending: Ending, service: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, Dropped>> + Send + 'static,
    {
        let task = tokio::spawn(accept(bound.listener, ending.clone(), service));
        Self { ending, task: Some(task) }
    }

    /// Ends the server and waits until its sockets are closed.
    pub(super) async fn stop(mut self) {
        self.ending.cancel();
        if let Some(task) = self.task.take() {
            let _ended = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Connections served side by side; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 2048;

async fn accept<S, F>(listener: TcpListener, ending: Ending, service: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, Dropped>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = ending.cancelled() => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {},
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, service.clone()));
                },
                // Out of descriptors: the next try would fail as fast, so it waits a little.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    connections.shutdown().await;
}

async fn connection<S, F>(stream: TcpStream, service: S)
where
    S: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Result<Response<Body>, Dropped>> + Send + 'static,
{
    let _nagle = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(75))
        .max_buf_size(128 * 1024)
        .serve_connection(TokioIo::new(stream), service_fn(service))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "demo connection ended early");
    }
}
