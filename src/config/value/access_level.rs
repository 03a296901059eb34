//! Roles, by GitLab's names and numbers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A role in a group or project, as GitLab's integer; compared, never matched.
///
/// Source: GitLab's members API, `access_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccessLevel(u8);

impl AccessLevel {
    /// Any membership at all.
    pub const MINIMAL: Self = Self(5);
    /// May see, and little more.
    pub const GUEST: Self = Self(10);
    /// May plan: issues and epics.
    pub const PLANNER: Self = Self(15);
    /// May read everything.
    pub const REPORTER: Self = Self(20);
    /// May push.
    pub const DEVELOPER: Self = Self(30);
    /// May configure.
    pub const MAINTAINER: Self = Self(40);
    /// May do all.
    pub const OWNER: Self = Self(50);

    const NAMES: [(&'static str, Self); 7] = [
        ("minimal", Self::MINIMAL),
        ("guest", Self::GUEST),
        ("planner", Self::PLANNER),
        ("reporter", Self::REPORTER),
        ("developer", Self::DEVELOPER),
        ("maintainer", Self::MAINTAINER),
        ("owner", Self::OWNER),
    ];

    /// The level that GitLab writes as `number`; none for 0, which is no membership.
    pub fn from_number(number: u8) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// GitLab's integer.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The name of the highest known role that this level reaches.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .rev()
            .find(|(_, level)| *level <= self)
            .map_or("minimal", |(name, _)| name)
    }
}

impl fmt::Display for AccessLevel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for AccessLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, level)| *level).ok_or_else(|| {
            let names = Self::NAMES.map(|(name, _)| format!("`{name}`"));
            format!("unknown role `{text}`, expected one of {}", names.join(", "))
        })
    }
}

impl TryFrom<String> for AccessLevel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AccessLevel> for String {
    fn from(level: AccessLevel) -> Self {
        level.name().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_level_and_back() {
        for (name, level) in AccessLevel::NAMES {
            assert_eq!(name.parse(), Ok(level));
            assert_eq!(level.to_string(), name);
            assert_eq!(AccessLevel::from_number(level.number()), Some(level));
        }
    }

    #[test]
    fn no_membership_and_other_names_are_no_level() {
        assert_eq!(AccessLevel::from_number(0), None);
        for name in ["", "Owner", "admin", "none", "30", "developer "] {
            let error = name.parse::<AccessLevel>().unwrap_err();
            assert!(error.contains("`developer`"), "{name}: {error}");
        }
    }

    #[test]
    fn levels_between_the_names_count_as_the_lower() {
        for (number, name) in [(1, "minimal"), (12, "guest"), (25, "reporter"), (60, "owner")] {
            assert_eq!(AccessLevel::from_number(number).unwrap().name(), name);
        }
        assert!(AccessLevel::from_number(25).unwrap() < AccessLevel::DEVELOPER);
    }
}
