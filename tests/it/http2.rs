//! HTTP/2 with prior knowledge: malformed requests, floods, several requests at once, and what HTTP/1.1 upstreams hear of it (threats D9, H1, H2, H4, L5).

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use crate::support::{
    HOST, Http2, Lab, PATIENCE, Setup, Tap, Wire,
    http2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
        RST_STREAM, SETTINGS, block, frame, next_frame,
    },
};

const ROUTES: &str = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n\
    [[route]]\npath = \"/private\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";

async fn lab() -> Lab {
    Setup::default().routes(ROUTES).start().await
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/echo")];

/// Says the preface, then `frames`.
async fn say(lab: &Lab, frames: &[u8]) -> Wire {
    let mut wire = Wire::say(lab.app.addr(), PREFACE).await;
    wire.try_write(frames).await;
    wire
}

fn request(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
}

/// The first frame about a request or the whole connection: its type, and the first byte of its payload.
async fn verdict(wire: &mut Wire) -> Option<(u8, u8)> {
    loop {
        let (kind, _, payload) = next_frame(wire).await?;
        if matches!(kind, HEADERS | RST_STREAM | GOAWAY) {
            return Some((kind, payload.first().copied().unwrap_or_default()));
        }
    }
}

async fn is_served(lab: &Lab) {
    let began = Instant::now();
    let answer = Wire::say(lab.app.addr(), format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(answer.await.answer().await.status(), 200);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_never_reach_the_application() {
    let lab = lab().await;
    let replaced = |at: usize, value| {
        let mut fields = GET.to_vec();
        fields[at].1 = value;
        fields
    };
    let with = |name, value| [&GET[..], &[(name, value)]].concat();
    let long = "x".repeat(9000);
    let mut cases = vec![
        replaced(0, "G T"),
        replaced(0, ""),
        replaced(0, "GET /x HTTP/1.1\r\nX: y\r\n\r\nGET"),
        replaced(0, "CONNECT"),
        replaced(1, "ht tp"),
        replaced(2, "a b"),
        replaced(2, "a\r\nX: y"),
        replaced(2, "user@app.example.test"),
        replaced(2, ""),
        replaced(2, "app.example.test/x"),
        replaced(2, "app.example.test:x"),
        replaced(3, ""),
        replaced(3, "echo"),
        replaced(3, "/a b"),
        replaced(3, "/a\r\nX: y"),
        replaced(3, "/a\0"),
        replaced(3, "*"),
        replaced(3, "http://app.example.test/echo"),
        with("connection", "close"),
        with("connection", "x-forwarded-user"),
        with("transfer-encoding", "chunked"),
        with("upgrade", "h2c"),
        with("keep-alive", "x"),
        with("proxy-connection", "x"),
        with("te", "gzip"),
        with("x", "a\r\nb: c"),
        with("x", "a\nb"),
        with("x", "a\rb"),
        with("x", "a\0b"),
        with("X", "a"),
        with("x y", "a"),
        with("x:", "a"),
        with("x\r\ny", "a"),
        with("x\0", "a"),
        with("", "a"),
        with("x\u{ad}y", "a"),
        with("content-length", "5"),
        with("content-length", "x"),
        with("content-length", "0, 5"),
        with(":path", "/other"),
        with(":authority", "other"),
        with(":unknown", "x"),
        with(":status", "200"),
        with("host", "other.example.test"),
        with("host", "a b"),
        [&[("x", "y")], &GET[..]].concat(),
        [&GET[..], &[("host", HOST), ("host", HOST)]].concat(),
    ];
    for missing in 0..4 {
        let mut fields = GET.to_vec();
        fields.remove(missing);
        cases.push(fields);
    }
    for fields in &cases {
        let mut wire = say(&lab, &request(1, fields)).await;
        let found = verdict(&mut wire).await;
        assert_eq!(lab.sample.hits(), 0, "{fields:?} reached the application: {found:?}");
    }
    let mut wire = say(&lab, &request(1, &GET)).await;
    // 0x88 is `:status: 200` in HPACK.
    assert_eq!(verdict(&mut wire).await, Some((HEADERS, 0x88)));
    let mut wire = say(&lab, &request(1, &with("x", &long))).await;
    assert_eq!(verdict(&mut wire).await, Some((HEADERS, 0x88)));
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_do_not_fit_the_data_never_become_a_whole_upload() {
    let tap = Tap::open().await;
    let lab = Setup::default().routes(ROUTES).upstream(&tap.url()).start().await;
    for (length, data) in [
        ("3", "abcGET /smuggled HTTP/1.1\r\n\r\n"),
        ("9", "abc"),
        ("0", "GET /smuggled HTTP/1.1\r\n\r\n"),
    ] {
        let post = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", HOST),
            (":path", "/x"),
            ("content-length", length),
        ];
        let head = frame(HEADERS, END_HEADERS, 1, &block(&post));
        let mut wire =
            say(&lab, &[head, frame(DATA, END_STREAM, 1, data.as_bytes())].concat()).await;
        let accepted = async {
            let mut upstream = tap.accept().await;
            upstream.rest().await
        };
        let (said, arrived) =
            tokio::join!(verdict(&mut wire), timeout(Duration::from_millis(500), accepted));
        assert!(
            matches!(said, Some((RST_STREAM | GOAWAY, _)))
                || said.is_some_and(|(_, status)| status != 0x88),
            "{length}: {said:?}"
        );
        if let Ok(heard) = arrived {
            assert!(!heard.contains("smuggled"), "{length}: {heard}");
            assert!(!(length == "9" && heard.ends_with("\r\n0\r\n\r\n")), "{heard}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_their_connection_or_cost_nobody_anything() {
    let lab = Setup::default().routes(ROUTES).workers(1).start().await;
    let ids = |count: u32| (0..count).map(|number| 2 * number + 1);
    let rapid: Vec<u8> = ids(5000)
        .flat_map(|id| [request(id, &GET), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat())
        .collect();
    // Made the server reset: a window update of zero is an error of the stream.
    let made: Vec<u8> = ids(5000)
        .flat_map(|id| {
            [frame(HEADERS, END_HEADERS, id, &block(&GET)), frame(8, 0, id, &0_u32.to_be_bytes())]
                .concat()
        })
        .collect();
    let opened = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let continued: Vec<u8> = frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(20_000);
    let empty: Vec<u8> = frame(CONTINUATION, 0, 1, b"").repeat(50_000);
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", HOST), (":path", "/echo")];
    let upload = frame(HEADERS, END_HEADERS, 1, &block(&post));
    let nothing = frame(DATA, 0, 1, b"").repeat(50_000);
    // One entry of the table, said again by a byte each time.
    let bomb =
        [vec![0x40, 1, b'x', 127, 0xa1, 0x1e], vec![b'y'; 4000], vec![0xbe; 12_000]].concat();
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block(&GET), bomb].concat());
    for (name, flood) in [
        ("rapid reset", rapid),
        ("made you reset", made),
        ("CONTINUATION", [opened.clone(), continued].concat()),
        ("empty CONTINUATION", [opened, empty].concat()),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"").repeat(50_000)),
        ("PING", frame(PING, 0, 0, b"12345678").repeat(50_000)),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]).repeat(50_000)),
        ("empty DATA", [upload, nothing].concat()),
        ("HPACK bomb", bomb),
        ("1000 streams", ids(1000).flat_map(|id| request(id, &GET)).collect()),
        ("window overflow", frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(3)),
        (
            "zero window",
            [
                frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
                ids(100).flat_map(|id| request(id, &GET)).collect(),
            ]
            .concat(),
        ),
    ] {
        let addr = lab.app.addr();
        let flooding = tokio::spawn(async move {
            let mut wire = Wire::say(addr, PREFACE).await;
            // Nothing that comes back is read.
            timeout(Duration::from_secs(2), wire.try_write(&flood)).await.ok();
            wire
        });
        is_served(&lab).await;
        drop(timeout(PATIENCE, flooding).await.expect(name).expect(name));
        is_served(&lab).await;
    }
    let open = async || lab.count("labgate_open_connections").await;
    crate::support::until("none of them stays", async || open().await <= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_http2_connection_feeds_http1_upstreams() {
    let lab = lab().await;
    let http2 = Http2::to(lab.app.addr()).await;
    let request = Request::post(format!("http://{HOST}/echo/%41?x=%20"))
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let echo = http2.send(request.body("abc".into()).expect("a request")).await.json();
    assert_eq!((&echo["version"], &echo["length"]), (&"HTTP/1.1".into(), &3.into()));
    assert_eq!(echo["target"], "/echo/%41?x=%20");
    let text = echo["headers"].to_string();
    assert!(
        text.contains(r#"["cookie","a=1; b=2"]"#)
            && text.contains(&format!(r#"["host","{HOST}"]"#)),
        "{text}"
    );
    // Slow ones don't hold up fast ones on the same connection.
    let slow = tokio::spawn({
        let http2 = http2.clone();
        async move { http2.get("/slow?ms=4000", &[]).await }
    });
    assert_eq!(http2.get("/echo", &[]).await.status, 200);
    assert!(!slow.is_finished());
    assert_eq!(slow.await.expect("an answer").text(), "at last\n");
    // Fields of the hop end here, cookies stay two.
    let answer = http2.get("/headers", &[]).await;
    assert_eq!(answer.cookies().len(), 2);
    assert_eq!(http2.get("/close", &[]).await.header("connection"), "");
    assert_eq!(http2.get("/private", &[]).await.status, 401);
    assert_eq!(http2.get("/status/204", &[]).await.status, 204);
    let body = http2.get("/bytes?n=3000000", &[]).await.body;
    assert!(
        body.len() == 3_000_000
            && body.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_over_http2() {
    let lab = lab().await;
    let http2 = Http2::to(lab.app.addr()).await;
    let request = Request::get(format!("http://{HOST}/trailers")).header("te", "trailers");
    let answer = http2.open(request.body(String::new()).expect("a request")).await;
    let body =
        timeout(PATIENCE, answer.into_body().collect()).await.expect("in time").expect("a body");
    let trailers = body.trailers().expect("trailers");
    assert_eq!(trailers["x-checksum"], "one-two-three");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_takes_its_request_along() {
    let tap = Tap::open().await;
    let lab = Setup::default().routes(ROUTES).upstream(&tap.url()).start().await;
    let mut wire = say(&lab, &request(1, &GET)).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    wire.write(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await;
    timeout(Duration::from_secs(3), upstream.closed()).await.expect("cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_http2_is_not_made_and_not_passed_on() {
    let lab = lab().await;
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let behind = format!("GET /private HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let request = format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{behind}");
    let mut wire = Wire::say(lab.app.addr(), request).await;
    let echo = wire.answer().await;
    assert_eq!(echo.status(), 200);
    for word in ["h2c", "http2-settings", "upgrade"] {
        assert!(!echo.text().contains(word), "{word}: {}", echo.text());
    }
    assert_eq!(wire.answer().await.status(), 401);
    // A preface in the middle of a connection is no request.
    let mut wire =
        Wire::say(lab.app.addr(), format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    wire.answer().await;
    wire.write(PREFACE).await;
    let answer = wire.message().await;
    assert!(answer.is_none_or(|answer| answer.status() == 400));
}
