//! Sign-ins that nobody asked for, and those that lead nowhere: neither begins, and each ends on a page that says why.

use http::Method;
use labgate::demo::gitlab::Endpoint;

use crate::support::{Browser, Lab, Page, Setup, run};

const SESSION: &str = "__Host-labgate";
const FETCHES: [&str; 6] = ["cors", "no-cors", "same-origin", "websocket", "", "Navigate"];

fn fetch<'a>(mode: &'a str, dest: &'a str, site: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("sec-fetch-mode", mode),
        ("sec-fetch-dest", dest),
        ("sec-fetch-site", site),
        ("accept", "text/html"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_navigation_begins_a_sign_in() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    for mode in FETCHES {
        for path in ["/oauth2/sign_in?rd=/private", "/oauth2/start?rd=/private&gitlab=main"] {
            let headers = fetch(mode, "empty", "same-origin");
            let answer = browser.request(Method::GET, path, &headers, "").await;
            assert_eq!(answer.status, 401, "{mode} {path}");
            assert!(answer.cookies().is_empty(), "{mode} {path}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let sign_in = answer.json()["sign_in"].as_str().expect("a URL").to_owned();
            let expected = "https://app.example.test/oauth2/sign_in?rd=https%3A%2F%2Fapp.example.test%2Fprivate";
            assert_eq!(sign_in, expected);
        }
    }
    assert_eq!(lab.gitlab.hits(Endpoint::Authorize), 0);
    // A storm of tabs that fetch leaves the one sign-in of the person alone.
    let authorize = browser.begin("/private").await;
    for _ in 0..20 {
        browser.xhr("/oauth2/sign_in?rd=/private").await;
    }
    let page = browser.open(&lab.callback(&authorize, "alice").await).await;
    assert_eq!(page.status, 200, "{}", page.text());
    // Who says nothing of how they fetch is an old browser.
    let plain = [("accept", "text/html")];
    assert_eq!(browser.request(Method::GET, "/oauth2/sign_in", &plain, "").await.status, 302);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_sign_in_host_fetches_are_refused_before_it() {
    let lab = with_hub().await;
    let mut browser = lab.browser();
    for host in ["https://app.example.test", "https://auth.example.test"] {
        let answer = browser.xhr(&format!("{host}/oauth2/sign_in?rd=/private")).await;
        assert_eq!(answer.status, 401, "{host}");
        assert!(answer.cookies().is_empty(), "{host}");
        assert!(answer.json()["sign_in"].as_str().expect("a URL").starts_with(host));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_another_site_are_told_to_leave_and_those_of_the_same_work() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    for dest in ["iframe", "frame", "embed", "object"] {
        let headers = fetch("navigate", dest, "cross-site");
        let answer =
            browser.request(Method::GET, "/oauth2/sign_in?rd=/private", &headers, "").await;
        assert_eq!(answer.status, 400, "{dest}");
        assert!(answer.cookies().is_empty(), "{dest}");
        assert!(answer.text().contains("inside another site"), "{}", answer.text());
        for site in ["same-origin", "same-site", "none"] {
            let headers = fetch("navigate", dest, site);
            let answer =
                browser.request(Method::GET, "/oauth2/sign_in?rd=/private", &headers, "").await;
            assert_eq!(answer.status, 302, "{dest} {site}");
        }
    }
}

/// The page on which a browser ends that loses each cookie whose name begins with `start`.
async fn losing(lab: &Lab, start: &str, path: &str) -> (Browser, Page) {
    let mut browser = lab.browser();
    // GitLab knows them already, so that nobody has to do anything.
    browser.sign_in(path, "alice").await;
    for host in ["app.example.test", "wiki.example.test", "auth.example.test"] {
        browser.forget(host);
    }
    browser.visited.clear();
    browser.lose(start);
    let page = browser.open(path).await;
    (browser, page)
}

fn callbacks(browser: &Browser, path: &str) -> usize {
    browser.visited.iter().filter(|url| url.path() == path).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_never_comes_back_ends_on_a_page_after_three_rounds() {
    let lab = Lab::start().await;
    // The name of the session alone: what begins with it is lost, but what counts rounds has a name of its own prefix.
    let (mut browser, page) = losing(&lab, "__Host-labgate", "/private").await;
    assert_eq!(page.status, 400, "{}", page.text());
    assert!(page.text().contains("Signing in leads nowhere"), "{}", page.text());
    assert!(page.text().contains("does not bring back the cookie"), "{}", page.text());
    assert!(page.text().contains("sign_in_loop"));
    assert_eq!(callbacks(&browser, "/oauth2/callback"), 3);
    // It begins anew by a click, and leads where it was meant to.
    let again = page.text().replace("&#38;", "&");
    let again = again
        .split('"')
        .find(|text| text.contains("/oauth2/sign_in?rd="))
        .expect("a link")
        .to_owned();
    let page = browser.open(&again).await;
    assert_eq!((page.status, callbacks(&browser, "/oauth2/callback")), (400, 6));
    let mut cured = lab.browser();
    cured.sign_in("/private", "alice").await;
    assert_eq!(cured.open(&again).await.url.as_str(), "https://app.example.test/private");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_rounds_are_no_loop() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    browser.sign_in("/private", "alice").await;
    for _ in 0..6 {
        lab.clock.turn(61);
        let cookie = browser.cookie(SESSION).map(str::to_owned);
        assert!(cookie.is_some());
        browser.set_cookie("app.example.test", SESSION, "");
        let page = browser.open("/private").await;
        assert_eq!(page.status, 200, "{}", page.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_sign_in_often_are_no_loop() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    // Again and again, by the same tab, signed in all the time.
    for _ in 0..8 {
        assert_eq!(browser.sign_in("/oauth2/sign_in?rd=/private", "alice").await.status, 200);
    }
    // By many tabs that all began before the first came back.
    let mut browser = lab.browser();
    let mut authorize = Vec::new();
    for _ in 0..5 {
        authorize.push(browser.begin("/private").await);
    }
    for authorize in authorize {
        let callback = lab.callback(&authorize, "alice").await;
        assert_eq!(browser.open(&callback).await.status, 200);
    }
    // Refused, and as somebody else, over and over.
    let mut bob = lab.browser();
    bob.sign_in("/private", "bob").await;
    for _ in 0..5 {
        assert_eq!(bob.open("/maintainers").await.status, 403);
        let other = "/oauth2/start?rd=/maintainers&gitlab=main&account=other";
        assert_eq!(bob.sign_in(other, "bob").await.status, 403);
    }
    // Signed out, and in again.
    for _ in 0..5 {
        assert_eq!(browser.post("/oauth2/sign_out", "").await.status, 200);
        assert_eq!(browser.sign_in("/private", "alice").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_read_nothing_of_each_other_are_named() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    browser.sign_in("/private", "alice").await;
    // The session is bent on the way each time, its neighbours are not.
    for round in 2..=4 {
        browser.set_cookie("app.example.test", SESSION, "AAAA");
        let page = browser.open("/oauth2/sign_in?rd=/private").await;
        match round {
            4 => {
                assert_eq!(page.status, 400);
                assert!(page.text().contains("this server can&#39;t read it"), "{}", page.text());
                assert!(page.text().contains("session.keys"));
            },
            _ => assert_eq!(page.status, 200, "{round}: {}", page.text()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_at_either_host_of_a_hand_over_ends() {
    let lab = with_hub().await;
    let wiki = "https://wiki.example.test/private";
    for host in ["wiki.example.test", "auth.example.test"] {
        let mut browser = lab.browser();
        browser.sign_in(wiki, "alice").await;
        let mut page = None;
        // What is lost at one host alone is taken from the jar after each step.
        let mut url = wiki.to_owned();
        for _ in 0..40 {
            browser.set_cookie(host, SESSION, "");
            if host == "auth.example.test" {
                browser.set_cookie("wiki.example.test", SESSION, "");
            }
            let answer = browser.navigate(&url).await;
            if answer.status == 302 {
                answer.header("location").clone_into(&mut url);
            } else if let Some(next) = labgate::demo::gitlab::script_redirect(&answer.text()) {
                url = next;
            } else {
                page = Some(answer);
                break;
            }
        }
        let page = page.unwrap_or_else(|| panic!("an endless loop at {host}"));
        assert_eq!(page.status, 400, "{host}: {}", page.text());
        assert!(page.text().contains("Signing in leads nowhere"), "{host}: {}", page.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_cookie_the_callback_says_what_shows() {
    let lab = Setup::default().server("trusted_proxies = [\"10.0.0.0/8\"]\n").start().await;
    let html = ("accept", "text/html");
    let navigate = ("sec-fetch-mode", "navigate");
    let browser = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)");
    for (headers, words) in [
        (vec![html, navigate, browser], "or your browser has not kept its cookie"),
        (vec![html, navigate, ("sec-fetch-dest", "iframe")], "inside another site"),
        (vec![html, browser], "come here by http"),
        (vec![html, navigate, ("x-forwarded-proto", "http")], "two different things"),
        (vec![html, navigate, ("x-forwarded-host", "www.example.test")], "another address"),
        (
            vec![html, navigate, ("x-forwarded-host", "app.example.test:443")],
            "has not kept its cookie",
        ),
    ] {
        let mut nobody = lab.browser();
        let callback = "/oauth2/callback?code=x&state=y";
        let answer = nobody.request(Method::GET, callback, &headers, "").await;
        assert_eq!(answer.status, 400, "{headers:?}");
        assert!(answer.text().contains(words), "{headers:?}: {}", answer.text());
        assert!(answer.text().contains("sign_in_state") && answer.text().contains("Start again"));
        // Where cookies do come back, none of that is to blame.
        let mut begun = lab.browser();
        begun.begin("/private").await;
        let answer = begun.request(Method::GET, callback, &headers, "").await;
        assert!(answer.text().contains("has not kept its cookie"), "{headers:?}");
    }
    // A proxy that is trusted knows how the browser came.
    let config = lab.config.replace("10.0.0.0/8", "127.0.0.1/32");
    let trusting = run(&config, &lab.clock, 1);
    let mut nobody = lab.browser();
    nobody.point_at(trusting.addr());
    let headers = [html, navigate, ("x-forwarded-proto", "http")];
    let answer = nobody.request(Method::GET, "/oauth2/callback?code=x&state=y", &headers, "").await;
    assert!(answer.text().contains("come here by http"), "{}", answer.text());
}

async fn with_hub() -> Lab {
    let route = |host: &str| {
        format!("[[route]]\nhost = \"{host}\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n")
    };
    Setup::default()
        .server("sign_in_host = \"auth.example.test\"\n")
        .routes(&format!("{}{}", route("app.example.test"), route("wiki.example.test")))
        .start()
        .await
}
