//! Callers without a browser, by tokens of accounts: each kind counts where it is taken and nowhere else, GitLab is asked no more than it must be, and no
//! token opens what it was not made for (threats A30, A32, A33).

use http::Method;
use labgate::demo::gitlab::{Command, DevGitlab, Endpoint, Failure, Fault, Mint, Role, UserState};
use serde_json::Value;

use crate::support::{Answer, Lab, Setup, send};

/// `tokens` of `[gitlab.main]` that accept everything.
pub const ALL: &str = r#"tokens = { accept = ["oauth", "personal", "project", "group", "ci", "job"], ci_audience = "https://ci.example", max_checks = 1000 }
"#;

/// Anybody signed in, some people, and everybody.
const ROUTES: &str = r#"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
"#;

/// One GET with these headers.
pub async fn get(lab: &Lab, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request =
        http::Request::builder().method(Method::GET).uri(path).header("host", crate::support::HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(lab.app.addr(), request.body(String::new()).expect("a request")).await
}

/// One GET with a bearer token.
pub async fn bearer(lab: &Lab, path: &str, token: &str) -> Answer {
    get(lab, path, &[("authorization", &format!("Bearer {token}"))]).await
}

/// What the upstream was told under `name`; empty if nothing.
pub fn told(answer: &Answer, name: &str) -> String {
    let echo = answer.json();
    let pairs = echo["headers"].as_array().expect("pairs").clone();
    let mut found = pairs.iter().filter(|pair| pair[0] == name);
    let value = found.next().map(|pair| pair[1].as_str().expect("text").to_owned());
    assert!(found.next().is_none(), "twice: {name}");
    value.unwrap_or_default()
}

/// The code of the refusal.
pub fn code(answer: &Answer) -> String {
    let document: Value = answer.json();
    let kind = document["type"].as_str().unwrap_or_default();
    kind.strip_prefix("urn:labgate:problem:").unwrap_or_default().to_owned()
}

fn personal(gitlab: &DevGitlab, user: &str, token: &str, scopes: &[&str], ends: Option<u64>) {
    let (user, token) = (user.to_owned(), token.to_owned());
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let command = Command::AddPersonalToken { user, token, scopes, expires_at: ends };
    gitlab.command(command).expect("carried out");
}

fn oauth(gitlab: &DevGitlab, user: &str, client_id: &str, token: &str, scopes: &[&str]) {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let (user, client_id, token) = (user.to_owned(), client_id.to_owned(), token.to_owned());
    gitlab.mint(Mint::Oauth { user, client_id, token, scopes }).expect("carried out");
}

/// 64 hexadecimal digits.
fn hex(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// Requests to GitLab about tokens so far.
pub fn asked(gitlab: &DevGitlab) -> u64 {
    [
        Endpoint::ApiToken,
        Endpoint::TokenInfo,
        Endpoint::ApiUser,
        Endpoint::Userinfo,
        Endpoint::ApiMembers,
        Endpoint::ApiJob,
        Endpoint::Other,
    ]
    .into_iter()
    .map(|endpoint| gitlab.hits(endpoint))
    .sum()
}

/// Tokens of every kind that is an account's.
fn furnish(gitlab: &DevGitlab) {
    let read = ["read_user".to_owned(), "read_api".to_owned()];
    oauth(gitlab, "alice", "labgate-demo", &hex('a'), &["openid", "email", "read_user"]);
    gitlab
        .mint(Mint::Project {
            project: "acme/web/shop".into(),
            token: "glpat-project".into(),
            role: Role::Reporter,
            scopes: read.to_vec(),
            expires_at: None,
        })
        .expect("made");
    gitlab
        .mint(Mint::Group {
            group: "acme/web".into(),
            token: "glpat-group".into(),
            role: Role::Developer,
            scopes: read.to_vec(),
            expires_at: None,
        })
        .expect("made");
    let (username, email) = ("deployer".to_owned(), None);
    gitlab.command(Command::AddUser { username, email, bot: true }).expect("made");
    personal(gitlab, "deployer", "token-without-prefix", &["api"], None);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_counts_and_the_application_hears_whose_it_is() {
    let identity = "headers = { X-Forwarded-User = \"username\", X-Kind = \"kind\", X-Forwarded-Email = \"email\", X-Forwarded-Groups = \"groups\" }";
    let lab = Setup::default().gitlab(ALL).identity(identity).routes(ROUTES).start().await;
    furnish(&lab.gitlab);
    for (token, user, email) in [
        (hex('a').as_str(), "alice", "alice@example.com"),
        ("glpat-dev-bob", "bob", "bob@example.com"),
        // Its address is not confirmed.
        ("glpat-dev-carol", "carol", ""),
        ("glpat-project", "project_102_bot_", ""),
        ("glpat-group", "group_12_bot_", ""),
        ("token-without-prefix", "deployer", ""),
    ] {
        let answer = bearer(&lab, "/echo", token).await;
        assert_eq!(answer.status, 200, "{token}: {}", answer.text());
        let name = told(&answer, "x-forwarded-user");
        assert!(name == user || (user.ends_with('_') && name.starts_with(user)), "{name}");
        assert_eq!(told(&answer, "x-kind"), "token");
        assert_eq!(told(&answer, "x-forwarded-email"), email, "{token}");
        assert_eq!(told(&answer, "authorization"), "", "the token is labgate's");
        assert!(answer.cookies().is_empty(), "no session is made of it");
    }
    for kind in ["oauth", "personal", "project", "group"] {
        let series = format!("labgate_token_checks_total{{kind=\"{kind}\",result=\"accepted\"}}");
        assert!(lab.metric(&series).await >= 1.0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_account_in_thousands_of_groups_the_application_hears_as_much_as_fits() {
    let routes =
        ROUTES.replace("\"signed-in\"", "[{ group = \"acme\" }, { group = \"acme/ops\" }]");
    let lab = Setup::default().gitlab(ALL).routes(&routes).start().await;
    furnish(&lab.gitlab);
    lab.gitlab
        .command(Command::AddGroups { user: "alice".into(), count: 3000 })
        .expect("carried out");
    let answer = bearer(&lab, "/echo", &hex('a')).await;
    assert_eq!(told(&answer, "x-forwarded-user"), "alice");
    let groups = told(&answer, "x-forwarded-groups");
    assert!(groups.starts_with("acme,acme/ops,") && groups.len() < 2500, "{}", groups.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_over_or_somebody_elses_do_not_count() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    let gitlab = &lab.gitlab;
    furnish(gitlab);
    let read = &["read_user"];
    personal(gitlab, "alice", "glpat-expired", read, Some(lab.clock.now().unix() - 1));
    personal(gitlab, "alice", "glpat-revoked", read, None);
    let token = "glpat-revoked".to_owned();
    gitlab.command(Command::RevokePersonalToken { token }).expect("revoked");
    personal(gitlab, "alice", "glpat-narrow", &["read_repository"], None);
    oauth(gitlab, "alice", "another-application", &hex('b'), &["openid", "api"]);
    oauth(gitlab, "alice", "labgate-demo", &hex('c'), &["openid"]);
    oauth(gitlab, "dave", "labgate-demo", &hex('d'), &["openid", "read_user"]);
    let login = gitlab.login_id_token("alice", "labgate-demo").expect("an ID token");
    for (token, status, refusal) in [
        ("glpat-unknown", 401, "token_invalid"),
        (hex('0').as_str(), 401, "token_invalid"),
        ("glpat-expired", 401, "token_invalid"),
        ("glpat-revoked", 401, "token_invalid"),
        ("glpat-dev-dave", 401, "token_account"),
        (&hex('d'), 401, "token_account"),
        (&hex('b'), 401, "token_of_another_application"),
        (&login, 401, "token_of_a_sign_in"),
        ("glpat-narrow", 403, "token_scope"),
        (&hex('c'), 403, "token_scope"),
        ("a b", 401, "token_malformed"),
        ("", 401, "token_malformed"),
    ] {
        let before = lab.sample.hits();
        for _ in 0..2 {
            let answer = bearer(&lab, "/echo", token).await;
            assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (status, refusal));
            let challenge = answer.header("www-authenticate");
            let error = if status == 401 { "invalid_token" } else { "insufficient_scope" };
            assert!(challenge.starts_with("Bearer ") && challenge.contains(error), "{challenge}");
            assert!(status == 401 || challenge.contains("scope=\"read_user\""), "{challenge}");
            let plain = token.len() < 10 || !answer.text().contains(token);
            assert!(plain && answer.header("cache-control") == "no-store");
        }
        assert_eq!(lab.sample.hits(), before, "{refusal}");
    }
    // What they are stays unknown: nine were asked about once each, three never.
    let count = async |result: &str| {
        let series = format!("labgate_token_checks_total{{kind=\"unknown\",result=\"{result}\"}}");
        lab.count(&series).await
    };
    assert_eq!((count("refused").await, count("cached").await), (9 + 2 * 3, 9));
    // Every state in which GitLab shuts an account out shuts its tokens out.
    for state in [
        UserState::Banned,
        UserState::BlockedPendingApproval,
        UserState::Deactivated,
        UserState::PasswordExpired,
        UserState::TermsNotAccepted,
        UserState::Unconfirmed,
    ] {
        gitlab.set_state("bob", state).expect("a user");
        lab.clock.turn(61);
        let answer = bearer(&lab, "/echo", "glpat-dev-bob").await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "token_account"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_in_its_header_and_only_there() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    furnish(&lab.gitlab);
    let good = [
        ("private-token", "glpat-dev-bob"),
        ("PRIVATE-TOKEN", "glpat-project"),
        ("authorization", "bearer glpat-dev-bob"),
    ];
    for field in good {
        let answer = get(&lab, "/echo", &[field]).await;
        assert_eq!(answer.status, 200, "{field:?}");
        assert_eq!(told(&answer, &field.0.to_ascii_lowercase()), "", "{field:?}");
    }
    // As at GitLab, an OAuth token is no private token, and an account's token no job's.
    for field in [("private-token", hex('a').as_str()), ("job-token", "glpat-dev-bob")] {
        assert_eq!(get(&lab, "/echo", &[field]).await.status, 401, "{field:?}");
    }
    // Two callers in one request are none.
    let both = [("private-token", "glpat-dev-bob"), ("authorization", "Bearer glpat-dev-alice")];
    let answer = get(&lab, "/echo", &both).await;
    assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (400, "tokens_several"));
    for path in
        ["/echo?private_token=glpat-dev-bob", "/echo?access_token=glpat-dev-bob&job_token=x"]
    {
        let answer = get(&lab, path, &[]).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "sign_in_required"));
    }
    // Another scheme is the application's.
    let mut alice = lab.signed_in("alice").await;
    let basic = [("authorization", "Basic YWxpY2U6Z2xwYXQtZGV2LWJvYg==")];
    let answer = alice.request(Method::GET, "/echo", &basic, "").await;
    assert_eq!(told(&answer, "x-forwarded-user"), "alice");
    assert_eq!(told(&answer, "authorization"), basic[0].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_before_a_session_and_a_bad_one_is_no_session() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    let mut alice = lab.signed_in("alice").await;
    let good = [("authorization", "Bearer glpat-dev-bob")];
    let answer = alice.request(Method::GET, "/echo", &good, "").await;
    assert_eq!(told(&answer, "x-forwarded-user"), "bob");
    assert_eq!(told(&answer, "cookie"), "", "the session's cookie stays here");
    let bad = [("authorization", "Bearer glpat-wrong"), ("accept", "text/html")];
    let answer = alice.request(Method::GET, "/echo", &bad, "").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.cookies().is_empty(), "the session is left alone");
    assert_eq!(alice.xhr("/echo").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_takes_the_kinds_that_it_names() {
    let route = |path: &str, more: &str| {
        format!("[[route]]\npath = \"/echo/{path}\"\nupstream = \"UPSTREAM\"\n{more}\n")
    };
    let signed_in = "allow = \"signed-in\"\n";
    let public = "allow = \"public\"\n";
    let kind = |kind: &str| route(kind, &format!("tokens = [\"{kind}\"]\n{signed_in}"));
    let routes = [
        route("default", signed_in),
        route("none", &format!("tokens = []\n{signed_in}")),
        kind("oauth"),
        kind("personal"),
        kind("project"),
        kind("group"),
        route("public", public),
        route("public-personal", &format!("tokens = [\"personal\"]\n{public}")),
        route("private", signed_in),
    ];
    let lab = Setup::default().gitlab(ALL).routes(&routes.concat()).start().await;
    furnish(&lab.gitlab);
    let tokens = [
        ("oauth", hex('a')),
        ("personal", "glpat-dev-bob".to_owned()),
        ("project", "glpat-project".to_owned()),
        ("group", "glpat-group".to_owned()),
    ];
    for (kind, token) in &tokens {
        for route in ["oauth", "personal", "project", "group"] {
            let answer = bearer(&lab, &format!("/echo/{route}"), token).await;
            assert_eq!(answer.status == 200, route == *kind, "{kind} at {route}");
            if route != *kind {
                assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "token_kind"));
                let detail = answer.json()["detail"].as_str().expect("text").to_owned();
                assert!(detail.contains(kind) && detail.contains(route), "{detail}");
            }
        }
        assert_eq!(bearer(&lab, "/echo/default", token).await.status, 200, "{kind}");
        // Where no token counts, it is not looked at, and not labgate's.
        let none = bearer(&lab, "/echo/none", token).await;
        assert_eq!((none.status.as_u16(), code(&none).as_str()), (401, "sign_in_required"));
    }
    // A public application may have tokens of its own, which no GitLab gets to see.
    let before = asked(&lab.gitlab);
    let answer = bearer(&lab, "/echo/public", "the applications own").await;
    assert_eq!(told(&answer, "authorization"), "Bearer the applications own");
    assert_eq!((told(&answer, "x-forwarded-user").as_str(), asked(&lab.gitlab)), ("", before));
    // Unless the route says that they are GitLab's.
    let answer = bearer(&lab, "/echo/public-personal", "glpat-dev-bob").await;
    assert_eq!(told(&answer, "x-forwarded-user"), "bob");
    assert_eq!(told(&answer, "authorization"), "");
    assert_eq!(bearer(&lab, "/echo/public-personal", "glpat-wrong").await.status, 401);
    assert_eq!(get(&lab, "/echo/public-personal", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_accepted_is_not_looked_at() {
    let lab = Setup::default().routes(ROUTES).start().await;
    let mut alice = lab.signed_in("alice").await;
    let before = asked(&lab.gitlab);
    for field in [
        ("authorization", "Bearer glpat-dev-bob"),
        ("private-token", "glpat-dev-bob"),
        ("job-token", "x"),
    ] {
        let answer = get(&lab, "/echo", &[field]).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "sign_in_required"));
        // As if it were not there.
        let answer = alice.request(Method::GET, "/echo", &[field], "").await;
        assert_eq!(told(&answer, "x-forwarded-user"), "alice");
        assert_eq!(told(&answer, field.0), field.1);
    }
    assert_eq!(asked(&lab.gitlab), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_may_be_a_token_where_the_route_says_so() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let routes = format!(
        "{ROUTES}[[route]]\npath = \"/echo/git\"\nbasic = true\nupstream = \"UPSTREAM\"\nallow = [{{ user = \"bob\" }}]\n"
    );
    let lab = Setup::default().gitlab(ALL).routes(&routes).start().await;
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for pair in ["bob:glpat-dev-bob", "anything:glpat-dev-bob", ":glpat-dev-bob"] {
        let field = ("authorization", basic(pair));
        let answer = get(&lab, "/echo/git", &[(field.0, &field.1)]).await;
        assert_eq!(answer.status, 200, "{pair}: {}", answer.text());
        assert_eq!(told(&answer, "authorization"), "");
        assert_eq!(get(&lab, "/echo", &[(field.0, &field.1)]).await.status, 401, "not there");
    }
    for (pair, status) in [
        ("bob:glpat-wrong", 401),
        // The name says nothing: this is alice.
        ("bob:glpat-dev-alice", 403),
        ("bob:", 401),
        ("glpat-dev-bob", 401),
        ("glpat-dev-bob:", 401),
    ] {
        let field = basic(pair);
        let answer = get(&lab, "/echo/git", &[("authorization", &field)]).await;
        assert_eq!(answer.status, status, "{pair}");
    }
    // Git asks without first; a browser must never ask its user for a password.
    let challenges = |answer: &Answer| {
        let all = answer.headers.get_all("www-authenticate").iter();
        all.filter(|value| value.as_bytes().starts_with(b"Basic ")).count()
    };
    assert_eq!(challenges(&get(&lab, "/echo/git", &[]).await), 1);
    assert_eq!(challenges(&get(&lab, "/echo", &[]).await), 0);
    let fetch = [("sec-fetch-mode", "cors")];
    assert_eq!(challenges(&get(&lab, "/echo/git", &fetch).await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_for_its_time_and_costs_no_call() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    let tokens = [("glpat-dev-bob", 200), ("glpat-wrong", 401), (&hex('0'), 401)];
    for (token, status) in tokens {
        assert_eq!(bearer(&lab, "/echo", token).await.status, status);
    }
    let before = asked(&lab.gitlab);
    for _ in 0..20 {
        for (token, status) in tokens {
            assert_eq!(bearer(&lab, "/echo", token).await.status, status);
        }
    }
    assert_eq!(asked(&lab.gitlab), before);
    let cached = "labgate_token_checks_total{kind=\"personal\",result=\"cached\"}";
    assert_eq!(lab.count(cached).await, 20);
    // Revoked, it is dead when the answer is old, and stays so.
    let token = "glpat-dev-bob".to_owned();
    lab.gitlab.command(Command::RevokePersonalToken { token }).expect("revoked");
    lab.clock.turn(55);
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 200);
    lab.clock.turn(6);
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 401);
    // One that is made meanwhile counts when the bad answer is old.
    personal(&lab.gitlab, "alice", "glpat-wrong", &["read_user"], None);
    assert_eq!(bearer(&lab, "/echo", "glpat-wrong").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oauth_token_ends_when_gitlab_says() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    lab.gitlab.set_access_token_lifetime(20);
    furnish(&lab.gitlab);
    assert_eq!(bearer(&lab, "/echo", &hex('a')).await.status, 200);
    lab.clock.turn(21);
    assert_eq!(bearer(&lab, "/echo", &hex('a')).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_is_asked_about_once_however_many_requests_bring_it() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    let slow = std::time::Duration::from_millis(300);
    lab.gitlab.fail(Fault::slow(Endpoint::ApiToken, 1, slow));
    let requests = (0..40).map(|_| bearer(&lab, "/echo", "glpat-dev-bob"));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((lab.gitlab.hits(Endpoint::ApiToken), lab.gitlab.hits(Endpoint::ApiUser)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitlab_in_trouble_is_no_verdict() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    let page = |status| Fault::answer(Endpoint::ApiToken, 1, status, "text/html", "<h1>oh</h1>");
    let bare = Fault::answer(Endpoint::ApiUser, 1, 403, "text/plain", "Forbidden");
    let broken = Fault::json(Endpoint::ApiUser, 1, 200, &serde_json::json!({ "id": "x" }));
    let throttled = Fault::throttled(Endpoint::ApiToken, 1, "7");
    let gone = Fault::new(Endpoint::ApiToken, 2, Failure::Refuse);
    for (fault, wait) in [
        (page(500), ""),
        (page(502), ""),
        (page(200), ""),
        (bare, ""),
        (broken, ""),
        (throttled, "7"),
        (gone, ""),
    ] {
        let what = format!("{fault:?}");
        lab.gitlab.fail(fault);
        let answer = bearer(&lab, "/echo", "glpat-dev-bob").await;
        assert_eq!(answer.status, 503, "{what}");
        assert_eq!(code(&answer), "token_unconfirmed", "{what}");
        let retry = answer.header("retry-after");
        assert!(!retry.is_empty() && (wait.is_empty() || retry == wait), "{what}: {retry}");
        assert!(answer.header("www-authenticate").is_empty(), "{what}");
        lab.gitlab.clear_faults();
        assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 200, "{what}: it is back");
        lab.clock.turn(61);
    }
    let series = "labgate_token_checks_total{kind=\"unknown\",result=\"unconfirmed\"}";
    assert_eq!(lab.count(series).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_that_do_not_reach_a_rule_are_named() {
    let routes = r#"
[[route]]
path = "/echo/team"
upstream = "UPSTREAM"
allow = [{ group = "acme" }]
[[route]]
path = "/echo/shop"
upstream = "UPSTREAM"
allow = [{ project = "acme/web/shop", role = "reporter" }]
[[route]]
path = "/echo/bob"
upstream = "UPSTREAM"
allow = [{ user = "bob" }]
"#;
    let lab = Setup::default().gitlab(ALL).routes(routes).start().await;
    furnish(&lab.gitlab);
    personal(&lab.gitlab, "bob", "glpat-narrow", &["read_user"], None);
    for path in ["/echo/team", "/echo/shop"] {
        let answer = bearer(&lab, path, "glpat-narrow").await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (403, "forbidden"), "{path}");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.contains("insufficient_scope"), "{challenge}");
        assert!(challenge.contains("scope=\"read_api\""), "{challenge}");
        assert!(answer.text().contains("lacks the scope read_api"), "{}", answer.text());
        assert_eq!(bearer(&lab, path, "glpat-dev-bob").await.status, 200, "{path}");
    }
    assert_eq!(bearer(&lab, "/echo/bob", "glpat-narrow").await.status, 200);
    // Who tells all and is no member is simply refused.
    let answer = bearer(&lab, "/echo/team", "glpat-dev-carol").await;
    assert_eq!(answer.status, 403);
    assert!(answer.header("www-authenticate").is_empty() && !answer.text().contains("scope"));
    // Bots hold what their token holds, where it was made.
    for (token, path, status) in [
        ("glpat-project", "/echo/shop", 200),
        ("glpat-project", "/echo/team", 403),
        ("glpat-group", "/echo/shop", 200),
        ("glpat-group", "/echo/team", 403),
        ("token-without-prefix", "/echo/shop", 403),
    ] {
        assert_eq!(bearer(&lab, path, token).await.status, status, "{token} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_by_a_token_reads_whose_it_is_and_is_offered_no_other_account() {
    let routes = r#"
[[route]]
path = "/echo/ops"
upstream = "UPSTREAM"
allow = [{ group = "acme/ops", role = "maintainer" }, { user = "root" }]
[[route]]
path = "/echo/hidden"
upstream = "UPSTREAM"
hide_rules = true
allow = [{ user = "root" }]
"#;
    let lab = Setup::default().gitlab(ALL).routes(&format!("{ROUTES}{routes}")).start().await;
    let authorization = ("authorization", "Bearer glpat-dev-bob");
    for accept in ["*/*", "text/html"] {
        let answer = get(&lab, "/echo/ops", &[authorization, ("accept", accept)]).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (403, "forbidden"));
        let problem = answer.json();
        assert_eq!((&problem["user"], problem.get("sign_in")), (&"bob".into(), None), "{problem}");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.starts_with("It is a token of bob at "), "{detail}");
        let needed = problem["rules"][1]["needed"].as_str().expect("text");
        let held = problem["rules"][1]["held"].as_str().expect("text");
        assert_eq!((needed, held), ("the user root", "a token of bob"));
        let text = answer.text().to_ascii_lowercase();
        assert!(!text.contains("sign") && !text.contains("account=other"), "{text}");
    }
    let hidden = bearer(&lab, "/echo/hidden", "glpat-dev-bob").await;
    assert_eq!((hidden.status.as_u16(), hidden.json().get("rules")), (403, None));
    assert!(!hidden.text().contains("root") && !hidden.text().contains("`rules`"));
    // Whoever is signed in may still be somebody else.
    let answer = lab.signed_in("bob").await.xhr("/echo/ops").await;
    assert!(answer.json()["sign_in"].as_str().expect("a URL").contains("account=other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_are_asked_anew_when_the_answer_is_old() {
    let routes =
        "[[route]]\npath = \"/echo\"\nupstream = \"UPSTREAM\"\nallow = [{ group = \"acme\" }]\n";
    let lab = Setup::default().gitlab(ALL).routes(routes).start().await;
    furnish(&lab.gitlab);
    for token in ["glpat-dev-alice", &hex('a')] {
        assert_eq!(bearer(&lab, "/echo", token).await.status, 200, "{token}");
    }
    lab.gitlab.set_role("acme", "alice", None).expect("a group");
    lab.clock.turn(61);
    for token in ["glpat-dev-alice", &hex('a')] {
        assert_eq!(bearer(&lab, "/echo", token).await.status, 403, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_reaches_a_log_line() {
    let house = Setup::default()
        .gitlab(ALL)
        .routes(ROUTES)
        .more("[telemetry]\nlog = \"debug\"\n")
        .process(&[])
        .await;
    for token in ["glpat-dev-bob", "glpat-very-wrong-token"] {
        let request = http::Request::get("/echo")
            .header("host", crate::support::HOST)
            .header("authorization", format!("Bearer {token}"));
        send(house.addr, request.body(String::new()).expect("a request")).await;
    }
    crate::support::until("both are told", async || {
        let log = house.labgate.said();
        log.contains("token_invalid") && log.contains("bob@main")
    })
    .await;
    let log = house.labgate.said();
    assert!(!log.contains("glpat-"), "{log}");
}
