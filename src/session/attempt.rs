//! Sign-ins that have begun: each in its own sealed cookie, named after its state, for ten minutes, at most five at a time.
//!
//! ```text
//! name  = [__Secure-|__Host-]labgate-attempt-<12 signs of the state's hash>      Path = prefix or /; SameSite=Lax
//! bytes = version 2 | postcard of state, nonce, verifier, GitLab, return address, redirect URI, moment, reply, round
//! ```
//!
//! A hand-over from the host where everybody signs in is a sign-in too, of no GitLab: its state is the nonce that binds the ticket to this browser.
//!
//! Cookies of their own let several tabs sign in at once; the name of one says nothing of its state. What GitLab answers and whether the return
//! address may be followed is `authenticate`'s.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    cookie::{self, SessionCookie, SetCookie, Site},
    deadlines::SKEW,
    jar,
    random::Random,
    seal::{KeyRing, Purpose, SealError},
};
use crate::{clock::Timestamp, config::SameSite};

/// A sign-in that has begun.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The `state` parameter; 43 characters of base64url.
    pub state: String,
    /// The `nonce` that the ID token must carry; 43 characters of base64url.
    pub nonce: String,
    /// The PKCE verifier (RFC 7636); 43 characters of base64url.
    pub verifier: Zeroizing<String>,
    /// What it is for.
    pub wish: Wish,
    /// When it began.
    pub created: Timestamp,
}

/// What a sign-in is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The name of the `[gitlab.NAME]` table; empty for a hand-over.
    pub gitlab: String,
    /// Where to go afterwards; `/` instead of anything longer than 2 KiB.
    pub rd: String,
    /// The redirect URI as GitLab was told; the token request repeats it.
    pub redirect_uri: String,
    /// The nonce of the hand-over that another host waits for; empty if none does.
    pub reply: String,
    /// Which round this is of sign-ins that lead nowhere, from 1.
    pub round: u8,
}

/// Makes and takes the cookies of sign-ins.
#[derive(Clone, Debug)]
pub struct Attempts {
    cookie: SessionCookie,
    path: String,
    pub(super) keys: Arc<KeyRing>,
    pub(super) random: Random,
}

/// Why an answer from GitLab fits no sign-in of this browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// The browser sent no cookie for this state.
    #[error("no sign-in of this state has begun in this browser")]
    Unknown,
    /// There is a cookie, but none that labgate made for this state and host.
    #[error("the sign-in's cookie is not authentic")]
    NotAuthentic,
    /// It began more than ten minutes ago.
    #[error("the sign-in began too long ago")]
    Expired,
}

/// How long a sign-in may take.
const LIFETIME: Duration = Duration::from_mins(10);

/// How many sign-ins one browser may have open.
const MAX_OPEN: usize = 5;

/// How many cookies of sign-ins are looked at; the rest waits for the next sign-in, or ends by itself.
const MAX_LOOKED_AT: usize = 16;

const MAX_RD: usize = 2048;
const MAX_REDIRECT_URI: usize = 512;
const SUFFIX: usize = 12;
const VERSION: u8 = 2;

#[derive(Serialize, Deserialize)]
struct V2<'a> {
    #[serde(borrow)]
    state: &'a str,
    nonce: &'a str,
    verifier: &'a str,
    gitlab: &'a str,
    rd: &'a str,
    redirect_uri: &'a str,
    created: u64,
    reply: &'a str,
    round: u8,
}

impl Attempts {
    /// Attempts beside `cookie`, whose own cookies live under `path`: the prefix of labgate's endpoints; or `/`, where neighbouring hosts are not to
    /// be trusted with them.
    pub fn new(cookie: &SessionCookie, path: &str, keys: Arc<KeyRing>, random: Random) -> Self {
        Self { cookie: cookie.clone(), path: path.into(), keys, random }
    }

    /// Begins a sign-in; the `Set-Cookie` values keep it and evict those that are over or too many.
    ///
    /// # Errors
    /// When there is no randomness, or the redirect URI has more than 512 bytes.
    pub fn begin(
        &self,
        request: &HeaderMap,
        site: Site<'_>,
        mut wish: Wish,
        now: Timestamp,
    ) -> Result<(Attempt, Vec<HeaderValue>), SealError> {
        if wish.redirect_uri.len() > MAX_REDIRECT_URI {
            return Err(SealError::TooLong(wish.redirect_uri.len()));
        }
        if wish.rd.len() > MAX_RD {
            wish.rd = "/".into();
        }
        let attempt = Attempt {
            state: self.random.token()?,
            nonce: self.random.token()?,
            verifier: Zeroizing::new(self.random.token()?),
            wish,
            created: now,
        };
        let name = self.name(site, &attempt.state);
        let plain = attempt.encode();
        let keys = &self.keys;
        let text = keys.seal(Purpose::Attempt, &name, site.host, &plain, &self.random)?;
        let evicted = self.evicted(request, site, now);
        let evictions = evicted.iter().map(|name| self.set(site, name, None));
        let cookies = evictions.chain([self.set(site, &name, Some(&text))]);
        Ok((attempt, cookies.collect()))
    }

    /// Takes the sign-in of `state` out of a request's cookies, with the `Set-Cookie` that ends it.
    ///
    /// # Errors
    /// When none of this browser, host and state has begun within ten minutes.
    pub fn take(
        &self,
        request: &HeaderMap,
        site: Site<'_>,
        state: &str,
        now: Timestamp,
    ) -> Result<(Attempt, HeaderValue), AttemptError> {
        let name = self.name(site, state);
        let candidates = cookie::read(request, name.as_bytes());
        if !candidates.present {
            return Err(AttemptError::Unknown);
        }
        let mut error = AttemptError::NotAuthentic;
        for text in candidates.values {
            let attempt = self.open(&name, site, text);
            let is_it = |attempt: &Attempt| attempt.state.as_bytes().ct_eq(state.as_bytes()).into();
            match attempt.filter(is_it) {
                Some(attempt) if attempt.is_over(now) => error = AttemptError::Expired,
                Some(attempt) => return Ok((attempt, self.set(site, &name, None))),
                None => {},
            }
        }
        Err(error)
    }

