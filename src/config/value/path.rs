//! Path prefixes: of routes, and the one that labgate owns.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// Path prefix of a route: begins with `/`, matches on segment borders.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The prefix, without a final slash except for `/` itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` is this prefix or lies below it.
    pub fn matches(&self, path: &str) -> bool {
        self.0 == "/"
            || path
                .strip_prefix(self.0.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".into())
    }
}

impl TryFrom<String> for PathPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = text.starts_with('/')
            && !text.contains("//")
            && !text.split('/').any(|segment| segment == "." || segment == "..")
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\\;".contains(&byte));
        match plain {
            true if text.len() > 1 => Ok(Self(text.trim_end_matches('/').into())),
            true => Ok(Self(text)),
            false => Err(format!("`{text}` is not a plain path prefix, such as `/docs`")),
        }
    }
}

impl From<PathPrefix> for String {
    fn from(value: PathPrefix) -> Self {
        value.0
    }
}

/// A path prefix other than `/`, as text.
pub(in crate::config) fn prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let prefix = PathPrefix::deserialize(from)?;
    match prefix.as_str() {
        "/" => {
            Err(D::Error::custom("the prefix can't be `/`: all other paths belong to upstreams"))
        },
        path => Ok(path.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_on_segment_borders() {
        for (prefix, path, matches) in [
            ("/", "/", true),
            ("/", "/anything", true),
            ("/docs", "/docs", true),
            ("/docs", "/docs/", true),
            ("/docs", "/docs/a", true),
            ("/docs/", "/docs", true),
            ("/docs", "/docsx", false),
            ("/docs", "/Docs", false),
            ("/docs", "/", false),
            ("/docs/a", "/docs", false),
        ] {
            let parsed = PathPrefix::try_from(prefix.to_owned()).unwrap();
            assert_eq!(parsed.matches(path), matches, "{prefix} {path}");
        }
    }

    #[test]
    fn what_is_no_plain_path_is_refused() {
        for text in [
            "", "docs", "//", "/a//b", "/a/../b", "/./a", "/a%2fb", "/a?b", "/a#b", "/a\\b",
            "/a;b", "/a b", "/ä",
        ] {
            assert!(PathPrefix::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn labgate_can_not_own_everything() {
        let read = |text: &'static str| {
            prefix(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text))
        };
        assert_eq!(read("/oauth2/"), Ok("/oauth2".into()));
        assert!(read("/").is_err());
    }
}
