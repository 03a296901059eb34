//! Whether a CI job's ID token is to be believed.
//!
//! Any job of the whole GitLab gets tokens, signed with keys of the same set as sign-ins, for an audience that its author picks. So a token counts only if
//! it was made for labgate's own audience, was not made for the application as well, has the claims of a job, and is young: it lives on when
//! its job has ended, and can't be revoked.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Checked, IdTokenError, Provider,
    id_token::LEEWAY,
    jwt::{Audience, Jwt},
};
use crate::{
    clock::Timestamp,
    config::{ProjectPath, TokenKind},
    identity::{Identity, Job, Kind},
};

/// So long a token counts at most, however long its job may run.
const LIFE: Duration = Duration::from_hours(1);

/// Source: GitLab, `doc/ci/secrets/id_token_authentication.md`.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    job_id: Option<Id>,
    pipeline_id: Option<Id>,
    project_id: Option<Id>,
    /// The project in which the job runs; since GitLab 18.4.
    job_project_id: Option<Id>,
    project_path: Option<ProjectPath>,
    namespace_path: Option<String>,
    #[serde(rename = "ref")]
    ref_name: Option<String>,
    ref_type: Option<String>,
    ref_protected: Option<Flag>,
    environment: Option<String>,
    pipeline_source: Option<String>,
}

/// Ids are text; numbers in some versions.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

/// Flags are text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Text(String),
    Bool(bool),
}

impl Id {
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => {
                let decimal = (1..=20).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_digit());
                decimal.then(|| text.clone())
            },
            Self::Number(number) => Some(number.to_string()),
        }
    }
}

impl Flag {
    fn is_set(&self) -> Option<bool> {
        match self {
            Self::Bool(set) => Some(*set),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl Provider {
    /// The CI job that `token` was given to.
    ///
    /// # Errors
    /// Each check has its own variant in [`IdTokenError`].
    pub async fn verify_job(&self, token: &str, now: Timestamp) -> Result<Checked, IdTokenError> {
        let jwt = Jwt::split(token).ok_or(IdTokenError::Malformed)?;
        self.signed(jwt).await?;
        let claims: Claims = jwt.claims()?;
        let issuer = self.known_issuer().await?;
        if claims.iss != issuer {
            return Err(IdTokenError::Issuer { expected: issuer });
        }
        self.check_job_audience(claims.aud.all())?;
        let until = until(&claims, now)?;
        Ok(Checked { kind: TokenKind::Ci, identity: self.job(claims)?, until: Some(until) })
    }

    fn check_job_audience(&self, audiences: &[String]) -> Result<(), IdTokenError> {
        let ours = self.tokens.ci_audience.as_ref().ok_or(IdTokenError::NoJob)?;
        if audiences.contains(&self.client_id) {
            return Err(IdTokenError::SignInAudience);
        }
        match audiences.contains(ours) {
            true => Ok(()),
            false => Err(IdTokenError::JobAudience(ours.clone())),
        }
    }

    fn job(&self, claims: Claims) -> Result<Identity, IdTokenError> {
        let id = |id: &Option<Id>| id.as_ref().and_then(Id::text).ok_or(IdTokenError::NoJob);
        let (_, _, project_id) =
            (id(&claims.job_id)?, id(&claims.pipeline_id)?, id(&claims.project_id)?);
        // In a merge request between forks `project_*` and `ref` say where the branch comes from, while the job runs by the settings of another project.
        if claims.job_project_id.is_some() && id(&claims.job_project_id)? != project_id {
            return Err(IdTokenError::JobElsewhere);
        }
        let project = claims.project_path.ok_or(IdTokenError::NoJob)?;
        let is_tag = match claims.ref_type.as_deref() {
            Some("branch") => false,
            Some("tag") => true,
            Some(_) | None => return Err(IdTokenError::NoJob),
        };
        Ok(self.identity_of_job(
            &project_id,
            Job {
                project_path: project.as_str().to_owned(),
                namespace_path: claims.namespace_path.ok_or(IdTokenError::NoJob)?,
                ref_name: claims.ref_name.ok_or(IdTokenError::NoJob)?,
                is_tag,
                ref_protected: claims.ref_protected.and_then(|flag| flag.is_set()),
                environment: claims.environment.filter(|name| !name.is_empty()),
                pipeline_source: claims.pipeline_source,
            },
        ))
    }

    /// A job is known by its project: whoever started it is not there.
    pub(super) fn identity_of_job(&self, project_id: &str, job: Job) -> Identity {
        Identity {
            gitlab: self.name.clone(),
            issuer: self.issuer().to_owned(),
            sub: format!("project:{project_id}"),
            username: job.project_path.clone(),
            name: job.project_path.clone(),
            kind: Kind::Ci,
            job: Some(Box::new(job)),
            ..Identity::default()
        }
    }
}

/// Until when a token counts: its end, or an hour from its making. There is no leeway at the end; a clock that runs ahead only shortens it.
fn until(claims: &Claims, now: Timestamp) -> Result<Timestamp, IdTokenError> {
    let [exp, iat] = [claims.exp, claims.iat].map(Timestamp::from_unix);
    let nbf = claims.nbf.map_or(iat, Timestamp::from_unix);
    if let Some(iat) = [iat, nbf].into_iter().find(|start| *start > now + LEEWAY) {
        return Err(IdTokenError::IssuedAt { iat, now });
    }
    let until = exp.min(iat + LIFE);
    if until <= now {
        return Err(IdTokenError::Expired { exp: until, now });
    }
    Ok(until)
}
