//! Whose token came with a request, and what kind it is: by what GitLab tells the token itself.
//!
//! ```text
//! 64 hex digits ─▶ /oauth/token/info ─▶ this application's? ─▶ /api/v4/user ─▶ userinfo, members
//!                     │ unknown
//! anything else ─▶ personal_access_tokens/self ───────────────▶ /api/v4/user ─▶ members
//!                     │ no personal one: /oauth/token/info
//! job token ────▶ /api/v4/job
//! ```
//!
//! The form of a token only orders the questions: prefixes are the administrator's choice. An OAuth token counts only if it was given to this
//! application, or any other application that somebody once allowed could speak for them here.

use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::{
    CallError, IdentifyError, Provider,
    api::{Bearer, User, complaint, ended, parse, refused, shown_name, standing},
    http::{Answer, USUAL},
    lane::Lane,
    members::{Word, completed, may_ask},
};
use crate::{
    clock::Timestamp,
    config::{ProjectPath, TokenKind},
    identity::{Identity, Job, Kind, Membership},
};

/// A token that counts.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it is.
    pub kind: TokenKind,
    /// Whose it is.
    pub identity: Identity,
    /// When it ends, if that is known.
    pub until: Option<Timestamp>,
}

/// Why a token does not count.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// What is wrong with any access token.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
    /// It was given to another application.
    #[error("the OAuth token was given to another application")]
    Foreign,
    /// Its owner wants a proof of possession with each call.
    #[error("the token's owner demands DPoP, which can't be passed on")]
    Proof,
    /// It is a good one of a kind that is not asked about.
    #[error("the token's kind does not count")]
    Kind(TokenKind),
    /// It is a job token of a merge request's pipeline: GitLab does not say of which project the code is that the job runs.
    #[error("the job is a merge request's, whose code may be a fork's; an ID token tells")]
    MergeRequest,
}

impl From<CallError> for TokenError {
    fn from(error: CallError) -> Self {
        Self::Identify(error.into())
    }
}

/// What is known of a token before its owner is asked for.
struct Known {
    oauth: bool,
    user: u64,
    scopes: Vec<String>,
    until: Option<Timestamp>,
}

impl Known {
    /// Whether userinfo speaks of its owner.
    fn has_claims(&self) -> bool {
        self.oauth && self.scopes.iter().any(|scope| scope == "openid")
    }
}

/// Source: GitLab's `GET /personal_access_tokens/self`.
#[derive(Deserialize)]
struct OwnWord {
    user_id: u64,
    scopes: Vec<String>,
    active: bool,
    revoked: bool,
}

/// Source: GitLab, `app/controllers/oauth/token_info_controller.rb`.
#[derive(Deserialize)]
struct Info {
    resource_owner_id: Option<u64>,
    scope: Vec<String>,
    expires_in: Option<u64>,
    application: Application,
}

#[derive(Deserialize)]
struct Application {
    uid: Option<String>,
}

/// Source: GitLab's `GET /job`.
#[derive(Deserialize)]
struct RunningJob {
    #[serde(rename = "ref")]
    ref_name: String,
    tag: bool,
    web_url: String,
    user: JobUser,
    pipeline: Pipeline,
}

#[derive(Deserialize)]
struct JobUser {
    state: String,
}

#[derive(Deserialize)]
struct Pipeline {
    project_id: u64,
    source: Option<String>,
}

impl Provider {
    /// Whose `token` is, an OAuth token only if `oauth` says that it may be one. Of one that `is_new` GitLab has not known lately: calls about such
    /// take nothing from those about others.
    ///
    /// # Errors
    /// See [`TokenError`]; only [`IdentifyError::Unavailable`] and [`IdentifyError::Answer`] are no verdicts.
    pub async fn check_token(
        &self,
        token: &str,
        oauth: bool,
        is_new: bool,
        now: Timestamp,
    ) -> Result<Checked, TokenError> {
        let stranger = Bearer { token, lane: Lane::of_token(is_new) };
        let known = self.known(stranger, oauth, now).await?;
        // From here on it counts for its account.
        let bearer = Bearer { token, lane: Lane::Token };
        let user = self.user(bearer).await?;
        if user.id != known.user {
            let (user, userinfo) = (user.id.to_string(), known.user.to_string());
            return Err(IdentifyError::Subject { user, userinfo }.into());
        }
        let kind = match known.oauth {
            true => TokenKind::Oauth,
            false => kind_of(&user),
        };
        let identity = self.owner(bearer, user, &known).await?;
        Ok(Checked { kind, identity, until: known.until })
    }

