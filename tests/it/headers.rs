//! What upstreams read about the user and the client, and that nobody but labgate can say it (threats D1–D12, A29, B16, B17).

use labgate::demo::gitlab::Document;
use serde_json::{Value, json};

use crate::support::{HOST, Http2, Lab, Message, Setup, Wire};

const ROUTES: &str = r#"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo/open"
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/headers"
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/ws"
upstream = "UPSTREAM"
allow = "signed-in"
"#;

/// Where signed-in people are known, and where they need not be.
const PATHS: [&str; 2] = ["/echo/guarded", "/echo/open"];

async fn lab() -> Lab {
    Setup::default().routes(ROUTES).start().await
}

/// All values that arrived under `name`, as `/echo` tells them.
fn arrived<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let pairs = echo["headers"].as_array().expect("headers").iter();
    pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().expect("text")).collect()
}

async fn ask(lab: &Lab, head: &str) -> Message {
    Wire::say(lab.app.addr(), format!("{head}\r\n\r\n")).await.answer().await
}

fn get(path: &str, fields: &str) -> String {
    let host = format!("GET {path} HTTP/1.1\r\nHost: {HOST}");
    if fields.is_empty() { host } else { format!("{host}\r\n{fields}") }
}

/// Names by which one application or another knows its user.
const CLAIMS: [&str; 9] = [
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
    "X-Auth-Request-Email",
    "Remote-User",
    "X-Remote-User",
    "X-Webauth-User",
    "X-Labgate-Assertion",
];

