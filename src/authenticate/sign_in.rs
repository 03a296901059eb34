//! Signing in: authorization code with S256, `state` and `nonce` (RFC 6749, RFC 7636, `OpenID` Connect Core 3.1).
//!
//! ```text
//! start     attempt in a sealed cookie ──▶ 302 GitLab
//! callback  state against the cookie, spent ▶ iss ▶ code ▶ tokens ▶ ID token ▶ user and groups ▶ session under a new id
//! ```
//!
//! Nothing is redeemed before the state holds. All talk with GitLab runs in a task of its own: a browser that goes away cancels nothing.

use std::{borrow::Cow, error::Error, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::{Authenticator, site};
use crate::{
    clock::Timestamp,
    gitlab::{AuthorizeRequest, ExchangeError, IdTokenError, IdentifyError, Provider},
    identity::Identity,
    refusal::{Attempt, Refusal},
    session::{self, AttemptError, Session, Site, Tokens, Wish},
    target::Target,
};

/// What a person wants who begins to sign in.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// With which GitLab.
    pub provider: &'a Provider,
    /// The URL to land on, already checked.
    pub rd: String,
    /// The redirect URI that GitLab knows.
    pub redirect_uri: String,
    /// Whether GitLab must ask who it is, even if it knows somebody.
    pub other_account: bool,
    /// Parameters passed on to GitLab.
    pub forwarded: Vec<(String, String)>,
    /// The nonce of the hand-over that another host waits for; empty if none does.
    pub reply: String,
    /// Which round this is of sign-ins that lead nowhere, from 1.
    pub round: u8,
}

/// A sign-in that has begun.
#[derive(Debug)]
pub struct Started {
    /// GitLab's authorize page.
    pub location: String,
    /// `Set-Cookie` values that keep the attempt.
    pub set_cookies: Vec<HeaderValue>,
}

/// A sign-in that has ended well.
#[derive(Debug)]
pub struct Landed {
    /// The URL that was wanted; check it again before following it.
    pub rd: String,
    /// The nonce of the hand-over that another host waits for; empty if none does.
    pub reply: String,
    /// When the sign-in began.
    pub began: Timestamp,
    /// The new session.
    pub session: Arc<Session>,
    /// `Set-Cookie` values that keep the session and end the attempt.
    pub set_cookies: Vec<HeaderValue>,
}

/// A sign-in that did not work out.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub reason: Refusal,
    /// The URL that was wanted, if a sign-in of this browser was; check it again before following it.
    pub rd: Option<String>,
    /// `Set-Cookie` values that end the attempt: its state is good for one answer. None if this one was not looked at and may come again.
    pub set_cookies: Vec<HeaderValue>,
}

impl From<Attempt> for Failed {
    fn from(reason: Attempt) -> Self {
        Self { reason: reason.into(), rd: None, set_cookies: Vec::new() }
    }
}

