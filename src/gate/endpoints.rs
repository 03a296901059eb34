//! labgate's own paths below `server.prefix`: signing in and out, and telling who is signed in.
//!
//! They answer on every host that a route serves, and on those of `server.public_url` and `server.sign_in_host`; nothing below the prefix ever reaches an upstream.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;

use super::{Gate, encoded, plan::redirect_uri, story::Story};
use crate::{
    authenticate::{Authenticated, Failed, Start, is_same_origin, landing},
    body::{Body, Request, Response},
    clock::Timestamp,
    gitlab::Provider,
    refusal::{Attempt, Refusal},
    respond::{self, Choice, SignOut, SignedOut, Voice},
    target::Target,
    telemetry::AuditEvent,
};

impl Gate {
    /// Answers what lies at `path` below the prefix.
    pub(super) async fn endpoint<'g>(
        &'g self,
        path: &str,
        target: &Target,
        request: &mut Request,
        now: Timestamp,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        // Public keys are anybody's, whatever the host is called: an application asks for them by an address of its own.
        if path == "/jwks.json" {
            return self.published_keys(&target.method);
        }
        self.serves(target)?;
        let body = std::mem::take(request.body_mut());
        let ask = Ask { target, headers: request.headers(), query: Query::of(target), now };
        match (path, target.method.as_str()) {
            ("/sign_in", "GET" | "HEAD") => self.sign_in(&ask, story).await,
            ("/start", "GET") => self.start(&ask, story).await,
            ("/callback", "GET") => self.callback(&ask, story).await,
            ("/handoff", "GET") => self.take_over(&ask, story).await,
            ("/signed_in", "GET" | "HEAD") => self.signed_in(&ask, story).await,
            ("/sign_out", "GET" | "HEAD") => self.ask_to_sign_out(&ask, story).await,
            ("/sign_out", "POST") => self.sign_out(&ask, body, story).await,
            ("/userinfo", "GET" | "HEAD") => self.userinfo(&ask, story).await,
            ("/renew", "GET" | "HEAD") => self.renew(&ask, story).await,
            ("/sign_in" | "/signed_in" | "/userinfo" | "/renew", _) => {
                not_allowed(&[Method::GET, Method::HEAD])
            },
            ("/start" | "/callback" | "/handoff", _) => not_allowed(&[Method::GET]),
            ("/sign_out", _) => not_allowed(&[Method::GET, Method::HEAD, Method::POST]),
            _ => match path.strip_prefix("/hooks/") {
                Some(name) => self.hook(name, target, ask.headers, body, story).await,
                None => Err(Refusal::NotFound),
            },
        }
    }

    /// A host that is not ours gets no cookies and no redirect made of its name.
    fn serves(&self, target: &Target) -> Result<(), Refusal> {
        let host = &target.origin.host;
        let public = self.public.as_ref().is_some_and(|public| public.host == *host);
        let signs_in = self.sign_in_host.as_ref().is_some_and(|known| known.host() == host);
        match public || signs_in || self.routes.names_host(host) {
            true => Ok(()),
            false => Err(Refusal::Misdirected),
        }
    }

    /// The public keys of assertions.
    fn published_keys(&self, method: &Method) -> Result<Response, Refusal> {
        let asserting = self.asserting.as_ref().ok_or(Refusal::NotFound)?;
        match *method {
            Method::GET | Method::HEAD => {
                Ok(respond::key_set(asserting.published().to_owned(), KEYS_LAST))
            },
            _ => not_allowed(&[Method::GET, Method::HEAD]),
        }
    }

    /// The page between, or straight on where there is one choice.
    async fn sign_in<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, ref query, .. } = *ask;
        self.must_navigate(ask)?;
        if let Some(origin) = self.signs_in_elsewhere(target) {
            return self.send_to(&origin, "/sign_in", ask, story).await;
        }
        let rd = self.landing(query.get("rd"), target);
        let (gitlabs, page) = self.choices(&rd);
        if page || target.method == Method::HEAD {
            return Ok(self.choose(&rd, &gitlabs, ask, story));
        }
        if let Some(handed_over) = self.hand_over(&rd, "", ask, story).await? {
            return Ok(handed_over);
        }
        match gitlabs.as_slice() {
            [gitlab] => self.begin(gitlab.name(), rd, false, ask, story).await,
            gitlabs => Ok(self.choose(&rd, gitlabs, ask, story)),
        }
    }

    /// The page between.
    fn choose(
        &self,
        rd: &str,
        gitlabs: &[&Provider],
        ask: &Ask<'_>,
        story: &Story<'_>,
    ) -> Response {
        let query = &ask.query;
        let choices: Vec<_> = gitlabs
            .iter()
            .map(|gitlab| Choice {
                label: gitlab.label().into(),
                url: format!(
                    "{}/start?{}",
                    self.prefix,
                    query.with(&[("gitlab", gitlab.name()), ("rd", rd)])
                ),
            })
            .collect();
        let destination = rd.split(['?', '#']).next().unwrap_or_default();
        let destination = destination.split_once("://").map_or(destination, |(_, rest)| rest);
        respond::sign_in_page(&choices, destination, &self.voice(story))
    }

    async fn start<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, ref query, .. } = *ask;
        self.must_navigate(ask)?;
        if let Some(origin) = self.signs_in_elsewhere(target) {
            return self.send_to(&origin, "/start", ask, story).await;
        }
        let rd = self.landing(query.get("rd"), target);
        let (choices, _) = self.choices(&rd);
        let other = query.get("account") == "other";
        if other && !is_asked_here(headers) && self.reply(&rd, ask).is_some() {
            // It comes from another host, perhaps by a stranger's link: a click on this one's page tells.
            return Ok(self.choose(&rd, &choices, ask, story));
        }
        let other = other && is_asked_here(headers);
        if !other && let Some(over) = self.hand_over(&rd, query.get("gitlab"), ask, story).await? {
            return Ok(over);
        }
        let asked = query.get("gitlab");
        let known = asked.is_empty() || choices.iter().any(|gitlab| gitlab.name() == asked);
        if !known && self.reply(&rd, ask).is_some() {
            // Whoever signed in there would get no ticket, and be sent here again.
            return Err(Attempt::UnknownGitLab.into());
        }
        let gitlab = match (asked, choices.as_slice()) {
            ("", [only]) => only.name().to_owned(),
            ("", choices) => return Ok(self.choose(&rd, choices, ask, story)),
            (name, _) => name.to_owned(),
        };
        self.begin(&gitlab, rd, other, ask, story).await
    }

    async fn begin<'g>(
        &'g self,
        gitlab: &str,
        rd: String,
        other_account: bool,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, ref query, now } = *ask;
        let provider = self.authenticator.providers.get(gitlab).ok_or(Attempt::UnknownGitLab)?;
        let round = self.round(ask, story).await?;
        let reply = self.reply(&rd, ask).map(|(_, nonce)| nonce.to_owned()).unwrap_or_default();
        let start = Start {
            provider,
            rd,
            redirect_uri: redirect_uri(&self.home(target, None), &self.prefix),
            other_account,
            forwarded: query.pairs().collect(),
            reply,
            round,
        };
        let started = self.authenticator.start(start, target, headers, now)?;
        story.set_cookies.extend(started.set_cookies);
        Ok(respond::redirect(&started.location, []))
    }

    async fn callback<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, now, .. } = *ask;
        // GitLab sends a person here, never a program.
        story.page = true;
        if self.signs_in_elsewhere(target).is_some() {
            return Err(Attempt::State.into());
        }
        let landed = match self.authenticator.callback(target, headers, now).await {
            Ok(landed) => landed,
            // Back button, reload: whoever is signed in is simply sent on.
            Err(Failed { reason: Refusal::Attempt(Attempt::State), .. })
                if self.is_signed_in(ask, story).await =>
            {
                return Ok(respond::redirect(&self.landing("", target), []));
            },
            Err(Failed { reason, rd, set_cookies }) => {
                story.set_cookies.extend(set_cookies);
                story.again = rd.map(|rd| self.sign_in_path(&self.landing(&rd, target)));
                return Err(match reason {
                    Refusal::Attempt(Attempt::State) => self.lost_or(reason, ask),
                    reason => reason,
                });
            },
        };
        if let Some(reason) = self.playground() {
            return Err(Attempt::Client(reason.into()).into());
        }
        let landed = if self.sign_in_host.is_some() {
            self.authenticator.replace_shared(target, headers, landed, now).await
        } else {
            self.authenticator.replace(target, headers, now).await;
            landed
        };
        story.audit(AuditEvent::SignIn, Some(&landed.session));
        let location =
            self.way_back(&landed, target).unwrap_or_else(|| self.landing(&landed.rd, target));
        story.set_cookies.extend(landed.set_cookies);
        Ok(respond::redirect(&location, []))
    }

    async fn ask_to_sign_out<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, ref query, now } = *ask;
        let rd = self.landing(query.get("rd"), target);
        let who = self.authenticator.authenticate(target, headers, now).await.unwrap_or_default();
        let identity = who.identity();
        let provider = identity.and_then(|who| self.authenticator.providers.get(&who.gitlab));
        let signing_out = SignOut {
            username: identity.map(|identity| identity.username.as_str()),
            gitlab: provider.map(|provider| provider.label()),
            rd: &rd,
        };
        let page = respond::sign_out_page(&signing_out, &self.voice(story));
        self.meet(who, ask, story);
        Ok(page)
    }

    async fn sign_out<'g>(
        &'g self,
        ask: &Ask<'_>,
        body: Body,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, now, .. } = *ask;
        if !is_same_origin(target, headers) {
            return Err(Refusal::CrossSite);
        }
        let (session, cleared) = self.authenticator.sign_out(target, headers, now).await;
        story.set_cookies.push(cleared);
        story.set_cookies.extend(self.authenticator.forget_rounds(target, headers));
        if session.is_some() {
            story.audit(AuditEvent::SignOut, session.as_deref());
        }
        let provider = session
            .as_ref()
            .and_then(|session| self.authenticator.providers.get(&session.identity.gitlab));
        let form = form(body).await;
        let rd = Query::parse(&form);
        let rd = Some(rd.get("rd")).filter(|rd| !rd.is_empty());
        let rd = rd.map(|rd| self.landing(rd, target));
        let done = SignedOut {
            gitlab: provider.map(|provider| (provider.label(), provider.base_url().as_str())),
            rd: rd.as_deref(),
        };
        let again = rd.as_deref().map(|rd| self.sign_in_path(rd));
        let voice = Voice { again: again.as_deref(), ..self.voice(story) };
        Ok(respond::signed_out_page(&done, &voice))
    }

    async fn userinfo<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, now, .. } = *ask;
        let who = self.authenticator.authenticate(target, headers, now).await?;
        let Some(session) = who.session.clone() else {
            self.meet(who, ask, story);
            return Err(Refusal::SignIn(crate::refusal::SignIn {
                url: format!("{}{}/sign_in", self.home(target, None), self.prefix),
                navigation: false,
            }));
        };
        self.meet(who, ask, story);
        let identity = &session.identity;
        let groups = identity.groups.iter().map(|group| (group.path.as_str(), group.level.name()));
        let info = UserInfo {
            gitlab: &identity.gitlab,
            issuer: &identity.issuer,
            sub: &identity.sub,
            username: &identity.username,
            name: &identity.name,
            email: identity.email.as_deref(),
            groups: groups.collect(),
            signed_in_at: session.created.unix(),
            expires_at: session.until(&self.authenticator.deadlines).unix(),
        };
        Ok(respond::json(StatusCode::OK, &info))
    }

    /// Hands a session's new cookie to its browser, and sends that on.
    async fn renew<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, ref query, now } = *ask;
        let rd = self.landing(query.get("rd"), target);
        let who = self.authenticator.authenticate(target, headers, now).await?;
        let signed_in = who.session.is_some();
        self.meet(who, ask, story);
        let location = if signed_in { rd } else { self.sign_in_path(&rd) };
        Ok(respond::redirect(&location, []))
    }

    /// Notes who asks, and that their cookie is to be renewed or cleared.
    pub(super) fn meet<'g>(&'g self, who: Authenticated, ask: &Ask<'_>, story: &mut Story<'g>) {
        story.set_cookies.extend(self.authenticator.set_cookie(&who, ask.target, ask.now));
        story.who(None, who);
    }

    async fn is_signed_in<'g>(&'g self, ask: &Ask<'_>, story: &mut Story<'g>) -> bool {
        let Ask { target, headers, now, .. } = *ask;
        let who = self.authenticator.authenticate(target, headers, now).await.unwrap_or_default();
        let signed_in = who.session.is_some();
        self.meet(who, ask, story);
        signed_in
    }

    /// Where `rd` leads, if it leads anywhere that labgate serves.
    pub(super) fn landing(&self, rd: &str, target: &Target) -> String {
        let origin = self.home(target, None);
        let is_public = |host: &str| self.public.as_ref().is_some_and(|it| it.host == host);
        let serves = |host: &str| self.routes.names_host(host) || is_public(host);
        let url = landing(rd, &origin, &self.prefix, &serves);
        // The host where everybody signs in may have nothing to show but that.
        let hub = self.sign_in_host.as_ref().is_some_and(|known| known.host() == origin.host);
        let is_root = url.strip_prefix(&origin.to_string()) == Some("/");
        match hub && is_root && self.routes.lookup(&origin.host, "/", &Method::GET).is_err() {
            true => format!("{origin}{}/signed_in", self.prefix),
            false => url,
        }
    }

    /// The address below this origin that signs in and leads to `rd`.
    pub(super) fn sign_in_path(&self, rd: &str) -> String {
        format!("{}/sign_in?rd={}", self.prefix, encoded(rd))
    }

    /// The GitLabs that may sign in for what lies at `rd`, and whether the page that asks is wanted in any case.
    pub(super) fn choices(&self, rd: &str) -> (Vec<&Provider>, bool) {
        let providers = &self.authenticator.providers;
        let route = url::Url::parse(rd).ok().and_then(|url| {
            let host = url.host_str()?;
            self.routes.lookup(host, url.path(), &Method::GET).ok()
        });
        let names = route.map_or_else(
            || providers.keys().collect::<Vec<_>>(),
            |route| route.gitlabs.iter().collect(),
        );
        let choices = names.into_iter().filter_map(|name| providers.get(name)).map(AsRef::as_ref);
        (choices.collect(), route.is_some_and(|route| route.sign_in_page))
    }

    pub(super) fn voice<'a>(&'a self, story: &'a Story<'_>) -> Voice<'a> {
        Voice {
            html: true,
            request_id: story.request_id.as_str(),
            prefix: &self.prefix,
            again: None,
            front: None,
        }
    }
}

