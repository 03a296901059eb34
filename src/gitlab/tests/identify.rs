//! Who somebody is: good answers, every kind of bad one, and thousands of groups.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    script::{Reply, Script},
    *,
};
use crate::identity::{Identity, Membership};

pub(super) const USER: &str = "/api/v4/user";
pub(super) const INFO: &str = "/oauth/userinfo";

pub(super) fn user() -> Value {
    json!({ "id": 42, "username": "alice", "name": "Alice Ä.", "state": "active", "locked": false,
            "email": "other@acme.example", "confirmed_at": "2020-01-01T00:00:00Z",
            "two_factor_enabled": true, "external": false })
}

pub(super) fn info() -> Value {
    json!({ "sub": "42", "name": "Alice", "nickname": "alice", "email": "alice@acme.example",
            "email_verified": true, "groups": ["Acme", "Acme/Web", "other"],
            "https://gitlab.org/claims/groups/maintainer": ["Acme"] })
}

pub(super) fn ok(body: &Value) -> Reply {
    Reply::json(200, &body.to_string())
}

/// A GitLab that answers these paths, and 404 on others.
async fn answering(replies: Vec<(&'static str, Reply)>) -> Script {
    let replies: HashMap<_, _> = replies.into_iter().collect();
    let missing = Reply::json(404, r#"{"message":"404 Not found"}"#);
    Script::new(move |hit| replies.get(hit.path()).cloned().unwrap_or_else(|| missing.clone()))
        .await
}

fn level(level: AccessLevel, path: &str) -> Membership {
    Membership { path: path.into(), level }
}

#[tokio::test]
async fn a_person_is_what_both_answers_say() {
    let script = answering(vec![(USER, ok(&user())), (INFO, ok(&info()))]).await;
    let identity = provider(&script).identify("the-token").await.unwrap();
    let expected = Identity {
        gitlab: "main".into(),
        issuer: script.url(""),
        sub: "42".into(),
        username: "alice".into(),
        name: "Alice Ä.".into(),
        email: Some("alice@acme.example".into()),
        groups: vec![
            level(AccessLevel::MAINTAINER, "Acme"),
            level(AccessLevel::MAINTAINER, "Acme/Web"),
            level(AccessLevel::MINIMAL, "other"),
        ],
        projects: Vec::new(),
        two_factor: Some(true),
        external: Some(false),
        ..Identity::default()
    };
    assert_eq!(identity, expected);
    let hits = script.hits();
    assert_eq!([hits[0].path(), hits[1].path()], [USER, INFO], "the clear word first");
    assert!(hits.iter().all(|hit| hit.header("authorization") == Some("Bearer the-token")));
}

#[tokio::test]
async fn a_relative_url_root_is_kept() {
    let script = answering(vec![
        ("/git/lab/api/v4/user", ok(&user())),
        ("/git/lab/oauth/userinfo", ok(&info())),
    ])
    .await;
    let provider = provider_of(&config(&script.url("/git/lab/")), everything());
    let identity = provider.identify("token").await.unwrap();
    assert_eq!(identity.issuer, script.url("/git/lab"));
}

#[tokio::test]
async fn calls_go_to_the_internal_url() {
    let script =
        answering(vec![("/in/api/v4/user", ok(&user())), ("/in/oauth/userinfo", ok(&info()))])
            .await;
    let mut config = config("https://gitlab.example/");
    config.internal_url = Some(Url::parse(&script.url("/in/")).unwrap());
    let identity = provider_of(&config, everything()).identify("token").await.unwrap();
    assert_eq!(identity.issuer, "https://gitlab.example");
}

/// Name of a variant with its inner word, for tables.
fn kind(result: Result<Identity, IdentifyError>) -> String {
    match result {
        Ok(_) => "Ok".into(),
        Err(IdentifyError::Ended(cause)) => format!("Ended {cause:?}"),
        Err(error) => {
            let debug = format!("{error:?}");
            assert!(!debug.contains("SECRET"), "an answer was quoted: {debug}");
            debug.split([' ', '(', '{']).next().unwrap().into()
        },
    }
}

fn forbidden(text: &str) -> Reply {
    Reply::json(403, &json!({ "message": text }).to_string())
}

fn lacking_scope() -> Reply {
    let body = r#"{"error":"insufficient_scope","error_description":"…","scope":"read_user"}"#;
    Reply::json(403, body)
}

fn no_verdicts() -> Vec<(&'static str, Reply)> {
    vec![
        ("bare 403", Reply::new(403, "", "")),
        ("403 page", Reply::page(403)),
        ("403 text", Reply::new(403, "content-type: text/plain\r\n", "403 Forbidden - blocked")),
        ("403 other JSON", Reply::json(403, r#"{"message":"go away"}"#)),
        ("403 empty JSON", Reply::json(403, "")),
        ("429", Reply::new(429, "retry-after: 1\r\n", "Retry later")),
        ("429 JSON", Reply::json(429, r#"{"message":{"error":"too many"}}"#)),
        ("500", Reply::json(500, r#"{"message":"500 Internal Server Error"}"#)),
        ("502", Reply::page(502)),
        ("maintenance page", Reply::page(200)),
        ("302", Reply::new(302, "location: /users/sign_in\r\n", "")),
        ("404", Reply::page(404)),
        ("cut", ok(&user()).cut()),
        ("nothing", Reply::nothing()),
    ]
}

#[tokio::test]
async fn only_gitlabs_clear_word_ends_access() {
    let mut table = vec![
        ("blocked", forbidden("403 Forbidden - Your account has been blocked."), "Ended Blocked"),
        (
            "pending",
            forbidden("403 Forbidden - Your account is pending approval from your administrator."),
            "Ended Blocked",
        ),
        (
            "asleep",
            forbidden("403 Forbidden - Your account has been deactivated by your administrator."),
            "Ended Deactivated",
        ),
        (
            "terms",
            forbidden("403 Forbidden - You (@alice) must accept the Terms of Service"),
            "Ended Pending",
        ),
        (
            "e-mail",
            forbidden("403 Forbidden - Your primary email address is not confirmed."),
            "Ended Pending",
        ),
        ("new words", forbidden("403 Forbidden - Something new"), "Ended Other"),
        ("policy", forbidden("403 Forbidden"), "Ended Other"),
        ("scope", lacking_scope(), "Scope"),
        ("unknown token", Reply::json(401, r#"{"message":"401 Unauthorized"}"#), "TokenDead"),
        ("expired token", Reply::json(401, r#"{"error":"invalid_token"}"#), "TokenDead"),
        ("array", Reply::json(200, "[\"SECRET\"]"), "Answer"),
        ("empty", Reply::json(200, ""), "Answer"),
        ("deep", Reply::json(200, &"[".repeat(100_000)), "Answer"),
        ("long", Reply::json(200, &" ".repeat((1 << 20) + 1)), "Unavailable"),
    ];
    table.extend(no_verdicts().into_iter().map(|(name, reply)| (name, reply, "Unavailable")));
    for (name, reply, expected) in table {
        let script = answering(vec![(USER, reply), (INFO, ok(&info()))]).await;
        assert_eq!(kind(provider(&script).identify("token").await), expected, "{name}");
        assert_eq!(script.count(INFO), 0, "{name}");
    }
}

#[tokio::test]
async fn states_of_the_account_are_heeded() {
    let table = [
        ("active", "Ok"),
        ("blocked", "Ended Blocked"),
        ("ldap_blocked", "Ended Blocked"),
        ("banned", "Ended Blocked"),
        ("blocked_pending_approval", "Ended Blocked"),
        ("deactivated", "Ended Deactivated"),
        ("Active", "Ended Other"),
        ("", "Ended Other"),
    ];
    for (state, expected) in table {
        let mut user = user();
        user["state"] = json!(state);
        let script = answering(vec![(USER, ok(&user)), (INFO, ok(&info()))]).await;
        assert_eq!(kind(provider(&script).identify("token").await), expected, "{state}");
    }
}

#[tokio::test]
async fn userinfo_alone_never_says_that_somebody_is_blocked() {
    let unauthorized = "www-authenticate: Bearer realm=\"Doorkeeper\", error=\"invalid_token\"\r\n";
    let lacking = "www-authenticate: Bearer realm=\"Doorkeeper\", error=\"insufficient_scope\"\r\n";
    let mut table = vec![
        ("dead", Reply::new(401, unauthorized, ""), "TokenDead"),
        ("scope", Reply::new(403, lacking, ""), "Scope"),
        ("ended?", forbidden("403 Forbidden - Your account has been blocked."), "Unavailable"),
        ("array", Reply::json(200, "[]"), "Answer"),
        ("null", Reply::json(200, "null"), "Answer"),
        ("long", Reply::json(200, &" ".repeat((8 << 20) + 1)), "Unavailable"),
    ];
    table.extend(no_verdicts().into_iter().map(|(name, reply)| (name, reply, "Unavailable")));
    for (name, reply, expected) in table {
        let script = answering(vec![(USER, ok(&user())), (INFO, reply)]).await;
        assert_eq!(kind(provider(&script).identify("token").await), expected, "{name}");
    }
}

/// What comes of an answer in which one value is another, or missing if null.
async fn changed(which: &'static str, key: &str, value: Value) -> Result<Identity, IdentifyError> {
    let (mut user, mut info) = (user(), info());
    let body = if which == USER { &mut user } else { &mut info };
    match value {
        Value::Null => drop(body.as_object_mut().unwrap().remove(key)),
        value => body[key] = value,
    }
    let script = answering(vec![(USER, ok(&user)), (INFO, ok(&info))]).await;
    provider(&script).identify("token").await
}

#[tokio::test]
async fn answers_of_the_wrong_shape_are_refused() {
    let table = [
        (USER, "id", json!(null), "Answer"),
        (USER, "id", json!("42"), "Answer"),
        (USER, "id", json!(-42), "Answer"),
        (USER, "id", json!(43), "Subject"),
        (USER, "username", json!(null), "Answer"),
        (USER, "username", json!(""), "Answer"),
        (USER, "username", json!("a\nb"), "Answer"),
        (USER, "username", json!("u".repeat(256)), "Answer"),
        (USER, "state", json!(null), "Answer"),
        (USER, "name", json!(null), "Ok"),
        (INFO, "sub", json!(null), "Answer"),
        (INFO, "sub", json!(42), "Answer"),
        (INFO, "sub", json!("43"), "Subject"),
        (INFO, "sub", json!("042"), "Subject"),
        (INFO, "groups", json!(null), "Answer"),
        (INFO, "groups", json!("acme"), "Answer"),
        (INFO, "groups", json!([1]), "Answer"),
        (INFO, "groups", json!([]), "Ok"),
        (INFO, "https://gitlab.org/claims/groups/maintainer", json!("acme"), "Answer"),
        (INFO, "email_verified", json!("true"), "Answer"),
    ];
    for (which, key, value, expected) in table {
        let found = kind(changed(which, key, value.clone()).await);
        assert_eq!(found, expected, "{which} {key} {value}");
    }
}

#[tokio::test]
async fn no_groups_are_no_groups() {
    let identity = changed(INFO, "groups", json!([])).await.unwrap();
    assert!(identity.groups.is_empty());
}

#[tokio::test]
async fn names_are_cut_before_they_grow() {
    let identity = changed(USER, "name", json!("ä".repeat(100_000))).await.unwrap();
    assert_eq!(identity.name.chars().count(), 255);
}

#[tokio::test]
async fn an_email_counts_only_if_gitlab_calls_it_verified() {
    let table = [
        (json!("a@b.example"), json!(true), true, true),
        (json!("a@b.example"), json!(false), false, true),
        (json!("a@b.example"), json!(null), false, true),
        (json!(null), json!(true), false, false),
        (json!("no address"), json!(true), false, false),
        (json!("a@b.example\n"), json!(true), false, false),
        (json!("a\0@b.example"), json!(true), false, false),
        (json!("a b@b.example"), json!(true), false, false),
        (json!(format!("{}@b.example", "a".repeat(255))), json!(true), false, false),
    ];
    for (email, verified, strict, lenient) in table {
        for (require, expected) in [(true, strict), (false, lenient)] {
            let mut info = info();
            (info["email"], info["email_verified"]) = (email.clone(), verified.clone());
            let script = answering(vec![(USER, ok(&user())), (INFO, ok(&info))]).await;
            let mut config = config(&script.url("/"));
            config.require_verified_email = require;
            let identity = provider_of(&config, everything()).identify("token").await.unwrap();
            assert_eq!(identity.email.is_some(), expected, "{email} {verified} {require}");
        }
    }
}

#[tokio::test]
async fn a_token_that_fits_no_header_is_dead() {
    let script = answering(vec![]).await;
    for token in ["a\r\nx: y", "ä", "a b"] {
        assert_eq!(kind(provider(&script).identify(token).await), "TokenDead");
    }
    assert!(script.hits().is_empty());
}

const MEMBER: &str = "/api/v4/groups/Acme%2FWeb-1.0/members/all/42";

async fn with_member(reply: Reply, role: AccessLevel) -> (Result<Identity, IdentifyError>, usize) {
    let mut info = info();
    info["groups"] = json!(["Acme", "Acme/Web-1.0", "lone"]);
    info["https://gitlab.org/claims/groups/maintainer"] = json!([]);
    let script = answering(vec![(USER, ok(&user())), (INFO, ok(&info)), (MEMBER, reply)]).await;
    let groups = vec![need("acme/web-1.0", Some(role)), need("elsewhere", Some(role))];
    let provider = provider_of(&config(&script.url("/")), Needs { groups, ..Needs::default() });
    assert!(provider.scopes().contains(&"read_api".to_owned()) || role == AccessLevel::DEVELOPER);
    (provider.identify("token").await, script.hits().len() - 2)
}

#[tokio::test]
async fn roles_below_developer_are_asked_of_the_members_api() {
    let member = |level: u64, state: &str| {
        ok(&json!({ "id": 42, "access_level": level, "membership_state": state }))
    };
    let table = [
        (member(20, "active"), "Ok", 20),
        (member(25, "active"), "Ok", 25),
        (member(10, "active"), "Ok", 10),
        (member(50, "active"), "Ok", 50),
        (member(20, "awaiting"), "Ok", 5),
        (member(0, "active"), "Ok", 5),
        (ok(&json!({ "access_level": 20 })), "Ok", 20),
        (Reply::json(404, r#"{"message":"404 Not found"}"#), "Ok", 5),
        (member(300, "active"), "Answer", 0),
        (Reply::page(404), "Unavailable", 0),
        (forbidden("403 Forbidden"), "Unavailable", 0),
        (lacking_scope(), "Ok", 5),
        (Reply::json(401, "{}"), "TokenDead", 0),
        (Reply::page(502), "Unavailable", 0),
    ];
    for (reply, expected, level) in table {
        let (result, asked) = with_member(reply, AccessLevel::REPORTER).await;
        assert!(asked == 2 || result.is_err(), "the other group may be reached by sharing");
        if let Ok(identity) = &result {
            let found: Vec<_> =
                identity.groups.iter().map(|group| (&*group.path, group.level.number())).collect();
            assert_eq!(found, [("Acme/Web-1.0", level)]);
        }
        assert_eq!(kind(result), expected);
    }
    let (result, asked) = with_member(member(20, "active"), AccessLevel::DEVELOPER).await;
    assert_eq!((kind(result).as_str(), asked), ("Ok", 0), "the claims decide");
}

pub(super) fn project(path: &str) -> ProjectPath {
    path.to_owned().try_into().unwrap()
}

const SHOP: &str = "/api/v4/projects/acme%2Fweb%2Fshop-1.0/members/all/42";

fn shop() -> Needs {
    Needs { projects: vec![project("acme/web/shop-1.0")], ..Needs::default() }
}

#[tokio::test]
async fn projects_are_asked_for_with_the_persons_own_token() {
    let member = |level: u64, state: &str| {
        ok(&json!({ "id": 42, "access_level": level, "membership_state": state }))
    };
    let table = [
        (member(10, "active"), "Ok", Some(Some(10))),
        (member(50, "active"), "Ok", Some(Some(50))),
        (member(25, "active"), "Ok", Some(Some(25))),
        (member(0, "active"), "Ok", Some(None)),
        (member(40, "awaiting"), "Ok", Some(None)),
        (Reply::json(404, r#"{"message":"404 Not found"}"#), "Ok", Some(None)),
        (Reply::json(404, r#"{"message":"404 Project Not Found"}"#), "Ok", Some(None)),
        // It has moved; whoever has the new path is not asked about.
        (Reply::new(301, "location: /api/v4/projects/7/members/all/42\r\n", ""), "Ok", Some(None)),
        (Reply::new(302, "location: /users/sign_in\r\n", ""), "Unavailable", None),
        // The token was given before the rule: not known.
        (lacking_scope(), "Ok", None),
        (Reply::json(401, "{}"), "TokenDead", None),
        (forbidden("403 Forbidden"), "Unavailable", None),
        (Reply::page(404), "Unavailable", None),
        (Reply::page(500), "Unavailable", None),
        (member(300, "active"), "Answer", None),
    ];
    for (reply, expected, level) in table {
        let script = answering(vec![
            (USER, ok(&user())),
            (INFO, ok(&info())),
            (SHOP, reply),
            ("/api/v4/projects/7/members/all/42", member(50, "active")),
        ])
        .await;
        let provider = provider_of(&config(&script.url("/")), shop());
        assert_eq!(provider.scopes().last().unwrap(), "read_api");
        let result = provider.identify("the-token").await;
        let hits = script.hits();
        assert_eq!(hits.iter().filter(|hit| hit.path().contains("/projects/")).count(), 1);
        assert!(hits.iter().all(|hit| hit.header("authorization") == Some("Bearer the-token")));
        if let Ok(identity) = &result {
            let said = identity.in_project(&project("ACME/web/Shop-1.0"));
            let number = said.map(|said| said.level.map(AccessLevel::number));
            assert_eq!(number, level, "{expected}");
            assert_eq!(provider.lacks_facts(identity, "openid read_api"), level.is_none());
            assert!(!provider.lacks_facts(identity, "openid read_user"), "nothing to be had");
        }
        assert_eq!(kind(result), expected);
    }
}

#[tokio::test]
async fn all_questions_are_put_at_once_and_each_only_once() {
    let member = ok(&json!({ "access_level": 30 }));
    let script = Script::new(move |hit| match hit.path() {
        USER => ok(&user()),
        INFO => ok(&info()),
        _ => member.clone(),
    })
    .await;
    let path = |number| format!("acme/project-{number}");
    let projects: Vec<_> = (0..20).map(|number| project(&path(number))).collect();
    let groups = vec![need("far", None), need("FAR", Some(AccessLevel::GUEST)), need("acme", None)];
    let needs = Needs { groups, projects, ..Needs::default() };
    let identity = provider_of(&config(&script.url("/")), needs).identify("token").await.unwrap();
    assert_eq!(script.hits().len(), 2 + 1 + 20);
    assert_eq!(identity.projects.len(), 20);
    let in_order = identity.projects.iter().enumerate();
    assert!(in_order.into_iter().all(|(number, project)| project.path == path(number)));
    // Reached by sharing, so that no claim knows it: among those that rules mention.
    assert_eq!(identity.groups[0], level(AccessLevel::DEVELOPER, "far"));
}

#[tokio::test]
async fn shared_groups_are_asked_for_where_tokens_may_ask() {
    let far = "/api/v4/groups/far/members/all/42";
    let member = ok(&json!({ "access_level": 20 }));
    for (scope, found) in [("read_user", 0), ("read_api", 1), ("api", 1)] {
        let replies = vec![(USER, ok(&user())), (INFO, ok(&info())), (far, member.clone())];
        let script = answering(replies).await;
        let mut config = config(&script.url("/"));
        config.scopes = vec!["openid".into(), scope.into()];
        let groups = vec![need("far", None), need("acme", Some(AccessLevel::MAINTAINER))];
        let provider = provider_of(&config, Needs { groups, ..Needs::default() });
        let identity = provider.identify("token").await.unwrap();
        assert_eq!(provider.ruled_groups(&identity), 1 + found, "{scope}");
        assert_eq!(script.count(far), found, "{scope}");
        assert_eq!(script.hits().len(), 2 + found, "what the claims say of acme is enough");
    }
}

#[tokio::test]
async fn flags_are_what_gitlab_says_and_unknown_if_it_does_not() {
    let needs = || Needs { flags: true, ..Needs::default() };
    for (two_factor, external, lacks) in [
        (json!(true), json!(false), false),
        (json!(false), json!(true), false),
        (json!(null), json!(true), false),
        (json!(null), json!(null), true),
    ] {
        let mut user = user();
        user["two_factor_enabled"] = two_factor.clone();
        user["external"] = external.clone();
        let script = answering(vec![(USER, ok(&user)), (INFO, ok(&info()))]).await;
        let provider = provider_of(&config(&script.url("/")), needs());
        assert!(!provider.scopes().contains(&"read_api".to_owned()));
        let identity = provider.identify("token").await.unwrap();
        assert_eq!(json!(identity.two_factor), two_factor);
        assert_eq!(json!(identity.external), external);
        assert_eq!(provider.lacks_facts(&identity, "read_user"), lacks);
    }
    let mut user = user();
    user["two_factor_enabled"] = json!("yes");
    let script = answering(vec![(USER, ok(&user)), (INFO, ok(&info()))]).await;
    assert_eq!(kind(provider(&script).identify("token").await), "Answer");
}

#[tokio::test]
async fn thousands_of_groups_are_reduced_at_once() {
    let mut groups: Vec<_> =
        (0..5000).map(|number| format!("Big/group-{number:04}/{}", "x".repeat(40))).collect();
    groups.push("Acme/Ops".into());
    groups.push("team".into());
    let mut info = info();
    info["groups"] = json!(groups);
    info["https://gitlab.org/claims/groups/owner"] = json!(["BIG/group-0001"]);
    let script = answering(vec![(USER, ok(&user())), (INFO, ok(&info))]).await;
    let hand_on = vec![String::from("big/*-000*").try_into().unwrap()];
    let groups = vec![
        need("acme/ops", Some(AccessLevel::DEVELOPER)),
        need("ACME/OPS", None),
        need("team2", None),
        need("x/team", None),
        need("tea", None),
    ];
    let provider =
        provider_of(&config(&script.url("/")), Needs { groups, hand_on, ..Needs::default() });
    let identity = provider.identify("token").await.unwrap();
    let paths: Vec<_> = identity.groups.iter().map(|group| group.path.as_str()).collect();
    assert_eq!(paths.len(), 11);
    assert_eq!(paths[0], "Acme/Ops", "as GitLab writes it");
    assert!(paths[1].starts_with("Big/group-0000/") && paths[10].starts_with("Big/group-0009/"));
    assert_eq!(identity.groups[0].level, AccessLevel::MAINTAINER, "inherited from Acme");
    assert_eq!(identity.groups[2].level, AccessLevel::OWNER, "whatever the case");
    assert_eq!(identity.groups[3].level, AccessLevel::MINIMAL);
}

#[tokio::test]
async fn handed_on_groups_are_bounded() {
    let groups: Vec<_> = (0..20_000).map(|number| format!("group-{number}")).collect();
    let mut info = info();
    info["groups"] = json!(groups);
    let script = answering(vec![(USER, ok(&user())), (INFO, ok(&info))]).await;
    let provider = provider_of(
        &config(&script.url("/")),
        Needs {
            groups: vec![need("group-19999", None)],
            hand_on: vec![GroupPattern::any()],
            ..Needs::default()
        },
    );
    let identity = provider.identify("token").await.unwrap();
    assert_eq!(identity.groups.len(), 1001);
    assert_eq!(identity.groups[0].path, "group-19999", "rules come first");
}

#[test]
fn claims_and_needs_make_memberships() {
    let maintainer = "https://gitlab.org/claims/groups/maintainer";
    let developer = "https://gitlab.org/claims/groups/developer";
    let claims = json!({ "groups": ["a/b", "a/b/c", "a/b/e", "d"], maintainer: ["a/b/c"], developer: ["a/b", "A/B/C"] });
    let claims: groups::Claims = serde_json::from_value(claims).unwrap();
    let reduce = |paths: &[&str]| {
        let groups = paths.iter().map(|path| need(path, None)).collect();
        let found = Needs { groups, ..Needs::default() }.reduce(&claims);
        let text = |group: Membership| format!("{}={}", group.path, group.level);
        found.into_iter().map(text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(reduce(&["a/b"]), "a/b=developer");
    assert_eq!(reduce(&["a/b/c"]), "a/b/c=maintainer", "the higher role stays");
    assert_eq!(reduce(&["a/b/e"]), "a/b/e=developer", "a member by an ancestor");
    assert_eq!(reduce(&["A/b/C/new", "d/e"]), "", "there is no such group, or not there");
    assert_eq!(reduce(&["a"]), "", "a descendant makes no member");
    assert_eq!(reduce(&["a/bc", "a/b-c", "dd", "b"]), "");
    assert_eq!(reduce(&["d", "D", "a/b", "d"]), "d=minimal a/b=developer");
}
