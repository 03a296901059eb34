//! A session asks GitLab again: one flight per session at a time, in a task of its own on the background runtime.
//!
//! ```text
//! access token alive ──▶ identify ──ok──▶ refresh if it ends soon ──▶ Renewed
//!        │                  │ 401 ───────▶ refresh ──▶ identify ────▶ Renewed
//!        └── expired ──▶ refresh                │ 403: blocked … ───▶ Ended
//!                           │ invalid_grant      │ 401               no word: Unheard
//!                           └────────────────────┴──▶ the store has a newer copy: that one's turn, else Spent
//! ```
//!
//! GitLab is asked *before* a token is refreshed as long as the token lives, since a refresh for a blocked user answers 500 and uses the refresh token up, while the
//! question itself gets a clear 403. A refresh kills the old pair at once: the new pair is stored before anything else can fail, and a
//! request that goes away never cancels the task. Whether a session without a fresh word is still served is decided by its reader.

mod flights;

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

pub use self::flights::Flights;
use self::flights::{Waiting, is_fresh};
use crate::{
    clock::{Clock, Timestamp},
    gitlab::{IdentifyError, Provider, RefreshError, TokenSet},
    session::{Deadlines, Marks, Overlay, Session, Store, Tokens},
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
    /// What hooks have said.
    pub marks: Arc<Marks>,
    /// How long sessions last.
    pub deadlines: Deadlines,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// Tells when GitLab was asked.
    pub clock: Clock,
}

impl Refresher {
    /// Lets `session` ask `provider`, beside the request; joins a flight that is in the air or has just landed.
    pub fn begin(self: &Arc<Self>, session: &Arc<Session>, provider: &Arc<Provider>) -> Waiting {
        let marked = self.marks.learnt(session);
        let (waiting, ticket) =
            self.flights.join(session, marked, self.clock.now(), &self.deadlines);
        if let Some(mut ticket) = ticket {
            let (this, provider) = (self.clone(), provider.clone());
            self.background.spawn(async move {
                let outcome = match ticket.take_off().await {
                    Some(outcome) => outcome,
                    None => this.fly(&ticket.session, &provider).await,
                };
                ticket.land(outcome);
            });
        }
        waiting
    }

    /// Revokes the tokens of `session`, which has ended, at `provider`, beside everything else; whether that works matters to nobody but the log.
    pub fn revoke_tokens(self: &Arc<Self>, session: Arc<Session>, provider: &Arc<Provider>) {
        let (this, provider) = (self.clone(), provider.clone());
        self.background.spawn(async move {
            // A refresh under way would leave a new pair behind.
            let session = this.flights.newest(session, LONGEST).await;
            let tokens = &session.tokens;
            let token = tokens.refresh.as_ref().unwrap_or(&tokens.access);
            if let Err(error) = provider.revoke(token).await {
                tracing::warn!(
                    gitlab = provider.name(),
                    user = %session.identity,
                    error = causes(&error),
                    "the tokens of somebody who signed out could not be revoked at GitLab"
                );
            }
        });
    }

    async fn fly(&self, session: &Session, provider: &Provider) -> Outcome {
        let began = self.clock.now();
        let outcome = match self.ask(session.clone(), provider, began).await {
            Outcome::Spent(generation) => {
                self.read_again(session, generation, provider, began).await
            },
            outcome => outcome,
        };
        let result = match &outcome {
            Outcome::Renewed(_) => "renewed",
            Outcome::Ended => "ended",
            Outcome::Spent(_) => "spent",
            Outcome::Unheard => "unheard",
        };
        self.metrics.session_recheck(result);
        outcome
    }

    /// What the store says of a session whose tokens of `generation` are used up: somebody else may have renewed it meanwhile.
    async fn read_again(
        &self,
        session: &Session,
        generation: u32,
        provider: &Provider,
        now: Timestamp,
    ) -> Outcome {
        match self.store.get(&session.id, self.clock.now()).await {
            Some(Overlay::Revoked) => Outcome::Ended,
            Some(Overlay::Newer(newer)) if newer.generation > generation => {
                let is_fresh = is_fresh(&newer, now, &self.deadlines);
                match is_fresh && self.marks.learnt(&newer).is_none() {
                    true => Outcome::Renewed(newer),
                    false => self.ask(Session::clone(&newer), provider, now).await,
                }
            },
            Some(Overlay::Newer(_)) | None => Outcome::Spent(generation),
        }
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

/// What GitLab gave at the moment `now`, as a session keeps it.
pub(super) fn received(set: TokenSet, now: Timestamp) -> Tokens {
    Tokens {
        access: set.access,
        refresh: set.refresh,
        expires: now + set.expires_in,
        scope: set.scope.join(" "),
    }
}

/// No flight takes longer: two calls and a refresh, with their waits for a turn.
const LONGEST: Duration = Duration::from_mins(1);

/// How long before its end an access token is replaced.
const EARLY: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests;