/// What one of labgate's own paths is asked.
pub(super) struct Ask<'a> {
    pub(super) target: &'a Target,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Query<'a>,
    pub(super) now: Timestamp,
}

/// What `/userinfo` tells about the session.
#[derive(Serialize)]
struct UserInfo<'a> {
    gitlab: &'a str,
    issuer: &'a str,
    sub: &'a str,
    username: &'a str,
    name: &'a str,
    email: Option<&'a str>,
    /// Full path to role.
    groups: BTreeMap<&'a str, &'static str>,
    signed_in_at: u64,
    expires_at: u64,
}

/// The parameters of a query; of a doubled one the first counts.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    fn of(target: &'a Target) -> Self {
        let query = target.path_and_query().split_once('?').map_or("", |(_, query)| query);
        Self::parse(query.as_bytes())
    }

    fn parse(form: &'a [u8]) -> Self {
        Self(url::form_urlencoded::parse(form).take(MOST).collect())
    }

    /// The value of `name`, empty if it is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The same parameters, but for those in `set`, as text.
    pub(super) fn with(&self, set: &[(&str, &str)]) -> String {
        let kept = self.0.iter().filter(|(name, _)| set.iter().all(|(other, _)| other != name));
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(set).extend_pairs(kept);
        text.finish()
    }

    fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(name, value)| (name.to_string(), value.to_string()))
    }
}

/// Whether a page of this host or the person themselves asks, so far as the browser says: another site must not be able to sign somebody out of GitLab
/// with a link.
pub(super) fn is_asked_here(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    matches!(site, None | Some(b"same-origin" | b"none"))
}

/// The form of a POST, empty if it is longer than any of ours or doesn't come.
async fn form(body: Body) -> Bytes {
    let whole = Limited::new(body, LONGEST_FORM).collect();
    match tokio::time::timeout(FORM_PATIENCE, whole).await {
        Ok(Ok(form)) => form.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    }
}

/// How long caches may keep the public keys.
const KEYS_LAST: Duration = Duration::from_mins(5);

/// Bytes of a form.
const LONGEST_FORM: usize = 8 * 1024;

/// How long a form may take to come.
const FORM_PATIENCE: Duration = Duration::from_secs(5);

/// How many parameters are looked at.
const MOST: usize = 32;

pub(super) fn not_allowed(methods: &[Method]) -> Result<Response, Refusal> {
    Err(Refusal::MethodNotAllowed(methods.to_vec()))
}
