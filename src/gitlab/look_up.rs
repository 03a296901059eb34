//! Somebody by name, as an operator's own token sees them: for questions to be answered, never to let anybody in.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    IdentifyError, Provider,
    api::{Bearer, parse, refused, standing},
    http::USUAL,
    lane::Lane,
    members::{Kind, Word, completed},
};
use crate::{config::AccessLevel, identity::Identity};

/// Somebody, and what the token could not see.
#[derive(Debug)]
pub struct LookedUp {
    /// Who it is; flags and address only if the token's owner is an administrator.
    pub identity: Identity,
    /// Groups and projects that rules mention, but whose members the token's owner may not see.
    pub unseen: Vec<String>,
    /// Groups that are reached by sharing alone, which does not count as sign-ins don't ask for the scope that tells of it.
    pub shared: Vec<String>,
}

#[derive(Deserialize)]
struct Account {
    id: u64,
    username: String,
    name: Option<String>,
    state: String,
    email: Option<String>,
    confirmed_at: Option<String>,
    two_factor_enabled: Option<bool>,
    external: Option<bool>,
}

impl Provider {
    /// The user called `username`, with what rules need to know, asked with `token`; none if there is no such user.
    ///
    /// Source: GitLab's users API, `GET /users?username=`.
    ///
    /// # Errors
    /// See [`IdentifyError`]; the token's faults are told as those of a user's.
    pub async fn look_up(
        &self,
        token: &str,
        username: &str,
    ) -> Result<Option<LookedUp>, IdentifyError> {
        const ENDPOINT: &str = "/api/v4/users";
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(IdentifyError::TokenDead);
        }
        let bearer = Bearer { token, lane: Lane::Person };
        let name = utf8_percent_encode(username, NON_ALPHANUMERIC);
        let path = format!("api/v4/users?username={name}");
        let answer = self.get(bearer, "users", &path, USUAL).await?;
        let accounts: Vec<Account> = match answer.status.as_u16() {
            200 => parse(&answer.body, ENDPOINT)?,
            _ => return Err(refused(&answer, ENDPOINT)),
        };
        let named = |account: &Account| account.username.eq_ignore_ascii_case(username);
        let Some(account) = accounts.into_iter().find(named) else { return Ok(None) };
        standing(&account.state)?;
        let sub = account.id.to_string();
        let answers = self.asked(bearer, &sub, self.needs.undecided(&[])).await?;
        let (unseen, mut seen): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, _, word)| matches!(word, Word::Unseen));
        if seen.iter().any(|(_, _, word)| matches!(word, Word::Withheld)) {
            return Err(IdentifyError::Scope("members"));
        }
        let mut shared = Vec::new();
        if !self.reads_api() {
            for (kind, path, word) in &mut seen {
                if let (Kind::Group, Word::Member(level)) = (*kind, &*word) {
                    let inherited = self.inherited(bearer, &sub, path).await?;
                    if inherited.is_none() && *level > AccessLevel::MINIMAL {
                        shared.push(path.clone());
                    }
                    *word = inherited.map_or(Word::NoMember, Word::Member);
                }
            }
        }
        let (groups, projects) = completed(Vec::new(), seen);
        let confirmed = account.confirmed_at.is_some() || !self.verified_email;
        let identity = Identity {
            gitlab: self.name.clone(),
            issuer: self.issuer().to_owned(),
            sub,
            username: account.username,
            name: account.name.unwrap_or_default(),
            email: account.email.filter(|_| confirmed),
            groups,
            projects,
            two_factor: account.two_factor_enabled,
            external: account.external,
            ..Identity::default()
        };
        let unseen = unseen.into_iter().map(|(_, path, _)| path).collect();
        Ok(Some(LookedUp { identity, unseen, shared }))
    }
}
