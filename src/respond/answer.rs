//! How every answer of labgate's own is built: its headers, and the kinds that need no page.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    body::{Body, Response},
    refusal::Refusal,
};

/// For answers that are no page: nothing may be loaded, run, framed or sent.
const LOCKED: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is missing where nobody is signed in.
pub(super) const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"labgate\"");

/// Sends a GET on to `location` with 302, setting `cookies` (values of `Set-Cookie`) on the way.
pub fn redirect(location: &str, cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    found(StatusCode::FOUND, location, cookies)
}

/// Sends a POST on to `location` with 303, so that the browser goes there with GET.
pub fn see_other(location: &str, cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    found(StatusCode::SEE_OTHER, location, cookies)
}

/// Nothing to say but that it is done: 204.
pub fn done() -> Response {
    own(StatusCode::NO_CONTENT, Body::empty(), HeaderValue::from_static(LOCKED))
}

/// `value` as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    structured(status, "application/json", value)
}

/// Public keys as JSON, the same for everybody: the one answer that any cache may keep, for `max_age`.
pub fn key_set(keys: String, max_age: Duration) -> Response {
    let mut response = own(StatusCode::OK, Body::full(keys), HeaderValue::from_static(LOCKED));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let kept = HeaderValue::try_from(format!("public, max-age={}", max_age.as_secs()));
    headers.insert(header::CACHE_CONTROL, kept.unwrap_or(HeaderValue::from_static("no-store")));
    headers.remove(header::VARY);
    response
}

pub(super) fn structured(
    status: StatusCode,
    kind: &'static str,
    value: &impl Serialize,
) -> Response {
    // Only a map with keys that are no text could fail, and nothing here has one.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = own(status, Body::full(bytes), HeaderValue::from_static(LOCKED));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn found(
    status: StatusCode,
    location: &str,
    cookies: impl IntoIterator<Item = HeaderValue>,
) -> Response {
    let mut response = own(status, Body::empty(), HeaderValue::from_static(LOCKED));
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location_value(location));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}

/// `location` as a field value; callers pass URLs that are parsed already, and anything else goes home rather than out of the header.
pub(super) fn location_value(location: &str) -> HeaderValue {
    let is_plain = location.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
    let value = is_plain.then(|| HeaderValue::from_str(location).ok());
    value.flatten().unwrap_or(HeaderValue::from_static("/"))
}

/// An answer with the headers that all answers of labgate's own have.
pub(super) fn own(status: StatusCode, body: Body, policy: HeaderValue) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let fields = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // For browsers that know no frame-ancestors.
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::VARY, "Cookie, Accept, Sec-Fetch-Mode"),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a refusal says in header fields: `Allow`, `Retry-After`, `WWW-Authenticate`.
pub(super) fn explain_by_headers(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Refusal::MethodNotAllowed(methods) = refusal {
        let names: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
        if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
            headers.insert(header::ALLOW, value);
        }
    }
    if let Some(wait) = refusal.retry_after() {
        let seconds = wait.as_secs().max(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        if matches!(refusal, Refusal::Unconfirmed { .. }) {
            // Whoever looks at the page is let in by itself once GitLab has said so.
            headers.insert(header::REFRESH, HeaderValue::from(seconds));
        }
    }
    for challenge in challenges(refusal) {
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            headers.append(header::WWW_AUTHENTICATE, challenge);
        }
    }
}

/// What to bring, in the words of RFC 9110 and RFC 6750.
fn challenges(refusal: &Refusal) -> Vec<String> {
    let bearer = |more: &str| format!("Bearer realm=\"labgate\"{more}");
    match refusal {
        Refusal::Hook(_) if refusal.status() == StatusCode::UNAUTHORIZED => {
            vec!["X-Gitlab-Token realm=\"labgate\"".into()]
        },
        Refusal::SignIn(sign_in) if !sign_in.navigation => {
            let basic = sign_in.basic.then(|| "Basic realm=\"labgate\", charset=\"UTF-8\"".into());
            std::iter::once(bearer("")).chain(basic).collect()
        },
        Refusal::Token(trouble) => {
            trouble.challenge().map(|error| bearer(&format!(", {error}"))).into_iter().collect()
        },
        Refusal::Forbidden(forbidden) => {
            let scope = forbidden
                .lacks()
                .map(|scope| bearer(&format!(", error=\"insufficient_scope\", scope=\"{scope}\"")));
            scope.into_iter().collect()
        },
        _ if refusal.status() == StatusCode::UNAUTHORIZED => vec![bearer("")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_never_leaves_its_header() {
        let cases = [
            ("https://app.test/a?b=c#d", "https://app.test/a?b=c#d"),
            ("/path", "/path"),
            ("/a\r\nSet-Cookie: x=y", "/"),
            ("/a b", "/"),
            ("/é", "/"),
            ("/a\u{0}", "/"),
        ];
        for (location, sent) in cases {
            assert_eq!(location_value(location), sent);
        }
    }

    #[test]
    fn redirects_carry_all_cookies_and_no_body() {
        let cookies = ["a=1; HttpOnly", "b=2"].map(HeaderValue::from_static);
        let response = see_other("/next", cookies.clone());
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let sent: Vec<_> = response.headers().get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(sent, cookies.iter().collect::<Vec<_>>());
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(redirect("/next", []).status(), StatusCode::FOUND);
    }
}
