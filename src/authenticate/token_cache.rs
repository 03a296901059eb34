//! What GitLab said of tokens, for a while; and who is asking right now, so that each token is asked about once.
//!
//! ```text
//! key = SHA-256(salt, all that the answer depends on, form, token) ─▶ known? ─▶ being asked? ─▶ Ticket: ask
//! ```
//!
//! Good and bad answers are kept apart, each in two generations: when the young one is full it becomes the old one, and what is still asked for moves
//! back. So wrong tokens, which anybody can send, push out wrong ones alone. Answers by signature, of which every job of a GitLab can have as many as it
//! likes, are kept apart from GitLab's own. A GitLab that is asked about many tokens at once turns away those
//! that it has not known lately, before those that it has. Tokens that prove themselves cost it nothing, so they have places of their own; those whose
//! key has to be fetched wait in few of them. No token is kept, and a copy of this memory tells none.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{clock::Timestamp, gitlab::Checked, refusal::TokenTrouble, session::Random};

/// What is known of a token.
pub(super) type Verdict = Result<Arc<Checked>, TokenTrouble>;

/// Names a token, and what its answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// What is known of tokens; shared by all gates of a process, so that a reload asks nothing anew.
pub struct TokenCache {
    salt: [u8; 32],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    told: Answers,
    signed: Answers,
    asking: HashMap<Key, Asking>,
}

/// Those of one source.
#[derive(Default)]
struct Answers {
    good: Generations,
    bad: Generations,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
}

struct Entry {
    verdict: Verdict,
    since: Timestamp,
    until: Timestamp,
}

struct Asking {
    gitlab: String,
    is_signed: bool,
    is_new: bool,
    verdict: watch::Receiver<Option<Verdict>>,
}

/// Who answers for a token.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// GitLab, asked about at most `most` tokens at a time that it has not known lately.
    GitLab { most: usize },
    /// Its signature; whether the key is here, or has to be fetched.
    Signature { key_is_here: &'a dyn Fn() -> bool },
}

/// What the cache has for a token.
pub(super) enum Found {
    /// The answer.
    Known(Verdict),
    /// Somebody asks; the answer comes here.
    Asked(watch::Receiver<Option<Verdict>>),
    /// Nobody does: it is the finder's turn.
    Mine(Ticket, watch::Receiver<Option<Verdict>>),
    /// Nobody may: too many are being asked about.
    Full,
}

/// The duty to ask about one token; dropped without an answer, those who wait learn that there is none.
pub(super) struct Ticket {
    cache: Arc<TokenCache>,
    key: Key,
    is_signed: bool,
    is_new: bool,
    sender: watch::Sender<Option<Verdict>>,
}

impl TokenCache {
    /// An empty one.
    pub fn new(random: &Random) -> Result<Arc<Self>, crate::session::NoRandom> {
        Ok(Arc::new(Self { salt: random.bytes()?, state: Mutex::default() }))
    }

    pub(super) fn key(&self, fingerprint: &[u8; 32], form: u8, token: &str) -> Key {
        let hash = Sha256::new().chain_update(self.salt).chain_update(fingerprint);
        Key(hash.chain_update([form]).chain_update(token).finalize().into())
    }

