//! The one place that knows the order of the verbs.
//!
//! ```text
//! request ─▶ target ─▶ ours? ─▶ endpoints
//!               └────▶ admit: route ─▶ authenticate ─▶ authorize ─▶ permit ─▶ forward ─▶ finish
//!                        └──────────┴── refusal ────────┴────────────────────▶ respond ─▶ finish
//! ```
//!
//! A `Gate` is immutable and holds all that a configuration says; a reload builds another one beside it.

mod build;
mod endpoints;
mod explain;
mod ext_authz;
mod forbidden;
mod forward_auth;
mod guard;
mod hand_over;
mod hooks;
mod lost;
mod narrowing;
mod pace;
mod permit;
mod plan;
mod ready;
mod relay;
mod renewals;
mod story;
mod tell;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;

pub use self::{
    build::{BuildError, Shared},
    explain::{Ending, ExplainError, Explained, Explanation},
    permit::{Permit, Route},
    plan::{Env, Plan},
};
use self::{
    forward_auth::Question, hooks::HookSecret, permit::NoPermit, relay::Relay, story::Story,
    tell::Asserting,
};
use crate::{
    authenticate::{Authenticated, Authenticator},
    authorize::UsersFiles,
    body::{Request, Response},
    clock::Timestamp,
    config::{Dialect, HostAndPort},
    forward::{self, Passage},
    gitlab::Provider,
    identity::HeaderTable,
    refusal::{Refusal, SignIn, Unmet},
    respond::{self, Voice},
    route::RouteTable,
    session::{Session, SessionCookie},
    target::{Origin, Peer, Target, Trust},
    telemetry::{Decision, RequestId, RouteMetrics},
};

/// Everything that one request needs.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    routes: RouteTable<Route>,
    authenticator: Authenticator,
    headers: HeaderTable,
    /// Who signs assertions, if anybody does.
    asserting: Option<Asserting>,
    cookie: SessionCookie,
    public: Option<Origin>,
    trust: Trust,
    prefix: String,
    /// Where everybody signs in, if that is one host for all.
    sign_in_host: Option<HostAndPort>,
    /// The secrets of those GitLabs that may send hooks.
    hooks: BTreeMap<String, HookSecret>,
    own: Arc<RouteMetrics>,
    none: Arc<RouteMetrics>,
    users: UsersFiles,
    /// GitLabs whose API applications may call, and how.
    apis: BTreeMap<String, Relay>,
    relayed: Arc<RouteMetrics>,
    /// GitLabs that may be development ones.
    development: BTreeSet<String>,
    /// Whether others than this machine can connect.
    exposed: bool,
}

/// A refusal together with what was known when it came.
#[derive(Debug)]
pub struct Refused<'g> {
    /// Why.
    pub refusal: Refusal,
    /// The route that was asked for, if there is one.
    pub route: Option<&'g Route>,
    /// Who asked.
    pub who: Authenticated,
}

impl Gate {
    /// Answers one request.
    pub async fn handle(&self, request: &mut Request, peer: Peer) -> Response {
        let began = Instant::now();
        let question = Question::of(request.uri(), &self.prefix);
        let (trust, public) = (&self.trust, self.public.as_ref());
        let target = match &question {
            None => Target::read(request, &peer, trust, public).map_err(Refusal::Malformed),
            Some(question) => {
                let methods_matter = self.routes.looks_at_methods();
                question.target(request, &peer, trust, public, methods_matter)
            },
        };
        let known = target.as_ref().ok();
        let mut story = Story::begin(self.request_id(known, request), request, known);
        let html = respond::prefers_html(request.headers());
        let answer = match (target, &question) {
            (Ok(target), None) => self.answer(&target, request, peer, &mut story).await,
            (Ok(target), Some(question)) => {
                self.check(question, &target, request.headers(), &mut story).await
            },
            (Err(refusal), _) => Err(refusal),
        };
        let mut response = answer.unwrap_or_else(|refusal| {
            let front = question.as_ref().and_then(Question::dialect);
            self.refuse(&refusal, html, front, &mut story)
        });
        finish(&mut response, &mut story);
        self.record(&story, &response, began);
        response
    }

