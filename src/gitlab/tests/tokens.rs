//! Tokens that GitLab has not known lately: what they may cost, and whom they stop.

use super::{
    script::{Hit, Reply},
    *,
};
use crate::{clock::Timestamp, config::TokenKind};

const SELF: &str = "/api/v4/personal_access_tokens/self";

/// The GitLab at `base_url`, which answers by `script`.
fn provider_at(base_url: &str, script: &Script) -> Provider {
    let accept = vec![TokenKind::Oauth, TokenKind::Personal, TokenKind::Job];
    provider_of(
        &config::GitLab {
            internal_url: Some(Url::parse(&script.url("/")).unwrap()),
            tokens: config::Tokens { accept, max_checks: 1000, ..config::Tokens::default() },
            ..config(base_url)
        },
        everything(),
    )
}

/// What GitLab says to good tokens, and to others `refusal`.
fn answer(hit: &Hit, refusal: impl Fn() -> Reply) -> Reply {
    let good = hit.header("authorization").is_some_and(|value| value.contains("good"));
    match hit.path() {
        SELF if good => Reply::json(
            200,
            r#"{"user_id": 7, "scopes": ["read_user"], "active": true, "revoked": false}"#,
        ),
        "/api/v4/user" if good => {
            Reply::json(200, r#"{"id": 7, "username": "alice", "state": "active"}"#)
        },
        "/oauth/token" => Reply::json(400, "{}"),
        _ => refusal(),
    }
}

async fn ask(provider: &Provider, token: &str, is_new: bool) -> Result<Checked, TokenError> {
    provider.check_token(token, true, is_new, Timestamp::default()).await
}

#[tokio::test]
async fn the_limit_of_one_account_stops_no_other() {
    let headers = "retry-after: 60\r\nratelimit-name: throttle_authenticated_api\r\n";
    let script =
        Script::new(move |hit| answer(hit, || Reply::new(429, headers, "Retry later"))).await;
    let provider = provider_at(&script.url("/"), &script);
    // Anybody can use up what GitLab allows their own account, and bring its token here.
    assert!(ask(&provider, "limited", true).await.is_err());
    assert!(ask(&provider, "good", true).await.is_ok());
}

#[tokio::test]
async fn a_limit_on_strangers_tokens_stops_strangers_alone() {
    let hex = "0".repeat(64);
    for (first, headers) in [
        ("wrong", "retry-after: 9\r\n"),
        ("wrong", ""),
        (hex.as_str(), "retry-after: 9\r\n"),
        ("job", "retry-after: 9\r\n"),
    ] {
        let script =
            Script::new(move |hit| answer(hit, || Reply::new(429, headers, "Retry later"))).await;
        let provider = provider_at(&script.url("/"), &script);
        for number in 0..5 {
            let error = match first {
                "job" => provider.check_job_token("wrong", true).await.unwrap_err(),
                token => ask(&provider, token, true).await.unwrap_err(),
            };
            let TokenError::Identify(IdentifyError::Unavailable { retry_after, .. }) = error else {
                panic!("{error}")
            };
            assert!(number == 0 || retry_after > Some(Duration::from_secs(5)), "{retry_after:?}");
        }
        assert_eq!(script.hits().len(), 1, "no storm: {first}");
        assert!(ask(&provider, "good", true).await.is_err(), "nobody knows it yet");
        assert_eq!(script.hits().len(), 1);
        // Who is known is asked about, and so is everything else.
        assert!(ask(&provider, "good", false).await.is_ok());
        for _ in 0..5 {
            assert!(ask(&provider, "limited", false).await.is_err());
        }
        assert_eq!(script.hits().len(), 8, "each account has a limit of its own");
        assert!(ask(&provider, "good", false).await.is_ok());
        assert!(provider.exchange("code", "verifier", "https://app.example/").await.is_err());
        assert_eq!(script.count("/oauth/token"), 1);
        assert!(!provider.is_down());
    }
}

#[tokio::test]
async fn what_a_new_token_is_asked_once_gitlab_knows_it_counts_for_its_account() {
    let script = Script::new(|hit| match hit.path() {
        "/api/v4/user" => Reply::new(429, "retry-after: 9\r\n", "Retry later"),
        _ => answer(hit, || Reply::json(401, "{}")),
    })
    .await;
    let provider = provider_at(&script.url("/"), &script);
    for _ in 0..3 {
        assert!(ask(&provider, "good", true).await.is_err());
    }
    assert_eq!(script.count("/api/v4/user"), 3);
}

#[tokio::test]
async fn gitlab_com_is_asked_about_so_many_unknown_tokens_in_a_minute() {
    for (base_url, most) in [("https://gitlab.com", 150), ("https://gitlab.example", 200)] {
        let script = Script::new(|hit| answer(hit, || Reply::json(401, "{}"))).await;
        let provider = provider_at(base_url, &script);
        for number in 0..200 {
            assert!(ask(&provider, &format!("good-{number}"), true).await.is_ok(), "{number}");
        }
        assert_eq!(script.count(SELF), 200);
        for number in 0..200 {
            let error = ask(&provider, &format!("wrong-{number}"), true).await.unwrap_err();
            let spent = matches!(
                error,
                TokenError::Identify(IdentifyError::Unavailable {
                    source: CallError::Spent(_),
                    retry_after: Some(_),
                })
            );
            assert_eq!(spent, number >= most, "{number}: {error}");
        }
        assert_eq!(script.count(SELF), 200 + most);
        assert!(ask(&provider, "good", false).await.is_ok());
        assert!(ask(&provider, "wrong", false).await.is_err());
        assert_eq!(script.count(SELF), 202 + most, "of those who are known there are few");
    }
}
