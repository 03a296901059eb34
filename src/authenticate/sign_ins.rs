//! How many sign-ins end at once, and that each state counts for one answer: both shared by all gates of a process, so that a reload opens nothing anew.
//!
//! ```text
//! answer fits its cookie ──▶ slot (none: 503, the answer may come again) ──▶ state spent (before: no sign-in of this browser) ──▶ code
//! ```
//!
//! The sealed cookie can't tell that it was used: whoever keeps it could repeat one answer for ten minutes, at two calls to GitLab each. What is
//! spent is remembered for longer than a cookie counts; beyond a bound the oldest is forgotten, and the slots are what is left.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{clock::Timestamp, session::Session};

/// Sign-ins that end at a time. Each may wait for its turn to call GitLab, so there are many more than turns: a whole company comes at nine.
pub(super) const AT_ONCE: usize = 256;

/// Longer than an attempt's cookie counts, whatever the clocks of replicas say.
const KEPT: Duration = Duration::from_mins(15);

/// States remembered, about 2 MB.
const MOST: usize = 1 << 15;

/// How long after each other sign-ins end that began together.
const TOGETHER: Duration = Duration::from_mins(1);

/// Sessions remembered for those that come with them, about 8 MB.
const MOST_SHARED: usize = 1 << 12;

/// The sign-ins of a process that are about to end, and those that have.
#[derive(Debug)]
pub struct SignIns {
    slots: Arc<Semaphore>,
    spent: Mutex<Spent>,
    shared: Mutex<Shared>,
}

/// The sessions of those that were open beside a sign-in that has ended well, for a minute.
#[derive(Debug, Default)]
struct Shared {
    sessions: HashMap<State, Arc<Session>>,
    ages: VecDeque<(Timestamp, State)>,
}

#[derive(Debug, Default)]
struct Spent {
    states: HashSet<State>,
    ages: VecDeque<(Timestamp, State)>,
}

/// A part of the state's hash, long enough that no two meet.
type State = [u8; 16];

impl Default for SignIns {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            spent: Mutex::default(),
            shared: Mutex::default(),
        }
    }
}

impl SignIns {
    /// Room for one more, if there is any; held until it is dropped.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Spends `state`; false if it was spent before.
    pub(super) fn spend(&self, state: &str, now: Timestamp) -> bool {
        let state = short(state);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.forget(now);
        let is_new = spent.states.insert(state);
        if is_new {
            spent.ages.push_back((now, state));
        }
        is_new
    }

    /// Of the sessions that several tabs of one browser get at once, the one that came first: `new`, unless a sign-in that was open together with one
    /// of `states` has ended well for the same person within a minute.
    pub(super) fn first(
        &self,
        states: &[String],
        new: &Arc<Session>,
        now: Timestamp,
    ) -> Arc<Session> {
        let states: Vec<_> = states.iter().map(|state| short(state)).collect();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.forget(now);
        let known = states.iter().find_map(|state| shared.sessions.get(state));
        let same = known.filter(|known| known.identity.is_same_person(&new.identity));
        let first = same.unwrap_or(new).clone();
        for state in states {
            if shared.sessions.insert(state, first.clone()).is_none() {
                shared.ages.push_back((now, state));
            }
        }
        first
    }
}

impl Shared {
    fn forget(&mut self, now: Timestamp) {
        let full = self.ages.len() >= MOST_SHARED;
        let over = |(came, _): &mut (Timestamp, State)| full || now.since(*came) > TOGETHER;
        // More than one call adds: a browser has only so many open.
        for _ in 0..32 {
            let Some((_, state)) = self.ages.pop_front_if(over) else { return };
            self.sessions.remove(&state);
        }
    }
}

impl Spent {
    fn forget(&mut self, now: Timestamp) {
        let full = self.ages.len() >= MOST;
        let over = |(spent, _): &(Timestamp, State)| full || now.since(*spent) > KEPT;
        // Two at most: more than one call adds, and never a long pause.
        for _ in 0..2 {
            if let Some((_, state)) = self.ages.pop_front_if(|oldest| over(oldest)) {
                self.states.remove(&state);
            }
        }
    }
}

