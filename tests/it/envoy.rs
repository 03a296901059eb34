//! A real Envoy that asks over gRPC, configured to the letter of `docs/ext-authz.md`.

use std::{net::SocketAddr, path::Path, process::Command};

use http::{Method, Request};
use tempfile::TempDir;

use crate::support::{
    Answer, Browser, HOST, Lab, Setup, appears,
    daemon::{Daemon, free},
    send,
};

/// Older than `recheck`, younger than `grace`.
const TOO_OLD: i64 = 400;

const ROUTES: &str = r#"
[[route]]
allow = "public"
[[route]]
path = "/private"
allow = "signed-in"
[[route]]
path = "/echo"
allow = "signed-in"
[[route]]
path = "/headers"
allow = "signed-in"
[[route]]
path = "/maintainers"
allow = [{ group = "acme/ops", role = "maintainer" }]
"#;

/// A running Envoy before a lab.
struct Envoy {
    addr: SocketAddr,
    daemon: Daemon,
    _directory: TempDir,
}

impl Envoy {
    async fn before(lab: &Lab) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ext-authz.md");
        let page = std::fs::read_to_string(page).expect("a page");
        let config = page.split("```yaml\n").nth(1).expect("a configuration");
        let mut config = config.split("```").next().expect("an end").to_owned();
        let addr = free();
        let asked = lab.app.ext_authz_addr().expect("it is on");
        for (from, to) in [
            ("address: 0.0.0.0, port_value: 8080", addr),
            ("address: app, port_value: 8000", lab.sample.addr()),
            ("address: labgate, port_value: 4180", lab.app.addr()),
            ("address: labgate, port_value: 4191", asked),
        ] {
            assert_eq!(config.matches(from).count(), 1, "{from}");
            let to = format!("address: {}, port_value: {}", to.ip(), to.port());
            config = config.replace(from, &to);
        }
        // Envoy has an address of its own, which alone is trusted; browsers come from another.
        config.push_str(
            "cluster_manager: { upstream_bind_config: \
             { source_address: { address: 127.0.0.2, port_value: 0 } } }\n",
        );
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("envoy.yaml");
        std::fs::write(&path, config).expect("a file");
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/envoy/_bin/envoy");
        let mut command = Command::new(binary);
        command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c"]);
        let mut daemon = Daemon::start(command.arg(&path), directory.path().join("log"));
        assert!(daemon.listens(addr).await, "{}", daemon.said());
        let envoy = Self { addr, daemon, _directory: directory };
        // It listens before it has looked at how labgate is.
        let ready = async || (envoy.get("/bytes?n=1", &[]).await.status == 200).then_some(());
        appears("answers through Envoy", ready).await;
        envoy
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = Request::get(path).header("host", HOST);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        send(self.addr, request.body(String::new()).expect("a request")).await
    }

    fn browser(&self, lab: &Lab) -> Browser {
        Browser::new(self.addr, lab.gitlab.addr(), lab.gitlab.external_url())
    }

    async fn signed_in(&self, lab: &Lab, user: &str) -> Browser {
        let mut browser = self.browser(lab);
        let page = browser.sign_in("/private", user).await;
        assert_eq!(page.status, 200, "{user} can't sign in: {}", page.text());
        assert!(page.text().contains(&format!("Hello, {user}")), "{}", page.text());
        browser
    }
}

async fn lab() -> Lab {
    let server = "ext_authz = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.2\"]\n";
    Setup::default().server(server).routes(ROUTES).start().await
}

