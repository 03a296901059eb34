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
//! question itself gets a clear 403. Among replicas that share a store one flies at a time: a lease says whose turn it is, and the others take what it has
//! brought. A refresh kills the old pair at once: the new pair is stored before anything else can fail, and a
//! request that goes away never cancels the task. Whether a session without a fresh word is still served is decided by its reader.

mod flights;

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

pub use self::flights::Flights;
use self::flights::{Waiting, is_fresh};
use crate::{
    clock::{Clock, Timestamp},
    gitlab::{IdentifyError, Provider, RefreshError, TokenSet},
    session::{Deadlines, Marks, Overlay, Put, Session, Store, Tokens, Turn},
    telemetry::{Audit, AuditEvent, Metrics, causes},
};

/// What asking GitLab about a session came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// GitLab's word is fresh; the store has this session too.
    Renewed(Arc<Session>),
    /// GitLab says that the account may not be used; the store has revoked the session.
    Ended,
    /// The session ended while GitLab was asked: somebody signed out. This copy of it came too late, and its tokens live.
    Late(Arc<Session>),
    /// The tokens of this generation are used up: GitLab can't be asked with them any more.
    Spent(u32),
    /// GitLab gave no word: out of reach, overloaded, or making no sense. It may have said when to ask again.
    Unheard(Option<Duration>),
}

