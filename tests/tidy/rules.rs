//! The rules about code: who may import whom, what a door shows, how long a file is, what only some rooms may do.

use std::fmt;

use crate::source::{Source, Token, reads};

/// Something the plan forbids, and where.
#[derive(Debug)]
pub(crate) struct Violation {
    /// File and line.
    pub(crate) place: String,
    /// The rule's name.
    pub(crate) rule: &'static str,
    /// What is wrong and what to do instead.
    pub(crate) message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}: {}", self.place, self.rule, self.message)
    }
}

/// The floors, lowest first, each with its rooms.
pub(crate) const FLOORS: [&[&str]; 7] = [
    &["config", "body", "refusal", "clock"],
    &["telemetry", "target", "identity"],
    &["session", "gitlab"],
    &["accept", "route", "authenticate", "authorize", "forward", "respond"],
    &["gate"],
    &["app", "demo"],
    &["cli"],
];

/// Names that say nothing about what a file or room owns.
const NO_NAMES: [&str; 7] = ["util", "utils", "common", "manager", "helpers", "misc", "shared"];
/// Names that say nothing as rooms; a file may be about a processor's core.
const NO_ROOMS: [&str; 2] = ["core", "types"];
/// Lines a file may have, tests not counted.
const WALL: usize = 600;
/// Macros that print, and words that end the process, behind which path.
const PRINTS: [&str; 5] = ["println", "eprintln", "print", "eprint", "dbg"];

/// All rules that look at one file.
pub(crate) fn all(source: &Source) -> Vec<Violation> {
    let rules: [fn(&Source) -> Vec<Violation>; 11] =
        [header, size, floors, doors, names, prints, panics, allows, ignores, pure, whole_config];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

/// The rules that look at the whole tree: the rooms, `lib.rs`, and files that nobody declares.
pub(crate) fn plan(sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(lib) = sources.iter().find(|s| s.path == "src/lib.rs") {
        found.extend(lib_lists_rooms(lib, sources));
        found.extend(lib_draws_floors(lib));
    }
    found.extend(
        sources.iter().filter(|s| s.path.starts_with("src/")).filter_map(|s| declared(s, sources)),
    );
    found.extend(sources.iter().filter_map(one_integration_binary));
    found
}

/// The floor of a room, counted from 0.
pub(crate) fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn violation(
    source: &Source,
    line: usize,
    rule: &'static str,
    message: impl Into<String>,
) -> Violation {
    Violation { place: format!("{}:{line}", source.path), rule, message: message.into() }
}

/// Every file starts with `//!` and holds something.
fn header(source: &Source) -> Vec<Violation> {
    let first = source.text.lines().next().unwrap_or_default();
    let words = first.strip_prefix("//!").map_or(0, |doc| doc.split_whitespace().count());
    if words < 3 {
        return vec![violation(
            source,
            1,
            "header",
            "begin with `//!` and one sentence on what this file owns",
        )];
    }
    if source.all.is_empty() {
        return vec![violation(
            source,
            1,
            "header",
            "an empty file promises what is not there; fill or remove it",
        )];
    }
    Vec::new()
}

fn size(source: &Source) -> Vec<Violation> {
    let tests = source.path.starts_with("tests/") || source.path.ends_with("/tests.rs");
    let long = !tests && source.length > WALL;
    let message = format!(
        "{} lines, tests not counted; the wall is {WALL}, aim at 150: split it by what it owns",
        source.length
    );
    long.then(|| violation(source, source.length, "size", message)).into_iter().collect()
}

/// A room imports lower floors only; `main.rs` knows `cli` alone.
fn floors(source: &Source) -> Vec<Violation> {
    let Some(room) = source.room() else {
        return main_calls_cli(source);
    };
    let Some(own) = floor(room) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for import in source.imports() {
        let Some(other) = import.path.first().filter(|other| *other != room) else {
            continue;
        };
        let message = match floor(other) {
            Some(floor) if floor < own => continue,
            Some(floor) if floor == own => {
                format!(
                    "`{room}` imports `{other}`, its neighbour on floor {own}; let the floor above hand over the value"
                )
            },
            Some(floor) => format!(
                "`{room}` (floor {own}) imports `{other}` (floor {floor}); arrows only point down"
            ),
            None if other == "*" => "import rooms by name, not `crate::*`".to_owned(),
            None => format!(
                "`crate::{other}` is no room of the floor plan; name what you need by its room"
            ),
        };
        found.push(violation(source, import.line, "floors", message));
    }
    found
}

fn main_calls_cli(source: &Source) -> Vec<Violation> {
    if source.path != "src/main.rs" {
        return Vec::new();
    }
    let strangers = find(&source.code, "labgate :: *")
        .filter(|(at, _)| !reads(&source.code, *at, "labgate :: cli"));
    strangers
        .map(|(_, line)| {
            violation(source, line, "floors", "main.rs calls labgate::cli and nothing else")
        })
        .collect()
}

/// `mod.rs` is the door: what lies behind it is `mod`. Only `demo` shows its two parts, to the integration tests.
fn doors(source: &Source) -> Vec<Violation> {
    if matches!(source.room(), None | Some("demo")) {
        return Vec::new();
    }
    let open = find(&source.code, "pub mod").chain(find(&source.code, "pub ( crate ) mod"));
    let message = "a room's files are `mod`; re-export what the door shows with `pub use`";
    open.map(|(_, line)| violation(source, line, "doors", message)).collect()
}

fn names(source: &Source) -> Vec<Violation> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let module = source.module();
    if let Some(name) = module
        .iter()
        .find(|name| NO_NAMES.contains(&name.as_str()) || NO_ROOMS.contains(&room) && *name == room)
    {
        let message = format!("`{name}` names nothing; call it after what it owns");
        return vec![violation(source, 1, "names", message)];
    }
    let message = format!(
        "`{room}` stands on no floor; a new room changes lib.rs, tests/tidy.rs and the floor plan"
    );
    floor(room).is_none().then(|| violation(source, 1, "names", message)).into_iter().collect()
}

