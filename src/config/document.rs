//! The configuration as it was written: which key stands where, and which parts of the text nobody may see.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    Problem,
    names::is_delicate,
    notes::Notes,
    tree::{Node, Place, Value},
};

/// The text of the configuration with the overrides of the environment, and where each key stands.
#[derive(Clone, Default)]
pub struct Document {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    text: Zeroizing<String>,
    places: BTreeMap<String, Place>,
    secrets: Vec<Range<usize>>,
    notes: std::sync::Arc<Notes>,
}

/// Where a problem is shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    /// These bytes of the file.
    File { start: usize, end: usize },
    /// A variable of the environment.
    Variable(String),
    /// Nowhere: the whole, or a key that is not there.
    Whole,
}

impl Document {
    pub(super) fn new(path: Option<PathBuf>, text: Zeroizing<String>) -> Self {
        Self { path, text, ..Self::default() }
    }

    /// Remembers where the keys of `root` stand, and which of them are secret by name or, as `notes` say, by type.
    pub(super) fn index(&mut self, root: &Node, notes: Notes) {
        root.walk("", &mut |key, node| {
            if let (Place::File { value, .. }, true) = (&node.place, is_secret(key, node, &notes)) {
                self.secrets.push(value.clone());
            }
            self.places.insert(key.into(), node.place.clone());
        });
        self.notes = notes.into();
    }

    /// `problems` without those that only follow from a value that could not be read.
    #[must_use]
    pub fn settle(&self, problems: Vec<Problem>) -> Vec<Problem> {
        problems
            .into_iter()
            .filter(|problem| problem.at.is_some() || !self.notes.explains(&problem.key))
            .collect()
    }

    /// Directory that relative paths in the configuration start from.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.path.as_deref().and_then(Path::parent)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where `problem` stands, or the nearest that there is of the tables around it.
    pub(super) fn spot(&self, problem: &Problem) -> Spot {
        if let Some(range) = &problem.at {
            return Spot::file(range);
        }
        let mut key = problem.key.as_str();
        while !key.is_empty() {
            match self.places.get(key) {
                Some(Place::Variable(name)) => return Spot::Variable(name.clone()),
                Some(Place::File { value, .. }) => return Spot::file(value),
                None => {
                    key = key.rfind(['.', '[']).and_then(|at| key.get(..at)).unwrap_or_default();
                },
            }
        }
        Spot::Whole
    }

    /// Whether `key` itself stands somewhere, and not only a table around it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Whether the text could be parsed, so that it is known which of it is secret.
    pub(super) fn is_indexed(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether any of these bytes belong to a secret.
    pub(super) fn is_secret(&self, range: &Range<usize>) -> bool {
        self.secrets.iter().any(|secret| secret.start < range.end && range.start < secret.end)
    }
}

impl Spot {
    fn file(range: &Range<usize>) -> Self {
        Self::File { start: range.start, end: range.end }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Document").field("path", &self.path).finish_non_exhaustive()
    }
}

fn is_secret(key: &str, node: &Node, notes: &Notes) -> bool {
    let last = key.rsplit_once('.').map(|(_, last)| last);
    match (&node.value, last) {
        (Value::Table(_) | Value::List(_), _) => false,
        // The secret itself in place of a file's or variable's name is a likely mistake.
        (Value::Text(text), Some("file")) => text.len() == 44 && text.ends_with('='),
        (Value::Text(text), Some("env")) => !text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'),
        _ => notes.is_secret(key) || is_delicate(key),
    }
}
