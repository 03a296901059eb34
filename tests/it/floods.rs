//! Floods of tokens: what strangers send costs GitLab no more than it may, and takes nothing from those who are known, from jobs and from people (threat
//! A32).

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use labgate::demo::gitlab::{Endpoint, Failure, Fault, Signature, Tamper};
use serde_json::Map;
use tokio::task::JoinSet;

use crate::{
    support::{HOST, Lab, Setup, send, until},
    tokens::{ALL, asked, bearer, code},
};

/// Anybody who is known, and jobs of one project.
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
path = "/echo/shop"
upstream = "UPSTREAM"
allow = [{ ci_project = "acme/web/shop" }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_tokens_costs_gitlab_no_more_than_the_cap() {
    const CAP: u64 = 10;
    let few = ALL.replace("max_checks = 1000", "max_checks = 10");
    let lab = Setup::default().gitlab(&few).routes(ROUTES).workers(2).start().await;
    let known = "glpat-dev-bob";
    assert_eq!(bearer(&lab, "/echo", known).await.status, 200);
    let before = asked(&lab.gitlab);
    let began = tokio::time::Instant::now();
    let mut refused = 0;
    let (mut sent, next) = (0, AtomicUsize::new(0));
    let floods = (0..20).map(|_| flood(&lab, &next, 10_100));
    for statuses in futures_util::future::join_all(floods).await {
        assert!(statuses.iter().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
        sent += statuses.len() as u64;
        refused += statuses.iter().filter(|status| **status == 401).count() as u64;
    }
    assert_eq!(sent, 9_999);
    let calls = asked(&lab.gitlab) - before;
    let most = CAP * (began.elapsed().as_secs() + 2);
    assert!(calls <= most, "{calls} calls in {:?}", began.elapsed());
    assert!(refused > 0 && refused <= calls, "{refused} of {calls}");
    let capped = "labgate_token_checks_total{kind=\"unknown\",result=\"capped\"}";
    assert_eq!(lab.count(capped).await, sent - refused);
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

/// What wrong tokens get over one connection, until all clients together have sent so many; between them a good one is answered from memory.
async fn flood(lab: &Lab, next: &AtomicUsize, count: usize) -> Vec<u16> {
    let stream = tokio::net::TcpStream::connect(lab.app.addr()).await.expect("a connection");
    let stream = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
    let driver = tokio::spawn(driver);
    let mut statuses = Vec::new();
    loop {
        let number = next.fetch_add(1, Relaxed);
        if number >= count {
            break;
        }
        let token = match number % 100 {
            50 => "glpat-dev-bob".to_owned(),
            _ => format!("glpat-wrong-{number}"),
        };
        let request = http::Request::get("/echo")
            .header("host", HOST)
            .header("authorization", format!("Bearer {token}"))
            .body(String::new())
            .expect("a request");
        sender.ready().await.expect("a free connection");
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body");
        match number % 100 {
            50 => assert_eq!(status, 200, "whoever is known is answered from memory"),
            _ => statuses.push(status),
        }
    }
    driver.abort();
    statuses
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
