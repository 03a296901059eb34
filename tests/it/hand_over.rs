//! One host where everybody signs in: it hands sessions over to the others, once, to the right browser, and all of them end together.

use http::Method;
use labgate::{
    config::Dialect,
    demo::gitlab::{Application, CLIENT_ID, CLIENT_SECRET, Command, DevGitlab, Endpoint, Options},
};
use url::Url;

use crate::support::{
    Answer, Arrived, Browser, Lab, Setup, keys, redis::Redis, replicas::Twins, run, until,
};

const SESSION: &str = "__Host-labgate";
const WIKI: &str = "https://wiki.example.test";
const REVIEW: &str = "https://mr-7.review.example.test";
const AUTH: &str = "https://auth.example.test";

const ROUTES: &str = r#"
[[route]]
host = "app.example.test"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
host = "wiki.example.test"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
host = "*.review.example.test"
upstream = "UPSTREAM"
allow = "signed-in"
"#;

fn setup() -> Setup {
    Setup::default().server("sign_in_host = \"auth.example.test\"\n").routes(ROUTES)
}

/// Follows one redirect.
async fn next(browser: &mut Browser, answer: &Answer) -> Answer {
    let location = answer.header("location").to_owned();
    assert_eq!(answer.status, 302, "{}", answer.text());
    browser.navigate(&location).await
}

/// The address with a ticket for `host` that `browser`, which is signed in, is sent to.
async fn ticket(browser: &mut Browser, host: &str) -> String {
    let asked = browser.navigate(&format!("{host}/oauth2/sign_in?rd=%2Fprivate%3Fa%3Db")).await;
    let given = next(browser, &asked).await;
    let location = given.header("location").to_owned();
    assert!(location.starts_with(&format!("{host}/oauth2/handoff?ticket=")), "{location}");
    location
}

fn sets_session(answer: &Answer) -> bool {
    let set =
        |cookie: &&str| cookie.starts_with(&format!("{SESSION}=")) && !cookie.contains("Max-Age=0");
    answer.cookies().iter().any(set)
}