impl Authenticator {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// [`Refusal::Internal`] without random numbers.
    pub fn start(
        &self,
        start: Start<'_>,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Started, Refusal> {
        let Start { provider, rd, redirect_uri, other_account, forwarded, reply, round } = start;
        let wish = Wish { gitlab: provider.name().into(), rd, redirect_uri, reply, round };
        let (attempt, set_cookies) = self
            .attempts
            .begin(headers, site(target), wish, now)
            .map_err(|error| Refusal::Internal(error.into()))?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(attempt.verifier.as_bytes()));
        let location = provider.authorize_url(&AuthorizeRequest {
            redirect_uri: &attempt.wish.redirect_uri,
            state: &attempt.state,
            nonce: &attempt.nonce,
            challenge: &challenge,
            prompt_login: other_account,
            extra: &forwarded,
        });
        Ok(Started { location: location.into(), set_cookies })
    }

    /// Ends the sign-in that `target`, GitLab's answer, belongs to.
    ///
    /// # Errors
    /// Why it did not work out.
    pub async fn callback(
        &self,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Landed, Failed> {
        let query = target.path_and_query().split_once('?').map_or("", |(_, query)| query);
        let answer = Answer::read(query)?;
        let state = answer.state.as_deref().ok_or(Attempt::State)?;
        let site = site(target);
        let (attempt, ended) =
            self.attempts.take(headers, site, state, now).map_err(|error: AttemptError| {
                tracing::debug!(reason = %error, "a callback fits no sign-in of this browser");
                Attempt::State
            })?;
        let Wish { rd, reply, round, .. } = attempt.wish.clone();
        let began = attempt.created;
        let Some(slot) = self.sign_ins.slot() else {
            let reason = Refusal::Exhausted("sign_ins");
            return Err(Failed { reason, rd: Some(rd), set_cookies: Vec::new() });
        };
        let finished = match self.sign_ins.spend(state, now) {
            true => self.finish(&answer, attempt, slot, site, now).await,
            false => Err(Attempt::State),
        };
        match finished {
            Ok((session, cookie)) => {
                let mut set_cookies = vec![cookie, ended];
                set_cookies.extend(self.attempts.landed(site, round, now));
                Ok(Landed { rd, reply, began, session, set_cookies })
            },
            Err(reason) => {
                Err(Failed { reason: reason.into(), rd: Some(rd), set_cookies: vec![ended] })
            },
        }
    }

    /// The session that `answer` gives to `attempt`, and its cookie.
    async fn finish(
        &self,
        answer: &Answer<'_>,
        attempt: session::Attempt,
        slot: OwnedSemaphorePermit,
        site: Site<'_>,
        now: Timestamp,
    ) -> Result<(Arc<Session>, HeaderValue), Attempt> {
        let provider = self.providers.get(&attempt.wish.gitlab).ok_or(Attempt::UnknownGitLab)?;
        let outcome = self.redeem(provider, answer, attempt, slot, now).await;
        let result = outcome.as_ref().map_or_else(Attempt::code, |_| "signed_in");
        self.metrics.sign_in(provider.name(), result);
        let session = outcome?;
        let packed = self.codec.pack(&session, site, now).map_err(|e| Attempt::Answer(e.into()))?;
        if packed.dropped_groups > 0 {
            tracing::warn!(
                user = %session.identity,
                groups.dropped = packed.dropped_groups,
                "not all groups fit the session cookie; narrow `identity.groups` to those that the application needs"
            );
        }
        let session = Arc::new(session);
        self.store.begin(&session, session.until(&self.deadlines), now);
        Ok((session, packed.cookie))
    }

    async fn redeem(
        &self,
        provider: &Arc<Provider>,
        answer: &Answer<'_>,
        attempt: session::Attempt,
        slot: OwnedSemaphorePermit,
        now: Timestamp,
    ) -> Result<Session, Attempt> {
        if answer
            .iss
            .as_deref()
            .is_some_and(|issuer| issuer.trim_end_matches('/') != provider.issuer())
        {
            return Err(Attempt::Parameters("iss"));
        }
        if let Some(error) = &answer.error {
            return Err(refused(error));
        }
        let code = answer.code.as_deref().ok_or(Attempt::Parameters("code"))?.to_owned();
        let asked = provider.clone();
        let signed_in = self.background.spawn(async move {
            // The task outlives its request, and holds its slot for as long.
            let _slot = slot;
            ask(&asked, &code, &attempt, now).await
        });
        let (identity, tokens) = signed_in.await.map_err(|e| Attempt::Answer(e.into()))??;
        let ruled_groups = provider.ruled_groups(&identity);
        Session::start(identity, ruled_groups, tokens, now, &self.random)
            .map_err(|error| Attempt::Answer(error.into()))
    }
}

