//! The store in this process: revocations, and copies of sessions that are newer than some cookies of them.
//!
//! ```text
//! memory = 16 shards by id, each behind a lock that is held for a few map operations
//! shard  = revoked  id → end        ordered by end; full: the one that ends first goes, and is counted as lost
//!          newer    id → session    ordered by age; too many bytes: the oldest goes, its cookie counts again
//! ```
//!
//! What has ended is swept in passing, a few entries with each change. A lost revocation means that a copy of a signed-out cookie counts again until it ends:
//! it takes a hundred thousand sign-outs within one session lifetime.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Counts, Overlay, Put, StoreLimits};
use crate::{
    clock::Timestamp,
    session::{Session, SessionId},
};

pub(super) const SHARDS: usize = 16;

/// How many ended entries one change sweeps at most; more than it adds, so that nothing piles up.
const SWEEP: usize = 4;

/// The store of one process.
#[derive(Debug)]
pub(super) struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    limits: StoreLimits,
    evicted: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    revoked: HashMap<SessionId, Timestamp>,
    revoked_ends: BTreeSet<(Timestamp, SessionId)>,
    newer: HashMap<SessionId, Newer>,
    newer_ends: BTreeSet<(Timestamp, SessionId)>,
    newer_ages: BTreeMap<u64, SessionId>,
    newer_bytes: usize,
    next_age: u64,
}

#[derive(Debug)]
struct Newer {
    session: Arc<Session>,
    until: Timestamp,
    age: u64,
    bytes: usize,
}

impl Memory {
    /// Limits hold for each shard; ids are random, so shards fill alike.
    pub(super) fn new(limits: StoreLimits) -> Self {
        Self {
            shards: Default::default(),
            limits: StoreLimits {
                newer_bytes: limits.newer_bytes.div_ceil(SHARDS),
                revoked: limits.revoked.div_ceil(SHARDS),
            },
            evicted: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn shard(&self, id: &SessionId) -> MutexGuard<'_, Shard> {
        let [first, ..] = id.0;
        let [shard, ..] = &self.shards;
        let shard = self.shards.get(usize::from(first) % SHARDS).unwrap_or(shard);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the session `id` at the moment `now`.
    pub(super) fn get(&self, id: &SessionId, now: Timestamp) -> Option<Overlay> {
        self.shard(id).get(id, now)
    }

    /// The same, and when it is over.
    #[cfg(feature = "redis")]
    pub(super) fn entry(&self, id: &SessionId, now: Timestamp) -> Option<(Overlay, Timestamp)> {
        let shard = self.shard(id);
        let revoked = shard.revoked.get(id).copied().filter(|until| *until > now);
        let newer = || shard.newer.get(id).filter(|newer| newer.until > now);
        match revoked {
            Some(until) => Some((Overlay::Revoked, until)),
            None => newer().map(|it| (Overlay::Newer(it.session.clone()), it.until)),
        }
    }

    /// Keeps `session` until `until`, unless it was revoked or is not newer than what is there.
    pub(super) fn put(&self, session: Arc<Session>, until: Timestamp, now: Timestamp) -> Put {
        let mut shard = self.shard(&session.id);
        shard.sweep(now);
        if until <= now || shard.is_revoked(&session.id, now) {
            return Put::Revoked;
        }
        let known = shard.newer.get(&session.id);
        if known.is_some_and(|known| known.session.generation >= session.generation) {
            return Put::Older;
        }
        shard.insert(session, until);
        let evicted = shard.shrink(self.limits.newer_bytes);
        drop(shard);
        self.evicted.fetch_add(evicted, Ordering::Relaxed);
        Put::Stored
    }

    /// Ends the session `id`.
    pub(super) fn revoke(&self, id: SessionId, until: Timestamp, now: Timestamp) {
        let mut shard = self.shard(&id);
        shard.sweep(now);
        shard.remove(&id);
        if until <= now {
            return;
        }
        let lost = shard.revoke(id, until, self.limits.revoked);
        drop(shard);
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// How much is kept.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts {
            evicted: self.evicted.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            ..Counts::default()
        };
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            counts.newer += shard.newer.len();
            counts.newer_bytes += shard.newer_bytes;
            counts.revoked += shard.revoked.len();
        }
        counts
    }
}

impl Shard {
    fn get(&self, id: &SessionId, now: Timestamp) -> Option<Overlay> {
        if self.is_revoked(id, now) {
            return Some(Overlay::Revoked);
        }
        let newer = self.newer.get(id).filter(|newer| newer.until > now)?;
        Some(Overlay::Newer(Arc::clone(&newer.session)))
    }

    fn is_revoked(&self, id: &SessionId, now: Timestamp) -> bool {
        self.revoked.get(id).is_some_and(|until| *until > now)
    }

    fn insert(&mut self, session: Arc<Session>, until: Timestamp) {
        let id = session.id;
        self.remove(&id);
        let age = self.next_age;
        self.next_age += 1;
        let bytes = size(&session);
        self.newer_ages.insert(age, id);
        self.newer_ends.insert((until, id));
        self.newer_bytes += bytes;
        let newer = Newer { session, until, age, bytes };
        self.newer.insert(id, newer);
    }

    fn remove(&mut self, id: &SessionId) {
        let Some(newer) = self.newer.remove(id) else {
            return;
        };
        self.newer_ages.remove(&newer.age);
        self.newer_ends.remove(&(newer.until, *id));
        self.newer_bytes = self.newer_bytes.saturating_sub(newer.bytes);
    }

    /// Evicts the oldest copies until the rest fits; the last that came always stays.
    fn shrink(&mut self, limit: usize) -> u64 {
        let mut evicted = 0;
        while self.newer_bytes > limit && self.newer.len() > 1 {
            let Some((_, oldest)) = self.newer_ages.pop_first() else {
                break;
            };
            self.remove(&oldest);
            evicted += 1;
        }
        evicted
    }

    /// Notes a revocation, which never gets shorter; returns how many others had to go for it.
    fn revoke(&mut self, id: SessionId, until: Timestamp, limit: usize) -> u64 {
        if let Some(known) = self.revoked.get(&id).copied() {
            if known >= until {
                return 0;
            }
            self.revoked_ends.remove(&(known, id));
        }
        self.revoked.insert(id, until);
        self.revoked_ends.insert((until, id));
        let mut lost = 0;
        while self.revoked.len() > limit.max(1) {
            let Some((_, first)) = self.revoked_ends.pop_first() else {
                break;
            };
            self.revoked.remove(&first);
            lost += 1;
        }
        lost
    }

    fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            match self.revoked_ends.first().copied() {
                Some((until, id)) if until <= now => {
                    self.revoked_ends.pop_first();
                    self.revoked.remove(&id);
                },
                Some(_) | None => break,
            }
        }
        for _ in 0..SWEEP {
            match self.newer_ends.first().copied() {
                Some((until, id)) if until <= now => self.remove(&id),
                Some(_) | None => break,
            }
        }
    }
}

/// About how many bytes a session takes, its place in the maps included.
pub(super) fn size(session: &Session) -> usize {
    let Session { identity, tokens, .. } = session;
    let texts = [
        &identity.gitlab,
        &identity.issuer,
        &identity.sub,
        &identity.username,
        &identity.name,
        &tokens.scope,
        &tokens.access,
    ];
    let texts = texts.into_iter().map(String::len).sum::<usize>();
    let groups = identity.groups.iter().map(|group| group.path.len() + 48);
    512 + texts + groups.sum::<usize>()
}