    /// The running CI job that `token` belongs to.
    ///
    /// # Errors
    /// As for other tokens.
    pub async fn check_job_token(&self, token: &str, is_new: bool) -> Result<Checked, TokenError> {
        const ENDPOINT: &str = "/api/v4/job";
        let header = (HeaderName::from_static("job-token"), token);
        let lane = Lane::of_token(is_new);
        let answer = self.client.get_with(lane, "job", "api/v4/job", header).await?;
        if answer.status.is_success() {
            self.client.was_known(lane);
        }
        let job: RunningJob = match answer.status.as_u16() {
            200 => parse(&answer.body, ENDPOINT)?,
            404 if answer.json => return Err(IdentifyError::TokenDead.into()),
            _ => return Err(trouble(&answer, ENDPOINT)),
        };
        standing(&job.user.state)?;
        if job.ref_name.starts_with("refs/merge-requests/") {
            return Err(TokenError::MergeRequest);
        }
        let place = job.web_url.strip_prefix(self.issuer()).and_then(|path| path.strip_prefix('/'));
        let path = place.and_then(|path| path.split_once("/-/")).map(|(path, _)| path.to_owned());
        let path = path.and_then(|path| ProjectPath::try_from(path).ok());
        let path = path.ok_or(IdentifyError::Answer(ENDPOINT))?;
        let path = path.as_str();
        let identity = self.identity_of_job(
            &job.pipeline.project_id.to_string(),
            Job {
                namespace_path: path.rsplit_once('/').map_or("", |(namespace, _)| namespace).into(),
                project_path: path.into(),
                ref_name: job.ref_name,
                is_tag: job.tag,
                pipeline_source: job.pipeline.source,
                // Of these GitLab says nothing here.
                ref_protected: None,
                environment: None,
            },
        );
        Ok(Checked { kind: TokenKind::Job, identity, until: None })
    }

    async fn known(
        &self,
        bearer: Bearer<'_>,
        oauth: bool,
        now: Timestamp,
    ) -> Result<Known, TokenError> {
        let accepts = |kind| self.tokens.accepts(kind);
        let oauth = oauth && accepts(TokenKind::Oauth);
        let personal = [TokenKind::Personal, TokenKind::Project, TokenKind::Group];
        let personal = personal.into_iter().any(accepts);
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let looks_like_oauth = bearer.token.len() == 64 && bearer.token.bytes().all(hex);
        if oauth && (looks_like_oauth || !personal) {
            match self.token_info(bearer, now).await {
                Err(TokenError::Identify(IdentifyError::TokenDead)) if personal => {},
                outcome => return outcome,
            }
            return match self.token_self(bearer).await? {
                Some(known) => Ok(known),
                None => Err(IdentifyError::TokenDead.into()),
            };
        }
        match self.token_self(bearer).await? {
            Some(known) => Ok(known),
            None if oauth => self.token_info(bearer, now).await,
            None => Err(TokenError::Kind(TokenKind::Oauth)),
        }
    }

    /// What a personal token's kin says of itself; none if it is another kind.
    async fn token_self(&self, bearer: Bearer<'_>) -> Result<Option<Known>, TokenError> {
        const ENDPOINT: &str = "/api/v4/personal_access_tokens/self";
        let path = "api/v4/personal_access_tokens/self";
        let answer = self.get(bearer, "token_self", path, USUAL).await?;
        if answer.status.is_success() {
            self.client.was_known(bearer.lane);
        }
        let word: OwnWord = match answer.status.as_u16() {
            200 => parse(&answer.body, ENDPOINT)?,
            400 if answer.json => return Ok(None),
            _ => match trouble(&answer, ENDPOINT) {
                // Any scope will do for a personal token; so it is another kind.
                TokenError::Identify(IdentifyError::Scope(_)) => return Ok(None),
                error => return Err(error),
            },
        };
        match word.active && !word.revoked {
            true => Ok(Some(Known {
                oauth: false,
                user: word.user_id,
                scopes: word.scopes,
                until: None,
            })),
            false => Err(IdentifyError::TokenDead.into()),
        }
    }

