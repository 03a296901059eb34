//! `POST /oauth/token`: codes and refresh tokens become token rows, by Doorkeeper's checks in Doorkeeper's order.
//!
//! A refresh revokes the old row and makes the new one under one lock: no grace, one winner, the loser gets `invalid_grant`. The ID
//! token is made after that; for somebody who is not active this fails with 500, and the refresh token is gone all the same.

use aws_lc_rs::digest;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    applications::{Application, redirect_matches},
    bearer,
    keys::overlay,
    oidc,
    state::{Challenge, Grant, Instance, Row, World, random_hex},
};
use crate::{
    clock::Timestamp,
    demo::answer::{self, Answer, Params},
};

/// Seconds that an authorization code may be redeemed.
const CODE_SECONDS: u64 = 600;

/// Doorkeeper's refusals at its JSON endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OauthError {
    InvalidRequest(&'static str),
    InvalidGrant,
    InvalidScope,
    InvalidClient,
    UnsupportedGrantType,
}

impl OauthError {
    fn parts(self) -> (StatusCode, &'static str, String) {
        let bad = StatusCode::BAD_REQUEST;
        match self {
            Self::InvalidRequest(missing) => {
                (bad, "invalid_request", format!("Missing required parameter: {missing}."))
            },
            Self::InvalidGrant => (
                bad,
                "invalid_grant",
                "The provided authorization grant is invalid, expired, revoked, does not match the \
                 redirection URI used in the authorization request, or was issued to another client."
                    .to_owned(),
            ),
            Self::InvalidScope => (
                bad,
                "invalid_scope",
                "The requested scope is invalid, unknown, or malformed.".to_owned(),
            ),
            Self::InvalidClient => (
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "Client authentication failed due to unknown client, no client authentication \
                 included, or unsupported authentication method."
                    .to_owned(),
            ),
            Self::UnsupportedGrantType => (
                bad,
                "unsupported_grant_type",
                "The authorization grant type is not supported by the authorization server."
                    .to_owned(),
            ),
        }
    }

    pub(super) fn answer(self) -> Answer {
        let (status, error, description) = self.parts();
        let body = json!({ "error": error, "error_description": description });
        let mut answer = answer::typed(status, "application/json; charset=utf-8", body.to_string());
        answer = answer::with(answer, header::CACHE_CONTROL, "no-store, no-cache");
        let challenge = bearer::challenge(error, &description);
        answer::with(answer, header::WWW_AUTHENTICATE, &challenge)
    }
}

/// What a client says about itself, by Basic or else in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    client_id: String,
    secret: Option<String>,
}

impl Credentials {
    pub(super) fn read(headers: &HeaderMap, params: &Params) -> Option<Self> {
        Self::basic(headers).or_else(|| {
            Some(Self {
                client_id: params.text("client_id")?.to_owned(),
                secret: params.text("client_secret").map(str::to_owned),
            })
        })
    }

    /// Both parts are form-encoded before base64 (RFC 6749, 2.3.1).
    fn basic(headers: &HeaderMap) -> Option<Self> {
        let (scheme, encoded) =
            answer::header_text(headers, header::AUTHORIZATION)?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':').unwrap_or((&decoded, ""));
        let plain = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let secret = plain(secret);
        Some(Self { client_id: plain(id), secret: (!secret.is_empty()).then_some(secret) })
    }

    /// The application that these are right for.
    pub(super) fn application<'a>(&self, world: &'a World) -> Option<&'a Application> {
        let secret = self.secret.as_deref();
        world.applications.iter().find(|known| known.is(&self.client_id, secret))
    }
}

/// What became of refresh tokens so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refreshes {
    /// Traded for a new pair, whether or not the reply arrived.
    pub granted: u64,
    /// Refused, such as one that had been traded before.
    pub refused: u64,
}

/// A row just made, and the nonce that its ID token must carry.
struct Issued {
    row: Row,
    nonce: Option<String>,
}

