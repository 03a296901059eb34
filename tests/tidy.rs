//! The plan is a test: floors, doors, file headers, file sizes and house rules, checked against every file of the repository.
//!
//! ```text
//! floor 6  cli                                 shell ─▶ line ─▶ verbs ─▶ nouns      (never up, never sideways)
//! floor 5  app  demo
//! floor 4  gate
//! floor 3  accept  route  authenticate  authorize  forward  respond
//! floor 2  session  gitlab
//! floor 1  telemetry  target  identity
//! floor 0  config  body  refusal  clock
//! ```
//!
//! A rule reads one [`Source`] (or all of them) and returns its [`Violation`]s, each with file, line and what to do instead; the rules are in
//! `tidy/rules.rs` and `tidy/docs.rs`. Code under `#[cfg(test)]` is free of the floors and of the ban on `unwrap`.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use rules::Violation;
use source::Source;

#[test]
fn the_repository_follows_its_plan() {
    let sources = files(&|path| path.extension().is_some_and(|e| e == "rs"));
    assert!(sources.iter().any(|s| s.path == "src/lib.rs"), "the walk misses src/lib.rs");

    let mut violations: Vec<Violation> = Vec::new();
    for source in &sources {
        violations.extend(rules::all(source));
    }
    violations.extend(rules::plan(&sources));
    let texts = files(&|path| !docs::is_binary(path));
    violations.extend(texts.iter().flat_map(docs::machine_paths));
    violations.extend(docs::config_reference(&sources, &texts));
    violations.extend(docs::links(&texts));
    report(&violations);
}

fn report(violations: &[Violation]) {
    let mut list = String::new();
    for violation in violations {
        writeln!(list, "{violation}").expect("a String takes everything");
    }
    assert!(violations.is_empty(), "{} violations of the plan:\n{list}", violations.len());
}

/// Every file of the repository that `wanted` picks, sorted by path; hidden folders but `.ci` and build output are passed over.
fn files(wanted: &dyn Fn(&Path) -> bool) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(root, &mut found);
    found.sort();
    let inside =
        |path: &PathBuf| path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
    let read = |path: &PathBuf| Some(Source::new(inside(path)?, fs::read_to_string(path).ok()?));
    found.iter().filter(|path| wanted(path)).filter_map(read).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("a folder of the repository can be listed");
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let skipped =
            name == "target" || (name.starts_with('.') && name != ".ci") || name == "node_modules";
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !skipped => walk(&entry.path(), found),
            Ok(kind) if kind.is_file() && name != ".git" => found.push(entry.path()),
            _ => {},
        }
    }
}