/// The headers of this name that the application got.
fn got<'a>(echo: &'a serde_json::Value, name: &str) -> Vec<&'a str> {
    let headers = echo["headers"].as_array().expect("a list").iter();
    let pair = |pair: &'a serde_json::Value| Some((pair[0].as_str()?, pair[1].as_str()?));
    let same = |other: &str| other.replace(['_', '.'], "-").eq_ignore_ascii_case(name);
    headers.filter_map(pair).filter(|(other, _)| same(other)).map(|(_, value)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_through_envoy_and_nobody_can_pose_as_them() {
    let lab = lab().await;
    let envoy = Envoy::before(&lab).await;
    let refused = envoy.get("/private", &[("accept", "*/*")]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("content-type")),
        (401, "application/problem+json")
    );
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"labgate\"");
    assert!(
        refused.json()["sign_in"].as_str().unwrap().starts_with("https://app.example.test/oauth2/")
    );

    let mut alice = envoy.signed_in(&lab, "alice").await;
    let spoofed = [
        ("x-forwarded-user", "mallory"),
        ("X_Forwarded_User", "mallory"),
        ("remote-user", "mallory"),
        ("x-original-url", "/mallory"),
        ("x-forwarded-uri", "/mallory"),
        ("cookie", "app=1"),
        ("x-request-id", "mallory"),
    ];
    let public = envoy.get("/echo", &spoofed).await;
    assert_eq!(public.status, 401, "{}", public.text());
    let echo = alice.request(Method::GET, "/echo?a=%20b", &spoofed, "").await;
    assert_eq!(echo.status, 200, "{}", echo.text());
    let echo = echo.json();
    assert_eq!(echo["target"], "/echo?a=%20b");
    assert_eq!(got(&echo, "x-forwarded-user"), ["alice"], "{echo}");
    assert_eq!(got(&echo, "x-forwarded-email"), ["alice@example.com"]);
    assert!(
        got(&echo, "remote-user").is_empty() && got(&echo, "x-original-url").is_empty(),
        "{echo}"
    );
    let all = echo.to_string();
    assert!(!all.contains("/mallory") && !all.contains("__Host-labgate"), "{echo}");
    // Upgraded to HTTP/1.1 again, the application's own cookie is there.
    assert_eq!(got(&echo, "cookie"), ["app=1"], "{echo}");
    assert_eq!(got(&echo, "x-request-id").len(), 1, "{echo}");
    envoy.daemon_logged("user=alice@main").await;

    // Somebody who may not, and somewhere else.
    let bob = envoy.signed_in(&lab, "bob").await.open("/maintainers").await;
    assert_eq!(bob.status, 403);
    assert!(bob.text().to_lowercase().contains("maintainer"), "{}", bob.text());
    assert_eq!(bob.answer.header("x-labgate-reason"), "forbidden");
    for path in [
        "/bytes/../private",
        "/bytes/%2e%2e/private",
        "/bytes/..%2fprivate",
        "/bytes/x/..;/private",
    ] {
        let answer = envoy.get(path, &[]).await;
        // Envoy tidies paths up before it asks: what is judged is what the application would get, such as `/bytes/private`.
        assert!([400, 401, 404].contains(&answer.status.as_u16()), "{path}: {answer:?}");
    }
    assert_eq!(lab.sample.hits_at("/private"), 2, "both of those who signed in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cookie_comes_through_beside_the_applications_own() {
    let lab = lab().await;
    let envoy = Envoy::before(&lab).await;
    let alice = envoy.signed_in(&lab, "alice").await;
    // The application sets cookies like labgate's too, which only a proxy could keep back: each request is that of a browser which has none of them yet.
    let before = alice.clone().xhr("/headers").await;
    assert_eq!(before.status, 200);
    let of_app: Vec<_> = before.cookies().into_iter().map(str::to_owned).collect();
    assert!(of_app.len() > 1, "{before:?}");
    lab.clock.turn(TOO_OLD);
    let after = alice.clone().xhr("/headers").await;
    assert_eq!(after.status, 200);
    let (kept, new): (Vec<_>, Vec<_>) =
        after.cookies().into_iter().partition(|cookie| of_app.iter().any(|known| known == cookie));
    assert_eq!(kept, of_app);
    let [new] = new[..] else { panic!("{after:?}") };
    let pair = new.split(';').next().expect("a pair");
    assert!(pair.starts_with("__Host-labgate=") && *pair != alice.session(), "{new}");
    let controls: Vec<_> = after.headers.get_all("cache-control").iter().collect();
    assert!(
        controls.iter().any(|value| value.to_str().unwrap().contains("private")),
        "{controls:?}"
    );
    let again = envoy.get("/headers", &[("cookie", pair)]).await;
    assert_eq!((again.status.as_u16(), again.cookies().len()), (200, of_app.len()), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_envoy_narrows_and_an_absent_labgate_shuts_the_door() {
    let lab = lab().await;
    let envoy = Envoy::before(&lab).await;
    let mut alice = envoy.signed_in(&lab, "alice").await;
    let mut carol = envoy.signed_in(&lab, "carol").await;
    assert_eq!(alice.xhr("/echo/narrow/x").await.status, 200);
    assert_eq!(carol.xhr("/echo/narrow/x").await.status, 403);
    assert_eq!(carol.xhr("/echo/wide").await.status, 200);
    let Lab { app, gitlab: _gitlab, sample, .. } = lab;
    app.drain().await;
    let hits = sample.hits();
    let shut = async || {
        let answer = alice.xhr("/echo/wide").await;
        assert!(answer.status.is_server_error(), "{answer:?}");
        Some(())
    };
    appears("a shut door", shut).await;
    assert_eq!(envoy.get("/bytes?n=1", &[]).await.status, 503);
    assert_eq!(sample.hits(), hits);
}

impl Envoy {
    async fn daemon_logged(&self, text: &str) {
        appears(text, async || self.daemon.said().contains(text).then_some(())).await;
    }
}
