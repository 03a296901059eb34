//! A form that is sent when the session has ended: nothing is redirected, nothing is lost, and it goes through when it is sent again.

use http::Method;

use crate::support::{Browser, Lab, Setup};

const FORM: [(&str, &str); 4] = [
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("accept", "text/html,*/*;q=0.8"),
    ("content-type", "application/x-www-form-urlencoded"),
];

/// The address that the page leads to in another tab.
fn link(page: &str) -> String {
    let html = page.replace("&#38;", "&");
    let start = html.find("target=\"_blank\"").expect("a link to another tab");
    let tag = html[..start].rsplit("<a ").next().expect("a link");
    tag.split('"').find(|text| text.contains("/oauth2/sign_in")).expect("its address").to_owned()
}

async fn goes_through(mut browser: Browser, echo: &str, host: &str) {
    let answer = browser.request(Method::POST, echo, &FORM, "comment=long+work").await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.header("location"), "");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    let page = answer.text();
    assert!(page.contains("Nothing is lost") && page.contains("reload this page"), "{page}");
    assert!(!page.contains("long work") && !page.contains("<form") && !page.contains("<script"));
    // In another tab of the same browser.
    let there = browser.sign_in(&link(&page), "alice").await;
    assert_eq!(there.status, 200, "{}", there.text());
    assert_eq!(there.url.as_str(), format!("https://{host}/oauth2/signed_in"));
    assert!(
        there.text().contains("alice") && there.text().contains("go back to it"),
        "{}",
        there.text()
    );
    // And the tab that waits sends the same form.
    let answer = browser.request(Method::POST, echo, &FORM, "comment=long+work").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["method"], "POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_a_session_goes_through_when_it_is_sent_again() {
    let lab = Lab::start().await;
    goes_through(lab.browser(), "/echo", "app.example.test").await;
    let mut ended = lab.signed_in("alice").await;
    lab.clock.turn(13 * 3600);
    assert_eq!(ended.xhr("/private").await.status, 401);
    goes_through(ended, "/echo", "app.example.test").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_where_another_host_signs_in() {
    let routes =
        "[[route]]\nhost = \"wiki.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    let server = "sign_in_host = \"auth.example.test\"\n";
    let lab = Setup::default().server(server).routes(routes).start().await;
    goes_through(lab.browser(), "https://wiki.example.test/echo", "wiki.example.test").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_told_as_before() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    for (method, headers) in [
        (Method::POST, vec![("sec-fetch-mode", "cors"), ("accept", "text/html")]),
        (Method::POST, vec![("accept", "*/*")]),
        (Method::PUT, vec![("accept", "application/json")]),
        (Method::DELETE, vec![]),
        (Method::OPTIONS, vec![("accept", "text/html")]),
        (Method::POST, vec![("sec-fetch-mode", "navigate"), ("accept", "application/json")]),
    ] {
        let answer = browser.request(method.clone(), "/echo", &headers, "").await;
        assert_eq!(answer.status, 401, "{method} {headers:?}");
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{method} {headers:?}"
        );
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"labgate\"");
        let sign_in = answer.json()["sign_in"].as_str().expect("a URL").to_owned();
        assert!(sign_in.starts_with("https://app.example.test/oauth2/sign_in?rd="), "{sign_in}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_after_signs_in_whom_it_does_not_know() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    assert_eq!(browser.xhr("/oauth2/signed_in").await.status, 401);
    let page = browser.sign_in("/oauth2/signed_in", "alice").await;
    assert_eq!((page.url.path(), page.status), ("/oauth2/signed_in", 200));
    assert_eq!(browser.post("/oauth2/signed_in", "").await.status, 405);
}
