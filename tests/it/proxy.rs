//! What lies between a client and an application: streams both ways, failures of either, and connections that are used again (threats L1–L10).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use labgate::demo::upstream::{self, SampleApp};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::support::{HOST, Http2, Lab, PATIENCE, Setup, Tap, Wire, until};

const ROUTES: &str = r#"
[[route]]
upstream = "app"
allow = "public"
[[route]]
path = "/private"
upstream = "app"
allow = "signed-in"
[upstream.app]
url = "UPSTREAM"
response_timeout = "2s"
connect_timeout = "2s"
"#;

async fn lab() -> Lab {
    Setup::default().routes(ROUTES).start().await
}

async fn tapped() -> (Lab, Tap) {
    let tap = Tap::open().await;
    let lab = Setup::default().routes(ROUTES).upstream(&tap.url()).start().await;
    (lab, tap)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn post(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

const MEGABYTE: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_come_down_intact() {
    const SIZE: usize = 100_000_000;
    let lab = lab().await;
    let mut wire = Wire::say(lab.app.addr(), get(&format!("/bytes?n={SIZE}"))).await;
    let head = wire.head().await.expect("a head");
    assert!(
        head.contains(" 200 ") && head.to_lowercase().contains(&format!("content-length: {SIZE}")),
        "{head}"
    );
    let (mut at, mut left) = (0, SIZE);
    while left > 0 {
        let piece = wire.exactly(left.min(256 * 1024)).await.expect("more");
        let right = piece
            .iter()
            .enumerate()
            .all(|(offset, byte)| usize::from(*byte) == (at + offset) % 251);
        assert!(right, "another byte between {at} and {}", at + piece.len());
        at += piece.len();
        left -= piece.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_go_up_intact() {
    const SIZE: usize = 100_000_000;
    let lab = lab().await;
    let piece: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut hash = Sha256::new();
    let mut wire = Wire::say(lab.app.addr(), post("/echo", SIZE)).await;
    for _ in 0..SIZE / piece.len() {
        wire.write(&piece).await;
        hash.update(&piece);
    }
    let echo = wire.answer().await.json();
    let hash: Vec<_> = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&echo["length"], &echo["sha256"]), (&SIZE.into(), &hash.concat().into()));
}

/// How many bytes `write` gets rid of before nothing moves any more.
async fn swallowed(wire: &mut Wire) -> usize {
    let piece = vec![b'x'; 64 * 1024];
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(400), wire.stream.write(&piece)).await {
        taken += written.expect("a connection");
        assert!(taken < 200 * MEGABYTE, "nobody reads, but all is taken in");
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_nobody_takes_is_not_taken_in() {
    let (lab, tap) = tapped().await;
    let client = Wire::say(lab.app.addr(), get("/endless")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    let before = resident();
    let taken = swallowed(&mut upstream).await;
    // Most of it is in the kernel's buffers for the two sockets; other tests of this process grow meanwhile.
    assert!(taken < 24 * MEGABYTE, "{taken} bytes were taken for a client that reads none");
    assert!(resident().saturating_sub(before) < 150 * MEGABYTE);
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_takes_is_not_taken_in() {
    let (lab, tap) = tapped().await;
    let mut client = Wire::say(lab.app.addr(), post("/endless", 1_000_000_000)).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    let taken = swallowed(&mut client).await;
    assert!(taken < 24 * MEGABYTE, "{taken} bytes were taken for an application that reads none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_stream_that_nobody_reads_holds_up_no_other() {
    let lab = lab().await;
    let http2 = Http2::to(lab.app.addr()).await;
    let request = http::Request::get(format!("http://{HOST}/bytes?n=50000000"));
    let unread = http2.open(request.body(String::new()).expect("a request")).await;
    assert_eq!(http2.get("/bytes?n=10", &[]).await.body.len(), 10);
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_while_the_stream_goes_on() {
    let lab = lab().await;
    let mut wire = Wire::say(lab.app.addr(), get("/events")).await;
    let head = wire.head().await.expect("a head");
    assert!(head.contains("text/event-stream"), "{head}");
    let mut event = Vec::new();
    for line in ["id: 1", "id: 2"] {
        while !String::from_utf8_lossy(&event).contains(line) {
            event.extend(wire.until(b"\n").await.expect("an event of a stream that never ends"));
        }
    }
    let http2 = Http2::to(lab.app.addr()).await;
    let request = http::Request::get(format!("http://{HOST}/events"));
    let mut answer = http2.open(request.body(String::new()).expect("a request")).await;
    let frame = timeout(PATIENCE, http_body_util::BodyExt::frame(answer.body_mut())).await;
    let data =
        frame.expect("in time").expect("a frame").expect("no error").into_data().expect("data");
    assert!(data.starts_with(b"retry: 1000\nid: 1\n"), "{data:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_piece_passes_at_once_in_both_directions() {
    let (lab, tap) = tapped().await;
    let head = format!("POST /talk HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut client = Wire::say(lab.app.addr(), head).await;
    client.write("3\r\none\r\n").await;
    let mut upstream = tap.accept().await;
    assert!(
        upstream
            .head()
            .await
            .expect("a head")
            .to_lowercase()
            .contains("transfer-encoding: chunked")
    );
    assert_eq!(upstream.until(b"one\r\n").await.expect("a chunk"), b"3\r\n");
    // An answer may begin before the question has ended.
    upstream.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    assert!(client.head().await.expect("a head").contains(" 200 "));
    client.until(b"a\r\n").await.expect("a chunk");
    for word in ["two", "six"] {
        client.write(format!("3\r\n{word}\r\n")).await;
        upstream.until(word.as_bytes()).await.expect("a chunk");
        upstream.write("1\r\nb\r\n").await;
        client.until(b"b\r\n").await.expect("a chunk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_reach_those_who_want_them() {
    let lab = lab().await;
    let head = format!("GET /trailers HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\n\r\n");
    let answer = Wire::say(lab.app.addr(), head).await.answer().await;
    assert_eq!(
        (answer.text().as_str(), answer.trailers.as_str()),
        ("one\ntwo\nthree\n", "x-checksum: one-two-three\n")
    );
    let answer = Wire::say(lab.app.addr(), get("/trailers")).await.answer().await;
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("one\ntwo\nthree\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_and_survives_a_restart_of_the_application() {
    let (lab, tap) = tapped().await;
    let mut client = Wire::say(lab.app.addr(), get("/1")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    upstream.write(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    client.write(get("/2")).await;
    assert!(upstream.head().await.expect("the same connection").starts_with("GET /2 "));
    upstream.write(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    // The application ends; the client's connection lives, and its next request is answered by the new one.
    drop(upstream);
    client.write(get("/3")).await;
    let mut upstream = tap.accept().await;
    assert!(upstream.head().await.expect("a request").starts_with("GET /3 "));
    upstream.write(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_sent_twice_is_and_what_may_not_is_not() {
    let (lab, tap) = tapped().await;
    for (method, repeated) in [("GET", true), ("POST", false), ("DELETE", false), ("PATCH", false)]
    {
        let mut client = Wire::say(lab.app.addr(), get("/1")).await;
        let mut upstream = tap.accept().await;
        upstream.head().await.expect("a request");
        upstream.write(OK).await;
        client.answer().await;
        // On a connection that was fine once, the application goes away with the request in its hands.
        client.write(get("/2").replacen("GET", method, 1)).await;
        upstream.head().await.expect("a request");
        drop(upstream);
        if repeated {
            let mut upstream = tap.accept().await;
            assert!(upstream.head().await.expect("once more").starts_with("GET /2 "));
            upstream
                .write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
                .await;
            assert_eq!(client.answer().await.status(), 200);
        } else {
            assert_eq!(client.answer().await.status(), 502, "{method}");
            // What comes next is what is said next, not a second attempt.
            client.write(get("/next")).await;
            let mut upstream = tap.accept().await;
            assert!(
                upstream.head().await.expect("a request").starts_with("GET /next "),
                "{method}"
            );
            upstream
                .write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
                .await;
            client.answer().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_fails_before_its_answer_is_a_502() {
    let (lab, tap) = tapped().await;
    for method in ["GET", "POST", "PUT"] {
        let mut client = Wire::say(lab.app.addr(), get("/x").replacen("GET", method, 1)).await;
        let mut upstream = tap.accept().await;
        upstream.head().await.expect("a request");
        drop(upstream);
        let answer = client.answer().await;
        assert_eq!(answer.status(), 502, "{method}");
        assert_eq!(answer.json()["type"], "urn:labgate:problem:upstream_broken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_never_looks_complete() {
    let (lab, tap) = tapped().await;
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = Wire::say(lab.app.addr(), get("/x")).await;
        let mut upstream = tap.accept().await;
        upstream.head().await.expect("a request");
        upstream.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n")).await;
        assert!(client.head().await.expect("a head").contains(" 200 "));
        drop(upstream);
        let rest = client.rest().await;
        assert!(rest.contains("hello") && !rest.ends_with("0\r\n\r\n"), "{head}: {rest:?}");
        let http2 = Http2::to(lab.app.addr()).await;
        let request =
            http::Request::get(format!("http://{HOST}/x")).body(String::new()).expect("a request");
        let (answer, ()) = tokio::join!(http2.open(request), async {
            let mut upstream = tap.accept().await;
            upstream.head().await.expect("a request");
            upstream.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n")).await;
        });
        let body = http_body_util::BodyExt::collect(answer.into_body());
        assert!(timeout(PATIENCE, body).await.expect("in time").is_err(), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_never_looks_complete() {
    let (lab, tap) = tapped().await;
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let head = format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n\r\n5\r\nhello\r\n");
        let client = Wire::say(lab.app.addr(), head).await;
        let mut upstream = tap.accept().await;
        upstream.until(b"hello").await.expect("a piece");
        drop(client);
        let rest = upstream.rest().await;
        assert!(!rest.ends_with("0\r\n\r\n"), "{rest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_its_request_along() {
    let (lab, tap) = tapped().await;
    let client = Wire::say(lab.app.addr(), get("/x")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    drop(client);
    timeout(Duration::from_secs(3), upstream.closed()).await.expect("cancelled");
    // In the middle of the answer as well.
    let mut client = Wire::say(lab.app.addr(), get("/x")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nbegun").await;
    client.head().await.expect("a head");
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    let piece = vec![b'x'; 64 * 1024];
    while upstream.try_write(&piece).await {
        assert!(Instant::now() < deadline, "goes on for nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let (lab, tap) = tapped().await;
    let mut client = Wire::say(lab.app.addr(), post("/x", 10_000_000)).await;
    client.write("some of it").await;
    let mut upstream = tap.accept().await;
    upstream.until(b"some of it").await.expect("a piece");
    upstream.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
    // Neither connection is used for anything else.
    let mut other = Wire::say(lab.app.addr(), get("/other")).await;
    let mut fresh = tap.accept().await;
    assert!(fresh.head().await.expect("a request").starts_with("GET /other "));
    fresh.write(OK).await;
    assert_eq!(other.answer().await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_out_of_reach_or_too_slow_is_told_apart_and_comes_back() {
    let tap = Tap::open().await;
    let (addr, url) = (tap.addr(), tap.url());
    let lab = Setup::default().routes(ROUTES).upstream(&url).start().await;
    let mut client = Wire::say(lab.app.addr(), get("/x")).await;
    let mut upstream = tap.accept().await;
    let began = Instant::now();
    let slow = client.answer().await;
    assert_eq!(
        (slow.status(), &slow.json()["type"]),
        (504, &"urn:labgate:problem:upstream_timeout".into())
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    upstream.head().await.expect("a request");
    upstream.closed().await;
    drop((tap, upstream));
    let gone = Wire::say(lab.app.addr(), get("/x")).await.answer().await;
    assert_eq!(
        (gone.status(), &gone.json()["type"]),
        (502, &"urn:labgate:problem:upstream_unreachable".into())
    );
    // Back again, the next request passes: nothing sticks.
    let listener = tokio::net::TcpListener::bind(addr).await.expect("the same port");
    let mut client = Wire::say(lab.app.addr(), get("/x")).await;
    let (mut stream, _) =
        timeout(PATIENCE, listener.accept()).await.expect("in time").expect("a connection");
    let mut request = [0; 1024];
    assert!(stream.read(&mut request).await.expect("a request") > 0);
    stream.write_all(OK.as_bytes()).await.expect("taken");
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_take_longer_than_the_application_may_think() {
    let (lab, tap) = tapped().await;
    let mut client = Wire::say(lab.app.addr(), post("/x", 6)).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    for byte in ["a", "b", "c", "d", "e", "f"] {
        // Half a second each, three seconds in all; an answer is due within two.
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.write(byte).await;
        assert_eq!(upstream.exactly(1).await.as_deref(), Some(byte.as_bytes()));
    }
    upstream.write(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_get_their_own_answers() {
    let lab = Setup::default().routes(ROUTES).workers(2).start().await;
    let clients = (0..50).map(|client| {
        let addr = lab.app.addr();
        tokio::spawn(async move {
            let mut wire = Wire::to(addr).await;
            for round in 0..20 {
                let path = format!("/echo/{client}/{round}");
                let body = format!("{client}:{round}");
                wire.write(format!("{}{body}", post(&path, body.len()))).await;
                let echo = wire.answer().await.json();
                assert_eq!((&echo["target"], &echo["length"]), (&path.into(), &body.len().into()));
            }
        })
    });
    for client in futures_util::future::join_all(clients).await {
        client.expect("all its own answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_application_under_load_leaves_nobody_without_an_answer() {
    let lab = lab().await;
    let (over, addr) = (Arc::new(AtomicBool::new(false)), lab.app.addr());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                let mut wire = Wire::to(addr).await;
                while !over.load(Relaxed) {
                    wire.write(get("/echo")).await;
                    let status = wire.answer().await.status();
                    assert!(matches!(status, 200 | 502), "{status}");
                }
                wire.write(get("/echo")).await;
                assert_eq!(wire.answer().await.status(), 200, "nothing sticks");
            })
        })
        .collect();
    until("they are busy", async || lab.sample.hits() > 200).await;
    let listen = lab.sample.addr();
    lab.sample.stop().await;
    let gap = Wire::say(addr, get("/echo")).await.answer().await.status();
    assert_eq!(gap, 502);
    let options = upstream::Options { listen, or_other_port: false, force_public: false };
    let again = SampleApp::start(options).await.expect("the same port");
    over.store(true, Relaxed);
    for client in futures_util::future::join_all(clients).await {
        client.expect("an answer to each request");
    }
    assert!(again.hits() >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn gets_are_not_lost_when_idle_connections_close_under_them() {
    let (lab, tap) = tapped().await;
    // An application that closes each connection right behind its answer, unannounced.
    let application = tokio::spawn(async move {
        loop {
            let mut upstream = tap.accept().await;
            tokio::spawn(async move {
                if upstream.head().await.is_some() {
                    upstream.write(OK).await;
                }
            });
        }
    });
    let clients = (0..8).map(|_| {
        let addr = lab.app.addr();
        tokio::spawn(async move {
            let mut wire = Wire::to(addr).await;
            for _ in 0..50 {
                wire.write(get("/x")).await;
                assert_eq!(wire.answer().await.status(), 200);
            }
        })
    });
    for client in futures_util::future::join_all(clients).await {
        client.expect("no request lost");
    }
    application.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_and_odd_bodies_pass_as_they_are() {
    let (lab, tap) = tapped().await;
    let mut client = Wire::say(lab.app.addr(), get("/x")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    // No gzip at all: nobody looks inside.
    upstream.write(b"HTTP/1.1 299 Own\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nX-A: \xe9\r\nETag: W/\"x\"\r\n\r\n\0\x01zz").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.body.as_slice()), (299, &b"\0\x01zz"[..]));
    assert_eq!(
        (answer.values("content-encoding"), answer.values("etag")),
        (vec!["gzip"], vec!["W/\"x\""])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_and_come_back_down() {
    let lab = lab().await;
    let wires =
        futures_util::future::join_all((0..5).map(|_| Wire::say(lab.app.addr(), get("/echo"))))
            .await;
    until("five are open", async || lab.count("labgate_open_connections").await >= 5).await;
    drop(wires);
    until("all are closed", async || lab.count("labgate_open_connections").await == 0).await;
}
