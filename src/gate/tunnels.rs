//! Tunnels end with their session: each is judged again and again as the request that opened it would be.
//!
//! ```text
//! every half second, each session with tunnels ─▶ still good? (store, deadlines, GitLab's word) ─▶ each tunnel: route, policy
//!                                                    └─ no: all of them are closed                    └─ no: it is closed
//! ```
//!
//! So a sign-out, a revocation, a block, a lost membership, another configuration, the end of `lifetime`, idleness and a GitLab silent beyond `grace` all
//! close what they would refuse. A tunnel on a public route counts for the session too that its request came with: the application was told who that is.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::{Gate, Route, permit::NoPermit};
use crate::{
    authenticate::Authenticated, clock::Timestamp, forward::Held, refusal::Refusal,
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

    /// Judges the tunnels of one session.
    async fn review(&self, tunnels: Vec<Arc<Held>>, now: Timestamp) {
        let copies = tunnels.iter().map(|tunnel| tunnel.session());
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
            if let Some(cause) = cause
                && tunnel.close()
            {
                self.shared.metrics.tunnel_closed(cause);
                let user = tunnel.session().identity.to_string();
                tracing::info!(user, cause, "a tunnel was closed: it would not be opened now");
            }
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

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);
