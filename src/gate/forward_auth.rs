//! The other door: a front proxy asks about a request that it has, and gets the verdict alone.
//!
//! ```text
//! /oauth2/auth/DIALECT ─▶ Target from the proxy's headers ─▶ admit, narrowed ─▶ 200 with the whole identity
//!                                                              └─ refusal ────▶ respond, in the proxy's dialect
//! ```
//!
//! The decision is [`Gate::admit`]'s, as for a request that is forwarded. What is new of a session stays in the store, for cookies get lost on an answer that lets pass;
//! a browser whose cookie would soon be worth nothing is sent to fetch the new one.

use http::{HeaderMap, Method, Request, Uri};

use super::{Gate, Permit, Route, encoded, narrowing, story::Story, tell::NARROW};
use crate::{
    authenticate::CookieState,
    body::Response,
    clock::Timestamp,
    config::Dialect,
    identity::NoRoom,
    refusal::{FrontTrouble, Refusal},
    respond,
    target::{Origin, Peer, RelayError, Target, Trust},
};

/// What a front proxy asks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    dialect: Dialect,
    /// Whether the answer is for the browser, as the proxy can't pass on what it got to the question itself.
    whole: bool,
    /// Whether a browser can be sent elsewhere by the answer.
    redirects: bool,
    /// The endpoint's query: further conditions. Envoy's belongs to what it asks about.
    query: Option<String>,
    /// What follows the endpoint's path, for Envoy.
    rest: String,
}

impl Question {
    /// The question that a request for `uri` is, if it is one.
    pub(super) fn of(uri: &Uri, prefix: &str) -> Option<Self> {
        let rest = uri.path().strip_prefix(prefix)?.strip_prefix("/auth")?;
        let query = uri.query().map(str::to_owned);
        let asked = |dialect, whole, redirects| {
            let (query, rest) = (query.clone(), String::new());
            Some(Self { dialect, whole, redirects, query, rest })
        };
        match rest {
            // Written for oauth2-proxy, where a browser is sent to one fixed address.
            "" => asked(Dialect::Nginx, false, false),
            "/nginx" => asked(Dialect::Nginx, false, true),
            "/nginx/answer" => asked(Dialect::Nginx, true, true),
            "/traefik" => asked(Dialect::Traefik, false, true),
            "/caddy" => asked(Dialect::Caddy, false, true),
            "/haproxy" => asked(Dialect::Haproxy, false, true),
            _ => {
                let path = rest.strip_prefix("/envoy").filter(|path| path.starts_with('/'))?;
                let rest = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
                let dialect = Dialect::Envoy;
                Some(Self { dialect, whole: false, redirects: true, query: None, rest })
            },
        }
    }

    /// What it is about.
    pub(super) fn target<B>(
        &self,
        request: &Request<B>,
        peer: &Peer,
        trust: &Trust,
        public: Option<&Origin>,
        methods_matter: bool,
    ) -> Result<Target, Refusal> {
        let (dialect, rest) = (self.dialect, &self.rest);
        let target = Target::relayed(request, peer, dialect, rest, trust, public, methods_matter);
        target.map_err(|error| match error {
            RelayError::Untrusted(peer) => {
                tracing::warn!(
                    %peer,
                    "a forward-auth question was refused: its peer is not in `server.trusted_proxies`"
                );
                FrontTrouble::Untrusted.into()
            },
            RelayError::Headers(problem) => {
                tracing::warn!(
                    peer = %peer.addr.ip(),
                    dialect = self.dialect.name(),
                    problem,
                    "a forward-auth question was refused: compare the proxy's configuration with `labgate front`"
                );
                FrontTrouble::Headers(problem).into()
            },
            RelayError::Malformed(reason) => Refusal::Malformed(reason),
        })
    }

    /// The dialect of a refusal; none if the browser reads it as it is.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        (!self.whole).then_some(self.dialect)
    }
}

