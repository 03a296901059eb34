//! Several hosts with one that signs in for all, and a form that is sent when the session has ended, as a real browser does it.

use labgate::{
    app::App,
    demo::gitlab::{Application, CLIENT_ID, CLIENT_SECRET, Command},
};

use serde_json::Value;

use super::driver::Chromium;
use crate::support::{Lab, Setup, free, run};

/// A lab, and a labgate at a port that is known before: every name below `localhost` is this machine.
async fn hosts() -> (Lab, App, u16) {
    let addr = free();
    let port = addr.port();
    let routes = "[[route]]\nhost = \"wiki.localhost\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
                  [[route]]\nhost = \"*.review.localhost\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    let lab = Setup::default()
        .public_url("")
        .server(&format!("sign_in_host = \"auth.localhost:{port}\"\n"))
        .routes(routes)
        .start()
        .await;
    let uri = format!("http://auth.localhost:{port}/oauth2/callback");
    let application = Application::new(CLIENT_ID, CLIENT_SECRET, &[&uri]).trusted();
    lab.gitlab.command(Command::Register(application)).expect("an application");
    let config = lab.config.replacen("127.0.0.1:0", &addr.to_string(), 1);
    let app = run(&config, &lab.clock, 1);
    (lab, app, port)
}

/// Sends a form as a page of an application does that doesn't hide where it comes from.
const SEND: &str = "
    const policy = document.createElement('meta');
    policy.name = 'referrer';
    policy.content = 'strict-origin-when-cross-origin';
    document.head.append(policy);
    const form = document.createElement('form');
    form.method = 'post';
    form.action = '/echo';
    const field = document.createElement('input');
    field.name = 'comment';
    field.value = 'long work';
    form.append(field);
    document.body.append(form);
    form.submit();";

/// What an application looks at when a form comes: origin, kind, method and the hash of its bytes.
fn essence(echo: &str) -> Vec<Value> {
    let echo: Value = serde_json::from_str(echo).expect("the echo");
    let header = |name: &str| {
        let mut all = echo["headers"].as_array().expect("pairs").iter();
        all.find(|pair| pair[0] == name).map_or(Value::Null, |pair| pair[1].clone())
    };
    vec![header("origin"), header("content-type"), echo["method"].clone(), echo["sha256"].clone()]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sign_in_opens_all_hosts_and_one_sign_out_closes_them() {
    let (_lab, _app, port) = hosts().await;
    let chromium = Chromium::start().await;
    let at = |host: &str, path: &str| format!("http://{host}.localhost:{port}{path}");
    let wiki = at("wiki", "/private?a=b");
    chromium.open(&wiki).await;
    chromium.sign_in_at_gitlab("alice", &wiki).await;
    chromium.heading("Hello, alice").await;
    for host in ["mr-1.review", "mr-2.review"] {
        chromium.open(&at(host, "/private")).await;
        chromium.arrives(&at(host, "/private")).await;
        chromium.heading("Hello, alice").await;
        assert_eq!(chromium.run("return document.cookie").await, "", "a script reads cookies");
    }

    // What a form sends as long as all is well.
    chromium.open(&wiki).await;
    chromium.run(SEND).await;
    chromium.says("\"method\":\"POST\"").await;
    let sent = essence(&chromium.text().await);
    assert_eq!(sent[0], at("wiki", ""), "the origin");

    // A form is written, the session ends on another host, and the form is sent.
    chromium.open(&wiki).await;
    let form = chromium.new_tab().await;
    chromium.open(&at("mr-1.review", "/oauth2/sign_out")).await;
    chromium.click("Sign out").await;
    chromium.heading("Signed out").await;
    let other = chromium.switch(form).await;
    chromium.run(SEND).await;
    chromium.heading("Your form was not sent on").await;
    chromium.arrives(&at("wiki", "/echo")).await;
    let waiting = chromium.click_to_new_tab("Sign in in another tab").await;
    chromium.arrives(&at("wiki", "/oauth2/signed_in")).await;
    chromium.heading("You are signed in").await;
    chromium.says("alice").await;
    chromium.switch(waiting).await;
    chromium.reload().await;
    // The very same request, so that the application's own protection against other sites takes it.
    chromium.says("\"method\":\"POST\"").await;
    assert_eq!(essence(&chromium.text().await), sent);
    chromium.switch(other).await;
    chromium.open(&at("mr-2.review", "/private")).await;
    chromium.heading("Hello, alice").await;
}
