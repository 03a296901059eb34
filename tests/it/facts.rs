//! Rules that look at projects, shared groups and the account itself: what GitLab says of these counts, no sooner and no later.

use std::net::SocketAddr;

use labgate::demo::gitlab::{Command, DevGitlab, Endpoint, Role, Visibility};

use crate::{
    support::{Browser, Setup, labgate, outcome, run},
    tokens,
};

/// Older than `recheck`, younger than `grace`.
const TOO_OLD: i64 = 400;

const PEOPLE: [&str; 4] = ["root", "alice", "bob", "carol"];

/// A route `/p/NAME` for each rule, and one for everybody.
fn routes(rules: &[(&str, &str)]) -> String {
    let route = |(name, allow): &(&str, &str)| {
        format!("[[route]]\npath = \"/p/{name}\"\nupstream = \"UPSTREAM\"\nallow = {allow}\n")
    };
    let private =
        "[[route]]\npath = \"/private\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    rules.iter().map(route).chain([private.to_owned()]).collect()
}

fn tell(gitlab: &DevGitlab, command: Command) {
    gitlab.command(command).expect("carried out");
}

async fn may(browser: &mut Browser, path: &str) -> bool {
    match browser.xhr(path).await.status.as_u16() {
        // The sample app knows no such path.
        404 => true,
        403 => false,
        status => panic!("{path}: {status}"),
    }
}

