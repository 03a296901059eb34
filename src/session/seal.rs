//! Sealing: a ring of keys turns bytes into text that only it can read, for one purpose, one cookie name and one audience.
//!
//! ```text
//! text   = base64url( version 1 | key id 4 | nonce 24 | ciphertext | tag 16 )
//! cipher = XAES-256-GCM, random nonce                                    (C2SP XAES-256-GCM)
//! AAD    = label | version | key id | purpose | len name | name | len audience | audience
//! ```
//!
//! The first key seals, all open. What the bytes mean is left to the callers; a client is told one thing only, that nothing opened.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use sha2::{Digest, Sha256};
use xaes_256_gcm::{Nonce, Xaes256Gcm};
use zeroize::Zeroizing;

use super::random::{NoRandom, Random};

/// The keys of `[session]` in order of age, newest first.
pub struct KeyRing {
    newest: Key,
    older: Vec<Key>,
}

/// What sealed text is for; one made for a purpose never opens for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The session cookie.
    Session,
    /// A sign-in that has begun.
    Attempt,
    /// What is kept in a store that replicas share.
    Store,
    /// A session on its way from the host where everybody signs in to another.
    Ticket,
}

/// What was inside.
#[derive(Debug)]
pub struct Opened {
    /// The bytes as they were sealed; wiped when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Whether a key other than the newest sealed them, so that they should be sealed anew.
    pub old_key: bool,
}

/// Why the keys make no ring; `index` counts from 0, in the order of `session.keys`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("at least one key is needed; `labgate keygen` makes one")]
    None,
    /// It is no base64.
    #[error("this is not base64; `labgate keygen` makes one")]
    Encoding {
        /// Which one.
        index: usize,
    },
    /// It has another length than 32 bytes.
    #[error("the key has {length} bytes instead of 32; `labgate keygen` makes one")]
    Length {
        /// Which one.
        index: usize,
        /// How many bytes there are.
        length: usize,
    },
    /// All its bytes are the same: a placeholder, not a key.
    #[error("the key is one byte repeated, which is no secret; `labgate keygen` makes one")]
    Weak {
        /// Which one.
        index: usize,
    },
    /// It is there twice, or its id is that of another.
    #[error("the same key as `session.keys[{first}]`")]
    Duplicate {
        /// Which one.
        index: usize,
        /// The one before it.
        first: usize,
    },
}

impl KeyError {
    /// Which entry of `session.keys` is wrong, counting from 0.
    pub const fn index(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Encoding { index }
            | Self::Length { index, .. }
            | Self::Weak { index }
            | Self::Duplicate { index, .. } => Some(*index),
        }
    }
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No nonce could be had.
    #[error("no nonce")]
    Random(#[from] NoRandom),
    /// What should be sealed, or what it is for, is too long.
    #[error("{0} bytes are too many to seal")]
    TooLong(usize),
}

/// Why nothing opened. A client must not see which it was; the log may at `debug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Longer than anything this ring seals.
    #[error("too long")]
    TooLong,
    /// Not base64url, too short, or of a version that this labgate does not know.
    #[error("not sealed by labgate, or by another version of it")]
    Format,
    /// Sealed by a key that is not in the ring.
    #[error("sealed by an unknown key")]
    UnknownKey,
    /// Altered, or sealed for another purpose, name or audience.
    #[error("not authentic for this use")]
    NotAuthentic,
}

struct Key {
    id: [u8; ID],
    cipher: Xaes256Gcm,
}

const VERSION: u8 = 1;
const KEY: usize = 32;
const ID: usize = 4;
const NONCE: usize = 24;
const TAG: usize = 16;

/// The longest text that is looked at; twice what a browser keeps in one cookie.
const MAX_TEXT: usize = 8 * 1024;

/// The most bytes whose text stays within [`MAX_TEXT`].
const MAX_PLAIN: usize = MAX_TEXT / 4 * 3 - 1 - ID - NONCE - TAG;

impl KeyRing {
    /// A ring of keys, newest first, each 32 bytes of base64.
    ///
    /// # Errors
    /// When there is no key, or the first that is no key, is no secret, or is there twice.
    pub fn new(keys: &[Zeroizing<String>]) -> Result<Self, KeyError> {
        let mut ring: Vec<Key> = Vec::with_capacity(keys.len());
        for (index, text) in keys.iter().enumerate() {
            let bytes = parse(index, text)?;
            let key = Key::new(&bytes);
            // Ids name keys, so two keys of one id can't stand side by side either.
            if let Some(first) = ring.iter().position(|other| other.id == key.id) {
                return Err(KeyError::Duplicate { index, first });
            }
            ring.push(key);
        }
        let mut ring = ring.into_iter();
        Ok(Self { newest: ring.next().ok_or(KeyError::None)?, older: ring.collect() })
    }

