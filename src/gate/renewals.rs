//! Browsers that were sent to fetch a new cookie a moment ago: one that does not keep it must not be sent round and round.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{clock::Timestamp, session::SessionId};

/// When sessions were last sent to fetch their cookie; shared by all gates of a process.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<HashMap<SessionId, Timestamp>>);

impl Renewals {
    /// Whether the browser of the session may be sent at the moment `now`, which is noted then.
    pub(super) fn may(&self, id: SessionId, now: Timestamp) -> bool {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.get(&id).is_some_and(|at| now.since(*at) < PAUSE) {
            return false;
        }
        if sent.len() >= MOST {
            sent.retain(|_, at| now.since(*at) < PAUSE);
        }
        // Without room it is for another time: the store has what counts.
        let room = sent.len() < MOST;
        if room {
            sent.insert(id, now);
        }
        room
    }
}

/// How long a browser is left in peace.
const PAUSE: Duration = Duration::from_mins(1);

/// Sessions that are remembered.
const MOST: usize = 10_000;
