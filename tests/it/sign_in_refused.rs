//! Sign-ins that must not work out: whatever is wrong with GitLab's answer, a page says what to do, and nobody is signed in.

use std::time::{Duration, Instant};

use http::Method;
use labgate::demo::gitlab::{
    Application, CLIENT_ID, Command, Document, Endpoint, Failure, Fault, UserState,
};
use serde_json::json;
use url::Url;

use crate::support::{Answer, Browser, Lab, Page, Setup, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_asked_for_is_refused_before_anything_is_redeemed() {
    let lab = Lab::start().await;
    let foreign = lab.callback(&lab.browser().begin("/").await, "alice").await;
    let mut browser = lab.browser();
    let own = lab.callback(&browser.begin("/").await, "alice").await;
    let url = Url::parse(&own).expect("a URL");
    let value = |wanted: &str| {
        let mut pairs = url.query_pairs();
        pairs.find(|(name, _)| name == wanted).expect("a parameter").1.into_owned()
    };
    let (code, state) = (value("code"), value("state"));
    let mut forged: Vec<String> = vec![
        "/oauth2/callback".into(),
        "/oauth2/callback?".into(),
        "/oauth2/callback?code=x".into(),
        format!("/oauth2/callback?code={code}&state="),
        format!("/oauth2/callback?code={code}&state={state}&state={state}"),
        format!("/oauth2/callback?code={code}&code={code}&state={state}"),
        format!("/oauth2/callback?code={code}&state={state}&iss=a&iss=a"),
        format!("/oauth2/callback?error=a&error=b&state={state}"),
        format!("/oauth2/callback?code={code}&state={state}x"),
        format!("/oauth2/callback?code={code}&state={}", state.to_lowercase()),
        format!("/oauth2/callback?code={code}&state={}", "a".repeat(20_000)),
        format!("/oauth2/callback?code={code}&state=%00%ff%0d%0a"),
        // A fragment never reaches a server.
        format!("/oauth2/callback#code={code}&state={state}"),
        foreign,
    ];
    forged.extend((0..state.len()).step_by(5).map(|at| {
        let flip = |(index, sign)| match (index == at, sign) {
            (false, sign) => sign,
            (true, 'a') => 'b',
            (true, _) => 'a',
        };
        let state: String = state.chars().enumerate().map(flip).collect();
        format!("/oauth2/callback?code={code}&state={state}")
    }));
    for callback in forged {
        let answer = browser.navigate(&callback).await;
        assert_eq!(answer.status, 400, "{callback}: {}", answer.text());
        assert!(!answer.cookies().iter().any(|cookie| cookie.starts_with("__Host-")), "{callback}");
        guarded(&answer);
    }
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 0);
    // None of it has harmed the sign-in itself.
    assert_eq!(browser.open(&own).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_counts_in_its_own_cookie_for_ten_minutes_only() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let callback = lab.callback(&browser.begin("/").await, "alice").await;
    let name = browser.cookie_names()[0].to_owned();
    let sealed = browser.cookie(&name).expect("the attempt").to_owned();
    let broken = format!("{}A{}", &sealed[..40], &sealed[41..]);
    for value in [&broken, &sealed[1..], &sealed[..sealed.len() - 1], "A", "\"\""] {
        let mut browser = browser.clone();
        browser.set_cookie("app.example.test", &name, value);
        assert_eq!(browser.open(&callback).await.status, 400, "{value}");
    }
    // As the session it is nothing either.
    let mut thief = lab.browser();
    thief.set_cookie("app.example.test", "__Host-labgate", &sealed);
    assert_eq!(thief.xhr("/private").await.status, 401);
    lab.clock.turn(601);
    let page = browser.clone().open(&callback).await;
    assert_eq!(page.status, 400);
    assert!(page.text().contains("more than 10 minutes ago"), "{}", page.text());
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 0);
    lab.clock.turn(-20);
    assert_eq!(browser.open(&callback).await.status, 200, "within ten minutes all is well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_good_for_one_answer_even_if_that_was_a_refusal() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let callback = lab.callback(&browser.begin("/private?a=b").await, "alice").await;
    let state = Url::parse(&callback).expect("a URL");
    let state = state.query_pairs().find(|(name, _)| name == "state").expect("a state").1;
    let denied = format!("/oauth2/callback?error=access_denied&state={state}");
    let page = browser.open(&denied).await;
    assert_eq!(page.status, 403);
    assert_eq!(browser.cookie_names(), [""; 0], "the attempt is over");
    let again = "/oauth2/sign_in?rd=https%3A%2F%2Fapp.example.test%2Fprivate%3Fa%3Db";
    assert!(page.text().contains(again), "{}", page.text());
    assert_eq!(browser.open(&callback).await.status, 400, "a late answer to the same state");
    let page = browser.sign_in(again, "alice").await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private?a=b");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_error_of_gitlab_becomes_a_page_that_helps() {
    let lab = Lab::start().await;
    for (error, status, words) in [
        ("access_denied", 403, "choose Authorize"),
        ("login_required", 403, "sign in there"),
        ("consent_required", 403, "choose Authorize"),
        ("interaction_required", 403, "sign in there"),
        ("invalid_scope", 403, "scopes"),
        ("unauthorized_client", 403, "labgate check"),
        ("unsupported_response_type", 403, "labgate check"),
        ("invalid_request", 403, "labgate check"),
        ("server_error", 503, "try"),
        ("temporarily_unavailable", 503, "Wait a little"),
        ("<script>alert(1)</script>", 403, "GitLab said no"),
        ("", 400, "Start again"),
    ] {
        let mut browser = lab.browser();
        let start = Url::parse(&browser.begin("/").await).expect("a URL");
        let state = start.query_pairs().find(|(name, _)| name == "state").expect("a state").1;
        let error_param: String = url::form_urlencoded::byte_serialize(error.as_bytes()).collect();
        let callback = format!(
            "/oauth2/callback?error={error_param}&error_description=%3Cscript%3Eraw+words&error_uri=https://evil.test&state={state}"
        );
        let page = browser.open(&callback).await;
        let html = page.text();
        assert_eq!(page.status, status, "{error}: {html}");
        assert!(html.contains(words), "{error}: {html}");
        assert!(!html.contains("raw words") && !html.contains("<script") && !html.contains("evil"));
        assert!(html.contains(page.answer.header("x-request-id")), "{error}");
        guarded(&page.answer);
        assert_eq!(browser.cookie_names(), [""; 0]);
    }
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 0);
    // The same without a state of this browser is somebody else's.
    let answer = lab.browser().navigate("/oauth2/callback?error=access_denied&state=x").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_ends_a_sign_in() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let callback = lab.callback(&browser.begin("/").await, "alice").await;
    let query = callback.split_once('?').expect("a query").1;
    for method in [Method::POST, Method::PUT, Method::HEAD, Method::DELETE] {
        let form = [("content-type", "application/x-www-form-urlencoded"), ("accept", "text/html")];
        let answer = browser.request(method.clone(), "/oauth2/callback", &form, query).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), "GET");
        let answer = browser.request(method.clone(), &callback, &form, "").await;
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(browser.open(&callback).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_behind_the_callback_is_told_with_its_status() {
    let json_400 = |error: &str| json!({ "error": error, "error_description": "raw words" });
    let html = "<html>raw words</html>";
    let faults = [
        (Fault::json(Endpoint::Token, 2, 400, &json_400("invalid_grant")), 403, "too long"),
        (Fault::json(Endpoint::Token, 1, 401, &json_400("invalid_client")), 502, "client_secret"),
        (Fault::json(Endpoint::Token, 1, 400, &json_400("invalid_request")), 502, "trusted"),
        (Fault::json(Endpoint::Token, 1, 200, &json!({ "access_token": 5 })), 502, "trusted"),
        (Fault::answer(Endpoint::Token, 1, 200, "text/html", html), 503, "Wait a little"),
        (Fault::answer(Endpoint::Token, 1, 502, "text/html", html), 503, "Wait a little"),
        (Fault::answer(Endpoint::Token, 1, 500, "text/html", html), 503, "Wait a little"),
        (Fault::throttled(Endpoint::Token, 1, "17"), 503, "17 seconds"),
        (Fault::new(Endpoint::Token, 1, Failure::DropReply), 503, "Wait a little"),
        (Fault::new(Endpoint::Token, 1, Failure::Refuse), 503, "Wait a little"),
        (Fault::answer(Endpoint::Keys, 9, 200, "application/json", "[]"), 502, "trusted"),
        (Fault::answer(Endpoint::Keys, 9, 503, "text/html", html), 503, "Wait a little"),
        (Fault::answer(Endpoint::ApiUser, 1, 200, "application/json", "[1]"), 502, "trusted"),
        (Fault::answer(Endpoint::ApiUser, 1, 500, "text/html", html), 503, "Wait a little"),
        (Fault::json(Endpoint::ApiUser, 1, 401, &json_400("invalid_token")), 502, "trusted"),
        (Fault::answer(Endpoint::Userinfo, 1, 200, "application/json", "[1]"), 502, "trusted"),
        (
            Fault::answer(Endpoint::Userinfo, 1, 200, "application/json", "{\"sub\":"),
            502,
            "trusted",
        ),
        (Fault::answer(Endpoint::Userinfo, 1, 200, "application/json", ""), 502, "trusted"),
        (Fault::answer(Endpoint::Userinfo, 1, 200, "text/html", html), 503, "Wait a little"),
        (Fault::answer(Endpoint::Userinfo, 1, 500, "text/html", html), 503, "Wait a little"),
    ];
    for (fault, status, words) in faults {
        let what = format!("{fault:?}");
        let (lab, page, browser) = failing(fault).await;
        let html = page.text();
        assert_eq!(page.status, status, "{what}: {html}");
        assert!(html.contains(words), "{what}: {html}");
        assert!(!html.contains("raw words"), "{what}: {html}");
        assert_eq!(page.answer.header("retry-after").is_empty(), status != 503, "{what}");
        assert_eq!(browser.cookie_names(), [""; 0], "{what}");
        guarded(&page.answer);
        // Once it is over, nothing has stuck.
        lab.gitlab.clear_faults();
        // A GitLab that was out of reach is left alone for a while.
        if status != 503 {
            until("signing in works again", async || {
                browser.clone().sign_in("/private", "alice").await.status == 200
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_sent_once_and_where_it_belongs() {
    let lab = Lab::start().await;
    for (status, hits) in [(307, 1), (502, 2)] {
        lab.gitlab.fail(Fault::answer(Endpoint::Token, 1, status, "text/plain", ""));
        let page = lab.browser().sign_in("/private", "alice").await;
        assert_eq!(page.status, 503, "{status}");
        assert_eq!(lab.gitlab.hits(Endpoint::Token), hits, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitlab_that_hangs_keeps_nobody_waiting_for_long() {
    let lab = Lab::start().await;
    lab.gitlab.fail(Fault::new(Endpoint::Token, 1, Failure::Hang));
    let began = Instant::now();
    let page = lab.browser().sign_in("/private", "alice").await;
    assert_eq!(page.status, 503, "{}", page.text());
    assert_ne!(page.answer.header("retry-after"), "");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(lab.browser().sign_in("/private", "alice").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn userinfo_of_ten_megabytes_or_of_somebody_else_is_refused() {
    let lab = Lab::start().await;
    let long = format!("{{\"sub\":\"2\",\"x\":\"{}\"}}", "x".repeat(10 << 20));
    lab.gitlab.fail(Fault::answer(Endpoint::Userinfo, 1, 200, "application/json", &long));
    assert_eq!(lab.browser().sign_in("/private", "alice").await.status, 503);
    lab.gitlab.overlay(Document::Userinfo, json!({ "sub": "1" }));
    assert_eq!(lab.browser().sign_in("/private", "alice").await.status, 502);
    lab.gitlab.overlay(Document::Userinfo, json!({}));
    lab.gitlab.overlay(Document::User, json!({ "id": 1 }));
    assert_eq!(lab.browser().sign_in("/private", "alice").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_gitlab_does_not_let_in_is_told_so() {
    let lab = Lab::start().await;
    for (user, state) in [("alice", "blocked"), ("bob", "banned"), ("carol", "deactivated")] {
        let mut browser = lab.browser();
        let callback = lab.callback(&browser.begin("/private").await, user).await;
        lab.gitlab.overlay(Document::User, json!({ "state": state }));
        let page = browser.open(&callback).await;
        assert_eq!(page.status, 403, "{state}");
        assert!(page.text().contains("GitLab doesn&#39;t let this account in"), "{}", page.text());
        assert_eq!(browser.cookie_names(), [""; 0]);
    }
    lab.gitlab.overlay(Document::User, json!({}));
    // Blocked between GitLab's page and the callback: GitLab fails to make the ID token.
    let mut browser = lab.browser();
    let callback = lab.callback(&browser.begin("/private").await, "alice").await;
    lab.gitlab.set_state("alice", UserState::Blocked).expect("alice");
    let page = browser.open(&callback).await;
    assert!(matches!(page.status, 403 | 503), "{}", page.text());
    assert_eq!(browser.cookie_names(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_names_what_to_mend() {
    let lab = Setup::default().gitlab("client_secret = \"wrong\"\n").start().await;
    let page = lab.browser().sign_in("/private", "alice").await;
    assert_eq!(page.status, 502);
    assert!(page.text().contains("client_secret"), "{}", page.text());
    assert!(!page.text().contains("wrong\""));
    // So does an application that no longer exists, or lost its redirect URI: that GitLab tells by a page of its own.
    lab.gitlab.command(Command::Register(Application::new(CLIENT_ID, "x", &[]))).expect("one");
    let page = lab.browser().sign_in("/private", "alice").await;
    assert!(page.text().contains("redirect URI"), "{}", page.text());
    assert_ne!(page.url.host_str(), Some("app.example.test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_down_at_start_is_waited_for() {
    let lab = Setup::default().start().await;
    for endpoint in [Endpoint::Discovery, Endpoint::Token, Endpoint::Keys, Endpoint::ApiUser] {
        lab.gitlab.fail(Fault::new(endpoint, 1000, Failure::Refuse));
    }
    let late = lab.replica();
    let mut browser = lab.browser();
    browser.point_at(late.addr());
    assert_eq!(browser.navigate("/").await.status, 200, "what is public is served");
    let page = browser.sign_in("/private", "alice").await;
    assert_eq!(page.status, 503, "{}", page.text());
    assert_ne!(page.answer.header("retry-after"), "");
    lab.gitlab.clear_faults();
    until("sign-ins work again", async || {
        let mut browser = lab.browser();
        browser.point_at(late.addr());
        browser.sign_in("/private", "alice").await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_that_names_another_issuer_lets_nobody_in() {
    let lab = Lab::start().await;
    lab.gitlab.overlay(Document::Discovery, json!({ "issuer": "https://evil.test" }));
    let suspicious = lab.replica();
    let mut browser = lab.browser();
    browser.point_at(suspicious.addr());
    let page = browser.sign_in("/private", "alice").await;
    assert_eq!(page.status, 502, "{}", page.text());
    assert_eq!(browser.cookie_names(), [""; 0]);
    // Other endpoints in it move nothing: all of them are fixed below the base URL.
    let evil = "http://127.0.0.1:1/";
    let members = json!({ "token_endpoint": evil, "jwks_uri": evil, "userinfo_endpoint": evil, "authorization_endpoint": evil });
    lab.gitlab.overlay(Document::Discovery, members);
    let indifferent = lab.replica();
    browser.point_at(indifferent.addr());
    assert_eq!(browser.sign_in("/private", "alice").await.status, 200);
}

/// A sign-in of alice during which `fault` happens.
async fn failing(fault: Fault) -> (Lab, Page, Browser) {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let callback = lab.callback(&browser.begin("/private").await, "alice").await;
    lab.gitlab.fail(fault);
    let page = browser.open(&callback).await;
    (lab, page, browser)
}

/// Every page of labgate's own is kept from caches, frames and scripts.
fn guarded(answer: &Answer) {
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert!(answer.header("vary").contains("Cookie"));
}
