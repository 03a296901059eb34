//! `config/reference.toml` says of each key what its doc comment says: this writes it, compares it, and loads it and every other example.
//!
//! In the reference a line `#key = value` is a key with its default or, if it has none, an example; a line `# text` is text. With
//! `LABGATE_BLESS=1` in the environment a reference that is out of date is written anew.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::*;

/// The sources of the tables.
const SOURCES: [&str; 10] = [
    include_str!("mod.rs"),
    include_str!("server.rs"),
    include_str!("gitlab.rs"),
    include_str!("session.rs"),
    include_str!("identity.rs"),
    include_str!("upstream.rs"),
    include_str!("route.rs"),
    include_str!("policy.rs"),
    include_str!("telemetry.rs"),
    include_str!("tokens.rs"),
];

const INTRODUCTION: &str = "\
# Every key of labgate.toml, its meaning, its default or an example.
#
# A line that begins with `#` and a key shows the default, or an example where there is none; the other keys are required.
# Durations are \"1h 30m\", \"15m\" or \"500ms\"; sizes \"64KiB\". A secret is \"inline\", { file = \"…\" } or { env = \"…\" }.
# Relative paths start from this file's directory. LABGATE_SESSION__LIFETIME=8h in the environment overrides session.lifetime.
#
# This file is generated from the doc comments in src/config.
";

struct Field {
    doc: String,
    name: String,
    kind: String,
}

type Structs = BTreeMap<String, Vec<Field>>;

/// The fields of every struct in `source`, as rustfmt lays them out.
fn structs(source: &str) -> Structs {
    let mut found = Structs::new();
    let mut current = None;
    let mut doc = String::new();
    for line in source.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("pub struct ") {
            current = name.strip_suffix(" {").map(String::from);
        } else if line == "}" {
            current = None;
        } else if let Some(text) = line.strip_prefix("/// ") {
            doc.push_str(text);
            doc.push(' ');
            continue;
        } else if let (Some(name), Some(field)) = (&current, line.strip_prefix("pub "))
            && let Some((field, kind)) = field.split_once(": ")
        {
            found.entry(name.clone()).or_default().push(Field {
                doc: doc.trim().into(),
                name: field.trim_start_matches("r#").into(),
                kind: kind.trim_end_matches(',').into(),
            });
        } else if line.starts_with("#[") {
            continue;
        }
        doc.clear();
    }
    found
}

/// What stands in back quotes after `word` in `doc`.
fn quoted<'a>(doc: &'a str, word: &str) -> Option<&'a str> {
    let (_, rest) = doc.split_once(&format!("{word} `"))?;
    rest.split_once('`').map(|(value, _)| value)
}

/// `doc` without the sentence that only repeats the value shown below it.
fn without(doc: &str, word: &str, value: &str) -> String {
    doc.replace(&format!(" {word} `{value}`."), "")
}

/// `text` as comments, folded at 110 characters.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() > 110) {
            lines.push("#".into());
        }
        let line = lines.last_mut().unwrap();
        line.push(' ');
        line.push_str(word);
    }
    lines.join("\n") + "\n"
}

/// The reference; `shown` says which of the keys that need not be given are given.
fn reference(shown: &dyn Fn(&str) -> bool) -> String {
    let structs: Structs = SOURCES.into_iter().flat_map(structs).collect();
    let mut text = INTRODUCTION.to_owned();
    for table in &structs["Config"] {
        let (header, kind) = match table.kind.as_str() {
            kind if kind.starts_with("BTreeMap") => (format!("[{}.main]", table.name), kind),
            kind if kind.starts_with("Vec") => (format!("[[{}]]", table.name), kind),
            kind => (format!("[{}]", table.name), kind),
        };
        let kind = kind.trim_end_matches('>').rsplit(['<', ' ']).next().unwrap();
        let (_, doc) = table.doc.split_once(": ").unwrap();
        let mut doc = doc.to_owned();
        doc.get_mut(..1).unwrap().make_ascii_uppercase();
        text.extend(["\n", &comment(&doc), &header, "\n"]);
        keys(&structs, kind, "", shown, &mut text);
        if kind == "Route" {
            text.push('\n');
            conditions(&structs["Rule"], "Conditions of a rule:", &mut text);
        }
    }
    text
}

/// Keys of a table that stands on one line, each by itself with its example or default.
fn conditions(fields: &[Field], title: &str, text: &mut String) {
    text.extend(["# ", title, "\n"]);
    for field in fields {
        let found = |word| quoted(&field.doc, word).map(|value| (word, value));
        let (word, value) = found("Example").or_else(|| found("Default")).unwrap();
        text.extend(["#\n# { ", &field.name, " = ", value, " }\n"]);
        text.push_str(&comment(&without(&field.doc, word, value)));
    }
}

