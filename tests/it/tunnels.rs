//! Tunnels end with their session, whatever ends it, and with nothing else.

use std::time::{Duration, Instant};

use http::Method;
use labgate::{
    demo::gitlab::{Command, Endpoint, Failure, Fault, UserState},
    gate::Plan,
};
use tokio::{runtime::Handle, time::sleep};

use crate::{
    support::{HOST, Lab, Setup, Wire, until},
    tokens,
};

/// A guarded tunnel, and one that is open to everybody under another name.
const ROUTES: &str = r#"
[[route]]
host = "open.example.test"
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/ws"
upstream = "UPSTREAM"
allow = ALLOW
"#;

/// Older than `recheck`, younger than `grace`.
const TOO_OLD: i64 = 400;
/// Older than `grace`.
const PAST_GRACE: i64 = 4000;
/// Within a second, and a loaded machine's leisure.
const SOON: Duration = Duration::from_secs(3);
/// Longer than two looks at a tunnel.
const LOOKS: Duration = Duration::from_millis(1500);

fn setup(allow: &str) -> Setup {
    Setup::default().routes(&ROUTES.replace("ALLOW", allow))
}

async fn lab() -> Lab {
    setup("\"signed-in\"").start().await
}

async fn asked(lab: &Lab, host: &str, session: &str) -> (Wire, u16) {
    shown(lab, host, &format!("Cookie: {session}")).await
}

/// Asks for a tunnel with `credential`, a line of the head.
async fn shown(lab: &Lab, host: &str, credential: &str) -> (Wire, u16) {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\n{credential}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut wire = Wire::say(lab.app.addr(), request).await;
    let status = wire.answer().await.status();
    (wire, status)
}

async fn opened(lab: &Lab, host: &str, session: &str) -> Wire {
    let (wire, status) = asked(lab, host, session).await;
    assert_eq!(status, 101);
    wire
}

/// Whether a ping comes back.
async fn is_open(wire: &mut Wire) -> bool {
    wire.try_write([0x89, 0x80, 1, 2, 3, 4]).await && wire.exactly(2).await.is_some()
}

