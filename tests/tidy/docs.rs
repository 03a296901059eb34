//! The rules about what surrounds the code: no path of one machine anywhere, every configuration key in the reference, no link of a page broken.

use std::path::Path;

use crate::{
    rules::Violation,
    source::{Source, Token, reads},
};

/// Folders that exist on some machine only, written in two parts so that this file passes its own rule.
const MACHINE_FOLDERS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
/// Where the generated list of all keys lies.
const REFERENCE: &str = "config/reference.toml";

/// Whether a file is no text, by its name.
pub(crate) fn is_binary(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    matches!(
        extension,
        "png" | "jpg" | "jpeg" | "gif" | "ico" | "webp" | "woff2" | "gz" | "xz" | "zip"
    )
}

/// A file that names a folder of its author's machine works there only.
pub(crate) fn machine_paths(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        for folder in MACHINE_FOLDERS.into_iter().filter(|folder| line.contains(folder)) {
            found.push(Violation {
                place: format!("{}:{number}", source.path),
                rule: "paths",
                message: format!("`{folder}` is a folder of one machine; write the path relative to the repository"),
            });
        }
    }
    found
}

/// Every field of a table in `src/config` is a key of the reference, once that exists.
pub(crate) fn config_reference(sources: &[Source], texts: &[Source]) -> Vec<Violation> {
    let Some(reference) = texts.iter().find(|s| s.path == REFERENCE) else {
        return Vec::new();
    };
    let tables = sources.iter().filter(|s| s.path.starts_with("src/config/"));
    let keys =
        tables.flat_map(|table| keys(table).into_iter().map(move |(line, key)| (table, line, key)));
    let missing = keys.filter(|(_, _, key)| !mentions(&reference.text, key));
    missing
        .map(|(table, line, key)| Violation {
            place: format!("{}:{line}", table.path),
            rule: "reference",
            message: format!("`{key}` is missing in {REFERENCE}; regenerate it"),
        })
        .collect()
}

/// Links between pages lead to files of the repository, and to headings that the page there has.
pub(crate) fn links(texts: &[Source]) -> Vec<Violation> {
    let pages =
        texts.iter().filter(|page| Path::new(&page.path).extension().is_some_and(|e| e == "md"));
    let links = pages.flat_map(|page| links_of(page).into_iter().map(move |link| (page, link)));
    let broken = links.filter(|(page, (_, target))| !leads(page, target, texts));
    broken
        .map(|(page, (line, target))| Violation {
            place: format!("{}:{line}", page.path),
            rule: "links",
            message: format!("`{target}` leads nowhere in the repository"),
        })
        .collect()
}

/// Line and target of each `](target)` that stays in the repository.
fn links_of(page: &Source) -> Vec<(usize, &str)> {
    let lines = (1..).zip(page.text.lines());
    let all = lines.flat_map(|(number, line)| {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        targets.map(move |(target, _)| (number, target))
    });
    all.filter(|(_, target)| !target.contains("://")).collect()
}

fn leads(page: &Source, target: &str, texts: &[Source]) -> bool {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let mut path: Vec<&str> = page.path.split('/').collect();
    path.pop();
    for step in file.split('/') {
        match step {
            ".." => drop(path.pop()),
            step => path.push(step),
        }
    }
    let path = if file.is_empty() { page.path.clone() } else { path.join("/") };
    let found = texts.iter().find(|text| text.path == path);
    found.is_some_and(|text| heading.is_empty() || text.text.lines().any(|l| anchor(l) == heading))
}

