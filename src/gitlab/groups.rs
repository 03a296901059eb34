//! From the claims of userinfo to memberships: thousands of groups in, those that matter out, those that rules mention first.
//!
//! GitLab's `groups` holds every group that somebody is a direct member of, and all descendants of those; the role lists hold direct roles
//! only, developer and up. So what is not in `groups` is no membership, whatever is held above that path: the group has moved, or there never was one.
//! The role that is certain in a group is the highest one in it or in an ancestor; of a membership without any, only that it exists. Minimal access is
//! in no claim.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::members::may_ask;
use crate::{
    config::{AccessLevel, GroupPath, GroupPattern, ProjectPath},
    identity::{Identity, Membership},
};

/// Groups handed on beside those that rules mention, at most; a cookie holds fewer.
const HANDED_ON: usize = 1000;

/// Bytes of the paths of groups that are handed on of a caller without a cookie.
const FEW: usize = 2000;

/// A group that a rule mentions, with the least role that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNeed {
    /// Full path.
    pub path: GroupPath,
    /// The role; none if any membership will do.
    pub role: Option<AccessLevel>,
}

/// What labgate needs to know of somebody.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// What rules mention, in any order, repeated as often as they do.
    pub groups: Vec<GroupNeed>,
    /// The projects that rules mention, each once.
    pub projects: Vec<ProjectPath>,
    /// Whether rules look at the account's own flags.
    pub flags: bool,
    /// What is handed on beside that.
    pub hand_on: Vec<GroupPattern>,
}

impl GroupNeed {
    /// Whether the claims can't decide it, which name roles from developer upwards only, so that the API must be asked.
    pub fn asks_api(&self) -> bool {
        self.role.is_some_and(|role| role < AccessLevel::DEVELOPER)
    }
}

impl Needs {
    /// Whether some rule can only be decided by asking GitLab's API for the role.
    pub(super) fn ask_api(&self) -> bool {
        !self.projects.is_empty() || self.groups.iter().any(GroupNeed::asks_api)
    }

    /// Whether rules need to know of `identity` what nobody has asked GitLab, though a token with these scopes lets it tell.
    pub(super) fn lack(&self, identity: &Identity, scopes: &str) -> bool {
        let unsaid = self.flags && identity.two_factor.is_none() && identity.external.is_none();
        let is_known = |(place, project): (usize, &ProjectPath)| {
            // In the same order, unless the rules have changed since.
            identity.projects.get(place).is_some_and(|known| project.is(&known.path))
                || identity.in_project(project).is_some()
        };
        let unknown = || !self.projects.iter().enumerate().all(is_known);
        unsaid || (unknown() && may_ask(scopes.split(' ')))
    }

    /// The scopes `configured`, and what rules need beyond them.
    pub fn scopes(&self, configured: &[String]) -> Vec<String> {
        let mut scopes = configured.to_vec();
        if self.ask_api() && !may_ask(scopes.iter().map(String::as_str)) {
            scopes.push("read_api".into());
        }
        scopes
    }

    /// The memberships that matter, those handed on only while they take as little room as in a cookie.
    pub(super) fn reduce_to_few(&self, claims: &Claims) -> Vec<Membership> {
        let mut room = FEW;
        let mut memberships = self.reduce(claims);
        memberships.retain(|membership| {
            self.groups.iter().any(|need| need.path.is(&membership.path)) || {
                let left = room.checked_sub(membership.path.len());
                room = left.unwrap_or_default();
                left.is_some()
            }
        });
        memberships
    }

    /// The memberships that matter: those that rules mention first, then those handed on, in GitLab's order; each group once.
    pub(super) fn reduce(&self, claims: &Claims) -> Vec<Membership> {
        let roles = claims.roles();
        let written: HashMap<String, &str> =
            claims.groups.iter().map(|path| (path.to_ascii_lowercase(), path.as_str())).collect();
        let certain = |lower: &str| {
            effective(lower, |group| roles.get(group).copied()).unwrap_or(AccessLevel::MINIMAL)
        };
        let mut seen = HashSet::new();
        let mut memberships = Vec::new();
        for need in &self.groups {
            let lower = need.path.as_str().to_ascii_lowercase();
            if let Some(path) = written.get(&lower)
                && !seen.contains(&lower)
            {
                memberships.push(Membership { path: (*path).into(), level: certain(&lower) });
                seen.insert(lower);
            }
        }
        let handed_on = claims.groups.iter().filter_map(|path| {
            let wanted = self.hand_on.iter().any(|pattern| pattern.matches(path));
            let lower = path.to_ascii_lowercase();
            (wanted && seen.insert(lower.clone())).then_some((path, lower))
        });
        memberships.extend(
            handed_on
                .take(HANDED_ON)
                .map(|(path, lower)| Membership { path: path.clone(), level: certain(&lower) }),
        );
        memberships
    }

    /// The groups in which the claims leave open whether a rule's role is held: they know no sharing, and no role below developer.
    pub(super) fn undecided(&self, memberships: &[Membership]) -> Vec<String> {
        let mut open: Vec<String> = Vec::new();
        for need in &self.groups {
            let known = memberships.iter().find(|membership| need.path.is(&membership.path));
            let wanted = need.role.unwrap_or(AccessLevel::MINIMAL);
            let decided = known.is_some_and(|membership| membership.level >= wanted);
            if !decided && !open.iter().any(|path| need.path.is(path)) {
                // As GitLab writes it, where the claims show that.
                open.push(known.map_or(need.path.as_str(), |group| &group.path).to_owned());
            }
        }
        open
    }
}

/// The highest level that `level` knows of `path` or an ancestor.
fn effective(path: &str, level: impl Fn(&str) -> Option<AccessLevel>) -> Option<AccessLevel> {
    let ancestors = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
    ancestors.chain([path]).filter_map(level).max()
}

/// The claims of userinfo that speak of groups. GitLab leaves out empty role lists, but never an empty `groups`.
///
/// Source: GitLab, `config/initializers/doorkeeper_openid_connect.rb`.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    groups: Vec<String>,
    #[serde(rename = "https://gitlab.org/claims/groups/owner", default)]
    owner: Vec<String>,
    #[serde(rename = "https://gitlab.org/claims/groups/maintainer", default)]
    maintainer: Vec<String>,
    #[serde(rename = "https://gitlab.org/claims/groups/developer", default)]
    developer: Vec<String>,
}

impl Claims {
    /// Direct roles by lower-case path.
    fn roles(&self) -> HashMap<String, AccessLevel> {
        let lists = [
            (&self.developer, AccessLevel::DEVELOPER),
            (&self.maintainer, AccessLevel::MAINTAINER),
            (&self.owner, AccessLevel::OWNER),
        ];
        let roles = lists.into_iter().flat_map(|(paths, level)| {
            paths.iter().map(move |path| (path.to_ascii_lowercase(), level))
        });
        // The lists go upwards, so the highest role stays.
        roles.collect()
    }
}
