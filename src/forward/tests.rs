//! Raw clients and raw upstreams on both sides of the room, over real sockets.

use std::{convert::Infallible, net::IpAddr, net::SocketAddr};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use super::*;

const LONG: Duration = Duration::from_secs(10);

/// A server that does nothing but forward; answers refusals with their status and code.
struct Front {
    address: SocketAddr,
    tunnels: Arc<Tunnels>,
    upstream: TcpListener,
}

async fn front() -> Front {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    front_to(&url, upstream, LONG).await
}

async fn front_to(url: &str, upstream: TcpListener, response_timeout: Duration) -> Front {
    let url = Url::parse(url).unwrap();
    let application = Arc::new(
        Upstream::new(Settings {
            name: "test",
            url: &url,
            connect_timeout: LONG,
            response_timeout,
            cores: 1,
            tls: &tls().unwrap(),
            reserved: Arc::new(|name| name.as_str().starts_with("x-identity")),
        })
        .unwrap(),
    );
    let tunnels = Tunnels::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::clone(&tunnels);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (application, tunnels) = (Arc::clone(&application), Arc::clone(&shared));
            let service = service_fn(move |request: Request<Incoming>| {
                let (application, tunnels) = (Arc::clone(&application), Arc::clone(&tunnels));
                async move {
                    let mut request = request.map(Body::from);
                    let caller = caller(peer.ip());
                    let sent = match prepare(&mut request, &caller) {
                        Ok(passage) => {
                            application
                                .send(&mut request, passage, 0, &tunnels, Instant::now())
                                .await
                        },
                        Err(refusal) => Err(refusal),
                    };
                    Ok::<_, Infallible>(sent.unwrap_or_else(|refusal| {
                        let mut response = Response::new(Body::full(refusal.code()));
                        *response.status_mut() = refusal.status();
                        response
                    }))
                }
            });
            let connection = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    Front { address, tunnels, upstream }
}

fn caller(peer: IpAddr) -> Caller<'static> {
    Caller {
        peer,
        client: peer,
        trusted: false,
        scheme: "https",
        host: "app.example.com",
        port: 8443,
        relayed: false,
    }
}

impl Front {
    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.client().await;
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn accept(&self) -> TcpStream {
        let accepted = timeout(LONG, self.upstream.accept()).await;
        accepted.expect("a connection comes").unwrap().0
    }
}

/// Reads until `end` has come.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        let mut piece = [0; 4096];
        let count = timeout(LONG, stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Reads until the other side closes, by FIN or reset.
async fn to_end(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let _closed = timeout(LONG, stream.read_to_end(&mut seen)).await.expect("it is closed");
    String::from_utf8_lossy(&seen).into_owned()
}

async fn answer(stream: &mut TcpStream, bytes: &str) {
    stream.write_all(bytes.as_bytes()).await.unwrap();
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: app\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabc";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_is_used_again() {
    let front = front().await;
    let mut client = front.client().await;
    client.write_all(GET).await.unwrap();
    let mut upstream = front.accept().await;
    for body in [
        "Content-Length: 2\r\n\r\nok",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Content-Length: 0\r\n\r\n",
    ] {
        until(&mut upstream, "\r\n\r\n").await;
        answer(&mut upstream, &format!("HTTP/1.1 200 OK\r\n{body}")).await;
        until(&mut client, "\r\n\r\n").await;
        client.write_all(GET).await.unwrap();
    }
    until(&mut upstream, "GET /a").await;
}

#[tokio::test]
async fn a_get_on_a_connection_that_dies_is_sent_once_more_and_a_post_is_not() {
    let odd = b"GET /a?b=%C3%A4 HTTP/1.1\r\nHost: app\r\nX-Empty:\r\nX-Twice: 1\r\nX-Twice: \xe4, 2\r\n\r\n";
    for (request, again) in [(GET, true), (&odd[..], true), (POST, false)] {
        let front = front().await;
        let mut client = front.send(GET).await;
        let mut upstream = front.accept().await;
        until(&mut upstream, "\r\n\r\n").await;
        answer(&mut upstream, OK).await;
        until(&mut client, "ok").await;
        client.write_all(request).await.unwrap();
        let sent = until(&mut upstream, "\r\n\r\n").await;
        drop(upstream);
        if again {
            let mut fresh = front.accept().await;
            assert_eq!(until(&mut fresh, "\r\n\r\n").await, sent);
            // A second death is final.
            drop(fresh);
        }
        let seen = until(&mut client, "upstream_broken").await;
        assert!(seen.starts_with("HTTP/1.1 502 "), "{seen:?}");
        // The next connection is made for the next request: nothing came in between.
        client.write_all(b"GET /next HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
        let mut next = front.accept().await;
        until(&mut next, "GET /next").await;
    }
}

#[tokio::test]
async fn a_get_is_not_repeated_when_an_answer_had_begun() {
    let front = front().await;
    let mut client = front.send(GET).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, OK).await;
    until(&mut client, "ok").await;
    client.write_all(GET).await.unwrap();
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, "HTTP/1.1 2").await;
    drop(upstream);
    until(&mut client, "upstream_broken").await;
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_loses_no_post() {
    let front = front().await;
    let mut client = front.client().await;
    client.write_all(POST).await.unwrap();
    for _ in 0..20 {
        let mut upstream = front.accept().await;
        until(&mut upstream, "abc").await;
        answer(&mut upstream, OK).await;
        let seen = until(&mut client, "\r\n\r\nok").await;
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen:?}");
        // Both reach the front in the same turn of its runtime, the request first.
        assert_eq!(client.try_write(POST).unwrap(), POST.len());
        drop(upstream);
    }
}

