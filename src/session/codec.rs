//! Sessions to cookies and back: as much of the identity as fits one cookie, sealed.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header::COOKIE};
use tracing::debug;
use zeroize::Zeroizing;

use super::{
    Session,
    cache::{Cache, Opened, Told},
    cookie::{MAX_COOKIE, Others, SessionCookie, Site},
    deadlines::Deadlines,
    payload::{self, TooLong},
    random::Random,
    seal::{self, KeyRing, Purpose, SealError},
};
use crate::clock::Timestamp;

/// Packs sessions into `Set-Cookie` and finds them in requests.
#[derive(Clone, Debug)]
pub struct SessionCodec {
    cookie: SessionCookie,
    keys: Arc<KeyRing>,
    deadlines: Deadlines,
    random: Random,
    cache: Arc<Cache>,
}

/// A session on its way to the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The `Set-Cookie` value, at most 4096 bytes.
    pub cookie: HeaderValue,
    /// How many groups did not fit; worth one warning.
    pub dropped_groups: usize,
}

/// What a request says about its session.
#[derive(Debug)]
pub enum Reading {
    /// There is no session cookie.
    Nothing,
    /// There is one, but none that opens: clear it.
    Broken,
    /// The first that opens.
    Session(Found),
}

/// A session out of a request.
#[derive(Clone, Debug)]
pub struct Found {
    /// The session, as old as the cookie is; the store may know a newer one.
    pub session: Arc<Session>,
    /// Whether an older key or format sealed it, so that the cookie should be renewed.
    pub renew: bool,
    /// What else is in the request's `Cookie` line.
    pub others: Others,
    /// Kept with the opened cookie: what is said about the session as it is in there.
    pub told: Told,
}

/// Why a session got no cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Tokens and the groups that rules mention are too much for one cookie.
    #[error("the session does not fit a cookie: browsers keep 4096 bytes, it has {0}")]
    TooLarge(usize),
    /// It can't be sealed.
    #[error("the session can't be sealed")]
    Seal(#[from] SealError),
}

impl SessionCodec {
    /// A codec for one cookie and one ring of keys.
    pub fn new(
        cookie: SessionCookie,
        keys: Arc<KeyRing>,
        deadlines: Deadlines,
        random: Random,
    ) -> Self {
        Self { cookie, keys, deadlines, random, cache: Arc::default() }
    }

    /// The `Set-Cookie` that carries `session`, without the groups that don't fit.
    ///
    /// # Errors
    /// When what must be in it does not fit, or there is no randomness.
    pub fn pack(
        &self,
        session: &Session,
        site: Site<'_>,
        now: Timestamp,
    ) -> Result<Packed, PackError> {
        let name = self.cookie.name(site);
        let audience = self.cookie.audience(site);
        let max_age = session.until(&self.deadlines).since(now);
        let overhead = self.cookie.set_len(site, 0, max_age);
        let room = MAX_COOKIE.saturating_sub(overhead);
        let (groups, plain) = most_that_fits(session, room)
            .map_err(|needed| PackError::TooLarge(needed.saturating_add(overhead)))?;
        let keys = &self.keys;
        let text = keys.seal(Purpose::Session, &name, audience, &plain, &self.random)?;
        Ok(Packed {
            cookie: self.cookie.set(site, &text, max_age),
            dropped_groups: session.identity.groups.len().saturating_sub(groups),
        })
    }

    /// The first session cookie of a request that opens.
    pub fn read(&self, request: &HeaderMap, site: Site<'_>) -> Reading {
        let mut lines = request.get_all(COOKIE).iter();
        let line = match (lines.next(), lines.next()) {
            (None, _) => return Reading::Nothing,
            (line, None) => line,
            // Several lines are rare, and not worth remembering.
            (Some(_), Some(_)) => None,
        };
        if let Some(Opened { session, renew, others, told }) =
            line.and_then(|line| self.cache.get(line, site))
        {
            return Reading::Session(Found { session, renew, others, told });
        }
        let candidates = self.cookie.read(request, site);
        if !candidates.present {
            return Reading::Nothing;
        }
        let name = self.cookie.name(site);
        let audience = self.cookie.audience(site);
        let mut found =
            candidates.values.into_iter().filter_map(|text| self.open(&name, audience, text));
        let Some(mut found) = found.next() else { return Reading::Broken };
        if let Some(line) = line {
            found.others = self.cookie.others(line);
            let Found { session, renew, others, told } = found.clone();
            self.cache.put(line, site, Opened { session, renew, others, told });
        }
        Reading::Session(found)
    }

    /// The `Set-Cookie` that ends a session cookie.
    pub fn clear(&self, site: Site<'_>) -> HeaderValue {
        self.cookie.clear(site)
    }

    /// The durations that decide over these sessions.
    pub const fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    fn open(&self, name: &str, audience: &str, text: &str) -> Option<Found> {
        let opened = self.keys.open(Purpose::Session, name, audience, text);
        let opened =
            opened.inspect_err(|error| debug!(%error, "a session cookie does not open")).ok()?;
        let session = payload::decode(&opened.bytes)
            .inspect_err(|error| debug!(%error, "a session cookie can't be read"))
            .ok()?;
        let session = Arc::new(session);
        Some(Found {
            session,
            renew: opened.old_key,
            others: Others::Unknown,
            told: Told::default(),
        })
    }
}

/// The bytes of `session` with as many groups as fit `room` bytes of sealed text; or how much room the least would need.
pub(super) fn most_for(session: &Session, room: usize) -> Result<Zeroizing<Vec<u8>>, usize> {
    most_that_fits(session, room).map(|(_, plain)| plain)
}

/// The bytes of `session` with as many groups as fit `room` bytes of sealed text, and their number; or how much room the least would need.
fn most_that_fits(session: &Session, room: usize) -> Result<(usize, Zeroizing<Vec<u8>>), usize> {
    let all = session.identity.groups.len();
    let ruled = session.ruled_groups.min(all);
    let fits = |plain: &Zeroizing<Vec<u8>>| seal::sealed_len(plain.len()) <= room;
    if let Some(plain) = payload::encode(session, all).ok().filter(fits) {
        return Ok((all, plain));
    }
    let least = payload::encode(session, ruled).map_err(|TooLong(length)| length)?;
    if !fits(&least) {
        return Err(seal::sealed_len(least.len()));
    }
    // `low` groups fit, `high` don't.
    let (mut low, mut high, mut best) = (ruled, all, least);
    while high - low > 1 {
        let middle = low.midpoint(high);
        match payload::encode(session, middle).ok().filter(fits) {
            Some(plain) => (low, best) = (middle, plain),
            None => high = middle,
        }
    }
    Ok((low, best))
}
