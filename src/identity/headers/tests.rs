//! What is written, and that no spelling of it gets through from a client.

use super::*;
use crate::{config, config::AccessLevel, identity::Membership};

fn table(entries: &[(&str, &str)]) -> Result<HeaderTable, Vec<HeaderTableError>> {
    let own = |(name, says): &(&str, &str)| ((*name).to_owned(), (*says).to_owned());
    HeaderTable::new(&entries.iter().map(own).collect())
}

fn default_table() -> HeaderTable {
    HeaderTable::new(&config::Identity::default().table()).unwrap()
}

fn alice() -> Identity {
    let membership = |path: &str| Membership { path: path.into(), level: AccessLevel::DEVELOPER };
    Identity {
        gitlab: "main".into(),
        issuer: "https://gitlab.test".into(),
        sub: "42".into(),
        username: "alice".into(),
        name: "Alice".into(),
        email: Some("alice@example.com".into()),
        groups: vec![membership("acme"), membership("acme/ops")],
        ..Identity::default()
    }
}

fn sent(name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    headers.append(name.clone(), HeaderValue::from_static("spoofed"));
    headers.append(name, HeaderValue::from_static("twice"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    headers
}

fn value(says: &str, identity: &Identity) -> Option<String> {
    let rendered = table(&[("X-Says", says)]).unwrap().render(identity);
    rendered.first().map(|(_, value)| value.to_str().unwrap().to_owned())
}

#[test]
fn no_spelling_of_an_identity_gets_through() {
    let table =
        table(&[("X-Acme-User", "username"), ("Sso_Mail", "email"), ("_Odd", "sub")]).unwrap();
    let stripped = [
        "X-Acme-User",
        "x-acme-user",
        "X-ACME-USER",
        "X_Acme_User",
        "X-Acme_User",
        "X.Acme.User",
        "X~Acme!User",
        "X|Acme`User",
        "X-Acme+User",
        "Sso_Mail",
        "Sso-Mail",
        "SSO.MAIL",
        "_odd",
        "-Odd",
        "~odd",
        "X-Forwarded-User",
        "X_Forwarded_User",
        "X-Forwarded-Email",
        "X-Forwarded-Groups",
        "X-Forwarded-Preferred-Username",
        "X_Forwarded-Preferred_Username",
        "X-Forwarded-Access-Token",
        "X-Auth-Request-User",
        "X-Auth-Request-Anything",
        "X-Auth_Request.Email",
        "Remote-User",
        "Remote_User",
        "REMOTE.GROUPS",
        "Remote",
        "X-Remote-User",
        "X_Remote.User",
        "X-Remote",
        "X-Webauth-User",
        "X-WEBAUTH-NAME",
        "X-Labgate-Assertion",
        "X*Labgate*Assertion",
    ];
    for name in stripped {
        let mut headers = sent(name);
        table.strip(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"], "{name}");
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        assert!(table.claims(&name));
    }
    let kept = [
        "X-Acme-Users",
        "X-Acme",
        "XAcmeUser",
        "X-Forwarded-For",
        "X-Forwarded-Users",
        "X-Auth-Token",
        "Remoteness",
        "X-Remotely",
        "X-Requested-With",
        "Authorization",
        "Cookie",
        "Host",
        "X",
    ];
    for name in kept {
        let mut headers = sent(name);
        table.strip(&mut headers);
        assert_eq!(headers.get_all(name).iter().count(), 2, "{name}");
    }
}

#[test]
fn the_default_table_tells_who_it_is_and_nothing_of_the_client() {
    let table = default_table();
    let mut headers = sent("X-Forwarded-Email");
    headers.append("x_forwarded_user", HeaderValue::from_static("root"));
    let mut unknown = alice();
    unknown.email = None;
    unknown.groups.clear();
    let lines = |headers: &HeaderMap| {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    };
    let mut without = headers.clone();
    table.strip(&mut headers);
    write(&table, &alice(), &mut headers);
    assert_eq!(
        lines(&headers),
        [
            "accept: */*",
            "x-forwarded-email: alice@example.com",
            "x-forwarded-groups: acme,acme/ops",
            "x-forwarded-preferred-username: alice",
            "x-forwarded-user: alice",
        ]
    );
    table.strip(&mut without);
    write(&table, &unknown, &mut without);
    assert_eq!(
        lines(&without),
        ["accept: */*", "x-forwarded-preferred-username: alice", "x-forwarded-user: alice",]
    );
}

#[test]
fn writing_replaces_what_is_there() {
    let mut headers = sent("X-Forwarded-User");
    write(&default_table(), &alice(), &mut headers);
    let users: Vec<_> = headers.get_all("x-forwarded-user").iter().collect();
    assert_eq!(users, ["alice"]);
}

#[test]
fn claims_and_templates_say_what_they_name() {
    let cases = [
        ("sub", "42"),
        ("username", "alice"),
        ("email", "alice@example.com"),
        ("name", "Alice"),
        ("groups", "acme,acme/ops"),
        ("gitlab", "main"),
        ("kind", "browser"),
        ("{username}@{gitlab}", "alice@main"),
        ("user {username}!", "user alice!"),
        ("{{{sub}}}", "{42}"),
        ("{groups};x", "acme,acme/ops;x"),
    ];
    for (says, expected) in cases {
        assert_eq!(value(says, &alice()).as_deref(), Some(expected), "{says}");
    }
    let mut unknown = alice();
    unknown.email = None;
    unknown.name.clear();
    unknown.groups.clear();
    for says in ["email", "name", "groups", "<{email}>", "{username} {name}"] {
        assert_eq!(value(says, &unknown), None, "{says}");
    }
}

#[test]
fn values_cannot_break_out() {
    let name = |name: &str| {
        let mut identity = alice();
        identity.name = name.into();
        value("name", &identity)
    };
    let cases = [
        ("Ann B", "Ann B"),
        ("a\r\nX-Admin: 1", "a%0D%0AX-Admin: 1"),
        ("a\0b\x7f", "a%00b%7F"),
        ("a\tb", "a%09b"),
        ("100%", "100%25"),
        ("a%0d", "a%250d"),
        ("J\u{fc}rg", "J%C3%BCrg"),
        (" root ", "%20root%20"),
        (" ", "%20"),
        ("a,b|c", "a,b|c"),
    ];
    for (text, expected) in cases {
        assert_eq!(name(text).as_deref(), Some(expected), "{text:?}");
    }
    let long = "\u{1f980}".repeat(25_000);
    assert_eq!(name(&long).unwrap().len(), 25_000 * 12);
}

#[test]
fn one_group_cannot_pass_for_two() {
    let groups = |paths: &[&str]| {
        let mut identity = alice();
        let membership =
            |path: &&str| Membership { path: (*path).into(), level: AccessLevel::GUEST };
        identity.groups = paths.iter().map(membership).collect();
        value("groups", &identity)
    };
    let cases: [(&[&str], Option<&str>); 6] = [
        (&["a", "b"], Some("a,b")),
        (&["a,b"], Some("a%2Cb")),
        (&["a%2Cb"], Some("a%252Cb")),
        (&["a ", " b"], Some("a%20,%20b")),
        (&["", "b", ""], Some("b")),
        (&[""], None),
    ];
    for (paths, expected) in cases {
        assert_eq!(groups(paths).as_deref(), expected, "{paths:?}");
    }
}

#[test]
fn what_cannot_be_a_table_is_told_entry_by_entry() {
    let refused_names = [
        "Host",
        "content-length",
        "Transfer_Encoding",
        "Connection",
        "Cookie",
        "Set-Cookie",
        "Authorization",
        "Proxy-Authorization",
        "Upgrade",
        "TE",
        "Forwarded",
        "X-Forwarded-For",
        "X_Forwarded_Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Request-Id",
        "Sec-Fetch-Mode",
        "If-None-Match",
        "X-HTTP-Method-Override",
        "",
        "X User",
        "X:User",
        "X-\u{fc}",
    ];
    for name in refused_names {
        let errors = table(&[(name, "username")]).unwrap_err();
        assert_eq!(errors.len(), 1, "{name}");
        assert_eq!(errors[0].header, name);
    }
    let refused_claims = [
        ("user", "unknown claim `user`"),
        ("", "unknown claim ``"),
        ("Username", "unknown claim `Username`"),
        ("job", "unknown claim `job`"),
        ("{username", "no counterpart"),
        ("username}", "no counterpart"),
        ("{user{name}}", "unknown claim `user{name`"),
        ("{{username}}", "needs a claim"),
        ("{username} ", "spaces at its ends"),
        ("{username}\r\nX: y", "visible ASCII"),
    ];
    for (says, reason) in refused_claims {
        let errors = table(&[("X-User", says)]).unwrap_err();
        assert!(errors[0].reason.contains(reason), "{says}: {errors:?}");
    }
    let errors = table(&[
        ("Host", "username"),
        ("X-User", "username"),
        ("X_User", "sub"),
        ("X-Mail", "mail"),
    ]);
    let headers: Vec<_> = errors.unwrap_err().into_iter().map(|it| it.header).collect();
    assert_eq!(headers, ["Host", "X-Mail", "X_User"]);
    assert!(table(&[("X-User", "username"), ("X-Users", "sub")]).is_ok());
    assert!(table(&[]).is_ok());
}

/// Sets the headers as the gate does.
fn write(table: &HeaderTable, identity: &Identity, headers: &mut HeaderMap) {
    for (name, value) in table.render(identity) {
        headers.insert(name, value);
    }
}
