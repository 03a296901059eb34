//! What must outrun the cookie: revocations and newer copies of sessions, by session id.

use std::sync::Arc;

use super::{Session, SessionId};
use crate::clock::Timestamp;

/// What outruns the cookie.
#[derive(Debug, Default)]
pub struct Store {}

/// What the store knows of a session beyond its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// It was signed out, or ended.
    Revoked,
    /// It has changed since some cookies of it were set.
    Newer(Arc<Session>),
}

/// What became of a newer copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept.
    Stored,
    /// A copy of the same or a later generation is there already.
    Older,
    /// The session was revoked meanwhile.
    Revoked,
}

impl Store {
    /// A store in this process.
    pub fn memory() -> Self {
        Self {}
    }

    /// What is known of the session `id` at the moment `now`.
    #[expect(clippy::unused_async, reason = "Redis will be awaited")]
    pub async fn get(&self, id: &SessionId, now: Timestamp) -> Option<Overlay> {
        let _ = (id, now);
        None
    }

    /// Keeps `session` until its cookies are over, unless it is revoked or not newer.
    #[expect(clippy::unused_async, reason = "Redis will be awaited")]
    pub async fn put(&self, session: Arc<Session>, until: Timestamp, now: Timestamp) -> Put {
        let _ = (session, until, now);
        Put::Stored
    }

    /// Ends the session `id` for all who hold a copy of its cookie, which is worthless from `until` on.
    #[expect(clippy::unused_async, reason = "Redis will be awaited")]
    pub async fn revoke(&self, id: SessionId, until: Timestamp, now: Timestamp) {
        let _ = (id, until, now);
    }
}
