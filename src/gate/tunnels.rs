//! Tunnels end with their session, or with the token that opened them: each is judged again and again as the request that opened it would be.
//!
//! ```text
//! every half second   each session with tunnels ─▶ still good? (store, deadlines, GitLab's word) ─▶ each tunnel: route, policy
//!                                                     └─ no: all of them are closed                    └─ no: it is closed
//! every ten seconds   each token with tunnels ─▶ it is shown again as with a request ─▶ the same owner may pass?
//!                                                     │                                    └─ no: the tunnel is closed
//!                                                     └─ no word in this round: asked again in the next one, closed after `grace`
//! ```
//!
//! So a sign-out, a revocation, a block, a lost membership, another configuration, the end of `lifetime`, idleness and a GitLab silent beyond `grace` all
//! close what they would refuse. A tunnel on a public route counts for the session too that its request came with: the application was told who that is.
//!
//! The two kinds have rounds of their own, and neither keeps the other. A look at a session asks GitLab, never waits for it, and takes what it said at the
//! next look; the store gives up by itself. A look at a token waits for GitLab, so some are shown at once to each GitLab, those first that have waited
//! longest since they were shown, and the round is over in time whatever is still unheard. What a question brings later is remembered for the next round.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Gate, Route, permit::NoPermit};
use crate::{
    authenticate::Authenticated,
    clock::Timestamp,
    forward::{Held, Leave, OfToken, Shown},
    refusal::{Refusal, TokenTrouble},
    session::Session,
};

/// What a token is worth that was shown again.
enum Word {
    /// It would open the tunnel.
    Good,
    /// It would not; why.
    Bad(&'static str),
    /// GitLab did not say.
    Unheard,
}

impl Gate {
    /// Closes all tunnels of sessions whose requests would be refused now.
    pub async fn review_sessions(&self) {
        let now = self.shared.clock.now();
        if let Some(idle) = self.authenticator.deadlines.idle {
            self.authenticator.activity.forget(now - idle);
        }
        let sessions = stream::iter(self.shared.tunnels.of_sessions());
        sessions
            .for_each_concurrent(SESSIONS_AT_ONCE, |tunnels| self.review_session(tunnels, now))
            .await;
    }

    /// Judges the tunnels of one session.
    async fn review_session(&self, tunnels: Vec<Arc<Held>>, now: Timestamp) {
        let copies = tunnels.iter().filter_map(|tunnel| match tunnel.leave() {
            Leave::Session(session) => Some(session),
            Leave::Token(_) => None,
        });
        let Some(newest) = copies.max_by_key(|session| session.generation) else { return };
        self.note_activity(&tunnels, &newest, now);
        // What takes too long is no verdict; the next look comes soon.
        let look = self.authenticator.still(newest, now);
        let Ok(standing) = timeout(LOOK, look).await else { return };
        for tunnel in tunnels {
            let cause = match &standing {
                Ok(Some(session)) => {
                    tunnel.renew(session);
                    self.objection(&tunnel, session)
                },
                Ok(None) => Some("session_over"),
                Err(refusal) => Some(refusal.code()),
            };
            if let Some(cause) = cause {
                self.close(&tunnel, cause);
            }
        }
    }

    /// Closes all tunnels that their tokens would not open now, as far as GitLab says so in time.
    pub async fn review_tokens(&self) {
        let now = self.shared.clock.now();
        let end = Instant::now() + ROUND;
        let is_due = |shown: &Shown| now.since(shown.counted()) >= AGAIN;
        let gitlabs = self.shared.tunnels.of_tokens(is_due).into_values();
        join_all(gitlabs.map(|tokens| self.review_tokens_of_one(tokens, end, now))).await;
    }

    /// Judges the tunnels of one GitLab's tokens.
    async fn review_tokens_of_one(&self, tokens: Vec<OfToken>, end: Instant, now: Timestamp) {
        let tokens = stream::iter(tokens);
        tokens.for_each_concurrent(TOKENS_AT_ONCE, |due| self.review_token(due, end, now)).await;
    }