/// Fields by which `mallory` claims to be somebody; the name comes as applications know it.
fn spellings(name: &str) -> Vec<Vec<u8>> {
    let (first, last) = (name.find('-').expect("a sign"), name.rfind('-').expect("a sign"));
    let with = |at: usize, sign: &str| format!("{}{sign}{}", &name[..at], &name[at + 1..]);
    let mixed: String = name
        .chars()
        .enumerate()
        .map(|(at, letter)| match at % 2 {
            0 => letter.to_ascii_lowercase(),
            _ => letter.to_ascii_uppercase(),
        })
        .collect();
    let (lower, upper) = (name.to_lowercase(), name.to_uppercase());
    let under = name.replace('-', "_");
    let texts = [
        format!("{name}: mallory"),
        format!("{name}:mallory"),
        format!("{lower}: mallory"),
        format!("{upper}: mallory"),
        format!("{mixed}: mallory"),
        format!("{name}: mallory\r\n{name}: mallory"),
        format!("{name}:\r\n{name}: mallory"),
        format!("{name}: , mallory"),
        format!("{name}: \"mallory\""),
        format!("{name}:: mallory"),
        format!("{name}: mallory\r\n{under}: mallory"),
        format!("{under}: mallory"),
        format!("{}: mallory", under.to_uppercase()),
        format!("{}: mallory", with(first, "_")),
        format!("{}: mallory", with(last, "_")),
        format!("{}: mallory", with(last, ".")),
        format!("{}: mallory", name.replace('-', ".")),
        format!("{}: mallory", with(first, "~")),
        format!("{}: mallory", with(last, "'")),
        format!("{name} : mallory"),
        format!("{name}\t: mallory"),
        format!("{name}\x0b: mallory"),
        format!("{name}\0: mallory"),
        format!("\0{name}: mallory"),
        format!(" {name}: mallory"),
        format!("X-A: b\r\n {name}: mallory"),
        format!("X-A: b\n{name}: mallory"),
        format!("X-A: b\r{name}: mallory"),
        format!("X-A: b\0{name}: mallory"),
        format!("{name}:\r\n mallory"),
        format!("Connection: {name}\r\n{name}: mallory"),
        format!("Connection: {under}\r\n{under}: mallory"),
    ];
    let mut all: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    // A soft hyphen, and a byte that is no text at all.
    for sign in [&b"\xc2\xad"[..], b"\xff"] {
        all.push(
            [&name.as_bytes()[..last], sign, &name.as_bytes()[last + 1..], b": mallory"].concat(),
        );
    }
    assert_eq!(all.len(), 34);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_an_identity_passes() {
    let lab = lab().await;
    let session = lab.signed_in("alice").await.session();
    let mut passed = 0;
    for name in CLAIMS {
        for fields in spellings(name) {
            for path in PATHS {
                let start = get(path, &format!("Cookie: {session}\r\n"));
                let request = [start.as_bytes(), &fields, b"\r\n\r\n"].concat();
                let answer = Wire::say(lab.app.addr(), request).await.answer().await;
                let shown = String::from_utf8_lossy(&fields).into_owned();
                match answer.status() {
                    400 => continue,
                    200 => passed += 1,
                    status => panic!("{status} for {shown:?}"),
                }
                assert!(!answer.text().contains("mallory"), "{path} {shown:?}: {}", answer.text());
                assert_eq!(arrived(&answer.json(), "x-forwarded-user"), ["alice"], "{shown:?}");
            }
        }
    }
    // Were all refused, nothing would be shown.
    assert!(passed > CLAIMS.len() * 2 * 15, "{passed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_public_routes_are_nobody_whatever_they_say() {
    let lab = lab().await;
    for name in CLAIMS {
        let under = name.replace('-', "_");
        let fields = format!("{name}: mallory\r\n{under}: mallory\r\nAccept: */*");
        for line in ["GET", "POST", "PUT", "OPTIONS", "DELETE", "get"] {
            let request = get("/echo/open", &fields).replacen("GET", line, 1);
            let echo = ask(&lab, &request).await.json();
            assert!(!echo.to_string().contains("mallory"), "{line} {name}: {echo}");
            assert_eq!(echo["method"], line);
        }
        let preflight = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
        let request =
            get("/echo/open", &format!("{preflight}{fields}")).replacen("GET", "OPTIONS", 1);
        let echo = ask(&lab, &request).await.json();
        assert!(!echo.to_string().contains("mallory"), "preflight {name}: {echo}");
        let old = get("/echo/open", &fields).replace("HTTP/1.1", "HTTP/1.0");
        let echo = ask(&lab, &old).await.json();
        assert!(!echo.to_string().contains("mallory"), "HTTP/1.0 {name}: {echo}");
        let http2 = Http2::to(lab.app.addr()).await;
        let (lower, under) = (name.to_lowercase(), under.to_lowercase());
        let echo =
            http2.get("/echo/open", &[(&lower, "mallory"), (&under, "mallory")]).await.json();
        assert!(!echo.to_string().contains("mallory"), "HTTP/2 {name}: {echo}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_own_table_are_stripped_too() {
    let setup = Setup::default().routes(ROUTES);
    let setup =
        setup.identity("headers = { App-User = \"username\", X-Whole = \"{name} <{email}>\" }");
    let lab = setup.start().await;
    let session = lab.signed_in("alice").await.session();
    let claims =
        "App-User: mallory\r\napp_user: mallory\r\nX_Whole: mallory\r\nX-Forwarded-User: mallory";
    for path in PATHS {
        let echo = ask(&lab, &get(path, &format!("Cookie: {session}\r\n{claims}"))).await.json();
        assert!(!echo.to_string().contains("mallory"), "{echo}");
        assert_eq!(arrived(&echo, "app-user"), ["alice"]);
        assert_eq!(arrived(&echo, "x-whole"), ["Alice Example <alice@example.com>"]);
        assert!(arrived(&echo, "x-forwarded-user").is_empty());
    }
    let echo = ask(&lab, &get("/echo/open", claims)).await.json();
    assert!(!echo.to_string().contains("mallory"), "{echo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_takes_nothing_of_labgates_away() {
    let lab = lab().await;
    let session = lab.signed_in("alice").await.session();
    for nominated in [
        "X-Forwarded-User",
        "close, x-forwarded-user, X-Forwarded-Email",
        "X-Forwarded-For, X-Forwarded-Proto, X-Real-IP",
        "x_forwarded_user",
        "keep-alive\r\nConnection: X-Forwarded-User",
        "Cookie, Authorization, Host, X-Request-Id, X-Forwarded-Host",
    ] {
        let fields = format!(
            "Cookie: {session}; a=b\r\nAuthorization: Basic eA==\r\nConnection: {nominated}"
        );
        let echo = ask(&lab, &get("/echo/x", &fields)).await.json();
        for (name, value) in [
            ("x-forwarded-user", "alice"),
            ("x-forwarded-email", "alice@example.com"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", HOST),
            ("host", HOST),
            ("authorization", "Basic eA=="),
            ("cookie", "a=b"),
        ] {
            assert_eq!(arrived(&echo, name), [value], "{nominated}: {name}");
        }
        assert_eq!(arrived(&echo, "x-request-id").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_end_at_labgate() {
    let lab = lab().await;
    let fields = "Connection: keep-alive, X-Mine\r\nX-Mine: secret\r\nKeep-Alive: timeout=9\r\n\
        Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\n\
        HTTP2-Settings: AAMAAABkAAQAoAAA\r\nX-Other: stays";
    let echo = ask(&lab, &get("/echo/open", fields)).await.json();
    for gone in
        ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "te", "http2-settings"]
    {
        assert!(arrived(&echo, gone).is_empty(), "{gone}: {echo}");
    }
    assert_eq!(arrived(&echo, "x-other"), ["stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_carry_no_identity_and_no_framing() {
    let lab = lab().await;
    let session = lab.signed_in("alice").await.session();
    let trailers = "X-Checksum: kept\r\nX-Forwarded-User: mallory\r\nx_forwarded_user: mallory\r\n\
        Remote-User: mallory\r\nX-Labgate-Assertion: mallory\r\nHost: mallory\r\nCookie: a=mallory\r\n\
        Content-Length: 3\r\nTransfer-Encoding: chunked\r\nAuthorization: mallory\r\n\
        X-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n";
    // Those that are not announced would be dropped for that alone.
    let names = trailers.split("\r\n").filter_map(|field| Some(field.split_once(':')?.0));
    let declared = format!("Trailer: {}", names.collect::<Vec<_>>().join(", "));
    let fields =
        format!("Cookie: {session}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n{declared}");
    let head = get("/echo/x", &fields).replacen("GET", "POST", 1);
    let answer = ask(&lab, &format!("{head}\r\n\r\n3\r\nabc\r\n0\r\n{trailers}")).await;
    let echo = answer.json();
    assert_eq!(echo["length"], 3);
    assert_eq!(echo["trailers"], json!([["x-checksum", "kept"]]));
    assert_eq!(arrived(&echo, "x-forwarded-user"), ["alice"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_lacks_is_absent_not_the_clients() {
    let lab = lab().await;
    // carol is in no group, and her e-mail address is not verified.
    let session = lab.signed_in("carol").await.session();
    let claims = "X-Forwarded-Email: mallory@example.com\r\nX-Forwarded-Groups: acme";
    for path in PATHS {
        let echo = ask(&lab, &get(path, &format!("Cookie: {session}\r\n{claims}"))).await.json();
        assert_eq!(arrived(&echo, "x-forwarded-user"), ["carol"]);
        assert!(arrived(&echo, "x-forwarded-email").is_empty(), "{echo}");
        assert!(arrived(&echo, "x-forwarded-groups").is_empty(), "{echo}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_groups_are_encoded_and_stay_one() {
    let headers = "headers = { X-Name = \"name\", X-Groups = \"groups\", X-Email = \"email\" }";
    let lab = Setup::default().routes(ROUTES).identity(headers).start().await;
    let name = "Zoë, 100%\r\nX-Evil: 1\u{0}\t ";
    lab.gitlab.overlay(Document::User, json!({ "name": name }));
    lab.gitlab.overlay(
        Document::Userinfo,
        json!({ "name": name, "groups": ["acme/ops", "a,b", "gr\u{fc}n\nx"] }),
    );
    let session = lab.signed_in("alice").await.session();
    let echo = ask(&lab, &get("/echo/x", &format!("Cookie: {session}"))).await.json();
    assert!(arrived(&echo, "x-evil").is_empty(), "{echo}");
    let name = arrived(&echo, "x-name");
    assert_eq!(name.len(), 1);
    assert!(name[0].starts_with("Zo%C3%AB") && name[0].contains("100%25"), "{name:?}");
    assert!(name[0].bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{name:?}");
    let groups = arrived(&echo, "x-groups");
    assert_eq!(groups.len(), 1);
    let groups: Vec<_> = groups[0].split(',').collect();
    assert!(groups.contains(&"acme/ops"), "{groups:?}");
    assert!(!groups.contains(&"a") && !groups.contains(&"b"), "{groups:?}");
}

/// What only trusted peers may say.
const FORWARDED: &str = "X-Forwarded-For: 6.6.6.6, 1.1.1.1\r\nX-Forwarded-Proto: http\r\n\
    X-Forwarded-Host: app.example.test\r\nX-Forwarded-Port: 8443\r\nX-Real-IP: 6.6.6.6\r\n\
    Forwarded: for=6.6.6.6\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Uri: /evil\r\n\
    X-Forwarded-Method: EVIL\r\nX-Original-URL: /evil\r\nX-Original-URI: /evil\r\n\
    X-Original-Method: EVIL\r\nX-Rewrite-URL: /evil\r\nX-Request-Id: given-by-the-client\r\n\
    X_Forwarded_For: 6.6.6.6\r\nX_Forwarded_Host: evil\r\nX.Real.IP: 6.6.6.6\r\n\
    X_Original_URL: /evil\r\nX_Rewrite_URL: /evil\r\nX_Forwarded-Prefix: /evil";

#[tokio::test(flavor = "multi_thread")]
async fn strangers_say_nothing_about_where_they_come_from() {
    let lab = lab().await;
    let echo = ask(&lab, &get("/echo/open", FORWARDED)).await.json();
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", HOST),
        ("x-forwarded-port", "443"),
    ] {
        assert_eq!(arrived(&echo, name), [value], "{name}");
    }
    let text = echo.to_string();
    for word in ["6.6.6.6", "evil", "EVIL", "given-by-the-client", "8443"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trusted_peers_are_believed_but_never_about_who_the_user_is() {
    let setup = Setup::default().routes(ROUTES).server("trusted_proxies = [\"127.0.0.0/8\"]");
    let lab = setup.start().await;
    let claims = "X-Forwarded-User: mallory\r\nX_Forwarded_User: mallory\r\nRemote-User: mallory";
    let echo = ask(&lab, &get("/echo/open", &format!("{FORWARDED}\r\n{claims}"))).await.json();
    for (name, value) in [
        ("x-forwarded-for", "6.6.6.6, 1.1.1.1, 127.0.0.1"),
        ("x-real-ip", "1.1.1.1"),
        ("x-forwarded-host", HOST),
        // server.public_url says what the browser sees.
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=6.6.6.6"),
        ("x-forwarded-prefix", "/evil"),
        ("x-request-id", "given-by-the-client"),
    ] {
        assert_eq!(arrived(&echo, name), [value], "{name}");
    }
    let text = echo.to_string();
    assert!(!text.contains("mallory"), "{text}");
    for alias in
        ["x_forwarded_for", "x_forwarded_host", "x.real.ip", "x_original_url", "x_forwarded-prefix"]
    {
        assert!(arrived(&echo, alias).is_empty(), "{alias}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_peer_that_says_nonsense_is_refused() {
    let setup = Setup::default().routes(ROUTES).server("trusted_proxies = [\"127.0.0.0/8\"]");
    let lab = setup.start().await;
    for field in [
        "X-Forwarded-Proto: javascript",
        "X-Forwarded-Host: user@evil.example",
        "X-Forwarded-Host: evil.example/x",
        "X-Forwarded-Port: 99999",
    ] {
        assert_eq!(ask(&lab, &get("/echo/open", field)).await.status(), 400, "{field}");
    }
    assert_eq!(lab.sample.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_gates_cookies_are_kept_from_the_upstream() {
    let lab = lab().await;
    let session = lab.signed_in("alice").await.session();
    let cookies = format!(
        "a=1; {session}; b=\"2 3\"; __Secure-labgate-attempt-abcdefghijkl=x; labgate=y; \
         __host-LABGATE=z;c; labgates=mine; d=4=5"
    );
    let echo = ask(&lab, &get("/echo/x", &format!("Cookie: {cookies}"))).await.json();
    assert_eq!(arrived(&echo, "cookie"), ["a=1; b=\"2 3\";c; labgates=mine; d=4=5"]);
    assert_eq!(arrived(&echo, "x-forwarded-user"), ["alice"]);
    let (sid, untouched) = (format!("Cookie: {session}"), "Cookie: a=1;b=2;  c=\"x;y\"");
    let echo = ask(&lab, &get("/echo/x", &sid)).await.json();
    assert!(arrived(&echo, "cookie").is_empty(), "{echo}");
    let echo = ask(&lab, &get("/echo/open", untouched)).await.json();
    assert_eq!(arrived(&echo, "cookie"), [&untouched[8..]]);
    // HTTP/2 sends crumbs.
    let http2 = Http2::to(lab.app.addr()).await;
    let crumbs = [("cookie", "a=1"), ("cookie", session.as_str()), ("cookie", "b=2")];
    let echo = http2.get("/echo/x", &crumbs).await.json();
    assert_eq!(arrived(&echo, "cookie"), ["a=1; b=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_sets_its_cookies_but_none_of_the_gates() {
    let lab = lab().await;
    let answer = ask(&lab, &get("/headers", "Accept: */*")).await;
    assert_eq!(
        answer.values("set-cookie"),
        ["app_session=1; Path=/; HttpOnly", "app_theme=dark; Path=/"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn authorization_is_the_applications() {
    let lab = lab().await;
    let session = lab.signed_in("alice").await.session();
    for value in ["Bearer app-token", "Basic YTpi", "Negotiate xyz"] {
        let fields =
            format!("Cookie: {session}\r\nAuthorization: {value}\r\nX-Forwarded-Access-Token: t");
        let echo = ask(&lab, &get("/echo/x", &fields)).await.json();
        assert_eq!(arrived(&echo, "authorization"), [value]);
        assert!(arrived(&echo, "x-forwarded-access-token").is_empty());
        // It opens nothing by itself.
        let head = get("/echo/x", &format!("Authorization: {value}"));
        assert_eq!(ask(&lab, &head).await.status(), 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_on_one_connection_stay_apart() {
    let lab = lab().await;
    let (alice, bob) =
        (lab.signed_in("alice").await.session(), lab.signed_in("bob").await.session());
    let turns = [("alice", &alice), ("bob", &bob), ("", &String::new())];
    let mut wire = Wire::to(lab.app.addr()).await;
    let mut pipeline = String::new();
    for round in 0..12 {
        for (_, session) in turns {
            pipeline += &get(&format!("/echo/open/{round}"), &format!("Cookie: {session}"))
                .replace("Cookie: \r\n", "");
            pipeline += "\r\n\r\n";
        }
        pipeline += &get("/echo/guarded", "Accept: */*");
        pipeline += "\r\n\r\n";
    }
    wire.write(&pipeline).await;
    for round in 0..12 {
        for (user, _) in turns {
            let echo = wire.answer().await.json();
            assert_eq!(echo["target"], format!("/echo/open/{round}"));
            let expected: &[&str] = if user.is_empty() { &[] } else { &[user] };
            assert_eq!(arrived(&echo, "x-forwarded-user"), expected, "{round}");
        }
        assert_eq!(wire.answer().await.status(), 401);
    }
    let http2 = Http2::to(lab.app.addr()).await;
    let requests = (0..60).map(|number| {
        let (http2, (user, session)) = (http2.clone(), turns[number % 3]);
        async move {
            let echo = http2.get("/echo/open", &[("cookie", session)]).await.json();
            let expected: &[&str] = if user.is_empty() { &[] } else { &[user] };
            assert_eq!(arrived(&echo, "x-forwarded-user"), expected);
        }
    });
    futures_util::future::join_all(requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_websocket_carries_no_identity_anywhere() {
    let lab = lab().await;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-User: mallory";
    assert_eq!(ask(&lab, &get("/ws", fields)).await.status(), 401);
    assert_eq!(lab.sample.hits(), 0);
}
