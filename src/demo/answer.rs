//! Answers and parameters, the way both halves of the demo write and read them.
//!
//! Every page gets a strict Content-Security-Policy; what is dynamic in it comes from askama, which escapes it. What an answer
//! means is left to the endpoint that makes it.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::body::Body;

/// An answer on its way out.
pub(super) type Answer = Response<Body>;

/// Bytes of a form or JSON body that are read at most.
const FORM_BYTES: usize = 256 * 1024;

/// An answer of `status` without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// An answer with a body of this content type.
pub(super) fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Body::full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

/// JSON that no cache may keep.
pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    let answer = typed(status, "application/json; charset=utf-8", value.to_string());
    with(answer, header::CACHE_CONTROL, "no-store")
}

/// A page under this Content-Security-Policy; a template that fails is a 500.
pub(super) fn page(
    status: StatusCode,
    policy: &str,
    rendered: Result<String, askama::Error>,
) -> Answer {
    let Ok(html) = rendered else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be rendered\n");
    };
    let mut answer = typed(status, "text/html; charset=utf-8", html);
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        answer = with(answer, name, value);
    }
    answer
}

/// 302 to `location`.
pub(super) fn found(location: &str) -> Answer {
    with(empty(StatusCode::FOUND), header::LOCATION, location)
}

/// `answer` with one more header; a value that no header may carry is left out.
pub(super) fn with(mut answer: Answer, name: header::HeaderName, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().append(name, value);
    }
    answer
}

/// Parameters of a query or form, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Those of a query string or of an `application/x-www-form-urlencoded` body.
    pub(super) fn parse(encoded: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The last value of that name, as Rack reads it; none if blank.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)?;
        (!value.trim().is_empty()).then_some(value)
    }

    /// These, then `others`, which win.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// All pairs in order.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The query string of all pairs but those named `left_out`.
    pub(super) fn query_without(&self, left_out: &str) -> String {
        let kept = self.0.iter().filter(|(key, _)| key != left_out);
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish()
    }
}

/// The body in full, or none if it is longer than a form may be or breaks off.
pub(super) async fn collect(body: Incoming) -> Option<Bytes> {
    Some(Limited::new(body, FORM_BYTES).collect().await.ok()?.to_bytes())
}

/// The one value of this header as text.
pub(super) fn header_text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Bytes in lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_doubled_parameters_wins_and_blanks_are_none() {
        let params = Params::parse(b"a=1&a=2&b=+&c=%26");
        assert_eq!(params.text("a"), Some("2"));
        assert_eq!(params.text("b"), None);
        assert_eq!(params.text("c"), Some("&"));
        assert_eq!(params.text("d"), None);
        assert_eq!(params.query_without("a"), "b=+&c=%26");
    }
}
