//! From the claims of userinfo to memberships: thousands of groups in, those that matter out, those that rules mention first.
//!
//! GitLab's `groups` holds every group that somebody is a direct member of, and all descendants of those; the role lists hold direct roles
//! only, developer and up. The role that is certain in a group is the highest one in it or in an ancestor; of a membership without any, only
//! that it exists.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::{
    config::{AccessLevel, GroupPath, GroupPattern},
    identity::Membership,
};

/// Groups handed on beside those that rules mention, at most; a cookie holds fewer.
const HANDED_ON: usize = 1000;

/// A group that a rule mentions, with the least role that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNeed {
    /// Full path.
    pub path: GroupPath,
    /// The role; none if any membership will do.
    pub role: Option<AccessLevel>,
}

/// What labgate needs to know of somebody's groups.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// What rules mention, in any order, repeated as often as they do.
    pub groups: Vec<GroupNeed>,
    /// What is handed on beside that.
    pub hand_on: Vec<GroupPattern>,
}

impl GroupNeed {
    /// Whether the claims can't decide it: they name roles from developer upwards only.
    fn is_below_developer(&self) -> bool {
        self.role.is_some_and(|role| role > AccessLevel::MINIMAL && role < AccessLevel::DEVELOPER)
    }
}

impl Needs {
    /// Whether some rule can only be decided by asking GitLab's API for the role.
    pub(super) fn ask_api(&self) -> bool {
        self.groups.iter().any(GroupNeed::is_below_developer)
    }

    /// The scopes `configured`, and what rules need beyond them.
    pub fn scopes(&self, configured: &[String]) -> Vec<String> {
        let mut scopes = configured.to_vec();
        let reads_api = scopes.iter().any(|scope| matches!(scope.as_str(), "api" | "read_api"));
        if self.ask_api() && !reads_api {
            scopes.push("read_api".into());
        }
        scopes
    }

    /// The memberships that matter: those that rules mention first, then those handed on, in GitLab's order; each group once.
    pub(super) fn reduce(&self, claims: &Claims) -> Vec<Membership> {
        let roles = claims.roles();
        let written: HashMap<String, &str> =
            claims.groups.iter().map(|path| (path.to_ascii_lowercase(), path.as_str())).collect();
        let mut seen = HashSet::new();
        let mut memberships = Vec::new();
        for need in &self.groups {
            let lower = need.path.as_str().to_ascii_lowercase();
            let level = effective(&lower, |group| {
                let member = written.contains_key(group).then_some(AccessLevel::MINIMAL);
                member.max(roles.get(group).copied())
            });
            if let Some(level) = level.filter(|_| !seen.contains(&lower)) {
                let path = written.get(&lower).copied().unwrap_or(need.path.as_str());
                memberships.push(Membership { path: path.into(), level });
                seen.insert(lower);
            }
        }
        let handed_on = claims.groups.iter().filter_map(|path| {
            let wanted = self.hand_on.iter().any(|pattern| pattern.matches(path));
            let lower = path.to_ascii_lowercase();
            (wanted && seen.insert(lower.clone())).then_some((path, lower))
        });
        memberships.extend(
            handed_on.take(HANDED_ON).map(|(path, lower)| Membership {
                path: path.clone(),
                level: effective(&lower, |group| roles.get(group).copied())
                    .unwrap_or(AccessLevel::MINIMAL),
            }),
        );
        memberships
    }

    /// The groups whose role must be asked for: a member by the claims, though not certainly with the role of the rule.
    pub(super) fn undecided(&self, memberships: &[Membership]) -> Vec<usize> {
        let undecided = |membership: &Membership| {
            self.groups.iter().any(|need| {
                need.is_below_developer()
                    && need.path.is(&membership.path)
                    && need.role.is_some_and(|role| membership.level < role)
            })
        };
        let found = memberships.iter().enumerate().filter(|(_, membership)| undecided(membership));
        found.map(|(index, _)| index).collect()
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
