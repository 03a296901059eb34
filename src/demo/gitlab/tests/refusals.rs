//! What the development GitLab refuses, and in which words and forms.

use super::*;

#[tokio::test]
async fn bad_requests_for_authorization_are_pages_that_redirect_nowhere() {
    let lab = Lab::new().await;
    lab.sign_in("alice", "").await;
    for (change, error) in [
        (("client_id", ""), "invalid_request"),
        (("client_id", "nobody"), "invalid_client"),
        (("redirect_uri", ""), "invalid_redirect_uri"),
        (("redirect_uri", "https://evil.example/cb"), "invalid_redirect_uri"),
        (("redirect_uri", "https://app.example/cb/"), "invalid_redirect_uri"),
        (("redirect_uri", "http://localhost:4180/oauth2/callback"), "invalid_redirect_uri"),
        (("response_type", ""), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("response_mode", "carrier_pigeon"), "unsupported_response_mode"),
        (("scope", "openid groups"), "invalid_scope"),
        (("scope", "api"), "invalid_scope"),
        (("scope", ""), "invalid_scope"),
        (("code_challenge_method", ""), "invalid_code_challenge_method"),
        (("code_challenge_method", "S512"), "invalid_code_challenge_method"),
    ] {
        for prompt in ["", "none"] {
            let path = authorize(&changed(&[change, ("prompt", prompt)]));
            let reply = lab.get(&path).await;
            assert_eq!(reply.status, StatusCode::OK, "{change:?}");
            assert!(
                reply.body.contains(&format!("<code>{error}</code>")),
                "{change:?} {}",
                reply.body
            );
            assert_eq!(reply.target(), "", "{change:?}");
        }
        let path = authorize(&changed(&[change, ("prompt", "none")]));
        let stranger = lab.send(Method::GET, &path, &[], "").await;
        assert!(!stranger.location().starts_with("http"), "{change:?} {}", stranger.location());
    }
}

#[tokio::test]
async fn the_default_scope_is_api_if_the_application_has_it() {
    let mut full = Application::new("full", "s", &[CALLBACK]);
    full.scopes.push("api".to_owned());
    let lab = Lab::with(Options { applications: vec![full], ..Options::default() }).await;
    let pairs = changed(&[("client_id", "full"), ("scope", "")]);
    lab.sign_in("alice", "").await;
    let page = lab.get(&authorize(&pairs)).await;
    assert!(page.body.contains("<code>api</code>"), "{}", page.body);
}

#[tokio::test]
async fn denial_is_a_redirect_and_forms_of_others_are_refused() {
    let lab = Lab::new().await;
    let pairs = usual(SCOPES);
    lab.sign_in("alice", "").await;
    let page = lab.get(&authorize(&pairs)).await;
    let denied = lab.consent(&page, &pairs, true).await;
    assert_eq!(denied.status, StatusCode::FOUND);
    assert_eq!(parameter(denied.location(), "error").unwrap(), "access_denied");
    assert_eq!(parameter(denied.location(), "state").unwrap(), "a state & more");
    let forged = [&pairs[..], &[("authenticity_token", "forged")]].concat();
    let forged = lab.browse(Method::POST, "/oauth/authorize", &encode(&forged)).await;
    assert_eq!(forged.status, StatusCode::UNPROCESSABLE_ENTITY);
    let form = "authenticity_token=forged&user=root";
    let forged = lab.browse(Method::POST, "/users/sign_in", form).await;
    assert_eq!(forged.status, StatusCode::UNPROCESSABLE_ENTITY);
    let bad = changed(&[("client_id", "nobody")]);
    let csrf = page.csrf();
    let bad = [&bad[..], &[("authenticity_token", csrf.as_str())]].concat();
    let bad = lab.browse(Method::POST, "/oauth/authorize", &encode(&bad)).await;
    assert_eq!(bad.error(), (401, "invalid_client".to_owned()));
}

#[tokio::test]
async fn the_chooser_is_no_open_redirect() {
    let lab = Lab::new().await;
    for target in
        ["https://evil.example/", "//evil.example/", "/\\evil.example", "/oauth/authorizex"]
    {
        assert_eq!(lab.sign_in("alice", target).await.location(), "/", "{target}");
    }
}

