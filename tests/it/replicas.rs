//! Several labgates with one store are one: what one of them hears counts for all, and each may go and come.

use std::time::Duration;

use labgate::{
    demo::gitlab::{Command, Endpoint, Failure, Fault, Role, UserState},
    session::{KeyRing, Random},
};

use tokio::time::sleep;

use crate::support::{
    Browser, HOST, Setup,
    redis::Redis,
    replicas::{Before, Load, Twins, at_once},
    run, until,
};

/// Older than `recheck`, younger than `grace`.
const TOO_OLD: i64 = 400;
const SESSION: &str = "__Host-labgate";
/// The longest that anything is kept, in milliseconds: the lifetime of a session, and a day for the list of them.
const LONGEST: i64 = 37 * 3600 * 1000;

/// Two labgates, and the addresses of both.
async fn pair(redis: &Redis) -> Twins {
    Setup::default().twins(2, &redis.store()).await
}

/// A browser at each of the two.
async fn at_both(twins: &Twins, user: &str) -> (Browser, Browser) {
    let [here, there] = twins.addresses()[..] else { panic!("two of them") };
    let mut one = twins.signed_in(user).await;
    let mut other = one.clone();
    one.point_at(here);
    other.point_at(there);
    (one, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_at_one_is_refused_at_the_others_at_once() {
    let redis = Redis::start().await;
    let twins = pair(&redis).await;
    for _ in 0..10 {
        let (mut here, mut there) = at_both(&twins, "alice").await;
        assert_eq!(there.xhr("/private").await.status, 200);
        assert_eq!(here.post("/oauth2/sign_out", "").await.status, 200);
        assert_eq!(there.xhr("/private").await.status, 401);
    }
    // One that starts later knows as well, and so it is when Redis has been restarted.
    let (mut here, there) = at_both(&twins, "bob").await;
    here.post("/oauth2/sign_out", "").await;
    let newcomer = twins.lab.replica();
    let mut late = there.clone();
    late.point_at(newcomer.addr());
    assert_eq!(late.xhr("/private").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_one_hears_of_is_an_end_at_all() {
    let redis = Redis::start().await;
    let twins = pair(&redis).await;
    for what in ["blocked", "deleted"] {
        let (mut here, mut there) = at_both(&twins, "bob").await;
        let gitlab = &twins.lab.gitlab;
        match what {
            "blocked" => gitlab.set_state("bob", UserState::Blocked).expect("bob"),
            _ => gitlab.command(Command::DeleteUser { user: "bob".into() }).expect("bob"),
        }
        assert_eq!(here.xhr("/private").await.status, 200, "{what}: the word is young");
        twins.lab.clock.turn(TOO_OLD);
        until("it is noticed", async || here.xhr("/private").await.status == 401).await;
        let asked = gitlab.hits(Endpoint::ApiUser);
        assert_eq!(there.xhr("/private").await.status, 401, "{what}");
        if what == "blocked" {
            assert_eq!(gitlab.hits(Endpoint::ApiUser), asked, "it is known");
            gitlab.set_state("bob", UserState::Active).expect("bob");
            assert_eq!(there.xhr("/private").await.status, 401, "for good");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_one_hears_of_counts_at_all() {
    let redis = Redis::start().await;
    let twins = pair(&redis).await;
    let gitlab = &twins.lab.gitlab;
    let (mut here, mut there) = at_both(&twins, "alice").await;
    assert_eq!(there.xhr("/maintainers").await.status, 200);
    gitlab.set_role("acme/ops", "alice", Some(Role::Developer)).expect("alice");
    gitlab.set_email("alice", "new@example.org", true).expect("alice");
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(here.xhr("/maintainers").await.status, 403);
    let asked = gitlab.hits(Endpoint::ApiUser);
    assert_eq!(there.xhr("/maintainers").await.status, 403, "with the cookie from before");
    let told = there.xhr("/oauth2/userinfo").await.json();
    assert_eq!(told["email"], "new@example.org");
    assert_eq!(gitlab.hits(Endpoint::ApiUser), asked, "nobody had to ask again");
    gitlab.set_role("acme", "alice", None).expect("alice");
    gitlab.set_role("acme/ops", "alice", None).expect("alice");
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(there.xhr("/team").await.status, 403);
    assert_eq!(here.xhr("/team").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_tells_nothing_and_ends() {
    let redis = Redis::start().await;
    let twins = pair(&redis).await;
    twins.lab.gitlab.set_access_token_lifetime(200);
    let alice = twins.signed_in("alice").await;
    let mut bob = twins.signed_in("bob").await;
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(at_once(&alice, "/private", 10).await, [200; 10]);
    bob.xhr("/private").await;
    bob.post("/oauth2/sign_out", "").await;
    until("something is kept of both", async || redis.keys().len() >= 2).await;
    let cookie = alice.cookie(SESSION).expect("a session");
    let keys = redis.keys();
    for key in &keys {
        let left: i64 = redis.cli(&["pttl", key]).parse().expect("a number");
        assert!((1..=LONGEST).contains(&left), "{key}: {left}");
        assert!(key.starts_with("labgate:"), "{key}");
        let value = match redis.cli(&["type", key]).as_str() {
            "string" => redis.cli(&["get", key]),
            "hash" => redis.cli(&["hgetall", key]),
            // The hashes by which keys are named.
            "zset" => String::new(),
            other => panic!("{key} is a {other}"),
        };
        let text = format!("{key} {value}").to_lowercase();
        for word in ["alice", "bob", "acme", "example", "read_user", "gitlab", &cookie[..40]] {
            assert!(!text.contains(&word.to_lowercase()), "{word} in {key}: {value}");
        }
        // Tokens of the development GitLab are 64 hexadecimal digits.
        let runs = value.split(|sign: char| !sign.is_ascii_hexdigit());
        assert!(runs.map(str::len).max() < Some(64), "{key}: {value}");
    }
    // Nothing is listed that is not kept: what ended is no longer.
    let sessions = keys.iter().filter(|key| key.starts_with("labgate:s:")).count();
    let listed = redis.cli(&["zcard", "labgate:index"]);
    assert_eq!((sessions, listed.as_str()), (2, "1"), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_over_replicas_and_one_that_is_gone_ends_what_it_sealed() {
    let redis = Redis::start().await;
    let twins = Setup::default().twins(1, &redis.store()).await;
    twins.lab.gitlab.set_access_token_lifetime(200);
    let old = twins.signed_in("alice").await;
    // What the store has is sealed with the old key, and newer than the cookie.
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(at_once(&old, "/private", 5).await, [200; 5]);
    let new_key = KeyRing::generate(&Random::system()).expect("random numbers");
    let both = twins.lab.config.replace("keys = [\"", &format!("keys = [\"{}\", \"", *new_key));
    let rotated = run(&both, &twins.lab.clock, 1);
    let mut alice = old.clone();
    alice.point_at(rotated.addr());
    let answer = alice.xhr("/private").await;
    assert_eq!((answer.status.as_u16(), answer.cookies().len()), (200, 1), "it is sealed anew");
    assert_eq!(twins.lab.gitlab.refreshes().granted, 1, "the store could be read");
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(alice.xhr("/private").await.status, 200);

    let from = both.find("keys = [\"").expect("keys");
    let until = from + both[from..].find(']').expect("an end");
    let only = format!("{}keys = [\"{}\"{}", &both[..from], *new_key, &both[until..]);
    let later = run(&only, &twins.lab.clock, 1);
    alice.point_at(later.addr());
    assert_eq!(alice.xhr("/private").await.status, 200);
    let mut late = alice.clone();
    late.set_cookie(HOST, SESSION, old.cookie(SESSION).expect("a session"));
    assert_eq!(late.clone().xhr("/private").await.status, 401);
    let page = late.open("/private").await;
    assert_eq!((page.status, page.url.path()), (200, "/private"), "one way through GitLab");
    assert_eq!(twins.lab.gitlab.refreshes().refused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_request_and_signs_nobody_out() {
    let redis = Redis::start().await;
    let setup = Setup::default()
        .session("recheck = \"3s\"\n")
        .server("timeouts = { drain_delay = \"500ms\" }\n");
    let mut replicas = setup.replicas(3, &redis.store(), Before::Haproxy).await;
    replicas.gitlab.set_access_token_lifetime(3);
    let mut browsers = Vec::new();
    for user in ["root", "alice", "bob", "carol"] {
        for _ in 0..3 {
            browsers.push(replicas.signed_in(user).await);
        }
    }
    let authorized = replicas.gitlab.hits(Endpoint::Authorize);
    let load = Load::start(browsers, "/private", Duration::from_millis(100));
    // Tokens end several times meanwhile.
    for _ in 0..4 {
        replicas.roll().await;
    }
    let tally = load.end().await;
    tally.assert_all_served();
    assert_eq!(replicas.gitlab.hits(Endpoint::Authorize), authorized);
    let refreshes = replicas.gitlab.refreshes();
    assert!(refreshes.granted >= 12 && refreshes.refused == 0, "{refreshes:?}");
}

/// A process that ends waits for GitLab's reply: with it the new tokens would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_is_finished_before_the_end() {
    let redis = Redis::start().await;
    let setup = Setup::default().session("recheck = \"1h\"\n");
    let mut replicas = setup.replicas(2, &redis.store(), Before::Nginx).await;
    replicas.gitlab.set_access_token_lifetime(2);
    let mut alice = replicas.signed_in("alice").await;
    sleep(Duration::from_millis(2200)).await;
    let late = Fault::new(Endpoint::Token, 1, Failure::LateReply).after(Duration::from_secs(2));
    replicas.gitlab.fail(late);
    let asked = replicas.gitlab.hits(Endpoint::Token);
    let mut tab = alice.clone();
    tab.point_at(replicas.labgates[0].addr);
    assert_eq!(tab.xhr("/private").await.status, 200);
    until("a refresh is under way", async || replicas.gitlab.hits(Endpoint::Token) > asked).await;
    replicas.labgates[0].process.signal("TERM");
    assert_eq!(replicas.labgates[0].process.ended().await, 0);
    for _ in 0..3 {
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(alice.xhr("/private").await.status, 200);
    }
    until("the next refresh", async || {
        alice.xhr("/private").await;
        replicas.gitlab.refreshes().granted >= 2
    })
    .await;
    assert_eq!(replicas.gitlab.refreshes().refused, 0);
}
