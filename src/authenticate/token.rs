//! Callers without a browser: the token that came with a request becomes whoever it was given to, or the reason why not.
//!
//! ```text
//! headers ─▶ credential ─▶ which GitLab ─▶ cache ─▶ asked once, beside the request ─▶ kind taken here? ─▶ Authenticated
//!              │none: the session        │several: say which                          │no, or no word: TokenTrouble
//! ```
//!
//! A token counts before a session, and one that does not count is refused even beside a good session: whoever sends a token means it. No token is
//! shown to a GitLab that may not have given it: among several the caller names one, and a CI job's token names its issuer.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use tokio::time::timeout;

use super::{
    Authenticated, Authenticator, Caller,
    credential::{Form, Presented, Takes, presented},
    job,
    token_cache::{Found, Source, Verdict},
};
use crate::{
    clock::Timestamp,
    config::TokenKind,
    gitlab::{CallError, Checked, IdentifyError, Provider, TokenError, Unverified},
    refusal::{Cause, Refusal, TokenTrouble},
    target::Target,
};

/// How a token is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// GitLab is asked whose it is; whether it may be an OAuth token.
    Account { oauth: bool },
    /// GitLab is asked for the running job.
    Job,
    /// Its signature says it.
    Signed,
}

impl Way {
    /// Kinds that it can turn out to be.
    fn kinds(self) -> &'static [TokenKind] {
        use TokenKind::{Ci, Group, Job, Oauth, Personal, Project};
        match self {
            Self::Account { oauth: true } => &[Oauth, Personal, Project, Group],
            Self::Account { oauth: false } => &[Personal, Project, Group],
            Self::Job => &[Job],
            Self::Signed => &[Ci],
        }
    }

    /// What it is called as long as nothing is known of it.
    fn word(self) -> &'static str {
        match self {
            Self::Account { .. } => "unknown",
            Self::Job => TokenKind::Job.as_str(),
            Self::Signed => TokenKind::Ci.as_str(),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Account { oauth: true } => 0,
            Self::Account { oauth: false } => 1,
            Self::Job => 2,
            Self::Signed => 3,
        }
    }
}

impl Authenticator {
    /// Who asks for `target` with these `headers`, where `takes` says which tokens count: the token's owner, or else the session's.
    ///
    /// # Errors
    /// [`Refusal::Token`] when a token came that does not count; else as [`Self::authenticate`].
    pub async fn recognise(
        &self,
        target: &Target,
        headers: &HeaderMap,
        takes: &Takes,
        now: Timestamp,
    ) -> Result<Authenticated, Refusal> {
        if !takes.any() {
            return self.authenticate(target, headers, now).await;
        }
        let credential = presented(headers, takes.basic);
        let refused = |trouble: TokenTrouble, kind| {
            self.metrics.token_check(kind, result(&trouble));
            Refusal::Token(trouble)
        };
        match credential.map_err(|trouble| refused(trouble, "unknown"))? {
            None => self.authenticate(target, headers, now).await,
            Some(credential) => {
                let way = self.way(&credential, takes);
                let way = way.map_err(|trouble| refused(trouble, "unknown"))?;
                let named = headers.get(GITLAB).map(|name| name.to_str().unwrap_or_default());
                let caller = self.caller(&credential, way, named, takes, now).await;
                let checked = caller.map_err(Refusal::Token)?;
                let consumed = consumed(headers, credential.header);
                let caller = Some(Box::new(Caller { checked, consumed }));
                Ok(Authenticated { caller, ..Authenticated::default() })
            },
        }
    }

    /// How to ask about a token. Its form orders the questions, and says no more.
    fn way(&self, credential: &Presented, takes: &Takes) -> Result<Way, TokenTrouble> {
        let token = credential.token.as_str();
        let jwt = Unverified::read(token);
        let is_ours = |audience: &String| {
            let mut gitlabs = takes.kinds.iter();
            gitlabs.any(|(name, _)| {
                self.providers.get(name).is_some_and(|provider| provider.client_id() == audience)
            })
        };
        match (credential.form, jwt) {
            (Form::Job, _) => Ok(Way::Job),
            (Form::Any, Some(jwt)) if jwt.of_a_job => Ok(Way::Signed),
            (_, Some(jwt)) if jwt.audiences.iter().any(is_ours) => Err(TokenTrouble::SignIn),
            (Form::Any, None) if token.starts_with(JOB_PREFIX) => Ok(Way::Job),
            (Form::Any, _) => Ok(Way::Account { oauth: true }),
            (Form::Private, _) => Ok(Way::Account { oauth: false }),
        }
    }

