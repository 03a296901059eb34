//! The code flow from end to end, and what its tokens say.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};

use super::*;

#[tokio::test]
async fn a_first_sign_in_asks_who_and_consents_then_goes_straight_on() {
    let lab = Lab::new().await;
    let pairs = usual(SCOPES);
    let path = authorize(&pairs);
    let asked = lab.get(&path).await;
    assert_eq!(asked.status, StatusCode::FOUND);
    assert!(asked.location().starts_with("/users/sign_in?return_to="), "{}", asked.location());
    let chooser = lab.get(asked.location()).await;
    for user in ["root", "alice", "bob", "carol", "dave"] {
        assert!(chooser.body.contains(&format!(">{user}</button>")), "{user}");
    }
    assert!(chooser.body.contains("no passwords"));
    let signed_in = lab.sign_in("alice", &path).await;
    assert_eq!((signed_in.status, signed_in.location()), (StatusCode::FOUND, path.as_str()));

    let consent = lab.get(&path).await;
    assert_eq!(consent.status, StatusCode::OK);
    let granted = lab.consent(&consent, &pairs, false).await;
    assert_eq!(granted.status, StatusCode::FOUND, "consent is a 302");
    assert!(granted.location().starts_with(&format!("{CALLBACK}?code=")));
    assert_eq!(parameter(granted.location(), "state").unwrap(), "a state & more");
    let code = parameter(granted.location(), "code").unwrap();
    let tokens = lab.redeem(&code).await;
    assert_eq!(tokens.header(header::CACHE_CONTROL), "no-store");
    let tokens = tokens.json();
    assert_eq!(text(&tokens, "access_token").len(), 64);
    assert_eq!(text(&tokens, "token_type"), "Bearer");
    assert_eq!(tokens["expires_in"], 7200);
    assert_eq!(text(&tokens, "scope"), SCOPES);

    let again = lab.get(&path).await;
    assert_eq!(again.status, StatusCode::OK, "a page, not a 302");
    assert!(again.header(header::CONTENT_SECURITY_POLICY).contains("script-src 'nonce-"));
    assert!(parameter(&again.target(), "code").is_some());
    let fewer = lab.get(&authorize(&usual("openid"))).await;
    assert!(fewer.body.contains(">Authorize</button>"), "another scope set needs consent");
}