/// Only `cli` prints, and only it and `main` end the process.
fn prints(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/") || matches!(source.room(), None | Some("cli")) {
        return Vec::new();
    }
    let code = &source.code;
    let mut found = Vec::new();
    for name in PRINTS {
        let message = format!("`{name}!` outside cli; return the text or log it");
        found.extend(
            find(code, &format!("{name} !"))
                .map(|(_, line)| violation(source, line, "prints", message.as_str())),
        );
    }
    for end in ["process :: exit", "process :: abort"] {
        let message = "only cli ends the process; return an error";
        found.extend(find(code, end).map(|(_, line)| violation(source, line, "prints", message)));
    }
    found
}

fn panics(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let message = "no unwrap in shipped code; return an error, or `expect(\"why it holds\")` for what no peer can shape";
    let calls = [". unwrap (", ". unwrap_err (", ". unwrap_unchecked ("];
    let found = calls.iter().flat_map(|call| find(&source.code, call));
    found.map(|(_, line)| violation(source, line, "panics", message)).collect()
}

fn allows(source: &Source) -> Vec<Violation> {
    let found = find(&source.all, "[ allow (").map(|(_, line)| line);
    found
        .map(|line| {
            violation(
                source,
                line,
                "allows",
                "write `#[expect(lint, reason = \"…\")]`, never `#[allow]`",
            )
        })
        .collect()
}

fn ignores(source: &Source) -> Vec<Violation> {
    let found = find(&source.all, "[ ignore ]").map(|(_, line)| line);
    found
        .map(|line| {
            violation(source, line, "ignores", "say why: `#[ignore = \"reason\"]`, or run the test")
        })
        .collect()
}

/// `route` and `authorize` decide from values alone.
fn pure(source: &Source) -> Vec<Violation> {
    let Some(room @ ("route" | "authorize")) = source.room() else {
        return Vec::new();
    };
    let words = source.code.iter().filter(|t| matches!(t.text.as_str(), "async" | "tokio"));
    let imports = source.imports();
    let rooms =
        imports.iter().filter(|i| i.path.first().is_some_and(|r| r == "session" || r == "gitlab"));
    let lines = words
        .map(|t| (t.line, t.text.as_str()))
        .chain(rooms.map(|i| (i.line, i.path.first().map_or("", |r| r))));
    let message = |word| {
        format!("`{room}` is pure: no `{word}`; what a decision needs is already in its arguments")
    };
    lines.map(|(line, word)| violation(source, line, "pure", message(word))).collect()
}

/// A room reads its own table; the whole `Config` is for `cli`, `app`, `demo`, and for `gate/build.rs` with its `plan.rs`.
fn whole_config(source: &Source) -> Vec<Violation> {
    let sees_all = matches!(source.room(), None | Some("config" | "cli" | "app" | "demo"));
    if sees_all || matches!(source.path.as_str(), "src/gate/build.rs" | "src/gate/plan.rs") {
        return Vec::new();
    }
    let imports = source.imports();
    let whole =
        imports.iter().filter(|i| i.path.iter().map(String::as_str).eq(["config", "Config"]));
    whole
        .map(|i| violation(source, i.line, "config", "take your own table, not the whole `Config`"))
        .collect()
}

fn lib_lists_rooms(lib: &Source, sources: &[Source]) -> Vec<Violation> {
    let rooms = sources.iter().filter_map(Source::room);
    let mut missing: Vec<&str> = rooms
        .filter(|room| find(&lib.code, &format!("pub mod {room} ;")).next().is_none())
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
        .iter()
        .map(|room| violation(lib, 1, "rooms", format!("`pub mod {room};` is missing")))
        .collect()
}

