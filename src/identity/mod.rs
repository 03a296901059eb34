//! Who is asking, as GitLab says it, keyed by issuer and subject; and how upstreams are told.

mod assertion;
mod headers;
mod job;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::{
    assertion::{
        Asserted, AssertionError, AssertionKeyError, Assertions, Occasion, Signed, Unsigned,
    },
    headers::{HeaderTable, HeaderTableError, NoRoom, Passing},
    job::{Job, Kind},
};
use crate::config::{AccessLevel, GroupPath, ProjectPath};

/// Who is asking: a user of one GitLab, or a CI job. Two identities are the same person if `gitlab`, `issuer` and `sub` agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name of the `[gitlab.NAME]` table.
    pub gitlab: String,
    /// Issuer of the ID token: the external URL of that GitLab.
    pub issuer: String,
    /// GitLab's user id as decimal text; of a CI job `project:` and the project's id.
    pub sub: String,
    /// Username, which its owner may change; of a CI job its project's full path, which is no username as it has a slash.
    pub username: String,
    /// Display name; free text.
    pub name: String,
    /// E-mail address, only if it counts as verified.
    pub email: Option<String>,
    /// Groups, those that rules mention first; paths as GitLab writes them.
    pub groups: Vec<Membership>,
    /// Projects that rules mention, and what GitLab said of each; one that is not here was not asked about.
    pub projects: Vec<ProjectMembership>,
    /// Whether a second factor is set up; none if GitLab has not said.
    pub two_factor: Option<bool>,
    /// Whether it is an external user, who sees only what they are a member of; none if GitLab has not said.
    pub external: Option<bool>,
    /// What kind of caller it is.
    pub kind: Kind,
    /// The CI job, if it is one.
    pub job: Option<Box<Job>>,
    /// Whether GitLab withheld memberships, because the token lacks the scope `read_api`.
    pub withheld: bool,
}

/// One group of which somebody is a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Full path as GitLab writes it.
    pub path: String,
    /// The least role that is certain, inherited from ancestors where that is more.
    #[serde(with = "level_number")]
    pub level: AccessLevel,
}

/// What GitLab said of somebody in one project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectMembership {
    /// Full path as the rule writes it.
    pub path: String,
    /// The effective role, inherited and shared ones included; none if it is no member.
    #[serde(with = "level_number::optional")]
    pub level: Option<AccessLevel>,
}

impl Identity {
    /// The effective role in `group`, as GitLab said it of that very group. What is said of one around it tells nothing: the group may have moved.
    pub fn level_in(&self, group: &GroupPath) -> Option<AccessLevel> {
        let own = self.groups.iter().filter(|membership| group.is(&membership.path));
        own.map(|membership| membership.level).max()
    }

    /// The same with those of `groups` that lie in a group of theirs, for where nobody has asked GitLab about each.
    #[must_use]
    pub fn inheriting<'a>(&self, groups: impl IntoIterator<Item = &'a GroupPath>) -> Self {
        let mut heir = self.clone();
        for group in groups {
            let around = self.groups.iter().filter(|membership| group.is_within(&membership.path));
            if let Some(level) = around.map(|membership| membership.level).max() {
                heir.groups.push(Membership { path: group.as_str().into(), level });
            }
        }
        heir
    }

    /// What GitLab said of this project; none if it was not asked.
    pub fn in_project(&self, project: &ProjectPath) -> Option<&ProjectMembership> {
        self.projects.iter().find(|membership| project.is(&membership.path))
    }

    /// Whether `other` is the same account at the same GitLab, whatever it is called by now.
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.gitlab == other.gitlab && self.issuer == other.issuer && self.sub == other.sub
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.username, self.gitlab)
    }
}

/// Levels are kept as GitLab's integers, so that one we have no name for survives.
mod level_number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::config::AccessLevel;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(level: &AccessLevel, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(level.number())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AccessLevel, D::Error> {
        let number = u8::deserialize(from)?;
        AccessLevel::from_number(number).ok_or_else(|| D::Error::custom("no membership"))
    }

    /// No membership is 0.
    pub(super) mod optional {
        use serde::{Deserialize, Deserializer, Serializer};

        use crate::config::AccessLevel;

        #[expect(
            clippy::ref_option,
            clippy::trivially_copy_pass_by_ref,
            reason = "serde's signature"
        )]
        pub(in super::super) fn serialize<S: Serializer>(
            level: &Option<AccessLevel>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.serialize_u8(level.map_or(0, AccessLevel::number))
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<AccessLevel>, D::Error> {
            u8::deserialize(from).map(AccessLevel::from_number)
        }
    }
}