    async fn caller(
        &self,
        credential: &Presented,
        way: Way,
        named: Option<&str>,
        takes: &Takes,
        now: Timestamp,
    ) -> Result<Arc<Checked>, TokenTrouble> {
        let mut last = match self.candidates(credential, way, named, takes) {
            Ok(candidates) => {
                let mut last = TokenTrouble::Malformed;
                for provider in candidates {
                    match self.asked(credential, way, provider, now).await {
                        Ok(checked) if takes.takes(provider.name(), checked.kind) => {
                            return Ok(checked);
                        },
                        Ok(checked) => {
                            let kind = checked.kind.as_str();
                            last = TokenTrouble::Kind { kind, accepted: Vec::new() };
                        },
                        Err(trouble) => last = trouble,
                    }
                }
                last
            },
            Err(trouble) => {
                self.metrics.token_check(way.word(), result(&trouble));
                trouble
            },
        };
        if let TokenTrouble::Kind { accepted, .. } = &mut last {
            *accepted = takes.words();
        }
        Err(last)
    }

    /// The GitLabs that may have given the token; one, or several of one issuer.
    fn candidates(
        &self,
        credential: &Presented,
        way: Way,
        named: Option<&str>,
        takes: &Takes,
    ) -> Result<Vec<&Arc<Provider>>, TokenTrouble> {
        let fits = |name: &str| way.kinds().iter().any(|kind| takes.takes(name, *kind));
        let fitting = takes.kinds.iter().filter(|(name, _)| fits(name));
        let able: Vec<_> = fitting.filter_map(|(name, _)| self.providers.get(name)).collect();
        if able.is_empty() {
            let kind = match way {
                Way::Account { .. } => "an access token",
                Way::Job | Way::Signed => way.word(),
            };
            return Err(TokenTrouble::Kind { kind, accepted: Vec::new() });
        }
        let list = || able.iter().map(|provider| provider.name().to_owned()).collect();
        let chosen: Vec<_> = match (way, named) {
            (_, Some(named)) => {
                able.iter().copied().filter(|provider| provider.name() == named).collect()
            },
            (Way::Signed, None) => {
                let jwt = Unverified::read(&credential.token);
                let issuer = jwt.map(|jwt| jwt.issuer).unwrap_or_default();
                let issuer = issuer.trim_end_matches('/');
                able.iter().copied().filter(|provider| provider.issuer() == issuer).collect()
            },
            (Way::Account { .. } | Way::Job, None) if able.len() > 1 => Vec::new(),
            (Way::Account { .. } | Way::Job, None) => able.clone(),
        };
        match (chosen.is_empty(), way, named) {
            (false, ..) => Ok(chosen),
            (true, Way::Signed, None) => {
                let cause = "the token names the issuer of no GitLab whose CI jobs count here";
                Err(TokenTrouble::Invalid(Arc::from(
                    Box::<dyn std::error::Error + Send + Sync>::from(cause),
                )))
            },
            (true, ..) => Err(TokenTrouble::WhichGitLab(list())),
        }
    }

    /// What `provider` says of the token, from memory or by asking it.
    async fn asked(
        &self,
        credential: &Presented,
        way: Way,
        provider: &Arc<Provider>,
        now: Timestamp,
    ) -> Verdict {
        let key = self.tokens.key(provider.fingerprint(), way.number(), &credential.token);
        let key_is_here = || provider.has_key_for(&credential.token);
        let source = match way {
            Way::Account { .. } | Way::Job => Source::GitLab {
                most: usize::try_from(provider.tokens().max_checks).unwrap_or(usize::MAX),
            },
            Way::Signed => Source::Signature { key_is_here: &key_is_here },
        };
        let mut waiting = match self.tokens.find(key, provider.name(), source, now) {
            Found::Known(verdict) => {
                self.metrics.token_check(kind(&verdict, way), "cached");
                return verdict;
            },
            Found::Asked(waiting) => waiting,
            Found::Mine(ticket, waiting) => {
                let (provider, token) = (provider.clone(), credential.token.clone());
                let lasts = provider.tokens().cache;
                // A caller that goes away cancels nothing: others may wait for the same answer.
                self.background.spawn(async move {
                    let is_new = ticket.is_new();
                    let (verdict, is_final) = ask(&provider, way, &token, is_new, now).await;
                    ticket.land(verdict, now, is_final.then_some(lasts));
                });
                waiting
            },
            Found::Full => {
                self.metrics.token_check(way.word(), "capped");
                return Err(TokenTrouble::Capped { retry_after: SOON });
            },
        };
        let heard = timeout(PATIENCE, waiting.wait_for(Option::is_some)).await;
        let verdict = heard.ok().and_then(Result::ok).and_then(|verdict| verdict.clone());
        let verdict = verdict.unwrap_or_else(|| Err(TokenTrouble::Capped { retry_after: SOON }));
        let counted = verdict.as_ref().map_or_else(result, |_| "accepted");
        self.metrics.token_check(kind(&verdict, way), counted);
        verdict
    }
}

