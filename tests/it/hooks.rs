//! Hooks: what GitLab tells of counts at the next request although its last word is young, and nobody else can say it.

use std::time::{Duration, Instant};

use http::{Method, Request};
use labgate::demo::gitlab::{Command, Endpoint, Failure, Fault, Role, UserState};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, Lab, PATIENCE, Setup, Wire, send, until};

const TOKEN: &str = "a token that nobody guesses";
const HOOK: &str = "/oauth2/hooks/main";

/// The usual routes, of which one serves the address that the development GitLab calls.
const ROUTES: &str = r#"
[[route]]
upstream = "UPSTREAM"
allow = "public"
[[route]]
host = "127.0.0.1"
path = "/nothing"
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/team"
upstream = "UPSTREAM"
allow = [{ group = "acme" }]
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = [{ group = "acme/ops" }]
"#;

fn setup() -> Setup {
    Setup::default()
        .routes(ROUTES)
        .gitlab(&format!("hook_secret = \"{TOKEN}\""))
        .session("recheck = \"1h\"\ngrace = \"2h\"\n")
}

/// A lab whose GitLab sends its hooks to labgate.
async fn lab() -> Lab {
    let lab = setup().start().await;
    let url = format!("http://{}{HOOK}", lab.app.addr());
    lab.gitlab.add_hook(&url, TOKEN).expect("a URL");
    lab
}

fn request(path: &str, token: Option<&str>) -> http::request::Builder {
    let request = Request::post(path)
        .header("host", "app.example.test")
        .header("content-type", "application/json")
        .header("x-gitlab-event", "System Hook");
    match token {
        Some(token) => request.header("x-gitlab-token", token),
        None => request,
    }
}

async fn post(lab: &Lab, path: &str, token: Option<&str>, body: &str) -> Answer {
    send(lab.app.addr(), request(path, token).body(body.to_owned()).expect("a request")).await
}

async fn hooks(lab: &Lab, result: &str) -> u64 {
    lab.count(&format!("labgate_hooks_total{{gitlab=\"main\",result=\"{result}\"}}")).await
}

