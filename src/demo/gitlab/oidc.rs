//! `OpenID` Connect: discovery, the keys, claims, ID tokens and userinfo.
//!
//! | claim | ID token | userinfo |
//! |---|---|---|
//! | `iss aud exp iat auth_time nonce` | yes, `nonce` at login only | no |
//! | `sub sub_legacy name nickname preferred_username email email_verified profile picture` | yes | yes |
//! | `groups`, the three role lists | no | yes; empty role lists are left out |
//! | `groups_direct` | yes | no |
//!
//! There is no `at_hash`, `azp` or `end_session_endpoint`. Endpoints in discovery follow the request's `Host`, `issuer` does not.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    bearer,
    keys::{self, overlay},
    people::{Role, User},
    state::{Instance, Row, World},
};
use crate::{
    clock::Timestamp,
    demo::answer::{self, Answer, Params},
};

/// `GET /.well-known/openid-configuration`.
pub(super) fn discovery(gitlab: &Instance, headers: &HeaderMap) -> Answer {
    let scheme = gitlab.external_url.split(':').next().unwrap_or("http");
    let at = |path: &str| match answer::header_text(headers, header::HOST) {
        Some(host) => format!("{scheme}://{host}{}{path}", gitlab.base_path),
        None => format!("{}{path}", gitlab.external_url),
    };
    let mut document = json!({
        "issuer": gitlab.external_url,
        "authorization_endpoint": at("/oauth/authorize"),
        "token_endpoint": at("/oauth/token"),
        "revocation_endpoint": at("/oauth/revoke"),
        "introspection_endpoint": at("/oauth/introspect"),
        "userinfo_endpoint": at("/oauth/userinfo"),
        "jwks_uri": at("/oauth/discovery/keys"),
        "scopes_supported": SCOPES,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "grant_types_supported":
            ["authorization_code", "client_credentials", "device_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claim_types_supported": ["normal"],
        "claims_supported": CLAIMS,
        "code_challenge_methods_supported": ["plain", "S256"],
        "labgate_development_gitlab": true,
    });
    let overlays = gitlab.world().switches.overlays.discovery.clone();
    if let Value::Object(members) = &mut document {
        overlay(members, &overlays);
    }
    cached(StatusCode::OK, &document, "max-age=0, private, must-revalidate")
}

/// `GET /oauth/discovery/keys`: both keys, cacheable for a day.
pub(super) fn jwks(gitlab: &Instance) -> Answer {
    let policy = "max-age=86400, public, must-revalidate, no-transform";
    cached(StatusCode::OK, &gitlab.keys().jwks(), policy)
}

fn cached(status: StatusCode, document: &Value, policy: &str) -> Answer {
    let body = document.to_string();
    let answer = answer::typed(status, "application/json; charset=utf-8", body);
    answer::with(answer, header::CACHE_CONTROL, policy)
}

/// `GET` and `POST /oauth/userinfo`.
pub(super) fn userinfo(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Answer {
    let world = gitlab.world();
    let row = match bearer::oauth_row(&world, headers, params, gitlab.clock.now()) {
        Ok(row) => row,
        Err(refusal) => {
            let challenge = bearer::challenge("invalid_token", refusal.description());
            return answer::with(
                answer::empty(StatusCode::UNAUTHORIZED),
                header::WWW_AUTHENTICATE,
                &challenge,
            );
        },
    };
    if !row.has_scope("openid") {
        let challenge = bearer::challenge("insufficient_scope", bearer::INSUFFICIENT_SCOPE);
        let forbidden = answer::empty(StatusCode::FORBIDDEN);
        return answer::with(forbidden, header::WWW_AUTHENTICATE, &challenge);
    }
    // GitLab looks the owner up among active users and then dereferences what it did not find.
    let Some(user) = world.active_user(row.user) else {
        return bearer::broken();
    };
    let mut claims = common_claims(gitlab, user, row.has_scope("email"));
    let directory = &world.directory;
    claims.insert("groups".into(), json!(directory.groups_with_descendants(user.id)));
    for (name, role) in ROLE_CLAIMS {
        let held = directory.groups_with_role(user.id, role);
        if !held.is_empty() {
            claims.insert(format!("https://gitlab.org/claims/groups/{name}"), json!(held));
        }
    }
    overlay(&mut claims, &world.switches.overlays.userinfo);
    answer::json(StatusCode::OK, &Value::Object(claims))
}

/// The claims of an ID token for this row; none if the user is not active, which makes GitLab answer 500.
pub(super) fn id_token_claims(
    gitlab: &Instance,
    world: &World,
    row: &Row,
    nonce: Option<&str>,
    now: Timestamp,
) -> Option<Map<String, Value>> {
    let user = world.active_user(row.user)?;
    let skewed = |at: Timestamp| at.unix().saturating_add_signed(world.switches.skew_seconds);
    let mut claims = common_claims(gitlab, user, row.has_scope("email"));
    let issued = skewed(now);
    claims.insert("iss".into(), json!(gitlab.external_url));
    claims.insert("aud".into(), json!(row.client_id));
    claims.insert("iat".into(), json!(issued));
    claims.insert("exp".into(), json!(issued.saturating_add(world.switches.id_token_seconds)));
    if let Some(at) = user.signed_in_at {
        claims.insert("auth_time".into(), json!(skewed(at)));
    }
    if let Some(nonce) = nonce {
        claims.insert("nonce".into(), json!(nonce));
    }
    claims.insert("groups_direct".into(), json!(world.directory.groups_direct(user.id)));
    Some(claims)
}

/// Signs those claims, made different as the switches say.
pub(super) fn sign(gitlab: &Instance, claims: Map<String, Value>) -> String {
    let tamper = gitlab.world().switches.tamper.clone();
    keys::token(&gitlab.keys(), claims, &tamper)
}

/// The claims that stand in both; empty values are left out, as GitLab drops nil and blank ones.
fn common_claims(gitlab: &Instance, user: &User, email_scope: bool) -> Map<String, Value> {
    let legacy = Sha256::digest(format!("User-{}", user.id));
    let (given, family) = user.name.split_once(' ').unwrap_or((&user.name, ""));
    let profile = format!("{}/{}", gitlab.external_url, user.username);
    let mut claims = Map::new();
    for (name, value) in [
        ("sub", user.id.to_string()),
        ("sub_legacy", answer::hex(&legacy)),
        ("name", user.name.clone()),
        ("nickname", user.username.clone()),
        ("preferred_username", user.username.clone()),
        ("given_name", given.to_owned()),
        ("family_name", family.to_owned()),
        ("profile", profile),
        ("picture", format!("{}/uploads/{}.png", gitlab.external_url, user.id)),
    ] {
        if !value.is_empty() {
            claims.insert(name.to_owned(), Value::String(value));
        }
    }
    // Without the scope it is the public address, which GitLab lets people choose among confirmed ones only.
    let address = if email_scope {
        user.email.as_ref().map(|email| (email, user.email_verified))
    } else {
        user.public_email.as_ref().map(|email| (email, true))
    };
    if let Some((email, verified)) = address {
        claims.insert("email".into(), json!(email));
        claims.insert("email_verified".into(), json!(verified));
    }
    claims
}

const ROLE_CLAIMS: [(&str, Role); 3] =
    [("owner", Role::Owner), ("maintainer", Role::Maintainer), ("developer", Role::Developer)];

/// Scopes this GitLab knows.
pub(super) const SCOPES: [&str; 16] = [
    "api",
    "read_api",
    "read_user",
    "create_runner",
    "manage_runner",
    "k8s_proxy",
    "self_rotate",
    "read_repository",
    "write_repository",
    "sudo",
    "admin_mode",
    "read_registry",
    "write_registry",
    "openid",
    "profile",
    "email",
];

const CLAIMS: [&str; 27] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "sub_legacy",
    "name",
    "nickname",
    "preferred_username",
    "given_name",
    "family_name",
    "email",
    "email_verified",
    "website",
    "profile",
    "picture",
    "groups",
    "groups_direct",
    "https://gitlab.org/claims/groups/owner",
    "https://gitlab.org/claims/groups/maintainer",
    "https://gitlab.org/claims/groups/developer",
    "project_path",
    "ci_config_ref_uri",
    "ref_path",
    "sha",
    "environment",
    "jti",
];
