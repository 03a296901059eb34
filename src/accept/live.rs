//! What is alive: the counts that all cores share, and what one connection's parts tell each other.
//!
//! A socket is counted from the moment it is accepted until it is closed, also when it has become a tunnel meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

use tokio::sync::Notify;

/// Connections of this process, for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Open now.
    pub open: AtomicUsize,
    /// Accepted so far.
    pub accepted: AtomicU64,
    /// Closed at once because `server.limits.connections` was reached.
    pub turned_away: AtomicU64,
    /// Requests refused because `server.limits.header_bytes` or `headers` was reached.
    pub large_heads: AtomicU64,
    /// Times that accepting failed, such as for want of file descriptors.
    pub failed: AtomicU64,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) counts: Arc<Counts>,
    per_core: Box<[AtomicUsize]>,
    draining: AtomicBool,
    pub(super) drain: Notify,
    pub(super) emptied: Notify,
}

impl Live {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            counts: Arc::default(),
            per_core: (0..cores).map(|_| AtomicUsize::new(0)).collect(),
            draining: AtomicBool::new(false),
            drain: Notify::new(),
            emptied: Notify::new(),
        }
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Tells every connection to end after its present requests.
    pub(super) fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
        self.drain.notify_waiters();
    }

    /// The core with the fewest connections, which gets this one; none beyond `limit`.
    pub(super) fn admit(self: &Arc<Self>, limit: usize) -> Option<Open> {
        let taken = self
            .counts
            .open
            .fetch_update(Relaxed, Relaxed, |open| (open < limit).then_some(open + 1));
        if taken.is_err() {
            self.counts.turned_away.fetch_add(1, Relaxed);
            return None;
        }
        self.counts.accepted.fetch_add(1, Relaxed);
        let load = |(_, count): &(usize, &AtomicUsize)| count.load(Relaxed);
        let (core, count) = self.per_core.iter().enumerate().min_by_key(load)?;
        count.fetch_add(1, Relaxed);
        Some(Open { live: Arc::clone(self), core })
    }
}

/// One open socket; counted until dropped.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) live: Arc<Live>,
    pub(super) core: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(count) = self.live.per_core.get(self.core) {
            count.fetch_sub(1, Relaxed);
        }
        if self.live.counts.open.fetch_sub(1, Relaxed) == 1 {
            self.live.emptied.notify_waiters();
        }
    }
}

/// What the wire, the service and the timer of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Requests whose responses are not written yet.
    busy: AtomicUsize,
    /// Counts up with every request.
    begun: AtomicU32,
    reading: AtomicU8,
    write_blocked: AtomicBool,
    /// Counts up whenever a byte moves.
    moved: AtomicU32,
    upgrade: AtomicU8,
}

/// Why a connection waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// For us or an upstream: no deadline of the connection's.
    Us,
    /// For the rest of a head.
    Head,
    /// For the next request.
    Request,
    /// For a body that does not come, or a response that is not taken.
    Peer,
}

/// What comes after a request that asks for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// Nobody asked.
    None,
    /// It is not answered yet.
    Held,
    /// The answer was not 101: HTTP goes on.
    Declined,
    /// The answer was 101.
    Accepted,
}

const BETWEEN: u8 = 0;
const IN_HEAD: u8 = 1;
const IN_BODY: u8 = 2;

impl Link {
    pub(super) fn read(&self, in_head: bool, body_missing: bool) {
        let state = match (in_head, body_missing) {
            (true, _) => IN_HEAD,
            (false, true) => IN_BODY,
            (false, false) => BETWEEN,
        };
        self.reading.store(state, Relaxed);
    }

    /// Requests whose responses are not written yet.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Relaxed)
    }

    pub(super) fn moved(&self) {
        self.moved.store(self.moved.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) fn write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Relaxed);
    }

    /// What is waited for, and a number that changes whenever that wait begins anew.
    pub(super) fn wait(&self) -> (Wait, u32) {
        let wait = match (self.reading.load(Relaxed), self.busy.load(Relaxed)) {
            _ if self.write_blocked.load(Relaxed) => Wait::Peer,
            (IN_BODY, _) => Wait::Peer,
            (IN_HEAD, 0) => Wait::Head,
            (_, 0) => Wait::Request,
            _ => Wait::Us,
        };
        let since = match wait {
            Wait::Us | Wait::Head => 0,
            // Not what moves: HTTP/2 pings move too.
            Wait::Request => self.begun.load(Relaxed),
            Wait::Peer => self.moved.load(Relaxed),
        };
        (wait, since)
    }

    pub(super) fn upgrade(&self) -> Upgrade {
        match self.upgrade.load(Relaxed) {
            0 => Upgrade::None,
            1 => Upgrade::Held,
            2 => Upgrade::Declined,
            _ => Upgrade::Accepted,
        }
    }

    pub(super) fn set_upgrade(&self, upgrade: Upgrade) {
        self.upgrade.store(upgrade as u8, Relaxed);
    }

    /// Says what came of a held upgrade, and has the wire read again.
    pub(super) fn answer_upgrade(&self, accepted: bool, waker: &Waker) {
        self.set_upgrade(if accepted { Upgrade::Accepted } else { Upgrade::Declined });
        waker.wake_by_ref();
    }
}

/// One request in flight, until its response is written or given up.
#[derive(Debug)]
pub(super) struct Busy(Arc<Link>);

impl Busy {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        link.busy.fetch_add(1, Relaxed);
        link.begun.fetch_add(1, Relaxed);
        Self(Arc::clone(link))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}
