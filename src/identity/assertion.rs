//! The signed assertion: who the user is, for applications that want proof that labgate says so.
//!
//! ```text
//! header  typ JWT, alg ES256, kid (RFC 7638 thumbprint of the public key)
//! claims  iss   labgate's own URL            aud   host of the route
//!         sub   GitLab's URL # user id       sid   name of the session, if there is one
//!         iat, exp, jti                      username, name, email, groups, gitlab, kind
//!         project_path, ref, environment     of a CI job
//! ```
//!
//! The first key signs, all are published, so a new one can be published before it signs and an old one after. An assertion is handed on again until half its
//! lifetime is over; who keeps it until then, where keys come from, and what the issuer is called are others' business.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Identity;
use crate::clock::Timestamp;

/// The keys that sign assertions, and how long those are good for.
#[derive(Debug)]
pub struct Assertions {
    first: Key,
    others: Vec<Key>,
    published: String,
    lifetime: Duration,
}

/// Why a key can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionKeyError {
    /// There is none.
    #[error("there is no key")]
    None,
    /// It is no P-256 key in PEM; its place in the list, from 0.
    #[error("not a P-256 private key in PEM")]
    NotP256(usize),
    /// It is there twice; the second place in the list, from 0.
    #[error("this key is there twice")]
    Twice(usize),
}

impl AssertionKeyError {
    /// Which key it is about, from 0.
    pub fn index(&self) -> usize {
        match self {
            Self::None => 0,
            Self::NotP256(index) | Self::Twice(index) => *index,
        }
    }
}

/// What is read from an assertion of labgate's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Asserted {
    /// Who signed it: labgate's own URL, then.
    #[serde(rename = "iss")]
    pub issuer: String,
    /// GitLab's URL, `#`, the user id.
    #[serde(rename = "sub")]
    pub subject: String,
    /// Names the session; callers by token have none.
    #[serde(rename = "sid")]
    pub session: Option<String>,
    /// The name of the GitLab's table.
    pub gitlab: String,
    iat: Timestamp,
    exp: Timestamp,
}

/// Why something is no good assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// It is none that a key of ours has signed.
    #[error("it is not signed by labgate")]
    Foreign,
    /// Its time is over, or yet to come.
    #[error("its time is over")]
    Stale,
}

/// The library could not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an assertion could not be signed")]
pub struct Unsigned;

/// What an assertion says beside who it is.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// labgate's own URL.
    pub issuer: &'a str,
    /// The host of the route.
    pub audience: &'a str,
    /// A name of the session that tells nobody its id, if there is a session.
    pub session: Option<&'a str>,
    /// Random, so that no two assertions are the same.
    pub id: [u8; 16],
    /// The moment of signing.
    pub now: Timestamp,
    /// When that ends by which somebody is known, if that is certain.
    pub ends: Option<Timestamp>,
    /// How many bytes the paths of groups may take together; those that rules mention come first.
    pub room: usize,
}

/// A signed statement.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The statement as a header's value.
    pub value: HeaderValue,
    /// Until when it may be handed on.
    pub until: Timestamp,
    /// Whether there was no room for all groups.
    pub was_cut: bool,
}

impl Assertions {
    /// Assertions signed with the first of `keys`, each a P-256 private key in PEM: PKCS #8 or RFC 5915.
    ///
    /// # Errors
    /// When there is no key, or one can't be used.
    pub fn new(keys: &[impl AsRef<[u8]>], lifetime: Duration) -> Result<Self, AssertionKeyError> {
        let mut read: Vec<Key> = Vec::new();
        for (index, pem) in keys.iter().enumerate() {
            let key = Key::read(pem.as_ref()).ok_or(AssertionKeyError::NotP256(index))?;
            if read.iter().any(|known| known.id == key.id) {
                return Err(AssertionKeyError::Twice(index));
            }
            read.push(key);
        }
        let published: Vec<_> = read.iter().map(Key::published).collect();
        let published = json!({ "keys": published }).to_string();
        let mut read = read.into_iter();
        let first = read.next().ok_or(AssertionKeyError::None)?;
        Ok(Self { first, others: read.collect(), published, lifetime })
    }

