//! WebSockets and other upgrades: who gets a tunnel, what passes through it, and how many there are (threats H4, W1–W3).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::support::{HOST, Http2, Lab, Setup, Tap, Wire, until};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn handshake(path: &str, session: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A frame as clients send it: masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).expect("short")),
        length @ 126..65536 => {
            frame.push(0x80 | 0x7e);
            frame.extend(u16::try_from(length).expect("middling").to_be_bytes());
        },
        length => {
            frame.push(0x80 | 0x7f);
            frame.extend((length as u64).to_be_bytes());
        },
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The first byte and payload of the next frame from the server.
async fn next(wire: &mut Wire) -> Option<(u8, Vec<u8>)> {
    let head = wire.exactly(2).await?;
    let length = match head[1] {
        126 => usize::from(u16::from_be_bytes(wire.exactly(2).await?.try_into().expect("two"))),
        127 => {
            let length = u64::from_be_bytes(wire.exactly(8).await?.try_into().expect("eight"));
            usize::try_from(length).expect("a length")
        },
        length => usize::from(length),
    };
    Some((head[0], wire.exactly(length).await?))
}

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

async fn opened(lab: &Lab, session: &str) -> Wire {
    let mut wire = Wire::say(lab.app.addr(), handshake("/ws", session)).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status(), 101, "{}", answer.head);
    assert_eq!(answer.values("sec-websocket-accept"), [ACCEPT]);
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_all_sizes_and_kinds_pass_both_ways() {
    let lab = Lab::start().await;
    let session = lab.signed_in("alice").await.session();
    let mut wire = opened(&lab, &session).await;
    for size in [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000] {
        let payload: Vec<u8> = (0..=255).cycle().take(size).collect();
        wire.write(frame(FIN | BINARY, &payload)).await;
        assert_eq!(next(&mut wire).await, Some((FIN | BINARY, payload)), "{size} bytes");
    }
    wire.write([frame(TEXT, b"frag"), frame(FIN | PING, b"?"), frame(FIN, b"ments")].concat())
        .await;
    assert_eq!(next(&mut wire).await, Some((FIN | PONG, b"?".to_vec())));
    assert_eq!(next(&mut wire).await, Some((FIN | TEXT, b"fragments".to_vec())));
    for number in 0..500 {
        wire.write(frame(FIN | TEXT, format!("message {number}").as_bytes())).await;
    }
    for number in 0..500 {
        assert_eq!(
            next(&mut wire).await,
            Some((FIN | TEXT, format!("message {number}").into_bytes()))
        );
    }
    let bye = [&4000_u16.to_be_bytes()[..], b"enough"].concat();
    wire.write(frame(FIN | CLOSE, &bye)).await;
    assert_eq!(next(&mut wire).await, Some((FIN | CLOSE, bye)));
    wire.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_right_behind_the_handshake_is_not_lost() {
    let lab = Lab::start().await;
    let session = lab.signed_in("alice").await.session();
    let early = [handshake("/ws", &session).as_bytes(), &frame(FIN | TEXT, b"early")].concat();
    let mut wire = Wire::say(lab.app.addr(), early).await;
    assert_eq!(wire.answer().await.status(), 101);
    assert_eq!(next(&mut wire).await, Some((FIN | TEXT, b"early".to_vec())));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_tunnel_without_a_session() {
    let lab = Lab::start().await;
    for cookie in ["a=b", "__Host-labgate=junk", ""] {
        let mut wire = Wire::say(lab.app.addr(), handshake("/ws", cookie)).await;
        assert_eq!(wire.answer().await.status(), 401, "{cookie}");
    }
    // A navigation that asks for one is no better.
    let navigation = handshake("/ws", "a=b")
        .replace("\r\n\r\n", "\r\nAccept: text/html\r\nSec-Fetch-Mode: websocket\r\n\r\n");
    assert_eq!(Wire::say(lab.app.addr(), navigation).await.answer().await.status(), 401);
    // Somebody without the right is refused as elsewhere.
    let carol = lab.signed_in("carol").await.session();
    let before = lab.sample.hits();
    assert_eq!(
        Wire::say(lab.app.addr(), handshake("/team", &carol)).await.answer().await.status(),
        403
    );
    assert_eq!(lab.sample.hits(), before);
}

const OPEN: &str = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n\
    [[route]]\npath = \"/private\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn improper_handshakes_open_nothing_and_http_goes_on_behind_them() {
    let tap = Tap::open().await;
    let lab = Setup::default().routes(OPEN).upstream(&tap.url()).start().await;
    let passed = Arc::new(AtomicUsize::new(0));
    // An application that opens a tunnel for whoever asks, and counts what comes through it.
    let counted = Arc::clone(&passed);
    let application = tokio::spawn(async move {
        loop {
            let mut upstream = tap.accept().await;
            let passed = Arc::clone(&counted);
            tokio::spawn(async move {
                upstream.head().await;
                upstream.try_write(format!("{SWITCHING}\r\n")).await;
                passed.fetch_add(upstream.rest().await.len(), Relaxed);
            });
        }
    });
    let proper = handshake("/ws", "a=b");
    let without = |field: &str| {
        let kept = proper.split("\r\n").filter(|line| !line.starts_with(field));
        kept.collect::<Vec<_>>().join("\r\n")
    };
    for request in [
        without("Sec-WebSocket-Key"),
        without("Sec-WebSocket-Version"),
        without("Upgrade"),
        without("Connection"),
        proper.replace("Version: 13", "Version: 12"),
        proper.replace(KEY, "short"),
        proper.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
        proper.replace("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket"),
        proper.replace("Upgrade: websocket", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
        proper.replace("Upgrade: websocket", "Upgrade: HTTP/2.0"),
        proper.replace("Upgrade: websocket", "Upgrade: TLS/1.0"),
        proper.replacen("GET", "POST", 1),
        proper.replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        // Whatever is said behind it is not the application's to hear.
        let behind = format!("GET /private HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answers = Wire::say(lab.app.addr(), format!("{request}{behind}")).await.rest().await;
        assert!(!answers.contains("HTTP/1.1 101"), "{request}: {answers}");
        assert_eq!(passed.load(Relaxed), 0, "{request}");
        let second = answers.matches("HTTP/1.").count();
        assert!(second == 1 || answers.contains("HTTP/1.1 401"), "{request}: {answers}");
    }
    application.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_the_application_declines_is_an_answer_and_http_goes_on() {
    let tap = Tap::open().await;
    let lab = Setup::default().routes(OPEN).upstream(&tap.url()).start().await;
    for answer in [
        "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    ] {
        let behind = format!("GET /private HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let mut wire =
            Wire::say(lab.app.addr(), format!("{}{behind}", handshake("/ws", "a=b"))).await;
        let mut upstream = tap.accept().await;
        upstream.head().await.expect("a request");
        upstream.write(answer).await;
        assert_eq!(wire.answer().await.text(), "no");
        // What came early is judged as the request that it is.
        assert_eq!(wire.answer().await.status(), 401);
        upstream.closed().await;
    }
    // A 101 to another protocol, or to none, is no answer to what was asked.
    for answer in [
        SWITCHING.replace("Upgrade: websocket", "Upgrade: foo"),
        SWITCHING.replace("Upgrade: websocket\r\n", ""),
        SWITCHING.replace("Connection: Upgrade\r\n", ""),
    ] {
        let mut wire = Wire::say(lab.app.addr(), handshake("/ws", "a=b")).await;
        let mut upstream = tap.accept().await;
        upstream.head().await.expect("a request");
        upstream.write(format!("{answer}\r\n")).await;
        assert_eq!(wire.answer().await.status(), 502, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_reads_a_handshake_like_the_clients_own() {
    let tap = Tap::open().await;
    let lab = Setup::default().routes(OPEN).upstream(&tap.url()).start().await;
    let request = handshake("/ws?a=%20", "app=1").replace(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nOrigin: https://app.example.test\r\n\r\n",
    );
    let mut wire = Wire::say(lab.app.addr(), request).await;
    let mut upstream = tap.accept().await;
    let head = upstream.head().await.expect("a request");
    assert!(head.starts_with("GET /ws?a=%20 HTTP/1.1\r\n"), "{head}");
    let lower = head.to_lowercase();
    for field in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat, superchat",
        "sec-websocket-extensions: permessage-deflate",
        "origin: https://app.example.test",
    ] {
        assert!(lower.contains(&format!("\r\n{field}")), "{field}: {head}");
    }
    upstream
        .write(format!("{SWITCHING}Sec-WebSocket-Protocol: chat\r\nX-Hop: 1\r\n\r\nearly"))
        .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status(), answer.values("sec-websocket-protocol")), (101, vec!["chat"]));
    assert_eq!(wire.exactly(5).await.as_deref(), Some(&b"early"[..]));
    wire.write("up").await;
    assert_eq!(upstream.exactly(2).await.as_deref(), Some(&b"up"[..]));
    // The end of one is the end of both.
    drop(upstream);
    wire.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_counted_and_limited_and_their_places_come_back() {
    let setup = Setup::default().server("limits = { tunnels = 2 }");
    let lab = setup.start().await;
    let session = lab.signed_in("alice").await.session();
    let (first, second) = (opened(&lab, &session).await, opened(&lab, &session).await);
    assert_eq!(lab.count("labgate_open_tunnels").await, 2);
    let refused = Wire::say(lab.app.addr(), handshake("/ws", &session)).await.answer().await;
    assert_eq!(refused.status(), 503);
    assert!(!refused.values("retry-after").is_empty());
    drop((first, second));
    until("both are closed", async || lab.count("labgate_open_tunnels").await == 0).await;
    opened(&lab, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_has_no_upgrades() {
    let lab = Setup::default().routes(OPEN).start().await;
    let http2 = Http2::to(lab.app.addr()).await;
    let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", KEY)];
    // Without the fields of HTTP/1.1, which HTTP/2 may not carry, it is a plain GET.
    assert_eq!(http2.get("/ws", &fields).await.status.as_u16(), 426);
}
