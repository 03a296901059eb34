//! ID tokens that must not be believed, and key sets that change: each by a whole sign-in with the development GitLab's false words.

use labgate::demo::gitlab::{Endpoint, Failure, Fault, Signature, Tamper};
use serde_json::{Value, json};

use crate::support::{Lab, Page, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_is_not_the_login_keys_counts_for_nothing() {
    let lab = Lab::start().await;
    for signature in
        [Signature::Broken, Signature::None, Signature::HmacOfPublicKey, Signature::CiUnderLoginKid]
    {
        refused(&lab, Tamper::signature(signature)).await;
    }
    // The key of CI jobs stands in the same key set: what it signs is told apart by its claims.
    let claims =
        json!({ "project_path": "acme/web/shop", "pipeline_id": "7001", "job_id": "9001" });
    let claims = claims.as_object().expect("an object").clone();
    refused(&lab, Tamper { claims, ..Tamper::signature(Signature::Ci) }).await;
    for alg in ["none", "None", "nOnE", "HS256", "RS512", "PS256", "ES256", ""] {
        refused(&lab, Tamper::header("alg", json!(alg))).await;
    }
    refused(&lab, Tamper::header("alg", Value::Null)).await;
    refused(&lab, Tamper::header("crit", json!(["b64"]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_missing_or_of_somebody_else_are_refused() {
    let lab = Lab::start().await;
    let now = lab.clock.now().unix();
    for (claim, values) in [
        ("iss", vec![Value::Null, json!("https://evil.test"), json!([lab.gitlab.external_url()])]),
        (
            "aud",
            vec![Value::Null, json!("other"), json!(["other"]), json!([]), json!("labgate-demo2")],
        ),
        ("azp", vec![json!("other")]),
        ("sub", vec![Value::Null, json!(""), json!("1"), json!(2)]),
        ("nonce", vec![Value::Null, json!(""), json!("other")]),
        ("exp", vec![Value::Null, json!(now - 3600), json!("x"), json!(-1)]),
        ("iat", vec![Value::Null, json!(now + 3600), json!(now - 7200)]),
        ("nbf", vec![json!(now + 3600)]),
        ("at_hash", vec![json!("other"), json!("")]),
    ] {
        for value in values {
            refused(&lab, Tamper::claim(claim, value)).await;
        }
    }
    refused(&lab, Tamper::claim("aud", json!(["labgate-demo", "other"]))).await;
    accepted(&lab, Tamper::claim("aud", json!(["labgate-demo"]))).await;
    accepted(&lab, Tamper::claim("azp", json!("labgate-demo"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_brings_no_keys_of_its_own() {
    let lab = Lab::start().await;
    let trap = format!("{}/trap", lab.gitlab.url());
    let jwk = json!({ "kty": "oct", "k": "c2VjcmV0" });
    for header in ["jku", "x5u"] {
        try_with(&lab, Tamper::header(header, json!(trap))).await;
    }
    try_with(&lab, Tamper::header("jwk", jwk)).await;
    try_with(&lab, Tamper::header("x5c", json!(["MIIB"]))).await;
    assert_eq!(lab.gitlab.hits(Endpoint::Other), 0, "nothing was fetched");
    for kid in ["../../etc/passwd", "'; drop table keys", "\u{0}", "", &"x".repeat(10_000)] {
        refused(&lab, Tamper::header("kid", json!(kid))).await;
    }
    refused(&lab, Tamper::header("kid", json!(7))).await;
    // Without a key id the keys there are get tried.
    accepted(&lab, Tamper::header("kid", Value::Null)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_login_key_is_found_and_unknown_ones_ask_once() {
    let lab = Lab::start().await;
    lab.signed_in("alice").await;
    let before = lab.gitlab.hits(Endpoint::Keys);
    assert_eq!(before, 1);
    lab.gitlab.rotate_login_key().await.expect("a new key");
    lab.signed_in("bob").await;
    assert_eq!(lab.gitlab.hits(Endpoint::Keys), before + 1);
    lab.signed_in("carol").await;
    for n in 0..20 {
        refused(&lab, Tamper::header("kid", json!(format!("unknown-{n}")))).await;
    }
    assert!(lab.gitlab.hits(Endpoint::Keys) <= before + 2, "{}", lab.gitlab.hits(Endpoint::Keys));
    accepted(&lab, Tamper::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_keys_are_enough_while_no_others_can_be_had() {
    let lab = Lab::start().await;
    lab.signed_in("alice").await;
    lab.gitlab.fail(Fault::new(Endpoint::Keys, 1000, Failure::Hang));
    let unknown = lab.browser();
    lab.gitlab.tamper(Tamper::header("kid", json!("unknown")));
    let waiting = tokio::spawn(async move {
        let mut browser = unknown;
        browser.sign_in("/private", "bob").await.status
    });
    until("the unknown key is asked for", async || lab.gitlab.hits(Endpoint::Keys) == 2).await;
    lab.gitlab.tamper(Tamper::default());
    lab.signed_in("carol").await;
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_may_differ_by_a_minute_and_no_more() {
    let lab = Lab::start().await;
    for (skew, good) in [(-55, true), (55, true), (90, false), (-600, false), (3600, false)] {
        lab.gitlab.set_skew(skew);
        let mut browser = lab.browser();
        let page = browser.sign_in("/private", "alice").await;
        assert_eq!(page.status, if good { 200 } else { 502 }, "{skew}: {}", page.text());
        if !good {
            assert!(page.text().contains("clocks"), "{skew}: {}", page.text());
            assert_eq!(browser.cookie_names(), [""; 0], "{skew}");
        }
    }
}

/// What comes of alice's sign-in with such tokens; afterwards they are right again.
async fn try_with(lab: &Lab, tamper: Tamper) -> (Page, bool) {
    lab.gitlab.tamper(tamper);
    let mut browser = lab.browser();
    let page = browser.sign_in("/private", "alice").await;
    lab.gitlab.tamper(Tamper::default());
    let signed_in = browser.cookie("__Host-labgate").is_some();
    (page, signed_in)
}

async fn refused(lab: &Lab, tamper: Tamper) {
    let what = format!("{tamper:?}");
    let (page, signed_in) = try_with(lab, tamper).await;
    assert!(!signed_in, "{what}");
    assert_eq!(page.status, 502, "{what}: {}", page.text());
    assert!(!page.text().contains("evil.test"), "{what}");
}

async fn accepted(lab: &Lab, tamper: Tamper) {
    let what = format!("{tamper:?}");
    let (page, signed_in) = try_with(lab, tamper).await;
    assert!(signed_in && page.status == 200, "{what}: {}", page.text());
}