    /// What `text` says, if a key of ours has signed it and it is good `now`. Of other headers than our own nothing is read: no algorithm, no key.
    ///
    /// # Errors
    /// When it is no good assertion.
    pub fn read(&self, text: &str, now: Timestamp) -> Result<Asserted, AssertionError> {
        let foreign = AssertionError::Foreign;
        let (message, signature) = text.rsplit_once('.').ok_or(foreign)?;
        let (header, claims) = message.split_once('.').ok_or(foreign)?;
        let mut keys = std::iter::once(&self.first).chain(&self.others);
        let key = keys.find(|key| key.header == header).ok_or(foreign)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| foreign)?;
        let public = key.pair.public_key().as_ref();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| foreign)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| foreign)?;
        let asserted: Asserted = serde_json::from_slice(&claims).map_err(|_| foreign)?;
        let begun = asserted.iat <= now + LEEWAY;
        if begun && now < asserted.exp { Ok(asserted) } else { Err(AssertionError::Stale) }
    }

    /// The public keys as a JWKS document: RFC 7517.
    pub fn published(&self) -> &str {
        &self.published
    }

    /// Says who `identity` is.
    ///
    /// # Errors
    /// When the library can't sign.
    pub fn sign(&self, identity: &Identity, occasion: &Occasion<'_>) -> Result<Signed, Unsigned> {
        let end = |after| {
            let end = occasion.now + after;
            occasion.ends.map_or(end, |ends| end.min(ends))
        };
        let claims = Claims::new(identity, occasion, end(self.lifetime));
        let was_cut = claims.groups.as_ref().is_some_and(|told| told.len() < identity.groups.len());
        let claims = serde_json::to_vec(&claims).map_err(|_| Unsigned)?;
        let mut text = self.first.header.clone();
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut text);
        let pair = &self.first.pair;
        let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).map_err(|_| Unsigned)?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        let value = HeaderValue::try_from(text).map_err(|_| Unsigned)?;
        Ok(Signed { value, until: end(self.lifetime / 2), was_cut })
    }
}

/// Bytes around each path in a list.
const QUOTED: usize = 3;

/// How far the clocks of replicas may differ.
const LEEWAY: Duration = Duration::from_mins(1);

/// GitLab's URL, `#`, the user id; of a CI job what stands for it.
fn subject(identity: &Identity) -> String {
    format!("{}#{}", identity.issuer.trim_end_matches('/'), identity.sub)
}

impl Asserted {
    /// Whether it is about `identity`, whatever that is called by now.
    pub fn is_about(&self, identity: &Identity) -> bool {
        self.gitlab == identity.gitlab && self.subject == subject(identity)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    iat: Timestamp,
    exp: Timestamp,
    jti: String,
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    /// Of users always, so that none can be told from not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<&'a str>>,
    gitlab: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_path: Option<&'a str>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    ref_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
}

impl<'a> Claims<'a> {
    fn new(identity: &'a Identity, occasion: &Occasion<'a>, exp: Timestamp) -> Self {
        let job = identity.job.as_deref();
        let mut room = occasion.room;
        let fitting = identity.groups.iter().map_while(|group| {
            room = room.checked_sub(group.path.len() + QUOTED)?;
            Some(group.path.as_str())
        });
        Self {
            iss: occasion.issuer,
            aud: occasion.audience,
            sub: subject(identity),
            sid: occasion.session,
            iat: occasion.now,
            exp,
            jti: URL_SAFE_NO_PAD.encode(occasion.id),
            username: &identity.username,
            name: &identity.name,
            email: identity.email.as_deref(),
            groups: job.is_none().then(|| fitting.collect()),
            gitlab: &identity.gitlab,
            kind: identity.kind.as_str(),
            project_path: job.map(|job| job.project_path.as_str()),
            ref_name: job.map(|job| job.ref_name.as_str()),
            environment: job.and_then(|job| job.environment.as_deref()),
        }
    }
}

/// One key pair.
#[derive(Debug)]
struct Key {
    pair: EcdsaKeyPair,
    id: String,
    /// Both coordinates of the public point, in base64url.
    point: [String; 2],
    /// The encoded header of what it signs.
    header: String,
}

impl Key {
    fn read(pem: &[u8]) -> Option<Self> {
        let der = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_der(algorithm, der.secret_der()).ok()?;
        // An uncompressed point: 4, then both coordinates (SEC 1, 2.3.3).
        let (x, y) = pair.public_key().as_ref().get(1..65)?.split_at_checked(32)?;
        let point = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        let [x, y] = &point;
        // RFC 7638: the members in this order, without white space.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(thumbprint));
        let header = json!({ "typ": "JWT", "alg": "ES256", "kid": id });
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        Some(Self { pair, id, point, header })
    }

