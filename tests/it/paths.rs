//! Which route a request meets: paths byte for byte, spellings that upstreams read differently, hosts, methods, labgate's own prefix (threats E1–E12).

use http::Method;

use crate::support::{HOST, Http2, Lab, Message, Setup, Wire};

/// Everything is guarded but what lies in `/echo/open`.
const ROUTES: &str = r#"
[[route]]
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo/open"
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/echo/open/admin"
upstream = "UPSTREAM"
allow = "signed-in"
"#;

async fn ask(lab: &Lab, head: &str) -> Message {
    Wire::say(lab.app.addr(), format!("{head}\r\n\r\n")).await.answer().await
}

async fn get(lab: &Lab, path: &str) -> Message {
    ask(lab, &format!("GET {path} HTTP/1.1\r\nHost: {HOST}")).await
}

/// Ways from the open area to `/echo/guarded` and `/echo/open/admin`, for one upstream or another.
fn ways_out() -> Vec<String> {
    let dots = [
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "%252e%252e",
        "..;x",
        "..%00",
        "%c0%ae%c0%ae",
        "..%09",
        "．．",
        "%ef%bc%8e%ef%bc%8e",
    ];
    let slashes =
        ["/", "%2f", "%2F", "%5c", "\\", "%252f", "//", "/./", ";/", "%c0%af", "%ef%bc%8f", "／"];
    let mut ways = Vec::new();
    for dot in dots {
        for slash in slashes {
            ways.push(format!("/echo/open{slash}{dot}{slash}guarded"));
            ways.push(format!("/echo/open/x{slash}{dot}{slash}{dot}{slash}guarded"));
        }
    }
    for slash in
        slashes.iter().chain(&["/;a/", "/%00/", "/%0a", "/%09", "/%0d%0a", "/.//", "/%2e/"])
    {
        ways.push(format!("/echo/open{slash}admin"));
        ways.push(format!("/echo/open/{slash}admin/x"));
    }
    let more = [
        "/echo/open/Admin",
        "/echo/open/ADMIN/x",
        "/echo/open/%61dmin",
        "/echo/open/%2561dmin",
        "/echo/open/admin;x=y",
        "/echo/open/;/admin",
        "/echo/open/admin%00",
        "/echo/open/admin%3f",
        "/echo/open/admin%23",
        "/echo/open/a%64min/..;/admin",
        "/echo/open/ad\u{ff4d}in",
        "/echo/open/%e0%80%afadmin",
        "/echo/open/admin/",
        "/echo/open/admin/%2e",
        "/echo/open/x/..%2fadmin",
        "/echo/open/.%00./admin",
        "/echo/guarded",
        "/echo/opened",
        "/echo/open%2fadmin",
        "/echo/guarded?/echo/open",
        "/echo/guarded?x=/../open",
        "/echo/guarded#/echo/open",
        "/echo/open/%zz/../../guarded",
        "http://app.example.test/echo/guarded",
        "http://app.example.test/echo/open/../guarded",
        "//app.example.test/echo/guarded",
        "echo/open",
        "/echo\\open",
        "/%65cho/guarded",
        "/echo/open/..",
        "/echo/open/.",
        "/echo/open/%2e%2e/",
    ];
    ways.extend(more.map(str::to_owned));
    ways
}

/// The paths of what is guarded, in any case.
fn is_guarded(path: &str) -> bool {
    let path = path.to_lowercase();
    !(path == "/echo/open" || path.starts_with("/echo/open/"))
        || path == "/echo/open/admin"
        || path.starts_with("/echo/open/admin/")
}

/// What careless upstreams make of a path: decoded once and twice, before and after dots are resolved, with backslashes and parameters.
fn careless(path: &str) -> Vec<String> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let once = decode(path);
    let mut seen = vec![path.to_owned(), once.clone(), decode(&once)];
    for change in [
        |text: &str| text.replace('\\', "/"),
        |text: &str| text.split('\0').next().unwrap_or_default().to_owned(),
        |text: &str| text.replace(['\t', '\r', '\n', '\0'], ""),
        |text: &str| {
            text.split('/')
                .map(|part| part.split(';').next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join("/")
        },
        |text: &str| {
            text.replace('\u{ff0e}', ".").replace('\u{ff0f}', "/").replace('\u{ff4d}', "m")
        },
        |text: &str| {
            let mut text = text.to_owned();
            while text.contains("//") {
                text = text.replace("//", "/");
            }
            text
        },
        resolved,
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned(),
        resolved,
    ] {
        let changed: Vec<_> = seen.iter().map(|text| change(text)).collect();
        seen.extend(changed);
        seen.sort();
        seen.dedup();
    }
    seen
}