fn assert_refused(answer: &Answer, why: &str) {
    assert_eq!(answer.status, 400, "{why}: {}", answer.text());
    assert!(!sets_session(answer), "{why}");
    let page = answer.text();
    assert!(page.contains("Start again") && page.contains("not signed in here"), "{why}: {page}");
    assert_eq!(answer.header("cache-control"), "no-store", "{why}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer", "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_is_met_at_one_host_and_once() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    let page = browser.sign_in(&format!("{WIKI}/private?a=b"), "alice").await;
    assert_eq!((page.url.as_str(), page.status), ("https://wiki.example.test/private?a=b", 200));
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    let callbacks = browser.visited.iter().filter(|url| url.path() == "/oauth2/callback");
    let hosts: Vec<_> = callbacks.filter_map(|url| url.host_str()).collect();
    assert_eq!(hosts, ["auth.example.test"]);
    // Nothing is left of the way there but the sessions, and what counts rounds.
    let landed = "__Host-labgate-attempt-landed";
    for host in ["wiki.example.test", "auth.example.test"] {
        assert_eq!(browser.names_of(host), [SESSION, landed], "{host}");
    }
    let of = |browser: &Browser, host| browser.cookie_of(host, SESSION).map(str::to_owned);
    assert_ne!(of(&browser, "wiki.example.test"), of(&browser, "auth.example.test"));
    // Other hosts are open to whom is known, without asking GitLab.
    let asked = lab.gitlab.hits(Endpoint::Authorize) + lab.gitlab.hits(Endpoint::Token);
    for (place, landed) in [
        (format!("{REVIEW}/private"), "https://mr-7.review.example.test/private"),
        ("/private".into(), "https://app.example.test/private"),
        (
            format!("{REVIEW}/oauth2/start?rd=/private%23x"),
            "https://mr-7.review.example.test/private#x",
        ),
    ] {
        let page = browser.open(&place).await;
        assert_eq!((page.url.as_str(), page.status), (landed, 200));
        assert!(page.text().contains("Hello, alice"));
    }
    assert_eq!(lab.gitlab.hits(Endpoint::Authorize) + lab.gitlab.hits(Endpoint::Token), asked);
    assert!(lab.count("labgate_hand_overs_total{result=\"taken\"}").await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_itself_needs_no_route() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    assert_eq!(browser.navigate(&format!("{AUTH}/")).await.status, 421);
    let page = browser.sign_in(&format!("{AUTH}/oauth2/sign_in"), "alice").await;
    assert_eq!(page.url.as_str(), "https://auth.example.test/oauth2/signed_in");
    assert!(page.text().contains("signed in as <strong><bdi>alice</bdi>"), "{}", page.text());
    assert_eq!(browser.xhr(&format!("{AUTH}/oauth2/userinfo")).await.json()["username"], "alice");
    // It can send people on to hosts that are served.
    let page = browser.open(&format!("{AUTH}/oauth2/sign_in?rd={WIKI}/private")).await;
    assert_eq!((page.url.as_str(), page.status), ("https://wiki.example.test/private", 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callback_of_other_hosts_is_refused() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    let asked = browser.navigate(&format!("{WIKI}/oauth2/start?rd=/private")).await;
    let begun = next(&mut browser, &asked).await;
    let callback = lab.callback(begun.header("location"), "alice").await;
    assert!(callback.starts_with(&format!("{AUTH}/oauth2/callback?")), "{callback}");
    let tokens = lab.gitlab.hits(Endpoint::Token);
    for host in [WIKI, REVIEW, "https://app.example.test"] {
        let answer = browser.navigate(&callback.replace(AUTH, host)).await;
        assert_eq!(answer.status, 400, "{host}");
        assert!(!sets_session(&answer) && answer.text().contains("Start again"), "{host}");
    }
    assert_eq!(lab.gitlab.hits(Endpoint::Token), tokens);
    assert_eq!(browser.open(&callback).await.url.as_str(), "https://wiki.example.test/private");
    // Not even one that began there before there was such a host.
    let lab = setup().public_url("http://app.example.test").start().await;
    let uri = "http://wiki.example.test/oauth2/callback";
    let application = Application::new(CLIENT_ID, CLIENT_SECRET, &[uri]).trusted();
    lab.gitlab.command(Command::Register(application)).expect("an application");
    let without = lab.config.replace("sign_in_host = \"auth.example.test\"\n", "");
    let before = run(&without, &lab.clock, 1);
    let mut browser = lab.browser();
    browser.point_at(before.addr());
    let begun = browser.navigate("http://wiki.example.test/oauth2/start?rd=/private").await;
    let callback = lab.callback(begun.header("location"), "alice").await;
    assert!(callback.starts_with(uri), "{callback}");
    browser.point_at(lab.app.addr());
    let answer = browser.navigate(&callback).await;
    assert!(answer.status == 400 && answer.cookies().is_empty(), "{answer:?}");
    // And without such a host there is nothing to take a ticket.
    let lab = Lab::start().await;
    assert_eq!(lab.browser().navigate("/oauth2/handoff?ticket=x").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_taken_once() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    browser.sign_in("/private", "alice").await;
    let ticket = ticket(&mut browser, WIKI).await;
    let mut copy = browser.clone();
    let taken = browser.navigate(&ticket).await;
    assert_eq!(
        (taken.status.as_u16(), taken.header("location")),
        (302, "https://wiki.example.test/private?a=b")
    );
    assert!(sets_session(&taken));
    assert_eq!(taken.header("cache-control"), "no-store");
    assert_eq!(taken.header("referrer-policy"), "no-referrer");
    // With the cookie of its nonce still there, and without.
    assert_refused(&copy.navigate(&ticket).await, "replayed by a copy of the browser");
    assert_refused(&browser.navigate(&ticket).await, "replayed by the browser itself");
    assert_eq!(browser.xhr(&format!("{WIKI}/private")).await.status, 200);
    assert_eq!(lab.count("labgate_hand_overs_total{result=\"hand_over_refused\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_takes_it() {
    let lab = setup().workers(2).start().await;
    let mut browser = lab.browser();
    browser.sign_in("/private", "alice").await;
    let ticket = ticket(&mut browser, WIKI).await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (mut copy, ticket) = (browser.clone(), ticket.clone());
        all.spawn(async move { copy.navigate(&ticket).await.status.as_u16() });
    }
    let mut statuses = all.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses.remove(0), 302);
    assert_eq!(statuses, [400; 29]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_swapped_forged_or_doubled_ticket_is_nothing() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    browser.sign_in("/private", "alice").await;
    let ticket = ticket(&mut browser, WIKI).await;
    let mut thief = lab.browser();
    assert_refused(&thief.navigate(&ticket).await, "stolen");
    // One who has begun a hand-over of their own is no better off.
    thief.navigate(&format!("{WIKI}/oauth2/sign_in?rd=/private")).await;
    assert_refused(&thief.navigate(&ticket).await, "stolen, beside a hand-over of the thief's");
    for host in [REVIEW, "https://app.example.test", "https://mr-8.review.example.test"] {
        let mut browser = browser.clone();
        browser.navigate(&format!("{host}/oauth2/sign_in?rd=/private")).await;
        assert_refused(&browser.navigate(&ticket.replace(WIKI, host)).await, host);
    }
    // Nor one for the wiki with a nonce that fits another host.
    let asked = browser.navigate(&format!("{REVIEW}/oauth2/sign_in?rd=/private")).await;
    let for_wiki = asked.header("location").replace("mr-7.review.", "wiki.");
    let given = browser.navigate(&for_wiki).await.header("location").to_owned();
    assert!(given.starts_with(WIKI) && given.contains("ticket="), "{given}");
    assert_refused(&browser.navigate(&given.replace(WIKI, REVIEW)).await, "swapped with its nonce");
    let at_hub = browser.navigate(&ticket.replace(WIKI, AUTH)).await;
    assert_eq!(at_hub.status, 404, "there is nothing to take where it is given");
    let text = ticket.split_once("ticket=").expect("a ticket").1.to_owned();
    let session = browser.cookie_of("auth.example.test", SESSION).expect("a session").to_owned();
    for (what, query) in [
        ("none", String::new()),
        ("empty", "ticket=".into()),
        ("doubled", format!("ticket={text}&ticket={text}")),
        ("doubled with junk", format!("ticket=x&ticket={text}")),
        ("bent", format!("ticket={}", text.replacen(|sign: char| sign != 'A', "A", 1))),
        ("cut", format!("ticket={}", &text[..text.len() - 4])),
        ("longer", format!("ticket={text}AAAA")),
        ("a session cookie", format!("ticket={session}")),
        ("huge", format!("ticket={}", "A".repeat(20_000))),
    ] {
        let answer = browser.clone().navigate(&format!("{WIKI}/oauth2/handoff?{query}")).await;
        assert_refused(&answer, what);
    }
    let post = [("accept", "text/html"), ("sec-fetch-site", "same-origin")];
    assert_eq!(browser.request(Method::POST, &ticket, &post, "").await.status, 405);
    // After all that it is as good as it was: only its own browser can spend it.
    assert_eq!(browser.navigate(&ticket).await.status, 302);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_ticket_is_nothing() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    browser.sign_in("/private", "alice").await;
    let late = ticket(&mut browser, WIKI).await;
    lab.clock.turn(62);
    assert_refused(&browser.navigate(&late).await, "late");
    // Nor is one whose session has ended meanwhile.
    let mut copy = browser.clone();
    let ended = ticket(&mut browser, WIKI).await;
    assert_eq!(copy.post("/oauth2/sign_out", "").await.status, 200);
    assert_refused(&browser.navigate(&ended).await, "signed out");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_in_as_somebody_else() {
    let lab = setup().start().await;
    let mut attacker = lab.browser();
    attacker.sign_in("/private", "bob").await;
    let mut victim = lab.browser();
    victim.sign_in(&format!("{WIKI}/private"), "alice").await;
    let ticket_of_bob = ticket(&mut attacker, WIKI).await;
    let answer = victim.navigate(&ticket_of_bob).await;
    assert_refused(&answer, "the attacker's ticket");
    assert_eq!(victim.xhr(&format!("{WIKI}/oauth2/userinfo")).await.json()["username"], "alice");
    // Nor where a neighbour plants the attacker's nonce: the prefix `__Host-` keeps that from browsers, and nothing else is read.
    let nonce = attacker.names_of("wiki.example.test");
    let nonce =
        nonce.into_iter().find(|name| name.contains("attempt")).expect("a nonce").to_owned();
    assert!(nonce.starts_with("__Host-labgate-attempt-"), "{nonce}");
    let value = attacker.cookie_of("wiki.example.test", &nonce).expect("its value").to_owned();
    for start in ["__Secure-", ""] {
        let tossed = nonce.replace("__Host-", start);
        victim.set_cookie("wiki.example.test", &tossed, &value);
        assert_refused(&victim.navigate(&ticket_of_bob).await, &tossed);
    }
    // A link of the attacker's to the sign-in host hands the victim over to nobody but the victim's own host.
    let link = attacker.navigate(&format!("{WIKI}/oauth2/sign_in?rd=/private")).await;
    let sent = victim.navigate(link.header("location")).await;
    let answer = next(&mut victim, &sent).await;
    assert_refused(&answer, "the attacker's nonce");
    assert_eq!(victim.xhr(&format!("{WIKI}/oauth2/userinfo")).await.json()["username"], "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_go_to_served_hosts_alone() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    browser.sign_in("/private", "alice").await;
    let nonce = "A".repeat(43);
    for rd in [
        "https://evil.test/",
        "https://wiki.example.test.evil.test/",
        "https://wiki.example.test@evil.test/",
        "https://a.b.review.example.test/",
        "https://review.example.test/",
        "http://wiki.example.test/",
        "https://wiki.example.test:8443/",
        "//evil.test",
        "/\\evil.test",
        "https://auth.example.test/",
        "https://wiki.example.test/oauth2/sign_out",
    ] {
        let rd: String = url::form_urlencoded::byte_serialize(rd.as_bytes()).collect();
        for path in ["sign_in", "start"] {
            let url = format!("{AUTH}/oauth2/{path}?rd={rd}&nonce={nonce}");
            let answer = browser.clone().navigate(&url).await;
            let location = answer.header("location");
            assert!(!location.contains("ticket="), "{rd} {path}: {location}");
        }
    }
    // Junk for a nonce is none.
    let junk = format!("{AUTH}/oauth2/sign_in?rd={WIKI}/private&nonce=short");
    assert!(!browser.navigate(&junk).await.header("location").contains("ticket="));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_on_one_host_is_one_on_all() {
    let lab = setup().start().await;
    for (host, others) in [(WIKI, [REVIEW, AUTH]), (AUTH, [WIKI, REVIEW]), (REVIEW, [WIKI, AUTH])] {
        let mut browser = lab.browser();
        browser.sign_in(&format!("{WIKI}/private"), "alice").await;
        browser.open(&format!("{REVIEW}/private")).await;
        for other in others {
            assert_eq!(browser.xhr(&format!("{other}/oauth2/userinfo")).await.status, 200);
        }
        assert_eq!(browser.post(&format!("{host}/oauth2/sign_out"), "").await.status, 200);
        for other in others {
            assert_eq!(browser.xhr(&format!("{other}/oauth2/userinfo")).await.status, 401);
            let page = browser.navigate(&format!("{other}/oauth2/sign_out")).await.text();
            assert!(page.contains("Nobody is signed in here"), "{page}");
            assert_eq!(browser.post(&format!("{other}/oauth2/sign_out"), "").await.status, 200);
        }
        // Nobody is let in again without GitLab.
        browser.forget_gitlab();
        let page = browser.open(&format!("{WIKI}/private")).await;
        assert_eq!(page.url.path(), "/users/sign_in", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_renewed_once_for_all_hosts() {
    let lab = setup().start().await;
    lab.gitlab.set_access_token_lifetime(600);
    let mut browser = lab.browser();
    browser.sign_in(&format!("{WIKI}/private"), "alice").await;
    browser.open(&format!("{REVIEW}/private")).await;
    for _ in 0..3 {
        let before = lab.gitlab.hits(Endpoint::Token);
        lab.clock.turn(700);
        let mut tabs = tokio::task::JoinSet::new();
        for host in [WIKI, REVIEW, AUTH, WIKI, REVIEW] {
            let mut tab = browser.clone();
            tabs.spawn(
                async move { tab.xhr(&format!("{host}/oauth2/userinfo")).await.status.as_u16() },
            );
        }
        assert_eq!(tabs.join_all().await, [200; 5]);
        for host in [WIKI, REVIEW, AUTH] {
            assert_eq!(browser.xhr(&format!("{host}/oauth2/userinfo")).await.status, 200);
        }
        assert_eq!(lab.gitlab.hits(Endpoint::Token), before + 1, "the pair exists once");
    }
    assert_eq!(lab.gitlab.refreshes().refused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_sign_in_at_once_and_share_the_session() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    // Both tabs are at GitLab before one of them comes back.
    let mut authorize = Vec::new();
    for host in [WIKI, REVIEW] {
        let asked = browser.navigate(&format!("{host}/private")).await;
        let asked = next(&mut browser, &asked).await;
        authorize.push(next(&mut browser, &asked).await.header("location").to_owned());
    }
    for (authorize, host) in authorize.iter().zip([WIKI, REVIEW]) {
        let callback = lab.callback(authorize, "alice").await;
        let page = browser.open(&callback).await;
        assert_eq!(page.url.as_str(), format!("{host}/private"));
        assert_eq!(page.status, 200);
    }
    for host in [WIKI, REVIEW, AUTH] {
        assert_eq!(browser.xhr(&format!("{host}/oauth2/userinfo")).await.status, 200, "{host}");
    }
    assert_eq!(browser.post(&format!("{REVIEW}/oauth2/sign_out"), "").await.status, 200);
    assert_eq!(browser.xhr(&format!("{WIKI}/private")).await.status, 401);
}

/// As after a night: a browser with many tabs, all of which come back from GitLab before the first is answered.
#[tokio::test(flavor = "multi_thread")]
async fn tabs_that_come_back_together_share_the_session_too() {
    let lab = setup().workers(2).start().await;
    let mut browser = lab.browser();
    let hosts: Vec<_> = (0..4).map(|n| format!("https://mr-{n}.review.example.test")).collect();
    let mut callbacks = Vec::new();
    for host in &hosts {
        let asked = browser.navigate(&format!("{host}/private")).await;
        let asked = next(&mut browser, &asked).await;
        let begun = next(&mut browser, &asked).await;
        callbacks.push(lab.callback(begun.header("location"), "alice").await);
    }
    let mut tabs = tokio::task::JoinSet::new();
    for callback in callbacks {
        let mut tab = browser.clone();
        tabs.spawn(async move {
            let page = tab.open(&callback).await;
            assert_eq!(page.status, 200, "{}", page.text());
            tab
        });
    }
    let mut tabs = tabs.join_all().await;
    assert_eq!(lab.count("labgate_sessions_revoked_total{cause=\"doubled\"}").await, 3);
    assert_eq!(tabs[0].post(&format!("{AUTH}/oauth2/sign_out"), "").await.status, 200);
    for tab in &mut tabs {
        for host in &hosts {
            assert_eq!(tab.xhr(&format!("{host}/private")).await.status, 401, "{host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_may_sign_in_instead_by_a_click_alone() {
    let lab = setup().start().await;
    let mut browser = lab.browser();
    browser.sign_in(&format!("{WIKI}/private"), "alice").await;
    let click =
        |site| [("sec-fetch-mode", "navigate"), ("sec-fetch-site", site), ("accept", "text/html")];
    let start = format!("{WIKI}/oauth2/start?rd=/private&gitlab=main&account=other");
    // Another site's link hands over whom is signed in already.
    let answer = browser.request(Method::GET, &start, &click("cross-site"), "").await;
    let answer =
        browser.request(Method::GET, answer.header("location"), &click("cross-site"), "").await;
    assert!(answer.header("location").contains("/handoff?ticket="), "{:?}", answer.headers);
    // Straight to the sign-in host it is a question.
    let answer = browser.request(Method::GET, &start, &click("same-origin"), "").await;
    let page =
        browser.request(Method::GET, answer.header("location"), &click("same-site"), "").await;
    assert_eq!(page.status, 200, "{:?}", page.headers);
    let html = page.text().replace("&#38;", "&");
    let link = html.split('"').find(|text| text.contains("/start?")).expect("a button").to_owned();
    let answer =
        browser.request(Method::GET, &format!("{AUTH}{link}"), &click("same-origin"), "").await;
    assert!(answer.header("location").contains("prompt=login"), "{:?}", answer.headers);
    let page = browser.open(&lab.callback(answer.header("location"), "bob").await).await;
    assert_eq!(page.url.as_str(), "https://wiki.example.test/private");
    for host in [WIKI, AUTH] {
        let who = browser.xhr(&format!("{host}/oauth2/userinfo")).await.json();
        assert_eq!(who["username"], "bob", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_gets_the_gitlab_that_it_admits() {
    let (lab, other) = two_gitlabs().await;
    let knows = || lab.browser().also_knows(other.addr(), other.external_url());
    let mut browser = knows();
    let gitlab_of = async |browser: &mut Browser, host: &str| {
        browser.xhr(&format!("{host}/oauth2/userinfo")).await.json()["gitlab"].clone()
    };
    // The wiki takes both: the page between asks, at the one host, for the wiki.
    let page = browser.open(&format!("{WIKI}/private")).await;
    assert_eq!((page.status, page.url.host_str()), (200, Some("auth.example.test")));
    assert!(page.text().contains("wiki.example.test/private"), "{}", page.text());
    let html = page.text().replace("&#38;", "&");
    let button =
        html.split('"').find(|text| text.contains("gitlab=main")).expect("main").to_owned();
    let page = browser.sign_in(&format!("{AUTH}{button}"), "alice").await;
    assert_eq!((page.url.as_str(), page.status), ("https://wiki.example.test/private", 200));
    assert_eq!(gitlab_of(&mut browser, WIKI).await, "main");
    // The team's route takes the other one only: signed in at main, they are asked there, and no loop begins.
    let before = browser.visited.len();
    let page = browser.sign_in("https://team.example.test/private", "alice").await;
    assert_eq!((page.url.as_str(), page.status), ("https://team.example.test/private", 200));
    assert!(browser.visited.len() - before < 16, "{:?}", &browser.visited[before..]);
    assert_eq!(gitlab_of(&mut browser, "https://team.example.test").await, "other");
    // The session that the wiki has stays, and is handed to nobody else.
    assert_eq!(gitlab_of(&mut browser, WIKI).await, "main");
    let page = browser.sign_in("https://main.example.test/private", "alice").await;
    assert_eq!((page.url.as_str(), page.status), ("https://main.example.test/private", 200));
    assert_eq!(gitlab_of(&mut browser, "https://main.example.test").await, "main");
    assert_eq!(browser.xhr("https://team.example.test/private").await.status, 200);
    // Who insists on one that the route does not admit is told so, and goes in no circle.
    let wrong = "https://team.example.test/oauth2/start?rd=/private&gitlab=main";
    for mut browser in [browser, knows()] {
        let page = browser.open(wrong).await;
        assert_eq!(page.status, 404);
        assert!(page.text().contains("isn&#39;t used here"), "{}", page.text());
    }
}

/// A lab with a second GitLab, and a host for each.
async fn two_gitlabs() -> (Lab, DevGitlab) {
    let other = DevGitlab::start(Options {
        listen: ([127, 0, 0, 2], 0).into(),
        redirect_uris: vec![format!("{AUTH}/oauth2/callback")],
        keys: Some(keys().await),
        ..Options::default()
    })
    .await
    .expect("a second GitLab");
    let url = other.external_url();
    let table = format!(
        "[gitlab.other]\nbase_url = \"{url}\"\nclient_id = \"{CLIENT_ID}\"\nclient_secret = \"{CLIENT_SECRET}\"\n"
    );
    let route = |host: &str, gitlab: &str| {
        format!(
            "[[route]]\nhost = \"{host}.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
             gitlab = [\"{gitlab}\"]\n"
        )
    };
    let routes = format!("{ROUTES}{}{}", route("team", "other"), route("main", "main"));
    (setup().routes(&routes).more(&table).start().await, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_was_used_and_what_was_given() {
    let house = setup().process(&[]).await;
    let mut browser = house.browser();
    browser.sign_in("/private", "alice").await;
    let used = ticket(&mut browser, WIKI).await;
    let mut copy = browser.clone();
    assert_eq!(browser.navigate(&used).await.status, 302);
    let given = ticket(&mut browser, REVIEW).await;
    house.write(&format!("{}\n[telemetry]\nlog = \"debug\"\n", house.config));
    house.labgate.line("the configuration is reloaded").await;
    assert_refused(&copy.navigate(&used).await, "used before the reload");
    assert_eq!(browser.navigate(&given).await.status, 302);
    assert_eq!(browser.xhr(&format!("{WIKI}/private")).await.status, 200);
    assert_eq!(browser.xhr(&format!("{REVIEW}/private")).await.status, 200);
    // What went through the address is in no line of the log.
    let given = ticket(&mut browser, REVIEW).await;
    assert_refused(&copy.navigate(&given).await, "another browser");
    house.labgate.line("hand_over_refused").await;
    let log = house.labgate.said();
    for text in [used, given] {
        let secret = text.split_once("ticket=").expect("a ticket").1;
        assert!(!log.contains(&secret[..40]) && !log.contains("ticket="), "a ticket in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_one_store_take_a_ticket_once_and_only_where_that_is_proven() {
    let mut redis = Redis::start().await;
    let twins: Twins = setup().twins(2, &redis.store()).await;
    let [here, there] = twins.addresses()[..] else { panic!("two of them") };
    let mut browser = twins.signed_in("alice").await;
    let used = ticket(&mut browser, WIKI).await;
    let mut copy = browser.clone();
    browser.point_at(here);
    copy.point_at(there);
    assert_eq!(browser.navigate(&used).await.status, 302);
    assert_refused(&copy.navigate(&used).await, "used at the other replica");
    // What one host hears counts at the other replica, too.
    let mut wiki = browser.clone();
    wiki.point_at(there);
    assert_eq!(wiki.xhr(&format!("{WIKI}/private")).await.status, 200);
    let unproven = ticket(&mut browser, REVIEW).await;
    redis.stop();
    let answer = browser.navigate(&unproven).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!sets_session(&answer) && answer.text().contains("Start again"));
    assert_eq!(browser.xhr(&format!("{WIKI}/private")).await.status, 200, "sessions go on");
    redis.run().await;
    until("the store is back", async || {
        let ticket = ticket(&mut browser, REVIEW).await;
        browser.navigate(&ticket).await.status == 302
    })
    .await;
    assert_eq!(browser.post(&format!("{REVIEW}/oauth2/sign_out"), "").await.status, 200);
    // As soon as that one, too, has found the store again.
    until("the other replica knows", async || {
        wiki.xhr(&format!("{WIKI}/private")).await.status == 401
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_belong_to_the_address() {
    let server = "sign_in_host = \"auth.example.test:8443\"\n";
    let lab = Setup::default()
        .server(server)
        .public_url("https://app.example.test:8443")
        .routes(ROUTES)
        .start()
        .await;
    let mut browser = lab.browser();
    let asked = browser.navigate("https://wiki.example.test:8443/private").await;
    let asked = next(&mut browser, &asked).await;
    let begun = next(&mut browser, &asked).await;
    let authorize = Url::parse(begun.header("location")).expect("a URL");
    let uri = authorize.query_pairs().find(|(name, _)| name == "redirect_uri").expect("one").1;
    assert_eq!(uri, "https://auth.example.test:8443/oauth2/callback");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_proxy_that_only_asks_leads_there_as_well() {
    // No application behind labgate: it is asked, and signs in.
    let routes = ROUTES.replace("upstream = \"UPSTREAM\"\n", "");
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]\n";
    let lab = setup().server(trusted).routes(&routes).start().await;
    let ask = async |host: &str, cookie: &str| {
        let host = host.replace("https://", "");
        let arrived = Arrived { host, ..Arrived::get("/private?a=b") }.navigation().cookie(cookie);
        arrived.ask(Dialect::Traefik, lab.app.addr()).await
    };
    let mut browser = lab.browser();
    for host in [WIKI, REVIEW] {
        let sent = ask(host, "").await;
        assert_eq!(sent.status, 302, "{host}: {}", sent.text());
        let page = browser.sign_in(sent.header("location"), "alice").await;
        assert_eq!(page.url.as_str(), format!("{host}/private?a=b"));
        assert_eq!(lab.gitlab.hits(Endpoint::Token), 1, "GitLab is met once");
        let session = browser.cookie_of(&host.replace("https://", ""), SESSION);
        let cookie = format!("{SESSION}={}", session.expect("a session of its own"));
        let answer = ask(host, &cookie).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-forwarded-user")), (200, "alice"));
        let other = if host == WIKI { REVIEW } else { WIKI };
        assert_eq!(ask(other, &cookie).await.status, 302, "it opens no other host");
    }
}
