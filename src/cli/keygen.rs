//! `labgate keygen [session]`: a new key on standard output, ready for a secret file.

use std::process::ExitCode;

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

/// What kind of key.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What the key is for.
    #[arg(value_enum, default_value = "session")]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Seals session cookies: 32 random bytes, in base64.
    Session,
}

/// Prints the key.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments.kind {
        Kind::Session => super::print(&session_key()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn session_key() -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).context("the system gives no random bytes")?;
    let mut text = Zeroizing::new(BASE64_STANDARD.encode(*bytes));
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_key_is_32_bytes_and_never_the_same() {
        let keys = [session_key().unwrap(), session_key().unwrap()];
        for key in &keys {
            assert_eq!(BASE64_STANDARD.decode(key.trim_end()).unwrap().len(), 32);
        }
        assert_ne!(keys[0], keys[1]);
    }
}
