//! Policy and Identity: allowed, or the rules that say no.
//!
//! A route's `allow` is compiled once and run on each request: one rule is enough, all of its conditions must hold, and what is not known does not
//! hold. Whether an identity's GitLab may come in at all is checked before, by the gate: equal usernames at two `GitLab`s are two people.

mod condition;
mod job;
mod users;

use std::path::PathBuf;

use self::{condition::Condition, job::JobCondition};
pub use self::{
    condition::Verdict,
    users::{UsersFile, UsersFileError, UsersFiles},
};
use crate::{
    config::{Allow, Rule},
    identity::{Identity, Kind},
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
    /// Rule number `.0`, from 0, has a role, but neither group nor project.
    #[error("`role` needs a `group` or a `project`")]
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
            // Any project's jobs get tokens; that is nobody who signed in.
            (Allowed::SignedIn, Some(identity)) if identity.kind == Kind::Ci => {
                Err(Denial::Forbidden(vec![no_user()]))
            },
            (Allowed::Everybody, _) | (Allowed::SignedIn, Some(_)) => Ok(()),
            (Allowed::SignedIn | Allowed::Rules(_), None) => Err(Denial::SignIn),
            (Allowed::Rules(rules), Some(identity)) => judge(rules, identity),
        }
    }

    /// Whether everybody may pass, signed in or not.
    pub fn is_public(&self) -> bool {
        matches!(self.allowed, Allowed::Everybody)
    }

    /// Whether a CI job could ever pass: everybody may, or a rule asks for what jobs have and for nothing that users have.
    pub fn expects_jobs(&self) -> bool {
        let of_jobs = |rule: &Vec<Condition>| {
            rule.iter().any(Condition::is_of_jobs) && !rule.iter().any(Condition::is_of_users)
        };
        match &self.allowed {
            Allowed::Everybody => true,
            Allowed::SignedIn => false,
            Allowed::Rules(rules) => rules.iter().any(of_jobs),
        }
    }

    /// What each rule finds, condition by condition; nothing where no rules decide.
    pub fn examine(&self, identity: &Identity) -> Vec<Vec<Finding>> {
        let rules = match &self.allowed {
            Allowed::Rules(rules) => rules.as_slice(),
            Allowed::Everybody | Allowed::SignedIn => &[],
        };
        let finding = |condition: &Condition| Finding {
            needed: condition.needed(),
            held: condition.held(identity),
            verdict: condition.verdict(identity),
        };
        rules.iter().map(|rule| rule.iter().map(finding).collect()).collect()
    }
}

/// What one key of a rule finds of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it asks for.
    pub needed: String,
    /// What there is.
    pub held: String,
    /// Whether that is enough.
    pub verdict: Verdict,
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
    let Rule {
        gitlab,
        user,
        email,
        email_domain,
        group,
        project,
        role,
        two_factor,
        external,
        users_file,
        ci_project: _,
        ci_namespace: _,
        r#ref: _,
        ref_protected: _,
        environment: _,
        pipeline_source: _,
    } = rule;
    if role.is_some() && group.is_none() && project.is_none() {
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
        project.clone().map(|path| Condition::Project(path, *role)),
        two_factor.map(Condition::TwoFactor),
        external.map(Condition::External),
        listed.map(Condition::Listed),
    ]
    .into_iter()
    .flatten()
    .chain(JobCondition::all_of(rule).map(Condition::Job))
    .collect();
    if conditions.is_empty() {
        return Err(PolicyError::EmptyRule(number));
    }
    let gitlab = gitlab.clone().map(Condition::GitLab);
    Ok(gitlab.into_iter().chain(conditions).collect())
}

/// What a CI job reads where no rule names it.
fn no_user() -> Unmet {
    Unmet {
        needed: "a user of GitLab, or a rule that names the CI job's project".into(),
        held: "a CI job, which is no user".into(),
        ..Unmet::default()
    }
}

/// All that the rule asks for, and what there is instead of what does not hold.
fn unmet(rule: &[Condition], identity: &Identity) -> Unmet {
    let needed: Vec<_> = rule.iter().map(Condition::needed).collect();
    let failing = || rule.iter().filter(|condition| !condition.holds(identity));
    let held: Vec<_> = failing().map(|condition| condition.held(identity)).collect();
    Unmet {
        needed: needed.join(", and "),
        held: held.join(", and "),
        places: failing().filter_map(|condition| condition.place(identity)).collect(),
        unknown: failing().all(|condition| condition.verdict(identity) == Verdict::Unknown),
    }
}

#[cfg(test)]
mod tests;
