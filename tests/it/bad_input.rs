//! What goes wrong around labgate: each with a clear message for whoever can mend it, and nothing lost.

use std::net::TcpListener;

use labgate::{
    demo::gitlab::{self, DevGitlab},
    session::{KeyRing, Random},
};

use crate::support::{House, Lab, Process, Setup, appears, get, outcome, send};

/// What the process says to people about `config` before it ends, and its exit code.
fn refused(config: &str) -> (i32, String) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("labgate.toml"), config).expect("a file");
    let mut command = crate::support::labgate(&["run", "--config", "labgate.toml"], &[]);
    let (code, out, err) = outcome(command.current_dir(directory.path()));
    assert_eq!(out, "");
    (code, err)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_file_ends_the_start_with_its_place() {
    let lab = Lab::start().await;
    let secret = format!("\"{}\"", gitlab::CLIENT_SECRET);
    for (from, to, message) in [
        ("client_id", "clientid", "did you mean `client_id`?"),
        ("[session]", "[session]\nlifetiem = \"1h\"", "did you mean `lifetime`?"),
        ("[session]", "[session]\nstore = \"postgres\"", "labgate.toml:"),
        ("keys = [\"", "keys = [\"c2hvcnQ=\", \"", "has 5 bytes instead of 32"),
        (&secret, "{ file = \"client.secret\" }", "client.secret can't be read"),
        (&secret, "{ env = \"GITLAB_SECRET\" }", "GITLAB_SECRET is not set"),
    ] {
        let (code, err) = refused(&lab.config.replacen(from, to, 1));
        assert_eq!(code, 2, "{to}: {err}");
        assert!(err.contains("labgate.toml:") && err.contains(message), "{to}: {err}");
        assert!(!err.contains(gitlab::CLIENT_SECRET), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let lab = Lab::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    for key in ["listen", "admin"] {
        let free = format!("{key} = \"127.0.0.1:0\"");
        let (code, err) = refused(&lab.config.replacen(&free, &format!("{key} = \"{addr}\""), 1));
        assert_eq!(code, 1, "{err}");
        let message = format!("can't listen on {addr}: another process listens there");
        assert!(err.contains(&message), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_gitlab_it_starts_says_so_and_recovers_alone() {
    let lab = Lab::start().await;
    let addr = lab.gitlab.addr();
    let (config, directory) = (lab.config.clone(), tempfile::tempdir().expect("a directory"));
    lab.gitlab.stop().await;
    let path = directory.path().join("labgate.toml");
    std::fs::write(&path, &config).expect("a file");
    let labgate = Process::serve(&path, &[]);
    let (public, admin) = labgate.addresses().await;
    let warned = labgate.logged("the trouble", |line| line["gitlab.name"] == "main").await;
    assert_eq!(warned["level"], "WARN");
    assert!(warned["message"].as_str().expect("text").contains("GitLab can't be used"), "{warned}");

    // Public pages are served, and the others lead to a page that says what is wrong.
    let mut browser = crate::support::Browser::new(public, addr, &format!("http://{addr}"));
    assert_eq!(browser.open("/").await.status, 200);
    appears("a note", async || {
        let ready = get(admin, "/readyz").await;
        assert_eq!(ready.status, 200);
        ready.json()["notes"]["gitlab.main"].as_str().map(str::to_owned)
    })
    .await;

    let callback = "https://app.example.test/oauth2/callback".to_owned();
    let options = gitlab::Options {
        listen: addr,
        redirect_uris: vec![callback],
        ..gitlab::Options::default()
    };
    let _gitlab = DevGitlab::start(options).await.expect("the port is ours");
    labgate.logged("its return", |line| line["message"] == "GitLab answers again").await;
    appears("the end of the note", async || {
        get(admin, "/readyz").await.json()["notes"].is_null().then_some(())
    })
    .await;
    assert_eq!(browser.sign_in("/private", "alice").await.status, 200);
}

/// What a sign-in that can't work leads to: the page, and the log line that operators find by its request id.
async fn failed_sign_in(house: &House) -> (u16, String, serde_json::Value) {
    let page = house.browser().sign_in("/private", "alice").await;
    let id = page.answer.header("x-request-id").to_owned();
    assert!(page.text().contains(&id), "no request id on the page: {}", page.text());
    let told = |line: &serde_json::Value| {
        line["request_id"] == id.as_str() && !line["error"].is_null() && line["level"] != "INFO"
    };
    (page.status, page.text(), house.labgate.logged("the cause", told).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_tells_the_operator_what_to_check() {
    let house = Setup::default().gitlab("client_secret = \"gloas-wrong\"").process(&[]).await;
    let (status, page, log) = failed_sign_in(&house).await;
    assert_eq!(status, 502);
    assert!(page.contains("client_id") && page.contains("client_secret"), "{page}");
    assert!(log["error"].as_str().expect("text").contains("application's id and secret"), "{log}");
    assert!(!house.labgate.said().contains("gloas-wrong"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_may_be_off_by_a_minute_but_not_by_ten() {
    let house = Setup::default().process(&[]).await;
    for seconds in [-60, 60] {
        house.gitlab.set_skew(seconds);
        house.signed_in("alice").await;
    }
    for seconds in [-600, 600] {
        house.gitlab.set_skew(seconds);
        let (status, page, log) = failed_sign_in(&house).await;
        assert_eq!(status, 502, "{page}");
        assert!(page.contains("clock") && page.contains("date -u"), "{page}");
        assert!(log["error"].is_string(), "{log}");
    }
    house.gitlab.set_skew(0);
    house.signed_in("alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_of_another_key_is_no_cookie_and_signing_in_again_works() {
    let lab = Lab::start().await;
    let other = KeyRing::generate(&Random::system()).expect("random numbers");
    let key = lab.config.split("keys = [\"").nth(1).and_then(|rest| rest.split('"').next());
    let config = lab.config.replace(key.expect("a key"), other.as_str());
    let process = Process::with(&config, &[]);
    let (addr, _) = process.addresses().await;
    let mut browser = lab.signed_in("alice").await;
    browser.point_at(addr);
    assert_eq!(browser.xhr("/private").await.status, 401);
    assert_eq!(browser.open("/").await.status, 200);
    assert_eq!(browser.sign_in("/private", "alice").await.status, 200);
    assert_eq!(browser.cookie_names(), ["__Host-labgate"]);
    assert!(!process.said().contains("ERROR"), "{}", process.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_of_100_kb_is_refused_in_words() {
    let house = Setup::default().process(&[]).await;
    let mut browser = house.signed_in("alice").await;
    let cookie = format!("__Host-labgate={}", "x".repeat(100_000));
    let request = http::Request::get("/private").header("host", crate::support::HOST);
    let request = request.header("cookie", cookie).body(String::new()).expect("a request");
    let answer = send(house.addr, request).await;
    assert_eq!(answer.status, 431, "{}", answer.text());
    assert!(answer.text().contains("cookies") && answer.text().contains("server.limits"));
    let metrics = get(house.admin, "/metrics").await.text();
    assert!(metrics.contains("labgate_limits_reached_total{limit=\"headers\"} 1\n"), "{metrics}");
    // Beside a session of their own nobody notices.
    assert_eq!(browser.open("/private").await.status, 200);
    let ready = get(house.admin, "/readyz").await;
    assert_eq!(ready.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_groups_fit() {
    let house = Setup::default().process(&[]).await;
    house.gitlab.add_groups("alice", 5_000).expect("alice");
    let mut browser = house.signed_in("alice").await;
    let cookie = browser.cookie("__Host-labgate").expect("a session");
    assert!(cookie.len() < 4_096, "{} bytes", cookie.len());
    // The groups that rules mention are never left out.
    assert_eq!(browser.open("/team").await.status, 200);
    assert_eq!(browser.open("/maintainers").await.status, 200);
    let echoed = browser.xhr("/echo").await.text();
    assert!(echoed.contains("acme/ops"), "{echoed}");
    let left_out = |line: &serde_json::Value| line.to_string().contains("groups");
    let warned = house.labgate.logged("a word on what was left out", left_out).await;
    assert_eq!(warned["level"], "WARN", "{warned}");
}
