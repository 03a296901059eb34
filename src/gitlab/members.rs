//! Roles that only the members API knows: in projects, in groups by sharing, and those below developer; all asked of one person at once.
//!
//! Every question is put with the person's own token, so what they may not see is 404 to them, as it would be at GitLab. A place that has moved
//! answers with a redirect: it is not followed, for the rule means what has that path now.

use futures_util::{StreamExt, TryStreamExt, future::try_join, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    CallError, IdentifyError, Provider,
    api::{Bearer, complaint, parse, refused},
    http::{Answer, USUAL},
};
use crate::{
    config::AccessLevel,
    identity::{Membership, ProjectMembership},
};

/// Questions to the members API at a time, of one person.
const AT_ONCE: usize = 20;

/// What a role is held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Group,
    Project,
}

/// What GitLab says to one question.
pub(super) enum Word {
    Member(AccessLevel),
    NoMember,
    /// The place does not exist, as far as the token's owner may see.
    Unseen,
    /// The token may not ask: it was given before a rule asked for this.
    Withheld,
}

#[derive(Deserialize)]
struct Member {
    access_level: u8,
    membership_state: Option<String>,
}

#[derive(Deserialize)]
struct Project {
    archived: bool,
}

impl Provider {
    /// The memberships in `groups`, completed where the claims leave them open, and those in the projects that rules mention.
    pub(super) async fn settle(
        &self,
        bearer: Bearer<'_>,
        sub: &str,
        groups: Vec<Membership>,
    ) -> Result<(Vec<Membership>, Vec<ProjectMembership>), IdentifyError> {
        let open = if self.reads_api() { self.needs.undecided(&groups) } else { Vec::new() };
        Ok(completed(groups, self.asked(bearer, sub, open).await?))
    }

    /// What GitLab says of the person in each of `groups` and in the projects that rules mention.
    pub(super) async fn asked(
        &self,
        bearer: Bearer<'_>,
        sub: &str,
        groups: Vec<String>,
    ) -> Result<Vec<(Kind, String, Word)>, IdentifyError> {
        let projects = self.needs.projects.iter().map(|path| path.as_str().to_owned());
        let questions = groups.into_iter().map(|path| (Kind::Group, path));
        // Collected first: a closure inside the stream would make this future impossible to spawn.
        let questions: Vec<_> = questions
            .chain(projects.map(|path| (Kind::Project, path)))
            .map(|(kind, path)| async move {
                let word = self.word(bearer, sub, kind, &path);
                let archived = self.is_closed(bearer, kind, &path);
                let (word, archived) = try_join(word, archived).await?;
                let word = if archived { Word::NoMember } else { word };
                Ok::<_, IdentifyError>((kind, path, word))
            })
            .collect();
        stream::iter(questions).buffered(AT_ONCE).try_collect().await
    }

