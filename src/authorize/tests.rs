//! Who passes which rule, each with the one who does not.

use proptest::prelude::*;

use super::*;
use crate::{
    config::{AccessLevel, GroupPath, ProjectPath},
    identity::{Membership, ProjectMembership},
};

fn group(path: &str) -> GroupPath {
    GroupPath::try_from(path.to_owned()).unwrap()
}

fn identity(username: &str, email: Option<&str>, groups: &[(&str, AccessLevel)]) -> Identity {
    let membership =
        |(path, level): &(&str, AccessLevel)| Membership { path: (*path).into(), level: *level };
    Identity {
        gitlab: "main".into(),
        issuer: "https://gitlab.test".into(),
        sub: "7".into(),
        username: username.into(),
        name: "Root".into(),
        email: email.map(Into::into),
        groups: groups.iter().map(membership).collect(),
        ..Identity::default()
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy::new(&Allow::Rules(rules), &mut UsersFiles::default()).unwrap()
}

fn passes(policy: &Policy, identity: &Identity) -> bool {
    policy.check(Some(identity)).is_ok()
}

fn user(name: &str) -> Rule {
    Rule { user: Some(name.into()), ..Rule::default() }
}

#[test]
fn public_and_signed_in_need_no_rule() {
    let alice = identity("alice", None, &[]);
    let mut files = UsersFiles::default();
    let public = Policy::new(&Allow::Public, &mut files).unwrap();
    let signed_in = Policy::new(&Allow::SignedIn, &mut files).unwrap();
    assert!(public.is_public() && !signed_in.is_public());
    assert_eq!(public.check(None), Ok(()));
    assert_eq!(public.check(Some(&alice)), Ok(()));
    assert_eq!(signed_in.check(None), Err(Denial::SignIn));
    assert_eq!(signed_in.check(Some(&alice)), Ok(()));
    assert_eq!(policy(vec![user("alice")]).check(None), Err(Denial::SignIn));
    assert!(!policy(vec![user("alice")]).is_public());
}

#[test]
fn usernames_compare_whole_and_in_any_case() {
    let policy = policy(vec![user("Alice")]);
    for (name, expected) in [
        ("alice", true),
        ("ALICE", true),
        ("alice2", false),
        ("alic", false),
        ("alice ", false),
        ("\u{ff41}lice", false),
        ("", false),
    ] {
        assert_eq!(passes(&policy, &identity(name, None, &[])), expected, "{name}");
    }
    // A display name or an address is no username.
    assert!(!passes(&policy, &identity("x", Some("alice"), &[])));
}

#[test]
fn addresses_and_domains_compare_exactly() {
    let address = policy(vec![Rule { email: Some("ann@corp.test".into()), ..Rule::default() }]);
    let domain = policy(vec![Rule { email_domain: Some("corp.test".into()), ..Rule::default() }]);
    let table = [
        (Some("ann@corp.test"), true, true),
        (Some("Ann@CORP.test"), true, true),
        (Some("bob@corp.test"), false, true),
        (Some("bob+x@corp.test"), false, true),
        (None, false, false),
        (Some(""), false, false),
        (Some("corp.test"), false, false),
        (Some("@corp.test"), false, false),
        (Some("ann@"), false, false),
        (Some("a@evil.test@corp.test"), false, false),
        (Some("a@corp.test@evil.test"), false, false),
        (Some("ann@corp.test.evil.test"), false, false),
        (Some("ann@evilcorp.test"), false, false),
        (Some("ann@sub.corp.test"), false, false),
        (Some("ann@corp.test."), false, false),
        (Some("ann@corp.test\n"), false, false),
        (Some("ann@corp.test "), false, false),
        (Some(" ann@corp.test"), false, false),
        (Some("ann\0@corp.test"), false, false),
        (Some("\"a b\"@corp.test"), false, false),
        (Some("\"ann\"@corp.test"), false, false),
        (Some("<ann@corp.test>"), false, false),
        (Some("a(x)@corp.test"), false, false),
        (Some("a,b@corp.test"), false, false),
        (Some("ann@c\u{43e}rp.test"), false, false),
        (Some("ann@corp\u{3002}test"), false, false),
        (Some("\u{e4}nn@corp.test"), false, false),
    ];
    for (email, is_ann, is_corp) in table {
        let who = identity("ann", email, &[]);
        assert_eq!(passes(&address, &who), is_ann, "{email:?}");
        assert_eq!(passes(&domain, &who), is_corp, "{email:?}");
    }
}

type Held = &'static [(&'static str, AccessLevel)];

