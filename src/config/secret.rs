//! Secrets: inline, `{ file = "…" }` or `{ env = "…" }`; read once at start and at each reload, never printed.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
    ser::SerializeMap,
};
use zeroize::Zeroizing;

/// Where a secret stands; its value is read by [`Secret::read`].
#[derive(Clone)]
pub enum Secret {
    /// In the configuration itself.
    Inline(Zeroizing<String>),
    /// In a file, of which the trailing newline does not count.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// Why a secret can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read.
    #[error("secret file {0} can't be read")]
    File(PathBuf, #[source] std::io::Error),
    /// The variable is not set.
    #[error("environment variable {0} is not set")]
    Env(String),
    /// Nothing is there.
    #[error("the secret is empty")]
    Empty,
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => out.write_str("Secret(inline)"),
            Self::File(path) => write!(out, "Secret(file {})", path.display()),
            Self::Env(name) => write!(out, "Secret(env {name})"),
        }
    }
}

impl Secret {
    /// Whether it is in a file that every user of the machine may read.
    pub(super) fn is_open(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;

        let Self::File(path) = self else { return false };
        std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
    }

    /// Lets a relative path start from `directory`.
    pub(super) fn rebase(&mut self, directory: &Path) {
        if let Self::File(path) = self {
            *path = directory.join(&*path);
        }
    }

    /// The secret itself.
    ///
    /// # Errors
    /// When the file can't be read, the variable is not set, or nothing is there.
    pub fn read(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Zeroizing<String>, SecretError> {
        let text = match self {
            Self::Inline(text) => text.clone(),
            Self::File(path) => std::fs::read_to_string(path)
                .map(Zeroizing::new)
                .map_err(|error| SecretError::File(path.clone(), error))?,
            Self::Env(name) => {
                env(name).map(Zeroizing::new).ok_or_else(|| SecretError::Env(name.clone()))?
            },
        };
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(SecretError::Empty),
            text => Ok(Zeroizing::new(text.into())),
        }
    }
}

impl Serialize for Secret {
    /// Writes a reference as it is, and of a secret itself only that it is there.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (kind, name) = match self {
            Self::Inline(_) => return to.serialize_str("***"),
            Self::File(path) => ("file", path.to_string_lossy()),
            Self::Env(name) => ("env", name.into()),
        };
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry(kind, &name)?;
        map.end()
    }
}

/// Name under which a secret is deserialised, so that the reader knows that it is one.
pub(super) const MARK: &str = "labgate::Secret";

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_newtype_struct(MARK, Shape)
    }
}

/// Reads one secret.
pub(super) struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Secret;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a secret: a string, `{ file = \"…\" }` or `{ env = \"…\" }`")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Secret, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        match text.trim() {
            "" => Err(E::custom("the secret is empty")),
            _ => Ok(Secret::Inline(Zeroizing::new(text.into()))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let mut secrets = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            secrets.push(match name.as_str() {
                "file" => Secret::File(map.next_value::<FileName>()?.0),
                "env" => Secret::Env(map.next_value::<VariableName>()?.0),
                _ => return Err(shapeless()),
            });
        }
        match (secrets.pop(), secrets.pop()) {
            (Some(secret), None) => Ok(secret),
            _ => Err(shapeless()),
        }
    }
}

fn shapeless<E: Error>() -> E {
    E::custom("a secret is a string, `{ file = \"…\" }` or `{ env = \"…\" }`")
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct FileName(PathBuf);

impl TryFrom<String> for FileName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Err("the file has no name") } else { Ok(Self(text.into())) }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct VariableName(String);

impl TryFrom<String> for VariableName {
    type Error = &'static str;

    /// Takes names as POSIX shells have them; no message repeats the text, which may be the secret itself, put here by mistake.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let named = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if named && text.bytes().all(word) {
            Ok(Self(text))
        } else {
            Err("not the name of an environment variable")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(secret: &Secret) -> Result<String, SecretError> {
        let env = |name: &str| match name {
            "KEY" => Some("from-env\n".to_owned()),
            "NOTHING" => Some("\n".into()),
            _ => None,
        };
        secret.read(&env).map(|text| text.to_string())
    }

    #[test]
    fn a_secret_is_read_from_where_it_stands() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for (content, secret) in
            [("abc", "abc"), ("abc\n", "abc"), ("a b\r\n", "a b"), (" abc ", " abc ")]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&Secret::File(path.clone())).unwrap(), secret);
        }
        assert_eq!(read(&Secret::Env("KEY".into())).unwrap(), "from-env");
        assert_eq!(read(&Secret::Inline(Zeroizing::new("x".into()))).unwrap(), "x");
    }

    #[test]
    fn what_is_not_there_is_told_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let (empty, missing) = (directory.path().join("empty"), directory.path().join("missing"));
        std::fs::write(&empty, "\n\n").unwrap();
        for (secret, message) in [
            (Secret::File(empty), "the secret is empty".to_owned()),
            (Secret::Env("NOTHING".into()), "the secret is empty".into()),
            (Secret::Env("OTHER".into()), "environment variable OTHER is not set".into()),
            (
                Secret::File(missing.clone()),
                format!("secret file {} can't be read", missing.display()),
            ),
        ] {
            assert_eq!(read(&secret).unwrap_err().to_string(), message);
        }
    }
}
