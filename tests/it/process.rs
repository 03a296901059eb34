//! The life of the process: it starts whatever GitLab does, ends without losing a request, and outlives whoever reads its log.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, ChildStderr, Stdio},
    time::{Duration, Instant},
};

use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::support::{Answer, HOST, House, Lab, Process, Setup, appears, get, labgate, send};

/// A request that the sample app answers after so many milliseconds; it is there when this returns.
async fn in_flight(house: &House, milliseconds: u64) -> JoinHandle<Answer> {
    let (addr, before) = (house.addr, house.sample.hits_at("/slow"));
    let path = format!("/slow?ms={milliseconds}");
    let request = Request::get(path).header("host", HOST).body(String::new());
    let slow = tokio::spawn(async move { send(addr, request.expect("a request")).await });
    let arrived = async || (house.sample.hits_at("/slow") > before).then_some(());
    appears("a request in flight", arrived).await;
    slow
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_finishes_and_nothing_else_holds_up_the_end() {
    let mut house = Setup::default().process(&[]).await;
    let slow = in_flight(&house, 700).await;
    // Neither an idle connection nor half a head is waited for.
    let mut idle = TcpStream::connect(house.addr).await.expect("a connection");
    idle.write_all(b"GET /status/204 HTTP/1.1\r\nHost: app.example.test\r\n\r\n")
        .await
        .expect("sent");
    idle.read_exact(&mut [0; 12]).await.expect("an answer");
    let mut half = TcpStream::connect(house.addr).await.expect("a connection");
    half.write_all(b"GET / HTTP/1.1\r\nHost: app").await.expect("sent");
    let asked = Instant::now();
    house.labgate.signal("TERM");
    house.labgate.line("draining").await;
    appears("closed listeners", async || TcpStream::connect(house.addr).await.err()).await;
    let answer = slow.await.expect("no panic");
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "at last\n"));
    assert_eq!(house.labgate.ended().await, 0);
    house.labgate.line("all requests are finished").await;
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_has_an_end() {
    let mut house = Setup::default().server("timeouts = { drain = \"300ms\" }").process(&[]).await;
    let _slow = in_flight(&house, 60_000).await;
    house.labgate.signal("INT");
    assert_eq!(house.labgate.ended().await, 0);
    house.labgate.line("the time to drain is over").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let mut house = Setup::default().server("timeouts = { drain = \"60s\" }").process(&[]).await;
    let _slow = in_flight(&house, 60_000).await;
    house.labgate.signal("TERM");
    house.labgate.line("draining").await;
    let asked = Instant::now();
    house.labgate.signal("TERM");
    assert_eq!(house.labgate.ended().await, 0);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_delay_it_serves_on_but_is_not_ready() {
    let timeouts = "timeouts = { drain_delay = \"1500ms\" }";
    let mut house = Setup::default().server(timeouts).process(&[]).await;
    assert_eq!(house.admin("/readyz").await.status, 200);
    house.labgate.signal("TERM");
    house.labgate.line("draining").await;
    let ready = appears("red", async || {
        let ready = house.admin("/readyz").await;
        (ready.status == 503).then_some(ready)
    })
    .await;
    assert_eq!(ready.json()["status"], "draining");
    assert_eq!(house.admin("/livez").await.status, 200);
    assert_eq!(house.browser().open("/").await.status, 200);
    assert_eq!(house.labgate.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_does_not_wait_for_gitlab() {
    let lab = Lab::start().await;
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let internal =
        format!("[gitlab.main]\ninternal_url = \"http://{}\"", silent.local_addr().expect("bound"));
    let process = Process::with(&lab.config.replace("[gitlab.main]", &internal), &[]);
    let (addr, admin) = process.addresses().await;
    let asked = Instant::now();
    assert_eq!(get(admin, "/readyz").await.status, 200);
    let mut browser = lab.browser();
    browser.point_at(addr);
    assert_eq!(browser.open("/").await.status, 200);
    assert_eq!(browser.navigate("/private").await.status, 302);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

/// Ends the child in any case.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// labgate with a log that nobody reads on after its start.
fn unread(path: &Path) -> (Reaped, SocketAddr, BufReader<ChildStderr>) {
    let mut command = labgate(&["run", "--config", path.to_str().expect("text")], &[]);
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Reaped(command.spawn().expect("a process"));
    let mut log = BufReader::with_capacity(1, child.0.stderr.take().expect("piped"));
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).expect("text"), 0, "it ended");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(addr) = line["listen"].as_str() {
            return (child, addr.parse().expect("an address"), log);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_or_that_is_closed_holds_nobody_up() {
    let lab = Lab::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("labgate.toml");
    std::fs::write(&path, &lab.config).expect("a file");
    for closed in [false, true] {
        let (mut child, addr, log) = unread(&path);
        let kept = (!closed).then_some(log);
        let mut stream = TcpStream::connect(addr).await.expect("a connection");
        // More than a pipe holds.
        let agent = "x".repeat(200);
        let request = format!(
            "GET /status/204 HTTP/1.1\r\nHost: app.example.test\r\nUser-Agent: {agent}\r\n\r\n"
        );
        for number in 0..400 {
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = [0; 2048];
            let answered = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer));
            let count =
                answered.await.unwrap_or_else(|_| panic!("stuck at {number}")).expect("bytes");
            assert!(answer[..count].starts_with(b"HTTP/1.1 204"), "closed: {closed}");
        }
        assert!(child.0.try_wait().expect("our child").is_none());
        drop(kept);
    }
}
