//! Why a sign-in did not work out: what of it may be told, and who has to act on it.

use std::time::Duration;

use http::StatusCode;

use super::{BoxError, Fault, Lost, Refusal, Words};

/// Why a sign-in did not work out.
#[derive(Debug)]
pub enum Attempt {
    /// The answer fits no sign-in that this browser has begun: the state is missing, unknown, or its cookie is gone.
    State,
    /// A parameter came twice, or the issuer is another one.
    Parameters(&'static str),
    /// The person said no at GitLab.
    Denied,
    /// GitLab says no: an error code of RFC 6749 or OIDC Core, which is safe to show.
    Refused(&'static str),
    /// GitLab no longer knows the code.
    CodeExpired(BoxError),
    /// The account may not be used: blocked, deactivated, or awaiting something.
    Account(BoxError),
    /// GitLab does not accept labgate's client id and secret.
    Client(BoxError),
    /// GitLab's answer is not what it should be, such as an ID token that does not verify.
    Answer(BoxError),
    /// The ID token's times and labgate's clock are too far apart.
    ClockSkew(BoxError),
    /// GitLab can't be reached, or asks for less.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
        /// What came in its way.
        source: BoxError,
    },
    /// No GitLab of that name may sign in here.
    UnknownGitLab,
    /// The cookie of the sign-in has not come back, and it shows why.
    Lost(Lost),
    /// Sign-ins end well again and again, but the session never comes back.
    Loop(Lost),
    /// A ticket of another host is none: in what way is for the log only.
    Ticket(&'static str),
    /// Whether a ticket of another host was used before can't be said.
    Unproven(BoxError),
}

impl From<Attempt> for Refusal {
    fn from(attempt: Attempt) -> Self {
        Self::Attempt(attempt)
    }
}

impl Attempt {
    /// A stable word for logs, metrics and problem documents.
    pub fn code(&self) -> &'static str {
        match self {
            Self::State | Self::Lost(_) => "sign_in_state",
            Self::Parameters(_) => "sign_in_parameters",
            Self::Denied => "sign_in_denied",
            Self::Refused(_) => "sign_in_refused",
            Self::CodeExpired(_) => "sign_in_code_expired",
            Self::Account(_) => "account_refused",
            Self::Client(_) => "gitlab_client_refused",
            Self::Answer(_) => "gitlab_answer_invalid",
            Self::ClockSkew(_) => "clock_skew",
            Self::Unavailable { .. } => "gitlab_unavailable",
            Self::UnknownGitLab => "unknown_gitlab",
            Self::Loop(_) => "sign_in_loop",
            Self::Ticket(_) => "hand_over_refused",
            Self::Unproven(_) => "hand_over_unproven",
        }
    }

    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Answer(_)
            | Self::Unavailable { .. }
            | Self::Refused("server_error" | "temporarily_unavailable") => Fault::Provider,
            Self::Client(_)
            | Self::ClockSkew(_)
            | Self::Refused(
                "invalid_scope"
                | "unauthorized_client"
                | "unsupported_response_type"
                | "invalid_request",
            )
            | Self::Unproven(_) => Fault::Us,
            Self::State
            | Self::Lost(_)
            | Self::Loop(_)
            | Self::Ticket(_)
            | Self::Parameters(_)
            | Self::Denied
            | Self::Refused(_)
            | Self::CodeExpired(_)
            | Self::Account(_)
            | Self::UnknownGitLab => Fault::Client,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::State | Self::Parameters(_) | Self::Lost(_) | Self::Loop(_) | Self::Ticket(_) => {
                StatusCode::BAD_REQUEST
            },
            Self::UnknownGitLab => StatusCode::NOT_FOUND,
            Self::Denied | Self::Refused(_) | Self::CodeExpired(_) | Self::Account(_) => {
                StatusCode::FORBIDDEN
            },
            Self::Client(_) | Self::Answer(_) | Self::ClockSkew(_) => StatusCode::BAD_GATEWAY,
            Self::Unavailable { .. } | Self::Unproven(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn words(&self) -> Words {
        match self {
            Self::State => Words::new(
                "This sign-in can't be finished",
                "It was begun in another browser, more than 10 minutes ago, or your browser has not kept its cookie.",
                "Start again, and allow cookies for this site. Always use the same address, with https if the site has it.",
            )
            .operator("If it happens to everybody: people must begin and end at the same host and scheme. Check `server.public_url`, and that the proxy before labgate keeps Host and Set-Cookie."),
            Self::Parameters(_) => Words::new(
                "This sign-in can't be finished",
                "The answer that your browser brought from GitLab is not the one that was asked for.",
                "Start again. If you followed a link from somewhere else, don't trust it.",
            ),
            Self::Denied => Words::new(
                "You were not signed in",
                "At GitLab, the request for access was declined.",
                "If you didn't mean that, start again and choose Authorize.",
            ),
            Self::Refused(code) => refused(code),
            Self::CodeExpired(_) => Words::new(
                "This sign-in took too long",
                "GitLab's answer is only good once and for a few minutes. This one is used or too old.",
                "Start again.",
            )
            .operator("If it happens to everybody, compare the redirect URI registered at GitLab with what `labgate check` prints."),
            Self::Account(_) => Words::new(
                "GitLab doesn't let this account in",
                "It is blocked, deactivated, waiting for approval, or has terms to accept or a password to change.",
                "Open GitLab and see what it asks of you, or ask its administrator. With another account, sign out of GitLab first.",
            ),
            Self::Client(_) => Words::new(
                "This site isn't set up right at GitLab",
                "GitLab does not accept this site's own credentials, so nobody can sign in through it now.",
                "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
            )
            .operator("Compare `client_id` and `client_secret` with the application at GitLab: it may have been deleted, its secret renewed, or its kind (Confidential) not match whether there is a secret."),
            Self::Answer(_) => Words::new(
                "GitLab's answer can't be trusted",
                "It did not pass the checks that make a sign-in safe, so you were not signed in.",
                "Start again. If it stays, tell whoever runs this site, and give them the request id below.",
            )
            .operator("The log says which check failed. `base_url` must be exactly GitLab's external URL, and what answers at `internal_url` the same GitLab."),
            Self::ClockSkew(_) => Words::new(
                "The clocks don't agree",
                "The clock of this server and GitLab's are too far apart to check when GitLab vouched for you.",
                "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
            )
            .operator("Compare `date -u` on both machines and set up time synchronisation; the log has both times."),
            Self::Unavailable { .. } => Words::new(
                "GitLab can't be reached",
                "It does not answer, or says that it is too busy, so you can't be signed in right now.",
                "Wait a little and start again.",
            )
            .operator("The log has the cause: name resolution, TLS, a timeout, or a status such as 429."),
            Self::Lost(lost) => lost.words("This sign-in can't be finished"),
            Self::Loop(lost) => lost.words("Signing in leads nowhere"),
            Self::Ticket(_) => Words::new(
                "You were not signed in here",
                "The ticket that your browser brought for this host is used, too old, or was given to another browser.",
                "Start again. If you followed a link from somewhere else, don't trust it.",
            )
            .operator("If it happens to everybody: all replicas need the same `session.keys` and clocks that agree, and the proxy before labgate must keep Host, Cookie and Set-Cookie on this host and on `server.sign_in_host`."),
            Self::Unproven(_) => Words::new(
                "You can't be signed in here right now",
                "This server can't look up whether the ticket that your browser brought was used before.",
                "Wait a little and start again.",
            )
            .operator("The session store can't be reached: see the log and `session.store`."),
            Self::UnknownGitLab => Words::new(
                "That GitLab isn't used here",
                "This site does not take sign-ins from the GitLab that the address names.",
                "Start again and choose one that is offered.",
            ),
        }
    }
}

/// The words for an error code that GitLab's authorization endpoint sent back (RFC 6749, section 4.1.2.1; OIDC Core, section 3.1.2.6).
fn refused(code: &str) -> Words {
    match code {
        "access_denied" => Attempt::Denied.words(),
        "invalid_scope" => Words::new(
            "This site isn't set up right at GitLab",
            "It asks GitLab for more than it is registered for, so nobody can sign in through it now.",
            "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
        )
        .operator("At GitLab, give the application the scopes that `labgate check` prints: openid, email and read_user, and read_api where rules need it."),
        "unauthorized_client" | "unsupported_response_type" | "invalid_request" => Words::new(
            "This site isn't set up right at GitLab",
            "GitLab does not let it sign people in this way.",
            "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
        )
        .operator("Compare the application at GitLab with what `labgate check` prints, and `authorize_params` with GitLab's documentation."),
        "login_required" | "interaction_required" | "account_selection_required" => Words::new(
            "GitLab needs to see you",
            "You are no longer signed in at GitLab, and it was asked not to bother you.",
            "Start again and sign in there.",
        ),
        "consent_required" => Words::new(
            "GitLab needs your consent",
            "You have not yet allowed this site to know who you are.",
            "Start again and choose Authorize.",
        ),
        "server_error" => Words::new(
            "GitLab had a problem",
            "It could not finish the sign-in and says that the fault is its own.",
            "Start again. If it stays, GitLab's status page or administrator knows more.",
        ),
        "temporarily_unavailable" => Words::new(
            "GitLab is too busy",
            "It can't take sign-ins right now.",
            "Wait a little and start again.",
        ),
        _ => Words::new(
            "GitLab said no",
            "It ended the sign-in without a reason that is known here.",
            "Start again. If it stays, tell whoever runs this site, and give them the request id below.",
        ),
    }
}