impl Gate {
    /// Answers `question` about `target`, which came with these `headers`.
    pub(super) async fn check<'g>(
        &'g self,
        question: &Question,
        target: &Target,
        headers: &HeaderMap,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let now = self.shared.clock.now();
        let permit = self.admit_for_front(target, headers, now, story).await?;
        if let Some(query) = &question.query {
            if !narrowing::is_host(query, &target.origin.host) {
                let problem = "the host in the query is not the one that is asked about";
                return Err(FrontTrouble::Headers(problem).into());
            }
            let narrowed = self.narrowed(narrowing::of_query(query), &permit)?;
            narrowed.map_err(|reason| {
                self.refusal(target, headers, permit.route(), permit.who(), reason)
            })?;
        }
        self.keep(&permit, now);
        if question.redirects && self.should_renew(question, &permit, target, headers, now) {
            return Err(Refusal::Renew(self.renew_url(target, permit.route())));
        }
        if question.whole {
            return Err(FrontTrouble::Unused.into());
        }
        let passing = self.passing(&permit, target, now, NARROW)?;
        let who = permit.who();
        let is_new = who.told.get().is_none();
        let lasting = self.lasting(&permit);
        respond::allow(|answer| {
            let was_cut = self.headers.tell(lasting, &passing, answer)?;
            if was_cut && is_new {
                tracing::warn!(
                    user = who.identity().map(ToString::to_string),
                    "a list was cut short: front proxies have no room for it; narrow `identity.groups` to those that the application needs"
                );
            }
            Ok(())
        })
        .map_err(|error: NoRoom| Refusal::Internal(error.into()))
    }

    /// The decision on what a front proxy asks about; further conditions are to be judged yet.
    pub(super) async fn admit_for_front<'g>(
        &'g self,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
        story: &mut Story<'g>,
    ) -> Result<Permit<'g>, Refusal> {
        // A proxy that asks about labgate's own paths would let them reach an application.
        if target.touches(&self.prefix) {
            tracing::warn!(
                path = target.path(),
                "a forward-auth question about labgate's own path was refused: the proxy must send these paths to labgate, without asking"
            );
            return Err(FrontTrouble::OwnPath.into());
        }
        let permit = match self.admit(target, headers, now).await {
            Ok(permit) => permit,
            Err(refused) => {
                story.set_cookies.extend(self.authenticator.set_cookie(&refused.who, target, now));
                story.who(refused.route, refused.who);
                return Err(without_route(refused.refusal, target));
            },
        };
        story.permitted(&permit);
        Ok(permit)
    }

    /// Notes that the session was busy: no cookie will.
    pub(super) fn keep(&self, permit: &Permit<'_>, now: Timestamp) {
        if let (Some(session), Some(_)) = (&permit.who().session, self.authenticator.deadlines.idle)
        {
            self.authenticator.activity.note(session.id, now);
        }
    }

    /// Whether the browser should fetch a cookie first: it is a person who looks at a page, and not just sent to do so.
    fn should_renew(
        &self,
        question: &Question,
        permit: &Permit<'_>,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> bool {
        let renewals = &self.shared.renewals;
        let may = |id| match question.whole {
            // nginx was told so a moment ago, and asks what to tell the browser.
            true => renewals.may_tell(id, now),
            false => renewals.may(id, now),
        };
        let who = permit.who();
        who.cookie == CookieState::Outdated
            && target.method == Method::GET
            && respond::is_navigation(&target.method, headers)
            && who.session.as_ref().is_some_and(|session| may(session.id))
    }

    /// Where a browser that asks for `target` fetches its cookie.
    fn renew_url(&self, target: &Target, route: &Route) -> String {
        let home = self.home(target, Some(route));
        format!("{home}{}/renew?rd={}", self.prefix, encoded(&target.url()))
    }
}

/// Whoever asks about hosts and paths that labgate does not know is told that, not that there is nothing.
fn without_route(refusal: Refusal, target: &Target) -> Refusal {
    match refusal {
        Refusal::Misdirected | Refusal::NotFound => {
            tracing::warn!(
                host = target.origin.host,
                path = target.path(),
                "a forward-auth question was refused: no `[[route]]` serves this host and path"
            );
            FrontTrouble::NoRoute.into()
        },
        other => other,
    }
}
