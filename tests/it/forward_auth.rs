//! The other door: front proxies ask, in their dialects, and get the verdict that a proxied request would have met.

use std::collections::BTreeMap;

use http::{Method, Request};
use labgate::{
    config::Dialect,
    demo::gitlab::{Command, Endpoint, Mint, Role},
};
use serde_json::Value;

use crate::support::{
    Answer, Arrived, HOST, Lab, Setup,
    envoy::{self, Question},
    run, send,
};
use crate::tokens::ALL;

const ROUTES: &str = r#"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/echo/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo/team"
upstream = "UPSTREAM"
allow = [{ group = "acme" }]
[[route]]
path = "/echo/team/ops"
methods = ["GET", "HEAD"]
upstream = "UPSTREAM"
allow = [{ group = "acme/ops", role = "maintainer" }]
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/asked"
allow = [{ group = "acme" }]
[[route]]
host = "wiki.example.test"
allow = [{ group = "acme" }]
"#;

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.0/8\"]\n";

fn setup() -> Setup {
    Setup::default().server(TRUSTED).routes(ROUTES)
}

/// What came of a request, whoever answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Passes(BTreeMap<String, String>),
    SignIn(String),
    /// A form that nobody signed in has sent.
    Unsent,
    Forbidden,
    /// No route, or a request that can't be judged.
    Refused,
}

/// The identity that an application is told, empty values left out.
fn identity(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    const NAMES: [&str; 4] = [
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-preferred-username",
    ];
    pairs.filter(|(name, value)| NAMES.contains(&name.as_str()) && !value.is_empty()).collect()
}

fn proxied(answer: &Answer) -> Verdict {
    let reason = || answer.json()["type"].as_str().unwrap_or_default().to_owned();
    match answer.status.as_u16() {
        302 => Verdict::SignIn(answer.header("location").into()),
        401 if answer.header("content-type").contains("html") => Verdict::Unsent,
        401 => Verdict::SignIn(answer.json()["sign_in"].as_str().expect("a URL").into()),
        403 if answer.header("content-type").contains("html") => Verdict::Forbidden,
        403 if reason().ends_with(":forbidden") => Verdict::Forbidden,
        400 | 404 | 405 | 421 => Verdict::Refused,
        // The application has answered: with an echo, or that it knows no such path.
        200 | 501 => {
            let echo: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let headers = echo["headers"].as_array().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            Verdict::Passes(identity(headers.iter().map(|pair| (text(&pair[0]), text(&pair[1])))))
        },
        status => panic!("{status}: {}", answer.text()),
    }
}

fn told(dialect: Dialect, answer: &Answer) -> Verdict {
    let status = answer.status.as_u16();
    if status == 200 {
        let headers = answer.headers.iter();
        let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
        return Verdict::Passes(identity(
            headers.map(|(name, value)| (name.to_string(), text(value))),
        ));
    }
    let reason = answer.header("x-labgate-reason");
    if dialect == Dialect::Nginx {
        assert!(matches!(status, 401 | 403), "{status} would be an error to nginx: {reason}");
    }
    match (status, reason) {
        (401, "sign_in_required") if answer.header("content-type").contains("html") => {
            Verdict::Unsent
        },
        (302 | 401, "sign_in_required") if !answer.header("location").is_empty() => {
            Verdict::SignIn(answer.header("location").into())
        },
        (401, "sign_in_required") => {
            Verdict::SignIn(answer.json()["sign_in"].as_str().expect("a URL").into())
        },
        (403, "forbidden") => Verdict::Forbidden,
        (400 | 403 | 405, _) => Verdict::Refused,
        other => panic!("{other:?}: {}", answer.text()),
    }
}

/// What Envoy gets over gRPC, as the answer over HTTP that says the same.
async fn over_grpc(lab: &Lab, arrived: &Arrived) -> Answer {
    let question = Question {
        method: arrived.method.to_string(),
        path: arrived.path.clone(),
        host: arrived.host.clone(),
        scheme: arrived.scheme.into(),
        headers: Vec::new(),
        ..Question::get("/")
    };
    let headers = arrived.headers.iter();
    let question = headers.fold(question, |question, (name, value)| question.with(name, value));
    let addr = lab.app.ext_authz_addr().expect("it is on");
    let verdict = envoy::ask(addr, &question).await;
    let status = verdict.status().try_into().expect("a status");
    let status = http::StatusCode::from_u16(status).expect("a status");
    let set = verdict.set.iter().map(|(name, value)| {
        let name: http::HeaderName = name.parse().expect("a name");
        (name, value.parse().expect("a value"))
    });
    let (headers, body) = match verdict.denied {
        Some((_, headers, body)) => (headers, body),
        None => (set.collect(), String::new()),
    };
    Answer { status, headers, body: body.into() }
}

