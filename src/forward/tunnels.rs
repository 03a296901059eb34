//! All tunnels of a process: counted, limited, ended together, and for each session and each owner of a token the ones that are open by their leave.
//!
//! ```text
//! reserve ─▶ Place (kept by the tunnel) ─▶ dropped when the tunnel ends
//!               └─▶ Held: by whose leave and what it was asked; whoever looks after it may close it
//! ```
//!
//! Whether a tunnel may stay open is the gate's to say; those that nobody in particular has opened are nobody's to close but by ending all.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Timestamp,
    gitlab::Checked,
    refusal::Refusal,
    session::{Session, SessionId},
    target::Target,
};

/// All upgraded connections of the process.
#[derive(Debug)]
pub struct Tunnels {
    limit: usize,
    open: AtomicUsize,
    end: CancellationToken,
    held: Mutex<HashMap<Key, Vec<Arc<Held>>>>,
}

/// By whose leave a tunnel is opened, and to what.
#[derive(Debug)]
pub struct Holder {
    /// Who the request came from that asked for it.
    pub leave: Leave,
    /// What that request asked for.
    pub target: Target,
}

/// By whose leave a tunnel is open.
#[derive(Clone, Debug)]
pub enum Leave {
    /// A session's.
    Session(Arc<Session>),
    /// That of a token's owner.
    Token(Arc<Shown>),
}

/// A token that opened a tunnel, so that it can be shown again.
#[derive(Debug)]
pub struct Shown {
    /// Whose it was then.
    pub caller: Arc<Checked>,
    /// The headers that it came in; their values are never printed.
    pub headers: HeaderMap,
    /// When it counted last, in Unix seconds.
    counted: AtomicU64,
    /// When it was shown last, in Unix seconds.
    tried: AtomicU64,
}

impl Shown {
    /// A token that counts `now`.
    pub fn new(caller: Arc<Checked>, headers: HeaderMap, now: Timestamp) -> Self {
        let (counted, tried) = (AtomicU64::new(now.unix()), AtomicU64::new(now.unix()));
        Self { caller, headers, counted, tried }
    }

    /// When it counted last.
    pub fn counted(&self) -> Timestamp {
        Timestamp::from_unix(self.counted.load(Relaxed))
    }

    /// It counts `now`.
    pub fn counts(&self, now: Timestamp) {
        self.counted.store(now.unix(), Relaxed);
    }

    /// When it was shown last, whether or not anything came of it.
    pub fn tried(&self) -> Timestamp {
        Timestamp::from_unix(self.tried.load(Relaxed))
    }

    /// It is shown again `now`.
    pub fn tries(&self, now: Timestamp) {
        self.tried.store(now.unix(), Relaxed);
    }
}

/// What shares an allowance of tunnels: a session, or all tokens of one owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Session(SessionId),
    Owner(String, String),
}

impl Leave {
    fn key(&self) -> Key {
        match self {
            Self::Session(session) => Key::Session(session.id),
            Self::Token(shown) => {
                let identity = &shown.caller.identity;
                Key::Owner(identity.gitlab.clone(), identity.sub.clone())
            },
        }
    }

    /// Who it is, for logs.
    pub fn user(&self) -> String {
        match self {
            Self::Session(session) => session.identity.to_string(),
            Self::Token(shown) => shown.caller.identity.to_string(),
        }
    }
}

/// A tunnel that is open by somebody's leave.
#[derive(Debug)]
pub struct Held {
    leave: Mutex<Leave>,
    target: Target,
    moved: AtomicBool,
    end: CancellationToken,
}

/// The tunnels that one token has opened, each with the token as it was shown for it.
pub type OfToken = Vec<(Arc<Held>, Arc<Shown>)>;

