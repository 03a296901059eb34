//! What happened to one request, gathered on the way and told once: an access line, metrics, and an audit line where trust was refused.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Version, header};

use super::permit::{Permit, Route};
use crate::{
    authenticate::Authenticated,
    body::{Request, Response},
    gitlab::Checked,
    identity::Identity,
    refusal::{Fault, Refusal},
    session::Session,
    target::Target,
    telemetry::{Access, Audit, AuditEvent, Decision, RequestId, RouteMetrics, causes},
};

/// What happened to one request so far.
#[derive(Debug)]
pub(super) struct Story<'g> {
    pub(super) request_id: RequestId,
    pub(super) route: Option<&'g Route>,
    pub(super) decision: Decision,
    pub(super) set_cookies: Vec<HeaderValue>,
    /// Where a sign-in that did not work out may begin again.
    pub(super) again: Option<String>,
    /// Whether only a page will do, whatever the caller says it accepts.
    pub(super) page: bool,
    session: Option<Arc<Session>>,
    caller: Option<Arc<Checked>>,
    cause: Option<&'static str>,
    rule: Option<String>,
    client: Option<IpAddr>,
    method: Method,
    version: Version,
    host: String,
    path: String,
    user_agent: Option<HeaderValue>,
}

impl<'g> Story<'g> {
    pub(super) fn begin(request_id: RequestId, request: &Request, target: Option<&Target>) -> Self {
        let wanted = Access::is_wanted();
        let path = target.filter(|_| wanted).map(Target::path);
        let host = target.filter(|_| wanted).map(|target| target.origin.host.as_str());
        Self {
            request_id,
            route: None,
            decision: Decision::Refused,
            set_cookies: Vec::new(),
            again: None,
            page: false,
            session: None,
            caller: None,
            cause: None,
            rule: None,
            client: target.map(|target| target.client),
            method: target.map_or_else(|| request.method(), |target| &target.method).clone(),
            version: request.version(),
            host: host.unwrap_or_default().into(),
            path: path.unwrap_or_default().into(),
            user_agent: request.headers().get(header::USER_AGENT).filter(|_| wanted).cloned(),
        }
    }

    /// Who asked for what, whatever comes of it.
    pub(super) fn who(&mut self, route: Option<&'g Route>, who: Authenticated) {
        self.route = route.or(self.route);
        self.session = who.session;
        self.caller = who.caller.map(|caller| caller.checked);
    }

    pub(super) fn permitted(&mut self, permit: &Permit<'g>) {
        let who = permit.who();
        self.route = Some(permit.route());
        self.session.clone_from(&who.session);
        self.caller = who.caller.as_ref().map(|caller| caller.checked.clone());
        self.decision = match permit.route().is_public() {
            true => Decision::Public,
            false => Decision::Allowed,
        };
    }

    /// Notes why, and logs the cause once, as loudly as its fault asks for.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.cause = Some(refusal.code());
        self.decision = match (refusal, refusal.fault()) {
            (Refusal::SignIn(_) | Refusal::Unsent(_) | Refusal::Renew(_), _) => Decision::SignIn,
            (_, Fault::Client) => Decision::Refused,
            (_, Fault::Provider | Fault::Upstream | Fault::Us) => Decision::Error,
        };
        let request_id = self.request_id.as_str();
        let code = refusal.code();
        let error = || refusal.cause().map(causes);
        match refusal.fault() {
            Fault::Client => tracing::debug!(request_id, cause = code, error = error(), "refused"),
            Fault::Provider | Fault::Upstream => {
                tracing::warn!(request_id, cause = code, error = error(), "not answered by others");
            },
            Fault::Us => tracing::error!(request_id, cause = code, error = error(), "not answered"),
        }
        if let Refusal::Forbidden(forbidden) = refusal {
            let rules: Vec<_> = forbidden.rules.iter().map(|rule| rule.needed.as_str()).collect();
            self.rule = Some(rules.join(" or "));
            self.audit(AuditEvent::Refusal, None);
        }
        if matches!(refusal, Refusal::Attempt(_)) {
            self.audit(AuditEvent::SignInFailed, None);
        }
    }

    /// Who asks.
    fn identity(&self) -> Option<&Identity> {
        let session = self.session.as_deref().map(|session| &session.identity);
        session.or_else(|| self.caller.as_deref().map(|caller| &caller.identity))
    }

    /// Writes an audit line about the user of `session`, or of this request.
    pub(super) fn audit(&self, event: AuditEvent, session: Option<&Session>) {
        let identity = session.map(|session| &session.identity).or_else(|| self.identity());
        let user = identity.map(ToString::to_string);
        Audit {
            event,
            request_id: Some(self.request_id.as_str()),
            client: self.client,
            user: user.as_deref(),
            gitlab: identity.map(|identity| identity.gitlab.as_str()),
            cause: self.cause,
            rule: self.rule.as_deref(),
        }
        .emit();
    }

    /// What a front proxy may log of it.
    pub(super) fn facts(&self) -> impl Iterator<Item = (&'static str, String)> {
        let user = self.identity().map(ToString::to_string);
        let facts = [
            ("request_id", Some(self.request_id.as_str().to_owned())),
            ("decision", Some(self.decision.as_str().to_owned())),
            ("cause", self.cause.map(str::to_owned)),
            ("route", self.route.map(|route| route.name.clone())),
            ("user", user),
        ];
        facts.into_iter().filter_map(|(name, fact)| Some((name, fact?)))
    }

    /// Name of the application that the route leads to.
    pub(super) fn upstream(&self) -> Option<&'g str> {
        Some(self.route?.upstream.as_ref()?.name())
    }

    /// Tells it all.
    pub(super) fn tell(&self, response: &Response, took: Duration, metrics: &RouteMetrics) {
        metrics.record(&self.method, response.status(), self.decision, took);
        if !Access::is_wanted() {
            return;
        }
        let user = self.identity().map(ToString::to_string);
        Access {
            request_id: self.request_id.as_str(),
            client: self.client,
            method: &self.method,
            version: self.version,
            host: &self.host,
            path: &self.path,
            status: response.status(),
            decision: self.decision,
            cause: self.cause,
            rule: self.rule.as_deref(),
            route: self.route.map(|route| route.name.as_str()),
            upstream: self.upstream(),
            user: user.as_deref(),
            duration: took,
            user_agent: self.user_agent.as_ref(),
        }
        .emit();
    }
}
