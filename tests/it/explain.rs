//! `labgate explain` says what the running proxy does, of everybody everywhere, and why.

use std::path::Path;

use labgate::demo::gitlab::{Command, DevGitlab, Role, Visibility};
use serde_json::Value;

use crate::{
    support::{HOST, Setup, labgate, outcome},
    tokens::{ALL, bearer},
};

/// Everybody, with what `explain` is told of them; it is what the development GitLab knows.
const PEOPLE: [(&str, &[&str]); 8] = [
    ("root", &["--email", "root@example.com", "--group", "acme=owner"]),
    (
        "alice",
        &[
            "--email",
            "alice@example.com",
            "--two-factor",
            "--group",
            "acme=developer",
            "--group",
            "acme/ops=maintainer",
        ],
    ),
    (
        "bob",
        &[
            "--email",
            "bob@example.com",
            "--group",
            "acme=developer",
            "--group",
            "acme/web=maintainer",
        ],
    ),
    ("carol", &["--external", "--project", "acme/web/shop=reporter"]),
    ("erin", &["--email", "erin@corp.test", "--project", "acme/web/shop=guest", "--two-factor"]),
    ("frank", &["--email", "frank@corp.test", "--group", "acme/ops=guest"]),
    (
        "grace",
        &[
            "--email",
            "grace@acme",
            "--group",
            "acme-evil=owner",
            "--project",
            "acme-evil/shop=owner",
        ],
    ),
    // Called like the group.
    ("acme", &["--email", "acme@corp.test", "--external", "--two-factor"]),
];

/// `allow` of the route `/p/NUMBER`.
const RULES: [&str; 54] = [
    r#""public""#,
    r#""signed-in""#,
    r#"[{ user = "ALICE" }]"#,
    r#"[{ user = "acme" }]"#,
    r#"[{ user = "ali" }]"#,
    r#"[{ email = "Erin@corp.test" }]"#,
    r#"[{ email = "carol@example.com" }]"#,
    r#"[{ email_domain = "example.com" }]"#,
    r#"[{ email_domain = "corp.test" }]"#,
    r#"[{ email_domain = "test" }]"#,
    r#"[{ group = "acme" }]"#,
    r#"[{ group = "ACME/Ops" }]"#,
    r#"[{ group = "acme/web" }]"#,
    r#"[{ group = "acme-evil" }]"#,
    r#"[{ group = "acme/web/shop" }]"#,
    r#"[{ group = "acme", role = "guest" }]"#,
    r#"[{ group = "acme", role = "developer" }]"#,
    r#"[{ group = "acme", role = "owner" }]"#,
    r#"[{ group = "acme/ops", role = "guest" }]"#,
    r#"[{ group = "acme/ops", role = "planner" }]"#,
    r#"[{ group = "acme/ops", role = "maintainer" }]"#,
    r#"[{ group = "acme/web", role = "maintainer" }]"#,
    r#"[{ project = "acme/web/shop" }]"#,
    r#"[{ project = "acme/WEB/shop", role = "reporter" }]"#,
    r#"[{ project = "acme/web/shop", role = "developer" }]"#,
    r#"[{ project = "acme/web/shop", role = "owner" }]"#,
    r#"[{ project = "acme/ops/runbooks" }]"#,
    r#"[{ project = "acme/ops/runbooks", role = "maintainer" }]"#,
    r#"[{ project = "club/shop" }]"#,
    r#"[{ project = "open/handbook" }]"#,
    r#"[{ project = "acme-evil/shop", role = "owner" }]"#,
    "[{ two_factor = true }]",
    "[{ two_factor = false }]",
    "[{ external = true }]",
    "[{ external = false }]",
    r#"[{ group = "acme", two_factor = true }]"#,
    r#"[{ project = "acme/web/shop", external = false, two_factor = true }]"#,
    r#"[{ group = "acme/ops", project = "acme/web/shop", role = "developer" }]"#,
    r#"[{ user = "carol", group = "acme" }, { user = "bob", external = true }]"#,
    r#"[{ user = "frank" }, { email_domain = "corp.test", two_factor = true }, { group = "acme", role = "owner" }]"#,
    // Those of CI jobs, which no user fulfils.
    r#"[{ ci_project = "ACME/web/shop" }]"#,
    r#"[{ ci_project = "acme/web" }]"#,
    r#"[{ ci_namespace = "acme/web" }]"#,
    r#"[{ ci_namespace = "acme" }]"#,
    r#"[{ ref = "main" }]"#,
    r#"[{ ref = "release/*" }]"#,
    r#"[{ ref = "refs/tags/v*" }]"#,
    "[{ ref_protected = true }]",
    "[{ ref_protected = false }]",
    r#"[{ environment = "production" }]"#,
    r#"[{ pipeline_source = "schedule" }]"#,
    r#"[{ ci_project = "acme/web/shop", ref = "main", ref_protected = true, environment = "production" }]"#,
    r#"[{ ci_project = "acme/web/shop", user = "bob" }]"#,
    r#"[{ ci_project = "acme/web/shop", environment = "staging" }, { user = "alice" }, { ci_namespace = "open" }]"#,
];

