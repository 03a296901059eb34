//! Files and environments with mistakes of each kind, and exactly what is said about them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::*;
use crate::config::{Allow, Secret, render};

/// What the secrets in these tests are made of; no output may have it.
const SECRET: &str = "hunter2";

const GOOD: &str = r#"
[gitlab.Main]
client_id = "id"
client_secret = "hunter2-client"

[session]
keys = ["hunter2-key"]

[[route]]
upstream = "http://127.0.0.1:3000"
allow = "signed-in"
"#;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn told(text: &str, pairs: &[(&str, &str)]) -> String {
    let path = Some(PathBuf::from("labgate.toml"));
    let (document, _, problems) = read(path, &text.to_owned().into(), &env(pairs));
    let told = render(&problems, &document);
    assert!(!told.contains(SECRET), "{told}");
    assert!(!format!("{document:?} {problems:?}").contains(SECRET));
    told
}

fn good(pairs: &[(&str, &str)]) -> Config {
    let path = Some(PathBuf::from("labgate.toml"));
    let (document, config, problems) = read(path, &GOOD.to_owned().into(), &env(pairs));
    assert_eq!(render(&problems, &document), "");
    let config = config.unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    config
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_where_they_stand() {
    let text = r#"[server]
listen = "nowhere"
prefx = "/x"
tls = { cert = "x" }
limits = { headers = "many", tunnels = -1 }
trusted_proxies = ["10.0.0.0/8", "0.0.0.0/0", 5]

[gitlab.main]
client_id = 5

[session]
keys = [{ env = "KEY" }]
lifetime = "15"
cookie = { same_site = "strict" }
store = { redis = "redis://x", prefx = "x" }

[[route]]
upstream = ["http://a", "http://b"]
allow = "signd-in"

[[route]]
	allow = [{ group = "acme" }, { role = "boss" }, "x", { ref = "a b" }, {}, { role = "owner" }]
"#;
    let expected = r#"labgate.toml:2:10: error: `nowhere` is not an address and port, such as `0.0.0.0:4180`
    2 | listen = "nowhere"
      |          ^^^^^^^^^
labgate.toml:3:1: error: unknown key `prefx`
    3 | prefx = "/x"
      | ^^^^^
   help: did you mean `prefix`?
labgate.toml:4:1: error: `tls` is not available in this version
    4 | tls = { cert = "x" }
      | ^^^
labgate.toml:5:22: error: expected a whole number, found a string
    5 | limits = { headers = "many", tunnels = -1 }
      |                      ^^^^^^
labgate.toml:5:40: error: -1 is out of range
    5 | limits = { headers = "many", tunnels = -1 }
      |                                        ^^
labgate.toml:6:34: error: `0.0.0.0/0` trusts everyone; name the networks of your proxies
    6 | trusted_proxies = ["10.0.0.0/8", "0.0.0.0/0", 5]
      |                                  ^^^^^^^^^^^
labgate.toml:6:47: error: expected a string, found a whole number
    6 | trusted_proxies = ["10.0.0.0/8", "0.0.0.0/0", 5]
      |                                               ^
labgate.toml:9:13: error: expected a string, found a whole number
    9 | client_id = 5
      |             ^
labgate.toml:13:12: error: `15` is not a duration, such as `15m` or `1h 30m`
   13 | lifetime = "15"
      |            ^^^^
labgate.toml:14:24: error: unknown value, expected `lax` or `none`
   14 | cookie = { same_site = "strict" }
      |                        ^^^^^^^^
labgate.toml:15:32: error: unknown key `prefx`
   15 | store = …
      |         ^
   help: did you mean `prefix`?
labgate.toml:18:12: error: several URLs are not available in this version
   18 | upstream = ["http://a", "http://b"]
      |            ^^^^^^^^^^^^^^^^^^^^^^^^
labgate.toml:19:9: error: unknown value, expected `public` or `signed-in`
   19 | allow = "signd-in"
      |         ^^^^^^^^^^
   help: did you mean `signed-in`?
labgate.toml:22:40: error: unknown role `boss`, expected one of `minimal`, `guest`, `planner`, `reporter`, `developer`, `maintainer`, `owner`
   22 | 	allow = [{ group = "acme" }, { role = "boss" }, "x", { ref = "a b" }, {}, { role = "owner" }]
      | 	                                      ^^^^^^
labgate.toml:22:50: error: expected a table, found a string
   22 | 	allow = [{ group = "acme" }, { role = "boss" }, "x", { ref = "a b" }, {}, { role = "owner" }]
      | 	                                                ^^^
labgate.toml:22:63: error: `a b` is not a branch, such as `main` or `release/*`, or a tag, such as `refs/tags/v*`
   22 | 	allow = [{ group = "acme" }, { role = "boss" }, "x", { ref = "a b" }, {}, { role = "owner" }]
      | 	                                                             ^^^^^
labgate.toml:22:72: error: a rule without a condition
   22 | 	allow = [{ group = "acme" }, { role = "boss" }, "x", { ref = "a b" }, {}, { role = "owner" }]
      | 	                                                                      ^^
   help: say `allow = "signed-in"` for everybody who can sign in
labgate.toml:22:85: error: a role is held in a group or a project; the rule names neither
   22 | 	allow = [{ group = "acme" }, { role = "boss" }, "x", { ref = "a b" }, {}, { role = "owner" }]
      | 	                                                                                   ^^^^^^^
"#;
    assert_eq!(told(text, &[]), expected);
}

#[test]
fn all_mistakes_of_syntax_are_told_at_once() {
    let told =
        told("[server]\nlisten = localhost\nprefix =\n[gitlab.main\nclient_id = \"x\"\n", &[]);
    let lines: Vec<_> = told.lines().filter(|line| line.contains("error: ")).collect();
    for (place, message) in [("2:10", "string values must be quoted"), ("3:", ""), ("4:", "")] {
        let expected = format!("labgate.toml:{place}");
        let found = |line: &&str| line.starts_with(&expected) && line.contains(message);
        assert!(lines.iter().any(found), "{expected}\n{told}");
    }
    assert!(told.contains("    2 | listen = localhost\n      |          ^^^^^^^^^\n"), "{told}");
}

#[test]
fn what_is_missing_is_told_at_the_nearest_table() {
    assert_eq!(
        told("[gitlab.main]\n[session]\n[[route]]\nupstream = \"http://a\"\n[upstream.x]\n", &[]),
        r#"labgate.toml:1:1: error: gitlab.main.client_id: the application id that GitLab gave is needed
    1 | [gitlab.main]
      | ^^^^^^^^^^^^^
labgate.toml:2:1: error: session.keys: no key to seal sessions with
    2 | [session]
      | ^^^^^^^^^
   help: make one with `labgate keygen`
labgate.toml:3:1: error: route[0].allow: it must be said who may pass
    3 | [[route]]
      | ^^^^^^^^^
   help: say `"public"`, `"signed-in"` or a list of rules, such as `[{ group = "acme" }]`
labgate.toml:5:1: error: upstream.x.url: the URL of the application is needed
    5 | [upstream.x]
      | ^^^^^^^^^^^^
"#
    );
    let (document, _, problems) = read(None, &Zeroizing::default(), &env(&[]));
    let told = render(&problems, &document);
    for variable in
        ["LABGATE_GITLAB: error: ", "LABGATE_ROUTE: error: ", "LABGATE_SESSION__KEYS: error: "]
    {
        assert!(told.contains(variable), "{told}");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let config = good(&[
        ("LABGATE_SESSION__LIFETIME", "8h"),
        ("labgate_session__lifetime", "1h"),
        ("LABGATE_SESSION__GRACE", "\"2h\""),
        ("LABGATE_SERVER__LIMITS__HEADERS", "50"),
        ("LABGATE_SERVER__LISTEN", "[::1]:4180"),
        ("LABGATE_SERVER__TRUSTED_PROXIES", r#"["10.0.0.0/8"]"#),
        ("LABGATE_GITLAB__MAIN__LABEL", "5"),
        ("LABGATE_GITLAB__MAIN__REQUIRE_VERIFIED_EMAIL", "false"),
        ("LABGATE_GITLAB__SECOND", r#"{ client_id = "second" }"#),
        ("LABGATE_GITLAB__SECOND__CLIENT_SECRET", "{ env = \"LABGATE_SECOND_SECRET\" }"),
        ("LABGATE_SECOND_SECRET", "hunter2"),
        ("LABGATE_SESSION__KEYS", r#"["hunter2-a", { file = "b.key" }]"#),
        (
            "LABGATE_ROUTE",
            r#"[{ upstream = "http://127.0.0.1:3000", allow = [{ group = "acme" }] }]"#,
        ),
        ("LABGATE_CONFIG", "elsewhere"),
        ("LABGATE_GITLAB_TOKEN", "hunter2"),
        ("LABGATEX", "hunter2"),
    ]);
    assert_eq!(config.session.lifetime, Duration::from_hours(8));
    assert_eq!(config.session.grace, Duration::from_hours(2));
    assert_eq!(config.server.limits.headers, 50);
    assert_eq!(config.server.listen.to_string(), "[::1]:4180");
    assert_eq!(config.server.trusted_proxies.0.len(), 1);
    assert_eq!(config.gitlab.keys().collect::<Vec<_>>(), ["Main", "second"]);
    assert_eq!(config.gitlab["Main"].client_id, "id");
    assert_eq!(config.gitlab["Main"].label.as_deref(), Some("5"));
    assert!(!config.gitlab["Main"].require_verified_email);
    assert!(
        matches!(&config.gitlab["second"].client_secret, Some(Secret::Env(name)) if name == "LABGATE_SECOND_SECRET")
    );
    assert!(
        matches!(&config.session.keys[0], Secret::Inline(text) if text.as_str() == "hunter2-a")
    );
    assert!(matches!(&config.session.keys[1], Secret::File(path) if path.ends_with("b.key")));
    assert!(matches!(&config.route[..], [route] if matches!(route.allow, Some(Allow::Rules(_)))));
}

#[test]
fn the_environment_alone_is_enough() {
    let pairs = [
        ("LABGATE_GITLAB__MAIN__CLIENT_ID", "id"),
        ("LABGATE_SESSION__KEYS", r#"[{ env = "KEY" }]"#),
        (
            "LABGATE_ROUTE",
            r#"[{ upstream = "http://127.0.0.1:3000", allow = [{ group = "acme" }] }]"#,
        ),
    ];
    let (_, config, problems) = load(None, &env(&pairs));
    assert_eq!(problems, []);
    assert_eq!(config.unwrap().gitlab["main"].client_id, "id");
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    for (name, value, expected) in [
        (
            "LABGATE_SESSION__LIFETIME",
            "soon",
            "`soon` is not a duration, such as `15m` or `1h 30m`",
        ),
        ("LABGATE_SERVER__LIMITS__HEADERS", "many", "expected a whole number, found text"),
        ("LABGATE_SERVER__LIMITS__HEADERS", "-5", "-5 is out of range"),
        ("LABGATE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8", "expected a list, found text"),
        (
            "LABGATE_SERVER__TRUSTED_PROXIES",
            r#"["0.0.0.0/0"]"#,
            "server.trusted_proxies[0]: `0.0.0.0/0` trusts everyone; name the networks of your proxies",
        ),
        ("LABGATE_SERVER__TLS", "{}", "`tls` is not available in this version"),
        (
            "LABGATE_SESSION__LIFETME",
            "8h",
            "unknown key `lifetme`\n   help: did you mean `LABGATE_SESSION__LIFETIME`?",
        ),
        (
            "LABGATE_SESION__LIFETIME",
            "8h",
            "sesion: unknown key `sesion`\n   help: did you mean `LABGATE_SESSION__LIFETIME`?",
        ),
        (
            "LABGATE_SESSION_LIFETIME",
            "8h",
            "unknown key `session_lifetime`\n   help: did you mean `LABGATE_SESSION__LIFETIME`?",
        ),
        (
            "LABGATE_GITLAB__MAIN__CLIENT_SECRT",
            "hunter2",
            "unknown key `client_secrt`\n   help: did you mean `LABGATE_GITLAB__MAIN__CLIENT_SECRET`?",
        ),
        (
            "LABGATE_GITLAB__MAIN__CLIENT_SECRET",
            "{ fil = \"hunter2\" }",
            "a secret is a string, `{ file = \"…\" }` or `{ env = \"…\" }`",
        ),
        ("LABGATE_GITLAB__MAIN__CLIENT_SECRET", "", "the secret is empty"),
        ("LABGATE_SESSION__KEYS", "hunter2", "expected a list, found text"),
        ("LABGATE_SERVER__LISTEN__PORT", "80", "server.listen: expected a string, found a table"),
        ("LABGATE_ROUTE__0__ALLOW", "public", "route: expected a list, found a table"),
        (
            "LABGATE_ROUTE",
            r#"[{ allwo = "public" }]"#,
            "route[0].allwo: unknown key `allwo`\n   help: did you mean `allow`?",
        ),
        (
            "LABGATE_COLOUR",
            "x",
            "unknown key `colour`\n   help: known here: `server`, `gitlab`, `session`, `identity`, `upstream`, `route` and `telemetry`",
        ),
    ] {
        let told = told(GOOD, &[(name, value)]);
        let expected = format!("{name}: error: {expected}");
        assert!(told.starts_with(&expected), "{told}\n{expected}");
    }
    let broken = told(GOOD, &[("LABGATE_SESSION__KEYS", "[\"hunter2\"")]);
    assert!(broken.starts_with("LABGATE_SESSION__KEYS: error: not a TOML value: "), "{broken}");
}

#[test]
fn what_kubernetes_says_of_a_service_called_labgate_is_no_override() {
    let config = good(&[
        ("LABGATE_SERVICE_HOST", "10.0.0.1"),
        ("LABGATE_SERVICE_PORT", "4180"),
        ("LABGATE_SERVICE_PORT_HTTP", "4180"),
        ("LABGATE_PORT", "tcp://10.0.0.1:4180"),
        ("LABGATE_PORT_4180_TCP", "tcp://10.0.0.1:4180"),
        ("LABGATE_PORT_4180_TCP_ADDR", "10.0.0.1"),
        ("LABGATE_DEMO_SERVICE_HOST", "10.0.0.2"),
        ("LABGATE_DEMO_PORT_80_TCP_PROTO", "tcp"),
    ]);
    assert_eq!(config.server.listen.port(), 4180);
    assert!(told(GOOD, &[("LABGATE_PORT", "4180")]).contains("unknown key `port`"));
    assert!(told(GOOD, &[("LABGATE_SERVER_LISTEN", "x")]).contains("LABGATE_SERVER__LISTEN"));
}

#[test]
fn no_secret_is_ever_shown() {
    for text in [
        "[gitlab.main]\nclient_secret = \"hunter2\" \"x\"\n",
        "[gitlab.main]\nclient_secret = hunter2\n",
        "[gitlab.main]\nclient_secret = \"hunter2\nclient_id = \"x\"\n",
        "[session]\nkeys = [\n  \"hunter2\",\n  \"hunter2' ]\n",
        "[session]\nkeys = [\n  hunter2,\n  hunter2=\n]\n",
        "[session]\nkeys = \"hunter2\"\n",
        "[session]\nkeys = [[\"hunter2\"]]\n",
        "[session]\nkeys = [{ env = \"hunter2 hunter2\" }, { fil = \"hunter2\" }, { file = \"a\", env = \"hunter2!\" }]\n",
        "[session]\nkeys = [{ env = \"hunter2\", x = 1 }]\n",
        "session = { keys = [\"hunter2\"], lifetme = \"8h\" }\n",
        "session = { lifetime = 5, keys = [\"hunter2\"] }\n",
        "gitlab = { client_secret = \"hunter2\", client_id = 5 }\n",
        "[gitlab]\nclient_secret = \"hunter2\"\n",
        "[gitlab.main]\nclient_secrt = \"hunter2\"\n",
        "[gitlab.main]\nhook_secret = \"hunter2\"\n",
        "[gitlab.main]\nclient_id = 5 # the client_secret was hunter2\n",
        "[gitlab.main]\nbase_url = \"https://root:hunter2@git.example.com\"\n",
        "[gitlab.main]\ninternal_url = \"https://hunter2@git.example.com\"\n",
        "[session]\nstore = \"redis://:hunter2@cache\"\n",
        "[session]\nstore = { redis = \"rediss://:hunter2@cache\", prefx = 1 }\n",
        "[session]\nstore = { redis = [\"rediss://:hunter2@cache\"] }\n",
        "[session]\nstore = { redi = \"rediss://:hunter2@cache\" }\n",
        "gitlab.main.client_secret = \"hunter2\"\ngitlab.main.client_secret = \"hunter2\"\n",
        "[gitlab.main]\nclient_secret = \"\"\"\nhunter2\n\"\"\"\nclient_secret = 'hunter2'\n",
    ] {
        let said = told(text, &[]);
        assert!(said.contains("error: "), "{text}\n{said}");
    }
}

#[test]
fn no_slip_of_the_hand_shows_a_secret() {
    let text = r#"# of the wiki
[gitlab.main]
client_id = "id"
client_secret = "hunter2hunter2"
label = "Wiki" # was hunter2, the old secret
[session]
lifetime = "8h"
keys = [
  "hunter2hunter2",
  { file = "a.key" }, 'hunter2hunter2', # hunter2
]
cookie = { name = "a" }
[[route]]
upstream = "http://127.0.0.1:3000"
allow = [{ group = "acme" }]
"#;
    // Each typo leaves at least one whole secret that `told` would find.
    for at in 0..text.len() {
        let (before, after) = text.split_at(at);
        told(before, &[]);
        let mut rest = after.chars();
        rest.next();
        told(&format!("{before}{}", rest.as_str()), &[]);
        for typo in ["\"", "'", "=", "[", "]", "}", "#", "\n", ".", "x", "\\"] {
            told(&format!("{before}{typo}{after}"), &[]);
        }
    }
}

#[test]
fn lines_without_secrets_are_shown_beside_them() {
    let told = told("[gitlab.main]\nclient_secret = \"hunter2\"\nclient_id = 5\n", &[]);
    assert!(told.contains("    3 | client_id = 5\n      |             ^\n"), "{told}");
}

#[test]
fn a_secret_out_of_shape_keeps_its_line_number_and_key() {
    assert!(
        told("[session]\nkeys = [{ fil = \"hunter2\" }]\n", &[]).starts_with(
            "labgate.toml:2:9: error: a secret is a string, `{ file = \"…\" }` or `{ env = \"…\" }`\n    2 | keys = …\n"
        )
    );
}

#[test]
fn paths_start_from_the_directory_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("labgate.toml");
    let text = GOOD.replace("\"hunter2-client\"", "{ file = \"client\" }")
        + "[[route]]\nupstream = \"http://a\"\npath = \"/x\"\nallow = [{ users_file = \"users\" }]\n";
    std::fs::write(&path, text.replace("client_id", "ca = \"/etc/ca.pem\"\nclient_id")).unwrap();
    let (_, config, problems) = load(Some(path), &env(&[]));
    assert_eq!(problems, []);
    let config = config.unwrap();
    let gitlab = &config.gitlab["Main"];
    let client = directory.path().join("client");
    assert!(matches!(&gitlab.client_secret, Some(Secret::File(path)) if *path == client));
    assert_eq!(gitlab.ca.as_deref(), Some("/etc/ca.pem".as_ref()));
    let Some(Allow::Rules(rules)) = &config.route[1].allow else { panic!() };
    assert_eq!(rules[0].users_file, Some(directory.path().join("users")));
}

#[test]
fn a_secret_file_that_everybody_may_read_is_worth_a_warning() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("session.key");
    std::fs::write(&key, SECRET).unwrap();
    let path = directory.path().join("labgate.toml");
    std::fs::write(&path, GOOD.replace("\"hunter2-key\"", "{ file = \"session.key\" }")).unwrap();
    for (mode, warned) in [(0o644, true), (0o640, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let (document, config, problems) = load(Some(path.clone()), &env(&[]));
        assert!(config.is_some());
        let told = render(&problems, &document);
        assert_eq!(told.contains(":7:9: warning: every user of this machine"), warned, "{told}");
        assert!(problems.iter().all(|problem| problem.warning));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nowhere.toml");
    let (document, config, problems) = load(Some(missing.clone()), &env(&[]));
    assert!(config.is_none());
    let expected = format!("{}: error: the file can't be read: ", missing.display());
    assert!(render(&problems, &document).starts_with(&expected));
    let binary = directory.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    let (document, _, problems) = load(Some(binary), &env(&[]));
    assert!(render(&problems, &document).contains("error: the file is not UTF-8 text"));
}

#[test]
fn later_stages_find_their_keys_too() {
    let (document, _, _) = read(
        Some("labgate.toml".into()),
        &GOOD.to_owned().into(),
        &env(&[("LABGATE_SERVER__PUBLIC_URL", "https://a.example")]),
    );
    for (key, expected) in [
        ("route[0].upstream", "labgate.toml:10:12: error: x\n"),
        ("route[0].gitlab[0]", "labgate.toml:9:1: error: route[0].gitlab[0]: x\n"),
        (
            "gitlab.Main.client_secret",
            "labgate.toml:4:17: error: x\n    4 | client_secret = …\n      |                 ^\n",
        ),
        ("server.public_url", "LABGATE_SERVER__PUBLIC_URL: error: x\n"),
        ("server.listen", "LABGATE_SERVER__PUBLIC_URL: error: server.listen: x\n"),
        ("identity.groups", "labgate.toml: identity.groups: error: x\n"),
        ("", "labgate.toml: error: x\n"),
    ] {
        let told = render(&[Problem::error(key, "x")], &document);
        assert!(told.starts_with(expected), "{told}");
    }
}
