//! Policy and Identity: allowed, or the rules that say no.
//!
//! A route's `allow` is compiled once and run on each request: one rule is enough, all of its conditions must hold, and what is not known does not
//! hold. Whether an identity's GitLab may come in at all is checked before, by the gate: equal usernames at two `GitLab`s are two people.

mod users;

use std::{path::PathBuf, sync::Arc};

pub use self::users::{UsersFile, UsersFileError, UsersFiles};
use crate::{
    config::{AccessLevel, Allow, GroupPath, Rule},
    identity::Identity,
    refusal::Unmet,
};

/// Who may pass a route.
#[derive(Clone, Debug)]
pub struct Policy {
    allowed: Allowed,
}

#[derive(Clone, Debug)]
enum Allowed {
    Everybody,
    SignedIn,
    /// Whoever meets all conditions of one of these.
    Rules(Vec<Vec<Condition>>),
}

#[derive(Clone, Debug)]
enum Condition {
    User(String),
    Email(String),
    EmailDomain(String),
    Group(GroupPath, Option<AccessLevel>),
    Listed(Arc<UsersFile>),
}

/// Why somebody may not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Nobody is signed in.
    SignIn,
    /// Somebody is, but meets no rule; one entry for each rule.
    Forbidden(Vec<Unmet>),
}

/// Why `allow` can't be a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// There is no rule.
    #[error("nobody could ever pass an empty list of rules")]
    NoRules,
    /// Rule number `.0`, from 0, asks for nothing.
    #[error("a rule must ask for something")]
    EmptyRule(usize),
    /// Rule number `.0`, from 0, has a role but no group.
    #[error("`role` needs a `group`")]
    RoleAlone(usize),
    /// The `users_file` of rule number `rule`, from 0, can't be used.
    #[error("can't use `{}`", .path.display())]
    UsersFile {
        /// Number of the rule, from 0.
        rule: usize,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: UsersFileError,
    },
}

impl Policy {
    /// Compiles `allow`; users files are opened by way of `files`, which shares and refreshes them.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(allow: &Allow, files: &mut UsersFiles) -> Result<Self, Vec<PolicyError>> {
        let allowed = match allow {
            Allow::Public => Allowed::Everybody,
            Allow::SignedIn => Allowed::SignedIn,
            Allow::Rules(rules) => Allowed::Rules(compile(rules, files)?),
        };
        Ok(Self { allowed })
    }

    /// Whether `identity` may pass.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, identity: Option<&Identity>) -> Result<(), Denial> {
        match (&self.allowed, identity) {
            (Allowed::Everybody, _) | (Allowed::SignedIn, Some(_)) => Ok(()),
            (Allowed::SignedIn | Allowed::Rules(_), None) => Err(Denial::SignIn),
            (Allowed::Rules(rules), Some(identity)) => judge(rules, identity),
        }
    }

    /// Whether everybody may pass, signed in or not.
    pub fn is_public(&self) -> bool {
        matches!(self.allowed, Allowed::Everybody)
    }

    /// Every group that a rule mentions; one may come twice.
    pub fn groups(&self) -> impl Iterator<Item = &GroupPath> {
        let rules = match &self.allowed {
            Allowed::Rules(rules) => rules.as_slice(),
            Allowed::Everybody | Allowed::SignedIn => &[],
        };
        rules.iter().flatten().filter_map(|condition| match condition {
            Condition::Group(path, _) => Some(path),
            Condition::User(_)
            | Condition::Email(_)
            | Condition::EmailDomain(_)
            | Condition::Listed(_) => None,
        })
    }
}

fn judge(rules: &[Vec<Condition>], identity: &Identity) -> Result<(), Denial> {
    let holds = |rule: &Vec<Condition>| rule.iter().all(|condition| condition.holds(identity));
    if rules.iter().any(holds) {
        return Ok(());
    }
    let unmet = rules.iter().map(|rule| unmet(rule, identity));
    Err(Denial::Forbidden(unmet.collect()))
}

