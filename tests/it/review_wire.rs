//! Ways past a decision that was made rightly: other letters, other hosts, other methods, and answers that nobody takes (threats E1, E5, E6, H2).

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    HOST, Lab, Message, Setup, Wire,
    http2::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, block, frame,
        next_frame,
    },
    until,
};

async fn ask(lab: &Lab, head: &str) -> Message {
    Wire::say(lab.app.addr(), format!("{head}\r\n\r\n")).await.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_in_another_case_do_not_lead_past_a_stricter_rule() {
    let routes = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
        [[route]]\npath = \"/echo/admin\"\nupstream = \"UPSTREAM\"\nallow = [{ user = \"root\" }]\n";
    let lab = Setup::default().routes(routes).start().await;
    let session = lab.signed_in("alice").await.session();
    for (path, status) in [
        ("/echo/other", 200),
        ("/echo/admin", 403),
        ("/echo/ADMIN/users", 400),
        ("/ECHO/admin", 400),
        ("/Echo/x/../Admin", 400),
        ("/echo/%41dmin", 400),
    ] {
        let before = lab.sample.hits();
        let head = format!("GET {path} HTTP/1.1\r\nHost: app.example.test\r\nCookie: {session}");
        assert_eq!(ask(&lab, &head).await.status(), status, "{path}");
        assert_eq!(lab.sample.hits() > before, status == 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_hears_the_host_that_was_judged() {
    let routes = "[[route]]\nhost = \"private.example.test\"\nupstream = \"UPSTREAM\"\n\
        allow = \"signed-in\"\n\
        [[route]]\nhost = \"public.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";
    let setup = Setup::default().routes(routes).server("trusted_proxies = [\"127.0.0.0/8\"]");
    let lab = setup.start().await;
    for target in ["/echo", "http://private.example.test/echo"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: private.example.test");
        assert_eq!(ask(&lab, &head).await.status(), 401, "{target}");
        let head = format!("{head}\r\nX-Forwarded-Host: public.example.test");
        let echo = ask(&lab, &head).await.json();
        let text = echo["headers"].to_string();
        assert!(text.contains(r#"["host","public.example.test"]"#), "{target}: {text}");
        assert!(!text.contains("private"), "{target}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_method_that_was_judged_is_not_overridden() {
    let routes = "[[route]]\nmethods = [\"POST\"]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n\
        [[route]]\nmethods = [\"DELETE\"]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    let lab = Setup::default().routes(routes).start().await;
    let head = "POST /echo HTTP/1.1\r\nHost: app.example.test\r\nContent-Length: 0\r\n\
        X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n\
        X_HTTP_Method_Override: DELETE";
    let echo = ask(&lab, head).await.json();
    assert_eq!(echo["method"], "POST");
    assert!(!echo.to_string().contains("DELETE"), "{echo}");
}

const WINDOW_UPDATE: u8 = 8;
const OPEN: &str = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";

/// A GET or HEAD on a stream.
fn request(stream: u32, method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", HOST), (":path", path)];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

/// Settings whose window for each stream is so many bytes.
fn window(bytes: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4], &bytes.to_be_bytes()[..]].concat())
}

/// Answers pings until the connection ends, with further requests all the while; tells whether it was said that it would end.
async fn farewell(mut wire: Wire, mut more: impl FnMut() -> Vec<u8>) -> bool {
    let began = Instant::now();
    let mut told = false;
    while let Some((kind, _, payload)) = next_frame(&mut wire).await {
        assert!(began.elapsed() < Duration::from_secs(20), "it never ends");
        told |= kind == GOAWAY;
        let answer = match kind {
            PING => frame(PING, 1, 0, &payload),
            HEADERS => more(),
            _ => continue,
        };
        wire.try_write(answer).await;
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_not_kept() {
    let lab = Setup::default().routes(OPEN).server("timeouts.idle = \"1s\"").start().await;
    // A window of one byte has the whole answer made; answers without a body need none.
    for size in [0, 1] {
        for busy in [false, true] {
            let streams = (0..20).map(|number| request(2 * number + 1, "GET", "/echo"));
            let mut wire = Wire::say(lab.app.addr(), PREFACE).await;
            wire.write(window(size)).await;
            wire.write(streams.collect::<Vec<_>>().concat()).await;
            let mut last = 101;
            let more = || {
                last += 2;
                if busy { request(last, "HEAD", "/slow?ms=50") } else { Vec::new() }
            };
            assert!(farewell(wire, more).await, "a window of {size}, others: {busy}");
        }
    }
    let open = async || lab.metric("labgate_open_connections").await;
    until("none of them stays", async || open().await <= 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_beside_one_that_nobody_takes_come_whole() {
    let lab = Setup::default().routes(OPEN).server("timeouts.idle = \"1s\"").start().await;
    let mut wire = Wire::say(lab.app.addr(), PREFACE).await;
    let slow = [request(3, "GET", "/slow?ms=2500"), frame(WINDOW_UPDATE, 0, 3, &[0, 0, 9, 9])];
    wire.write([window(0), request(1, "GET", "/echo"), slow.concat()].concat()).await;
    let (mut ended, mut told, began) = (false, false, Instant::now());
    while let Some((kind, stream, payload)) = next_frame(&mut wire).await {
        assert!(began.elapsed() < Duration::from_secs(20), "it never ends");
        told |= kind == GOAWAY;
        ended |= kind == DATA && stream == 3 && payload == b"at last\n";
        if kind == PING {
            wire.try_write(frame(PING, 1, 0, &payload)).await;
        }
    }
    assert!(told && ended, "said: {told}, answered: {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_taken_slowly_come_whole() {
    let lab = Setup::default().routes(OPEN).server("timeouts.idle = \"1s\"").start().await;
    let mut wire = Wire::say(lab.app.addr(), PREFACE).await;
    wire.write([window(10), request(1, "GET", "/bytes?n=50")].concat()).await;
    let mut taken = Vec::new();
    while taken.len() < 50 {
        let (kind, _, payload) = next_frame(&mut wire).await.expect("a frame");
        if kind == DATA {
            taken.extend(payload);
            // The pace of the peer, not a wait for anything.
            tokio::time::sleep(Duration::from_millis(600)).await;
            wire.write(frame(WINDOW_UPDATE, 0, 1, &10_u32.to_be_bytes())).await;
        }
    }
    let expected: Vec<u8> = (0..50).collect();
    assert_eq!(taken, expected);
}