/// The same browser at another labgate of the same name.
fn elsewhere(browser: &Browser, addr: SocketAddr) -> Browser {
    let mut browser = browser.clone();
    browser.point_at(addr);
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_and_flags_admit_whom_they_say() {
    let rules = [
        ("member", r#"[{ project = "ACME/web/Shop" }]"#),
        ("reporter", r#"[{ project = "acme/web/shop", role = "reporter" }]"#),
        ("developer", r#"[{ project = "acme/web/shop", role = "developer" }]"#),
        ("owner", r#"[{ project = "acme/web/shop", role = "owner" }]"#),
        ("inherited", r#"[{ project = "acme/ops/runbooks", role = "maintainer" }]"#),
        // Everybody may read it; that makes nobody a member.
        ("public-project", r#"[{ project = "open/handbook" }]"#),
        ("nowhere", r#"[{ project = "acme/web/shopping" }]"#),
        ("group-as-project", r#"[{ project = "acme/web" }]"#),
        ("two-factor", "[{ two_factor = true }]"),
        ("no-two-factor", "[{ two_factor = false }]"),
        ("external", "[{ external = true }]"),
        ("internal", "[{ external = false }]"),
        (
            "all",
            r#"[{ project = "acme/web/shop", group = "acme", two_factor = true, external = false }]"#,
        ),
        ("all-but", r#"[{ project = "acme/web/shop", two_factor = true, external = true }]"#),
    ];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let admitted: [(&str, &[&str]); 14] = [
        ("member", &PEOPLE),
        ("reporter", &PEOPLE),
        ("developer", &["root", "alice", "bob"]),
        ("owner", &["root"]),
        ("inherited", &["root", "alice"]),
        ("public-project", &[]),
        ("nowhere", &[]),
        ("group-as-project", &[]),
        ("two-factor", &["alice"]),
        ("no-two-factor", &["root", "bob", "carol"]),
        ("external", &["carol"]),
        ("internal", &["root", "alice", "bob"]),
        ("all", &["alice"]),
        ("all-but", &[]),
    ];
    for person in PEOPLE {
        let mut browser = lab.signed_in(person).await;
        let asked = lab.gitlab.hits(Endpoint::ApiMembers);
        for (name, who) in admitted {
            let passes = may(&mut browser, &format!("/p/{name}")).await;
            assert_eq!(passes, who.contains(&person), "{person} at {name}");
        }
        assert_eq!(lab.gitlab.hits(Endpoint::ApiMembers), asked, "a request asks GitLab nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seeing_a_group_makes_nobody_a_member() {
    let rules = [
        ("public", r#"[{ group = "open" }]"#),
        ("public-guest", r#"[{ group = "open", role = "guest" }]"#),
        ("internal", r#"[{ group = "hall" }]"#),
        ("internal-guest", r#"[{ group = "hall", role = "guest" }]"#),
        ("above", r#"[{ group = "club" }]"#),
        ("above-guest", r#"[{ group = "club", role = "guest" }]"#),
    ];
    let setup = Setup::default().gitlab(tokens::ALL).routes(&routes(&rules));
    let lab = setup.start().await;
    let gitlab = &lab.gitlab;
    for (path, visibility) in [
        ("hall", Visibility::Internal),
        ("club", Visibility::Private),
        ("club/inner", Visibility::Public),
    ] {
        tell(gitlab, Command::AddGroup { path: path.into(), visibility });
    }
    // Members of a project, or of a group below, see the groups around it.
    let (project, role) = ("open/handbook".into(), Some(Role::Owner));
    tell(gitlab, Command::SetProjectRole { project, user: "bob".into(), role });
    gitlab.set_role("club/inner", "carol", Some(Role::Owner)).expect("a group");
    for person in PEOPLE {
        let mut browser = lab.signed_in(person).await;
        let token = format!("glpat-seeing-{person}");
        let (user, scopes) = (person.into(), vec!["read_api".into()]);
        let made = token.clone();
        tell(gitlab, Command::AddPersonalToken { user, token: made, scopes, expires_at: None });
        let asked = gitlab.hits(Endpoint::ApiMembers);
        for (name, _) in rules {
            assert!(!may(&mut browser, &format!("/p/{name}")).await, "{person} at {name}");
            let by_token = tokens::bearer(&lab, &format!("/p/{name}"), &token).await;
            assert_eq!(by_token.status, 403, "a token of {person} at {name}");
        }
        assert!(gitlab.hits(Endpoint::ApiMembers) > asked, "GitLab was asked about {person}");
    }
    // Whoever is made one is one.
    for (group, name) in [("open", "public"), ("hall", "internal"), ("club", "above")] {
        gitlab.set_role(group, "alice", Some(Role::Guest)).expect("a group");
        let mut alice = lab.signed_in("alice").await;
        assert!(may(&mut alice, &format!("/p/{name}")).await, "{name}");
        assert!(may(&mut alice, &format!("/p/{name}-guest")).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_a_project_counts_at_the_next_recheck() {
    let rules = [
        ("shop", r#"[{ project = "acme/web/shop", role = "reporter" }]"#),
        ("new", r#"[{ project = "acme/web/store", role = "reporter" }]"#),
        ("two-factor", "[{ two_factor = true }]"),
    ];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let gitlab = &lab.gitlab;
    let mut carol = lab.signed_in("carol").await;
    assert!(may(&mut carol, "/p/shop").await && !may(&mut carol, "/p/two-factor").await);
    let role = |role| Command::SetProjectRole {
        project: "acme/web/shop".into(),
        user: "carol".into(),
        role,
    };
    let flags = |two_factor| Command::SetFlags {
        user: "carol".into(),
        admin: None,
        external: None,
        two_factor: Some(two_factor),
    };
    tell(gitlab, role(Some(Role::Guest)));
    tell(gitlab, flags(true));
    assert!(may(&mut carol, "/p/shop").await, "the word is still young");
    lab.clock.turn(TOO_OLD);
    assert!(!may(&mut carol, "/p/shop").await);
    assert!(may(&mut carol, "/p/two-factor").await);
    let page = carol.navigate("/p/shop").await.text();
    for words in ["at least Reporter in the project acme/web/shop", "Guest in acme/web/shop"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let members = format!("{}/acme/web/shop/-/project_members", gitlab.external_url());
    assert!(page.contains(&format!("href=\"{members}\"")), "{page}");
    assert_eq!(carol.xhr("/p/shop").await.json()["rules"][0]["members"][0], members);
    tell(gitlab, role(None));
    lab.clock.turn(TOO_OLD);
    assert!(!may(&mut carol, "/p/shop").await);
    let page = carol.navigate("/p/shop").await.text();
    assert!(page.contains("not a member of acme/web/shop"), "{page}");
    assert!(!page.contains("project_members"), "she could not open it: {page}");
    // Back, then the project moves: the rule means its path, and whatever has that path.
    tell(gitlab, role(Some(Role::Owner)));
    lab.clock.turn(TOO_OLD);
    assert!(may(&mut carol, "/p/shop").await);
    let (path, to) = ("acme/web/shop".into(), "acme/web/store".into());
    tell(gitlab, Command::RenameProject { path, to });
    lab.clock.turn(TOO_OLD);
    assert!(!may(&mut carol, "/p/shop").await, "a redirect is not followed");
    assert!(may(&mut carol, "/p/new").await);
    let visibility = Visibility::Private;
    tell(gitlab, Command::AddProject { path: "acme/web/shop".into(), visibility });
    lab.clock.turn(TOO_OLD);
    assert!(!may(&mut carol, "/p/shop").await, "another project has the path now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_not_there_or_no_more_has_no_members() {
    let rules = [
        ("ops", r#"[{ group = "acme/ops" }]"#),
        ("ops-maintainer", r#"[{ group = "acme/ops", role = "maintainer" }]"#),
        ("web", r#"[{ group = "acme/web", role = "developer" }]"#),
        // No group, but a project; and nothing at all.
        ("project-as-group", r#"[{ group = "acme/web/shop" }]"#),
        ("nowhere", r#"[{ group = "acme/nowhere" }]"#),
    ];
    for scopes in ["", "scopes = [\"openid\", \"email\", \"read_user\", \"read_api\"]\n"] {
        let lab = Setup::default().gitlab(scopes).routes(&routes(&rules)).start().await;
        // Maintainer of acme/ops, and developer of acme, so of all that is below it.
        let mut alice = lab.signed_in("alice").await;
        let mut admitted = async |expected: [bool; 5]| {
            for ((name, _), expected) in rules.iter().zip(expected) {
                assert_eq!(may(&mut alice, &format!("/p/{name}")).await, expected, "{name}");
            }
        };
        admitted([true, true, true, false, false]).await;
        tell(&lab.gitlab, Command::RenameGroup { path: "acme/ops".into(), to: "beta".into() });
        lab.clock.turn(TOO_OLD);
        admitted([false, false, true, false, false]).await;
        tell(&lab.gitlab, Command::RenameGroup { path: "beta".into(), to: "acme/ops".into() });
        lab.clock.turn(TOO_OLD);
        admitted([true, true, true, false, false]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_projects_count_unless_the_configuration_says_otherwise() {
    let rules = [("shop", r#"[{ project = "acme/web/shop" }]"#)];
    for (keys, counts) in [("", true), ("archived_projects = false\n", false)] {
        let lab = Setup::default().routes(&routes(&rules)).gitlab(keys).start().await;
        let mut carol = lab.signed_in("carol").await;
        assert!(may(&mut carol, "/p/shop").await);
        let archive = |archived| Command::ArchiveProject { path: "acme/web/shop".into(), archived };
        tell(&lab.gitlab, archive(true));
        lab.clock.turn(TOO_OLD);
        assert_eq!(may(&mut carol, "/p/shop").await, counts, "{keys}");
        tell(&lab.gitlab, archive(false));
        lab.clock.turn(TOO_OLD);
        assert!(may(&mut carol, "/p/shop").await, "back again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sharing_counts_where_tokens_may_ask_for_it() {
    let rules = [
        ("ops", r#"[{ group = "acme/ops", role = "reporter" }]"#),
        ("maintainers", r#"[{ group = "acme/ops", role = "maintainer" }]"#),
        ("below", r#"[{ group = "acme/ops/deep" }]"#),
        ("project", r#"[{ project = "acme/ops/runbooks", role = "developer" }]"#),
        ("handbook", r#"[{ project = "open/handbook" }]"#),
    ];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let visibility = Visibility::Private;
    for path in ["club", "acme/ops/deep"] {
        tell(&lab.gitlab, Command::AddGroup { path: path.into(), visibility });
    }
    lab.gitlab.set_role("club", "carol", Some(Role::Owner)).expect("a group");
    let mut before = lab.signed_in("carol").await;
    assert!(!may(&mut before, "/p/ops").await);
    let (group, with) = ("acme/ops".into(), "club".into());
    tell(&lab.gitlab, Command::ShareGroup { group, with, role: Role::Developer });
    let (project, with) = ("open/handbook".into(), "club".into());
    tell(&lab.gitlab, Command::ShareProject { project, with, role: Role::Guest });
    let mut carol = lab.signed_in("carol").await;
    for (name, passes) in [
        ("ops", true),
        ("maintainers", false),
        ("below", true),
        ("project", true),
        ("handbook", true),
    ] {
        assert_eq!(may(&mut carol, &format!("/p/{name}")).await, passes, "{name}");
    }
    lab.clock.turn(TOO_OLD);
    assert!(may(&mut before, "/p/ops").await, "noticed at the recheck");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_scope_sharing_counts_nowhere_and_the_operator_is_told() {
    let rules = [("ops", r#"[{ group = "acme/ops" }]"#), ("web", r#"[{ group = "acme/web" }]"#)];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let visibility = Visibility::Private;
    tell(&lab.gitlab, Command::AddGroup { path: "club".into(), visibility });
    lab.gitlab.set_role("club", "carol", Some(Role::Owner)).expect("a group");
    let (group, with) = ("acme/ops".into(), "club".into());
    tell(&lab.gitlab, Command::ShareGroup { group, with, role: Role::Developer });
    // Minimal access is in no claim.
    lab.gitlab.set_role("acme/web", "carol", Some(Role::Minimal)).expect("a group");
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("labgate.toml");
    std::fs::write(&config, &lab.config).expect("written");
    let config = config.to_str().expect("text");
    let admin = [("LABGATE_GITLAB_TOKEN", "glpat-dev-root")];
    for (person, expected) in [("carol", [false, false]), ("alice", [true, true])] {
        let mut browser = lab.signed_in(person).await;
        for ((name, _), expected) in rules.iter().zip(expected) {
            let url = format!("/p/{name}");
            assert_eq!(may(&mut browser, &url).await, expected, "{person} at {name}");
            let asked =
                ["explain", "--online", "--config", config, "--url", &url, "--user", person];
            let (code, out, err) = outcome(&mut labgate(&asked, &admin));
            assert_eq!(code == 0, expected, "{person} at {name}: {out}{err}");
            let told = err.lines().find(|line| line.contains("by sharing alone"));
            let alone = told.is_some_and(|line| line.ends_with("read_api: acme/ops"));
            assert_eq!(alone, person == "carol", "{err}");
        }
    }
    let (_, out, err) = outcome(&mut labgate(&["check", "--config", config], &[]));
    assert!(out.contains("Groups reached by sharing don't count"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_older_than_the_rule_is_asked_about_at_once() {
    // The first labgate has another rule on a project, so that its tokens may ask.
    let rules = [("shop", r#"[{ project = "acme/web/shop" }]"#)];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let carol = lab.signed_in("carol").await;
    let more = r#"[[route]]
path = "/p/handbook"
upstream = "UPSTREAM"
allow = [{ project = "open/handbook" }]
"#;
    let config = format!("{}{}", lab.config, more.replace("UPSTREAM", &lab.sample.url()));
    let project = "open/handbook".into();
    let role = Some(Role::Guest);
    tell(&lab.gitlab, Command::SetProjectRole { project, user: "carol".into(), role });
    let newer = run(&config, &lab.clock, 1);
    let mut there = elsewhere(&carol, newer.addr());
    assert!(
        may(&mut there, "/p/handbook").await,
        "what is not known is asked for, not taken for false"
    );
    let asked = lab.gitlab.hits(Endpoint::ApiMembers);
    assert!(may(&mut there, "/p/handbook").await && may(&mut there, "/p/shop").await);
    assert_eq!(lab.gitlab.hits(Endpoint::ApiMembers), asked, "and then it is known");
    // While GitLab does not answer, nobody is told no who may have a yes.
    lab.gitlab.set_silent(true);
    let config = config.replace("recheck_timeout = \"20s\"", "recheck_timeout = \"50ms\"");
    let impatient = run(&config, &lab.clock, 1);
    let mut there = elsewhere(&carol, impatient.addr());
    let answer = there.xhr("/p/handbook").await;
    assert_eq!(answer.status, 503);
    assert!(!answer.header("retry-after").is_empty());
    assert!(may(&mut there, "/p/shop").await, "the rest goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_the_rule_opens_nothing_and_closes_nothing_else() {
    let lab = Setup::default().routes(&routes(&[])).start().await;
    let carol = lab.signed_in("carol").await;
    let more = r#"[[route]]
path = "/p/shop"
upstream = "UPSTREAM"
allow = [{ project = "acme/web/shop" }]
"#;
    let config = format!("{}{}", lab.config, more.replace("UPSTREAM", &lab.sample.url()));
    let newer = run(&config, &lab.clock, 1);
    let mut there = elsewhere(&carol, newer.addr());
    assert!(!may(&mut there, "/p/shop").await);
    let page = there.navigate("/p/shop").await.text();
    assert!(page.contains("GitLab has not said"), "{page}");
    assert_eq!(there.xhr("/private").await.status, 200);
    // The next sign-in asks for the scope.
    let mut anew = Browser::new(newer.addr(), lab.gitlab.addr(), lab.gitlab.external_url());
    assert_eq!(anew.sign_in("/private", "carol").await.status, 200);
    assert!(may(&mut anew, "/p/shop").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_username_that_another_account_takes_brings_no_access_along() {
    let rules = [("project", r#"[{ user = "bob", project = "acme/web/shop" }]"#)];
    let lab = Setup::default().routes(&routes(&rules)).start().await;
    let mut bob = lab.signed_in("bob").await;
    assert!(may(&mut bob, "/p/project").await);
    let rename = |user: &str, to: &str| Command::Rename { user: user.into(), to: to.into() };
    let (project, role) = ("acme/web/shop".into(), None);
    tell(&lab.gitlab, Command::SetProjectRole { project, user: "carol".into(), role });
    tell(&lab.gitlab, rename("bob", "robert"));
    tell(&lab.gitlab, rename("carol", "bob"));
    lab.clock.turn(TOO_OLD);
    // The account that had the name has lost it, the one that has it holds no role.
    assert!(!may(&mut bob, "/p/project").await);
    let mut other = lab.signed_in("bob").await;
    assert!(!may(&mut other, "/p/project").await);
    let page = other.navigate("/p/project").await.text();
    assert!(page.contains("not a member of acme/web/shop"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_keep_its_rules_to_itself() {
    let rules = r#"[[route]]
path = "/p/quiet"
upstream = "UPSTREAM"
hide_rules = true
allow = [{ group = "acme/ops", role = "owner" }]
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
"#;
    let lab = Setup::default().routes(rules).start().await;
    let mut alice = lab.signed_in("alice").await;
    let page = alice.navigate("/p/quiet").await.text();
    assert!(page.contains("alice"), "{page}");
    for secret in ["acme/ops", "Owner", "Maintainer", "group_members", "What is missing"] {
        assert!(!page.contains(secret), "{secret}: {page}");
    }
    let problem = alice.xhr("/p/quiet").await;
    assert_eq!((problem.status.as_u16(), problem.json().get("rules")), (403, None));
}
