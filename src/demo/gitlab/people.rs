//! Who exists in the development GitLab: users, nested groups and projects, and the roles they hold.
//!
//! ```text
//! acme (private)            root owner, alice and bob developer, dave developer
//! ├── acme/ops              alice maintainer
//! │   └── runbooks (project)
//! └── acme/web              bob maintainer
//!     └── shop (project)    carol reporter, of the project alone
//! open (public)             nobody
//! └── handbook (project)
//! ```
//!
//! Membership is inherited downwards and may come by sharing a group with another. What of this is told to whom is left to the
//! claims and the API.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A role in a group or project, with GitLab's level as its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Level 5.
    Minimal = 5,
    /// Level 10.
    Guest = 10,
    /// Level 15.
    Planner = 15,
    /// Level 20.
    Reporter = 20,
    /// Level 30.
    Developer = 30,
    /// Level 40.
    Maintainer = 40,
    /// Level 50.
    Owner = 50,
}

impl Role {
    /// GitLab's number for it.
    pub const fn level(self) -> u8 {
        self as u8
    }
}

/// What GitLab thinks of an account; decides sign-in, API and userinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserState {
    /// May do everything.
    Active,
    /// Blocked by an administrator.
    Blocked,
    /// Banned by an administrator.
    Banned,
    /// Waits for an administrator.
    BlockedPendingApproval,
    /// Dormant; signing in wakes it.
    Deactivated,
    /// The primary address was never confirmed.
    Unconfirmed,
    /// Has not accepted the terms of service.
    TermsNotAccepted,
    /// Must choose a new password first.
    PasswordExpired,
    /// Too many failed sign-ins.
    Locked,
}

impl UserState {
    /// Whether GitLab's scope of active users contains it; userinfo and ID tokens need that.
    pub(super) const fn is_active(self) -> bool {
        match self {
            Self::Active
            | Self::Unconfirmed
            | Self::TermsNotAccepted
            | Self::PasswordExpired
            | Self::Locked => true,
            Self::Blocked | Self::Banned | Self::BlockedPendingApproval | Self::Deactivated => {
                false
            },
        }
    }

    /// The word in the `state` member of API answers.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Active
            | Self::Unconfirmed
            | Self::TermsNotAccepted
            | Self::PasswordExpired
            | Self::Locked => "active",
            Self::Blocked => "blocked",
            Self::Banned => "banned",
            Self::BlockedPendingApproval => "blocked_pending_approval",
            Self::Deactivated => "deactivated",
        }
    }
}

/// Who may see a group or project without being a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Members only.
    #[default]
    Private,
    /// Everybody signed in who is not external.
    Internal,
    /// The world.
    Public,
}

/// An account.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "these are GitLab's own flags on an account")]
pub(super) struct User {
    /// GitLab's number, the `sub` of tokens.
    pub(super) id: u64,
    /// The name in URLs; can be changed.
    pub(super) username: String,
    /// Free text.
    pub(super) name: String,
    /// The primary address.
    pub(super) email: Option<String>,
    /// Whether it was confirmed.
    pub(super) email_verified: bool,
    /// The address shown to everybody.
    pub(super) public_email: Option<String>,
    /// Whether the account may be used.
    pub(super) state: UserState,
    /// Administrator of the instance.
    pub(super) admin: bool,
    /// External user, who sees no internal projects.
    pub(super) external: bool,
    /// Two-factor authentication is set up.
    pub(super) two_factor: bool,
    /// The account of a project or group token.
    pub(super) bot: bool,
    /// Last sign-in in any browser.
    pub(super) signed_in_at: Option<Timestamp>,
    /// When the account was made.
    pub(super) created_at: Timestamp,
}

/// A group shared with another group, at most with this role.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    with: u64,
    most: Role,
}

/// A group or a project: a place where people hold roles.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: u64,
    pub(super) path: String,
    pub(super) visibility: Visibility,
    /// Of projects: nothing can be changed in it any more.
    pub(super) archived: bool,
    pub(super) members: BTreeMap<u64, Role>,
    shares: Vec<Share>,
}

impl Place {
    pub(super) fn new(id: u64, path: &str, visibility: Visibility) -> Self {
        let (path, members, shares) = (path.to_owned(), BTreeMap::new(), Vec::new());
        Self { id, path, visibility, archived: false, members, shares }
    }

