//! One thing that is wrong with the configuration, and how it is told: `labgate.toml:12:5: error: …` with the source line.

use std::ops::Range;

use super::{
    document::{Document, Spot},
    excerpt::excerpt,
    tree::Place,
};

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
    /// Bytes of the file that it concerns, where they are not simply the value of the key.
    pub(super) at: Option<Range<usize>>,
}

impl Problem {
    /// An error about `key`.
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), help: None, warning: false, at: None }
    }

    /// A warning about `key`.
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(key, message) }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same, about the key that stands at `place` and not its value.
    pub(super) fn at_key(self, place: &Place) -> Self {
        let at = match place {
            Place::File { key, .. } => Some(key.clone()),
            Place::Variable(_) => None,
        };
        Self { at, ..self }
    }
}

/// All `problems`, each with the place in `document` where its key stands, as text for standard error; those of the file first, in its order.
pub fn render(problems: &[Problem], document: &Document) -> String {
    let mut spotted: Vec<_> =
        problems.iter().map(|problem| (document.spot(problem), problem)).collect();
    spotted.sort_by(|(one, _), (other, _)| one.cmp(other));
    spotted.iter().map(|(spot, problem)| one(spot, problem, document)).collect()
}

fn one(spot: &Spot, problem: &Problem, document: &Document) -> String {
    let kind = if problem.warning { "warning" } else { "error" };
    let mut text = match spot {
        Spot::File { start, end } => {
            let excerpt = excerpt(document, *start..*end);
            let (line, column) = (excerpt.line, excerpt.column);
            let place = format!("{}:{line}:{column}", file(document));
            format!("{place}: {kind}: {}\n{}", told(problem, document), excerpt.text)
        },
        Spot::Variable(name) if *name == variable(&problem.key) => {
            format!("{name}: {kind}: {}\n", problem.message)
        },
        Spot::Variable(name) => format!("{name}: {kind}: {}: {}\n", problem.key, problem.message),
        Spot::Whole => format!("{}: {kind}: {}\n", whole(problem, document), problem.message),
    };
    if let Some(help) = &problem.help {
        text.push_str("   help: ");
        text.push_str(help);
        text.push('\n');
    }
    text
}

/// The message, with the key where the place alone does not tell it.
fn told(problem: &Problem, document: &Document) -> String {
    if problem.at.is_some() || document.has(&problem.key) {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.key, problem.message)
    }
}

fn file(document: &Document) -> String {
    let path = document.path.as_deref();
    path.map_or_else(|| "labgate".into(), |path| path.display().to_string())
}

/// Who is to blame for what stands nowhere: the file, or the variable that could have said it.
fn whole(problem: &Problem, document: &Document) -> String {
    match (&document.path, problem.key.as_str()) {
        (Some(path), "") => path.display().to_string(),
        (Some(path), key) => format!("{}: {key}", path.display()),
        (None, "") => "labgate".into(),
        (None, key) => variable(key),
    }
}

/// The environment variable that overrides `key`.
fn variable(key: &str) -> String {
    let name = key.to_ascii_uppercase().replace('.', "__");
    format!("LABGATE_{}", name.replace('-', "_"))
}
