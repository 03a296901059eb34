//! The authorization request, and what becomes of each answer of the token endpoint.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{
    script::{Reply, Script},
    *,
};

const CALLBACK: &str = "https://app.example/oauth2/callback";

fn request(extra: &[(String, String)], prompt_login: bool) -> AuthorizeRequest<'_> {
    AuthorizeRequest {
        redirect_uri: CALLBACK,
        state: "st&te",
        nonce: "nonce",
        challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        extra,
        prompt_login,
    }
}

fn query(url: &Url) -> Vec<(String, String)> {
    url.query_pairs().map(|(key, value)| (key.into(), value.into())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

#[test]
fn the_browser_is_sent_to_the_public_url_with_s256() {
    let mut config = config("https://gitlab.example/git/lab/");
    config.internal_url = Some(Url::parse("http://gitlab.svc/").unwrap());
    let url = provider_of(&config, everything()).authorize_url(&request(&[], false));
    assert!(url.as_str().starts_with("https://gitlab.example/git/lab/oauth/authorize?"));
    let expected = pairs(&[
        ("client_id", CLIENT),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", "openid email read_user"),
        ("state", "st&te"),
        ("nonce", "nonce"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ]);
    assert_eq!(query(&url), expected);
}

#[test]
fn extra_parameters_never_replace_ours() {
    let mut config = config("https://gitlab.example/");
    config.authorize_params =
        pairs(&[("prompt", "consent"), ("root_namespace_id", "7")]).into_iter().collect();
    config.forward_params =
        ["login_hint", "root_namespace_id", "prompt"].map(String::from).to_vec();
    let provider = provider_of(&config, everything());
    let extra = pairs(&[
        ("login_hint", "bob"),
        ("redirect_uri", "https://evil.example"),
        ("root_namespace_id", "8"),
        ("claims", "{}"),
        ("prompt", "none"),
        ("unlisted", "x"),
    ]);
    let tail = |prompt_login| {
        let url = provider.authorize_url(&request(&extra, prompt_login));
        query(&url).split_off(8)
    };
    let usual = pairs(&[("prompt", "consent"), ("root_namespace_id", "7"), ("login_hint", "bob")]);
    assert_eq!(tail(false), usual);
    let again = pairs(&[("root_namespace_id", "7"), ("login_hint", "bob"), ("prompt", "login")]);
    assert_eq!(tail(true), again);
}

fn good() -> Reply {
    let answer = json!({
        "access_token": "a".repeat(64), "token_type": "bearer", "expires_in": 7200,
        "refresh_token": "r".repeat(64), "scope": "openid email", "created_at": 1_790_000_000,
        "id_token": "x.y.z",
    });
    Reply::json(200, &answer.to_string())
}

fn refusal(status: u16, error: &str) -> Reply {
    Reply::json(status, &json!({ "error": error, "error_description": "Worte" }).to_string())
}

#[tokio::test]
async fn a_code_is_traded_with_verifier_and_basic_secret() {
    let script = Script::new(|_| good()).await;
    let provider = provider(&script);
    let tokens = provider.exchange("the code", "the-verifier", CALLBACK).await.unwrap();
    assert_eq!(*tokens.access, "a".repeat(64));
    assert_eq!(**tokens.refresh.as_ref().unwrap(), "r".repeat(64));
    assert_eq!(tokens.expires_in, Duration::from_hours(2));
    assert_eq!(tokens.scope, ["openid", "email"]);
    assert_eq!(tokens.id_token.as_deref(), Some("x.y.z"));
    let debug = format!("{tokens:?}{provider:?}");
    assert!(!debug.contains("aaaa") && !debug.contains("rrrr") && !debug.contains("x.y.z"));
    assert!(!debug.contains(SECRET) && !debug.contains("s3cr3t"));
    let hit = &script.hits()[0];
    assert_eq!(hit.line, "POST /oauth/token HTTP/1.1");
    // base64 of "app-id:gloas-s3cr3t%2F%2B": both parts are form-encoded first.
    assert_eq!(hit.header("authorization"), Some("Basic YXBwLWlkOmdsb2FzLXMzY3IzdCUyRiUyQg=="));
    assert_eq!(hit.header("accept"), Some("application/json"));
    assert!(hit.header("user-agent").unwrap().starts_with("labgate/"));
    let form: Vec<_> = url::form_urlencoded::parse(hit.body.as_bytes()).into_owned().collect();
    let expected = pairs(&[
        ("grant_type", "authorization_code"),
        ("code", "the code"),
        ("code_verifier", "the-verifier"),
        ("redirect_uri", CALLBACK),
    ]);
    assert_eq!(form, expected);
}

#[tokio::test]
async fn a_public_application_only_names_itself() {
    let script = Script::new(|_| good()).await;
    let config = config(&script.url("/"));
    let observe = Arc::new(Unobserved);
    let roots = Roots::none();
    let provider =
        Provider::new("main", &config, None, everything(), &roots, &|_| None, observe).unwrap();
    provider.exchange("code", "verifier", CALLBACK).await.unwrap();
    provider.refresh("refresh").await.unwrap();
    for hit in script.hits() {
        assert_eq!(hit.header("authorization"), None);
        assert!(hit.body.contains("client_id=app-id") && !hit.body.contains("client_secret"));
    }
}

/// Name of a variant, for tables.
fn kind<T, E: fmt::Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "Ok".into(),
        Err(error) => {
            let debug = format!("{error:?}");
            assert!(!debug.contains("SECRET"), "an answer was quoted: {debug}");
            debug.split([' ', '(', '{']).next().unwrap().into()
        },
    }
}

#[tokio::test]
async fn answers_of_the_token_endpoint_are_told_apart() {
    let token = |key: &str, value: serde_json::Value| {
        let mut answer = json!({ "access_token": "SECRET", "token_type": "Bearer" });
        answer[key] = value;
        Reply::json(200, &answer.to_string())
    };
    let table = [
        ("good", good(), "Ok"),
        ("wrong secret", refusal(401, "invalid_client"), "InvalidClient"),
        ("not allowed", refusal(401, "unauthorized_client"), "InvalidClient"),
        ("invalid request", refusal(400, "invalid_request"), "Answer"),
        ("old GitLab's 401", refusal(401, "invalid_request"), "Answer"),
        ("unknown error", refusal(400, "SECRET"), "Answer"),
        ("too many", Reply::new(429, "retry-after: 7\r\n", "Retry later"), "Unavailable"),
        ("down", Reply::page(502), "Unavailable"),
        ("broken", Reply::json(500, r#"{"error":"invalid_grant"}"#), "Unavailable"),
        ("maintenance", Reply::page(200), "Unavailable"),
        ("lost", Reply::page(404), "Unavailable"),
        ("blocked IP", Reply::new(403, "", ""), "Unavailable"),
        ("cut", good().cut(), "Unavailable"),
        ("gone", Reply::nothing(), "Unavailable"),
        ("moved", Reply::new(307, "location: /elsewhere\r\n", ""), "Unavailable"),
        ("array", Reply::json(200, r#"["SECRET"]"#), "Answer"),
        ("empty", Reply::json(200, "{}"), "Answer"),
        ("error as a token", Reply::json(200, r#"{"error":"SECRET"}"#), "Answer"),
        ("minimal", token("expires_in", json!(null)), "Ok"),
        ("no text", token("access_token", json!(7)), "Answer"),
        ("no token", token("access_token", json!("")), "Answer"),
        ("long", token("access_token", json!("t".repeat(8193))), "Answer"),
        ("longest", token("access_token", json!("t".repeat(8192))), "Ok"),
        ("CRLF", token("access_token", json!("SECRET\r\nx: y")), "Answer"),
        ("refresh empty", token("refresh_token", json!("")), "Answer"),
        ("refresh odd", token("refresh_token", json!("r r")), "Answer"),
        ("mac", token("token_type", json!("mac")), "Answer"),
        ("huge", Reply::json(200, &" ".repeat((1 << 20) + 1)), "Unavailable"),
    ];
    for (name, reply, expected) in table {
        let script = Script::new(move |_| reply.clone()).await;
        let exchanged = provider(&script).exchange("code", "verifier", CALLBACK).await;
        assert_eq!(kind(exchanged), expected, "{name}");
        let refreshed = provider(&script).refresh("refresh").await;
        assert_eq!(kind(refreshed), expected, "{name}");
        assert_eq!(script.hits().len(), 2, "{name}: each is sent once");
    }
}

#[tokio::test]
async fn missing_and_absurd_lifetimes_are_replaced() {
    for (given, expected) in [(json!(null), 3600), (json!(300), 300), (json!(u64::MAX), 2_592_000)]
    {
        let answer = json!({ "access_token": "a", "token_type": "Bearer", "expires_in": given });
        let script = Script::new(move |_| Reply::json(200, &answer.to_string())).await;
        let tokens = provider(&script).refresh("refresh").await.unwrap();
        assert_eq!(tokens.expires_in, Duration::from_secs(expected));
    }
}

#[tokio::test]
async fn a_grant_that_a_replica_has_not_seen_is_tried_again_once() {
    for (refusals, expected, calls) in [(1, "Ok", 2), (2, "InvalidGrant", 2)] {
        let count = AtomicUsize::new(0);
        let script = Script::new(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) % 2 < refusals {
                refusal(400, "invalid_grant")
            } else {
                good()
            }
        })
        .await;
        let provider = provider(&script);
        let (exchanged, refreshed) = (
            provider.exchange("code", "verifier", CALLBACK).await,
            provider.refresh("refresh").await,
        );
        assert_eq!([kind(exchanged), kind(refreshed)], [expected, expected]);
        assert_eq!(script.hits().len(), 2 * calls);
    }
}

#[tokio::test]
async fn a_lost_reply_is_told_from_a_call_that_never_left() {
    let sent = async |script: &Script| match provider(script).refresh("refresh").await {
        Err(RefreshError::Unavailable { sent, retry_after, .. }) => (sent, retry_after),
        other => panic!("{other:?}"),
    };
    let script = Script::new(|_| Reply::nothing()).await;
    assert_eq!(sent(&script).await, (true, None));
    assert_eq!(script.hits().len(), 1, "never repeated");
    let script = Script::new(|_| good().cut()).await;
    assert_eq!(sent(&script).await, (true, None));
    let script = Script::new(|_| Reply::page(503)).await;
    assert_eq!(sent(&script).await, (true, None));
    let script = Script::new(|_| Reply::new(429, "retry-after: 7\r\n", "Retry later")).await;
    assert_eq!(sent(&script).await, (false, Some(Duration::from_secs(7))));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = provider_of(&config(&format!("http://127.0.0.1:{port}/")), everything());
    let refused = gone.refresh("refresh").await.unwrap_err();
    assert!(matches!(refused, RefreshError::Unavailable { sent: false, .. }), "{refused:?}");
}

#[tokio::test]
async fn codes_and_tokens_never_follow_a_redirect() {
    let thief = Script::new(|_| good()).await;
    let location = format!("location: {}\r\n", thief.url("/oauth/token"));
    for status in [301, 302, 303, 307, 308] {
        let headers = location.clone();
        let script = Script::new(move |_| Reply::new(status, &headers, "")).await;
        let provider = provider(&script);
        let exchanged = provider.exchange("code", "verifier", CALLBACK).await;
        assert!(matches!(
            exchanged,
            Err(ExchangeError::Unavailable { source: CallError::Redirect(found), .. }) if found == status
        ));
        assert!(provider.identify("token").await.is_err());
        assert!(provider.revoke("token").await.is_err());
    }
    assert!(thief.hits().is_empty());
}

#[tokio::test]
async fn each_trade_has_a_connection_of_its_own() {
    let script = Script::new(|_| good()).await;
    let provider = provider(&script);
    for _ in 0..3 {
        provider.refresh("refresh").await.unwrap();
    }
    let connections: Vec<_> = script.hits().iter().map(|hit| hit.connection).collect();
    assert_eq!(connections, [0, 1, 2], "a reply lost on a stale connection would cost the session");
}

#[tokio::test]
async fn revoking_sends_the_token_with_the_applications_secret() {
    let script = Script::new(|_| Reply::json(200, "{}")).await;
    provider(&script).revoke("t/k n").await.unwrap();
    let hit = &script.hits()[0];
    assert_eq!(hit.line, "POST /oauth/revoke HTTP/1.1");
    assert_eq!(hit.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(hit.body, "token=t%2Fk+n&client_id=app-id&client_secret=gloas-s3cr3t%2F%2B");
    let table = [
        (refusal(403, "unauthorized_client"), "InvalidClient"),
        (Reply::page(502), "Unavailable"),
        (Reply::json(404, "{}"), "Unavailable"),
    ];
    for (reply, expected) in table {
        let script = Script::new(move |_| reply.clone()).await;
        assert_eq!(kind(provider(&script).revoke("token").await), expected);
    }
}
