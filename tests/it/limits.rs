//! What strangers can use up: heads, bodies, connections, files, and GitLab's patience (threats J1–J5).

use std::time::Duration;

use labgate::demo::gitlab::Endpoint;
use tokio::time::{Instant, timeout};

use crate::support::{HOST, Http2, Lab, PATIENCE, Served, Setup, Wire, until};

const ROUTES: &str = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n\
    [[route]]\npath = \"/private\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";

async fn lab(server: &str) -> Lab {
    Setup::default().routes(ROUTES).server(server).start().await
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().concat()
}

async fn is_served(lab: &Lab) {
    let began = Instant::now();
    let answer = Wire::say(lab.app.addr(), get("/echo", "")).await.answer().await;
    assert_eq!(answer.status(), 200);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies_are_cut_off_and_hold_up_nobody() {
    let lab = lab("timeouts = { header = '700ms', idle = '1500ms' }").await;
    let addr = lab.app.addr();
    let began = Instant::now();
    let mut half =
        futures_util::future::join_all((0..40).map(|_| Wire::say(addr, "GET / HTTP/1.1\r\nX: ")))
            .await;
    let mut silent = futures_util::future::join_all((0..40).map(|_| Wire::to(addr))).await;
    let body = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nbegun");
    let mut bodies = futures_util::future::join_all((0..40).map(|_| Wire::say(addr, &body))).await;
    let preface = b"PRI * HTTP/2.0\r\n";
    let mut prefaces =
        futures_util::future::join_all((0..5).map(|_| Wire::say(addr, preface))).await;
    // A byte now and then wins no time.
    let trickle = tokio::spawn(async move {
        let mut wire = Wire::say(addr, "GET / HTTP/1.1\r\nX: ").await;
        while wire.try_write("x").await && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        began.elapsed()
    });
    // Half a head is no idle connection, also when it is the second.
    let mut second = Wire::say(addr, get("/echo", "")).await;
    assert_eq!(second.answer().await.status(), 200);
    second.write("GET / HTTP/1.1\r\nX: ").await;
    is_served(&lab).await;
    for wire in half.iter_mut().chain([&mut second]).chain(&mut silent).chain(&mut prefaces) {
        assert!(!wire.rest().await.contains(" 200 "));
    }
    assert!(trickle.await.expect("no panic") < Duration::from_secs(6));
    for wire in &mut bodies {
        assert!(!wire.rest().await.contains(" 200 "));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_kept_for_a_while_and_cost_others_nothing() {
    let lab = lab("timeouts = { header = '500ms', idle = '1500ms' }").await;
    let wires = (0..300).map(|_| async {
        let mut wire = Wire::say(lab.app.addr(), get("/echo", "")).await;
        assert_eq!(wire.answer().await.status(), 200);
        wire
    });
    let mut wires = futures_util::future::join_all(wires).await;
    is_served(&lab).await;
    // Idle is not slow: longer than a head may take, a next request is fine.
    tokio::time::sleep(Duration::from_millis(700)).await;
    wires[0].write(get("/echo", "")).await;
    assert_eq!(wires[0].answer().await.status(), 200);
    for wire in &mut wires {
        wire.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_holds_up_nobody_and_is_given_up() {
    let lab = lab("timeouts = { idle = '700ms' }").await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        stalled.push(Wire::say(lab.app.addr(), get("/bytes?n=500000000", "")).await);
    }
    is_served(&lab).await;
    until("all are given up", async || lab.count("labgate_open_connections").await <= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_limits_of_size_and_count() {
    let lab = lab("limits = { header_bytes = '16KiB', headers = 50 }").await;
    let many = |count: usize| join((0..count).map(|number| format!("X-{number}: y\r\n")));
    let cookies = |count: usize| format!("Cookie: {}\r\n", "a=b; ".repeat(count));
    for (request, expected) in [
        (get("/echo", &many(48)), 200),
        (get("/echo", &many(60)), 431),
        (get("/echo", &many(5000)), 431),
        (get("/echo", &format!("X: {}\r\n", "x".repeat(8 * 1024))), 200),
        (get("/echo", &format!("X: {}\r\n", "x".repeat(100 * 1024))), 431),
        (get("/echo", &format!("{}: x\r\n", "x".repeat(100 * 1024))), 431),
        (get("/echo", &cookies(1000)), 200),
        (get("/echo", &cookies(40_000)), 431),
        (get(&format!("/echo?{}", "x".repeat(8 * 1024)), ""), 200),
        (get(&format!("/echo?{}", "x".repeat(200 * 1024)), ""), 414),
    ] {
        let mut wire = Wire::to(lab.app.addr()).await;
        // The rest may come too late.
        wire.try_write(&request).await;
        let status = wire.answer().await.status();
        let fine = status == expected || expected == 414 && status == 431;
        assert!(fine, "{} bytes, {:.40}…: {status}", request.len(), request);
    }
    let http2 = Http2::to(lab.app.addr()).await;
    let names: Vec<_> = (0..60).map(|number| format!("x-{number}")).collect();
    let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "y")).collect();
    assert_eq!(http2.get("/echo", &fields).await.status, 431);
    assert_eq!(http2.get("/echo", &fields[..40]).await.status, 200);
    let long = "x".repeat(20 * 1024);
    assert_eq!(http2.get("/echo", &[("x", &long)]).await.status, 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_found_among_many_cookies_and_junk_costs_little() {
    let lab = lab("").await;
    let session = lab.signed_in("alice").await.session();
    let junk = join((0..500).map(|number| format!("c{number}=junk; ")));
    let forged: String = (0..300).map(|_| "__Host-labgate=forged; ").collect();
    for (cookies, status) in [
        (format!("{junk}{session}"), 200),
        (format!("{session}; {junk}"), 200),
        (format!("{forged}a=b"), 401),
        (format!("__Host-labgate={}", "A".repeat(30_000)), 401),
        (format!("{}a=b", "=; ".repeat(5000)), 401),
    ] {
        let request = get("/private", &format!("Cookie: {cookies}\r\n"));
        let answer = Wire::say(lab.app.addr(), request).await.answer().await;
        assert_eq!(answer.status(), status, "{cookies:.60}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunk_extensions_and_trailers_are_bounded() {
    let lab = lab("").await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    for endless in [
        format!("3;{}", "x".repeat(2_000_000)),
        format!("3\r\nabc\r\n0\r\nX: {}", "x".repeat(2_000_000)),
        format!("3\r\nabc\r\n0\r\n{}", "X: y\r\n".repeat(200_000)),
        // A little in each of very many chunks.
        format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(10_000),
    ] {
        let mut wire = Wire::say(lab.app.addr(), &head).await;
        wire.try_write(&endless).await;
        wire.end().await;
        let answer = timeout(Duration::from_secs(5), wire.rest()).await.expect("an end");
        assert!(!answer.contains(" 200 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_connections_are_closed_at_once_and_counted() {
    let lab = lab("limits = { connections = 5 }").await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::say(lab.app.addr(), get("/echo", "")).await;
        assert_eq!(wire.answer().await.status(), 200);
        kept.push(wire);
    }
    for _ in 0..3 {
        Wire::to(lab.app.addr()).await.closed().await;
    }
    assert_eq!(lab.count("labgate_limits_reached_total{limit=\"connections\"}").await, 3);
    drop(kept);
    until("there is room again", async || {
        let mut wire = Wire::to(lab.app.addr()).await;
        wire.try_write(get("/echo", "")).await && wire.message().await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_may_open_few_files_outlives_a_rush() {
    let lab = lab("limits = { connections = 10000 }\ntimeouts = { header = '2s' }").await;
    let process = Served::start(&lab.config, "ulimit -n 256").await;
    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(Wire::to(process.addr).await);
    }
    // Nearly a hundred have room; one of them asks, which takes another file.
    crowd[0].write(get("/echo", "")).await;
    assert_eq!(crowd[0].answer().await.status(), 200);
    let (before, began) = (process.cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = (process.cpu() - before) / began.elapsed().as_secs_f64();
    assert!(busy < 0.5, "it spins: {busy}");
    let ready =
        Wire::say(process.admin, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await.answer().await;
    assert_eq!(ready.status(), 200, "operators still get through");
    drop(crowd);
    until("it serves again", async || {
        let mut wire = Wire::to(process.addr).await;
        wire.try_write(get("/echo", "")).await
            && wire.message().await.is_some_and(|answer| answer.status() == 200)
    })
    .await;
    process.signal("TERM").await;
    assert_eq!(process.ended().await.0, Some(0));
}

/// Requests to GitLab that somebody's request may cause.
fn asked(lab: &Lab) -> u64 {
    let endpoints = [
        Endpoint::Token,
        Endpoint::Userinfo,
        Endpoint::ApiUser,
        Endpoint::ApiMembers,
        Endpoint::Keys,
        Endpoint::Discovery,
        Endpoint::Revoke,
        Endpoint::Introspect,
        Endpoint::TokenInfo,
    ];
    endpoints.into_iter().map(|endpoint| lab.gitlab.hits(endpoint)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_costs_gitlab_nothing() {
    let lab = lab("").await;
    // Whatever is asked for once is known by then.
    lab.signed_in("alice").await;
    let before = asked(&lab);
    let navigation = "Sec-Fetch-Mode: navigate\r\nAccept: text/html\r\n";
    let floods = (0..8).map(|client| {
        let lab = &lab;
        async move {
            let mut wire = Wire::to(lab.app.addr()).await;
            for number in 0..625 {
                let (path, statuses) = match number % 5 {
                    0 => (format!("/private/{client}/{number}"), [302, 302]),
                    1 => (format!("/oauth2/start?rd=/{number}"), [302, 302]),
                    2 => (format!("/oauth2/callback?code=x&state={client}-{number}"), [400, 400]),
                    3 => (format!("/oauth2/callback?code={number}&state="), [400, 400]),
                    _ => ("/oauth2/userinfo".to_owned(), [401, 401]),
                };
                wire.write(get(&path, navigation)).await;
                let answer = wire.answer().await;
                assert!(statuses.contains(&answer.status()), "{path}: {}", answer.head);
                let cookies = answer.values("set-cookie");
                assert!(
                    cookies.len() <= 1 && cookies.iter().all(|cookie| cookie.len() < 2048),
                    "{cookies:?}"
                );
            }
        }
    });
    futures_util::future::join_all(floods).await;
    assert_eq!(asked(&lab), before);
    assert_eq!(lab.sample.hits_at("/private"), 1);
}
