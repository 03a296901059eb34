//! What must outrun the cookie, by session id: revocations, and copies of sessions that are newer than some cookies of them; and which tickets were used.
//!
//! ```text
//! request ─▶ Store::get ─▶ memory (this process) ─┐
//!                     └──▶ Redis (all replicas) ──┴─▶ the copy that counts, and whether that is certain
//! ```
//!
//! Every change goes to memory first. With Redis it goes there too, and comes back to the other replicas with their next look: one round trip a request.
//! While Redis is out of reach memory and cookie go on alone, what was written lately is written again when it is back, and nobody waits longer than a
//! command may take. A change that is lost with Redis is put back by the first replica that knows it.

#[cfg(not(feature = "redis"))]
mod absent;
#[cfg(feature = "redis")]
mod lease;
#[cfg(feature = "redis")]
mod link;
mod memory;
mod recent;
#[cfg(feature = "redis")]
mod remote;
mod settings;
mod used;
#[cfg(feature = "redis")]
mod watch;
#[cfg(feature = "redis")]
mod written;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;

#[cfg(not(feature = "redis"))]
use self::absent::{Held, Remote};
pub use self::settings::{RedisSettings, RedisUrlError, StoreSettings};
use self::used::Used;
#[cfg(feature = "redis")]
use self::{lease::Held, remote::Remote};
use self::{memory::Memory, recent::Recent};
use super::{KeyRing, Mark, Marks, Random, Session, SessionId};
use crate::{
    clock::{Clock, Timestamp},
    telemetry::Metrics,
};

/// What outruns the cookie.
pub struct Store {
    local: Arc<Memory>,
    used: Used,
    /// Sessions by the names that assertions give them.
    recent: Recent,
    remote: ArcSwapOption<Remote>,
}

/// What the store knows of a session beyond its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// It was signed out, or ended.
    Revoked,
    /// It has changed since some cookies of it were set; [`Session::overtake`] says which copy counts.
    Newer(Arc<Session>),
}

/// What a look into the store gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What is known beyond the cookie.
    pub overlay: Option<Overlay>,
    /// When the session was last seen by any replica, about.
    pub seen: Option<Timestamp>,
    /// Whether all replicas' word is in it; without it, only this process's.
    pub sure: bool,
}

/// What became of a newer copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept.
    Stored,
    /// A copy of the same or a later generation is there already.
    Older,
    /// The session was revoked meanwhile, or its time is over.
    Revoked,
}

/// Whose turn it is to ask GitLab about a session.
#[derive(Debug)]
pub enum Turn {
    /// This process's, until the lease is given back or dropped.
    Mine(Lease),
    /// Another replica's; its answer will be in the store.
    Theirs,
    /// Nobody can say.
    Unknown,
}

/// The right to ask GitLab about a session, alone among all replicas.
#[derive(Debug)]
pub struct Lease(Option<Held>);

/// The store that all replicas share can't be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session store can't be reached: {0}")]
pub struct Unavailable(pub(super) String);

/// A session as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The session's name in logs: 12 hexadecimal digits.
    pub id: String,
    /// GitLab's name for the user.
    pub username: String,
    /// The name of the GitLab's table.
    pub gitlab: String,
    /// How the user came in: `browser`.
    pub kind: String,
    /// When the user signed in, in seconds since the Unix epoch.
    pub since: Timestamp,
    /// When a request last came, within a quarter of a minute.
    pub seen: Timestamp,
    /// When the session ends at the latest.
    pub until: Timestamp,
}

/// How much is kept, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Newer copies of sessions.
    pub newer: usize,
    /// Bytes that these copies take, about.
    pub newer_bytes: usize,
    /// Revocations.
    pub revoked: usize,
    /// Newer copies that went before their end for want of room, since start.
    pub evicted: u64,
    /// Revocations that went before their end for want of room, since start; each should be looked at.
    pub lost: u64,
}

/// How much a store in memory keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of newer copies, about.
    pub newer_bytes: usize,
    /// Revocations.
    pub revoked: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { newer_bytes: 64 * 1024 * 1024, revoked: 100_000 }
    }
}

/// What a store that is shared by replicas works with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Seal what is kept elsewhere.
    pub keys: Arc<KeyRing>,
    /// Makes nonces and lock tokens.
    pub random: Random,
    /// What hooks have said, here and at other replicas.
    pub marks: Arc<Marks>,
    /// Where connections live and what is written again runs.
    pub background: Handle,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// Tells what is over.
    pub clock: Clock,
}

impl Store {
    /// A store in this process.
    pub fn memory(limits: StoreLimits) -> Self {
        let local = Arc::new(Memory::new(limits));
        let (used, recent) = (Used::default(), Recent::default());
        Self { local, used, recent, remote: ArcSwapOption::empty() }
    }

    /// Shares it with other replicas from now on as `settings` say, or no longer; what is known stays known. A connection to the same place is kept.
    pub fn attach(&self, settings: &StoreSettings, means: Means) {
        let known = self.remote.load_full();
        match (settings, known) {
            (StoreSettings::Memory, _) => self.remote.store(None),
            (StoreSettings::Redis(settings), Some(remote)) if remote.is_at(settings) => {
                remote.rekey(means.keys);
            },
            (StoreSettings::Redis(settings), _) => {
                let remote = Remote::start(settings.clone(), means, self.local.clone());
                self.remote.store(Some(remote));
            },
        }
    }

