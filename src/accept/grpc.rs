//! gRPC on our own HTTP/2 connections: which requests are calls, one message in, one or several out, and how a call fails.
//!
//! ```text
//! DATA = 0, length (4 bytes), message ; what came of it is in the trailer `grpc-status`, or in the head if there is no message
//! ```
//!
//! That is all of the protocol that unary calls need, so no second server is set beside [`super::Server`] for it: its limits, deadlines and drain hold here
//! too. Compressed messages are refused, as gRPC has it for servers that know none. What messages mean is the caller's.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use prost::Message;
use tokio::time::timeout;

use crate::body::{Body, BoxError, Request, Response};

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// It was answered.
    Ok = 0,
    /// Its message can't be read.
    InvalidArgument = 3,
    /// Its message did not come in time.
    DeadlineExceeded = 4,
    /// It asks about something that is not here.
    NotFound = 5,
    /// Whoever calls may not.
    PermissionDenied = 7,
    /// Its message is too long.
    ResourceExhausted = 8,
    /// There is no such method.
    Unimplemented = 12,
    /// A fault of labgate's own.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Nobody is signed in.
    Unauthenticated = 16,
}

impl Code {
    fn header(self) -> HeaderValue {
        HeaderValue::from(self as u16)
    }

    /// What went wrong, for people.
    fn words(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::InvalidArgument => "the message can't be read",
            Self::DeadlineExceeded => "the message did not come in time",
            Self::NotFound => "there is no such service",
            Self::PermissionDenied => "this peer may not call",
            Self::ResourceExhausted => "the message is too long",
            Self::Unimplemented => "there is no such method",
            Self::Internal => "a fault of labgate's own",
            Self::Unavailable => "this process is about to end",
            Self::Unauthenticated => "nobody is signed in",
        }
    }
}

/// The answer to a request that is no call at all.
pub fn no_call(request: &Request) -> Option<Response> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_grpc = kind.is_some_and(|kind| {
        let rest = kind.strip_prefix(CONTENT_TYPE.as_bytes());
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    });
    let status = match () {
        () if request.version() != Version::HTTP_2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        () if request.method() != Method::POST => StatusCode::METHOD_NOT_ALLOWED,
        () if !is_grpc => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        () => return None,
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// The one message of a call.
///
/// # Errors
/// What came of the call, if there is none.
pub async fn read_message(body: Body, longest: usize, patience: Duration) -> Result<Bytes, Code> {
    let whole = Limited::new(body, longest.saturating_add(PREFIX)).collect();
    let mut bytes = match timeout(patience, whole).await {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Code::ResourceExhausted),
        Ok(Err(_)) => return Err(Code::InvalidArgument),
        Err(_) => return Err(Code::DeadlineExceeded),
    };
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(Code::InvalidArgument);
    };
    let [compressed, length @ ..] = *prefix;
    if compressed == 1 {
        return Err(Code::Unimplemented);
    }
    let message = bytes.split_off(PREFIX);
    let is_whole = u32::try_from(message.len()) == Ok(u32::from_be_bytes(length));
    match compressed == 0 && is_whole {
        true => Ok(message),
        false => Err(Code::InvalidArgument),
    }
}

/// The answer of one message.
pub fn message(message: &impl Message) -> Response {
    let body =
        Full::new(framed(message)).with_trailers(std::future::ready(Some(Ok(ended(Code::Ok)))));
    respond(Body::stream(body))
}

/// The answer of a message now and then; it ends with `code`.
pub fn messages<M, S>(messages: S, code: Code) -> Response
where
    M: Message,
    S: Stream<Item = M> + Send + Sync + 'static,
{
    let frames = messages.map(|message| Ok::<_, BoxError>(Frame::data(framed(&message))));
    let body = StreamBody::new(frames).with_trailers(std::future::ready(Some(Ok(ended(code)))));
    respond(Body::stream(body))
}

/// The answer to a call that has none.
pub fn failed(code: Code) -> Response {
    let mut response = respond(Body::empty());
    response.headers_mut().extend(ended(code));
    response
}

fn respond(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

fn ended(code: Code) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(STATUS, code.header());
    if code != Code::Ok {
        trailers.insert(MESSAGE, HeaderValue::from_static(code.words()));
    }
    trailers
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

const CONTENT_TYPE: &str = "application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Bytes before a message: a flag and its length.
const PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &'static [u8]) -> Result<Bytes, Code> {
        read_message(Body::full(bytes), 4, Duration::from_mins(1)).await
    }

    #[tokio::test]
    async fn a_call_has_one_whole_plain_message() {
        assert_eq!(read(b"\0\0\0\0\x02ab").await.unwrap(), "ab");
        assert_eq!(read(b"\0\0\0\0\0").await.unwrap(), "");
        for (bytes, code) in [
            (&b""[..], Code::InvalidArgument),
            (b"\0\0\0\0", Code::InvalidArgument),
            (b"\0\0\0\0\x03ab", Code::InvalidArgument),
            (b"\0\0\0\0\x01ab", Code::InvalidArgument),
            (b"\0\xff\xff\xff\xffab", Code::InvalidArgument),
            (b"\x02\0\0\0\x02ab", Code::InvalidArgument),
            (b"\x01\0\0\0\x02ab", Code::Unimplemented),
            (b"\0\0\0\0\x05abcde", Code::ResourceExhausted),
        ] {
            assert_eq!(read(bytes).await, Err(code), "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_is_not_waited_for_long() {
        let never =
            StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>());
        let read = read_message(Body::stream(never), 4, Duration::from_secs(5)).await;
        assert_eq!(read, Err(Code::DeadlineExceeded));
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_code() {
        let whole = message(&"ab".to_owned()).into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(whole.to_bytes(), &b"\0\0\0\0\x04\x0a\x02ab"[..]);
        let failed = failed(Code::Unimplemented);
        assert_eq!(failed.headers()["grpc-status"], "12");
        assert_eq!(failed.headers()["content-type"], "application/grpc");
    }

    #[test]
    fn calls_are_told_by_version_method_and_content_type() {
        let status = |version, method: &str, kind: &str| {
            let request = http::Request::builder().version(version).method(method);
            let request = request.header("content-type", kind).body(Body::empty());
            no_call(&request.unwrap()).map(|response| response.status().as_u16())
        };
        let http2 = Version::HTTP_2;
        assert_eq!(status(http2, "POST", "application/grpc"), None);
        assert_eq!(status(http2, "POST", "application/grpc+proto"), None);
        assert_eq!(status(http2, "POST", "application/grpc-web"), Some(415));
        assert_eq!(status(http2, "POST", "text/plain"), Some(415));
        assert_eq!(status(http2, "GET", "application/grpc"), Some(405));
        assert_eq!(status(Version::HTTP_11, "POST", "application/grpc"), Some(505));
    }
}
