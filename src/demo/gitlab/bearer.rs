//! Tokens that come with a request: where they may stand, what they are, and GitLab's words when they are no good.

use http::{HeaderMap, StatusCode, header};

use super::state::{Row, World};
use crate::{
    clock::Timestamp,
    demo::answer::{self, Answer, Params},
};

/// Why an OAuth token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    Unknown,
    Expired,
    Revoked,
}

impl Dead {
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Unknown => "The access token is invalid",
            Self::Expired => "The access token expired",
            Self::Revoked => "The access token was revoked",
        }
    }
}

/// Doorkeeper's words for a scope that is missing.
pub(super) const INSUFFICIENT_SCOPE: &str =
    "The request requires higher privileges than provided by the access token.";

/// The token in `access_token`, `Authorization: Bearer` or `bearer_token`, in Doorkeeper's order.
pub(super) fn presented<'a>(headers: &'a HeaderMap, params: &'a Params) -> Option<&'a str> {
    params
        .text("access_token")
        .or_else(|| {
            let (scheme, token) =
                answer::header_text(headers, header::AUTHORIZATION)?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        })
        .or_else(|| params.text("bearer_token"))
}

/// The row of the OAuth token that came with a request.
pub(super) fn oauth_row<'a>(
    world: &'a World,
    headers: &HeaderMap,
    params: &Params,
    now: Timestamp,
) -> Result<&'a Row, Dead> {
    let token = presented(headers, params).ok_or(Dead::Unknown)?;
    let row = world.tokens.by_access_token(token).ok_or(Dead::Unknown)?;
    if world.directory.user(row.user).is_none() {
        return Err(Dead::Unknown);
    }
    alive(row, now)
}

fn alive(row: &Row, now: Timestamp) -> Result<&Row, Dead> {
    if row.revoked {
        Err(Dead::Revoked)
    } else if row.is_expired(now) {
        Err(Dead::Expired)
    } else {
        Ok(row)
    }
}

/// The value of `WWW-Authenticate` in Doorkeeper's words.
pub(super) fn challenge(error: &str, description: &str) -> String {
    format!(r#"Bearer realm="Doorkeeper", error="{error}", error_description="{description}""#)
}

/// GitLab's page for an exception nobody caught.
pub(super) fn broken() -> Answer {
    let page = "<!DOCTYPE html>\n<html><head><title>Something went wrong (500)</title></head>\
        <body><h1>500</h1><p>Whoops, something went wrong on our end.</p></body></html>\n";
    answer::typed(StatusCode::INTERNAL_SERVER_ERROR, "text/html; charset=utf-8", page)
}
