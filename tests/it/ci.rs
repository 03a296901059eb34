//! CI jobs as callers: by ID tokens made for labgate alone, and by job tokens where those are accepted; each key of a rule alone can say no
//! (threats A20, A30).

use labgate::{
    clock::Clock,
    demo::gitlab::{
        Application, Command, DevGitlab, Endpoint, Failure, Fault, Keys, Mint, Options, Signature,
        Tamper, UserState,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    support::{Answer, Lab, Setup, Wire, until},
    tokens::{ALL, bearer, code, get, told},
};

/// A route of one CI rule at `/echo/NAME`.
fn route(name: &str, allow: &str) -> String {
    format!("[[route]]\npath = \"/echo/{name}\"\nupstream = \"UPSTREAM\"\nallow = {allow}\n")
}

const SHOP: &str = r#"[{ ci_project = "acme/web/shop" }]"#;

async fn lab() -> Lab {
    Setup::default().gitlab(ALL).routes(&route("shop", SHOP)).start().await
}

fn claims(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn token(lab: &Lab, changes: &Value) -> String {
    lab.gitlab.ci_id_token(&claims(changes))
}

/// How many tokens of this kind were refused so far.
async fn refused(lab: &Lab, kind: &str) -> u64 {
    let series = format!("labgate_token_checks_total{{kind=\"{kind}\",result=\"refused\"}}");
    lab.count(&series).await
}

async fn ask(lab: &Lab, token: &str) -> Answer {
    bearer(lab, "/echo/shop", token).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_passes_and_the_application_hears_which() {
    let identity = "headers = { X-Forwarded-User = \"username\", X-Kind = \"kind\", X-Project = \"project_path\", X-Ref = \"ref\", X-Environment = \"environment\", X-Email = \"email\", X-Groups = \"groups\", X-Sub = \"sub\" }";
    let lab = Setup::default().gitlab(ALL).identity(identity).routes(&route("shop", SHOP));
    let lab = lab.start().await;
    let token = token(&lab, &json!({ "environment": "review/caf\u{e9}" }));
    let answer = ask(&lab, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for (header, value) in [
        ("x-forwarded-user", "acme/web/shop"),
        ("x-kind", "ci"),
        ("x-project", "acme/web/shop"),
        ("x-ref", "main"),
        ("x-environment", "review/caf%C3%A9"),
        ("x-sub", "project:102"),
        // Whoever started the job is not there.
        ("x-email", ""),
        ("x-groups", ""),
        ("authorization", ""),
    ] {
        assert_eq!(told(&answer, header), value, "{header}");
    }
    let spoof = [("authorization", format!("Bearer {token}")), ("x-kind", "browser".into())];
    let spoof = spoof.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(told(&get(&lab, "/echo/shop", &spoof).await, "x-kind"), "ci");
    assert_eq!(lab.gitlab.hits(Endpoint::ApiUser), 0, "GitLab is asked for its keys alone");
    assert_eq!(lab.gitlab.hits(Endpoint::Keys), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_is_not_gitlabs_counts_for_nothing() {
    let lab = lab().await;
    let none = Map::new();
    assert_eq!(ask(&lab, &token(&lab, &json!({}))).await.status, 200);
    for signature in
        [Signature::Broken, Signature::None, Signature::HmacOfPublicKey, Signature::CiUnderLoginKid]
    {
        let token = lab.gitlab.false_ci_id_token(&none, &Tamper::signature(signature));
        assert_eq!(ask(&lab, &token).await.status, 401, "{signature:?}");
    }
    let with =
        |header: &Value| Tamper { header: claims(header), ..Tamper::signature(Signature::Ci) };
    let trap = format!("{}/trap", lab.gitlab.url());
    for header in [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "PS256" }),
        json!({ "kid": "unknown" }),
        json!({ "kid": "../../etc/passwd" }),
        json!({ "kid": "x".repeat(10_000) }),
        json!({ "kid": 7 }),
        json!({ "crit": ["b64"] }),
        json!({ "jku": trap, "kid": "theirs" }),
    ] {
        let token = lab.gitlab.false_ci_id_token(&none, &with(&header));
        assert_eq!(ask(&lab, &token).await.status, 401, "{header}");
    }
    assert_eq!(lab.gitlab.hits(Endpoint::Other), 0, "nothing was fetched");
    let good = token(&lab, &json!({}));
    let (message, signature) = good.rsplit_once('.').expect("parts");
    for broken in [
        format!("{message}."),
        message.to_owned(),
        format!("{good}.{signature}"),
        format!("{message}.{signature}A"),
        format!(".{message}.{signature}"),
        format!("{good}{}", "A".repeat(40_000)),
        good.to_ascii_lowercase(),
    ] {
        assert_eq!(ask(&lab, &broken).await.status, 401, "{} bytes", broken.len());
    }
    // Four signatures, ten headers and two of the rest have a job's form; what has none may be any token.
    assert_eq!((refused(&lab, "ci").await, refused(&lab, "unknown").await), (4 + 10 + 2, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_missing_or_for_others_are_refused() {
    let lab = lab().await;
    let now = lab.clock.now().unix();
    for (claim, values) in [
        ("iss", vec![Value::Null, json!("https://evil.test"), json!([lab.gitlab.external_url()])]),
        (
            "aud",
            vec![
                Value::Null,
                json!(""),
                json!([]),
                json!("https://ci.example/"),
                json!("https://ci.exampl"),
                json!("HTTPS://ci.example"),
                json!("https://vault.example"),
                // The trap: any job may name the application.
                json!("labgate-demo"),
                json!(["https://ci.example", "labgate-demo"]),
                json!({ "0": "https://ci.example" }),
            ],
        ),
        ("exp", vec![Value::Null, json!(now - 1), json!("x"), json!(-1)]),
        ("iat", vec![Value::Null, json!(now + 3600), json!(now - 3601)]),
        ("nbf", vec![json!(now + 3600)]),
        ("job_id", vec![Value::Null, json!(""), json!("x"), json!({})]),
        ("pipeline_id", vec![Value::Null]),
        ("project_id", vec![Value::Null, json!("1 2")]),
        ("project_path", vec![Value::Null, json!("shop"), json!("acme/../shop"), json!(7)]),
        ("namespace_path", vec![Value::Null]),
        ("ref", vec![Value::Null]),
        ("ref_type", vec![Value::Null, json!("commit")]),
    ] {
        for value in values {
            let token = token(&lab, &json!({ claim: value }));
            let answer = ask(&lab, &token).await;
            assert_eq!(answer.status, 401, "{claim} = {value}");
            assert!(!answer.text().contains("evil.test"), "{value}");
        }
    }
    for fine in [
        json!({ "aud": ["https://ci.example", "https://vault.example"] }),
        json!({ "iat": now + 50, "nbf": now + 45 }),
        json!({ "exp": now + 10 * 86400 }),
        json!({ "project_id": 102, "job_id": 9001, "pipeline_id": 7001, "ref_protected": true }),
        json!({ "sub": "anything", "user_login": null }),
    ] {
        assert_eq!(ask(&lab, &token(&lab, &fine)).await.status, 200, "{fine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_counts_until_its_end_or_for_an_hour() {
    let lab = lab().await;
    let now = lab.clock.now().unix();
    let short = token(&lab, &json!({ "exp": now + 300 }));
    let long = token(&lab, &json!({ "exp": now + 86_400 }));
    for (turn, at, expected) in [
        (0, "its making", [200, 200]),
        (290, "before its end", [200, 200]),
        (10, "its end", [401, 200]),
        (3290, "before the hour", [401, 200]),
        (10, "after the hour", [401, 401]),
    ] {
        lab.clock.turn(turn);
        for (token, status) in [&short, &long].into_iter().zip(expected) {
            assert_eq!(ask(&lab, token).await.status, status, "{at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_alone_can_say_no() {
    let all = r#"[{ ci_project = "acme/web/shop", ci_namespace = "acme/web", ref = "main", ref_protected = true, environment = "production", pipeline_source = "push" }]"#;
    let lab = Setup::default().gitlab(ALL).routes(&route("shop", all)).start().await;
    let job = |change: &Value| {
        let mut all = claims(&json!({ "environment": "production" }));
        all.extend(claims(change));
        lab.gitlab.ci_id_token(&all)
    };
    assert_eq!(ask(&lab, &job(&json!({}))).await.status, 200);
    for (change, words) in [
        (json!({ "project_path": "acme/web/shop2" }), "a job of acme/web/shop2"),
        (json!({ "namespace_path": "acme" }), "a project in acme"),
        (json!({ "ref": "main2" }), "the branch main2"),
        (json!({ "ref_type": "tag" }), "the tag main"),
        (json!({ "ref_protected": "false" }), "is not protected"),
        (json!({ "ref_protected": null }), "has not said whether"),
        (json!({ "environment": "production2" }), "deploys to production2"),
        (json!({ "environment": null }), "has not said that it deploys"),
        (json!({ "pipeline_source": "web" }), "started by web"),
    ] {
        let answer = ask(&lab, &job(&change)).await;
        assert_eq!(
            (answer.status.as_u16(), code(&answer).as_str()),
            (403, "forbidden"),
            "{change}"
        );
        let held = answer.json()["rules"][0]["held"].as_str().expect("text").to_owned();
        assert!(held.contains(words) && !held.contains(", and "), "{change}: {held}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_started_a_job_is_not_there() {
    let rules = [
        ("signed-in", "\"signed-in\""),
        ("user", r#"[{ user = "root" }]"#),
        ("email", r#"[{ email = "root@example.com" }]"#),
        ("domain", r#"[{ email_domain = "example.com" }]"#),
        ("group", r#"[{ group = "acme" }]"#),
        ("project", r#"[{ project = "acme/web/shop" }]"#),
        ("external", "[{ external = false }]"),
        ("two-factor", "[{ two_factor = false }]"),
        ("both", r#"[{ ci_project = "acme/web/shop", user = "root" }]"#),
        ("job", SHOP),
    ];
    let routes: String = rules.iter().map(|(name, allow)| route(name, allow)).collect();
    let lab = Setup::default().gitlab(ALL).routes(&routes).start().await;
    let id_token = token(
        &lab,
        &json!({ "user_login": "root", "user_id": "1", "user_email": "root@example.com",
                "user_access_level": "owner", "groups_direct": ["acme"] }),
    );
    start_job(&lab.gitlab, "root", "glcbt-jobs");
    for (name, allow) in rules {
        let status = if name == "job" { 200 } else { 403 };
        for token in [id_token.as_str(), "glcbt-jobs"] {
            let answer = bearer(&lab, &format!("/echo/{name}"), token).await;
            assert_eq!(answer.status, status, "{allow}: {}", answer.text());
        }
    }
    // Nor does anybody pass for a job.
    let answer = bearer(&lab, "/echo/job", "glpat-dev-root").await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("no CI job"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_refused_reads_which_it_is_and_whether_any_rule_is_for_jobs() {
    let hidden = |name: &str, allow: &str| format!("{}hide_rules = true\n", route(name, allow));
    let routes = [
        route("people", "\"signed-in\""),
        route("bob", r#"[{ user = "bob" }]"#),
        route("never", r#"[{ ci_project = "acme/web/shop", user = "bob" }]"#),
        route("other", r#"[{ user = "bob" }, { ci_project = "acme/ops/runbooks" }]"#),
        hidden("hidden", r#"[{ user = "bob" }]"#),
    ];
    let lab = Setup::default().gitlab(ALL).routes(&routes.concat()).start().await;
    let id_token = token(&lab, &json!({}));
    start_job(&lab.gitlab, "bob", "glcbt-jobs");
    let none = "No rule here is for CI jobs, and rules for people don't hold for them";
    for (name, words) in [
        ("people", none),
        ("bob", none),
        ("never", none),
        ("other", "for which no rule here holds"),
        // Of which kind they are is told as little as what they say.
        ("hidden", "for which no rule here holds"),
    ] {
        for token in [id_token.as_str(), "glcbt-jobs"] {
            let answer = bearer(&lab, &format!("/echo/{name}"), token).await;
            assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (403, "forbidden"));
            let problem = answer.json();
            let detail = problem["detail"].as_str().expect("text");
            assert!(detail.starts_with("It is a CI job of acme/web/shop at "), "{detail}");
            assert!(detail.contains(words), "{name}: {detail}");
            assert_eq!(problem["user"], "acme/web/shop");
            assert_eq!(problem.get("sign_in"), None, "{problem}");
            assert_eq!(problem.get("rules").is_none(), name == "hidden", "{problem}");
            let text = answer.text();
            assert!(!text.contains("igned in") && !text.contains("account=other"), "{text}");
        }
    }
}

fn start_job(gitlab: &DevGitlab, user: &str, token: &str) {
    gitlab
        .mint(Mint::Job {
            project: "acme/web/shop".into(),
            user: user.into(),
            token: token.into(),
            ref_name: "main".into(),
            tag: false,
            source: None,
        })
        .expect("started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_token_counts_while_its_job_runs_and_where_it_is_accepted() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let rules = [
        ("shop", SHOP),
        ("main", r#"[{ ci_namespace = "acme/web", ref = "main", pipeline_source = "push" }]"#),
        ("protected", r#"[{ ci_project = "acme/web/shop", ref_protected = true }]"#),
        ("environment", r#"[{ ci_project = "acme/web/shop", environment = "production" }]"#),
        ("other", r#"[{ ci_project = "acme/ops/runbooks" }]"#),
    ];
    let mut routes: String = rules.iter().map(|(name, allow)| route(name, allow)).collect();
    routes.push_str(&route("id-only", SHOP).replace("allow", "tokens = [\"ci\"]\nallow"));
    routes.push_str(&route("basic", SHOP).replace("allow", "basic = true\nallow"));
    let lab = Setup::default().gitlab(ALL).routes(&routes).start().await;
    start_job(&lab.gitlab, "bob", "glcbt-running");
    start_job(&lab.gitlab, "bob", "old-form-of-a-job-token");
    for field in [
        ("job-token", "glcbt-running"),
        ("job-token", "old-form-of-a-job-token"),
        ("authorization", "Bearer glcbt-running"),
    ] {
        for (name, status) in
            [("shop", 200), ("main", 200), ("protected", 403), ("environment", 403), ("other", 403)]
        {
            let answer = get(&lab, &format!("/echo/{name}"), &[field]).await;
            assert_eq!(answer.status, status, "{field:?} {name}: {}", answer.text());
            if status == 200 {
                assert_eq!(told(&answer, field.0), "", "{field:?}");
            }
        }
        let answer = get(&lab, "/echo/id-only", &[field]).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "token_kind"));
    }
    let basic = format!("Basic {}", STANDARD.encode("gitlab-ci-token:old-form-of-a-job-token"));
    assert_eq!(get(&lab, "/echo/basic", &[("authorization", &basic)]).await.status, 200);
    for (token, refusal) in [("glcbt-unknown", "token_invalid"), ("glpat-dev-bob", "token_invalid")]
    {
        let answer = get(&lab, "/echo/shop", &[("job-token", token)]).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, refusal), "{token}");
    }
    assert_eq!(
        refused(&lab, "job").await,
        3 + 2,
        "where it is not accepted, and those that are none"
    );
    lab.gitlab.set_state("bob", UserState::Blocked).expect("a user");
    lab.clock.turn(61);
    let blocked = get(&lab, "/echo/shop", &[("job-token", "glcbt-running")]).await;
    assert_eq!(code(&blocked), "token_account");
    lab.gitlab.set_state("bob", UserState::Active).expect("a user");
    lab.clock.turn(61);
    assert_eq!(get(&lab, "/echo/shop", &[("job-token", "glcbt-running")]).await.status, 200);
    lab.gitlab.mint(Mint::JobEnd { token: "glcbt-running".into() }).expect("ended");
    lab.clock.turn(61);
    assert_eq!(get(&lab, "/echo/shop", &[("job-token", "glcbt-running")]).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_elsewhere_is_not_the_projects() {
    let lab = lab().await;
    // A developer's fork may get a merge request from a branch of the project, and runs its jobs as it likes.
    for (elsewhere, status) in [
        (json!({}), 200),
        (json!({ "job_project_id": null, "job_project_path": null }), 200),
        (json!({ "job_project_id": 102 }), 200),
        (json!({ "job_project_id": "999", "job_project_path": "mallory/shop" }), 401),
        (json!({ "job_project_id": "999" }), 401),
        (json!({ "job_project_id": "" }), 401),
    ] {
        assert_eq!(ask(&lab, &token(&lab, &elsewhere)).await.status, status, "{elsewhere}");
    }
    let started = |token: &str, ref_name: &str| {
        let job = Mint::Job {
            project: "acme/web/shop".into(),
            user: "bob".into(),
            token: token.into(),
            ref_name: ref_name.into(),
            tag: false,
            source: Some("merge_request_event".into()),
        };
        lab.gitlab.mint(job).expect("started");
    };
    started("glcbt-branch", "main");
    started("glcbt-merge-request", "refs/merge-requests/7/head");
    assert_eq!(ask(&lab, "glcbt-branch").await.status, 200);
    let refused = ask(&lab, "glcbt-merge-request").await;
    assert_eq!((refused.status.as_u16(), code(&refused).as_str()), (401, "token_invalid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn job_tokens_are_opt_in() {
    let few = ALL.replace(", \"job\"", "");
    let lab = Setup::default().gitlab(&few).routes(&route("shop", SHOP)).start().await;
    start_job(&lab.gitlab, "bob", "glcbt-running");
    for field in [("job-token", "glcbt-running"), ("authorization", "Bearer glcbt-running")] {
        let answer = get(&lab, "/echo/shop", &[field]).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "token_kind"));
    }
    assert_eq!(lab.gitlab.hits(Endpoint::ApiJob), 0, "GitLab is not even asked");
    assert_eq!(refused(&lab, "job").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_opens_no_door_for_programs_nor_a_job_one_for_people() {
    let lab = lab().await;
    let login = lab.gitlab.login_id_token("alice", "labgate-demo").expect("an ID token");
    let answer = ask(&lab, &login).await;
    assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "token_of_a_sign_in"));
    // With a job's claims it is no better: the audience is the application's.
    let both = token(&lab, &json!({ "aud": "labgate-demo", "sub": "2", "nonce": "x" }));
    assert_eq!(ask(&lab, &both).await.status, 401);
    let dressed = token(
        &lab,
        &json!({ "sub": "2", "nonce": "x", "auth_time": 1, "email": "root@example.com" }),
    );
    assert_eq!(told(&ask(&lab, &dressed).await, "x-forwarded-user"), "acme/web/shop");
    assert_eq!(lab.gitlab.hits(Endpoint::TokenInfo), 0, "no ID token is shown to anybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_unknown_ones_ask_once() {
    let lab = lab().await;
    assert_eq!(ask(&lab, &token(&lab, &json!({}))).await.status, 200);
    let kid = |number: usize| Tamper {
        header: claims(&json!({ "kid": format!("unknown-{number}") })),
        ..Tamper::signature(Signature::Ci)
    };
    for number in 0..100 {
        let token = lab.gitlab.false_ci_id_token(&Map::new(), &kid(number));
        assert_eq!(ask(&lab, &token).await.status, 401);
    }
    assert!(lab.gitlab.hits(Endpoint::Keys) <= 2, "{}", lab.gitlab.hits(Endpoint::Keys));
    assert_eq!(ask(&lab, &token(&lab, &json!({}))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_can_not_be_had_are_no_verdict() {
    let lab = lab().await;
    lab.gitlab.fail(Fault::new(Endpoint::Keys, 2, Failure::Refuse));
    let token = token(&lab, &json!({}));
    let answer = ask(&lab, &token).await;
    assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (503, "token_unconfirmed"));
    assert!(!answer.header("retry-after").is_empty());
    until("the keys are there", async || ask(&lab, &token).await.status == 200).await;
}

/// A second GitLab with keys, people and an application of its own.
async fn other_gitlab(clock: &Clock) -> DevGitlab {
    let options = Options {
        clock: clock.clone(),
        keys: Some(Keys::generate().await.expect("keys")),
        applications: vec![Application::new("other-application", "secret", &[])],
        ..Options::default()
    };
    DevGitlab::start(options).await.expect("another development GitLab")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_gitlab_opens_nothing_at_another() {
    let clock = Clock::system();
    let other = other_gitlab(&clock).await;
    let table = format!(
        "[gitlab.other]\nbase_url = \"{}\"\nclient_id = \"other-application\"\nclient_secret = \"secret\"\n{}",
        other.external_url(),
        ALL.replace("https://ci.example", "https://other.example")
    );
    let of = |name: &str, gitlab: &str, allow: &str| {
        route(name, allow).replace("allow", &format!("gitlab = {gitlab}\nallow"))
    };
    let routes = [
        of("main", "[\"main\"]", r#"[{ user = "bob" }]"#),
        of("other", "[\"other\"]", r#"[{ user = "bob" }]"#),
        of(
            "both",
            "[\"main\", \"other\"]",
            r#"[{ user = "bob" }, { ci_project = "acme/web/shop" }]"#,
        ),
        of(
            "by-rule",
            "[\"main\", \"other\"]",
            r#"[{ gitlab = "main", user = "bob" }, { gitlab = "other", ci_project = "acme/web/shop" }]"#,
        ),
        of("main-ci", "[\"main\"]", SHOP),
        of("other-ci", "[\"other\"]", SHOP),
    ];
    let identity = "headers = { X-Forwarded-User = \"{username}@{gitlab}\" }";
    let setup =
        Setup::default().gitlab(ALL).identity(identity).routes(&routes.concat()).more(&table);
    let lab = setup.start().await;
    let own = |token: &str| Command::AddPersonalToken {
        user: "bob".into(),
        token: token.into(),
        scopes: vec!["read_user".into()],
        expires_at: None,
    };
    lab.gitlab.command(own("glpat-of-main")).expect("made");
    other.command(own("glpat-of-other")).expect("made");
    // The same username is somebody else.
    for (token, path, status) in [
        ("glpat-of-main", "/echo/main", 200),
        ("glpat-of-other", "/echo/other", 200),
        ("glpat-of-main", "/echo/other", 401),
        ("glpat-of-other", "/echo/main", 401),
    ] {
        assert_eq!(bearer(&lab, path, token).await.status, status, "{token} {path}");
    }
    // Nobody guesses whose it is: it would show the token of one to the other.
    let hits = other.hits(Endpoint::ApiToken);
    let answer = bearer(&lab, "/echo/both", "glpat-of-main").await;
    assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (401, "token_gitlab"));
    assert!(answer.text().contains("X-Labgate-GitLab"), "{}", answer.text());
    let auth = ("authorization", "Bearer glpat-of-main");
    let answer = get(&lab, "/echo/both", &[auth, ("x-labgate-gitlab", "main")]).await;
    assert_eq!(told(&answer, "x-forwarded-user"), "bob@main");
    assert_eq!(told(&answer, "x-labgate-gitlab"), "");
    assert_eq!(get(&lab, "/echo/both", &[auth, ("x-labgate-gitlab", "x")]).await.status, 401);
    assert_eq!(other.hits(Endpoint::ApiToken), hits, "the other never saw it");
    assert_eq!(get(&lab, "/echo/both", &[auth, ("x-labgate-gitlab", "other")]).await.status, 401);
    for (token, gitlab, status) in
        [("glpat-of-main", "main", 200), ("glpat-of-other", "other", 403)]
    {
        let auth = ("authorization", &*format!("Bearer {token}"));
        let answer = get(&lab, "/echo/by-rule", &[auth, ("x-labgate-gitlab", gitlab)]).await;
        assert_eq!(answer.status, status, "{gitlab}");
    }
    // A job's token names its issuer, and its audience is one GitLab's.
    let (main_job, other_job) = (
        lab.gitlab.ci_id_token(&Map::new()),
        other.ci_id_token(&claims(&json!({ "aud": "https://other.example" }))),
    );
    for (token, path, status) in [
        (&main_job, "/echo/main-ci", 200),
        (&other_job, "/echo/other-ci", 200),
        (&main_job, "/echo/other-ci", 401),
        (&other_job, "/echo/main-ci", 401),
        (&main_job, "/echo/by-rule", 403),
        (&other_job, "/echo/by-rule", 200),
        (&main_job, "/echo/both", 200),
        (&other_job, "/echo/both", 200),
        (&other.ci_id_token(&Map::new()), "/echo/both", 401),
        // Signed by the one, said to be of the other.
        (
            &other.ci_id_token(&claims(&json!({ "iss": lab.gitlab.external_url() }))),
            "/echo/main-ci",
            401,
        ),
    ] {
        assert_eq!(bearer(&lab, path, token).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_of_a_token_ends_when_the_token_does() {
    let routes = "[[route]]\npath = \"/ws\"\nupstream = \"UPSTREAM\"\nallow = [{ user = \"bob\" }, { ci_project = \"acme/web/shop\" }]\n";
    let lab = Setup::default().gitlab(ALL).routes(routes).start().await;
    let job = token(&lab, &json!({}));
    let open = async |token: &str| {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            crate::support::HOST
        );
        let mut wire = Wire::say(lab.app.addr(), request).await;
        let status = wire.answer().await.status();
        (wire, status)
    };
    let (_bob, status) = open("glpat-dev-bob").await;
    assert_eq!(status, 101);
    let (_job, status) = open(&job).await;
    assert_eq!(status, 101);
    let (_, status) = open("glpat-wrong").await;
    assert_eq!(status, 401);
    let closed = |cause: &str| format!("labgate_tunnels_closed_total{{cause=\"{cause}\"}}");
    // A GitLab that is silent for a while ends nothing.
    lab.gitlab.fail(Fault::new(Endpoint::ApiToken, 2, Failure::Refuse));
    lab.clock.turn(65);
    let unheard = "labgate_token_checks_total{kind=\"unknown\",result=\"unconfirmed\"}";
    until("GitLab was asked in vain", async || lab.count(unheard).await > 0).await;
    assert_eq!(lab.count("labgate_open_tunnels").await, 2);
    lab.gitlab.clear_faults();
    let token = "glpat-dev-bob".to_owned();
    lab.gitlab.command(Command::RevokePersonalToken { token }).expect("revoked");
    lab.clock.turn(65);
    until("bob's is closed", async || lab.count(&closed("token_invalid")).await == 1).await;
    until("one is open", async || lab.count("labgate_open_tunnels").await == 1).await;
    lab.clock.turn(3600);
    until("the job's is closed", async || lab.count(&closed("token_invalid")).await == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_asks_nothing_anew() {
    let lab = Setup::default().gitlab(ALL).routes(&route("bob", r#"[{ user = "bob" }]"#));
    let mut lab = lab.start().await;
    let background = tokio::runtime::Handle::current();
    assert_eq!(bearer(&lab, "/echo/bob", "glpat-dev-bob").await.status, 200);
    let hits = lab.gitlab.hits(Endpoint::ApiToken);
    let env = |_: &str| None;
    let plan = |text: &str| {
        let config = toml::from_str(text).expect("a configuration");
        labgate::gate::Plan::draw(&config, &env).0.expect("a plan")
    };
    lab.app.reload(plan(&lab.config), &background, &env).expect("reloaded");
    assert_eq!(bearer(&lab, "/echo/bob", "glpat-dev-bob").await.status, 200);
    assert_eq!(lab.gitlab.hits(Endpoint::ApiToken), hits);
    // Rules that ask for more do ask.
    let more = lab.config.replace("{ user = \"bob\" }", "{ group = \"acme\" }");
    lab.app.reload(plan(&more), &background, &env).expect("reloaded");
    assert_eq!(bearer(&lab, "/echo/bob", "glpat-dev-bob").await.status, 200);
    assert_eq!(lab.gitlab.hits(Endpoint::ApiToken), hits + 1);
}
