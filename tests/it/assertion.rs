//! The signed assertion as an application sees it, headers by choice, and access tokens where a route asks for them.

use std::{path::Path, sync::Arc};

use futures_util::future::try_join_all;
use http::{Method, Request};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, crypto, decode, decode_header, encode,
    jwk::JwkSet,
};
use labgate::{
    config::Dialect,
    demo::gitlab::{Command, Document},
};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::{
    support::{
        Answer, Arrived, Browser, HOST, House, Lab, Setup, Wire, appears, get, labgate, outcome,
        send, until,
    },
    tokens::ALL,
};

const ROUTES: &str = r#"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo/token"
upstream = "UPSTREAM"
allow = "signed-in"
access_token = true
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo/open"
upstream = "UPSTREAM"
allow = "public"
[[route]]
host = "wiki.example.test"
upstream = "UPSTREAM"
allow = "signed-in"
"#;

/// A new key, as `labgate keygen` makes it.
fn key() -> String {
    let (code, key, _) = outcome(&mut labgate(&["keygen", "assertion"], &[]));
    assert_eq!(code, 0);
    key
}

/// A lab whose assertions live for `lifetime`, with further lines in `[identity]`.
fn setup(lifetime: &str, lines: &str) -> Setup {
    let key = key();
    let assertion =
        format!("assertion = {{ key = \"\"\"\n{key}\"\"\", lifetime = \"{lifetime}\" }}\n{lines}");
    Setup::default().routes(ROUTES).identity(&assertion)
}

/// All values that arrived under `name`, as `/echo` tells them.
fn arrived<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let pairs = echo["headers"].as_array().expect("headers").iter();
    pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().expect("text")).collect()
}

/// The one assertion that arrived.
fn assertion(echo: &Value) -> String {
    match arrived(echo, "x-labgate-assertion").as_slice() {
        [one] => (*one).to_owned(),
        several => panic!("{several:?}: {echo}"),
    }
}

async fn published(lab: &Lab) -> JwkSet {
    serde_json::from_str(&get(lab.app.addr(), "/oauth2/jwks.json").await.text()).expect("keys")
}

