//! The sample app: what stands behind labgate in the demo, and the echo that integration tests forward to.
//!
//! | Path | Shows |
//! |---|---|
//! | `/` | what there is, to everybody |
//! | `/private`, `/team`, `/maintainers` | a greeting and the identity headers that came with the request |
//! | `/live`, `/events`, `/ws` | a counter over server-sent events, an echo over WebSocket |
//! | `/echo`, `/bytes`, `/slow`, `/status/NNN`, `/headers`, `/trailers`, `/chunked`, `/close` | the wire, for tests; see `probe` |
//!
//! It believes every identity header it gets, as an app behind labgate may. HTTP/1.1 only; 103 Early Hints are left out because
//! hyper's server can't send them.

mod live;
mod pages;
mod probe;
mod websocket;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::{
    answer::{self, Answer, Params},
    serve::{self, Ending, Server},
};

/// How the sample app is started.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Take another port of the same address if that one is taken.
    pub or_other_port: bool,
    /// Listen although the address is not loopback, so that anybody can claim to be anybody.
    pub force_public: bool,
}

impl Default for Options {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen, or_other_port: false, force_public: false }
    }
}

/// A running sample app; dropping it ends it at once.
#[derive(Debug)]
pub struct SampleApp {
    server: Server,
    hits: Arc<Hits>,
    addr: SocketAddr,
    taken: Option<SocketAddr>,
}

impl SampleApp {
    /// Starts one on the current runtime.
    ///
    /// # Errors
    ///
    /// When the address is not loopback and that was not forced, or can't be bound.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let Options { listen, or_other_port, force_public } = options;
        ensure!(
            force_public || listen.ip().is_loopback(),
            "the sample app believes whatever headers it gets, so it does not listen on {listen} unless --force-public is given"
        );
        let bound = serve::bind(listen, or_other_port)
            .await
            .with_context(|| format!("the sample app can't listen on {listen}"))?;
        let (addr, taken) = (bound.addr, bound.taken);
        let (hits, ending) = (Arc::new(Hits::default()), Ending::new());
        let (counted, tunnels) = (Arc::clone(&hits), ending.clone());
        let service = move |request: Request<Incoming>| {
            let (counted, tunnels) = (Arc::clone(&counted), tunnels.clone());
            async move {
                counted.count(request.uri().path());
                Ok(respond(request, tunnels).await)
            }
        };
        let server = Server::start(bound, ending, service);
        Ok(Self { server, hits, addr, taken })
    }

    /// Its base URL, without a final slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address it was to listen on, if another program had that.
    pub const fn taken(&self) -> Option<SocketAddr> {
        self.taken
    }

    /// Requests so far.
    pub fn hits(&self) -> u64 {
        self.hits.locked(|counts| counts.total)
    }

    /// Requests to this path so far.
    pub fn hits_at(&self, path: &str) -> u64 {
        self.hits.locked(|counts| counts.by_path.get(path).copied().unwrap_or_default())
    }

    /// Ends it and waits until its sockets are closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// Requests by path; paths beyond the cap count in the total only.
#[derive(Debug, Default)]
struct Hits(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: u64,
    by_path: HashMap<String, u64>,
}

/// Paths counted one by one, since strangers choose them.
const PATHS: usize = 10_000;

impl Hits {
    fn locked<T>(&self, look: impl FnOnce(&mut Counts) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, path: &str) {
        self.locked(|counts| {
            counts.total += 1;
            if let Some(count) = counts.by_path.get_mut(path) {
                *count += 1;
            } else if counts.by_path.len() < PATHS {
                counts.by_path.insert(path.to_owned(), 1);
            }
        });
    }
}

async fn respond(request: Request<Incoming>, ending: Ending) -> Answer {
    let path = request.uri().path().to_owned();
    let query = Params::parse(request.uri().query().unwrap_or_default().as_bytes());
    let number = |name| query.text(name).and_then(|number| number.parse::<u64>().ok());
    match path.as_str() {
        "/echo" => return probe::echo(request).await,
        "/ws" => return websocket::upgrade(request, ending),
        "/bytes" => return probe::bytes(number("n").unwrap_or(1024)),
        "/slow" => return probe::slow(number("ms").unwrap_or(1000)).await,
        "/headers" => return probe::headers(),
        "/trailers" => return probe::trailers(),
        "/chunked" => return probe::chunked(),
        "/close" => return probe::close(),
        _ => {},
    }
    if let Some(status) = path.strip_prefix("/status/") {
        return probe::status(status);
    }
    if path.starts_with("/echo/") {
        return probe::echo(request).await;
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return answer::text(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read\n");
    }
    match path.as_str() {
        "/events" => live::events(request.headers()),
        // Browsers ask for it unbidden; a 404 would only be noise in their console.
        "/favicon.ico" => answer::empty(StatusCode::NO_CONTENT),
        "/assets/demo.css" => pages::stylesheet(),
        "/assets/live.js" => pages::script(),
        path => pages::page(path, request.headers()),
    }
}
