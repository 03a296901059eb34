//! Redis in all its ways and in all its troubles: sessions go on, nobody waits for long, and it heals by itself.

use std::time::Duration;

use labgate::demo::gitlab::Refreshes;

use crate::support::{
    Browser, Setup, appears, get,
    redis::{Cluster, Garbage, Redis, Sentinels},
    replicas::{Before, Load, Twins, asked, at_once},
    until,
};

/// Older than `recheck`, younger than `grace`.
const TOO_OLD: i64 = 400;
/// What no request may take, whatever Redis does: far more than labgate waits, for machines that are busy, and far less than a hang.
const BOUND: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It refuses connections.
    Stopped,
    /// It takes connections and commands and answers none.
    Paused,
    /// It refuses writes.
    Full,
    /// Something else listens in its place.
    Garbage,
}

/// A Redis that has a trouble, or not.
struct Patient {
    redis: Redis,
    garbage: Option<Garbage>,
}

impl Patient {
    async fn new() -> Self {
        Self { redis: Redis::start().await, garbage: None }
    }

    async fn suffer(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Stopped => self.redis.stop(),
            Trouble::Paused => self.redis.pause(),
            Trouble::Full => self.redis.set_full(true),
            Trouble::Garbage => {
                self.redis.stop();
                self.garbage = Some(Garbage::at(self.redis.addr()).await);
            },
        }
    }

    async fn recover(&mut self, trouble: Trouble) {
        if let Some(garbage) = self.garbage.take() {
            garbage.end().await;
        }
        match trouble {
            Trouble::Stopped | Trouble::Garbage => self.redis.run().await,
            Trouble::Paused => self.redis.resume(),
            Trouble::Full => self.redis.set_full(false),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_redis_is_survived() {
    in_the_middle(Trouble::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_redis_is_survived() {
    in_the_middle(Trouble::Paused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_survived() {
    in_the_middle(Trouble::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_talks_nonsense_is_survived() {
    in_the_middle(Trouble::Garbage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_no_redis() {
    for trouble in [Trouble::Stopped, Trouble::Paused, Trouble::Full, Trouble::Garbage] {
        let mut patient = Patient::new().await;
        patient.suffer(trouble).await;
        let twins = Setup::default().twins(2, &patient.redis.store()).await;
        let alice = twins.signed_in("alice").await;
        served(&alice, trouble).await;
        patient.recover(trouble).await;
        is_shared_again(&twins, trouble).await;
        served(&alice, trouble).await;
    }
}

async fn in_the_middle(trouble: Trouble) {
    let mut patient = Patient::new().await;
    let twins = Setup::default().twins(2, &patient.redis.store()).await;
    let alice = twins.signed_in("alice").await;
    let mut carol = twins.signed_in("carol").await;
    served(&alice, trouble).await;
    patient.suffer(trouble).await;
    served(&alice, trouble).await;
    // Sign-ins go on, and so do rechecks.
    let bob = twins.signed_in("bob").await;
    served(&bob, trouble).await;
    twins.lab.clock.turn(TOO_OLD);
    served(&alice, trouble).await;
    // A sign-out counts here at once, and elsewhere when Redis is back.
    let [here, elsewhere] = twins.addresses()[..] else { panic!("two of them") };
    let mut copy = carol.clone();
    carol.point_at(here);
    copy.point_at(here);
    assert_eq!(carol.post("/oauth2/sign_out", "").await.status, 200, "{trouble:?}");
    assert_eq!(copy.clone().xhr("/private").await.status, 401, "{trouble:?}");
    is_told(&twins, trouble).await;
    patient.recover(trouble).await;
    is_shared_again(&twins, trouble).await;
    copy.point_at(elsewhere);
    until("the sign-out is known elsewhere", async || {
        copy.clone().xhr("/private").await.status == 401
    })
    .await;
    served(&alice, trouble).await;
    served(&bob, trouble).await;
}

/// All requests are served soon.
async fn served(browser: &Browser, trouble: Trouble) {
    let mut browser = browser.clone();
    for _ in 0..6 {
        let (status, took) = asked(&mut browser, "/private").await;
        assert_eq!(status, 200, "{trouble:?}");
        assert!(took < BOUND, "{trouble:?}: {took:?}");
    }
    let began = std::time::Instant::now();
    assert_eq!(at_once(&browser, "/private", 30).await, [200; 30], "{trouble:?}");
    assert!(began.elapsed() < BOUND, "{trouble:?}: {:?}", began.elapsed());
}

/// Operators see what is going on: `/readyz` stays green with a note, and metrics count.
async fn is_told(twins: &Twins, trouble: Trouble) {
    until("the store is down", async || twins.total(UP).await == 0).await;
    let text = twins.lab.admin("/metrics").await.text();
    let failed = text.lines().filter(|line| {
        line.starts_with("labgate_store_requests_total{") && line.contains("result=\"failed\"")
    });
    assert!(failed.count() > 0, "{trouble:?}: {text}");
    until("a note", async || {
        let ready = twins.lab.admin("/readyz").await;
        assert_eq!(ready.status, 200, "{trouble:?}");
        ready.json()["notes"]["store"].is_string()
    })
    .await;
}

/// A sign-out on one is refused on the other at once, and `/readyz` has no note any more.
async fn is_shared_again(twins: &Twins, trouble: Trouble) {
    until("both are connected again", async || twins.total(UP).await == 2).await;
    assert!(is_shared(twins).await, "{trouble:?}");
    let noted = async || twins.lab.admin("/readyz").await.json()["notes"]["store"].is_string();
    until("the note is gone", async || !noted().await).await;
}

/// Whether a sign-out on one is refused on the other at once.
async fn is_shared(twins: &Twins) -> bool {
    let [here, elsewhere] = twins.addresses()[..] else { panic!("two of them") };
    let mut root = twins.signed_in("root").await;
    let mut copy = root.clone();
    copy.point_at(elsewhere);
    assert_eq!(copy.xhr("/private").await.status, 200);
    root.point_at(here);
    assert_eq!(root.post("/oauth2/sign_out", "").await.status, 200);
    copy.xhr("/private").await.status == 401
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_reached_in_all_ways() {
    let (open, locked, tls) =
        (Redis::start().await, Redis::with_password().await, Redis::with_tls().await);
    for store in [open.store(), open.store_by_socket(), locked.store(), tls.store()] {
        let twins = Setup::default().twins(2, &store).await;
        assert!(is_shared(&twins).await, "{store}");
    }
    for redis in [&open, &locked, &tls] {
        assert!(!redis.keys().is_empty());
    }
}

/// The rights that the docs name are all that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_rights_of_the_docs_is_enough() {
    let docs = include_str!("../../docs/sessions.md");
    let (_, needs) = docs.split_once("the user needs `").expect("the rights");
    let (commands, rest) = needs.split_once('`').expect("their end");
    let keys = rest.split('`').nth(1).expect("the keys");
    let rights = format!("{keys} {}", commands.split_whitespace().collect::<Vec<_>>().join(" "));
    let redis = Redis::with_rights(&rights).await;
    let twins = Setup::default().twins(2, &redis.store()).await;
    assert!(is_shared(&twins).await, "{rights}");
    one_refresh(&twins).await;
    // It is seen again, and swept.
    twins.lab.clock.turn(60);
    let alice = twins.signed_in("alice").await;
    twins.lab.clock.turn(60);
    assert_eq!(at_once(&alice, "/private", 10).await, [200; 10]);
    until("a second of the watch is over", async || sweeps(&twins).await > 3).await;
    let text = twins.lab.admin("/metrics").await.text();
    assert!(!text.contains("result=\"failed\""), "{text}");
}

async fn sweeps(twins: &Twins) -> u64 {
    twins.total("labgate_store_requests_total{operation=\"sweep\",result=\"ok\"}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_while_redis_is_away_sign_nobody_out() {
    for trouble in [Trouble::Stopped, Trouble::Paused] {
        let mut patient = Patient::new().await;
        let twins = Setup::default().twins(3, &patient.redis.store()).await;
        twins.lab.gitlab.set_access_token_lifetime(200);
        let mut alice = twins.signed_in("alice").await;
        patient.suffer(trouble).await;
        served(&alice, trouble).await;
        for _ in 0..3 {
            twins.lab.clock.turn(TOO_OLD);
            served(&alice, trouble).await;
            assert_eq!(alice.xhr("/private").await.status, 200, "{trouble:?}");
        }
        // Two replicas that spent the same refresh token would lose the session.
        assert_eq!(twins.lab.gitlab.refreshes(), Refreshes::default(), "{trouble:?}");
        patient.recover(trouble).await;
        until("all are connected again", async || twins.total(UP).await == 3).await;
        until("a new token", async || {
            served(&alice, trouble).await;
            twins.lab.gitlab.refreshes().granted > 0
        })
        .await;
        twins.lab.clock.turn(TOO_OLD);
        served(&alice, trouble).await;
        assert_eq!(twins.lab.gitlab.refreshes(), Refreshes { granted: 2, refused: 0 });
    }
}

/// What was written shortly before is written again, and what is missing comes back with whoever knows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_has_lost_everything_is_told_again() {
    let mut redis = Redis::start().await;
    let twins = Setup::default().twins(2, &redis.store()).await;
    let gitlab = &twins.lab.gitlab;
    gitlab.set_access_token_lifetime(200);
    let [here, elsewhere] = twins.addresses()[..] else { panic!("two of them") };
    let mut alice = twins.signed_in("alice").await;
    let mut carol = twins.signed_in("carol").await;
    twins.lab.clock.turn(TOO_OLD);
    // Only one of them knows the new tokens, and no browser has them.
    alice.point_at(here);
    assert_eq!(alice.clone().xhr("/private").await.status, 200);
    let mut copy = carol.clone();
    carol.point_at(here);
    assert_eq!(carol.post("/oauth2/sign_out", "").await.status, 200);
    redis.run_empty().await;
    until("both have noticed", async || twins.total(UP).await == 2).await;
    copy.point_at(elsewhere);
    until("the sign-out is told again", async || copy.clone().xhr("/private").await.status == 401)
        .await;
    alice.point_at(elsewhere);
    let before = gitlab.refreshes();
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(at_once(&alice, "/private", 30).await, [200; 30]);
    assert_eq!(gitlab.refreshes(), Refreshes { granted: before.granted + 1, refused: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_told_once_and_so_is_its_end() {
    let mut redis = Redis::start().await;
    let replicas = Setup::default().replicas(1, &redis.store(), Before::Nginx).await;
    let mut alice = replicas.signed_in("alice").await;
    let labgate = &replicas.labgates[0];
    redis.stop();
    appears("a warning", async || {
        alice.xhr("/private").await;
        (warnings(&labgate.process.log()) > 0).then_some(())
    })
    .await;
    for _ in 0..50 {
        assert_eq!(alice.xhr("/private").await.status, 200);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(warnings(&labgate.process.log()), 1);
    redis.run_empty().await;
    labgate.process.line("the session store is there again").await;
    assert_eq!(alice.xhr("/private").await.status, 200);
    assert_eq!(get(labgate.admin, "/readyz").await.status, 200);
    assert_eq!(warnings(&labgate.process.log()), 1);
}

/// Lines at `WARN` or worse that speak of the store.
fn warnings(log: &[serde_json::Value]) -> usize {
    let speaks = |line: &serde_json::Value| {
        matches!(line["level"].as_str(), Some("WARN" | "ERROR"))
            && line["message"].as_str().is_some_and(|message| message.contains("store"))
    };
    log.iter().filter(|line| speaks(line)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_sentinels_fails_no_request() {
    let mut trio = Sentinels::start().await;
    let twins = Setup::default().twins(2, &trio.store()).await;
    until("both are connected", async || sweeps(&twins).await >= 2).await;
    assert!(is_shared(&twins).await, "before");
    let load = load(&twins).await;
    trio.fail_over().await;
    until("both have found the new master", async || twins.total(UP).await == 2).await;
    let tally = load.end().await;
    tally.assert_all_served();
    assert!(tally.slowest < BOUND, "{tally:?}");
    assert!(is_shared(&twins).await, "after");
    one_refresh(&twins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_a_cluster_fails_no_request() {
    let mut cluster = Cluster::start().await;
    let twins = Setup::default().twins(2, &cluster.store()).await;
    until("both are connected", async || sweeps(&twins).await >= 2).await;
    assert!(is_shared(&twins).await, "before");
    let load = load(&twins).await;
    cluster.fail_over().await;
    until("both are up", async || twins.total(UP).await == 2).await;
    let tally = load.end().await;
    tally.assert_all_served();
    assert!(tally.slowest < BOUND, "{tally:?}");
    until("all of the cluster is reached", async || is_shared(&twins).await).await;
    one_refresh(&twins).await;
    assert!(!cluster.keys().is_empty());
}

/// Ten people who go on working.
async fn load(twins: &Twins) -> Load {
    let mut browsers = Vec::new();
    for _ in 0..5 {
        browsers.push(twins.signed_in("alice").await);
        browsers.push(twins.signed_in("bob").await);
    }
    Load::start(browsers, "/private", Duration::from_millis(50))
}

/// The lock on a session works: both ask at the end of a token, and one refreshes.
async fn one_refresh(twins: &Twins) {
    twins.lab.gitlab.set_access_token_lifetime(200);
    let alice = twins.signed_in("alice").await;
    let before = twins.lab.gitlab.refreshes();
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(at_once(&alice, "/private", 30).await, [200; 30]);
    let after = Refreshes { granted: before.granted + 1, ..before };
    assert_eq!(twins.lab.gitlab.refreshes(), after);
}

const UP: &str = "labgate_store_up";