fn keys(
    structs: &Structs,
    kind: &str,
    prefix: &str,
    shown: &dyn Fn(&str) -> bool,
    text: &mut String,
) {
    for field in &structs[kind] {
        let name = format!("{prefix}{}", field.name);
        if structs.contains_key(&field.kind) && field.kind != "TrustedProxies" {
            keys(structs, &field.kind, &format!("{name}."), shown, text);
            continue;
        }
        let value_of = |word| quoted(&field.doc, word).map(|value| (word, value));
        let (word, value) = value_of("Default")
            .or_else(|| value_of("Example"))
            .unwrap_or_else(|| panic!("{kind}.{name} has neither default nor example"));
        let given = field.doc.contains("Required.") || shown(&field.doc);
        let sign = if given { "" } else { "#" };
        text.push_str(&comment(&without(&field.doc, word, value)));
        text.extend([sign, &name, " = ", value, "\n"]);
        if field.kind == "StoreKind" {
            conditions(&structs["RedisStore"], "Or a table of:", text);
        }
        if field.kind == "Option<Api>" {
            conditions(&structs["Api"], "A table of:", text);
        }
        if field.kind == "Option<Assertion>" {
            conditions(&structs["Assertion"], "A table of:", text);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    if !prefix.is_empty() {
        text.push('\n');
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The configuration that `text` is, without a single problem.
fn loaded(text: &str, origin: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("labgate.toml");
    std::fs::write(&path, text).unwrap();
    let (document, config, problems) = load(Some(path), &BTreeMap::new());
    assert_eq!(problems, [], "{origin}:\n{}", render(&problems, &document));
    config.unwrap()
}

#[test]
fn the_reference_says_what_the_doc_comments_say() {
    let path = root().join("config/reference.toml");
    let fresh = reference(&|_| false);
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    if stored != fresh && std::env::var_os("LABGATE_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
        return;
    }
    assert_eq!(stored, fresh, "out of date: run `LABGATE_BLESS=1 cargo test --lib config::tests`");
}

#[test]
fn the_defaults_in_the_reference_are_the_defaults() {
    let written = |shown: &dyn Fn(&str) -> bool| {
        // The one path that is required starts from a directory that is another one each time.
        let text = reference(shown).replace("file = \"", "file = \"/");
        toml::to_string(&loaded(&text, "reference")).unwrap()
    };
    let defaults = |doc: &str| quoted(doc, "Default").is_some();
    assert_eq!(written(&defaults), written(&|_| false));
}

#[test]
fn every_key_is_known_to_be_plain_or_delicate() {
    let structs: Structs = SOURCES.into_iter().flat_map(structs).collect();
    for field in structs.values().flatten() {
        let tables =
            ["gitlab", "session", "identity", "assertion", "tokens"].contains(&field.name.as_str());
        // Whether something is done with a token is no token.
        let secret = field.kind.contains("Secret") || tables || field.kind == "bool";
        assert!(names::is_plain(&field.name) || secret, "{}", field.name);
    }
    for &name in names::PLAIN {
        let known = |field: &Field| field.name == name && !field.kind.contains("Secret");
        assert!(structs.values().flatten().any(known), "{name}");
        assert!(!names::is_delicate(name), "{name}");
    }
}

#[test]
fn the_whole_reference_loads() {
    let _all = loaded(&reference(&|_| true), "reference");
}

/// Every file below `directory` whose name ends with `end`.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path, end),
            false if path.to_string_lossy().ends_with(end) => vec![path],
            false => Vec::new(),
        })
        .collect();
    found.sort();
    found
}

#[test]
fn every_example_loads() {
    let mut examples = files(&root().join("config"), ".toml");
    examples.extend(files(&root().join("deploy"), ".toml"));
    assert!(!examples.is_empty());
    for path in examples {
        let _config = loaded(&std::fs::read_to_string(&path).unwrap(), &path.to_string_lossy());
    }
}

#[test]
fn the_parser_of_doc_comments_sees_what_is_there() {
    let found = structs(
        "/// S.\npub struct A {\n    /// One\n    /// two. Default `3`.\n    #[serde(x)]\n    pub b: u8,\n}\n",
    );
    let field = &found["A"][0];
    assert_eq!((field.name.as_str(), field.kind.as_str()), ("b", "u8"));
    assert_eq!(field.doc, "One two. Default `3`.");
    assert_eq!(quoted(&field.doc, "Default"), Some("3"));
}