#[test]
fn groups_count_by_what_gitlab_says_of_them() {
    let rule =
        |path, role| policy(vec![Rule { group: Some(group(path)), role, ..Rule::default() }]);
    let member = rule("acme/ops", None);
    let developer = rule("acme/ops", Some(AccessLevel::DEVELOPER));
    let table: [(Held, bool, bool); 13] = [
        (&[("acme/ops", AccessLevel::MINIMAL)], true, false),
        (&[("acme/ops", AccessLevel::REPORTER)], true, false),
        (&[("acme/ops", AccessLevel::DEVELOPER)], true, true),
        (&[("ACME/Ops", AccessLevel::OWNER)], true, true),
        (&[("acme", AccessLevel::OWNER), ("acme/ops", AccessLevel::GUEST)], true, false),
        // It has moved, or there never was one: GitLab lists those below a group by themselves.
        (&[("acme", AccessLevel::DEVELOPER)], false, false),
        (&[("acme", AccessLevel::OWNER), ("beta/ops", AccessLevel::OWNER)], false, false),
        (&[], false, false),
        (&[("acme/ops2", AccessLevel::OWNER)], false, false),
        (&[("acme/ops/sub", AccessLevel::OWNER)], false, false),
        (&[("x/acme/ops", AccessLevel::OWNER)], false, false),
        (&[("acm", AccessLevel::OWNER)], false, false),
        (&[("", AccessLevel::OWNER)], false, false),
    ];
    for (groups, is_member, is_developer) in table {
        let who = identity("ann", None, groups);
        assert_eq!(passes(&member, &who), is_member, "{groups:?}");
        assert_eq!(passes(&developer, &who), is_developer, "{groups:?}");
    }
    let many: Vec<_> = (0..5000).map(|number| format!("g{number}")).collect();
    let mut groups: Vec<_> = many.iter().map(|path| (path.as_str(), AccessLevel::OWNER)).collect();
    assert!(!passes(&developer, &identity("ann", None, &groups)));
    groups.push(("acme/ops", AccessLevel::DEVELOPER));
    assert!(passes(&developer, &identity("ann", None, &groups)));
}

#[test]
fn one_rule_is_enough_but_all_its_conditions_must_hold() {
    let policy = policy(vec![
        user("root"),
        Rule {
            group: Some(group("acme")),
            role: Some(AccessLevel::REPORTER),
            email_domain: Some("corp.test".into()),
            ..Rule::default()
        },
    ]);
    let reporter = [("acme", AccessLevel::REPORTER)];
    let guest = [("acme", AccessLevel::GUEST)];
    let corp = Some("a@corp.test");
    assert!(passes(&policy, &identity("root", None, &[])));
    assert!(passes(&policy, &identity("ann", corp, &reporter)));
    assert!(!passes(&policy, &identity("ann", None, &reporter)));
    assert!(!passes(&policy, &identity("ann", corp, &guest)));
    assert!(!passes(&policy, &identity("ann", corp, &[])));
}

#[test]
fn a_denial_tells_what_each_rule_needs_and_what_there_is() {
    let policy = policy(vec![
        user("root"),
        Rule {
            group: Some(group("acme/ops")),
            role: Some(AccessLevel::DEVELOPER),
            email_domain: Some("corp.test".into()),
            ..Rule::default()
        },
        Rule {
            email: Some("boss@corp.test".into()),
            group: Some(group("acme/web")),
            ..Rule::default()
        },
    ]);
    let told = |who: &Identity| match policy.check(Some(who)) {
        Err(Denial::Forbidden(rules)) => {
            rules.into_iter().map(|rule| (rule.needed, rule.held)).collect::<Vec<_>>()
        },
        other => panic!("{other:?}"),
    };
    let needed = [
        "the user root",
        "a verified e-mail address at corp.test, and at least Developer in the group acme/ops",
        "a certain verified e-mail address, and a member of the group acme/web",
    ];
    let reporter = [("acme/ops", AccessLevel::REPORTER)];
    let alice = told(&identity("alice", Some("a@corp.test"), &reporter));
    let held = [
        "signed in as alice",
        "Reporter in acme/ops",
        "the e-mail address is a@corp.test, and not a member of acme/web",
    ];
    let bob = told(&identity("bob", None, &[("acme/ops", AccessLevel::OWNER)]));
    let bob_held = [
        "signed in as bob",
        "the e-mail address is not verified",
        "the e-mail address is not verified, and not a member of acme/web",
    ];
    for (place, needed) in needed.iter().enumerate() {
        assert_eq!(alice[place], ((*needed).into(), held[place].into()));
        assert_eq!(bob[place], ((*needed).into(), bob_held[place].into()));
    }
}