#[tokio::test]
async fn an_upstream_out_of_reach_or_slow_is_said_so() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let spare = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = front_to(&url, spare, LONG).await;
    let mut client = front.send(GET).await;
    let seen = until(&mut client, "upstream_unreachable").await;
    assert!(seen.starts_with("HTTP/1.1 502"), "{seen:?}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}", silent.local_addr().unwrap().port());
    let front = front_to(&url, silent, Duration::from_millis(100)).await;
    let mut client = front.send(GET).await;
    let mut upstream = front.accept().await;
    let seen = until(&mut client, "upstream_timeout").await;
    assert!(seen.starts_with("HTTP/1.1 504"), "{seen:?}");
    // Nobody waits for the answer any more.
    to_end(&mut upstream).await;
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_response_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let front = front_to(&url, listener, Duration::from_millis(200)).await;
    let mut client =
        front.send(b"POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 8\r\n\r\n").await;
    let mut upstream = front.accept().await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        client.write_all(b"x").await.unwrap();
    }
    until(&mut upstream, "xxxxxxxx").await;
    answer(&mut upstream, OK).await;
    until(&mut client, "200 OK").await;
}

#[tokio::test]
async fn answers_that_are_none_are_refused_and_poison_no_later_one() {
    let huge =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(200_000));
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nno",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 99 No\r\n\r\n",
        "<html>no</html>\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        huge.as_str(),
    ] {
        let front = front().await;
        let mut client = front.send(GET).await;
        let mut upstream = front.accept().await;
        until(&mut upstream, "\r\n\r\n").await;
        answer(&mut upstream, bad).await;
        let seen = until(&mut client, "upstream_broken").await;
        assert!(seen.starts_with("HTTP/1.1 502"), "{bad:.80?}: {seen:?}");
        client.write_all(GET).await.unwrap();
        let mut fresh = front.accept().await;
        until(&mut fresh, "\r\n\r\n").await;
        answer(&mut fresh, OK).await;
        until(&mut client, "\r\n\r\nok").await;
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_are_no_answer() {
    let front = front().await;
    let mut client = front.send(GET).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, &format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")).await;
    until(&mut client, "\r\n\r\nok").await;
    client.write_all(GET).await.unwrap();
    let mut fresh = front.accept().await;
    until(&mut fresh, "\r\n\r\n").await;
    answer(&mut fresh, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown").await;
    let seen = until(&mut client, "own").await;
    assert!(!seen.contains("poison"), "{seen:?}");
}

#[tokio::test]
async fn equal_lengths_become_one_and_many_informational_answers_are_skipped() {
    let front = front().await;
    let mut client = front.send(GET).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, &"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(2000)).await;
    answer(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let seen = until(&mut client, "\r\n\r\nok").await;
    assert_eq!(seen.to_lowercase().matches("content-length").count(), 1, "{seen:?}");
    assert!(seen.contains("content-length: 2\r\n"), "{seen:?}");
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let front = front().await;
    let mut client = front
        .send(
            b"POST /a%2Fb/../c?d=%41&&e HTTP/1.1\r\nHost: App:8443\r\nConnection: close, X-Gone, Host, Content-Length\r\n\
            Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\n\
            HTTP2-Settings: x\r\nExpect: 100-continue\r\nX-Gone: x\r\nX-Kept: one\r\nX-Kept: two\r\nContent-Length: 3\r\n\r\nabc",
        )
        .await;
    let mut upstream = front.accept().await;
    let seen = until(&mut upstream, "abc").await;
    assert!(seen.starts_with("POST /a%2Fb/../c?d=%41&&e HTTP/1.1\r\n"), "{seen}");
    for there in [
        "host: App:8443\r\n",
        "x-kept: one\r\n",
        "x-kept: two\r\n",
        "content-length: 3\r\n",
        "te: trailers\r\n",
        "connection: te\r\n",
    ] {
        assert!(seen.contains(there), "{there:?} in {seen}");
    }
    for gone in [
        "keep-alive",
        "proxy-",
        "gzip",
        "upgrade",
        "http2-settings",
        "expect",
        "x-gone",
        "transfer-encoding",
    ] {
        assert!(!seen.contains(gone), "{gone:?} in {seen}");
    }
    answer(
        &mut upstream,
        "HTTP/1.1 200 OK\r\nConnection: X-Gone, Set-Cookie\r\nX-Gone: x\r\nKeep-Alive: 5\r\nProxy-Authenticate: x\r\n\
        Upgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let seen = until(&mut client, "\r\n\r\nok").await;
    for there in ["set-cookie: a=1\r\n", "set-cookie: b=2\r\n"] {
        assert!(seen.contains(there), "{there:?} in {seen}");
    }
    for gone in ["x-gone", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert!(!seen.contains(gone), "{gone:?} in {seen}");
    }
}

#[tokio::test]
async fn bodies_stay_bodies_whatever_the_method() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PUT"] {
        let front = front().await;
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        let mut client = front.send(request.as_bytes()).await;
        let mut upstream = front.accept().await;
        let seen = until(&mut upstream, "3\r\nabc\r\n0\r\n\r\n").await;
        assert!(seen.contains("transfer-encoding: chunked\r\n"), "{seen}");
        answer(&mut upstream, "HTTP/1.1 204 No Content\r\n\r\n").await;
        until(&mut client, "204").await;
    }
}

#[tokio::test]
async fn head_keeps_the_length_without_a_body() {
    let front = front().await;
    let mut client = front.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    let seen = until(&mut client, "\r\n\r\n").await;
    assert!(seen.contains("content-length: 5\r\n"), "{seen}");
    client.write_all(GET).await.unwrap();
    until(&mut upstream, "GET /a").await;
}

#[tokio::test]
async fn max_forwards_ends_here_or_is_counted_down() {
    let front = front().await;
    let mut client = front.send(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").await;
    until(&mut client, "200 OK").await;
    client.write_all(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n").await.unwrap();
    let mut upstream = front.accept().await;
    let seen = until(&mut upstream, "\r\n\r\n").await;
    assert!(seen.starts_with("OPTIONS * ") && seen.contains("max-forwards: 2\r\n"), "{seen}");
}

#[tokio::test]
async fn a_waiting_client_is_told_to_continue() {
    let front = front().await;
    let mut client = front
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await;
    let mut upstream = front.accept().await;
    assert_eq!(until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"abc").await.unwrap();
    until(&mut upstream, "abc").await;
    answer(&mut upstream, OK).await;
    until(&mut client, "ok").await;
}

#[tokio::test]
async fn trailers_pass_both_ways_but_for_names_that_only_a_head_may_say() {
    let front = front().await;
    let mut client = front
        .send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
            Trailer: X-Sum, X-Identity-User, Host, X-Forwarded-For, X_Forwarded_For, Content-Length, Authorization\r\n\r\n3\r\nabc\r\n0\r\n\
            X-Sum: 1\r\nX-Identity-User: eve\r\nHost: eve\r\nX-Forwarded-For: eve\r\nX_Forwarded_For: eve\r\nContent-Length: 9\r\nAuthorization: eve\r\n\r\n",
        )
        .await;
    let mut upstream = front.accept().await;
    let seen = until(&mut upstream, "0\r\nx-sum: 1\r\n\r\n").await;
    assert!(!seen.contains("eve"), "{seen:?}");
    answer(
        &mut upstream,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\nSet-Cookie: a\r\n\r\n",
    )
    .await;
    let seen = until(&mut client, "0\r\nx-sum: 2\r\n\r\n").await;
    assert!(!seen.contains("set-cookie: a"), "{seen:?}");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let front = front().await;
    let mut client =
        front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc").await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "abc").await;
    answer(&mut upstream, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge").await;
    let seen = until(&mut client, "large").await;
    assert!(seen.starts_with("HTTP/1.1 413"), "{seen:?}");
    // Half a request was sent on it: neither side is used again.
    to_end(&mut upstream).await;
    let mut client = front.send(GET).await;
    let mut fresh = front.accept().await;
    until(&mut fresh, "GET /a").await;
    answer(&mut fresh, OK).await;
    until(&mut client, "ok").await;
}

#[tokio::test]
async fn a_download_that_breaks_off_never_looks_complete() {
    for (head, end) in
        [("Content-Length: 10", "never"), ("Transfer-Encoding: chunked", "0\r\n\r\n")]
    {
        let front = front().await;
        let mut client = front.send(GET).await;
        let mut upstream = front.accept().await;
        until(&mut upstream, "\r\n\r\n").await;
        answer(&mut upstream, &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nab\r\n")).await;
        drop(upstream);
        let seen = to_end(&mut client).await;
        assert!(!seen.ends_with(end), "{seen:?}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_complete() {
    for (head, part) in
        [("Content-Length: 10", "abc"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n")]
    {
        let front = front().await;
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{part}");
        let client = front.send(request.as_bytes()).await;
        let mut upstream = front.accept().await;
        until(&mut upstream, "abc").await;
        drop(client);
        let rest = to_end(&mut upstream).await;
        assert!(!rest.contains("0\r\n"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    for begun in [false, true] {
        let front = front().await;
        let client = front.send(GET).await;
        let mut upstream = front.accept().await;
        until(&mut upstream, "\r\n\r\n").await;
        let mut client = client;
        if begun {
            answer(
                &mut upstream,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            )
            .await;
            until(&mut client, "1\r\na\r\n").await;
        }
        drop(client);
        to_end(&mut upstream).await;
    }
}

#[tokio::test]
async fn a_body_that_nobody_takes_is_not_taken_in() {
    const SIZE: usize = 256 << 20;
    let front = front().await;
    let mut client = front.send(GET).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    let piece = vec![b'x'; 1 << 16];
    let mut written = 0;
    // Until nothing moves: the kernel's buffers are full, and whatever lies between.
    while let Ok(count) = timeout(Duration::from_millis(500), upstream.write(&piece)).await {
        written += count.unwrap();
        assert!(written < SIZE / 2, "{written} bytes are somewhere");
    }
    let writer = tokio::spawn(async move {
        while written < SIZE {
            let count = piece.len().min(SIZE - written);
            written += upstream.write(&piece[..count]).await.unwrap();
        }
        upstream
    });
    let head = until(&mut client, "\r\n\r\n").await;
    let mut received = head.len() - head.find("\r\n\r\n").unwrap() - 4;
    let mut piece = vec![0; 1 << 16];
    while received < SIZE {
        let count = client.read(&mut piece).await.unwrap();
        assert!(count > 0 && piece[..count].iter().all(|byte| *byte == b'x'));
        received += count;
    }
    assert_eq!(received, SIZE);
    drop(writer.await.unwrap());
}

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n";

#[tokio::test]
async fn a_websocket_is_a_tunnel_counted_and_limited() {
    let front = front().await;
    let mut client = front.send(format!("{WEBSOCKET}\r\nearly").as_bytes()).await;
    let mut upstream = front.accept().await;
    let seen = until(&mut upstream, "\r\n\r\n").await;
    assert!(
        seen.contains("connection: upgrade\r\n") && seen.contains("upgrade: websocket\r\n"),
        "{seen}"
    );
    answer(&mut upstream, &format!("{SWITCH}Sec-WebSocket-Protocol: chat\r\n\r\nhello")).await;
    let seen = until(&mut client, "hello").await;
    assert!(seen.contains("sec-websocket-protocol: chat\r\n"), "{seen}");
    until(&mut upstream, "early").await;
    client.write_all(b"\0ping\n").await.unwrap();
    until(&mut upstream, "\0ping\n").await;
    assert_eq!(front.tunnels.open(), 1);

    let mut second = front.send(format!("{WEBSOCKET}\r\n").as_bytes()).await;
    let seen = until(&mut second, "limit_reached").await;
    assert!(seen.starts_with("HTTP/1.1 503"), "{seen}");

    drop(upstream);
    to_end(&mut client).await;
    drop(client);
    while front.tunnels.open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tunnels_can_be_ended_all_at_once() {
    let front = front().await;
    let mut client = front.send(format!("{WEBSOCKET}\r\n").as_bytes()).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, &format!("{SWITCH}\r\n")).await;
    until(&mut client, "\r\n\r\n").await;
    front.tunnels.end();
    to_end(&mut client).await;
    to_end(&mut upstream).await;
}

#[tokio::test]
async fn an_upgrade_that_is_declined_is_an_answer_like_any_other() {
    let front = front().await;
    let mut client = front.send(format!("{WEBSOCKET}\r\n").as_bytes()).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").await;
    until(&mut client, "no").await;
    client.write_all(GET).await.unwrap();
    until(&mut upstream, "GET /a").await;
    assert_eq!(front.tunnels.open(), 0);
}

#[tokio::test]
async fn no_tunnel_without_a_proper_request_and_a_fitting_101() {
    let front = front().await;
    for bad in [
        WEBSOCKET.replace("Version: 13", "Version: 12"),
        WEBSOCKET.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        WEBSOCKET.replace("GET", "PUT"),
    ] {
        let mut client = front.send(format!("{bad}\r\n").as_bytes()).await;
        let seen = until(&mut client, "malformed_request").await;
        assert!(seen.starts_with("HTTP/1.1 400"), "{seen}");
    }
    // These go on as plain HTTP.
    for plain in [
        WEBSOCKET.replace("websocket\r\n", "h2c\r\n"),
        WEBSOCKET.replace("websocket\r\n", "TLS/1.0\r\n"),
        WEBSOCKET.replace("keep-alive, Upgrade", "keep-alive"),
        WEBSOCKET.replace("HTTP/1.1", "HTTP/1.0"),
        WEBSOCKET.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
    ] {
        let mut client = front.send(format!("{plain}\r\n").as_bytes()).await;
        let mut upstream = front.accept().await;
        let seen = until(&mut upstream, "\r\n\r\n").await;
        assert!(!seen.contains("upgrade"), "{seen}");
        answer(&mut upstream, &format!("{SWITCH}\r\n")).await;
        until(&mut client, "upstream_broken").await;
    }
    let mut client = front.send(format!("{WEBSOCKET}\r\n").as_bytes()).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, &format!("{}\r\n", SWITCH.replace("WebSocket", "other"))).await;
    until(&mut client, "upstream_broken").await;
}

#[tokio::test]
async fn idle_connections_are_not_kept_for_long() {
    let front = front().await;
    let mut client = front.send(GET).await;
    let mut upstream = front.accept().await;
    until(&mut upstream, "\r\n\r\n").await;
    answer(&mut upstream, OK).await;
    until(&mut client, "ok").await;
    let begun = Instant::now();
    // Older than any idle connection may get.
    tokio::time::sleep(Duration::from_millis(4_300)).await;
    client.write_all(GET).await.unwrap();
    let mut fresh = front.accept().await;
    until(&mut fresh, "GET /a").await;
    to_end(&mut upstream).await;
    assert!(begun.elapsed() < LONG);
}

fn prepared(fields: &[(&str, &str)], caller: &Caller<'_>) -> Vec<(String, String)> {
    let mut request = Request::new(Body::empty());
    for (name, value) in fields {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    prepare(&mut request, caller).unwrap();
    let pair = |(name, value): (&http::HeaderName, &HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let mut pairs: Vec<_> = request.headers().iter().map(pair).collect();
    pairs.sort();
    pairs
}

#[test]
fn strangers_say_nothing_about_who_and_where_they_are() {
    let caller = caller("::ffff:192.0.2.7".parse().unwrap());
    let own: Vec<(String, String)> = [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "app.example.com:8443"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.7"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-uri",
        "x-forwarded-method",
        "x-forwarded-server",
        "x-real-ip",
        "forwarded",
        "x-original-url",
        "x-original-method",
        "x-rewrite-url",
        "X-Forwarded-For",
        "x_forwarded_for",
        "x-forwarded_host",
        "X.Forwarded.Proto",
        "x~real!ip",
        "x_original_url",
        "transfer_encoding",
        "content_length",
        "content.length",
        "keep_alive",
        "proxy_authorization",
        "x_rewrite.url",
    ] {
        assert_eq!(prepared(&[(name, "eve")], &caller), own, "{name}");
        // Naming a field in Connection takes nothing from labgate's own.
        assert_eq!(prepared(&[("connection", name), (name, "eve")], &caller), own, "{name}");
    }
}

#[test]
fn trusted_peers_are_believed_and_become_the_last_link() {
    let caller = Caller {
        trusted: true,
        client: "192.0.2.7".parse().unwrap(),
        ..caller("10.0.0.1".parse().unwrap())
    };
    let fields = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-prefix", "/p"),
        ("x-original-url", "/o"),
        ("x_forwarded_for", "eve"),
        ("forwarded", "for=192.0.2.7"),
    ];
    let expected = [
        ("forwarded", "for=192.0.2.7"),
        ("x-forwarded-for", "203.0.113.9, 192.0.2.7, 10.0.0.1"),
        ("x-forwarded-host", "app.example.com:8443"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-prefix", "/p"),
        ("x-forwarded-proto", "https"),
        ("x-original-url", "/o"),
        ("x-real-ip", "192.0.2.7"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(prepared(&fields, &caller), expected);
}

#[test]
fn the_host_that_was_judged_goes_on() {
    let own = caller("10.0.0.1".parse().unwrap());
    for (relayed, expected) in [(false, "Private.test"), (true, "app.example.com:8443")] {
        let caller = Caller { trusted: true, relayed, ..own };
        let fields = prepared(&[("host", "Private.test")], &caller);
        let hosts: Vec<_> = fields.iter().filter(|(name, _)| name == "host").collect();
        assert_eq!(hosts, [&("host".to_owned(), expected.to_owned())]);
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "https://Private.test/p?q".parse().unwrap();
        prepare(&mut request, &caller).unwrap();
        headers::to_origin_form(&mut request);
        assert_eq!(request.headers()["host"], expected);
        assert_eq!(request.uri(), "/p?q");
    }
}

#[test]
fn addresses_and_ports_are_written_in_full() {
    for (address, port, host) in [
        ("0.0.0.0", 1, "app.example.com:1"),
        ("10.20.30.255", 10, "app.example.com:10"),
        ("100.9.99.1", 443, "app.example.com"),
        ("::ffff:127.0.0.1", 8080, "app.example.com:8080"),
        ("2001:db8::1", 65535, "app.example.com:65535"),
    ] {
        let fields = prepared(&[], &Caller { port, ..caller(address.parse().unwrap()) });
        let address = address.trim_start_matches("::ffff:");
        for (name, value) in [
            ("x-forwarded-for", address),
            ("x-real-ip", address),
            ("x-forwarded-host", host),
            ("x-forwarded-port", &port.to_string()),
        ] {
            assert!(fields.contains(&(name.into(), value.into())), "{name}: {value}: {fields:?}");
        }
    }
}

#[test]
fn nobody_overrides_the_method_that_was_judged() {
    let peer = "10.0.0.1".parse().unwrap();
    for trusted in [false, true] {
        let caller = Caller { trusted, ..caller(peer) };
        let own = prepared(&[], &caller);
        for name in [
            "x-http-method",
            "X-HTTP-Method-Override",
            "x-method-override",
            "x_http_method_override",
            "x.method-override",
        ] {
            assert_eq!(prepared(&[(name, "DELETE")], &caller), own, "{name}");
        }
        let kept = prepared(&[("x-http-methods", "1")], &caller);
        assert_eq!(kept.len(), own.len() + 1);
    }
}

#[test]
fn crumbs_of_a_cookie_are_joined_and_the_target_names_the_host() {
    let mut request = Request::new(Body::empty());
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = "https://eve@App.example.com:8443/p?q".parse().unwrap();
    request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    prepare(&mut request, &caller("192.0.2.7".parse().unwrap())).unwrap();
    headers::to_origin_form(&mut request);
    assert_eq!(request.headers()["cookie"], "a=1; b=2");
    assert_eq!(request.headers()["host"], "App.example.com:8443");
    assert_eq!(request.uri().to_string(), "/p?q");
    assert_eq!(request.version(), http::Version::HTTP_11);
}

#[tokio::test]
async fn an_https_upstream_is_verified() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let trusting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.unwrap();
            assert!(piece[..count].starts_with(b"GET /"));
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    for (tls, fine) in [(Arc::new(trusting), true), (tls().unwrap(), false)] {
        let upstream = Upstream::new(Settings {
            name: "test",
            url: &Url::parse(&url).unwrap(),
            connect_timeout: LONG,
            response_timeout: LONG,
            cores: 1,
            tls: &tls,
            reserved: Arc::new(|_| false),
        })
        .unwrap();
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("host", HeaderValue::from_static("a"));
        let passage = prepare(&mut request, &caller("192.0.2.7".parse().unwrap())).unwrap();
        let sent = upstream.send(&mut request, passage, 0, &Tunnels::new(1), Instant::now()).await;
        match sent {
            Ok(response) => assert!(fine && response.status() == StatusCode::OK),
            Err(refusal) => {
                assert!(!fine && refusal.code() == "upstream_unreachable", "{refusal:?}");
            },
        }
    }
}

#[tokio::test]
async fn a_client_that_frames_its_body_badly_is_told_so() {
    let front = front().await;
    let mut client = front
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n")
        .await;
    let mut upstream = front.accept().await;
    let seen = until(&mut client, "malformed_request").await;
    assert!(seen.starts_with("HTTP/1.1 400"), "{seen}");
    assert!(!to_end(&mut upstream).await.contains("0\r\n\r\n"));
}

#[tokio::test]
async fn an_upstream_is_not_slow_while_the_client_owes_it_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let front = front_to(&url, listener, Duration::from_millis(100)).await;
    let mut client =
        front.send(b"POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nx").await;
    let mut upstream = front.accept().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.write_all(b"y").await.unwrap();
    until(&mut upstream, "xy").await;
    let seen = until(&mut client, "upstream_timeout").await;
    assert!(seen.starts_with("HTTP/1.1 504"), "{seen}");
}
