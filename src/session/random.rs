//! Random bytes as an argument: the system's in the product, a test's own where a result must repeat.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// A source of random bytes; cheap to clone.
#[derive(Clone)]
pub struct Random(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) -> Result<(), NoRandom> + Send + Sync;

/// The system has no random numbers to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

impl Random {
    /// The system's cryptographic source.
    pub fn system() -> Self {
        Self::new(|bytes| getrandom::fill(bytes).map_err(|_| NoRandom))
    }

    /// Bytes from `fill`, which must be unpredictable outside tests.
    pub fn new(fill: impl Fn(&mut [u8]) -> Result<(), NoRandom> + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// `N` fresh bytes.
    ///
    /// # Errors
    /// When the source has none.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], NoRandom> {
        let mut bytes = [0; N];
        (self.0)(&mut bytes)?;
        Ok(bytes)
    }

    /// 256 bits as 43 characters of base64url; fit for states, nonces and PKCE verifiers (RFC 7636, 4.1).
    ///
    /// # Errors
    /// When the source has none.
    pub fn token(&self) -> Result<String, NoRandom> {
        Ok(URL_SAFE_NO_PAD.encode(self.bytes::<32>()?))
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Random")
    }
}
