//! Floods of wrong tokens, which any stranger can send: they cost GitLab no more than the cap, and those whose tokens are good notice nothing.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use hyper::client::conn::http1::{SendRequest, handshake};
use labgate::demo::gitlab::{Endpoint, Failure, Fault, Signature, Tamper};
use serde_json::{Map, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    support::{HOST, House, Lab, Setup, send, until},
    tokens::{ALL, asked, bearer, code},
};

const ROUTES: &str = r#"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/shop"
upstream = "UPSTREAM"
allow = [{ ci_project = "acme/web/shop" }]
[[route]]
path = "/echo/shop"
upstream = "UPSTREAM"
allow = [{ ci_project = "acme/web/shop" }]
"#;

/// One connection, by which one request follows another.
struct Line {
    sender: SendRequest<String>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Line {
    async fn open(addr: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
        let stream = hyper_util::rt::TokioIo::new(stream);
        let (sender, driver) = handshake(stream).await.expect("HTTP/1.1");
        Self { sender, driver: tokio::spawn(driver) }
    }

    /// The status that whoever brings `token` gets.
    async fn ask(&mut self, path: &str, token: &str) -> u16 {
        let request = http::Request::get(path)
            .header("host", HOST)
            .header("authorization", format!("Bearer {token}"))
            .body(String::new())
            .expect("a request");
        self.sender.ready().await.expect("a free connection");
        let answer = self.sender.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body");
        status
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_cost_gitlab_no_more_than_the_cap() {
    const CAP: u64 = 10;
    const COUNT: usize = 10_100;
    let few = ALL.replace("max_checks = 1000", "max_checks = 10");
    let lab = Setup::default().gitlab(&few).routes(ROUTES).workers(2).start().await;
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 200);
    let before = asked(&lab.gitlab);
    let began = tokio::time::Instant::now();
    let next = AtomicUsize::new(0);
    let flood = async || {
        let (mut line, mut statuses) = (Line::open(lab.app.addr()).await, Vec::new());
        loop {
            let number = next.fetch_add(1, Relaxed);
            match (number < COUNT, number % 100) {
                (false, _) => return statuses,
                (true, 50) => assert_eq!(
                    line.ask("/echo", "glpat-dev-bob").await,
                    200,
                    "whoever is known is answered from memory"
                ),
                (true, _) => {
                    statuses.push(line.ask("/echo", &format!("glpat-wrong-{number}")).await);
                },
            }
        }
    };
    let statuses = join_all((0..20).map(|_| flood())).await.concat();
    assert!(statuses.iter().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
    let (sent, refused) =
        (statuses.len() as u64, statuses.iter().filter(|status| **status == 401).count() as u64);
    assert_eq!(sent, 9_999);
    let calls = asked(&lab.gitlab) - before;
    let most = CAP * (began.elapsed().as_secs() + 2);
    assert!(calls <= most, "{calls} calls in {:?}", began.elapsed());
    assert!(refused > 0 && refused <= calls, "{refused} of {calls}");
    let capped = "labgate_token_checks_total{kind=\"unknown\",result=\"capped\"}";
    assert_eq!(lab.count(capped).await, sent - refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_known_is_asked_about_anew_in_a_flood_and_jobs_pass() {
    let few = ALL.replace("max_checks = 1000", "max_checks = 10");
    let lab = Setup::default().gitlab(&few).routes(ROUTES).workers(2).start().await;
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 200);
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let flood = async || {
        let mut line = Line::open(lab.app.addr()).await;
        while !over.load(Relaxed) {
            let token = format!("glpat-wrong-{}", next.fetch_add(1, Relaxed));
            let status = line.ask("/echo", &token).await;
            assert!(matches!(status, 401 | 503), "{status}");
        }
    };
    let series = |kind: &str, result: &str| {
        format!("labgate_token_checks_total{{kind=\"{kind}\",result=\"{result}\"}}")
    };
    let known = async {
        for round in 2..=4 {
            let turned_away = lab.count(&series("unknown", "capped")).await;
            lab.clock.turn(61);
            until("strangers are turned away", async || {
                lab.count(&series("unknown", "capped")).await > turned_away + 100
            })
            .await;
            let answer = bearer(&lab, "/echo", "glpat-dev-bob").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(lab.count(&series("personal", "accepted")).await, round, "asked anew");
            // A job is new each time, but GitLab is not asked about it.
            let job = lab.gitlab.ci_id_token(&Map::new());
            let answer = bearer(&lab, "/shop", &job).await;
            assert_eq!(answer.status, 404, "the sample app's word, not {}", answer.text());
        }
        over.store(true, Relaxed);
    };
    tokio::join!(known, join_all((0..16).map(|_| flood())));
}

/// What the process takes up, in bytes.
async fn resident(house: &House) -> u64 {
    let text = house.admin("/metrics").await.text();
    let name = "process_resident_memory_bytes ";
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.expect("a gauge").parse().expect("a whole number")
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_of_jobs_cost_gitlab_nothing_and_little_memory() {
    const COUNT: usize = 6_000;
    const LENGTH: usize = 8_000;
    let house = Setup::default().gitlab(ALL).routes(ROUTES).process(&[]).await;
    let job = || {
        let claims = json!({ "filler": "x".repeat(LENGTH) });
        house.gitlab.ci_id_token(claims.as_object().expect("an object"))
    };
    // GitLab's own key, a right form, and a signature of the right length, each another.
    let right = job();
    let (message, signature) = right.rsplit_once('.').expect("parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let wrong = |number: usize| {
        let mut signature = signature.clone();
        for (byte, change) in signature.iter_mut().zip((number + 1).to_be_bytes()) {
            *byte ^= change;
        }
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let next = AtomicUsize::new(0);
    let flood = async |until: usize| {
        let mut line = Line::open(house.addr).await;
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= until {
                return;
            }
            assert_eq!(line.ask("/shop", &wrong(number)).await, 401, "{number}");
            if number % 100 == 50 {
                // A job that nobody has heard of.
                assert_eq!(line.ask("/shop", &job()).await, 404, "the sample app's word");
            }
        }
    };
    assert_eq!(Line::open(house.addr).await.ask("/shop", &right).await, 404);
    join_all((0..64).map(|_| flood(COUNT / 4))).await;
    let (calls, memory) = (asked(&house.gitlab), resident(&house).await);
    next.store(COUNT / 4, Relaxed);
    join_all((0..64).map(|_| flood(COUNT))).await;
    assert_eq!((calls, asked(&house.gitlab)), (0, 0));
    assert_eq!(house.gitlab.hits(Endpoint::Keys), 1, "its keys are known");
    // Less than a fourth of what was sent: no token is kept.
    let more = resident(&house).await.saturating_sub(memory);
    let sent = (COUNT - COUNT / 4) * LENGTH;
    assert!(more < sent as u64 / 4, "{more} bytes more for {sent} sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_strangers_reach_stops_strangers_alone() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 200);
    lab.clock.turn(61);
    lab.gitlab.fail(Fault::throttled(Endpoint::ApiToken, 1, "50"));
    let before = asked(&lab.gitlab);
    for number in 0..50 {
        let answer = bearer(&lab, "/echo", &format!("glpat-wrong-{number}")).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), (503, "token_unconfirmed"));
        let wait: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((10..=50).contains(&wait), "{wait}");
    }
    assert_eq!(asked(&lab.gitlab), before + 1, "it was told once");
    let unheard = "labgate_token_checks_total{kind=\"unknown\",result=\"unconfirmed\"}";
    assert_eq!(lab.count(unheard).await, 50);
    // One that GitLab has not known lately may be a stranger's.
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-carol").await.status, 503);
    assert_eq!(asked(&lab.gitlab), before + 1);
    // Those that it has known, and people, go on.
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 200);
    assert!(asked(&lab.gitlab) > before + 1, "it was asked");
    let mut alice = lab.signed_in("alice").await;
    assert_eq!(alice.xhr("/echo").await.status, 200);
}

/// Sends so many tokens at once that some are turned away for the others, which get no answer; returns while these still wait.
async fn crowd(lab: &Lab, kind: &str, tokens: Vec<String>) -> JoinSet<()> {
    let address = lab.app.addr();
    let mut crowd = JoinSet::new();
    for token in tokens {
        let request = http::Request::get("/echo/shop")
            .header("host", HOST)
            .header("authorization", format!("Bearer {token}"))
            .body(String::new())
            .expect("a request");
        crowd.spawn(async move { drop(send(address, request).await) });
    }
    let capped = format!("labgate_token_checks_total{{kind=\"{kind}\",result=\"capped\"}}");
    until("some are turned away", async || lab.count(&capped).await > 0).await;
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_waits_for_no_token_of_a_stranger() {
    let lab = Setup::default().gitlab(ALL).routes(ROUTES).start().await;
    let job = async |number: usize| {
        let claims = Map::from_iter([("job_id".to_owned(), number.to_string().into())]);
        bearer(&lab, "/echo/shop", &lab.gitlab.ci_id_token(&claims)).await.status
    };
    assert_eq!(job(1).await, 200);
    lab.gitlab.fail(Fault::new(Endpoint::ApiToken, 100, Failure::Hang));
    let accounts = (0..40).map(|number| format!("glpat-wrong-{number}")).collect();
    let _accounts = crowd(&lab, "unknown", accounts).await;
    assert_eq!(bearer(&lab, "/echo", "glpat-dev-bob").await.status, 503, "GitLab has to say");
    for number in 2..22 {
        assert_eq!(job(number).await, 200, "{number}");
    }
    // Nor for a key that nobody has.
    lab.gitlab.fail(Fault::new(Endpoint::Keys, 100, Failure::Hang));
    let unknown = |number| {
        let kid = ("kid".to_owned(), format!("unknown-{number}").into());
        let tamper = Tamper { header: Map::from_iter([kid]), ..Tamper::signature(Signature::Ci) };
        lab.gitlab.false_ci_id_token(&Map::new(), &tamper)
    };
    let _jobs = crowd(&lab, "ci", (0..300).map(unknown).collect()).await;
    for number in 22..42 {
        assert_eq!(job(number).await, 200, "{number}");
    }
}
