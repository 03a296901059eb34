//! A CI job, as GitLab vouches for it: by a signed ID token, or by its answer about a job token.

use serde::{Deserialize, Serialize};

/// What kind of caller asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Somebody who signed in with a browser.
    #[default]
    Browser,
    /// A program with a token of an account.
    Token,
    /// A CI job.
    Ci,
}

impl Kind {
    /// The word for it in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Token => "token",
            Self::Ci => "ci",
        }
    }
}

/// What GitLab says of a CI job; what it did not say is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Full path of its project; that of the fork, if its pipeline is for a fork's merge request.
    pub project_path: String,
    /// Full path of the group or user right around the project.
    pub namespace_path: String,
    /// Name of its branch or tag.
    pub ref_name: String,
    /// Whether that is a tag.
    pub is_tag: bool,
    /// Whether branch or tag are protected.
    pub ref_protected: Option<bool>,
    /// What it deploys to.
    pub environment: Option<String>,
    /// What started its pipeline.
    pub pipeline_source: Option<String>,
}
