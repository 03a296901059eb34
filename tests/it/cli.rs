//! The commands as people type them: what they say, where, and how they end.

use std::process::Command;

use crate::support::{Lab, Process, Setup, appears, check, get, labgate, outcome, send};

/// What `labgate keygen` makes, here made once.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECRET: &str = "gloas-hunter2-hunter2";

fn said(command: &mut Command, code: i32) -> (String, String) {
    let (ended, out, err) = outcome(command);
    assert_eq!(ended, code, "{out}{err}");
    (out, err)
}

#[test]
fn usage_is_answered_on_the_right_output() {
    let (version, err) = said(&mut labgate(&["--version"], &[]), 0);
    assert_eq!(
        (version.trim_end(), err.as_str()),
        (concat!("labgate ", env!("CARGO_PKG_VERSION")), "")
    );
    let (out, err) = said(&mut labgate(&["serve"], &[]), 2);
    assert!(out.is_empty() && err.contains("'serve'"), "{err}");
    let (out, err) = said(&mut labgate(&["run", "--lisen", "x"], &[]), 2);
    assert!(out.is_empty() && err.contains("--lisen"), "{err}");
}

#[test]
fn a_new_key_is_one_that_a_session_takes() {
    let key = || said(&mut labgate(&["keygen"], &[]), 0).0;
    let (one, other) = (key(), key());
    assert_ne!(one, other);
    let (code, _, err) = check(&sound().replace(KEY, one.trim_end()), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
}

fn sound() -> String {
    format!(
        r#"[server]
public_url = "https://app.example.com"

[gitlab.main]
base_url = "https://git.example.com"
client_id = "app-id"
client_secret = "{SECRET}"

[session]
keys = ["{KEY}"]
lifetime = "8h"

[[route]]
upstream = "http://127.0.0.1:3000"
allow = [{{ group = "acme", role = "guest" }}]
"#
    )
}

#[test]
fn all_problems_are_told_at_once_each_with_its_place() {
    let text = sound()
        .replace("lifetime = \"8h\"", "lifetime = \"8 moons\"")
        .replace("[session]", "lable = \"Us\"\n[session]")
        .replace("upstream = \"http", "upstream = \"wiki\" # http")
        .replace("role = \"guest\"", "role = \"guset\"");
    let env = [("LABGATE_SESSION__GRACE", "1 eon"), ("LABGATE_SESION__GRACE", "1h")];
    let (code, out, err) = check(&text, &env);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    for problem in [
        "labgate.toml:9:1: error: ",
        "help: did you mean `label`?",
        "labgate.toml:12:12: error: ",
        "lifetime = \"8 moons\"",
        // Only the second stage sees that no table is called so.
        "labgate.toml:15:12: error: there is no `[upstream.wiki]`",
        "labgate.toml:16:35: error: ",
        "LABGATE_SESSION__GRACE: error: ",
        "LABGATE_SESION__GRACE: error: ",
    ] {
        assert!(err.contains(problem), "{problem} is not in\n{err}");
    }
    assert!(!err.contains(SECRET) && !err.contains(KEY), "{err}");
}

#[test]
fn a_secret_that_every_user_may_read_deserves_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("secret");
    std::fs::write(&path, SECRET).expect("a file");
    let file = format!("{{ file = \"{}\" }}", path.display());
    let text = sound().replace(&format!("\"{SECRET}\""), &file);
    for (mode, warnings) in [(0o644, 1), (0o640, 0)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        let (code, out, err) = check(&text, &[]);
        assert_eq!((code, err.matches("warning: ").count()), (0, warnings), "{err}");
        assert!(!out.contains(SECRET) && !err.contains(SECRET));
    }
}

#[test]
fn the_same_problem_is_told_once() {
    let text = sound().replace("allow =", "gitlab = []\nallow =");
    let (code, _, err) = check(&text, &[]);
    assert_eq!((code, err.matches("error:").count()), (2, 1), "{err}");
}

