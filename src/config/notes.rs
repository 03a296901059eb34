//! What was learnt while reading: the mistakes, what was left out because of them, and which keys hold secrets.

use std::collections::BTreeSet;

use super::Problem;

/// What was learnt while reading.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) problems: Vec<Problem>,
    /// Keys whose values were not read because they are wrong.
    pub(super) left_out: BTreeSet<String>,
    /// Keys whose values are secrets by their type.
    pub(super) secrets: BTreeSet<String>,
    /// Elements of lists that are read as if they were empty tables, lest those behind them change their index.
    pub(super) emptied: BTreeSet<String>,
}

impl Notes {
    /// Whether `key`, or a table or list around it, is a secret by its type, or a name that nobody knows.
    pub(super) fn is_secret(&self, key: &str) -> bool {
        self.secrets.iter().any(|secret| within(key, secret))
    }

    /// Whether a problem with `key` only follows from a value that was left out.
    pub(super) fn explains(&self, key: &str) -> bool {
        // An element that was skipped makes whatever is said of its list doubtful.
        let doubtful = |gap: &str| {
            gap.ends_with(']') && gap.rsplit_once('[').is_some_and(|(list, _)| within(key, list))
        };
        let left_out = |gap: &String| within(key, gap) || within(gap, key) || doubtful(gap);
        let emptied = |gap: &String| within(key, gap) || within(gap, key);
        self.left_out.iter().any(left_out) || self.emptied.iter().any(emptied)
    }

    /// How much is known; grows with each round of reading that finds something.
    pub(super) fn extent(&self) -> usize {
        self.left_out.len() + self.emptied.len()
    }
}

/// Whether the key path `inner` is `outer` or below it.
fn within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_explains_what_stands_in_it_around_it_and_behind_it() {
        let notes = Notes {
            left_out: ["session.lifetime", "session.keys[1]"].map(String::from).into(),
            emptied: ["route[1]"].map(String::from).into(),
            ..Notes::default()
        };
        for (key, explained) in [
            ("session.lifetime", true),
            ("session", true),
            ("session.lifetimes", false),
            ("session.grace", false),
            ("session.keys", true),
            ("session.keys[0]", true),
            ("route", true),
            ("route[1]", true),
            ("route[1].allow", true),
            ("route[10].allow", false),
            ("route[0].allow", false),
            ("", false),
        ] {
            assert_eq!(notes.explains(key), explained, "{key}");
        }
    }
}
