//! A session asks GitLab again: one flight per session at a time, in a task of its own on the background runtime.
//!
//! ```text
//! access token alive ──▶ identify ──ok──▶ refresh if it ends soon ──▶ Renewed
//!        │                  │ 401 ───────▶ refresh ──▶ identify ────▶ Renewed
//!        └── expired ──▶ refresh                │ 403: blocked … ───▶ Ended
//!                           │ invalid_grant ────┴──▶ Spent            no word: Unheard
//! ```
//!
//! GitLab is asked *before* a token is refreshed as long as the token lives, since a refresh for a blocked user answers 500 and uses the refresh token up, while the
//! question itself gets a clear 403. A refresh kills the old pair at once: the new pair is stored before anything else can fail, and a
//! request that goes away never cancels the task. Whether a session without a fresh word is still served is decided by its reader.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    clock::{Clock, Timestamp},
    gitlab::{IdentifyError, Provider, RefreshError, TokenSet},
    session::{Deadlines, Session, SessionId, Store, Tokens},
    telemetry::{Audit, AuditEvent, Metrics, causes},
};

/// What asking GitLab about a session came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// GitLab's word is fresh; the store has this session too.
    Renewed(Arc<Session>),
    /// GitLab says that the account may not be used; the store has revoked the session.
    Ended,
    /// The tokens of this generation are used up: GitLab can't be asked with them any more.
    Spent(u32),
    /// GitLab gave no word: out of reach, overloaded, or making no sense.
    Unheard,
}

/// Lets sessions ask GitLab, each of them once at a time.
#[derive(Debug)]
pub struct Refresher {
    /// Those under way; shared by all gates of a process, so that a reload doubles none.
    pub flights: Arc<Flights>,
    /// Where flights run.
    pub background: Handle,
    /// Gets what comes of them.
    pub store: Arc<Store>,
    /// How long sessions last.
    pub deadlines: Deadlines,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// Tells when GitLab was asked.
    pub clock: Clock,
}

/// The flights of a process, under way or just landed.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<SessionId, Flight>>);

#[derive(Clone, Debug)]
struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    begun: Instant,
}

