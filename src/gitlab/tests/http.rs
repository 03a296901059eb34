//! The client against a GitLab that is slow, gone, overloaded, behind a proxy, or not the one it says it is.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{
    script::{Reply, Script},
    *,
};
use crate::gitlab::lane::{CALLS, SIGN_IN_CALLS};

const DISCOVERY: &str = "/.well-known/openid-configuration";

fn discovery(hit: &script::Hit, scheme: &str) -> Reply {
    let issuer = format!("{scheme}://{}", hit.header("host").unwrap());
    Reply::json(200, &json!({ "issuer": issuer }).to_string())
}

/// Why probing failed.
async fn failure(provider: &Provider) -> CallError {
    match provider.probe().await {
        Err(DiscoveryError::Unavailable(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_gitlab_that_is_gone_is_down_after_three_calls_and_comes_back() {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let script = Script::new(move |hit| {
        if switch.load(Ordering::SeqCst) { Reply::page(503) } else { discovery(hit, "http") }
    })
    .await;
    let provider = provider(&script);
    for _ in 0..3 {
        assert!(!provider.is_down());
        assert!(matches!(failure(&provider).await, CallError::Status(503, None)));
    }
    assert!(provider.is_down());
    let error = failure(&provider).await;
    assert!(matches!(error, CallError::Down(_)) && !error.is_sent());
    assert!(error.retry_after().unwrap() <= Duration::from_secs(1));
    assert_eq!(script.hits().len(), 3, "nobody waits for what can't come");
    down.store(false, Ordering::SeqCst);
    pass(Duration::from_secs(1)).await;
    provider.probe().await.unwrap();
    assert!(!provider.is_down());
}

#[tokio::test]
async fn the_watch_notices_recovery_by_itself() {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let script = Script::new(move |hit| {
        if switch.load(Ordering::SeqCst) { Reply::nothing() } else { discovery(hit, "http") }
    })
    .await;
    let provider = Arc::new(provider(&script));
    let watched = Arc::clone(&provider);
    let watch = tokio::spawn(async move { watched.watch().await });
    script.reached(1).await;
    down.store(false, Ordering::SeqCst);
    script.reached(2).await;
    while !provider.discovery.is_known() {
        tokio::task::yield_now().await;
    }
    watch.abort();
    assert!(!provider.is_down());
}

#[tokio::test]
async fn the_watch_reopens_what_failing_calls_have_shut() {
    let script = Script::new(|hit| match hit.path() {
        DISCOVERY => discovery(hit, "http"),
        _ => Reply::page(502),
    })
    .await;
    let provider = Arc::new(provider(&script));
    let watched = Arc::clone(&provider);
    let watch = tokio::spawn(async move { watched.watch().await });
    script.reached(1).await;
    for _ in 0..3 {
        assert!(provider.identify("token").await.is_err());
    }
    assert!(provider.is_down());
    script.reached(5).await;
    while provider.is_down() {
        tokio::task::yield_now().await;
    }
    watch.abort();
}

#[tokio::test]
async fn a_pause_that_gitlab_asks_for_is_kept() {
    let script = Script::new(|_| Reply::new(429, "retry-after: 9\r\n", "Retry later")).await;
    let provider = provider(&script);
    let error = failure(&provider).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(9)));
    for _ in 0..5 {
        assert!(matches!(failure(&provider).await, CallError::Down(_)));
    }
    assert_eq!(script.hits().len(), 1, "no storm");
}

#[tokio::test]
async fn the_watch_keeps_to_a_pause_too() {
    let script = Script::new(|_| Reply::new(429, "retry-after: 9\r\n", "Retry later")).await;
    let provider = Arc::new(provider(&script));
    let watched = Arc::clone(&provider);
    let watch = tokio::spawn(async move { watched.watch().await });
    script.reached(1).await;
    pass(Duration::from_secs(5)).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(script.hits().len(), 1);
    watch.abort();
}

#[tokio::test]
async fn a_limit_at_the_token_endpoint_stops_no_question_about_people() {
    for headers in [
        "retry-after: 60\r\n",
        "",
        "retry-after: 60\r\nratelimit-name: throttle_unauthenticated_web\r\n",
    ] {
        let script = Script::new(move |hit| match hit.path() {
            "/oauth/token" => Reply::new(429, headers, "Retry later"),
            _ => Reply::json(401, "{}"),
        })
        .await;
        let provider = provider(&script);
        for _ in 0..5 {
            assert!(provider.exchange("code", "verifier", "https://app.example/").await.is_err());
        }
        let exchanged = script.count("/oauth/token");
        assert!(exchanged < 5, "no storm");
        assert!(provider.refresh("refresh").await.is_err());
        assert_eq!(script.count("/oauth/token"), exchanged + 1, "strangers stop no refresh");
        assert!(!provider.is_down());
        assert!(matches!(provider.identify("token").await, Err(IdentifyError::TokenDead)));
    }
}

#[tokio::test]
async fn sign_ins_that_fail_shut_nobody_else_out() {
    let script = Script::new(move |hit| match hit.path() {
        "/oauth/token" => Reply::page(502),
        _ => Reply::json(401, "{}"),
    })
    .await;
    let provider = provider(&script);
    for _ in 0..5 {
        assert!(provider.exchange("code", "verifier", "https://app.example/").await.is_err());
    }
    assert_eq!(script.hits().len(), 3, "sign-ins are told at once");
    assert!(!provider.is_down());
    assert!(matches!(provider.identify("token").await, Err(IdentifyError::TokenDead)));
    // That was an answer: GitLab is there.
    assert!(provider.exchange("code", "verifier", "https://app.example/").await.is_err());
    assert_eq!(script.count("/oauth/token"), 4);
}

#[tokio::test]
async fn sign_ins_that_hang_leave_turns_to_those_who_are_signed_in() {
    let hold = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&hold);
    let script = Script::new(move |hit| match hit.path() {
        "/oauth/token" => Reply::json(400, "{}").held(&gate),
        _ => Reply::json(401, "{}"),
    })
    .await;
    let provider = Arc::new(provider(&script));
    let sign_ins: Vec<_> = (0..100)
        .map(|_| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move {
                provider.exchange("code", "verifier", "https://app.example/").await
            })
        })
        .collect();
    script.reached(SIGN_IN_CALLS).await;
    assert!(matches!(provider.identify("token").await, Err(IdentifyError::TokenDead)));
    assert_eq!(script.count("/oauth/token"), SIGN_IN_CALLS);
    hold.add_permits(100);
    for sign_in in sign_ins {
        assert!(sign_in.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn waiting_for_a_turn_says_nothing_of_gitlab() {
    let hold = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&hold);
    let script = Script::new(move |_| Reply::json(401, "{}").held(&gate)).await;
    let provider = Arc::new(provider(&script));
    let ask = || {
        let provider = Arc::clone(&provider);
        tokio::spawn(async move { provider.identify("token").await })
    };
    let first: Vec<_> = (0..CALLS).map(|_| ask()).collect();
    script.reached(CALLS).await;
    pass(Duration::from_secs(1)).await;
    let late: Vec<_> = (0..CALLS).map(|_| ask()).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // The first are answered late but in time; whoever waited for them has as long as they had.
    pass(Duration::from_secs(8)).await;
    hold.add_permits(CALLS);
    script.reached(2 * CALLS).await;
    pass(Duration::from_secs(6)).await;
    hold.add_permits(CALLS);
    for call in first.into_iter().chain(late) {
        assert!(matches!(call.await.unwrap(), Err(IdentifyError::TokenDead)));
    }
    assert!(!provider.is_down());
}

#[tokio::test]
async fn one_persons_limit_shuts_nobody_else_out() {
    let names = ["", "throttle_authenticated_api", "throttle_unauthenticated_web"];
    for name in names {
        let headers = format!("retry-after: 60\r\nratelimit-name: {name}\r\n");
        let script = Script::new(move |_| Reply::new(429, &headers, "Retry later")).await;
        let provider = provider(&script);
        for _ in 0..5 {
            assert!(provider.identify("token").await.is_err());
            assert!(provider.identify_newcomer("token").await.is_err());
        }
        assert!(!provider.is_down());
        assert_eq!(script.hits().len(), 10);
    }
}

#[tokio::test]
async fn pauses_are_read_in_every_form_gitlab_has() {
    let date = "date: Fri, 20 Nov 2026 11:00:00 GMT\r\n";
    let table = [
        ("retry-after: 30\r\n".to_owned(), Some(30)),
        ("retry-after: 99999999\r\n".to_owned(), Some(3600)),
        ("retry-after: soon\r\n".to_owned(), None),
        ("retry-after: -5\r\n".to_owned(), None),
        (format!("{date}retry-after: Fri, 20 Nov 2026 11:00:20 GMT\r\n"), Some(20)),
        ("retry-after: Fri, 20 Nov 2026 11:00:20 GMT\r\n".to_owned(), None),
        (format!("{date}ratelimit-reset: 1795172440\r\n"), Some(40)),
        (format!("{date}ratelimit-reset: 1795172300\r\n"), None),
        (format!("{date}ratelimit-reset: 99999999999999999999\r\n"), None),
        (String::new(), None),
    ];
    for (headers, expected) in table {
        let shown = headers.clone();
        let script = Script::new(move |_| Reply::new(429, &headers, "")).await;
        let wait = failure(&provider(&script)).await.retry_after();
        assert_eq!(wait, expected.map(Duration::from_secs), "{shown}");
    }
}

#[tokio::test]
async fn a_500_for_one_person_is_no_outage() {
    let script = Script::new(|_| Reply::json(500, "{}")).await;
    let provider = provider(&script);
    for _ in 0..5 {
        assert!(provider.identify("token").await.is_err());
    }
    assert!(!provider.is_down());
}

#[tokio::test]
async fn nobody_waits_longer_than_ten_seconds() {
    let hold = Arc::new(Semaphore::new(0));
    let script = Script::new(move |_| Reply::json(200, "{}").held(&hold)).await;
    let provider = Arc::new(provider(&script));
    let caller = Arc::clone(&provider);
    let call = tokio::spawn(async move { failure(&caller).await });
    script.reached(1).await;
    pass(Duration::from_secs(10)).await;
    let error = call.await.unwrap();
    assert!(matches!(error, CallError::Timeout) && error.is_sent());
}

#[tokio::test]
async fn a_storm_reaches_gitlab_as_so_many_calls_at_a_time() {
    let hold = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&hold);
    let script = Script::new(move |_| Reply::json(401, "{}").held(&gate)).await;
    let provider = Arc::new(provider(&script));
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move { provider.identify("token").await })
        })
        .collect();
    script.reached(CALLS).await;
    hold.add_permits(100);
    for call in calls {
        assert!(matches!(call.await.unwrap(), Err(IdentifyError::TokenDead)));
    }
    assert_eq!(script.most_at_once(), CALLS);
    assert_eq!(script.hits().len(), 100);
}

