//! Where browsers are sent: every shape of `rd` and of the path itself ends on a host that labgate serves, all the way.

use url::Url;

use crate::support::{Lab, Setup, send_raw};

const HOSTILE: &[&str] = &[
    "//evil.test",
    "///evil.test",
    "////evil.test//",
    "/\\evil.test",
    "\\\\evil.test",
    "\\/evil.test",
    "/\t/evil.test",
    "/\r\n/evil.test",
    "\u{1}//evil.test",
    " //evil.test",
    "\u{b}//evil.test",
    "/\u{0}/evil.test",
    "https:evil.test",
    "https:/evil.test",
    "https:///evil.test",
    "https:\\\\evil.test",
    "https://evil.test",
    "HTTPS://EVIL.TEST",
    "http://app.example.test/private",
    "https://app.example.test@evil.test/",
    "https://user:pass@app.example.test/private",
    "https://app.example.test:8443/private",
    "https://app.example.test.evil.test/",
    "https://evilapp.example.test/",
    "https://xapp.example.test/",
    "https://app.example.test%2eevil.test/",
    "https://app.example.test\\.evil.test/",
    "https://evil\u{3002}test/",
    "https://\u{ff45}vil.test/",
    "https://\u{200b}evil.test/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "blob:https://app.example.test/1",
    "intent://evil.test#Intent;end",
    "file:///etc/passwd",
    "ws://app.example.test/",
    "/oauth2/sign_out?rd=//evil.test",
    "/oauth2/start?rd=//evil.test",
    "/x/../oauth2/callback",
    "/x/..//evil.test",
    "/.//evil.test",
    "/%2e%2e//evil.test",
    "/\r\nSet-Cookie: x=y",
    "/\u{560d}\u{560a}Set-Cookie: x=y",
    "\"><script>alert(1)</script>",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_return_address_leads_out() {
    let lab = Lab::start().await;
    for rd in HOSTILE {
        let mut browser = lab.browser();
        let encoded: String = url::form_urlencoded::byte_serialize(rd.as_bytes()).collect();
        let page = browser.sign_in(&format!("/oauth2/sign_in?rd={encoded}"), "alice").await;
        assert!(browser.cookie("__Host-labgate").is_some(), "{rd:?}: {}", page.text());
        let inside = |url: &Url| {
            url.host_str() == Some("app.example.test")
                && url.scheme() == "https"
                && url.port().is_none()
                || url.as_str().starts_with(&lab.gitlab.url())
        };
        for url in &browser.visited {
            assert!(inside(url) && url.username().is_empty(), "{rd:?} led to {url}");
        }
        assert!(!page.url.path().starts_with("/oauth2"), "{rd:?} led to {}", page.url);
        assert!(browser.cookie("x").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_doubled_return_addresses_counts() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let page = browser.sign_in("/oauth2/sign_in?rd=/private&rd=https://evil.test", "alice").await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_looks_like_a_host_stays_a_path() {
    let routes = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    let lab = Setup::default().routes(routes).start().await;
    for path in
        ["//evil.test/", "//evil.test/a?b=c", "///evil.test", "/%5Cevil.test", "/%09/evil.test"]
    {
        let mut browser = lab.browser();
        let page = browser.sign_in(path, "alice").await;
        assert_eq!(page.url.host_str(), Some("app.example.test"), "{path}");
        assert_eq!(page.url.as_str(), format!("https://app.example.test{path}"));
        for url in &browser.visited {
            assert_ne!(url.host_str(), Some("evil.test"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn harmless_addresses_survive_byte_for_byte() {
    let lab = Lab::start().await;
    for path in [
        "/private/?a=b&c=%2F%3F&d=&&e",
        "/private/a%2Fb%20c",
        "/private/k%C3%A4se?q=%E2%82%AC",
        "/private/+?x=+%2B",
        "/private/a;b=c,d:e@f!$'()*",
        "/private?rd=https://evil.test/",
    ] {
        let page = lab.browser().sign_in(path, "alice").await;
        assert_eq!(page.url.as_str(), format!("https://app.example.test{path}"));
    }
    let encoded = "%2Fprivate%3Fa%3Db%23part%2Fx";
    let page = lab.browser().sign_in(&format!("/oauth2/start?rd={encoded}"), "alice").await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private?a=b#part/x");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_that_routes_name_are_followed_on_their_scheme_and_port() {
    let lab = two_hosts().await;
    let rd =
        |url: &str| -> String { url::form_urlencoded::byte_serialize(url.as_bytes()).collect() };
    for (wanted, landed) in [
        ("https://wiki.example.test/page?x=y", "https://wiki.example.test/page?x=y"),
        ("https://wiki.example.test:8443/", "https://app.example.test/"),
        ("http://wiki.example.test/", "https://app.example.test/"),
        ("https://a.wiki.example.test/", "https://app.example.test/"),
    ] {
        let mut browser = lab.browser();
        let authorize = browser.navigate(&format!("/oauth2/start?rd={}", rd(wanted))).await;
        let callback = lab.callback(authorize.header("location"), "alice").await;
        let answer = browser.navigate(&callback).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, landed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_its_own_session() {
    let lab = two_hosts().await;
    let mut browser = lab.browser();
    let page = browser.sign_in("https://wiki.example.test/private", "alice").await;
    assert_eq!(page.url.as_str(), "https://wiki.example.test/private");
    assert_eq!(page.status, 200, "{}", page.text());
    // The cookie of one host is worth nothing at the other, whoever carries it there.
    let cookie = browser.cookie("__Host-labgate").expect("a session").to_owned();
    let mut thief = lab.browser();
    thief.set_cookie("app.example.test", "__Host-labgate", &cookie);
    assert_eq!(thief.xhr("/private").await.status, 401);
    thief.set_cookie("wiki.example.test", "__Host-labgate", &cookie);
    assert_eq!(thief.xhr("https://wiki.example.test/private").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_dropped() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let rd = format!("/private?x={}", "a".repeat(20_000));
    let answer = browser.navigate(&format!("/oauth2/start?rd={rd}")).await;
    assert_eq!(answer.status, 302);
    assert!(answer.cookies().iter().all(|cookie| cookie.len() < 1000), "{:?}", answer.cookies());
    let page = browser.open(&lab.callback(answer.header("location"), "alice").await).await;
    assert_eq!(page.url.as_str(), "https://app.example.test/");
    // 100 kB are more than a head may have at all.
    let head = format!(
        "GET /oauth2/start?rd=/{} HTTP/1.1\r\nHost: app.example.test\r\n\r\n",
        "a".repeat(100_000)
    );
    let answer = send_raw(lab.app.addr(), head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

/// A lab that serves a second host by name.
async fn two_hosts() -> Lab {
    let routes = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
                  [[route]]\nhost = \"wiki.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    Setup::default().routes(routes).start().await
}