    /// What is known of `key`, a token of `gitlab`, at `now`; if nothing is, `source` will be asked.
    pub(super) fn find(
        self: &Arc<Self>,
        key: Key,
        gitlab: &str,
        source: Source<'_>,
        now: Timestamp,
    ) -> Found {
        let mut state = self.state();
        let is_signed = matches!(source, Source::Signature { .. });
        let answers = state.answers(is_signed);
        if let Some(verdict) = answers.known(key, now) {
            return Found::Known(verdict);
        }
        let (is_new, most) = match source {
            Source::GitLab { most } => (!answers.good.holds(key), most.min(NEW_AT_ONCE)),
            Source::Signature { key_is_here } => (!key_is_here(), NEW_AT_ONCE),
        };
        if let Some(asking) = state.asking.get(&key) {
            return Found::Asked(asking.verdict.clone());
        }
        let of_it = |asking: &&Asking| asking.gitlab == gitlab && asking.is_signed == is_signed;
        let (new, all) = state
            .asking
            .values()
            .filter(of_it)
            .fold((0, 0), |(new, all), asking| (new + usize::from(asking.is_new), all + 1));
        if all >= AT_ONCE || (is_new && new >= most) {
            return Found::Full;
        }
        let (sender, verdict) = watch::channel(None);
        let gitlab = gitlab.to_owned();
        let asking = Asking { gitlab, is_signed, is_new, verdict: verdict.clone() };
        state.asking.insert(key, asking);
        Found::Mine(Ticket { cache: self.clone(), key, is_signed, is_new, sender }, verdict)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TokenCache")
    }
}

impl Ticket {
    /// Whether GitLab has not known the token lately.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Tells the verdict to all who wait, and keeps it for `lasts` from `since` on, unless it is no verdict.
    pub(super) fn land(self, verdict: Verdict, since: Timestamp, lasts: Option<Duration>) {
        if let Some(lasts) = lasts {
            let end = verdict.as_ref().ok().and_then(|checked| checked.until);
            let until = (since + lasts).min(end.unwrap_or(since + lasts));
            let entry = Entry { verdict: verdict.clone(), since, until };
            self.cache.state().answers(self.is_signed).keep(self.key, entry);
        }
        self.sender.send_replace(Some(verdict));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cache.state().asking.remove(&self.key);
    }
}

impl State {
    fn answers(&mut self, is_signed: bool) -> &mut Answers {
        if is_signed { &mut self.signed } else { &mut self.told }
    }
}

impl Answers {
    fn known(&mut self, key: Key, now: Timestamp) -> Option<Verdict> {
        [&mut self.good, &mut self.bad].into_iter().find_map(|generations| {
            let entry = generations.get(key)?;
            // A clock that was turned back makes nothing last longer.
            let counts = entry.since <= now + SKEW && now < entry.until;
            counts.then(|| entry.verdict.clone())
        })
    }

    fn keep(&mut self, key: Key, entry: Entry) {
        if entry.verdict.is_ok() {
            self.bad.remove(key);
            self.good.insert(key, entry, GOOD);
        } else {
            self.good.remove(key);
            self.bad.insert(key, entry, BAD);
        }
    }
}

impl Generations {
    fn get(&mut self, key: Key) -> Option<&Entry> {
        if let Some(entry) = self.old.remove(&key) {
            self.young.entry(key).or_insert(entry);
        }
        self.young.get(&key)
    }

    fn holds(&self, key: Key) -> bool {
        self.young.contains_key(&key) || self.old.contains_key(&key)
    }

    fn insert(&mut self, key: Key, entry: Entry, most: usize) {
        self.old.remove(&key);
        self.young.insert(key, entry);
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
    }

    fn remove(&mut self, key: Key) {
        self.young.remove(&key);
        self.old.remove(&key);
    }
}

/// Answers in one generation: good ones are some kilobytes each, bad ones small.
const GOOD: usize = 2_000;
const BAD: usize = 8_000;

/// Tokens of one GitLab that one source is asked about at once.
const AT_ONCE: usize = 256;

/// Those of them that GitLab has not known lately, or whose key has to be fetched.
const NEW_AT_ONCE: usize = 32;