/// The drawing in the crate's documentation is the table above.
fn lib_draws_floors(lib: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, rooms) in FLOORS.iter().enumerate() {
        let label = format!("//! floor {number}");
        let drawn = lib
            .text
            .lines()
            .enumerate()
            .find_map(|(i, line)| Some((i + 1, line.strip_prefix(&label)?)));
        let (line, words) = drawn.unwrap_or((1, ""));
        let mut words: Vec<&str> =
            words.split_whitespace().take_while(|word| floor(word).is_some()).collect();
        let mut expected = rooms.to_vec();
        words.sort_unstable();
        expected.sort_unstable();
        if words != expected {
            let message = format!("floor {number} holds {expected:?}, the drawing says {words:?}");
            found.push(violation(lib, line, "rooms", message));
        }
    }
    found
}

/// A file nobody declares is dead: some file of the folder above says `mod name;`.
fn declared(source: &Source, sources: &[Source]) -> Option<Violation> {
    let module = source.module();
    let (name, parent) = module.split_last()?;
    parent.first()?;
    let declares = |s: &&Source| s.path.starts_with("src/") && s.module() == parent;
    let parent = sources.iter().find(declares)?;
    let missing = find(&parent.all, &format!("mod {name} ;")).next().is_none();
    missing.then(|| {
        violation(source, 1, "rooms", format!("{} does not say `mod {name};`", parent.path))
    })
}

fn one_integration_binary(source: &Source) -> Option<Violation> {
    let file = source.path.strip_prefix("tests/")?;
    let own = !file.contains('/') && file != "tidy.rs"
        || file.ends_with("/main.rs") && file != "it/main.rs";
    own.then(|| {
        violation(source, 1, "tests", "one more test binary to link; make it a module of tests/it")
    })
}

