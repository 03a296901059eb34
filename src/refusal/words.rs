//! The words of each refusal that a stranger may read: what happened, what to do, and what whoever runs labgate has to look at.
//!
//! They never repeat what a peer sent: all text here is ours, but for names that the configuration gives.

use std::borrow::Cow;

use super::{Attempt, HookTrouble, Refusal, UpstreamTrouble};

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
            Self::Forbidden(forbidden) if forbidden.scope.is_some() => Words::new(
                "This token lacks a scope",
                "",
                "Make a token that has it, or ask for access by something that its scopes let GitLab tell.",
            )
            .detail(format!(
                "Without the scope {} GitLab does not tell what the rules here ask for.",
                forbidden.scope.unwrap_or_default()
            )),
            Self::Unsent(_) => Words::new(
                "Your form was not sent on",
                "Your session here has ended, so what you sent did not reach the application. Nothing is lost: this tab still has it.",
                "Sign in in another tab, come back to this one and reload it.",
            ),
            Self::Forbidden(_) => Words::new(
                "You don't have access",
                "You are signed in, but your account may not open this.",
                "Ask whoever looks after the group or this site for access, or sign in as someone else. New access counts within a few minutes.",
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

impl Attempt {
    fn words(&self) -> Words {
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
