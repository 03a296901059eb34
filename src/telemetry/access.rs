//! The access line of each request (target `labgate::access`) and the audit line of each change of trust (target `labgate::audit`).
//!
//! There is no field for a query, body, token, code or cookie, so none can be written. What a stranger chose is bounded and made printable.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use http::{HeaderValue, Method, StatusCode, Version};
use tracing::info;

use super::printable::printable;

/// What became of a request; a label of metrics and a field of the access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A permit was given to somebody signed in.
    Allowed,
    /// A permit was given by a public route.
    Public,
    /// Nobody is signed in.
    SignIn,
    /// The request, or who sent it, was refused.
    Refused,
    /// An endpoint of labgate's own answered.
    Own,
    /// Something broke: labgate, GitLab or the application.
    Error,
}

impl Decision {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Allowed, Self::Public, Self::SignIn, Self::Refused, Self::Own, Self::Error];

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Public => "public",
            Self::SignIn => "sign_in",
            Self::Refused => "refused",
            Self::Own => "own",
            Self::Error => "error",
        }
    }
}

/// The record of one request, written when its response begins.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// What this request is called.
    pub request_id: &'a str,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// Its method.
    pub method: &'a Method,
    /// Its HTTP version.
    pub version: Version,
    /// Host that was asked for.
    pub host: &'a str,
    /// Path that was asked for; what follows a `?` is left out in any case.
    pub path: &'a str,
    /// Status of the response.
    pub status: StatusCode,
    /// What became of it.
    pub decision: Decision,
    /// Why, for a refusal: its code.
    pub cause: Option<&'a str>,
    /// The rules of a refusal that did not hold, such as `group=acme/ops role=developer`.
    pub rule: Option<&'a str>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the upstream.
    pub upstream: Option<&'a str>,
    /// Who asked, such as `alice@main`.
    pub user: Option<&'a str>,
    /// Time until the response began.
    pub duration: Duration,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a HeaderValue>,
}

impl Access<'_> {
    /// Whether anybody wants the line; saves gathering it.
    pub fn is_wanted() -> bool {
        tracing::enabled!(target: "labgate::access", tracing::Level::INFO)
    }

    /// Writes the line, if the filter lets it pass.
    pub fn emit(&self) {
        // Values go in as text, not as `Display`, so that the text format quotes them and none can pose as a field of its own.
        let path = self.path.split('?').next().unwrap_or_default();
        let agent = self.user_agent.map(|agent| printable(agent.as_bytes(), 256));
        info!(
            target: "labgate::access",
            request_id = &*printable(self.request_id.as_bytes(), 128),
            client = self.client.map(tracing::field::display),
            method = &*printable(self.method.as_str().as_bytes(), 32),
            host = &*printable(self.host.as_bytes(), 256),
            path = &*printable(path.as_bytes(), 2048),
            http = ?self.version,
            status = self.status.as_u16(),
            decision = self.decision.as_str(),
            cause = self.cause,
            rule = optional(self.rule).as_deref(),
            route = self.route,
            upstream = self.upstream,
            user = optional(self.user).as_deref(),
            duration_ms = milliseconds(self.duration),
            user_agent = agent.as_deref(),
            "request"
        );
    }
}

fn optional(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(|text| printable(text.as_bytes(), 512))
}

/// A change of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// Somebody signed in.
    SignIn,
    /// A session was handed over to another host.
    HandOver,
    /// A sign-in did not work out.
    SignInFailed,
    /// Somebody who is known was refused.
    Refusal,
    /// Somebody signed out.
    SignOut,
    /// GitLab, a deadline or a hook ended a session.
    SessionEnded,
    /// Tokens or sessions were revoked.
    Revocation,
    /// Somebody who is not GitLab sent a hook.
    HookRefused,
}

impl AuditEvent {
    /// The word for it in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::HandOver => "hand_over",
            Self::SignInFailed => "sign_in_failed",
            Self::Refusal => "refusal",
            Self::SignOut => "sign_out",
            Self::SessionEnded => "session_ended",
            Self::Revocation => "revocation",
            Self::HookRefused => "hook_refused",
        }
    }
}

/// The record of a change of trust.
#[derive(Clone, Copy, Debug)]
pub struct Audit<'a> {
    /// What happened.
    pub event: AuditEvent,
    /// During which request; none if it happened beside one.
    pub request_id: Option<&'a str>,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// To whom, such as `alice@main`.
    pub user: Option<&'a str>,
    /// Table name of their GitLab.
    pub gitlab: Option<&'a str>,
    /// Why: a code of a refusal, or the word for an end such as `lifetime` or `blocked`.
    pub cause: Option<&'a str>,
    /// The rules that did not hold.
    pub rule: Option<&'a str>,
}

impl Audit<'_> {
    /// Writes the line, if the filter lets it pass.
    pub fn emit(&self) {
        info!(
            target: "labgate::audit",
            event = self.event.as_str(),
            request_id = optional(self.request_id).as_deref(),
            client = self.client.map(tracing::field::display),
            user = optional(self.user).as_deref(),
            gitlab = self.gitlab,
            cause = self.cause,
            rule = optional(self.rule).as_deref(),
            "audit"
        );
    }
}

/// Milliseconds with three digits after the point.
fn milliseconds(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}