#[tokio::test]
async fn codes_are_bound_to_everything_and_only_success_uses_them_up() {
    let lab = Lab::new().await;
    let other = Application::new("other", "s", &[CALLBACK]);
    lab.gitlab.command(Command::Register(other)).unwrap();
    let code = lab.code("alice", &usual(SCOPES)).await;
    let grant = |changes: &[(&'static str, &'static str)]| {
        let mut pairs = vec![
            ("client_id", CLIENT_ID),
            ("client_secret", CLIENT_SECRET),
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        pairs.retain(|(name, _)| changes.iter().all(|(changed, _)| name != changed));
        pairs.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        encode(&pairs)
    };
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    for (changes, status, error) in [
        (&[("grant_type", "")][..], 400, "invalid_request"),
        (&[("grant_type", "password")], 400, "unsupported_grant_type"),
        (&[("code_verifier", "")], 400, "invalid_request"),
        (&[("redirect_uri", "")], 400, "invalid_request"),
        (&[("client_id", "nobody")], 401, "invalid_client"),
        (&[("client_secret", "wrong")], 401, "invalid_client"),
        (&[("client_secret", "")], 401, "invalid_client"),
        (&[("client_id", "other"), ("client_secret", "s")], 400, "invalid_grant"),
        (&[("code", "unknown")], 400, "invalid_grant"),
        (&[("redirect_uri", "https://app.example/cb")], 400, "invalid_grant"),
        (&[("code_verifier", "wrong")], 400, "invalid_grant"),
    ] {
        let reply = lab.send(Method::POST, "/oauth/token", &kind, &grant(changes)).await;
        assert_eq!(reply.error(), (status, error.to_owned()), "{changes:?}");
        let challenge = format!("Bearer realm=\"Doorkeeper\", error=\"{error}\"");
        assert!(reply.header(header::WWW_AUTHENTICATE).starts_with(&challenge));
    }
    let first = lab.redeem(&code).await;
    assert_eq!(first.status, StatusCode::OK, "none of these used the code up");
    assert_eq!(lab.redeem(&code).await.error(), (400, "invalid_grant".to_owned()));
    let token = first.json();
    let live = lab.bearer("/oauth/userinfo", text(&token, "access_token")).await;
    assert_eq!(live.status, StatusCode::OK, "a reused code does not revoke its tokens");
}

#[tokio::test]
async fn codes_expire_and_a_verifier_needs_a_challenge() {
    let lab = Lab::new().await;
    let bare = changed(&[("code_challenge", ""), ("code_challenge_method", "")]);
    let code = lab.code("alice", &bare).await;
    assert_eq!(lab.redeem(&code).await.error(), (400, "invalid_grant".to_owned()));
    let code = lab.code("alice", &usual(SCOPES)).await;
    lab.clock.turn(601);
    assert_eq!(lab.redeem(&code).await.error(), (400, "invalid_grant".to_owned()));
}

#[tokio::test]
async fn refreshes_need_the_right_client() {
    let lab = Lab::new().await;
    let other = Application::new("other", "s", &[CALLBACK]);
    lab.gitlab.command(Command::Register(other)).unwrap();
    let tokens = lab.tokens("alice").await;
    let token = text(&tokens, "refresh_token");
    let grant = [("grant_type", "refresh_token"), ("refresh_token", token)];
    for (client, status, error) in [
        (&[][..], 400, "invalid_grant"),
        (&[("client_id", CLIENT_ID)], 401, "invalid_client"),
        (&[("client_id", CLIENT_ID), ("client_secret", "wrong")], 401, "invalid_client"),
        (&[("client_id", "other"), ("client_secret", "s")], 400, "invalid_grant"),
    ] {
        let reply = lab.post("/oauth/token", &[&grant[..], client].concat()).await;
        assert_eq!(reply.error(), (status, error.to_owned()), "{client:?}");
    }
    let missing = lab.token(&[("grant_type", "refresh_token")]).await;
    assert_eq!(missing.error(), (400, "invalid_request".to_owned()));
    assert_eq!(lab.refresh(token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn blocked_people_are_a_500_a_403_and_a_lost_refresh_token() {
    let lab = Lab::new().await;
    let tokens = lab.tokens("alice").await;
    let plain = lab.tokens_for("alice", "read_user").await;
    let code = lab.code("alice", &usual(SCOPES)).await;
    let (access, refresh) = (text(&tokens, "access_token"), text(&tokens, "refresh_token"));
    lab.gitlab.set_state("alice", UserState::Blocked).unwrap();
    assert_eq!(lab.bearer("/oauth/userinfo", access).await.status.as_u16(), 500);
    assert_eq!(lab.redeem(&code).await.status.as_u16(), 500);
    let api = lab.bearer("/api/v4/user", access).await;
    assert_eq!(api.status, StatusCode::FORBIDDEN);
    let message = "403 Forbidden - Your account has been blocked.";
    assert_eq!(text(&api.json(), "message"), message);
    let client = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("token", access)];
    assert_eq!(lab.post("/oauth/introspect", &client).await.json()["active"], true);
    assert_eq!(lab.refresh(text(&plain, "refresh_token")).await.status, StatusCode::OK);
    assert_eq!(lab.refresh(refresh).await.status.as_u16(), 500);
    lab.gitlab.set_state("alice", UserState::Active).unwrap();
    assert_eq!(lab.refresh(refresh).await.error(), (400, "invalid_grant".to_owned()));
}

#[tokio::test]
async fn states_decide_who_signs_in() {
    let lab = Lab::new().await;
    let path = authorize(&usual(SCOPES));
    let blocked = lab.sign_in("dave", &path).await;
    assert_eq!(blocked.status, StatusCode::OK);
    assert!(blocked.body.contains("has been blocked"));
    lab.sign_in("alice", &path).await;
    lab.gitlab.set_state("alice", UserState::Blocked).unwrap();
    let ended = lab.get(&path).await;
    assert!(ended.location().starts_with("/users/sign_in"), "the session is ended");
    for state in [UserState::Banned, UserState::BlockedPendingApproval, UserState::Locked] {
        lab.gitlab.set_state("alice", state).unwrap();
        assert_eq!(lab.sign_in("alice", &path).await.status, StatusCode::OK, "{state:?}");
    }
    lab.gitlab.set_state("alice", UserState::Deactivated).unwrap();
    assert_eq!(lab.sign_in("alice", &path).await.status, StatusCode::FOUND, "signing in wakes");
    assert!(lab.get(&path).await.body.contains(">Authorize</button>"));
    lab.gitlab.set_state("alice", UserState::Unconfirmed).unwrap();
    assert!(lab.get(&path).await.body.contains("unconfirmed_email"));
    lab.gitlab.set_state("alice", UserState::TermsNotAccepted).unwrap();
    let terms = lab.get(&path).await;
    assert!(terms.body.contains(">Accept terms</button>"));
    let form = encode(&[("authenticity_token", &terms.csrf()), ("return_to", &path)]);
    let accepted = lab.browse(Method::POST, "/users/interstitial", &form).await;
    assert_eq!(accepted.location(), path);
    assert!(lab.get(&path).await.body.contains(">Authorize</button>"));
}

#[tokio::test]
async fn userinfo_refuses_with_empty_bodies() {
    let lab = Lab::new().await;
    let unknown = lab.bearer("/oauth/userinfo", "unknown").await;
    assert_eq!((unknown.status.as_u16(), unknown.body.as_str()), (401, ""));
    assert!(unknown.header(header::WWW_AUTHENTICATE).contains("error=\"invalid_token\""));
    let tokens = lab.tokens_for("alice", "read_user").await;
    let scoped = lab.bearer("/oauth/userinfo", text(&tokens, "access_token")).await;
    assert_eq!((scoped.status.as_u16(), scoped.body.as_str()), (403, ""));
    assert!(scoped.header(header::WWW_AUTHENTICATE).contains("error=\"insufficient_scope\""));
    let personal = lab.bearer("/oauth/userinfo", "glpat-dev-alice").await;
    assert_eq!(personal.status, StatusCode::UNAUTHORIZED, "no personal tokens here");
}
