//! GitLab's API for applications, as the user: what passes, for whom, and that no assertion, path or parameter brings in more than that.

use std::net::SocketAddr;

use http::{Method, Request};
use labgate::{
    app::App,
    config,
    demo::gitlab::{Command, Endpoint, UserState},
    gate::Plan,
};
use serde_json::Value;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    support::{
        Answer, Browser, HOST, Lab, Message, Setup, Tap, Wire, labgate, outcome, redis::Redis, send,
    },
    tokens::{ALL, bearer, told},
};

const ROUTES: &str = r#"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
"#;

const API: &str =
    "scopes = [\"openid\", \"email\", \"read_api\"]\napi = { listen = \"127.0.0.1:0\" }\n";

fn key() -> String {
    let (code, key, _) = outcome(&mut labgate(&["keygen", "assertion"], &[]));
    assert_eq!(code, 0);
    key
}

fn setup(gitlab: &str, lifetime: &str) -> Setup {
    let key = key();
    let assertion =
        format!("assertion = {{ key = \"\"\"\n{key}\"\"\", lifetime = \"{lifetime}\" }}");
    Setup::default().routes(ROUTES).gitlab(gitlab).identity(&assertion)
}

async fn lab() -> Lab {
    setup(API, "5m").start().await
}

/// The assertion that an application gets with a request of `browser`.
async fn assertion(browser: &mut Browser) -> String {
    let echo = browser.xhr("/echo/x").await.json();
    let pairs = echo["headers"].as_array().expect("headers").iter();
    let mut found = pairs.filter(|pair| pair[0] == "x-labgate-assertion");
    found.next().expect("an assertion")[1].as_str().expect("text").to_owned()
}

fn api(lab: &Lab) -> SocketAddr {
    lab.app.api_addr("main").expect("an API")
}

/// An application's call.
async fn call(
    addr: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", addr.to_string());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    send(addr, request.body(body.to_owned()).expect("a request")).await
}

async fn get(addr: SocketAddr, path: &str, assertion: &str) -> Answer {
    call(addr, "GET", path, &[("x-labgate-assertion", assertion)], "").await
}

/// The code of a refusal, and its status.
fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), code(&answer.json()))
}