/// Whether a flight may spend the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refreshing {
    /// Nobody else does.
    Allowed,
    /// Somebody else might.
    Withheld,
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

    async fn fly(&self, session: &Arc<Session>, provider: &Provider) -> Outcome {
        let outcome = self.in_turn(session, provider).await;
        let result = match &outcome {
            Outcome::Renewed(_) => "renewed",
            Outcome::Ended | Outcome::Late(_) => "ended",
            Outcome::Spent(_) => "spent",
            Outcome::Unheard(_) => "unheard",
        };
        self.metrics.session_recheck(result);
        outcome
    }

    /// Asks GitLab when it is this replica's turn, or takes what another one has brought.
    async fn in_turn(&self, session: &Arc<Session>, provider: &Provider) -> Outcome {
        let patience = Instant::now() + TURN;
        while Instant::now() < patience {
            let now = self.clock.now();
            match self.store.turn(&session.id).await {
                Turn::Mine(lease) => {
                    let outcome = match self.newest(session, now).await {
                        Ok(newest) if self.is_good(&newest, session, now) => {
                            Outcome::Renewed(newest)
                        },
                        Ok(newest) => {
                            let outcome = self.ask_and_read_again(&newest, provider, now).await;
                            self.at_least(newest, outcome, session, now)
                        },
                        Err(outcome) => outcome,
                    };
                    lease.release().await;
                    return outcome;
                },
                Turn::Theirs => {
                    sleep(LOOK).await;
                    match self.newest(session, now).await {
                        Ok(newest) if self.is_good(&newest, session, now) => {
                            return Outcome::Renewed(newest);
                        },
                        Ok(_) => {},
                        Err(outcome) => return outcome,
                    }
                },
                Turn::Unknown => return self.alone(session, provider, now).await,
            }
        }
        Outcome::Unheard(None)
    }

    /// The newest copy of `session` that the store knows.
    async fn newest(
        &self,
        session: &Arc<Session>,
        now: Timestamp,
    ) -> Result<Arc<Session>, Outcome> {
        let known = self.store.get(session, session.until(&self.deadlines), now).await;
        match known.overlay {
            Some(Overlay::Revoked) => Err(Outcome::Ended),
            Some(Overlay::Newer(newer)) if newer.generation > session.generation => Ok(newer),
            Some(Overlay::Newer(_)) | None => Ok(session.clone()),
        }
    }

    /// `outcome`, unless another replica's good word on `newest` says more.
    fn at_least(
        &self,
        newest: Arc<Session>,
        outcome: Outcome,
        session: &Session,
        now: Timestamp,
    ) -> Outcome {
        let word =
            newest.generation > session.generation && is_fresh(&newest, now, &self.deadlines);
        match outcome {
            Outcome::Spent(_) | Outcome::Unheard(_) if word => Outcome::Renewed(newest),
            outcome => outcome,
        }
    }

    /// Whether `newest` is all that a flight for `session` could bring.
    fn is_good(&self, newest: &Session, session: &Session, now: Timestamp) -> bool {
        self.is_word(newest, session, now) && !newest.is_token_due(now)
    }

    /// Whether `newest` has a good word of GitLab's that `session` has not. When another replica asked is known by its date alone: if that is near a hook's,
    /// it may have been before.
    fn is_word(&self, newest: &Session, session: &Session, now: Timestamp) -> bool {
        newest.generation > session.generation
            && is_fresh(newest, now, &self.deadlines)
            && self.marks.learnt(newest).is_none()
    }

    /// Asks GitLab without knowing whether another replica does the same. A refresh token that both spend would cost the session, so none is, until
    /// GitLab's word is about to be too old altogether: then there is nothing left to lose.
    async fn alone(&self, session: &Arc<Session>, provider: &Provider, now: Timestamp) -> Outcome {
        let desperate = now.since(session.checked) > self.deadlines.grace / 2;
        let tokens = if desperate { Refreshing::Allowed } else { Refreshing::Withheld };
        match self.ask(Session::clone(session), provider, tokens, now).await {
            // The store may know better when it is back.
            Outcome::Spent(_) => Outcome::Unheard(None),
            outcome => outcome,
        }
    }

    async fn ask_and_read_again(
        &self,
        session: &Arc<Session>,
        provider: &Provider,
        now: Timestamp,
    ) -> Outcome {
        match self.ask(Session::clone(session), provider, Refreshing::Allowed, now).await {
            Outcome::Spent(generation) => self.read_again(session, generation, provider, now).await,
            outcome => outcome,
        }
    }

    /// What the store says of a session whose tokens of `generation` are used up: somebody else may have renewed it meanwhile.
    async fn read_again(
        &self,
        session: &Arc<Session>,
        generation: u32,
        provider: &Provider,
        now: Timestamp,
    ) -> Outcome {
        let until = session.until(&self.deadlines);
        let known = self.store.get(session, until, self.clock.now()).await;
        match known.overlay {
            Some(Overlay::Revoked) => Outcome::Ended,
            Some(Overlay::Newer(newer)) if newer.generation > generation => {
                let is_fresh = is_fresh(&newer, now, &self.deadlines);
                match is_fresh && self.marks.learnt(&newer).is_none() {
                    true => Outcome::Renewed(newer),
                    false => {
                        self.ask(Session::clone(&newer), provider, Refreshing::Allowed, now).await
                    },
                }
            },
            // Without the other replicas' word it is not said that nobody has newer tokens.
            Some(Overlay::Newer(_)) | None if !known.sure => Outcome::Unheard(None),
            Some(Overlay::Newer(_)) | None => Outcome::Spent(generation),
        }
    }

    async fn ask(
        &self,
        mut session: Session,
        provider: &Provider,
        refreshing: Refreshing,
        now: Timestamp,
    ) -> Outcome {
        let withheld = refreshing == Refreshing::Withheld;
        let mut refreshed = false;
        if session.tokens.expires <= now {
            if withheld {
                return Outcome::Unheard(None);
            }
            if let Err(outcome) = self.refresh(&mut session, provider, now).await {
                return outcome;
            }
            refreshed = true;
        }
        let mut answer = provider.identify(&session.tokens.access).await;
        // A token may die before its time: revoked, or replaced by a refresh whose answer was lost.
        if matches!(answer, Err(IdentifyError::TokenDead)) && !refreshed && !withheld {
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
        // In one write if nothing can be lost between.
        if refreshed || withheld || !session.is_token_due(now) {
            return self.keep(session).await;
        }
        let mut renewed = match self.keep(session).await {
            Outcome::Renewed(renewed) => Session::clone(&renewed),
            outcome => return outcome,
        };
        match self.refresh(&mut renewed, provider, now).await {
            Err(over @ (Outcome::Ended | Outcome::Late(_))) => over,
            // Without new tokens the word is fresh all the same; the next recheck tries again.
            Ok(()) | Err(_) => Outcome::Renewed(Arc::new(renewed)),
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
                // New tokens outrun words: a replica that asked alone for hours must not bring dead ones back.
                session.generation |= WORDS;
                self.metrics.session_refresh("refreshed");
                match self.keep(session.clone()).await {
                    Outcome::Renewed(kept) => {
                        *session = Session::clone(&kept);
                        Ok(())
                    },
                    outcome => Err(outcome),
                }
            },
            Err(RefreshError::InvalidGrant) => {
                Err(self.refreshed("spent", Outcome::Spent(session.generation)))
            },
            Err(error) => {
                let retry_after = match &error {
                    RefreshError::Unavailable { retry_after, .. } => *retry_after,
                    RefreshError::InvalidGrant
                    | RefreshError::InvalidClient
                    | RefreshError::Answer(_) => None,
                };
                tracing::warn!(
                    gitlab = provider.name(),
                    error = causes(&error),
                    "a session's tokens could not be refreshed"
                );
                Err(self.refreshed("failed", Outcome::Unheard(retry_after)))
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
                let retry_after = match error {
                    IdentifyError::Unavailable { retry_after, .. } => *retry_after,
                    _ => None,
                };
                tracing::warn!(
                    user = %session.identity,
                    error = causes(error),
                    "GitLab gave no word on a session"
                );
                Outcome::Unheard(retry_after)
            },
        }
    }

    /// Puts the next generation of `session` into the store.
    async fn keep(&self, mut session: Session) -> Outcome {
        session.generation += 1;
        let session = Arc::new(session);
        let until = session.until(&self.deadlines);
        match self.store.put(session.clone(), until, self.clock.now()).await {
            Put::Stored | Put::Older => Outcome::Renewed(session),
            Put::Revoked => Outcome::Late(session),
        }
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
        issued: now,
        expires: now + set.expires_in,
        scope: set.scope.join(" "),
    }
}

/// Generations that are words on the same tokens: new tokens begin the next 256.
const WORDS: u32 = 0xff;

/// How long a flight waits for its turn: as long as GitLab may take to answer another replica, and a turn to end whose owner has died.
const TURN: Duration = Duration::from_secs(30);

/// How soon a flight looks again whether another replica's has landed.
const LOOK: Duration = Duration::from_millis(50);
/// No flight takes longer: two calls and a refresh, with their waits for a turn.
const LONGEST: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