    /// What is known of `session`, whose cookies are over at `until`, at the moment `now`.
    pub async fn get(&self, session: &Arc<Session>, until: Timestamp, now: Timestamp) -> Known {
        let overlay = self.local.get(&session.id, now);
        let here = Known { overlay, seen: None, sure: true };
        let remote = match self.remote.load_full() {
            Some(remote) if here.overlay != Some(Overlay::Revoked) => remote,
            Some(_) | None => return here,
        };
        // What is known already, and newer than the cookie, needs no fetching.
        let best = match &here.overlay {
            Some(Overlay::Newer(newer)) if newer.generation > session.generation => newer,
            Some(_) | None => session,
        };
        match remote.get(best, until, now).await {
            Ok((None, seen)) => Known { seen, ..here },
            Ok((overlay, seen)) => Known { overlay, seen, sure: true },
            Err(Unavailable(_)) => Known { sure: false, ..here },
        }
    }

    /// Keeps `session` until its cookies are over at `until`, unless it was revoked or is not newer than what is there.
    pub async fn put(&self, session: Arc<Session>, until: Timestamp, now: Timestamp) -> Put {
        let here = self.local.put(session.clone(), until, now);
        match self.remote.load_full() {
            // Whether Redis knows it or will when it is back: memory has it, and says so.
            Some(remote) if here != Put::Revoked => {
                remote.put(&session, until, now).await.unwrap_or(here)
            },
            Some(_) | None => here,
        }
    }

    /// Remembers `session` for a while by its alias, so that [`Self::named`] finds it though its cookie is elsewhere.
    pub fn remember(&self, session: &Arc<Session>) {
        self.recent.put(session);
    }

    /// A copy of the session of this alias, perhaps an old one: what is known beyond it, an end included, [`Self::get`] tells.
    pub async fn named(&self, alias: &str) -> Option<Arc<Session>> {
        if let Some(session) = self.recent.get(alias) {
            return Some(session);
        }
        self.remote.load_full()?.named(alias).await
    }

    /// Tells the other replicas of a session that has begun; its cookie carries all of it, so nobody has to wait.
    pub fn begin(&self, session: &Arc<Session>, until: Timestamp, now: Timestamp) {
        if let Some(remote) = self.remote.load_full() {
            remote.put_beside(session.clone(), until, now);
        }
    }

    /// Ends the session `id` for all who hold a copy of its cookie, which is worthless from `until` on anyway.
    pub async fn revoke(&self, id: SessionId, until: Timestamp, now: Timestamp) {
        self.local.revoke(id, until, now);
        if let Some(remote) = self.remote.load_full() {
            // One that does not arrive is written again later; this process knows it already.
            drop(remote.revoke(&id, until).await);
        }
    }

    /// Tells the other replicas of a mark, soon; they look once a second.
    pub fn tell(&self, mark: Mark) {
        if let Some(remote) = self.remote.load_full() {
            remote.tell(mark);
        }
    }

    /// Whose turn it is to ask GitLab about the session `id`.
    pub async fn turn(&self, id: &SessionId) -> Turn {
        match self.remote.load_full() {
            None => Turn::Mine(Lease(None)),
            Some(remote) => remote.turn(id).await,
        }
    }

    /// Waits until it is known whether the part that all replicas share can be reached, a second or so at most.
    pub async fn tried(&self) {
        if let Some(remote) = self.remote.load_full() {
            remote.tried().await;
        }
    }

    /// Whether other replicas share this store.
    pub fn is_shared(&self) -> bool {
        self.remote.load().is_some()
    }

    /// What is wrong with the part that all replicas share, if anything is.
    pub fn trouble(&self) -> Option<String> {
        self.remote.load().as_ref().and_then(|remote| remote.trouble())
    }

    /// Waits until everything is where it belongs, for `patience` at most; what is not is lost with this process.
    pub async fn settle(&self, patience: Duration) {
        if let Some(remote) = self.remote.load_full() {
            remote.settle(patience).await;
        }
    }

    /// All sessions that the replicas know, the last that began first.
    ///
    /// # Errors
    /// When the replicas share no store, or it can't be reached.
    pub async fn list(&self) -> Result<Vec<Listed>, Unavailable> {
        let none = || Unavailable("`session.store` is `memory`".into());
        let remote = self.remote.load_full().ok_or_else(none)?;
        remote.list().await
    }

    /// Ends a session that [`Self::list`] has told of, for all replicas.
    ///
    /// # Errors
    /// When the replicas share no store, or it can't be reached.
    pub async fn end(&self, listed: &Listed) -> Result<(), Unavailable> {
        let none = || Unavailable("`session.store` is `memory`".into());
        let remote = self.remote.load_full().ok_or_else(none)?;
        remote.end(listed).await
    }

    /// How much is kept.
    pub fn counts(&self) -> Counts {
        self.local.counts()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = self.remote.load().is_some();
        out.debug_struct("Store").field("remote", &remote).finish_non_exhaustive()
    }
}

impl Lease {
    /// Gives the turn back, so that nobody has to wait for its end.
    pub async fn release(self) {
        if let Some(held) = self.0 {
            held.release().await;
        }
    }
}

#[cfg(test)]
mod tests;
