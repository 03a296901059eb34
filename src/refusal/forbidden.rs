//! Somebody may not pass: who, by what they came with, which rules don't hold, and the words for it.
//!
//! A person can sign in as somebody else. A program with a token can't, so it reads whose token it brought instead.

use super::Words;

/// Who was refused, and what would have been enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// Username of who asked; the full path of the project, if it is a CI job.
    pub username: String,
    /// Label of the GitLab that they come from.
    pub gitlab: String,
    /// What they came with.
    pub brought: Brought,
    /// One entry for each rule of the route; any would do. For the log; what may be shown is [`Self::shown`].
    pub rules: Vec<Unmet>,
    /// Whether the route keeps its rules to itself.
    pub hide_rules: bool,
}

/// What somebody came with who was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// The session of a browser.
    Session {
        /// Absolute URL that signs in somebody else and leads back.
        switch_url: String,
    },
    /// The token of an account.
    Token {
        /// The scope that it lacks, so that GitLab does not tell what a rule asks for.
        lacks: Option<&'static str>,
    },
    /// The token of a CI job.
    Job {
        /// Whether any rule of the route is for jobs.
        expected: bool,
    },
}

/// One rule that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmet {
    /// What it asks for, such as `at least Developer in the group acme/ops`.
    pub needed: String,
    /// What there is instead, such as `Reporter in the group acme/ops`.
    pub held: String,
    /// Where they hold a role that is too low.
    pub places: Vec<Place>,
    /// Whether it might hold: all that is in the way is that GitLab has not said something.
    pub unknown: bool,
}

/// A group or project, and where GitLab shows who holds roles in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Full path.
    pub path: String,
    /// Absolute URL of its members page.
    pub members_url: String,
}

impl Forbidden {
    /// The rules that may be read by who was refused.
    pub fn shown(&self) -> &[Unmet] {
        if self.hide_rules { &[] } else { &self.rules }
    }

    /// Where to sign in as somebody else, if that is a way on.
    pub fn switch_url(&self) -> Option<&str> {
        match &self.brought {
            Brought::Session { switch_url } => Some(switch_url),
            Brought::Token { .. } | Brought::Job { .. } => None,
        }
    }

    /// The scope that the token lacks, if that is what is missing.
    pub fn lacks(&self) -> Option<&'static str> {
        match self.brought {
            Brought::Token { lacks } => lacks,
            Brought::Session { .. } | Brought::Job { .. } => None,
        }
    }

    pub(super) fn words(&self) -> Words {
        let Self { username, gitlab, .. } = self;
        match self.brought {
            Brought::Session { .. } => Words::new(
                "You don't have access",
                "You are signed in, but your account may not open this.",
                "Ask whoever looks after the group or this site for access, or sign in as someone else. New access counts within a few minutes.",
            ),
            Brought::Token { lacks: Some(scope) } => Words::new(
                "This token lacks a scope",
                "",
                "Make a token that has it, or ask for access by something that its scopes let GitLab tell.",
            )
            .detail(format!(
                "It is a token of {username} at {gitlab}. Without the scope {scope} GitLab does not tell what the rules here ask for."
            )),
            Brought::Token { lacks: None } => Words::new(
                "This token gives no access here",
                "",
                match self.hide_rules {
                    true => ANOTHER_TOKEN,
                    false => "One of `rules` would do. Ask whoever looks after the group or this site for access, or send the token of somebody who has it. New access counts within a few minutes.",
                },
            )
            .detail(format!(
                "It is a token of {username} at {gitlab}, for whom no rule here holds."
            )),
            // A route that keeps its rules to itself does not tell either which kind they are of.
            Brought::Job { expected: false } if !self.hide_rules => Words::new(
                NO_JOB,
                "",
                "Ask whoever looks after this site for a rule for CI jobs, such as one with `ci_project`.",
            )
            .detail(format!(
                "It is a CI job of {username} at {gitlab}. No rule here is for CI jobs, and rules for people don't hold for them, whoever started the job."
            )),
            Brought::Job { .. } => Words::new(
                NO_JOB,
                "",
                match self.hide_rules {
                    true => "Ask whoever looks after this site for access.",
                    false => "One of `rules` would do. Run the job as it says, or ask whoever looks after this site for a rule that the job meets.",
                },
            )
            .detail(format!("It is a CI job of {username} at {gitlab}, for which no rule here holds.")),
        }
    }
}

const ANOTHER_TOKEN: &str = "Ask whoever looks after this site for access, or send the token of somebody who has it. New access counts within a few minutes.";
const NO_JOB: &str = "This CI job has no access here";