/// What of `headers` belongs to the token that came in `header`.
fn consumed(headers: &HeaderMap, header: HeaderName) -> HeaderMap {
    let mut consumed = HeaderMap::new();
    for name in [header, GITLAB] {
        if let Some(value) = headers.get(&name) {
            let mut value = value.clone();
            value.set_sensitive(true);
            consumed.insert(name, value);
        }
    }
    consumed
}

/// What `provider` says of the token, and whether that is a verdict.
async fn ask(
    provider: &Provider,
    way: Way,
    token: &str,
    is_new: bool,
    now: Timestamp,
) -> (Verdict, bool) {
    let checked = match way {
        Way::Account { oauth } => provider.check_token(token, oauth, is_new, now).await,
        Way::Job => provider.check_job_token(token, is_new).await,
        Way::Signed => return job::ask(provider, token, now).await,
    };
    let verdict = checked.map(Arc::new).map_err(trouble);
    let is_final =
        !matches!(&verdict, Err(TokenTrouble::Unheard { .. } | TokenTrouble::Capped { .. }));
    (verdict, is_final)
}

fn trouble(error: TokenError) -> TokenTrouble {
    match error {
        TokenError::Foreign => TokenTrouble::Foreign,
        TokenError::Proof => TokenTrouble::Proof,
        TokenError::MergeRequest => TokenTrouble::Invalid(cause(error)),
        TokenError::Kind(kind) => TokenTrouble::Kind { kind: kind.as_str(), accepted: Vec::new() },
        TokenError::Identify(IdentifyError::Scope(_)) => TokenTrouble::Scope("read_user"),
        TokenError::Identify(IdentifyError::Ended(ended)) => {
            TokenTrouble::Account(cause(IdentifyError::Ended(ended)))
        },
        TokenError::Identify(
            error @ (IdentifyError::TokenDead | IdentifyError::Subject { .. }),
        ) => TokenTrouble::Invalid(cause(error)),
        TokenError::Identify(IdentifyError::Unavailable { source, retry_after }) => {
            unheard(source, retry_after)
        },
        TokenError::Identify(error @ IdentifyError::Answer(_)) => {
            TokenTrouble::Unheard { retry_after: COME_BACK, source: cause(error) }
        },
    }
}

/// GitLab gave no word.
pub(super) fn unheard(source: CallError, retry_after: Option<Duration>) -> TokenTrouble {
    match source {
        CallError::Busy => TokenTrouble::Capped { retry_after: SOON },
        CallError::Spent(wait) => TokenTrouble::Capped { retry_after: wait.max(SOON) },
        source => TokenTrouble::Unheard {
            retry_after: retry_after.unwrap_or(COME_BACK).max(SOON),
            source: cause(source),
        },
    }
}

pub(super) fn cause(error: impl std::error::Error + Send + Sync + 'static) -> Cause {
    Arc::new(error)
}

/// What the token is called in metrics.
fn kind(verdict: &Verdict, way: Way) -> &'static str {
    verdict.as_ref().map_or(way.word(), |checked| checked.kind.as_str())
}

/// What a refused token is counted as.
fn result(trouble: &TokenTrouble) -> &'static str {
    match trouble {
        TokenTrouble::Unheard { .. } => "unconfirmed",
        TokenTrouble::Capped { .. } => "capped",
        _ => "refused",
    }
}

/// Names the GitLab that a token is of, where several may be meant.
const GITLAB: HeaderName = HeaderName::from_static("x-labgate-gitlab");

/// What job tokens begin with, unless they are old.
const JOB_PREFIX: &str = "glcbt-";

/// How long a request waits for GitLab's word on its token.
const PATIENCE: Duration = Duration::from_secs(15);

/// When to come back for a turn.
const SOON: Duration = Duration::from_secs(1);

/// When to come back while GitLab does not answer.
const COME_BACK: Duration = Duration::from_secs(5);
