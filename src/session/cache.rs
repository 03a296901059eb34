//! Cookies that were opened lately, by the whole `Cookie` line: a busy browser's session is unsealed once and looked up from then on.
//!
//! What is remembered is what opening gives, no verdict: deadlines, revocations and GitLab's word are looked at for every request. Only lines with a session that opened
//! get in, each for one host and scheme, so a stranger can neither fill the cache nor be answered from it. It belongs to one ring of
//! keys and goes with it.
//!
//! Two generations bound it: when the young one is full it becomes the old one, and what is still asked for moves back.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use http::{HeaderName, HeaderValue};

use super::{
    Session,
    cookie::{Others, Site},
};

/// Headers that tell upstreams about the user of an opened session, once somebody has put them together.
pub type Told = Arc<OnceLock<Vec<(HeaderName, HeaderValue)>>>;

/// What a `Cookie` line holds.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) session: Arc<Session>,
    pub(super) renew: bool,
    pub(super) others: Others,
    pub(super) told: Told,
}

/// Opened cookies, in shards so that cores seldom meet.
pub(super) struct Cache {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
    /// Bytes of the lines in `young`.
    bytes: usize,
}

type Generation = HashMap<u64, Entry>;

struct Entry {
    line: HeaderValue,
    host: Box<str>,
    secure: bool,
    opened: Opened,
}

impl Cache {
    /// What `line` holds at `site`, if it was opened lately.
    pub(super) fn get(&self, line: &HeaderValue, site: Site<'_>) -> Option<Opened> {
        let hash = self.hash(line, site);
        let mut shard = self.shard(hash)?.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |entry: &&Entry| {
            entry.line == line && *entry.host == *site.host && entry.secure == site.secure
        };
        if let Some(entry) = shard.young.get(&hash).filter(is_it) {
            return Some(entry.opened.clone());
        }
        shard.old.get(&hash).filter(is_it)?;
        let entry = shard.old.remove(&hash)?;
        let opened = entry.opened.clone();
        shard.insert(hash, entry);
        Some(opened)
    }

    /// Remembers what `line` holds at `site`.
    pub(super) fn put(&self, line: &HeaderValue, site: Site<'_>, opened: Opened) {
        let hash = self.hash(line, site);
        let (host, secure) = (site.host.into(), site.secure);
        let entry = Entry { line: line.clone(), host, secure, opened };
        if let Some(shard) = self.shard(hash) {
            shard.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, entry);
        }
    }

    /// A sample of the line is enough to find it: sealed text differs everywhere. Lines that fall together only push each other out, for they are
    /// compared whole.
    fn hash(&self, line: &HeaderValue, site: Site<'_>) -> u64 {
        let line = line.as_bytes();
        let step = (line.len() / SAMPLES).max(SAMPLE);
        let mut samples = [0; SAMPLES * SAMPLE];
        for (place, chunk) in samples.chunks_exact_mut(SAMPLE).zip(line.chunks(step)) {
            // What is left at the end may be short: the last bytes of the line have it.
            let sample = chunk.first_chunk().or_else(|| line.last_chunk());
            if let (Some(place), Some(sample)) = (place.first_chunk_mut::<SAMPLE>(), sample) {
                *place = *sample;
            }
        }
        let mut hasher = self.hasher.build_hasher();
        // In one piece: each call costs more than its bytes do.
        hasher.write(&samples);
        (line.len(), site.host, site.secure).hash(&mut hasher);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> Option<&Mutex<Shard>> {
        let index = usize::try_from(hash % SHARDS as u64).ok()?;
        self.shards.get(index)
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Cache")
    }
}

impl Shard {
    fn insert(&mut self, hash: u64, entry: Entry) {
        self.bytes += entry.line.len() + OVERHEAD;
        self.young.insert(hash, entry);
        if self.bytes > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }
}

const SHARDS: usize = 16;

/// Pieces of a line that are hashed, and bytes of each.
const SAMPLES: usize = 8;
const SAMPLE: usize = 8;

/// Bytes of one generation of one shard; all of them together stay below 8 MiB.
const GENERATION: usize = 256 * 1024;

/// About what an entry takes beside its line: an opened session.
const OVERHEAD: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        identity::Identity,
        session::{Random, Tokens},
    };

    const SITE: Site<'_> = Site { host: "a.test", secure: true };

    fn opened(username: &str) -> Opened {
        let identity = Identity {
            gitlab: "main".into(),
            issuer: "https://gitlab.com".into(),
            sub: "1".into(),
            username: username.into(),
            name: String::new(),
            email: None,
            groups: Vec::new(),
            ..Identity::default()
        };
        let now = Timestamp::from_unix(1);
        let tokens = Tokens {
            access: String::new().into(),
            refresh: None,
            issued: now,
            expires: now,
            scope: String::new(),
        };
        let session = Session::start(identity, 0, tokens, now, &Random::system()).unwrap();
        Opened {
            session: Arc::new(session),
            renew: false,
            others: Others::None,
            told: Told::default(),
        }
    }

    fn line(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    fn username(cache: &Cache, text: &str, site: Site<'_>) -> Option<String> {
        Some(cache.get(&line(text), site)?.session.identity.username.clone())
    }

    #[test]
    fn only_the_very_same_line_at_the_very_same_site_is_known() {
        let cache = Cache::default();
        cache.put(&line("labgate=abc"), SITE, opened("alice"));
        assert_eq!(username(&cache, "labgate=abc", SITE).as_deref(), Some("alice"));
        for text in ["labgate=abd", "labgate=abc; a=b", "labgate=ab", "Labgate=abc"] {
            assert_eq!(username(&cache, text, SITE), None, "{text}");
        }
        for site in [Site { host: "b.test", ..SITE }, Site { secure: false, ..SITE }] {
            assert_eq!(username(&cache, "labgate=abc", site), None, "{site:?}");
        }
    }

    #[test]
    fn it_stays_small_and_keeps_what_is_asked_for() {
        let cache = Cache::default();
        cache.put(&line("labgate=busy"), SITE, opened("busy"));
        for number in 0..20_000 {
            cache.put(&line(&format!("labgate={number}")), SITE, opened("idle"));
            if number % 50 == 0 {
                assert!(username(&cache, "labgate=busy", SITE).is_some(), "lost at {number}");
            }
        }
        let entries = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        let entries: usize = cache.shards.iter().map(entries).sum();
        assert!(entries <= SHARDS * 2 * (GENERATION / OVERHEAD + 1), "{entries}");
    }
}
