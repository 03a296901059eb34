//! `/oauth/revoke`, `/oauth/introspect` and `/oauth/token/info`: what becomes of a token, and what is said about it.
//!
//! None of the three looks at the user: a blocked person's token is as active as any.

use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{
    bearer,
    state::Instance,
    token::{Credentials, OauthError},
};
use crate::demo::answer::{self, Answer, Params};

/// `POST /oauth/revoke`: either token of a row kills both.
pub(super) fn revoke(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Answer {
    let mut world = gitlab.world();
    let client = Credentials::read(headers, params)
        .and_then(|credentials| credentials.application(&world).map(|app| app.client_id.clone()));
    let row = params.text("token").and_then(|token| world.tokens.by_either(token)).cloned();
    let allowed = match (&client, &row) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(client), Some(row)) => row.client_id == *client,
    };
    if !allowed {
        let body = json!({
            "error": "unauthorized_client",
            "error_description": "You are not authorized to revoke this token",
        });
        return answer::json(StatusCode::FORBIDDEN, &body);
    }
    if let Some(row) = row {
        world.tokens.revoke(&row.access_token);
    }
    answer::json(StatusCode::OK, &json!({}))
}

/// `POST /oauth/introspect`, for clients and for other tokens of the same application.
pub(super) fn introspect(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Answer {
    let now = gitlab.clock.now();
    let world = gitlab.world();
    let token = params.text("token").unwrap_or_default();
    let asking = if let Some(credentials) = Credentials::read(headers, params) {
        match credentials.application(&world) {
            Some(application) => application.client_id.clone(),
            None => return OauthError::InvalidClient.answer(),
        }
    } else if let Some(own) = bearer::presented(headers, params) {
        match world.tokens.by_access_token(own).filter(|row| row.is_live(now) && own != token) {
            Some(row) => row.client_id.clone(),
            None => return OauthError::InvalidClient.answer(),
        }
    } else {
        return OauthError::InvalidRequest("client_id").answer();
    };
    let live = world.tokens.by_either(token).filter(|row| row.is_live(now));
    let body = match live.filter(|row| row.client_id == asking) {
        Some(row) => json!({
            "active": true,
            "scope": row.scopes.join(" "),
            "client_id": row.client_id,
            "token_type": "Bearer",
            "iat": row.created_at.unix(),
            "exp": row.expires_at(),
        }),
        None => json!({ "active": false }),
    };
    answer::json(StatusCode::OK, &body)
}

/// `GET /oauth/token/info`; a dead token is a 400 whose description is an object.
pub(super) fn info(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Answer {
    let now = gitlab.clock.now();
    let world = gitlab.world();
    let Ok(row) = bearer::oauth_row(&world, headers, params, now) else {
        let body = json!({
            "error": "invalid_request",
            "error_description": {
                "unknown": "The request is missing a required parameter, includes an unsupported \
                            parameter value, or is otherwise malformed.",
                "missing_param": "Missing required parameter: %{value}.",
                "request_not_authorized": "Request need to be authorized. Required parameter for \
                                           authorizing request is missing or invalid.",
            },
        });
        return answer::json(StatusCode::BAD_REQUEST, &body);
    };
    let left = row.expires_at().saturating_sub(now.unix());
    let body = json!({
        "resource_owner_id": row.user,
        "scope": row.scopes,
        "expires_in": left,
        "application": { "uid": row.client_id },
        "created_at": row.created_at.unix(),
        "scopes": row.scopes,
        "expires_in_seconds": left,
    });
    answer::json(StatusCode::OK, &body)
}
