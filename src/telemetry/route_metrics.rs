//! The counts of one route or upstream, prepared so that a request costs a probe of a small table instead of three hashed strings and a lock.

use std::{fmt, sync::OnceLock, time::Duration};

use http::{Method, StatusCode};
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::{access::Decision, metrics::status_label};

/// Times the responses of one upstream.
#[derive(Clone)]
pub struct UpstreamMetrics(Histogram);

impl UpstreamMetrics {
    pub(super) fn new(duration: Histogram) -> Self {
        Self(duration)
    }

    /// It began a response, or failed to, this long after the request was sent.
    pub fn answered(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

impl fmt::Debug for UpstreamMetrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("UpstreamMetrics")
    }
}

/// Counts the requests of one route.
pub struct RouteMetrics {
    name: Box<str>,
    requests: IntCounterVec,
    duration: Histogram,
    seen: [OnceLock<(Key, IntCounter)>; SLOTS],
}

/// More combinations than a route commonly has; what does not fit is looked up in the registry.
const SLOTS: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    method: &'static str,
    status: StatusCode,
    decision: Decision,
}

impl RouteMetrics {
    pub(super) fn new(name: &str, requests: IntCounterVec, duration: Histogram) -> Self {
        Self { name: name.into(), requests, duration, seen: [const { OnceLock::new() }; SLOTS] }
    }

    /// A request has been answered, `duration` after its head had come.
    pub fn record(
        &self,
        method: &Method,
        status: StatusCode,
        decision: Decision,
        duration: Duration,
    ) {
        let method = method_label(method);
        self.count(Key { method, status, decision });
        self.duration.observe(duration.as_secs_f64());
    }

    fn count(&self, key: Key) {
        for slot in &self.seen {
            let (known, counter) = slot.get_or_init(|| (key, self.counter(key)));
            if *known == key {
                counter.inc();
                return;
            }
        }
        self.counter(key).inc();
    }

    fn counter(&self, key: Key) -> IntCounter {
        self.requests.with_label_values(&[
            &*self.name,
            key.method,
            status_label(&key.status),
            key.decision.as_str(),
        ])
    }
}

impl fmt::Debug for RouteMetrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RouteMetrics({})", self.name)
    }
}

/// The method as a label: those of RFC 9110 and PATCH as they are, any other that a client invents as `other`.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "other",
    }
}
