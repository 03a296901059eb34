//! Discovery, the API, token inspection, the switches, and where it may listen.

use std::{net::Ipv4Addr, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn discovery_follows_the_host_but_not_its_issuer() {
    let options = Options {
        external_url: Some("https://gitlab.example/gitlab/".to_owned()),
        ..Options::default()
    };
    let lab = Lab::with(options).await;
    let path = "/gitlab/.well-known/openid-configuration";
    let reply = lab.send(Method::GET, path, &[("host", "internal:8080")], "").await.json();
    assert_eq!(text(&reply, "issuer"), "https://gitlab.example/gitlab");
    assert_eq!(text(&reply, "token_endpoint"), "https://internal:8080/gitlab/oauth/token");
    assert_eq!(reply["labgate_development_gitlab"], true);
    assert!(reply.get("end_session_endpoint").is_none());
    let outside = lab.get("/.well-known/openid-configuration").await;
    assert_eq!(outside.status, StatusCode::NOT_FOUND);
    let chooser = lab.get("/gitlab/users/sign_in").await;
    assert!(chooser.body.contains("action=\"/gitlab/users/sign_in\""));
    assert!(
        chooser
            .header(header::SET_COOKIE)
            .ends_with("Path=/gitlab/; HttpOnly; SameSite=Lax; Secure")
    );
}

#[tokio::test]
async fn the_api_checks_token_then_state_then_scope() {
    let lab = Lab::new().await;
    let openid = lab.tokens_for("alice", "openid").await;
    let openid = text(&openid, "access_token");
    let none = lab.send(Method::GET, "/api/v4/user", &[], "").await;
    assert_eq!((none.status.as_u16(), text(&none.json(), "message")), (401, "401 Unauthorized"));
    let scoped = lab.bearer("/api/v4/user", openid).await;
    assert_eq!(scoped.error(), (403, "insufficient_scope".to_owned()));
    lab.gitlab.set_state("alice", UserState::Deactivated).unwrap();
    let state = lab.bearer("/api/v4/user", openid).await.json();
    assert!(
        text(&state, "message").starts_with("403 Forbidden - Your account has been deactivated")
    );
    lab.gitlab.set_state("alice", UserState::Active).unwrap();
    lab.clock.turn(7200);
    assert_eq!(lab.bearer("/api/v4/user", openid).await.error(), (401, "invalid_token".to_owned()));

    for headers in [("private-token", "glpat-dev-root"), ("authorization", "Bearer glpat-dev-root")]
    {
        let reply = lab.send(Method::GET, "/api/v4/user", &[headers], "").await;
        assert_eq!(reply.header("ratelimit-limit"), "2000");
        let user = reply.json();
        assert_eq!((text(&user, "username"), &user["is_admin"]), ("root", &json!(true)));
    }
    let carol = lab.bearer("/api/v4/user", "glpat-dev-carol").await.json();
    assert_eq!((&carol["confirmed_at"], &carol["external"]), (&Value::Null, &json!(true)));
    assert!(carol.get("is_admin").is_none());
}

#[tokio::test]
async fn a_user_is_looked_up_by_name_and_administrators_see_more() {
    let lab = Lab::new().await;
    let ask = async |token: &str, name: &str| {
        lab.bearer(&format!("/api/v4/users?username={name}"), token).await.json()
    };
    let all = ask("glpat-dev-root", "ALICE").await;
    assert_eq!((&all[0]["id"], &all[0]["two_factor_enabled"]), (&json!(2), &json!(true)));
    let profile = ask("glpat-dev-bob", "alice").await;
    assert_eq!(
        (&profile[0]["username"], &profile[0]["state"]),
        (&json!("alice"), &json!("active"))
    );
    for hidden in ["email", "confirmed_at", "two_factor_enabled", "external"] {
        assert!(profile[0].get(hidden).is_none(), "{hidden}");
    }
    assert_eq!(ask("glpat-dev-root", "nobody").await, json!([]));
}

#[tokio::test]
async fn a_moved_project_redirects_until_another_takes_its_path() {
    let lab = Lab::new().await;
    let (path, to) = ("acme/web/shop".to_owned(), "acme/web/store".to_owned());
    lab.gitlab.command(Command::RenameProject { path: path.clone(), to }).unwrap();
    let ask = async |token: &str| {
        lab.bearer("/api/v4/projects/acme%2Fweb%2Fshop/members/all/4", token).await
    };
    let moved = ask("glpat-dev-carol").await;
    assert_eq!(moved.status.as_u16(), 301);
    assert!(moved.location().ends_with("/api/v4/projects/102/members/all/4"));
    lab.gitlab.command(Command::AddProject { path, visibility: Visibility::Private }).unwrap();
    assert_eq!(ask("glpat-dev-carol").await.status.as_u16(), 404);
}

#[tokio::test]
async fn members_are_effective_and_the_invisible_is_not_found() {
    let lab = Lab::new().await;
    let level = async |token: &str, path: &str| {
        let reply = lab.bearer(&format!("/api/v4/{path}"), token).await;
        let body = reply.json();
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        (reply.status.as_u16(), body["access_level"].as_u64(), message)
    };
    for (token, path, expected) in [
        ("glpat-dev-root", "groups/acme%2Fops/members/all/1", Ok(50)),
        ("glpat-dev-alice", "groups/acme%2Fops/members/all/2", Ok(40)),
        ("glpat-dev-bob", "groups/11/members/all/3", Ok(30)),
        ("glpat-dev-bob", "projects/acme%2Fweb%2Fshop/members/all/3", Ok(40)),
        ("glpat-dev-carol", "projects/102/members/all/4", Ok(20)),
        ("glpat-dev-carol", "groups/acme%2Fops/members/all/4", Err("404 Group Not Found")),
        ("glpat-dev-carol", "projects/101/members/all/4", Err("404 Project Not Found")),
        ("glpat-dev-carol", "groups/open/members/all/4", Err("404 Not found")),
        ("glpat-dev-carol", "groups/nothing/members/all/4", Err("404 Group Not Found")),
    ] {
        let expected = match expected {
            Ok(level) => (200, Some(level), String::new()),
            Err(message) => (404, None, message.to_owned()),
        };
        assert_eq!(level(token, path).await, expected, "{token} {path}");
    }
    let project = lab.bearer("/api/v4/projects/102", "glpat-dev-carol").await.json();
    assert_eq!(project["permissions"]["project_access"]["access_level"], 20);
    assert_eq!(project["permissions"]["group_access"], Value::Null);
    let group = lab.bearer("/api/v4/groups/acme%2Fops", "glpat-dev-alice").await.json();
    assert_eq!((text(&group, "full_path"), &group["parent_id"]), ("acme/ops", &json!(10)));
    lab.gitlab.set_role("acme/ops", "alice", None).unwrap();
    let lower = level("glpat-dev-alice", "groups/11/members/all/2").await;
    assert_eq!(lower.1, Some(30), "what is inherited stays");
}

#[tokio::test]
async fn personal_tokens_tell_about_themselves() {
    let lab = Lab::new().await;
    let path = "/api/v4/personal_access_tokens/self";
    let own = lab.bearer(path, "glpat-dev-bob").await.json();
    assert_eq!(
        (own["user_id"].as_u64(), &own["scopes"]),
        (Some(3), &json!(["read_api", "read_user"]))
    );
    let tokens = lab.tokens("bob").await;
    let oauth = lab.bearer(path, text(&tokens, "access_token")).await;
    assert_eq!(oauth.status, StatusCode::BAD_REQUEST);
    let expires_at = Some(lab.clock.now().unix() + 100);
    let (user, token) = ("bob".to_owned(), "glpat-narrow".to_owned());
    let scopes = vec!["read_repository".to_owned()];
    lab.gitlab.command(Command::AddPersonalToken { user, token, scopes, expires_at }).unwrap();
    assert_eq!(lab.bearer(path, "glpat-narrow").await.status, StatusCode::OK);
    let user = lab.bearer("/api/v4/user", "glpat-narrow").await;
    assert_eq!(user.error(), (403, "insufficient_scope".to_owned()));
    lab.clock.turn(100);
    assert_eq!(lab.bearer(path, "glpat-narrow").await.error(), (401, "invalid_token".to_owned()));
    let token = "glpat-dev-bob".to_owned();
    lab.gitlab.command(Command::RevokePersonalToken { token }).unwrap();
    let revoked = lab.bearer(path, "glpat-dev-bob").await.json();
    assert!(text(&revoked, "error_description").starts_with("Token was revoked."));
}

#[tokio::test]
async fn tokens_can_be_inspected_and_revoked_by_their_own_client_only() {
    let lab = Lab::new().await;
    let other = Application::new("other", "s", &[CALLBACK]);
    lab.gitlab.command(Command::Register(other)).unwrap();
    let tokens = lab.tokens("alice").await;
    let (access, refresh) = (text(&tokens, "access_token"), text(&tokens, "refresh_token"));
    let info = lab.bearer("/oauth/token/info", access).await.json();
    assert_eq!(
        (text(&info["application"], "uid"), &info["resource_owner_id"]),
        (CLIENT_ID, &json!(2))
    );
    let own = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    let foreign = [("client_id", "other"), ("client_secret", "s")];
    let wrong = [("client_id", "other"), ("client_secret", "wrong")];
    let ask = |client: &[(&'static str, &'static str)]| [client, &[("token", "")]].concat();
    let with = |client: &[(&'static str, &'static str)], token: &str| {
        let mut pairs: Vec<(String, String)> =
            ask(client).iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        pairs.last_mut().unwrap().1 = token.to_owned();
        pairs
    };
    let post = async |path: &str, pairs: Vec<(String, String)>| {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        lab.post(path, &pairs).await
    };
    let seen = post("/oauth/introspect", with(&own, access)).await.json();
    assert_eq!((&seen["active"], text(&seen, "client_id")), (&json!(true), CLIENT_ID));
    assert!(seen.get("sub").is_none());
    let hidden = post("/oauth/introspect", with(&foreign, access)).await.json();
    assert_eq!(hidden, json!({ "active": false }));
    let refused = post("/oauth/introspect", with(&wrong, access)).await;
    assert_eq!(refused.error(), (401, "invalid_client".to_owned()));
    let nobody = post("/oauth/introspect", with(&[], access)).await;
    assert_eq!(nobody.error(), (400, "invalid_request".to_owned()));

    for client in [&foreign[..], &wrong, &[]] {
        let refused = post("/oauth/revoke", with(client, refresh)).await;
        assert_eq!(refused.error(), (403, "unauthorized_client".to_owned()), "{client:?}");
    }
    assert_eq!(post("/oauth/revoke", with(&own, "unknown")).await.body, "{}");
    assert_eq!(lab.bearer("/oauth/token/info", access).await.status, StatusCode::OK);
    assert_eq!(post("/oauth/revoke", with(&own, refresh)).await.body, "{}");
    let dead = lab.bearer("/oauth/token/info", access).await;
    assert_eq!(dead.error(), (400, "invalid_request".to_owned()));
    assert!(dead.json()["error_description"].is_object());
    let page = lab.get(&authorize(&usual(SCOPES))).await;
    assert!(page.body.contains(">Authorize</button>"), "revoking brings consent back");
}

#[tokio::test]
async fn faults_strike_as_often_as_they_say() {
    let lab = Lab::new().await;
    let tokens = lab.tokens("alice").await;
    let access = text(&tokens, "access_token");
    lab.gitlab.fail(Fault::throttled(Endpoint::Userinfo, 1, "7"));
    lab.gitlab.fail(Fault::answer(Endpoint::Userinfo, 1, 502, "text/html", "<h1>502</h1>"));
    let throttled = lab.bearer("/oauth/userinfo", access).await;
    assert_eq!((throttled.status.as_u16(), throttled.header(header::RETRY_AFTER)), (429, "7"));
    let bad = lab.bearer("/oauth/userinfo", access).await;
    assert_eq!((bad.status.as_u16(), bad.header(header::CONTENT_TYPE)), (502, "text/html"));
    assert_eq!(lab.bearer("/oauth/userinfo", access).await.status, StatusCode::OK);
    assert_eq!(lab.gitlab.hits(Endpoint::Userinfo), 3);

    lab.gitlab.fail(Fault::new(Endpoint::Token, 1, Failure::DropReply));
    let form = encode(&[
        ("client_id", CLIENT_ID),
        ("client_secret", CLIENT_SECRET),
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&tokens, "refresh_token")),
    ]);
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    assert!(lab.try_send(Method::POST, "/oauth/token", &kind, &form).await.is_err());
    let lost = lab.refresh(text(&tokens, "refresh_token")).await;
    assert_eq!(lost.error(), (400, "invalid_grant".to_owned()), "it was committed");

    let tokens = lab.tokens("bob").await;
    let late = Fault::new(Endpoint::Token, 1, Failure::LateReply).after(Duration::from_hours(1));
    lab.gitlab.fail(late);
    let reply = lab.refresh(text(&tokens, "refresh_token"));
    assert!(tokio::time::timeout(Duration::from_millis(50), reply).await.is_err());
    let late = lab.refresh(text(&tokens, "refresh_token")).await;
    assert_eq!(late.error(), (400, "invalid_grant".to_owned()), "it was committed at once");

    lab.gitlab.set_silent(true);
    let waited = tokio::time::timeout(Duration::from_millis(50), lab.get("/")).await;
    assert!(waited.is_err(), "it does not answer");
    lab.gitlab.set_silent(false);
    assert_eq!(lab.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn id_tokens_can_lie() {
    let lab = Lab::new().await;
    let verifies = async |token: &str, kid_known: bool| {
        let jwks = lab.get("/oauth/discovery/keys").await.json();
        let header = jsonwebtoken::decode_header(token).unwrap();
        let keys = jwks["keys"].as_array().unwrap();
        let jwk = keys.iter().find(|key| key["kid"].as_str() == header.kid.as_deref());
        assert_eq!(jwk.is_some(), kid_known);
        let jwk = serde_json::from_value(jwk.unwrap_or(&keys[0]).clone()).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        validation.validate_aud = false;
        jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
    };
    let id_token = async |tamper: Tamper| {
        lab.gitlab.tamper(tamper);
        lab.tokens("alice").await["id_token"].as_str().unwrap().to_owned()
    };
    assert!(verifies(&id_token(Tamper::default()).await, true).await);
    for signature in [Signature::Broken, Signature::CiUnderLoginKid, Signature::HmacOfPublicKey] {
        assert!(!verifies(&id_token(Tamper::signature(signature)).await, true).await);
    }
    assert!(verifies(&id_token(Tamper::signature(Signature::Ci)).await, true).await);
    assert!(id_token(Tamper::signature(Signature::None)).await.ends_with('.'));
    let unknown = id_token(Tamper::header("kid", json!("unknown"))).await;
    assert!(verifies(&unknown, false).await);
    let lie = id_token(Tamper::claim("aud", json!([CLIENT_ID, "other"]))).await;
    assert_eq!(claims(&lie)["aud"], json!([CLIENT_ID, "other"]));
    let lie = id_token(Tamper::claim("exp", Value::Null)).await;
    assert!(claims(&lie).get("exp").is_none());
    let old = id_token(Tamper::default()).await;
    lab.gitlab.rotate_login_key().await.unwrap();
    assert!(!verifies(&old, false).await, "no overlap after a rotation");
    lab.gitlab.set_skew(-1000);
    assert!(
        claims(&id_token(Tamper::default()).await)["exp"].as_u64().unwrap()
            < lab.clock.now().unix()
    );
    let ci = lab.gitlab.ci_id_token(&Map::from_iter([("aud".to_owned(), json!(CLIENT_ID))]));
    assert!(verifies(&ci, true).await);
    assert_eq!(text(&claims(&ci), "project_id"), "102");
}

#[tokio::test]
async fn commands_come_as_json_under_a_name_of_this_machine() {
    let lab = Lab::new().await;
    let kind = ("content-type", "application/json");
    let path = "/-/dev/commands";
    let send = async |headers: &[(&str, &str)], body: &str| {
        lab.send(Method::POST, path, headers, body).await.status.as_u16()
    };
    assert_eq!(send(&[kind], r#"{"do":"set_state","user":"bob","state":"blocked"}"#).await, 204);
    assert!(lab.sign_in("bob", "").await.body.contains("has been blocked"));
    assert_eq!(send(&[kind], r#"{"do":"set_state","user":"eve","state":"blocked"}"#).await, 422);
    assert_eq!(send(&[kind], r#"{"do":"nonsense"}"#).await, 422);
    let fault = r#"{"do":"fail","endpoint":"keys","failure":{"answer":{"status":500}}}"#;
    assert_eq!(send(&[kind], fault).await, 204);
    assert_eq!(lab.get("/oauth/discovery/keys").await.status.as_u16(), 500);
    let simple = [("content-type", "text/plain")];
    assert_eq!(send(&simple, r#"{"do":"clear_faults"}"#).await, 415, "a form of a stranger");
    let rebound = [kind, ("host", "evil.example")];
    assert_eq!(send(&rebound, r#"{"do":"clear_faults"}"#).await, 403, "a rebound name");
    assert_eq!(lab.get("/-/dev/hits").await.json()["keys"], 1);
}

#[tokio::test]
async fn many_groups_make_long_claims() {
    let lab = Lab::new().await;
    lab.gitlab.add_groups("carol", 5000).unwrap();
    let tokens = lab.tokens("carol").await;
    let info = lab.bearer("/oauth/userinfo", text(&tokens, "access_token")).await;
    assert_eq!(info.json()["groups"].as_array().unwrap().len(), 5000);
    assert!(info.body.len() > 100_000);
}

#[tokio::test]
async fn it_listens_on_loopback_unless_forced_and_ends_at_once() {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let options = Options { listen: everywhere, keys: Some(keys().await), ..Options::default() };
    let error = DevGitlab::start(options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("--force-public"), "{error}");
    let forced = Options { force_public: true, ..options.clone() };
    DevGitlab::start(forced).await.unwrap().stop().await;

    let first = Lab::new().await;
    let taken = first.gitlab.addr();
    let here = Options { listen: taken, ..options };
    assert!(DevGitlab::start(here.clone()).await.is_err(), "the port is taken");
    let other = DevGitlab::start(Options { or_other_port: true, ..here }).await.unwrap();
    assert_eq!(other.taken(), Some(taken));
    assert_ne!(other.addr(), taken);
    first.gitlab.set_silent(true);
    let mut waiting = tokio::net::TcpStream::connect(taken).await.unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    first.gitlab.stop().await;
    let mut answer = Vec::new();
    let read = waiting.read_to_end(&mut answer).await.unwrap_or(0);
    assert_eq!(read, 0, "a request that waits does not hold it up");
}
