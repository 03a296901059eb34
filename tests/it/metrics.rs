//! Metrics: what the reference promises is counted in a running labgate.

use labgate::{demo::gitlab::UserState, telemetry::REFERENCE};

use crate::support::Setup;

/// What is zero while nothing is open, no limit is reached and no store is shared, and neither hook, tunnel, assertion, token nor second host is there
/// (`it::hooks`, `it::tunnels`, `it::assertion`, `it::tokens` and `it::hand_over` count those).
const QUIET: [&str; 9] = [
    "labgate_store_requests_total",
    "labgate_open_connections",
    "labgate_open_tunnels",
    "labgate_tunnels_closed_total",
    "labgate_limits_reached_total",
    "labgate_hooks_total",
    "labgate_assertions_signed_total",
    "labgate_hand_overs_total",
    "labgate_token_checks_total",
];

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_reference_names_is_counted() {
    let lab = Setup::default().session("recheck = \"5m\"\ngrace = \"1d\"").start().await;
    let mut browser = lab.signed_in("alice").await;
    // Past the access token's life, so that the recheck must refresh first.
    lab.clock.turn(3 * 60 * 60);
    browser.xhr("/private").await;
    lab.gitlab.set_state("alice", UserState::Blocked).unwrap();
    lab.clock.turn(6 * 60);
    browser.xhr("/private").await;
    let text = lab.admin("/metrics").await.text();
    for metric in REFERENCE.iter().filter(|metric| !QUIET.contains(&metric.name)) {
        let sample = |line: &&str| line.starts_with(metric.name) && !line.ends_with(" 0");
        assert!(
            text.lines().any(|line| sample(&line)),
            "{} is never counted:\n{text}",
            metric.name
        );
    }
}