/// Where `words` stand in `tokens`: index and line.
fn find<'a>(tokens: &'a [Token], words: &str) -> impl Iterator<Item = (usize, usize)> + use<'a> {
    let words = words.to_owned();
    tokens
        .iter()
        .enumerate()
        .filter(move |(at, _)| reads(tokens, *at, &words))
        .map(|(at, token)| (at, token.line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "//! Owns the thing in question.\n";

    /// The rules and lines that `text` violates as the file at `path`.
    fn violations(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, format!("{HEADER}{text}"));
        let place =
            |v: Violation| format!("{} {}", v.rule, v.place.rsplit(':').next().unwrap_or_default());
        all(&source).into_iter().map(place).collect()
    }

    /// Path, text, and the rules it violates with their lines.
    const CASES: &[(&str, &str, &[&str])] = &[
        ("src/gate/mod.rs", "use crate::{route::T, session::S, clock::C};", &[]),
        ("src/gate/mod.rs", "use crate::{\n  route::T,\n  app::App,\n};", &["floors 4"]),
        ("src/route.rs", "use crate::authorize::Policy;", &["floors 2"]),
        ("src/session/mod.rs", "fn f(x: crate::gitlab::User) {}", &["floors 2"]),
        ("src/session/seal.rs", "use super::super::gate;", &["floors 2"]),
        ("src/session/seal.rs", "use super::cookie::C;\nuse crate::session::X;", &[]),
        ("src/session/mod.rs", "use crate::*;", &["floors 2"]),
        ("src/session/mod.rs", "use crate::Thing;", &["floors 2"]),
        ("src/session/mod.rs", "#[cfg(test)]\nmod tests { use crate::gitlab; }\nfn f() {}", &[]),
        (
            "src/session/mod.rs",
            "fn f() {} // crate::gate\nconst A: &str = \"crate::gate::X\";",
            &[],
        ),
        ("src/main.rs", "fn main() { labgate::cli::main(); }", &[]),
        ("src/main.rs", "fn main() {\n labgate::app::run(); }", &["floors 3"]),
        ("src/session/mod.rs", "pub mod seal;", &["doors 2"]),
        ("src/session/mod.rs", "pub(crate) mod seal;", &["doors 2"]),
        ("src/session/mod.rs", "mod seal;\npub use seal::Seal;", &[]),
        ("src/demo/mod.rs", "pub mod gitlab;", &[]),
        ("src/lib.rs", "pub mod body;", &[]),
        ("src/util.rs", "fn f() {}", &["names 1"]),
        ("src/gate/helpers.rs", "fn f() {}", &["names 1"]),
        ("src/core/mod.rs", "fn f() {}", &["names 1"]),
        ("src/accept/core.rs", "fn f() {}", &[]),
        ("src/lobby.rs", "fn f() {}", &["names 1"]),
        (
            "src/app.rs",
            "fn f() {\n println!(\"x\");\n std::process::exit(1) }",
            &["prints 3", "prints 4"],
        ),
        ("src/cli/run.rs", "fn f() { println!(\"x\") }", &[]),
        ("src/app.rs", "fn f() { x.unwrap() }", &["panics 2"]),
        ("src/app.rs", "fn f() { x.unwrap_or(1); y.expect(\"it is 1\") }", &[]),
        ("src/app.rs", "fn g() {}\n#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }", &[]),
        ("src/session/tests.rs", "use crate::app;\nfn f() { println!(x.unwrap()) }", &[]),
        ("src/session/seal/tests/table.rs", "fn f() { x.unwrap() }", &[]),
        ("src/app.rs", "#[allow(dead_code)]\nfn f() {}", &["allows 2"]),
        ("src/app.rs", "#[expect(dead_code, reason = \"soon\")]\nfn f() {}", &[]),
        ("tests/it/main.rs", "#[test]\n#[ignore]\nfn f() {}", &["ignores 3"]),
        ("tests/it/main.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", &[]),
        ("src/route.rs", "async fn f() {}", &["pure 2"]),
        ("src/authorize.rs", "use crate::gitlab::Api;", &["pure 2"]),
        ("src/session/mod.rs", "use crate::config::{Config, Secret};", &["config 2"]),
        ("src/session/mod.rs", "use crate::config::SessionConfig;", &[]),
        ("src/gate/build.rs", "use crate::config::Config;", &[]),
    ];

    #[test]
    fn every_rule_finds_its_violation_and_only_that() {
        for (path, text, expected) in CASES {
            assert_eq!(violations(path, text), *expected, "{path}: {text}");
        }
    }

    #[test]
    fn a_file_says_what_it_owns_and_holds_it() {
        let rule = |path, text: &str| header(&Source::new(path, text)).len();
        assert_eq!(rule("src/app.rs", "use std::fs;\n"), 1);
        assert_eq!(rule("src/app.rs", "//! To come.\n"), 1);
        assert_eq!(rule("src/app.rs", "//! Owns the running process.\n"), 1);
        assert_eq!(rule("src/app.rs", "//! Owns the running process.\nstruct App;\n"), 0);
    }

    #[test]
    fn the_wall_stands_at_600_lines_without_tests() {
        let lines = |n: usize| format!("{HEADER}{}", "fn f() {}\n".repeat(n - 1));
        assert!(size(&Source::new("src/app.rs", lines(600))).is_empty());
        assert_eq!(size(&Source::new("src/app.rs", lines(601))).len(), 1);
        let tested =
            format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(590), "fn f() {}\n".repeat(100));
        assert!(size(&Source::new("src/app.rs", tested)).is_empty());
        assert!(size(&Source::new("src/session/tests.rs", lines(900))).is_empty());
    }

    #[test]
    fn the_tree_follows_the_drawing() {
        let lines = FLOORS.iter().enumerate();
        let lines =
            lines.map(|(i, rooms)| format!("//! floor {i}  {}   words\n", rooms.join("  ")));
        let drawing = lines.collect::<Vec<_>>().concat();
        let files = |lib: String, more: &[(&str, &str)]| -> Vec<Source> {
            let lib = Source::new("src/lib.rs", lib);
            more.iter().map(|(path, text)| Source::new(*path, *text)).chain([lib]).collect()
        };
        let rules =
            |sources: &[Source]| plan(sources).iter().map(ToString::to_string).collect::<Vec<_>>();

        let good = files(
            format!("{drawing}pub mod gate;"),
            &[("src/gate/mod.rs", "mod build;"), ("src/gate/build.rs", "")],
        );
        assert_eq!(rules(&good), [""; 0]);

        let unlisted = files(drawing.clone(), &[("src/gate/mod.rs", "")]);
        assert_eq!(rules(&unlisted), ["src/lib.rs:1: rooms: `pub mod gate;` is missing"]);

        let dead = files(
            format!("{drawing}pub mod gate;"),
            &[("src/gate/mod.rs", ""), ("src/gate/build.rs", "")],
        );
        assert_eq!(
            rules(&dead),
            ["src/gate/build.rs:1: rooms: src/gate/mod.rs does not say `mod build;`"]
        );

        let redrawn = files(drawing.replace("  demo", ""), &[]);
        assert_eq!(
            rules(&redrawn),
            [r#"src/lib.rs:6: rooms: floor 5 holds ["app", "demo"], the drawing says ["app"]"#]
        );

        let binaries = files(
            drawing,
            &[("tests/more.rs", ""), ("tests/it/main.rs", ""), ("tests/tidy.rs", "")],
        );
        assert_eq!(rules(&binaries).len(), 1);
    }
}