/// From the code to the account: exchange, ID token, user and groups.
async fn ask(
    provider: &Provider,
    code: &str,
    attempt: &session::Attempt,
    now: Timestamp,
) -> Result<(Identity, Tokens), Attempt> {
    let set = provider
        .exchange(code, &attempt.verifier, &attempt.wish.redirect_uri)
        .await
        .map_err(exchange_failed)?;
    let claims =
        provider.verify_id_token(&set, Some(&attempt.nonce), now).await.map_err(id_token_failed)?;
    let identity = provider.identify_newcomer(&set.access).await.map_err(identify_failed)?;
    if identity.sub != claims.sub || identity.issuer != claims.issuer {
        return Err(Attempt::Answer("ID token and API speak of different users".into()));
    }
    Ok((identity, super::refresh::received(set, now)))
}

/// The parameters of GitLab's answer, each at most once.
#[derive(Debug, Default)]
struct Answer<'a> {
    state: Option<Cow<'a, str>>,
    code: Option<Cow<'a, str>>,
    iss: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
}

impl<'a> Answer<'a> {
    fn read(query: &'a str) -> Result<Self, Attempt> {
        let mut answer = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let (field, name) = match name.as_ref() {
                "state" => (&mut answer.state, "state"),
                "code" => (&mut answer.code, "code"),
                "iss" => (&mut answer.iss, "iss"),
                "error" => (&mut answer.error, "error"),
                _ => continue,
            };
            if field.replace(value).is_some() {
                return Err(Attempt::Parameters(name));
            }
        }
        let empty = |field: &mut Option<Cow<'_, str>>| {
            if field.as_ref().is_some_and(|value| value.is_empty()) {
                *field = None;
            }
        };
        empty(&mut answer.state);
        empty(&mut answer.code);
        empty(&mut answer.error);
        Ok(answer)
    }
}

/// GitLab's error codes that are known by name; whatever else comes is never repeated.
fn refused(error: &str) -> Attempt {
    const KNOWN: [&str; 13] = [
        "invalid_request",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "login_required",
        "consent_required",
        "interaction_required",
        "account_selection_required",
        "invalid_client",
        "invalid_grant",
        "invalid_redirect_uri",
    ];
    match error {
        "access_denied" => Attempt::Denied,
        "temporarily_unavailable" | "server_error" => Attempt::Unavailable {
            retry_after: RETRY_AFTER,
            source: "GitLab answered the sign-in with an error of its own".into(),
        },
        error => {
            Attempt::Refused(KNOWN.into_iter().find(|known| *known == error).unwrap_or("unknown"))
        },
    }
}

fn exchange_failed(error: ExchangeError) -> Attempt {
    match error {
        ExchangeError::InvalidGrant => Attempt::CodeExpired(error.into()),
        ExchangeError::InvalidClient => Attempt::Client(error.into()),
        ExchangeError::Unavailable { retry_after, .. } => unavailable(retry_after, error),
        ExchangeError::Answer(_) => Attempt::Answer(error.into()),
    }
}

fn id_token_failed(error: IdTokenError) -> Attempt {
    match error {
        error if error.is_clock() => Attempt::ClockSkew(error.into()),
        IdTokenError::Unavailable { retry_after, .. } => unavailable(retry_after, error),
        error => Attempt::Answer(error.into()),
    }
}

fn identify_failed(error: IdentifyError) -> Attempt {
    match error {
        IdentifyError::Ended(_) => Attempt::Account(error.into()),
        IdentifyError::Scope(_) => Attempt::Refused("invalid_scope"),
        IdentifyError::Unavailable { retry_after, .. } => unavailable(retry_after, error),
        IdentifyError::TokenDead | IdentifyError::Answer(_) | IdentifyError::Subject { .. } => {
            Attempt::Answer(error.into())
        },
    }
}

fn unavailable(
    retry_after: Option<Duration>,
    source: impl Error + Send + Sync + 'static,
) -> Attempt {
    let retry_after = retry_after.unwrap_or(RETRY_AFTER);
    Attempt::Unavailable { retry_after, source: source.into() }
}

/// When to try again if GitLab does not say.
const RETRY_AFTER: Duration = Duration::from_secs(10);