#[test]
fn rules_that_could_not_mean_anything_are_errors() {
    let compile = |rules| Policy::new(&Allow::Rules(rules), &mut UsersFiles::default());
    let errors = |rules| compile(rules).unwrap_err();
    assert!(matches!(errors(vec![])[..], [PolicyError::NoRules]));
    let role = Rule { role: Some(AccessLevel::OWNER), ..Rule::default() };
    let file = Rule { users_file: Some("/nonexistent/users".into()), ..Rule::default() };
    let found = errors(vec![user("root"), Rule::default(), role, file]);
    assert!(matches!(
        found[..],
        [
            PolicyError::EmptyRule(1),
            PolicyError::RoleAlone(2),
            PolicyError::UsersFile { rule: 3, .. }
        ]
    ));
}

#[test]
fn a_users_file_is_a_condition_like_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    std::fs::write(&path, "ann\n").unwrap();
    let mut files = UsersFiles::default();
    let rule =
        Rule { users_file: Some(path.clone()), group: Some(group("acme")), ..Rule::default() };
    let policy = Policy::new(&Allow::Rules(vec![rule]), &mut files).unwrap();
    let acme = [("acme", AccessLevel::GUEST)];
    assert!(passes(&policy, &identity("ann", None, &acme)));
    assert!(!passes(&policy, &identity("ann", None, &[])));
    assert!(!passes(&policy, &identity("bob", None, &acme)));
    std::fs::write(&path, "ann-is-gone\n").unwrap();
    files.refresh();
    assert!(!passes(&policy, &identity("ann", None, &acme)));
}

fn project(path: &str) -> ProjectPath {
    ProjectPath::try_from(path.to_owned()).unwrap()
}

/// Somebody of whom GitLab has said all: a member of this project at this level.
fn member(path: &str, level: Option<AccessLevel>) -> Identity {
    Identity {
        projects: vec![ProjectMembership { path: path.into(), level }],
        two_factor: Some(true),
        external: Some(false),
        ..identity("ann", Some("ann@corp.test"), &[("acme/ops", AccessLevel::DEVELOPER)])
    }
}

const SHOP: &str = "acme/web/shop";

#[test]
fn each_key_alone_says_no() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("users");
    std::fs::write(&list, "ann\n").unwrap();
    let all = Rule {
        gitlab: Some("main".into()),
        user: Some("ann".into()),
        email: Some("ann@corp.test".into()),
        email_domain: Some("corp.test".into()),
        group: Some(group("acme/ops")),
        project: Some(project(SHOP)),
        role: Some(AccessLevel::DEVELOPER),
        two_factor: Some(true),
        external: Some(false),
        users_file: Some(list.clone()),
        ..Rule::default()
    };
    let ann = member(SHOP, Some(AccessLevel::MAINTAINER));
    let policy = |rule: &Rule| {
        let allow = Allow::Rules(vec![rule.clone()]);
        Policy::new(&allow, &mut UsersFiles::default()).unwrap()
    };
    assert!(passes(&policy(&all), &ann));
    std::fs::write(folder.path().join("others"), "bob\n").unwrap();
    let others = Some(folder.path().join("others"));
    // One key at a time asks for what is not so: all others hold, and the one that says no is told.
    let table = [
        (Rule { gitlab: Some("other".into()), ..all.clone() }, "from main"),
        (Rule { user: Some("bob".into()), ..all.clone() }, "signed in as ann"),
        (
            Rule { email: Some("bob@corp.test".into()), ..all.clone() },
            "the e-mail address is ann@corp.test",
        ),
        (
            Rule { email_domain: Some("evil.test".into()), ..all.clone() },
            "the e-mail address is ann@corp.test",
        ),
        (Rule { group: Some(group("acme/web")), ..all.clone() }, "not a member of acme/web"),
        (Rule { role: Some(AccessLevel::MAINTAINER), ..all.clone() }, "Developer in acme/ops"),
        (Rule { two_factor: Some(false), ..all.clone() }, "two-factor authentication is set up"),
        (Rule { external: Some(true), ..all.clone() }, "no external user"),
        (Rule { users_file: others, ..all.clone() }, "not on the list"),
    ];
    for (rule, held) in table {
        let denial = policy(&rule).check(Some(&ann)).unwrap_err();
        let Denial::Forbidden(unmet) = denial else { panic!("{denial:?}") };
        assert_eq!(unmet[0].held, held);
        assert!(!unmet[0].unknown, "{held}");
    }
    // And one fact at a time is missing.
    let facts: [(Identity, &str, bool); 6] = [
        (member(SHOP, Some(AccessLevel::REPORTER)), "Reporter in acme/web/shop", false),
        (member(SHOP, None), "not a member of acme/web/shop", false),
        (
            member("acme/web/website", Some(AccessLevel::OWNER)),
            "GitLab has not said yet whether you are in acme/web/shop",
            true,
        ),
        (
            Identity { two_factor: Some(false), ..ann.clone() },
            "two-factor authentication is not set up",
            false,
        ),
        (
            Identity { two_factor: None, ..ann.clone() },
            "GitLab has not said whether two-factor authentication is set up",
            true,
        ),
        (
            Identity { external: None, ..ann.clone() },
            "GitLab has not said whether this is an external user",
            true,
        ),
    ];
    for (who, held, unknown) in facts {
        let denial = policy(&all).check(Some(&who)).unwrap_err();
        let Denial::Forbidden(unmet) = denial else { panic!("{denial:?}") };
        assert_eq!((unmet[0].held.as_str(), unmet[0].unknown), (held, unknown));
    }
}

