//! Whether a browser that wants to sign in has lost the session that it was given a moment ago.
//!
//! ```text
//! no sign-in has ended well within a minute ──▶ the first round
//! one has, and its session is there         ──▶ the first round
//! one has, and the session is not           ──▶ one round more; after the third a loop
//! ```
//!
//! The rounds are counted by a cookie beside the session's (`session::rounds`). A browser that keeps both never gets beyond the first, however many
//! tabs sign in at once: it gets both with one answer. What the likely cause is, the gate finds in the request.

use http::{HeaderMap, HeaderValue};

use super::{Authenticator, site};
use crate::{clock::Timestamp, session::Reading, target::Target};

/// What became of the session of a sign-in that has just ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there, or none has ended lately.
    Fine,
    /// There is no cookie of it.
    Gone,
    /// There is one, but it does not open.
    Unreadable,
    /// It opens, but the session is over.
    Over,
}

impl Authenticator {
    /// Which round of sign-ins begins with this request, from 1.
    ///
    /// # Errors
    /// What became of the session, if it was lost after each of three rounds, and the `Set-Cookie` that begins to count anew.
    pub async fn round(
        &self,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<u8, (Presence, Option<HeaderValue>)> {
        let before = self.attempts.rounds(headers, site(target), now);
        if before == 0 {
            return Ok(1);
        }
        match self.presence(target, headers, now).await {
            Presence::Fine => Ok(1),
            lost => match before < MOST {
                true => Ok(before.saturating_add(1)),
                false => Err((lost, self.forget_rounds(target, headers))),
            },
        }
    }

    /// The `Set-Cookie` that forgets how many sign-ins have ended well, if that is known.
    pub fn forget_rounds(&self, target: &Target, headers: &HeaderMap) -> Option<HeaderValue> {
        self.attempts.forget_rounds(headers, site(target))
    }

    /// Whether the browser brings a cookie of any sign-in that has begun here, so that its cookies do come back.
    pub fn has_begun(&self, target: &Target, headers: &HeaderMap) -> bool {
        self.attempts.are_any(headers, site(target))
    }

    async fn presence(&self, target: &Target, headers: &HeaderMap, now: Timestamp) -> Presence {
        match self.codec.read(headers, site(target)) {
            Reading::Nothing => Presence::Gone,
            Reading::Broken => Presence::Unreadable,
            Reading::Session(_) => match self.authenticate(target, headers, now).await {
                Ok(who) if who.session.is_none() => Presence::Over,
                // A session that GitLab says nothing about is there all the same.
                Ok(_) | Err(_) => Presence::Fine,
            },
        }
    }
}

/// How many sign-ins may end well in vain.
const MOST: u8 = 3;
