//! Who passes which rule, each with the one who does not.

use super::*;
use crate::identity::Membership;

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
fn groups_count_with_role_and_inheritance() {
    let rule =
        |path, role| policy(vec![Rule { group: Some(group(path)), role, ..Rule::default() }]);
    let member = rule("acme/ops", None);
    let developer = rule("acme/ops", Some(AccessLevel::DEVELOPER));
    let table: [(Held, bool, bool); 13] = [
        (&[("acme/ops", AccessLevel::MINIMAL)], true, false),
        (&[("acme/ops", AccessLevel::REPORTER)], true, false),
        (&[("acme/ops", AccessLevel::DEVELOPER)], true, true),
        (&[("ACME/Ops", AccessLevel::OWNER)], true, true),
        (&[("acme", AccessLevel::DEVELOPER)], true, true),
        (&[("acme", AccessLevel::GUEST)], true, false),
        (&[("acme", AccessLevel::OWNER), ("acme/ops", AccessLevel::GUEST)], true, true),
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
    let mentioned: Vec<_> = policy.groups().map(GroupPath::as_str).collect();
    assert_eq!(mentioned, ["acme"]);
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
        "you are alice",
        "Reporter in acme/ops",
        "your e-mail address is a@corp.test, and not a member of acme/web",
    ];
    let bob = told(&identity("bob", None, &[("acme", AccessLevel::OWNER)]));
    let bob_held = [
        "you are bob",
        "your e-mail address is not verified",
        "your e-mail address is not verified",
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
