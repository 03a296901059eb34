//! Bodies, requests and responses as they pass through the rooms: streamed both ways, never buffered whole.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::BoxBody};

/// What went wrong while a body was read, whatever its source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request as it came off a socket; `accept` has checked its framing.
pub type Request = http::Request<Body>;

/// A response on its way to a client.
pub type Response = http::Response<Body>;

/// The bytes of a message: known in full, or streamed.
pub struct Body(Kind);

enum Kind {
    Full(Option<Bytes>),
    Incoming(hyper::body::Incoming),
    Boxed(BoxBody<Bytes, BoxError>),
}

impl Body {
    /// No bytes at all.
    pub const fn empty() -> Self {
        Self(Kind::Full(None))
    }

    /// All bytes at once; sets the length.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// Streams `body`, whatever it is, one frame after the other.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Boxed(BoxBody::new(body.map_err(Into::into))))
    }
}

impl From<hyper::body::Incoming> for Body {
    fn from(incoming: hyper::body::Incoming) -> Self {
        Self(Kind::Incoming(incoming))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.0 {
            Kind::Full(None) => "Body(empty)",
            Kind::Full(Some(_)) => "Body(full)",
            Kind::Incoming(_) | Kind::Boxed(_) => "Body(stream)",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Incoming(incoming) => {
                Pin::new(incoming).poll_frame(context).map_err(BoxError::from)
            },
            Kind::Boxed(boxed) => Pin::new(boxed).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Boxed(boxed) => boxed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            },
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Boxed(boxed) => boxed.size_hint(),
        }
    }
}
