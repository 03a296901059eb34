//! `labgate keygen [session|assertion]`: a new key on standard output, ready for a secret file.

use std::process::ExitCode;

use anyhow::Context;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
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
    /// Signs assertions: a P-256 private key, PKCS #8 in PEM.
    Assertion,
}

/// Prints the key.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments.kind {
        Kind::Session => super::print(&session_key()?)?,
        Kind::Assertion => super::print(&assertion_key()?)?,
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

fn assertion_key() -> anyhow::Result<Zeroizing<String>> {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).context("no key can be made")?;
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(key.as_ref()));
    let mut text = Zeroizing::new("-----BEGIN PRIVATE KEY-----\n".to_owned());
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::Assertions;

    #[test]
    fn a_session_key_is_32_bytes_and_never_the_same() {
        let keys = [session_key().unwrap(), session_key().unwrap()];
        for key in &keys {
            assert_eq!(BASE64_STANDARD.decode(key.trim_end()).unwrap().len(), 32);
        }
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn an_assertion_key_signs_and_is_never_the_same() {
        let keys = [assertion_key().unwrap(), assertion_key().unwrap()];
        let keys = keys.map(|key| key.as_bytes().to_vec());
        assert!(Assertions::new(&keys, Duration::from_mins(5)).is_ok());
        assert!(keys[0].split(|byte| *byte == b'\n').all(|line| line.len() <= 64));
        assert_ne!(keys[0], keys[1]);
    }
}
