//! The session cookie: its attributes, its deadlines, its keys, and everything that a browser or an attacker may put in its place.

use std::collections::BTreeSet;

use labgate::{
    demo::gitlab::{DevGitlab, Endpoint, Options, Role},
    session::{KeyRing, Random},
};

use crate::support::{HOST, Lab, Setup, keys, run, send_raw, until};

const SESSION: &str = "__Host-labgate";

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_the_hosts_own_and_out_of_reach_of_scripts() {
    for (public, session, name, attributes) in [
        ("https", "", SESSION, "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure"),
        ("http", "", "labgate", "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax"),
        (
            "https",
            "cookie = { name = \"door\", same_site = \"none\" }\nlifetime = \"1h\"\n",
            "__Host-door",
            "Path=/; Max-Age=3600; HttpOnly; SameSite=None; Secure",
        ),
        (
            "https",
            "cookie = { domain = \"example.test\" }\n",
            "__Secure-labgate",
            "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure; Domain=example.test",
        ),
    ] {
        let origin = format!("{public}://{HOST}");
        let lab = Setup::default().public_url(&origin).session(session).start().await;
        let mut browser = lab.browser();
        let start = browser.navigate(&format!("{origin}/oauth2/start?rd=/private")).await;
        let [attempt] = start.cookies()[..] else { panic!("{start:?}") };
        assert!(
            attempt.contains("; Path=/oauth2; Max-Age=600; HttpOnly; SameSite=Lax"),
            "{attempt}"
        );
        assert_eq!(attempt.contains("; Secure"), public == "https", "{attempt}");
        assert!(!attempt.contains("Domain"), "{attempt}");

        let callback = lab.callback(start.header("location"), "alice").await;
        let answer = browser.navigate(&callback).await;
        let landed = answer.header("location").to_owned();
        assert_eq!((answer.status.as_u16(), landed), (302, format!("{origin}/private")));
        assert_eq!(answer.header("cache-control"), "no-store");
        let [set, ended, counted] = answer.cookies()[..] else { panic!("{answer:?}") };
        let (pair, given) = set.split_once("; ").expect("attributes");
        let (given_name, value) = pair.split_once('=').expect("a value");
        assert_eq!((given_name, given), (name, attributes));
        assert!(set.len() <= 4096 && value.len() > 100);
        assert!(ended.contains("Max-Age=0"), "{ended}");
        assert!(
            counted.contains("-attempt-landed=") && counted.contains("Max-Age=60"),
            "{counted}"
        );
        assert_eq!(browser.cookie_names(), [name]);
        assert_eq!(browser.navigate(&format!("{origin}/private")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_lifetime_however_busy_it_is() {
    let lab = Setup::default().session("lifetime = \"10m\"\n").start().await;
    let mut alice = lab.signed_in("alice").await;
    for _ in 0..5 {
        lab.clock.turn(115);
        assert_eq!(alice.xhr("/private").await.status, 200);
    }
    lab.clock.turn(30);
    assert_eq!(alice.xhr("/private").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_it_is_idle_and_only_then() {
    let lab = Setup::default().session("idle_timeout = \"10m\"\n").start().await;
    let mut alice = lab.signed_in("alice").await;
    let forgotten = alice.clone();
    for _ in 0..4 {
        lab.clock.turn(500);
        assert_eq!(alice.xhr("/private").await.status, 200);
    }
    assert_eq!(alice.xhr("/oauth2/userinfo").await.status, 200);
    lab.clock.turn(601);
    assert_eq!(alice.xhr("/private").await.status, 401);
    // Nor does a copy from before count.
    assert_eq!(forgotten.clone().xhr("/private").await.status, 401);
    assert_eq!(alice.open("/private").await.status, 200, "GitLab lets them straight through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_second_process_lose_nobody() {
    let mut lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let begun = alice.begin("/private?after").await;
    let second = lab.replica();
    alice.point_at(second.addr());
    assert_eq!(alice.xhr("/private").await.status, 200);
    std::mem::replace(&mut lab.app, second).drain().await;
    // A sign-in that began before ends after.
    let page = alice.open(&lab.callback(&begun, "alice").await).await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private?after");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_losing_a_session() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let begun = alice.begin("/private?tab=2").await;
    let old = alice.cookie(SESSION).expect("a session").to_owned();
    let new_key = KeyRing::generate(&Random::system()).expect("random numbers");
    let both = lab.config.replace("keys = [\"", &format!("keys = [\"{}\", \"", *new_key));
    let rotated = run(&both, &lab.clock, 1);
    alice.point_at(rotated.addr());
    let answer = alice.xhr("/private").await;
    assert_eq!((answer.status.as_u16(), answer.cookies().len()), (200, 1), "it is sealed anew");
    assert_ne!(alice.cookie(SESSION), Some(old.as_str()));
    assert!(alice.xhr("/private").await.cookies().is_empty(), "once");
    let page = alice.clone().open(&lab.callback(&begun, "alice").await).await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private?tab=2");

    // With the old key gone, what it sealed is worth nothing, and what was sealed anew still counts.
    let from = lab.config.find("keys = [\"").expect("keys");
    let until = from + lab.config[from..].find(']').expect("an end");
    let only = format!("{}keys = [\"{}\"{}", &lab.config[..from], *new_key, &lab.config[until..]);
    let later = run(&only, &lab.clock, 1);
    alice.point_at(later.addr());
    assert_eq!(alice.xhr("/private").await.status, 200);
    let mut late = alice.clone();
    late.set_cookie(HOST, SESSION, &old);
    assert_eq!(late.clone().xhr("/private").await.status, 401);
    let page = late.open("/private").await;
    assert_eq!((page.status, page.url.path()), (200, "/private"), "one way through GitLab");
    let at_gitlab = late.visited.iter().filter(|url| url.path() == "/oauth/authorize").count();
    assert!(
        at_gitlab
            <= alice.visited.iter().filter(|url| url.path() == "/oauth/authorize").count() + 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_belongs_to_the_gitlab_that_made_it() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let options = Options { keys: Some(keys().await), ..Options::default() };
    let other = DevGitlab::start(options).await.expect("another GitLab");
    let moved = lab.config.replace(lab.gitlab.external_url(), other.external_url());
    let moved = run(&moved, &lab.clock, 1);
    let renamed = lab.config.replace("[gitlab.main]", "[gitlab.renamed]");
    let renamed = run(&renamed, &lab.clock, 1);
    for labgate in [&moved, &renamed] {
        alice.point_at(labgate.addr());
        assert_eq!(alice.xhr("/private").await.status, 401);
    }
    alice.point_at(lab.app.addr());
    assert_eq!(alice.xhr("/private").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_was_touched_is_no_cookie() {
    let lab = Lab::start().await;
    let alice = lab.signed_in("alice").await;
    let good = alice.cookie(SESSION).expect("a session").to_owned();
    let plain = lab.browser().xhr("/private").await;
    let mut bad: Vec<String> = (0..good.len())
        .step_by(11)
        .map(|at| {
            let other = if good.as_bytes()[at] == b'A' { 'B' } else { 'A' };
            format!("{}{other}{}", &good[..at], &good[at + 1..])
        })
        .collect();
    bad.extend((0..good.len()).step_by(37).map(|length| good[..length].to_owned()));
    bad.push(good.chars().rev().collect());
    bad.push(format!("{good}{good}"));
    bad.push(format!("{good}A"));
    bad.push(format!("{good}="));
    bad.push(format!("\"{good}\""));
    bad.push(good.to_lowercase());
    for cookie in bad {
        let mut browser = lab.browser();
        browser.set_cookie(HOST, SESSION, &cookie);
        let answer = browser.xhr("/private").await;
        assert_eq!(answer.status, plain.status, "{cookie}");
        // But for the request id it is the answer that a stranger gets.
        let told = |answer: &crate::support::Answer| {
            let mut told = answer.json();
            told.as_object_mut().expect("an object").remove("request_id");
            told.as_object_mut().expect("an object").remove("instance");
            told
        };
        assert_eq!(told(&answer), told(&plain), "{cookie}");
    }
    for name in
        ["labgate", "__Secure-labgate", "__host-labgate", "__HOST-labgate", "__Host-Labgate"]
    {
        let mut browser = lab.browser();
        browser.set_cookie(HOST, name, &good);
        assert_eq!(browser.xhr("/private").await.status, 401, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_around_the_cookie_locks_nobody_out() {
    let lab = Lab::start().await;
    let good = lab.signed_in("alice").await.cookie(SESSION).expect("a session").to_owned();
    let status = async |cookies: &str| {
        let head = format!(
            "GET /private HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\nConnection: close\r\n{cookies}\r\n"
        );
        let answer = send_raw(lab.app.addr(), head.as_bytes()).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let many = "a=b; ".repeat(500);
    for (cookies, expected) in [
        (format!("Cookie: {SESSION}={good}\r\n"), "200"),
        (format!("Cookie: {SESSION}=junk; {SESSION}={good}\r\n"), "200"),
        (format!("Cookie: {SESSION}={good}; {SESSION}=junk\r\n"), "200"),
        (format!("Cookie: {SESSION}=junk\r\nCookie: {SESSION}={good}\r\n"), "200"),
        (format!("Cookie: {many}{SESSION}={good}\r\n"), "200"),
        (format!("Cookie: =;; ;a;{SESSION}={good};\r\n"), "200"),
        (format!("Cookie: $Version=1; {SESSION}={good}; $Path=/\r\n"), "401"),
        (format!("Cookie: a=\"x; {SESSION}={good}; b=\"\r\n"), "401"),
        (format!("Cookie: a=\"{SESSION}={good}\"\r\n"), "401"),
        (format!("Cookie: a=x,{SESSION}={good}\r\n"), "401"),
        (format!("Cookie: {SESSION}=\"{good}\"\r\n"), "401"),
        (format!("Cookie: x{SESSION}={good}\r\n"), "401"),
        (format!("Cookie: {SESSION}={}\r\n", "A".repeat(16_000)), "401"),
        (format!("Cookie: {}\r\n", "a=;".repeat(10_000)), "401"),
    ] {
        let got = status(&cookies).await;
        assert_eq!(got, expected, "{}", &cookies[..cookies.len().min(200)]);
    }
    // 100 kB are more than a head may have.
    let huge = format!("Cookie: {SESSION}={}\r\n", "A".repeat(100_000));
    assert!(status(&huge).await.starts_with('4'));
    assert_eq!(status(&format!("Cookie: {SESSION}={good}\r\n")).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sign_in_is_a_new_session_and_ends_the_browsers_old_one() {
    let lab = Lab::start().await;
    let mut seen = BTreeSet::new();
    let mut alice = lab.signed_in("alice").await;
    let mut old = lab.browser();
    for _ in 0..5 {
        let cookie = alice.cookie(SESSION).expect("a session").to_owned();
        old.set_cookie(HOST, SESSION, &cookie);
        assert_eq!(old.xhr("/private").await.status, 200);
        assert!(seen.insert(cookie));
        alice.open("/oauth2/sign_in?rd=/private").await;
        assert_eq!(alice.xhr("/private").await.status, 200);
        assert_eq!(old.xhr("/private").await.status, 401, "the one from before is revoked");
    }
    // A session that somebody planted becomes nobody's.
    let attacker = lab.signed_in("bob").await;
    let mut victim = lab.browser();
    victim.set_cookie(HOST, SESSION, attacker.cookie(SESSION).expect("a session"));
    let page = victim.sign_in("/oauth2/sign_in?rd=/private", "alice").await;
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    assert_ne!(victim.cookie(SESSION), attacker.cookie(SESSION));
    assert_eq!(attacker.clone().xhr("/private").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_to_the_old_session_does_not_end_the_new_one() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let mut late = alice.clone();
    alice.open("/oauth2/sign_in?rd=/private").await;
    // The answer to a request that left before the new cookie came reaches the browser after it.
    let answer = late.xhr("/private").await;
    assert_eq!(answer.status, 401);
    assert!(answer.cookies().is_empty(), "{:?}", answer.cookies());
    assert_eq!(alice.xhr("/private").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_renewal_of_the_old_session_does_not_replace_the_new_one() {
    let routes = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    let lab = Setup::default().routes(routes).workers(2).start().await;
    let mut alice = lab.signed_in("alice").await;
    lab.clock.turn(400);
    let mut slow = alice.clone();
    let renewed = lab.gitlab.hits(Endpoint::ApiUser) + 1;
    let late = tokio::spawn(async move { slow.xhr("/slow?ms=1500").await });
    until("its word is renewed", async || lab.gitlab.hits(Endpoint::ApiUser) == renewed).await;
    alice.open("/oauth2/sign_in?rd=/private").await;
    let answer = late.await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.cookies().is_empty(), "{:?}", answer.cookies());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_groups_fit_as_far_as_rules_need_them() {
    let lab = Lab::start().await;
    lab.gitlab.add_groups("alice", 5000).expect("alice");
    lab.gitlab.set_role("acme/ops", "alice", Some(Role::Owner)).expect("alice");
    // The browser of the tests refuses cookies above 4096 bytes.
    let mut alice = lab.signed_in("alice").await;
    for path in ["/team", "/maintainers", "/private"] {
        assert_eq!(alice.xhr(path).await.status, 200, "{path}");
    }
    let groups = alice.xhr("/oauth2/userinfo").await.json()["groups"].clone();
    let groups = groups.as_object().expect("groups");
    assert!(groups.contains_key("acme") && groups.contains_key("acme/ops"), "{groups:?}");
    assert!(groups.len() > 10, "as many as fit: {}", groups.len());
    lab.clock.turn(400);
    assert_eq!(alice.xhr("/maintainers").await.status, 200, "after a recheck too");
    // With groups narrowed to none, only those of rules are kept.
    let lab = Setup::default().identity("groups = []\n").start().await;
    lab.gitlab.add_groups("alice", 5000).expect("alice");
    let mut alice = lab.signed_in("alice").await;
    assert_eq!(alice.xhr("/maintainers").await.status, 200);
    assert!(alice.cookie(SESSION).expect("a session").len() < 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_neither_sees_nor_sets_labgates_cookies() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    alice.begin("/private").await;
    alice.set_cookie(HOST, "first", "1");
    alice.set_cookie(HOST, "__secure-LABGATE", "x");
    alice.set_cookie(HOST, "last", "a=b c");
    let echo = alice.xhr("/echo").await.json();
    let cookies = echo["headers"].as_array().expect("pairs").iter();
    let cookies: Vec<_> = cookies.filter(|pair| pair[0] == "cookie").map(|pair| &pair[1]).collect();
    assert_eq!(cookies, ["first=1; last=a=b c"]);
    let answer = alice.xhr("/headers").await;
    let labgates = |cookie: &&str| cookie.to_ascii_lowercase().contains("labgate");
    assert!(!answer.cookies().is_empty());
    assert_eq!(answer.cookies().into_iter().find(labgates), None);
    assert_eq!(alice.xhr("/private").await.status, 200);
}
