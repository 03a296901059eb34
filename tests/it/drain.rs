//! The end of a process: nothing that has begun is lost, nothing new begins, and it ends in time (threats M1, M2).

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{Answer, HOST, Http2, Lab, PATIENCE, Served, Setup, Tap, Wire, send, until};

const ROUTES: &str = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn tapped(drain: &str) -> (Lab, Tap) {
    let tap = Tap::open().await;
    let setup = Setup::default().routes(ROUTES).upstream(&tap.url());
    (setup.server(&format!("timeouts = {{ {drain} }}")).start().await, tap)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

async fn readiness(admin: SocketAddr) -> Answer {
    let request = http::Request::get("/readyz").header("host", "admin").body(String::new());
    send(admin, request.expect("a request")).await
}

async fn refuses(addr: SocketAddr) {
    until("connections are refused", async || TcpStream::connect(addr).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_begun_finishes_and_nothing_new_begins() {
    let (lab, tap) = tapped("drain = '20s', header = '60s'").await;
    let (addr, admin) = (lab.app.addr(), lab.app.admin_addr());
    assert_eq!(readiness(admin).await.status, 200);
    // Idle after an answer.
    let mut idle = Wire::say(addr, get("/idle")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    upstream.write(OK).await;
    idle.answer().await;
    // Waiting for an answer.
    let mut waiting = Wire::say(addr, get("/waiting")).await;
    upstream.head().await.expect("a request");
    // In the middle of a download.
    let mut download = Wire::say(addr, get("/download")).await;
    let mut sending = tap.accept().await;
    sending.head().await.expect("a request");
    sending.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun").await;
    download.head().await.expect("a head");
    // In the middle of an upload.
    let head = format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nbegun");
    let mut upload = Wire::say(addr, head).await;
    let mut receiving = tap.accept().await;
    receiving.until(b"begun").await.expect("a piece");
    // On an HTTP/2 connection.
    let http2 = Http2::to(addr).await;
    let stream = tokio::spawn({
        let http2 = http2.clone();
        async move { http2.get("/http2", &[]).await }
    });
    let mut answering = tap.accept().await;
    answering.head().await.expect("a request");
    // Connected without a word, and with half a head.
    let (mut silent, mut half) =
        (Wire::to(addr).await, Wire::say(addr, "GET / HTTP/1.1\r\nHo").await);
    until("all are connected", async || lab.count("labgate_open_connections").await >= 7).await;

    let Lab { app, gitlab: _gitlab, .. } = lab;
    let drained = tokio::spawn(app.drain());
    refuses(addr).await;
    let red = readiness(admin).await;
    assert_eq!(red.status, 503);
    assert_eq!(red.json()["status"], "draining");
    idle.closed().await;
    silent.closed().await;
    half.closed().await;

    upstream.write(OK).await;
    assert_eq!(waiting.answer().await.text(), "ok");
    waiting.closed().await;
    sending.write("ended").await;
    assert_eq!(download.exactly(10).await.as_deref(), Some(&b"begunended"[..]));
    download.closed().await;
    upload.write("ended").await;
    receiving.until(b"ended").await.expect("the rest");
    receiving.write(OK).await;
    assert_eq!(upload.answer().await.text(), "ok");
    assert!(!drained.is_finished(), "one is still waiting");
    answering.write(OK).await;
    assert_eq!(stream.await.expect("an answer").text(), "ok");
    let left = timeout(PATIENCE, drained).await.expect("the end, long before its deadline");
    assert_eq!(left.expect("no panic"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_served_while_load_balancers_take_notice() {
    let (lab, tap) = tapped("drain_delay = '700ms', drain = '10s'").await;
    let (addr, admin) = (lab.app.addr(), lab.app.admin_addr());
    let Lab { app, gitlab: _gitlab, .. } = lab;
    let drained = tokio::spawn(app.drain());
    until("ready is red", async || readiness(admin).await.status == 503).await;
    let mut late = Wire::say(addr, get("/late")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    upstream.write(OK).await;
    assert_eq!(late.answer().await.text(), "ok");
    assert_eq!(drained.await.expect("no panic"), 0);
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_ended_at_the_deadline() {
    let (lab, tap) = tapped("drain = '400ms'").await;
    let addr = lab.app.addr();
    let mut waiting = Wire::say(addr, get("/waiting")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    let began = Instant::now();
    let Lab { app, gitlab: _gitlab, .. } = lab;
    assert_eq!(app.drain().await, 1);
    assert!(began.elapsed() < Duration::from_secs(5));
    waiting.closed().await;
    upstream.closed().await;
}

fn handshake() -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Both ends of a tunnel.
async fn tunnel(addr: SocketAddr, tap: &Tap) -> (Wire, Wire) {
    let mut client = Wire::say(addr, handshake()).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    upstream
        .write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.status(), 101);
    (client, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_go_on_until_they_end_or_the_deadline_does() {
    let (lab, tap) = tapped("drain = '900ms'").await;
    let addr = lab.app.addr();
    let (mut client, mut upstream) = tunnel(addr, &tap).await;
    let Lab { app, gitlab: _gitlab, .. } = lab;
    let drained = tokio::spawn(app.drain());
    refuses(addr).await;
    // Not cut off at once: the last words pass both ways.
    client.write("up").await;
    assert_eq!(upstream.exactly(2).await.as_deref(), Some(&b"up"[..]));
    upstream.write("down").await;
    assert_eq!(client.exactly(4).await.as_deref(), Some(&b"down"[..]));
    assert_eq!(drained.await.expect("no panic"), 1);
    client.closed().await;
    upstream.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_tunnel_that_ends_ends_the_drain() {
    let (lab, tap) = tapped("drain = '20s'").await;
    let addr = lab.app.addr();
    let (client, mut upstream) = tunnel(addr, &tap).await;
    let Lab { app, gitlab: _gitlab, .. } = lab;
    let drained = tokio::spawn(app.drain());
    refuses(addr).await;
    assert!(!drained.is_finished());
    drop(client);
    upstream.closed().await;
    drop(upstream);
    let left = timeout(Duration::from_secs(10), drained).await.expect("before the deadline");
    assert_eq!(left.expect("no panic"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signal_drains_a_process_and_a_second_ends_it() {
    let (lab, tap) = tapped("drain = '20s'").await;
    for second in [false, true] {
        let process = Served::start(&lab.config, "").await;
        let mut waiting = Wire::say(process.addr, get("/waiting")).await;
        let mut upstream = tap.accept().await;
        upstream.head().await.expect("a request");
        process.signal("TERM").await;
        refuses(process.addr).await;
        assert_eq!(readiness(process.admin).await.status, 503);
        let began = Instant::now();
        if second {
            process.signal("INT").await;
            waiting.closed().await;
        } else {
            upstream.write(OK).await;
            assert_eq!(waiting.answer().await.text(), "ok");
        }
        let (code, log) = process.ended().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(log.contains("ended at once"), second, "{log}");
    }
}
