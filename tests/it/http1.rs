//! HTTP/1.1 between two parties that labgate trusts with nothing: framing of requests and of answers (threats G1–G15).

use crate::support::{HOST, Lab, Message, Setup, Tap, Wire};

const ROUTES: &str = r#"
[[route]]
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
"#;

async fn lab() -> Lab {
    Setup::default().routes(ROUTES).start().await
}

/// A lab whose application is played by the test.
async fn tapped() -> (Lab, Tap) {
    let tap = Tap::open().await;
    let lab = Setup::default().routes(ROUTES).upstream(&tap.url()).start().await;
    (lab, tap)
}

/// Says `request` and a second one behind it, and gives all that comes back; nothing may reach the application.
async fn refused(lab: &Lab, request: &[u8]) {
    let shown = String::from_utf8_lossy(request).into_owned();
    let before = lab.sample.hits();
    let behind = format!("GET /echo/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut wire = Wire::say(lab.app.addr(), [request, behind.as_bytes()].concat()).await;
    let answers = wire.rest().await;
    let status = answers.get(9..12).unwrap_or_default();
    assert!(matches!(status, "" | "400" | "414" | "431" | "501" | "505"), "{shown:?}: {answers}");
    assert_eq!(
        answers.matches("HTTP/1.1 ").count(),
        usize::from(!status.is_empty()),
        "{shown:?}: {answers}"
    );
    assert_eq!(lab.sample.hits(), before, "{shown:?} reached the application");
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_codings_that_can_be_read_in_two_ways_are_refused() {
    let lab = lab().await;
    let long = format!("Content-Length: {}\r\n", "9".repeat(40));
    let fields: [&[u8]; 44] = [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunkedx\r\n",
        b"Transfer-Encoding: \"chunked\"\r\n",
        b"Transfer-Encoding: 'chunked'\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n",
        b"Transfer-Encoding: ,chunked\r\n",
        b"Transfer-Encoding: chunked,\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: \x0cchunked\r\n",
        b"Transfer-Encoding: chunked\0\r\n",
        b"Transfer-Encoding: chunked\x85\r\n",
        b"Transfer-Encoding: \xffchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: 3, 4\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 3.0\r\n",
        b"Content-Length: 3 \x0b\r\n",
        b"Content-Length: 3 3\r\n",
        b"Content-Length: three\r\n",
        b"Content-Length:\r\n",
        b"Content-Length:\r\n 3\r\n",
        b"Content-Length : 3\r\n",
        b"Content-Length: \xef\xbc\x93\r\n",
        b"Content-Length: 3;\r\n",
        long.as_bytes(),
    ];
    for fields in fields {
        let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\n");
        refused(&lab, &[head.as_bytes(), fields, b"\r\n3\r\nabc\r\n0\r\n\r\n"].concat()).await;
    }
    let old = format!(
        "POST /echo HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    refused(&lab, old.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_lengths_are_one() {
    let lab = lab().await;
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"
    );
    let echo = Wire::say(lab.app.addr(), head).await.answer().await.json();
    let lengths = echo["headers"]
        .as_array()
        .expect("headers")
        .iter()
        .filter(|pair| pair[0] == "content-length");
    assert_eq!((lengths.count(), &echo["length"]), (1, &3.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_chunks_never_become_a_whole_upload() {
    let lab = lab().await;
    for chunks in [
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "_3\r\nabc\r\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "3;\0\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nA b: c\r\n\r\n",
        "3\r\nabc\r\n0\r\nA: b\n\r\n",
        "3\r\nabc\r\n0\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        );
        let behind = format!("GET /echo/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answers = Wire::say(lab.app.addr(), format!("{head}{behind}")).await.rest().await;
        assert!(!answers.contains("HTTP/1.1 200"), "{chunks:?}: {answers}");
    }
    assert_eq!(lab.sample.hits_at("/echo/smuggled"), 0);
    // Extensions end here, sizes in any case pass.
    let chunks = "a;x=\"y\"\r\n0123456789\r\n0A\r\n0123456789\r\n000\r\n\r\n";
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
    );
    let echo = Wire::say(lab.app.addr(), head).await.answer().await.json();
    assert_eq!(echo["length"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_heads_are_refused() {
    let lab = lab().await;
    let host = format!("Host: {HOST}\r\n");
    let lines: [&[u8]; 30] = [
        b"GET  /echo HTTP/1.1\r\n",
        b"GET /echo  HTTP/1.1\r\n",
        b"GET\t/echo HTTP/1.1\r\n",
        b"GET /echo\tHTTP/1.1\r\n",
        b"GET /echo HTTP/1.1 \r\n",
        b" GET /echo HTTP/1.1\r\n",
        b"GET /echo HTTP/2.0\r\n",
        b"GET /echo HTTP/1.10\r\n",
        b"GET /echo HTTP/1.2\r\n",
        b"GET /echo http/1.1\r\n",
        b"GET /echo HTTP/ 1.1\r\n",
        b"GET /echo\r\n",
        b"GET /echo HTTP/1.1\n",
        b"G\x00T /echo HTTP/1.1\r\n",
        b"G\xc3\x8bT /echo HTTP/1.1\r\n",
        b"GET /e\x00cho HTTP/1.1\r\n",
        b"GET /e\x7fcho HTTP/1.1\r\n",
        b"GET /e\x01cho HTTP/1.1\r\n",
        b"GET /echo#x HTTP/1.1\r\n",
        b"GET echo HTTP/1.1\r\n",
        b"GET * HTTP/1.1\r\n",
        b"GET app.example.test HTTP/1.1\r\n",
        b"GET http:///echo HTTP/1.1\r\n",
        b"GET http://a@app.example.test/echo HTTP/1.1\r\n",
        b"GET ftp://app.example.test/echo HTTP/1.1\r\n",
        b"GET \\echo HTTP/1.1\r\n",
        b"CONNECT app.example.test:443 HTTP/1.1\r\n",
        b"TRACE /echo HTTP/1.1\r\n",
        b"GET http://app.example.test:x/echo HTTP/1.1\r\n",
        b"\nGET /echo HTTP/1.1\r\n",
    ];
    for line in lines {
        refused_or_closed(&lab, &[line, host.as_bytes(), b"\r\n"].concat()).await;
    }
    let fields: [&[u8]; 19] = [
        b"X: a\r\n b\r\n",
        b"X: a\r\n\tb\r\n",
        b" X: a\r\n",
        b"X : a\r\n",
        b"X\t: a\r\n",
        b"X\r\n",
        b": a\r\n",
        b"X: a\rb\r\n",
        b"X: a\nY: b\r\n",
        b"X: a\0b\r\n",
        b"X: a\x01b\r\n",
        b"X: a\x7fb\r\n",
        b"X\0: a\r\n",
        b"X(: a\r\n",
        b"X@: a\r\n",
        b"X\xc3\xa9: a\r\n",
        b"Host: other.test\r\n",
        b"Expect: something\r\n",
        b"Expect: 100-continue, x\r\n",
    ];
    for fields in fields {
        let head = format!("GET /echo HTTP/1.1\r\n{host}");
        refused_or_closed(&lab, &[head.as_bytes(), fields, b"\r\n"].concat()).await;
    }
    refused_or_closed(&lab, b"GET /echo HTTP/1.1\r\n\r\n").await;
    refused_or_closed(&lab, format!("GET /echo HTTP/1.1\r\nHost:\r\n{host}\r\n").as_bytes()).await;
}

/// As [`refused`], but a request that is only judged, not misframed, may leave the connection open.
async fn refused_or_closed(lab: &Lab, request: &[u8]) {
    let shown = String::from_utf8_lossy(request).into_owned();
    let before = lab.sample.hits();
    let mut wire = Wire::say(lab.app.addr(), request).await;
    if let Some(answer) = wire.message().await {
        assert!(
            matches!(answer.status(), 400 | 404 | 405 | 501 | 505),
            "{shown:?}: {}",
            answer.head
        );
    }
    assert_eq!(lab.sample.hits(), before, "{shown:?} reached the application");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stay_bodies_whatever_the_method_and_the_answer() {
    let lab = lab().await;
    let hidden = format!("GET /echo/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    // Forwarded, answered by labgate, refused for want of a session: in each case the body is no request.
    for target in [
        "/echo",
        "/status/204",
        "/close",
        "/private",
        "/oauth2/userinfo",
        "/oauth2/sign_out",
        "/oauth2/none",
        "/slow?ms=1",
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST"] {
            for expect in ["", "Expect: 100-continue\r\n"] {
                let head = format!(
                    "{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{expect}Content-Length: {}\r\n\r\n{hidden}",
                    hidden.len()
                );
                let answers = Wire::say(lab.app.addr(), head).await.rest().await;
                let finals =
                    answers.matches("HTTP/1.1 ").count() - answers.matches("HTTP/1.1 100 ").count();
                assert_eq!(finals, 1, "{method} {target} {expect:?}: {answers}");
            }
        }
    }
    assert_eq!(lab.sample.hits_at("/echo/smuggled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_leaves_no_body_behind_to_be_read_as_a_request() {
    let lab = lab().await;
    let hidden = format!("GET /echo/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for target in ["/private", "/oauth2/none", "/events"] {
        // More is announced than comes at first; labgate answers meanwhile.
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n");
        let mut wire = Wire::say(lab.app.addr(), head).await;
        let status = wire.answer().await.status();
        assert!(matches!(status, 401 | 404 | 405), "{target}: {status}");
        wire.write(&hidden).await;
        wire.end().await;
        assert!(!wire.rest().await.contains("HTTP/1.1 200"), "{target}");
    }
    assert_eq!(lab.sample.hits_at("/echo/smuggled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_judged_one_by_one() {
    let lab = lab().await;
    let session = lab.signed_in("alice").await.session();
    let get =
        |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
    let pipeline = [
        get("/slow?ms=50", ""),
        get("/private", &format!("Cookie: {session}\r\n")),
        get("/private", ""),
        get("/echo/last", ""),
    ];
    let mut wire = Wire::say(lab.app.addr(), pipeline.concat()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(wire.answer().await.status());
    }
    assert_eq!(statuses, [200, 200, 401, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn max_forwards_counts_down_and_ends_here() {
    let lab = lab().await;
    let ask = async |value: &str| {
        let head =
            format!("OPTIONS /echo HTTP/1.1\r\nHost: {HOST}\r\nMax-Forwards: {value}\r\n\r\n");
        Wire::say(lab.app.addr(), head).await.answer().await
    };
    assert_eq!(ask("0").await.status(), 200);
    assert_eq!(lab.sample.hits(), 0);
    let echo = ask("5").await.text();
    assert!(echo.contains(r#"["max-forwards","4"]"#), "{echo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_client_is_told_to_continue_once_the_upstream_is_there() {
    let lab = lab().await;
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    );
    let mut wire = Wire::say(lab.app.addr(), head).await;
    assert_eq!(wire.head().await.as_deref(), Some("HTTP/1.1 100 Continue"));
    wire.write("abc").await;
    let echo = wire.answer().await.json();
    assert_eq!(echo["length"], 3);
    assert!(!echo.to_string().contains("expect"), "{echo}");
    // Nobody is asked for a body that won't be read.
    let head = format!(
        "POST /private HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    );
    let mut wire = Wire::say(lab.app.addr(), head).await;
    assert_eq!(wire.message().await.expect("an answer").status(), 401);
}

/// The application says `answer` to a GET; what a client gets of it, and whether the next request gets its own.
async fn relayed(lab: &Lab, tap: &Tap, answer: &[u8]) -> Option<Message> {
    let shown = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
    let mut client =
        Wire::say(lab.app.addr(), format!("GET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let mut upstream = tap.accept().await;
    upstream.head().await.expect("a request");
    upstream.try_write(answer).await;
    upstream.end().await;
    let relayed = client.message().await;
    drop(upstream);
    // Whatever it was, the next one is answered by what was said to it.
    let mut client =
        Wire::say(lab.app.addr(), format!("GET /second HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let mut upstream = tap.accept().await;
    let head = upstream.head().await.expect("a request");
    assert!(head.starts_with("GET /second "), "{shown:?}: {head}");
    upstream.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nown").await;
    assert_eq!(client.answer().await.text(), "own", "{shown:?}");
    relayed
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_can_be_read_in_two_ways_are_not_passed_on() {
    let (lab, tap) = tapped().await;
    let endless =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(400_000));
    let answers: [&[u8]; 18] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"hello",
        b"",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"HTTP/1.1 abc X\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        endless.as_bytes(),
    ];
    for answer in answers {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(90)]).into_owned();
        let relayed = relayed(&lab, &tap, answer).await;
        assert_eq!(relayed.map(|message| message.status()), Some(502), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_clear_answers_are_cleaned() {
    let (lab, tap) = tapped().await;
    let relayed_of =
        async |answer: &str| relayed(&lab, &tap, answer.as_bytes()).await.expect("an answer");
    let twice =
        relayed_of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!((twice.values("content-length"), twice.text().as_str()), (vec!["3"], "abc"));
    let informed = format!(
        "{}HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(50)
    );
    assert_eq!(relayed_of(&informed).await.status(), 200);
    let behind = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden";
    assert_eq!(relayed_of(behind).await.text(), "abc");
    let hops = relayed_of(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    for gone in ["x-hop", "keep-alive", "proxy-connection", "proxy-authenticate", "upgrade"] {
        assert!(hops.values(gone).is_empty(), "{gone}: {}", hops.head);
    }
    assert_eq!(hops.values("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(hops.values("date"), ["Tue, 01 Jan 2030 00:00:00 GMT"]);
    // Without a length the end of the connection is the end; a client sees a whole chunked body.
    let open = relayed_of("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    assert_eq!(open.text(), "until the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_204_and_304_have_no_body() {
    let lab = lab().await;
    let pipeline = [
        format!("HEAD /bytes?n=500 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /status/204 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /status/304 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ];
    let mut wire = Wire::say(lab.app.addr(), pipeline.concat()).await;
    let head = wire.head().await.expect("an answer");
    assert!(
        head.contains(" 200 ") && head.to_lowercase().contains("content-length: 500"),
        "{head}"
    );
    for status in ["204", "304"] {
        let head = wire.head().await.expect("an answer");
        assert!(head.contains(status), "{head}");
    }
    assert_eq!(wire.answer().await.status(), 200);
}
