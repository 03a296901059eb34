//! Who the bearer of an access token is: `/api/v4/user` first, for it names blocked accounts clearly; then userinfo, for the groups; then
//! the members API, for what neither says.
//!
//! Any doubt (no answer, a page, a bare 403 as GitLab's IP blocks send it) is [`IdentifyError::Unavailable`], never a verdict on the person. An
//! e-mail address of somebody who signs in comes from userinfo alone: only there GitLab says whether it is verified.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::{
    CallError, Provider,
    groups::Claims,
    http::{Answer, USUAL},
    lane::Lane,
};
use crate::identity::Identity;

/// The most bytes read of userinfo: some hundred thousand group paths.
const USERINFO: usize = 8 << 20;
/// The longest username and display name, in characters; GitLab allows 255.
const NAME: usize = 255;
/// The longest e-mail address (RFC 5321).
const EMAIL: usize = 254;

/// Why an account has no access, as far as GitLab says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Blocked, banned, or waiting for approval.
    #[error("blocked")]
    Blocked,
    /// Deactivated for having been away; signing in at GitLab wakes it.
    #[error("deactivated")]
    Deactivated,
    /// GitLab wants something of the person first: terms, e-mail address, password.
    #[error("not allowed by GitLab until its owner acts there")]
    Pending,
    /// Another reason.
    #[error("not allowed by GitLab")]
    Other,
}

/// Why nobody was identified.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// The account exists and may not be used.
    #[error("the account is {0}")]
    Ended(Ended),
    /// The access token is expired, revoked, or replaced by a refresh.
    #[error("the access token is not valid any more")]
    TokenDead,
    /// The token lacks a scope: the application or `scopes` is configured wrongly.
    #[error("the access token lacks a scope for {0}")]
    Scope(&'static str),
    /// No word on the person at all.
    #[error("GitLab gives no word on the person")]
    Unavailable {
        /// When to ask again, if GitLab says so.
        retry_after: Option<Duration>,
        /// What happened.
        source: CallError,
    },
    /// The answer is not what GitLab sends.
    #[error("unexpected answer from {0}")]
    Answer(&'static str),
    /// Two answers to one token speak of different people: somebody tampers.
    #[error("userinfo speaks of user {userinfo}, the API of user {user}")]
    Subject {
        /// The id in `/api/v4/user`.
        user: String,
        /// The `sub` in userinfo.
        userinfo: String,
    },
}

impl From<CallError> for IdentifyError {
    fn from(source: CallError) -> Self {
        let retry_after = source.retry_after();
        Self::Unavailable { retry_after, source }
    }
}

/// Whose questions, and what for.
#[derive(Clone, Copy)]
pub(super) struct Bearer<'a> {
    pub(super) token: &'a str,
    pub(super) lane: Lane,
}

#[derive(Deserialize)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) username: String,
    pub(super) name: Option<String>,
    state: String,
    pub(super) two_factor_enabled: Option<bool>,
    pub(super) external: Option<bool>,
    #[serde(default)]
    pub(super) bot: bool,
    email: Option<String>,
    confirmed_at: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct UserInfo {
    pub(super) sub: String,
    email: Option<String>,
    email_verified: Option<bool>,
}

/// An error answer of the API, in either of its two forms.
#[derive(Deserialize)]
pub(super) struct Complaint {
    pub(super) error: Option<String>,
    pub(super) message: Option<serde_json::Value>,
}

impl Provider {
    /// The person behind `access_token`, as GitLab knows them now.
    ///
    /// # Errors
    /// See [`IdentifyError`]; only [`IdentifyError::Ended`] is GitLab's word that the person may not come in.
    pub async fn identify(&self, access_token: &str) -> Result<Identity, IdentifyError> {
        self.ask(Bearer { token: access_token, lane: Lane::Person }).await
    }

    /// The same of somebody who is just signing in: such calls take nothing from those about people who are signed in.
    ///
    /// # Errors
    /// See [`IdentifyError`].
    pub async fn identify_newcomer(&self, access_token: &str) -> Result<Identity, IdentifyError> {
        self.ask(Bearer { token: access_token, lane: Lane::Newcomer }).await
    }