#[tokio::test]
async fn the_id_token_verifies_against_the_jwks_and_differs_from_userinfo() {
    let lab = Lab::new().await;
    let tokens = lab.tokens("alice").await;
    let jwks = lab.get("/oauth/discovery/keys").await;
    assert!(jwks.header(header::CACHE_CONTROL).contains("max-age=86400"));
    let set: JwkSet = serde_json::from_str(&jwks.body).unwrap();
    assert_eq!(set.keys.len(), 2);
    let id_token = text(&tokens, "id_token");
    let header = jsonwebtoken::decode_header(id_token).unwrap();
    let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
    assert_eq!(
        jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap(),
        header.kid.unwrap()
    );
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[CLIENT_ID]);
    validation.set_issuer(&[lab.gitlab.external_url()]);
    let key = DecodingKey::from_jwk(jwk).unwrap();
    let id = jsonwebtoken::decode::<Value>(id_token, &key, &validation).unwrap().claims;
    assert_eq!(text(&id, "sub"), "2");
    assert_eq!(text(&id, "nonce"), "a nonce");
    assert_eq!(id["exp"].as_u64().unwrap() - id["iat"].as_u64().unwrap(), 120);
    assert!(id["auth_time"].is_u64());
    assert_eq!(id["groups_direct"], json!(["acme", "acme/ops"]));
    for absent in ["groups", "at_hash", "azp", "https://gitlab.org/claims/groups/maintainer"] {
        assert!(id.get(absent).is_none(), "{absent}");
    }

    let info = lab.bearer("/oauth/userinfo", text(&tokens, "access_token")).await.json();
    assert_eq!(text(&info, "sub"), "2");
    assert_eq!(info["groups"], json!(["acme", "acme/ops", "acme/web"]));
    assert_eq!(info["https://gitlab.org/claims/groups/maintainer"], json!(["acme/ops"]));
    assert_eq!(info["https://gitlab.org/claims/groups/developer"], json!(["acme"]));
    assert_eq!(
        (text(&info, "email"), &info["email_verified"]),
        ("alice@example.com", &json!(true))
    );
    for absent in ["groups_direct", "iss", "aud", "https://gitlab.org/claims/groups/owner"] {
        assert!(info.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn email_needs_its_scope_and_says_whether_it_was_verified() {
    let lab = Lab::new().await;
    let tokens = lab.tokens_for("carol", "openid").await;
    let info = lab.bearer("/oauth/userinfo", text(&tokens, "access_token")).await.json();
    assert!(info.get("email").is_none() && info.get("email_verified").is_none());
    assert_eq!(info["groups"], json!([]), "an empty list, not none");
    let tokens = lab.tokens_for("carol", "openid email").await;
    let id = claims(text(&tokens, "id_token"));
    assert_eq!((text(&id, "email"), &id["email_verified"]), ("carol@example.com", &json!(false)));
}

#[tokio::test]
async fn a_refresh_kills_the_old_pair_and_has_one_winner() {
    let lab = Lab::new().await;
    lab.gitlab.set_access_token_lifetime(300);
    let old = lab.tokens("alice").await;
    lab.gitlab.set_access_token_lifetime(7200);
    let token = text(&old, "refresh_token");
    let tries = futures_util::future::join_all((0..8).map(|_| lab.refresh(token))).await;
    assert_eq!(lab.gitlab.refreshes(), Refreshes { granted: 1, refused: 7 });
    assert_eq!(lab.get("/-/dev/refreshes").await.json()["refused"], 7);
    let (won, lost): (Vec<_>, Vec<_>) =
        tries.iter().partition(|reply| reply.status == StatusCode::OK);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert!(lost.iter().all(|reply| reply.error() == (400, "invalid_grant".to_owned())));
    let new = won[0].json();
    assert_eq!(new["expires_in"], 300, "a lifetime is inherited");
    let id = claims(text(&new, "id_token"));
    assert!(id.get("nonce").is_none());
    assert_eq!(text(&id, "sub"), "2");
    let dead = lab.bearer("/oauth/userinfo", text(&old, "access_token")).await;
    assert_eq!((dead.status.as_u16(), dead.body.as_str()), (401, ""));
    assert!(dead.header(header::WWW_AUTHENTICATE).contains("was revoked"));
    let live = lab.bearer("/oauth/userinfo", text(&new, "access_token")).await;
    assert_eq!(live.status, StatusCode::OK, "reuse does not revoke the family");
}

#[tokio::test]
async fn refresh_tokens_outlive_their_access_tokens_and_may_shrink_the_scopes() {
    let lab = Lab::new().await;
    let old = lab.tokens("alice").await;
    lab.clock.turn(100_000);
    let expired = lab.bearer("/oauth/userinfo", text(&old, "access_token")).await;
    assert_eq!(expired.status, StatusCode::UNAUTHORIZED);
    assert!(expired.header(header::WWW_AUTHENTICATE).contains("expired"));
    let token = text(&old, "refresh_token");
    let pairs = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let wider = lab.token(&[&pairs[..], &[("scope", "openid api")]].concat()).await;
    assert_eq!(wider.error(), (400, "invalid_scope".to_owned()));
    let fewer = lab.token(&[&pairs[..], &[("scope", "read_user")]].concat()).await.json();
    assert_eq!(text(&fewer, "scope"), "read_user");
    assert!(fewer.get("id_token").is_none());
}

#[tokio::test]
async fn public_clients_sign_in_by_pkce_alone_and_consent_each_time() {
    let public = Application::new("public", "", &[CALLBACK]).public();
    let lab = Lab::with(Options { applications: vec![public], ..Options::default() }).await;
    let pairs = changed(&[("client_id", "public")]);
    for _ in 0..2 {
        lab.sign_in("bob", "").await;
        let page = lab.get(&authorize(&pairs)).await;
        let code = parameter(&lab.consent(&page, &pairs, false).await.target(), "code").unwrap();
        let grant = [
            ("client_id", "public"),
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        let wrong = [&grant[..], &[("client_secret", "wrong")]].concat();
        let wrong = lab.post("/oauth/token", &wrong).await;
        assert_eq!(wrong.error(), (401, "invalid_client".to_owned()));
        assert_eq!(lab.post("/oauth/token", &grant).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn trusted_applications_never_ask() {
    let trusted = Application::new("trusted", "s", &[CALLBACK]).trusted();
    let lab = Lab::with(Options { applications: vec![trusted], ..Options::default() }).await;
    lab.sign_in("alice", "").await;
    for prompt in ["", "none"] {
        let pairs = changed(&[("client_id", "trusted"), ("prompt", prompt)]);
        let reply = lab.get(&authorize(&pairs)).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(parameter(&reply.target(), "code").is_some());
    }
    let asked = changed(&[("client_id", "trusted"), ("prompt", "consent")]);
    assert!(lab.get(&authorize(&asked)).await.body.contains(">Authorize</button>"));
}

#[tokio::test]
async fn prompts_do_what_gitlab_makes_of_them() {
    let lab = Lab::new().await;
    let prompt = |value: &'static str| authorize(&changed(&[("prompt", value)]));
    let error = |reply: &Reply| {
        assert_eq!(reply.status, StatusCode::FOUND, "{}", reply.body);
        assert!(reply.location().starts_with(CALLBACK), "{}", reply.location());
        assert_eq!(parameter(reply.location(), "state").unwrap(), "a state & more");
        parameter(reply.location(), "error").unwrap()
    };
    assert_eq!(error(&lab.get(&prompt("none")).await), "login_required");
    assert_eq!(error(&lab.get(&prompt("none login")).await), "invalid_request");
    lab.sign_in("alice", "").await;
    assert_eq!(error(&lab.get(&prompt("none")).await), "consent_required");
    assert_eq!(error(&lab.get(&prompt("nonsense")).await), "invalid_request");
    assert_eq!(error(&lab.get(&prompt("select_account")).await), "invalid_configuration");
    lab.tokens("alice").await;
    let silent = lab.get(&prompt("none")).await;
    assert!(parameter(&silent.target(), "code").is_some());

    let login = lab.get(&prompt("login")).await;
    assert!(login.location().starts_with("/users/sign_in"), "{}", login.location());
    assert!(!login.location().contains("prompt"), "else it would ask for ever");
    assert_eq!(error(&lab.get(&prompt("none")).await), "login_required", "signed out of GitLab");
    lab.sign_in("alice", "").await;
    lab.clock.turn(100);
    let aged = |most: &'static str| authorize(&changed(&[("max_age", most)]));
    assert!(parameter(&lab.get(&aged("1000")).await.target(), "code").is_some());
    assert!(lab.get(&aged("50")).await.location().starts_with("/users/sign_in"));
}

#[tokio::test]
async fn plain_challenges_fragments_and_added_queries_work() {
    let lab = Lab::new().await;
    let uri = "http://127.0.0.1:9999/oauth2/callback?tab=1";
    let pairs = changed(&[
        ("redirect_uri", uri),
        ("code_challenge", VERIFIER),
        ("code_challenge_method", "plain"),
    ]);
    let code = lab.code("bob", &pairs).await;
    let grant = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", uri),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(lab.token(&grant).await.status, StatusCode::OK);
    let back = lab.get(&authorize(&pairs)).await.target();
    assert!(back.starts_with(&format!("{uri}&code=")), "{back}");
    let fragment = changed(&[("response_mode", "fragment")]);
    let back = lab.get(&authorize(&fragment)).await.target();
    assert!(back.starts_with(&format!("{CALLBACK}#code=")), "{back}");
}