#[test]
fn jobs_are_expected_where_a_rule_is_for_them_alone() {
    let job = || Rule { ci_project: Some(project(SHOP)), ..Rule::default() };
    let of_main = |rule: Rule| Rule { gitlab: Some("main".into()), ..rule };
    for (rule, expected) in [
        (job(), true),
        (of_main(job()), true),
        (of_main(user("ann")), false),
        (Rule { user: Some("ann".into()), ..job() }, false),
    ] {
        assert_eq!(policy(vec![rule.clone()]).expects_jobs(), expected, "{rule:?}");
    }
}

#[test]
fn what_is_not_known_meets_neither_a_flag_nor_its_opposite() {
    for wanted in [true, false] {
        let two_factor = policy(vec![Rule { two_factor: Some(wanted), ..Rule::default() }]);
        let external = policy(vec![Rule { external: Some(wanted), ..Rule::default() }]);
        for said in [None, Some(true), Some(false)] {
            let who =
                |two_factor, external| Identity { two_factor, external, ..Identity::default() };
            assert_eq!(passes(&two_factor, &who(said, Some(wanted))), said == Some(wanted));
            assert_eq!(passes(&external, &who(Some(wanted), said)), said == Some(wanted));
        }
    }
}

#[test]
fn a_rule_that_fails_for_good_is_not_unknown() {
    let rule = |user: &str| Rule { project: Some(project(SHOP)), ..self::user(user) };
    let unmet = |who: &str| match policy(vec![rule("ann")]).check(Some(&identity(who, None, &[]))) {
        Err(Denial::Forbidden(unmet)) => unmet[0].unknown,
        other => panic!("{other:?}"),
    };
    assert!(unmet("ann") && !unmet("bob"));
}

#[test]
fn a_role_counts_in_the_project_that_the_rule_names() {
    use AccessLevel as L;
    let rule = |role| policy(vec![Rule { project: Some(project(SHOP)), role, ..Rule::default() }]);
    let (any, developer) = (rule(None), rule(Some(L::DEVELOPER)));
    let security_manager = L::from_number(25);
    let admin = L::from_number(60);
    for (path, level, is_member, is_developer) in [
        (SHOP, Some(L::MINIMAL), true, false),
        (SHOP, Some(L::REPORTER), true, false),
        (SHOP, security_manager, true, false),
        (SHOP, Some(L::DEVELOPER), true, true),
        (SHOP, admin, true, true),
        ("ACME/Web/SHOP", Some(L::OWNER), true, true),
        (SHOP, None, false, false),
        ("acme/web/shop2", Some(L::OWNER), false, false),
        ("acme/web", Some(L::OWNER), false, false),
        ("acme/web/shop/x", Some(L::OWNER), false, false),
        ("acme-evil/web/shop", Some(L::OWNER), false, false),
        ("acme/website/shop", Some(L::OWNER), false, false),
        ("acme/web/\u{17f}hop", Some(L::OWNER), false, false),
    ] {
        let who = member(path, level);
        assert_eq!(passes(&any, &who), is_member, "{path} {level:?}");
        assert_eq!(passes(&developer, &who), is_developer, "{path} {level:?}");
    }
    // A group of the same path, or the group around it, is not the project; what GitLab says of the project includes it.
    let owner = identity("ann", None, &[(SHOP, L::OWNER), ("acme", L::OWNER)]);
    assert!(!passes(&any, &owner));
}

