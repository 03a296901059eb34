//! Uploads and WebSockets through the proxy.

use std::fmt::Write;

use http::Method;
use sha2::{Digest, Sha256};

use super::{front::Kind, yard::Yard};
use crate::support::{HOST, Wire};

/// Bytes of the upload.
const LARGE: usize = 10 << 20;

/// A large body arrives whole, and is not waited for where the answer is no.
pub async fn uploads(kind: Kind) {
    let yard = Yard::open(kind).await;
    let mut alice = yard.signed_in("alice").await;
    // No two lines are alike, so that a lost or doubled one shows.
    let mut body = String::with_capacity(LARGE);
    for number in 0..LARGE / 8 {
        writeln!(body, "{number:07}").expect("a String takes everything");
    }
    let answer = alice.request(Method::POST, "/echo", &[], &body).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), yard.front.said());
    let mut hash = String::new();
    for byte in Sha256::digest(&body) {
        write!(hash, "{byte:02x}").expect("a String takes everything");
    }
    let echo = answer.json();
    assert_eq!((&echo["length"], &echo["sha256"]), (&body.len().into(), &hash.into()));
    assert_eq!(echo["method"], "POST");

    let before = yard.reached();
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\n\r\n",
        body.len()
    );
    // Some take in as much as a quarter of a megabyte first, to keep the connection.
    let mut wire = Wire::say(yard.front.addr, head).await;
    wire.try_write(if kind.answers_early() { &body[..400_000] } else { &body }).await;
    assert_eq!(wire.answer().await.status(), 401, "before the body has come");
    // Small ones get the whole answer, whatever the method.
    let answer = yard.browser().request(Method::PUT, "/echo", &[], "small").await;
    assert_eq!(answer.status, 401);
    assert!(answer.json()["sign_in"].is_string());
    assert_eq!(yard.reached(), before);
}

/// A WebSocket opens for whom the route lets in, and passes messages both ways.
pub async fn web_socket(kind: Kind) {
    let yard = Yard::open(kind).await;
    let alice = yard.signed_in("alice").await;
    let handshake = |cookie: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let mut wire = Wire::say(yard.front.addr, handshake(&alice.session())).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status(), 101, "{}", answer.head);
    assert_eq!(answer.values("sec-websocket-accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    for round in 0..20_u8 {
        // A masked text of five bytes, and its echo.
        let text = [b'm', b's', b'g', b'0' + round / 10, b'0' + round % 10];
        let mask = [1, 2, 3, 4];
        let masked = text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        wire.write([&[0x81, 0x85][..], &mask, &masked.collect::<Vec<_>>()].concat()).await;
        assert_eq!(wire.exactly(7).await, Some([&[0x81, 5][..], &text].concat()));
    }
    let mut wire = Wire::say(yard.front.addr, handshake("theirs=1")).await;
    assert_eq!(wire.answer().await.status(), 401);
}
