//! `labgate sessions` on a store that replicas share, and what a hook at one replica means to the others.

use http::Request;
use serde_json::Value;

use crate::support::{HOST, Setup, labgate, outcome, redis::Redis, send, until};

/// `labgate sessions ARGUMENTS` with the configuration `text`.
fn sessions(text: &str, arguments: &[&str]) -> (i32, String, String) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("labgate.toml"), text).expect("a file");
    let all = [&["sessions", "--config", "labgate.toml"], arguments].concat();
    outcome(labgate(&all, &[]).current_dir(directory.path()))
}

fn listed(text: &str, arguments: &[&str]) -> Vec<Value> {
    let (code, out, error) = sessions(text, &[&["list", "--json"], arguments].concat());
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&out).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_who_is_signed_in_and_end_it_everywhere() {
    let redis = Redis::start().await;
    let twins = Setup::default().twins(2, &redis.store()).await;
    let config = twins.lab.config.as_str();
    let (mut alice, mut bob) = (twins.signed_in("alice").await, twins.signed_in("bob").await);
    let mut again = twins.signed_in("alice").await;
    until("all three are told", async || listed(config, &[]).len() == 3).await;
    let hers = listed(config, &["--user", "Alice"]);
    assert_eq!(hers.len(), 2);
    for field in ["id", "username", "gitlab", "kind", "since", "seen", "until"] {
        assert!(hers.iter().all(|session| !session[field].is_null()), "{hers:?}");
    }
    assert_eq!(listed(config, &["--gitlab", "elsewhere"]), Vec::<Value>::new());
    let (_, table, _) = sessions(config, &["list"]);
    assert!(table.starts_with("ID ") && table.lines().count() == 4, "{table}");

    // One of them by its id, which is the one in the log.
    let one = hers[0]["id"].as_str().expect("text");
    let (code, out, log) = sessions(config, &["end", "--id", one]);
    assert_eq!(code, 0, "{log}");
    assert!(out.contains(one) && log.contains("operator"), "{out}{log}");
    for _ in 0..2 {
        let mut both = [alice.clone().xhr("/private").await, again.clone().xhr("/private").await]
            .map(|answer| answer.status.as_u16());
        both.sort_unstable();
        assert_eq!(both, [200, 401], "one of hers");
    }
    let (code, ..) = sessions(config, &["end", "--user", "alice"]);
    assert_eq!(code, 0);
    for _ in 0..2 {
        assert_eq!(alice.xhr("/private").await.status, 401);
        assert_eq!(again.xhr("/private").await.status, 401);
        assert_eq!(bob.xhr("/private").await.status, 200);
    }
    assert_eq!(sessions(config, &["end", "--user", "alice"]).0, 1, "there is none left");
    assert_eq!(sessions(config, &["end"]).0, 2, "whose is not said");
    assert_eq!(sessions(config, &["end", "--gitlab", "main"]).0, 2, "all must be said");
    assert_eq!(sessions(config, &["end", "--all"]).0, 0);
    assert_eq!(bob.xhr("/private").await.status, 401);
    assert_eq!(listed(config, &[]), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_shared_store_there_is_nothing_to_list() {
    let lab = Setup::default().start().await;
    let (code, out, error) = sessions(&lab.config, &["list"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.contains("`session.store` is \"memory\""), "{error}");
    let mut redis = Redis::start().await;
    let config = lab.config.replace("[session]", &format!("[session]\nstore = {}", redis.store()));
    redis.stop();
    let (code, out, error) = sessions(&config, &["list"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("the session store can't be reached"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_at_one_replica_counts_at_all() {
    let redis = Redis::start().await;
    let token = "a token that nobody guesses";
    let setup = Setup::default()
        .gitlab(&format!("hook_secret = \"{token}\""))
        .session("recheck = \"1h\"\ngrace = \"2h\"\n");
    let twins = setup.twins(3, &redis.store()).await;
    let bob = twins.signed_in("bob").await;
    let mut copies = [bob.clone(), bob.clone(), bob.clone()];
    for (copy, at) in copies.iter_mut().zip(twins.addresses()) {
        copy.point_at(at);
        assert_eq!(copy.xhr("/team").await.status, 200);
    }
    twins.lab.gitlab.set_role("acme", "bob", None).expect("bob");
    let event = r#"{"event_name":"user_remove_from_group","user_id":3}"#;
    let hook = Request::post("/oauth2/hooks/main")
        .header("host", HOST)
        .header("content-type", "application/json")
        .header("x-gitlab-token", token);
    let answer = send(twins.addresses()[1], hook.body(event.to_owned()).expect("a request")).await;
    assert_eq!(answer.status, 204);
    for copy in &mut copies {
        // Each replica hears of it within a second.
        until("he is out", async || copy.clone().xhr("/team").await.status == 403).await;
        assert_eq!(copy.xhr("/private").await.status, 200, "he is still signed in");
    }
    // What a mark says is nobody else's to read.
    let marks = redis.cli(&["ZRANGE", "labgate:marks", "0", "-1"]);
    assert!(
        !marks.trim().is_empty() && !marks.contains("main") && !marks.contains("User"),
        "{marks}"
    );
    // Whoever looks at the sessions leaves the marks to replicas that are yet to come.
    assert_eq!(listed(&twins.lab.config, &[]).len(), 1);
    assert_eq!(redis.cli(&["ZRANGE", "labgate:marks", "0", "-1"]), marks);
}
