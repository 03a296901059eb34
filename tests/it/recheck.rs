//! GitLab's word on a session: what it says is noticed within `recheck`, and its silence signs nobody out.

use std::time::{Duration, Instant};

use labgate::demo::gitlab::{Command, Document, Endpoint, Failure, Fault, Role, Tamper, UserState};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::support::{Answer, Browser, Lab, Setup, until};

/// Older than `recheck`, younger than `grace`.
const TOO_OLD: i64 = 400;
/// Older than `grace` in any case.
const PAST_GRACE: i64 = 4000;

const SESSION: &str = "__Host-labgate";

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_not_be_used_any_more_is_out() {
    for state in [UserState::Blocked, UserState::Banned, UserState::Deactivated] {
        let lab = Lab::start().await;
        let mut alice = lab.signed_in("alice").await;
        let mut bob = lab.signed_in("bob").await;
        lab.gitlab.set_state("alice", state).expect("alice");
        assert_eq!(alice.xhr("/private").await.status, 200, "{state:?}: the word is still young");
        lab.clock.turn(TOO_OLD);
        let mut copy = alice.clone();
        assert_eq!(alice.xhr("/private").await.status, 401, "{state:?}");
        assert_eq!(bob.xhr("/private").await.status, 200, "{state:?}");
        // The session is over for good, whatever GitLab says later.
        lab.gitlab.set_state("alice", UserState::Active).expect("alice");
        let answer = copy.navigate("/private").await;
        assert_eq!(answer.status, 302, "{state:?}");
        assert!(answer.header("location").contains("/oauth2/sign_in"));
        let revoked = lab.metric("labgate_sessions_revoked_total{cause=\"account\"}").await;
        assert!((revoked - 1.0).abs() < 0.1, "{revoked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_out() {
    let lab = Lab::start().await;
    let alice = lab.signed_in("alice").await;
    lab.gitlab.command(Command::DeleteUser { user: "alice".into() }).expect("alice");
    lab.clock.turn(TOO_OLD);
    until("the session has ended", async || alice.clone().xhr("/private").await.status == 401)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_membership_closes_the_door_and_a_new_one_opens_it() {
    let lab = Lab::start().await;
    let mut bob = lab.signed_in("bob").await;
    assert_eq!(bob.xhr("/team").await.status, 200);
    lab.gitlab.set_role("acme", "bob", None).expect("bob");
    // Membership of acme/web does not make him one of acme.
    lab.clock.turn(TOO_OLD);
    assert_eq!(bob.xhr("/team").await.status, 403);
    assert_eq!(bob.xhr("/private").await.status, 200, "he is still signed in");
    lab.gitlab.set_role("acme", "bob", Some(Role::Guest)).expect("bob");
    lab.clock.turn(TOO_OLD);
    assert_eq!(bob.xhr("/team").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_role_and_another_address_are_noticed() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    assert_eq!(alice.xhr("/maintainers").await.status, 200);
    lab.gitlab.set_role("acme/ops", "alice", Some(Role::Developer)).expect("alice");
    lab.gitlab.set_email("alice", "new@example.org", true).expect("alice");
    lab.clock.turn(TOO_OLD);
    let page = alice.open("/maintainers").await;
    assert_eq!(page.status, 403);
    let text = page.text().to_lowercase();
    assert!(text.contains("maintainer") && text.contains("developer"), "{text}");
    assert_eq!(email(&alice.xhr("/oauth2/userinfo").await), "new@example.org");
    lab.gitlab.set_email("alice", "other@example.org", false).expect("alice");
    lab.clock.turn(TOO_OLD);
    assert_eq!(email(&alice.xhr("/oauth2/userinfo").await), "", "not verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_somebody_else_ends_the_session() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.overlay(Document::User, json!({ "id": 3, "username": "bob" }));
    lab.gitlab.overlay(Document::Userinfo, json!({ "sub": "3" }));
    lab.clock.turn(TOO_OLD);
    assert_eq!(alice.xhr("/private").await.status, 401);
    let revoked = lab.metric("labgate_sessions_revoked_total{cause=\"other_user\"}").await;
    assert!((revoked - 1.0).abs() < 0.1, "{revoked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn active_people_are_asked_about_beside_their_requests() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    lab.clock.turn(200);
    alice.xhr("/private").await;
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked, "the word is good");
    // Due at four fifths: a GitLab that hangs is not even noticed.
    lab.gitlab.fail(Fault::slow(Endpoint::ApiUser, 1, Duration::from_secs(6)));
    lab.clock.turn(60);
    let began = Instant::now();
    assert_eq!(alice.xhr("/private").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    until("GitLab was asked", async || lab.gitlab.hits(Endpoint::Userinfo) == 2).await;
    until("the word is renewed", async || renewals(&lab).await == 1).await;
    lab.clock.turn(200);
    alice.xhr("/private").await;
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked + 1, "once was enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_at_gitlab_signs_nobody_out() {
    let html = "<html>raw words</html>";
    let (user, info) = (Endpoint::ApiUser, Endpoint::Userinfo);
    let bare = json!({ "message": "403 Forbidden - Your IP address is not allowed" });
    for fault in [
        Fault::answer(user, 9, 500, "text/html", html),
        Fault::answer(user, 9, 502, "text/html", html),
        Fault::answer(user, 9, 503, "text/html", html),
        Fault::answer(user, 9, 200, "text/html", html),
        Fault::answer(user, 9, 403, "text/html", html),
        Fault::answer(user, 9, 404, "application/json", "{}"),
        Fault::answer(user, 9, 200, "application/json", "{"),
        Fault::throttled(user, 9, "60"),
        Fault::new(user, 9, Failure::Refuse),
        Fault::new(user, 9, Failure::DropReply),
        Fault::answer(info, 9, 500, "text/html", html),
        Fault::answer(info, 9, 502, "text/html", html),
        Fault::answer(info, 9, 200, "text/html", html),
        Fault::json(info, 9, 403, &bare),
        Fault::throttled(info, 9, "60"),
        Fault::new(info, 9, Failure::Refuse),
    ] {
        let what = format!("{fault:?}");
        let lab = Lab::start().await;
        let mut alice = lab.signed_in("alice").await;
        lab.gitlab.fail(fault);
        lab.clock.turn(TOO_OLD);
        for _ in 0..3 {
            assert_eq!(alice.xhr("/private").await.status, 200, "{what}");
        }
        assert_eq!(renewals(&lab).await, 0, "{what}: GitLab gave no word");
        // Another process, which remembers nothing, asks again and gets the word.
        lab.gitlab.clear_faults();
        let replica = lab.replica();
        alice.point_at(replica.addr());
        let answer = alice.xhr("/private").await;
        assert_eq!(answer.status, 200, "{what}");
        assert_eq!(answer.cookies().len(), 1, "{what}: the cookie carries the new word");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitlab_out_of_reach_is_survived_until_grace_and_then_waited_for() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    down(&lab);
    lab.clock.turn(TOO_OLD);
    assert_eq!(alice.xhr("/private").await.status, 200);
    lab.clock.turn(PAST_GRACE);
    let page = alice.open("/private").await;
    assert_eq!(page.status, 503);
    assert_ne!(page.answer.header("retry-after"), "");
    assert!(page.text().contains("You are still signed in"), "{}", page.text());
    assert!(page.answer.cookies().is_empty(), "the session is not given up");
    let answer = alice.xhr("/private").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(alice.open("/").await.status, 200, "what is public stays open");
    lab.gitlab.clear_faults();
    until("the session revives", async || alice.clone().xhr("/private").await.status == 200).await;
    assert_eq!(lab.gitlab.hits(Endpoint::Authorize), authorized(&alice), "nobody had to sign in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_a_silent_gitlab_for_recheck_timeout_at_most() {
    let lab = Setup::default().session("recheck_timeout = \"300ms\"\n").start().await;
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.set_silent(true);
    lab.clock.turn(TOO_OLD);
    let waited = async |alice: &mut Browser| {
        let began = Instant::now();
        (alice.xhr("/private").await.status.as_u16(), began.elapsed())
    };
    let (status, first) = waited(&mut alice).await;
    assert_eq!(status, 200);
    assert!((Duration::from_millis(290)..Duration::from_secs(5)).contains(&first), "{first:?}");
    lab.clock.turn(PAST_GRACE);
    let (status, second) = waited(&mut alice).await;
    assert_eq!(status, 503);
    assert!(second < Duration::from_secs(5), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_comes_in_time_is_waited_for() {
    let lab = Lab::start().await;
    let mut bob = lab.signed_in("bob").await;
    lab.gitlab.set_role("acme", "bob", None).expect("bob");
    lab.gitlab.fail(Fault::slow(Endpoint::ApiUser, 1, Duration::from_millis(300)));
    lab.clock.turn(TOO_OLD);
    assert_eq!(bob.xhr("/team").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_ask_and_refresh_once() {
    let lab = Setup::default().session("recheck_timeout = \"20s\"\n").workers(2).start().await;
    lab.gitlab.set_access_token_lifetime(600);
    let mut alice = lab.signed_in("alice").await;
    let (tokens, asked) = (lab.gitlab.hits(Endpoint::Token), lab.gitlab.hits(Endpoint::ApiUser));
    lab.gitlab.fail(Fault::slow(Endpoint::Token, 1, Duration::from_millis(200)));
    lab.clock.turn(700);
    let mut all = JoinSet::new();
    for _ in 0..50 {
        let mut tab = alice.clone();
        all.spawn(async move { tab.xhr("/private").await });
    }
    for answer in all.join_all().await {
        assert_eq!(answer.status, 200);
        assert!(answer.cookies().iter().all(|cookie| !cookie.contains("Max-Age=0")));
        assert_eq!(answer.cookies().len(), 1, "each gets the new session");
    }
    assert_eq!(lab.gitlab.hits(Endpoint::Token), tokens + 1);
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked + 1);
    // A late request with the old cookie gets the new session too, and asks nobody.
    lab.clock.turn(30);
    let old = alice.cookie(SESSION).expect("a session").to_owned();
    let answer = alice.xhr("/private").await;
    assert_eq!((answer.status.as_u16(), answer.cookies().len()), (200, 1));
    assert_ne!(alice.cookie(SESSION), Some(old.as_str()));
    let answer = alice.xhr("/private").await;
    assert!(answer.cookies().is_empty(), "the new cookie is up to date");
    assert_eq!(lab.gitlab.hits(Endpoint::Token), tokens + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_goes_on_without_the_browser_that_caused_it() {
    let lab = Lab::start().await;
    lab.gitlab.set_access_token_lifetime(600);
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.fail(Fault::slow(Endpoint::Token, 1, Duration::from_millis(300)));
    lab.clock.turn(700);
    let mut gone = TcpStream::connect(lab.app.addr()).await.expect("a connection");
    let request = format!(
        "GET /private HTTP/1.1\r\nHost: app.example.test\r\nCookie: {SESSION}={}\r\n\r\n",
        alice.cookie(SESSION).expect("a session")
    );
    gone.write_all(request.as_bytes()).await.expect("bytes taken");
    until("the refresh is under way", async || lab.gitlab.hits(Endpoint::Token) == 2).await;
    drop(gone);
    until("the refresh is over", async || refreshes(&lab, "refreshed").await == 1).await;
    assert_eq!(alice.xhr("/private").await.status, 200);
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_renewed_ahead_of_their_end_and_each_new_pair_is_kept() {
    let lab = Lab::start().await;
    // Of all sessions' moments the last before the end.
    lab.gitlab.set_access_token_lifetime(310);
    let mut alice = lab.signed_in("alice").await;
    for round in 1..=5 {
        lab.clock.turn(290);
        assert_eq!(alice.xhr("/private").await.status, 200, "{round}");
        until(&format!("the pair {round} is new"), async || {
            refreshes(&lab, "refreshed").await == round
        })
        .await;
        assert_eq!(alice.xhr("/private").await.status, 200, "{round}");
    }
    assert_eq!(refreshes(&lab, "spent").await + refreshes(&lab, "failed").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_died_early_is_replaced() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let dead = json!({ "error": "invalid_token", "error_description": "Token was revoked." });
    lab.gitlab.fail(Fault::json(Endpoint::ApiUser, 1, 401, &dead));
    lab.clock.turn(TOO_OLD);
    assert_eq!(alice.xhr("/private").await.status, 200);
    until("it was replaced", async || refreshes(&lab, "refreshed").await == 1).await;
    assert_eq!(alice.xhr("/private").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_reply_the_session_lasts_as_long_as_its_word() {
    let lab = Lab::start().await;
    lab.gitlab.set_access_token_lifetime(200);
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.fail(Fault::new(Endpoint::Token, 1, Failure::DropReply));
    lab.clock.turn(250);
    assert_eq!(alice.xhr("/private").await.status, 200);
    until("the reply was lost", async || refreshes(&lab, "failed").await == 1).await;
    // GitLab has spent the refresh token: the next try, here of a process that remembers nothing, finds that out.
    let replica = lab.replica();
    alice.point_at(replica.addr());
    assert_eq!(alice.xhr("/private").await.status, 200, "the word is young");
    lab.clock.turn(100);
    until("nothing more can be asked", async || alice.clone().xhr("/private").await.status == 401)
        .await;
    // Who navigates passes through GitLab without being asked anything.
    let page = alice.open("/private").await;
    assert_eq!((page.status, page.url.path()), (200, "/private"));
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    assert_eq!(alice.xhr("/private").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_cookie_does_not_end_the_newer_one() {
    let lab = Lab::start().await;
    lab.gitlab.set_access_token_lifetime(200);
    let mut alice = lab.signed_in("alice").await;
    let mut old = alice.clone();
    lab.clock.turn(250);
    alice.xhr("/private").await;
    until("the tokens are new", async || {
        renewals(&lab).await == 1 && refreshes(&lab, "refreshed").await == 1
    })
    .await;
    alice.xhr("/private").await;
    assert_ne!(alice.cookie(SESSION), old.cookie(SESSION));
    // A process that does not know the newer copy hears of the old one first.
    let replica = lab.replica();
    alice.point_at(replica.addr());
    lab.clock.turn(TOO_OLD);
    old.point_at(replica.addr());
    let asked = lab.gitlab.hits(Endpoint::Token);
    let old = tokio::spawn(async move { old.xhr("/private").await.status.as_u16() });
    until("the old one is in the air", async || lab.gitlab.hits(Endpoint::Token) > asked).await;
    assert_eq!(alice.xhr("/private").await.status, 200, "it waits for the other's answer");
    assert_eq!(old.await.expect("an answer"), 401);
    assert_eq!(alice.xhr("/private").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_tokens_end_the_session_when_its_word_is_old() {
    let lab = Lab::start().await;
    let alice = lab.signed_in("alice").await;
    lab.gitlab.command(Command::RevokeTokens { user: "alice".into() }).expect("alice");
    assert_eq!(alice.clone().xhr("/private").await.status, 200);
    lab.clock.turn(TOO_OLD);
    until("the session has ended", async || alice.clone().xhr("/private").await.status == 401)
        .await;
    assert_eq!(refreshes(&lab, "spent").await, 1, "asked once, and remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_token_endpoint_is_left_alone_and_rechecks_go_on() {
    let lab = Lab::start().await;
    let mut people = Vec::new();
    for _ in 0..10 {
        people.push(lab.signed_in("alice").await);
    }
    let asked = lab.gitlab.hits(Endpoint::ApiUser);
    lab.gitlab.fail(Fault::throttled(Endpoint::Token, 100, "60"));
    // That limit counts for sign-ins: after the first 429 no other one asks.
    let page = lab.browser().sign_in("/private", "bob").await;
    assert_eq!((page.status, page.answer.header("retry-after")), (503, "60"));
    let page = lab.browser().sign_in("/private", "carol").await;
    assert_eq!(page.status, 503);
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 11);
    lab.clock.turn(TOO_OLD);
    for alice in &mut people {
        assert_eq!(alice.xhr("/private").await.status, 200);
    }
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), asked + 10);
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 11);
}

/// Everything that labgate asks of GitLab breaks off; what browsers see there goes on.
fn down(lab: &Lab) {
    let asked = [Endpoint::Discovery, Endpoint::Token, Endpoint::ApiUser, Endpoint::Userinfo];
    for endpoint in asked {
        lab.gitlab.fail(Fault::new(endpoint, 10_000, Failure::Refuse));
    }
}

async fn renewals(lab: &Lab) -> u64 {
    count(lab, "labgate_session_rechecks_total{result=\"renewed\"}").await
}

async fn refreshes(lab: &Lab, result: &str) -> u64 {
    count(lab, &format!("labgate_session_refreshes_total{{result=\"{result}\"}}")).await
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
async fn count(lab: &Lab, series: &str) -> u64 {
    lab.metric(series).await as u64
}

/// How often a browser was at GitLab's authorize page.
fn authorized(browser: &Browser) -> u64 {
    browser.visited.iter().filter(|url| url.path() == "/oauth/authorize").count() as u64
}

fn email(userinfo: &Answer) -> String {
    userinfo.json()["email"].as_str().unwrap_or_default().to_owned()
}

/// GitLab may write its issuer with a final slash, which labgate knows only after it could ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_gitlab_is_silent_loses_nobody_whatever_the_issuer_looks_like() {
    let lab = Lab::start().await;
    let slashed = format!("{}/", lab.gitlab.external_url());
    lab.gitlab.overlay(Document::Discovery, json!({ "issuer": slashed }));
    lab.gitlab.tamper(Tamper::claim("iss", json!(slashed)));
    let restarted = lab.replica();
    let mut alice = lab.browser();
    alice.point_at(restarted.addr());
    assert_eq!(alice.sign_in("/private", "alice").await.status, 200);
    lab.gitlab.set_silent(true);
    let again = lab.replica();
    alice.point_at(again.addr());
    assert_eq!(alice.xhr("/private").await.status, 200);
    assert!(alice.cookie(SESSION).is_some());
}

/// RFC 9111: a cache between must not hand one person's session to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_session_rides_on_no_cacheable_response() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    lab.clock.turn(TOO_OLD);
    let answer = alice.xhr("/private").await;
    assert_eq!(answer.status, 200);
    assert!(answer.cookies().iter().any(|cookie| cookie.starts_with(SESSION)), "it is renewed");
    assert!(answer.header("cache-control").contains("private"), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_an_unconfirmed_session_comes_back_by_itself() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.set_silent(true);
    lab.clock.turn(PAST_GRACE);
    let page = alice.navigate("/private").await;
    assert_eq!(page.status, 503);
    assert_eq!(page.header("refresh"), page.header("retry-after"));
    assert!(!page.header("refresh").is_empty());
}
