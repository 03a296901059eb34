//! Tunnels end with their session: each is judged again and again as the request that opened it would be.
//!
//! ```text
//! every half second, each session with tunnels ─▶ still good? (store, deadlines, GitLab's word) ─▶ each tunnel: route, policy
//!                                                    └─ no: all of them are closed                    └─ no: it is closed
//! every ten seconds, each tunnel of a token ─▶ the token is shown again as with a request ─▶ the same owner may pass?
//!                                                                                                  └─ no: it is closed
//! ```
//!
//! So a sign-out, a revocation, a block, a lost membership, another configuration, the end of `lifetime`, idleness and a GitLab silent beyond `grace` all
//! close what they would refuse. A tunnel on a public route counts for the session too that its request came with: the application was told who that is.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::{Gate, Route, permit::NoPermit};
use crate::{
    authenticate::Authenticated,
    clock::Timestamp,
    forward::{Held, Leave, Shown},
    refusal::{Refusal, TokenTrouble},
    session::Session,
};

impl Gate {
    /// Closes all tunnels whose requests would be refused now.
    pub async fn review_tunnels(&self) {
        let now = self.shared.clock.now();
        if let Some(idle) = self.authenticator.deadlines.idle {
            self.authenticator.activity.forget(now - idle);
        }
        // Few at once: a store that is slow gets no more to do than it can.
        let sessions = stream::iter(self.shared.tunnels.held());
        sessions.for_each_concurrent(AT_ONCE, |tunnels| self.review(tunnels, now)).await;
    }

    /// Judges the tunnels of one session, or of one owner of tokens.
    async fn review(&self, tunnels: Vec<Arc<Held>>, now: Timestamp) {
        let mut copies = Vec::new();
        for tunnel in &tunnels {
            match tunnel.leave() {
                Leave::Session(session) => copies.push(session),
                Leave::Token(shown) => {
                    if let Some(cause) = self.denial(tunnel, &shown, now).await {
                        self.close(tunnel, cause);
                    }
                },
            }
        }
        let copies = copies.into_iter();
        let Some(newest) = copies.max_by_key(|session| session.generation) else { return };
        self.note_activity(&tunnels, &newest, now);
        // What takes too long is no verdict; the next look comes soon.
        let look = self.authenticator.still(newest, now);
        let Ok(standing) = timeout(PATIENCE, look).await else { return };
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

    fn close(&self, tunnel: &Held, cause: &'static str) {
        if tunnel.close() {
            self.shared.metrics.tunnel_closed(cause);
            let user = tunnel.leave().user();
            tracing::info!(user, cause, "a tunnel was closed: it would not be opened now");
        }
    }

    /// Why the token that opened `tunnel` would not open it now, if it would not. A GitLab that gives no word closes nothing before `grace`.
    async fn denial(&self, tunnel: &Held, shown: &Shown, now: Timestamp) -> Option<&'static str> {
        if now.since(shown.counted()) < AGAIN {
            return None;
        }
        let look = self.admit(tunnel.target(), &shown.headers, now);
        let Ok(admitted) = timeout(PATIENCE, look).await else { return None };
        let owner = &shown.caller.identity;
        match admitted {
            Ok(permit) if permit.who().identity().is_some_and(|who| who.is_same_person(owner)) => {
                shown.counts(now);
                None
            },
            Ok(_) => Some("forbidden"),
            Err(refused) => match refused.refusal {
                Refusal::Token(TokenTrouble::Unheard { .. } | TokenTrouble::Capped { .. })
                    if now.since(shown.counted()) < self.authenticator.deadlines.grace =>
                {
                    None
                },
                refusal => Some(refusal.code()),
            },
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

/// Sessions that are looked at at once.
const AT_ONCE: usize = 64;

/// How soon a token is shown again.
const AGAIN: Duration = Duration::from_secs(10);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);
