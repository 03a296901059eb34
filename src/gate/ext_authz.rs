//! The door for Envoy: it describes a request over gRPC (`ext_authz`), and is told what the application gets, or what the browser gets instead.
//!
//! ```text
//! CheckRequest ─▶ Target from its attributes ─▶ admit, narrowed by its context ─▶ ok_response
//!                                                 └─ refusal ─▶ respond ────────▶ denied_response
//! ```
//!
//! The decision is [`Gate::admit`]'s, as for a request that is forwarded, and the application gets what it would get then. New cookies come through here, so no
//! browser is sent to fetch them. Whatever a stranger can bring about is a `denied_response`, never an error of the call: Envoy may be configured to let pass
//! what it got an error for. Framing is `accept`'s.

mod answer;
mod asked;
mod messages;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt, Collected};
use prost::Message;
use tokio::time::Instant;

use self::{
    asked::Asked,
    messages::{CheckRequest, CheckResponse},
};
use super::{Gate, Permit, REQUEST_ID, finish, story::Story, tell::ROOMY};
use crate::{
    accept::{self, Code},
    body::{Body, Request, Response},
    clock::Timestamp,
    config::Dialect,
    forward,
    refusal::{FrontTrouble, Refusal},
    respond,
    target::{Peer, RelayError, Target},
};

impl Gate {
    /// Answers the call `Authorization/Check` of `peer`, whose message may take as long as `patience`.
    pub async fn ext_authz(&self, call: &mut Request, peer: Peer, patience: Duration) -> Response {
        let began = Instant::now();
        let question = match self.question(call, &peer, patience).await {
            Ok(question) => question,
            Err(code) => return accept::failed(code),
        };
        let known = question.as_ref().ok();
        let request = known.map_or(&*call, |(asked, _)| &asked.request);
        let target = known.map(|(_, target)| target);
        let mut story = Story::begin(self.request_id(target, request), request, target);
        let html = respond::prefers_html(request.headers());
        let answer = match question {
            Ok((asked, target)) => self.verdict(&asked, &target, &mut story).await,
            Err(refusal) => Err(refusal),
        };
        let (mut answer, response) = match answer {
            Ok(answer) => (answer, Response::new(Body::empty())),
            Err(refusal) => self.deny(&refusal, html, &mut story).await,
        };
        answer.dynamic_metadata = Some(answer::metadata(story.facts()));
        self.record(&story, &response, began);
        accept::message(&answer)
    }

    /// What Envoy asks about, or why it is not judged; an error if the call has no question at all.
    async fn question(
        &self,
        call: &mut Request,
        peer: &Peer,
        patience: Duration,
    ) -> Result<Result<(Asked, Target), Refusal>, Code> {
        // Before anything of the message is kept.
        if !self.trust.contains(peer.addr.ip()) {
            return Ok(Err(untrusted(peer)));
        }
        let body = std::mem::take(call.body_mut());
        let message = match accept::read_message(body, LONGEST, patience).await {
            Ok(message) => message,
            Err(Code::ResourceExhausted) => {
                tracing::warn!(
                    peer = %peer.addr.ip(),
                    longest = LONGEST,
                    "a question of Envoy was refused: it is too long; leave `with_request_body` out"
                );
                return Ok(Err(FrontTrouble::TooLarge.into()));
            },
            Err(code) => return Err(code),
        };
        let question = CheckRequest::decode(message).map_err(|error| {
            tracing::warn!(peer = %peer.addr.ip(), %error, "a question of Envoy can't be read");
            Code::InvalidArgument
        })?;
        Ok(Asked::of(question).and_then(|asked| {
            let target = asked.target(peer, &self.trust, self.public.as_ref());
            let target = target.map_err(|error| match error {
                RelayError::Untrusted(_) => untrusted(peer),
                RelayError::Headers(reason) | RelayError::Malformed(reason) => {
                    Refusal::Malformed(reason)
                },
            })?;
            Ok((asked, target))
        }))
    }

    async fn verdict<'g>(
        &'g self,
        asked: &Asked,
        target: &Target,
        story: &mut Story<'g>,
    ) -> Result<CheckResponse, Refusal> {
        let headers = asked.request.headers();
        let now = self.shared.clock.now();
        let permit = self.admit_for_front(target, headers, now, story).await?;
        story.set_cookies.extend(self.authenticator.set_cookie(permit.who(), target, now));
        is_named(asked, &permit)?;
        let narrowed = self.narrowed(asked.context(), &permit)?;
        narrowed.map_err(|reason| {
            self.refusal(target, headers, permit.route(), permit.who(), reason)
        })?;
        self.grant(asked, target, &permit, now, story)
    }

    fn grant(
        &self,
        asked: &Asked,
        target: &Target,
        permit: &Permit<'_>,
        now: Timestamp,
        story: &mut Story<'_>,
    ) -> Result<CheckResponse, Refusal> {
        let passing = self.passing(permit, target, now, ROOMY)?;
        self.keep(permit, now);
        let before = asked.request.headers();
        let mut after = before.clone();
        self.clean(&mut after, permit);
        if !asked.source.is_some_and(|source| self.trust.contains(source)) {
            let misleading = before.keys().filter(|name| forward::misleads(name));
            for name in misleading {
                after.remove(name);
            }
        }
        let mut set = HeaderMap::new();
        self.headers.tell_all(self.lasting(permit), &passing, &mut set);
        set.insert(REQUEST_ID, story.request_id.to_header());
        let mut browser = HeaderMap::new();
        for cookie in story.set_cookies.drain(..) {
            browser.append(header::SET_COOKIE, cookie);
            // Of several directives the strictest counts (RFC 9111, 4.2.1), whatever the application says.
            browser.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        }
        Ok(answer::allowed(before, &after, set, &browser))
    }

    async fn deny(
        &self,
        refusal: &Refusal,
        html: bool,
        story: &mut Story<'_>,
    ) -> (CheckResponse, Response) {
        let mut response = self.refuse(refusal, html, Some(Dialect::Envoy), story);
        finish(&mut response, story);
        let (head, body) = response.into_parts();
        // It is there already.
        let body = body.collect().await.map_or_else(|_| Bytes::new(), Collected::to_bytes);
        let head = http::Response::from_parts(head, ());
        let answer = answer::denied(&head, &body, refusal.code());
        (answer, head.map(|()| Body::empty()))
    }
}

fn untrusted(peer: &Peer) -> Refusal {
    tracing::warn!(
        peer = %peer.addr.ip().to_canonical(),
        "a question of Envoy was refused: its peer is not in `server.trusted_proxies`"
    );
    FrontTrouble::Untrusted.into()
}

/// Whether the context names no other route than the one that serves what is asked for.
fn is_named(asked: &Asked, permit: &Permit<'_>) -> Result<(), Refusal> {
    let name = &permit.route().name;
    let mut named = asked.context().filter(|(key, _)| key == "route").map(|(_, named)| named);
    let Some(other) = named.find(|named| named != name) else { return Ok(()) };
    tracing::warn!(
        route = name,
        named = &*other,
        "a question of Envoy was refused: its context names another route than the one that serves this address"
    );
    Err(FrontTrouble::Headers("the context names another route than the one that serves this")
        .into())
}

/// Bytes of a message: the longest head that Envoy takes by default, some times over, but no bodies.
const LONGEST: usize = 1024 * 1024;