/// What a problem document of labgate's own is about; nothing in GitLab's words.
fn code(body: &Value) -> String {
    let kind = body["type"].as_str().unwrap_or_default();
    kind.strip_prefix("urn:labgate:problem:").unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_asks_as_the_user_who_asks_it() {
    let lab = lab().await;
    let (mut alice, mut bob) = (lab.signed_in("alice").await, lab.signed_in("bob").await);
    let (hers, his) = (assertion(&mut alice).await, assertion(&mut bob).await);
    for _ in 0..3 {
        for (assertion, name) in [(&hers, "alice"), (&his, "bob")] {
            let answer = get(api(&lab), "/api/v4/user", assertion).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["username"], name);
        }
    }
    // The path of a project is one segment, and its slash is escaped.
    let answer = get(api(&lab), "/api/v4/groups/acme%2Fops?with_projects=false", &hers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = answer.json()["web_url"].as_str().expect("a URL").to_owned();
    assert!(page.ends_with("/acme/ops"), "{page}");
    let head = call(api(&lab), "HEAD", "/api/v4/user", &[("x-labgate-assertion", &hers)], "").await;
    assert_eq!(head.status, 200);
    // What GitLab says no to is GitLab's answer.
    assert_eq!(get(api(&lab), "/api/v4/nothing/here", &hers).await.status, 404);
    let passed =
        "labgate_requests_total{decision=\"allowed\",method=\"GET\",route=\"api\",status=\"200\"}";
    assert_eq!(lab.count(passed).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_what_is_listed_is_asked() {
    let lab = lab().await;
    let assertion = assertion(&mut lab.signed_in("alice").await).await;
    let shown = [("x-labgate-assertion", assertion.as_str())];
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "PURGE"] {
        let answer = call(api(&lab), method, "/api/v4/user", &shown, "").await;
        assert_eq!(refusal(&answer), (403, "api_method".into()), "{method}");
    }
    for path in [
        "/",
        "/api",
        "/api/",
        "/apis/v4/user",
        "/API/v4/user",
        "/oauth/token/info",
        "/oauth/userinfo",
        "//api/v4/user/../../../oauth/userinfo",
        "/api/../oauth/userinfo",
        "/api/%2e%2e/oauth/userinfo",
        "/api/v4/..%2f..%2foauth/userinfo",
        "/api/v4/%2e%2e%2f%2e%2e/oauth/userinfo",
        "/api/v4/%252e%252e/%252e%252e/oauth/userinfo",
        "/api/v4\\..\\..\\oauth\\userinfo",
        "/api/;/../../oauth/userinfo",
        "/api%2fv4/user",
        "/api/..;/oauth/userinfo",
    ] {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Labgate-Assertion: {assertion}\r\n\r\n");
        let answer = Wire::say(api(&lab), head).await.answer().await;
        assert!(matches!(answer.status(), 400 | 403), "{path}: {}", answer.head);
        if answer.status() == 403 {
            assert_eq!(code(&answer.json()), "api_path", "{path}");
        }
    }
    for query in
        ["private_token=x", "access_token=x", "a=b&job%5Ftoken=x", "sudo=root", "_method=DELETE"]
    {
        let answer = get(api(&lab), &format!("/api/v4/user?{query}"), &assertion).await;
        assert_eq!(refusal(&answer), (403, "api_parameter".into()), "{query}");
    }
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked, "GitLab was asked all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_without_a_good_assertion() {
    let lab = lab().await;
    let good = assertion(&mut lab.signed_in("alice").await).await;
    assert_eq!(get(api(&lab), "/api/v4/user", &good).await.status, 200);
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    // Another labgate's, with a key of its own; and one with the same key by another name.
    let foreign = setup(API, "5m").start().await;
    let foreign = assertion(&mut foreign.signed_in("alice").await).await;
    let refused = async |fields: &[(&str, &str)]| {
        let answer = call(api(&lab), "GET", "/api/v4/user", fields, "").await;
        assert_eq!(refusal(&answer), (403, "api_assertion".into()), "{fields:?}");
    };
    refused(&[]).await;
    refused(&[("x-labgate-assertion", "")]).await;
    refused(&[("x-labgate-assertion", &foreign)]).await;
    refused(&[("x-labgate-assertion", &format!("{message}."))]).await;
    refused(&[("x-labgate-assertion", &format!("{header}.e30.{signature}"))]).await;
    refused(&[("x-labgate-assertion", &format!("eyJhbGciOiJub25lIn0.{claims}."))]).await;
    refused(&[("x-labgate-assertion", &good), ("x-labgate-assertion", &foreign)]).await;
    refused(&[("x-labgate-assertion", &format!("{good}, {good}"))]).await;
    refused(&[("authorization", &format!("Bearer {good}"))]).await;
    refused(&[("x_labgate_assertion", &good)]).await;
    let renamed = lab.config.replace(&format!("https://{HOST}"), "https://other.example.test");
    let other = crate::support::run(&renamed, &lab.clock, 1);
    let at_other = other.api_addr("main").unwrap();
    let answer = get(at_other, "/api/v4/user", &good).await;
    assert_eq!(refusal(&answer), (403, "api_assertion".into()), "by another name");
    // A labgate that was started anew knows the key, not the session, until its next request.
    let again = lab.replica();
    let answer = get(again.api_addr("main").unwrap(), "/api/v4/user", &good).await;
    assert_eq!(refusal(&answer), (403, "api_session".into()));
    lab.clock.turn(301);
    refused(&[("x-labgate-assertion", &good)]).await;
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked, "GitLab was asked all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_caller_with_a_token_nothing_is_asked() {
    let lab = setup(&format!("{ALL}{API}"), "5m").start().await;
    let (user, token) = ("alice".to_owned(), "glpat-alice-reads-1234".to_owned());
    let scopes = vec!["read_api".to_owned()];
    let command =
        Command::AddPersonalToken { user, token: token.clone(), scopes, expires_at: None };
    lab.gitlab.command(command).expect("carried out");
    let echo = bearer(&lab, "/echo/x", &token).await;
    let assertion = told(&echo, "x-labgate-assertion");
    assert!(!assertion.is_empty(), "{}", echo.text());
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    let answer = get(api(&lab), "/api/v4/user", &assertion).await;
    assert_eq!(refusal(&answer), (403, "api_assertion".into()));
    assert!(answer.text().contains("caller with a token"), "{}", answer.text());
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_session_the_calls_end() {
    let lab = setup(API, "1h").start().await;
    let mut alice = lab.signed_in("alice").await;
    let hers = assertion(&mut alice).await;
    assert_eq!(get(api(&lab), "/api/v4/user", &hers).await.status, 200);
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200);
    let answer = get(api(&lab), "/api/v4/user", &hers).await;
    assert_eq!(refusal(&answer), (403, "api_session".into()), "signed out");
    let his = assertion(&mut lab.signed_in("bob").await).await;
    assert_eq!(get(api(&lab), "/api/v4/user", &his).await.status, 200);
    lab.gitlab.set_state("bob", UserState::Blocked).unwrap();
    // Beyond `recheck`, so that GitLab is asked about him first.
    lab.clock.turn(400);
    let answer = get(api(&lab), "/api/v4/user", &his).await;
    assert_eq!(refusal(&answer), (403, "api_session".into()), "blocked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_never_goes_out_with_a_token_that_is_over() {
    let setup = setup(API, "12h").session("recheck = \"10h\"\ngrace = \"10h\"");
    let lab = setup.start().await;
    let hers = assertion(&mut lab.signed_in("alice").await).await;
    assert_eq!(get(api(&lab), "/api/v4/user", &hers).await.status, 200);
    // The access token lives for two hours; the next call waits for another.
    for _ in 0..2 {
        lab.clock.turn(3 * 60 * 60);
        let answer = get(api(&lab), "/api/v4/user", &hers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["username"], "alice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_one_store_know_each_others_sessions() {
    let redis = Redis::start().await;
    let twins = setup(API, "1h").twins(2, &redis.store()).await;
    let mut alice = twins.signed_in("alice").await;
    alice.point_at(twins.lab.app.addr());
    let hers = assertion(&mut alice).await;
    let there = twins.others[0].api_addr("main").unwrap();
    let answer = get(there, "/api/v4/user", &hers).await;
    assert_eq!(answer.json()["username"], "alice", "{}", answer.text());
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200);
    for addr in [there, api(&twins.lab)] {
        let answer = get(addr, "/api/v4/user", &hers).await;
        assert_eq!(refusal(&answer), (403, "api_session".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gitlab_has_a_door_of_its_own() {
    let other =
        "[gitlab.other]\nbase_url = \"GITLAB\"\nclient_id = \"ID\"\nclient_secret = \"SECRET\"\n";
    let other = format!("{other}{API}")
        .replace("ID", labgate::demo::gitlab::CLIENT_ID)
        .replace("SECRET", labgate::demo::gitlab::CLIENT_SECRET);
    let lab = setup(API, "5m").more(&other).start().await;
    let doors = ["main", "other"].map(|name| (name, lab.app.api_addr(name).expect("an API")));
    assert_ne!(doors[0].1, doors[1].1);
    for (name, own) in doors {
        let mut browser = lab.browser();
        let start = format!("/oauth2/start?rd=/private&gitlab={name}");
        let page = browser.sign_in(&start, "alice").await;
        assert_eq!(page.status, 200, "{}", page.text());
        let hers = assertion(&mut browser).await;
        for (_, addr) in doors {
            let answer = get(addr, "/api/v4/user", &hers).await;
            match addr == own {
                true => assert_eq!(answer.status, 200, "{}", answer.text()),
                false => assert_eq!(refusal(&answer), (403, "api_assertion".into())),
            }
        }
    }
}

/// Serves `text` from now on.
fn reload(lab: &mut Lab, text: &str) {
    let config: config::Config = toml::from_str(text).expect("a configuration");
    let (plan, problems) = Plan::draw(&config, &|_| None);
    let plan = plan.unwrap_or_else(|| panic!("{problems:#?}"));
    App::reload(&mut lab.app, plan, &Handle::current(), &|_| None).expect("a gate");
}

/// A GitLab that a test plays by hand: calls of its API as they come, all else is turned away.
struct Stage {
    calls: mpsc::Receiver<Wire>,
}

impl Stage {
    /// From now on labgate goes there; people stay signed in.
    async fn set(lab: &mut Lab, text: &str) -> Self {
        let tap = Tap::open().await;
        let internal = format!("[gitlab.main]\ninternal_url = \"{}\"\n", tap.url());
        let text = text.replace("[gitlab.main]\n", &internal);
        let (sender, calls) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let wire = tap.accept().await;
                let mut start = [0; 64];
                let read = wire.stream.peek(&mut start).await.unwrap_or_default();
                let line = String::from_utf8_lossy(&start[..read]).into_owned();
                let is_call = line.split(' ').nth(1).is_some_and(|path| path.starts_with("/api/"));
                if is_call && sender.send(wire).await.is_err() {
                    return;
                }
            }
        });
        reload(lab, &text);
        Self { calls }
    }

    async fn call(&mut self) -> Wire {
        self.calls.recv().await.expect("a call")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_hears_the_users_token_and_nothing_of_the_applications() {
    let mut lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    let text = lab.config.clone();
    let mut stage = Stage::set(&mut lab, &text).await;
    let hers = assertion(&mut alice).await;
    let fields = [
        ("x-labgate-assertion", hers.as_str()),
        ("authorization", "Bearer application"),
        ("private-token", "application"),
        ("PRIVATE_TOKEN", "application"),
        ("job-token", "application"),
        ("deploy-token", "application"),
        ("cookie", "_gitlab_session=application"),
        ("sudo", "application"),
        ("x-http-method-override", "DELETE-application"),
        ("x-method-override", "application"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-csrf-token", "application"),
        ("proxy-authorization", "application"),
        ("upgrade", "application"),
        ("accept", "application/json"),
        ("if-none-match", "\"tag\""),
    ];
    let addr = api(&lab);
    let asked = async { call(addr, "GET", "/api/v4/projects/a%2Fb?x=%20y", &fields, "").await };
    let answered = async {
        let mut wire = stage.call().await;
        let call = wire.message().await.expect("a call");
        wire.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: _gitlab_session=x\r\n\
             Connection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nLink: <x>; rel=\"next\"\r\n\
             Content-Length: 5\r\n\r\nhello",
        )
        .await;
        call
    };
    let (answer, heard): (Answer, Message) = tokio::join!(asked, answered);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "hello");
    assert_eq!(answer.header("link"), "<x>; rel=\"next\"");
    for gone in ["set-cookie", "x-mine", "keep-alive"] {
        assert!(answer.headers.get(gone).is_none(), "{gone}");
    }
    assert!(
        heard.head.starts_with("GET /api/v4/projects/a%2Fb?x=%20y HTTP/1.1\r\n"),
        "{}",
        heard.head
    );
    let names: Vec<_> =
        heard.head.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
    for name in &names {
        assert!(
            ["accept", "if-none-match", "user-agent", "authorization", "host"].contains(name),
            "{}",
            heard.head
        );
    }
    let [token] = heard.values("authorization")[..] else { panic!("{}", heard.head) };
    let token = token.strip_prefix("Bearer ").expect("a token");
    let own = call(
        lab.gitlab.addr(),
        "GET",
        "/api/v4/user",
        &[("authorization", &format!("Bearer {token}"))],
        "",
    )
    .await;
    assert_eq!(own.json()["username"], "alice");
    for secret in ["6.6.6.6", "DELETE", hers.as_str(), "_gitlab_session"] {
        assert!(!heard.head.contains(secret), "{secret}: {}", heard.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let mut lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    let methods = "api = { listen = \"127.0.0.1:0\", methods = [\"GET\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"] }";
    let text = lab.config.replace("api = { listen = \"127.0.0.1:0\" }", methods);
    let mut stage = Stage::set(&mut lab, &text).await;
    let hers = assertion(&mut alice).await;
    let head = format!(
        "POST /api/v4/uploads HTTP/1.1\r\nHost: x\r\nX-Labgate-Assertion: {hers}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    );
    let mut application = Wire::say(api(&lab), head).await;
    let mut gitlab = stage.call().await;
    // The first piece is there before the application has said the second.
    let up = gitlab.until(b"one").await.expect("the first piece");
    assert!(String::from_utf8_lossy(&up).starts_with("POST /api/v4/uploads HTTP/1.1\r\n"));
    application.write("3\r\ntwo\r\n0\r\n\r\n").await;
    gitlab.until(b"two\r\n0\r\n\r\n").await.expect("the rest");
    gitlab.write("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
    // And the answer's before GitLab has said its end.
    application.until(b"uno").await.expect("the first piece");
    gitlab.write("3\r\ndue\r\n0\r\n\r\n").await;
    application.until(b"due").await.expect("the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_names_no_method_that_is_not_listed() {
    let mut lab = lab().await;
    let hers = assertion(&mut lab.signed_in("alice").await).await;
    let posts = "api = { listen = \"127.0.0.1:0\", methods = [\"GET\", \"POST\"] }";
    let text = lab.config.replace("api = { listen = \"127.0.0.1:0\" }", posts);
    reload(&mut lab, &text);
    let post = async |kind: Option<&str>, body: &str| {
        let mut fields = vec![("x-labgate-assertion", hers.as_str())];
        fields.extend(kind.map(|kind| ("content-type", kind)));
        call(api(&lab), "POST", "/api/v4/projects/1/issues", &fields, body).await
    };
    for kind in [
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("text/plain"),
        Some("application/jsonx"),
        None,
    ] {
        let answer = post(kind, "_method=delete").await;
        assert_eq!(refusal(&answer), (403, "api_form".into()), "{kind:?}");
    }
    // GitLab's own word: there is nothing of that name.
    for (kind, body) in [
        (Some("application/json"), "{}"),
        (Some("Application/JSON; charset=utf-8"), "{}"),
        (None, ""),
    ] {
        let answer = post(kind, body).await;
        assert_ne!(answer.status, 403, "{kind:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_counts_at_the_next_call() {
    let mut lab = lab().await;
    let hers = assertion(&mut lab.signed_in("alice").await).await;
    assert_eq!(get(api(&lab), "/api/v4/user", &hers).await.status, 200);
    let text = lab.config.clone();
    // The same again: what was handed out is good.
    reload(&mut lab, &text);
    assert_eq!(get(api(&lab), "/api/v4/user", &hers).await.status, 200);
    let heads = text.replace(
        "api = { listen = \"127.0.0.1:0\" }",
        "api = { listen = \"127.0.0.1:0\", methods = [\"HEAD\"] }",
    );
    reload(&mut lab, &heads);
    assert_eq!(refusal(&get(api(&lab), "/api/v4/user", &hers).await), (403, "api_method".into()));
    reload(&mut lab, &text.replace("api = { listen = \"127.0.0.1:0\" }", ""));
    assert_eq!(get(api(&lab), "/api/v4/user", &hers).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_gitlab_is_away_calls_fail_at_once() {
    let mut lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    let gone = Tap::open().await;
    let internal = format!("[gitlab.main]\ninternal_url = \"{}\"\n", gone.url());
    let text = lab.config.replace("[gitlab.main]\n", &internal);
    drop(gone);
    reload(&mut lab, &text);
    let hers = assertion(&mut alice).await;
    for _ in 0..5 {
        let answer = get(api(&lab), "/api/v4/user", &hers).await;
        assert!(matches!(answer.status.as_u16(), 502 | 503), "{}", answer.text());
        assert_eq!(refusal(&answer).1, "api_unanswered");
    }
    let answer = get(api(&lab), "/api/v4/user", &hers).await;
    assert_eq!(answer.status, 503, "the circuit is open: {}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(alice.request(Method::GET, "/echo/x", &[], "").await.status, 200);
}
