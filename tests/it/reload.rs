//! Another configuration under way: a good one serves from then on, a bad one changes nothing, and nobody notices either.

use http::Request;

use crate::support::{HOST, House, Setup, appears, send};

/// A route that guards what is public otherwise.
const GUARD: &str =
    "\n[[route]]\npath = \"/bytes\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";

async fn status(house: &House, path: &str) -> u16 {
    let request = Request::get(path).header("host", HOST).body(String::new());
    send(house.addr, request.expect("a request")).await.status.as_u16()
}

async fn guarded(house: &House) {
    let is_guarded = async || (status(house, "/bytes?n=1").await == 401).then_some(());
    appears("the new route", is_guarded).await;
}

async fn successful(house: &House) -> bool {
    let text = house.admin("/metrics").await.text();
    let gauge = "labgate_config_last_reload_successful ";
    let value = text.lines().find_map(|line| line.strip_prefix(gauge)).expect("the gauge");
    value == "1"
}

fn with_guard(house: &House) -> String {
    format!("{}{}", house.config, GUARD.replace("UPSTREAM", &house.sample.url()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_brings_the_new_file_and_disturbs_nobody() {
    let house = Setup::default().process(&[]).await;
    let mut browser = house.signed_in("alice").await;
    assert_eq!(status(&house, "/bytes?n=1").await, 200);
    let addr = house.addr;
    let slow = tokio::spawn(async move {
        let request = Request::get("/slow?ms=1000").header("host", HOST).body(String::new());
        send(addr, request.expect("a request")).await
    });
    appears("a request in flight", async || (house.sample.hits_at("/slow") == 1).then_some(()))
        .await;
    house.write(&format!("{}\n[telemetry]\nlog = \"debug\"\n", with_guard(&house)));
    house.labgate.signal("HUP");
    guarded(&house).await;
    assert!(!slow.is_finished(), "the reload took longer than the request");
    assert_eq!(slow.await.expect("no panic").text(), "at last\n");
    assert_eq!(browser.xhr("/private").await.status, 200, "the session is lost");
    assert!(successful(&house).await);
    house.labgate.line("the configuration is reloaded").await;
    // The filter of the logs follows.
    house.labgate.logged("more than before", |line| line["level"] == "DEBUG").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_is_told() {
    let house = Setup::default().process(&[]).await;
    let mut browser = house.signed_in("alice").await;
    for bad in [
        "this is no TOML".to_owned(),
        house.config.replace("[session]", "[session]\nlifetiem = \"1h\""),
        house.config.replace("[gitlab.main]", "[gitlab.main]\nca = \"gone.pem\""),
        format!("{}{}", house.config, GUARD.replace("UPSTREAM", "wiki")),
    ] {
        house.write(&bad);
        house.labgate.signal("HUP");
        appears("the failure in the metrics", async || (!successful(&house).await).then_some(()))
            .await;
        assert_eq!(house.admin("/readyz").await.status, 200);
        assert_eq!(browser.xhr("/private").await.status, 200);
        assert_eq!(status(&house, "/bytes?n=1").await, 200);
        house.write(&house.config);
        house.labgate.signal("HUP");
        appears("the good one again", async || successful(&house).await.then_some(())).await;
    }
    let said = house.labgate.said();
    let path = house.path.display();
    for problem in ["did you mean `lifetime`?", "gone.pem", "there is no `[upstream.wiki]`"] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    assert!(said.contains(&format!("{path}:1:")), "{said}");
    assert!(said.contains("the one before still serves"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_needs_no_signal() {
    let house = Setup::default().process(&[]).await;
    // A mounted ConfigMap is swapped by a rename.
    let new = house.path.with_extension("new");
    std::fs::write(&new, with_guard(&house)).expect("a file");
    std::fs::rename(new, &house.path).expect("a file");
    guarded(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_it_reloads_again_and_again() {
    let house = Setup::default().process(&[]).await;
    for round in 0..10 {
        let config = if round % 2 == 0 { with_guard(&house) } else { house.config.clone() };
        house.write(&config);
        house.labgate.signal("HUP");
        for _ in 0..20 {
            assert_eq!(status(&house, "/status/204").await, 204);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_secret_file_needs_no_signal() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("client.secret");
    std::fs::write(&path, "gloas-old\n").expect("a file");
    let secret = format!("client_secret = {{ file = \"{}\" }}", path.display());
    let house = Setup::default().gitlab(&secret).process(&[]).await;
    assert_eq!(house.browser().sign_in("/private", "alice").await.status, 502);
    std::fs::write(&path, format!("{}\n", labgate::demo::gitlab::CLIENT_SECRET)).expect("a file");
    house.labgate.line("the configuration is reloaded").await;
    house.signed_in("alice").await;
}
