//! Who is asking: the token of a program, or else the session cookie of a browser, becomes an identity; the latter is renewed beside the request as
//! GitLab's word on it grows old.
//!
//! ```text
//! cookie ──▶ opened ──▶ newest copy (store) ──▶ deadlines ──▶ GitLab's word ──▶ Authenticated
//!   │none      │broken        │revoked             │over          │TooOld: wait a little
//!   └──────────┴──────────────┴────────────────────┴── nobody
//! ```
//!
//! No credential is no error, a broken one neither: both are nobody. A cookie that does not open is cleared; that of a session which has
//! ended is left to the next sign-in: an answer that is late would clear the cookie of the new session instead. The one refusal is a session on which GitLab has been silent for longer than
//! `grace`. Whether somebody may pass is `authorize`'s.

mod credential;
mod hand_over;
mod job;
mod landing;
mod presence;
mod refresh;
mod sign_in;
mod sign_ins;
mod sign_out;
mod token;
mod token_cache;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};

use self::refresh::Outcome;
pub use self::{
    credential::Takes,
    hand_over::Asked,
    landing::landing,
    presence::Presence,
    refresh::{Flights, Refresher},
    sign_in::{Failed, Landed, Start, Started},
    sign_ins::SignIns,
    sign_out::is_same_origin,
    token_cache::TokenCache,
};
use crate::{
    clock::Timestamp,
    gitlab::{Checked, Provider},
    identity::Identity,
    refusal::Refusal,
    session::{
        Activity, Attempts, Deadlines, Found, Freshness, Others, Overlay, Random, Reading, Session,
        SessionCodec, Site, Store, Tickets, Told,
    },
    target::Target,
    telemetry::{Metrics, causes},
};

/// Tells who is asking, and lets people sign in and out.
#[derive(Debug)]
pub struct Authenticator {
    /// GitLabs by the names of their tables.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Sessions to cookies and back.
    pub codec: SessionCodec,
    /// Cookies of sign-ins that have begun.
    pub attempts: Attempts,
    /// Sessions on their way to other hosts.
    pub tickets: Tickets,
    /// What outruns the cookies.
    pub store: Arc<Store>,
    /// What passes through tunnels of sessions.
    pub activity: Arc<Activity>,
    /// Sign-ins that end; shared by all gates of a process.
    pub sign_ins: Arc<SignIns>,
    /// Single flights to GitLab.
    pub refresher: Arc<Refresher>,
    /// How long sessions and GitLab's words last.
    pub deadlines: Deadlines,
    /// How long a request may wait for a word that is too old.
    pub recheck_timeout: Duration,
    /// Where new session ids come from.
    pub random: Random,
    /// What is known of tokens; shared by all gates of a process.
    pub tokens: Arc<TokenCache>,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// Where sign-ins and questions about tokens talk to GitLab, so that a browser that goes away cancels nothing.
    pub background: tokio::runtime::Handle,
}

/// Who is asking.
#[derive(Debug, Default)]
pub struct Authenticated {
    /// The session, unless nobody is signed in.
    pub session: Option<Arc<Session>>,
    /// How the browser's session cookie stands.
    pub cookie: CookieState,
    /// What the request's `Cookie` line holds beside the session.
    pub others: Others,
    /// What upstreams are told about the user, if it was put together before.
    pub told: Told,
    /// The token, if one came that counts; there is no session then.
    pub caller: Option<Box<Caller>>,
}

/// A caller without a browser.
#[derive(Debug)]
pub struct Caller {
    /// Whose token it is.
    pub checked: Arc<Checked>,
    /// The headers that it came in, which are for labgate alone.
    pub consumed: HeaderMap,
}

/// How a browser's session cookie stands to what is known of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieState {
    /// It says all of it, or there is none.
    #[default]
    Current,
    /// It does not open.
    Broken,
    /// Something newer is known.
    Behind,
    /// Alone it would soon be worth nothing: its tokens are spent, its key is old, or the session looks idle by it.
    Outdated,
}

impl Authenticated {
    /// Who it is.
    pub fn identity(&self) -> Option<&Identity> {
        let session = self.session.as_deref().map(|session| &session.identity);
        session.or_else(|| self.caller.as_ref().map(|caller| &caller.checked.identity))
    }
}

