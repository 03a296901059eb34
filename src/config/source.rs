//! The sources of the configuration, file and `LABGATE_*` variables, and the order in which they are read.

use std::{collections::BTreeMap, io, path::PathBuf};

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::{Config, Document, Problem, environment, reader, tree::Node};

/// Reads the file at `path`, if given, and the `LABGATE_*` overrides in `env`; always gives a document, to tell problems with.
///
/// Relative paths in the configuration start from the file's directory, or from the working directory if there is no file. The `Config` is
/// none only if so much is wrong that nothing can be said of the rest; the problems may be warnings alone.
pub fn load(
    path: Option<PathBuf>,
    env: &BTreeMap<String, String>,
) -> (Document, Option<Config>, Vec<Problem>) {
    match path.as_ref().map(std::fs::read_to_string) {
        Some(Ok(text)) => read(path, &text.into(), env),
        Some(Err(error)) => {
            let document = Document::new(path, Zeroizing::default());
            (document, None, vec![unreadable(&error)])
        },
        None => read(None, &Zeroizing::default(), env),
    }
}

fn read(
    path: Option<PathBuf>,
    text: &Zeroizing<String>,
    env: &BTreeMap<String, String>,
) -> (Document, Option<Config>, Vec<Problem>) {
    let mut document = Document::new(path, text.clone());
    let (tree, mistakes) = DeTable::parse_recoverable(text);
    let mut problems: Vec<_> = mistakes.iter().map(syntax).collect();
    if !problems.is_empty() {
        return (document, None, problems);
    }
    let mut root = Node::root(&tree);
    environment::overlay(&mut root, env);
    let (config, mut notes) = reader::read::<Config>(&root);
    problems.append(&mut notes.problems);
    document.index(&root, notes);
    let config = config.map(|mut config| {
        if let Some(directory) = document.directory() {
            config.resolve(directory);
        }
        problems.extend(document.settle(config.problems()));
        config
    });
    (document, config, problems)
}

fn unreadable(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::InvalidData => Problem::error("", "the file is not UTF-8 text"),
        _ => Problem::error("", format!("the file can't be read: {error}")),
    }
}

fn syntax(mistake: &toml::de::Error) -> Problem {
    Problem {
        at: Some(mistake.span().unwrap_or_default()),
        ..Problem::error("", mistake.message())
    }
}

#[cfg(test)]
mod tests;