    /// A new key as it stands in `session.keys`: 32 random bytes as base64.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(random: &Random) -> Result<Zeroizing<String>, NoRandom> {
        let bytes = Zeroizing::new(random.bytes::<KEY>()?);
        Ok(Zeroizing::new(STANDARD.encode(bytes)))
    }

    /// Seals `plain` under the newest key as unpadded base64url.
    ///
    /// # Errors
    /// When there is no randomness, or more than about 6 KB to seal.
    pub fn seal(
        &self,
        purpose: Purpose,
        name: &str,
        audience: &str,
        plain: &[u8],
        random: &Random,
    ) -> Result<String, SealError> {
        let key = &self.newest;
        if plain.len() > MAX_PLAIN {
            return Err(SealError::TooLong(plain.len()));
        }
        let nonce = random.bytes::<NONCE>()?;
        let aad = associated(key.id, purpose, name, audience);
        let payload = Payload { msg: plain, aad: &aad };
        let sealed = key
            .cipher
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| SealError::TooLong(plain.len()))?;
        let mut bytes = Vec::with_capacity(1 + ID + NONCE + sealed.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&key.id);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Opens what any key of this ring has sealed for the same purpose, name and audience.
    ///
    /// # Errors
    /// When it was not; answer all errors alike.
    pub fn open(
        &self,
        purpose: Purpose,
        name: &str,
        audience: &str,
        text: &str,
    ) -> Result<Opened, OpenError> {
        if text.len() > MAX_TEXT {
            return Err(OpenError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::Format)?;
        let (id, nonce, sealed) = split(&bytes).ok_or(OpenError::Format)?;
        let older = || self.older.iter().find(|key| key.id == id);
        let newest = Some(&self.newest).filter(|key| key.id == id);
        let key = newest.or_else(older).ok_or(OpenError::UnknownKey)?;
        let aad = associated(key.id, purpose, name, audience);
        let payload = Payload { msg: sealed, aad: &aad };
        let plain = key
            .cipher
            .decrypt(&Nonce::from(nonce), payload)
            .map_err(|_| OpenError::NotAuthentic)?;
        Ok(Opened { bytes: Zeroizing::new(plain), old_key: newest.is_none() })
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyRing({} keys)", 1 + self.older.len())
    }
}

/// How long the text of `plain` sealed bytes is.
pub(super) const fn sealed_len(plain: usize) -> usize {
    ((1 + ID + NONCE + plain + TAG) * 4).div_ceil(3)
}

impl Key {
    fn new(bytes: &[u8; KEY]) -> Self {
        let hash = Sha256::new().chain_update(b"labgate key id").chain_update(bytes).finalize();
        let mut id = [0; ID];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self { id, cipher: Xaes256Gcm::new(bytes.into()) }
    }
}

fn parse(index: usize, text: &str) -> Result<Zeroizing<[u8; KEY]>, KeyError> {
    let text = text.trim().trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(text);
    let bytes = bytes.or_else(|_| URL_SAFE_NO_PAD.decode(text));
    let bytes = bytes.map_err(|_| KeyError::Encoding { index })?;
    let bytes = Zeroizing::new(bytes);
    let length = bytes.len();
    let key = <[u8; KEY]>::try_from(bytes.as_slice()).map(Zeroizing::new);
    let key = key.map_err(|_| KeyError::Length { index, length })?;
    let [first, rest @ ..] = &*key;
    if rest.iter().all(|byte| byte == first) {
        return Err(KeyError::Weak { index });
    }
    Ok(key)
}

fn split(bytes: &[u8]) -> Option<([u8; ID], [u8; NONCE], &[u8])> {
    let (version, rest) = bytes.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (nonce, sealed) = rest.split_first_chunk()?;
    (*version == VERSION && sealed.len() >= TAG).then_some((*id, *nonce, sealed))
}

/// Lengths stand before names, so that no two uses share their associated data. Hosts compare case-insensitively.
fn associated(id: [u8; ID], purpose: Purpose, name: &str, audience: &str) -> Vec<u8> {
    let purpose = match purpose {
        Purpose::Session => 1,
        Purpose::Attempt => 2,
        Purpose::Store => 3,
        Purpose::Ticket => 4,
    };
    let mut aad = Vec::with_capacity(64 + name.len() + audience.len());
    aad.extend_from_slice(b"labgate seal");
    aad.push(VERSION);
    aad.extend_from_slice(&id);
    aad.push(purpose);
    aad.extend_from_slice(&(name.len() as u64).to_be_bytes());
    aad.extend_from_slice(name.as_bytes());
    aad.extend_from_slice(&(audience.len() as u64).to_be_bytes());
    aad.extend(audience.bytes().map(|byte| byte.to_ascii_lowercase()));
    aad
}

#[cfg(test)]
mod tests;
