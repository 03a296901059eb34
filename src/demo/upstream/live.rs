//! The live counter: `text/event-stream`, one event a second, for as long as somebody listens.
//!
//! A browser that comes back says by `Last-Event-ID` where it was, and the counter goes on from there.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    body::Body,
    demo::answer::{self, Answer},
};

/// `GET /events`.
pub(super) fn events(headers: &HeaderMap) -> Answer {
    let last = answer::header_text(headers, "last-event-id").and_then(|id| id.parse().ok());
    let mut every = interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ticks = Ticks { every, count: last.unwrap_or(0) };
    let mut answer = Response::new(Body::stream(ticks));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

struct Ticks {
    every: Interval,
    count: u64,
}

impl http_body::Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let _at = ready!(self.every.poll_tick(context));
        self.count = self.count.saturating_add(1);
        let count = self.count;
        let event = format!("retry: 1000\nid: {count}\ndata: {count}\n\n");
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}
