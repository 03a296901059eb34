//! Git refs, by name and by patterns of such.

use serde::{Deserialize, Serialize};

/// A branch, such as `main` or `release/*`, or a tag, such as `refs/tags/v*`; `*` stands for any characters, `/` included. Case counts, as in Git.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefPattern(String);

impl RefPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the branch, or the tag, called `name` is meant. A plain pattern means branches alone: whoever may make a tag called `main` has not got
    /// into the branch of that name.
    pub fn matches(&self, name: &str, is_tag: bool) -> bool {
        match (self.0.strip_prefix(TAGS), self.0.strip_prefix(HEADS)) {
            (Some(tag), _) => is_tag && wildcard(tag.as_bytes(), name.as_bytes()),
            (None, Some(branch)) => !is_tag && wildcard(branch.as_bytes(), name.as_bytes()),
            (None, None) => !is_tag && wildcard(self.0.as_bytes(), name.as_bytes()),
        }
    }
}

const TAGS: &str = "refs/tags/";
const HEADS: &str = "refs/heads/";

/// Greedy match with one point to come back to.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            },
            Some(wanted) if wanted == byte => {
                p += 1;
                t += 1;
            },
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

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