    pub(super) fn share(&mut self, with: u64, most: Role) {
        self.shares.push(Share { with, most });
    }
}

/// All users, groups and projects.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) users: Vec<User>,
    pub(super) groups: Vec<Place>,
    pub(super) projects: Vec<Place>,
    /// Former paths of projects, which GitLab answers with a redirect until another project takes them.
    pub(super) moved: BTreeMap<String, u64>,
}

impl Directory {
    pub(super) fn user(&self, id: u64) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    pub(super) fn user_mut(&mut self, id: u64) -> Option<&mut User> {
        self.users.iter_mut().find(|user| user.id == id)
    }

    pub(super) fn user_named(&self, username: &str) -> Option<&User> {
        self.users.iter().find(|user| user.username.eq_ignore_ascii_case(username))
    }

    /// The group with this number or full path.
    pub(super) fn group(&self, id_or_path: &str) -> Option<&Place> {
        find(&self.groups, id_or_path)
    }

    /// The project with this number or full path.
    pub(super) fn project(&self, id_or_path: &str) -> Option<&Place> {
        find(&self.projects, id_or_path)
    }

    /// The project that had this path before.
    pub(super) fn moved_project(&self, path: &str) -> Option<&Place> {
        let id = self.moved.get(&path.to_ascii_lowercase())?;
        self.projects.iter().find(|project| project.id == *id)
    }

    /// Paths of the groups with a direct membership: the claim `groups_direct`. Minimal access is none for it.
    pub(super) fn groups_direct(&self, user: u64) -> Vec<&str> {
        let held = self.direct(user).filter(|(_, role)| *role > Role::Minimal);
        held.map(|(group, _)| group.path.as_str()).collect()
    }

    /// Paths of those groups and all their descendants: the claim `groups`. Sharing does not count (gitlab#340905).
    pub(super) fn groups_with_descendants(&self, user: u64) -> Vec<&str> {
        let direct: HashSet<&str> = self.groups_direct(user).into_iter().collect();
        let paths = self.groups.iter().map(|group| group.path.as_str());
        paths.filter(|path| ancestry(path).any(|part| direct.contains(part))).collect()
    }

    /// Paths of the groups where the direct membership has exactly this role.
    pub(super) fn groups_with_role(&self, user: u64, role: Role) -> Vec<&str> {
        let held = self.direct(user).filter(|(_, held)| *held == role);
        held.map(|(group, _)| group.path.as_str()).collect()
    }

    /// The effective role in a group: direct, inherited, or by sharing; the highest counts.
    pub(super) fn role_in_group(&self, group: &Place, user: u64) -> Option<Role> {
        let lines = self.groups.iter().filter(|line| is_within(&group.path, &line.path));
        lines.filter_map(|line| self.role_here(line, user)).max()
    }

    /// The effective role in a project: its own members and shares, and its group's.
    pub(super) fn role_in_project(&self, project: &Place, user: u64) -> Option<Role> {
        self.role_here(project, user).max(self.role_by_namespace(project, user))
    }

    /// The effective role in the group that holds a project.
    pub(super) fn role_by_namespace(&self, project: &Place, user: u64) -> Option<Role> {
        let (namespace, _) = project.path.rsplit_once('/')?;
        self.role_in_group(self.group(namespace)?, user)
    }

    /// Whether this user may know that the group exists.
    pub(super) fn sees_group(&self, group: &Place, user: &User) -> bool {
        let below = |place: &Place| is_within(&place.path, &group.path);
        let visible = visible(group.visibility, user);
        visible
            || self.role_in_group(group, user.id).is_some()
            || self.groups.iter().any(|g| below(g) && self.role_here(g, user.id).is_some())
            || self.projects.iter().any(|p| below(p) && self.role_here(p, user.id).is_some())
    }

    /// Whether this user may know that the project exists.
    pub(super) fn sees_project(&self, project: &Place, user: &User) -> bool {
        visible(project.visibility, user) || self.role_in_project(project, user.id).is_some()
    }

    fn direct(&self, user: u64) -> impl Iterator<Item = (&Place, Role)> {
        self.groups.iter().filter_map(move |group| Some((group, *group.members.get(&user)?)))
    }

