//! Before labgate: a real `HAProxy`, which asks by the printed script.

use super::{
    front::{Front, Kind},
    people, strangers, time, wire,
    yard::Yard,
};
use crate::support::{Browser, free};

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_and_are_where_they_wanted_to_be() {
    people::sign_in(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_refused_and_people_read_why() {
    people::refusals(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_who_they_are() {
    strangers::claims(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_what_they_ask_for() {
    strangers::families(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_way_around() {
    strangers::ways_around(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_whole_or_not_at_all() {
    wire::uploads(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_open_for_whom_they_should() {
    wire::web_socket(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_their_tokens() {
    time::tokens_end(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gitlab_lets_nobody_in_and_signs_nobody_out() {
    time::gitlab_gone(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_labgate_tells_nobody_anything_wrong() {
    time::restarts(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_labgate_that_hangs_lets_nobody_in() {
    time::labgate_hangs(Kind::Haproxy).await;
}

/// `HAProxy` goes on with a request whose script has failed: the line after it is what holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_fails_lets_nobody_in() {
    let yard = Yard::open(Kind::Haproxy).await;
    let (labgate, session) = (yard.lab.app.addr(), yard.signed_in("alice").await.session());
    // At once, after the answer, and for want of a verdict.
    let edits: [fn(&str) -> String; 3] = [
        |text| text.replace("local headers = {}", "error('broken')"),
        |text| text.replace("if answer.status == 200", "error('broken') if answer.status == 200"),
        |text| text.replace("answer.status == 200", "answer.status == 299"),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let config = &yard.lab.config;
        let front = Front::edited(Kind::Haproxy, config, labgate, free(), edit).await;
        let before = yard.reached();
        let gitlab = &yard.lab.gitlab;
        let mut browser = Browser::new(front.addr, gitlab.addr(), gitlab.external_url());
        for path in ["/private", "/echo/open", "/"] {
            let kept = [("cookie", session.as_str())];
            let answer = browser.request(http::Method::GET, path, &kept, "").await;
            assert_eq!(answer.status, 503, "{number}: {path}: {}", answer.text());
        }
        assert_eq!(yard.reached(), before, "{number}");
        assert_eq!(browser.xhr("/oauth2/userinfo").await.status, 401, "labgate's own pages go on");
    }
}