/// What an application does: the claims of `token`, if all is as it should be at `host`.
fn verified(token: &str, keys: &JwkSet, host: &str) -> Result<Value, String> {
    let fault = |error: jsonwebtoken::errors::Error| error.to_string();
    let header = decode_header(token).map_err(fault)?;
    let key = keys.find(header.kid.as_deref().unwrap_or_default()).ok_or("an unknown key")?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[host]);
    validation.set_issuer(&[format!("https://{HOST}")]);
    let key = DecodingKey::from_jwk(key).map_err(fault)?;
    decode(token, &key, &validation).map(|token| token.claims).map_err(fault)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_can_check_who_it_is() {
    let lab = setup("5m", "").start().await;
    let mut browser = lab.signed_in("alice").await;
    let echo = browser.xhr("/echo/x").await.json();
    let keys = published(&lab).await;
    let token = assertion(&echo);
    let claims = verified(&token, &keys, HOST).unwrap();
    let now = lab.clock.now().unix();
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(iat <= now && now < iat + 60 && exp == iat + 300, "{claims}");
    let user = format!("{}#2", lab.gitlab.external_url().trim_end_matches('/'));
    for (claim, value) in [
        ("iss", json!(format!("https://{HOST}"))),
        ("aud", json!(HOST)),
        ("sub", json!(user)),
        ("username", json!("alice")),
        ("name", json!("Alice Example")),
        ("email", json!("alice@example.com")),
        ("groups", json!(arrived(&echo, "x-forwarded-groups")[0].split(',').collect::<Vec<_>>())),
        ("gitlab", json!("main")),
        ("kind", json!("browser")),
    ] {
        assert_eq!(claims[claim], value, "{claim}: {claims}");
    }
    assert_eq!(claims["sid"].as_str().unwrap().len(), 32);
    assert!(!claims["jti"].as_str().unwrap().is_empty());
    assert_eq!(decode_header(&token).unwrap().typ.as_deref(), Some("JWT"));
    // On another host it is for that host, by the same issuer.
    let page = browser.sign_in("https://wiki.example.test/private", "alice").await;
    assert_eq!(page.status, 200);
    let echo = browser.xhr("https://wiki.example.test/echo/x").await.json();
    let token = assertion(&echo);
    assert!(verified(&token, &keys, "wiki.example.test").is_ok());
    assert_eq!(verified(&token, &keys, HOST).unwrap_err(), "InvalidAudience");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_public_url_the_issuer_is_what_the_browser_sees() {
    let routes =
        "[[route]]\nhost = \"app.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    let lab = setup("5m", "").routes(routes).public_url("").start().await;
    let mut browser = lab.browser();
    let page = browser.sign_in("http://app.example.test/private", "alice").await;
    assert_eq!(page.status, 200, "{}", page.text());
    let echo = browser.xhr("http://app.example.test/echo").await.json();
    let fault = verified(&assertion(&echo), &published(&lab).await, HOST).unwrap_err();
    assert_eq!(fault, "InvalidIssuer");
    assert_eq!(claims(&assertion(&echo))["iss"], "http://app.example.test");
}

/// The claims without a look at the signature.
fn claims(token: &str) -> Value {
    jsonwebtoken::dangerous::insecure_decode(token).unwrap().claims
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_taken_for_one() {
    let lab = setup("5m", "").start().await;
    let mut browser = lab.signed_in("alice").await;
    let token = assertion(&browser.xhr("/echo/x").await.json());
    let keys = published(&lab).await;
    assert!(verified(&token, &keys, HOST).is_ok());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (head, body) = message.split_once('.').unwrap();
    let kid = decode_header(&token).unwrap().kid;
    let own = DecodingKey::from_jwk(keys.find(kid.as_deref().unwrap()).unwrap()).unwrap();
    assert!(crypto::verify(signature, message.as_bytes(), &own, Algorithm::ES256).unwrap());
    let mut other = claims(&token);
    other["username"] = json!("root");
    let forged = |algorithm, key: &EncodingKey| {
        let header = Header { kid: kid.clone(), ..Header::new(algorithm) };
        encode(&header, &other, key).unwrap()
    };
    // Somebody's own key, and the public one for a secret: the oldest tricks there are.
    let foreign = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let foreign = EncodingKey::from_ec_der(&foreign.serialize_der());
    let document = get(lab.app.addr(), "/oauth2/jwks.json").await.text();
    let public = EncodingKey::from_secret(document.as_bytes());
    let ours = format!(
        "{}.{body}.{signature}",
        forged(Algorithm::ES256, &foreign).split('.').next().unwrap()
    );
    assert_ne!(ours.split('.').next(), Some(head));
    for wrong in [
        forged(Algorithm::ES256, &foreign),
        forged(Algorithm::HS256, &public),
        format!(
            "{head}.{}.{signature}",
            forged(Algorithm::ES256, &foreign).split('.').nth(1).unwrap()
        ),
        format!("{message}."),
        ours,
    ] {
        assert!(verified(&wrong, &keys, HOST).is_err(), "{wrong}");
    }
    // One that was signed long ago, by the clock of those who check.
    lab.clock.turn(-1000);
    let old = assertion(&lab.signed_in("bob").await.xhr("/echo/x").await.json());
    assert_eq!(verified(&old, &keys, HOST).unwrap_err(), "ExpiredSignature");
}

const SIGNED: &str = "labgate_assertions_signed_total";

/// A browser that is signed in and has asked for nothing yet.
async fn arrived_only(lab: &Lab) -> Browser {
    let mut browser = lab.browser();
    let page = browser.sign_in("/oauth2/sign_in?rd=/oauth2/signed_in", "alice").await;
    assert_eq!(page.status, 200, "{}", page.text());
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_first_requests_of_a_session_are_given_one() {
    let lab = setup("5m", "").workers(4).start().await;
    for sessions in 1..=20 {
        let session = arrived_only(&lab).await.session();
        let head = format!("GET /echo/x HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n\r\n");
        // All connect first, so that the requests come at once.
        let (addr, ready) = (lab.app.addr(), Arc::new(Barrier::new(50)));
        let asked = (0..50).map(|_| {
            let (head, ready) = (head.clone(), ready.clone());
            tokio::spawn(async move {
                let mut wire = Wire::to(addr).await;
                ready.wait().await;
                wire.write(&head).await;
                assertion(&wire.answer().await.json())
            })
        });
        let told = try_join_all(asked).await.expect("answers");
        assert!(told.iter().all(|assertion| *assertion == told[0]), "more than one");
        assert_eq!(lab.count(SIGNED).await, sessions);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_signed_once_and_again_when_half_of_it_is_over() {
    let lab = setup("5m", "").start().await;
    let mut browser = arrived_only(&lab).await;
    let first = assertion(&browser.xhr("/echo/x").await.json());
    for _ in 0..20 {
        assert_eq!(assertion(&browser.xhr("/echo/x").await.json()), first);
    }
    assert_eq!(lab.count(SIGNED).await, 1);
    lab.clock.turn(150);
    let second = assertion(&browser.xhr("/echo/x").await.json());
    assert_ne!(first, second);
    let left = claims(&second)["exp"].as_u64().unwrap() - lab.clock.now().unix();
    assert!(left > 150, "{left}");
    assert_ne!(claims(&first)["jti"], claims(&second)["jti"]);
    assert_eq!(claims(&first)["sid"], claims(&second)["sid"]);
    assert_eq!(assertion(&browser.xhr("/echo/x").await.json()), second);
    assert_eq!(lab.count(SIGNED).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_changed_is_told_anew() {
    let lab = setup("1h", "").start().await;
    let mut browser = lab.signed_in("alice").await;
    let first = assertion(&browser.xhr("/echo/x").await.json());
    assert_eq!(claims(&first)["name"], "Alice Example");
    lab.gitlab.overlay(Document::User, json!({ "name": "Alice Newname" }));
    lab.gitlab.overlay(Document::Userinfo, json!({ "name": "Alice Newname" }));
    // Beyond `recheck`, not half of the assertion's lifetime.
    lab.clock.turn(400);
    until("the new name", async || {
        claims(&assertion(&browser.xhr("/echo/x").await.json()))["name"] == "Alice Newname"
    })
    .await;
}

/// One request with these fields, as bytes.
async fn ask(lab: &Lab, path: &str, fields: &str) -> Value {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n");
    Wire::say(lab.app.addr(), head).await.answer().await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_say_no_assertion_with_a_key_or_without() {
    let spoofs =
        "X-Labgate-Assertion: mallory\r\nx_labgate_assertion: mallory\r\nX-Signed: mallory";
    let own = "headers = { X-Signed = \"assertion\", X-Both = \"{username} {assertion}\" }";
    let lab = setup("5m", own).start().await;
    let session = lab.signed_in("alice").await.session();
    let echo = ask(&lab, "/echo/x", &format!("Cookie: {session}\r\n{spoofs}")).await;
    assert!(!echo.to_string().contains("mallory"), "{echo}");
    assert!(arrived(&echo, "x-labgate-assertion").is_empty(), "another table was given");
    let signed = arrived(&echo, "x-signed");
    assert!(verified(signed[0], &published(&lab).await, HOST).is_ok());
    assert_eq!(arrived(&echo, "x-both"), [format!("alice {}", signed[0])]);
    // Nobody is nobody.
    let echo = ask(&lab, "/echo/open", spoofs).await;
    assert!(!echo.to_string().contains("mallory"), "{echo}");
    assert!(arrived(&echo, "x-signed").is_empty() && arrived(&echo, "x-both").is_empty());

    let lab = Setup::default().routes(ROUTES).start().await;
    let session = lab.signed_in("alice").await.session();
    let spoofs = "X-Labgate-Assertion: mallory\r\nX_Labgate.Assertion: mallory";
    let echo = ask(&lab, "/echo/x", &format!("Cookie: {session}\r\n{spoofs}")).await;
    assert!(!echo.to_string().contains("mallory"), "{echo}");
    assert!(arrived(&echo, "x-labgate-assertion").is_empty());
    assert_eq!(get(lab.app.addr(), "/oauth2/jwks.json").await.status, 404);
}

async fn keys_at(lab: &Lab, method: Method, host: &str) -> Answer {
    let request = Request::builder().method(method).uri("/oauth2/jwks.json").header("host", host);
    send(lab.app.addr(), request.body(String::new()).expect("a request")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_anybodys_and_may_be_kept() {
    let lab = setup("5m", "").start().await;
    for host in [HOST, "wiki.example.test", "127.0.0.1:4180", "labgate.default.svc"] {
        let answer = keys_at(&lab, Method::GET, host).await;
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(answer.header("cache-control"), "public, max-age=300");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(answer.cookies().is_empty() && answer.headers.get("vary").is_none());
        let keys = answer.json();
        let key = keys["keys"][0].as_object().unwrap();
        let members: Vec<_> = key.keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    }
    assert_eq!(keys_at(&lab, Method::HEAD, HOST).await.status, 200);
    assert_eq!(keys_at(&lab, Method::POST, HOST).await.status, 405);
    // Everything else of labgate's own stays with the hosts that it serves.
    let request = Request::get("/oauth2/userinfo").header("host", "127.0.0.1").body(String::new());
    assert_eq!(send(lab.app.addr(), request.unwrap()).await.status, 421);
}

async fn house_keys(house: &House) -> JwkSet {
    serde_json::from_str(&get(house.addr, "/oauth2/jwks.json").await.text()).expect("keys")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_by_a_reload() {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = ["old", "new"].map(|name| directory.path().join(format!("{name}.pem")));
    for path in &paths {
        std::fs::write(path, key()).expect("a file");
    }
    let [old, new] = paths.each_ref().map(|path| format!("{{ file = \"{}\" }}", path.display()));
    let of = |keys: &str| format!("assertion = {{ key = {keys} }}");
    let first = of(&old);
    let house = Setup::default().routes(ROUTES).identity(&first).process(&[]).await;
    let mut browser = house.signed_in("alice").await;
    let before = assertion(&browser.xhr("/echo/x").await.json());
    let kid = |token: &str| decode_header(token).unwrap().kid.unwrap();
    let old_kid = kid(&before);
    for (keys, count, signer_is_old) in [
        (format!("[{old}, {new}]"), 2, true),
        (format!("[{new}, {old}]"), 2, false),
        (new.clone(), 1, false),
    ] {
        let last = house_keys(&house).await;
        house.write(&house.config.replace(&first, &of(&keys)));
        house.labgate.signal("HUP");
        appears("other keys", async || (house_keys(&house).await != last).then_some(())).await;
        let set = house_keys(&house).await;
        assert_eq!(set.keys.len(), count, "{keys}");
        let token = assertion(&browser.xhr("/echo/x").await.json());
        assert_eq!(kid(&token) == old_kid, signer_is_old, "{keys}");
        assert!(verified(&token, &set, HOST).is_ok(), "{keys}");
        // What was handed out before is good for as long as its key is published.
        assert_eq!(verified(&before, &set, HOST).is_ok(), count == 2, "{keys}");
    }
    rewrite(&paths[1], &house).await;
}

/// Another key in the same file needs no signal.
async fn rewrite(path: &Path, house: &House) {
    let last = house_keys(house).await;
    let renewed = path.with_extension("renewed");
    std::fs::write(&renewed, key()).expect("a file");
    std::fs::rename(renewed, path).expect("a file");
    appears("the new key", async || (house_keys(house).await != last).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_tokens_go_where_a_route_asks_for_them() {
    let own = "identity_is_elsewhere";
    let headers = "headers = { X-Forwarded-Access-Token = \"access_token\", X-Auth = \"Bearer {access_token}\", X-User = \"username\" }";
    let lab = Setup::default().routes(ROUTES).identity(headers).start().await;
    let session = lab.signed_in("alice").await.session();
    let spoofs = format!("X-Forwarded-Access-Token: {own}\r\nX-Auth: {own}");
    for (path, told) in [("/echo/token", true), ("/echo/x", false), ("/echo/open", false)] {
        let echo = ask(&lab, path, &format!("Cookie: {session}\r\n{spoofs}")).await;
        assert!(!echo.to_string().contains(own), "{path}: {echo}");
        let tokens = arrived(&echo, "x-forwarded-access-token");
        assert_eq!(tokens.len(), usize::from(told), "{path}: {echo}");
        assert_eq!(arrived(&echo, "x-auth").len(), usize::from(told), "{path}: {echo}");
        assert_eq!(arrived(&echo, "x-user"), ["alice"], "{path}");
        if let [token] = tokens.as_slice() {
            let who = format!("{}/api/v4/user", lab.gitlab.url());
            let request = Request::get(who).header("authorization", format!("Bearer {token}"));
            let answer = send(lab.gitlab.addr(), request.body(String::new()).unwrap()).await;
            assert_eq!(answer.json()["username"], "alice");
            assert_eq!(arrived(&echo, "x-auth"), [format!("Bearer {token}")]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_proxy_is_given_the_assertion_to_hand_on() {
    let own = "headers = { X-Labgate-Assertion = \"assertion\", X-Token = \"access_token\" }";
    let lab = setup("5m", own).server("trusted_proxies = [\"127.0.0.0/8\"]\n").start().await;
    let session = lab.signed_in("alice").await.session();
    let keys = published(&lab).await;
    for dialect in
        [Dialect::Nginx, Dialect::Traefik, Dialect::Caddy, Dialect::Haproxy, Dialect::Envoy]
    {
        for (path, with_token) in [("/echo/x", false), ("/echo/token", true)] {
            let asked =
                Arrived::get(path).cookie(&session).header("x-labgate-assertion", "mallory");
            let answer = asked.ask(dialect, lab.app.addr()).await;
            assert_eq!(answer.status, 200, "{dialect:?}");
            let claims = verified(answer.header("x-labgate-assertion"), &keys, HOST).unwrap();
            assert_eq!(claims["username"], "alice", "{dialect:?}");
            assert_eq!(!answer.header("x-token").is_empty(), with_token, "{dialect:?} {path}");
        }
        // Nobody: the name is there, so that what the client said goes.
        let answer = Arrived::get("/echo/open").header("x-labgate-assertion", "mallory");
        let answer = answer.ask(dialect, lab.app.addr()).await;
        assert_eq!(answer.status, 200, "{dialect:?}");
        assert!(!answer.headers.values().any(|value| value == "mallory"), "{dialect:?}");
    }
    // One at the sign-in for the application itself, and one with less room, for all proxies.
    assert_eq!(lab.count("labgate_assertions_signed_total").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_in_hundreds_of_groups_is_told_of_by_name() {
    let lab = setup("5m", "").server("trusted_proxies = [\"127.0.0.0/8\"]\n").start().await;
    lab.gitlab
        .command(Command::AddGroups { user: "alice".into(), count: 300 })
        .expect("carried out");
    let session = lab.signed_in("alice").await.session();
    let keys = published(&lab).await;
    let asked = Arrived::get("/echo/x").cookie(&session);
    let answer = asked.ask(Dialect::Nginx, lab.app.addr()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-forwarded-user"), "alice");
    assert_eq!(answer.header("x-auth-request-email"), "alice@example.com");
    assert!(answer.header("x-forwarded-groups").contains(','));
    let size: usize =
        answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    assert!(size < 4000, "{size}");
    let claims = verified(answer.header("x-labgate-assertion"), &keys, HOST).expect("a good one");
    let told = claims["groups"].as_array().expect("a list").len();
    // An application that is proxied to has room for more.
    let echo = ask(&lab, "/echo/x", &format!("Cookie: {session}")).await;
    let claims = verified(&assertion(&echo), &keys, HOST).expect("a good one");
    let proxied = claims["groups"].as_array().expect("a list").len();
    assert!(0 < told && told < proxied && assertion(&echo).len() < 8000, "{told} {proxied}");
}

/// A route for people's tokens, and one for jobs that asks for access tokens in vain.
const CALLERS: &str = r#"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo/token"
upstream = "UPSTREAM"
allow = "signed-in"
access_token = true
[[route]]
path = "/echo/shop"
upstream = "UPSTREAM"
allow = [{ ci_project = "acme/web/shop" }]
access_token = true
"#;

#[tokio::test(flavor = "multi_thread")]
async fn of_a_caller_with_a_token_it_says_as_much_and_hands_no_token_on() {
    let lines = "headers = { X-Labgate-Assertion = \"assertion\", X-Token = \"access_token\" }";
    let lab = setup("5m", lines).gitlab(ALL).routes(CALLERS);
    let lab = lab.server("trusted_proxies = [\"127.0.0.0/8\"]\n").start().await;
    let keys = published(&lab).await;
    let alices = "glpat-alice-reads-1234".to_owned();
    let (user, scopes) = ("alice".to_owned(), vec!["read_user".to_owned()]);
    let command =
        Command::AddPersonalToken { user, token: alices.clone(), scopes, expires_at: None };
    lab.gitlab.command(command).expect("carried out");
    let job = json!({ "environment": "production" });
    let job = lab.gitlab.ci_id_token(job.as_object().expect("claims"));
    let said = async |path: &str, token: &str| {
        let echo = ask(&lab, path, &format!("Authorization: Bearer {token}")).await;
        assert!(!echo.to_string().contains(token), "{echo}");
        assert!(arrived(&echo, "x-token").is_empty(), "{echo}");
        let assertion = assertion(&echo);
        let claims = verified(&assertion, &keys, HOST).expect("a good one");
        assert_eq!(claims.get("sid"), None);
        (assertion, claims)
    };
    let (first, claims) = said("/echo/x", &alices).await;
    assert_eq!((&claims["username"], &claims["kind"]), (&json!("alice"), &json!("token")));
    assert!(claims["sub"].as_str().expect("text").ends_with("#2"), "{claims}");
    assert_eq!(claims.get("project_path"), None);
    let (_, claims) = said("/echo/shop", &job).await;
    for (claim, value) in [
        ("kind", "ci"),
        ("project_path", "acme/web/shop"),
        ("ref", "main"),
        ("environment", "production"),
    ] {
        assert_eq!(claims[claim], value, "{claim}: {claims}");
    }
    assert!(claims["sub"].as_str().expect("text").ends_with("#project:102"), "{claims}");
    assert_eq!((claims.get("email"), claims.get("groups")), (None, None));
    let exp = claims["exp"].as_u64().expect("seconds");
    assert_eq!(exp, claims["iat"].as_u64().expect("seconds") + 300, "the token lasts longer");
    // One that is soon over leaves no assertion behind.
    let soon = json!({ "exp": lab.clock.now().unix() + 60 });
    let soon = lab.gitlab.ci_id_token(soon.as_object().expect("claims"));
    let (_, claims) = said("/echo/shop", &soon).await;
    assert!(claims["exp"].as_u64().expect("seconds") < exp, "{claims}");
    // It is the one that is ready, until GitLab is asked about the token again.
    assert_eq!(said("/echo/token", &alices).await.0, first);
    assert_eq!(lab.count("labgate_assertions_signed_total").await, 3);
    lab.clock.turn(61);
    assert_ne!(said("/echo/x", &alices).await.0, first);
    assert_eq!(lab.count("labgate_assertions_signed_total").await, 4);
    // And a front proxy gets it too.
    let asked = Arrived::get("/echo/token").header("authorization", &format!("Bearer {alices}"));
    let answer = asked.ask(Dialect::Traefik, lab.app.addr()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("x-token").is_empty());
    let claims = verified(answer.header("x-labgate-assertion"), &keys, HOST).expect("a good one");
    assert_eq!((&claims["username"], &claims["kind"]), (&json!("alice"), &json!("token")));
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_say_what_applications_know_and_strip_it() {
    let lab = setup("5m", "presets = [\"grafana\", \"remote\"]").start().await;
    let session = lab.signed_in("alice").await.session();
    let names = [
        ("x-webauth-user", "alice"),
        ("x-webauth-name", "Alice Example"),
        ("x-webauth-email", "alice@example.com"),
        ("remote-user", "alice"),
        ("remote-name", "Alice Example"),
        ("remote-email", "alice@example.com"),
        ("x-forwarded-user", "alice"),
    ];
    let spoofs = names.map(|(name, _)| format!("{name}: mallory")).join("\r\n");
    let echo = ask(&lab, "/echo/x", &format!("Cookie: {session}\r\n{spoofs}")).await;
    for (name, value) in names {
        assert_eq!(arrived(&echo, name), [value], "{name}");
    }
    for name in ["x-webauth-groups", "remote-groups"] {
        assert_eq!(arrived(&echo, name), arrived(&echo, "x-forwarded-groups"), "{name}");
    }
    let echo = ask(&lab, "/echo/open", &spoofs).await;
    assert!(!echo.to_string().contains("mallory"), "{echo}");
}
