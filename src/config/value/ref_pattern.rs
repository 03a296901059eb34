//! Git refs, by name and by patterns of such.

use serde::{Deserialize, Serialize};

use super::wildcard::wildcard;

/// A branch, such as `main` or `release/*`, or a tag, such as `refs/tags/v*`; `*` stands for any characters, `/` included. Case counts, as in Git.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefPattern(String);

impl RefPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether tags are meant, not branches.
    pub fn is_of_tags(&self) -> bool {
        self.0.starts_with(TAGS)
    }

    /// Whether the branch, or the tag, called `name` is meant. A plain pattern means branches alone: whoever may make a tag called `main` has not got
    /// into the branch of that name.
    pub fn matches(&self, name: &str, is_tag: bool) -> bool {
        let wildcard = |pattern: &str| wildcard(pattern.as_bytes(), name.as_bytes(), u8::eq);
        match (self.0.strip_prefix(TAGS), self.0.strip_prefix(HEADS)) {
            (Some(tag), _) => is_tag && wildcard(tag),
            (None, Some(branch)) => !is_tag && wildcard(branch),
            (None, None) => !is_tag && wildcard(&self.0),
        }
    }
}

const TAGS: &str = "refs/tags/";
const HEADS: &str = "refs/heads/";

impl TryFrom<String> for RefPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let odd = |letter: char| letter.is_whitespace() || letter.is_control();
        let name = text.strip_prefix(TAGS).or(text.strip_prefix(HEADS)).unwrap_or(&text);
        if name.is_empty() || text.contains(odd) || name.starts_with("refs/") {
            Err(format!(
                "`{text}` is not a branch, such as `main` or `release/*`, or a tag, such as `refs/tags/v*`"
            ))
        } else {
            Ok(Self(text))
        }
    }
}

impl From<RefPattern> for String {
    fn from(value: RefPattern) -> Self {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_pattern_means_branches_and_case_counts() {
        for (pattern, name, is_tag, matches) in [
            ("main", "main", false, true),
            ("main", "main", true, false),
            ("main", "Main", false, false),
            ("main", "main2", false, false),
            ("main", "x/main", false, false),
            ("refs/heads/main", "main", false, true),
            ("refs/heads/main", "main", true, false),
            ("release/*", "release/1/2", false, true),
            ("release/*", "release", false, false),
            ("*", "anything/at.all", false, true),
            ("*", "v1", true, false),
            ("refs/tags/v*", "v1.2", true, true),
            ("refs/tags/v*", "v1.2", false, false),
            ("refs/tags/*", "", true, true),
            ("a*b*c", "a-b-b-c", false, true),
            ("a*b*c", "a-b-b", false, false),
        ] {
            let pattern = RefPattern::try_from(pattern.to_owned()).unwrap();
            assert_eq!(pattern.matches(name, is_tag), matches, "{pattern:?} {name} {is_tag}");
        }
        for wrong in ["", " ", "a b", "refs/tags/", "refs/merge-requests/1/head", "a\n"] {
            assert!(RefPattern::try_from(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }
}
