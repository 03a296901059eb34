//! Raw bytes over real sockets against the whole room.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
};

use super::*;
use crate::body::Body;

/// Answers with the method, the path and the body, and counts.
#[derive(Default)]
struct Probe {
    calls: AtomicUsize,
    begun: Notify,
    go: Notify,
}

impl Handler for Probe {
    async fn handle(&self, request: &mut Request, _peer: SocketAddr, core: usize) -> Response {
        self.calls.fetch_add(1, SeqCst);
        match request.uri().path() {
            "/panic" => panic!("on purpose"),
            "/wait" => {
                self.begun.notify_one();
                self.go.notified().await;
            },
            "/core" => return Response::new(Body::full(format!("core {core};"))),
            "/upgrade" => {
                let upgraded = hyper::upgrade::on(&mut *request);
                tokio::spawn(async move {
                    let mut tunnel = TokioIo::new(upgraded.await.unwrap());
                    let mut bytes = [0; 4];
                    tunnel.read_exact(&mut bytes).await.unwrap();
                    tunnel.write_all(&bytes).await.unwrap();
                    tunnel.shutdown().await.unwrap();
                });
                return http::Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header("connection", "upgrade")
                    .header("upgrade", "echo")
                    .body(Body::empty())
                    .unwrap();
            },
            _ => {},
        }
        let line = format!("{} {} ", request.method(), request.uri());
        match request.body_mut().collect().await {
            Ok(body) => Response::new(Body::full([line.as_bytes(), &body.to_bytes()].concat())),
            Err(_) => http::Response::builder()
                .status(StatusCode::BAD_REQUEST)
                .body(Body::empty())
                .unwrap(),
        }
    }
}

struct Lab {
    server: Arc<Server>,
    probe: Arc<Probe>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

fn settings() -> Settings {
    Settings::from(&config::Server::default())
}

fn lab(settings: &Settings, cores: usize) -> Lab {
    let probe = Arc::new(Probe::default());
    let server = Arc::new(Server::start(&probe, settings, cores).unwrap());
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.accept(listener).await.unwrap() }
    });
    Lab { server, probe, address, accepting }
}