    /// The role held by this place itself, its members and its shares, ancestors aside.
    fn role_here(&self, place: &Place, user: u64) -> Option<Role> {
        let shared = place.shares.iter().filter_map(|share| {
            let with = self.groups.iter().find(|group| group.id == share.with)?;
            let lines = self.groups.iter().filter(|line| is_within(&with.path, &line.path));
            // A share of a share grants nothing, so only memberships are looked at here.
            let role = lines.filter_map(|line| line.members.get(&user)).max()?;
            Some((*role).min(share.most))
        });
        place.members.get(&user).copied().max(shared.max())
    }
}

fn visible(visibility: Visibility, user: &User) -> bool {
    match visibility {
        Visibility::Public => true,
        Visibility::Internal => !user.external,
        Visibility::Private => user.admin,
    }
}

fn find<'a>(places: &'a [Place], id_or_path: &str) -> Option<&'a Place> {
    let id = id_or_path.parse::<u64>().ok();
    places.iter().find(|place| match id {
        Some(id) => place.id == id,
        None => place.path.eq_ignore_ascii_case(id_or_path),
    })
}

/// Whether `path` is `ancestor` or lies below it; `a/bc` does not lie below `a/b`.
fn is_within(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path and the paths of all its ancestors.
fn ancestry(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
}

#[cfg(test)]
mod tests {
    use super::{super::seed, *};

    fn directory() -> Directory {
        seed::directory(Timestamp::from_unix(1_700_000_000))
    }

    fn role(directory: &Directory, group: &str, user: u64) -> Option<Role> {
        directory.role_in_group(directory.group(group).unwrap(), user)
    }

    #[test]
    fn roles_are_inherited_downwards_only() {
        let all = directory();
        for (group, user, expected) in [
            ("acme", 1, Some(Role::Owner)),
            ("acme/ops", 1, Some(Role::Owner)),
            ("acme/ops", 2, Some(Role::Maintainer)),
            ("acme", 2, Some(Role::Developer)),
            ("acme/ops", 3, Some(Role::Developer)),
            ("acme/web", 4, None),
            ("open", 1, None),
        ] {
            assert_eq!(role(&all, group, user), expected, "{group} {user}");
        }
        let shop = all.project("acme/web/shop").unwrap();
        assert_eq!(all.role_in_project(shop, 4), Some(Role::Reporter));
        assert_eq!(all.role_in_project(shop, 3), Some(Role::Maintainer));
    }

    #[test]
    fn sharing_grants_the_lower_of_both_roles_and_no_claim() {
        let mut all = directory();
        let mut club = Place::new(900, "club", Visibility::Private);
        club.members.insert(4, Role::Owner);
        all.groups.push(club);
        all.groups.iter_mut().find(|g| g.path == "acme/web").unwrap().share(900, Role::Developer);
        assert_eq!(role(&all, "acme/web", 4), Some(Role::Developer));
        assert_eq!(role(&all, "acme", 4), None);
        assert_eq!(all.groups_with_descendants(4), ["club"]);
    }

    #[test]
    fn claims_list_direct_groups_and_descendants() {
        let all = directory();
        assert_eq!(all.groups_direct(1), ["acme"]);
        assert_eq!(all.groups_with_descendants(1), ["acme", "acme/ops", "acme/web"]);
        assert_eq!(all.groups_with_role(2, Role::Maintainer), ["acme/ops"]);
        assert_eq!(all.groups_with_role(2, Role::Developer), ["acme"]);
        assert!(all.groups_with_descendants(4).is_empty());
        assert!(!is_within("a/bc", "a/b"));
    }

    #[test]
    fn visibility_hides_private_places_from_strangers() {
        let all = directory();
        let (alice, carol) = (all.user(2).unwrap(), all.user(4).unwrap());
        assert!(all.sees_group(all.group("acme/web").unwrap(), alice));
        assert!(!all.sees_group(all.group("acme/ops").unwrap(), carol));
        assert!(all.sees_group(all.group("acme/web").unwrap(), carol), "holds a project of it");
        assert!(all.sees_project(all.project("open/handbook").unwrap(), carol));
        assert!(!all.sees_project(all.project("acme/ops/runbooks").unwrap(), carol));
    }
}