    /// Whether `path` is an archived project, and membership in such counts for nothing.
    ///
    /// Source: GitLab's projects API, `GET /projects/:id`.
    async fn is_closed(
        &self,
        bearer: Bearer<'_>,
        kind: Kind,
        path: &str,
    ) -> Result<bool, IdentifyError> {
        const ENDPOINT: &str = "/api/v4/projects/:id";
        if self.archived || kind == Kind::Group {
            return Ok(false);
        }
        let place = utf8_percent_encode(path, SEGMENT);
        let answer = self.get(bearer, "projects", &format!("api/v4/projects/{place}"), USUAL).await;
        let answer = match answer {
            // What is said of members tells the same.
            Err(CallError::Redirect(301 | 308)) => return Ok(false),
            answer => answer?,
        };
        match answer.status.as_u16() {
            200 => Ok(parse::<Project>(&answer.body, ENDPOINT)?.archived),
            404 if answer.json => Ok(false),
            _ => match refused(&answer, ENDPOINT) {
                IdentifyError::Scope(_) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Whether tokens of sign-ins may ask for memberships.
    pub(super) fn reads_api(&self) -> bool {
        may_ask(self.scopes.iter().map(String::as_str))
    }

    /// The role that the person has in the group at `path` or holds in one around it, sharing left aside: what the claims know.
    ///
    /// Source: GitLab's members API, `GET /groups/:id/members/:user_id`.
    pub(super) async fn inherited(
        &self,
        bearer: Bearer<'_>,
        sub: &str,
        path: &str,
    ) -> Result<Option<AccessLevel>, IdentifyError> {
        let around = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        let mut most = None;
        for place in around.chain([path]) {
            let word = self.member(bearer, sub, Kind::Group, place, "members").await?;
            if let Word::Member(level) = word
                && level > AccessLevel::MINIMAL
            {
                most = most.max(Some(level));
            }
        }
        Ok(most)
    }

    /// What GitLab says of the person in the group or project at `path`.
    ///
    /// Source: GitLab's members API, `GET /{groups,projects}/:id/members/all/:user_id`.
    async fn word(
        &self,
        bearer: Bearer<'_>,
        sub: &str,
        kind: Kind,
        path: &str,
    ) -> Result<Word, IdentifyError> {
        self.member(bearer, sub, kind, path, "members/all").await
    }

    async fn member(
        &self,
        bearer: Bearer<'_>,
        sub: &str,
        kind: Kind,
        path: &str,
        list: &str,
    ) -> Result<Word, IdentifyError> {
        let (places, endpoint) = match kind {
            Kind::Group => ("groups", "/api/v4/groups/:id/members"),
            Kind::Project => ("projects", "/api/v4/projects/:id/members"),
        };
        let place = utf8_percent_encode(path, SEGMENT);
        let call = format!("api/v4/{places}/{place}/{list}/{sub}");
        let answer = match self.get(bearer, "members", &call, USUAL).await {
            Err(CallError::Redirect(301 | 308)) => {
                tracing::warn!(gitlab = self.name(), path, "a rule names what has moved at GitLab");
                return Ok(Word::NoMember);
            },
            answer => answer?,
        };
        let member: Member = match answer.status.as_u16() {
            200 => parse(&answer.body, endpoint)?,
            404 if answer.json => return Ok(absent(&answer)),
            _ => match refused(&answer, endpoint) {
                IdentifyError::Scope(_) => return Ok(Word::Withheld),
                error => return Err(error),
            },
        };
        let active = member.membership_state.is_none_or(|state| state == "active");
        let level = AccessLevel::from_number(member.access_level).filter(|_| active);
        Ok(level.map_or(Word::NoMember, Word::Member))
    }
}

/// Which of GitLab's two kinds of 404 it is: `404 Not found` speaks of the member, `404 Group Not Found` of the place.
fn absent(answer: &Answer) -> Word {
    let message = complaint(answer).and_then(|complaint| complaint.message);
    let of_place = message.as_ref().and_then(serde_json::Value::as_str).is_some_and(|text| {
        ["404 Group", "404 Project"].iter().any(|start| text.starts_with(start))
    });
    if of_place { Word::Unseen } else { Word::NoMember }
}

/// Whether one of `scopes` lets a token ask for memberships.
pub(super) fn may_ask<'a>(mut scopes: impl Iterator<Item = &'a str>) -> bool {
    scopes.any(|scope| matches!(scope, "api" | "read_api"))
}

/// `groups` with the roles that were asked for, new ones first, where those are that rules mention; and the projects.
pub(super) fn completed(
    mut groups: Vec<Membership>,
    answers: Vec<(Kind, String, Word)>,
) -> (Vec<Membership>, Vec<ProjectMembership>) {
    let (mut shared, mut projects) = (Vec::new(), Vec::new());
    for (kind, path, word) in answers {
        let level = match word {
            Word::Member(level) => Some(level),
            // What somebody may not see, they are no member of.
            Word::NoMember | Word::Unseen => None,
            // What the claims say has to do until the next sign-in; of projects they say nothing.
            Word::Withheld => continue,
        };
        match (kind, level) {
            (Kind::Project, level) => projects.push(ProjectMembership { path, level }),
            (Kind::Group, Some(level)) => {
                let known = groups.iter_mut().find(|group| group.path.eq_ignore_ascii_case(&path));
                match known {
                    Some(group) => group.level = group.level.max(level),
                    None => shared.push(Membership { path, level }),
                }
            },
            (Kind::Group, None) => {},
        }
    }
    shared.append(&mut groups);
    (shared, projects)
}

/// All but what a path may hold beside its slashes.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
