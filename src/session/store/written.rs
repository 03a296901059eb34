//! What this process has written to the shared store lately, by session: what did not arrive is written again, and all of it when the store was away, since a
//! server that takes over may lack the last of it. The values themselves are in memory.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::session::SessionId;

/// The sessions that were written lately.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<HashMap<SessionId, Entry>>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Instant,
    arrived: bool,
}

/// Which of them to write again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// All.
    All,
    /// Those that did not arrive, nor are on their way.
    Missing,
}

impl Written {
    /// A session is about to be written.
    pub(super) fn begin(&self, id: SessionId) {
        let mut written = self.lock();
        if written.len() < MOST || written.contains_key(&id) {
            written.insert(id, Entry { at: Instant::now(), arrived: false });
        }
    }

    /// It has arrived.
    pub(super) fn arrived(&self, id: &SessionId) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.arrived = true;
        }
    }

    /// What is to be written again.
    pub(super) fn lacking(&self, again: Again) -> Vec<SessionId> {
        let written = self.lock();
        let lacks = |entry: &Entry| match again {
            Again::All => true,
            Again::Missing => !entry.arrived && entry.at.elapsed() > ON_ITS_WAY,
        };
        written.iter().filter(|(_, entry)| lacks(entry)).map(|(id, _)| *id).collect()
    }

    /// Forgets what arrived so long ago that no server lacks it.
    pub(super) fn forget(&self) {
        self.lock().retain(|_, entry| !entry.arrived || entry.at.elapsed() < REPEAT);
    }

    /// Forgets one of which nothing is left to be written.
    pub(super) fn drop(&self, id: &SessionId) {
        self.lock().remove(id);
    }

    /// Whether all has arrived.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().values().all(|entry| entry.arrived)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long a write is made again after the store was away.
const REPEAT: Duration = Duration::from_mins(1);

/// How long a write may take to arrive.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// How many are remembered; beyond, memory and cookies know alone.
const MOST: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::session::tests::session;

    #[tokio::test(start_paused = true)]
    async fn what_did_not_arrive_is_written_again_until_it_does() {
        let written = Written::default();
        let (lost, kept) = (session(0, 0).id, session(0, 0).id);
        written.begin(lost);
        written.begin(kept);
        written.arrived(&kept);
        assert!(!written.is_settled());
        assert_eq!(written.lacking(Again::Missing), [], "it may be on its way");
        advance(ON_ITS_WAY * 2).await;
        assert_eq!(written.lacking(Again::Missing), [lost]);
        assert_eq!(written.lacking(Again::All).len(), 2);
        advance(REPEAT).await;
        written.forget();
        assert_eq!(written.lacking(Again::All), [lost]);
        written.arrived(&lost);
        assert!(written.is_settled());
        written.forget();
        assert_eq!(written.lacking(Again::All), []);
    }

    #[test]
    fn it_has_a_bound() {
        let written = Written::default();
        for _ in 0..MOST + 10 {
            written.begin(session(0, 0).id);
        }
        assert_eq!(written.lacking(Again::All).len(), MOST);
    }
}
