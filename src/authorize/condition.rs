//! One key of a rule: whether it holds for somebody, what it asks for, and what there is instead.
//!
//! Paths of groups and projects, usernames and addresses are compared whole and without regard to ASCII case; roles as GitLab's integers. What
//! GitLab has not said is [`Verdict::Unknown`], which lets nobody pass.

use std::sync::Arc;

use super::{UsersFile, job::JobCondition};
use crate::{
    config::{AccessLevel, GroupPath, ProjectPath},
    identity::{Identity, Kind},
    refusal::Place,
};

#[derive(Clone, Debug)]
pub(super) enum Condition {
    GitLab(String),
    User(String),
    Email(String),
    EmailDomain(String),
    Group(GroupPath, Option<AccessLevel>),
    Project(ProjectPath, Option<AccessLevel>),
    TwoFactor(bool),
    External(bool),
    Listed(Arc<UsersFile>),
    Job(JobCondition),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Holds,
    /// It does not.
    Fails,
    /// GitLab has not said what it takes to know.
    Unknown,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::Fails }
    }
}

impl Condition {
    pub(super) fn is_of_jobs(&self) -> bool {
        matches!(self, Self::Job(_))
    }

    pub(super) fn is_of_users(&self) -> bool {
        matches!(
            self,
            Self::User(_)
                | Self::Email(_)
                | Self::EmailDomain(_)
                | Self::Group(..)
                | Self::Project(..)
                | Self::TwoFactor(_)
                | Self::External(_)
                | Self::Listed(_)
        )
    }

    pub(super) fn verdict(&self, identity: &Identity) -> Verdict {
        match (self, identity.kind) {
            (Self::GitLab(name), _) => (*name == identity.gitlab).into(),
            (Self::Job(condition), Kind::Ci) => {
                identity.job.as_deref().map_or(Verdict::Unknown, |job| condition.verdict(job))
            },
            // A job is not its user: whoever may change what it runs would pass for whoever started it.
            (_, Kind::Ci) => Verdict::Fails,
            (_, Kind::Browser | Kind::Token) => self.verdict_on_user(identity),
        }
    }

    fn verdict_on_user(&self, identity: &Identity) -> Verdict {
        let email = identity.email.as_deref();
        let flag = |wanted: bool, flag: Option<bool>| {
            flag.map_or(Verdict::Unknown, |flag| (flag == wanted).into())
        };
        let reaches = |level: Option<AccessLevel>, role: Option<AccessLevel>| {
            level.is_some_and(|level| role.is_none_or(|role| level >= role)).into()
        };
        match self {
            Self::User(name) => name.eq_ignore_ascii_case(&identity.username).into(),
            Self::Email(wanted) => {
                email.is_some_and(|email| wanted.eq_ignore_ascii_case(email)).into()
            },
            Self::EmailDomain(wanted) => email
                .and_then(domain)
                .is_some_and(|domain| wanted.eq_ignore_ascii_case(domain))
                .into(),
            Self::Group(path, role) => match reaches(identity.level_in(path), *role) {
                Verdict::Fails if identity.withheld => Verdict::Unknown,
                verdict => verdict,
            },
            Self::Project(path, role) => match identity.in_project(path) {
                Some(membership) => reaches(membership.level, *role),
                None => Verdict::Unknown,
            },
            Self::TwoFactor(wanted) => flag(*wanted, identity.two_factor),
            Self::External(wanted) => flag(*wanted, identity.external),
            Self::Listed(file) => file.lists(identity).into(),
            Self::GitLab(_) | Self::Job(_) => Verdict::Fails,
        }
    }

    pub(super) fn holds(&self, identity: &Identity) -> bool {
        self.verdict(identity) == Verdict::Holds
    }

