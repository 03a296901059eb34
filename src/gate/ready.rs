//! Assertions that are ready to be handed on: one for each session, as it stands, or answer of GitLab's on a token, and each origin at which it is used.
//!
//! Signing costs about as much as a whole request, looking here next to nothing. Two generations bound it: when the young one is full it becomes the old one,
//! and what is still asked for moves back. What falls out is signed again.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
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
    room: usize,
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

    /// When that ends by which they are known, if it is certain.
    pub(super) fn ends(self) -> Option<Timestamp> {
        match self {
            Self::Session(_) => None,
            Self::Caller(checked) => checked.until,
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
    /// The assertion on `subject` at `origin`, with so much `room` for groups, that may still be handed on; if there is none, the one that `sign` makes and that is good until the moment beside it.
    ///
    /// It is signed under the shard's lock, so that parallel first requests of a session are given one. Signing takes some 20 µs (`assertion_costs` below
    /// measures it), so others of the shard wait less than for a task to be woken. Where it fails nothing is kept, and the next request tries again.
    ///
    /// # Errors
    /// Those of `sign`.
    pub(super) fn get_or_sign<E>(
        &self,
        subject: Subject<'_>,
        origin: &Origin,
        room: usize,
        now: Timestamp,
        sign: impl FnOnce() -> Result<(HeaderValue, Timestamp), E>,
    ) -> Result<HeaderValue, E> {
        let hash = self.hash(subject, origin, room);
        let Some(mut shard) = self.shard(hash) else { return sign().map(|(value, _)| value) };
        if let Some(ready) = shard.find(hash, |entry| entry.fits(subject, origin, room, now)) {
            return Ok(ready);
        }
        let (value, until) = sign()?;
        let (subject, origin) = (subject.kept(), origin.clone());
        shard.insert(hash, Entry { subject, origin, room, value: value.clone(), from: now, until });
        Ok(value)
    }

    fn hash(&self, subject: Subject<'_>, origin: &Origin, room: usize) -> u64 {
        match subject {
            // By its generation too: while a session changes, requests of both come, and would take each other's place.
            Subject::Session(session) => {
                self.hasher.hash_one((session.id, session.generation, origin, room))
            },
            Subject::Caller(checked) => self.hasher.hash_one((Arc::as_ptr(checked), origin, room)),
        }
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, Shard>> {
        let index = usize::try_from(hash % SHARDS as u64).ok()?;
        Some(self.shards.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entry {
    /// Whether it says what is so now: a session that has changed is another generation.
    fn fits(&self, subject: Subject<'_>, origin: &Origin, room: usize, now: Timestamp) -> bool {
        let begun = self.from <= now + OVERTAKEN;
        let is_here = self.origin == *origin && self.room == room;
        subject.is(&self.subject) && is_here && begun && now < self.until
    }
}

impl Shard {
    /// What is kept under `hash`, if it `fits`; it moves to the young.
    fn find(&mut self, hash: u64, fits: impl Fn(&Entry) -> bool) -> Option<HeaderValue> {
        if let Some(entry) = self.young.get(&hash).filter(|entry| fits(entry)) {
            return Some(entry.value.clone());
        }
        self.old.get(&hash).filter(|entry| fits(entry))?;
        let entry = self.old.remove(&hash)?;
        let value = entry.value.clone();
        self.insert(hash, entry);
        Some(value)
    }

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

/// How much earlier a request may have begun, which is when it looked at the clock, than the one that signed. Whoever checks assertions allows as much
/// between clocks (docs/identity.md); beyond it the clock was set back.
const OVERTAKEN: Duration = Duration::from_secs(10);

/// Bytes of one generation of one shard; all of them together stay below 8 MiB.
const GENERATION: usize = 256 * 1024;

/// About what an entry takes beside its value.
const OVERHEAD: usize = 256;

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        thread,
    };

    use tokio::time::Instant;

    use super::*;
    use crate::{
        config::TokenKind,
        identity::{Assertions, Occasion, Unsigned},
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

    fn put(ready: &Ready, subject: Subject<'_>, origin: &Origin, value: &HeaderValue) {
        let signed = Ok::<_, Infallible>((value.clone(), at(200)));
        ready.get_or_sign(subject, origin, 9, at(100), || signed).unwrap();
    }

    fn get(ready: &Ready, subject: Subject<'_>, origin: &Origin, now: u64) -> Option<HeaderValue> {
        assert!(ready.get_or_sign(subject, origin, 10, at(now), || Err(())).is_err());
        ready.get_or_sign(subject, origin, 9, at(now), || Err(())).ok()
    }

    #[test]
    fn it_is_handed_on_for_this_session_as_it_is_here_and_now() {
        let (ready, session, here) = (Ready::default(), another(), origin("a.test", None));
        put(&ready, Subject::Session(&session), &here, &HeaderValue::from_static("one"));
        let found = |session: &Arc<Session>, origin: &Origin, now| {
            get(&ready, Subject::Session(session), origin, now)
        };
        for now in [90, 99, 100, 199] {
            assert_eq!(found(&session, &here, now).unwrap(), "one");
        }
        for now in [0, 89, 200, 1000] {
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
        // While it changes, each has its own.
        put(&ready, Subject::Session(&changed), &here, &HeaderValue::from_static("two"));
        assert_eq!(found(&session, &here, 150).unwrap(), "one");
        assert_eq!(found(&changed, &here, 150).unwrap(), "two");
    }

    #[test]
    fn who_comes_while_it_is_signed_is_given_that_one() {
        let (ready, session, here) = (Ready::default(), another(), origin("a.test", None));
        let (signed, come) = (AtomicUsize::new(0), Barrier::new(2));
        let ask = |meet: bool| {
            let sign = || {
                if meet {
                    come.wait();
                    // Time for the other one to find nothing and sign as well.
                    (0..1000).for_each(|_| thread::yield_now());
                }
                signed.fetch_add(1, Relaxed);
                Ok::<_, Infallible>((HeaderValue::from_static("one"), at(200)))
            };
            ready.get_or_sign(Subject::Session(&session), &here, 9, at(100), sign).unwrap();
        };
        thread::scope(|scope| {
            scope.spawn(|| ask(true));
            scope.spawn(|| {
                come.wait();
                ask(false);
            });
        });
        assert_eq!(signed.load(Relaxed), 1);
    }

    #[test]
    fn a_signing_that_fails_leaves_nothing_behind() {
        let (ready, session, here) = (Ready::default(), another(), origin("a.test", None));
        let subject = Subject::Session(&session);
        assert_eq!(get(&ready, subject, &here, 100), None);
        let sign =
            || ready.get_or_sign(subject, &here, 9, at(100), || -> Result<_, ()> { panic!() });
        assert!(catch_unwind(AssertUnwindSafe(sign)).is_err());
        put(&ready, subject, &here, &HeaderValue::from_static("one"));
        assert_eq!(get(&ready, subject, &here, 100).unwrap(), "one");
    }

    #[test]
    fn a_token_has_its_own_until_gitlab_is_asked_again() {
        let (ready, here) = (Ready::default(), origin("a.test", None));
        let answer = caller();
        put(&ready, Subject::Caller(&answer), &here, &HeaderValue::from_static("one"));
        let found =
            |answer: &Arc<Checked>, now| get(&ready, Subject::Caller(answer), &here, now).is_some();
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
            ends: None,
            room: 0,
        };
        let began = Instant::now();
        for session in &sessions {
            let sign = || {
                let signed = assertions.sign(&session.identity, &occasion)?;
                Ok::<_, Unsigned>((signed.value, signed.until))
            };
            ready.get_or_sign(Subject::Session(session), &here, 9, at(0), sign).unwrap();
        }
        let signed = began.elapsed() / 1000;
        let began = Instant::now();
        for round in 0..1_000_000 {
            let subject = Subject::Session(&sessions[round % 1000]);
            assert!(get(&ready, subject, &here, 1).is_some());
        }
        let found = began.elapsed() / 1_000_000;
        println!("signed in {signed:?}; taken from those that are ready in {found:?}");
    }

    #[test]
    fn it_stays_small_and_keeps_what_is_asked_for() {
        let (ready, busy, here) = (Ready::default(), another(), origin("a.test", None));
        let value = HeaderValue::try_from("x".repeat(1000)).unwrap();
        put(&ready, Subject::Session(&busy), &here, &value);
        for number in 0..20_000 {
            put(&ready, Subject::Session(&another()), &here, &value);
            if number % 50 == 0 {
                let found = get(&ready, Subject::Session(&busy), &here, 101);
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
