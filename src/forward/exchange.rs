//! Bodies of one exchange: trailers are filtered both ways, and the connection goes back to its pool when the response is complete.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    backend::{Backend, Connection},
    headers,
};
use crate::body::{Body, BoxError};

/// Whether a name is the gate's own, so that nobody else may say it in a trailer.
pub type Reserved = Arc<dyn Fn(&HeaderName) -> bool + Send + Sync>;

/// What the two directions of one exchange tell each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    moved: AtomicBool,
    awaited: AtomicBool,
    failed: AtomicBool,
    over: AtomicBool,
    upload: AtomicWaker,
}

impl Progress {
    /// Whether the upstream has no reason to answer yet: a piece of the upload has moved since the last call, or the client owes one.
    pub(super) fn goes_on(&self) -> bool {
        self.moved.swap(false, Relaxed) || self.awaited.load(Relaxed)
    }

    /// Whether the client did not send its body to the end, or not properly.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Gives up an upload whose answer is complete: nobody reads the rest.
    pub(super) fn end(&self) {
        self.over.store(true, Relaxed);
        self.upload.wake();
    }
}

/// A request body whose trailers carry nothing that a header of that name could not.
pub(super) struct Upload {
    pub(super) body: Body,
    pub(super) progress: Arc<Progress>,
    pub(super) reserved: Reserved,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.progress.upload.register(context.waker());
        if self.progress.over.load(Relaxed) {
            return Poll::Ready(Some(Err("the answer came before the end of the request".into())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.progress.awaited.store(frame.is_pending(), Relaxed);
        let frame = ready!(frame);
        self.progress.moved.store(true, Relaxed);
        if matches!(frame, Some(Err(_))) {
            self.progress.failed.store(true, Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| filter(frame, &self.reserved))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body, and the connection that it comes on.
pub(super) struct Download {
    pub(super) body: Incoming,
    pub(super) complete: bool,
    pub(super) connection: Option<Connection>,
    pub(super) upload: Option<Arc<Progress>>,
    pub(super) backend: Arc<Backend>,
    pub(super) core: usize,
    pub(super) reserved: Reserved,
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(filter(frame, &self.reserved)))),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                self.complete = true;
                Poll::Ready(None)
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A connection in the middle of a body is closed by dropping its sender.
        if (self.complete || self.body.is_end_stream())
            && let Some(connection) = self.connection.take()
        {
            self.backend.put(self.core, connection);
        }
        if let Some(upload) = &self.upload {
            upload.end();
        }
    }
}

fn filter(frame: Frame<Bytes>, reserved: &Reserved) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(allowed(trailers, reserved)),
        Err(frame) => frame,
    }
}

fn allowed(trailers: HeaderMap, reserved: &Reserved) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(trailers.len());
    let mut name = None;
    for (next, value) in trailers {
        name = next.or(name);
        if let Some(name) = &name
            && headers::may_trail(name.as_str())
            && !reserved(name)
        {
            kept.append(name.clone(), value);
        }
    }
    kept
}
