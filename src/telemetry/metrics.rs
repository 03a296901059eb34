//! Every metric, named and described once. [`REFERENCE`] is the list that docs and tests read; no label has values that a stranger can grow.

use std::{fmt, sync::Arc, time::Duration};

use http::StatusCode;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder, core::Collector,
};

use super::{
    process,
    route_metrics::{RouteMetrics, UpstreamMetrics},
};
use crate::clock::Timestamp;

/// One metric: what it is called and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its full name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts, one sentence.
    pub help: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Described {
    Described { name, kind: "counter", labels, help }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Described {
    Described { name, kind: "gauge", labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Described {
    Described { name, kind: "histogram", labels, help }
}

const BUILD_INFO: Described =
    gauge("labgate_build_info", &["version", "revision"], "Always 1; which labgate this is.");
const REQUESTS: Described = counter(
    "labgate_requests_total",
    &["route", "method", "status", "decision"],
    "Requests answered, by what became of them.",
);
const REQUEST_DURATION: Described = histogram(
    "labgate_request_duration_seconds",
    &["route"],
    "Time from a request's head to its response's.",
);
const UPSTREAM_DURATION: Described = histogram(
    "labgate_upstream_duration_seconds",
    &["upstream"],
    "Time that an upstream took to begin its response.",
);
const SIGN_INS: Described = counter(
    "labgate_sign_ins_total",
    &["gitlab", "result"],
    "Sign-ins that came back from GitLab; result is signed_in or a refusal's code.",
);
const TOKEN_CHECKS: Described = counter(
    "labgate_token_checks_total",
    &["kind", "result"],
    "Tokens of callers without a browser, as they came; kind is unknown until GitLab says it, result is accepted, refused, cached, capped or unconfirmed.",
);
const HAND_OVERS: Described = counter(
    "labgate_hand_overs_total",
    &["result"],
    "Tickets of the sign-in host: given there; taken, or a refusal's code, at other hosts.",
);
const SESSION_RECHECKS: Described = counter(
    "labgate_session_rechecks_total",
    &["result"],
    "Times that GitLab was asked again about a signed-in user.",
);
const SESSION_REFRESHES: Described =
    counter("labgate_session_refreshes_total", &["result"], "Refreshes of access tokens.");
const SESSIONS_REVOKED: Described =
    counter("labgate_sessions_revoked_total", &["cause"], "Sessions that ended before their time.");
const STORE_REQUESTS: Described = counter(
    "labgate_store_requests_total",
    &["operation", "result"],
    "Requests to a session store that replicas share; result is ok or failed.",
);
const STORE_UP: Described = gauge(
    "labgate_store_up",
    &[],
    "1 if the session store can be reached or is this process's own, 0 if sessions go on without it.",
);
const HOOKS: Described = counter(
    "labgate_hooks_total",
    &["gitlab", "result"],
    "Hooks that came from GitLab; result is marked, ignored or a refusal's code.",
);
const ASSERTIONS_SIGNED: Described = counter(
    "labgate_assertions_signed_total",
    &[],
    "Assertions signed: one for each session or token, host and half a lifetime in which it is used.",
);
const GITLAB_REQUESTS: Described = counter(
    "labgate_gitlab_requests_total",
    &["gitlab", "endpoint", "status"],
    "Requests to GitLab; status is a word such as timeout if there was no answer.",
);
const GITLAB_DURATION: Described = histogram(
    "labgate_gitlab_request_duration_seconds",
    &["gitlab", "endpoint"],
    "Time that requests to GitLab took.",
);
const OPEN_CONNECTIONS: Described =
    gauge("labgate_open_connections", &[], "Client connections that are open.");
const OPEN_TUNNELS: Described =
    gauge("labgate_open_tunnels", &[], "WebSockets and other upgraded connections that are open.");
const TUNNELS_CLOSED: Described = counter(
    "labgate_tunnels_closed_total",
    &["cause"],
    "Tunnels closed because they would not be opened any more; cause is session_over or a refusal's code.",
);
const LIMITS_REACHED: Described = counter(
    "labgate_limits_reached_total",
    &["limit"],
    "Times that a limit was in the way: one of server.limits, session_tunnels, or sign_ins.",
);
const RELOAD_SUCCESSFUL: Described = gauge(
    "labgate_config_last_reload_successful",
    &[],
    "1 if the last load of the configuration worked, 0 if the one before still serves.",
);
const RELOAD_TIMESTAMP: Described = gauge(
    "labgate_config_last_reload_timestamp_seconds",
    &[],
    "When the configuration that serves was loaded, in seconds since the Unix epoch.",
);

/// Every metric of labgate's own, in the order of the docs; the process set (`process_*`) comes on top.
pub const REFERENCE: &[Described] = &[
    BUILD_INFO,
    REQUESTS,
    REQUEST_DURATION,
    UPSTREAM_DURATION,
    SIGN_INS,
    TOKEN_CHECKS,
    HAND_OVERS,
    SESSION_RECHECKS,
    SESSION_REFRESHES,
    SESSIONS_REVOKED,
    STORE_REQUESTS,
    STORE_UP,
    HOOKS,
    ASSERTIONS_SIGNED,
    GITLAB_REQUESTS,
    GITLAB_DURATION,
    OPEN_CONNECTIONS,
    OPEN_TUNNELS,
    TUNNELS_CLOSED,
    LIMITS_REACHED,
    RELOAD_SUCCESSFUL,
    RELOAD_TIMESTAMP,
];

/// Upper bounds in seconds; the proxy's own work is far below the first, which is for local upstreams.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Counts what happens; outlives reloads, so that nothing starts from zero.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    upstream_duration: HistogramVec,
    sign_ins: IntCounterVec,
    token_checks: IntCounterVec,
    hand_overs: IntCounterVec,
    session_rechecks: IntCounterVec,
    session_refreshes: IntCounterVec,
    sessions_revoked: IntCounterVec,
    store_requests: IntCounterVec,
    store_up: IntGauge,
    hooks: IntCounterVec,
    assertions_signed: IntCounter,
    gitlab_requests: IntCounterVec,
    gitlab_duration: HistogramVec,
    open_connections: IntGauge,
    open_tunnels: IntGauge,
    tunnels_closed: IntCounterVec,
    limits_reached: IntCounterVec,
    reload_successful: IntGauge,
    reload_timestamp: IntGauge,
}

impl Metrics {
    /// All counts at zero, for this build of labgate.
    pub fn new(version: &str, revision: &str) -> Self {
        let registry = Registry::new();
        let build_info = prometheus::IntGaugeVec::new(opts(BUILD_INFO), BUILD_INFO.labels);
        let build_info = register(&registry, build_info);
        build_info.with_label_values(&[version, revision]).set(1);
        Self {
            requests: counters(&registry, REQUESTS),
            request_duration: histograms(&registry, REQUEST_DURATION),
            upstream_duration: histograms(&registry, UPSTREAM_DURATION),
            sign_ins: counters(&registry, SIGN_INS),
            token_checks: counters(&registry, TOKEN_CHECKS),
            hand_overs: counters(&registry, HAND_OVERS),
            session_rechecks: counters(&registry, SESSION_RECHECKS),
            session_refreshes: counters(&registry, SESSION_REFRESHES),
            sessions_revoked: counters(&registry, SESSIONS_REVOKED),
            store_requests: counters(&registry, STORE_REQUESTS),
            store_up: store_up(&registry),
            hooks: counters(&registry, HOOKS),
            assertions_signed: count(&registry, ASSERTIONS_SIGNED),
            gitlab_requests: counters(&registry, GITLAB_REQUESTS),
            gitlab_duration: histograms(&registry, GITLAB_DURATION),
            open_connections: single(&registry, OPEN_CONNECTIONS),
            open_tunnels: single(&registry, OPEN_TUNNELS),
            tunnels_closed: counters(&registry, TUNNELS_CLOSED),
            limits_reached: counters(&registry, LIMITS_REACHED),
            reload_successful: single(&registry, RELOAD_SUCCESSFUL),
            reload_timestamp: single(&registry, RELOAD_TIMESTAMP),
            registry,
        }
    }

    /// The prepared counts of one route, or of what no route serves; `name` comes from the configuration or is a constant.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let duration = self.request_duration.with_label_values(&[name]);
        Arc::new(RouteMetrics::new(name, self.requests.clone(), duration))
    }

    /// The prepared durations of one upstream; `name` comes from the configuration.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics::new(self.upstream_duration.with_label_values(&[name]))
    }

    /// A sign-in came back; `result` is `signed_in` or a refusal's code.
    pub fn sign_in(&self, gitlab: &str, result: &'static str) {
        self.sign_ins.with_label_values(&[gitlab, result]).inc();
    }

    /// A token came; see the metric's description for the words.
    pub fn token_check(&self, kind: &'static str, result: &'static str) {
        self.token_checks.with_label_values(&[kind, result]).inc();
    }

    /// A ticket was `given` or `taken`, or refused with a refusal's code.
    pub fn hand_over(&self, result: &'static str) {
        self.hand_overs.with_label_values(&[result]).inc();
    }

    /// GitLab was asked again about somebody.
    pub fn session_recheck(&self, result: &'static str) {
        self.session_rechecks.with_label_values(&[result]).inc();
    }

    /// An access token was to be refreshed.
    pub fn session_refresh(&self, result: &'static str) {
        self.session_refreshes.with_label_values(&[result]).inc();
    }

    /// A session ended before its time.
    pub fn session_revoked(&self, cause: &'static str) {
        self.sessions_revoked.with_label_values(&[cause]).inc();
    }

    /// A request to the session store that replicas share is over.
    pub fn store_request(&self, operation: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.store_requests.with_label_values(&[operation, result]).inc();
    }

    /// Whether the session store can be reached.
    pub fn store_up(&self, up: bool) {
        self.store_up.set(up.into());
    }

    /// A hook came for the GitLab of this table name; `result` is `marked`, `ignored` or a refusal's code.
    pub fn hook(&self, gitlab: &str, result: &'static str) {
        self.hooks.with_label_values(&[gitlab, result]).inc();
    }

    /// An assertion was signed.
    pub fn assertion_signed(&self) {
        self.assertions_signed.inc();
    }

    /// A request to GitLab is over; no status if there was no answer.
    pub fn gitlab_request(
        &self,
        gitlab: &str,
        endpoint: &'static str,
        status: &str,
        duration: Duration,
    ) {
        self.gitlab_requests.with_label_values(&[gitlab, endpoint, status]).inc();
        self.gitlab_duration.with_label_values(&[gitlab, endpoint]).observe(duration.as_secs_f64());
    }

    /// How many connections and tunnels are open now.
    pub fn open(&self, connections: usize, tunnels: usize) {
        self.open_connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.open_tunnels.set(i64::try_from(tunnels).unwrap_or(i64::MAX));
    }

    /// A tunnel was closed because it would not be opened any more.
    pub fn tunnel_closed(&self, cause: &'static str) {
        self.tunnels_closed.with_label_values(&[cause]).inc();
    }

    /// One of `server.limits`, by its name, was in the way so many more times.
    pub fn limit_reached_often(&self, limit: &'static str, times: u64) {
        self.limits_reached.with_label_values(&[limit]).inc_by(times);
    }

    /// A limit, by its name, was in the way.
    pub fn limit_reached(&self, limit: &'static str) {
        self.limits_reached.with_label_values(&[limit]).inc();
    }

    /// The configuration was loaded at `now` and serves.
    pub fn reloaded(&self, now: Timestamp) {
        self.reload_successful.set(1);
        self.reload_timestamp.set(i64::try_from(now.unix()).unwrap_or(i64::MAX));
    }

    /// The configuration could not be loaded; the one before still serves.
    pub fn reload_failed(&self) {
        self.reload_successful.set(0);
    }

    /// Everything in the text format of Prometheus.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        let mut text = match TextEncoder::new().encode(&self.registry.gather(), &mut bytes) {
            Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        };
        for (name, kind, help, value) in process::read() {
            let lines = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
            text.push_str(&lines);
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Metrics")
    }
}

/// The status as a label: registered codes as they are, any other number an upstream invents as `other`.
pub(super) fn status_label(status: &StatusCode) -> &str {
    match status.canonical_reason() {
        Some(_) => status.as_str(),
        None => "other",
    }
}

/// Up until a store elsewhere says otherwise.
fn store_up(registry: &Registry) -> IntGauge {
    let gauge = single(registry, STORE_UP);
    gauge.set(1);
    gauge
}

fn opts(what: Described) -> Opts {
    Opts::new(what.name, what.help)
}

fn counters(registry: &Registry, what: Described) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(what), what.labels))
}

fn count(registry: &Registry, what: Described) -> IntCounter {
    register(registry, IntCounter::with_opts(opts(what)))
}

fn histograms(registry: &Registry, what: Described) -> HistogramVec {
    let opts = HistogramOpts::new(what.name, what.help).buckets(BUCKETS.to_vec());
    register(registry, HistogramVec::new(opts, what.labels))
}

fn single(registry: &Registry, what: Described) -> IntGauge {
    register(registry, IntGauge::with_opts(opts(what)))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("the names above are valid");
    let boxed = Box::new(collector.clone());
    registry.register(boxed).expect("the names above are distinct");
    collector
}
