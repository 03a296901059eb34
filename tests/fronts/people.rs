//! Who signs in, who is refused, who signs out: by a browser before the proxy, from the first request to the last.

use http::Method;

use super::{
    front::Kind,
    yard::{Yard, echoed, value},
};
use crate::support::HOST;

/// Spaces, letters beyond ASCII, doubled names, and a URL within the URL.
const WANTED: &str = "/echo/a%20b/%C3%A9+c?from=a%20link&twice=1&twice=2&to=https%3A%2F%2Fe.example%2F%3Fq%3D1%26r%3D%252F";

/// Somebody signs in, is where they wanted to be, and the application knows who it is.
pub async fn sign_in(kind: Kind) {
    let yard = Yard::open(kind).await;
    let mut browser = yard.browser();
    browser.set_cookie(HOST, "theirs", "1");
    let page = browser.sign_in(WANTED, "alice").await;
    assert_eq!(page.status, 200, "{}\n{}", page.text(), yard.front.said());
    assert_eq!(page.url.as_str(), format!("https://{HOST}{WANTED}"));
    assert_eq!(page.answer.json()["target"], WANTED, "byte for byte");
    assert_eq!(page.answer.cookies(), [""; 0], "no cookie on an answer of the application");
    let headers = echoed(&page.answer);
    assert_eq!(value(&headers, "x-forwarded-user"), "alice");
    assert!(value(&headers, "x-forwarded-groups").split(',').any(|group| group == "acme"));
    assert_eq!(value(&headers, "x-forwarded-host"), HOST);
    assert_eq!(value(&headers, "x-forwarded-proto"), "https");
    assert_eq!(value(&headers, "host"), HOST);
    if kind.keeps_the_cookie() {
        assert_eq!(value(&headers, "cookie").trim_end_matches([' ', ';']), "theirs=1");
        // However many of labgate's names stand side by side.
        let mut crowded = browser.clone();
        for (name, value) in [("labgate", "x"), ("__Secure-labgate-attempt-a", "y"), ("also", "2")]
        {
            crowded.set_cookie(HOST, name, value);
        }
        let headers = echoed(&crowded.xhr(WANTED).await);
        assert_eq!(value(&headers, "cookie"), "theirs=1; also=2");
    }

    // Every other host is signed in to by itself, and its application is the one of its routes.
    let before = yard.other.hits();
    let page = browser.sign_in("https://wiki.example.test/private?x=1", "alice").await;
    assert_eq!((page.status, page.url.as_str()), (200, "https://wiki.example.test/private?x=1"));
    assert_eq!(yard.other.hits(), before + 1, "{}", page.text());
    assert_eq!(browser.xhr("/status/204").await.status, 204);
    assert_eq!(yard.other.hits(), before + 2, "a path that belongs to the other application");
    assert_eq!(browser.xhr("/statuses").await.status, 404);
    assert_eq!(yard.other.hits(), before + 2, "a path that only begins like it");
}

/// Programs get no redirect, people in the wrong group a page, and whoever has signed out nothing.
pub async fn refusals(kind: Kind) {
    let yard = Yard::open(kind).await;
    let mut browser = yard.browser();
    let before = yard.reached();
    let answer = browser.xhr("/private?x=1").await;
    assert_eq!(answer.status, 401, "{}", yard.front.said());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let sign_in = format!("https://{HOST}/oauth2/sign_in?rd=%2Fprivate%3Fx%3D1");
    assert_eq!(answer.json()["sign_in"], sign_in.as_str());
    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"labgate\"");
    assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1);
    let answer = browser.request(Method::POST, "/private", &[("accept", "text/html")], "a=b").await;
    assert_eq!(answer.status, 401, "a form is never made a GET: {}", answer.text());
    let answer = browser.request(Method::HEAD, "/private", &[("accept", "*/*")], "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (401, 0));
    assert_eq!(yard.reached(), before);

    let mut carol = yard.signed_in("carol").await;
    let before = yard.reached();
    let page = carol.open("/team").await;
    assert_eq!(page.status, 403);
    for words in ["have access", "carol", "acme"] {
        assert!(page.text().contains(words), "{words:?} is missing: {}", page.text());
    }
    let answer = carol.xhr("/team").await;
    assert_eq!(answer.status, 403);
    assert!(answer.json()["rules"].is_array(), "{}", answer.text());
    assert_eq!(yard.reached(), before);

    let stolen = carol.session();
    let page = carol.post("/oauth2/sign_out", "").await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(carol.cookie_names(), [""; 0]);
    assert_eq!(carol.navigate("/private").await.status, 302);
    let kept = [("cookie", stolen.as_str())];
    let answer = yard.browser().request(Method::GET, "/private", &kept, "").await;
    assert_eq!(answer.status, 401, "a copy of the cookie is worth nothing either");
    assert_eq!(yard.reached(), before);
}
