//! Answers in forward-auth: a verdict that a front proxy understands.
//!
//! ```text
//!              passes         navigation           other              may not          GitLab silent
//! nginx        200, headers   401 + Location       401 + Location     403              503 (nginx says 500)
//! all others   200, headers   302                  401                403              503
//! ```
//!
//! A 200 is exactly that, carries the identity and nothing else, and sets no cookie: most proxies drop it, some break on it. nginx passes on 401 and 403
//! only and looks for `Location` at every 401, so everything that the client has brought on becomes one of the two.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::answer;
use crate::{
    body::{Body, Response},
    config::Dialect,
    refusal::{Refusal, SignIn},
};

/// The answer that lets pass, with the headers that `tell` sets.
///
/// # Errors
/// That of `tell`.
pub fn allow<E>(tell: impl FnOnce(&mut HeaderMap) -> Result<(), E>) -> Result<Response, E> {
    // Some proxies hand on each header of this answer: what is not there does no harm.
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    tell(headers)?;
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Makes `response`, which says `refusal`, one that the front proxy understands.
pub(super) fn translate(refusal: &Refusal, dialect: Dialect, response: &mut Response) {
    let reason = HeaderValue::from_static(refusal.code());
    response.headers_mut().insert(REASON, reason);
    match dialect {
        Dialect::Nginx => for_nginx(refusal, response),
        Dialect::Traefik | Dialect::Caddy | Dialect::Haproxy | Dialect::Envoy => {},
    }
}

fn for_nginx(refusal: &Refusal, response: &mut Response) {
    let status = match response.status() {
        status if status.is_redirection() => StatusCode::UNAUTHORIZED,
        status if status.is_client_error() && status != StatusCode::UNAUTHORIZED => {
            StatusCode::FORBIDDEN
        },
        status => status,
    };
    *response.status_mut() = status;
    if status != StatusCode::UNAUTHORIZED {
        return;
    }
    let headers = response.headers_mut();
    if let Refusal::SignIn(SignIn { url, .. }) | Refusal::Unsent(SignIn { url, .. }) = refusal {
        headers.insert(header::LOCATION, answer::location_value(url));
    }
    // A token that does not count says more.
    headers.entry(header::WWW_AUTHENTICATE).or_insert(answer::BEARER);
}

/// Why, as a word that the proxy can log.
const REASON: HeaderName = HeaderName::from_static("x-labgate-reason");
