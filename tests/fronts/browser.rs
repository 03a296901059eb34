//! A real Chromium before real proxies: from the first link to the signed-out page.

use super::{front::Kind, yard::Yard};
use crate::browser::Chromium;

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_and_out_through_nginx() {
    journey(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_and_out_through_caddy() {
    journey(Kind::Caddy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_and_out_through_haproxy() {
    journey(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_and_out_through_envoy() {
    journey(Kind::Envoy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_and_out_through_envoy_over_grpc() {
    journey(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_and_out_through_traefiks_stand_in() {
    journey(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_and_out_through_apache() {
    journey(Kind::Apache).await;
}

async fn journey(kind: Kind) {
    let (yard, url) = Yard::on_localhost(kind).await;
    let chromium = Chromium::start().await;
    let at = |path: &str| format!("{url}{path}");

    // In, to exactly where the link led.
    let landing = at("/private?from=a%20link&twice=1&twice=2");
    chromium.open(&landing).await;
    chromium.heading("Who are you today?").await;
    chromium.sign_in_at_gitlab("carol", &landing).await;
    chromium.heading("Hello, carol").await;
    assert_eq!(chromium.run("return document.cookie").await, "", "a script reads cookies");

    // Streams pass: server-sent events and a WebSocket.
    chromium.open(&at("/live")).await;
    chromium.says("hello from the browser").await;
    chromium.enter("#words", "an echo through the proxy").await;
    chromium.says("an echo through the proxy").await;

    // Tokens end, the cookie stays behind, and a page fetches the new one unseen.
    yard.lab.clock.turn(7_000);
    chromium.open(&at("/private?again=%26")).await;
    chromium.arrives(&at("/private?again=%26")).await;
    chromium.heading("Hello, carol").await;

    // Refused, and told why.
    chromium.open(&at("/team")).await;
    chromium.says("have access").await;
    let refused = chromium.text().await;
    assert!(refused.contains("carol") && refused.contains("acme"), "{refused}");

    // Out.
    chromium.open(&at("/private")).await;
    chromium.click("Sign out").await;
    chromium.says("Stay signed in").await;
    chromium.click("Sign out").await;
    chromium.heading("Signed out").await;
    chromium.open(&at("/oauth2/userinfo")).await;
    chromium.says("sign_in_required").await;
}