impl Tunnels {
    /// At most `limit` at once.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            open: AtomicUsize::new(0),
            end: CancellationToken::new(),
            held: Mutex::default(),
        })
    }

    /// How many are open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Closes every tunnel, also those that are just being opened.
    pub fn end(&self) {
        self.end.cancel();
    }

    /// Those that are open by leave of sessions, one list for each of them.
    pub fn of_sessions(&self) -> Vec<Vec<Arc<Held>>> {
        self.held(|key| matches!(key, Key::Session(_)))
    }

    /// Those that tokens have opened which are `due`, by the name of their GitLab and for each token; the token that was shown last comes last.
    pub fn of_tokens(&self, due: impl Fn(&Shown) -> bool) -> BTreeMap<String, Vec<OfToken>> {
        let mut gitlabs = BTreeMap::<String, Vec<OfToken>>::new();
        for tunnels in self.held(|key| matches!(key, Key::Owner(..))) {
            // A token has one owner.
            let mut tokens = Vec::<OfToken>::new();
            for tunnel in tunnels {
                let Leave::Token(shown) = tunnel.leave() else { continue };
                if !due(&shown) {
                    continue;
                }
                let is_of_it = |(_, other): &(_, Arc<Shown>)| other.headers == shown.headers;
                match tokens.iter_mut().find(|token| token.first().is_some_and(is_of_it)) {
                    Some(token) => token.push((tunnel, shown)),
                    None => tokens.push(vec![(tunnel, shown)]),
                }
            }
            for token in tokens {
                let Some((_, shown)) = token.first() else { continue };
                gitlabs.entry(shown.caller.identity.gitlab.clone()).or_default().push(token);
            }
        }
        for tokens in gitlabs.values_mut() {
            tokens.sort_by_key(|token| token.iter().map(|(_, shown)| shown.tried()).min());
        }
        gitlabs
    }

    fn held(&self, which: fn(&Key) -> bool) -> Vec<Vec<Arc<Held>>> {
        let holders = self.holders();
        holders.iter().filter(|(key, _)| which(key)).map(|(_, held)| held.clone()).collect()
    }

    /// A place for one more tunnel, kept until dropped.
    pub(super) fn reserve(self: &Arc<Self>, holder: Option<Holder>) -> Result<Place, Refusal> {
        self.open
            .fetch_update(Relaxed, Relaxed, |open| (open < self.limit).then_some(open + 1))
            .map_err(|_| Refusal::Exhausted("tunnels"))?;
        let mut place = Place { tunnels: Arc::clone(self), held: None };
        if let Some(Holder { leave, target }) = holder {
            let mut holders = self.holders();
            let all = holders.entry(leave.key()).or_default();
            if all.len() >= OF_ONE_SESSION {
                drop(holders);
                return Err(Refusal::Exhausted("session_tunnels"));
            }
            let held = Arc::new(Held {
                leave: Mutex::new(leave),
                target,
                moved: AtomicBool::new(false),
                end: self.end.child_token(),
            });
            all.push(held.clone());
            place.held = Some(held);
        }
        Ok(place)
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<Key, Vec<Arc<Held>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// By whose leave it is open; of a session the newest copy that is known here.
    pub fn leave(&self) -> Leave {
        self.leave.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was asked for when it was opened.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Takes over a newer copy of the session: the tokens of the older one may be dead.
    pub fn renew(&self, session: &Arc<Session>) {
        let mut leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        if let Leave::Session(known) = &mut *leave
            && session.generation > known.generation
        {
            known.clone_from(session);
        }
    }

    /// Whether anything has passed since this was last asked.
    pub fn has_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Ends it; true for who does so first.
    pub fn close(&self) -> bool {
        let is_open = !self.end.is_cancelled();
        self.end.cancel();
        is_open
    }
}

/// One tunnel's place among all.
#[derive(Debug)]
pub(super) struct Place {
    tunnels: Arc<Tunnels>,
    held: Option<Arc<Held>>,
}

impl Place {
    /// Waits until the tunnel must end.
    pub(super) async fn ended(&self) {
        match &self.held {
            Some(held) => held.end.cancelled().await,
            None => self.tunnels.end.cancelled().await,
        }
    }

    /// Notes that something passes.
    pub(super) fn moves(&self) {
        if let Some(held) = &self.held {
            held.moved.store(true, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tunnels.open.fetch_sub(1, Relaxed);
        let Some(held) = self.held.take() else { return };
        let key = held.leave().key();
        let mut holders = self.tunnels.holders();
        if let Some(all) = holders.get_mut(&key) {
            all.retain(|other| !Arc::ptr_eq(other, &held));
            if all.is_empty() {
                holders.remove(&key);
            }
        }
    }
}

/// How many tunnels one session or owner may have at once: a window for each in a crowd of tabs, and no way to use up the places of all.
const OF_ONE_SESSION: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        body::Body,
        config::{TokenKind, TrustedProxies},
        identity::Identity,
        session::{Random, Tokens},
        target::{Peer, Trust},
    };

    fn session() -> Arc<Session> {
        let identity = Identity {
            gitlab: "main".into(),
            issuer: "https://gitlab.example.com".into(),
            sub: "2".into(),
            username: "alice".into(),
            name: String::new(),
            email: None,
            groups: Vec::new(),
            ..Identity::default()
        };
        let now = Timestamp::from_unix(1_790_000_000);
        let tokens = Tokens {
            access: String::new().into(),
            refresh: None,
            issued: now,
            expires: now,
            scope: String::new(),
        };
        Arc::new(Session::start(identity, 0, tokens, now, &Random::system()).unwrap())
    }

    fn holder(session: &Arc<Session>) -> Holder {
        Holder { leave: Leave::Session(session.clone()), target: target() }
    }

    /// What `token` of a `user` at `gitlab` opens.
    fn token(gitlab: &str, user: &str, token: &'static str) -> Holder {
        let (gitlab, sub) = (gitlab.to_owned(), user.to_owned());
        let identity = Identity { gitlab, sub, ..Identity::default() };
        let caller = Arc::new(Checked { kind: TokenKind::Personal, identity, until: None });
        let mut headers = HeaderMap::new();
        headers.insert("private-token", http::HeaderValue::from_static(token));
        let shown = Shown::new(caller, headers, Timestamp::from_unix(1));
        Holder { leave: Leave::Token(Arc::new(shown)), target: target() }
    }

    fn target() -> Target {
        let request = http::Request::get("/ws").header("host", "app.test");
        let request = request.body(Body::default()).unwrap();
        let peer = Peer { addr: ([127, 0, 0, 1], 1).into(), core: 0 };
        let trust = Trust::new(&TrustedProxies(Vec::new()));
        Target::read(&request, &peer, &trust, None).unwrap()
    }

    #[test]
    fn a_session_has_its_share_and_places_come_back() {
        let tunnels = Tunnels::new(1000);
        let (one, other) = (session(), session());
        let mut places = Vec::new();
        for _ in 0..OF_ONE_SESSION {
            places.push(tunnels.reserve(Some(holder(&one))).unwrap());
        }
        for _ in 0..3 {
            let refused = tunnels.reserve(Some(holder(&one))).unwrap_err();
            assert!(matches!(refused, Refusal::Exhausted("session_tunnels")));
        }
        assert_eq!(tunnels.open(), OF_ONE_SESSION, "what was refused takes no place");
        let _another = tunnels.reserve(Some(holder(&other))).unwrap();
        let _public = tunnels.reserve(None).unwrap();
        assert_eq!((tunnels.of_sessions().len(), tunnels.open()), (2, OF_ONE_SESSION + 2));
        places.pop();
        places.push(tunnels.reserve(Some(holder(&one))).unwrap());
        drop(places);
        assert_eq!((tunnels.of_sessions().len(), tunnels.open()), (1, 2));
    }

    #[tokio::test]
    async fn one_is_closed_alone_and_all_are_ended_together() {
        let tunnels = Tunnels::new(10);
        let (one, other) = (session(), session());
        let places =
            [Some(holder(&one)), Some(holder(&other)), None].map(|holder| tunnels.reserve(holder));
        let [first, second, public] = places.map(Result::unwrap);
        let held = tunnels.of_sessions().concat();
        let firsts = held.iter().find(|held| held.leave().key() == Key::Session(one.id)).unwrap();
        assert!(firsts.close());
        assert!(!firsts.close());
        first.ended().await;
        for open in [&second, &public] {
            let ended = tokio::time::timeout(std::time::Duration::from_millis(10), open.ended());
            assert!(ended.await.is_err());
        }
        tunnels.end();
        second.ended().await;
        public.ended().await;
        tunnels.reserve(Some(holder(&one))).unwrap().ended().await;
    }

    #[test]
    fn tokens_come_once_each_and_the_one_that_was_shown_last_comes_last() {
        let tunnels = Tunnels::new(10);
        let session = session();
        let opened = [
            token("main", "2", "one"),
            token("main", "2", "two"),
            token("main", "2", "one"),
            token("main", "3", "three"),
            token("other", "2", "four"),
            holder(&session),
        ];
        let _places = opened.map(|holder| tunnels.reserve(Some(holder)).unwrap());
        let name = |shown: &Shown| shown.headers["private-token"].to_str().unwrap().to_owned();
        let listed = |due: fn(&Shown) -> bool| -> Vec<(String, Vec<(String, usize)>)> {
            let of_one = |tokens: Vec<OfToken>| {
                tokens.iter().map(|token| (name(&token[0].1), token.len())).collect()
            };
            let gitlabs = tunnels.of_tokens(due).into_iter();
            gitlabs.map(|(gitlab, tokens)| (gitlab, of_one(tokens))).collect()
        };
        let others = ("other".to_owned(), vec![("four".to_owned(), 1)]);
        for (round, first) in [(2, "one"), (3, "two"), (4, "three"), (5, "one")] {
            let tokens = tunnels.of_tokens(|_| true).remove("main").unwrap();
            assert_eq!(tokens.len(), 3);
            for (_, shown) in tokens.iter().flatten().filter(|(_, shown)| name(shown) == first) {
                shown.tries(Timestamp::from_unix(round));
            }
            let all = listed(|_| true);
            assert_eq!(
                all[0].1.last().unwrap(),
                &(first.to_owned(), 1 + usize::from(first == "one"))
            );
            assert_eq!(all[1], others);
        }
        let early: Vec<_> = listed(|shown| shown.tried() < Timestamp::from_unix(4));
        assert_eq!(early, [("main".to_owned(), vec![("two".to_owned(), 1)]), others]);
        assert_eq!(tunnels.of_sessions().len(), 1);
    }

    #[test]
    fn it_tells_once_that_something_moved_and_keeps_the_newest_copy() {
        let (tunnels, old) = (Tunnels::new(10), session());
        let place = tunnels.reserve(Some(holder(&old))).unwrap();
        let held = tunnels.of_sessions().concat().pop().unwrap();
        assert!(!held.has_moved());
        place.moves();
        assert!(held.has_moved() && !held.has_moved());
        let copy = |generation| Arc::new(Session { generation, ..Session::clone(&old) });
        held.renew(&copy(3));
        held.renew(&copy(2));
        let Leave::Session(newest) = held.leave() else { panic!("it is a session's") };
        assert_eq!(newest.generation, 3);
    }
}