/// Requests of the same second may be out of order.
const SKEW: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::TokenKind, identity::Identity};

    const GITLAB: Source<'_> = Source::GitLab { most: 100 };
    const SIGNED: Source<'_> = Source::Signature { key_is_here: &|| true };
    const LASTS: Option<Duration> = Some(Duration::from_mins(1));

    fn cache() -> Arc<TokenCache> {
        TokenCache::new(&Random::system()).unwrap()
    }

    fn good(until: Option<u64>) -> Arc<Checked> {
        let until = until.map(Timestamp::from_unix);
        Arc::new(Checked { kind: TokenKind::Personal, identity: Identity::default(), until })
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1000 + seconds)
    }

    fn key(cache: &TokenCache, number: u32) -> Key {
        cache.key(&[0; 32], 0, &number.to_string())
    }

    /// Asks for it and lets this be the answer.
    fn learn(cache: &Arc<TokenCache>, key: Key, verdict: Verdict, lasts: Option<Duration>) {
        match cache.find(key, "main", GITLAB, at(0)) {
            Found::Mine(ticket, _) => ticket.land(verdict, at(0), lasts),
            Found::Known(_) | Found::Asked(_) | Found::Full => panic!("it is known"),
        }
    }

    fn is_known(cache: &Arc<TokenCache>, key: Key, now: Timestamp) -> bool {
        matches!(cache.find(key, "main", GITLAB, now), Found::Known(_))
    }

    #[test]
    fn keys_differ_by_all_that_matters() {
        let (one, other) = (cache(), cache());
        let base = one.key(&[0; 32], 0, "token");
        assert_eq!(base, one.key(&[0; 32], 0, "token"));
        for different in [
            one.key(&[1; 32], 0, "token"),
            one.key(&[0; 32], 1, "token"),
            one.key(&[0; 32], 0, "token2"),
            other.key(&[0; 32], 0, "token"),
        ] {
            assert_ne!(base, different);
        }
    }

    #[test]
    fn answers_last_as_long_as_they_may_and_no_longer() {
        let cache = cache();
        let (plain, short, bad, none) =
            (key(&cache, 1), key(&cache, 2), key(&cache, 3), key(&cache, 4));
        learn(&cache, plain, Ok(good(None)), LASTS);
        learn(&cache, short, Ok(good(Some(1010))), LASTS);
        learn(&cache, bad, Err(TokenTrouble::Foreign), LASTS);
        learn(&cache, none, Err(TokenTrouble::Foreign), None);
        assert!(is_known(&cache, plain, at(59)) && !is_known(&cache, plain, at(60)));
        assert!(is_known(&cache, short, at(9)) && !is_known(&cache, short, at(10)));
        assert!(is_known(&cache, bad, at(59)) && !is_known(&cache, bad, at(60)));
        assert!(!is_known(&cache, none, at(0)));
        assert!(!is_known(&cache, plain, Timestamp::from_unix(900)), "the clock was turned back");
    }

    #[test]
    fn a_bad_answer_replaces_a_good_one_and_the_other_way_round() {
        let cache = cache();
        let key = key(&cache, 1);
        learn(&cache, key, Ok(good(None)), LASTS);
        let Found::Mine(ticket, _) = cache.find(key, "main", GITLAB, at(61)) else {
            panic!("known")
        };
        ticket.land(Err(TokenTrouble::Foreign), at(61), LASTS);
        assert!(matches!(cache.find(key, "main", GITLAB, at(62)), Found::Known(Err(_))));
        let Found::Mine(ticket, _) = cache.find(key, "main", GITLAB, at(130)) else {
            panic!("known")
        };
        ticket.land(Ok(good(None)), at(130), LASTS);
        assert!(matches!(cache.find(key, "main", GITLAB, at(131)), Found::Known(Ok(_))));
    }

    #[tokio::test]
    async fn one_asks_and_all_hear() {
        let cache = cache();
        let key = key(&cache, 1);
        let Found::Mine(ticket, _) = cache.find(key, "main", GITLAB, at(0)) else {
            panic!("known")
        };
        let Found::Asked(mut waiting) = cache.find(key, "main", GITLAB, at(0)) else {
            panic!("asked twice")
        };
        ticket.land(Err(TokenTrouble::Foreign), at(0), None);
        assert!(waiting.wait_for(Option::is_some).await.is_ok());
        // A task that dies leaves nobody waiting, and the token to the next.
        let Found::Mine(ticket, mut waiting) = cache.find(key, "main", GITLAB, at(0)) else {
            panic!("known")
        };
        drop(ticket);
        assert!(waiting.wait_for(Option::is_some).await.is_err());
        assert!(matches!(cache.find(key, "main", GITLAB, at(0)), Found::Mine(..)));
    }

    #[test]
    fn strangers_are_turned_away_before_those_who_are_known() {
        let cache = cache();
        let known = key(&cache, 0);
        learn(&cache, known, Ok(good(None)), LASTS);
        let few = Source::GitLab { most: 5 };
        let mut tickets = Vec::new();
        for number in 1..=5 {
            match cache.find(key(&cache, number), "main", few, at(100)) {
                Found::Mine(ticket, _) => tickets.push(ticket),
                Found::Known(_) | Found::Asked(_) | Found::Full => panic!("{number}"),
            }
        }
        assert!(matches!(cache.find(key(&cache, 6), "main", few, at(100)), Found::Full));
        assert!(matches!(cache.find(key(&cache, 6), "other", few, at(100)), Found::Mine(..)));
        assert!(matches!(cache.find(known, "main", few, at(100)), Found::Mine(..)));
        tickets.pop();
        assert!(matches!(cache.find(key(&cache, 6), "main", few, at(100)), Found::Mine(..)));
    }

    #[test]
    fn signatures_wait_for_no_question_to_gitlab_nor_for_a_key() {
        let cache = cache();
        let fetched = Source::Signature { key_is_here: &|| false };
        let mut numbers = 0..;
        // One source after the other, each as much as it takes.
        let mut tickets = Vec::new();
        for (source, most) in [(GITLAB, 32), (fetched, 32), (SIGNED, 256 - 32)] {
            let mut find =
                || cache.find(key(&cache, numbers.next().unwrap()), "main", source, at(0));
            for count in 0..most {
                match find() {
                    Found::Mine(ticket, _) => tickets.push(ticket),
                    Found::Known(_) | Found::Asked(_) | Found::Full => panic!("{most} {count}"),
                }
            }
            assert!(matches!(find(), Found::Full), "{most}");
        }
        // Nor does GitLab's answer wait for them.
        tickets.remove(0);
        assert!(matches!(cache.find(key(&cache, 9999), "main", GITLAB, at(0)), Found::Mine(..)));
    }

    #[test]
    fn wrong_tokens_are_bounded_and_push_out_no_good_one() {
        let cache = cache();
        let known = key(&cache, 0);
        learn(&cache, known, Ok(good(None)), LASTS);
        for number in 1..40_000 {
            learn(&cache, key(&cache, number), Err(TokenTrouble::Foreign), LASTS);
        }
        assert!(is_known(&cache, known, at(1)));
        let state = cache.state();
        assert!(state.told.bad.young.len() + state.told.bad.old.len() <= 2 * BAD);
        assert!(state.asking.is_empty());
    }

    #[test]
    fn what_jobs_prove_pushes_out_nothing_that_gitlab_has_said() {
        let cache = cache();
        let (good_one, bad_one) = (key(&cache, 0), key(&cache, 1));
        learn(&cache, good_one, Ok(good(None)), LASTS);
        learn(&cache, bad_one, Err(TokenTrouble::Foreign), LASTS);
        for number in 2..40_000 {
            let verdict = match number % 4 {
                0 => Ok(good(None)),
                _ => Err(TokenTrouble::Foreign),
            };
            match cache.find(key(&cache, number), "main", SIGNED, at(0)) {
                Found::Mine(ticket, _) => ticket.land(verdict, at(0), LASTS),
                Found::Known(_) | Found::Asked(_) | Found::Full => panic!("it is known"),
            }
        }
        assert!(is_known(&cache, good_one, at(1)));
        assert!(is_known(&cache, bad_one, at(1)));
        let Found::Mine(ticket, _) = cache.find(good_one, "main", GITLAB, at(61)) else {
            panic!("too old")
        };
        assert!(!ticket.is_new());
        let state = cache.state();
        assert!(state.signed.good.young.len() + state.signed.good.old.len() <= 2 * GOOD);
    }
}
