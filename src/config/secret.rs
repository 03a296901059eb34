//! Secrets: inline, `{ file = "…" }` or `{ env = "…" }`; read once at start and at each reload, never printed.

use std::{fmt, path::PathBuf};

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
            Self::Env(name) => env(name)
                .map(Zeroizing::new)
                .ok_or_else(|| SecretError::Env(name.clone()))?,
        };
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(SecretError::Empty),
            text => Ok(Zeroizing::new(text.into())),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self::Inline(Zeroizing::new(text)))
    }
}
