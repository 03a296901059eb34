//! What `labgate demo` says in the terminal, which ports it takes, and how Ctrl-C ends it.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use labgate::demo::upstream::{self, SampleApp};

use super::demo::Demo;
use crate::support::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_at_once_though_streams_are_open() {
    let demo = Demo::start(&[]);
    let gitlab = address(&demo.gitlab);
    let mut stream = TcpStream::connect(address(&demo.url)).expect("a connection");
    stream.write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nhost: app\r\n\r\n").expect("a request");
    let (ended, took, complaints) = demo.interrupt();
    assert_eq!(ended.code(), Some(0), "{complaints}");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert!(complaints.lines().all(is_notice), "{complaints}");
    assert!(TcpStream::connect(gitlab).is_err(), "the development GitLab still listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn demos_run_side_by_side_and_say_what_they_need_to() {
    // Other tests' demos come and go; with this, one of the ports is taken whatever they do.
    let held = std::net::TcpListener::bind("127.0.0.1:4180");
    let (one, other) = (Demo::start(&[]), Demo::start(&[]));
    assert_ne!(one.url, other.url);
    for line in ["\nOpen http://127.0.0.1:", "root ", "alice ", "bob ", "carol ", "dave "] {
        assert!(one.said.contains(line), "{line:?} is missing:\n{}", one.said);
    }
    assert_eq!(one.said.lines().filter(|line| line.contains(&one.url)).count(), 1);
    let (_, _, complaints) = other.interrupt();
    assert!(complaints.contains(" is taken, so "), "{complaints}");
    if held.is_ok() {
        let moved = "127.0.0.1:4180 is taken, so labgate listens on ";
        assert!(complaints.contains(moved), "{complaints}");
    }
    assert!(complaints.lines().all(is_notice), "{complaints}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_ones_own_is_protected() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = upstream::Options { listen, or_other_port: false, force_public: false };
    let own = SampleApp::start(options).await.expect("an app");
    let demo = Demo::start(&["--upstream", &own.url()]);
    assert!(demo.said.contains("your app"), "{}", demo.said);
    assert!(!demo.said.contains("/private"), "paths of the sample app:\n{}", demo.said);
    let mut browser = Browser::new(address(&demo.url), address(&demo.gitlab), &demo.gitlab);
    let page = browser.sign_in(&demo.at("/echo?own=1"), "carol").await;
    assert_eq!(page.status, 200);
    assert_eq!(own.hits_at("/echo"), 1);
    let (_, _, complaints) = demo.interrupt();
    assert!(complaints.lines().all(is_notice), "{complaints}");

    let url = own.url();
    own.stop().await;
    let (_, _, complaints) = Demo::start(&["--upstream", &url]).interrupt();
    assert!(complaints.contains(&format!("nothing answers at {url}")), "{complaints}");
}

/// Whether a line says no more than that a port was taken.
fn is_notice(line: &str) -> bool {
    line.contains(" is taken, so ")
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an address")
}