async fn marked(lab: &Lab, times: u64) {
    until("the hook has come", async || hooks(lab, "marked").await >= times).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_out_of_a_group_is_out_at_the_next_request() {
    let lab = lab().await;
    let mut bob = lab.signed_in("bob").await;
    let mut alice = lab.signed_in("alice").await;
    assert_eq!(bob.xhr("/team").await.status, 200);
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    lab.gitlab.set_role("acme", "bob", None).expect("bob");
    marked(&lab, 1).await;
    assert_eq!(bob.xhr("/team").await.status, 403);
    assert_eq!(bob.xhr("/private").await.status, 200, "he is still signed in");
    assert_eq!(alice.xhr("/team").await.status, 200);
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked + 1, "bob once, alice not at all");
    // Back again, as soon as GitLab says so, and in the same second if need be.
    lab.gitlab.set_role("acme", "bob", Some(Role::Guest)).expect("bob");
    marked(&lab, 2).await;
    assert_eq!(bob.xhr("/team").await.status, 200);
    lab.gitlab.set_role("acme", "bob", None).expect("bob");
    marked(&lab, 3).await;
    assert_eq!(bob.xhr("/team").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_out_at_the_next_request() {
    let lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.command(Command::DeleteUser { user: "alice".into() }).expect("alice");
    marked(&lab, 1).await;
    assert_eq!(alice.xhr("/private").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_user_who_tries_gitlab_itself_is_out_here_too() {
    let lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.set_state("alice", UserState::Blocked).expect("alice");
    assert_eq!(alice.xhr("/private").await.status, 200, "GitLab tells nothing of a block");
    let page = lab.browser().open("/private").await;
    lab.browser().finish_sign_in(page, "nobody").await;
    let mut elsewhere = lab.browser();
    let page = elsewhere.open("/private").await;
    let refused = tokio::spawn(async move { elsewhere.finish_sign_in(page, "alice").await });
    marked(&lab, 1).await;
    assert_eq!(alice.xhr("/private").await.status, 401);
    refused.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_group_is_noticed_by_all_who_are_in_it_or_below() {
    let lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    let mut carol = lab.signed_in("carol").await;
    assert_eq!(alice.xhr("/echo").await.status, 200);
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    let (path, to) = ("acme/ops".to_owned(), "acme/operations".to_owned());
    lab.gitlab.command(Command::RenameGroup { path, to }).expect("a group");
    marked(&lab, 1).await;
    carol.xhr("/private").await;
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked, "carol holds nothing there");
    // She is in acme, and so in acme/ops, whatever that is now.
    alice.xhr("/echo").await;
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked + 1);
    let info = alice.xhr("/oauth2/userinfo").await.json();
    assert!(info["groups"].get("acme/operations").is_some(), "{info}");
    assert_eq!(info["groups"].get("acme/ops"), None, "{info}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tabs_of_a_marked_session_ask_once_and_all_hear_the_answer() {
    let lab = setup().workers(2).session("recheck_timeout = \"20s\"\n").start().await;
    let bob = lab.signed_in("bob").await;
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    lab.gitlab.set_role("acme", "bob", None).expect("bob");
    let event = json!({ "event_name": "user_remove_from_group", "user_id": 3 }).to_string();
    for _ in 0..5 {
        assert_eq!(post(&lab, HOOK, Some(TOKEN), &event).await.status, 204);
    }
    let mut all = JoinSet::new();
    for _ in 0..40 {
        let mut tab = bob.clone();
        all.spawn(async move { tab.xhr("/team").await.status.as_u16() });
    }
    assert!(all.join_all().await.into_iter().all(|status| status == 403));
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked + 1);
    assert_eq!(bob.clone().xhr("/team").await.status, 403, "with the old cookie");
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_was_asked_for_before_the_hook_is_no_answer() {
    let lab = lab().await;
    let mut bob = lab.signed_in("bob").await;
    // Its answer is on the way while the membership goes: it says that bob is in.
    lab.gitlab.fail(Fault::slow(Endpoint::ApiUser, 1, Duration::from_millis(1500)));
    lab.clock.turn(3000);
    assert_eq!(bob.xhr("/team").await.status, 200, "asked beside the request");
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    lab.gitlab.set_role("acme", "bob", None).expect("bob");
    marked(&lab, 1).await;
    let began = Instant::now();
    assert_eq!(bob.xhr("/team").await.status, 403);
    assert!(began.elapsed() < PATIENCE);
    until("asked again", async || lab.gitlab.hits(Endpoint::ApiUser) > asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_signs_nobody_out_while_gitlab_is_silent() {
    let lab = setup().session("recheck_timeout = \"300ms\"\n").start().await;
    let mut alice = lab.signed_in("alice").await;
    for endpoint in [Endpoint::ApiUser, Endpoint::Userinfo, Endpoint::Token] {
        lab.gitlab.fail(Fault::new(endpoint, 1000, Failure::Refuse));
    }
    let event = json!({ "event_name": "user_rename", "user_id": 2 }).to_string();
    assert_eq!(post(&lab, HOOK, Some(TOKEN), &event).await.status, 204);
    for _ in 0..5 {
        assert_eq!(alice.xhr("/private").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_opens_and_wrong_ones_are_slowed() {
    let lab = setup().server("trusted_proxies = [\"127.0.0.0/8\"]\n").start().await;
    let event = json!({ "event_name": "user_destroy", "user_id": 2 }).to_string();
    let almost = &TOKEN[1..];
    let upper = TOKEN.to_uppercase();
    let mut bodies = Vec::new();
    for token in [None, Some(""), Some("x"), Some(almost), Some(upper.as_str())] {
        let answer = post(&lab, HOOK, token, &event).await;
        assert_eq!(answer.status, 401, "{token:?}");
        assert!(answer.header("www-authenticate").starts_with("X-Gitlab-Token"));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let mut body = answer.json();
        body["request_id"] = json!(null);
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
    let twice = request(HOOK, Some(TOKEN)).header("x-gitlab-token", TOKEN).body(event.clone());
    assert_eq!(send(lab.app.addr(), twice.expect("a request")).await.status, 401);
    assert_eq!(hooks(&lab, "hook_token_wrong").await, 6);
    assert_eq!(hooks(&lab, "marked").await, 0);
    for _ in 0..4 {
        assert_eq!(post(&lab, HOOK, Some("x"), &event).await.status, 401);
    }
    // Whoever has guessed ten times is not listened to, right or wrong.
    for token in ["x", TOKEN] {
        let answer = post(&lab, HOOK, Some(token), &event).await;
        assert_eq!(answer.status, 429, "{token}");
        assert!(answer.header("retry-after").parse::<u64>().expect("seconds") >= 1);
    }
    // Others are.
    let other = request(HOOK, Some(TOKEN)).header("x-forwarded-for", "192.0.2.7").body(event);
    assert_eq!(send(lab.app.addr(), other.expect("a request")).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_none_is_told_nothing() {
    let lab =
        setup().more("[gitlab.other]\nbase_url = \"GITLAB\"\nclient_id = \"x\"\n").start().await;
    let without = |mut answer: Answer| {
        answer.headers.remove("x-request-id");
        answer.headers.remove("date");
        let mut body = answer.json();
        body["request_id"] = json!(null);
        (answer.status, answer.headers, body)
    };
    let unknown = without(post(&lab, "/oauth2/nothing", Some(TOKEN), "{}").await);
    assert_eq!(unknown.0, 404);
    for path in [
        "/oauth2/hooks/other",
        "/oauth2/hooks/nobody",
        "/oauth2/hooks/",
        "/oauth2/hooks",
        "/oauth2/hooks/main/",
        "/oauth2/hooks/Main",
        "/oauth2/hooks/m%61in",
    ] {
        assert_eq!(without(post(&lab, path, Some(TOKEN), "{}").await), unknown, "{path}");
    }
    let mut browser = lab.browser();
    for method in [Method::GET, Method::PUT] {
        let answer = browser.request(method.clone(), HOOK, &[("x-gitlab-token", TOKEN)], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"), "{method}");
    }
    let elsewhere = request(HOOK, Some(TOKEN)).body("{}".to_owned()).map(|mut request| {
        request.headers_mut().insert("host", "evil.test".parse().expect("a value"));
        request
    });
    assert_eq!(send(lab.app.addr(), elsewhere.expect("a request")).await.status, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gitlab_does_not_send_is_refused_and_what_does_not_matter_ignored() {
    let lab = setup().start().await;
    for (body, status) in [
        (r#"{"event_name":"push","user_id":2}"#, 204),
        (r#"{"object_kind":"merge_request"}"#, 204),
        (r#"{"event_name":"user_create","user_id":2}"#, 204),
        (r#"{"event_name":"user_destroy","user_id":"2"}"#, 400),
        (r#"{"event_name":"user_destroy"}"#, 400),
        (r#"{"event_name":"user_destroy","user_id":2"#, 400),
        ("event_name=user_destroy&user_id=2", 400),
        ("[]", 400),
        ("", 400),
    ] {
        let answer = post(&lab, HOOK, Some(TOKEN), body).await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.header("cache-control"), "no-store");
        match status {
            204 => assert!(answer.body.is_empty()),
            _ => assert!(answer.json()["detail"].as_str().is_some_and(|words| words.len() > 20)),
        }
    }
    assert_eq!((hooks(&lab, "ignored").await, hooks(&lab, "marked").await), (3, 0));
    assert_eq!(hooks(&lab, "hook_malformed").await, 6);
    let form = request(HOOK, Some(TOKEN));
    let form = Request::post(HOOK)
        .header("host", "app.example.test")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-gitlab-token", form.headers_ref().expect("headers")["x-gitlab-token"].clone())
        .body(r#"{"event_name":"user_destroy","user_id":2}"#.to_owned());
    assert_eq!(send(lab.app.addr(), form.expect("a request")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_in_size_and_time_and_unread_before_the_token() {
    let lab = setup().start().await;
    let large = format!(r#"{{"event_name":"push","x":"{}"}}"#, "x".repeat(1024 * 1024));
    assert_eq!(post(&lab, HOOK, Some(TOKEN), &large).await.status, 413);
    let fits = format!(r#"{{"event_name":"push","x":"{}"}}"#, "x".repeat(1000 * 1024));
    assert_eq!(post(&lab, HOOK, Some(TOKEN), &fits).await.status, 204);
    let head = |token: &str| {
        format!(
            "POST {HOOK} HTTP/1.1\r\nHost: app.example.test\r\nContent-Type: application/json\r\n\
             X-Gitlab-Token: {token}\r\nContent-Length: 50\r\n\r\n{{"
        )
    };
    // Without the token nobody waits for a body.
    let began = Instant::now();
    let answer = Wire::say(lab.app.addr(), head("x")).await.answer().await;
    assert_eq!(answer.status(), 401);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let answer = Wire::say(lab.app.addr(), head(TOKEN)).await.answer().await;
    assert_eq!(answer.status(), 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_turned_away_and_everybody_is_rechecked_instead() {
    let lab = setup().start().await;
    let mut alice = lab.signed_in("alice").await;
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    let body = r#"{"event_name":"push"}"#;
    let one = format!(
        "POST {HOOK} HTTP/1.1\r\nHost: app.example.test\r\nContent-Type: application/json\r\n\
         X-Gitlab-Token: {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut wire = Wire::to(lab.app.addr()).await;
    let mut limited = 0;
    for _ in 0..3000 {
        wire.write(&one).await;
        let answer = wire.answer().await;
        if answer.status() == 429 {
            assert!(!answer.values("retry-after").is_empty());
            limited += 1;
            break;
        }
    }
    assert_eq!(limited, 1);
    assert_eq!(hooks(&lab, "hooks_too_many").await, 1);
    until("everybody is rechecked", async || {
        alice.xhr("/private").await;
        lab.gitlab.hits(Endpoint::ApiUser) > asked
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_marks_and_takes_another_secret() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("hook.secret");
    std::fs::write(&path, format!("{TOKEN}\n")).expect("a file");
    let secret = format!("hook_secret = {{ file = \"{}\" }}", path.display());
    let house = Setup::default().routes(ROUTES).gitlab(&secret);
    let house = house.session("recheck = \"1h\"\n").process(&[]).await;
    let mut bob = house.signed_in("bob").await;
    assert_eq!(bob.xhr("/team").await.status, 200);
    let hook = async |token: &str| {
        let event = json!({ "event_name": "user_remove_from_group", "user_id": 3 }).to_string();
        send(house.addr, request(HOOK, Some(token)).body(event).expect("a request")).await.status
    };
    house.gitlab.set_role("acme", "bob", None).expect("bob");
    assert_eq!(hook(TOKEN).await, 204);
    std::fs::write(&path, "another token that nobody guesses\n").expect("a file");
    house.labgate.line("the configuration is reloaded").await;
    assert_eq!(bob.xhr("/team").await.status, 403, "the mark is lost");
    assert_eq!(hook(TOKEN).await, 401);
    assert_eq!(hook("another token that nobody guesses").await, 204);
    house.labgate.logged("an audit line", |line| line["event"] == "hook_refused").await;
}