    /// What it asks for. Addresses and lists of other people are not told.
    pub(super) fn needed(&self) -> String {
        let held_in = |kind: &str, path: &str, role: &Option<AccessLevel>| match role {
            None => format!("a member of the {kind} {path}"),
            Some(role) => format!("at least {} in the {kind} {path}", capitalised(*role)),
        };
        match self {
            Self::GitLab(name) => format!("somebody from the GitLab {name}"),
            Self::User(name) => format!("the user {name}"),
            Self::Email(_) => "a certain verified e-mail address".into(),
            Self::EmailDomain(domain) => format!("a verified e-mail address at {domain}"),
            Self::Group(path, role) => held_in("group", path.as_str(), role),
            Self::Project(path, role) => held_in("project", path.as_str(), role),
            Self::TwoFactor(true) => "two-factor authentication set up at GitLab".into(),
            Self::TwoFactor(false) => "no two-factor authentication at GitLab".into(),
            Self::External(true) => "an external user of GitLab".into(),
            Self::External(false) => "no external user of GitLab".into(),
            Self::Listed(_) => "on this application's list of users".into(),
            Self::Job(condition) => condition.needed(),
        }
    }

    /// What `identity` has.
    pub(super) fn held(&self, identity: &Identity) -> String {
        let role_in = |path: &str, level: Option<AccessLevel>| match level {
            Some(level) => format!("{} in {path}", capitalised(level)),
            None => format!("not a member of {path}"),
        };
        if identity.kind == Kind::Ci {
            return match (self, identity.job.as_deref()) {
                (Self::GitLab(_), _) => format!("from {}", identity.gitlab),
                (Self::Job(condition), Some(job)) => condition.held(job),
                _ => "a CI job, which is no user".into(),
            };
        }
        match self {
            Self::GitLab(_) => format!("from {}", identity.gitlab),
            Self::Job(_) => "no CI job".into(),
            Self::User(_) if identity.kind == Kind::Token => {
                format!("a token of {}", identity.username)
            },
            Self::User(_) => format!("signed in as {}", identity.username),
            Self::Email(_) | Self::EmailDomain(_) => match &identity.email {
                None => "the e-mail address is not verified".into(),
                Some(email) => format!("the e-mail address is {email}"),
            },
            Self::Group(path, _) => match identity.level_in(path) {
                None if identity.withheld => withheld(path.as_str()),
                level => role_in(path.as_str(), level),
            },
            Self::Project(path, _) => match identity.in_project(path) {
                Some(membership) => role_in(path.as_str(), membership.level),
                None if identity.withheld => withheld(path.as_str()),
                None => format!("GitLab has not said yet whether you are in {}", path.as_str()),
            },
            Self::TwoFactor(_) => match identity.two_factor {
                Some(true) => "two-factor authentication is set up".into(),
                Some(false) => "two-factor authentication is not set up".into(),
                None => "GitLab has not said whether two-factor authentication is set up".into(),
            },
            Self::External(_) => match identity.external {
                Some(true) => "an external user".into(),
                Some(false) => "no external user".into(),
                None => "GitLab has not said whether this is an external user".into(),
            },
            Self::Listed(file) => match file.lists(identity) {
                true => "on the list".into(),
                false => "not on the list".into(),
            },
        }
    }

    /// GitLab's page of those who hold roles where this one does not suffice. Somebody without any role may not see it.
    pub(super) fn place(&self, identity: &Identity) -> Option<Place> {
        let base = &identity.issuer;
        let (path, url) = match self {
            Self::Group(group, _) => {
                identity.level_in(group)?;
                let path = group.as_str();
                (path, format!("{base}/groups/{path}/-/group_members"))
            },
            Self::Project(project, _) => {
                identity.in_project(project)?.level?;
                let path = project.as_str();
                (path, format!("{base}/{path}/-/project_members"))
            },
            Self::GitLab(_)
            | Self::User(_)
            | Self::Email(_)
            | Self::EmailDomain(_)
            | Self::TwoFactor(_)
            | Self::External(_)
            | Self::Listed(_)
            | Self::Job(_) => return None,
        };
        Some(Place { path: path.into(), members_url: url })
    }
}

/// The domain of a plain address. Two `@`, quotes, comments and the like are read differently by different mailers: threat A27.
fn domain(email: &str) -> Option<&str> {
    let (local, domain) = email.split_once('@')?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"@\"(),:;<>[\\]".contains(&byte);
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(plain);
    (is_plain(local) && is_plain(domain)).then_some(domain)
}

/// What is known of memberships where GitLab may not tell them.
fn withheld(path: &str) -> String {
    format!("the token lacks the scope read_api, so GitLab does not tell its role in {path}")
}

/// The role as GitLab writes it.
fn capitalised(level: AccessLevel) -> String {
    let mut letters = level.name().chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