impl Refresher {
    /// Lets `session` ask `provider`, beside the request; joins a flight that is in the air or has just landed.
    pub fn begin(self: &Arc<Self>, session: &Arc<Session>, provider: &Arc<Provider>) -> Waiting {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&session.id).filter(|flight| flight.serves(session)) {
            return Waiting(flight.outcome.clone());
        }
        sweep(&mut flights);
        let (landed, outcome) = watch::channel(None);
        let flight = Flight { outcome: outcome.clone(), begun: Instant::now() };
        flights.insert(session.id, flight);
        drop(flights);
        let (this, session, provider) = (self.clone(), session.clone(), provider.clone());
        self.background.spawn(async move {
            let outcome = this.fly(&session, &provider).await;
            landed.send_replace(Some(outcome));
        });
        Waiting(outcome)
    }

    async fn fly(&self, session: &Session, provider: &Provider) -> Outcome {
        let began = self.clock.now();
        let outcome = self.ask(session.clone(), provider, began).await;
        let result = match &outcome {
            Outcome::Renewed(_) => "renewed",
            Outcome::Ended => "ended",
            Outcome::Spent(_) => "spent",
            Outcome::Unheard => "unheard",
        };
        self.metrics.session_recheck(result);
        outcome
    }

    async fn ask(&self, mut session: Session, provider: &Provider, now: Timestamp) -> Outcome {
        let mut refreshed = false;
        if session.tokens.expires <= now {
            if let Err(outcome) = self.refresh(&mut session, provider, now).await {
                return outcome;
            }
            refreshed = true;
        }
        let mut answer = provider.identify(&session.tokens.access).await;
        // A token may die before its time: revoked, or replaced by a refresh whose answer was lost.
        if matches!(answer, Err(IdentifyError::TokenDead)) && !refreshed {
            if let Err(outcome) = self.refresh(&mut session, provider, now).await {
                return outcome;
            }
            refreshed = true;
            answer = provider.identify(&session.tokens.access).await;
        }
        match answer {
            Ok(identity) if identity.is_same_person(&session.identity) => {
                session.ruled_groups = provider.ruled_groups(&identity);
                session.identity = identity;
                session.checked = now;
            },
            Ok(_) => {
                tracing::error!(session.id = %session.id, "GitLab answered for another user; the session ends");
                return self.end(&session, "other_user").await;
            },
            Err(error) => return self.unanswered(&session, &error).await,
        }
        let renewed = self.keep(session).await;
        let ends_soon = renewed.tokens.expires <= now + EARLY;
        if refreshed || !ends_soon {
            return Outcome::Renewed(renewed);
        }
        let mut session = Session::clone(&renewed);
        match self.refresh(&mut session, provider, now).await {
            Ok(()) => Outcome::Renewed(self.keep(session).await),
            // The word is fresh all the same; the next recheck tries again.
            Err(_) => Outcome::Renewed(renewed),
        }
    }

    /// Trades the refresh token for a new pair, which is in the store before anything else happens.
    async fn refresh(
        &self,
        session: &mut Session,
        provider: &Provider,
        now: Timestamp,
    ) -> Result<(), Outcome> {
        let Some(refresh) = session.tokens.refresh.clone() else {
            return Err(self.refreshed("spent", Outcome::Spent(session.generation)));
        };
        match provider.refresh(&refresh).await {
            Ok(tokens) => {
                session.tokens = received(tokens, now);
                *session = Session::clone(&*self.keep(session.clone()).await);
                self.metrics.session_refresh("refreshed");
                Ok(())
            },
            Err(RefreshError::InvalidGrant) => {
                Err(self.refreshed("spent", Outcome::Spent(session.generation)))
            },
            Err(error) => {
                tracing::warn!(
                    gitlab = provider.name(),
                    error = causes(&error),
                    "a session's tokens could not be refreshed"
                );
                Err(self.refreshed("failed", Outcome::Unheard))
            },
        }
    }

    fn refreshed(&self, result: &'static str, outcome: Outcome) -> Outcome {
        self.metrics.session_refresh(result);
        outcome
    }

    async fn unanswered(&self, session: &Session, error: &IdentifyError) -> Outcome {
        match error {
            IdentifyError::Ended(_) => self.end(session, "account").await,
            IdentifyError::Scope(_) => self.end(session, "scope").await,
            IdentifyError::TokenDead => Outcome::Spent(session.generation),
            IdentifyError::Subject { .. } => self.end(session, "other_user").await,
            IdentifyError::Unavailable { .. } | IdentifyError::Answer(_) => {
                tracing::warn!(
                    user = %session.identity,
                    error = causes(error),
                    "GitLab gave no word on a session"
                );
                Outcome::Unheard
            },
        }
    }

    async fn keep(&self, mut session: Session) -> Arc<Session> {
        session.generation += 1;
        let session = Arc::new(session);
        let until = session.until(&self.deadlines);
        self.store.put(session.clone(), until, self.clock.now()).await;
        session
    }

    async fn end(&self, session: &Session, cause: &'static str) -> Outcome {
        let until = session.until(&self.deadlines);
        self.store.revoke(session.id, until, self.clock.now()).await;
        self.metrics.session_revoked(cause);
        let user = session.identity.to_string();
        Audit {
            event: AuditEvent::SessionEnded,
            request_id: None,
            client: None,
            user: Some(&user),
            gitlab: Some(&session.identity.gitlab),
            cause: Some(cause),
            rule: None,
        }
        .emit();
        Outcome::Ended
    }
}

