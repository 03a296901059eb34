//! What Envoy is told: which headers the application and the browser get, or what the browser gets instead.
//!
//! ```text
//! ok_response      headers                  the whole identity, empties included; the cookies that are not labgate's; the request's id
//!                  headers_to_remove        whatever a proxy would keep from the application
//!                  response_headers_to_add  the session's new cookie
//! denied_response  status, headers, body    of the answer that the browser would have got from labgate
//! ```
//!
//! Each header says how it is set: Envoy's own default has changed with its versions. A name that is set is never removed too, as Envoy removes last.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::messages::{
    AppendAction, CheckResponse, DeniedResponse, HeaderOption, HeaderText, HttpStatus, Metadata,
    OkResponse, Status, Text,
};
use crate::accept::Code;

/// The request that Envoy has may pass, once its headers `before` are these `after`; `set` is what labgate says itself.
pub(super) fn allowed(
    before: &HeaderMap,
    after: &HeaderMap,
    mut set: HeaderMap,
    told: &HeaderMap,
) -> CheckResponse {
    if let Some(cookies) = changed_cookies(before, after) {
        set.insert(header::COOKIE, cookies);
    }
    let remains = |name: &HeaderName| match *name {
        // What is left of it can't be told as text.
        header::COOKIE => before.get_all(name) == after.get_all(name),
        _ => after.contains_key(name),
    };
    let gone = before.keys().filter(|name| !remains(name) && !set.contains_key(*name));
    let ok = OkResponse {
        headers_to_remove: gone.map(|name| name.as_str().to_owned()).collect(),
        headers: options(&set, |_| AppendAction::Overwrite),
        // Beside those of the application.
        response_headers_to_add: options(told, |_| AppendAction::Append),
    };
    CheckResponse {
        status: Some(Status { code: Code::Ok as i32, message: String::new() }),
        ok_response: Some(ok),
        ..CheckResponse::default()
    }
}

/// The browser gets `response` instead.
pub(super) fn denied(response: &Response<()>, body: &Bytes, reason: &str) -> CheckResponse {
    let headers = response.headers();
    let mut last = None;
    let denied = DeniedResponse {
        status: Some(HttpStatus { code: response.status().as_u16().into() }),
        // What several lines say of one name stands together.
        headers: options(headers, |name| {
            let is_next = last.as_ref() == Some(name);
            last = Some(name.clone());
            if is_next { AppendAction::Append } else { AppendAction::Overwrite }
        }),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    CheckResponse {
        status: Some(Status { code: code(response.status()) as i32, message: reason.into() }),
        denied_response: Some(denied),
        ..CheckResponse::default()
    }
}

/// What later filters and Envoy's access log may read.
pub(super) fn metadata(facts: impl Iterator<Item = (&'static str, String)>) -> Metadata {
    let text = |value| Text { string_value: Some(value) };
    Metadata { fields: facts.map(|(name, value)| (name.to_owned(), text(value))).collect() }
}

fn options(
    headers: &HeaderMap,
    mut action: impl FnMut(&HeaderName) -> AppendAction,
) -> Vec<HeaderOption> {
    let said = headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH);
    let option = said.filter_map(|(name, value)| {
        // Envoy takes nothing but text; all that labgate says is text.
        let value = str::from_utf8(value.as_bytes()).ok()?.to_owned();
        Some(HeaderOption {
            header: Some(HeaderText { key: name.as_str().to_owned(), value }),
            append_action: action(name) as i32,
            keep_empty_value: true,
        })
    });
    option.collect()
}

/// The cookies that remain, in one line as HTTP has it, if some do and some don't; those that are no text can't be told, and go.
fn changed_cookies(before: &HeaderMap, after: &HeaderMap) -> Option<HeaderValue> {
    if before.get_all(header::COOKIE) == after.get_all(header::COOKIE) {
        return None;
    }
    let lines = after.get_all(header::COOKIE).iter();
    let pieces = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let texts = pieces.filter_map(|piece| str::from_utf8(piece.trim_ascii()).ok());
    let kept: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
    let line = (!kept.is_empty()).then(|| HeaderValue::from_str(&kept.join("; ")));
    line?.ok()
}

fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::FOUND | StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
        _ => Code::PermissionDenied,
    }
}