#[tokio::test]
async fn a_kept_connection_that_gitlab_closed_costs_nothing() {
    let script = Script::new(|hit| discovery(hit, "http").closing()).await;
    let provider = provider(&script);
    for _ in 0..20 {
        provider.probe().await.unwrap();
    }
}

#[tokio::test]
async fn refused_connections_are_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let provider = provider_of(&config(&format!("http://127.0.0.1:{port}/")), everything());
    let error = failure(&provider).await;
    assert!(matches!(error, CallError::Refused(..)) && !error.is_sent(), "{error:?}");
}

#[tokio::test]
async fn every_call_is_observed_by_endpoint_and_status() {
    let script = Script::new(|hit| match hit.path() {
        DISCOVERY => discovery(hit, "http"),
        "/oauth/token" => Reply::json(401, r#"{"error":"invalid_client"}"#),
        "/api/v4/user" => Reply::page(502),
        _ => Reply::nothing(),
    })
    .await;
    let told = Arc::new(Told::default());
    let observe: Arc<dyn Observe> = told.clone();
    let config = config(&script.url("/"));
    let provider =
        Provider::new("main", &config, None, everything(), &Roots::none(), &|_| None, observe)
            .unwrap();
    provider.probe().await.unwrap();
    assert!(provider.refresh("refresh").await.is_err());
    assert!(provider.identify("token").await.is_err());
    assert!(provider.revoke("token").await.is_err());
    let told = told.0.lock().unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|(gitlab, endpoint, status)| format!("{gitlab} {endpoint} {status}"))
        .collect();
    assert_eq!(told, ["main discovery 200", "main token 401", "main user 502", "main revoke body"]);
}

