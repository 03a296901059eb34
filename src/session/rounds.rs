//! Rounds of sign-ins that lead nowhere, counted by a small cookie beside the session's: for a minute it says that a sign-in has ended well.
//!
//! ```text
//! name  = [__Host-|__Secure-]labgate-attempt-landed      lives where the cookies of sign-ins do
//! bytes = version 1 | round 1 | moment, Unix seconds, u64 little-endian
//! ```
//!
//! A browser that has it, but not the session which was given with it, lost that on the way. It shares path and attributes with the cookie of the
//! sign-in, which has just come back, so it comes back even where the session's does not. Whether a round more is one too many is `authenticate`'s.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::{
    attempt::Attempts,
    cookie::{self, Site},
    seal::Purpose,
};
use crate::clock::Timestamp;

/// How soon after its end a sign-in is the next round of the same.
const MEMORY: Duration = Duration::from_mins(1);

const LANDED: &str = "landed";
const VERSION: u8 = 1;

impl Attempts {
    /// The `Set-Cookie` that remembers the end of a sign-in's `round`; none without randomness, then it is not counted.
    pub fn landed(&self, site: Site<'_>, round: u8, now: Timestamp) -> Option<HeaderValue> {
        let name = self.cookie_name(site, LANDED);
        let mut plain = vec![VERSION, round];
        plain.extend_from_slice(&now.unix().to_le_bytes());
        let sealed = self.keys.seal(Purpose::Attempt, &name, site.host, &plain, &self.random);
        sealed.ok().map(|text| self.set_for(site, &name, &text, MEMORY))
    }

    /// How many rounds of sign-ins have ended well in this browser, the last within a minute.
    pub fn rounds(&self, request: &HeaderMap, site: Site<'_>, now: Timestamp) -> u8 {
        let name = self.cookie_name(site, LANDED);
        let rounds = cookie::read(request, name.as_bytes()).values.into_iter().filter_map(|text| {
            let opened = self.keys.open(Purpose::Attempt, &name, site.host, text).ok()?;
            let [VERSION, round, moment @ ..] = opened.bytes.as_slice() else { return None };
            let at = Timestamp::from_unix(u64::from_le_bytes(moment.try_into().ok()?));
            (now.since(at) <= MEMORY && at.since(now) <= MEMORY).then_some(*round)
        });
        rounds.max().unwrap_or(0)
    }

    /// The `Set-Cookie` that begins to count anew, if there is something to forget.
    pub fn forget_rounds(&self, request: &HeaderMap, site: Site<'_>) -> Option<HeaderValue> {
        let name = self.cookie_name(site, LANDED);
        let present = cookie::read(request, name.as_bytes()).present;
        present.then(|| self.set_for(site, &name, "", Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::{
        random::Random,
        tests::{NOW, SITE, cookie, pair, request, ring},
    };

    fn attempts() -> Attempts {
        Attempts::new(&cookie(None), "/oauth2", Arc::new(ring(&[1])), Random::system())
    }

    fn landed(round: u8) -> HeaderMap {
        request(&[&pair(&attempts().landed(SITE, round, NOW).unwrap())])
    }

    #[test]
    fn rounds_are_remembered_for_a_minute_by_the_host_that_saw_them() {
        let attempts = attempts();
        let request = landed(2);
        let at = |seconds| NOW + Duration::from_secs(seconds);
        for (now, rounds) in [(NOW, 2), (at(60), 2), (at(61), 0), (at(10_000), 0)] {
            assert_eq!(attempts.rounds(&request, SITE, now), rounds);
        }
        let other = Site { host: "other.example.com", ..SITE };
        assert_eq!(attempts.rounds(&request, other, NOW), 0);
        assert_eq!(attempts.rounds(&HeaderMap::new(), SITE, NOW), 0);
    }

    #[test]
    fn nobody_counts_but_labgate() {
        let attempts = attempts();
        let name = attempts.cookie_name(SITE, LANDED);
        for value in ["", "AQMAAAAAAAAAAA", "x"] {
            let request = request(&[&format!("{name}={value}")]);
            assert_eq!(attempts.rounds(&request, SITE, NOW), 0, "{value}");
            assert!(attempts.forget_rounds(&request, SITE).is_some(), "{value}");
        }
        assert!(attempts.forget_rounds(&HeaderMap::new(), SITE).is_none());
        let sign_in =
            attempts.keys.seal(Purpose::Session, &name, SITE.host, &[1, 3], &Random::system());
        let request = request(&[&format!("{name}={}", sign_in.unwrap())]);
        assert_eq!(attempts.rounds(&request, SITE, NOW), 0);
    }
}
