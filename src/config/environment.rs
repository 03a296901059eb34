//! `LABGATE_SECTION__KEY=value`: variables that override keys of the file.
//!
//! ```text
//! LABGATE_SESSION__LIFETIME=8h                  session.lifetime
//! LABGATE_SERVER__LIMITS__HEADERS=50            server.limits.headers
//! LABGATE_GITLAB__MAIN__CLIENT_ID=…             gitlab.main.client_id, or of [gitlab.Main] if the file has that
//! LABGATE_ROUTE='[{ upstream = "…", … }]'       lists and tables are TOML
//! ```
//!
//! Two underscores go one table down; case does not count, and `_` also stands for `-` in names that the file has. No overrides are: the
//! variables of [`OTHERS`], those that a secret names (`{ env = "LABGATE_KEY" }`), and what Kubernetes tells of a service called labgate.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Node, Place, Value};

/// Variables with the prefix that are read elsewhere: the path of the file, and a token for `labgate explain --online`.
const OTHERS: [&str; 2] = ["LABGATE_CONFIG", "LABGATE_GITLAB_TOKEN"];

const PREFIX: &str = "LABGATE_";

/// Lays the overrides in `env` over the tree at `root`.
pub(super) fn overlay(root: &mut Node, env: &BTreeMap<String, String>) {
    let overrides: Vec<_> = env
        .iter()
        .filter(|(name, value)| is_override(name, value))
        .map(|(name, value)| (name, Node::variable(name, value)))
        .collect();
    let mut named = BTreeSet::new();
    let mut note = |_: &str, node: &Node| named.extend(secret_variable(node));
    root.walk("", &mut note);
    for (_, node) in &overrides {
        node.walk("", &mut note);
    }
    for (name, node) in overrides {
        if !named.contains(name) {
            let path = name.strip_prefix(PREFIX).unwrap_or_default();
            put(root, &path.split("__").collect::<Vec<_>>(), node);
        }
    }
}

fn is_override(name: &str, value: &str) -> bool {
    name.starts_with(PREFIX) && !OTHERS.contains(&name) && !is_from_kubernetes(name, value)
}

/// Whether Kubernetes sets this for a service whose name begins with `labgate`; pods get these unless `enableServiceLinks` is off.
///
/// Source: Kubernetes, Service, "Discovering services", environment variables.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let scheme = ["tcp://", "udp://", "sctp://"];
    let linked = || scheme.iter().any(|scheme| value.starts_with(scheme));
    let port = || {
        name.split_once("_PORT_")
            .is_some_and(|(_, rest)| rest.starts_with(|digit: char| digit.is_ascii_digit()))
    };
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.ends_with("_SERVICE_PORT")
            || name.contains("_SERVICE_PORT_")
            || (name.ends_with("_PORT") && linked())
            || port())
}

/// The variable that a table `{ env = "NAME" }` names.
fn secret_variable(node: &Node) -> Option<String> {
    let Value::Table(table) = &node.value else {
        return None;
    };
    match (table.len(), table.get("env").map(|env| &env.value)) {
        (1, Some(Value::Text(name))) => Some(name.to_string()),
        _ => None,
    }
}

fn put(parent: &mut Node, path: &[&str], node: Node) {
    let Some((segment, rest)) = path.split_first() else {
        *parent = node;
        return;
    };
    if let Value::Raw(_, Ok(meaning)) = &mut parent.value
        && let Value::Table(table) = &mut meaning.value
    {
        parent.value = Value::Table(std::mem::take(table));
    }
    if !matches!(parent.value, Value::Table(_)) {
        // Reading will complain of a table where there should be none, at the variable that asked for it.
        *parent = Node { place: node.place.clone(), value: Value::Table(BTreeMap::new()) };
    }
    if let Value::Table(table) = &mut parent.value {
        let name = existing(table, segment).unwrap_or_else(|| segment.to_ascii_lowercase());
        let child = table.entry(name).or_insert_with(|| empty(&node.place));
        put(child, rest, node);
    }
}

fn existing(table: &BTreeMap<String, Node>, segment: &str) -> Option<String> {
    let same = |name: &&String| name.replace('-', "_").eq_ignore_ascii_case(segment);
    table.keys().find(same).cloned()
}

fn empty(place: &Place) -> Node {
    Node { place: place.clone(), value: Value::Table(BTreeMap::new()) }
}