/// `POST /oauth/token`.
pub(super) fn token(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Answer {
    let now = gitlab.clock.now();
    let credentials = Credentials::read(headers, params);
    let mut world = gitlab.world();
    let issued = match params.text("grant_type") {
        None => Err(OauthError::InvalidRequest("grant_type")),
        Some("authorization_code") => redeem(&mut world, credentials.as_ref(), params, now),
        Some("refresh_token") => {
            let issued = refresh(&mut world, credentials.as_ref(), params, now);
            match issued {
                Ok(_) => world.refreshes.granted += 1,
                Err(_) => world.refreshes.refused += 1,
            }
            issued
        },
        Some(_) => Err(OauthError::UnsupportedGrantType),
    };
    let Issued { row, nonce } = match issued {
        Ok(issued) => issued,
        Err(error) => return error.answer(),
    };
    let skewed = now.unix().saturating_add_signed(world.switches.skew_seconds);
    let mut body = Map::from_iter([
        ("access_token".to_owned(), json!(row.access_token)),
        ("token_type".to_owned(), json!("Bearer")),
        ("expires_in".to_owned(), json!(row.expires_in)),
        ("refresh_token".to_owned(), json!(row.refresh_token)),
        ("scope".to_owned(), json!(row.scopes.join(" "))),
        ("created_at".to_owned(), json!(skewed)),
    ]);
    let overlays = world.switches.overlays.token.clone();
    let claims = row.has_scope("openid").then(|| {
        // Dereferencing an owner who is not active fails after the row was committed.
        oidc::id_token_claims(gitlab, &world, &row, nonce.as_deref(), now)
    });
    drop(world);
    match claims {
        Some(None) => return bearer::broken(),
        Some(Some(claims)) => {
            body.insert("id_token".to_owned(), json!(oidc::sign(gitlab, claims)));
        },
        None => {},
    }
    overlay(&mut body, &overlays);
    answer::json(StatusCode::OK, &Value::Object(body))
}

fn redeem(
    world: &mut World,
    credentials: Option<&Credentials>,
    params: &Params,
    now: Timestamp,
) -> Result<Issued, OauthError> {
    let code = params.text("code").unwrap_or_default();
    let verifier = params.text("code_verifier");
    let grant = world.grants.get(code).cloned();
    let challenged = grant.as_ref().is_some_and(|grant| grant.challenge.is_some());
    if challenged && verifier.is_none() {
        return Err(OauthError::InvalidRequest("code_verifier"));
    }
    let redirect_uri =
        params.text("redirect_uri").ok_or(OauthError::InvalidRequest("redirect_uri"))?;
    let client = credentials.and_then(|credentials| credentials.application(world));
    let client_id = client.ok_or(OauthError::InvalidClient)?.client_id.clone();
    let grant = grant.ok_or(OauthError::InvalidGrant)?;
    let fits = grant.client_id == client_id
        && !grant.used
        && now.unix() < grant.created_at.unix().saturating_add(CODE_SECONDS)
        && redirect_matches(redirect_uri, &grant.redirect_uri)
        && proves(&grant, verifier);
    if !fits {
        // A wrong verifier does not use the code up, nor does a reuse revoke its tokens.
        return Err(OauthError::InvalidGrant);
    }
    if let Some(grant) = world.grants.get_mut(code) {
        grant.used = true;
    }
    let row = Row {
        access_token: random_hex(),
        refresh_token: random_hex(),
        client_id,
        user: grant.user,
        scopes: grant.scopes,
        expires_in: world.switches.access_token_seconds,
        created_at: now,
        revoked: false,
    };
    world.tokens.insert(row.clone());
    Ok(Issued { row, nonce: grant.nonce })
}

/// Whether the verifier fits the grant's challenge; one without the other does not.
fn proves(grant: &Grant, verifier: Option<&str>) -> bool {
    match (&grant.challenge, verifier) {
        (None, verifier) => verifier.is_none(),
        (Some(_), None) => false,
        (Some(Challenge::Plain(challenge)), Some(verifier)) => challenge == verifier,
        (Some(Challenge::S256(challenge)), Some(verifier)) => {
            let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
            *challenge == URL_SAFE_NO_PAD.encode(hash)
        },
    }
}

fn refresh(
    world: &mut World,
    credentials: Option<&Credentials>,
    params: &Params,
    now: Timestamp,
) -> Result<Issued, OauthError> {
    let token = params.text("refresh_token").ok_or(OauthError::InvalidRequest("refresh_token"))?;
    let row = world.tokens.by_refresh_token(token).filter(|row| !row.revoked).cloned();
    let old = row.ok_or(OauthError::InvalidGrant)?;
    if let Some(credentials) = credentials {
        let client = credentials.application(world).ok_or(OauthError::InvalidClient)?;
        if client.client_id != old.client_id {
            return Err(OauthError::InvalidGrant);
        }
    } else {
        return Err(OauthError::InvalidGrant);
    }
    let scopes = match params.text("scope") {
        None => old.scopes.clone(),
        Some(subset) => {
            let subset: Vec<String> = subset.split_whitespace().map(str::to_owned).collect();
            if !subset.iter().all(|scope| old.has_scope(scope)) {
                return Err(OauthError::InvalidScope);
            }
            subset
        },
    };
    world.tokens.revoke(&old.access_token);
    let row = Row {
        access_token: random_hex(),
        refresh_token: random_hex(),
        scopes,
        created_at: now,
        revoked: false,
        ..old
    };
    world.tokens.insert(row.clone());
    Ok(Issued { row, nonce: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_comes_before_the_body_and_is_form_decoded() {
        let params = Params::parse(b"client_id=body&client_secret=s");
        let mut headers = HeaderMap::new();
        let read = |headers: &HeaderMap| Credentials::read(headers, &params).unwrap();
        assert_eq!(read(&headers).client_id, "body");
        let basic = format!("Basic {}", STANDARD.encode("a%3Ab:x+y%25"));
        headers.insert(header::AUTHORIZATION, basic.parse().unwrap());
        let expected = Credentials { client_id: "a:b".into(), secret: Some("x y%".into()) };
        assert_eq!(read(&headers), expected);
    }

    #[test]
    fn verifiers_are_compared_by_the_method_of_the_challenge() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let s256 = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let grant = |challenge| Grant {
            client_id: String::new(),
            user: 1,
            redirect_uri: String::new(),
            scopes: Vec::new(),
            nonce: None,
            challenge,
            created_at: Timestamp::from_unix(0),
            used: false,
        };
        let hashed = grant(Some(Challenge::S256(s256.into())));
        assert!(proves(&hashed, Some(verifier)));
        assert!(!proves(&hashed, Some(s256)));
        assert!(!proves(&hashed, None));
        let plain = grant(Some(Challenge::Plain("word".into())));
        assert!(proves(&plain, Some("word")));
        assert!(!proves(&plain, Some(verifier)));
        assert!(proves(&grant(None), None));
        assert!(!proves(&grant(None), Some(verifier)), "a verifier without a challenge");
    }
}