/// CI jobs: claims laid over those of a job of `acme/web/shop` on its protected branch `main`, as `explain` is told of them.
const JOBS: [(&str, &[&str]); 6] = [
    ("{}", &[]),
    (
        r#"{ "ref": "release/1.2", "ref_protected": "false" }"#,
        &["ref=release/1.2", "ref_protected=false"],
    ),
    (r#"{ "ref": "main", "ref_type": "tag" }"#, &["ref_type=tag"]),
    (
        r#"{ "ref": "v1", "ref_type": "tag", "environment": "staging" }"#,
        &["ref=v1", "ref_type=tag", "environment=staging"],
    ),
    (
        r#"{ "environment": "production", "pipeline_source": "schedule" }"#,
        &["environment=production", "pipeline_source=schedule"],
    ),
    (
        // Started by somebody whom every rule on users would let in.
        r#"{ "project_path": "open/handbook", "namespace_path": "open", "user_login": "alice", "user_email": "alice@example.com", "user_access_level": "owner", "groups_direct": ["acme"] }"#,
        &["project_path=open/handbook"],
    ),
];

fn routes() -> String {
    let route = |(number, allow): (usize, &&str)| {
        format!("[[route]]\npath = \"/p/{number}\"\nupstream = \"UPSTREAM\"\nallow = {allow}\n")
    };
    let private = "[[route]]\npath = \"/private\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
         [[route]]\npath = \"/post\"\nmethods = [\"POST\"]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";
    RULES.iter().enumerate().map(route).chain([private.to_owned()]).collect()
}

/// Makes those people and places that the development GitLab does not begin with.
fn furnish(gitlab: &DevGitlab) {
    let tell = |command| gitlab.command(command).expect("carried out");
    for (user, email) in [
        ("erin", "erin@corp.test"),
        ("frank", "frank@corp.test"),
        ("grace", "grace@acme"),
        ("acme", "acme@corp.test"),
    ] {
        tell(Command::AddUser { username: user.into(), email: None, bot: false });
        gitlab.set_email(user, email, true).expect("a user");
    }
    let visibility = Visibility::Private;
    tell(Command::AddGroup { path: "acme-evil".into(), visibility });
    tell(Command::AddProject { path: "acme-evil/shop".into(), visibility });
    gitlab.set_role("acme/ops", "frank", Some(Role::Guest)).expect("a group");
    gitlab.set_role("acme-evil", "grace", Some(Role::Owner)).expect("a group");
    let (project, user, role) = ("acme/web/shop".into(), "erin".into(), Some(Role::Guest));
    tell(Command::SetProjectRole { project, user, role });
    for (user, external) in [("erin", false), ("acme", true)] {
        let (user, two_factor) = (user.into(), Some(true));
        tell(Command::SetFlags { user, admin: None, external: Some(external), two_factor });
    }
}

fn explain(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let config = config.to_str().expect("text");
    let arguments: Vec<_> =
        ["explain", "--config", config].iter().chain(arguments).copied().collect();
    outcome(&mut labgate(&arguments, &[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn its_verdict_is_that_of_the_proxy() {
    let lab = Setup::default().gitlab(ALL).routes(&routes()).start().await;
    furnish(&lab.gitlab);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("labgate.toml");
    std::fs::write(&config, &lab.config).expect("written");
    let mut admitted = 0;
    for (person, facts) in PEOPLE {
        let token = token_of(&lab.gitlab, person);
        let mut browser = lab.signed_in(person).await;
        for (number, allow) in RULES.iter().enumerate() {
            let before = lab.sample.hits();
            let answer = browser.xhr(&format!("/p/{number}")).await;
            let passes = lab.sample.hits() > before;
            // Whoever it is by a token may do the same.
            let before = lab.sample.hits();
            bearer(&lab, &format!("/p/{number}"), &token).await;
            assert_eq!(lab.sample.hits() > before, passes, "a token of {person} at {allow}");
            let url = format!("https://{HOST}/p/{number}");
            let asked = [&["--json", "--url", &url, "--user", person], facts].concat();
            let (code, out, err) = explain(&config, &asked);
            assert_eq!(code, i32::from(!passes), "{person} at {allow}: {out}{err}");
            let told: Value = serde_json::from_str(&out).expect("JSON");
            assert_eq!(told["passes"], passes);
            assert_eq!(told["route"]["index"], number);
            if !passes {
                // The reasons are the same, too: key by key there, as sentences here.
                let document = answer.json();
                for (rule, unmet) in document["rules"].as_array().expect("rules").iter().enumerate()
                {
                    let conditions = told["rules"][rule]["conditions"].as_array().expect("keys");
                    for condition in conditions {
                        let text = |key: &str| condition[key].as_str().expect("text");
                        let told = unmet["needed"].as_str().expect("text");
                        assert!(told.contains(text("needed")), "{document} {condition}");
                        let held = unmet["held"].as_str().expect("text");
                        assert!(
                            condition["holds"] == true || held.contains(text("held")),
                            "{document} {condition}"
                        );
                    }
                }
            }
            admitted += u32::from(passes);
        }
    }
    assert!((60..260).contains(&admitted), "a table of one answer shows nothing: {admitted}");
    // Nobody, another method, and places without a route.
    let mut nobody = lab.browser();
    for (url, method, status, code) in [
        ("/p/0", "GET", 404, 0),
        ("/p/1", "GET", 401, 1),
        ("/p/10", "GET", 401, 1),
        ("/post", "GET", 405, 1),
        ("/nowhere", "GET", 404, 1),
        ("/p/0/../1", "GET", 401, 1),
        ("/P/1", "GET", 404, 1),
        // A script begins no sign-in there.
        ("/oauth2/sign_in", "GET", 401, 0),
    ] {
        let (ended, out, err) = explain(&config, &["--url", url, "--method", method]);
        assert_eq!(ended, code, "{url}: {out}{err}");
        assert_eq!(nobody.xhr(url).await.status.as_u16(), status, "{url}");
    }
}

/// A token of theirs with which GitLab tells all.
fn token_of(gitlab: &DevGitlab, person: &str) -> String {
    let token = format!("glpat-table-{person}");
    let command = Command::AddPersonalToken {
        user: person.into(),
        token: token.clone(),
        scopes: vec!["read_api".into()],
        expires_at: None,
    };
    gitlab.command(command).expect("made");
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn its_verdict_on_ci_jobs_is_that_of_the_proxy() {
    let lab = Setup::default().gitlab(ALL).routes(&routes()).start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("labgate.toml");
    std::fs::write(&config, &lab.config).expect("written");
    let mut admitted = Vec::new();
    for (claims, told) in JOBS {
        let claims: Value = serde_json::from_str(claims).expect("JSON");
        let token = lab.gitlab.ci_id_token(claims.as_object().expect("an object"));
        let usual = [
            "project_path=acme/web/shop",
            "ref=main",
            "ref_protected=true",
            "pipeline_source=push",
        ];
        let name = |claim: &str| claim.split('=').next().expect("a name").to_owned();
        let usual =
            usual.into_iter().filter(|claim| told.iter().all(|other| name(other) != name(claim)));
        let facts: Vec<_> =
            told.iter().copied().chain(usual).flat_map(|claim| ["--ci", claim]).collect();
        for (number, allow) in RULES.iter().enumerate() {
            let before = lab.sample.hits();
            let answer = bearer(&lab, &format!("/p/{number}"), &token).await;
            let passes = lab.sample.hits() > before;
            assert_eq!(passes, answer.status == 404, "{allow}: {}", answer.text());
            let url = format!("https://{HOST}/p/{number}");
            let asked = [&["--json", "--url", &url], facts.as_slice()].concat();
            let (code, out, err) = explain(&config, &asked);
            assert_eq!(code, i32::from(!passes), "{told:?} at {allow}: {out}{err}");
            if passes {
                admitted.push(number);
            }
        }
    }
    // No rule on users, and not `signed-in`, lets a job in: only the public route does.
    assert!(admitted.iter().all(|number| *number == 0 || *number >= 40), "{admitted:?}");
    assert!((18..70).contains(&admitted.len()), "{admitted:?}");
    for (arguments, ends, words) in [
        (
            &["--url", "/p/40", "--ci", "project_path=acme/web/shop"][..],
            0,
            "a CI job of acme/web/shop",
        ),
        (&["--url", "/p/0", "--ci", "ref=main"], 2, "--ci project_path=PATH"),
        (&["--url", "/p/0", "--ci", "user_login=alice"], 2, "no claim `user_login`"),
        (&["--url", "/p/0", "--ci", "project_path=shop"], 2, "not the full path"),
        (&["--url", "/p/0", "--ci", "project_path=a/b", "--ci", "project_path=a/c"], 2, "twice"),
        (
            &["--url", "/p/0", "--ci", "project_path=a/b", "--user", "alice"],
            2,
            "cannot be used with",
        ),
    ] {
        let (code, out, err) = explain(&config, arguments);
        assert_eq!(code, ends, "{arguments:?}: {out}{err}");
        assert!(format!("{out}{err}").contains(words), "{words}: {out}{err}");
    }
}

#[test]
fn of_a_job_whose_token_does_not_count_it_says_which_key_is_in_the_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("labgate.toml");
    let text = |tokens: &str, route: &str| {
        format!(
            "server.public_url = \"https://app.example.com\"\n\
             [gitlab.main]\nbase_url = \"https://git.example.com\"\nclient_id = \"x\"\n{tokens}\n\
             [gitlab.other]\nbase_url = \"https://other.example.com\"\nclient_id = \"x\"\n\
             [session]\nkeys = [{{ file = \"/nowhere/key\" }}]\n\
             [[route]]\nupstream = \"http://127.0.0.1:3000\"\n{route}\n"
        )
    };
    let ci = r#"tokens = { accept = ["ci", "personal"], ci_audience = "https://app.example.com" }"#;
    let shop = r#"allow = [{ ci_project = "acme/web/shop" }]"#;
    let with = |keys: &str| format!("{shop}\n{keys}");
    let gitlab = "`gitlab.main.tokens` lacks `ci` in `accept`, and its `ci_audience`";
    let (route, theirs) = ("`route[0].tokens` lacks `ci`", "`route[0].gitlab` lacks `main`");
    let nobody = "No CI job's token counts here";
    let refused = "Its token does not count here: token_kind (401)";
    for (tokens, route, verdict, in_the_way) in [
        ("", shop.to_owned(), nobody, &[gitlab][..]),
        ("tokens.accept = [\"personal\"]", shop.into(), refused, &[gitlab]),
        (ci, with("tokens = []"), nobody, &[route]),
        (ci, with("tokens = [\"personal\"]"), refused, &[route]),
        (ci, with("gitlab = [\"other\"]"), nobody, &[theirs]),
        ("", with("gitlab = [\"other\"]\ntokens = []"), nobody, &[theirs, gitlab, route]),
        (ci, shop.into(), "It passes.", &[]),
        (ci, "allow = [{ user = \"ada\" }]".into(), "It is refused.", &[]),
        // Anybody passes there, so no token is missing.
        ("", "allow = \"public\"".into(), "It passes.", &[]),
    ] {
        std::fs::write(&path, text(tokens, &route)).expect("a file");
        let asked = ["--url", "/", "--gitlab", "main", "--ci", "project_path=acme/web/shop"];
        let (code, out, err) = explain(&path, &asked);
        assert_eq!(code, i32::from(verdict != "It passes."), "{route}: {out}{err}");
        assert!(out.contains(verdict) && !out.contains("sign in"), "{route}: {out}");
        let told = out.lines().filter_map(|line| line.strip_prefix("  in the way: "));
        assert_eq!(told.collect::<Vec<_>>(), in_the_way, "{route}: {out}");
        let (_, out, _) = explain(&path, &[&asked[..], &["--json"]].concat());
        let told: Value = serde_json::from_str(&out).expect("JSON");
        let told = told["in_the_way"].as_array().cloned().unwrap_or_default();
        assert_eq!(told, in_the_way, "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn online_it_says_what_gitlab_knows() {
    let lab = Setup::default().routes(&routes()).start().await;
    furnish(&lab.gitlab);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("labgate.toml");
    std::fs::write(&config, &lab.config).expect("written");
    let path = config.to_str().expect("text");
    let online = |url: &str, user: &str, token: &str| {
        let arguments =
            ["explain", "--config", path, "--online", "--json", "--url", url, "--user", user];
        outcome(&mut labgate(&arguments, &[("LABGATE_GITLAB_TOKEN", token)]))
    };
    let admin = "glpat-dev-root";
    for person in ["root", "alice", "carol", "erin", "grace"] {
        let mut browser = lab.signed_in(person).await;
        for number in (0..RULES.len()).step_by(3) {
            let before = lab.sample.hits();
            browser.xhr(&format!("/p/{number}")).await;
            let passes = lab.sample.hits() > before;
            let (code, out, err) = online(&format!("/p/{number}"), person, admin);
            assert_eq!(code, i32::from(!passes), "{person} at {}: {out}{err}", RULES[number]);
        }
    }
    // Somebody who is no administrator sees less, and is told so.
    let (code, _, err) = online("/p/20", "alice", "glpat-dev-carol");
    assert!(
        code == 1 && err.contains("sees nothing of these") && err.contains("acme/ops"),
        "{err}"
    );
    let (code, out, _) = online("/p/31", "alice", "glpat-dev-bob");
    assert!(code == 1 && out.contains("GitLab has not said"), "{out}");
    for (user, token, ends, complaint) in [
        ("dave", admin, 1, "the account is blocked"),
        ("nobody", admin, 1, "knows no user nobody"),
        ("alice", "glpat-wrong", 1, "not valid any more"),
        ("alice", " ", 2, "LABGATE_GITLAB_TOKEN"),
    ] {
        let (code, out, err) = online("/p/0", user, token);
        assert_eq!((code, out.as_str()), (ends, ""), "{user} {token}: {err}");
        assert!(err.contains(complaint) && !err.contains("glpat"), "{complaint}: {err}");
    }
}

#[test]
fn it_needs_none_of_the_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("labgate.toml");
    let text = r#"
server.public_url = "https://app.example.com"
gitlab.main = { base_url = "https://git.example.com", client_id = "x", client_secret = { file = "/nowhere/secret" }, hook_secret = { env = "NOT_SET_HERE" }, ca = "/nowhere/ca.pem" }
session = { keys = [{ file = "/nowhere/old" }, { file = "/nowhere/new" }], store = { redis = { file = "/nowhere/redis" } } }
identity.assertion = { key = { file = "/nowhere/key" } }
[[route]]
upstream = "http://127.0.0.1:3000"
allow = [{ group = "acme/ops", role = "developer" }]
"#;
    std::fs::write(&path, text).expect("a file");
    let asked = ["--url", "https://app.example.com/", "--user", "ada", "--group"];
    for (group, expected) in [("acme/ops=developer", 0), ("acme/ops=guest", 1)] {
        let (code, out, err) = explain(&path, &[&asked[..], &[group]].concat());
        assert_eq!(code, expected, "{out}{err}");
        assert_eq!(err, "");
    }
    // Whoever serves by it can't do without.
    let path = path.to_str().expect("a path");
    let (code, _, err) = outcome(&mut labgate(&["check", "--config", path], &[]));
    assert_eq!(code, 2);
    assert_eq!(err.matches("error:").count(), 7, "{err}");
    let (code, out, err) = outcome(&mut labgate(&["front", "caddy", "--config", path], &[]));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("forward_auth"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_which_rule_and_what_it_found() {
    let routes = r#"[[route]]
path = "/ops"
upstream = "UPSTREAM"
allow = [{ group = "acme/ops", role = "maintainer", two_factor = true }, { user = "root" }]
[[route]]
path = "/theirs"
gitlab = ["other"]
upstream = "UPSTREAM"
allow = "signed-in"
"#;
    let other = "[gitlab.other]\nbase_url = \"GITLAB\"\nclient_id = \"x\"\nclient_secret = \"y\"\n";
    let lab = Setup::default().routes(routes).more(other).start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("labgate.toml");
    std::fs::write(&config, &lab.config).expect("written");
    let alice = ["--user", "alice", "--gitlab", "main", "--group", "acme=developer"];
    let (code, out, err) = explain(&config, &[&["--url", "/ops/x?y#z"], &alice[..]].concat());
    let expected = format!(
        "GET /ops/x?y#z\nasked by alice of main\nroute[0] /ops leads to {}\n  \
         allow[0] does not hold\n    \
         - needed: at least Maintainer in the group acme/ops; there is: Developer in acme/ops\n    \
         - needed: two-factor authentication set up at GitLab; there is: two-factor authentication is not set up\n  \
         allow[1] does not hold\n    \
         - needed: the user root; there is: signed in as alice\n\
         It is refused.\n",
        lab.sample.url()
    );
    assert_eq!((code, out.as_str(), err.as_str()), (1, expected.as_str(), ""));
    let (code, out, _) = explain(&config, &[&["--url", "/theirs"], &alice[..]].concat());
    assert!(
        code == 1 && out.contains("needed: an account at other; there is: signed in at main"),
        "{out}"
    );
    for (arguments, complaint) in [
        (&["--url", "/ops", "--user", "alice"][..], "--gitlab"),
        (&["--url", "/ops", "--user", "alice", "--gitlab", "mian"], "[gitlab.mian]"),
        (&["--url", "ops"], "neither a URL"),
        (&["--url", "mailto:ann@corp.test"], "neither a URL"),
        (&["--url", "/ops", "--group", "acme"], "--user"),
        (&["--url", "/ops", "--user", "a", "--group", "acme=boss"], "unknown role"),
        (&["--url", "/ops", "--user", "a", "--group", "/acme=guest"], "not the full path"),
        (&["--user", "a"], "--url"),
    ] {
        let (code, out, err) = explain(&config, arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(complaint), "{complaint}: {err}");
    }
}
