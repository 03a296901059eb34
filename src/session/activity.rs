//! When sessions were last busy by what passes through their tunnels: the cookie knows of requests alone.
//!
//! It matters for the idle timeout only, and to sessions with tunnels only; without either nothing is kept, and to look costs one read. What is kept is forgotten
//! with the session's end by idleness.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::SessionId;
use crate::clock::Timestamp;

/// Sessions with tunnels, and when they were last busy; shared by all gates of a process.
#[derive(Debug, Default)]
pub struct Activity {
    seen: Mutex<HashMap<SessionId, Timestamp>>,
    any: AtomicBool,
}

impl Activity {
    /// Notes that the session was busy at the moment `at`.
    pub fn note(&self, id: SessionId, at: Timestamp) {
        let mut seen = self.lock();
        let known = seen.entry(id).or_insert(at);
        *known = at.max(*known);
        self.any.store(true, Relaxed);
    }

    /// Notes a request, if the session is one that tunnels depend on.
    pub fn touch(&self, id: &SessionId, at: Timestamp) {
        if self.any.load(Relaxed)
            && let Some(known) = self.lock().get_mut(id)
        {
            *known = at.max(*known);
        }
    }

    /// When it was last busy, if that is known here.
    pub fn seen(&self, id: &SessionId) -> Option<Timestamp> {
        if !self.any.load(Relaxed) {
            return None;
        }
        self.lock().get(id).copied()
    }

    /// Forgets those that were last busy before the moment `over`.
    pub fn forget(&self, over: Timestamp) {
        if !self.any.load(Relaxed) {
            return;
        }
        let mut seen = self.lock();
        seen.retain(|_, at| *at >= over);
        self.any.store(!seen.is_empty(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Timestamp>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_790_000_000 + seconds)
    }

    #[test]
    fn the_latest_counts_for_sessions_that_are_known() {
        let (activity, id, stranger) =
            (Activity::default(), SessionId([1; 16]), SessionId([2; 16]));
        activity.touch(&id, at(5));
        assert_eq!(activity.seen(&id), None, "a request alone makes none known");
        activity.note(id, at(10));
        activity.note(id, at(7));
        assert_eq!(activity.seen(&id), Some(at(10)));
        activity.touch(&id, at(12));
        activity.touch(&stranger, at(12));
        assert_eq!((activity.seen(&id), activity.seen(&stranger)), (Some(at(12)), None));
        activity.forget(at(12));
        assert_eq!(activity.seen(&id), Some(at(12)));
        activity.forget(at(13));
        assert_eq!(activity.seen(&id), None);
    }
}