    /// Whether a request brings any of these cookies.
    pub fn are_any(&self, request: &HeaderMap, site: Site<'_>) -> bool {
        let start = self.cookie_name(site, "");
        !jar::pairs(request, |name| name.starts_with(start.as_bytes())).is_empty()
    }

    /// The states of all sign-ins that this browser has open.
    pub fn open_states(&self, request: &HeaderMap, site: Site<'_>, now: Timestamp) -> Vec<String> {
        let start = self.cookie_name(site, "");
        let pairs = jar::pairs(request, |name| name.starts_with(start.as_bytes())).into_iter();
        let attempts = pairs.take(MAX_LOOKED_AT).filter_map(|pair| {
            let name = String::from_utf8_lossy(pair.name);
            let text = cookie::sealed_text(pair.value).filter(|_| pair.plain)?;
            self.open(&name, site, text).filter(|attempt| !attempt.is_over(now))
        });
        attempts.map(|attempt| attempt.state).collect()
    }

    /// Names of cookies that have to go, so that one more sign-in has room: those that don't open or are over, then the oldest.
    fn evicted(&self, request: &HeaderMap, site: Site<'_>, now: Timestamp) -> Vec<String> {
        let start = self.cookie_name(site, "");
        let is_attempt = |name: &[u8]| {
            let suffix = name.strip_prefix(start.as_bytes());
            suffix.is_some_and(|suffix| suffix.len() == SUFFIX && is_word(suffix))
        };
        let mut open: Vec<(Timestamp, String)> = Vec::new();
        let mut gone: Vec<String> = Vec::new();
        let pairs = jar::pairs(request, is_attempt).into_iter();
        for pair in pairs.take(MAX_LOOKED_AT) {
            let name = String::from_utf8_lossy(pair.name).into_owned();
            let text = cookie::sealed_text(pair.value).filter(|_| pair.plain);
            let attempt = text.and_then(|text| self.open(&name, site, text));
            match attempt.filter(|attempt| !attempt.is_over(now)) {
                Some(attempt) => open.push((attempt.created, name)),
                None => gone.push(name),
            }
        }
        // Stable: of one second, those that the browser got first are the oldest.
        open.sort_by_key(|(created, _)| *created);
        // Junk under the name of a good one must not take that along.
        gone.retain(|name| open.iter().all(|(_, other)| other != name));
        let surplus = open.len().saturating_sub(MAX_OPEN - 1);
        gone.extend(open.into_iter().take(surplus).map(|(_, name)| name));
        gone.sort();
        gone.dedup();
        gone
    }

    fn open(&self, name: &str, site: Site<'_>, text: &str) -> Option<Attempt> {
        let opened = self.keys.open(Purpose::Attempt, name, site.host, text);
        Attempt::decode(&opened.ok()?.bytes)
    }

    fn name(&self, site: Site<'_>, state: &str) -> String {
        let hash = Sha256::new().chain_update(b"labgate attempt").chain_update(state).finalize();
        let text = URL_SAFE_NO_PAD.encode(hash);
        let suffix: String = text.chars().take(SUFFIX).collect();
        self.cookie_name(site, &suffix)
    }

    pub(super) fn cookie_name(&self, site: Site<'_>, suffix: &str) -> String {
        self.cookie.attempt_name(site, &self.path, suffix)
    }

    fn set(&self, site: Site<'_>, name: &str, text: Option<&str>) -> HeaderValue {
        let max_age = text.map_or(Duration::ZERO, |_| LIFETIME);
        self.set_for(site, name, text.unwrap_or_default(), max_age)
    }

    pub(super) fn set_for(
        &self,
        site: Site<'_>,
        name: &str,
        value: &str,
        max_age: Duration,
    ) -> HeaderValue {
        let set = SetCookie {
            name,
            value,
            path: &self.path,
            domain: None,
            max_age,
            secure: site.secure,
            // Strict would lose the return from GitLab.
            same_site: SameSite::Lax,
        };
        set.header()
    }
}

impl Attempt {
    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.created) > LIFETIME || self.created.since(now) > SKEW
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let v2 = V2 {
            state: &self.state,
            nonce: &self.nonce,
            verifier: &self.verifier,
            gitlab: &self.wish.gitlab,
            rd: &self.wish.rd,
            redirect_uri: &self.wish.redirect_uri,
            created: self.created.unix(),
            reply: &self.wish.reply,
            round: self.wish.round,
        };
        let bytes = postcard::to_extend(&v2, vec![VERSION]);
        Zeroizing::new(bytes.expect("texts and numbers always encode"))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (v2, rest) = postcard::take_from_bytes::<V2<'_>>(rest).ok()?;
        rest.is_empty().then(|| Self {
            state: v2.state.into(),
            nonce: v2.nonce.into(),
            verifier: Zeroizing::new(v2.verifier.into()),
            wish: Wish {
                gitlab: v2.gitlab.into(),
                rd: v2.rd.into(),
                redirect_uri: v2.redirect_uri.into(),
                reply: v2.reply.into(),
                round: v2.round,
            },
            created: Timestamp::from_unix(v2.created),
        })
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Attempt")
            .field("gitlab", &self.wish.gitlab)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

fn is_word(text: &[u8]) -> bool {
    let is_sign = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.iter().all(is_sign)
}

#[cfg(test)]
mod tests;
