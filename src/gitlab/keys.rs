//! GitLab's public keys: fetched when an ID token needs one, kept for a day, fetched again for a key id that is not among them.
//!
//! Strangers choose key ids, so a new fetch happens once a minute at most, by one caller while the others wait for the same answer; a known key
//! never waits. Of the document only RSA keys for RS256 signatures are taken.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{CallError, Provider, jwt::Jwt, lane::Lane};

/// No key is believed for longer without a new fetch.
const LIFE: Duration = Duration::from_hours(24);
/// From this age on a fetch is tried beside the use.
const STALE: Duration = Duration::from_hours(12);
/// Between two fetches.
const THROTTLE: Duration = Duration::from_mins(1);
/// Between two fetches while there is no key at all.
const EMPTY: Duration = Duration::from_secs(2);
/// How long a sign-in waits for keys that are only a little old.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most bytes read of the document.
const DOCUMENT: usize = 256 << 10;
/// The most keys taken from it.
const KEYS: usize = 32;

/// The cached keys of one GitLab.
#[derive(Default)]
pub(super) struct Keys {
    known: ArcSwapOption<Set>,
    /// Held while a fetch runs.
    fetch: Mutex<Tried>,
}

/// When a fetch was last tried. The first keys don't count against a fetch for an unknown id: GitLab may rotate right after.
#[derive(Default)]
struct Tried {
    without: Option<Instant>,
    with: Option<Instant>,
}

struct Set {
    keys: Vec<(Option<String>, DecodingKey)>,
    since: Instant,
}

/// Why there is no key.
pub(super) enum KeyError {
    /// None of that id, by an answer young enough.
    Unknown,
    /// The keys can't be had.
    Unavailable(CallError),
    /// The document is no key set.
    Document,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Rsa {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: String,
    e: String,
}

impl Set {
    fn parse(body: &[u8], since: Instant) -> Result<Self, KeyError> {
        let document: Document = serde_json::from_slice(body).map_err(|_| KeyError::Document)?;
        let keys: Vec<_> = document.keys.into_iter().filter_map(rsa).take(KEYS).collect();
        if keys.is_empty() { Err(KeyError::Document) } else { Ok(Self { keys, since }) }
    }

    /// The keys that may have signed a token with this key id; without one, all.
    fn find(&self, kid: Option<&str>) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |own: &Option<String>| kid.is_none() || own.as_deref() == kid;
        self.keys.iter().filter(move |(own, _)| fits(own)).map(|(_, key)| key)
    }
}

/// Those of `set` that may have signed a token with this key id.
fn found(set: Option<&Set>, kid: Option<&str>) -> Vec<DecodingKey> {
    set.map(|set| set.find(kid).cloned().collect()).unwrap_or_default()
}

/// An RSA key for RS256 signatures; other kinds are none of ours, `oct` above all.
fn rsa(key: serde_json::Value) -> Option<(Option<String>, DecodingKey)> {
    let key: Rsa = serde_json::from_value(key).ok()?;
    let fits = key.kty == "RSA"
        && key.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && key.alg.as_deref().is_none_or(|alg| alg == "RS256");
    let parsed = DecodingKey::from_rsa_components(&key.n, &key.e).ok()?;
    fits.then_some((key.kid, parsed))
}

impl Provider {
    /// Whether the signature of `token` can be verified at once, with no key to be fetched first.
    pub fn has_key_for(&self, token: &str) -> bool {
        let Some(Ok(kid)) = Jwt::split(token).map(|jwt| jwt.key_id()) else {
            // No key is looked for.
            return true;
        };
        let known = self.keys.known.load();
        let young = known.as_ref().filter(|set| set.since.elapsed() < LIFE);
        young.is_some_and(|set| set.find(kid.as_deref()).next().is_some())
    }

    /// The keys that may have signed a token with key id `kid`, never empty.
    pub(super) async fn signing_keys(
        &self,
        kid: Option<&str>,
    ) -> Result<Vec<DecodingKey>, KeyError> {
        let known = self.keys.known.load_full().filter(|set| set.since.elapsed() < LIFE);
        let found = found(known.as_deref(), kid);
        let Some(set) = known.filter(|_| !found.is_empty()) else {
            return self.fetch_for(kid).await;
        };
        if set.since.elapsed() >= STALE {
            // Good enough if this fails; and whoever finds a fetch under way goes on.
            if let Ok(mut tried) = self.keys.fetch.try_lock() {
                let fresh = timeout(PATIENCE, self.fetch(&mut tried)).await;
                if let Ok(Ok(())) = fresh {
                    drop(tried);
                    return self.after_fetch(kid);
                }
            }
        }
        Ok(found)
    }

    /// Waits for a fetch, or for that of another caller.
    async fn fetch_for(&self, kid: Option<&str>) -> Result<Vec<DecodingKey>, KeyError> {
        let called = Instant::now();
        let mut tried = self.keys.fetch.lock().await;
        let known = self.keys.known.load().as_ref().map(|set| set.since);
        let fetched_meanwhile = known.is_some_and(|since| since >= called);
        if !fetched_meanwhile {
            self.fetch(&mut tried).await?;
        }
        drop(tried);
        self.after_fetch(kid)
    }

    fn after_fetch(&self, kid: Option<&str>) -> Result<Vec<DecodingKey>, KeyError> {
        let known = self.keys.known.load();
        let found = found(known.as_deref(), kid);
        if found.is_empty() { Err(KeyError::Unknown) } else { Ok(found) }
    }

    /// Fetches the keys unless that was tried just now.
    async fn fetch(&self, tried: &mut Tried) -> Result<(), KeyError> {
        let have = self.keys.known.load().as_ref().is_some_and(|set| set.since.elapsed() < LIFE);
        let (last, pause) =
            if have { (&mut tried.with, THROTTLE) } else { (&mut tried.without, EMPTY) };
        let wait = last.map_or(Duration::ZERO, |last| pause.saturating_sub(last.elapsed()));
        match (wait.is_zero(), have) {
            (true, _) => *last = Some(Instant::now()),
            (false, true) => return Err(KeyError::Unknown),
            (false, false) => return Err(KeyError::Unavailable(CallError::Down(wait))),
        }
        let answer =
            self.client.get(Lane::Public, "keys", "oauth/discovery/keys", None, DOCUMENT).await;
        let answer = answer.map_err(KeyError::Unavailable)?;
        match answer.status.as_u16() {
            200 => {
                let set = Set::parse(&answer.body, Instant::now())?;
                self.keys.known.store(Some(Arc::new(set)));
                Ok(())
            },
            status => Err(KeyError::Unavailable(CallError::Status(status, None))),
        }
    }
}
