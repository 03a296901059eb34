//! ID tokens: everything that must not be believed, and how keys are fetched.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    script::{Reply, Script},
    signer::{Signer, key_set, message},
    *,
};
use crate::clock::Timestamp;

const NOW: u64 = 1_790_000_000;
const NONCE: &str = "nonce-of-this-sign-in";
const KEYS: &str = "/oauth/discovery/keys";
const ACCESS: &str = "access";

fn now() -> Timestamp {
    Timestamp::from_unix(NOW)
}

fn header() -> Value {
    json!({ "typ": "JWT", "alg": "RS256", "kid": "first" })
}

fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "sub": "42", "aud": CLIENT, "iat": NOW, "exp": NOW + 120,
        "nonce": NONCE, "auth_time": NOW - 5000, "email": "a@b.example", "groups_direct": ["acme"],
    })
}

fn tokens(id_token: impl Into<Option<String>>) -> TokenSet {
    TokenSet {
        access: Zeroizing::new(ACCESS.into()),
        refresh: None,
        expires_in: Duration::from_hours(2),
        scope: Vec::new(),
        id_token: id_token.into(),
    }
}

/// A GitLab with both keys, whose discovery names its own URL.
async fn gitlab() -> Script {
    Script::new(|hit| match hit.path() {
        KEYS => Reply::json(200, &key_set(&[Signer::first().jwk(), Signer::second().jwk()])),
        "/.well-known/openid-configuration" => {
            let host = hit.header("host").unwrap();
            Reply::json(200, &json!({ "issuer": format!("http://{host}") }).to_string())
        },
        other => panic!("asked for {other}"),
    })
    .await
}

fn issuer(script: &Script) -> String {
    script.url("")
}

async fn verify(provider: &Provider, token: String) -> Result<IdClaims, IdTokenError> {
    provider.verify_id_token(&tokens(token), Some(NONCE), now()).await
}

/// Name of a variant, for tables.
fn kind(result: Result<IdClaims, IdTokenError>) -> String {
    match result {
        Ok(claims) => format!("Ok {}", claims.sub),
        Err(error) => {
            let debug = format!("{error:?}");
            debug.split([' ', '{', '(']).next().unwrap().to_owned()
        },
    }
}

#[tokio::test]
async fn a_good_token_is_believed() {
    let script = gitlab().await;
    let provider = provider(&script);
    let token = Signer::first().sign(&header(), &claims(&issuer(&script)));
    let found = verify(&provider, token).await.unwrap();
    assert_eq!(found, IdClaims { issuer: issuer(&script), sub: "42".into() });
    assert_eq!(script.count(KEYS), 1);
}

#[tokio::test]
async fn claims_that_are_not_for_us_now_are_refused() {
    let script = gitlab().await;
    let provider = provider(&script);
    let hash = |token: &str| URL_SAFE_NO_PAD.encode(&Sha256::digest(token)[..16]);
    let table: Vec<(&str, Value, &str)> = vec![
        ("iss", json!("https://evil.example"), "Issuer"),
        ("iss", json!(format!("{}/", issuer(&script))), "Issuer"),
        ("iss", json!(issuer(&script).to_uppercase()), "Issuer"),
        ("iss", Value::Null, "Malformed"),
        ("iss", json!([issuer(&script)]), "Malformed"),
        ("aud", json!("other-app"), "Audience"),
        ("aud", json!([]), "Audience"),
        ("aud", json!(["other-app", "app"]), "Audience"),
        ("aud", json!([CLIENT]), "Ok"),
        ("aud", json!([CLIENT, "other-app"]), "Audience"),
        ("aud", json!("app-id2"), "Audience"),
        ("aud", Value::Null, "Malformed"),
        ("aud", json!(7), "Malformed"),
        ("azp", json!("other-app"), "AuthorizedParty"),
        ("azp", json!(CLIENT), "Ok"),
        ("azp", json!(7), "Malformed"),
        ("sub", Value::Null, "Malformed"),
        ("sub", json!(42), "Malformed"),
        ("sub", json!(""), "Subject"),
        ("sub", json!("42 "), "Subject"),
        ("sub", json!("project_path:acme/web:ref_type:branch:ref:main"), "Subject"),
        ("sub", json!("9".repeat(21)), "Subject"),
        ("exp", Value::Null, "Malformed"),
        ("exp", json!("soon"), "Malformed"),
        ("exp", json!(NOW - 59), "Ok"),
        ("exp", json!(NOW - 60), "Expired"),
        ("exp", json!(u64::MAX), "Ok"),
        ("nbf", json!(NOW + 60), "Ok"),
        ("nbf", json!(NOW + 61), "IssuedAt"),
        ("nbf", json!("now"), "Malformed"),
        ("iat", Value::Null, "Malformed"),
        ("iat", json!(-5), "Malformed"),
        ("iat", json!(NOW + 60), "Ok"),
        ("iat", json!(NOW + 61), "IssuedAt"),
        ("iat", json!(u64::MAX), "IssuedAt"),
        ("iat", json!(NOW - 660), "Ok"),
        ("iat", json!(NOW - 661), "IssuedAt"),
        ("nonce", Value::Null, "Nonce"),
        ("nonce", json!(""), "Nonce"),
        ("nonce", json!("nonce-of-another-sign-in"), "Nonce"),
        ("nonce", json!([NONCE]), "Malformed"),
        ("at_hash", json!(hash(ACCESS)), "Ok"),
        ("at_hash", json!(hash("another")), "AccessTokenHash"),
        ("at_hash", json!(""), "AccessTokenHash"),
        ("job_id", json!("7"), "Job"),
        ("pipeline_id", json!("7"), "Job"),
        ("project_id", json!("7"), "Job"),
    ];
    for (claim, value, expected) in table {
        let mut claims = claims(&issuer(&script));
        match &value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
            value => claims[claim] = value.clone(),
        }
        let result = verify(&provider, Signer::first().sign(&header(), &claims)).await;
        let found = kind(result).replace("Ok 42", "Ok");
        assert_eq!(found, expected, "{claim}: {value}");
    }
    let mut shared = claims(&issuer(&script));
    shared["aud"] = json!([CLIENT, "other-app"]);
    shared["azp"] = json!(CLIENT);
    assert!(verify(&provider, Signer::first().sign(&header(), &shared)).await.is_ok());
}

