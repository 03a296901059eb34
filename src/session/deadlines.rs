//! How long a session lasts and how old GitLab's word on its user may be; pure arithmetic over `[session]`.
//!
//! ```text
//! checked ──── Good ────┬── Due ──┬──── TooOld ────┬── PastGrace ──▶
//!                      80 %    recheck           grace
//! ```

use std::time::Duration;

use super::Session;
use crate::{clock::Timestamp, config};

/// The durations of `[session]` that decide over one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// How long a session lives, however busy it is.
    pub lifetime: Duration,
    /// How long a session lives without a request.
    pub idle: Option<Duration>,
    /// How old GitLab's word may be.
    pub recheck: Duration,
    /// How old the last good word may be while GitLab can't be reached.
    pub grace: Duration,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has lived as long as any session may.
    Lifetime,
    /// No request came for too long.
    Idle,
}

/// How old GitLab's word on a session's user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Young enough.
    Good,
    /// Good, but GitLab should be asked beside the request.
    Due,
    /// Not good enough while GitLab can be reached.
    TooOld,
    /// Not good enough at all.
    PastGrace,
}

/// How far a sealed moment may lie ahead: clocks of replicas differ. Beyond it, the moment was written by a clock that was wrong.
pub(super) const SKEW: Duration = Duration::from_secs(60);

impl From<&config::Session> for Deadlines {
    fn from(session: &config::Session) -> Self {
        Self {
            lifetime: session.lifetime,
            idle: session.idle_timeout,
            recheck: session.recheck,
            grace: session.grace.max(session.recheck),
        }
    }
}

impl Session {
    /// Whether the session has ended by its own deadlines, and by which.
    pub fn is_over(&self, now: Timestamp, deadlines: &Deadlines) -> Option<End> {
        if is_ahead(self.created, now) || now.since(self.created) >= deadlines.lifetime {
            return Some(End::Lifetime);
        }
        let idle = deadlines.idle?;
        (now.since(self.seen) >= idle).then_some(End::Idle)
    }

    /// How old GitLab's word is.
    pub fn freshness(&self, now: Timestamp, deadlines: &Deadlines) -> Freshness {
        let age = now.since(self.checked);
        if is_ahead(self.checked, now) || age > deadlines.grace {
            Freshness::PastGrace
        } else if age > deadlines.recheck {
            Freshness::TooOld
        } else if age >= deadlines.recheck - deadlines.recheck / 5 {
            Freshness::Due
        } else {
            Freshness::Good
        }
    }

    /// When the session ends, however busy it is; until then its revocation must be kept.
    pub fn until(&self, deadlines: &Deadlines) -> Timestamp {
        self.created + deadlines.lifetime
    }

    /// Notes a request, once in a tenth of the idle timeout; true if the cookie must be renewed to carry that.
    pub fn touch(&mut self, now: Timestamp, deadlines: &Deadlines) -> bool {
        let stale = deadlines
            .idle
            .is_some_and(|idle| now.since(self.seen) >= idle / 10);
        if stale {
            self.seen = now;
        }
        stale
    }
}

fn is_ahead(moment: Timestamp, now: Timestamp) -> bool {
    moment.since(now) > SKEW
}
