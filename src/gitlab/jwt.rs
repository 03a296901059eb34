//! JSON Web Tokens of GitLab's: their parts, what they say before anybody has looked at the signature, and whether one of GitLab's keys signed them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{IdTokenError, Provider};

/// A token in its parts: `header.claims.signature`.
#[derive(Clone, Copy)]
pub(super) struct Jwt<'a> {
    message: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// One audience or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    pub(super) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl<'a> Jwt<'a> {
    pub(super) fn split(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        (!claims.contains('.')).then_some(Self { message, header, claims, signature })
    }

    /// What it claims, whoever signed it.
    pub(super) fn claims<T: DeserializeOwned>(&self) -> Result<T, IdTokenError> {
        part(self.claims)
    }

    /// The key id in its header, after what else stands there is found harmless; `jku`, `jwk`, `x5u` and `x5c` are never looked at.
    pub(super) fn key_id(&self) -> Result<Option<String>, IdTokenError> {
        let header: Header = part(self.header)?;
        if header.alg != "RS256" {
            return Err(IdTokenError::Algorithm);
        }
        if header.crit.is_some() {
            return Err(IdTokenError::Critical);
        }
        let usable = |kid: &str| {
            (1..=256).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match header.kid {
            Some(kid) if !usable(&kid) => Err(IdTokenError::KeyId),
            kid => Ok(kid),
        }
    }
}

fn part<T: DeserializeOwned>(part: &str) -> Result<T, IdTokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| IdTokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| IdTokenError::Malformed)
}

impl Provider {
    /// Whether one of GitLab's keys signed `jwt` with RS256.
    pub(super) async fn signed(&self, jwt: Jwt<'_>) -> Result<(), IdTokenError> {
        let kid = jwt.key_id()?;
        let keys = self.signing_keys(kid.as_deref()).await?;
        let message = jwt.message.as_bytes();
        let signed = |key| crypto::verify(jwt.signature, message, key, Algorithm::RS256);
        match keys.iter().any(|key| signed(key).unwrap_or(false)) {
            true => Ok(()),
            false => Err(IdTokenError::Signature),
        }
    }
}

/// What a token says of itself, to tell whom to ask about it; nothing of this is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// Who claims to have made it.
    pub issuer: String,
    /// For whom.
    pub audiences: Vec<String>,
    /// Whether it has a claim that only CI jobs' tokens have.
    pub of_a_job: bool,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    job_id: Option<IgnoredAny>,
    pipeline_id: Option<IgnoredAny>,
    project_id: Option<IgnoredAny>,
    project_path: Option<IgnoredAny>,
}

impl Unverified {
    /// What `token` says, if it has the form of a JWT. Other tokens of GitLab's have dots as well.
    pub fn read(token: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Any {
            #[serde(rename = "alg")]
            _alg: IgnoredAny,
        }
        let jwt = Jwt::split(token)?;
        part::<Any>(jwt.header).ok()?;
        // Claims that can't be read are nobody's.
        let claims: Option<Claims> = jwt.claims().ok();
        let marks = claims.as_ref().map(|claims| {
            [&claims.job_id, &claims.pipeline_id, &claims.project_id, &claims.project_path]
        });
        let audience = claims.as_ref().and_then(|claims| claims.aud.as_ref());
        Some(Self {
            of_a_job: marks.is_some_and(|marks| marks.iter().any(|mark| mark.is_some())),
            audiences: audience.map(|audience| audience.all().to_vec()).unwrap_or_default(),
            issuer: claims.and_then(|claims| claims.iss).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(header: &Value, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(&header.to_string()), part(claims))
    }

    #[test]
    fn only_jwts_are_read_and_jobs_told_apart() {
        let header = json!({ "alg": "none" });
        let read = |claims: Value| Unverified::read(&token(&header, &claims.to_string())).unwrap();
        let job = read(json!({ "iss": "https://a", "aud": ["x", "y"], "job_id": "1" }));
        assert_eq!(job.audiences, ["x", "y"]);
        assert!(job.of_a_job && job.issuer == "https://a");
        for claim in ["pipeline_id", "project_id", "project_path"] {
            assert!(read(json!({ claim: 1 })).of_a_job, "{claim}");
        }
        assert!(!read(json!({ "sub": "2", "aud": "id" })).of_a_job);
        let odd = Unverified::read(&token(&header, "[]")).unwrap();
        assert!(!odd.of_a_job && odd.audiences.is_empty());
        for text in [
            "",
            "..",
            "a.b",
            "glpat-abc.01.0w1x2y3z",
            "a.b.c.d",
            &token(&json!({ "typ": "JWT" }), "{}"),
            &token(&json!([]), "{}"),
        ] {
            assert_eq!(Unverified::read(text), None, "{text}");
        }
    }
}
