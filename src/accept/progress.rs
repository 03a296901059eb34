//! Answers on their way to the peer: a request counts as busy until its last byte is written, and HTTP/2 peers who leave answers lying are found.
//!
//! ```text
//! Tracked (the body) ─▶ Piece, Piece … ─▶ hyper and h2 ─▶ Piece::advance as the peer's window lets bytes go
//! ```
//!
//! In HTTP/1 a blocked socket shows that an answer is not taken. In HTTP/2 the socket may be free while the peer's window keeps an answer back
//! (threat H2): so each piece of one tells when its bytes move. An answer that waits for us has no piece underway. What comes of an answer that
//! is left lying is `serve`'s to say.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::live::Busy;
use crate::body::{Body, BoxError};

/// The answers of one HTTP/2 connection that are not written yet.
#[derive(Debug)]
pub(super) struct Answers {
    began: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    /// As many as the peer may have streams.
    flows: BTreeMap<u64, Arc<Flow>>,
}

/// Looks now and then for answers that are left lying.
pub(super) struct Watch {
    answers: Arc<Answers>,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    /// Looks that are left to the other answers.
    looks: u32,
}

/// Answers that are left lying.
pub(super) enum Left {
    /// Others move, or wait for us.
    Some,
    /// There are no others, or they had their time.
    All,
}

/// How many looks, each after half of `timeouts.idle`, those answers have to end that move beside others that lie.
const LOOKS: u32 = 8;

impl Watch {
    pub(super) fn new(answers: Arc<Answers>, idle: Duration) -> Self {
        Self { answers, idle, timer: Box::pin(sleep(idle / 2)), looks: LOOKS }
    }

    /// Which of so many answers the peer has left lying for `timeouts.idle`; none if it is not yet time to look.
    pub(super) fn look(&mut self, busy: usize, context: &mut Context<'_>) -> Option<Left> {
        if self.timer.as_mut().poll(context).is_pending() {
            return None;
        }
        self.timer.as_mut().reset(Instant::now() + self.idle / 2);
        // Has the timer polled again, which registers it.
        context.waker().wake_by_ref();
        let left = self.answers.left_lying(self.idle);
        if left == 0 {
            return None;
        }
        self.looks = self.looks.saturating_sub(1);
        Some(if left >= busy || self.looks == 0 { Left::All } else { Left::Some })
    }
}

/// How one answer moves.
#[derive(Debug)]
struct Flow {
    /// Pieces that are not written.
    underway: AtomicUsize,
    /// Milliseconds from the connection's beginning to the last move.
    moved: AtomicU64,
}

/// One answer, until its last piece is written or given up.
#[derive(Debug)]
struct Answer {
    all: Arc<Answers>,
    number: u64,
    flow: Arc<Flow>,
    _busy: Busy,
}

impl Answers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), open: Mutex::default() })
    }

    /// How many answers have bytes to be taken, of which none was for so long.
    fn left_lying(&self, patience: Duration) -> usize {
        let now = self.now();
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let lies = |flow: &&Arc<Flow>| {
            flow.underway.load(Relaxed) > 0
                && now.saturating_sub(flow.moved.load(Relaxed)) >= patience
        };
        self.open().flows.values().filter(lies).count()
    }

    fn add(self: &Arc<Self>, busy: Busy) -> Arc<Answer> {
        let flow = Arc::new(Flow { underway: AtomicUsize::new(0), moved: AtomicU64::new(0) });
        let mut open = self.open();
        open.last += 1;
        let number = open.last;
        open.flows.insert(number, Arc::clone(&flow));
        Arc::new(Answer { all: Arc::clone(self), number, flow, _busy: busy })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Whoever panicked has left a whole map.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn moves(&self) {
        self.flow.moved.store(self.all.now(), Relaxed);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.all.open().flows.remove(&self.number);
    }
}

/// A response body that keeps its request counted while it is written.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    keeper: Keeper,
}

#[derive(Debug)]
enum Keeper {
    Http1 { _busy: Busy },
    Http2(Arc<Answer>),
}

impl Tracked {
    /// `answers` are the connection's if it speaks HTTP/2.
    pub(super) fn new(body: Body, busy: Busy, answers: Option<&Arc<Answers>>) -> Self {
        let keeper = match answers {
            Some(answers) => Keeper::Http2(answers.add(busy)),
            None => Keeper::Http1 { _busy: busy },
        };
        Self { body, keeper }
    }
}

impl HttpBody for Tracked {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let piece = |bytes| Piece::new(bytes, &self.keeper);
        frame.map_ok(|frame| frame.map_data(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer on their way; dropped when they are written, or never will be.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    answer: Option<Arc<Answer>>,
}

impl Piece {
    fn new(bytes: Bytes, keeper: &Keeper) -> Self {
        let answer = match keeper {
            Keeper::Http2(answer) => Some(Arc::clone(answer)),
            Keeper::Http1 { .. } => None,
        };
        if let Some(answer) = &answer
            && answer.flow.underway.fetch_add(1, Relaxed) == 0
        {
            answer.moves();
        }
        Self { bytes, answer }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(answer) = &self.answer {
            answer.moves();
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(answer) = &self.answer {
            answer.flow.underway.fetch_sub(1, Relaxed);
        }
    }
}
