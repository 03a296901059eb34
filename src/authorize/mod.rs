//! Policy and Identity: allowed, or the rules that say no.

mod users;

use std::path::PathBuf;

pub use self::users::{UsersFile, UsersFileError, UsersFiles};
use crate::{
    config::{Allow, GroupPath},
    identity::Identity,
    refusal::Unmet,
};

/// Who may pass a route.
#[derive(Clone, Debug)]
pub struct Policy {}

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
        let _ = (allow, files);
        Ok(Self {})
    }

    /// Whether `identity` may pass.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, identity: Option<&Identity>) -> Result<(), Denial> {
        let _ = identity;
        Err(Denial::SignIn)
    }

    /// Whether everybody may pass, signed in or not.
    pub fn is_public(&self) -> bool {
        false
    }

    /// Every group that a rule mentions; duplicates are possible.
    pub fn groups(&self) -> impl Iterator<Item = &GroupPath> {
        std::iter::empty()
    }
}
