//! Tests of the whole room against a GitLab that answers by script.

mod http;
mod id_token;
mod identify;
mod oauth;
mod script;
mod signer;
mod tokens;
mod turns;

use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use self::script::Script;
use super::*;
use crate::config::{AccessLevel, GroupPath, GroupPattern, ProjectPath};

const CLIENT: &str = "app-id";
const SECRET: &str = "gloas-s3cr3t/+";

/// The configuration of a GitLab at `url`.
fn config(url: &str) -> config::GitLab {
    config::GitLab {
        base_url: Url::parse(url).unwrap(),
        client_id: CLIENT.into(),
        ..config::GitLab::default()
    }
}

fn provider_of(config: &config::GitLab, needs: Needs) -> Provider {
    let secret = Some(Zeroizing::new(SECRET.to_owned()));
    let observe = Arc::new(Unobserved);
    Provider::new("main", config, secret, needs, &Roots::none(), &|_| None, observe).unwrap()
}

fn provider(script: &Script) -> Provider {
    provider_of(&config(&script.url("/")), everything())
}

fn everything() -> Needs {
    Needs { hand_on: vec![GroupPattern::any()], ..Needs::default() }
}

fn path(path: &str) -> GroupPath {
    path.to_owned().try_into().unwrap()
}

fn need(group: &str, role: Option<AccessLevel>) -> GroupNeed {
    GroupNeed { path: path(group), role }
}

/// Remembers what it was told.
#[derive(Default)]
struct Told(Mutex<Vec<(String, &'static str, String)>>);

impl Observe for Told {
    fn request(&self, gitlab: &str, endpoint: &'static str, status: &str, _: Duration) {
        self.0.lock().unwrap().push((gitlab.into(), endpoint, status.into()));
    }
}

/// Lets time pass at once, without disturbing calls that are made afterwards.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[test]
fn every_call_can_run_on_any_thread() {
    fn is_send(_: &(impl Send + ?Sized)) {}
    let provider = provider_of(&config("https://gitlab.example/"), everything());
    let tokens = TokenSet {
        access: Zeroizing::default(),
        refresh: None,
        expires_in: Duration::ZERO,
        scope: Vec::new(),
        id_token: None,
    };
    is_send(&provider.exchange("", "", ""));
    is_send(&provider.refresh(""));
    is_send(&provider.revoke(""));
    is_send(&provider.identify(""));
    is_send(&provider.identify_newcomer(""));
    is_send(&provider.verify_id_token(&tokens, None, crate::clock::Timestamp::default()));
    is_send(&provider.watch());
}

#[test]
fn read_api_is_asked_for_only_when_a_rule_needs_it() {
    let scopes = |configured: &[&str], needs: Needs| {
        let configured: Vec<_> = configured.iter().map(ToString::to_string).collect();
        let scopes = needs.scopes(&configured);
        let tell = scopes.iter().any(|scope| STATE_SCOPES.contains(&scope.as_str()));
        tell.then(|| scopes.join(" "))
    };
    let role = |role| Needs { groups: vec![need("acme", role)], ..Needs::default() };
    let usual = ["openid", "email", "read_user"];
    assert_eq!(scopes(&usual, role(None)).unwrap(), "openid email read_user");
    for enough in [AccessLevel::DEVELOPER, AccessLevel::OWNER] {
        assert_eq!(scopes(&usual, role(Some(enough))).unwrap(), "openid email read_user");
    }
    for below in ["minimal", "guest", "planner", "reporter"] {
        let below = below.parse().unwrap();
        assert_eq!(scopes(&usual, role(Some(below))).unwrap(), "openid email read_user read_api");
    }
    let projects = vec!["acme/shop".to_owned().try_into().unwrap()];
    let project = Needs { projects, ..Needs::default() };
    assert_eq!(scopes(&usual, project).unwrap(), "openid email read_user read_api");
    let flags = Needs { flags: true, ..Needs::default() };
    assert_eq!(scopes(&usual, flags).unwrap(), "openid email read_user");
    let reporter = role(Some(AccessLevel::REPORTER));
    assert_eq!(scopes(&["openid", "read_api"], reporter.clone()).unwrap(), "openid read_api");
    assert_eq!(scopes(&["openid"], reporter).unwrap(), "openid read_api");
    assert_eq!(scopes(&["openid", "email"], role(None)), None, "blocked users would be invisible");
}

#[test]
fn a_table_that_cannot_work_is_refused() {
    let make = |config: &config::GitLab, env: &dyn Fn(&str) -> Option<String>| {
        let observe = Arc::new(Unobserved);
        Provider::new("main", config, None, everything(), &Roots::none(), env, observe).map(drop)
    };
    let base = config("https://gitlab.example/");
    assert!(make(&base, &|_| None).is_ok());
    let nobody = config::GitLab { client_id: String::new(), ..base.clone() };
    assert!(matches!(make(&nobody, &|_| None), Err(ProviderError::ClientId)));
    for ours in ["redirect_uri", "state", "scope", "code_challenge", "request"] {
        let mut fixed = base.clone();
        fixed.authorize_params.insert(ours.into(), "x".into());
        let mut forwarded = base.clone();
        forwarded.forward_params.push(ours.into());
        for bad in [fixed, forwarded] {
            let found = make(&bad, &|_| None);
            assert!(matches!(found, Err(ProviderError::Parameter(name)) if name == ours));
        }
    }
    let lost = config::GitLab { ca: Some("/nowhere/ca.pem".into()), ..base.clone() };
    assert!(matches!(make(&lost, &|_| None), Err(ProviderError::CaFile(_))));
    for content in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let bad = config::GitLab { ca: Some(file.path().into()), ..base.clone() };
        assert!(matches!(make(&bad, &|_| None), Err(ProviderError::CaContent)), "{content}");
    }
    let proxy = |key: &str| (key == "HTTPS_PROXY").then(|| "https://proxy.example:3128".into());
    assert!(matches!(make(&base, &proxy), Err(ProviderError::Proxy)));
    let bypassed = |key: &str| match key {
        "NO_PROXY" => Some("gitlab.example".into()),
        _ => proxy(key),
    };
    assert!(make(&base, &bypassed).is_ok());
}
