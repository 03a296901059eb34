//! Tokens that end while cookies are lost, GitLab gone, labgate restarted under load or silent.

use std::{collections::BTreeMap, time::Duration};

use labgate::demo::gitlab::{Endpoint, Failure, Fault};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    front::{Front, Kind},
    yard::{ROUTES, Yard, echoed, other, setup, value},
};
use crate::support::{
    Browser,
    replicas::{Before, Replicas},
    until,
};

/// Seconds that access tokens live.
const LIVES: u64 = 200;
/// Longer than that and than `recheck`, shorter than `grace`.
const TURN: i64 = 400;
/// Longer than `grace`.
const PAST_GRACE: i64 = 4000;

/// Though no answer that lets pass carries a cookie, a session outlives its tokens; and a page in the browser gets the new one.
pub async fn tokens_end(kind: Kind) {
    let yard = Yard::open(kind).await;
    yard.lab.gitlab.set_access_token_lifetime(LIVES);
    let mut alice = yard.signed_in("alice").await;
    let first = alice.session();
    for round in 1..=3 {
        yard.lab.clock.turn(TURN);
        let answer = alice.xhr("/echo").await;
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        assert_eq!(value(&echoed(&answer), "x-forwarded-user"), "alice");
        if kind.loses_cookies() {
            assert_eq!(answer.cookies(), [""; 0], "round {round}");
            assert_eq!(alice.session(), first);
        }
    }
    assert_eq!(yard.lab.gitlab.refreshes().granted, 3, "one each");
    // A script's cookie may be old; a page is sent to fetch the new one, and comes back.
    let page = alice.open("/private?x=%26").await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(page.url.path(), "/private");
    assert_eq!(page.url.query(), Some("x=%26"));
    assert_ne!(alice.session(), first, "{:?}", alice.visited);
}

/// While GitLab is out of reach for longer than `grace` nobody passes, and nobody is signed out.
pub async fn gitlab_gone(kind: Kind) {
    let yard = Yard::open(kind).await;
    let mut alice = yard.signed_in("alice").await;
    for endpoint in [Endpoint::ApiUser, Endpoint::Userinfo, Endpoint::Token] {
        yard.lab.gitlab.fail(Fault::new(endpoint, u32::MAX, Failure::Refuse));
    }
    yard.lab.clock.turn(TURN);
    assert_eq!(alice.xhr("/private").await.status, 200, "served until `grace`");
    yard.lab.clock.turn(PAST_GRACE);
    let before = yard.reached();
    let page = alice.open("/private").await;
    assert_eq!(page.status, 503, "{}", page.text());
    if kind.shows_outages() {
        assert!(page.text().contains("You are still signed in"), "{}", page.text());
    }
    assert_eq!(alice.xhr("/private").await.status, 503);
    assert_eq!(yard.reached(), before);
    yard.lab.gitlab.clear_faults();
    until("she is back", async || alice.xhr("/private").await.status == 200).await;
}

/// While labgate comes and goes, strangers never get in, and nobody is told anything wrong: at worst that nothing can be told.
pub async fn restarts(kind: Kind) {
    let other = other().await;
    let setup = setup().routes(&ROUTES.replace("OTHER", &other.url()));
    let mut labgates = setup.replicas(1, "\"memory\"", Before::Nginx).await;
    let labgate = &labgates.labgates[0];
    let front = Front::start(kind, &labgate.config, labgate.addr).await;
    let browser =
        |all: &Replicas| Browser::new(front.addr, all.gitlab.addr(), all.gitlab.external_url());
    let mut alice = browser(&labgates);
    let page = alice.sign_in("/private", "alice").await;
    assert_eq!(page.status, 200, "{}", page.text());

    let stop = watch::Sender::new(false);
    let mut crowd = JoinSet::new();
    for number in 0..8 {
        let is_alice = number % 2 == 0;
        let mut browser = if is_alice { alice.clone() } else { browser(&labgates) };
        let stopped = stop.subscribe();
        crowd.spawn(async move {
            let mut met = BTreeMap::<(bool, u16), u64>::new();
            while !*stopped.borrow() {
                let status = browser.xhr("/private").await.status.as_u16();
                *met.entry((is_alice, status)).or_default() += 1;
                sleep(Duration::from_millis(2)).await;
            }
            met
        });
    }
    for signal in ["TERM", "KILL"] {
        let labgate = &mut labgates.labgates[0];
        labgate.process.signal(signal);
        labgate.process.ended().await;
        // Somebody has met the gap.
        let down = async || alice.xhr("/private").await.status.is_server_error();
        until("labgate is seen to be down", down).await;
        labgates.labgates[0].again().await;
        let up = async || alice.xhr("/private").await.status == 200;
        until("labgate is seen to be up", up).await;
    }
    stop.send_replace(true);
    let met = crowd.join_all().await;
    for ((is_alice, status), count) in met.iter().flatten() {
        let right = if *is_alice { 200 } else { 401 };
        assert!(
            *status == right || (500..=504).contains(status),
            "{} met {status}, {count} times: {met:?}",
            if *is_alice { "alice" } else { "a stranger" }
        );
    }
    let served = |who, status| met.iter().any(|met| met.contains_key(&(who, status)));
    assert!(served(true, 200) && served(false, 401), "{met:?}");
}

/// While labgate gives no answer nobody passes, and the wait has an end.
pub async fn labgate_hangs(kind: Kind) {
    let other = other().await;
    let setup = setup().session("recheck_timeout = \"300ms\"\n");
    let setup = setup.routes(&ROUTES.replace("OTHER", &other.url()));
    let labgates = setup.replicas(1, "\"memory\"", Before::Nginx).await;
    let labgate = &labgates.labgates[0];
    let front = Front::start(kind, &labgate.config, labgate.addr).await;
    let gitlab = &labgates.gitlab;
    let mut alice = Browser::new(front.addr, gitlab.addr(), gitlab.external_url());
    let mut stranger = alice.clone();
    assert_eq!(alice.sign_in("/private", "alice").await.status, 200);
    labgate.process.signal("STOP");
    let pid = labgate.process.pid();
    until("all of it stands still", async || stands_still(pid)).await;
    let (hers, theirs) = tokio::join!(alice.xhr("/private"), stranger.xhr("/private"));
    labgate.process.signal("CONT");
    for status in [hers.status.as_u16(), theirs.status.as_u16()] {
        assert!((500..=504).contains(&status), "{status}");
    }
    until("she is back", async || alice.xhr("/private").await.status == 200).await;
    assert_eq!(stranger.xhr("/private").await.status, 401);
}

/// Whether all threads of a process are stopped: the signal reaches each when it is its turn.
fn stands_still(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let state = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    };
    threads.map(state).all(|state| state == Some('T'))
}
