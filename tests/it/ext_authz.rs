//! Envoy asks over gRPC: who may pass, what the application and the browser get then, what a stranger may put into a request meanwhile, and how the
//! listener ends (threats D1–D8, E1–E5, F4).

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use labgate::demo::gitlab::{Endpoint, Fault, UserState};
use tokio::{net::TcpStream, time::timeout};

use crate::support::{
    HOST, Http2, Lab, PATIENCE, Setup, Wire, appears,
    envoy::{CHECK, Question, ask, framed, silent, unframed},
    until,
};

const ON: &str = "ext_authz = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// Older than `recheck`, younger than `grace`.
const TOO_OLD: i64 = 400;
/// Older than `grace` in any case.
const PAST_GRACE: i64 = 4000;

async fn lab() -> Lab {
    Setup::default().server(ON).start().await
}

fn envoy(lab: &Lab) -> SocketAddr {
    lab.app.ext_authz_addr().expect("it is on")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_signed_in_passes_with_an_identity_and_nobody_else_does() {
    let lab = lab().await;
    let addr = envoy(&lab);
    let alice = lab.signed_in("alice").await;
    for raw in [false, true] {
        let question =
            Question { raw, ..Question::get("/private?a=b").with("cookie", alice.session()) };
        let verdict = ask(addr, &question).await;
        assert!(verdict.passes(), "{verdict:?}");
        for (name, value) in [
            ("x-forwarded-user", "alice"),
            ("x-auth-request-user", "alice"),
            ("x-forwarded-email", "alice@example.com"),
            ("x-forwarded-preferred-username", "alice"),
        ] {
            assert_eq!(verdict.set[name], value, "{name}");
        }
        assert!(verdict.set["x-forwarded-groups"].contains("acme"), "{verdict:?}");
        assert_eq!(verdict.removed, ["cookie"], "nothing but labgate's own was there");
        assert_eq!(verdict.added, [], "the browser's cookie is as it should be");
        assert_eq!(verdict.metadata["user"], "alice@main");
        assert_eq!(verdict.metadata["decision"], "allowed");
        assert!(verdict.metadata["route"].contains("/private"), "{verdict:?}");
    }

    let nobody = ask(addr, &Question::get("/private?a=b")).await;
    assert_eq!((nobody.passes(), nobody.code, nobody.status()), (false, 16, 302));
    let location = format!("https://{HOST}/oauth2/sign_in?rd=%2Fprivate%3Fa%3Db");
    assert_eq!(nobody.header("location"), location);
    assert_eq!(nobody.header("cache-control"), "no-store");
    assert!(nobody.set.is_empty() && nobody.added.is_empty() && nobody.removed.is_empty());

    let script = Question::get("/private").with("sec-fetch-mode", "cors");
    let script = ask(addr, &script).await;
    assert_eq!((script.passes(), script.status()), (false, 401));
    assert_eq!(script.header("www-authenticate"), "Bearer realm=\"labgate\"");
    assert_eq!(script.header("content-type"), "application/problem+json");
    let (_, _, body) = script.denied.expect("a body");
    assert!(body.contains("\"sign_in\":\"https://app.example.test/oauth2/sign_in"), "{body}");

    // Known, but not enough.
    let question =
        Question::get("/maintainers").with("cookie", lab.signed_in("bob").await.session());
    let forbidden = ask(addr, &question).await;
    assert_eq!((forbidden.passes(), forbidden.code, forbidden.status()), (false, 7, 403));
    assert_eq!(forbidden.header("x-labgate-reason"), "forbidden");
    let (_, _, page) = forbidden.denied.expect("a page");
    assert!(page.contains("<html") && page.to_lowercase().contains("maintainer"), "{page}");
    assert_eq!(forbidden.metadata["user"], "bob@main");

    let public = ask(addr, &Question::get("/bytes?n=1")).await;
    assert!(public.passes());
    assert_eq!(public.set["x-forwarded-user"], "", "set though nobody is signed in");

    for (decision, status, count) in
        [("allowed", 200, 2), ("sign_in", 302, 1), ("sign_in", 401, 1), ("public", 200, 1)]
    {
        let text = lab.admin("/metrics").await.text();
        let label = format!("status=\"{status}\"");
        let lines = text.lines().filter(|line| {
            line.starts_with("labgate_requests_total")
                && line.contains(&label)
                && line.contains(&format!("decision=\"{decision}\""))
        });
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        assert!(counts.sum::<u64>() >= count, "{decision} {status}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_says_of_itself_reaches_the_application() {
    let lab = lab().await;
    let alice = lab.signed_in("alice").await;
    let session = alice.session();
    let spoofed = [
        "x-forwarded-user",
        "x_forwarded_user",
        "x-auth-request-user",
        "x-auth-request-anything",
        "remote-user",
        "remote_user",
        "x-remote-group",
        "x.webauth.user",
        "x-labgate-assertion",
        "x-forwarded-uri",
        "x-forwarded-method",
        "x_forwarded_prefix",
        "x-original-url",
        "x-original-method",
        "x-rewrite-url",
        "x-http-method-override",
    ];
    for path in ["/private", "/bytes?n=1"] {
        for raw in [false, true] {
            let mut question = Question::get(path).with("cookie", format!("a=1; {session}; b=2"));
            question = question.with("x-harmless", "mallory").with("x-forwarded-for", "192.0.2.7");
            for name in spoofed {
                question = question.with(name, "mallory");
            }
            let verdict = ask(envoy(&lab), &Question { raw, ..question.clone() }).await;
            assert!(verdict.passes());
            let applied = verdict.applied(&question);
            let left: Vec<_> = applied.iter().filter(|(_, value)| value == "mallory").collect();
            assert_eq!(left, [&("x-harmless".to_owned(), "mallory".to_owned())]);
            let find = |name: &str| applied.iter().filter(|(other, _)| other == name).count();
            for name in ["accept", "x-forwarded-for", "x-forwarded-user", "cookie", "x-request-id"]
            {
                assert_eq!(find(name), 1, "{name}: {applied:?}");
            }
            assert_eq!(verdict.set["cookie"], "a=1; b=2");
            // Envoy removes after it has set.
            assert!(verdict.removed.iter().all(|name| !verdict.set.contains_key(name)));
            assert_eq!(verdict.set["x-forwarded-user"], "alice");
        }
    }
    // What a proxy before Envoy says that is trusted too is not taken away, an identity is.
    let question = Question { source: "127.0.0.1".into(), ..Question::get("/bytes?n=1") };
    let question = question.with("x-forwarded-prefix", "/sub").with("remote-user", "mallory");
    assert_eq!(ask(envoy(&lab), &question).await.removed, ["remote-user"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_go_on_whole_or_not_at_all() {
    let lab = lab().await;
    let alice = lab.signed_in("alice").await;
    let session = alice.session();
    let rest = async |lines: &[&[u8]]| {
        let question = lines
            .iter()
            .fold(Question::get("/bytes?n=1"), |question, line| question.with("cookie", line));
        let verdict = ask(envoy(&lab), &Question { raw: true, ..question }).await;
        (verdict.set.get("cookie").cloned(), verdict.removed.contains(&"cookie".to_owned()))
    };
    assert_eq!(rest(&[b"a=1; b=2"]).await, (None, false), "nothing of labgate's");
    assert_eq!(rest(&[session.as_bytes()]).await, (None, true));
    let lines = [format!("a=1; {session}"), "b=2; c=\"x; y\"".into()];
    let lines = lines.each_ref().map(String::as_bytes);
    assert_eq!(rest(&lines).await, (Some("a=1; b=2; c=\"x; y\"".into()), false));
    assert_eq!(rest(&[b"labgate=x; a=1", b"__Host-labgate-attempt-x=y"]).await.0.unwrap(), "a=1");
    // Envoy can't be told what is no text.
    let odd = [session.as_bytes(), b"; a=\xff; b=2"].concat();
    assert_eq!(rest(&[&odd]).await, (Some("b=2".into()), false));
    let odd = [session.as_bytes(), b"; a=\xff"].concat();
    assert_eq!(rest(&[&odd]).await, (None, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cookie_comes_with_the_answer() {
    let lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    let question = Question::get("/private").with("cookie", alice.session());
    assert_eq!(ask(envoy(&lab), &question).await.added, []);
    lab.clock.turn(TOO_OLD);
    let verdict = ask(envoy(&lab), &question).await;
    assert!(verdict.passes());
    let added: BTreeSet<_> = verdict.added.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(added, BTreeSet::from(["cache-control", "set-cookie"]), "{verdict:?}");
    let find = |name: &str| &verdict.added.iter().find(|(other, _)| other == name).unwrap().1;
    assert_eq!(find("cache-control"), "private");
    let set = find("set-cookie");
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert!(attributes.contains("HttpOnly") && attributes.contains("Secure"), "{attributes}");
    assert_ne!(pair, alice.session());
    // It is as good as the old one, and current.
    let again = ask(envoy(&lab), &Question::get("/private").with("cookie", pair)).await;
    assert!(again.passes() && again.added.is_empty(), "{again:?}");
    // A broken one is cleared, also where nobody may pass.
    for path in ["/private", "/bytes?n=1"] {
        let broken = Question::get(path).with("cookie", "__Host-labgate=broken");
        let verdict = ask(envoy(&lab), &broken).await;
        let cleared = verdict.header("set-cookie").to_owned();
        let added = verdict.added.into_iter().find(|(name, _)| name == "set-cookie");
        let cleared = added.map_or(cleared, |(_, value)| value);
        assert!(cleared.starts_with("__Host-labgate=;") && cleared.contains("Max-Age=0"), "{path}");
    }
    // An account that is blocked is out as soon as the word on it is too old.
    lab.gitlab.set_state("alice", UserState::Blocked).expect("alice");
    lab.clock.turn(TOO_OLD);
    let blocked = ask(envoy(&lab), &Question::get("/private").with("cookie", pair)).await;
    assert_eq!((blocked.passes(), blocked.status()), (false, 302));
    assert_eq!(alice.xhr("/private").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gitlab_is_a_denial_not_an_error() {
    let lab = Setup::default().server(ON).session("recheck_timeout = \"300ms\"\n").start().await;
    let alice = lab.signed_in("alice").await;
    lab.gitlab.set_silent(true);
    lab.clock.turn(PAST_GRACE);
    let verdict =
        ask(envoy(&lab), &Question::get("/private").with("cookie", alice.session())).await;
    assert_eq!((verdict.passes(), verdict.code, verdict.status()), (false, 14, 503));
    assert_ne!(verdict.header("retry-after"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_of_envoys_route_narrows_and_never_widens() {
    let lab = lab().await;
    let alice = lab.signed_in("alice").await;
    let passes = async |path: &str, context: &[(&str, &str)]| {
        let question = Question::get(path).with("cookie", alice.session());
        let question =
            context.iter().fold(question, |question, (key, value)| question.context(key, value));
        let verdict = ask(envoy(&lab), &question).await;
        (verdict.passes(), verdict.status())
    };
    let open = ask(envoy(&lab), &Question::get("/private").with("cookie", alice.session())).await;
    let route = open.metadata["route"].clone();
    for (context, status) in [
        (&[][..], 200),
        (&[("virtual_host", "app"), ("groups", "none")], 200),
        (&[("allowed_groups", "acme")], 200),
        (&[("allowed_groups", "nobody/here,acme")], 200),
        (&[("allowed_groups", "nobody/here")], 403),
        (&[("allowed_groups", "acme"), ("allowed_emails", "bob@example.com")], 403),
        // Doubled, which no map is: both count as one list, as in a query.
        (&[("allowed_groups", "")], 403),
        (&[("allowed_roles", "owner")], 403),
        (&[("Allowed_groups", "acme")], 403),
        (&[("allowed-groups", "acme")], 403),
        (&[("route", &route)], 200),
        (&[("route", "another")], 403),
        (&[("route", "")], 403),
        (&[("route", &route), ("allowed_groups", "nobody/here")], 403),
    ] {
        assert_eq!(passes("/private", context).await, (status == 200, status), "{context:?}");
    }
    // Nothing in it opens what the route keeps shut.
    let bob = lab.signed_in("bob").await;
    let question = Question::get("/maintainers").with("cookie", bob.session());
    let question = question.context("allowed_groups", "acme").context("route", &route);
    assert_eq!(ask(envoy(&lab), &question).await.status(), 403);
    // A public route is narrowed to people.
    let question = Question::get("/bytes?n=1").context("allowed_groups", "acme");
    assert_eq!(ask(envoy(&lab), &question).await.status(), 302);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_trusted_peers_are_answered() {
    let untrusting = "ext_authz = \"127.0.0.1:0\"\ntrusted_proxies = [\"192.0.2.0/24\"]\n";
    let house = Setup::default().server(untrusting).process(&[]).await;
    let alice = house.signed_in("alice").await;
    let addr = house.labgate.ext_authz().await;
    let question = Question::get("/private").with("cookie", alice.session());
    let question = question.with("x-forwarded-for", "192.0.2.1");
    for path in ["/private", "/bytes?n=1"] {
        let verdict = ask(addr, &Question { path: path.into(), ..question.clone() }).await;
        assert_eq!((verdict.passes(), verdict.code, verdict.status()), (false, 7, 403), "{path}");
        assert!(!verdict.metadata.contains_key("user"));
    }
    let told = |line: &serde_json::Value| line.to_string().contains("server.trusted_proxies");
    house.labgate.logged("which key it is", told).await;
    // Its own endpoint for other proxies doesn't help either.
    let health = Http2::to(addr).await.call("/grpc.health.v1.Health/Check", b"").await;
    assert_eq!((health.code.as_str(), &health.messages[0][..]), ("0", &b"\x08\x01"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_never_say_what_is_asked_for() {
    let lab = lab().await;
    let addr = envoy(&lab);
    for raw in [false, true] {
        let mut question = Question::get("/private");
        for (name, value) in [
            ("x-forwarded-uri", "/bytes?n=1"),
            ("x-forwarded-method", "OPTIONS"),
            ("x-forwarded-host", "other.example"),
            ("x-forwarded-proto", "http"),
            ("x-original-url", "https://app.example.test/bytes?n=1"),
            ("x-original-uri", "/bytes?n=1"),
            ("x-rewrite-url", "/bytes?n=1"),
        ] {
            question = question.with(name, value);
        }
        let verdict = ask(addr, &Question { raw, ..question }).await;
        assert_eq!((verdict.passes(), verdict.status()), (false, 302));
        assert!(verdict.header("location").starts_with("https://app.example.test/oauth2/sign_in"));
    }
    // A Host beside that says the same is no matter, another one is refused.
    let host =
        |value: &str| Question { raw: true, ..Question::get("/bytes?n=1").with("host", value) };
    assert!(ask(addr, &host(HOST)).await.passes());
    assert_eq!(ask(addr, &host("other.example")).await.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_others_read_differently_are_not_public() {
    let routes = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
        [[route]]\npath = \"/open\"\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";
    let lab = Setup::default().server(ON).routes(routes).start().await;
    let status = async |path: &str| {
        let verdict = ask(envoy(&lab), &Question::get(path)).await;
        assert_eq!(verdict.passes(), verdict.status() == 200);
        verdict.status()
    };
    assert_eq!(status("/open/x?y=../..").await, 200);
    for path in [
        "/open/../guarded",
        "/open/%2e%2e/guarded",
        "/open/..%2fguarded",
        "/open/..;/guarded",
        "/open/%252e%252e/guarded",
        "/open\\..\\guarded",
        "/open/x%00",
        "/open//x",
    ] {
        let status = status(path).await;
        assert!([302, 400].contains(&status), "{path}: {status}");
    }
    for path in ["", "open", "http://app.example.test/open", "/open#x", "*", "/open\nx", "/open x"]
    {
        assert_eq!(status(path).await, 400, "{path:?}");
    }
    // labgate's own are never asked about.
    for path in ["/oauth2/sign_in", "/oauth2", "/OAuth2/callback", "/open/..%2foauth2/start"] {
        assert_eq!(status(path).await, 403, "{path}");
    }
    for (host, expected) in [
        ("", 400),
        ("app.example.test/x", 400),
        ("a, b", 400),
        ("user@app.example.test", 400),
        ("APP.example.test:443", 200),
    ] {
        let question = Question { host: host.into(), ..Question::get("/open") };
        assert_eq!(ask(envoy(&lab), &question).await.status(), expected, "{host}");
    }
    for (method, expected) in
        [("CONNECT", 400), ("TRACE", 400), ("G T", 400), ("", 400), ("POST", 200)]
    {
        let question = Question { method: method.into(), ..Question::get("/open") };
        assert_eq!(ask(envoy(&lab), &question).await.status(), expected, "{method}");
    }
    for (scheme, expected) in [("", 200), ("HTTPS", 200), ("javascript", 400)] {
        let question = Question { scheme: scheme.into(), ..Question::get("/open") };
        assert_eq!(ask(envoy(&lab), &question).await.status(), expected, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_public_odd_paths_are_refused_all_the_same() {
    let routes =
        "[[route]]\nallow = \"public\"\n[[route]]\npath = \"/private\"\nallow = \"signed-in\"\n";
    let lab = Setup::default().server(ON).routes(routes).start().await;
    for path in ["/bytes/x/..;/private", "/bytes/../private", "/bytes/..%2fprivate", "/x//y"] {
        assert_eq!(ask(envoy(&lab), &Question::get(path)).await.status(), 400, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_route_is_told_so() {
    let routes =
        "[[route]]\nhost = \"app.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";
    let lab = Setup::default().server(ON).routes(routes).start().await;
    assert!(ask(envoy(&lab), &Question::get("/")).await.passes());
    let question = Question { host: "other.example".into(), ..Question::get("/") };
    let verdict = ask(envoy(&lab), &question).await;
    assert_eq!((verdict.status(), verdict.header("x-labgate-reason")), (403, "front_no_route"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_is_answered_in_order() {
    let lab = lab().await;
    let addr = envoy(&lab);
    let http2 = Http2::to(addr).await;
    let code = async |path: &str, message: &[u8]| http2.call(path, message).await.code;
    for message in [&b"\xff"[..], b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05abc", b"\x08"] {
        assert_eq!(code(CHECK, message).await, "3", "{message:?}");
    }
    for path in [
        "/envoy.service.auth.v3.Authorization/Other",
        "/envoy.service.auth.v2.Authorization/Check",
        "/",
        "/livez",
        "/oauth2/auth",
    ] {
        assert_eq!(code(path, b"").await, "12", "{path}");
    }
    for (frame, expected) in [
        (&b""[..], "3"),
        (b"\0\0\0", "3"),
        (b"\0\0\0\0\x05a", "3"),
        (b"\x01\0\0\0\x00", "12"),
        (b"\0\0\0\0\0\0\0\0\0\0", "3"),
    ] {
        assert_eq!(http2.call_framed(CHECK, frame.to_vec()).await.code, expected, "{frame:?}");
    }
    // Nothing is said: no error, which might let pass, but a denial.
    let verdict = http2.call(CHECK, b"").await;
    assert_eq!(verdict.code, "0");
    // Names and values that are none.
    for (name, value) in [("", "x"), ("a b", "x"), ("x", "a\nb"), ("é", "x")] {
        let verdict = http2.ask(&Question::get("/bytes?n=1").with(name, value)).await;
        assert_eq!(verdict.status(), 400, "{name:?} {value:?}");
    }
    let odd = Question { raw: true, ..Question::get("/bytes?n=1").with("x-odd", b"\xff\xfe") };
    assert!(http2.ask(&odd).await.passes());
    let odd = Question { raw: false, ..Question::get("/bytes?n=1").with("x-odd", b"\xff\xfe") };
    assert!(http2.ask(&odd).await.passes());
    // As much as a map of headers holds, and more.
    let many = |count: usize| {
        (0..count).fold(Question::get("/bytes?n=1"), |question, number| {
            question.with(&format!("x-{number}"), "")
        })
    };
    assert!(http2.ask(&many(1000)).await.passes());
    assert_eq!(http2.ask(&many(40_000)).await.status(), 400);
    // 64 KiB of headers pass; a body of a megabyte is too much, and denied.
    let long = Question::get("/bytes?n=1").with("x-long", "x".repeat(64 * 1024));
    assert!(http2.ask(&long).await.passes());
    let large = Question { body: vec![0; 1024 * 1024], ..Question::get("/bytes?n=1") };
    let large = http2.ask(&large).await;
    assert_eq!((large.passes(), large.code, large.status()), (false, 8, 413));
    let health = http2.call("/grpc.health.v1.Health/Check", &vec![0; 8 * 1024]).await;
    assert_eq!(health.code, "8");
    // Only gRPC is spoken.
    let get = format!("GET /private HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert_eq!(Wire::say(addr, get).await.answer().await.status(), 505);
    assert_eq!(http2.get(CHECK, &[]).await.status, 405);
    let request = Request::post(format!("http://{HOST}{CHECK}")).body(String::new()).unwrap();
    assert_eq!(http2.send(request).await.status, 415);
    assert!(http2.ask(&Question::get("/bytes?n=1")).await.passes(), "the connection still serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_limits_are_those_of_the_other_listener() {
    let server = format!(
        "{ON}limits = {{ connections = 3, http2_streams = 2, header_bytes = '2KiB' }}\n\
         timeouts = {{ header = '700ms', idle = '60s' }}\n"
    );
    let lab = Setup::default().server(&server).start().await;
    let addr = envoy(&lab);
    let http2 = Http2::to(addr).await;
    // A message that does not come.
    assert_eq!(silent(addr).await, "4");
    // Of a call's own head no more is taken than of any other.
    let long = "x".repeat(3000);
    assert_eq!(http2.get("/", &[("x-long", &long)]).await.status, 431);
    // The limit of connections is its own.
    let mut others =
        vec![TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    until("all are counted", async || lab.count("labgate_open_connections").await >= 3).await;
    let mut fourth = Wire::to(addr).await;
    fourth.closed().await;
    others.clear();
    assert_eq!(lab.count("labgate_limits_reached_total{limit=\"connections\"}").await, 1);
    assert!(http2.ask(&Question::get("/bytes?n=1")).await.passes());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_and_a_drain_finishes_what_has_begun() {
    let server = format!("{ON}timeouts = {{ drain = '20s', drain_delay = '1s' }}\n");
    let lab = Setup::default().server(&server).start().await;
    let (addr, alice) = (envoy(&lab), lab.signed_in("alice").await);
    let http2 = Http2::to(addr).await;
    let health = |service: &str| {
        let length = u8::try_from(service.len()).unwrap();
        [&[0x0a, length], service.as_bytes()].concat()
    };
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let called = http2.call("/grpc.health.v1.Health/Check", &health(service)).await;
        assert_eq!((called.code.as_str(), &called.messages[0][..]), ("0", &b"\x08\x01"[..]));
    }
    let unknown = http2.call("/grpc.health.v1.Health/Check", &health("other")).await;
    assert_eq!((unknown.code.as_str(), unknown.messages.len()), ("5", 0));

    let watch = async |service: &str| {
        let request = Request::post("http://labgate/grpc.health.v1.Health/Watch")
            .header("content-type", "application/grpc")
            .body(Full::new(Bytes::from(framed(&health(service)))))
            .unwrap();
        let sent = http2.sender.clone().send_request(request).await;
        sent.expect("an answer").into_body()
    };
    let (mut known, mut unknown) = (watch("").await, watch("other").await);
    let next = async |body: &mut hyper::body::Incoming| {
        let frame = timeout(PATIENCE, body.frame()).await.expect("in time");
        frame.expect("a frame").expect("no error")
    };
    let told = async |body: &mut hyper::body::Incoming| {
        let data = next(body).await.into_data().expect("data");
        unframed(data)[0].to_vec()
    };
    assert_eq!(told(&mut known).await, b"\x08\x01");
    assert_eq!(told(&mut unknown).await, b"\x08\x03");

    // GitLab takes its time, and the end comes meanwhile.
    lab.gitlab.fail(Fault::slow(Endpoint::ApiUser, 1, Duration::from_secs(2)));
    lab.clock.turn(TOO_OLD);
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    let question = Question::get("/private").with("cookie", alice.session());
    let waiting = tokio::spawn({
        let http2 = http2.clone();
        async move { http2.ask(&question).await }
    });
    until("GitLab is asked", async || lab.gitlab.hits(Endpoint::ApiUser) > asked).await;
    let Lab { app, gitlab: _gitlab, .. } = lab;
    let drained = tokio::spawn(app.drain());
    assert_eq!(told(&mut known).await, b"\x08\x02");
    for body in [&mut known, &mut unknown] {
        let trailers = next(body).await.into_trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], "14");
    }
    let called = Http2::to(addr).await.call("/grpc.health.v1.Health/Check", b"").await;
    assert_eq!(&called.messages[0][..], b"\x08\x02", "listening goes on for a while");
    let verdict = timeout(PATIENCE, waiting).await.expect("in time").expect("no panic");
    assert!(verdict.passes(), "{verdict:?}");
    assert_eq!(timeout(PATIENCE, drained).await.expect("in time").expect("no panic"), 0);
    until("connections are refused", async || TcpStream::connect(addr).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_counts_for_the_next_question() {
    let house = Setup::default().server(ON).process(&[]).await;
    let addr = house.labgate.ext_authz().await;
    let http2 = Http2::to(addr).await;
    let question = Question::get("/bytes?n=1");
    assert!(http2.ask(&question).await.passes());
    let guard = format!(
        "\n[[route]]\npath = \"/bytes\"\nupstream = \"{}\"\nallow = \"signed-in\"\n",
        house.sample.url()
    );
    house.write(&format!("{}{guard}", house.config));
    house.labgate.signal("HUP");
    appears("the new route", async || (http2.ask(&question).await.status() == 302).then_some(()))
        .await;
    house.write(&house.config.replace("[\"127.0.0.1\"]", "[\"192.0.2.0/24\"]"));
    house.labgate.signal("HUP");
    appears("distrust", async || (http2.ask(&question).await.status() == 403).then_some(())).await;
}
