//! The words of each refusal that a stranger may read: what happened, what to do, and what whoever runs labgate has to look at.
//!
//! They never repeat what a caller sent: all text here is ours, but for names that the configuration gives, and GitLab's name for whose token it is.

use std::borrow::Cow;

use super::{HookTrouble, Refusal, UpstreamTrouble};

/// What a stranger may read about a refusal, in plain sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// A headline without a full stop.
    pub title: &'static str,
    /// What happened.
    pub detail: Cow<'static, str>,
    /// What to do about it.
    pub advice: &'static str,
    /// What to check for whoever runs labgate, if it is theirs to mend; gives nothing secret away.
    pub operator: Option<&'static str>,
}

impl Words {
    pub(super) const fn new(
        title: &'static str,
        detail: &'static str,
        advice: &'static str,
    ) -> Self {
        Self { title, detail: Cow::Borrowed(detail), advice, operator: None }
    }

    pub(super) fn detail(mut self, detail: String) -> Self {
        self.detail = Cow::Owned(detail);
        self
    }

    pub(super) const fn operator(mut self, check: &'static str) -> Self {
        self.operator = Some(check);
        self
    }
}

impl Refusal {
    /// What a stranger may read about it.
    pub fn words(&self) -> Words {
        match self {
            Self::Malformed(what) => Words::new(
                "This request can't be understood",
                "",
                "Go back and try the link again. If it was made by hand or by a program, correct it.",
            )
            .detail(format!("It could be read in more than one way, so it was not passed on: {what}.")),
            Self::Misdirected => Words::new(
                "Nothing is served under this name",
                "The request reached this server, but it serves no site of that host name.",
                "Check the address for a typing mistake.",
            )
            .operator("No [[route]] serves this host. Compare its `host`, and what the proxy before labgate sends as Host."),
            Self::NotFound => Words::new(
                "There is nothing here",
                "No page or application is served at this address.",
                "Check the address for a typing mistake, or go back.",
            ),
            Self::MethodNotAllowed(_) => Words::new(
                "That can't be done here",
                "This address exists, but does not take requests of this method.",
                "Go back and try another way.",
            ),
            Self::SignIn(_) => Words::new(
                "Sign in to continue",
                "This address is only for people who are signed in.",
                "Sign in with a browser; the address to do so is in `sign_in`.",
            ),
            Self::Token(trouble) => trouble.words(),
            Self::Forbidden(forbidden) => forbidden.words(),
            Self::Unsent(_) => Words::new(
                "Your form was not sent on",
                "Your session here has ended, so what you sent did not reach the application. Nothing is lost: this tab still has it.",
                "Sign in in another tab, come back to this one and reload it.",
            ),
            Self::Unconfirmed { .. } => Words::new(
                "GitLab can't be reached",
                "It has been out of reach for so long that your access can't be confirmed any more.",
                "You are still signed in. Wait a little and try again.",
            )
            .operator("See the log for why GitLab does not answer. `session.grace` says for how long its last word counts."),
            Self::Attempt(attempt) => attempt.words(),
            Self::Upstream(trouble) => trouble.words(),
            Self::Exhausted(limit) => Words::new(
                "Too busy right now",
                "",
                "Wait a few seconds and try again.",
            )
            .detail(format!("This server handles as much as it may at once (limit: {limit})."))
            .operator("See `server.limits` and the metric labgate_limits_reached_total."),
            Self::CrossSite => Words::new(
                "This came from another site",
                "The request changes something, and another site sent it in your name, so it was not carried out.",
                "Open this site itself and try again there.",
            )
            .operator("If that was no other site, check that the proxy before labgate keeps Host, or is in `server.trusted_proxies`."),
            Self::Hook(trouble) => trouble.words(),
            Self::Api(trouble) => trouble.words(),
            Self::Front(trouble) => trouble.words(),
            Self::Renew(_) => Words::new(
                "One moment",
                "Your sign-in goes on under a new cookie, which your browser has to fetch first.",
                "Open the address again.",
            ),
            Self::Internal(_) => Words::new(
                "Something went wrong here",
                "This is a fault of the server, not yours.",
                "Try again. If it stays, tell whoever runs this site, and give them the request id below.",
            )
            .operator("The log has the cause under this request id."),
        }
    }
}

impl HookTrouble {
    fn words(self) -> Words {
        match self {
            Self::Token => Words::new(
                "This hook is not from GitLab",
                "Its X-Gitlab-Token is missing or not the one that is configured here.",
                "At GitLab, enter the secret of `hook_secret` as the hook's secret token.",
            ),
            Self::Body(what) => Words::new(
                "This hook can't be understood",
                "",
                "Only GitLab's system hooks and group webhooks are taken here, as GitLab sends them.",
            )
            .detail(format!("Its body is not what GitLab sends: {what}.")),
            Self::TooLarge => Words::new(
                "This hook is too large",
                "Its body is longer than 1 MiB.",
                "At GitLab, leave only the events on that are listed in labgate's documentation.",
            ),
            Self::Slow => Words::new(
                "This hook is too slow",
                "Its body did not come in time.",
                "Send it again.",
            ),
            Self::TooMany { .. } => Words::new(
                "Too many hooks",
                "More came at once than are taken here.",
                "At GitLab, leave only the events on that are listed in labgate's documentation.",
            ),
        }
    }
}

impl UpstreamTrouble {
    fn words(&self) -> Words {
        match self {
            Self::Unreachable(_) => Words::new(
                "The application isn't answering",
                "You may use it, but it can't be reached right now. It may be starting.",
                "Wait a little and try again.",
            )
            .operator("The log has the cause. Check that the application runs and listens where the route's `upstream` says."),
            Self::Slow => Words::new(
                "The application is taking too long",
                "It got the request, but did not begin to answer in time.",
                "Try again. Take care if you were changing something: it may have been done.",
            )
            .operator("`response_timeout` of the upstream says how long labgate waits."),
            Self::Broken(_) => Words::new(
                "The application's answer is broken",
                "It ended early or is not proper HTTP, so it could not be passed on.",
                "Try again. Take care if you were changing something: it may have been done.",
            )
            .operator("The log says what was wrong with the response."),
        }
    }
}