impl Flight {
    /// Whether this flight answers for `session` too, instead of a new one.
    fn serves(&self, session: &Session) -> bool {
        let age = self.begun.elapsed();
        match &*self.outcome.borrow() {
            None => true,
            // Later the store alone counts: what it has lost must be asked for again.
            Some(Outcome::Renewed(new)) => age < REMEMBERED && new.generation > session.generation,
            Some(Outcome::Ended) => age < REMEMBERED,
            // An old copy of the cookie says nothing of newer tokens.
            Some(Outcome::Spent(generation)) => {
                age < REMEMBERED && *generation >= session.generation
            },
            Some(Outcome::Unheard) => age < RETRY,
        }
    }
}

/// A flight to wait for, or not.
#[derive(Debug)]
pub struct Waiting(watch::Receiver<Option<Outcome>>);

impl Waiting {
    /// What came of it, if it comes within `patience`.
    pub async fn outcome(mut self, patience: Duration) -> Option<Outcome> {
        let landed = timeout(patience, self.0.wait_for(Option::is_some)).await.ok()?;
        landed.ok()?.clone()
    }

    /// What came of it, if it has landed already.
    pub fn landed(&self) -> Option<Outcome> {
        self.0.borrow().clone()
    }
}

/// Forgets flights that nobody can profit from any more; runs when the map has grown by half since the last time.
fn sweep(flights: &mut HashMap<SessionId, Flight>) {
    if flights.len() == flights.capacity() {
        flights.retain(|_, flight| {
            flight.outcome.borrow().is_none() || flight.begun.elapsed() < REMEMBERED
        });
    }
}

/// What GitLab gave at the moment `now`, as a session keeps it.
pub(super) fn received(set: TokenSet, now: Timestamp) -> Tokens {
    Tokens {
        access: set.access,
        refresh: set.refresh,
        expires: now + set.expires_in,
        scope: set.scope.join(" "),
    }
}

/// How long before its end an access token is replaced.
const EARLY: Duration = Duration::from_mins(2);

/// How long late requests with an old cookie get what a flight brought.
const REMEMBERED: Duration = Duration::from_mins(1);

/// How soon GitLab is asked again about a session on which it gave no word.
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::{identity::Identity, session::Random};

    fn session(generation: u32) -> Arc<Session> {
        let identity = Identity {
            gitlab: "main".into(),
            issuer: "https://gitlab.example.com".into(),
            sub: "2".into(),
            username: "alice".into(),
            name: String::new(),
            email: None,
            groups: Vec::new(),
        };
        let now = Timestamp::from_unix(1_790_000_000);
        let tokens = Tokens {
            access: String::from("access").into(),
            refresh: None,
            expires: now,
            scope: String::new(),
        };
        let session = Session::start(identity, 0, tokens, now, &Random::system());
        Arc::new(Session { generation, ..session.expect("random numbers") })
    }

    /// Seconds for which a flight that landed with `outcome` answers for a session of generation 1.
    async fn serves_for(outcome: Option<Outcome>) -> u64 {
        let flight = Flight { outcome: watch::channel(outcome).1, begun: Instant::now() };
        let mut seconds = 0;
        while seconds < 3600 && flight.serves(&session(1)) {
            advance(Duration::from_secs(1)).await;
            seconds += 1;
        }
        seconds
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_flight_brought_is_remembered_for_a_while_and_never_for_good() {
        assert_eq!(serves_for(None).await, 3600, "it is under way");
        assert_eq!(serves_for(Some(Outcome::Renewed(session(2)))).await, 60);
        assert_eq!(serves_for(Some(Outcome::Renewed(session(1)))).await, 0, "nothing newer");
        assert_eq!(serves_for(Some(Outcome::Ended)).await, 60);
        assert_eq!(serves_for(Some(Outcome::Spent(1))).await, 60);
        assert_eq!(serves_for(Some(Outcome::Spent(0))).await, 0, "of an older copy");
        assert_eq!(serves_for(Some(Outcome::Unheard)).await, 5);
    }
}