impl Lab {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `bytes`, answers with all that comes until the other side closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await
    }

    fn calls(&self) -> usize {
        self.probe.calls.load(SeqCst)
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A reset after the answer is a close too.
    let _closed = timeout_at(Instant::now() + Duration::from_secs(5), read)
        .await
        .expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(end) {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused_before_the_handler() {
    let lab = lab(&settings(), 1);
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n");
    let mut cases: Vec<String> = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: x\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer\0-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5_0\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: five\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\n 0\r\n",
        "Content-Length: 5\n",
        "X: a\nContent-Length: 5\r\n",
        "X: a\rY: b\r\n",
        "X: a\0b\r\n",
        "X: a\x01b\r\n",
        "X\r\n",
        ": x\r\n",
        "X y: z\r\n",
        "Host: b\r\n",
        "host: a\r\n",
        "Expect: the-unexpected\r\n",
    ]
    .into_iter()
    .map(with)
    .collect();
    cases.extend(
        [
            "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET /#fragment HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ]
        .map(str::to_owned),
    );
    for case in &cases {
        let answer = lab.exchange(case.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{case:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{case:?}: {answer:?}");
        assert_eq!(lab.calls(), 0, "{case:?} reached the handler");
    }
}

#[tokio::test]
async fn cut_into_single_bytes_they_are_refused_just_the_same() {
    let lab = lab(&settings(), 1);
    let case = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut stream = lab.connect().await;
    stream.set_nodelay(true).unwrap();
    for byte in case {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    assert_eq!(lab.calls(), 0);
}

#[tokio::test]
async fn a_bad_head_behind_good_requests_spoils_none_of_them() {
    let lab = lab(&settings(), 1);
    let answer = lab
        .exchange(
            b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        )
        .await;
    assert_eq!(lab.calls(), 2);
    let (one, two) = (answer.find("POST /1 abc"), answer.find("GET /2"));
    assert!(one.is_some() && one < two, "{answer:?}");
    let last = answer.rsplit_once("HTTP/1.1").unwrap().1;
    assert!(last.starts_with(" 400"), "{answer:?}");
}

#[tokio::test]
async fn broken_chunks_never_look_like_a_whole_body() {
    let lab = lab(&settings(), 1);
    for body in [
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: y\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = lab.exchange(format!("{head}{body}").as_bytes()).await;
        assert!(!answer.contains(" 200 "), "{body:?}: {answer:?}");
    }
}

#[tokio::test]
async fn limits_of_a_head_have_their_answers() {
    let lab = lab(&settings(), 1);
    let many = "x: y\r\n".repeat(200);
    let long = "x".repeat(100_000);
    for (head, status) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {long}\r\n\r\n"), "431"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "4"),
    ] {
        let answer = lab.exchange(head.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{answer:?}");
    }
    assert_eq!(lab.calls(), 0);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "x".repeat(70_000));
    let answer = lab.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("cookies"), "{answer:?}");
    assert_eq!(lab.calls(), 0);
    assert_eq!(lab.server.counts().large_heads.load(SeqCst), 2);
}

#[tokio::test]
async fn a_slow_head_is_cut_off_even_if_it_trickles() {
    let header = Duration::from_millis(150);
    let lab = lab(&Settings { header, ..settings() }, 1);
    let silent = lab.connect().await;
    let mut partial = lab.connect().await;
    partial.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let mut trickling = lab.connect().await;
    let trickle = async {
        // Ends with the error that a closed connection gives.
        while trickling.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let all = async {
        trickle.await;
        for mut stream in [silent, partial] {
            read_to_end(&mut stream).await;
        }
    };
    timeout_at(Instant::now() + Duration::from_secs(5), all).await.unwrap();
    assert_eq!(lab.calls(), 0);
}

#[tokio::test]
async fn idle_is_not_a_slow_head() {
    let settings = Settings {
        header: Duration::from_millis(100),
        idle: Duration::from_millis(600),
        ..settings()
    };
    let lab = lab(&settings, 1);
    let mut stream = lab.connect().await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(request).await.unwrap();
        read_until(&mut stream, "GET /").await;
        // Longer than a head may take, shorter than a connection may be idle.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let begun = Instant::now();
    assert_eq!(read_to_end(&mut stream).await, "");
    assert!(begun.elapsed() > Duration::from_millis(200));
    assert_eq!(lab.calls(), 2);
}

#[tokio::test]
async fn a_handler_may_take_longer_than_any_deadline_of_the_connection() {
    let settings = Settings {
        header: Duration::from_millis(50),
        idle: Duration::from_millis(50),
        ..settings()
    };
    let lab = lab(&settings, 1);
    let mut stream = lab.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    lab.probe.begun.notified().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    lab.probe.go.notify_one();
    read_until(&mut stream, "GET /wait").await;
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let idle = Duration::from_millis(150);
    let lab = lab(&Settings { idle, ..settings() }, 1);
    let mut stream = lab.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(!answer.contains(" 200 "), "{answer:?}");
}

#[tokio::test]
async fn a_panic_is_one_requests_own() {
    let lab = lab(&settings(), 1);
    let mut other = lab.connect().await;
    other.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    lab.probe.begun.notified().await;
    let mut stream = lab.connect().await;
    stream.write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer:?}");
    lab.probe.go.notify_one();
    read_until(&mut other, "GET /wait").await;
}

#[tokio::test]
async fn beyond_the_limit_sockets_are_closed_and_room_comes_back() {
    let lab = lab(&Settings { connections: 1, ..settings() }, 1);
    let mut first = lab.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut first, "GET /").await;
    assert_eq!(lab.exchange(b"").await, "");
    assert_eq!(lab.server.counts().turned_away.load(SeqCst), 1);
    drop(first);
    while lab.server.counts().open.load(SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    let mut second = lab.connect().await;
    second.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut second, "GET /2").await;
}

#[tokio::test]
async fn connections_are_spread_over_the_cores() {
    let lab = lab(&settings(), 2);
    let mut cores = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = lab.connect().await;
        stream.write_all(b"GET /core HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, ";").await;
        cores.push(answer.ends_with("core 1;"));
        streams.push(stream);
    }
    assert_eq!(cores.iter().filter(|core| **core).count(), 2);
}

#[tokio::test]
async fn a_drain_ends_idle_connections_at_once_and_busy_ones_after_their_answer() {
    let lab = lab(&settings(), 1);
    let mut silent = lab.connect().await;
    let mut idle = lab.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "GET /").await;
    let mut half = lab.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
    let mut busy = lab.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    lab.probe.begun.notified().await;
    let drain = tokio::spawn({
        let server = Arc::clone(&lab.server);
        async move { server.drain(Duration::from_secs(20)).await }
    });
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut silent).await, "");
    let patience = Duration::from_secs(5);
    assert_eq!(tokio::time::timeout(patience, read_to_end(&mut half)).await.unwrap(), "");
    lab.accepting.await.unwrap();
    assert!(TcpStream::connect(lab.address).await.is_err());
    lab.probe.go.notify_one();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.contains("connection: close") && answer.contains("GET /wait"), "{answer:?}");
    assert_eq!(drain.await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_gives_up_at_its_deadline_and_dropping_the_server_ends_the_rest() {
    let lab = lab(&settings(), 1);
    // Ends with the beginning of the drain, and is not one of those that are left.
    let _idle = lab.connect().await;
    let mut busy = lab.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    lab.probe.begun.notified().await;
    assert_eq!(lab.server.drain(Duration::from_millis(200)).await, 1);
    lab.accepting.await.unwrap();
    let counts = Arc::clone(lab.server.counts());
    drop(Arc::try_unwrap(lab.server).unwrap());
    assert_eq!(read_to_end(&mut busy).await, "");
    assert_eq!(counts.open.load(SeqCst), 0);
}

#[tokio::test]
async fn after_101_bytes_are_the_tunnels_also_those_that_came_early() {
    let lab = lab(&settings(), 1);
    let answer = lab
        .exchange(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n\n\0\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer:?}");
    assert!(answer.ends_with("\r\n\r\n\n\0\r\n"), "{answer:?}");
}

#[tokio::test]
async fn after_a_declined_upgrade_http_goes_on_and_is_checked_again() {
    let lab = lab(&settings(), 1);
    let answer = lab
        .exchange(
            b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n\
            GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\nHost: a\r\n\r\n",
        )
        .await;
    assert!(answer.contains("GET /1") && answer.contains("GET /2"), "{answer:?}");
    assert!(!answer.contains("GET /3") && answer.contains(" 400 "), "{answer:?}");
    assert_eq!(lab.calls(), 2);
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge_and_drained_by_goaway() {
    let lab = lab(&settings(), 1);
    let io = TokioIo::new(lab.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        http::Request::builder()
            .method(Method::POST)
            .uri(format!("http://a{path}"))
            .body(Body::full("abc"))
            .unwrap()
    };
    let answer = sender.send_request(request("/x")).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "POST http://a/x abc");
    let waiting = tokio::spawn(sender.send_request(request("/wait")));
    lab.probe.begun.notified().await;
    let drain = tokio::spawn({
        let server = Arc::clone(&lab.server);
        async move { server.drain(Duration::from_secs(20)).await }
    });
    lab.accepting.await.unwrap();
    lab.probe.go.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(drain.await.unwrap(), 0);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn http2_has_the_same_limits() {
    let settings = Settings { headers: 10, idle: Duration::from_millis(300), ..settings() };
    let lab = lab(&settings, 1);
    let io = TokioIo::new(lab.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = "http://a/".parse().unwrap();
    for n in 0..20 {
        let name = http::HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
        request.headers_mut().insert(name, http::HeaderValue::from_static("y"));
    }
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(lab.calls(), 0);
    // The sender is still there: it is the server that ends an idle connection.
    let ended = timeout_at(Instant::now() + Duration::from_secs(5), connection).await;
    assert!(ended.is_ok());
    drop(sender);
}

#[test]
fn a_taken_address_is_named() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn an_answer_is_seen_although_the_request_goes_on() {
    let lab = lab(&settings(), 1);
    let endless = "x".repeat(16 << 20);
    for head in [
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {endless}"),
        format!("POST /panic HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n{endless}"),
    ] {
        let (mut reader, mut writer) = lab.connect().await.into_split();
        let write = tokio::spawn(async move {
            // More than the kernel keeps: fails if nobody reads it.
            writer.write_all(head.as_bytes()).await.unwrap();
            writer
        });
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("HTTP/1.1 431 ") || answer.contains("HTTP/1.1 500 "), "{answer:?}");
        drop(write.await.unwrap());
    }
}

const GET_HTTP2: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

/// One HTTP/2 connection with one request, by hand: no client would send what these tests need.
fn http2_request(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    let block: Vec<u8> = fields.iter().flat_map(field).collect();
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0",
        &length[..],
        // HEADERS, END_STREAM and END_HEADERS, stream 1.
        b"\x01\x05\0\0\0\x01",
        &block,
    ]
    .concat()
}

/// The type and first byte of the first frame about a request or the whole connection.
async fn http2_verdict(stream: &mut TcpStream) -> Option<(u8, u8)> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        // HEADERS, RST_STREAM, GOAWAY.
        if matches!(head[3], 1 | 3 | 7) {
            return Some((head[3], payload[0]));
        }
    }
}

