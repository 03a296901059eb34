//! GitLab's API for applications, as the user: the assertion that came with a request says whose token a call is made with, and no application ever sees one.
//!
//! ```text
//! call ─▶ method, path, query, form ─▶ assertion ─▶ session, as it stands now ─▶ its token ─▶ GitLab, streaming both ways
//!             └──────────────┴──────────┴─ 403 ──────┴─ 403
//! ```
//!
//! Of the call's headers only those pass that say something of its content: no credentials, cookies or overrides of the application's own, under whatever
//! name. How far the token reaches is GitLab's to say.

use std::{mem, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::Body as _;
use tokio::time::Instant;

use super::{Gate, finish, story::Story};
use crate::{
    authenticate::Authenticated,
    body::{Request, Response},
    clock::Timestamp,
    forward,
    identity::AssertionError,
    refusal::{ApiTrouble, Refusal},
    session::Session,
    target::{Peer, Target, Trust, covers},
    telemetry::Decision,
};

/// What applications may ask of one GitLab.
#[derive(Debug)]
pub(super) struct Relay {
    methods: Vec<Method>,
}

impl Gate {
    /// Passes an application's call on to the API of the GitLab called `gitlab`.
    pub async fn relay(&self, gitlab: &str, request: &mut Request, peer: Peer) -> Response {
        let began = Instant::now();
        let target = Target::read(request, &peer, &Trust::default(), None);
        let known = target.as_ref().ok();
        let mut story = Story::begin(self.shared.request_ids.next(), request, known);
        let answer = match &target {
            Ok(target) => self.relayed(gitlab, target, request, &mut story).await,
            Err(reason) => Err(Refusal::Malformed(reason)),
        };
        let mut response =
            answer.unwrap_or_else(|refusal| self.refuse(&refusal, false, None, &mut story));
        finish(&mut response, &mut story);
        story.tell(&response, began.elapsed(), &self.relayed);
        response
    }

    async fn relayed(
        &self,
        gitlab: &str,
        target: &Target,
        request: &mut Request,
        story: &mut Story<'_>,
    ) -> Result<Response, Refusal> {
        let now = self.shared.clock.now();
        // After a reload the listener may be all that is left.
        let relay = self.apis.get(gitlab).ok_or(Refusal::NotFound)?;
        relay.check(target, request)?;
        let session = self.asserted(gitlab, request.headers(), now).await?;
        let who = Authenticated { session: Some(session.clone()), ..Authenticated::default() };
        story.who(None, who);
        let provider = self.authenticator.providers.get(gitlab).ok_or(Refusal::NotFound)?;
        let call = outgoing(target, request)?;
        let answer = provider.relay(call, &session.tokens.access).await.map_err(|error| {
            let retry_after = error.retry_after();
            ApiTrouble::Unanswered { retry_after, source: error.into() }
        })?;
        story.decision = Decision::Allowed;
        Ok(incoming(answer))
    }

    /// The session of whom an application's call is for, with a token that is good.
    async fn asserted(
        &self,
        gitlab: &str,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Arc<Session>, Refusal> {
        let refused = |why| Refusal::from(ApiTrouble::Assertion(why));
        let mut shown = headers.get_all(ASSERTION).iter();
        let text = match (shown.next(), shown.next()) {
            (Some(one), None) => one.to_str().map_err(|_| refused("it is none"))?,
            (None, _) => return Err(refused("it is missing")),
            (Some(_), Some(_)) => return Err(refused("there are several")),
        };
        let asserting = self.asserting.as_ref().ok_or(Refusal::NotFound)?;
        let asserted = asserting.read(text, now).map_err(|error| match error {
            AssertionError::Foreign => refused("labgate has not signed it"),
            AssertionError::Stale => refused("its time is over"),
        })?;
        let own = self.public.as_ref().is_none_or(|public| public.to_string() == asserted.issuer);
        if !own {
            return Err(refused("another labgate has signed it"));
        }
        if asserted.gitlab != gitlab {
            return Err(refused("it is about a user of another GitLab"));
        }
        let name = asserted.session.as_deref().ok_or_else(|| {
            refused("it is about a caller with a token, of whom labgate has no session")
        })?;
        let session = self.shared.store.named(name).await;
        let session = session.ok_or(ApiTrouble::Session)?;
        if !asserted.is_about(&session.identity) {
            return Err(refused("it is about somebody else"));
        }
        let session = self.authenticator.with_token(session, now).await?;
        session.ok_or_else(|| ApiTrouble::Session.into())
    }
}

impl Relay {
    pub(super) fn new(methods: Vec<Method>) -> Self {
        Self { methods }
    }

    /// Whether this may be asked at all, whoever it is for.
    fn check(&self, target: &Target, request: &Request) -> Result<(), ApiTrouble> {
        if !self.methods.contains(&target.method) {
            return Err(ApiTrouble::Method);
        }
        // A project's path has an escaped slash, so odd paths pass; but not out of here, however they are read.
        let below = |path: &[u8]| covers("/api", path) && path.len() > "/api/".len();
        if !target.readings().all(below) {
            return Err(ApiTrouble::Path);
        }
        if let Some(name) = target.path_and_query().split_once('?').and_then(|(_, it)| taboo(it)) {
            return Err(ApiTrouble::Parameter(name));
        }
        self.check_form(request)
    }

    /// Rails takes the method of a POST from its form, if that names one: a list without the methods that it can name would be none.
    fn check_form(&self, request: &Request) -> Result<(), ApiTrouble> {
        let named = [Method::PUT, Method::PATCH, Method::DELETE];
        let harmless = request.method() != Method::POST
            || request.body().is_end_stream()
            || named.iter().all(|method| self.methods.contains(method));
        let kinds = request.headers().get_all(header::CONTENT_TYPE);
        let mut kinds = kinds.iter().map(|kind| kind.to_str().unwrap_or_default());
        let json = |kind: &str| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/json")
        };
        let is_json = kinds.next().is_some_and(json) && kinds.next().is_none();
        if harmless || is_json { Ok(()) } else { Err(ApiTrouble::Form) }
    }
}

/// The parameter that would bring in another token, user or method, if there is one. Read as Rails reads queries: `&` or `;` between, brackets around parts of a name.
fn taboo(query: &str) -> Option<&'static str> {
    let pairs = query.split(['&', ';']);
    let mut found = pairs.filter_map(|pair| {
        let (name, _) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
        let name =
            name.trim_start_matches(|sign: char| "[]".contains(sign) || sign.is_whitespace());
        let name = name.split(|sign: char| "[]\0".contains(sign)).next().unwrap_or_default();
        TABOO.into_iter().find(|taboo| name.trim().eq_ignore_ascii_case(taboo))
    });
    found.next()
}

