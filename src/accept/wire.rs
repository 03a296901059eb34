//! The socket of one connection as hyper reads it: strict framing for HTTP/1, and word of what moves for the timers.
//!
//! A refused head never reaches hyper. A NUL takes its place, for which hyper answers 400 and closes, in order behind earlier responses.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    framing::{Framing, Verdict},
    live::{Link, Open, Upgrade},
};

/// A NUL is wrong wherever it stands in a head; the empty line has hyper parse at once.
const POISON: &[u8] = b"\0\r\n\r\n";

/// One accepted socket.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    link: Arc<Link>,
    /// Bytes that were read before their turn.
    ahead: Vec<u8>,
    /// None for HTTP/2 and in a tunnel.
    framing: Option<Framing>,
    refused: Option<&'static [u8]>,
    linger: Option<Pin<Box<Sleep>>>,
    _open: Open,
}

impl Wire {
    /// A connection that speaks HTTP/1; `ahead` was already read from `stream`.
    pub(super) fn http1(stream: TcpStream, link: Arc<Link>, ahead: Vec<u8>, open: Open) -> Self {
        Self { framing: Some(Framing::default()), ..Self::http2(stream, link, ahead, open) }
    }

    /// A connection that speaks HTTP/2, whose framing is not ambiguous.
    pub(super) fn http2(stream: TcpStream, link: Arc<Link>, ahead: Vec<u8>, open: Open) -> Self {
        Self { stream, link, ahead, framing: None, refused: None, linger: None, _open: open }
    }

    fn fill(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let count = self.ahead.len().min(into.remaining());
        into.put_slice(self.ahead.get(..count).unwrap_or_default());
        self.ahead.drain(..count);
        // More may wait in the socket: a head that came whole is then parsed once.
        if self.ahead.is_empty() && into.remaining() > 0 {
            self.ahead = Vec::new();
            if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_read(context, into) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn refuse(&mut self, into: &mut ReadBuf<'_>) {
        let poison = self.refused.take().unwrap_or_default();
        let count = poison.len().min(into.remaining());
        let (now, later) = poison.split_at_checked(count).unwrap_or((poison, &[]));
        into.put_slice(now);
        self.refused = Some(later);
    }

    fn settle_upgrade(&mut self) -> bool {
        match self.link.upgrade() {
            Upgrade::None => return true,
            Upgrade::Held => return false,
            Upgrade::Declined => {
                if let Some(framing) = &mut self.framing {
                    framing.resume();
                }
            },
            Upgrade::Accepted => self.framing = None,
        }
        self.link.set_upgrade(Upgrade::None);
        true
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.refused.is_some() {
            wire.refuse(into);
            return Poll::Ready(Ok(()));
        }
        // Answering wakes the task: there is no other waker to leave.
        if !wire.settle_upgrade() {
            return Poll::Pending;
        }
        let before = into.filled().len();
        let Poll::Ready(read) = wire.fill(context, into) else {
            if let Some(framing) = &wire.framing {
                wire.link.read(framing.in_head(), framing.in_body());
            }
            return Poll::Pending;
        };
        read?;
        wire.link.moved();
        let Some(framing) = &mut wire.framing else {
            return Poll::Ready(Ok(()));
        };
        let new = into.filled().get(before..).unwrap_or_default();
        let verdict = framing.inspect(new);
        let (count, in_head) = (new.len(), framing.in_head());
        wire.link.read(in_head, false);
        match verdict {
            Verdict::Pass => {},
            Verdict::Hold(pass) => {
                let held = new.get(pass..).unwrap_or_default().to_vec();
                into.set_filled(before + pass.min(count));
                wire.ahead.splice(..0, held);
                wire.link.set_upgrade(Upgrade::Held);
            },
            Verdict::RefuseHead(pass) => {
                into.set_filled(before + pass.min(count));
                wire.refused = Some(POISON);
                wire.refuse(into);
            },
            Verdict::RefuseBody => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        self.link.write_blocked(result.is_pending());
        if result.is_ready() {
            self.link.moved();
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let result = Pin::new(&mut wire.stream).poll_write(context, bytes);
        wire.wrote(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let result = Pin::new(&mut wire.stream).poll_write_vectored(context, bytes);
        wire.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.linger.is_none() {
            ready!(Pin::new(&mut wire.stream).poll_shutdown(context))?;
        }
        // Closing with bytes unread resets the connection, and the client may never see the answer it was sent.
        let unread = wire.refused.is_some()
            || wire.framing.as_ref().is_some_and(|framing| framing.in_head() || framing.in_body());
        let linger = wire.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scratch = [0; 8 * 1024];
        while unread && linger.as_mut().poll(context).is_pending() {
            let mut rest = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut wire.stream).poll_read(context, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => {},
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How long a client may go on sending what nobody reads, so that it sees why.
const LINGER: Duration = Duration::from_secs(2);
