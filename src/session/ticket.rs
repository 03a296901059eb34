//! Tickets: a session on its way from the host where everybody signs in to another, sealed for that one, good once and for a minute.
//!
//! ```text
//! bytes    = version 1 | postcard of id, nonce, moment, session
//! sealed   = purpose `Ticket`, name `ticket`, audience the origin that it is for
//! ```
//!
//! The nonce is that of a cookie which the browser got at the other host: whoever has the ticket without that cookie has nothing. That a ticket was
//! used is the store's to remember, and who may have one is `authenticate`'s to decide.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Session, codec,
    cookie::MAX_COOKIE,
    deadlines::SKEW,
    payload,
    random::Random,
    seal::{KeyRing, Purpose, SealError},
};
use crate::clock::Timestamp;

/// Makes and opens tickets.
#[derive(Clone, Debug)]
pub struct Tickets {
    keys: Arc<KeyRing>,
    random: Random,
}

/// A ticket that is in order, as far as it shows by itself.
pub struct Ticket {
    /// Names it in the store.
    pub id: TicketId,
    /// The state of the hand-over that the browser began at the other host.
    pub nonce: String,
    /// The session that it hands over.
    pub session: Arc<Session>,
    /// When it is over.
    pub until: Timestamp,
}

/// The random name of one ticket.
pub type TicketId = [u8; 16];

/// Why a ticket is none; a client is told one thing only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// No key of ours has sealed it for this host.
    #[error("the ticket is not authentic for this host")]
    NotAuthentic,
    /// It was made more than a minute ago, or by a clock that is ahead.
    #[error("the ticket is too old")]
    Late,
}

const LIFETIME: Duration = Duration::from_mins(1);
const NAME: &str = "ticket";
const VERSION: u8 = 1;

/// What a ticket has besides the session, about.
const OVERHEAD: usize = 128;

#[derive(Serialize, Deserialize)]
struct V1<'a> {
    id: TicketId,
    nonce: &'a str,
    created: u64,
    session: &'a [u8],
}

impl Tickets {
    /// Tickets sealed by `keys`.
    pub const fn new(keys: Arc<KeyRing>, random: Random) -> Self {
        Self { keys, random }
    }

    /// A ticket that hands `session` over to `origin`, to the browser that began there with `nonce`.
    ///
    /// # Errors
    /// Without randomness, or if the session would fit no cookie.
    ///
    /// # Panics
    /// Never: what a ticket has can always be encoded.
    pub fn seal(
        &self,
        session: &Session,
        origin: &str,
        nonce: &str,
        now: Timestamp,
    ) -> Result<String, SealError> {
        let room = MAX_COOKIE - OVERHEAD;
        let session = codec::most_for(session, room).map_err(SealError::TooLong)?;
        let id = self.random.bytes()?;
        let v1 = V1 { id, nonce, created: now.unix(), session: &session };
        let bytes = postcard::to_extend(&v1, vec![VERSION]);
        let plain = Zeroizing::new(bytes.expect("texts, numbers and bytes always encode"));
        self.keys.seal(Purpose::Ticket, NAME, origin, &plain, &self.random)
    }

    /// What `text` hands over at `origin`.
    ///
    /// # Errors
    /// When it is no ticket for this origin, or no longer.
    pub fn open(&self, text: &str, origin: &str, now: Timestamp) -> Result<Ticket, TicketError> {
        let opened = self.keys.open(Purpose::Ticket, NAME, origin, text);
        let opened = opened.map_err(|_| TicketError::NotAuthentic)?;
        let (version, rest) = opened.bytes.split_first().ok_or(TicketError::NotAuthentic)?;
        let decoded = postcard::take_from_bytes::<V1<'_>>(rest).ok();
        let decoded = decoded.filter(|(_, rest)| *version == VERSION && rest.is_empty());
        let (v1, _) = decoded.ok_or(TicketError::NotAuthentic)?;
        let session = payload::decode(v1.session).map_err(|_| TicketError::NotAuthentic)?;
        let created = Timestamp::from_unix(v1.created);
        if now.since(created) > LIFETIME || created.since(now) > SKEW {
            return Err(TicketError::Late);
        }
        Ok(Ticket {
            id: v1.id,
            nonce: v1.nonce.into(),
            session: Arc::new(session),
            // Replicas must remember it for as long as any clock of theirs takes it.
            until: created + LIFETIME + SKEW,
        })
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Ticket").field("session", &self.session.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{NOW, ring, session};

    const WIKI: &str = "https://wiki.example.com";

    fn tickets(keys: &[u8]) -> Tickets {
        Tickets::new(Arc::new(ring(keys)), Random::system())
    }

    fn at(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn a_ticket_hands_the_whole_session_over() {
        let (tickets, session) = (tickets(&[1]), session(5, 2));
        let text = tickets.seal(&session, WIKI, "nonce", NOW).unwrap();
        let ticket = tickets.open(&text, WIKI, NOW).unwrap();
        assert_eq!(*ticket.session, session);
        assert_eq!((ticket.nonce.as_str(), ticket.until), ("nonce", at(120)));
        let other = tickets.open(&tickets.seal(&session, WIKI, "nonce", NOW).unwrap(), WIKI, NOW);
        assert_ne!(other.unwrap().id, ticket.id);
        assert!(!format!("{ticket:?}").contains("nonce"), "it is nobody's to read");
    }

    #[test]
    fn it_is_good_for_a_minute() {
        let tickets = tickets(&[1]);
        let text = tickets.seal(&session(0, 0), WIKI, "nonce", at(100)).unwrap();
        for (now, error) in [
            (at(100), None),
            (at(160), None),
            (at(161), Some(TicketError::Late)),
            (at(40), None),
            (at(39), Some(TicketError::Late)),
        ] {
            assert_eq!(tickets.open(&text, WIKI, now).err(), error, "{now:?}");
        }
    }

    #[test]
    fn it_opens_at_its_own_origin_only_by_our_keys_and_as_it_was() {
        let ours = tickets(&[1]);
        let text = ours.seal(&session(0, 0), WIKI, "nonce", NOW).unwrap();
        for origin in [
            "https://app.example.com",
            "http://wiki.example.com",
            "https://wiki.example.com:8443",
            "wiki.example.com",
            "",
        ] {
            assert_eq!(ours.open(&text, origin, NOW).err(), Some(TicketError::NotAuthentic));
        }
        assert_eq!(tickets(&[2]).open(&text, WIKI, NOW).err(), Some(TicketError::NotAuthentic));
        assert!(tickets(&[2, 1]).open(&text, WIKI, NOW).is_ok(), "an older key opens");
        for bent in [
            text.get(1..).unwrap(),
            text.get(..text.len() - 2).unwrap(),
            "",
            "x",
            &format!("{text}A"),
        ] {
            assert!(ours.open(bent, WIKI, NOW).is_err());
        }
        let cookie = ours.keys.seal(Purpose::Session, NAME, WIKI, b"x", &ours.random).unwrap();
        assert!(ours.open(&cookie, WIKI, NOW).is_err(), "sealed for another purpose");
    }

    #[test]
    fn what_is_handed_over_is_no_longer_than_a_cookie() {
        let tickets = tickets(&[1]);
        let text = tickets.seal(&session(2000, 3), WIKI, "nonce", NOW).unwrap();
        assert!(text.len() <= MAX_COOKIE + OVERHEAD, "{}", text.len());
        let handed = tickets.open(&text, WIKI, NOW).unwrap().session;
        assert!((3..2000).contains(&handed.identity.groups.len()));
    }
}
