//! Endpoints that show tests what arrived, and that answer in every way the wire allows.
//!
//! | Path | Answers |
//! |---|---|
//! | any method `/echo`, `/echo/…` | JSON: `method`, `target` as received, `version`, `headers` and `trailers` as pairs with duplicates, `length` and `sha256` of the body |
//! | `/bytes?n=N` | N bytes, the one at offset i being i mod 251, with a length |
//! | `/slow?ms=N` | after N milliseconds |
//! | `/status/NNN` | that status |
//! | `/headers` | cookies of its own beside some that pretend to be labgate's, and identity headers that nobody asked for |
//! | `/trailers` | a body and the trailer `x-checksum` |
//! | `/chunked` | three chunks of unknown length |
//! | `/close` | `Connection: close` |

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    body::Body,
    demo::answer::{self, Answer},
};

/// Says what arrived; reads the body as a stream, so its size does not matter.
pub(super) async fn echo(request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    let (mut length, mut hash, mut trailers) = (0_u64, Sha256::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return answer::text(StatusCode::BAD_REQUEST, "the body broke off\n");
        };
        match frame.into_data() {
            Ok(data) => {
                length = length.saturating_add(data.len() as u64);
                hash.update(&data);
            },
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let body = json!({
        "method": head.method.as_str(),
        "target": target,
        "version": format!("{:?}", head.version),
        "headers": pairs(&head.headers),
        "trailers": pairs(&trailers),
        "length": length,
        "sha256": answer::hex(&hash.finalize()),
    });
    answer::json(StatusCode::OK, &body)
}

fn pairs(headers: &HeaderMap) -> Vec<Value> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect()
}

/// A block that begins at a multiple of the pattern's period, so every block is alike.
const BLOCK: usize = 251 * 256;

/// N bytes of the pattern.
pub(super) fn bytes(length: u64) -> Answer {
    let block = (0..=250).cycle().take(BLOCK).collect::<Vec<u8>>().into();
    let body = Body::stream(Pattern { block, left: length });
    let mut answer = Response::new(body);
    let kind = HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

struct Pattern {
    block: Bytes,
    left: u64,
}

impl http_body::Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let take = usize::try_from(self.left).map_or(BLOCK, |left| left.min(BLOCK));
        self.left -= take as u64;
        let mut block = self.block.clone();
        block.truncate(take);
        Poll::Ready(Some(Ok(Frame::data(block))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The longest that `/slow` waits, in milliseconds.
const SLOWEST: u64 = 600_000;

/// An answer after so many milliseconds.
pub(super) async fn slow(milliseconds: u64) -> Answer {
    tokio::time::sleep(Duration::from_millis(milliseconds.min(SLOWEST))).await;
    answer::text(StatusCode::OK, "at last\n")
}

/// An answer of this status; those without a body have none.
pub(super) fn status(number: &str) -> Answer {
    let status = number.parse().ok().and_then(|number: u16| StatusCode::from_u16(number).ok());
    match status {
        Some(status) if status.is_informational() => {
            answer::text(StatusCode::BAD_REQUEST, "1xx is no final status\n")
        },
        Some(status @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)) => answer::empty(status),
        Some(status) => answer::text(status, format!("status {status}\n")),
        None => answer::text(StatusCode::BAD_REQUEST, "no such status\n"),
    }
}

/// Cookies and identity headers, some of which an app has no business setting.
pub(super) fn headers() -> Answer {
    let mut answer = answer::text(StatusCode::OK, "look at the headers\n");
    for cookie in [
        "app_session=1; Path=/; HttpOnly",
        "app_theme=dark; Path=/",
        "labgate=forged; Path=/",
        "__Host-labgate=forged; Path=/; Secure",
    ] {
        answer = answer::with(answer, header::SET_COOKIE, cookie);
    }
    let name = header::HeaderName::from_static("x-forwarded-user");
    answer::with(answer, name, "forged-by-the-app")
}

/// A body in frames, of a length nobody knows beforehand.
struct Frames(VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

fn frames(extra: Option<HeaderMap>) -> Answer {
    let words = ["one\n", "two\n", "three\n"];
    let data = words.map(|word| Frame::data(Bytes::from_static(word.as_bytes())));
    let frames = data.into_iter().chain(extra.map(Frame::trailers)).collect();
    Response::new(Body::stream(Frames(frames)))
}

/// Three chunks.
pub(super) fn chunked() -> Answer {
    frames(None)
}

/// Three chunks and a trailer; sent only to those who say `TE: trailers`.
pub(super) fn trailers() -> Answer {
    let name = header::HeaderName::from_static("x-checksum");
    let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("one-two-three"))]);
    answer::with(frames(Some(trailers)), header::TRAILER, "x-checksum")
}

/// An answer after which the connection closes.
pub(super) fn close() -> Answer {
    answer::with(answer::text(StatusCode::OK, "goodbye\n"), header::CONNECTION, "close")
}
