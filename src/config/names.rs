//! Names of keys and tables: the nearest to one that does not exist, those that a later version has, and what a table may be called.

use super::Problem;

/// The one of `names` that `written` was most likely meant to be, if any is near.
pub fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
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

/// Whether `text` speaks of secrets, as the name of a key does or a comment.
pub(super) fn is_delicate(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["secret", "key", "token", "passw", "credential"].iter().any(|word| text.contains(word))
}

/// Whether `key` holds no secret, neither itself nor in a table below it.
pub(super) fn is_plain(key: &str) -> bool {
    PLAIN.contains(&key)
}

/// Keys whose values may be shown even in a file that can't be parsed.
pub(super) const PLAIN: &[&str] = &[
    "admin",
    "allow",
    "api",
    "archived_projects",
    "authorize_params",
    "base_url",
    "ca",
    "client_id",
    "connect_timeout",
    "connections",
    "cookie",
    "domain",
    "drain",
    "drain_delay",
    "email",
    "email_domain",
    "ext_authz",
    "external",
    "format",
    "forward_params",
    "grace",
    "group",
    "groups",
    "header",
    "header_bytes",
    "headers",
    "hide_rules",
    "host",
    "http2_streams",
    "idle",
    "idle_timeout",
    "insecure_allow_all_of_gitlab_com",
    "insecure_allow_development_gitlab",
    "internal_url",
    "label",
    "lifetime",
    "limits",
    "listen",
    "log",
    "methods",
    "name",
    "path",
    "prefix",
    "presets",
    "project",
    "public_url",
    "recheck",
    "recheck_timeout",
    "require_verified_email",
    "response_timeout",
    "revoke_on_sign_out",
    "role",
    "route",
    "same_site",
    "scopes",
    "server",
    "sign_in_host",
    "sign_in_page",
    "store",
    "telemetry",
    "timeouts",
    "trusted_proxies",
    "tunnels",
    "two_factor",
    "upstream",
    "url",
    "user",
    "users_file",
];

/// What is wrong with `name` as the name of a table in `section`: it is said in logs, metrics and URLs, and in variables' names.
pub(super) fn table(section: &str, name: &str) -> Option<Problem> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let plain = (1..=40).contains(&name.len()) && name.bytes().all(letter) && !name.contains("__");
    let message = "a name has at most 40 letters, digits, `-` and single `_`";
    (!plain).then(|| Problem::error(format!("{section}.{name}"), message))
}

/// Whether the table that `table` is the type of is to get the key `name` in a later version.
pub(super) fn later(table: &str, name: &str) -> bool {
    LATER.iter().any(|(known, names)| *known == table && names.contains(&name))
}

const LATER: [(&str, &[&str]); 6] = [
    ("Server", &["tls"]),
    ("GitLab", &["tokens"]),
    ("Upstream", &["health"]),
    ("Route", &["basic"]),
    ("Rule", &["ci_project", "ci_namespace", "ref", "ref_protected", "environment"]),
    ("Telemetry", &["otlp"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["lifetime", "idle_timeout", "recheck", "recheck_timeout", "url"];
        for (written, near) in [
            ("lifetme", Some("lifetime")),
            ("Lifetime", Some("lifetime")),
            ("idle-timeout", Some("idle_timeout")),
            ("rechek", Some("recheck")),
            ("uri", Some("url")),
            ("lru", None),
            ("timeout", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &names), near, "{written}");
        }
    }

    #[test]
    fn lists_read_as_english() {
        assert_eq!(list(&["a"], "or"), "`a`");
        assert_eq!(list(&["a", "b", "c"], "or"), "`a`, `b` or `c`");
    }

    #[test]
    fn tables_have_plain_names() {
        for name in ["main", "my-lab", "Lab_2"] {
            assert_eq!(table("gitlab", name), None);
        }
        for name in ["", "a b", "a.b", "a\nb", "ä", "a__b", &"a".repeat(41)] {
            assert!(table("gitlab", name).is_some(), "{name}");
        }
    }
}
