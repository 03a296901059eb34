//! Who may pass: every key of a rule alone and together, and what those read who may not (threats A26–A28, D12).

use std::{fs, path::Path};

use labgate::demo::gitlab::{Command, Role, Visibility};

use crate::support::{Browser, Lab, Setup, until};

/// One route for each rule, below `/p`.
fn routes(rules: &[(&str, &str, &[&str])]) -> String {
    let route = |(name, allow, _): &(&str, &str, &[&str])| {
        format!("[[route]]\npath = \"/p/{name}\"\nupstream = \"UPSTREAM\"\nallow = {allow}\n")
    };
    let private =
        "[[route]]\npath = \"/private\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    rules.iter().map(route).chain([private.to_owned()]).collect()
}

async fn may(browser: &mut Browser, lab: &Lab, path: &str) -> bool {
    let before = lab.sample.hits();
    let status = browser.xhr(path).await.status.as_u16();
    let passed = lab.sample.hits() > before;
    assert_eq!(status == 403, !passed, "{path}: {status}");
    passed
}

const PEOPLE: [&str; 4] = ["root", "alice", "bob", "carol"];

#[tokio::test(flavor = "multi_thread")]
async fn each_key_alone_and_together_admits_whom_it_says() {
    let rules: [(&str, &str, &[&str]); 26] = [
        ("signed-in", r#""signed-in""#, &PEOPLE),
        ("public", r#""public""#, &PEOPLE),
        ("user", r#"[{ user = "ALICE" }]"#, &["alice"]),
        ("user-start", r#"[{ user = "ali" }]"#, &[]),
        ("email", r#"[{ email = "Alice@Example.com" }]"#, &["alice"]),
        ("email-unverified", r#"[{ email = "carol@example.com" }]"#, &[]),
        ("domain", r#"[{ email_domain = "EXAMPLE.com" }]"#, &["root", "alice", "bob"]),
        ("domain-end", r#"[{ email_domain = "ample.com" }]"#, &[]),
        ("domain-top", r#"[{ email_domain = "com" }]"#, &[]),
        ("domain-sub", r#"[{ email_domain = "a.example.com" }]"#, &[]),
        ("group", r#"[{ group = "ACME" }]"#, &["root", "alice", "bob"]),
        ("group-inherited", r#"[{ group = "acme/ops" }]"#, &["root", "alice", "bob"]),
        ("guest", r#"[{ group = "acme", role = "guest" }]"#, &["root", "alice", "bob"]),
        ("reporter", r#"[{ group = "acme", role = "reporter" }]"#, &["root", "alice", "bob"]),
        ("developer", r#"[{ group = "acme", role = "developer" }]"#, &["root", "alice", "bob"]),
        ("maintainer", r#"[{ group = "acme", role = "maintainer" }]"#, &["root"]),
        ("owner", r#"[{ group = "acme/ops", role = "owner" }]"#, &["root"]),
        ("ops", r#"[{ group = "acme/ops", role = "maintainer" }]"#, &["root", "alice"]),
        ("web", r#"[{ group = "acme/web", role = "maintainer" }]"#, &["root", "bob"]),
        ("nowhere", r#"[{ group = "no/such" }]"#, &[]),
        // Of a project alone, which is no membership of its group.
        (
            "project-only",
            r#"[{ group = "acme/web", role = "guest" }, { user = "x" }]"#,
            &["root", "alice", "bob"],
        ),
        ("and", r#"[{ group = "acme", user = "bob" }]"#, &["bob"]),
        ("and-never", r#"[{ group = "acme", user = "carol" }]"#, &[]),
        (
            "and-all",
            r#"[{ group = "acme/ops", role = "maintainer", email_domain = "example.com", user = "alice" }]"#,
            &["alice"],
        ),
        (
            "or",
            r#"[{ user = "carol" }, { group = "acme/ops", role = "maintainer" }]"#,
            &["root", "alice", "carol"],
        ),
        (
            "or-parts",
            r#"[{ user = "carol", group = "acme" }, { user = "bob", group = "no/such" }]"#,
            &[],
        ),
    ];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    for person in PEOPLE {
        let mut browser = lab.signed_in(person).await;
        for (name, allow, admitted) in rules {
            let passed = may(&mut browser, &lab, &format!("/p/{name}")).await;
            assert_eq!(passed, admitted.contains(&person), "{person} at {allow}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_look_alike_are_others() {
    let rules: [(&str, &str, &[&str]); 3] = [
        ("acme", r#"[{ group = "acme" }]"#, &[]),
        ("ops", r#"[{ group = "acme/ops" }]"#, &[]),
        ("lookalike", r#"[{ group = "acme-evil" }]"#, &[]),
    ];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    for path in [
        "acme-evil",
        "acme2",
        "acm",
        "evil/acme",
        "acme-evil/ops",
        "acme/ops-evil",
        "acme/op",
        "acme/ops/below",
        "ops",
        "acme.ops",
    ] {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        for place in parents.chain([path]) {
            // A parent may be there already.
            drop(lab.gitlab.command(Command::AddGroup {
                path: place.into(),
                visibility: Visibility::Private,
            }));
        }
        lab.gitlab.set_role(path, "carol", Some(Role::Owner)).expect("a group");
    }
    let mut carol = lab.signed_in("carol").await;
    assert!(!may(&mut carol, &lab, "/p/acme").await);
    assert!(!may(&mut carol, &lab, "/p/ops").await);
    assert!(may(&mut carol, &lab, "/p/lookalike").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_begin_or_look_the_same_are_others() {
    let rules: [(&str, &str, &[&str]); 5] = [
        ("acme", r#"[{ group = "acme" }]"#, &[]),
        ("developers", r#"[{ group = "acme", role = "developer" }]"#, &[]),
        ("web", r#"[{ group = "acme/web" }]"#, &[]),
        ("web-owners", r#"[{ group = "acme/web", role = "owner" }]"#, &[]),
        ("website", r#"[{ group = "acme/website" }]"#, &[]),
    ];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let visibility = Visibility::Private;
    lab.gitlab
        .command(Command::AddGroup { path: "acme/website".into(), visibility })
        .expect("made");
    lab.gitlab.set_role("acme/website", "carol", Some(Role::Owner)).expect("a group");
    // With a Cyrillic letter, with one of full width, with a sign that is not seen, with another slash.
    let groups = [
        "acme/website",
        "\u{430}cme",
        "a\u{441}me",
        "acm\u{435}/web",
        "acme/w\u{435}b",
        "\u{ff41}cme",
        "acme\u{200b}",
        "acme\u{ff0f}web",
    ];
    let claims =
        serde_json::json!({ "groups": groups, "https://gitlab.org/claims/groups/owner": groups });
    lab.gitlab.overlay(labgate::demo::gitlab::Document::Userinfo, claims);
    let mut carol = lab.signed_in("carol").await;
    for (name, passes) in [
        ("acme", false),
        ("developers", false),
        ("web", false),
        ("web-owners", false),
        ("website", true),
    ] {
        assert_eq!(may(&mut carol, &lab, &format!("/p/{name}")).await, passes, "{name}");
    }
    // And the other way round.
    lab.gitlab.overlay(labgate::demo::gitlab::Document::Userinfo, serde_json::json!({}));
    lab.gitlab.set_role("acme/website", "carol", None).expect("a group");
    lab.gitlab.set_role("acme/web", "carol", Some(Role::Owner)).expect("a group");
    let mut carol = lab.signed_in("carol").await;
    assert!(may(&mut carol, &lab, "/p/web-owners").await);
    assert!(!may(&mut carol, &lab, "/p/website").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_a_comma_is_not_two() {
    let rules: [(&str, &str, &[&str]); 1] = [("acme", r#"[{ group = "acme" }]"#, &[])];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let claims = serde_json::json!({ "groups": ["acme,x", "x,acme", " acme", "acme ", "acme/"], "https://gitlab.org/claims/groups/owner": ["acme,x"] });
    lab.gitlab.overlay(labgate::demo::gitlab::Document::Userinfo, claims);
    let mut carol = lab.signed_in("carol").await;
    assert!(!may(&mut carol, &lab, "/p/acme").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_address_counts_only_if_this_gitlab_is_trusted_with_it() {
    let rules: [(&str, &str, &[&str]); 2] = [
        ("email", r#"[{ email = "carol@example.com" }]"#, &[]),
        ("domain", r#"[{ email_domain = "example.com" }]"#, &[]),
    ];
    let setup = Setup::default().routes(&routes(&rules)).gitlab("require_verified_email = false");
    let lab = setup.start().await;
    let mut carol = lab.signed_in("carol").await;
    assert!(may(&mut carol, &lab, "/p/email").await);
    assert!(may(&mut carol, &lab, "/p/domain").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_addresses_have_no_domain() {
    let rules: [(&str, &str, &[&str]); 1] =
        [("domain", r#"[{ email_domain = "corp.test" }]"#, &[])];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    for (email, passes) in [
        ("alice@corp.test", true),
        ("alice@CORP.test", true),
        ("alice@evil.test@corp.test", false),
        ("alice@corp.test.evil.test", false),
        ("alice@xcorp.test", false),
        ("\"alice@evil.test\"@corp.test", false),
        ("alice@corp.test\n", false),
        ("alice@corp.test ", false),
        ("alice@c\u{43e}rp.test", false),
        ("@corp.test", false),
    ] {
        lab.gitlab.set_email("alice", email, true).expect("a user");
        let mut alice = lab.signed_in("alice").await;
        assert_eq!(may(&mut alice, &lab, "/p/domain").await, passes, "{email:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_file_is_followed_while_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users.txt");
    let write = |text: &str| {
        // By a rename, as a half-written file would be taken for the whole.
        let fresh = folder.path().join("fresh");
        fs::write(&fresh, text).expect("written");
        fs::rename(fresh, &file).expect("renamed");
    };
    write("# who may\nALICE\ncarol@example.com\n");
    let named = |path: &Path| format!("\"{}\"", path.display());
    let alone = format!("[{{ users_file = {} }}]", named(&file));
    let together = format!(
        "[{{ users_file = {}, group = \"acme/web\", role = \"maintainer\" }}]",
        named(&file)
    );
    let rules: [(&str, &str, &[&str]); 2] = [("file", &alone, &[]), ("both", &together, &[])];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let mut alice = lab.signed_in("alice").await;
    let mut bob = lab.signed_in("bob").await;
    // Listed by an address that is not verified.
    let mut carol = lab.signed_in("carol").await;
    assert!(may(&mut alice, &lab, "/p/file").await);
    assert!(!may(&mut bob, &lab, "/p/file").await);
    assert!(!may(&mut carol, &lab, "/p/file").await);
    assert!(!may(&mut alice, &lab, "/p/both").await);
    write("bob@example.com\n");
    until("the new list is in force", async || may(&mut bob, &lab, "/p/file").await).await;
    assert!(may(&mut bob, &lab, "/p/both").await);
    assert!(!may(&mut alice, &lab, "/p/file").await);
    let page = alice.navigate("/p/file").await.text();
    assert!(page.contains("list of users") && !page.contains("bob@example.com"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_reads_who_they_are_what_was_needed_and_what_they_hold() {
    let rules: [(&str, &str, &[&str]); 3] = [
        ("ops", r#"[{ group = "acme/ops", role = "maintainer" }, { user = "root" }]"#, &[]),
        ("email", r#"[{ email = "secret-address@example.com" }]"#, &[]),
        ("domain", r#"[{ email_domain = "corp.test" }]"#, &[]),
    ];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let mut bob = lab.signed_in("bob").await;
    let page = bob.navigate("/p/ops?x=<b>").await;
    assert_eq!(
        (page.status.as_u16(), page.header("content-type")),
        (403, "text/html; charset=utf-8")
    );
    let text = page.text();
    for words in [
        "bob",
        "Maintainer",
        "acme/ops",
        "Developer",
        "root",
        "account=other",
        page.header("x-request-id"),
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("x=<b>"), "{text}");
    assert!(page.header("cache-control").contains("no-store"));
    let problem = bob.xhr("/p/ops").await;
    assert_eq!(
        (problem.status.as_u16(), problem.header("content-type")),
        (403, "application/problem+json")
    );
    let document = problem.json();
    assert_eq!(document["type"], "urn:labgate:problem:forbidden");
    assert_eq!(document["user"], "bob");
    assert_eq!(document["request_id"], problem.header("x-request-id"));
    assert!(
        document["rules"][0]["needed"]
            .as_str()
            .expect("text")
            .contains("Maintainer in the group acme/ops")
    );
    assert!(document["rules"][0]["held"].as_str().expect("text").contains("Developer in acme/ops"));
    assert!(document["rules"][1]["held"].as_str().expect("text").contains("bob"));
    assert!(document["sign_in"].as_str().expect("a URL").contains("account=other"));
    // Other people's addresses are theirs.
    let text = bob.navigate("/p/email").await.text();
    assert!(!text.contains("secret-address") && text.contains("bob@example.com"), "{text}");
    let mut carol = lab.signed_in("carol").await;
    let text = carol.navigate("/p/domain").await.text();
    assert!(text.contains("corp.test") && text.contains("not verified"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_people_without_a_session_get_what_they_understand() {
    let lab = Lab::start().await;
    let mut stranger = lab.browser();
    let problem = stranger.xhr("/private?a=1&b=2").await;
    assert_eq!(
        (problem.status.as_u16(), problem.header("content-type")),
        (401, "application/problem+json")
    );
    assert!(problem.header("www-authenticate").starts_with("Bearer"));
    assert!(problem.header("cache-control").contains("no-store"));
    let document = problem.json();
    assert_eq!(
        document["sign_in"],
        "https://app.example.test/oauth2/sign_in?rd=%2Fprivate%3Fa%3D1%26b%3D2"
    );
    assert!(problem.cookies().is_empty());
    let redirect = stranger.navigate("/private?a=1&b=2").await;
    assert_eq!(redirect.status.as_u16(), 302);
    assert_eq!(redirect.header("location"), document["sign_in"]);
    assert!(redirect.cookies().is_empty(), "nothing is kept until a sign-in begins");
    assert_eq!(stranger.post("/private", "a=b").await.status.as_u16(), 401);
    assert_eq!(lab.sample.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_for_one_gitlab_admits_nobody_from_another() {
    let routes = r#"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/other"
gitlab = ["other"]
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo"
gitlab = ["other"]
upstream = "UPSTREAM"
allow = "public"
"#;
    let other = "[gitlab.other]\nbase_url = \"GITLAB\"\nclient_id = \"x\"\nclient_secret = \"y\"\n";
    let lab = Setup::default().routes(routes).more(other).start().await;
    let mut alice = lab.browser();
    let start = alice.open("/oauth2/start?gitlab=main&rd=%2Fprivate").await;
    assert_eq!(alice.finish_sign_in(start, "alice").await.status, 200);
    let refused = alice.xhr("/other").await;
    assert_eq!(refused.status.as_u16(), 403);
    assert_eq!(refused.json()["rules"][0]["needed"], "an account at other");
    // Public as it is, it hears nothing of people from elsewhere.
    let echo = alice.xhr("/echo").await.text();
    assert!(!echo.contains("x-forwarded-user"), "{echo}");
}