fn resolved(text: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in text.split('/').skip(1) {
        match part {
            "." => {},
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_leads_out_of_the_open_area() {
    let lab = Setup::default().routes(ROUTES).start().await;
    let mut forwarded = 0;
    for way in ways_out() {
        let before = lab.sample.hits();
        let answer = get(&lab, &way).await;
        let status = answer.status();
        if lab.sample.hits() == before {
            assert!(matches!(status, 400 | 401 | 404), "{way:?}: {status}");
            continue;
        }
        forwarded += 1;
        for reading in careless(&way) {
            assert!(!is_guarded(&reading), "{way:?} was passed on; it may be read as {reading:?}");
        }
    }
    assert!(forwarded < 20, "{forwarded}");
    // The same is no secret to those who may go anywhere.
    let session = lab.signed_in("alice").await.session();
    let path = "/echo/open/%2e%2e/guarded";
    let answer =
        ask(&lab, &format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}")).await;
    assert_eq!((answer.status(), answer.json()["target"].as_str()), (200, Some(path)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spelling_between_two_guarded_routes_meets_neither_of_them_by_mistake() {
    let routes = r#"
[[route]]
path = "/echo/team"
upstream = "UPSTREAM"
allow = [{ group = "acme" }]
[[route]]
path = "/echo/boss"
upstream = "UPSTREAM"
allow = [{ user = "root" }]
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
"#;
    let lab = Setup::default().routes(routes).start().await;
    let session = lab.signed_in("bob").await.session();
    let before = lab.sample.hits();
    for way in [
        "/echo/team/../boss",
        "/echo/team/%2e%2e/boss",
        "/echo/team/..%2fboss",
        "/echo/team/..\\boss",
        "/echo/team/%252e%252e/boss",
        "/echo/team/..;/boss",
        "/echo/team/%5c..%5cboss",
    ] {
        let head = format!("GET {way} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}");
        assert_eq!(ask(&lab, &head).await.status(), 400, "{way}");
    }
    assert_eq!(lab.sample.hits(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_queries_pass_byte_for_byte() {
    let lab = Setup::default().routes(ROUTES).start().await;
    let session = lab.signed_in("alice").await.session();
    let mut many = "/echo/many?".to_owned();
    for number in 0..10_001 {
        many += &number.to_string();
        many.push('&');
    }
    for path in [
        "/echo/a%2Fb/%41?x=%20&y=;",
        "/echo/%e2%82%ac/%E2%82%AC",
        "/echo/a//b/./c/../d",
        "/echo/a;b=c/d?&&&=&a=b=c?d/e",
        "/echo/~!$&'()*+,;=:@/-._",
        "/echo/?",
        "/echo/x?q=%00%0d%0a#",
        "/echo/x?[a]={b}|c^d`e~\\",
        "/echo/[a]|{b}",
        "/echo/%",
        "/echo/x?%zz%",
        many.as_str(),
    ] {
        let path = path.trim_end_matches('#');
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}");
        let answer = ask(&lab, &head).await;
        assert_eq!(answer.status(), 200, "{path:.80}: {}", answer.text());
        assert_eq!(answer.json()["target"], path, "{path:.80}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_absolute_form_names_the_host() {
    let lab = Setup::default().routes(ROUTES).start().await;
    let answer =
        ask(&lab, "GET http://app.example.test/echo/open?x HTTP/1.1\r\nHost: other.test").await;
    let echo = answer.json();
    assert_eq!(echo["target"], "/echo/open?x");
    let hosts: Vec<_> = echo["headers"]
        .as_array()
        .expect("headers")
        .iter()
        .filter(|pair| pair[0] == "host")
        .collect();
    assert_eq!(hosts, [&serde_json::json!(["host", HOST])]);
}

const HOSTS: &str = r#"
[[route]]
host = "app.example.test"
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
host = "open.example.test"
path = "/echo"
upstream = "UPSTREAM"
allow = "public"
[[route]]
host = "*.review.example.test"
path = "/echo"
methods = ["GET", "POST"]
upstream = "UPSTREAM"
allow = "public"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn hosts_decide_in_every_spelling() {
    let lab = Setup::default().routes(HOSTS).start().await;
    for (host, status) in [
        ("open.example.test", 200),
        ("OPEN.Example.TEST", 200),
        ("open.example.test.", 200),
        ("open.example.test:4180", 200),
        ("a.review.example.test", 200),
        ("app.example.test", 401),
        ("APP.example.test.", 401),
        ("app.example.test:80", 401),
        ("review.example.test", 421),
        ("a.b.review.example.test", 421),
        ("xopen.example.test", 421),
        ("open.example.test.evil.example", 421),
        ("127.0.0.1", 421),
        ("localhost", 421),
        ("evil.example", 421),
        ("open.example.test@evil.example", 400),
        ("open.example.test/x", 400),
        ("open.example.test, app.example.test", 400),
        ("open.example.test app.example.test", 400),
        ("open.example.test:x", 400),
        ("\"open.example.test\"", 400),
        ("open.example.test:99999", 400),
        ("open.example.test\0", 400),
    ] {
        let before = lab.sample.hits();
        let answer = ask(&lab, &format!("GET /echo HTTP/1.1\r\nHost: {host}")).await;
        assert_eq!(answer.status(), status, "{host}");
        assert_eq!(lab.sample.hits() > before, status == 200, "{host}");
    }
    // Other fields don't speak for the host, nor does the metrics' one.
    for field in [
        "X-Forwarded-Host: open.example.test",
        "X-Host: open.example.test",
        "Forwarded: host=open.example.test",
    ] {
        let answer = ask(&lab, &format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n{field}")).await;
        assert_eq!(answer.status(), 401, "{field}");
    }
    let own = "GET /oauth2/sign_in HTTP/1.1\r\nHost: evil.example\r\nAccept: text/html";
    let answer = ask(&lab, own).await;
    assert_eq!(answer.status(), 421);
    assert!(answer.values("set-cookie").is_empty() && answer.values("location").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_have_their_answers() {
    let lab = Setup::default().routes(HOSTS).start().await;
    let answer = ask(&lab, "GET /other HTTP/1.1\r\nHost: open.example.test").await;
    assert_eq!(answer.status(), 404);
    let answer = ask(&lab, "GET /echoes HTTP/1.1\r\nHost: open.example.test").await;
    assert_eq!(answer.status(), 404, "prefixes end on segment borders");
    for method in ["PUT", "HEAD", "get", "OPTIONS"] {
        let head = format!("{method} /echo HTTP/1.1\r\nHost: a.review.example.test");
        let mut wire = Wire::say(lab.app.addr(), format!("{head}\r\n\r\n")).await;
        let head = wire.head().await.expect("a head");
        assert!(head.starts_with("HTTP/1.1 405 "), "{method}: {head}");
        assert!(head.to_lowercase().contains("\r\nallow: get, post"), "{method}: {head}");
    }
    for method in ["CONNECT", "TRACE"] {
        let target = if method == "CONNECT" { "open.example.test:80" } else { "/echo" };
        let answer =
            ask(&lab, &format!("{method} {target} HTTP/1.1\r\nHost: open.example.test")).await;
        assert_eq!(answer.status(), 400, "{method}");
    }
    assert_eq!(lab.sample.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_open_opens_no_other() {
    let routes = r#"
[[route]]
path = "/echo"
methods = ["GET"]
upstream = "UPSTREAM"
allow = "public"
[[route]]
upstream = "UPSTREAM"
allow = "signed-in"
"#;
    let lab = Setup::default().routes(routes).start().await;
    for (method, status) in [
        ("GET", 200),
        ("HEAD", 401),
        ("POST", 401),
        ("get", 401),
        ("OPTIONS", 401),
        ("PROPFIND", 401),
    ] {
        let head = format!(
            "{method} /echo HTTP/1.1\r\nHost: {HOST}\r\nX-HTTP-Method-Override: GET\r\n\r\n"
        );
        let mut wire = Wire::say(lab.app.addr(), head).await;
        let head = wire.head().await.expect("a head");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method}: {head}");
    }
    assert_eq!(lab.sample.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_session_opens_a_guarded_path() {
    let lab = Setup::default().routes(ROUTES).start().await;
    for field in [
        "User-Agent: kube-probe/1.30",
        "User-Agent: GoogleHC/1.0",
        "User-Agent: ELB-HealthChecker/2.0",
        "X-Forwarded-For: 127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "X-HTTP-Method-Override: OPTIONS",
        "X-Method-Override: OPTIONS",
        "Authorization: Bearer x",
        "Authorization: Basic YWRtaW46YWRtaW4=",
        "PRIVATE-TOKEN: glpat-dev-root",
        "X-Requested-With: XMLHttpRequest",
        "Purpose: prefetch",
        "X-Original-URL: /echo/open",
        "X-Rewrite-URL: /echo/open",
        "X-Forwarded-Uri: /echo/open",
        "X-Envoy-Original-Path: /echo/open",
        "X-Auth-Request-Redirect: /echo/open",
        "Cookie: __Host-labgate=x",
        "Cookie: labgate=x",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        for method in ["GET", "OPTIONS", "POST"] {
            let head = format!("{method} /echo/guarded HTTP/1.1\r\nHost: {HOST}\r\n{field}");
            let status = ask(&lab, &head).await.status();
            // A POST is no way to ask for a WebSocket.
            assert!(
                status == 401 || status == 400 && field.contains("websocket"),
                "{method} {field}: {status}"
            );
        }
    }
    let preflight = format!(
        "OPTIONS /echo/guarded HTTP/1.1\r\nHost: {HOST}\r\nOrigin: https://app.example.test\r\n\
         Access-Control-Request-Method: GET"
    );
    assert_eq!(ask(&lab, &preflight).await.status(), 401);
    assert_eq!(lab.sample.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn labgates_own_prefix_is_its_own_in_every_spelling() {
    let routes = r#"
[[route]]
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/oauth2x"
upstream = "UPSTREAM"
allow = "public"
"#;
    let lab = Setup::default().routes(routes).start().await;
    for path in [
        "/oauth2",
        "/oauth2/",
        "/oauth2/nothing",
        "/oauth2//callback",
        "/oauth2/../echo",
        "/oauth2/./callback",
        "/OAUTH2/callback",
        "/Oauth2",
        "/oauth2%2fcallback",
        "/oauth2%2Fsign_in",
        "/%6fauth2/callback",
        "/oauth2;x/callback",
        "/x/../oauth2/callback",
        "/x/..%2foauth2/callback",
        "//oauth2/callback",
        "/./oauth2/callback",
        "\\oauth2\\callback",
        "/oauth2\\callback",
        "/%2foauth2/callback",
        "/oauth2%00/x",
        "/%256fauth2/x",
        "/oauth2/%2e%2e/echo",
        "/oauth2/callback%2f",
        "/oauth2/CALLBACK",
        "/oauth2%3fx",
        "/oauth2%23x",
        "/;/oauth2/callback",
        "/o\u{ff41}uth2/callback",
    ] {
        let status = get(&lab, path).await.status();
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    assert_eq!(lab.sample.hits(), 0);
    get(&lab, "/oauth2x").await;
    assert_eq!(lab.sample.hits_at("/oauth2x"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_see_is_not_on_the_public_listener() {
    let lab = Setup::default().routes(ROUTES).start().await;
    for path in
        ["/metrics", "/livez", "/readyz", "/debug", "http://admin/metrics", "/oauth2/metrics"]
    {
        for host in [HOST, "admin", "127.0.0.1", "localhost:4190"] {
            let answer = ask(&lab, &format!("GET {path} HTTP/1.1\r\nHost: {host}")).await;
            assert!(
                matches!(answer.status(), 401 | 404 | 421),
                "{path} {host}: {}",
                answer.status()
            );
            assert!(!answer.text().contains("labgate_"), "{path} {host}");
        }
    }
    let wire =
        Wire::say(lab.app.admin_addr(), format!("GET /echo/open HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(wire.await.answer().await.status(), 404, "the admin listener forwards nothing");
    assert_eq!(lab.sample.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_meets_the_same_routes() {
    let lab = Setup::default().routes(ROUTES).start().await;
    let http2 = Http2::to(lab.app.addr()).await;
    for (path, status) in [
        ("/echo/open", 200),
        ("/echo/guarded", 401),
        ("/echo/open/%2e%2e/guarded", 401),
        ("/echo/open/admin", 401),
        ("/oauth2%2fcallback", 400),
    ] {
        assert_eq!(http2.get(path, &[]).await.status, status, "{path}");
    }
    let request =
        http::Request::builder().method(Method::POST).uri(format!("http://{HOST}/echo/open?%20;"));
    let echo = http2.send(request.body("abc".into()).expect("a request")).await.json();
    assert_eq!((&echo["target"], &echo["length"]), (&"/echo/open?%20;".into(), &3.into()));
}
