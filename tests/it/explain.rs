//! `labgate explain` says what the running proxy does, of everybody everywhere, and why.

mod cells;
mod table;

use std::path::Path;

use self::{cells::Site, table::at};
use crate::support::{Setup, labgate, outcome};

fn explain(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let config = config.to_str().expect("text");
    let arguments: Vec<_> =
        ["explain", "--config", config].iter().chain(arguments).copied().collect();
    outcome(&mut labgate(&arguments, &[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_nowhere_are_explained_too() {
    let Site { lab, config, .. } = &Site::start().await;
    let mut nobody = lab.browser();
    for (url, method, status, code) in [
        (at("\"public\"").as_str(), "GET", 404, 0),
        (&at("\"signed-in\""), "GET", 401, 1),
        (&at(r#"[{ group = "acme" }]"#), "GET", 401, 1),
        ("/post", "GET", 405, 1),
        ("/nowhere", "GET", 404, 1),
        ("/p/0/../1", "GET", 401, 1),
        ("/P/1", "GET", 404, 1),
        // A script begins no sign-in there.
        ("/oauth2/sign_in", "GET", 401, 0),
    ] {
        let (ended, out, err) = explain(config, &["--url", url, "--method", method]);
        assert_eq!(ended, code, "{url}: {out}{err}");
        assert_eq!(nobody.xhr(url).await.status.as_u16(), status, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_described_by_its_claims() {
    let Site { config, .. } = &Site::start().await;
    let shop = at(r#"[{ ci_project = "ACME/web/shop" }]"#);
    for (arguments, ends, words) in [
        (
            &["--url", &shop, "--ci", "project_path=acme/web/shop"][..],
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
        let arguments = [arguments, &["--gitlab", "main"]].concat();
        let (code, out, err) = explain(config, &arguments);
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
        let told: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let told = told["in_the_way"].as_array().cloned().unwrap_or_default();
        assert_eq!(told, in_the_way, "{route}");
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
gitlab = ["main"]
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
