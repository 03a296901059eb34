//! The two RSA keys of the development GitLab: one signs ID tokens at login, the other those of CI jobs; both stand in one JWKS.
//!
//! Tokens are put together here by hand rather than by a JWT library, because tests need broken ones too: without a signature,
//! signed with the public key as an HMAC secret, or by a key nobody published.

use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Both signing keys; making them takes a moment, so tests may share them between instances.
#[derive(Clone, Debug)]
pub struct Keys {
    pub(super) login: Arc<SigningKey>,
    pub(super) ci: Arc<SigningKey>,
}

impl Keys {
    /// Makes two new keys, off the async threads.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub async fn generate() -> anyhow::Result<Self> {
        let (login, ci) = tokio::try_join!(SigningKey::generate(), SigningKey::generate())?;
        Ok(Self { login: Arc::new(login), ci: Arc::new(ci) })
    }

    /// The JWKS (RFC 7517) with both public keys.
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": [self.login.jwk(), self.ci.jwk()] })
    }
}

/// One RSA key and the parts of it that are published.
#[derive(Debug)]
pub(super) struct SigningKey {
    pair: KeyPair,
    kid: String,
    modulus: String,
    exponent: String,
    public_der: Vec<u8>,
}

impl SigningKey {
    pub(super) async fn generate() -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(Self::make).await.context("key generation was ended")?
    }

    fn make() -> anyhow::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).context("no RSA key could be made")?;
        let public = pair.public_key();
        // PKCS#1 of a 2048-bit key has a fixed layout: two headers, 256 bytes of modulus, one header, the exponent 65537.
        let der = public.as_ref();
        let modulus = der.get(9..265).context("the RSA key has no 2048-bit modulus")?;
        let exponent = der.get(267..).context("the RSA key has no exponent")?;
        let (modulus, exponent) =
            (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
        let public_der = public.as_der().context("the RSA key can't be encoded")?.as_ref().to_vec();
        // RFC 7638: the members in this order, without white space.
        let thumbprint = format!(r#"{{"e":"{exponent}","kty":"RSA","n":"{modulus}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(thumbprint.as_bytes()));
        Ok(Self { pair, kid, modulus, exponent, public_der })
    }

    fn jwk(&self) -> Value {
        json!({
            "kty": "RSA", "kid": self.kid, "e": self.exponent, "n": self.modulus,
            "use": "sig", "alg": "RS256",
        })
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .expect("a buffer of the modulus' length holds any signature of the key");
        signature
    }
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// By the login key, as it should be.
    #[default]
    Good,
    /// By the login key, one bit wrong.
    Broken,
    /// Empty, with `alg` set to `none`.
    None,
    /// HS256 with the public key's DER as the secret.
    HmacOfPublicKey,
    /// By the key of CI jobs, under its `kid`.
    Ci,
    /// By the key of CI jobs, under the login key's `kid`.
    CiUnderLoginKid,
}

/// What is made different in the ID tokens that follow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tamper {
    /// Members of the header to set; null takes one away.
    pub header: Map<String, Value>,
    /// Claims to set; null takes one away.
    pub claims: Map<String, Value>,
    /// How they are signed.
    pub signature: Signature,
}

impl Tamper {
    /// Sets one claim, or takes it away if `value` is null.
    pub fn claim(name: &str, value: Value) -> Self {
        Self { claims: Map::from_iter([(name.to_owned(), value)]), ..Self::default() }
    }

    /// Sets one member of the header, or takes it away if `value` is null.
    pub fn header(name: &str, value: Value) -> Self {
        Self { header: Map::from_iter([(name.to_owned(), value)]), ..Self::default() }
    }

    /// Signs in another way.
    pub fn signature(signature: Signature) -> Self {
        Self { signature, ..Self::default() }
    }
}

/// Lays `changes` over `members`; null takes a member away.
pub(super) fn overlay(members: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
}

/// A signed token (RFC 7519) of these claims, made different as `tamper` says.
pub(super) fn token(keys: &Keys, mut claims: Map<String, Value>, tamper: &Tamper) -> String {
    let (key, kid, alg) = match tamper.signature {
        Signature::Good | Signature::Broken => (&keys.login, &keys.login.kid, "RS256"),
        Signature::None => (&keys.login, &keys.login.kid, "none"),
        Signature::HmacOfPublicKey => (&keys.login, &keys.login.kid, "HS256"),
        Signature::Ci => (&keys.ci, &keys.ci.kid, "RS256"),
        Signature::CiUnderLoginKid => (&keys.ci, &keys.login.kid, "RS256"),
    };
    let mut header = Map::from_iter([
        ("typ".to_owned(), json!("JWT")),
        ("alg".to_owned(), json!(alg)),
        ("kid".to_owned(), json!(kid)),
    ]);
    overlay(&mut header, &tamper.header);
    overlay(&mut claims, &tamper.claims);
    let part = |members| URL_SAFE_NO_PAD.encode(Value::Object(members).to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = match tamper.signature {
        Signature::Good | Signature::Ci | Signature::CiUnderLoginKid => {
            key.sign(message.as_bytes())
        },
        Signature::Broken => {
            let mut signature = key.sign(message.as_bytes());
            if let Some(byte) = signature.first_mut() {
                *byte ^= 1;
            }
            signature
        },
        Signature::None => Vec::new(),
        Signature::HmacOfPublicKey => {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, &key.public_der);
            hmac::sign(&secret, message.as_bytes()).as_ref().to_vec()
        },
    };
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