    fn published(&self) -> serde_json::Value {
        let [x, y] = &self.point;
        json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y,
            "use": "sig", "alg": "ES256", "kid": self.id,
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
    use serde_json::Value;

    use super::*;
    use crate::{
        config::AccessLevel,
        identity::{Job, Kind, Membership},
    };

    const LIFETIME: Duration = Duration::from_mins(5);

    fn pem() -> String {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()
    }

    fn alice() -> Identity {
        Identity {
            gitlab: "main".into(),
            issuer: "https://gitlab.test/git".into(),
            sub: "42".into(),
            username: "alice".into(),
            name: "Älice, \"A\"\r\n".into(),
            email: Some("alice@example.com".into()),
            groups: vec![Membership { path: "acme/ops".into(), level: AccessLevel::GUEST }],
            ..Identity::default()
        }
    }

    fn occasion(now: u64) -> Occasion<'static> {
        Occasion {
            issuer: "https://app.test",
            audience: "wiki.test",
            session: Some("a-session"),
            id: [7; 16],
            now: Timestamp::from_unix(now),
            ends: None,
            room: 100,
        }
    }

    fn said(assertions: &Assertions, identity: &Identity) -> Value {
        let signed = assertions.sign(identity, &occasion(1000)).unwrap();
        let text = signed.value.to_str().unwrap();
        let header = decode_header(text).unwrap();
        let keys: JwkSet = serde_json::from_str(assertions.published()).unwrap();
        let key = keys.find(&header.kid.unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["wiki.test"]);
        validation.set_issuer(&["https://app.test"]);
        validation.validate_exp = false;
        decode(text, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
    }

    #[test]
    fn it_says_who_it_is_and_only_what_is_known() {
        let assertions = Assertions::new(&[pem()], LIFETIME).unwrap();
        assert_eq!(
            said(&assertions, &alice()),
            json!({
                "iss": "https://app.test", "aud": "wiki.test", "sub": "https://gitlab.test/git#42",
                "sid": "a-session", "iat": 1000, "exp": 1300, "jti": "BwcHBwcHBwcHBwcHBwcHBw",
                "username": "alice", "name": "Älice, \"A\"\r\n", "email": "alice@example.com",
                "groups": ["acme/ops"], "gitlab": "main", "kind": "browser",
            })
        );
        let nameless = Identity { name: String::new(), email: None, groups: Vec::new(), ..alice() };
        let claims = said(&assertions, &nameless);
        for claim in ["name", "email", "project_path", "ref", "environment"] {
            assert_eq!(claims.get(claim), None);
        }
        assert_eq!(claims["groups"], json!([]), "in none is not the same as not known");
    }

    #[test]
    fn of_a_job_it_says_where_that_runs_and_names_no_session() {
        let assertions = Assertions::new(&[pem()], LIFETIME).unwrap();
        let job = Job {
            project_path: "acme/web".into(),
            ref_name: "main".into(),
            environment: Some("production".into()),
            ..Job::default()
        };
        let identity = Identity { kind: Kind::Ci, job: Some(Box::new(job)), ..alice() };
        let occasion = Occasion { session: None, ..occasion(1000) };
        let signed = assertions.sign(&identity, &occasion).unwrap();
        let asserted = assertions.read(signed.value.to_str().unwrap(), Timestamp::from_unix(1000));
        assert_eq!(asserted.unwrap().session, None);
        let claims = said(&assertions, &identity);
        assert_eq!(claims.get("groups"), None);
        for (claim, value) in [
            ("kind", "ci"),
            ("project_path", "acme/web"),
            ("ref", "main"),
            ("environment", "production"),
        ] {
            assert_eq!(claims[claim], value);
        }
    }

    #[test]
    fn only_what_our_keys_have_signed_is_read_and_only_in_its_time() {
        let [old, new, foreign] = [pem(), pem(), pem()];
        let ours = Assertions::new(&[&new, &old], LIFETIME).unwrap();
        let text = |keys: &[&String]| {
            let ours = Assertions::new(keys, LIFETIME).unwrap();
            let signed = ours.sign(&alice(), &occasion(1000)).unwrap();
            signed.value.to_str().unwrap().to_owned()
        };
        let read = |text: &str, now| ours.read(text, Timestamp::from_unix(now));
        for signed in [text(&[&new]), text(&[&old])] {
            let asserted = read(&signed, 1000).unwrap();
            assert_eq!(asserted.session.as_deref(), Some("a-session"));
            assert_eq!(asserted.issuer, "https://app.test");
            assert!(asserted.is_about(&alice()));
            assert!(!asserted.is_about(&Identity { sub: "4".into(), ..alice() }));
            assert!(!asserted.is_about(&Identity { gitlab: "other".into(), ..alice() }));
            for (now, good) in [(939, false), (940, true), (1299, true), (1300, false)] {
                let stale = read(&signed, now) == Err(AssertionError::Stale);
                assert_ne!(stale, good, "{now}");
            }
        }
        let good = text(&[&new]);
        let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
        let other = text(&[&foreign]);
        let [other_header, _, other_signature] = other.split('.').collect::<Vec<_>>()[..] else {
            panic!()
        };
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let none = encoded(r#"{"alg":"none","typ":"JWT"}"#);
        let root = encoded(r#"{"iss":"","sub":"","sid":"","gitlab":"main","iat":0,"exp":9999}"#);
        for wrong in [
            other.clone(),
            format!("{header}.{claims}.{other_signature}"),
            format!("{other_header}.{claims}.{signature}"),
            format!("{header}.{root}.{signature}"),
            format!("{none}.{claims}."),
            format!("{none}.{claims}.{signature}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}"),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}.{signature}"),
            format!("{good}="),
            String::new(),
            "..".into(),
        ] {
            assert_eq!(read(&wrong, 1000), Err(AssertionError::Foreign), "{wrong}");
        }
    }

    #[test]
    fn half_its_lifetime_is_left_when_it_is_handed_on_last() {
        let assertions = Assertions::new(&[pem()], LIFETIME).unwrap();
        let until = |ends: Option<u64>| {
            let ends = ends.map(Timestamp::from_unix);
            let signed = assertions.sign(&alice(), &Occasion { ends, ..occasion(1000) }).unwrap();
            let text = signed.value.to_str().unwrap();
            let exp = assertions.read(text, Timestamp::from_unix(1000)).unwrap().exp;
            (signed.until.unix(), exp.unix())
        };
        assert_eq!(until(None), (1150, 1300));
        // And none outlives the token that it stands for.
        assert_eq!(until(Some(1200)), (1150, 1200));
        assert_eq!(until(Some(1005)), (1005, 1005));
        assert_eq!(until(Some(9999)), (1150, 1300));
    }

    #[test]
    fn groups_take_no_more_than_their_room() {
        let assertions = Assertions::new(&[pem()], LIFETIME).unwrap();
        let group =
            |number| Membership { path: format!("team-{number:03}"), level: AccessLevel::GUEST };
        let identity = Identity { groups: (0..1000).map(group).collect(), ..alice() };
        assert_eq!(said(&assertions, &identity)["groups"].as_array().unwrap().len(), 9);
        assert_eq!(said(&assertions, &identity)["groups"][0], "team-000");
        let cut = |identity| assertions.sign(identity, &occasion(1)).unwrap().was_cut;
        assert!(cut(&identity) && !cut(&alice()));
    }

    #[test]
    fn the_first_key_signs_and_all_are_published() {
        let [old, new] = [pem(), pem()];
        let both = Assertions::new(&[&new, &old], LIFETIME).unwrap();
        let alone = Assertions::new(&[&new], LIFETIME).unwrap();
        let kid = |assertions: &Assertions| {
            let signed = assertions.sign(&alice(), &occasion(1)).unwrap();
            decode_header(signed.value.to_str().unwrap()).unwrap().kid.unwrap()
        };
        assert_eq!(kid(&both), kid(&alone));
        let keys = |text: &str| serde_json::from_str::<Value>(text).unwrap()["keys"].clone();
        assert_eq!(keys(both.published()).as_array().unwrap().len(), 2);
        assert_eq!(keys(both.published())[0], keys(alone.published())[0]);
        assert!(!both.published().contains("\"d\""), "a private key is published");
    }

    #[test]
    fn both_forms_of_pem_are_keys_and_nothing_else_is() {
        let pkcs8 = pem();
        let der = rcgen::KeyPair::from_pem(&pkcs8).unwrap().serialize_der();
        let pair =
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
        let bare: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().unwrap();
        // RFC 5915: version 1, the number, and the curve's name.
        let mut sec1 = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
        sec1.extend_from_slice(bare.as_ref());
        sec1.extend([0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        let sec1 = base64::engine::general_purpose::STANDARD.encode(sec1);
        let sec1 = format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----");
        let one = Assertions::new(&[&sec1], LIFETIME).unwrap();
        let other = Assertions::new(&[&pkcs8], LIFETIME).unwrap();
        assert_eq!(one.published(), other.published());
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let public = rcgen::KeyPair::from_pem(&pkcs8).unwrap().public_key_pem();
        for wrong in [p384.serialize_pem(), public, String::new(), "AAECAwQFBgc=".into()] {
            let error = Assertions::new(&[&pkcs8, &wrong], LIFETIME).unwrap_err();
            assert_eq!(error, AssertionKeyError::NotP256(1));
        }
        let twice = Assertions::new(&[&pkcs8, &sec1], LIFETIME).unwrap_err();
        assert_eq!(twice, AssertionKeyError::Twice(1));
        let none: [&str; 0] = [];
        assert_eq!(Assertions::new(&none, LIFETIME).unwrap_err(), AssertionKeyError::None);
    }
}
