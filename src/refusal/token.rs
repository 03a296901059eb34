//! Why a token that came with a request does not count.
//!
//! 401 means: bring another token. 403 means: this one is good, but lacks a scope. 503 means: nothing is known of it, ask again.

use std::{error::Error, sync::Arc, time::Duration};

use http::StatusCode;

use super::{Fault, Words};

/// A cause for the log, shared by all requests that meet the same verdict.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a token does not count.
#[derive(Clone, Debug)]
pub enum TokenTrouble {
    /// More than one came.
    Several,
    /// It is none that GitLab could have given: too long, odd signs, no password in `Basic`.
    Malformed,
    /// GitLab does not know it, or no more; or its signature or claims are wrong.
    Invalid(Cause),
    /// It was given to another application.
    Foreign,
    /// It is an ID token of a sign-in, which is for labgate alone.
    SignIn,
    /// It is of a kind that does not count here.
    Kind {
        /// What it is.
        kind: &'static str,
        /// What counts here.
        accepted: Vec<&'static str>,
    },
    /// Its account may not be used: blocked, deactivated, or awaiting something.
    Account(Cause),
    /// Its owner wants a proof of possession with each request, which can't be passed on.
    Proof,
    /// It lacks a scope, without which GitLab says nothing of it.
    Scope(&'static str),
    /// Several GitLabs take tokens here, and none is shown the token of another.
    WhichGitLab(Vec<String>),
    /// GitLab gives no word on it.
    Unheard {
        /// When to try again.
        retry_after: Duration,
        /// What came in the way.
        source: Cause,
    },
    /// As many tokens are being looked at as may be.
    Capped {
        /// When to try again.
        retry_after: Duration,
    },
}

impl TokenTrouble {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Several => StatusCode::BAD_REQUEST,
            Self::Malformed
            | Self::Invalid(_)
            | Self::Foreign
            | Self::SignIn
            | Self::Kind { .. }
            | Self::Account(_)
            | Self::Proof
            | Self::WhichGitLab(_) => StatusCode::UNAUTHORIZED,
            Self::Scope(_) => StatusCode::FORBIDDEN,
            Self::Unheard { .. } | Self::Capped { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A stable word for logs, metrics and problem documents.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Several => "tokens_several",
            Self::Malformed => "token_malformed",
            Self::Invalid(_) => "token_invalid",
            Self::Foreign => "token_of_another_application",
            Self::SignIn => "token_of_a_sign_in",
            Self::Kind { .. } => "token_kind",
            Self::Account(_) => "token_account",
            Self::Proof => "token_proof",
            Self::Scope(_) => "token_scope",
            Self::WhichGitLab(_) => "token_gitlab",
            Self::Unheard { .. } => "token_unconfirmed",
            Self::Capped { .. } => "tokens_too_many",
        }
    }

    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Unheard { .. } => Fault::Provider,
            _ => Fault::Client,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unheard { retry_after, .. } | Self::Capped { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    pub(super) fn cause(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Invalid(cause) | Self::Account(cause) | Self::Unheard { source: cause, .. } => {
                Some(cause.as_ref())
            },
            _ => None,
        }
    }

    /// What the challenge says beside the realm (RFC 6750, section 3.1).
    pub fn challenge(&self) -> Option<String> {
        match (self, self.status()) {
            (Self::Several, _) => Some("error=\"invalid_request\"".into()),
            (Self::Scope(scope), _) => {
                Some(format!("error=\"insufficient_scope\", scope=\"{scope}\""))
            },
            (_, StatusCode::UNAUTHORIZED) => Some("error=\"invalid_token\"".into()),
            _ => None,
        }
    }

    pub(super) fn words(&self) -> Words {
        const ANOTHER: &str = "Send another token. A session of a browser does not help beside a token that does not count.";
        const REFUSED: &str = "This token doesn't count here";
        match self {
            Self::Several => Words::new(
                "Only one token, please",
                "The request brings more than one token, and they could belong to different callers.",
                "Send one of Authorization, PRIVATE-TOKEN and JOB-TOKEN, once.",
            ),
            Self::Malformed => Words::new(
                REFUSED,
                "It is none that GitLab gives.",
                "Check that the whole token is sent and nothing else. A token as password needs `name:token` in base64.",
            ),
            Self::Invalid(_) => Words::new(
                REFUSED,
                "GitLab does not know it, it has expired or was revoked, or it was made for somebody else.",
                ANOTHER,
            )
            .operator("The log has the cause at level debug. For CI jobs compare `ci_audience` with `aud` in the job."),
            Self::Foreign => Words::new(
                REFUSED,
                "It is an OAuth token that was given to another application.",
                ANOTHER,
            ),
            Self::SignIn => Words::new(
                REFUSED,
                "It is the ID token of a sign-in, which is no access token.",
                ANOTHER,
            ),
            Self::Kind { kind, accepted } => {
                let accepted = match accepted.as_slice() {
                    [] => "none".to_owned(),
                    kinds => kinds.join(", "),
                };
                Words::new(REFUSED, "", ANOTHER)
                    .detail(format!("Its kind is {kind}. Kinds that count here: {accepted}."))
                    .operator("See `tokens` of the route and `tokens.accept` of the GitLab.")
            },
            Self::Account(_) => Words::new(
                "GitLab doesn't let this token's account in",
                "It is blocked, deactivated, waiting for approval, or has terms to accept or a password to change.",
                "Open GitLab as its owner and see what it asks, or ask GitLab's administrator.",
            ),
            Self::Proof => Words::new(
                REFUSED,
                "Its owner has set at GitLab that it needs a proof of possession (DPoP) with each request, which can't be checked here.",
                "Send a token of another kind, such as one of a project or a service account.",
            ),
            Self::Scope(scope) => Words::new(
                "This token lacks a scope",
                "",
                "Make a token that has it.",
            )
            .detail(format!("GitLab says nothing of its owner without the scope {scope}.")),
            Self::WhichGitLab(names) => Words::new(
                "Which GitLab gave this token?",
                "",
                "Send its name in the header X-Labgate-GitLab.",
            )
            .detail(format!(
                "Tokens of several GitLabs count here, and none is shown the token of another: {}.",
                names.join(", ")
            )),
            Self::Unheard { .. } => Words::new(
                "GitLab can't be asked about this token",
                "It does not answer, or says that it is too busy.",
                "Wait a little and try again. The token may be good.",
            )
            .operator("See the log for why GitLab does not answer."),
            Self::Capped { .. } => Words::new(
                "Too many tokens at once",
                "As many tokens are being checked as may be.",
                "Wait a little and try again. The token may be good.",
            )
            .operator("See `tokens.max_checks`, and labgate_token_checks_total for what kept it busy."),
        }
    }
}
