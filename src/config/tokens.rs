//! `tokens`: which callers without a browser a GitLab vouches for, and how often it is asked about them.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Problem, value};

/// Callers without a browser; off unless kinds of tokens are accepted.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// Kinds of tokens that count here: `oauth` (access tokens of this very application), `personal` (of people and service accounts), `project`, `group`, `ci` (ID tokens of CI jobs) and `job` (`CI_JOB_TOKEN`). Default `[]`.
    pub accept: Vec<TokenKind>,
    /// The audience that CI jobs name in `id_tokens`: a word for labgate alone, never the application id. Required with `ci`. Example `"https://app.example.com"`.
    pub ci_audience: Option<String>,
    /// How long an answer about a token counts, good or bad; so long may a revoked token still pass. Default `"60s"`.
    #[serde(with = "value::duration")]
    pub cache: Duration,
    /// The most calls about tokens to this GitLab in a second. Default `20`.
    pub max_checks: u32,
}

/// A kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// An OAuth access token that was given to labgate's own application.
    Oauth,
    /// A personal access token, that of a service account included.
    Personal,
    /// A project access token.
    Project,
    /// A group access token.
    Group,
    /// The ID token of a CI job.
    Ci,
    /// The `CI_JOB_TOKEN` of a running job.
    Job,
}

impl TokenKind {
    /// The word for it in configuration, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Oauth => "oauth",
            Self::Personal => "personal",
            Self::Project => "project",
            Self::Group => "group",
            Self::Ci => "ci",
            Self::Job => "job",
        }
    }

    /// Whether it speaks for a CI job rather than for an account.
    pub const fn is_job(self) -> bool {
        matches!(self, Self::Ci | Self::Job)
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Tokens {
    /// Whether tokens of this kind count.
    pub fn accepts(&self, kind: TokenKind) -> bool {
        self.accept.contains(&kind)
    }

    pub(super) fn problems(&self, key: &str, client_id: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let audience_key = format!("{key}.ci_audience");
        match (&self.ci_audience, self.accepts(TokenKind::Ci)) {
            (None, true) => {
                let message = "tokens of CI jobs need an audience of their own";
                let help = "name one, such as the public URL, and the same in `id_tokens: { …: { aud: … } }` of the job";
                problems.push(Problem::error(audience_key, message).help(help));
            },
            (Some(audience), true) if audience.trim().is_empty() => {
                problems.push(Problem::error(audience_key, "an audience can't be empty"));
            },
            (Some(audience), true) if audience == client_id => {
                let message =
                    "the application id is the audience of sign-ins: any CI job could pass for one";
                let help = "take another word, such as the public URL";
                problems.push(Problem::error(audience_key, message).help(help));
            },
            (Some(_), _) | (None, false) => {},
        }
        if self.max_checks == 0 || self.max_checks > MOST_CHECKS {
            let message = format!("between 1 and {MOST_CHECKS} calls in a second");
            problems.push(Problem::error(format!("{key}.max_checks"), message));
        }
        if self.cache < Duration::from_secs(1) || self.cache > LONGEST_CACHE {
            let message =
                "from a second, so that a busy caller does not ask GitLab each time, to an hour";
            problems.push(Problem::error(format!("{key}.cache"), message));
        }
        problems
    }
}

/// More would be no cap.
const MOST_CHECKS: u32 = 10_000;

/// Revoked tokens should not live longer.
const LONGEST_CACHE: Duration = Duration::from_hours(1);

impl Default for Tokens {
    fn default() -> Self {
        Self {
            accept: Vec::new(),
            ci_audience: None,
            cache: Duration::from_mins(1),
            max_checks: 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_unsafe_or_vain_is_a_problem() {
        let told = |text: &str| {
            let tokens: Tokens = toml::from_str(text).unwrap();
            let problems = tokens.problems("t", "the-application");
            let told = problems.into_iter().map(|problem| problem.key);
            told.collect::<Vec<_>>().join(", ")
        };
        for (text, expected) in [
            ("", ""),
            ("accept = [\"personal\", \"job\"]", ""),
            ("accept = [\"ci\"]\nci_audience = \"x\"", ""),
            ("accept = [\"ci\"]", "t.ci_audience"),
            ("accept = [\"ci\"]\nci_audience = \" \"", "t.ci_audience"),
            ("accept = [\"ci\"]\nci_audience = \"the-application\"", "t.ci_audience"),
            ("max_checks = 0", "t.max_checks"),
            ("cache = \"0s\"", "t.cache"),
            ("cache = \"500ms\"", "t.cache"),
            ("cache = \"2h\"", "t.cache"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        assert!(toml::from_str::<Tokens>("accept = [\"session\"]").is_err());
    }
}
