//! Assertions that are ready to be handed on: one for each session, as it stands, or answer of GitLab's on a token, and each origin at which it is used.
//!
//! Signing costs about as much as a whole request, looking here next to nothing. Two generations bound it: when the young one is full it becomes the old one,
//! and what is still asked for moves back. What falls out is signed again.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use http::HeaderValue;

use crate::{
    authenticate::Authenticated,
    clock::Timestamp,
    gitlab::Checked,
    identity::Identity,
    session::{Session, SessionId},
    target::Origin,
};

/// Whom an assertion is about, as they stand now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject<'a> {
    /// Somebody with a session.
    Session(&'a Arc<Session>),
    /// Whoever has a token, by one answer of GitLab's; the next one is somebody else.
    Caller(&'a Arc<Checked>),
}

/// Assertions by subject and origin, in shards so that cores seldom meet.
#[derive(Default)]
pub(super) struct Ready {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
    /// Bytes in `young`, about.
    bytes: usize,
}

struct Entry {
    subject: Kept,
    origin: Origin,
    value: HeaderValue,
    from: Timestamp,
    until: Timestamp,
}

/// A subject for as long as its assertion is kept.
enum Kept {
    Session(SessionId, u32),
    /// Its address is not given to another answer as long as this is here.
    Caller(Weak<Checked>),
}

impl<'a> Subject<'a> {
    /// Who that is, if it is anybody.
    pub(super) fn of(who: &'a Authenticated) -> Option<Self> {
        let session = who.session.as_ref().map(Self::Session);
        session.or_else(|| who.caller.as_ref().map(|caller| Self::Caller(&caller.checked)))
    }

    pub(super) fn identity(self) -> &'a Identity {
        match self {
            Self::Session(session) => &session.identity,
            Self::Caller(checked) => &checked.identity,
        }
    }

    pub(super) fn session(self) -> Option<&'a Arc<Session>> {
        match self {
            Self::Session(session) => Some(session),
            Self::Caller(_) => None,
        }
    }

    fn kept(self) -> Kept {
        match self {
            Self::Session(session) => Kept::Session(session.id, session.generation),
            Self::Caller(checked) => Kept::Caller(Arc::downgrade(checked)),
        }
    }

    fn is(self, kept: &Kept) -> bool {
        match (self, kept) {
            (Self::Session(session), Kept::Session(id, generation)) => {
                session.id == *id && session.generation == *generation
            },
            (Self::Caller(checked), Kept::Caller(kept)) => {
                std::ptr::eq(Arc::as_ptr(checked), kept.as_ptr())
            },
            (Self::Session(_), Kept::Caller(_)) | (Self::Caller(_), Kept::Session(..)) => false,
        }
    }
}

impl Ready {
    /// The assertion on `subject` at `origin`, if there is one that may still be handed on.
    pub(super) fn get(
        &self,
        subject: Subject<'_>,
        origin: &Origin,
        now: Timestamp,
    ) -> Option<HeaderValue> {
        let hash = self.hash(subject, origin);
        let mut shard = self.shard(hash)?;
        let fits = |entry: &&Entry| entry.fits(subject, origin, now);
        if let Some(entry) = shard.young.get(&hash).filter(fits) {
            return Some(entry.value.clone());
        }
        shard.old.get(&hash).filter(fits)?;
        let entry = shard.old.remove(&hash)?;
        let value = entry.value.clone();
        shard.insert(hash, entry);
        Some(value)
    }

    /// Keeps `value`, signed at `from`, to be handed on before `until`.
    pub(super) fn put(
        &self,
        subject: Subject<'_>,
        origin: &Origin,
        value: HeaderValue,
        from: Timestamp,
        until: Timestamp,
    ) {
        let hash = self.hash(subject, origin);
        if let Some(mut shard) = self.shard(hash) {
            let (subject, origin) = (subject.kept(), origin.clone());
            shard.insert(hash, Entry { subject, origin, value, from, until });
        }
    }

