//! Access tokens that end: one refresh each, whoever asks and however often, on one labgate and on three; and refreshes that go wrong.

use std::time::Duration;

use labgate::demo::gitlab::{Endpoint, Failure, Fault, Refreshes};
use tokio::time::sleep;

use crate::support::{
    Browser, Setup,
    redis::Redis,
    replicas::{Before, Replicas, Twins, at_once},
    until,
};

/// Older than `recheck`, younger than `grace`; longer than the tokens of these labs live.
const TOO_OLD: i64 = 400;
/// Seconds that tokens live in labs whose clock is turned.
const LIVES: u64 = 200;
/// Requests at once.
const CROWD: usize = 50;

/// Rounds of requests at once, one for each expiry; `LABGATE_ROUNDS=200` for all that the contract names.
fn rounds(fewer: u64) -> u64 {
    let wanted = std::env::var("LABGATE_ROUNDS").ok();
    wanted.map_or(fewer, |rounds| rounds.parse().expect("LABGATE_ROUNDS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_requests_at_expiry_make_one_refresh_on_one_labgate() {
    let twins = Setup::default().session("lifetime = \"90d\"\n").twins(1, "\"memory\"").await;
    one_refresh_each(&twins, rounds(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_requests_at_expiry_make_one_refresh_on_three_labgates() {
    let redis = Redis::start().await;
    let twins = Setup::default().session("lifetime = \"90d\"\n").twins(3, &redis.store()).await;
    one_refresh_each(&twins, rounds(20)).await;
}

async fn one_refresh_each(twins: &Twins, rounds: u64) {
    let gitlab = &twins.lab.gitlab;
    gitlab.set_access_token_lifetime(LIVES);
    let mut alice = twins.signed_in("alice").await;
    let authorized = gitlab.hits(Endpoint::Authorize);
    for round in 1..=rounds {
        let asked = gitlab.hits(Endpoint::ApiUser);
        twins.lab.clock.turn(TOO_OLD);
        let statuses = at_once(&alice, "/private", CROWD).await;
        assert_eq!(statuses, [200; CROWD], "round {round}");
        assert_eq!(gitlab.refreshes(), Refreshes { granted: round, refused: 0 });
        assert_eq!(gitlab.hits(Endpoint::ApiUser), asked + 1, "round {round}");
        // In every other round all of them come with a cookie whose tokens are dead already.
        if round % 2 == 0 {
            assert_eq!(alice.xhr("/private").await.status, 200);
        }
    }
    assert_eq!(twins.total(REFRESHED).await, rounds);
    assert_eq!(gitlab.hits(Endpoint::Authorize), authorized, "nobody had to sign in again");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_requests_at_expiry_make_one_refresh_on_three_processes() {
    let redis = Redis::start().await;
    let setup = Setup::default().session("recheck = \"3s\"\n");
    let replicas = setup.replicas(3, &redis.store(), Before::Nginx).await;
    replicas.gitlab.set_access_token_lifetime(3);
    let mut alice = replicas.signed_in("alice").await;
    for round in 1..=rounds(3) {
        // Moments are whole seconds: a word is older than three from the fourth on.
        sleep(Duration::from_millis(4200)).await;
        let statuses = at_once(&alice, "/private", CROWD).await;
        assert_eq!(statuses, [200; CROWD], "round {round}");
        assert_eq!(replicas.gitlab.refreshes(), Refreshes { granted: round, refused: 0 });
    }
    assert_eq!(replicas.total(REFRESHED).await, rounds(3));
    assert_eq!(alice.xhr("/private").await.status, 200);
}

/// GitLab has spent the refresh token and nobody has the new one: the session lasts as long as its word, on all replicas.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_costs_one_way_through_gitlab_at_most() {
    let redis = Redis::start().await;
    let twins = Setup::default().twins(3, &redis.store()).await;
    let gitlab = &twins.lab.gitlab;
    gitlab.set_access_token_lifetime(LIVES);
    let mut alice = twins.signed_in("alice").await;
    gitlab.fail(Fault::new(Endpoint::Token, 1, Failure::DropReply));
    twins.lab.clock.turn(250);
    let statuses = at_once(&alice, "/private", CROWD).await;
    assert_eq!(statuses, [200; CROWD], "the word is young");
    until("the reply is lost", async || twins.total(FAILED).await == 1).await;
    assert_eq!(gitlab.refreshes().granted, 1);
    twins.lab.clock.turn(TOO_OLD);
    // Each replica finds that out for itself; one that has just heard nothing asks again a few seconds later.
    until("nothing more can be asked", async || at_once(&alice, "/private", 10).await == [401; 10])
        .await;
    // Nobody is asked anything: GitLab knows the browser.
    let page = alice.open("/private").await;
    assert_eq!((page.status, page.url.path()), (200, "/private"));
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    assert_eq!(at_once(&alice, "/private", CROWD).await, [200; CROWD]);
    let refused = gitlab.refreshes().refused;
    // Two calls each, since a GitLab with replicas of its own may lag behind.
    assert!((1..=6).contains(&refused), "{refused}: each replica finds out at most once");
}

/// The refresher dies before GitLab has done anything: another one takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresher_killed_before_gitlab_acts_signs_nobody_out() {
    let Orphaned { mut all, mut alice, _redis } =
        killed(Fault::slow(Endpoint::Token, 1, AGES)).await;
    let authorized = all.gitlab.hits(Endpoint::Authorize);
    assert_eq!(at_once(&alice, "/private", CROWD).await, [200; CROWD]);
    assert_eq!(all.gitlab.refreshes(), Refreshes { granted: 1, refused: 0 });
    all.labgates[0].again().await;
    assert_eq!(alice.xhr("/private").await.status, 200);
    assert_eq!(all.gitlab.hits(Endpoint::Authorize), authorized);
}

/// It dies when GitLab has spent the refresh token: that is a lost reply.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresher_killed_after_gitlab_acted_costs_one_way_through_gitlab() {
    let late = Fault::new(Endpoint::Token, 1, Failure::LateReply).after(AGES);
    let Orphaned { all, mut alice, _redis } = killed(late).await;
    assert_eq!(all.gitlab.refreshes().granted, 1, "before it died");
    until("nothing more can be asked", async || at_once(&alice, "/private", 10).await == [401; 10])
        .await;
    let page = alice.open("/private").await;
    assert_eq!((page.status, page.url.path()), (200, "/private"));
    assert_eq!(at_once(&alice, "/private", CROWD).await, [200; CROWD]);
}

/// Three processes, the first of which is dead.
struct Orphaned {
    all: Replicas,
    alice: Browser,
    _redis: Redis,
}

/// Three processes, of which the first died while GitLab, made slow by `fault`, was to refresh a token that all need.
async fn killed(fault: Fault) -> Orphaned {
    let redis = Redis::start().await;
    let setup = Setup::default().session("recheck = \"2s\"\n");
    let mut all = setup.replicas(3, &redis.store(), Before::Nginx).await;
    all.gitlab.set_access_token_lifetime(2);
    let alice = all.signed_in("alice").await;
    sleep(Duration::from_millis(3200)).await;
    all.gitlab.set_access_token_lifetime(3600);
    let asked = all.gitlab.hits(Endpoint::Token);
    all.gitlab.fail(fault);
    let mut tab = alice.clone();
    tab.point_at(all.labgates[0].addr);
    let waiting = tokio::spawn(async move { tab.xhr("/private").await });
    until("a refresh is under way", async || all.gitlab.hits(Endpoint::Token) > asked).await;
    all.labgates[0].process.kill();
    assert!(waiting.await.is_err(), "its answer went with it");
    Orphaned { all, alice, _redis: redis }
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_out_of_reach_is_survived_by_all_replicas_until_grace() {
    let redis = Redis::start().await;
    let twins = Setup::default().session("recheck_timeout = \"300ms\"\n");
    let twins = twins.twins(3, &redis.store()).await;
    let gitlab = &twins.lab.gitlab;
    gitlab.set_access_token_lifetime(LIVES);
    let mut alice = twins.signed_in("alice").await;
    let authorized = gitlab.hits(Endpoint::Authorize);
    gitlab.set_silent(true);
    twins.lab.clock.turn(TOO_OLD);
    assert_eq!(at_once(&alice, "/private", CROWD).await, [200; CROWD], "served until `grace`");
    twins.lab.clock.turn(4000);
    assert_eq!(at_once(&alice, "/private", CROWD).await, [503; CROWD]);
    let page = alice.open("/private").await;
    assert_eq!(page.status, 503);
    assert!(page.text().contains("You are still signed in"), "{}", page.text());
    gitlab.set_silent(false);
    until("all of them recover", async || at_once(&alice, "/private", CROWD).await == [200; CROWD])
        .await;
    assert_eq!(gitlab.hits(Endpoint::Authorize), authorized, "nobody had to sign in again");
    assert_eq!(gitlab.refreshes(), Refreshes { granted: 1, refused: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_turned_or_differs_a_little_signs_nobody_out() {
    let redis = Redis::start().await;
    let twins = Setup::default().twins(2, &redis.store()).await;
    let (gitlab, clock) = (&twins.lab.gitlab, &twins.lab.clock);
    let alice = twins.signed_in("alice").await;
    let asked = gitlab.hits(Endpoint::ApiUser);
    clock.turn(-45);
    assert_eq!(at_once(&alice, "/private", 10).await, [200; 10]);
    assert_eq!(gitlab.hits(Endpoint::ApiUser), asked, "clocks of replicas differ as much");
    clock.turn(45);
    // Forward, where the word is renewed, and back, where that word lies ahead: it is asked for again.
    clock.turn(TOO_OLD);
    assert_eq!(at_once(&alice, "/private", 10).await, [200; 10]);
    clock.turn(-TOO_OLD);
    assert_eq!(at_once(&alice, "/private", 10).await, [200; 10]);
    assert_eq!(at_once(&alice, "/private", 10).await, [200; 10]);
    assert_eq!(gitlab.hits(Endpoint::ApiUser), asked + 2);
    assert_eq!(gitlab.refreshes().refused, 0);
}

/// A session that began in the future may have been made by anybody's clock: it is over, and one way through GitLab begins another.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_by_an_hour_costs_one_way_through_gitlab() {
    let redis = Redis::start().await;
    let twins = Setup::default().twins(2, &redis.store()).await;
    twins.lab.clock.turn(3600);
    let mut alice = twins.signed_in("alice").await;
    twins.lab.clock.turn(-3600);
    assert_eq!(alice.clone().xhr("/private").await.status, 401);
    let page = alice.open("/private").await;
    assert_eq!((page.status, page.url.path()), (200, "/private"));
    assert_eq!(at_once(&alice, "/private", 10).await, [200; 10]);
}

const REFRESHED: &str = "labgate_session_refreshes_total{result=\"refreshed\"}";
const FAILED: &str = "labgate_session_refreshes_total{result=\"failed\"}";
/// Longer than a test.
const AGES: Duration = Duration::from_mins(10);
