//! Routes and permits: the only code that can reach a route's upstream.
//!
//! `Permit` has private fields and one maker, [`Route::permit`], which runs the route's guard. A request that was not judged can't be forwarded: that would not compile.

use std::sync::Arc;

use tokio::time::Instant;

use super::{guard::Guard, plan::PlannedRoute};
use crate::{
    authenticate::{Authenticated, Takes},
    body::{Request, Response},
    forward::{Passage, Tunnels, Upstream},
    refusal::{Refusal, Unmet},
    telemetry::{RouteMetrics, UpstreamMetrics},
};

/// What one `[[route]]` leads to, and who may go there.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct Route {
    pub(super) name: String,
    pub(super) names_host: bool,
    pub(super) sign_in_page: bool,
    pub(super) hide_rules: bool,
    /// Whether access tokens are handed on.
    pub(super) access_token: bool,
    pub(super) gitlabs: Vec<String>,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) takes: Takes,
    guard: Guard,
    /// None where only front proxies ask.
    pub(super) upstream: Option<Arc<Upstream>>,
    upstream_metrics: Option<UpstreamMetrics>,
}

/// Proof that a route's policy was run and agreed.
#[derive(Debug)]
pub struct Permit<'g> {
    route: &'g Route,
    who: Authenticated,
}

/// Why there is no permit.
#[derive(Debug)]
pub(super) enum NoPermit {
    /// Nobody is signed in.
    SignIn,
    /// Somebody is, but may not pass.
    Forbidden(Vec<Unmet>),
}

impl Route {
    pub(super) fn new(
        planned: &PlannedRoute,
        upstream: Option<Arc<Upstream>>,
        metrics: Arc<RouteMetrics>,
        upstream_metrics: Option<UpstreamMetrics>,
    ) -> Self {
        Self {
            name: planned.name.clone(),
            names_host: planned.names_host,
            sign_in_page: planned.sign_in_page,
            hide_rules: planned.hide_rules,
            access_token: planned.access_token,
            gitlabs: planned.guard.gitlabs().to_vec(),
            metrics,
            takes: planned.takes.clone(),
            guard: planned.guard.clone(),
            upstream,
            upstream_metrics,
        }
    }

    /// Whether everybody may pass, signed in or not.
    pub(super) fn is_public(&self) -> bool {
        self.guard.is_public()
    }

    /// Whether a CI job could ever pass.
    pub(super) fn expects_jobs(&self) -> bool {
        self.guard.expects_jobs()
    }

    /// Whether users of the GitLab of this table name may sign in here.
    pub(super) fn admits(&self, gitlab: &str) -> bool {
        self.guard.admits(gitlab)
    }

    /// Runs the policy; gives `who` back if it says no.
    pub(super) fn permit(
        &self,
        mut who: Authenticated,
    ) -> Result<Permit<'_>, (NoPermit, Authenticated)> {
        match self.guard.judge(who.identity()).map(|heard| heard.is_some()) {
            Ok(heard) => {
                if !heard {
                    (who.session, who.caller) = (None, None);
                }
                Ok(Permit { route: self, who })
            },
            Err(reason) => Err((reason, who)),
        }
    }
}

impl<'g> Permit<'g> {
    /// Where it leads.
    pub fn route(&self) -> &'g Route {
        self.route
    }

    /// Who holds it; nobody on public routes, perhaps.
    pub fn who(&self) -> &Authenticated {
        &self.who
    }

    /// Hands `request` to the route's upstream.
    ///
    /// # Errors
    /// When there is none, it does not do its part, or tunnels have run out.
    pub async fn forward(
        self,
        request: &mut Request,
        passage: Passage,
        core: usize,
        tunnels: &Arc<Tunnels>,
    ) -> Result<Response, Refusal> {
        let upstream = self.route.upstream.as_ref().ok_or(Refusal::NotFound)?;
        let sent = Instant::now();
        let answered = upstream.send(request, passage, core, tunnels, sent).await;
        if let Some(metrics) = &self.route.upstream_metrics {
            metrics.answered(sent.elapsed());
        }
        answered
    }
}