    async fn ask(&self, bearer: Bearer<'_>) -> Result<Identity, IdentifyError> {
        if !bearer.token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(IdentifyError::TokenDead);
        }
        let user = self.user(bearer).await?;
        let (info, claims) = self.userinfo(bearer).await?;
        let sub = user.id.to_string();
        if info.sub != sub {
            return Err(IdentifyError::Subject { user: sub, userinfo: info.sub });
        }
        let email = self.email(&info);
        let groups = self.needs.reduce(&claims);
        drop(claims);
        let (groups, projects) = self.settle(bearer, &sub, groups).await?;
        Ok(Identity {
            gitlab: self.name.clone(),
            issuer: self.issuer().to_owned(),
            sub,
            name: shown_name(user.name),
            username: user.username,
            email,
            groups,
            projects,
            two_factor: user.two_factor_enabled,
            external: user.external,
            ..Identity::default()
        })
    }

    pub(super) async fn get(
        &self,
        Bearer { token, lane }: Bearer<'_>,
        endpoint: &'static str,
        path: &str,
        limit: usize,
    ) -> Result<Answer, CallError> {
        self.client.get(lane, endpoint, path, Some(token), limit).await
    }

    pub(super) async fn user(&self, bearer: Bearer<'_>) -> Result<User, IdentifyError> {
        const ENDPOINT: &str = "/api/v4/user";
        let answer = self.get(bearer, "user", "api/v4/user", USUAL).await?;
        let user: User = match answer.status.as_u16() {
            200 => parse(&answer.body, ENDPOINT)?,
            403 => return Err(ended(&answer).unwrap_or_else(|| refused(&answer, ENDPOINT))),
            _ => return Err(refused(&answer, ENDPOINT)),
        };
        standing(&user.state)?;
        let plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        match plain(&user.username) && user.username.len() <= NAME {
            true => Ok(user),
            false => Err(IdentifyError::Answer(ENDPOINT)),
        }
    }

    pub(super) async fn userinfo(
        &self,
        bearer: Bearer<'_>,
    ) -> Result<(UserInfo, Claims), IdentifyError> {
        const ENDPOINT: &str = "/oauth/userinfo";
        let answer = self.get(bearer, "userinfo", "oauth/userinfo", USERINFO).await?;
        match answer.status.as_u16() {
            200 => Ok((parse(&answer.body, ENDPOINT)?, parse(&answer.body, ENDPOINT)?)),
            _ => Err(refused(&answer, ENDPOINT)),
        }
    }

    /// The e-mail address that counts; `email_verified` must be the JSON value `true`.
    pub(super) fn email(&self, info: &UserInfo) -> Option<String> {
        let counts = !self.verified_email || info.email_verified == Some(true);
        info.email.as_ref().filter(|_| counts).filter(|email| is_plain(email)).cloned()
    }

    /// The same of an account that userinfo does not speak of. A bot's is nobody's, though GitLab made it one of its own host's.
    pub(super) fn email_of(&self, user: &User) -> Option<String> {
        let counts = !self.verified_email || user.confirmed_at.is_some();
        user.email.as_ref().filter(|email| counts && !user.bot && is_plain(email)).cloned()
    }
}

fn is_plain(email: &str) -> bool {
    email.len() <= EMAIL
        && email.contains('@')
        && !email.chars().any(|sign| sign.is_control() || sign.is_whitespace())
}

/// A display name, as long as it may be.
pub(super) fn shown_name(name: Option<String>) -> String {
    name.unwrap_or_default().chars().take(NAME).collect()
}

/// Whether an account in this state may be used.
pub(super) fn standing(state: &str) -> Result<(), IdentifyError> {
    Err(IdentifyError::Ended(match state {
        "active" => return Ok(()),
        "blocked" | "ldap_blocked" | "banned" | "blocked_pending_approval" => Ended::Blocked,
        "deactivated" => Ended::Deactivated,
        _ => Ended::Other,
    }))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(
    body: &Bytes,
    endpoint: &'static str,
) -> Result<T, IdentifyError> {
    // The cause would quote the answer, so it is dropped.
    serde_json::from_slice(body).map_err(|_| IdentifyError::Answer(endpoint))
}

/// What an error answer means for the token; anything that says nothing of it, such as a bare 403, is no verdict.
pub(super) fn refused(answer: &Answer, endpoint: &'static str) -> IdentifyError {
    match answer.status.as_u16() {
        401 => IdentifyError::TokenDead,
        403 if lacks_scope(answer) => IdentifyError::Scope(endpoint),
        status => CallError::Status(status, None).into(),
    }
}

/// The verdict on the account in a 403 of `/api/v4/user`, which GitLab gives before it looks at scopes.
///
/// Source: GitLab, `lib/api/api_guard.rb`.
pub(super) fn ended(answer: &Answer) -> Option<IdentifyError> {
    let complaint = complaint(answer)?;
    let message = complaint.message.as_ref()?.as_str()?;
    let ended = message.starts_with("403 Forbidden") && !lacks_scope(answer);
    ended.then(|| IdentifyError::Ended(cause(message)))
}

fn lacks_scope(answer: &Answer) -> bool {
    const ERROR: &str = "insufficient_scope";
    let error = complaint(answer).and_then(|complaint| complaint.error);
    error.as_deref() == Some(ERROR) || answer.challenge.contains(ERROR)
}

pub(super) fn complaint(answer: &Answer) -> Option<Complaint> {
    answer.json.then(|| serde_json::from_slice(&answer.body).ok()).flatten()
}

/// A guess at the cause, for words only: GitLab may change its texts.
fn cause(message: &str) -> Ended {
    let message = message.to_ascii_lowercase();
    let says = |word: &str| message.contains(word);
    if says("deactivated") {
        Ended::Deactivated
    } else if says("terms") || says("confirm") || says("password") {
        Ended::Pending
    } else if says("blocked") || says("banned") || says("approval") {
        Ended::Blocked
    } else {
        Ended::Other
    }
}