/// What a heading is called in links: lower case, words joined by `-`.
fn anchor(line: &str) -> String {
    let words = line.strip_prefix('#').unwrap_or_default().trim_start_matches('#');
    let kept = words.trim().chars().filter(|c| c.is_alphanumeric() || " -".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Line and name of each field in the structs that derive `Deserialize`.
fn keys(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    let mut derived = false;
    let mut at = 0;
    while let Some(token) = code.get(at) {
        if reads(code, at, "derive (") {
            derived =
                code.iter().skip(at).take_while(|t| t.text != "]").any(|t| t.text == "Deserialize");
        } else if matches!(token.text.as_str(), "struct" | "enum" | "fn" | "impl") {
            if token.text == "struct" && derived {
                found.extend(fields(code, at));
            }
            derived = false;
        }
        at += 1;
    }
    found
}

/// The fields of the braced struct at `at`: words at depth one that a single `:` follows. Tuple structs are leaves, not tables.
fn fields(code: &[Token], at: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    for (i, token) in code.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "{" | "(" | "[" | "<" => depth += 1,
            "}" | ")" | "]" | ">" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    break;
                }
            },
            ";" if depth == 0 => break,
            name if depth == 1 && code.get(i + 1).is_some_and(|next| next.text == ":") => {
                found.push((token.line, name.to_owned()));
            },
            _ => {},
        }
    }
    found
}

/// Whether `text` shows `key` as a key (`key =`, commented or not) or as a table (`[key]`, `[[key]]`, `[a.key]`).
fn mentions(text: &str, key: &str) -> bool {
    let bounded = |before: Option<char>, after: &str| {
        let starts = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let rest = after.trim_start();
        starts && (rest.starts_with('=') || rest.starts_with(']') || rest.starts_with('.'))
    };
    text.match_indices(key).any(|(at, _)| {
        let (before, after) = text.split_at(at);
        bounded(before.chars().next_back(), after.strip_prefix(key).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_path_is_found_on_its_line() {
        let text = format!("fine /etc/labgate\nsee {}shared/x\n", MACHINE_FOLDERS[0]);
        let found = machine_paths(&Source::new("README.md", text));
        assert_eq!(found.iter().map(|v| v.place.as_str()).collect::<Vec<_>>(), ["README.md:2"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found_on_its_line() {
        let pages = [
            Source::new("README.md", "[a](docs/a.md) [b](docs/b.md)\n[c](https://c.example)"),
            Source::new("docs/a.md", "## At night: help\n[x](#at-night-help) [y](../README.md#no)"),
        ];
        let found = links(&pages);
        let found: Vec<_> = found.iter().map(|v| (v.place.as_str(), v.message.as_str())).collect();
        assert_eq!(
            found,
            [
                ("README.md:1", "`docs/b.md` leads nowhere in the repository"),
                ("docs/a.md:2", "`../README.md#no` leads nowhere in the repository"),
            ]
        );
    }

    #[test]
    fn every_key_of_a_table_is_wanted_in_the_reference() {
        let table = "#[derive(Debug, Deserialize)]\npub struct Server {\n  /// Where.\n  #[serde(default = \"x\")]\n  pub listen: A<B>,\n  pub prefix: std::path::PathBuf,\n}\n\
                     struct Plain { hidden: u8 }\n#[derive(Deserialize)]\nstruct Leaf(String);\nfn f(argument: u8) {}";
        let sources = [Source::new("src/config/server.rs", table)];
        let check = |text: &str| {
            let found = config_reference(&sources, &[Source::new(REFERENCE, text)]);
            found.into_iter().map(|v| v.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(check("[server]\nlisten = 1\n# prefix = \"/oauth2\"\n"), [""; 0]);
        assert_eq!(
            check("[server]\nlisten = 1\nno_prefix = 2\nprefixes = 3\n"),
            [
                "src/config/server.rs:6: reference: `prefix` is missing in config/reference.toml; regenerate it"
            ]
        );
        assert!(config_reference(&sources, &[]).is_empty(), "no reference yet, no rule");
    }

    #[test]
    fn tables_count_as_mentioned() {
        for (text, key, there) in [
            ("[[route]]\n", "route", true),
            ("[gitlab.main]\n", "gitlab", true),
            ("limits = { header_bytes = 1 }\n", "header_bytes", true),
            ("header_bytes = 1\n", "bytes", false),
        ] {
            assert_eq!(mentions(text, key), there, "{text}");
        }
    }
}
