//! Sessions that assertions were signed for lately, by their aliases: with a session that lives in its cookie alone, nobody else knows its tokens.
//!
//! Two generations bound it by bytes: when the young one is full it becomes the old one. A session that is in use comes again with each assertion, long before
//! that. What is found may be old, or over: that is for `Store::get` to say.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::memory;
use crate::session::Session;

#[derive(Default)]
pub(super) struct Recent(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<String, Arc<Session>>,
    old: HashMap<String, Arc<Session>>,
    /// Bytes of `young`, about.
    bytes: usize,
}

impl Recent {
    pub(super) fn put(&self, session: &Arc<Session>) {
        let (alias, bytes) = (session.id.alias(), memory::size(session));
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = generations.young.insert(alias, session.clone());
        let before = before.map_or(0, |before| memory::size(&before));
        generations.bytes = generations.bytes.saturating_sub(before) + bytes;
        if generations.bytes > GENERATION {
            generations.old = std::mem::take(&mut generations.young);
            generations.bytes = 0;
        }
    }

    pub(super) fn get(&self, alias: &str) -> Option<Arc<Session>> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.get(alias).or_else(|| generations.old.get(alias)).cloned()
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Recent")
    }
}

/// Bytes of one generation: some ten thousand sessions.
const GENERATION: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        identity::{Identity, Membership},
        session::{Random, Tokens},
    };

    fn session(groups: usize) -> Arc<Session> {
        let now = Timestamp::from_unix(0);
        let level = crate::config::AccessLevel::GUEST;
        let group = |number| Membership { path: format!("group-{number}"), level };
        let identity = Identity { groups: (0..groups).map(group).collect(), ..Identity::default() };
        let tokens = Tokens {
            access: String::new().into(),
            refresh: None,
            issued: now,
            expires: now,
            scope: String::new(),
        };
        Arc::new(Session::start(identity, 0, tokens, now, &Random::system()).unwrap())
    }

    #[test]
    fn a_session_is_found_by_its_alias_in_its_last_copy() {
        let recent = Recent::default();
        let first = session(0);
        recent.put(&first);
        let second = Arc::new(first.refreshed(first.tokens.clone()));
        recent.put(&second);
        assert_eq!(recent.get(&first.id.alias()).unwrap().generation, 1);
        assert_eq!(recent.get(&session(0).id.alias()), None);
        assert_eq!(recent.get(""), None);
    }

    #[test]
    fn it_stays_small_and_the_last_that_came_are_there() {
        let recent = Recent::default();
        let all: Vec<_> = (0..1000).map(|_| session(2000)).collect();
        for session in &all {
            recent.put(session);
            recent.put(session);
            assert!(recent.get(&session.id.alias()).is_some());
        }
        let generations = recent.0.lock().unwrap();
        let kept = generations.young.len() + generations.old.len();
        assert!(kept <= 2 * (GENERATION / memory::size(&all[0]) + 1), "{kept}");
        assert!(kept > 100, "{kept}");
    }
}