    fn hash(&self, subject: Subject<'_>, origin: &Origin) -> u64 {
        match subject {
            // By its id alone: a new generation takes the old one's place.
            Subject::Session(session) => self.hasher.hash_one((session.id, origin)),
            Subject::Caller(checked) => self.hasher.hash_one((Arc::as_ptr(checked), origin)),
        }
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, Shard>> {
        let index = usize::try_from(hash % SHARDS as u64).ok()?;
        Some(self.shards.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entry {
    /// Whether it says what is so now: a session that has changed is another generation.
    fn fits(&self, subject: Subject<'_>, origin: &Origin, now: Timestamp) -> bool {
        subject.is(&self.subject) && self.origin == *origin && self.from <= now && now < self.until
    }
}

impl Shard {
    fn insert(&mut self, hash: u64, entry: Entry) {
        self.bytes += entry.value.len() + OVERHEAD;
        self.young.insert(hash, entry);
        if self.bytes > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Ready")
    }
}

const SHARDS: usize = 16;

/// Bytes of one generation of one shard; all of them together stay below 8 MiB.
const GENERATION: usize = 256 * 1024;

/// About what an entry takes beside its value.
const OVERHEAD: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{
        config::TokenKind,
        identity::{Assertions, Occasion},
        session::{Random, Tokens},
        target::Scheme,
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn another() -> Arc<Session> {
        let tokens = Tokens {
            access: String::new().into(),
            refresh: None,
            issued: at(0),
            expires: at(0),
            scope: String::new(),
        };
        let started = Session::start(Identity::default(), 0, tokens, at(0), &Random::system());
        Arc::new(started.unwrap())
    }

    fn caller() -> Arc<Checked> {
        let identity = Identity::default();
        Arc::new(Checked { kind: TokenKind::Personal, identity, until: None })
    }

    fn origin(host: &str, port: Option<u16>) -> Origin {
        Origin { scheme: Scheme::Https, host: host.into(), port }
    }

    #[test]
    fn it_is_handed_on_for_this_session_as_it_is_here_and_now() {
        let (ready, session, here) = (Ready::default(), another(), origin("a.test", None));
        let one = HeaderValue::from_static("one");
        ready.put(Subject::Session(&session), &here, one, at(100), at(200));
        let found = |session: &Arc<Session>, origin: &Origin, now| {
            ready.get(Subject::Session(session), origin, at(now))
        };
        for now in [100, 199] {
            assert_eq!(found(&session, &here, now).unwrap(), "one");
        }
        for now in [99, 200, 1000] {
            assert_eq!(found(&session, &here, now), None, "{now}");
        }
        let changed = Arc::new(session.refreshed(session.tokens.clone()));
        assert_eq!(found(&changed, &here, 150), None);
        let stranger = another();
        assert_eq!(found(&stranger, &here, 150), None);
        let plain = Origin { scheme: Scheme::Http, ..here.clone() };
        for other in [origin("b.test", None), origin("a.test", Some(8443)), plain] {
            assert_eq!(found(&session, &other, 150), None, "{other}");
        }
    }

    #[test]
    fn a_token_has_its_own_until_gitlab_is_asked_again() {
        let (ready, here) = (Ready::default(), origin("a.test", None));
        let one = HeaderValue::from_static("one");
        let answer = caller();
        ready.put(Subject::Caller(&answer), &here, one, at(100), at(200));
        let found = |answer: &Arc<Checked>, now| {
            ready.get(Subject::Caller(answer), &here, at(now)).is_some()
        };
        assert!(found(&answer, 150) && found(&answer.clone(), 199) && !found(&answer, 200));
        drop(answer);
        // However many answers come after it, none is where it was.
        let later: Vec<_> = (0..1000).map(|_| caller()).collect();
        assert!(!later.iter().any(|answer| found(answer, 150)));
    }

    #[test]
    #[ignore = "tells what an assertion costs; a figure only means something when it is built for release"]
    fn assertion_costs() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let assertions = Assertions::new(&[key.serialize_pem()], Duration::from_mins(5)).unwrap();
        let (ready, here) = (Ready::default(), origin("app.example.com", None));
        let sessions: Vec<_> = (0..1000).map(|_| another()).collect();
        let occasion = Occasion {
            issuer: "https://app.example.com",
            audience: &here.host,
            session: Some(&sessions[0].id.alias()),
            id: [7; 16],
            now: at(0),
        };
        let began = Instant::now();
        for session in &sessions {
            let (value, until) = assertions.sign(&session.identity, &occasion).unwrap();
            ready.put(Subject::Session(session), &here, value, at(0), until);
        }
        let signed = began.elapsed() / 1000;
        let began = Instant::now();
        for round in 0..1_000_000 {
            let subject = Subject::Session(&sessions[round % 1000]);
            assert!(ready.get(subject, &here, at(1)).is_some());
        }
        let found = began.elapsed() / 1_000_000;
        println!("signed in {signed:?}; taken from those that are ready in {found:?}");
    }

    #[test]
    fn it_stays_small_and_keeps_what_is_asked_for() {
        let (ready, busy, here) = (Ready::default(), another(), origin("a.test", None));
        let value = HeaderValue::try_from("x".repeat(1000)).unwrap();
        ready.put(Subject::Session(&busy), &here, value.clone(), at(0), at(10));
        for number in 0..20_000 {
            ready.put(Subject::Session(&another()), &here, value.clone(), at(0), at(10));
            if number % 50 == 0 {
                let found = ready.get(Subject::Session(&busy), &here, at(1));
                assert!(found.is_some(), "lost at {number}");
            }
        }
        let entries = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        let entries: usize = ready.shards.iter().map(entries).sum();
        assert!(entries <= SHARDS * 2 * (GENERATION / 1000 + 1), "{entries}");
    }
}
