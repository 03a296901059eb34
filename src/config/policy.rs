//! `allow` of a route: `"public"`, `"signed-in"`, or a list of rules of which one must hold.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{
    Problem,
    value::{AccessLevel, GroupPath, ProjectPath, RefPattern},
};

/// Who may pass a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Everybody, signed in or not.
    Public,
    /// Any active user of the route's GitLabs.
    SignedIn,
    /// Whoever meets at least one rule.
    Rules(Vec<Rule>),
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Name of the `[gitlab.NAME]` of which the caller must come; without it the rule holds for each GitLab that the route admits. Example `"main"`.
    pub gitlab: Option<String>,
    /// GitLab username, compared without regard to case. Example `"ada"`.
    pub user: Option<String>,
    /// Verified e-mail address, compared without regard to case. Example `"ada@example.com"`.
    pub email: Option<String>,
    /// Domain of the verified e-mail address, exactly, without regard to case. Example `"example.com"`.
    pub email_domain: Option<String>,
    /// Full path of a group of which the user is a member, directly or by a group around it. Example `"acme/web"`.
    pub group: Option<GroupPath>,
    /// Full path of a project of which the user is a member: of itself, by its group, or by sharing. Example `"acme/web/shop"`.
    pub project: Option<ProjectPath>,
    /// The least role in `group` and in `project`, whichever the rule names: `minimal`, `guest`, `planner`, `reporter`, `developer`, `maintainer` or `owner`. Default: any. Example `"developer"`.
    pub role: Option<AccessLevel>,
    /// Whether the account must have a second factor set up at GitLab, or must have none. Example `true`.
    pub two_factor: Option<bool>,
    /// Whether the account must be one of GitLab's external users, or must be none. Example `false`.
    pub external: Option<bool>,
    /// A watched file of usernames or e-mail addresses, one a line. Example `"users.txt"`.
    pub users_file: Option<PathBuf>,
    /// Full path of the project of a CI job. Example `"acme/web/shop"`.
    pub ci_project: Option<ProjectPath>,
    /// Full path of the group or user right around the project of a CI job; groups below it don't count. Example `"acme/web"`.
    pub ci_namespace: Option<GroupPath>,
    /// Branch of a CI job, `*` for any characters; a tag is `"refs/tags/NAME"`. Example `"release/*"`.
    pub r#ref: Option<RefPattern>,
    /// Whether the branch or tag of a CI job must be protected, or must not be. Example `true`.
    pub ref_protected: Option<bool>,
    /// Environment that a CI job deploys to, exactly. Example `"production"`.
    pub environment: Option<String>,
    /// What started the pipeline of a CI job, such as `push`, `web` or `schedule`. Example `"push"`.
    pub pipeline_source: Option<String>,
}

impl Allow {
    /// The rules, if rules decide.
    pub fn rules(&self) -> Option<&[Rule]> {
        match self {
            Self::Rules(rules) => Some(rules),
            Self::Public | Self::SignedIn => None,
        }
    }

    pub(super) fn problems(&self, key: &str) -> Vec<Problem> {
        let Self::Rules(rules) = self else {
            return Vec::new();
        };
        if rules.is_empty() {
            let message = "nobody could pass: the list has no rule";
            return vec![Problem::error(key, message)];
        }
        let rules = rules.iter().enumerate();
        rules.flat_map(|(index, rule)| rule.problems(&format!("{key}[{index}]"))).collect()
    }
}

impl Rule {
    /// Whether it asks something of a CI job.
    pub fn is_of_jobs(&self) -> bool {
        self.ci_project.is_some()
            || self.ci_namespace.is_some()
            || self.r#ref.is_some()
            || self.ref_protected.is_some()
            || self.environment.is_some()
            || self.pipeline_source.is_some()
    }

    /// Whether it asks something of a user.
    pub fn is_of_users(&self) -> bool {
        self.user.is_some()
            || self.email.is_some()
            || self.email_domain.is_some()
            || self.group.is_some()
            || self.project.is_some()
            || self.role.is_some()
            || self.two_factor.is_some()
            || self.external.is_some()
            || self.users_file.is_some()
    }

    /// Whether it can hold for somebody of the GitLab called `name`; nobody is a CI job and a user at once.
    pub fn concerns(&self, name: &str) -> bool {
        let is_meant = self.gitlab.as_ref().is_none_or(|own| own == name);
        is_meant && !(self.is_of_jobs() && self.is_of_users())
    }

    /// Whether it goes by a name that is given anew at each GitLab.
    pub fn goes_by_name(&self) -> bool {
        self.user.is_some()
            || self.group.is_some()
            || self.project.is_some()
            || self.users_file.is_some()
            || self.ci_project.is_some()
            || self.ci_namespace.is_some()
    }

    fn problems(&self, key: &str) -> Vec<Problem> {
        if !self.is_of_users() && !self.is_of_jobs() {
            let (message, help) = match &self.gitlab {
                None => (
                    "a rule without a condition",
                    "say `allow = \"signed-in\"` for everybody who can sign in",
                ),
                Some(_) => (
                    "a rule that names nothing but the GitLab",
                    "say `gitlab = [\"…\"]` and `allow = \"signed-in\"` in the route for all of its users",
                ),
            };
            return vec![Problem::error(key, message).help(help)];
        }
        let mut problems = Vec::new();
        if self.role.is_some() && self.group.is_none() && self.project.is_none() {
            let message = "a role is held in a group or a project; the rule names neither";
            problems.push(Problem::error(format!("{key}.role"), message));
        }
        if self.is_of_jobs() && self.is_of_users() {
            let message = "nobody is a CI job and a user at once: the rule never holds";
            let help = "make two rules of it; a CI job is known by `ci_project` and the like, whoever started it";
            problems.push(Problem::warning(key, message).help(help));
        }
        let texts = [
            ("user", &self.user, "a GitLab username, without `@`", is_username as fn(&str) -> bool),
            ("email", &self.email, "an e-mail address, such as `ada@example.com`", is_email),
            ("email_domain", &self.email_domain, "a domain, such as `example.com`", is_domain),
            ("environment", &self.environment, "an environment, such as `production`", is_name),
            (
                "pipeline_source",
                &self.pipeline_source,
                "what starts pipelines, such as `push`",
                is_source,
            ),
        ];
        for (name, text, wanted, is_one) in texts {
            if text.as_ref().is_some_and(|text| !is_one(text)) {
                problems.push(Problem::error(format!("{key}.{name}"), format!("not {wanted}")));
            }
        }
        problems
    }
}

fn is_username(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && text.bytes().all(letter)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && !text.contains(char::is_control)
}

fn is_source(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && is_domain(domain))
}

fn is_domain(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(|letter: char| "@*/, ".contains(letter) || letter.is_control())
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Form)
    }
}

struct Form;

impl<'de> Visitor<'de> for Form {
    type Value = Allow;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("`public`, `signed-in` or a list of rules")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Allow, E> {
        match text {
            "public" => Ok(Allow::Public),
            "signed-in" => Ok(Allow::SignedIn),
            _ => Err(E::unknown_variant(text, &["public", "signed-in"])),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Allow, A::Error> {
        let mut rules = Vec::new();
        while let Some(rule) = list.next_element()? {
            rules.push(rule);
        }
        Ok(Allow::Rules(rules))
    }
}

impl Serialize for Allow {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Public => to.serialize_str("public"),
            Self::SignedIn => to.serialize_str("signed-in"),
            Self::Rules(rules) => rules.serialize(to),
        }
    }
}
