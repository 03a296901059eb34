//! Projects, by their full paths.

use serde::{Deserialize, Serialize};

use super::group::is_path;

/// Full path of a project, such as `acme/web/shop`; compared by whole segments, without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectPath(String);

impl ProjectPath {
    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this very project.
    pub fn is(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl TryFrom<String> for ProjectPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_path(&text) && text.contains('/') {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is not the full path of a project, such as `acme/web/shop`"))
        }
    }
}

impl From<ProjectPath> for String {
    fn from(value: ProjectPath) -> Self {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> ProjectPath {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_project_lies_in_a_namespace() {
        for text in ["acme/shop", "Acme/Web/shop-1.0", "ann/_x"] {
            assert_eq!(path(text).as_str(), text);
        }
        for text in
            ["", "shop", "/shop", "acme/", "acme//shop", "acme/..", "acme/sh*p", "\u{e1}cme/shop"]
        {
            assert!(ProjectPath::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn neighbours_are_others() {
        let shop = path("acme/web/shop");
        assert!(shop.is("acme/web/shop") && shop.is("ACME/Web/Shop"));
        for other in [
            "acme/web/shop2",
            "acme/web/sho",
            "acme/web",
            "acme/web/shop/",
            "acme/website/shop",
            "acme-evil/web/shop",
            "x/acme/web/shop",
            "acme/web/\u{455}hop",
            "acme/web/\u{17f}hop",
            "",
        ] {
            assert!(!shop.is(other), "{other}");
        }
    }

    proptest! {
        /// Exactly one path, but for the case of its letters.
        #[test]
        fn only_the_case_of_letters_is_not_regarded(
            ours in "[a-cA-C_.-]{1,3}(/[a-cA-C]{1,2}){1,2}",
            other in "[a-cA-C_./\u{212a}-]{0,9}",
        ) {
            let Ok(project) = ProjectPath::try_from(ours.clone()) else { return Ok(()) };
            let same = |text: &str| text.bytes().map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>();
            prop_assert_eq!(project.is(&other), same(&ours) == same(&other));
            prop_assert!(project.is(&ours.to_ascii_uppercase()));
            for longer in [ours.clone() + "x", ours.clone() + "/x", "x".to_owned() + &ours] {
                prop_assert!(!project.is(&longer));
            }
        }
    }
}