    /// What an OAuth token is good for, which GitLab may count for the address even if it knows the token; one that GitLab does not know gets 400, from older versions 401.
    async fn token_info(&self, bearer: Bearer<'_>, now: Timestamp) -> Result<Known, TokenError> {
        const ENDPOINT: &str = "/oauth/token/info";
        let answer = self.get(bearer, "token_info", "oauth/token/info", USUAL).await?;
        let info: Info = match answer.status.as_u16() {
            200 => parse(&answer.body, ENDPOINT)?,
            400 if answer.json => return Err(IdentifyError::TokenDead.into()),
            _ => return Err(trouble(&answer, ENDPOINT)),
        };
        if info.application.uid.as_deref() != Some(&self.client_id) {
            return Err(TokenError::Foreign);
        }
        Ok(Known {
            oauth: true,
            user: info.resource_owner_id.ok_or(IdentifyError::TokenDead)?,
            scopes: info.scope,
            until: info.expires_in.map(|left| now + Duration::from_secs(left)),
        })
    }

    /// All that rules ask about the owner of a token, as far as its scopes let GitLab tell.
    async fn owner(
        &self,
        bearer: Bearer<'_>,
        user: User,
        known: &Known,
    ) -> Result<Identity, TokenError> {
        let sub = user.id.to_string();
        let (email, groups) = self.claimed(bearer, &user, known).await?;
        let tells = may_ask(known.scopes.iter().map(String::as_str));
        let answers = match tells {
            true => self.asked(bearer, &sub, self.needs.undecided(&groups)).await?,
            false => Vec::new(),
        };
        // What the claims leave open only matters where a rule asks for it.
        let decided = known.has_claims() && !self.needs.ask_api();
        let withheld = (!tells && !decided)
            || answers.iter().any(|(_, _, word)| matches!(word, Word::Withheld));
        let (groups, projects) = completed(groups, answers);
        Ok(Identity {
            gitlab: self.name.clone(),
            issuer: self.issuer().to_owned(),
            sub,
            username: user.username,
            name: shown_name(user.name),
            email,
            groups,
            projects,
            two_factor: user.two_factor_enabled,
            external: user.external,
            kind: Kind::Token,
            job: None,
            withheld,
        })
    }

    /// Address and groups by the claims of userinfo, which GitLab tells to OAuth tokens with `openid` alone.
    async fn claimed(
        &self,
        bearer: Bearer<'_>,
        user: &User,
        known: &Known,
    ) -> Result<(Option<String>, Vec<Membership>), TokenError> {
        if !known.has_claims() {
            return Ok((self.email_of(user), Vec::new()));
        }
        let (info, claims) = self.userinfo(bearer).await?;
        if info.sub != user.id.to_string() {
            let (user, userinfo) = (user.id.to_string(), info.sub);
            return Err(IdentifyError::Subject { user, userinfo }.into());
        }
        Ok((self.email(&info), self.needs.reduce_to_few(&claims)))
    }
}

/// What an error answer means for a token.
fn trouble(answer: &Answer, endpoint: &'static str) -> TokenError {
    let error = complaint(answer).and_then(|complaint| complaint.error);
    match answer.status.as_u16() {
        401 if error.as_deref() == Some("dpop_error") => TokenError::Proof,
        403 => ended(answer).unwrap_or_else(|| refused(answer, endpoint)).into(),
        _ => refused(answer, endpoint).into(),
    }
}

/// Accounts of project and group tokens are bots, and called after what they belong to; other bots are service accounts.
///
/// Source: GitLab, `doc/user/project/settings/project_access_tokens.md`.
fn kind_of(user: &User) -> TokenKind {
    let belongs_to = |place: &str| {
        let rest = user.username.strip_prefix(place);
        let named = rest.and_then(|rest| rest.split_once("_bot"));
        named.is_some_and(|(id, _)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match user.bot {
        true if belongs_to("project_") => TokenKind::Project,
        true if belongs_to("group_") => TokenKind::Group,
        true | false => TokenKind::Personal,
    }
}