#[tokio::test]
async fn malformed_http2_requests_never_reach_the_handler() {
    let lab = lab(&settings(), 1);
    let bad_fields = [
        ("Upper", "x"),
        ("connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("te", "gzip"),
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x\0", "a"),
        ("x y", "a"),
        ("x:", "a"),
        ("", "a"),
        (":path", "/again"),
        (":unknown", "x"),
        (":status", "200"),
        ("content-length", "5"),
        ("content-length", "x"),
    ];
    let mut cases: Vec<Vec<(&str, &str)>> =
        bad_fields.iter().map(|field| [&GET_HTTP2[..], &[*field]].concat()).collect();
    for missing in [0, 1, 3] {
        let mut fields = GET_HTTP2.to_vec();
        fields.remove(missing);
        cases.push(fields);
    }
    let replaced = [(0, "G T"), (1, "ht tp"), (2, "a b"), (3, "/a b"), (3, "/a\r\n"), (3, "")];
    for (at, value) in replaced {
        let mut fields = GET_HTTP2.to_vec();
        fields[at].1 = value;
        cases.push(fields);
    }
    cases.push([&[("x", "y")], &GET_HTTP2[..]].concat());
    for case in &cases {
        let mut stream = lab.connect().await;
        stream.write_all(&http2_request(case)).await.unwrap();
        let verdict =
            timeout_at(Instant::now() + Duration::from_secs(5), http2_verdict(&mut stream));
        let verdict = verdict.await.unwrap_or_else(|_| panic!("{case:?}: no answer"));
        assert_eq!(lab.calls(), 0, "{case:?} reached the handler: {verdict:?}");
    }
    let mut stream = lab.connect().await;
    stream.write_all(&http2_request(&GET_HTTP2)).await.unwrap();
    // 0x88 is `:status: 200` in HPACK.
    assert_eq!(http2_verdict(&mut stream).await, Some((1, 0x88)));
    assert_eq!(lab.calls(), 1);
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_their_connection() {
    const MANY: u32 = 5_000;
    let lab = lab(&settings(), 1);
    let first = http2_request(&GET_HTTP2);
    let (start, request) = first.split_at(24 + 9);
    let mut flood = start.to_vec();
    for id in (1..2 * MANY).step_by(2).map(u32::to_be_bytes) {
        flood.extend_from_slice(&[&request[..5], &id, &request[9..]].concat());
        // RST_STREAM with CANCEL.
        flood.extend_from_slice(&[b"\0\0\x04\x03\0", &id[..], b"\0\0\0\x08"].concat());
    }
    let mut stream = lab.connect().await;
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let read = reader.read_to_end(&mut answer);
    let both = async { tokio::join!(writer.write_all(&flood), read) };
    // Both fail or end when the server closes.
    let ended = timeout_at(Instant::now() + Duration::from_secs(10), both).await;
    assert!(ended.is_ok());
    assert!(lab.calls() < 500, "{} calls", lab.calls());
    let mut other = lab.connect().await;
    other.write_all(&http2_request(&GET_HTTP2)).await.unwrap();
    assert_eq!(http2_verdict(&mut other).await, Some((1, 0x88)));
}