    /// Reads files that the configuration names and that may change by themselves; blocks, so call it beside the requests.
    pub fn refresh_files(&self) {
        self.users.refresh();
    }

    /// The GitLabs that people may sign in with.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.authenticator.providers.values()
    }

    /// What is wrong, if a GitLab has turned out to be the development one, which asks for no password, strangers can reach labgate, and the
    /// configuration does not say that this is meant.
    pub fn playground(&self) -> Option<String> {
        let found = self.providers().filter(|_| self.exposed).find(|provider| {
            provider.is_development() && !self.development.contains(provider.name())
        })?;
        let name = found.name();
        Some(format!(
            "gitlab.{name} is labgate's development GitLab, where anybody is whoever they say; \
             listen on loopback, or set `gitlab.{name}.insecure_allow_development_gitlab = true`"
        ))
    }

    /// The answer that says `refusal`, to somebody who prefers a page or not; a front proxy passes it on, perhaps.
    fn refuse(
        &self,
        refusal: &Refusal,
        html: bool,
        front: Option<Dialect>,
        story: &mut Story<'_>,
    ) -> Response {
        story.refused(refusal);
        if let Refusal::Exhausted(limit) = refusal {
            self.shared.metrics.limit_reached(limit);
        }
        let again = story.again.take();
        let voice = Voice {
            html: html || story.page,
            request_id: story.request_id.as_str(),
            prefix: &self.prefix,
            again: again.as_deref(),
            front,
        };
        respond::refuse(refusal, &voice)
    }

    /// Tells the log and the metrics.
    fn record(&self, story: &Story<'_>, response: &Response, began: Instant) {
        let metrics = match (story.decision, story.route) {
            (_, Some(route)) => &route.metrics,
            (Decision::Own, None) => &self.own,
            (_, None) => &self.none,
        };
        story.tell(response, began.elapsed(), metrics);
    }

    async fn answer<'g>(
        &'g self,
        target: &Target,
        request: &mut Request,
        peer: Peer,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let now = self.shared.clock.now();
        if let Some(path) = target.below(&self.prefix) {
            story.decision = Decision::Own;
            return self.endpoint(path, target, request, now, story).await;
        }
        // Whatever an upstream may take for one of ours would look like ours to the browser.
        if target.touches(&self.prefix) {
            return Err(Refusal::Malformed("the path can be read as one of labgate's own"));
        }
        let permit = match self.admit(target, request.headers(), now).await {
            Ok(permit) => permit,
            Err(refused) => {
                story.set_cookies.extend(self.authenticator.set_cookie(&refused.who, target, now));
                story.who(refused.route, refused.who);
                return Err(refused.refusal);
            },
        };
        story.permitted(&permit);
        story.set_cookies.extend(self.authenticator.set_cookie(permit.who(), target, now));
        let passage = self.outgoing(target, request, peer, &permit, now, story)?;
        let tunnels = &self.shared.tunnels;
        let passage = passage.held_by(|| self.holder(permit.who(), target, now));
        let renewed = permit.who().session.clone().filter(|_| !story.set_cookies.is_empty());
        let mut response = permit.forward(request, passage, peer.core, tunnels).await?;
        // Meanwhile the browser may have signed in anew: a late cookie must not take that session's place.
        if let Some(session) = renewed
            && self.authenticator.is_revoked(&session, self.shared.clock.now()).await
        {
            story.set_cookies.clear();
        }
        if !story.set_cookies.is_empty() {
            keep_private(response.headers_mut());
        }
        let dropped = self.cookie.drop_hostile_set_cookies(response.headers_mut());
        if dropped > 0 {
            tracing::warn!(
                request_id = story.request_id.as_str(),
                upstream = story.upstream(),
                cookies = dropped,
                "the application tried to set cookies of labgate's own; they were dropped"
            );
        }
        Ok(response)
    }

    /// By whose leave a tunnel to `target` is opened, if by anybody's.
    fn holder(
        &self,
        who: &Authenticated,
        target: &Target,
        now: Timestamp,
    ) -> Option<forward::Holder> {
        let leave = match (&who.session, &who.caller) {
            (Some(session), _) => {
                // From now on requests of this session are activity for its tunnels.
                self.authenticator.activity.note(session.id, now);
                forward::Leave::Session(session.clone())
            },
            (None, Some(caller)) => {
                let (caller, headers) = (caller.checked.clone(), caller.consumed.clone());
                let shown = forward::Shown::new(caller, headers, now);
                forward::Leave::Token(Arc::new(shown))
            },
            (None, None) => return None,
        };
        Some(forward::Holder { leave, target: target.clone() })
    }

    /// Whether a request for `target` with these `headers` may pass: the one decision, whoever asks for it.
    ///
    /// # Errors
    /// Why not, and what was known then.
    pub async fn admit(
        &self,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Permit<'_>, Refused<'_>> {
        let route = self.routes.resolve(target, Route::is_public).map_err(|miss| Refused {
            refusal: miss.into(),
            route: None,
            who: Authenticated::default(),
        })?;
        let who = match self.authenticator.recognise(target, headers, &route.takes, now).await {
            Ok(who) => who,
            // But a token that a public route asks for must count.
            Err(refusal) if route.is_public() && !matches!(refusal, Refusal::Token(_)) => {
                Authenticated::default()
            },
            Err(refusal) => {
                let who = Authenticated::default();
                return Err(Refused { refusal, route: Some(route), who });
            },
        };
        route.permit(who).map_err(|(reason, who)| {
            let refusal = self.refusal(target, headers, route, &who, reason);
            Refused { refusal, route: Some(route), who }
        })
    }

    /// Why `who` does not pass, for them to read.
    fn refusal(
        &self,
        target: &Target,
        headers: &HeaderMap,
        route: &Route,
        who: &Authenticated,
        reason: NoPermit,
    ) -> Refusal {
        match reason {
            NoPermit::SignIn if respond::is_form(&target.method, headers) => {
                Refusal::Unsent(SignIn {
                    url: self.signed_in_url(target),
                    navigation: false,
                    basic: false,
                })
            },
            NoPermit::SignIn => Refusal::SignIn(SignIn {
                url: self.sign_in_url(target, Some(route)),
                navigation: respond::is_navigation(&target.method, headers),
                // A browser would ask for a password, and that of GitLab might be typed.
                basic: route.takes.basic
                    && route.takes.any()
                    && !headers.contains_key("sec-fetch-mode"),
            }),
            // Not false, only not said: whoever asks again in a moment gets an answer.
            NoPermit::Forbidden(rules) if self.is_unsaid(who, &rules) => {
                Refusal::Unconfirmed { gitlab: self.label_of(who), retry_after: SOON }
            },
            NoPermit::Forbidden(rules) => {
                Refusal::Forbidden(Box::new(self.forbidden(target, route, who, rules)))
            },
        }
    }

    /// Whether a rule may yet hold, as GitLab has not been heard on all that it asks for though it would tell.
    fn is_unsaid(&self, who: &Authenticated, rules: &[Unmet]) -> bool {
        let lacks = |session: &Arc<Session>| {
            let provider = self.authenticator.providers.get(&session.identity.gitlab);
            provider.is_some_and(|provider| {
                provider.lacks_facts(&session.identity, &session.tokens.scope)
            })
        };
        rules.iter().any(|rule| rule.unknown) && who.session.as_ref().is_some_and(lacks)
    }

    /// Makes `request` the one that the upstream gets: what only labgate may say is stripped, hop-by-hop fields and whatever `Connection` names go, then labgate's own are set.
    fn outgoing(
        &self,
        target: &Target,
        request: &mut Request,
        peer: Peer,
        permit: &Permit<'_>,
        now: Timestamp,
        story: &Story<'_>,
    ) -> Result<Passage, Refusal> {
        let caller = forward::Caller {
            peer: peer.addr.ip(),
            client: target.client,
            trusted: target.trusted,
            scheme: target.origin.scheme.as_str(),
            host: &target.origin.host,
            port: target.origin.port_or_default(),
            relayed: target.relayed,
        };
        let headers = request.headers_mut();
        self.clean(headers, permit);
        let passage = forward::prepare(request, &caller)?;
        let headers = request.headers_mut();
        self.tell(permit, target, now, headers)?;
        headers.insert(REQUEST_ID, story.request_id.to_header());
        Ok(passage)
    }

    /// Removes from a request what only labgate may say, and what is for labgate alone.
    fn clean(&self, headers: &mut HeaderMap, permit: &Permit<'_>) {
        let consumed = permit.who().caller.iter().flat_map(|caller| caller.consumed.keys());
        consumed.for_each(|name| drop(headers.remove(name)));
        self.headers.strip(headers);
        self.cookie.strip(headers, &permit.who().others);
    }

    fn request_id(&self, target: Option<&Target>, request: &Request) -> RequestId {
        let believed = target.is_some_and(|target| target.trusted);
        let given = request.headers().get(REQUEST_ID).filter(|_| believed);
        let given = given.and_then(RequestId::given);
        given.unwrap_or_else(|| self.shared.request_ids.next())
    }

    /// The origin on which a sign-in for `target` takes place: its own if routes name its host, else the public one.
    fn home(&self, target: &Target, route: Option<&Route>) -> Origin {
        if let Some(hub) = self.sign_in_origin(target).filter(|it| it.host == target.origin.host) {
            return hub;
        }
        let own = match route {
            Some(route) => route.names_host,
            None => self.routes.names_host(&target.origin.host),
        };
        match &self.public {
            Some(public) if !own || public.host == target.origin.host => public.clone(),
            Some(_) | None => target.origin.clone(),
        }
    }

    fn sign_in_url(&self, target: &Target, route: Option<&Route>) -> String {
        let home = self.home(target, route);
        // A path of two slashes alone would read as another host.
        let rd = match home == target.origin && !target.path_and_query().starts_with("//") {
            true => target.path_and_query().to_owned(),
            false => target.url(),
        };
        format!("{home}{}/sign_in?rd={}", self.prefix, encoded(&rd))
    }
}

