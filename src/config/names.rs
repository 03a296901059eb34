//! Names of keys: the nearest to one that does not exist, and those that the design has but this version has not.

/// The one of `names` that `written` was most likely meant to be, if any is near.
pub(super) fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let written = plain(written);
    let tolerance = (written.chars().count() / 3).clamp(1, 3);
    names
        .iter()
        .map(|name| (strsim::osa_distance(&written, &plain(name)), *name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `names` in back quotes, the last two joined by `word`.
pub(super) fn list(names: &[&str], word: &str) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {word} {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Whether the table that `table` is the type of is to get the key `name` in a later version.
pub(super) fn later(table: &str, name: &str) -> bool {
    LATER
        .iter()
        .any(|(known, names)| *known == table && names.contains(&name))
}

const LATER: [(&str, &[&str]); 7] = [
    ("Server", &["ext_authz", "tls", "sign_in_host"]),
    ("GitLab", &["hook_secret", "tokens", "api"]),
    ("Identity", &["assertion"]),
    ("Upstream", &["health"]),
    ("Route", &["basic"]),
    (
        "Rule",
        &[
            "project",
            "ci_project",
            "ci_namespace",
            "ref",
            "ref_protected",
            "environment",
            "two_factor",
            "external",
        ],
    ),
    ("Telemetry", &["otlp"]),
];
