//! What a client can say to be taken for somebody, or to get past the question: none of it helps, and none of it locks the same client out.

use http::Method;

use super::{
    front::Kind,
    yard::{Yard, echoed, setup, value},
};
use crate::support::{Answer, HOST, Wire, send_raw};

/// Names by which applications know people, in the spellings that some of them take for one.
const CLAIMS: [&str; 17] = [
    "X-Forwarded-User",
    "X_Forwarded_User",
    "X-Forwarded_User",
    "x-forwarded-email",
    "X-Forwarded-Groups",
    "X_FORWARDED_GROUPS",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Auth-Request-User",
    "X_Auth_Request_Email",
    "Remote-User",
    "Remote_User",
    "X-Remote-User",
    "X-Webauth-User",
    "X-Labgate-Assertion",
    "X-Mine",
    "X_Mine",
];

/// The same with other signs, which fewer applications fold.
const ODD_CLAIMS: [&str; 4] = ["X.Forwarded.User", "X~Forwarded~User", "X.Mine", "Remote.User"];

/// Names that only begin like one that applications know.
const FAR_CLAIMS: [&str; 3] = ["X-Auth-Request-Anything", "Remote-Anything", "X-Labgate-Anything"];

/// What proxies say about a request, with values that would lead to a public path.
const FAMILIES: [(&str, &str); 13] = [
    ("X-Forwarded-Uri", "/echo/open?evil"),
    ("X-Forwarded-Method", "OPTIONS"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "evil"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Original-URL", "https://app.example.test/echo/open?evil"),
    ("X-Original-URI", "/echo/open?evil"),
    ("X-Original-Method", "OPTIONS"),
    ("X-Rewrite-URL", "/echo/open?evil"),
    ("X-Real-IP", "6.6.6.6"),
    ("Forwarded", "for=6.6.6.6;host=evil.example"),
];

/// Nobody can say who they are, signed in or not.
pub async fn claims(kind: Kind) {
    let headers = "[identity.headers]\nX-Forwarded-User = \"username\"\nX-Forwarded-Groups = \"groups\"\nX-Mine = \"sub\"\n";
    let yard = Yard::with(kind, setup().more(headers)).await;
    let mut claims: Vec<_> = CLAIMS.iter().map(|name| (*name, "evil")).collect();
    if kind.strips_any_sign() {
        claims.extend(ODD_CLAIMS.iter().map(|name| (*name, "evil")));
    }
    if kind.strips_by_beginning() {
        claims.extend(FAR_CLAIMS.iter().map(|name| (*name, "evil")));
    }
    let mut carol = yard.signed_in("carol").await;
    for (who, path) in [("", "/echo/open"), ("carol", "/echo")] {
        let mut browser = if who.is_empty() { yard.browser() } else { carol.clone() };
        // Each alone, all at once, and twice.
        for sent in claims.chunks(1).chain([claims.as_slice(), &[claims[0], claims[0]]]) {
            let answer = browser.request(Method::GET, path, sent, "").await;
            assert_eq!(answer.status, 200, "{sent:?}: {}", answer.text());
            unspoiled(&answer, sent);
            let got = echoed(&answer);
            let user = got.iter().find(|(name, _)| name == "x-forwarded-user");
            assert_eq!(user.map_or("", |(_, value)| value), who);
        }
    }
    // A header that the answer has no value for must not leave the client's in place.
    let answer = carol.request(Method::GET, "/echo", &[("X-Forwarded-Groups", "evil")], "").await;
    unspoiled(&answer, &[]);
}

/// Nobody can say what they ask for, in either family's words or both.
pub async fn families(kind: Kind) {
    let yard = Yard::open(kind).await;
    let mut carol = yard.signed_in("carol").await;
    let mut stranger = yard.browser();
    let pairs: Vec<_> = FAMILIES.chunks(1).map(<[_]>::to_vec).collect();
    for sent in pairs.into_iter().chain([FAMILIES.to_vec()]) {
        let before = yard.reached();
        let answer = stranger.request(Method::GET, "/private", &sent, "").await;
        assert!(matches!(answer.status.as_u16(), 400 | 401 | 403), "{sent:?}: {}", answer.text());
        assert_eq!(yard.reached(), before, "{sent:?}");
        let answer = carol.request(Method::GET, "/echo", &sent, "").await;
        assert_eq!(answer.status, 200, "{sent:?} locks nobody out: {}", answer.text());
        let got = echoed(&answer);
        assert_eq!(value(&got, "x-forwarded-host"), HOST, "{sent:?}");
        for (name, value) in got {
            assert!(
                !value.contains("evil") && !value.contains("6.6.6.6"),
                "{sent:?} reached the application: {name}: {value}"
            );
        }
    }
}

/// No spelling of the path, no second host and no question of one's own gets past.
pub async fn ways_around(kind: Kind) {
    let yard = Yard::open(kind).await;
    let before = yard.reached();
    for path in [
        "/private",
        "/private/",
        "//private",
        "/./private",
        "/x/../private",
        "/echo/open/../../private",
        "/echo/open/..%2f..%2fprivate",
        "/echo/open/%2e%2e/%2e%2e/private",
        "/%70rivate",
        "/PRIVATE",
        "/private;x=1",
        "/oauth2/../private",
        "/oauth2/%2e%2e/private",
        "/oauth2/auth/../../private",
        "/OAUTH2/../private",
        "\\private",
        "/x\\..\\private",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answer = send_raw(yard.front.addr, request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with(['3', '4', '5']), "{path}: {answer}");
        assert_eq!(yard.reached(), before, "{path} reached an application: {answer}");
    }

    // A request that names two hosts goes where it was judged to go, or nowhere.
    let (both, reversed) =
        (format!("{HOST},wiki.example.test"), format!("wiki.example.test,{HOST}"));
    for (line, host) in [
        (HOST, "wiki.example.test"),
        ("wiki.example.test", HOST),
        ("", both.as_str()),
        ("", reversed.as_str()),
    ] {
        for path in ["/private", "/status/200", "/echo/open"] {
            let (main, other) = (yard.lab.sample.hits(), yard.other.hits());
            let target = if line.is_empty() { path.into() } else { format!("http://{line}{path}") };
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            send_raw(yard.front.addr, request.as_bytes()).await;
            assert_eq!(yard.lab.sample.hits_at("/private"), 0, "{line} and {host}");
            // At the wiki nothing is public, and at the other host only these two.
            let (main, other) = (yard.lab.sample.hits() - main, yard.other.hits() - other);
            let allowed = u64::from(path == "/echo/open");
            assert!(main <= allowed, "{request}");
            assert!(other <= u64::from(path == "/status/200"), "{request}");
        }
    }

    // The questions are the proxy's own.
    let mut alice = yard.signed_in("alice").await;
    for path in [
        "/oauth2/auth",
        "/oauth2/auth/nginx",
        "/oauth2/auth/nginx/answer",
        "/oauth2/auth/traefik",
        "/oauth2/auth/caddy",
        "/oauth2/auth/haproxy",
        "/oauth2/auth/envoy/private",
        "/oauth2/%61uth/nginx",
    ] {
        let url = format!("https://{HOST}/private");
        for sent in [
            vec![],
            vec![("x-original-url", url.as_str()), ("x-original-method", "GET")],
            vec![
                ("x-forwarded-uri", "/private"),
                ("x-forwarded-method", "GET"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", HOST),
            ],
        ] {
            let answer = alice.request(Method::GET, path, &sent, "").await;
            assert!(matches!(answer.status.as_u16(), 403 | 404), "{path}: {}", answer.text());
            assert_eq!(answer.header("x-forwarded-user"), "", "{path}");
        }
    }

    // An upgrade that nobody was asked about is none.
    let mut wire = Wire::say(
        yard.front.addr,
        format!(
            "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    )
    .await;
    assert_eq!(wire.answer().await.status(), 401);
}

/// Nothing that was sent as `evil` has reached the application.
fn unspoiled(answer: &Answer, sent: &[(&str, &str)]) {
    for (name, value) in echoed(answer) {
        assert!(!value.contains("evil"), "{sent:?} reached the application: {name}: {value}");
    }
}
