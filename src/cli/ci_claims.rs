//! `--ci CLAIM=VALUE`: a CI job, described by the claims of its ID token.

use std::str::FromStr;

use crate::{
    config::{GroupPath, ProjectPath},
    identity::{Identity, Job, Kind},
};

/// One claim as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    name: &'static str,
    value: String,
}

/// Claims that rules look at.
const KNOWN: [&str; 7] = [
    "project_path",
    "namespace_path",
    "ref",
    "ref_type",
    "ref_protected",
    "environment",
    "pipeline_source",
];

impl FromStr for Claim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("say CLAIM=VALUE")?;
        let known = KNOWN.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| {
            format!("rules look at no claim `{name}`, but at {}", KNOWN.join(", "))
        })?;
        let wrong = match name {
            "project_path" => ProjectPath::try_from(value.to_owned()).err(),
            "namespace_path" => GroupPath::try_from(value.to_owned()).err(),
            "ref_type" if !["branch", "tag"].contains(&value) => {
                Some("`ref_type` is `branch` or `tag`".into())
            },
            "ref_protected" if value.parse::<bool>().is_err() => {
                Some("`ref_protected` is `true` or `false`".into())
            },
            _ => None,
        };
        wrong.map_or_else(|| Ok(Self { name, value: value.to_owned() }), Err)
    }
}

/// The CI job of the GitLab `gitlab` that these claims describe.
pub(super) fn identity(claims: &[Claim], gitlab: &str, issuer: &str) -> Result<Identity, String> {
    let claim = |name: &str| {
        let mut said = claims.iter().filter(|claim| claim.name == name);
        match (said.next(), said.next()) {
            (_, Some(_)) => Err(format!("--ci {name}=… is said twice")),
            (first, None) => Ok(first.map(|claim| claim.value.clone())),
        }
    };
    let project_path = claim("project_path")?.ok_or("say --ci project_path=PATH")?;
    let around = project_path.rsplit_once('/').map(|(namespace, _)| namespace.to_owned());
    let job = Job {
        namespace_path: claim("namespace_path")?.or(around).unwrap_or_default(),
        ref_name: claim("ref")?.unwrap_or_default(),
        is_tag: claim("ref_type")?.is_some_and(|kind| kind == "tag"),
        ref_protected: claim("ref_protected")?.and_then(|value| value.parse().ok()),
        environment: claim("environment")?,
        pipeline_source: claim("pipeline_source")?,
        project_path,
    };
    Ok(Identity {
        gitlab: gitlab.into(),
        issuer: issuer.into(),
        username: job.project_path.clone(),
        kind: Kind::Ci,
        job: Some(Box::new(job)),
        ..Identity::default()
    })
}