/// What odd paths are made of.
const SHREDS: [&str; 14] = [
    "/", "//", "/echo", "/team", "/TEAM", "/private", "/ops", "/..", "/.", "/%2e%2e", "%2F", "\\",
    ";x", "%",
];

/// Paths that mean something, and some that readers could differ over.
fn paths() -> Vec<String> {
    let plain = [
        "/echo/open",
        "/echo/private/a?b=c&d=%2F",
        "/echo/team",
        "/echo/team/ops/x",
        "/echo/teamx",
        "/elsewhere",
        "/oauth2x",
    ];
    // The same odd ones each time.
    let mut seed = 0x2026_1127_u64;
    let mut next = |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((seed >> 33) % most).expect("small")
    };
    let odd = (0..120).map(|_| {
        let count = 1 + next(5);
        let shreds: String = (0..count).map(|_| SHREDS[next(14)]).collect();
        format!("/echo{shreds}")
    });
    plain.into_iter().map(Into::into).chain(odd.collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_give_the_same_verdict_and_the_same_identity() {
    let grpc = "ext_authz = \"127.0.0.1:0\"\n";
    let lab = setup().server(grpc).workers(2).start().await;
    let forged = "__Host-labgate=AAAA";
    let mut people = vec![String::new(), forged.into()];
    for user in ["alice", "bob", "carol"] {
        people.push(lab.signed_in(user).await.session());
    }
    let addr = lab.app.addr();
    let mut kinds = BTreeMap::<&str, u32>::new();
    for (number, path) in paths().iter().enumerate() {
        let people: &[String] = if number < 8 { &people } else { &people[2..4] };
        for cookie in people {
            for method in [Method::GET, Method::POST] {
                let arrived = Arrived::get(path).method(method).cookie(cookie);
                let arrived = if number % 2 == 0 { arrived.navigation() } else { arrived };
                let door = proxied(&send(addr, arrived.proxied()).await);
                let kind = match &door {
                    Verdict::Passes(who) if who.is_empty() => "nobody passes",
                    Verdict::Passes(_) => "passes",
                    Verdict::SignIn(_) => "sign in",
                    Verdict::Unsent => "unsent",
                    Verdict::Forbidden => "forbidden",
                    Verdict::Refused => "refused",
                };
                *kinds.entry(kind).or_default() += 1;
                let over_grpc = over_grpc(&lab, &arrived).await;
                let answers = Dialect::ALL.map(|dialect| (dialect, arrived.ask(dialect, addr)));
                let mut verdicts = vec![told(Dialect::Envoy, &over_grpc)];
                for (dialect, answer) in answers {
                    verdicts.push(told(dialect, &answer.await));
                }
                for (number, mut verdict) in verdicts.into_iter().enumerate() {
                    // Whom an application is told of can only be seen where it answers.
                    if let (Verdict::Passes(known), Verdict::Passes(told)) = (&door, &mut verdict)
                        && known.is_empty()
                        && !cookie.is_empty()
                        && !path.starts_with("/echo/open")
                    {
                        told.clear();
                    }
                    assert_eq!(verdict, door, "dialect {number}, gRPC first: {arrived:?}");
                }
            }
        }
    }
    assert_eq!(kinds.len(), 6, "each verdict has been met: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_lets_pass_is_exactly_200_with_all_names_and_no_cookie() {
    let lab = setup().session("idle_timeout = \"1h\"\n").start().await;
    let alice = lab.signed_in("alice").await.session();
    // The cookie is behind by now: a proxied response would renew it.
    lab.clock.turn(600);
    let arrived = Arrived::get("/echo/private").cookie(&alice);
    for dialect in Dialect::ALL {
        let answer = arrived.ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 200, "{dialect:?}: {}", answer.text());
        assert_eq!(answer.cookies(), [""; 0], "{dialect:?}");
        for name in ["x-forwarded-user", "x-forwarded-preferred-username", "x-auth-request-user"] {
            assert_eq!(answer.header(name), "alice", "{dialect:?} {name}");
        }
        assert_eq!(answer.header("x-auth-request-groups"), answer.header("x-forwarded-groups"));
        assert!(answer.header("x-forwarded-groups").contains("acme"));
        assert!(!answer.header("x-request-id").is_empty());
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.body.is_empty() && answer.headers.len() < 16, "{:?}", answer.headers);
    }
    // Nobody on a public route: the names are there, so that a client's own are overwritten.
    for dialect in Dialect::ALL {
        let arrived = Arrived::get("/echo/open").header("x-forwarded-user", "mallory");
        let answer = arrived.ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 200, "{dialect:?}");
        for name in ["x-forwarded-user", "x-forwarded-email", "x-auth-request-groups"] {
            assert_eq!(answer.headers.get(name).map(http::HeaderValue::as_bytes), Some(&b""[..]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_groups_stay_below_four_kilobytes() {
    let lab = setup().start().await;
    lab.gitlab.add_groups("alice", 400).expect("groups");
    let alice = lab.signed_in("alice").await.session();
    let answer =
        Arrived::get("/echo/team").cookie(&alice).ask(Dialect::Nginx, lab.app.addr()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let size: usize =
        answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    assert!(size < 4000, "{size} bytes");
    assert!(answer.header("x-forwarded-groups").len() > 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_trusted_peers_may_ask() {
    for trusted in ["", "trusted_proxies = [\"10.0.0.0/8\"]\n"] {
        let routes = ROUTES.replace("/asked\"\n", "/asked\"\nupstream = \"UPSTREAM\"\n");
        let routes = routes.replace("test\"\nallow", "test\"\nupstream = \"UPSTREAM\"\nallow");
        let lab = Setup::default().server(trusted).routes(&routes).start().await;
        let alice = lab.signed_in("alice").await.session();
        for dialect in Dialect::ALL {
            for path in ["/echo/private", "/echo/open"] {
                let arrived = Arrived::get(path).cookie(&alice);
                let answer = arrived.ask(dialect, lab.app.addr()).await;
                assert_eq!(answer.status, 403, "{dialect:?} {path}");
                let kind = answer.json()["type"].clone();
                assert_eq!(kind, "urn:labgate:problem:front_untrusted");
                assert!(answer.headers.get("x-forwarded-user").is_none());
            }
        }
    }
}

/// A question with one thing changed about its headers.
fn bent(dialect: Dialect, bend: impl FnOnce(&mut http::HeaderMap)) -> Request<String> {
    let mut request = Arrived::get("/echo/open").question(dialect);
    bend(request.headers_mut());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn two_families_at_once_are_refused_and_none_is_guessed() {
    let lab = setup().start().await;
    for dialect in Dialect::ALL {
        let foreign: &[&str] = match dialect {
            Dialect::Nginx => &["x-forwarded-uri", "x-forwarded-method"],
            Dialect::Traefik | Dialect::Caddy | Dialect::Haproxy => {
                &["x-original-url", "x-original-uri", "x-original-method"]
            },
            Dialect::Envoy => &["x-forwarded-uri", "x-forwarded-method", "x-original-url"],
        };
        assert_eq!(send(lab.app.addr(), bent(dialect, |_| ())).await.status, 200, "{dialect:?}");
        for name in foreign {
            let question = bent(dialect, |headers| {
                headers.insert(*name, "/echo/open".parse().expect("a value"));
            });
            let answer = send(lab.app.addr(), question).await;
            assert_eq!(answer.status, 403, "{dialect:?} {name}");
            assert_eq!(answer.header("x-labgate-reason"), "front_headers");
        }
        let own: &[&str] = match dialect {
            Dialect::Nginx => &["x-original-url", "x-original-method"],
            Dialect::Traefik | Dialect::Caddy | Dialect::Haproxy => {
                &["x-forwarded-uri", "x-forwarded-method", "x-forwarded-host", "x-forwarded-proto"]
            },
            Dialect::Envoy => &[],
        };
        for name in own {
            let missing = bent(dialect, |headers| drop(headers.remove(*name)));
            assert_eq!(send(lab.app.addr(), missing).await.status, 403, "{dialect:?} no {name}");
            if *name != "x-forwarded-proto" {
                let doubled = bent(dialect, |headers| {
                    let value = headers[*name].clone();
                    headers.append(*name, value);
                });
                let status = send(lab.app.addr(), doubled).await.status;
                assert_eq!(status, 403, "{dialect:?} {name} twice");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_about_is_read_to_the_letter() {
    let lab = setup().start().await;
    for (url, status) in [
        ("https://app.example.test/echo/open", 200),
        ("https://APP.example.test:443/echo/open", 200),
        ("https://app.example.test/echo/open#/echo/private", 403),
        ("https://user@app.example.test/echo/open", 403),
        ("https://app.example.test", 403),
        ("https://app.example.test?x", 403),
        ("/echo/open", 403),
        ("app.example.test/echo/open", 403),
        ("ftp://app.example.test/echo/open", 403),
        ("https:///echo/open", 403),
        ("https://app.example.test/echo/open https://app.example.test/echo/open", 403),
        ("https://other.example/echo/open", 200),
        ("https://wiki.example.test/echo/open", 403),
    ] {
        let question = bent(Dialect::Nginx, |headers| {
            headers.insert("x-original-url", url.parse().expect("a value"));
        });
        let answer = send(lab.app.addr(), question).await;
        // Without a host of its own a route serves any.
        let expected = if url.contains("wiki") { 401 } else { status };
        assert_eq!(answer.status, expected, "{url}: {}", answer.header("x-labgate-reason"));
    }
    // The proxy may have chosen the application by the other one.
    for host in ["wiki.example.test,app.example.test", "app.example.test, app.example.test", ""] {
        let question = bent(Dialect::Caddy, |headers| {
            headers.insert("x-forwarded-host", host.parse().expect("a value"));
        });
        assert_eq!(send(lab.app.addr(), question).await.status, 403, "{host}");
    }
    for uri in ["echo/open", "https://app.example.test/echo/open", "/echo/open#x", "*", ""] {
        let question = bent(Dialect::Traefik, |headers| {
            headers.insert("x-forwarded-uri", uri.parse().expect("a value"));
        });
        let status = send(lab.app.addr(), question).await.status;
        assert!(status == 400 || status == 403, "{uri}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_method_may_be_left_out_where_no_route_looks_at_it() {
    let lab = setup().routes(&ROUTES.replace("methods = ", "# methods = ")).start().await;
    for (dialect, name) in
        [(Dialect::Nginx, "x-original-method"), (Dialect::Haproxy, "x-forwarded-method")]
    {
        let missing = bent(dialect, |headers| drop(headers.remove(name)));
        assert_eq!(send(lab.app.addr(), missing).await.status, 200, "{dialect:?}");
        let odd = bent(dialect, |headers| {
            headers.insert(name, "G(T".parse().expect("a value"));
        });
        assert_eq!(send(lab.app.addr(), odd).await.status, 403, "{dialect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_sign_in_and_back_to_the_very_url() {
    let lab = setup().start().await;
    let path = "/echo/private/%C3%A4?a=b&c=%2F%26";
    let encoded: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
    let sign_in = format!("https://{HOST}/oauth2/sign_in?rd={encoded}");
    for dialect in Dialect::ALL {
        let answer = Arrived::get(path).navigation().ask(dialect, lab.app.addr()).await;
        let nginx = dialect == Dialect::Nginx;
        assert_eq!(answer.status, if nginx { 401 } else { 302 }, "{dialect:?}");
        assert_eq!(answer.header("location"), sign_in, "{dialect:?}");
        let answer = Arrived::get(path).header("accept", "*/*").ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 401, "{dialect:?}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
        // nginx looks for it at every 401; to follow it as a script leads to 401 again.
        assert_eq!(answer.header("location"), if nginx { sign_in.as_str() } else { "" });
        assert_eq!(answer.json()["sign_in"], sign_in, "{dialect:?}");
    }
    let page = lab.browser().sign_in(&sign_in, "alice").await;
    assert_eq!((page.status, page.url.as_str()), (200, format!("https://{HOST}{path}").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_hosts_paths_and_our_own_are_refused() {
    let lab = setup().start().await;
    let alice = lab.signed_in("alice").await.session();
    for dialect in Dialect::ALL {
        for (path, reason) in [
            ("/elsewhere", "front_no_route"),
            ("/oauth2/sign_in", "front_own_path"),
            ("/oauth2/auth/nginx", "front_own_path"),
            ("/echo/../oauth2/x", "front_own_path"),
            ("/OAUTH2/sign_in", "front_own_path"),
        ] {
            let answer = Arrived::get(path).cookie(&alice).ask(dialect, lab.app.addr()).await;
            assert_eq!(answer.status, 403, "{dialect:?} {path}");
            assert_eq!(answer.header("x-labgate-reason"), reason, "{dialect:?} {path}");
        }
    }
    // A route that only front proxies ask about leads nowhere else.
    let asked = Arrived::get("/asked").cookie(&alice);
    assert_eq!(asked.ask(Dialect::Caddy, lab.app.addr()).await.status, 200);
    assert_eq!(send(lab.app.addr(), asked.proxied()).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_in_the_query_narrow_and_never_widen() {
    let lab = setup().start().await;
    let (alice, carol) = (lab.signed_in("alice").await, lab.signed_in("carol").await);
    for (endpoint, path, who, status) in [
        ("/oauth2/auth", "/echo/private", &alice, 200),
        ("/oauth2/auth?allowed_groups=acme", "/echo/private", &alice, 200),
        ("/oauth2/auth?allowed_groups=acme/ops,none", "/echo/private", &alice, 200),
        ("/oauth2/auth?allowed_groups=none", "/echo/private", &alice, 403),
        ("/oauth2/auth?allowed_groups=acme", "/echo/private", &carol, 403),
        ("/oauth2/auth/nginx?allowed_groups=acme", "/echo/open", &carol, 403),
        ("/oauth2/auth?allowed_groups=", "/echo/open", &alice, 403),
        ("/oauth2/auth?allowed_roles=x", "/echo/private", &alice, 403),
        ("/oauth2/auth?rd=x", "/echo/private", &alice, 200),
        ("/oauth2/auth?host=APP.example.test", "/echo/private", &alice, 200),
        ("/oauth2/auth?host=wiki.example.test", "/echo/private", &alice, 403),
        ("/oauth2/auth?host=app.example.test&host=wiki.example.test", "/echo/private", &alice, 403),
        ("/oauth2/auth?host=", "/echo/open", &alice, 403),
        // What the route refuses, no query allows.
        ("/oauth2/auth?allowed_emails=carol@example.com", "/echo/team", &carol, 403),
    ] {
        let arrived = Arrived::get(path).cookie(&who.session());
        let question = arrived.question_at(Dialect::Nginx, endpoint);
        let answer = send(lab.app.addr(), question).await;
        assert_eq!(answer.status, status, "{endpoint} {path}");
    }
    // Nobody, where only a condition asks for somebody.
    let question =
        Arrived::get("/echo/open").question_at(Dialect::Nginx, "/oauth2/auth?allowed_groups=acme");
    let answer = send(lab.app.addr(), question).await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("location").contains("/oauth2/sign_in"));
    // Envoy's query belongs to what it asks about.
    let arrived = Arrived::get("/echo/private?allowed_groups=none").cookie(&alice.session());
    assert_eq!(arrived.ask(Dialect::Envoy, lab.app.addr()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_name_groups_as_rules_do_for_people_and_programs() {
    let routes = "[[route]]\nupstream = \"UPSTREAM\"\nallow = [{ group = \"acme\" }, { group = \"acme/gone\" }]\n";
    let lab = setup().gitlab(ALL).routes(routes).start().await;
    let (user, token) = ("alice".to_owned(), "a".repeat(64));
    let (client_id, scopes) = ("labgate-demo".to_owned(), ["openid", "read_user"]);
    let scopes = scopes.map(str::to_owned).to_vec();
    let mint = Mint::Oauth { user, client_id, token: token.clone(), scopes };
    lab.gitlab.mint(mint).expect("carried out");
    let asked = Arrived::get("/echo/x");
    let browser = asked.clone().cookie(&lab.signed_in("alice").await.session());
    let program = asked.header("authorization", &format!("Bearer {token}"));
    for (groups, status) in [
        ("acme", 200),
        // GitLab lists it, though no rule names it.
        ("acme/ops", 200),
        // Of what a rule names it says that it is not there, whatever alice is above it.
        ("acme/gone", 403),
        ("none", 403),
    ] {
        for arrived in [&browser, &program] {
            let endpoint = format!("/oauth2/auth?allowed_groups={groups}");
            let question = arrived.question_at(Dialect::Nginx, &endpoint);
            assert_eq!(send(lab.app.addr(), question).await.status, status, "{groups}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_cookie_is_never_renewed_lives_on_through_three_tokens() {
    let lab = setup().session("idle_timeout = \"1h\"\n").start().await;
    lab.gitlab.set_access_token_lifetime(7200);
    let alice = lab.signed_in("alice").await.session();
    let arrived = Arrived::get("/echo/team").cookie(&alice);
    // Seven hours in steps of a quarter: idle for never as long as an hour.
    for step in 0..28 {
        lab.clock.turn(900);
        let answer = arrived.ask(Dialect::Traefik, lab.app.addr()).await;
        assert_eq!(answer.status, 200, "step {step}: {}", answer.text());
    }
    assert!(lab.gitlab.hits(Endpoint::Token) >= 4, "the sign-in, and three pairs after it");
    lab.gitlab.set_role("acme", "alice", None).expect("alice");
    lab.gitlab.set_role("acme/ops", "alice", Some(Role::Guest)).expect("alice");
    lab.clock.turn(900);
    assert_eq!(arrived.ask(Dialect::Traefik, lab.app.addr()).await.status, 403);
    lab.clock.turn(3700);
    assert_eq!(arrived.ask(Dialect::Traefik, lab.app.addr()).await.status, 401, "idle for an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_navigation_fetches_its_cookie_once_and_survives_a_restart_by_it() {
    let lab = setup().start().await;
    lab.gitlab.set_access_token_lifetime(7200);
    let mut browser = lab.signed_in("alice").await;
    let navigation = |cookie: &str| Arrived::get("/echo/team?x=1").navigation().cookie(cookie);
    let old = browser.session();
    assert_eq!(navigation(&old).ask(Dialect::Caddy, lab.app.addr()).await.status, 200);
    lab.clock.turn(7150);
    // A script gets its answer; the tokens are new by then.
    let script = Arrived::get("/echo/team").cookie(&old);
    assert_eq!(script.ask(Dialect::Caddy, lab.app.addr()).await.status, 200);
    let answer = navigation(&old).ask(Dialect::Caddy, lab.app.addr()).await;
    assert_eq!(answer.status, 302);
    let renew = answer.header("location").to_owned();
    assert!(renew.starts_with(&format!("https://{HOST}/oauth2/renew?rd=")), "{renew}");
    // A browser that does not keep the cookie is not sent again.
    assert_eq!(navigation(&old).ask(Dialect::Caddy, lab.app.addr()).await.status, 200);
    let answer = browser.navigate(&renew).await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), format!("https://{HOST}/echo/team?x=1"));
    let new = browser.session();
    assert_ne!(new, old);
    lab.clock.turn(120);
    assert_eq!(navigation(&new).ask(Dialect::Caddy, lab.app.addr()).await.status, 200);
    // Another process knows nothing but the cookie: the new one is enough, the old one is spent.
    let replica = run(&lab.config, &lab.clock, 1);
    assert_eq!(navigation(&new).ask(Dialect::Caddy, replica.addr()).await.status, 200);
    // oauth2-proxy's users send a browser to one fixed address: it is let in as it is.
    lab.clock.turn(7150);
    assert_eq!(script.ask(Dialect::Caddy, lab.app.addr()).await.status, 200);
    let plain = navigation(&old).question_at(Dialect::Nginx, "/oauth2/auth");
    assert_eq!(send(lab.app.addr(), plain).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_gets_the_whole_answer_for_its_error_page() {
    let lab = setup().start().await;
    let carol = lab.signed_in("carol").await.session();
    let ask = async |arrived: Arrived| {
        let question = arrived.question_at(Dialect::Nginx, "/oauth2/auth/nginx/answer");
        send(lab.app.addr(), question).await
    };
    let answer = ask(Arrived::get("/echo/team?q").navigation()).await;
    assert_eq!(answer.status, 302);
    assert!(answer.header("location").contains("/oauth2/sign_in?rd=%2Fecho%2Fteam%3Fq"));
    let answer = ask(Arrived::get("/echo/team")).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (401, ""));
    let answer = ask(Arrived::get("/echo/team").navigation().cookie(&carol)).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("acme"), "{}", answer.text());
    // Whoever passes gets nothing from here.
    let answer = ask(Arrived::get("/echo/private").navigation().cookie(&carol)).await;
    assert_eq!(answer.status, 502);
    assert!(answer.headers.get("x-forwarded-user").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_tells_a_browser_to_fetch_its_cookie_and_tells_it_once() {
    let lab = setup().start().await;
    lab.gitlab.set_access_token_lifetime(7200);
    let old = lab.signed_in("alice").await.session();
    lab.clock.turn(7150);
    let navigation = Arrived::get("/echo/team").navigation().cookie(&old);
    assert_eq!(
        Arrived::get("/echo/team").cookie(&old).ask(Dialect::Caddy, lab.app.addr()).await.status,
        200
    );
    let (verdict, answer) = ("/oauth2/auth/nginx", "/oauth2/auth/nginx/answer");
    let ask = async |endpoint| {
        send(lab.app.addr(), navigation.question_at(Dialect::Nginx, endpoint)).await
    };
    assert_eq!(ask(verdict).await.status, 401);
    let whole = ask(answer).await;
    assert_eq!(whole.status, 302);
    assert!(whole.header("location").contains("/oauth2/renew?rd="), "{:?}", whole.headers);
    // It did not keep the cookie: from now on it is let in as it is, and not sent round.
    assert_eq!(ask(verdict).await.status, 200);
    assert_eq!(ask(answer).await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_silent_for_too_long_is_503_in_every_dialect() {
    let lab = setup().session("recheck_timeout = \"1s\"\n").start().await;
    let alice = lab.signed_in("alice").await.session();
    lab.gitlab.set_silent(true);
    lab.clock.turn(4000);
    let arrived = Arrived::get("/echo/private").navigation().cookie(&alice);
    for dialect in Dialect::ALL {
        let answer = arrived.ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 503, "{dialect:?}");
        assert!(!answer.header("retry-after").is_empty());
        assert_eq!(answer.header("x-labgate-reason"), "gitlab_unreachable");
    }
    lab.gitlab.set_silent(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_known_by_their_tokens_at_this_door_too() {
    let lab = setup()
        .server("ext_authz = \"127.0.0.1:0\"\n")
        .gitlab("tokens = { accept = [\"personal\"] }\n")
        .start()
        .await;
    let alice = lab.signed_in("alice").await.session();
    let scopes = vec!["read_api".into(), "read_user".into()];
    let (user, token) = ("bob".into(), "glpat-asked".into());
    let made = Command::AddPersonalToken { user, token, scopes, expires_at: None };
    lab.gitlab.command(made).expect("a token");
    let with = |path: &str, token: &str| {
        let arrived = Arrived::get(path).header("accept", "*/*").cookie(&alice);
        arrived.header("authorization", &format!("Bearer {token}"))
    };
    for dialect in Dialect::ALL {
        let answer = with("/echo/private", "glpat-asked").ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 200, "{dialect:?}: {}", answer.text());
        assert_eq!(answer.header("x-forwarded-user"), "bob", "{dialect:?}: before the session");
        let answer = with("/echo/private", "glpat-forged").ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 401, "{dialect:?}: not even beside a good session");
        assert!(answer.header("www-authenticate").contains("invalid_token"), "{dialect:?}");
        assert!(answer.headers.get("x-forwarded-user").is_none());
        // Whom the rules refuse, a token does not let in.
        let answer = with("/echo/team/ops", "glpat-asked").ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 403, "{dialect:?}: {}", answer.text());
    }
    let question = Question::get("/echo/private").with("authorization", "Bearer glpat-asked");
    let verdict = envoy::ask(lab.app.ext_authz_addr().expect("it is on"), &question).await;
    assert_eq!(verdict.set["x-forwarded-user"], "bob");
    assert_eq!(verdict.metadata["user"], "bob@main");
    assert_eq!(verdict.removed, ["authorization"], "the application gets no token");
}
