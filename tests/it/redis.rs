//! The Redis servers that other tests lean on are what they say: alone, by sentinels, in a cluster, and in trouble.

use crate::support::redis::{Cluster, Redis, Sentinels};

#[tokio::test(flavor = "multi_thread")]
async fn one_server_in_all_its_ways() {
    let mut redis = Redis::start().await;
    assert_eq!(redis.cli(&["set", "a", "1"]), "OK");
    redis.stop();
    redis.run().await;
    assert_eq!(redis.keys(), ["a"], "over a restart");
    redis.set_full(true);
    assert!(redis.cli(&["set", "b", "1"]).contains("OOM"));
    redis.set_full(false);
    assert_eq!(redis.cli(&["set", "b", "1"]), "OK");
    redis.run_empty().await;
    assert!(redis.keys().is_empty(), "{:?}", redis.keys());
    let locked = Redis::with_password().await;
    assert_eq!(locked.cli(&["set", "a", "1"]), "OK");
    let tls = Redis::with_tls().await;
    assert_eq!(tls.cli(&["set", "a", "1"]), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn trio_and_cluster_fail_over() {
    let mut trio = Sentinels::start().await;
    trio.fail_over().await;
    let mut cluster = Cluster::start().await;
    cluster.fail_over().await;
}
