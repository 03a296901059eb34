//! Signing out: for every copy of the cookie, only by a page of the same origin, and without leading anybody elsewhere.

use std::time::{Duration, Instant};

use http::Method;
use labgate::demo::gitlab::{Endpoint, Failure, Fault};

use crate::support::{Browser, Lab, Setup, until};

const SESSION: &str = "__Host-labgate";

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_every_copy_of_the_session_and_no_other() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let mut copy = alice.clone();
    let mut elsewhere = lab.signed_in("alice").await;
    let mut bob = lab.signed_in("bob").await;
    let answer = alice.post("/oauth2/sign_out", "").await;
    assert_eq!(answer.status, 200);
    let cleared = format!("{SESSION}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure");
    let counted =
        "__Secure-labgate-attempt-landed=; Path=/oauth2; Max-Age=0; HttpOnly; SameSite=Lax; Secure";
    assert_eq!(answer.cookies(), [cleared.as_str(), counted]);
    assert_eq!(answer.header("cache-control"), "no-store");
    let page = answer.text();
    assert!(page.contains("You are signed out of this site"), "{page}");
    assert!(page.contains(lab.gitlab.external_url()), "where to sign out of GitLab: {page}");
    assert_eq!(alice.cookie(SESSION), None);
    assert_eq!(copy.xhr("/private").await.status, 401);
    assert_eq!(copy.xhr("/oauth2/userinfo").await.status, 401);
    assert_eq!(elsewhere.xhr("/private").await.status, 200);
    assert_eq!(bob.xhr("/private").await.status, 200);
    // Until its lifetime is over, and for copies that were made from it.
    lab.clock.turn(11 * 3600);
    assert_eq!(copy.xhr("/private").await.status, 401);
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200, "again does no harm");
    // Who has left GitLab too is asked who they are.
    alice.forget_gitlab();
    let page = alice.open("/private").await;
    assert_eq!(page.url.path(), "/users/sign_in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_only_asks() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let answer = alice.navigate("/oauth2/sign_out?rd=/private").await;
    assert_eq!(answer.status, 200);
    assert!(answer.cookies().is_empty());
    let page = answer.text();
    assert!(page.contains("signed in as <strong><bdi>alice</bdi>"), "{page}");
    assert!(page.contains("<form method=\"post\" action=\"/oauth2/sign_out\">"), "{page}");
    let policy = answer.header("content-security-policy");
    assert!(
        policy.contains("frame-ancestors 'none'") && policy.contains("form-action"),
        "{policy}"
    );
    // With no-referrer, browsers would send `Origin: null` along with the form.
    assert_eq!(answer.header("referrer-policy"), "same-origin");
    assert_eq!(alice.xhr("/private").await.status, 200);
    let page = lab.browser().navigate("/oauth2/sign_out").await.text();
    assert!(page.contains("Nobody is signed in here"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_signs_nobody_out() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    for headers in [
        &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example.test")][..],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("origin", "https://evil.test")],
        &[("origin", "https://app.example.test.evil.test")],
        &[("origin", "http://app.example.test")],
        &[("origin", "https://app.example.test:8443")],
        &[("origin", "null")],
        &[("referer", "https://app.example.test/oauth2/sign_out")],
        &[],
    ] {
        let mut headers = headers.to_vec();
        headers.push(("accept", "text/html"));
        let answer = alice.request(Method::POST, "/oauth2/sign_out", &headers, "").await;
        assert_eq!(answer.status, 403, "{headers:?}");
        assert!(answer.cookies().is_empty(), "{headers:?}");
        assert!(answer.text().contains("another site"), "{}", answer.text());
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let same = [("sec-fetch-site", "same-origin")];
        let answer = alice.request(method.clone(), "/oauth2/sign_out", &same, "").await;
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(alice.xhr("/private").await.status, 200);
    let own = [("origin", "https://app.example.test")];
    assert_eq!(alice.request(Method::POST, "/oauth2/sign_out", &own, "").await.status, 200);
    assert_eq!(alice.xhr("/private").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_on_stays_here() {
    let lab = Lab::start().await;
    for (rd, link) in [
        ("%2Fteam%3Fa%3Db", Some("https://app.example.test/team?a=b")),
        ("%2F%2Fevil.test", None),
        ("https%3A%2F%2Fevil.test%2F", None),
        ("javascript%3Aalert(1)", None),
        ("%2Foauth2%2Fsign_out", None),
        ("%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E", None),
    ] {
        let page = lab.browser().post("/oauth2/sign_out", &format!("rd={rd}")).await.text();
        let expected = link.unwrap_or("https://app.example.test/");
        let hostile = ["evil.test", "javascript:", "<script"];
        assert!(hostile.iter().all(|word| !page.contains(word)), "{rd}: {page}");
        if link.is_some() {
            assert!(page.contains(&format!("href=\"{expected}\"")), "{rd}: {page}");
        }
        let mut alice = lab.signed_in("alice").await;
        let page = alice.navigate(&format!("/oauth2/sign_out?rd={rd}")).await.text();
        assert!(hostile.iter().all(|word| !page.contains(word)), "{rd}: {page}");
    }
    // A form of any length, or none that comes, signs out all the same.
    let mut alice = lab.signed_in("alice").await;
    let long = format!("rd=/{}", "x".repeat(100_000));
    assert_eq!(alice.post("/oauth2/sign_out", &long).await.status, 200);
    assert_eq!(alice.cookie(SESSION), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_brings_nothing_back() {
    let lab = Setup::default().session("recheck_timeout = \"100ms\"\n").start().await;
    lab.gitlab.set_access_token_lifetime(200);
    let mut alice = lab.signed_in("alice").await;
    let mut copy = alice.clone();
    lab.gitlab.fail(Fault::slow(Endpoint::ApiUser, 1, Duration::from_millis(300)));
    lab.clock.turn(250);
    assert_eq!(alice.xhr("/private").await.status, 200);
    until("GitLab is asked", async || lab.gitlab.hits(Endpoint::ApiUser) == 2).await;
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200);
    until("the flight has landed", async || {
        lab.metric("labgate_session_rechecks_total{result=\"ended\"}").await > 0.5
    })
    .await;
    assert_eq!(copy.xhr("/private").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_may_sign_in_instead() {
    let lab = Lab::start().await;
    let mut browser = lab.signed_in("bob").await;
    let page = browser.open("/maintainers").await;
    assert_eq!(page.status, 403);
    let html = page.text();
    assert!(html.contains("Sign in as someone else") && html.contains("bob"), "{html}");
    let link = html.split("href=\"").find(|part| part.contains("account=other")).expect("a link");
    let link = link.split('"').next().expect("its end").replace("&#38;", "&").replace("&amp;", "&");
    // From another site the same link does not sign anybody out of GitLab.
    let foreign = [("sec-fetch-mode", "navigate"), ("sec-fetch-site", "cross-site")];
    let answer = browser.request(Method::GET, &link, &foreign, "").await;
    assert!(!answer.header("location").contains("prompt"), "{}", answer.header("location"));
    let page = browser.sign_in(&link, "alice").await;
    assert_eq!((page.status, page.url.path()), (200, "/maintainers"));
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
}

/// Whether GitLab lets somebody who is signed in there pass without asking for consent.
async fn passes_silently(alice: &mut Browser) -> bool {
    let page = alice.open("/private").await;
    page.url.path() == "/private"
}

async fn revoking() -> Lab {
    Setup::default().gitlab("revoke_on_sign_out = true\n").start().await
}

async fn revoked(lab: &Lab, status: &str) {
    let series = format!(
        "labgate_gitlab_requests_total{{endpoint=\"revoke\",gitlab=\"main\",status=\"{status}\"}}"
    );
    until("GitLab has heard of it", async || lab.metric(&series).await > 0.5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_revoked_at_gitlab_if_and_only_if_that_is_wanted() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200);
    assert!(passes_silently(&mut alice).await);
    assert_eq!(lab.gitlab.hits(Endpoint::Revoke), 0);

    let lab = revoking().await;
    let mut alice = lab.signed_in("alice").await;
    assert!(passes_silently(&mut alice).await);
    assert_eq!(lab.browser().post("/oauth2/sign_out", "").await.status, 200, "nobody");
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200);
    revoked(&lab, "200").await;
    assert!(!passes_silently(&mut alice).await, "consent went with the tokens");
    assert_eq!(lab.gitlab.hits(Endpoint::Revoke), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_tokens_are_revoked_also_those_that_are_on_the_way() {
    let lab = revoking().await;
    lab.gitlab.set_access_token_lifetime(600);
    let alice = lab.signed_in("alice").await;
    lab.clock.turn(700);
    // The refreshed pair is in the store alone: this browser's cookie is behind.
    assert_eq!(alice.clone().xhr("/private").await.status, 200);
    let mut late = alice.clone();
    assert_eq!(late.post("/oauth2/sign_out", "").await.status, 200);
    revoked(&lab, "200").await;
    assert!(!passes_silently(&mut late).await);

    let lab = revoking().await;
    lab.gitlab.set_access_token_lifetime(600);
    let alice = lab.signed_in("alice").await;
    // GitLab has made the new pair, which labgate does not know yet.
    let late = Fault::new(Endpoint::Token, 1, Failure::LateReply);
    lab.gitlab.fail(late.after(Duration::from_millis(700)));
    lab.clock.turn(700);
    let mut tab = alice.clone();
    let request = tokio::spawn(async move { tab.xhr("/private").await });
    until("a refresh is under way", async || lab.gitlab.hits(Endpoint::Token) == 2).await;
    let mut late = alice.clone();
    assert_eq!(late.post("/oauth2/sign_out", "").await.status, 200);
    revoked(&lab, "200").await;
    assert!(!passes_silently(&mut late).await, "the pair that came late lives");
    drop(request.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitlab_that_fails_or_hangs_keeps_nobody_signed_in() {
    for fault in [
        Fault::new(Endpoint::Revoke, 1, Failure::Hang),
        Fault::new(Endpoint::Revoke, 1, Failure::Refuse),
        Fault::answer(Endpoint::Revoke, 1, 500, "text/html", "no"),
    ] {
        let lab = revoking().await;
        let mut alice = lab.signed_in("alice").await;
        let mut copy = alice.clone();
        let what = format!("{fault:?}");
        lab.gitlab.fail(fault);
        let began = Instant::now();
        let answer = alice.post("/oauth2/sign_out", "").await;
        assert_eq!(answer.status, 200, "{what}");
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
        assert!(answer.text().contains("You are signed out of this site"), "{what}");
        assert_eq!(copy.xhr("/private").await.status, 401, "{what}");
        until("GitLab was told", async || lab.gitlab.hits(Endpoint::Revoke) == 1).await;
    }
}
