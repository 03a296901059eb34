//! Before labgate: a real Envoy, which asks by `ext_authz` over gRPC.

use super::{front::Kind, people, strangers, time, wire};

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_and_are_where_they_wanted_to_be() {
    people::sign_in(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_refused_and_people_read_why() {
    people::refusals(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_who_they_are() {
    strangers::claims(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_what_they_ask_for() {
    strangers::families(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_way_around() {
    strangers::ways_around(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_whole_or_not_at_all() {
    wire::uploads(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_open_for_whom_they_should() {
    wire::web_socket(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_their_tokens() {
    time::tokens_end(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gitlab_lets_nobody_in_and_signs_nobody_out() {
    time::gitlab_gone(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_labgate_tells_nobody_anything_wrong() {
    time::restarts(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_labgate_that_hangs_lets_nobody_in() {
    time::labgate_hangs(Kind::EnvoyGrpc).await;
}
