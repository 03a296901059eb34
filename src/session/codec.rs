//! Sessions to cookies and back: as much of the identity as fits one cookie, sealed.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::{
    Session,
    cookie::{SessionCookie, Site},
    deadlines::Deadlines,
    random::Random,
    seal::{KeyRing, SealError},
};
use crate::clock::Timestamp;

/// Packs sessions into `Set-Cookie` and finds them in requests.
#[derive(Clone, Debug)]
pub struct SessionCodec {
    cookie: SessionCookie,
    keys: Arc<KeyRing>,
    deadlines: Deadlines,
    random: Random,
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
    Session(Box<Found>),
}

/// A session out of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The session, as old as the cookie is; the store may know a newer one.
    pub session: Session,
    /// Whether an older key or format sealed it, so that the cookie should be renewed.
    pub renew: bool,
}

/// Why a session got no cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Tokens and the groups that rules mention are too much for one cookie.
    #[error("the session needs a cookie of {0} bytes, browsers keep 4096")]
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
        Self {
            cookie,
            keys,
            deadlines,
            random,
        }
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
        let _ = (session, site, now, &self.keys, self.deadlines, &self.random);
        Err(PackError::TooLarge(0))
    }

    /// The first session cookie of a request that opens.
    pub fn read(&self, request: &HeaderMap, site: Site<'_>) -> Reading {
        let _ = self.cookie.read(request, site);
        Reading::Nothing
    }
}
