//! What somebody would meet at a URL, told without serving anything: the very route table and the very guard that requests meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{Method, Request, Uri, header};

use super::{
    permit::NoPermit,
    plan::{Plan, PlannedRoute},
};
use crate::{
    authorize::Finding,
    config::TokenKind,
    identity::{Identity, Kind},
    refusal::{Refusal, TokenTrouble, Unmet},
    route::RouteTable,
    target::{Peer, Target},
};

/// What somebody would meet.
#[derive(Debug)]
pub struct Explanation {
    /// The route that decides; none where there is none.
    pub route: Option<Explained>,
    /// How it ends.
    pub ending: Ending,
    /// Which keys of the configuration keep the ID tokens of CI jobs from counting here, and how; nothing if they count, or no CI job asks.
    pub in_the_way: Vec<String>,
}

/// One route, and what its rules find.
#[derive(Debug)]
pub struct Explained {
    /// Its place in the configuration, from 0.
    pub index: usize,
    /// Host and path as configured.
    pub name: String,
    /// The application's name or URL; none where only front proxies ask.
    pub upstream: Option<String>,
    /// What each rule finds, key by key; nothing for `"public"`, `"signed-in"` and nobody.
    pub rules: Vec<Vec<Finding>>,
}

/// How it ends.
#[derive(Debug)]
pub enum Ending {
    /// The request goes on to the application.
    Passes,
    /// It is one of labgate's own paths, which everybody may ask.
    Own,
    /// Somebody has to sign in.
    SignIn,
    /// Whoever asks may not pass; one entry for each rule.
    Forbidden(Vec<Unmet>),
    /// It does not get as far as a route.
    Refused(Refusal),
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The URL is none.
    #[error("`{0}` is neither a URL, such as `https://app.example.com/path`, nor a path")]
    Url(String),
    /// A path alone says no host.
    #[error("a path alone needs `server.public_url`; say the whole URL")]
    Host,
}

impl Plan {
    /// What `identity`, or nobody, would meet at `url` (or a path at the public URL) with `method`, asked directly.
    ///
    /// # Errors
    /// When `url` can't be asked for at all.
    ///
    /// # Panics
    /// Never: the plan has resolved all routes.
    pub fn explain(
        &self,
        url: &str,
        method: &Method,
        identity: Option<&Identity>,
    ) -> Result<Explanation, ExplainError> {
        let told = |ending| Explanation { route: None, ending, in_the_way: Vec::new() };
        let unrouted = |refusal| told(Ending::Refused(refusal));
        let target = match self.target(url, method)? {
            Ok(target) => target,
            Err(reason) => return Ok(unrouted(Refusal::Malformed(reason))),
        };
        let prefix = &self.config.server.prefix;
        if target.below(prefix).is_some() {
            return Ok(told(Ending::Own));
        }
        if target.touches(prefix) {
            let reason = "the path can be read as one of labgate's own";
            return Ok(unrouted(Refusal::Malformed(reason)));
        }
        let table = RouteTable::new(self.routes.clone()).expect("the plan found no overlap");
        Ok(match table.resolve(&target, |route: &PlannedRoute| route.guard.is_public()) {
            Ok(route) => self.explained(route, identity),
            Err(miss) => unrouted(miss.into()),
        })
    }

    fn target(
        &self,
        url: &str,
        method: &Method,
    ) -> Result<Result<Target, &'static str>, ExplainError> {
        let wrong = || ExplainError::Url(url.into());
        let uri: Uri = url.split('#').next().unwrap_or(url).parse().map_err(|_| wrong())?;
        let host = match (uri.authority(), &self.public) {
            (Some(authority), _) if uri.scheme().is_some() => authority.to_string(),
            (None, Some(public)) => public.authority(),
            (None, None) => return Err(ExplainError::Host),
            (Some(_), _) => return Err(wrong()),
        };
        let request = Request::builder().method(method).uri(uri).header(header::HOST, host);
        let request = request.body(()).map_err(|_| wrong())?;
        // Nobody's peer in particular, so that no header is believed.
        let addr = SocketAddr::from((IpAddr::from(Ipv4Addr::UNSPECIFIED), 0));
        let peer = Peer { addr, core: 0 };
        Ok(Target::read(&request, &peer, &self.trust, self.public.as_ref()))
    }

    fn explained(&self, route: &PlannedRoute, identity: Option<&Identity>) -> Explanation {
        let takes = &route.takes;
        let is_job = identity.is_some_and(|identity| identity.kind == Kind::Ci);
        let counts = identity.is_some_and(|identity| takes.takes(&identity.gitlab, TokenKind::Ci));
        let job = identity.filter(|_| is_job && !counts);
        // Where no token counts, none is looked at.
        let identity = identity.filter(|_| !is_job || takes.any());
        let unfit = || Refusal::Token(TokenTrouble::Kind { kind: "ci", accepted: takes.words() });
        let ending = match route.guard.judge(identity) {
            _ if is_job && takes.any() && !counts => Ending::Refused(unfit()),
            Ok(_) => Ending::Passes,
            Err(NoPermit::SignIn) => Ending::SignIn,
            Err(NoPermit::Forbidden(rules)) => Ending::Forbidden(rules),
        };
        // Whoever passes as anybody needs no token.
        let stopped = job.filter(|_| !matches!(ending, Ending::Passes));
        let in_the_way = stopped.map_or_else(Vec::new, |job| self.in_the_way(route, &job.gitlab));
        let route = Explained {
            index: route.index,
            name: route.name.clone(),
            upstream: route.upstream.clone(),
            rules: identity.map_or_else(Vec::new, |identity| route.guard.examine(identity)),
        };
        Explanation { route: Some(route), ending, in_the_way }
    }

    /// What keeps the ID tokens of the CI jobs of `gitlab` from counting at `route`.
    fn in_the_way(&self, route: &PlannedRoute, gitlab: &str) -> Vec<String> {
        let PlannedRoute { index, guard, .. } = route;
        let table = self.config.gitlab.get(gitlab);
        let accepted = table.is_some_and(|table| table.tokens.accepts(TokenKind::Ci));
        let named = self.config.route.get(*index).and_then(|route| route.tokens.as_ref());
        // Without the key a route takes what is accepted, but for public ones, which take none.
        let taken = named.map_or(!guard.is_public(), |kinds| kinds.contains(&TokenKind::Ci));
        [
            (guard.admits(gitlab), format!("`route[{index}].gitlab` lacks `{gitlab}`")),
            (
                accepted,
                format!("`gitlab.{gitlab}.tokens` lacks `ci` in `accept`, and its `ci_audience`"),
            ),
            (taken, format!("`route[{index}].tokens` lacks `ci`")),
        ]
        .into_iter()
        .filter_map(|(fits, lack)| (!fits).then_some(lack))
        .collect()
    }
}
