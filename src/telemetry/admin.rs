//! The admin listener's answers: `/livez`, `/readyz` and `/metrics`. Its socket is `accept`'s, which never makes it public.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderValue, Method, Request, StatusCode, header};
use serde::Serialize;
use tokio::sync::watch;

use super::metrics::Metrics;
use crate::body::{Body, Response};

/// How this process is: whether it takes requests, and what is worth a note although it does.
#[derive(Debug, Default)]
pub struct Health {
    standing: watch::Sender<Standing>,
    notes: Mutex<BTreeMap<String, String>>,
}

/// Where a process stands between its beginning and its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It does not take requests yet.
    #[default]
    Starting,
    /// New requests are welcome.
    Ready,
    /// Those under way are finished, new ones are not welcome.
    Draining,
}

impl Health {
    /// Ready from now on: the listeners are open.
    pub fn serve(&self) {
        self.standing.send_if_modified(|standing| {
            let begins = *standing == Standing::Starting;
            if begins {
                *standing = Standing::Ready;
            }
            begins
        });
    }

    /// Not ready any more, for good: the end has been asked for.
    pub fn drain(&self) {
        self.standing.send_replace(Standing::Draining);
    }

    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        *self.standing.borrow() == Standing::Ready
    }

    /// Tells of each change.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Notes what is wrong with `part`, such as `gitlab.main`, without turning red.
    pub fn note(&self, part: &str, trouble: impl Into<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.insert(part.to_owned(), trouble.into());
    }

    /// Takes the note on `part` back.
    pub fn clear(&self, part: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.remove(part);
    }

    fn report(&self) -> Report {
        let standing = *self.standing.borrow();
        let status = match standing {
            Standing::Starting => "starting",
            Standing::Ready => "ready",
            Standing::Draining => "draining",
        };
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        Report { status, notes: notes.clone() }
    }
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    notes: BTreeMap<String, String>,
}

/// Answers the requests of the admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What `/readyz` tells.
    pub health: Arc<Health>,
    /// What `/metrics` tells.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// The answer to one request; its body is not looked at.
    pub fn handle<B>(&self, request: &Request<B>) -> Response {
        let path = request.uri().path();
        if !matches!(path, "/livez" | "/readyz" | "/metrics") {
            return answer(StatusCode::NOT_FOUND, TEXT, "not found\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD only\n");
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allow);
            return response;
        }
        match path {
            "/metrics" => answer(StatusCode::OK, METRICS, self.metrics.encode()),
            "/readyz" => self.readiness(),
            _ => answer(StatusCode::OK, TEXT, "ok\n"),
        }
    }

    fn readiness(&self) -> Response {
        let status =
            if self.health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let report = serde_json::to_vec(&self.health.report()).unwrap_or_default();
        answer(status, JSON, report)
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The text exposition format of Prometheus, version 0.0.4.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn answer(status: StatusCode, kind: &'static str, body: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let fields = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
