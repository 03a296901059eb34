//! The documentation as a stranger reads it: whatever a page shows of labgate.toml works beside the rest of a whole configuration, what it has people type
//! works with that, and says what the page says.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use labgate::{config, gate::Plan};

use crate::support::{labgate, outcome};

/// What a page need not repeat, by table.
const REST: [(&str, &str); 4] = [
    ("server", "[server]\npublic_url = \"https://app.example.com\"\n"),
    (
        "gitlab",
        "[gitlab.main]\nbase_url = \"https://gitlab.example.com\"\nclient_id = \"the Application ID\"\n",
    ),
    ("session", "[session]\nkeys = [{ file = \"session.key\" }]\n"),
    ("route", "[[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = [{ group = \"acme\" }]\n"),
];

/// Name and text of every page.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.push(root.join("README.md"));
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("a page"))).collect()
}

fn page(name: &str) -> String {
    pages().into_iter().find(|(page, _)| page == name).expect("a page").1
}

/// What stands between fences of this language; `""` is none.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    // Between fences is what stands behind every second one.
    for block in page.split("\n```").skip(1).step_by(2) {
        let (opening, inside) = block.split_once('\n').expect("a fence on its own line");
        if opening == language {
            found.push(inside);
        }
    }
    found
}

/// `parts`, and of the rest the tables that they lack.
fn whole(parts: &str) -> String {
    let said: toml::Table = parts.parse().unwrap_or_else(|error| panic!("{error}: {parts}"));
    let lacking = REST.into_iter().filter(|(table, _)| !said.contains_key(*table));
    let lacking: String = lacking.map(|(_, text)| text).collect();
    format!("{parts}\n{lacking}")
}

/// What `labgate check` would call an error in it, where its files and variables are there.
fn errors(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("labgate.toml");
    fs::write(&path, text).expect("written");
    let (document, config, mut problems) = config::load(Some(path), &BTreeMap::new());
    if let Some(config) = config {
        problems.extend(document.settle(Plan::sketch(&config, &|_| None).1));
    }
    problems.retain(|problem| !problem.warning);
    config::render(&problems, &document)
}

#[test]
fn every_part_of_a_configuration_works_beside_the_rest() {
    let mut count = 0;
    for (page, text) in pages() {
        for block in blocks(&text, "toml") {
            assert_eq!(errors(&whole(block)), "", "{page}: {block}");
            count += 1;
        }
    }
    assert!(count > 12, "{count} blocks");
    // It would see what is wrong.
    assert!(errors(&whole("[identity]\npreset = [\"grafana\"]\n")).contains("`presets`"));
    assert!(errors(&whole("[gitlab.main]\nlabel = \"x\"\n")).contains("client_id"));
}

#[test]
fn whoever_copies_both_presets_and_assertion_has_both() {
    let page = page("identity.md");
    let both = blocks(&page, "toml");
    let both = both
        .iter()
        .filter(|block| ["presets =", "lifetime ="].iter().any(|key| block.contains(key)));
    let both: Vec<_> = both.copied().collect();
    assert_eq!(both.len(), 2, "{both:?}");
    for order in [both.join("\n"), both.iter().rev().copied().collect::<Vec<_>>().join("\n")] {
        assert_eq!(errors(&whole(&order)), "", "{order}");
    }
}

#[test]
fn labgate_explain_says_what_the_pages_say() {
    let mut count = 0;
    for name in ["policy.md", "machines.md"] {
        let page = page(name);
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("labgate.toml");
        fs::write(&config, whole(&blocks(&page, "toml").join("\n"))).expect("written");
        // In a block of its own, or in a line of text.
        let commands = page.split('`').flat_map(str::lines);
        let commands = commands.filter(|line| line.starts_with("labgate explain --url "));
        for command in commands {
            let config = config.to_str().expect("text");
            let said = command.split(' ').skip(1);
            let arguments: Vec<_> = said.chain(["--config", config]).collect();
            let (code, out, err) = outcome(&mut labgate(&arguments, &[]));
            assert_eq!(code, 0, "{name}: {command}: {out}{err}");
            let shown = page.contains(&format!("\n```sh\n{command}\n```\n"));
            let answer = page.contains(&format!("\n```sh\n{command}\n```\n\n```\n{out}```\n"));
            assert_eq!(shown, answer, "{name}: {command}: {out}");
            count += 1;
        }
    }
    assert!(count >= 3, "{count} commands");
}

#[test]
fn a_group_of_another_gitlab_opens_nothing_at_the_front_door() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/front-door.toml");
    let config = config.to_str().expect("text");
    for (host, group) in [("grafana", "acme/ops=owner"), ("wiki", "acme/wiki=owner")] {
        let url = format!("https://{host}.example.com/admin");
        for (gitlab, code) in [("main", 0), ("partners", 1)] {
            let asked = ["explain", "--config", config, "--url", &url, "--user", "ada"];
            let arguments = [&asked[..], &["--group", group, "--gitlab", gitlab]].concat();
            let (ended, out, err) = outcome(&mut labgate(&arguments, &[]));
            assert_eq!(ended, code, "{gitlab} at {url}: {out}{err}");
        }
    }
}
