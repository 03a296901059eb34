//! A signed-in browser, remembered: the session, its deadlines, the sealed cookie that carries it, and the store of what must outrun the cookie.
//!
//! ```text
//! Session ──payload──▶ bytes ──KeyRing::seal──▶ text ──SessionCookie::set──▶ Set-Cookie
//! Cookie ──SessionCookie::read──▶ Candidates ──KeyRing::open──▶ bytes ──payload──▶ Session ──Store──▶ the newest of it
//! ```
//!
//! Who may have a session and when GitLab is asked again is `authenticate`'s.

mod activity;
mod attempt;
mod cache;
mod codec;
mod cookie;
mod deadlines;
mod jar;
mod marks;
mod payload;
mod random;
mod rounds;
mod seal;
mod store;
mod ticket;
mod token;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use self::{
    activity::Activity,
    attempt::{Attempt, AttemptError, Attempts, Wish},
    cache::Told,
    codec::{Found, PackError, Packed, Reading, SessionCodec},
    cookie::{Candidates, CookieError, Others, SessionCookie, Site},
    deadlines::{Deadlines, End, Freshness},
    marks::{Mark, Marks, Whom},
    random::{NoRandom, Random},
    seal::{KeyError, KeyRing, OpenError, Opened, Purpose, SealError},
    store::{
        Counts, Known, Lease, Listed, Means, Overlay, Put, RedisSettings, RedisUrlError, Store,
        StoreLimits, StoreSettings, Turn, Unavailable,
    },
    ticket::{Ticket, TicketError, TicketId, Tickets},
};
use crate::{clock::Timestamp, identity::Identity};

/// A signed-in browser: who it is, since when, and with which tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names this session in the store and in logs.
    pub id: SessionId,
    /// Who signed in, as GitLab said at `checked`.
    pub identity: Identity,
    /// How many of `identity.groups`, from the first, are mentioned by rules: these never leave the cookie.
    pub ruled_groups: usize,
    /// When the person signed in.
    pub created: Timestamp,
    /// When the last request came, as exactly as [`Session::touch`] keeps it.
    pub seen: Timestamp,
    /// When GitLab last said that all is well.
    pub checked: Timestamp,
    /// What GitLab is asked with.
    pub tokens: Tokens,
    /// Grows with each change, so that the newer of two copies is known.
    pub generation: u32,
}

impl Session {
    /// A session that begins `now`, under a new random id.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn start(
        identity: Identity,
        ruled_groups: usize,
        tokens: Tokens,
        now: Timestamp,
        random: &Random,
    ) -> Result<Self, NoRandom> {
        Ok(Self {
            id: SessionId(random.bytes()?),
            identity,
            ruled_groups,
            created: now,
            seen: now,
            checked: now,
            tokens,
            generation: 0,
        })
    }

    /// The session after GitLab's good word `now` on the same person.
    #[must_use]
    pub fn confirmed(&self, identity: Identity, ruled_groups: usize, now: Timestamp) -> Self {
        Self {
            identity,
            ruled_groups,
            checked: now,
            generation: self.generation.saturating_add(1),
            ..self.clone()
        }
    }

    /// The session with the tokens that a refresh gave.
    #[must_use]
    pub fn refreshed(&self, tokens: Tokens) -> Self {
        Self { tokens, generation: self.generation.saturating_add(1), ..self.clone() }
    }

    /// Whether the access token ends soon, or has, and should be replaced; earlier for some sessions than for others, so that those which began
    /// together don't ask together.
    pub fn is_token_due(&self, now: Timestamp) -> bool {
        let Tokens { issued, expires, refresh, .. } = &self.tokens;
        let early = EARLY.min(expires.since(*issued) / 4);
        let [first, ..] = self.id.0;
        let early = early / 2 + early * u32::from(first) / 512;
        refresh.is_some() && now + early >= *expires
    }

    /// The copy that counts of one session: `other` if it is of a later generation, in any case seen when either was.
    #[must_use]
    pub fn overtake(self, other: &Self) -> Self {
        if self.id != other.id {
            return self;
        }
        let seen = self.seen.max(other.seen);
        if other.generation <= self.generation {
            return Self { seen, ..self };
        }
        Self { seen, ..other.clone() }
    }
}

/// How long before its end an access token is replaced, at most.
const EARLY: Duration = Duration::from_mins(2);

/// The random name of one session; printed as a short hash only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// 32 hexadecimal digits that name it and don't tell it; the first twelve are what logs say.
    pub fn alias(&self) -> String {
        self.digest().iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// What of it may be told.
    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"labgate session id").chain_update(self.0).finalize().into()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest().iter().take(6).try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SessionId({self})")
    }
}

/// What GitLab gave for one sign-in; never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// OAuth access token.
    pub access: Zeroizing<String>,
    /// OAuth refresh token, which GitLab kills at its first use.
    pub refresh: Option<Zeroizing<String>>,
    /// When GitLab gave them.
    pub issued: Timestamp,
    /// When the access token ends.
    pub expires: Timestamp,
    /// Scopes that were granted, separated by spaces.
    pub scope: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tokens")
            .field("access", &"…")
            .field("refresh", &self.refresh.as_ref().map(|_| "…"))
            .field("issued", &self.issued)
            .field("expires", &self.expires)
            .field("scope", &self.scope)
            .finish()
    }
}

#[cfg(test)]
mod tests;