#[tokio::test]
async fn signatures_and_headers_that_prove_nothing_are_refused() {
    let script = gitlab().await;
    let provider = provider(&script);
    let claims = claims(&issuer(&script));
    let good = Signer::first().sign(&header(), &claims);
    let with = |key: &str, value: Value| {
        let mut header = header();
        header[key] = value;
        header
    };
    let signed = |header: Value| Signer::first().sign(&header, &claims);
    let unsigned = |alg: &str| format!("{}.", message(&with("alg", json!(alg)), &claims));
    let hmac = |key: &[u8]| {
        let message = message(&with("alg", json!("HS256")), &claims);
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let (head, signature) = good.rsplit_once('.').unwrap();
    let cut: String = good.chars().take(good.len() - 2).collect();
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[100] ^= 1;
    let mut other_claims = claims.clone();
    other_claims["sub"] = json!("1");
    let table = [
        ("good", good.clone(), "Ok 42"),
        ("flipped", format!("{head}.{}", URL_SAFE_NO_PAD.encode(flipped)), "Signature"),
        ("cut", cut, "Signature"),
        ("other claims", format!("{}.{signature}", message(&header(), &other_claims)), "Signature"),
        ("other key", Signer::second().sign(&header(), &claims), "Signature"),
        ("none", unsigned("none"), "Algorithm"),
        ("None", unsigned("nOnE"), "Algorithm"),
        ("rs256", unsigned("rs256"), "Algorithm"),
        ("hmac with the secret", hmac(SECRET.as_bytes()), "Algorithm"),
        ("hmac with the key", hmac(&Signer::first().modulus()), "Algorithm"),
        ("PS256", signed(with("alg", json!("PS256"))), "Algorithm"),
        ("no alg", Signer::first().sign(&json!({ "kid": "first" }), &claims), "Malformed"),
        ("crit", signed(with("crit", json!(["exp"]))), "Critical"),
        ("empty crit", signed(with("crit", json!([]))), "Critical"),
        ("jku", signed(with("jku", json!("http://evil.example/keys"))), "Ok 42"),
        ("kid of nobody", signed(with("kid", json!("../../etc/passwd"))), "UnknownKey"),
        ("kid quoted", signed(with("kid", json!("a'\"b"))), "UnknownKey"),
        ("kid NUL", signed(with("kid", json!("first\0"))), "KeyId"),
        ("kid empty", signed(with("kid", json!(""))), "KeyId"),
        ("kid 10 kB", signed(with("kid", json!("k".repeat(10_240)))), "KeyId"),
        ("kid a number", signed(with("kid", json!(1))), "Malformed"),
        ("no kid", Signer::second().sign(&json!({ "alg": "RS256" }), &claims), "Ok 42"),
        ("two parts", message(&header(), &claims), "Malformed"),
        ("four parts", format!("{good}.x"), "Malformed"),
        ("five parts", format!("a.b.{good}"), "Malformed"),
        ("padding", good.replacen('.', "=.", 1), "Malformed"),
        ("empty", String::new(), "Malformed"),
        ("dots", "..".into(), "Malformed"),
    ];
    for (name, token, expected) in table {
        assert_eq!(kind(verify(&provider, token).await), expected, "{name}");
    }
}

#[tokio::test]
async fn keys_come_from_gitlab_alone() {
    let script = gitlab().await;
    let elsewhere = Script::new(|_| Reply::json(200, &key_set(&[Signer::second().jwk()]))).await;
    let provider = provider(&script);
    let claims = claims(&issuer(&script));
    for (key, value) in [
        ("jku", json!(elsewhere.url("/keys"))),
        ("x5u", json!(elsewhere.url("/chain"))),
        ("jwk", Signer::second().jwk()),
        ("x5c", json!(["AAAA"])),
    ] {
        let mut header = header();
        header[key] = value;
        let forged = Signer::second().sign(&header, &claims);
        assert_eq!(kind(verify(&provider, forged).await), "Signature", "{key}");
    }
    assert!(elsewhere.hits().is_empty());
    let missing = provider.verify_id_token(&tokens(None), Some(NONCE), now()).await;
    assert_eq!(kind(missing), "Missing");
}

#[tokio::test]
async fn doubled_claims_are_refused() {
    let script = gitlab().await;
    let provider = provider(&script);
    let text = claims(&issuer(&script)).to_string();
    let doubled = text.replacen('{', "{\"sub\":\"1\",", 1);
    let signer = Signer::first();
    let good = signer.sign(&header(), &serde_json::from_str(&text).unwrap());
    assert!(verify(&provider, good).await.is_ok());
    let doubled = signer.sign_text(&header().to_string(), &doubled);
    assert_eq!(kind(verify(&provider, doubled).await), "Malformed");
}

#[tokio::test]
async fn a_refreshed_token_has_no_nonce() {
    let script = gitlab().await;
    let provider = provider(&script);
    let mut claims = claims(&issuer(&script));
    claims.as_object_mut().unwrap().remove("nonce");
    let tokens = tokens(Signer::first().sign(&header(), &claims));
    assert!(provider.verify_id_token(&tokens, None, now()).await.is_ok());
}

#[tokio::test]
async fn wrong_clocks_are_told_apart_and_shown() {
    let script = gitlab().await;
    let provider = provider(&script);
    let token = Signer::first().sign(&header(), &claims(&issuer(&script)));
    for (clock, expected) in [(NOW + 180, "Expired"), (NOW - 61, "IssuedAt")] {
        let clock = Timestamp::from_unix(clock);
        let result = provider.verify_id_token(&tokens(token.clone()), Some(NONCE), clock).await;
        let error = result.unwrap_err();
        assert!(error.is_clock());
        assert!(error.to_string().contains(&clock.to_string()), "{error}");
        assert_eq!(kind(Err(error)), expected);
    }
}

/// A GitLab whose answers for keys the test sets by number: 0 first, 1 second, 2 down, 3 junk.
async fn turning() -> (Script, Arc<AtomicUsize>) {
    let turn = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&turn);
    let script = Script::new(move |hit| match (hit.path(), shared.load(Ordering::SeqCst)) {
        (KEYS, 0) => Reply::json(200, &key_set(&[Signer::first().jwk()])),
        (KEYS, 1) => Reply::json(200, &key_set(&[Signer::second().jwk()])),
        (KEYS, 2) => Reply::new(500, "", ""),
        (KEYS, _) => Reply::json(200, "[]"),
        _ => Reply::json(404, "{}"),
    })
    .await;
    (script, turn)
}

