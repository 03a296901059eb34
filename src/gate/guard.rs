//! The guard of one route: whose users it admits, and by which policy. Requests and `explain` are judged by the same.

use super::permit::NoPermit;
use crate::{
    authorize::{Denial, Finding, Policy},
    identity::Identity,
    refusal::Unmet,
};

/// Whose users a route admits, and by which policy.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    policy: Policy,
    gitlabs: Vec<String>,
}

impl Guard {
    pub(super) fn new(policy: Policy, gitlabs: Vec<String>) -> Self {
        Self { policy, gitlabs }
    }

    /// The names of the GitLabs whose users may sign in here.
    pub(super) fn gitlabs(&self) -> &[String] {
        &self.gitlabs
    }

    /// Whether everybody may pass, signed in or not.
    pub(super) fn is_public(&self) -> bool {
        self.policy.is_public()
    }

    /// Whether a CI job could ever pass.
    pub(super) fn expects_jobs(&self) -> bool {
        self.policy.expects_jobs()
    }

    /// Whether users of the GitLab of this table name may sign in here.
    pub(super) fn admits(&self, gitlab: &str) -> bool {
        self.gitlabs.iter().any(|name| name == gitlab)
    }

    /// Whether `identity`, or nobody, may pass, and whom the application then hears of.
    pub(super) fn judge<'i>(
        &self,
        identity: Option<&'i Identity>,
    ) -> Result<Option<&'i Identity>, NoPermit> {
        // A public route lets anybody pass, but hears only of those whom it knows.
        let known = identity.filter(|identity| self.admits(&identity.gitlab));
        match identity {
            Some(stranger) if known.is_none() && !self.is_public() => {
                Err(NoPermit::Forbidden(vec![self.other_gitlab(stranger)]))
            },
            Some(_) | None => match self.policy.check(known) {
                Ok(()) => Ok(known),
                Err(Denial::SignIn) => Err(NoPermit::SignIn),
                Err(Denial::Forbidden(rules)) => Err(NoPermit::Forbidden(rules)),
            },
        }
    }

    /// What each rule finds of `identity`, key by key.
    pub(super) fn examine(&self, identity: &Identity) -> Vec<Vec<Finding>> {
        match self.admits(&identity.gitlab) {
            true => self.policy.examine(identity),
            false => Vec::new(),
        }
    }

    fn other_gitlab(&self, identity: &Identity) -> Unmet {
        Unmet {
            needed: format!("an account at {}", self.gitlabs.join(" or ")),
            held: format!("signed in at {}", identity.gitlab),
            ..Unmet::default()
        }
    }
}
