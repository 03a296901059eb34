//! Apache, on the file in `deploy/compose/fronts`. It has no forward-auth of its own, so it stands before labgate's other door.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use super::{front::Kind, people, strangers, time, wire};

/// httpd below `root`, before the labgate at `labgate`.
pub fn command(root: &Path, labgate: SocketAddr, addr: SocketAddr) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/fronts/httpd.conf");
    let mut text = fs::read_to_string(file).expect("the file");
    for (written, here) in [
        ("Listen 0.0.0.0:8080", format!("Listen {addr}")),
        ("http://labgate:4180/", format!("http://{labgate}/")),
        // As with TLS in httpd.
        ("X-Forwarded-Proto \"http\"", "X-Forwarded-Proto \"https\"".into()),
    ] {
        assert_eq!(text.matches(written).count(), 1, "{written}");
        text = text.replace(written, &here);
    }
    fs::write(root.join("httpd.conf"), text).expect("a file");
    fs::create_dir(root.join("logs")).expect("a directory");
    std::os::unix::fs::symlink("/usr/lib/apache2/modules", root.join("modules")).expect("a link");
    let mut command = Command::new("apache2");
    // One process, so that it ends with the test.
    command.arg("-X").arg("-d").arg(root).arg("-f").arg(root.join("httpd.conf"));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_and_are_where_they_wanted_to_be() {
    people::sign_in(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_refused_and_people_read_why() {
    people::refusals(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_who_they_are() {
    strangers::claims(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_what_they_ask_for() {
    strangers::families(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_way_around() {
    strangers::ways_around(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_whole_or_not_at_all() {
    wire::uploads(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_open_for_whom_they_should() {
    wire::web_socket(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_their_tokens() {
    time::tokens_end(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gitlab_lets_nobody_in_and_signs_nobody_out() {
    time::gitlab_gone(Kind::Apache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_labgate_tells_nobody_anything_wrong() {
    time::restarts(Kind::Apache).await;
}
