//! Browsers that were sent to fetch a new cookie a moment ago: one that does not keep it must not be sent round and round.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{clock::Timestamp, session::SessionId};

/// When sessions were last sent to fetch their cookie; shared by all gates of a process.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<HashMap<SessionId, Sent>>);

/// A browser that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Timestamp,
    /// Whether it was told so, as far as is known: nginx asks a second time for what it tells.
    told: bool,
}

impl Renewals {
    /// Whether the browser of the session may be sent at the moment `now`, which is noted then.
    pub(super) fn may(&self, id: SessionId, now: Timestamp) -> bool {
        self.note(id, Sent { at: now, told: false }, |_| false)
    }

    /// Whether the browser is to be told that it is sent, because it was and nobody told it; or nobody knows of it here.
    pub(super) fn may_tell(&self, id: SessionId, now: Timestamp) -> bool {
        self.note(id, Sent { at: now, told: true }, |sent| !sent.told)
    }

    fn note(&self, id: SessionId, new: Sent, again: impl Fn(Sent) -> bool) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |sent: &Sent| new.at.since(sent.at) >= PAUSE;
        if all.get(&id).is_some_and(|sent| !is_over(sent) && !again(*sent)) {
            return false;
        }
        if all.len() >= MOST {
            all.retain(|_, sent| !is_over(sent));
        }
        // Without room it is for another time: the store has what counts.
        let room = all.len() < MOST || all.contains_key(&id);
        if room {
            all.insert(id, new);
        }
        room
    }
}

/// How long a browser is left in peace.
const PAUSE: Duration = Duration::from_mins(1);

/// Sessions that are remembered.
const MOST: usize = 10_000;