/// The call as GitLab gets it, but for the token.
fn outgoing(target: &Target, request: &mut Request) -> Result<Request, ApiTrouble> {
    let uri = target.path_and_query().parse().map_err(|_| ApiTrouble::Path)?;
    let mut call = Request::new(mem::take(request.body_mut()));
    *call.uri_mut() = uri;
    *call.method_mut() = target.method.clone();
    for (name, value) in request.headers() {
        if PASS.contains(name) {
            call.headers_mut().append(name.clone(), value.clone());
        }
    }
    let agent = call.headers_mut().entry(header::USER_AGENT);
    agent.or_insert(HeaderValue::from_static("labgate"));
    Ok(call)
}

/// GitLab's answer as the application gets it.
fn incoming(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    forward::clean_response(headers);
    headers.remove(header::SET_COOKIE);
    answer
}

const ASSERTION: HeaderName = HeaderName::from_static("x-labgate-assertion");

/// Parameters by which GitLab's API takes a token, acts for somebody else, or takes another method.
const TABOO: [&str; 9] = [
    "private_token",
    "access_token",
    "job_token",
    "deploy_token",
    "bearer_token",
    "oauth_token",
    "feed_token",
    "sudo",
    "_method",
];

/// Fields that say something of what is sent or wanted, and nothing of who sends it.
const PASS: [HeaderName; 15] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_taboo_passes() {
        for query in [
            "private_token=x",
            "a=b&private_token=x",
            "a=b;private_token=x",
            "private%5Ftoken=x",
            "%70rivate_token",
            "private_token[]=x",
            "private_token%5B%5D=x",
            "[private_token]=x",
            "+private_token=x",
            "PRIVATE_TOKEN=x",
            "private_token%00=x",
            "access_token=x",
            "job_token=x",
            "sudo=root",
            "_method=DELETE",
            "&&_method=DELETE",
        ] {
            assert!(taboo(query).is_some(), "{query}");
        }
        for query in
            ["", "a=private_token", "per_page=100&page=2", "search=sudo", "token_x=1", "x[sudo]=1"]
        {
            assert_eq!(taboo(query), None, "{query}");
        }
    }
}