async fn closes(mut wire: Wire) {
    let began = Instant::now();
    wire.closed().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

async fn closed(lab: &Lab, cause: &str) -> u64 {
    lab.count(&format!("labgate_tunnels_closed_total{{cause=\"{cause}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_closes_the_tunnels_of_its_session_and_no_others() {
    let lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    let elsewhere = lab.signed_in("alice").await;
    let first = opened(&lab, HOST, &alice.session()).await;
    let second = opened(&lab, HOST, &alice.session()).await;
    let mut other = opened(&lab, HOST, &elsewhere.session()).await;
    let mut public = opened(&lab, "open.example.test", "a=b").await;
    sleep(LOOKS).await;
    assert_eq!(lab.count("labgate_open_tunnels").await, 4, "nothing has happened yet");
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200);
    closes(first).await;
    closes(second).await;
    assert!(is_open(&mut other).await && is_open(&mut public).await);
    sleep(LOOKS).await;
    assert!(is_open(&mut other).await && is_open(&mut public).await);
    assert_eq!(closed(&lab, "session_over").await, 2);
    until("their places are free", async || lab.count("labgate_open_tunnels").await == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_user_is_out_of_the_tunnel_when_the_word_is_too_old() {
    let lab = lab().await;
    let session = lab.signed_in("alice").await.session();
    let mut tunnel = opened(&lab, HOST, &session).await;
    let mut bobs = opened(&lab, HOST, &lab.signed_in("bob").await.session()).await;
    lab.gitlab.set_state("alice", UserState::Blocked).expect("alice");
    sleep(LOOKS).await;
    assert!(is_open(&mut tunnel).await, "the word is young");
    // Nobody sends a request: the tunnel alone makes labgate ask.
    lab.clock.turn(TOO_OLD);
    closes(tunnel).await;
    until("bob's word is renewed", async || {
        lab.count("labgate_session_rechecks_total{result=\"renewed\"}").await >= 1
    })
    .await;
    assert!(is_open(&mut bobs).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_tunnel_is_rechecked_and_its_tokens_are_renewed_and_it_goes_on() {
    let lab = lab().await;
    lab.gitlab.set_access_token_lifetime(600);
    let mut tunnel = opened(&lab, HOST, &lab.signed_in("alice").await.session()).await;
    for round in 1..=4 {
        lab.clock.turn(700);
        until("GitLab was asked", async || {
            lab.count("labgate_session_rechecks_total{result=\"renewed\"}").await >= round
        })
        .await;
        assert!(is_open(&mut tunnel).await, "{round}");
    }
    assert_eq!(lab.count("labgate_session_refreshes_total{result=\"spent\"}").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_membership_closes_the_tunnels_whose_route_asks_for_it() {
    let lab = setup("[{ group = \"acme\" }]").start().await;
    let mut bob = lab.signed_in("bob").await;
    let tunnel = opened(&lab, HOST, &bob.session()).await;
    lab.gitlab.set_role("acme", "bob", None).expect("bob");
    lab.clock.turn(TOO_OLD);
    closes(tunnel).await;
    assert_eq!(closed(&lab, "forbidden").await, 1);
    assert_eq!(bob.xhr("/private").await.status, 200, "he is still signed in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_closes_them_at_once() {
    let secret = "a token that nobody guesses";
    let routes = format!(
        "{}\n[[route]]\nhost = \"127.0.0.1\"\nupstream = \"UPSTREAM\"\nallow = \"public\"\n",
        ROUTES.replace("ALLOW", "\"signed-in\"")
    );
    let lab = Setup::default().routes(&routes).gitlab(&format!("hook_secret = \"{secret}\""));
    let lab = lab.session("recheck = \"1h\"\n").start().await;
    let url = format!("http://{}/oauth2/hooks/main", lab.app.addr());
    lab.gitlab.add_hook(&url, secret).expect("a URL");
    let tunnel = opened(&lab, HOST, &lab.signed_in("alice").await.session()).await;
    lab.gitlab.command(Command::DeleteUser { user: "alice".into() }).expect("alice");
    let began = Instant::now();
    let mut tunnel = tunnel;
    tunnel.closed().await;
    // Of a dead refresh token labgate asks twice, a second apart.
    assert!(began.elapsed() < SOON + Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tunnel_outlives_the_lifetime() {
    let lab = setup("\"signed-in\"").session("lifetime = \"2h\"\n").start().await;
    let mut tunnel = opened(&lab, HOST, &lab.signed_in("alice").await.session()).await;
    lab.clock.turn(2 * 3600 - 60);
    sleep(LOOKS).await;
    assert!(is_open(&mut tunnel).await);
    lab.clock.turn(61);
    closes(tunnel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_activity_and_being_open_is_none() {
    let lab = setup("\"signed-in\"").session("idle_timeout = \"30m\"\n").start().await;
    let mut alice = lab.signed_in("alice").await;
    let bob = lab.signed_in("bob").await;
    let mut carol = lab.signed_in("carol").await;
    let mut busy = opened(&lab, HOST, &alice.session()).await;
    let quiet = opened(&lab, HOST, &bob.session()).await;
    let mut beside = opened(&lab, HOST, &carol.session()).await;
    for _ in 0..2 {
        lab.clock.turn(1000);
        assert!(is_open(&mut busy).await);
        // Requests of the same session are activity for its tunnels.
        assert_eq!(carol.xhr("/private").await.status, 200);
        sleep(LOOKS).await;
    }
    closes(quiet).await;
    assert!(is_open(&mut busy).await && is_open(&mut beside).await);
    assert_eq!(bob.clone().xhr("/private").await.status, 401, "the session is over");
    // What passed in the tunnel counts for requests, and reaches the cookie with the next one.
    let answer = alice.xhr("/private").await;
    assert_eq!((answer.status.as_u16(), answer.cookies().len()), (200, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gitlab_closes_none_until_grace_is_over() {
    let lab = setup("\"signed-in\"").session("recheck_timeout = \"200ms\"\n").start().await;
    let mut tunnel = opened(&lab, HOST, &lab.signed_in("alice").await.session()).await;
    for endpoint in [Endpoint::Discovery, Endpoint::Token, Endpoint::ApiUser, Endpoint::Userinfo] {
        lab.gitlab.fail(Fault::new(endpoint, 10_000, Failure::Refuse));
    }
    lab.clock.turn(TOO_OLD);
    sleep(LOOKS).await;
    assert!(is_open(&mut tunnel).await);
    lab.clock.turn(PAST_GRACE);
    closes(tunnel).await;
    assert_eq!(closed(&lab, "gitlab_unreachable").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn past_grace_a_tunnel_stays_no_longer_than_a_request_would_wait() {
    let lab = setup("\"signed-in\"").session("recheck_timeout = \"2s\"\n").start().await;
    let mut tunnel = opened(&lab, HOST, &lab.signed_in("alice").await.session()).await;
    lab.gitlab.fail(Fault::new(Endpoint::ApiUser, 1, Failure::Hang));
    lab.clock.turn(PAST_GRACE);
    tunnel.closed().await;
    assert_eq!(closed(&lab, "gitlab_unreachable").await, 1);
    let unheard = "labgate_session_rechecks_total{result=\"unheard\"}";
    assert_eq!(lab.count(unheard).await, 0, "the question is still on its way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_them_and_they_still_end_with_their_session() {
    let mut lab = lab().await;
    let mut alice = lab.signed_in("alice").await;
    let mut tunnel = opened(&lab, HOST, &alice.session()).await;
    let mut bobs = opened(&lab, HOST, &lab.signed_in("bob").await.session()).await;
    reload(&mut lab, |config| config);
    sleep(LOOKS).await;
    assert!(is_open(&mut tunnel).await && is_open(&mut bobs).await);
    assert_eq!(alice.post("/oauth2/sign_out", "").await.status, 200);
    closes(tunnel).await;
    // Another configuration counts for what is open, as for the next request.
    reload(&mut lab, |config| config.replace("\"signed-in\"", "[{ user = \"alice\" }]"));
    closes(bobs).await;
}

fn reload(lab: &mut Lab, change: impl FnOnce(String) -> String) {
    let config = toml::from_str(&change(lab.config.clone())).expect("a configuration");
    let (plan, problems) = Plan::draw(&config, &|_| None);
    let plan = plan.unwrap_or_else(|| panic!("{problems:#?}"));
    lab.app.reload(plan, &Handle::current(), &|_| None).expect("a gate");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_public_route_those_end_whose_application_was_told_who_it_is() {
    let lab = setup("\"public\"").start().await;
    let mut alice = lab.signed_in("alice").await;
    let told = opened(&lab, HOST, &alice.session()).await;
    let mut nobodys = opened(&lab, HOST, "a=b").await;
    sleep(LOOKS).await;
    assert_eq!(lab.count("labgate_open_tunnels").await, 2);
    let own = [("origin", "https://app.example.test")];
    assert_eq!(alice.request(Method::POST, "/oauth2/sign_out", &own, "").await.status, 200);
    closes(told).await;
    sleep(LOOKS).await;
    assert!(is_open(&mut nobodys).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_can_not_use_up_the_tunnels_of_all() {
    let lab = lab().await;
    let (alice, bob) = (lab.signed_in("alice").await, lab.signed_in("bob").await);
    let mut tunnels = Vec::new();
    for _ in 0..100 {
        tunnels.push(opened(&lab, HOST, &alice.session()).await);
    }
    assert_eq!(asked(&lab, HOST, &alice.session()).await.1, 503);
    let limit = "labgate_limits_reached_total{limit=\"session_tunnels\"}";
    assert_eq!(lab.count(limit).await, 1);
    opened(&lab, HOST, &bob.session()).await;
    tunnels.pop();
    until("there is room again", async || asked(&lab, HOST, &alice.session()).await.1 == 101).await;
}

/// The tunnels of `count` tokens of alice's.
async fn of_tokens(lab: &Lab, count: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for number in 0..count {
        let (user, token) = ("alice".to_owned(), format!("glpat-many-{number}"));
        let credential = format!("Authorization: Bearer {token}");
        let scopes = vec!["read_user".to_owned()];
        let made = Command::AddPersonalToken { user, token, scopes, expires_at: None };
        lab.gitlab.command(made).expect("made");
        let (wire, status) = shown(lab, HOST, &credential).await;
        assert_eq!(status, 101, "{number}");
        wires.push(wire);
    }
    wires
}

/// Older than `tokens.cache`, younger than `recheck`.
const TOKEN_TOO_OLD: i64 = 65;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_gitlab_is_silent_about_hold_up_no_sign_out() {
    let lab = setup("\"signed-in\"").gitlab(tokens::ALL).start().await;
    let mut held = of_tokens(&lab, 30).await;
    let mut bob = lab.signed_in("bob").await;
    let tunnel = opened(&lab, HOST, &bob.session()).await;
    let before = lab.gitlab.hits(Endpoint::ApiToken);
    lab.gitlab.fail(Fault::new(Endpoint::ApiToken, 10_000, Failure::Hang));
    lab.clock.turn(TOKEN_TOO_OLD);
    // As many at once as may be: one after the other they would take minutes.
    until("they are asked about", async || lab.gitlab.hits(Endpoint::ApiToken) >= before + 16)
        .await;
    assert_eq!(bob.post("/oauth2/sign_out", "").await.status, 200);
    closes(tunnel).await;
    assert!(is_open(&mut held[0]).await, "silence ends none before `grace`");
    lab.clock.turn(PAST_GRACE);
    until("silence has ended them", async || closed(&lab, "token_unconfirmed").await == 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_tunnel_though_gitlab_takes_its_time() {
    let lab = setup("\"signed-in\"").gitlab(tokens::ALL).start().await;
    let mut held = of_tokens(&lab, 30).await;
    // So late that no round waits for it.
    let late = Fault { delay_ms: 6000, ..Fault::new(Endpoint::ApiToken, 30, Failure::Slow) };
    lab.gitlab.fail(late);
    let token = "glpat-many-29".to_owned();
    lab.gitlab.command(Command::RevokePersonalToken { token }).expect("revoked");
    lab.clock.turn(TOKEN_TOO_OLD);
    held.remove(29).closed().await;
    until("it is counted", async || closed(&lab, "token_invalid").await == 1).await;
    assert_eq!(lab.count("labgate_open_tunnels").await, 29);
    assert!(is_open(&mut held[0]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_gitlab_is_silent_about_holds_up_no_sign_out_of_others() {
    let lab = lab().await;
    let alices = opened(&lab, HOST, &lab.signed_in("alice").await.session()).await;
    let hits = lab.gitlab.hits(Endpoint::ApiUser);
    lab.gitlab.fail(Fault::new(Endpoint::ApiUser, 1, Failure::Hang));
    lab.clock.turn(PAST_GRACE);
    until("GitLab is asked", async || lab.gitlab.hits(Endpoint::ApiUser) > hits).await;
    let (mut bob, mut carol) = (lab.signed_in("bob").await, lab.signed_in("carol").await);
    let bobs = opened(&lab, HOST, &bob.session()).await;
    let carols = opened(&lab, HOST, &carol.session()).await;
    // Two in a row: wherever one round stands at the first, another one begins before the second.
    assert_eq!(bob.post("/oauth2/sign_out", "").await.status, 200);
    closes(bobs).await;
    assert_eq!(carol.post("/oauth2/sign_out", "").await.status, 200);
    closes(carols).await;
    let mut alices = alices;
    alices.closed().await;
    assert_eq!(closed(&lab, "gitlab_unreachable").await, 1, "its last word was too old");
}
