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

/// How old GitLab's word on a session's user is, the youngest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
pub(super) const SKEW: Duration = Duration::from_mins(1);

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
        } else if age >= deadlines.recheck.saturating_sub(deadlines.recheck / 5) {
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
        let stale = self.needs_touch(now, deadlines);
        if stale {
            self.seen = now;
        }
        stale
    }

    /// Whether [`Self::touch`] would change it.
    pub fn needs_touch(&self, now: Timestamp, deadlines: &Deadlines) -> bool {
        deadlines.idle.is_some_and(|idle| now.since(self.seen) >= idle / 10)
    }
}

fn is_ahead(moment: Timestamp, now: Timestamp) -> bool {
    moment.since(now) > SKEW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::session;

    const DEADLINES: Deadlines = Deadlines {
        lifetime: Duration::from_hours(1),
        idle: Some(Duration::from_mins(10)),
        recheck: Duration::from_secs(100),
        grace: Duration::from_secs(1000),
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_ends_by_lifetime_and_by_idleness() {
        let table = [
            (0, 0, None),
            (3599, 3599, None),
            (3600, 3600, Some(End::Lifetime)),
            (599, 0, None),
            (600, 0, Some(End::Idle)),
            (3600, 0, Some(End::Lifetime)),
        ];
        for (now, seen, end) in table {
            let mut session = session(0, 0);
            (session.created, session.seen) = (at(0), at(seen));
            assert_eq!(session.is_over(at(now), &DEADLINES), end, "{now} {seen}");
        }
    }

    #[test]
    fn without_an_idle_timeout_only_the_lifetime_counts() {
        let deadlines = Deadlines { idle: None, ..DEADLINES };
        let mut session = session(0, 0);
        (session.created, session.seen) = (at(0), at(0));
        assert_eq!(session.is_over(at(3599), &deadlines), None);
        assert!(!session.touch(at(3599), &deadlines));
    }

    #[test]
    fn being_seen_does_not_lengthen_the_lifetime() {
        let mut session = session(0, 0);
        (session.created, session.seen) = (at(0), at(0));
        for now in (0..3600).step_by(300) {
            assert_eq!(session.is_over(at(now), &DEADLINES), None, "{now}");
            session.touch(at(now), &DEADLINES);
        }
        assert_eq!(session.is_over(at(3600), &DEADLINES), Some(End::Lifetime));
    }

    #[test]
    fn a_touch_renews_once_in_a_tenth_of_the_idle_timeout() {
        let mut session = session(0, 0);
        session.seen = at(0);
        assert!(!session.touch(at(59), &DEADLINES));
        assert_eq!(session.seen, at(0));
        assert!(session.touch(at(60), &DEADLINES));
        assert_eq!(session.seen, at(60));
    }

    #[test]
    fn a_clock_that_was_far_ahead_gives_no_endless_session() {
        let mut session = session(0, 0);
        (session.created, session.seen, session.checked) = (at(61), at(61), at(61));
        assert_eq!(session.is_over(at(0), &DEADLINES), Some(End::Lifetime));
        assert_eq!(session.freshness(at(0), &DEADLINES), Freshness::PastGrace);
        assert_eq!(session.is_over(at(1), &DEADLINES), None);
        assert_eq!(session.freshness(at(1), &DEADLINES), Freshness::Good);
    }

    #[test]
    fn a_word_grows_old() {
        let table = [
            (0, Freshness::Good),
            (79, Freshness::Good),
            (80, Freshness::Due),
            (100, Freshness::Due),
            (101, Freshness::TooOld),
            (1000, Freshness::TooOld),
            (1001, Freshness::PastGrace),
        ];
        for (age, freshness) in table {
            let mut session = session(0, 0);
            session.checked = at(0);
            assert_eq!(session.freshness(at(age), &DEADLINES), freshness, "{age}");
        }
    }
}
