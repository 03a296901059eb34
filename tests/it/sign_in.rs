//! Signing in: from the first request to the page that was wanted, and everything that must not work.

use crate::support::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_signs_in_and_lands_where_they_wanted() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let page = browser.sign_in("/private?x=1&y=%2F", "alice").await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private?x=1&y=%2F");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    assert_eq!(browser.cookie_names(), ["__Host-labgate"]);
}