fn compile(
    rules: &[Rule],
    files: &mut UsersFiles,
) -> Result<Vec<Vec<Condition>>, Vec<PolicyError>> {
    let (mut compiled, mut errors) = (Vec::new(), Vec::new());
    for (number, rule) in rules.iter().enumerate() {
        match conditions(number, rule, files) {
            Ok(conditions) => compiled.push(conditions),
            Err(error) => errors.push(error),
        }
    }
    if rules.is_empty() {
        errors.push(PolicyError::NoRules);
    }
    if errors.is_empty() { Ok(compiled) } else { Err(errors) }
}

/// At least one: a rule without conditions would hold for everybody.
fn conditions(
    number: usize,
    rule: &Rule,
    files: &mut UsersFiles,
) -> Result<Vec<Condition>, PolicyError> {
    let Rule { user, email, email_domain, group, role, users_file } = rule;
    if role.is_some() && group.is_none() {
        return Err(PolicyError::RoleAlone(number));
    }
    let listed = match users_file {
        Some(path) => Some(files.open(path).map_err(|source| PolicyError::UsersFile {
            rule: number,
            path: path.clone(),
            source,
        })?),
        None => None,
    };
    let conditions: Vec<_> = [
        user.clone().map(Condition::User),
        email.clone().map(Condition::Email),
        email_domain.clone().map(Condition::EmailDomain),
        group.clone().map(|path| Condition::Group(path, *role)),
        listed.map(Condition::Listed),
    ]
    .into_iter()
    .flatten()
    .collect();
    if conditions.is_empty() {
        return Err(PolicyError::EmptyRule(number));
    }
    Ok(conditions)
}

impl Condition {
    fn holds(&self, identity: &Identity) -> bool {
        let email = identity.email.as_deref();
        match self {
            Self::User(name) => name.eq_ignore_ascii_case(&identity.username),
            Self::Email(wanted) => email.is_some_and(|email| wanted.eq_ignore_ascii_case(email)),
            Self::EmailDomain(wanted) => {
                email.and_then(domain).is_some_and(|domain| wanted.eq_ignore_ascii_case(domain))
            },
            Self::Group(path, role) => {
                identity.level_in(path).is_some_and(|level| role.is_none_or(|role| level >= role))
            },
            Self::Listed(file) => file.lists(identity),
        }
    }

    /// What it asks for. Addresses and lists of other people are not told.
    fn needed(&self) -> String {
        match self {
            Self::User(name) => format!("the user {name}"),
            Self::Email(_) => "a certain verified e-mail address".into(),
            Self::EmailDomain(domain) => format!("a verified e-mail address at {domain}"),
            Self::Group(path, None) => format!("a member of the group {}", path.as_str()),
            Self::Group(path, Some(role)) => {
                format!("at least {} in the group {}", capitalised(*role), path.as_str())
            },
            Self::Listed(_) => "on this application's list of users".into(),
        }
    }

    /// What `identity` has instead.
    fn held(&self, identity: &Identity) -> String {
        match (self, &identity.email) {
            (Self::User(_), _) => format!("you are {}", identity.username),
            (Self::Email(_) | Self::EmailDomain(_), None) => {
                "your e-mail address is not verified".into()
            },
            (Self::Email(_) | Self::EmailDomain(_), Some(email)) => {
                format!("your e-mail address is {email}")
            },
            (Self::Group(path, _), _) => match identity.level_in(path) {
                Some(level) => format!("{} in {}", capitalised(level), path.as_str()),
                None => format!("not a member of {}", path.as_str()),
            },
            (Self::Listed(_), _) => "not on the list".into(),
        }
    }
}

/// The domain of a plain address. Two `@`, quotes, comments and the like are read differently by different mailers: threat A27.
fn domain(email: &str) -> Option<&str> {
    let (local, domain) = email.split_once('@')?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"@\"(),:;<>[\\]".contains(&byte);
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(plain);
    (is_plain(local) && is_plain(domain)).then_some(domain)
}

/// All that the rule asks for, and what there is instead of what does not hold.
fn unmet(rule: &[Condition], identity: &Identity) -> Unmet {
    let needed: Vec<_> = rule.iter().map(Condition::needed).collect();
    let failing = rule.iter().filter(|condition| !condition.holds(identity));
    let held: Vec<_> = failing.map(|condition| condition.held(identity)).collect();
    Unmet { needed: needed.join(", and "), held: held.join(", and ") }
}

/// The role as GitLab writes it.
fn capitalised(level: AccessLevel) -> String {
    let mut letters = level.name().chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests;
