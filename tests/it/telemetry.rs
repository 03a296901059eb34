//! What operators see: health, metrics, the access line and the audit line; and what nobody may see in any of them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::Request;
use labgate::demo::gitlab::{CLIENT_SECRET, Command, UserState};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::support::{HOST, Lab, Process, Setup, appears, get, send, send_raw};

fn access(path: &str) -> impl Fn(&Value) -> bool {
    move |line| line["target"] == "labgate::access" && line["path"] == path
}

fn audit(event: &str) -> impl Fn(&Value) -> bool {
    move |line| line["target"] == "labgate::audit" && line["event"] == event
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_the_contract_are_there_and_no_stranger_grows_them() {
    let house = Setup::default().session("recheck = \"1s\"").process(&[]).await;
    house.gitlab.set_access_token_lifetime(2);
    let mut alice = house.signed_in("alice").await;
    assert_eq!(house.browser().xhr("/private").await.status, 401);
    appears("a refresh for a recheck", async || {
        alice.xhr("/private").await;
        let text = house.admin("/metrics").await.text();
        text.contains("labgate_session_refreshes_total{").then_some(())
    })
    .await;
    // Of a token that lives, GitLab says clearly that its user is blocked.
    house.gitlab.set_access_token_lifetime(7200);
    let mut bob = house.signed_in("bob").await;
    house.gitlab.set_state("bob", UserState::Blocked).expect("bob");
    appears("his end", async || (bob.xhr("/private").await.status == 401).then_some(())).await;
    let before = house.admin("/metrics").await.text();
    for series in [
        "labgate_build_info{",
        "labgate_requests_total{decision=\"allowed\",method=\"GET\",route=\"/private\",status=\"200\"}",
        "labgate_requests_total{decision=\"sign_in\",method=\"GET\",route=\"/private\",status=\"401\"}",
        "labgate_request_duration_seconds_bucket{route=\"/private\",",
        "labgate_upstream_duration_seconds_bucket{upstream=",
        "labgate_sign_ins_total{gitlab=\"main\",result=\"signed_in\"} 2",
        "labgate_session_rechecks_total{result=\"renewed\"}",
        "labgate_session_refreshes_total{result=\"refreshed\"}",
        "labgate_sessions_revoked_total{cause=",
        "labgate_gitlab_requests_total{endpoint=\"token\",gitlab=\"main\",status=\"200\"}",
        "labgate_gitlab_request_duration_seconds_count{",
        "labgate_open_connections ",
        "labgate_open_tunnels 0",
        "labgate_config_last_reload_successful 1",
        "labgate_config_last_reload_timestamp_seconds ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(before.contains(&format!("\n{series}")), "{series}: {before}");
    }
    let own = before.lines().filter(|line| line.starts_with("labgate_"));
    let names: Vec<_> = labgate::telemetry::REFERENCE.iter().map(|metric| metric.name).collect();
    for line in own {
        assert!(names.iter().any(|name| line.starts_with(name)), "not in the reference: {line}");
    }
    // Methods, hosts, paths and users of strangers make no series; the first round makes those that all share.
    let mut counts = Vec::new();
    for round in 0..2 {
        for number in 0..20 {
            let path = format!("/{round}/{number}");
            let request = Request::builder().method(&*format!("M{round}X{number}")).uri(path);
            let host = format!("h{round}x{number}.example");
            let request = request.header("host", host).body(String::new());
            send(house.addr, request.expect("a request")).await;
        }
        counts.push(house.admin("/metrics").await.text().lines().count());
    }
    assert_eq!(counts[0], counts[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_line_tells_who_did_what_and_how_it_went() {
    let house = Setup::default().process(&[]).await;
    let mut bob = house.signed_in("bob").await;
    bob.xhr("/echo/x?token=never").await;
    let line = house.labgate.logged("an access line", access("/echo/x")).await;
    for (field, value) in [
        ("method", "GET"),
        ("host", HOST),
        ("http", "HTTP/1.1"),
        ("decision", "allowed"),
        ("route", "/echo"),
        ("user", "bob@main"),
        ("client", "127.0.0.1"),
        ("level", "INFO"),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(line["status"], 200);
    assert!(line["duration_ms"].is_number() && line["timestamp"].is_string(), "{line}");
    assert!(line["upstream"].as_str().expect("text").starts_with("http://"), "{line}");
    assert!(!house.labgate.said().contains("token=never"));
    // A refusal names the rule (M14).
    assert_eq!(bob.xhr("/maintainers").await.status, 403);
    let line = house.labgate.logged("a refusal", access("/maintainers")).await;
    assert_eq!((&line["decision"], &line["user"]), (&"refused".into(), &"bob@main".into()));
    let rule = line["rule"].as_str().expect("text");
    assert!(rule.contains("acme/ops") && rule.contains("Maintainer"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_trust_are_audited() {
    let house = Setup::default().session("recheck = \"1s\"").process(&[]).await;
    let mut bob = house.signed_in("bob").await;
    let line = house.labgate.logged("a sign-in", audit("sign_in")).await;
    for (field, value) in [("user", "bob@main"), ("gitlab", "main"), ("client", "127.0.0.1")] {
        assert_eq!(line[field], value, "{line}");
    }
    bob.open("/maintainers").await;
    let line = house.labgate.logged("a refusal", audit("refusal")).await;
    assert_eq!(line["user"], "bob@main");
    assert!(line["rule"].as_str().expect("text").contains("acme/ops"), "{line}");
    assert_eq!(bob.post("/oauth2/sign_out", "").await.status, 200);
    assert_eq!(house.labgate.logged("a sign-out", audit("sign_out")).await["user"], "bob@main");
    let forged = house.browser().navigate("/oauth2/callback?code=x&state=y").await;
    assert_eq!(forged.status, 400);
    house.labgate.logged("a failed sign-in", audit("sign_in_failed")).await;

    let mut carol = house.signed_in("carol").await;
    house.gitlab.set_state("carol", UserState::Blocked).expect("carol");
    appears("her end", async || (carol.xhr("/private").await.status == 401).then_some(())).await;
    let line = house.labgate.logged("an end", audit("session_ended")).await;
    assert_eq!(line["user"], "carol@main", "{line}");
    assert!(line["cause"].is_string(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_id_is_the_same_on_page_header_and_line() {
    let house = Setup::default().process(&[]).await;
    let page = house.signed_in("bob").await.open("/maintainers").await;
    let id = page.answer.header("x-request-id").to_owned();
    assert_eq!(page.status, 403);
    assert!(id.len() >= 16 && page.text().contains(&id), "{id}: {}", page.text());
    let line = house.labgate.logged("a refusal", access("/maintainers")).await;
    assert_eq!(line["request_id"], id.as_str());
    let line = house.labgate.logged("a refusal", audit("refusal")).await;
    assert_eq!(line["request_id"], id.as_str());
    // A stranger can't choose it, and so not pose as another request.
    let request = Request::get("/status/204").header("host", HOST).header("x-request-id", &id);
    let answer = send(house.addr, request.body(String::new()).expect("a request")).await;
    assert_ne!(answer.header("x-request-id"), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_and_the_public_one_are_two_worlds() {
    let house = Setup::default().process(&[]).await;
    for path in ["/metrics", "/readyz", "/livez"] {
        for host in [HOST, "127.0.0.1", &house.admin.to_string()] {
            let request = Request::get(path).header("host", host).body(String::new());
            let answer = send(house.addr, request.expect("a request")).await;
            let text = answer.text();
            assert!(!text.contains("labgate_") && !text.contains("\"ready\""), "{path}: {text}");
        }
        assert_eq!(get(house.admin, path).await.status, 200, "{path}");
    }
    for path in ["/", "/private", "/oauth2/sign_in", "/oauth2/userinfo"] {
        assert_eq!(get(house.admin, path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_line_breaks_out_of_it() {
    for format in ["json", "text"] {
        let lab = Lab::start().await;
        let to = "al\u{1b}[31m\nice\u{202e}".into();
        lab.gitlab.command(Command::Rename { user: "alice".into(), to }).expect("alice");
        let config = format!("{}\n[telemetry]\nformat = \"{format}\"\n", lab.config);
        let labgate = Process::with(&config, &[]);
        let line = labgate.line("labgate serves").await;
        let addr: SocketAddr = line
            .split(['"', '=', ' '])
            .find_map(|word| word.parse().ok())
            .expect("the first address is that of `listen`");
        let mut raw =
            b"GET /x\" decision=\"allowed HTTP/1.1\r\nHost: app.example.test\r\n\r\n".to_vec();
        send_raw(addr, &raw).await;
        raw = b"GET /a%0Ab%1B\xe2\x80\xae HTTP/1.1\r\nHost: app.example.test\r\n".to_vec();
        raw.extend(b"User-Agent: \x9b31m\" decision=\"forged \xe2\x80\xae\xff\tx\r\nConnection: close\r\n\r\n");
        send_raw(addr, &raw).await;
        let request =
            Request::get("/status/204").header("host", HOST).header("user-agent", "plain");
        send(addr, request.body(String::new()).expect("a request")).await;
        labgate.line("/status/204").await;
        let said = labgate.said();
        let is_odd = |letter: &char| {
            letter.is_control() && *letter != '\n' || ('\u{200e}'..='\u{202e}').contains(letter)
        };
        assert_eq!(said.chars().find(is_odd), None, "{said}");
        assert!(!said.contains("decision=\"forged") && !said.contains("decision=forged"), "{said}");
    }
}

/// A way to `to` on which everything is read along.
async fn tapped(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (addr, heard) = (listener.local_addr().expect("bound"), Arc::<Mutex<Vec<u8>>>::default());
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.expect("a connection");
            let ((one, two), (three, four)) = (client.into_split(), server.into_split());
            tokio::spawn(copy(one, four, Arc::clone(&all)));
            tokio::spawn(copy(three, two, Arc::clone(&all)));
        }
    });
    (addr, heard)
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, heard: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        heard.lock().expect("no panic").extend_from_slice(&chunk[..count]);
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}

/// The values that stand between `before` and the first of `ends`.
fn values<'a>(text: &'a str, before: &str, ends: &[char]) -> Vec<&'a str> {
    let found = text.split(before).skip(1).filter_map(|rest| rest.split(ends).next());
    found.filter(|value| value.len() > 8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_logged() {
    for level in ["debug", "trace"] {
        no_secret_at(level).await;
    }
}

async fn no_secret_at(level: &str) {
    let lab = Setup::default().start().await;
    let (tap, heard) = tapped(lab.gitlab.addr()).await;
    lab.gitlab.set_access_token_lifetime(2);
    let internal = format!("[gitlab.main]\ninternal_url = \"http://{tap}\"");
    let config = lab.config.replace("[gitlab.main]", &internal);
    let config = config.replace("[session]", "[session]\nrecheck = \"1s\"");
    let labgate = Process::with(&config, &[("LABGATE_TELEMETRY__LOG", level)]);
    let (addr, _) = labgate.addresses().await;

    let mut browser = lab.browser();
    browser.point_at(addr);
    let mut cookies = Vec::new();
    let begun = browser.navigate("/oauth2/start?rd=/private%3Fprivate-query").await;
    cookies.extend(begun.cookies().iter().map(|cookie| (*cookie).to_owned()));
    let page = browser.sign_in("/private?private-query", "alice").await;
    assert_eq!(page.status, 200, "{}", page.text());
    let refreshed = || {
        let heard = String::from_utf8_lossy(&heard.lock().expect("no panic")).into_owned();
        heard.contains("grant_type=refresh_token").then_some(heard)
    };
    let heard = appears("a refresh", async || {
        cookies.extend(
            browser.xhr("/private").await.cookies().iter().map(|cookie| (*cookie).to_owned()),
        );
        refreshed()
    })
    .await;
    let echo = browser.request(
        http::Method::POST,
        "/echo",
        &[("sec-fetch-site", "same-origin")],
        "private-body",
    );
    assert_eq!(echo.await.status, 200);
    cookies.push(format!("x={}", browser.cookie("__Host-labgate").expect("a session")));
    http2(addr, browser.cookie("__Host-labgate").expect("a session")).await;
    browser.navigate("/oauth2/callback?code=private-code&state=private-state").await;
    assert_eq!(browser.post("/oauth2/sign_out", "rd=%2Fprivate-form").await.status, 200);
    labgate.logged("the sign-out", audit("sign_out")).await;

    let visited: Vec<_> = browser.visited.iter().map(ToString::to_string).collect();
    let visited = visited.join(" ");
    let key = config.split("keys = [\"").nth(1).and_then(|rest| rest.split('"').next());
    let ends = ['&', ' ', '"', ';', '\r'];
    let mut secrets =
        vec![CLIENT_SECRET, key.expect("a key"), "private-query", "private-body", "private-form"];
    secrets.extend(["private-code", "private-state"]);
    for (text, before) in [
        (&visited, "code="),
        (&visited, "state="),
        (&visited, "nonce="),
        (&heard, "code="),
        (&heard, "code_verifier="),
        (&heard, "refresh_token="),
        (&heard, "\"access_token\":\""),
        (&heard, "\"refresh_token\":\""),
        (&heard, "\"id_token\":\""),
        (&heard, "earer "),
        (&heard, "asic "),
    ] {
        let found = values(text, before, &ends);
        assert!(!found.is_empty() || before == "asic ", "nothing was heard of {before}: {text}");
        secrets.extend(found.into_iter().filter(|value| !value.contains("code_")));
    }
    let values = cookies.iter().filter_map(|cookie| cookie.split(['=', ';']).nth(1));
    secrets.extend(values.filter(|value| value.len() > 8));
    assert!(secrets.len() > 18, "{secrets:?}");
    let said = labgate.said();
    assert!(said.contains("\"DEBUG\""), "nothing more than usual was logged");
    for secret in secrets {
        assert!(!said.contains(secret), "{level}: {secret} is in the log");
    }
}

/// A request over HTTP/2 with the session's cookie.
async fn http2(addr: SocketAddr, cookie: &str) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = TcpStream::connect(addr).await.expect("a connection");
    let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = shake.await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("https://{HOST}/private?private-query"))
        .header("cookie", format!("__Host-labgate={cookie}"))
        .body(http_body_util::Empty::<bytes::Bytes>::new());
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    driver.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_ours_is_told_of_readiness_only_where_it_belongs() {
    let house = Setup::default().process(&[]).await;
    let ready = house.admin("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.json()["status"].as_str()), (200, Some("ready")));
    assert_eq!(house.admin("/livez").await.text(), "ok\n");
    assert_eq!(ready.header("cache-control"), "no-store");
}