#[test]
fn no_mistake_shows_a_secret() {
    let text = sound();
    for (broken, what) in [
        (text.replace("client_secret =", "client_secrte ="), "a misspelt key"),
        (text.replace("client_secret = \"", "client_secret = \"\" \""), "a broken line"),
        (text.replace("keys = [\"", "keys = [\"x"), "a bad key"),
        (
            text.replace(&format!("[\"{KEY}\"]"), &format!("[\"{KEY}\", \"{KEY}\"]")),
            "a doubled key",
        ),
        (text.replace(&format!("\"{SECRET}\""), &format!("{{ file = \"{SECRET}\" }}")), "no file"),
        (
            text.replace(&format!("\"{SECRET}\""), &format!("{{ env = \"{SECRET}\" }}")),
            "no variable",
        ),
        (text.replace("[session]", "[session"), "a broken header"),
    ] {
        let (code, out, err) = check(&broken, &[]);
        assert_eq!(code, 2, "{what}: {out}{err}");
        let file = what == "no file"; // The name of a file may be shown, whatever it looks like.
        assert!(file || !err.contains("hunter2"), "{what}: {err}");
        assert!(!err.contains(&KEY[8..]), "{what}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_prints_is_what_the_proxy_asks_for() {
    let lab = Setup::default()
        .routes(
            "[[route]]\nupstream = \"UPSTREAM\"\nallow = [{ group = \"acme\", role = \"guest\" }]\n\
             [[route]]\nhost = \"wiki.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n",
        )
        .start()
        .await;
    let (code, out, err) = check(&lab.config, &[]);
    assert_eq!(code, 0, "{err}");
    let printed: Vec<_> =
        out.lines().filter_map(|line| line.strip_prefix("#   https://")).collect();
    let mut asked = Vec::new();
    for start in ["https://app.example.test/", "https://wiki.example.test/"] {
        let mut browser = lab.browser();
        let sign_in = browser.navigate(start).await;
        let begun = browser.navigate(sign_in.header("location")).await;
        let there = url::Url::parse(begun.header("location")).expect("GitLab's address");
        let query =
            |key| there.query_pairs().find(|(name, _)| name == key).expect(key).1.into_owned();
        let uri = query("redirect_uri");
        asked.push(uri.strip_prefix("https://").expect("https").to_owned());
        assert!(out.contains(&format!("\n# Scopes: {}\n", query("scope"))), "{out}");
        assert!(
            out.ends_with(
                "\n# read_api is needed by\n#   route[0].allow[0]: role guest in group acme\n"
            ),
            "{out}"
        );
        assert!(query("scope").contains("read_api"), "{out}");
    }
    assert_eq!(printed, asked);
    // What it prints can be loaded again, and no secret is in it.
    assert!(out.contains("client_secret = \"***\"") && out.contains("keys = [\"***\"]"), "{out}");
    assert!(!out.contains(labgate::demo::gitlab::CLIENT_SECRET), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_readiness() {
    let house = Setup::default().process(&[]).await;
    let admin = house.admin.to_string();
    let env = [("LABGATE_SERVER__ADMIN", admin.as_str())];
    let (out, err) = said(&mut labgate(&["health"], &env), 0);
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
    drop(house);
    let (_, err) = said(&mut labgate(&["health"], &env), 1);
    assert!(err.starts_with(&format!("labgate: error: nothing answers at {admin}")), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_development_gitlab_stays_on_this_machine_and_takes_commands() {
    let (_, err) = said(&mut labgate(&["dev-gitlab", "--listen", "0.0.0.0:0"], &[]), 1);
    assert!(err.contains("0.0.0.0:0") && err.contains("--force-public"), "{err}");
    let arguments = ["dev-gitlab", "--listen", "127.0.0.1:0", "--client-secret", "s3cret"];
    let mut process = Process::start(&mut labgate(&arguments, &[]));
    process.line("client_secret = \"s3cret\"").await;
    let line = process.line("The development GitLab is at ").await;
    let addr = line.rsplit('/').next().and_then(|addr| addr.parse().ok()).expect("an address");
    let command = |body: &str| {
        let request = http::Request::post("/-/dev/commands").header("host", "localhost");
        let request = request.header("content-type", "application/json");
        send(addr, request.body(body.to_owned()).expect("a request"))
    };
    assert_eq!(
        command(r#"{"do": "set_state", "user": "alice", "state": "blocked"}"#).await.status,
        204
    );
    assert_eq!(
        command(r#"{"do": "set_state", "user": "nobody", "state": "blocked"}"#).await.status,
        422
    );
    assert_eq!(get(addr, "/-/dev/hits").await.status, 200);
    process.signal("TERM");
    assert_eq!(process.ended().await, 0);
    let forced = ["dev-gitlab", "--listen", "0.0.0.0:0", "--force-public"];
    Process::start(&mut labgate(&forced, &[])).line("The development GitLab is at ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_never_meet_a_development_gitlab_unless_that_is_meant() {
    let lab = Lab::start().await;
    let exposed = lab.config.replacen("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"", 1);
    let mut process = Process::with(&exposed, &[]);
    assert_eq!(process.ended().await, 1);
    let reason = process.line("labgate: error: ").await;
    assert!(reason.contains("gitlab.main.insecure_allow_development_gitlab"), "{reason}");

    let key = "[gitlab.main]\ninsecure_allow_development_gitlab = true";
    let mut process = Process::with(&exposed.replace("[gitlab.main]", key), &[]);
    let (addr, admin) = process.addresses().await;
    let addr = format!("127.0.0.1:{}", addr.port()).parse().expect("an address");
    let mut browser = lab.browser();
    browser.point_at(addr);
    assert_eq!(browser.sign_in("/private", "alice").await.status, 200);
    assert_eq!(get(admin, "/readyz").await.status, 200);
    assert_eq!(process.code(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_needs_no_file() {
    let lab = Lab::start().await;
    let route =
        format!("[{{ upstream = \"{}\", allow = [{{ group = \"acme\" }}] }}]", lab.sample.url());
    let env = [
        ("LABGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("LABGATE_SERVER__ADMIN", "127.0.0.1:0"),
        ("LABGATE_SERVER__PUBLIC_URL", "https://app.example.test"),
        ("LABGATE_GITLAB__MAIN__BASE_URL", lab.gitlab.external_url()),
        ("LABGATE_GITLAB__MAIN__CLIENT_ID", labgate::demo::gitlab::CLIENT_ID),
        ("LABGATE_GITLAB__MAIN__CLIENT_SECRET", "{ env = \"GITLAB_SECRET\" }"),
        ("GITLAB_SECRET", labgate::demo::gitlab::CLIENT_SECRET),
        ("LABGATE_SESSION__KEYS", "[{ env = \"LABGATE_KEY\" }]"),
        ("LABGATE_KEY", KEY),
        ("LABGATE_ROUTE", &route),
        // Kubernetes sets these in every pod beside a service of that name.
        ("LABGATE_SERVICE_HOST", "10.0.0.1"),
        ("LABGATE_PORT", "tcp://10.0.0.1:4180"),
    ];
    let process = Process::start(&mut labgate(&[], &env));
    let (addr, _) = process.addresses().await;
    let mut browser = lab.browser();
    browser.point_at(addr);
    let page = browser.sign_in("/team", "alice").await;
    assert_eq!(page.status, 200, "{}", page.text());
    let mut carol = lab.browser();
    carol.point_at(addr);
    assert_eq!(carol.sign_in("/team", "carol").await.status, 403);
}

#[test]
fn nothing_at_all_is_explained() {
    let mut command = labgate(&["run"], &[("LABGATE_CONFIG", "/nowhere/labgate.toml")]);
    let (out, err) = said(&mut command, 2);
    assert!(out.is_empty() && err.contains("/nowhere/labgate.toml"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_says_where_to_go_and_ends_at_once() {
    let mut process = Process::start(&mut labgate(&["demo"], &[]));
    let line = process.line("Open http://127.0.0.1:").await;
    let addr =
        line.trim_start_matches("Open http://").trim_end_matches('/').parse().expect("an address");
    appears("the demo's public page", async || {
        let answer = get(addr, "/").await;
        (answer.status == 200).then_some(())
    })
    .await;
    process.signal("INT");
    assert_eq!(process.ended().await, 0);
}
