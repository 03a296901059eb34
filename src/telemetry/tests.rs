//! What comes out: log lines of both forms, the text of the metrics, the admin listener's answers.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

use super::*;
use crate::{body::Response, clock::Timestamp};

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The lines that `log` writes in `form`.
fn logged(form: log::Form, log: impl FnOnce()) -> Vec<String> {
    let kept = Kept::default();
    let subscriber = tracing_subscriber::registry().with(form.layer(kept.clone()));
    tracing::subscriber::with_default(subscriber, log);
    let bytes = kept.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

const TEXT: log::Form = log::Form::Text { terminal: false };

fn access<'a>(path: &'a str, user_agent: &'a HeaderValue) -> Access<'a> {
    Access {
        request_id: "0123456789abcdef",
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        method: &Method::GET,
        version: Version::HTTP_11,
        host: "app.test",
        path,
        status: StatusCode::FORBIDDEN,
        decision: Decision::Refused,
        cause: Some("forbidden"),
        rule: Some("group=acme/ops role=developer"),
        route: Some("app.test/"),
        upstream: None,
        user: Some("alice@main"),
        duration: Duration::from_micros(1234),
        user_agent: Some(user_agent),
    }
}

#[test]
fn an_access_line_is_one_json_object_with_all_that_is_known() {
    let agent = HeaderValue::from_static("curl/8");
    let lines = logged(log::Form::Json, || access("/reports", &agent).emit());
    assert_eq!(lines.len(), 1);
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let expected = [
        ("target", "labgate::access"),
        ("level", "INFO"),
        ("request_id", "0123456789abcdef"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("http", "HTTP/1.1"),
        ("host", "app.test"),
        ("path", "/reports"),
        ("decision", "refused"),
        ("cause", "forbidden"),
        ("rule", "group=acme/ops role=developer"),
        ("route", "app.test/"),
        ("user", "alice@main"),
        ("user_agent", "curl/8"),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!(line["status"], 403);
    assert_eq!(line["duration_ms"], 1.234);
    assert!(line.get("upstream").is_none());
}

#[test]
fn a_query_is_never_logged() {
    let agent = HeaderValue::from_static("x");
    for form in [log::Form::Json, TEXT] {
        let path = "/oauth2/callback?code=secret&state=secret";
        let lines = logged(form, || access(path, &agent).emit());
        assert!(lines[0].contains("/oauth2/callback") && !lines[0].contains("secret"));
    }
}

#[test]
fn hostile_text_makes_no_line_field_or_colour_of_its_own() {
    let agent = HeaderValue::from_bytes(b"a\xff\" user=root@main \t\"x").unwrap();
    let path = "/a\r\n{\"target\":\"labgate::audit\"}\u{1b}[2J\u{9b}2J\u{202e}";
    for form in [log::Form::Json, TEXT] {
        let lines = logged(form, || {
            let mut record = access(path, &agent);
            record.user = Some("eve\nuser=root@main");
            record.host = "a\u{0}b";
            record.emit();
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let is_calm = |sign: char| !sign.is_control() && sign != '\u{202e}';
        assert!(lines[0].chars().all(is_calm), "{lines:?}");
    }
    let lines = logged(TEXT, || access("/", &agent).emit());
    assert_eq!(lines[0].matches(" user=").count(), 2, "{lines:?}");
    assert!(lines[0].contains(r#"\" user=root@main"#), "it stays within its quotes: {lines:?}");
}

#[test]
fn what_a_stranger_writes_is_cut() {
    let agent = HeaderValue::from_str(&"a".repeat(60_000)).unwrap();
    let path = format!("/{}", "p".repeat(60_000));
    let lines = logged(log::Form::Json, || access(&path, &agent).emit());
    assert!(lines[0].len() < 4096, "{}", lines[0].len());
}

#[test]
fn an_audit_line_tells_who_and_why() {
    let audit = Audit {
        event: AuditEvent::SessionEnded,
        request_id: None,
        client: None,
        user: Some("dave@main"),
        gitlab: Some("main"),
        cause: Some("blocked"),
        rule: None,
    };
    let lines = logged(log::Form::Json, || audit.emit());
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line["target"], "labgate::audit");
    assert_eq!(line["event"], "session_ended");
    assert_eq!(line["user"], "dave@main");
    assert_eq!(line["cause"], "blocked");
    assert!(line.get("request_id").is_none());
}

#[derive(Debug, thiserror::Error)]
#[error("GitLab gives no word")]
struct Outer(#[from] io::Error);

#[test]
fn an_errors_causes_are_in_lines_of_both_forms() {
    let error = Outer(io::Error::other("connection refused"));
    for form in [log::Form::Json, log::Form::Text { terminal: false }] {
        let lines = logged(form, || tracing::warn!(error = causes(&error), "trouble"));
        assert!(lines[0].contains("GitLab gives no word: connection refused"), "{lines:?}");
    }
}

/// Metrics after each thing has happened once.
fn busy_metrics() -> Metrics {
    let metrics = Metrics::new("1.2.3", "abc");
    let route = metrics.route("app");
    route.record(&Method::GET, StatusCode::OK, Decision::Allowed, Duration::from_millis(3));
    metrics.upstream("wiki").answered(Duration::from_millis(2));
    metrics.sign_in("main", "signed_in");
    metrics.hand_over("taken");
    metrics.session_recheck("renewed");
    metrics.session_refresh("refreshed");
    metrics.session_revoked("account");
    metrics.store_request("get", true);
    metrics.hook("main", "marked");
    metrics.gitlab_request("main", "token", "200", Duration::from_millis(80));
    metrics.tunnel_closed("session_over");
    metrics.limit_reached("connections");
    metrics.reloaded(Timestamp::from_unix(1_700_000_000));
    metrics
}

/// `name kind` of each family in the text format.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(str::to_owned).collect()
}

#[test]
fn metrics_are_those_that_the_docs_name() {
    let text = busy_metrics().encode();
    let told: BTreeSet<String> =
        families(&text).into_iter().filter(|family| family.starts_with("labgate_")).collect();
    let described = REFERENCE.iter().map(|metric| format!("{} {}", metric.name, metric.kind));
    assert_eq!(told, described.collect());
    let contract = [
        "build_info",
        "requests_total{route,method,status,decision}",
        "request_duration_seconds{route}",
        "upstream_duration_seconds{upstream}",
        "sign_ins_total{gitlab,result}",
        "hand_overs_total{result}",
        "session_rechecks_total{result}",
        "session_refreshes_total{result}",
        "sessions_revoked_total{cause}",
        "store_requests_total{operation,result}",
        "store_up",
        "hooks_total{gitlab,result}",
        "assertions_signed_total",
        "gitlab_requests_total{gitlab,endpoint,status}",
        "gitlab_request_duration_seconds{gitlab,endpoint}",
        "open_connections",
        "open_tunnels",
        "tunnels_closed_total{cause}",
        "limits_reached_total{limit}",
        "config_last_reload_successful",
        "config_last_reload_timestamp_seconds",
    ];
    let named = REFERENCE.iter().map(|metric| match (metric.name, metric.labels) {
        (name, []) | (name @ "labgate_build_info", _) => name.to_owned(),
        (name, labels) => format!("{name}{{{}}}", labels.join(",")),
    });
    let contract = contract.map(|name| format!("labgate_{name}"));
    assert_eq!(named.collect::<Vec<_>>(), contract);
}

/// The table of `docs/operations.md`.
fn metrics_table() -> String {
    let row = |Described { name, kind, labels, help }: &Described| {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
    };
    let rows: String = REFERENCE.iter().map(row).collect();
    format!("| Name | Kind | Labels | Counts |\n|---|---|---|---|\n{rows}")
}

/// With `LABGATE_BLESS=1` in the environment a table that is out of date is written anew.
#[test]
fn the_documentation_lists_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- metrics: ").unwrap();
    let (note, rest) = rest.split_once("-->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of metrics -->").unwrap();
    let table = metrics_table();
    let fresh =
        format!("{before}<!-- metrics: {note}-->\n\n{table}\n<!-- end of metrics -->{after}");
    if page != fresh && std::env::var_os("LABGATE_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
        return;
    }
    assert_eq!(page, fresh, "out of date: run `LABGATE_BLESS=1 cargo test --lib telemetry`");
}

#[test]
fn metrics_tell_what_happened() {
    let metrics = busy_metrics();
    metrics.open(1, 1);
    let text = metrics.encode();
    let expected = [
        r#"labgate_build_info{revision="abc",version="1.2.3"} 1"#,
        r#"labgate_requests_total{decision="allowed",method="GET",route="app",status="200"} 1"#,
        r#"labgate_request_duration_seconds_bucket{route="app",le="0.005"} 1"#,
        r#"labgate_request_duration_seconds_bucket{route="app",le="0.0025"} 0"#,
        r#"labgate_gitlab_requests_total{endpoint="token",gitlab="main",status="200"} 1"#,
        "labgate_open_connections 1",
        "labgate_open_tunnels 1",
        "labgate_config_last_reload_successful 1",
        "labgate_config_last_reload_timestamp_seconds 1700000000",
    ];
    for line in expected {
        assert!(text.lines().any(|told| told == line), "{line} in {text}");
    }
    metrics.open(0, 0);
    metrics.reload_failed();
    metrics.gitlab_request("main", "token", "timeout", Duration::ZERO);
    let text = metrics.encode();
    for line in [
        "labgate_open_connections 0",
        "labgate_open_tunnels 0",
        "labgate_config_last_reload_successful 0",
        "labgate_config_last_reload_timestamp_seconds 1700000000",
        r#"labgate_gitlab_requests_total{endpoint="token",gitlab="main",status="timeout"} 1"#,
    ] {
        assert!(text.lines().any(|told| told == line), "{line} in {text}");
    }
}

#[test]
fn no_stranger_makes_series_grow() {
    let metrics = Metrics::new("1", "");
    let route = metrics.route("app");
    for number in 0..500 {
        let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
        route.record(&method, StatusCode::OK, Decision::Public, Duration::ZERO);
        let status = StatusCode::from_u16(600 + number % 400).unwrap();
        route.record(&Method::GET, status, Decision::Public, Duration::ZERO);
    }
    let text = metrics.encode();
    let series: Vec<_> =
        text.lines().filter(|line| line.starts_with("labgate_requests_total{")).collect();
    assert_eq!(series.len(), 2, "{series:?}");
    assert!(series.iter().all(|line| line.ends_with(" 500")), "{series:?}");
}

#[test]
fn every_combination_is_counted_even_when_the_prepared_table_is_full() {
    let metrics = Metrics::new("1", "");
    let route = metrics.route("app");
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE];
    let statuses = [200, 204, 301, 304, 400, 403, 404, 500, 502, 503];
    for _ in 0..3 {
        for method in &methods {
            for status in statuses {
                let status = StatusCode::from_u16(status).unwrap();
                route.record(method, status, Decision::Allowed, Duration::ZERO);
            }
        }
    }
    // A gate built anew prepares the same counts again.
    metrics.route("app").record(&Method::GET, StatusCode::OK, Decision::Own, Duration::ZERO);
    let text = metrics.encode();
    let counts = text.lines().filter(|line| line.starts_with("labgate_requests_total{"));
    let (own, others): (Vec<_>, Vec<_>) = counts.partition(|line| line.contains("\"own\""));
    assert_eq!((own.len(), others.len()), (1, 50));
    assert!(others.iter().all(|line| line.ends_with(" 3")), "{others:?}");
    assert!(text.contains("labgate_request_duration_seconds_count{route=\"app\"} 151"));
}

fn admin() -> Admin {
    Admin { health: Arc::default(), metrics: Arc::new(Metrics::new("1.2.3", "")) }
}

fn ask(admin: &Admin, method: Method, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path).body(()).unwrap();
    admin.handle(&request)
}

async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn readiness_follows_the_life_of_the_process() {
    let admin = admin();
    let ready = async || {
        let response = ask(&admin, Method::GET, "/readyz");
        let status = response.status().as_u16();
        let report: Value = serde_json::from_str(&text(response).await).unwrap();
        (status, report)
    };
    let (status, report) = ready().await;
    assert_eq!((status, &report["status"]), (503, &"starting".into()));
    admin.health.serve();
    let (status, report) = ready().await;
    assert_eq!((status, &report["status"]), (200, &"ready".into()));
    assert!(report.get("notes").is_none());
    admin.health.note("gitlab.main", "can't be reached");
    let (status, report) = ready().await;
    assert_eq!(status, 200, "a note keeps it green");
    assert_eq!(report["notes"]["gitlab.main"], "can't be reached");
    admin.health.clear("gitlab.main");
    admin.health.drain();
    let (status, report) = ready().await;
    assert_eq!((status, &report["status"]), (503, &"draining".into()));
    assert!(report.get("notes").is_none());
    assert_eq!(ask(&admin, Method::GET, "/livez").status(), StatusCode::OK);
}

#[tokio::test]
async fn the_admin_listener_answers_three_paths_to_readers_only() {
    let admin = admin();
    let cases = [
        (Method::GET, "/livez", 200),
        (Method::HEAD, "/livez", 200),
        (Method::GET, "/metrics?x=1", 200),
        (Method::POST, "/metrics", 405),
        (Method::DELETE, "/readyz", 405),
        (Method::GET, "/", 404),
        (Method::POST, "/x", 404),
        (Method::GET, "/metrics/", 404),
    ];
    for (method, path, status) in cases {
        let response = ask(&admin, method.clone(), path);
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(response.headers().contains_key(header::ALLOW), status == 405);
    }
    let metrics = text(ask(&admin, Method::GET, "/metrics")).await;
    assert!(metrics.contains("labgate_build_info{") && metrics.contains("process_open_fds "));
}
