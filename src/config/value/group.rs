//! Groups, by their full paths and by patterns of such.

use serde::{Deserialize, Serialize};

use super::wildcard::wildcard;

/// Full path of a group, such as `acme/web`; compared by whole segments, without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupPath(String);

impl GroupPath {
    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this very group.
    pub fn is(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }

    /// Whether `other` is this group or an ancestor of it.
    pub fn is_within(&self, other: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), other.as_bytes());
        own.get(..other.len()).is_some_and(|head| head.eq_ignore_ascii_case(other))
            && !other.is_empty()
            && own.get(other.len()).is_none_or(|next| *next == b'/')
    }
}

impl TryFrom<String> for GroupPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_path(&text) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is not the full path of a group, such as `acme/web`"))
        }
    }
}

/// Whether `text` is segments of GitLab's signs, joined by slashes.
pub(super) fn is_path(text: &str) -> bool {
    text.split('/').all(|part| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    })
}

impl From<GroupPath> for String {
    fn from(value: GroupPath) -> Self {
        value.0
    }
}

/// Which groups are handed on: a full path in which `*` stands for any characters, `/` included.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupPattern(String);

impl GroupPattern {
    /// The pattern that every group matches.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Whether the group at `path` matches, without regard to ASCII case.
    pub fn matches(&self, path: &str) -> bool {
        wildcard(self.0.as_bytes(), path.as_bytes(), u8::eq_ignore_ascii_case)
    }
}

impl TryFrom<String> for GroupPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            Err("a group pattern can't be empty; `*` is every group".into())
        } else {
            Ok(Self(text))
        }
    }
}

impl From<GroupPattern> for String {
    fn from(value: GroupPattern) -> Self {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> GroupPath {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn paths_are_compared_by_whole_segments_without_case() {
        for (own, other, is, within) in [
            ("acme", "acme", true, true),
            ("acme", "ACME", true, true),
            ("Acme/Web", "acme/web", true, true),
            ("acme", "acme-evil", false, false),
            ("acme-evil", "acme", false, false),
            ("acme/web", "acme", false, true),
            ("acme/web", "acme/website", false, false),
            ("acme/website", "acme/web", false, false),
            ("acme/web", "web", false, false),
            ("acme/web", "acme/", false, false),
            ("acme", "acme/web", false, false),
            ("acme", "", false, false),
        ] {
            assert_eq!(path(own).is(other), is, "{own} is {other}");
            assert_eq!(path(own).is_within(other), within, "{own} within {other}");
        }
    }

    proptest! {
        /// By segments, as a reader would compare them by hand.
        #[test]
        fn ancestors_are_whole_segments(
            own in "[abAB-]{1,2}(/[abAB-]{1,2}){0,3}",
            other in "[abAB-]{1,2}(/[abAB-]{1,2}){0,3}",
        ) {
            let segments = |text: &str| -> Vec<_> {
                text.split('/').map(str::to_ascii_lowercase).collect()
            };
            let (ours, theirs) = (segments(&own), segments(&other));
            prop_assert_eq!(path(&own).is_within(&other), ours.starts_with(&theirs));
            prop_assert_eq!(path(&own).is(&other), ours == theirs);
        }
    }

    #[test]
    fn what_is_no_full_path_is_refused() {
        for text in [
            "",
            "/",
            "/acme",
            "acme/",
            "acme//web",
            "acme web",
            "acme/*",
            "acme/..",
            "ácme",
            "a,b",
            "a\nb",
        ] {
            assert!(GroupPath::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, path, matches) in [
            ("*", "acme/web", true),
            ("acme/*", "acme/web", true),
            ("acme/*", "ACME/a/b/c", true),
            ("acme/*", "acme", false),
            ("acme/*", "acme-evil/web", false),
            ("acme", "acme", true),
            ("acme", "acme/web", false),
            ("*/ops", "acme/team/ops", true),
            ("*/ops", "acme/team/ops2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
        ] {
            let parsed = GroupPattern::try_from(pattern.to_owned()).unwrap();
            assert_eq!(parsed.matches(path), matches, "{pattern} {path}");
        }
        assert!(GroupPattern::try_from(String::new()).is_err());
    }
}