#[test]
fn a_role_beside_group_and_project_counts_in_both() {
    let both = policy(vec![Rule {
        group: Some(group("acme/ops")),
        project: Some(project(SHOP)),
        role: Some(AccessLevel::DEVELOPER),
        ..Rule::default()
    }]);
    assert!(passes(&both, &member(SHOP, Some(AccessLevel::DEVELOPER))));
    assert!(!passes(&both, &member(SHOP, Some(AccessLevel::GUEST))));
    let mut outside = member(SHOP, Some(AccessLevel::OWNER));
    outside.groups.clear();
    assert!(!passes(&both, &outside));
}

/// Names that stand for one thing are tried as another.
#[test]
fn names_count_as_what_they_name() {
    let ours = |rule: Rule| policy(vec![rule]);
    let in_group = ours(Rule { group: Some(group("acme")), ..Rule::default() });
    let in_project = ours(Rule { project: Some(project("acme/web")), ..Rule::default() });
    let owner = AccessLevel::OWNER;
    // A user called like the group, or a project called like it.
    assert!(!passes(&in_group, &identity("acme", Some("acme@acme"), &[])));
    assert!(!passes(&in_group, &member("acme", Some(owner))));
    assert!(!passes(&ours(user("acme")), &identity("ann", None, &[("acme", owner)])));
    // A group called like the project; GitLab does not have both, but may have had the other before.
    assert!(!passes(&in_project, &identity("ann", None, &[("acme/web", owner)])));
    for alike in [
        "acme-evil",
        "acme/",
        "acm\u{435}",
        "\u{430}cme",
        "acme\u{200b}",
        "acme ",
        "acme\0",
        "acme.",
    ] {
        assert!(!passes(&in_group, &identity("ann", None, &[(alike, owner)])), "{alike:?}");
    }
    for alike in
        ["acme/website", "acme/we", "acme/web/", "acme-evil/web", "acme//web", "acme/w\u{435}b"]
    {
        assert!(!passes(&in_project, &member(alike, Some(owner))), "{alike:?}");
    }
}

#[test]
fn who_holds_too_little_is_shown_where_roles_are_given() {
    let policy = policy(vec![Rule {
        group: Some(group("acme/ops")),
        project: Some(project(SHOP)),
        role: Some(AccessLevel::OWNER),
        ..Rule::default()
    }]);
    let urls = |who: &Identity| match policy.check(Some(who)) {
        Err(Denial::Forbidden(unmet)) => {
            unmet[0].places.iter().map(|place| place.members_url.clone()).collect::<Vec<_>>()
        },
        other => panic!("{other:?}"),
    };
    let developer = member(SHOP, Some(AccessLevel::DEVELOPER));
    assert_eq!(
        urls(&developer),
        [
            "https://gitlab.test/groups/acme/ops/-/group_members",
            "https://gitlab.test/acme/web/shop/-/project_members"
        ]
    );
    // Strangers could not open these pages.
    assert!(urls(&Identity { groups: Vec::new(), ..member(SHOP, None) }).is_empty());
    // Where the role is enough nobody need be asked.
    assert_eq!(urls(&member(SHOP, Some(AccessLevel::OWNER))).len(), 1);
}

proptest! {
    /// A role opens exactly what asks for it or for less, in the very group, and below it where nobody has asked GitLab.
    #[test]
    fn roles_compare_as_numbers(
        held in 1_u8..=60,
        wanted in prop::sample::select(vec!["minimal", "guest", "planner", "reporter", "developer", "maintainer", "owner"]),
        place in "[ab](/[ab]){0,2}",
        asked in "[ab](/[ab]){1,3}",
    ) {
        let role: AccessLevel = wanted.parse().unwrap();
        let level = AccessLevel::from_number(held).unwrap();
        let within = asked == place || asked.starts_with(&format!("{place}/"));
        let by_group = policy(vec![Rule { group: Some(group(&asked)), role: Some(role), ..Rule::default() }]);
        let ann = identity("ann", None, &[(&place, level)]);
        prop_assert_eq!(passes(&by_group, &ann), asked == place && held >= role.number());
        let heir = ann.inheriting([&group(&asked)]);
        prop_assert_eq!(passes(&by_group, &heir), within && held >= role.number());
        let by_project = policy(vec![Rule { project: Some(project(&asked)), role: Some(role), ..Rule::default() }]);
        prop_assert_eq!(passes(&by_project, &member(&place, Some(level))), asked == place && held >= role.number());
    }
}
