//! Why a request does not pass: each reason a named variant with public words, and a cause that only the log tells.
//!
//! `Refusal` alone knows the status, the sentence that a stranger may read, the log level and whose fault it is. How an answer looks is `respond`'s.

mod api;
mod attempt;
mod forbidden;
mod front;
mod lost;
mod token;
mod words;

use std::{error::Error, time::Duration};

use http::{Method, StatusCode};
use tracing::Level;

pub use self::{
    api::ApiTrouble,
    attempt::Attempt,
    forbidden::{Brought, Forbidden, Place, Unmet},
    front::FrontTrouble,
    lost::Lost,
    token::{Cause, TokenTrouble},
    words::Words,
};

/// A cause of any kind, for the log only.
type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request does not pass.
#[derive(Debug)]
pub enum Refusal {
    /// The request itself is not one that can be judged: RFC 9112 framing, hosts, paths.
    Malformed(&'static str),
    /// No route serves this host.
    Misdirected,
    /// No route serves this path.
    NotFound,
    /// A route serves this path, but not with this method; these it serves.
    MethodNotAllowed(Vec<Method>),
    /// Nobody is signed in.
    SignIn(SignIn),
    /// The token that came does not count.
    Token(TokenTrouble),
    /// Nobody is signed in, and a person has sent a form, which a redirect would lose; its URL leads to a page that says to come back.
    Unsent(SignIn),
    /// It is known who asks, and they may not pass.
    Forbidden(Box<Forbidden>),
    /// GitLab has been out of reach for longer than its last word on this user counts.
    Unconfirmed {
        /// The table name of the GitLab.
        gitlab: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A sign-in did not work out.
    Attempt(Attempt),
    /// The application did not do its part.
    Upstream(UpstreamTrouble),
    /// One of `server.limits` is reached; the name of the limit.
    Exhausted(&'static str),
    /// A request that changes something came from another site.
    CrossSite,
    /// A hook was not taken.
    Hook(HookTrouble),
    /// An application's call of GitLab's API was not passed on.
    Api(ApiTrouble),
    /// A front proxy's question can't be answered.
    Front(FrontTrouble),
    /// A browser has to fetch its session's new cookie first; the absolute URL where it gets that, and is sent on.
    Renew(String),
    /// A fault of labgate's own.
    Internal(BoxError),
}

/// What it takes to be signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Absolute URL that begins a sign-in and leads back to what was asked for.
    pub url: String,
    /// Whether a person navigates, so that a redirect makes sense; everything else gets 401.
    pub navigation: bool,
    /// Whether a program may try again with a token as the password of `Basic`.
    pub basic: bool,
}

/// Why a hook was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookTrouble {
    /// The token is missing or another one.
    Token,
    /// The body is none that GitLab sends.
    Body(&'static str),
    /// The body is too long.
    TooLarge,
    /// The body did not come in time.
    Slow,
    /// Too many came at once, or too many with a wrong token.
    TooMany {
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why an application did not do its part.
#[derive(Debug)]
pub enum UpstreamTrouble {
    /// It can't be connected to.
    Unreachable(BoxError),
    /// It took longer than its timeout to begin its response.
    Slow,
    /// Its response is none that can be passed on, or ended before it began.
    Broken(BoxError),
}

/// Who has to act on a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever sent the request.
    Client,
    /// GitLab.
    Provider,
    /// The application.
    Upstream,
    /// labgate, or whoever runs it.
    Us,
}

impl Refusal {
    /// The status that says it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Token(trouble) => trouble.status(),
            Self::Attempt(attempt) => attempt.status(),
            Self::Front(trouble) => trouble.status(),
            Self::Api(trouble) => trouble.status(),
            Self::Malformed(_) | Self::Hook(HookTrouble::Body(_)) => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::SignIn(sign_in) if sign_in.navigation => StatusCode::FOUND,
            Self::Renew(_) => StatusCode::FOUND,
            Self::SignIn(_) | Self::Unsent(_) | Self::Hook(HookTrouble::Token) => {
                StatusCode::UNAUTHORIZED
            },
            Self::Hook(HookTrouble::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Hook(HookTrouble::Slow) => StatusCode::REQUEST_TIMEOUT,
            Self::Hook(HookTrouble::TooMany { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::Forbidden(_) | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::Upstream(UpstreamTrouble::Unreachable(_) | UpstreamTrouble::Broken(_)) => {
                StatusCode::BAD_GATEWAY
            },
            Self::Upstream(UpstreamTrouble::Slow) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unconfirmed { .. } | Self::Exhausted(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable word for logs, metrics and problem documents.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::Misdirected => "unknown_host",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::SignIn(_) | Self::Unsent(_) => "sign_in_required",
            Self::Token(trouble) => trouble.code(),
            Self::Forbidden(_) => "forbidden",
            Self::Unconfirmed { .. } => "gitlab_unreachable",
            Self::Attempt(attempt) => attempt.code(),
            Self::Upstream(UpstreamTrouble::Unreachable(_)) => "upstream_unreachable",
            Self::Upstream(UpstreamTrouble::Slow) => "upstream_timeout",
            Self::Upstream(UpstreamTrouble::Broken(_)) => "upstream_broken",
            Self::Exhausted(_) => "limit_reached",
            Self::CrossSite => "cross_site_request",
            Self::Hook(HookTrouble::Token) => "hook_token_wrong",
            Self::Hook(HookTrouble::Body(_)) => "hook_malformed",
            Self::Hook(HookTrouble::TooLarge) => "hook_too_large",
            Self::Hook(HookTrouble::Slow) => "hook_too_slow",
            Self::Hook(HookTrouble::TooMany { .. }) => "hooks_too_many",
            Self::Api(trouble) => trouble.code(),
            Self::Front(trouble) => trouble.code(),
            Self::Renew(_) => "cookie_behind",
            Self::Internal(_) => "internal_error",
        }
    }

    /// Who has to act on it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unconfirmed { .. } | Self::Api(ApiTrouble::Unanswered { .. }) => Fault::Provider,
            Self::Malformed(_)
            | Self::Misdirected
            | Self::NotFound
            | Self::MethodNotAllowed(_)
            | Self::SignIn(_)
            | Self::Unsent(_)
            | Self::Forbidden(_)
            | Self::CrossSite
            | Self::Hook(_)
            | Self::Renew(_)
            | Self::Api(_) => Fault::Client,
            Self::Front(trouble) => trouble.fault(),
            Self::Token(trouble) => trouble.fault(),
            Self::Attempt(attempt) => attempt.fault(),
            Self::Upstream(_) => Fault::Upstream,
            Self::Exhausted(_) | Self::Internal(_) => Fault::Us,
        }
    }

    /// How loudly the log tells of it: `INFO` for refusals, `WARN` for trouble elsewhere, `ERROR` if somebody must look.
    pub fn level(&self) -> Level {
        match (self, self.fault()) {
            // A limit does its work; the metric counts it.
            (Self::Exhausted(_), _) | (_, Fault::Provider | Fault::Upstream) => Level::WARN,
            (_, Fault::Client) => Level::INFO,
            (_, Fault::Us) => Level::ERROR,
        }
    }

    /// When to try again, if that helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unconfirmed { retry_after, .. }
            | Self::Attempt(Attempt::Unavailable { retry_after, .. })
            | Self::Hook(HookTrouble::TooMany { retry_after }) => Some(*retry_after),
            Self::Api(ApiTrouble::Unanswered { retry_after, .. }) => *retry_after,
            Self::Token(trouble) => trouble.retry_after(),
            Self::Exhausted(_) | Self::Attempt(Attempt::Unproven(_)) => {
                Some(Duration::from_secs(5))
            },
            _ => None,
        }
    }

    /// What only the log tells.
    pub fn cause(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Attempt(
                Attempt::CodeExpired(source)
                | Attempt::Account(source)
                | Attempt::Client(source)
                | Attempt::Answer(source)
                | Attempt::ClockSkew(source)
                | Attempt::Unproven(source)
                | Attempt::Unavailable { source, .. },
            )
            | Self::Upstream(
                UpstreamTrouble::Unreachable(source) | UpstreamTrouble::Broken(source),
            )
            | Self::Api(ApiTrouble::Unanswered { source, .. })
            | Self::Internal(source) => Some(source.as_ref()),
            Self::Token(trouble) => trouble.cause(),
            _ => None,
        }
    }
}

