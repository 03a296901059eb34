//! Drives the sample app over real loopback sockets.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

async fn app() -> SampleApp {
    SampleApp::start(Options::default()).await.unwrap()
}

async fn send(app: &SampleApp, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let mut request = Request::get(format!("{}{path}", app.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

async fn body(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What comes back on a bare connection until the app closes it.
async fn raw(app: &SampleApp, request: &str) -> String {
    let mut stream = TcpStream::connect(app.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn echo_says_what_arrived_duplicates_and_trailers_included() {
    let app = app().await;
    let answer = raw(
        &app,
        "PUT /echo/a%2Fb/../c?x=%20&y HTTP/1.1\r\nHost: h\r\nX-Twice: one\r\nX-Twice: two\r\n\
         Connection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let seen: Value = serde_json::from_str(body).unwrap();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["target"], "/echo/a%2Fb/../c?x=%20&y");
    assert_eq!(seen["version"], "HTTP/1.1");
    assert_eq!(seen["length"], 3);
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(seen["sha256"], abc);
    assert_eq!(seen["trailers"], json!([["x-sum", "7"]]));
    let headers = seen["headers"].as_array().unwrap();
    let twice: Vec<_> = headers.iter().filter(|pair| pair[0] == "x-twice").collect();
    assert_eq!(twice, [&json!(["x-twice", "one"]), &json!(["x-twice", "two"])]);
    assert_eq!((app.hits(), app.hits_at("/echo/a%2Fb/../c"), app.hits_at("/")), (1, 1, 0));
}

#[tokio::test]
async fn bytes_follow_their_pattern_and_have_a_length() {
    let app = app().await;
    let answer = send(&app, "/bytes?n=200000", &[]).await;
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], "200000");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes.len(), 200_000);
    assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
    assert_eq!(send(&app, "/bytes?n=0", &[]).await.headers()[header::CONTENT_LENGTH], "0");
}

#[tokio::test]
async fn probes_answer_as_they_promise() {
    let app = app().await;
    for (path, status) in [
        ("/status/418", 418),
        ("/status/204", 204),
        ("/status/103", 400),
        ("/status/nonsense", 400),
        ("/slow?ms=1", 200),
        ("/nothing", 404),
        ("/ws", 426),
    ] {
        assert_eq!(send(&app, path, &[]).await.status().as_u16(), status, "{path}");
    }
    let cookies = send(&app, "/headers", &[]).await;
    let cookies: Vec<_> = cookies.headers().get_all(header::SET_COOKIE).into_iter().collect();
    assert_eq!(cookies.len(), 4);
    assert!(cookies.iter().any(|cookie| *cookie == "labgate=forged; Path=/"));
    let close = send(&app, "/close", &[]).await;
    assert_eq!(close.headers()[header::CONNECTION], "close");
    let chunked = send(&app, "/chunked", &[]).await;
    assert_eq!(chunked.headers()[header::TRANSFER_ENCODING], "chunked");
    assert_eq!(body(chunked).await, "one\ntwo\nthree\n");
    let trailers = send(&app, "/trailers", &[("te", "trailers")]).await;
    let collected = trailers.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-checksum"], "one-two-three");
}

#[tokio::test]
async fn pages_greet_whom_the_headers_name_and_escape_them() {
    let app = app().await;
    let stranger = send(&app, "/", &[]).await;
    let policy = stranger.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    assert!(body(stranger).await.contains("href=\"/oauth2/sign_in?rd=/\""));
    let headers = [
        ("x-forwarded-user", "alice"),
        ("x-forwarded-groups", "<script>alert(1)</script>"),
        ("x-labgate-assertion", "an.assertion"),
        ("x-other", "unseen"),
    ];
    for path in ["/private", "/team", "/maintainers", "/live"] {
        let page = body(send(&app, path, &headers).await).await;
        assert!(page.contains("Hello, alice") && page.contains("/oauth2/sign_out"), "{path}");
        assert!(page.contains("an.assertion") && !page.contains("unseen"), "{path}");
        assert!(!page.contains("<script>alert"), "{path}");
    }
    for (path, kind) in [("/assets/demo.css", "text/css"), ("/assets/live.js", "text/javascript")] {
        let asset = send(&app, path, &[]).await;
        assert!(asset.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with(kind));
    }
}

#[tokio::test]
async fn the_counter_streams_and_goes_on_where_a_browser_left_it() {
    let app = app().await;
    let mut events = send(&app, "/events", &[("last-event-id", "41")]).await;
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");
    for count in [42, 43] {
        let event = events.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, format!("retry: 1000\nid: {count}\ndata: {count}\n\n"));
    }
}

#[tokio::test]
async fn a_socket_echoes_and_ends_with_the_app() {
    let app = app().await;
    let mut stream = TcpStream::connect(app.addr()).await.unwrap();
    let handshake = "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\x81\x02hi");
    app.stop().await;
    assert_eq!(stream.read(&mut echoed).await.unwrap_or(0), 0, "the tunnel ended too");
}

#[tokio::test]
async fn it_listens_on_loopback_unless_forced() {
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let options = Options { listen, ..Options::default() };
    let error = SampleApp::start(options).await.unwrap_err().to_string();
    assert!(error.contains("--force-public"), "{error}");
    SampleApp::start(Options { force_public: true, ..options }).await.unwrap();
    let app = app().await;
    assert_eq!(send(&app, "/", &[]).await.status(), StatusCode::OK);
}