/// `X-Request-Id` and the cookies that came up on the way.
fn finish(response: &mut Response, story: &mut Story<'_>) {
    let headers = response.headers_mut();
    for cookie in story.set_cookies.drain(..) {
        headers.append(header::SET_COOKIE, cookie);
    }
    let id: HeaderValue = story.request_id.to_header();
    headers.insert(REQUEST_ID, id);
}

/// A response that renews a session must not be kept by a cache that others are answered from (RFC 9111, 3.5).
fn keep_private(headers: &mut HeaderMap) {
    let said = headers.get_all(header::CACHE_CONTROL).iter();
    let said = said.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let shared = |directive: &&str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        !["public", "private", "s-maxage"].iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    let kept = said.map(str::trim).filter(|directive| !directive.is_empty()).filter(shared);
    let all: Vec<_> = std::iter::once("private").chain(kept).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

/// A value as it stands in a query.
fn encoded(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

/// When to ask again for what GitLab is being asked.
const SOON: Duration = Duration::from_secs(2);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_with_a_session_is_for_one_person() {
        for (said, kept) in [
            (&[][..], "private"),
            (&["public, max-age=31536000, immutable"], "private, max-age=31536000, immutable"),
            (&["max-age=60", "Public , S-MaxAge=9"], "private, max-age=60"),
            (&["private, no-cache"], "private, no-cache"),
            (&["no-store"], "private, no-store"),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
            }
            keep_private(&mut headers);
            let values: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().collect();
            assert_eq!(values, [kept], "{said:?}");
        }
    }
}