impl From<TokenTrouble> for Refusal {
    fn from(trouble: TokenTrouble) -> Self {
        Self::Token(trouble)
    }
}

impl From<UpstreamTrouble> for Refusal {
    fn from(trouble: UpstreamTrouble) -> Self {
        Self::Upstream(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_navigations_are_redirected_to_sign_in() {
        let sign_in =
            |navigation| Refusal::SignIn(SignIn { url: "/".into(), navigation, basic: false });
        assert_eq!(sign_in(true).status(), StatusCode::FOUND);
        assert_eq!(sign_in(false).status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn the_log_is_loud_only_when_somebody_must_look() {
        let source = || BoxError::from("secret");
        let cases = [
            (Refusal::NotFound, Fault::Client, Level::INFO),
            (Attempt::Denied.into(), Fault::Client, Level::INFO),
            (Attempt::Refused("login_required").into(), Fault::Client, Level::INFO),
            (Attempt::Refused("server_error").into(), Fault::Provider, Level::WARN),
            (Attempt::Refused("invalid_scope").into(), Fault::Us, Level::ERROR),
            (Attempt::Client(source()).into(), Fault::Us, Level::ERROR),
            (Attempt::Answer(source()).into(), Fault::Provider, Level::WARN),
            (UpstreamTrouble::Slow.into(), Fault::Upstream, Level::WARN),
            (Refusal::Exhausted("tunnels"), Fault::Us, Level::WARN),
            (Refusal::Internal(source()), Fault::Us, Level::ERROR),
        ];
        for (refusal, fault, level) in cases {
            assert_eq!(refusal.fault(), fault, "{refusal:?}");
            assert_eq!(refusal.level(), level, "{refusal:?}");
        }
    }

    #[test]
    fn a_provider_in_trouble_says_when_to_come_back() {
        let source = BoxError::from("connection refused");
        let retry_after = Duration::from_secs(7);
        let refusal = Refusal::from(Attempt::Unavailable { retry_after, source });
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refusal.retry_after(), Some(retry_after));
        assert_eq!(refusal.cause().unwrap().to_string(), "connection refused");
    }
}