fn by(signer: &Signer, kid: &str, script: &Script) -> String {
    let header = json!({ "alg": "RS256", "kid": kid });
    signer.sign(&header, &claims(&issuer(script)))
}

#[tokio::test]
async fn a_rotated_key_is_fetched_once_and_the_old_one_forgotten() {
    let (script, turn) = turning().await;
    let provider = provider(&script);
    let first = by(Signer::first(), "first", &script);
    let second = by(Signer::second(), "second", &script);
    assert!(verify(&provider, first.clone()).await.is_ok());
    turn.store(1, Ordering::SeqCst);
    assert!(verify(&provider, second).await.is_ok(), "rotated just before signing");
    assert_eq!(kind(verify(&provider, first).await), "UnknownKey");
    assert_eq!(script.count(KEYS), 2);
}

#[tokio::test]
async fn unknown_key_ids_fetch_once_a_minute_whoever_asks() {
    let (script, _) = turning().await;
    let provider = provider(&script);
    assert!(verify(&provider, by(Signer::first(), "first", &script)).await.is_ok());
    for round in 0..2 {
        let flood = (0..100).map(|number| {
            let token = by(Signer::first(), &format!("{round}-{number}"), &script);
            verify(&provider, token)
        });
        for result in futures_util::future::join_all(flood).await {
            assert_eq!(kind(result), "UnknownKey");
        }
        assert_eq!(script.count(KEYS), 2 + round);
        pass(Duration::from_mins(1)).await;
    }
}