    /// Judges the tunnels of one token. After the end of the round it is not shown any more.
    async fn review_token(&self, due: OfToken, end: Instant, now: Timestamp) {
        let mut until = end;
        for (tunnel, shown) in due {
            let word = match Instant::now() < end {
                true => {
                    shown.tries(now);
                    let look = self.shown_again(&tunnel, &shown, now);
                    timeout_at(until, look).await.unwrap_or(Word::Unheard)
                },
                false => Word::Unheard,
            };
            match word {
                Word::Good => shown.counts(now),
                Word::Bad(cause) => self.close(&tunnel, cause),
                Word::Unheard => {
                    // What GitLab does not say for one tunnel, the next need not wait for.
                    until = Instant::now();
                    if now.since(shown.counted()) >= self.authenticator.deadlines.grace {
                        self.close(&tunnel, "token_unconfirmed");
                    }
                },
            }
        }
    }

    /// What the token is worth for the request that opened `tunnel`.
    async fn shown_again(&self, tunnel: &Held, shown: &Shown, now: Timestamp) -> Word {
        let owner = &shown.caller.identity;
        match self.admit(tunnel.target(), &shown.headers, now).await {
            Ok(permit) if permit.who().identity().is_some_and(|who| who.is_same_person(owner)) => {
                Word::Good
            },
            Ok(_) => Word::Bad("forbidden"),
            Err(refused) => match refused.refusal {
                Refusal::Token(TokenTrouble::Unheard { .. } | TokenTrouble::Capped { .. }) => {
                    Word::Unheard
                },
                refusal => Word::Bad(refusal.code()),
            },
        }
    }

    fn close(&self, tunnel: &Held, cause: &'static str) {
        if tunnel.close() {
            self.shared.metrics.tunnel_closed(cause);
            let user = tunnel.leave().user();
            tracing::info!(user, cause, "a tunnel was closed: it would not be opened now");
        }
    }

    /// Bytes either way are as good as a request; being open is not.
    fn note_activity(&self, tunnels: &[Arc<Held>], session: &Session, now: Timestamp) {
        if self.authenticator.deadlines.idle.is_none() {
            return;
        }
        let moved = tunnels.iter().filter(|tunnel| tunnel.has_moved()).count() > 0;
        let at = if moved { now } else { session.seen };
        self.authenticator.activity.note(session.id, at);
    }

    /// Why the request that opened `tunnel` would be refused now, if it would.
    fn objection(&self, tunnel: &Held, session: &Arc<Session>) -> Option<&'static str> {
        let route = match self.routes.resolve(tunnel.target(), Route::is_public) {
            Ok(route) => route,
            Err(miss) => return Some(Refusal::from(miss).code()),
        };
        let who = Authenticated { session: Some(session.clone()), ..Authenticated::default() };
        match route.permit(who) {
            // Nobody is somebody else than who opened it.
            Ok(permit) => permit.who().session.is_none().then_some("forbidden"),
            Err((NoPermit::SignIn, _)) => Some("sign_in_required"),
            Err((NoPermit::Forbidden(_), _)) => Some("forbidden"),
        }
    }
}

/// Sessions that are looked at at once. A look costs one or two commands to a shared store, of a quarter of a second at most, so a thousand sessions are through in
/// a second though it be slow. All share one connection: many commands at once cost it no more than one after the other.
const SESSIONS_AT_ONCE: usize = 512;

/// How long a look at a session may take: longer than the store's own patience.
const LOOK: Duration = Duration::from_secs(1);

/// How soon a token is shown again.
const AGAIN: Duration = Duration::from_secs(10);

/// Tokens that are shown to one GitLab at once: twice as many as it is asked about at a time, and few of those that requests may have asked about.
const TOKENS_AT_ONCE: usize = 32;

/// How long a round of tokens may take.
const ROUND: Duration = Duration::from_secs(5);
