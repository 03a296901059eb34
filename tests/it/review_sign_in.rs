//! Strangers who begin and end sign-ins as fast as they can: they take GitLab from nobody (threat J5).

use std::time::Duration;

use labgate::demo::gitlab::{Endpoint, Fault};
use tokio::task::JoinSet;

use crate::support::{Browser, Lab, Setup, until};

/// Makes GitLab's word too old for anything, and a sign-in not yet.
const PAST_GRACE: i64 = 400;

const SESSION: &str = "grace = \"5m\"\nrecheck_timeout = \"3s\"\n";

/// A callback with a code that GitLab doesn't know, to a sign-in that `browser` has begun.
async fn junk(browser: &mut Browser) -> String {
    let authorize = url::Url::parse(&browser.begin("/private").await).expect("a URL");
    let state = authorize.query_pairs().find(|(name, _)| name == "state").expect("a state").1;
    format!("/oauth2/callback?code=junk&state={state}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_counts_once_however_often_it_comes_at_once() {
    let lab = Setup::default().workers(2).start().await;
    let mut browser = lab.browser();
    let callback = junk(&mut browser).await;
    let mut all = JoinSet::new();
    for _ in 0..50 {
        let (mut copy, callback) = (browser.clone(), callback.clone());
        all.spawn(async move { copy.navigate(&callback).await.status.as_u16() });
    }
    let mut statuses = all.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses.pop(), Some(403), "GitLab doesn't know the code");
    assert_eq!(statuses, [400; 49]);
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 2, "one code, tried twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_makes_no_spent_state_good_again() {
    let house = Setup::default().process(&[]).await;
    let mut browser = house.browser();
    let callback = junk(&mut browser).await;
    let mut copy = browser.clone();
    assert_eq!(browser.navigate(&callback).await.status, 403);
    let asked = house.gitlab.hits(Endpoint::Token);
    house.write(&format!("{}\n[telemetry]\nlog = \"debug\"\n", house.config));
    house.labgate.line("the configuration is reloaded").await;
    assert_eq!(copy.navigate(&callback).await.status, 400);
    assert_eq!(house.gitlab.hits(Endpoint::Token), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_callbacks_takes_gitlab_from_nobody() {
    let lab = Setup::default().session(SESSION).workers(2).start().await;
    let mut alice = lab.signed_in("alice").await;
    let mut bob = lab.browser();
    let callback = lab.callback(&bob.begin("/private").await, "bob").await;
    let before = lab.gitlab.hits(Endpoint::Token);
    lab.gitlab.fail(Fault::slow(Endpoint::Token, 1000, Duration::from_secs(6)));
    let mut flood = JoinSet::new();
    for _ in 0..300 {
        let mut browser = lab.browser();
        flood.spawn(async move {
            let callback = junk(&mut browser).await;
            let answer = browser.navigate(&callback).await;
            (answer.status.as_u16(), answer.header("retry-after").to_owned())
        });
    }
    until("there is no room for more", async || {
        lab.metric("labgate_limits_reached_total{limit=\"sign_ins\"}").await >= 40.0
    })
    .await;
    assert!(lab.gitlab.hits(Endpoint::Token) - before <= 24);
    // Who is signed in notices nothing, even where GitLab has to be asked.
    lab.clock.turn(PAST_GRACE);
    assert_eq!(alice.xhr("/private").await.status, 200);
    // Who comes now is told to come again, and may.
    let page = bob.open(&callback).await;
    assert_eq!((page.status, page.answer.header("retry-after")), (503, "5"));
    lab.gitlab.clear_faults();
    until("there is room again", async || bob.open(&callback).await.status == 200).await;
    let refused = flood.join_all().await;
    let refused = refused.iter().filter(|answer| **answer == (503, "5".to_owned())).count();
    assert!((40..=60).contains(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_strangers_run_into_stops_no_recheck() {
    let lab = Setup::default().session(SESSION).start().await;
    let mut alice = lab.signed_in("alice").await;
    lab.gitlab.fail(Fault::throttled(Endpoint::Token, 1, "60"));
    let mut stranger = lab.browser();
    let callback = junk(&mut stranger).await;
    assert_eq!(stranger.navigate(&callback).await.status, 503);
    lab.clock.turn(PAST_GRACE);
    assert_eq!(alice.xhr("/private").await.status, 200);
    lab.gitlab.set_access_token_lifetime(600);
    assert_eq!(refreshed(&lab, &mut alice).await, 200);
}

/// The status of a request for which the tokens have to be renewed.
async fn refreshed(lab: &Lab, browser: &mut Browser) -> u16 {
    let tokens = lab.gitlab.hits(Endpoint::Token);
    lab.clock.turn(7200);
    let status = browser.xhr("/private").await.status.as_u16();
    assert_eq!(lab.gitlab.hits(Endpoint::Token), tokens + 1);
    status
}