fn short(state: &str) -> State {
    let hash: [u8; 32] = Sha256::digest(state.as_bytes()).into();
    *hash.first_chunk().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        identity::Identity,
        session::{Random, Tokens},
    };

    const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

    #[test]
    fn a_state_counts_once_for_as_long_as_its_cookie_could() {
        let sign_ins = SignIns::default();
        assert!(sign_ins.spend("a", NOW));
        assert!(!sign_ins.spend("a", NOW));
        assert!(sign_ins.spend("b", NOW), "another one");
        // A cookie counts for ten minutes and may lie one ahead.
        let last = NOW + Duration::from_mins(11);
        assert!(!sign_ins.spend("a", last));
    }

    #[test]
    fn tabs_that_were_open_together_share_the_session_that_came_first() {
        let sign_ins = SignIns::default();
        let session = |sub: &str| {
            let identity = Identity { sub: sub.into(), issuer: "x".into(), ..Identity::default() };
            let tokens = Tokens {
                access: Zeroizing::default(),
                refresh: None,
                issued: NOW,
                expires: NOW,
                scope: String::new(),
            };
            let random = Random::system();
            Arc::new(Session::start(identity, 0, tokens, NOW, &random).unwrap())
        };
        let first = |states: &[&str], new: &Arc<Session>, now| {
            let states: Vec<_> = states.iter().map(|state| (*state).to_owned()).collect();
            sign_ins.first(&states, new, now).id
        };
        let (one, two, three, bob) = (session("7"), session("7"), session("7"), session("8"));
        assert_eq!(first(&["a", "b"], &one, NOW), one.id);
        // Whether or not the cookie of the first is still there.
        assert_eq!(first(&["b"], &two, NOW), one.id);
        assert_eq!(first(&["a", "b", "c"], &two, NOW), one.id);
        assert_eq!(first(&["c"], &three, NOW), one.id);
        assert_eq!(first(&["d"], &three, NOW), three.id, "another browser");
        assert_eq!(first(&["a"], &bob, NOW), bob.id, "somebody else");
        let later = NOW + Duration::from_secs(61);
        assert_eq!(first(&["c"], &two, later), two.id);
        for number in 0..MOST_SHARED + 100 {
            first(&[&number.to_string()], &one, later);
        }
        assert!(sign_ins.shared.lock().unwrap().sessions.len() <= MOST_SHARED);
    }

    #[test]
    fn of_parallel_answers_to_one_state_one_counts() {
        let sign_ins = SignIns::default();
        let counted = std::thread::scope(|scope| {
            let answers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| sign_ins.spend("a", NOW))).collect();
            answers
                .into_iter()
                .map(|answer| answer.join().unwrap())
                .filter(|counts| *counts)
                .count()
        });
        assert_eq!(counted, 1);
    }

    #[test]
    fn what_is_spent_is_bounded_and_the_oldest_goes() {
        let sign_ins = SignIns::default();
        for number in 0..MOST + 10 {
            assert!(sign_ins.spend(&number.to_string(), NOW));
        }
        assert!(!sign_ins.spend(&(MOST + 9).to_string(), NOW), "the latest are known");
        let spent = sign_ins.spent.lock().unwrap();
        assert!(spent.ages.len() <= MOST && spent.states.len() == spent.ages.len());
    }

    #[test]
    fn the_old_ones_are_forgotten_in_passing() {
        let sign_ins = SignIns::default();
        (0..100).for_each(|number| assert!(sign_ins.spend(&number.to_string(), NOW)));
        let later = NOW + KEPT + Duration::from_secs(1);
        (100..200).for_each(|number| assert!(sign_ins.spend(&number.to_string(), later)));
        assert_eq!(sign_ins.spent.lock().unwrap().ages.len(), 100);
    }

    #[test]
    fn slots_come_back() {
        let sign_ins = SignIns::default();
        let taken: Vec<_> = std::iter::from_fn(|| sign_ins.slot()).collect();
        assert_eq!(taken.len(), AT_ONCE);
        drop(taken);
        assert!(sign_ins.slot().is_some());
    }
}