#[tokio::test]
async fn first_fetches_are_shared() {
    let (script, _) = turning().await;
    let provider = provider(&script);
    let token = by(Signer::first(), "first", &script);
    let many = (0..50).map(|_| verify(&provider, token.clone()));
    for result in futures_util::future::join_all(many).await {
        assert!(result.is_ok());
    }
    assert_eq!(script.count(KEYS), 1);
}

#[tokio::test]
async fn cached_keys_outlive_an_outage_for_a_day() {
    let (script, turn) = turning().await;
    let provider = provider(&script);
    let token = by(Signer::first(), "first", &script);
    assert!(verify(&provider, token.clone()).await.is_ok());
    turn.store(2, Ordering::SeqCst);
    pass(Duration::from_hours(13)).await;
    assert!(verify(&provider, token.clone()).await.is_ok(), "old keys are better than none");
    assert_eq!(script.count(KEYS), 2, "yet a fetch was tried");
    let unknown = by(Signer::first(), "other", &script);
    assert_eq!(kind(verify(&provider, unknown).await), "UnknownKey");
    pass(Duration::from_hours(12)).await;
    assert_eq!(kind(verify(&provider, token.clone()).await), "Unavailable");
    turn.store(0, Ordering::SeqCst);
    pass(Duration::from_secs(3)).await;
    assert!(verify(&provider, token).await.is_ok(), "recovers by itself");
}

#[tokio::test]
async fn a_document_without_usable_keys_is_none() {
    let (script, turn) = turning().await;
    turn.store(3, Ordering::SeqCst);
    let token = by(Signer::first(), "first", &script);
    assert_eq!(kind(verify(&provider(&script), token).await), "Keys");
    let mut for_encryption = Signer::first().jwk();
    for_encryption["use"] = json!("enc");
    let mut of_another_kind = Signer::first().jwk();
    of_another_kind["alg"] = json!("RS512");
    let shared = json!({ "kty": "oct", "kid": "first", "k": "AAAA", "alg": "HS256" });
    let mut strange = Signer::first().jwk();
    strange["kty"] = json!("oct");
    let document = key_set(&[for_encryption, of_another_kind, shared, strange, json!(7)]);
    let script = Script::new(move |_| Reply::json(200, &document)).await;
    let token = by(Signer::first(), "first", &script);
    assert_eq!(kind(verify(&provider(&script), token).await), "Keys");
}

#[tokio::test]
async fn discovery_must_name_the_configured_url() {
    for (suffix, good) in [("", true), ("/", true), ("/x", false), (".evil.example", false)] {
        let script = Script::new(move |hit| match hit.path() {
            "/sub/.well-known/openid-configuration" => {
                let issuer = format!("http://{}/sub{suffix}", hit.header("host").unwrap());
                let document = json!({ "issuer": issuer, "labgate_development_gitlab": true });
                Reply::json(200, &document.to_string())
            },
            "/sub/oauth/discovery/keys" => Reply::json(200, &key_set(&[Signer::first().jwk()])),
            other => panic!("asked for {other}"),
        })
        .await;
        let provider = provider_of(&config(&script.url("/sub/")), everything());
        let exact = script.url(&format!("/sub{suffix}"));
        let token = Signer::first().sign(&header(), &claims(&exact));
        let result = verify(&provider, token).await;
        assert_eq!(kind(result), if good { "Ok 42" } else { "Issuer" }, "{suffix}");
        assert_eq!(provider.is_development(), good);
        if good {
            assert_eq!(provider.issuer(), script.url("/sub"), "with or without the slash");
        } else {
            assert!(matches!(provider.probe().await, Err(DiscoveryError::Issuer { .. })));
        }
    }
}