impl Authenticator {
    /// Who asks for `target` with these `headers`.
    ///
    /// # Errors
    /// [`Refusal::Unconfirmed`] when GitLab's last word on the user is too old and no new one can be had.
    pub async fn authenticate(
        &self,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Authenticated, Refusal> {
        let site = site(target);
        match self.codec.read(headers, site) {
            Reading::Nothing => Ok(Authenticated::default()),
            Reading::Broken => {
                Ok(Authenticated { cookie: CookieState::Broken, ..Authenticated::default() })
            },
            Reading::Session(Found { session, renew, others, told }) => {
                match self.current(session.clone(), renew, now).await? {
                    Some((current, behind)) => {
                        let same = Arc::ptr_eq(&current, &session);
                        let told = if same { told } else { Told::default() };
                        let cookie = match behind {
                            true if renew || self.outdates(&current, &session) => {
                                CookieState::Outdated
                            },
                            true => CookieState::Behind,
                            false => CookieState::Current,
                        };
                        let (session, caller) = (Some(current), None);
                        Ok(Authenticated { session, cookie, others, told, caller })
                    },
                    None => Ok(Authenticated::default()),
                }
            },
        }
    }

    /// The session as it stands now, and whether its cookie is behind.
    async fn current(
        &self,
        session: Arc<Session>,
        renew: bool,
        now: Timestamp,
    ) -> Result<Option<(Arc<Session>, bool)>, Refusal> {
        let is_stale = session.needs_touch(now, &self.deadlines);
        let standing = self.standing(session, renew, now, self.recheck_timeout).await?;
        let Some((mut session, mut renew)) = standing else { return Ok(None) };
        if is_stale {
            Arc::make_mut(&mut session).seen = now;
            renew = true;
        }
        self.activity.touch(&session.id, now);
        Ok(Some((session, renew)))
    }

    /// The newest copy of a session on which something depends that is no request, such as a tunnel; none if the session has ended. GitLab is asked
    /// like for a request, and never waited for: who looks again soon sees what it said. Until then the session goes on, beyond `grace` for as long as a
    /// request would wait.
    ///
    /// # Errors
    /// [`Refusal::Unconfirmed`] as for a request.
    pub async fn still(
        &self,
        session: Arc<Session>,
        now: Timestamp,
    ) -> Result<Option<Arc<Session>>, Refusal> {
        let standing = self.standing(session, false, now, Duration::ZERO).await?;
        Ok(standing.map(|(session, _)| session))
    }

    /// The newest copy of a session for which an application asks GitLab, with an access token that is good `now`; none if the session has ended. It is no
    /// activity of the user's.
    ///
    /// # Errors
    /// [`Refusal::Unconfirmed`] as for a request, and when a new token can't be had in time.
    pub async fn with_token(
        &self,
        session: Arc<Session>,
        now: Timestamp,
    ) -> Result<Option<Arc<Session>>, Refusal> {
        let standing = self.standing(session, false, now, self.recheck_timeout).await?;
        let Some((session, _)) = standing else { return Ok(None) };
        if now < session.tokens.expires {
            return Ok(Some(session));
        }
        let Some(provider) = self.providers.get(&session.identity.gitlab) else { return Ok(None) };
        let outcome = self.refresher.begin(&session, provider).outcome(TOKEN_PATIENCE).await;
        match outcome {
            Some(Outcome::Renewed(renewed)) if now < renewed.tokens.expires => Ok(Some(renewed)),
            Some(Outcome::Ended | Outcome::Late(_) | Outcome::Spent(_)) => Ok(None),
            Some(Outcome::Renewed(_) | Outcome::Unheard(_)) | None => {
                Err(Refusal::Unconfirmed { gitlab: provider.label().to_owned(), retry_after: SOON })
            },
        }
    }

    /// The session as it stands now, whoever asks; a word that is too old is waited for with `patience`. Without any, see [`Self::still`].
    async fn standing(
        &self,
        session: Arc<Session>,
        renew: bool,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Option<(Arc<Session>, bool)>, Refusal> {
        let known = self.store.get(&session, session.until(&self.deadlines), now).await;
        let elsewhere = self.activity.seen(&session.id).max(known.seen).unwrap_or_default();
        let seen = elsewhere.max(session.seen);
        let (mut session, mut renew) = match known.overlay {
            Some(Overlay::Revoked) => return Ok(None),
            Some(Overlay::Newer(newer)) if newer.generation > session.generation => (newer, true),
            Some(Overlay::Newer(_)) | None => (session, renew),
        };
        if session.seen < seen {
            Arc::make_mut(&mut session).seen = seen;
        }
        if session.is_over(now, &self.deadlines).is_some() {
            return Ok(None);
        }
        let Some(provider) = self.providers.get(&session.identity.gitlab) else { return Ok(None) };
        if provider.issuer() != session.identity.issuer {
            return Ok(None);
        }
        let before = session.generation;
        let Some(session) = self.confirmed(session, provider, now, patience).await? else {
            return Ok(None);
        };
        renew |= session.generation > before;
        Ok(Some((session, renew)))
    }

    /// The session with GitLab's word on it as fresh as it has to be; none if it has ended.
    async fn confirmed(
        &self,
        session: Arc<Session>,
        provider: &Arc<Provider>,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Option<Arc<Session>>, Refusal> {
        let mut freshness = session.freshness(now, &self.deadlines);
        if self.refresher.marks.learnt(&session).is_some() {
            freshness = freshness.max(Freshness::TooOld);
        }
        // What a rule asks for and the session does not say is unknown, not false: only a new word tells.
        let lacks = provider.lacks_facts(&session.identity, &session.tokens.scope);
        if lacks && matches!(freshness, Freshness::Good | Freshness::Due) {
            freshness = Freshness::TooOld;
        }
        if freshness == Freshness::Good && !session.is_token_due(now) {
            return Ok(Some(session));
        }
        let waiting = self.refresher.begin(&session, provider);
        let is_down = provider.is_down();
        let looks_again = patience.is_zero() && !is_down && waiting.age() < self.recheck_timeout;
        let outcome = match freshness {
            Freshness::Good | Freshness::Due => waiting.landed(),
            Freshness::TooOld | Freshness::PastGrace if is_down => waiting.landed(),
            Freshness::TooOld | Freshness::PastGrace => waiting.outcome(patience).await,
        };
        match (outcome, freshness) {
            (Some(Outcome::Renewed(renewed)), _) if renewed.generation > session.generation => {
                Ok(Some(renewed))
            },
            (Some(Outcome::Ended | Outcome::Late(_)), _) => Ok(None),
            (Some(Outcome::Spent(generation)), Freshness::TooOld | Freshness::PastGrace)
                if generation >= session.generation =>
            {
                Ok(None)
            },
            (None, Freshness::PastGrace) if looks_again => Ok(Some(session)),
            (outcome, Freshness::PastGrace) => Err(Refusal::Unconfirmed {
                gitlab: provider.label().to_owned(),
                // While GitLab is being asked, its word is a moment away.
                retry_after: if outcome.is_some() { COME_BACK } else { SOON },
            }),
            (_, Freshness::Good | Freshness::Due | Freshness::TooOld) => Ok(Some(session)),
        }
    }

    /// Whether a cookie with the copy `old` would soon be worth nothing without the store.
    fn outdates(&self, current: &Session, old: &Session) -> bool {
        let looks_idle = |idle: Duration| current.seen.since(old.seen) >= idle / 2;
        current.tokens.access != old.tokens.access || self.deadlines.idle.is_some_and(looks_idle)
    }

    /// The `Set-Cookie` value that renews or clears the cookie of `who`, if the browser's is not as it should be.
    pub fn set_cookie(
        &self,
        who: &Authenticated,
        target: &Target,
        now: Timestamp,
    ) -> Option<HeaderValue> {
        let site = site(target);
        match (who.cookie, &who.session) {
            (CookieState::Broken, _) => Some(self.codec.clear(site)),
            (CookieState::Behind | CookieState::Outdated, Some(session)) => {
                let packed = self.codec.pack(session, site, now).inspect_err(|error| {
                    let error = causes(error);
                    tracing::error!(error, "a session's cookie could not be renewed");
                });
                packed.ok().map(|packed| packed.cookie)
            },
            (CookieState::Current | CookieState::Behind | CookieState::Outdated, _) => None,
        }
    }
}

/// The browser's view of where `target` is.
fn site(target: &Target) -> Site<'_> {
    Site { host: &target.origin.host, secure: target.origin.is_secure() }
}

/// How long a call of an application waits for a new access token.
const TOKEN_PATIENCE: Duration = Duration::from_secs(10);

/// When to come back for an answer that is on its way.
const SOON: Duration = Duration::from_secs(2);

/// When to come back while GitLab is out of reach.
const COME_BACK: Duration = Duration::from_secs(10);
