//! The sources of the configuration, file and `LABGATE_*` variables, as one document that remembers where each key stands.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Config, Problem};

/// The text of the configuration with the overrides of the environment, and where each key stands.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    text: String,
}

/// Reads the file at `path`, if given, and the `LABGATE_*` overrides in `env`; always gives a document, to tell problems with.
///
/// The `Config` is none only if so much is wrong that nothing can be said of the rest.
pub fn load(
    path: Option<PathBuf>,
    env: &BTreeMap<String, String>,
) -> (Document, Option<Config>, Vec<Problem>) {
    let _ = env;
    let text = path
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok())
        .unwrap_or_default();
    (Document { path, text }, None, Vec::new())
}
