//! The refresher against a GitLab that knows one pair of tokens.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use url::Url;

use super::*;
use crate::{
    config,
    gitlab::{Needs, Roots, Unobserved},
    identity::Identity,
    session::{Random, StoreLimits},
};

pub(super) const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

pub(super) const DEADLINES: Deadlines = Deadlines {
    lifetime: Duration::from_hours(100_000),
    idle: None,
    recheck: Duration::from_mins(5),
    grace: Duration::from_hours(1),
};

pub(super) fn session(generation: u32) -> Arc<Session> {
    let identity = Identity {
        gitlab: "main".into(),
        issuer: "https://gitlab.example.com".into(),
        sub: "2".into(),
        username: "alice".into(),
        name: String::new(),
        email: None,
        groups: Vec::new(),
        ..Identity::default()
    };
    let tokens = Tokens {
        access: String::from("dead").into(),
        refresh: Some(String::from("dead").into()),
        issued: NOW,
        expires: NOW,
        scope: String::new(),
    };
    let session = Session::start(identity, 0, tokens, NOW, &Random::system());
    Arc::new(Session { generation, ..session.expect("random numbers") })
}

/// Answers one request: of all tokens it knows the access token `alive`.
async fn answer(socket: TcpStream) {
    let mut socket = BufReader::new(socket);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        socket.read_line(&mut line).await.unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    socket.read_exact(&mut vec![0; length]).await.unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let (status, body) = match (path, head.contains("Bearer alive")) {
        ("/oauth/token", _) => (400, r#"{"error":"invalid_grant"}"#),
        (_, false) => (401, "{}"),
        ("/api/v4/user", true) => (200, r#"{"id":2,"username":"alice","state":"active"}"#),
        (_, true) => (200, r#"{"sub":"2","groups":[]}"#),
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(answer.as_bytes()).await.unwrap();
}

/// What comes of a flight with dead tokens of generation 1 while the store knows what `others` have done.
async fn fly(others: impl AsyncFnOnce(&Store, Session)) -> (Outcome, Arc<Store>, Arc<Session>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let gitlab = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(socket));
        }
    });
    let config = config::GitLab {
        base_url: Url::parse(&url).unwrap(),
        client_id: "app".into(),
        ..config::GitLab::default()
    };
    let needs = Needs::default();
    let observe = Arc::new(Unobserved);
    let provider =
        Provider::new("main", &config, None, needs, &Roots::none(), &|_| None, observe).unwrap();
    let mut mine = Session::clone(&session(1));
    mine.identity.issuer = provider.issuer().to_owned();
    let clock = Clock::system();
    mine.checked = clock.now() - DEADLINES.recheck * 2;
    let store = Arc::new(Store::memory(StoreLimits::default()));
    others(&store, mine.clone()).await;
    let refresher = Arc::new(Refresher {
        flights: Arc::default(),
        background: Handle::current(),
        store: store.clone(),
        marks: Arc::default(),
        deadlines: DEADLINES,
        metrics: Arc::new(Metrics::new("0", "")),
        clock,
    });
    let mine = Arc::new(mine);
    let waiting = refresher.begin(&mine, &Arc::new(provider));
    let outcome = waiting.outcome(Duration::from_secs(20)).await.unwrap();
    gitlab.abort();
    (outcome, store, mine)
}

/// Keeps `session` as the copy of the next generation.
async fn renew(store: &Store, session: Session) {
    let session = Session { generation: session.generation + 1, ..session };
    let until = session.until(&DEADLINES);
    store.put(Arc::new(session), until, Clock::system().now()).await;
}

#[tokio::test]
async fn used_up_tokens_are_used_up_if_the_store_knows_no_newer_ones() {
    let (outcome, ..) = fly(async |_, _| {}).await;
    assert!(matches!(outcome, Outcome::Spent(1)), "{outcome:?}");
}

#[tokio::test]
async fn what_somebody_else_has_renewed_counts() {
    let fresh = async |store: &Store, session| {
        renew(store, Session { checked: Clock::system().now(), ..session }).await;
    };
    let (outcome, ..) = fly(fresh).await;
    assert!(matches!(&outcome, Outcome::Renewed(new) if new.generation == 2), "{outcome:?}");
}

#[tokio::test]
async fn gitlab_is_asked_with_tokens_that_somebody_else_has_renewed() {
    let alive = async |store: &Store, mut session: Session| {
        session.tokens.access = String::from("alive").into();
        session.tokens.expires = Clock::system().now() + Duration::from_hours(2);
        renew(store, session).await;
    };
    let (outcome, store, mine) = fly(alive).await;
    assert!(matches!(&outcome, Outcome::Renewed(new) if new.generation == 3), "{outcome:?}");
    let known = store.get(&mine, mine.until(&DEADLINES), Clock::system().now()).await;
    assert!(matches!(known.overlay, Some(Overlay::Newer(new)) if new.generation == 3));
}

#[tokio::test]
async fn newer_tokens_that_are_used_up_too_are_not_tried_for_ever() {
    let (outcome, ..) = fly(renew).await;
    assert!(matches!(outcome, Outcome::Spent(2)), "{outcome:?}");
}

#[tokio::test]
async fn a_session_that_was_revoked_meanwhile_has_ended() {
    let revoke = async |store: &Store, session: Session| {
        store.revoke(session.id, session.until(&DEADLINES), Clock::system().now()).await;
    };
    let (outcome, ..) = fly(revoke).await;
    assert!(matches!(outcome, Outcome::Ended), "{outcome:?}");
}