/// A certificate authority with a server certificate.
struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn authority(change: impl Fn(&mut CertificateParams)) -> Authority {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Authority {
        pem: issuer.pem(),
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// What comes of probing a server with this certificate when `ca` is believed.
async fn probe(acceptor: TlsAcceptor, ca: Option<&str>) -> Result<(), DiscoveryError> {
    let script = Script::tls(acceptor, |hit| discovery(hit, "https")).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.unwrap_or_default()).unwrap();
    let mut config = config(&script.url("/"));
    config.ca = ca.map(|_| Path::to_path_buf(file.path()));
    provider_of(&config, everything()).probe().await
}

#[tokio::test]
async fn a_private_authority_is_believed_if_configured() {
    let good = authority(|_| {});
    assert!(probe(acceptor(good.certificate, good.key), Some(&good.pem)).await.is_ok());
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_named() {
    let reason = async |result: Result<(), DiscoveryError>| match result {
        Err(DiscoveryError::Unavailable(error @ CallError::Certificate(_, reason, _))) => {
            assert!(!error.is_sent());
            reason
        },
        other => panic!("{other:?}"),
    };
    let other_name = |params: &mut CertificateParams| {
        let names = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
        params.subject_alt_names = names.subject_alt_names;
    };
    let past = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let future =
        |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let table = [
        (authority(other_name), Certificate::OtherName),
        (authority(past), Certificate::Expired),
        (authority(future), Certificate::NotYetValid),
    ];
    for (bad, expected) in table {
        let found = reason(probe(acceptor(bad.certificate, bad.key), Some(&bad.pem)).await).await;
        assert_eq!(found, expected);
    }
    let unknown = authority(|_| {});
    let other = authority(|_| {}).pem;
    for ca in [None, Some(other.as_str())] {
        let acceptor = acceptor(unknown.certificate.clone(), unknown.key.clone_key());
        assert_eq!(reason(probe(acceptor, ca).await).await, Certificate::UnknownIssuer);
    }
    // What a one-line `openssl req -x509` makes: an authority that serves as itself.
    let mut own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = own.self_signed(&key).unwrap();
    let server = acceptor(own.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    let found = reason(probe(server, Some(&own.pem())).await).await;
    assert_eq!(found, Certificate::CaAsServer);
}

#[tokio::test]
async fn a_forward_proxy_is_asked_to_connect() {
    let proxy = Script::new(|_| Reply::new(403, "", "")).await;
    let address = proxy.url("").replace("http://", "http://user:pass@");
    let env = |key: &str| (key == "HTTPS_PROXY").then(|| address.clone());
    let config = config("https://gitlab.example/");
    let observe = Arc::new(Unobserved);
    let provider =
        Provider::new("main", &config, None, everything(), &Roots::none(), &env, observe).unwrap();
    let error = failure(&provider).await;
    assert!(matches!(error, CallError::Connect(..)) && !error.is_sent(), "{error:?}");
    let hit = &proxy.hits()[0];
    assert_eq!(hit.line, "CONNECT gitlab.example:443 HTTP/1.1");
    assert_eq!(hit.header("proxy-authorization"), Some("Basic dXNlcjpwYXNz"));
}

#[tokio::test]
async fn names_that_cannot_be_resolved_are_named() {
    // Longer than DNS allows, so that no resolver is asked.
    let host = format!("{}.example", "x".repeat(300));
    let provider = provider_of(&config(&format!("http://{host}/")), everything());
    let error = failure(&provider).await;
    assert!(matches!(&error, CallError::Name(name, _) if *name == host) && !error.is_sent());
}
