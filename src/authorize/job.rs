//! Keys of a rule that speak of CI jobs: they hold for nobody else, and of what GitLab did not say none holds.

use super::Verdict;
use crate::{
    config::{GroupPath, ProjectPath, RefPattern, Rule},
    identity::Job,
};

#[derive(Clone, Debug)]
pub(super) enum JobCondition {
    Project(ProjectPath),
    Namespace(GroupPath),
    Ref(RefPattern),
    RefProtected(bool),
    Environment(String),
    PipelineSource(String),
}

impl JobCondition {
    /// Those of `rule`.
    pub(super) fn all_of(rule: &Rule) -> impl Iterator<Item = Self> {
        let conditions = [
            rule.ci_project.clone().map(Self::Project),
            rule.ci_namespace.clone().map(Self::Namespace),
            rule.r#ref.clone().map(Self::Ref),
            rule.ref_protected.map(Self::RefProtected),
            rule.environment.clone().map(Self::Environment),
            rule.pipeline_source.clone().map(Self::PipelineSource),
        ];
        conditions.into_iter().flatten()
    }

    pub(super) fn verdict(&self, job: &Job) -> Verdict {
        let is = |wanted: &String, said: &Option<String>| {
            said.as_ref().map_or(Verdict::Unknown, |said| (said == wanted).into())
        };
        match self {
            Self::Project(path) => path.is(&job.project_path).into(),
            Self::Namespace(path) => path.is(&job.namespace_path).into(),
            Self::Ref(pattern) => pattern.matches(&job.ref_name, job.is_tag).into(),
            Self::RefProtected(wanted) => {
                job.ref_protected.map_or(Verdict::Unknown, |is| (is == *wanted).into())
            },
            Self::Environment(wanted) => is(wanted, &job.environment),
            Self::PipelineSource(wanted) => is(wanted, &job.pipeline_source),
        }
    }

    /// What it asks for.
    pub(super) fn needed(&self) -> String {
        match self {
            Self::Project(path) => format!("a CI job of the project {}", path.as_str()),
            Self::Namespace(path) => {
                format!("a CI job of a project right in {}", path.as_str())
            },
            Self::Ref(pattern) => match pattern.as_str().strip_prefix("refs/tags/") {
                Some(tag) => format!("a CI job of the tag {tag}"),
                None => format!("a CI job of the branch {}", pattern.as_str()),
            },
            Self::RefProtected(true) => "a CI job of a protected branch or tag".into(),
            Self::RefProtected(false) => "a CI job of a branch or tag that is not protected".into(),
            Self::Environment(name) => format!("a CI job that deploys to {name}"),
            Self::PipelineSource(source) => format!("a CI job of a pipeline started by {source}"),
        }
    }

    /// What `job` is.
    pub(super) fn held(&self, job: &Job) -> String {
        let unsaid = |what: &str| format!("GitLab has not said {what}");
        match self {
            Self::Project(_) => format!("a job of {}", job.project_path),
            Self::Namespace(_) => format!("a job of a project in {}", job.namespace_path),
            Self::Ref(_) if job.is_tag => format!("a job of the tag {}", job.ref_name),
            Self::Ref(_) => format!("a job of the branch {}", job.ref_name),
            Self::RefProtected(_) => match job.ref_protected {
                Some(true) => "its branch or tag is protected".into(),
                Some(false) => "its branch or tag is not protected".into(),
                None => unsaid("whether its branch or tag is protected"),
            },
            Self::Environment(_) => match &job.environment {
                Some(name) => format!("it deploys to {name}"),
                None => unsaid("that it deploys anywhere"),
            },
            Self::PipelineSource(_) => match &job.pipeline_source {
                Some(source) => format!("its pipeline was started by {source}"),
                None => unsaid("what started its pipeline"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            project_path: "acme/web/shop".into(),
            namespace_path: "acme/web".into(),
            ref_name: "main".into(),
            is_tag: false,
            ref_protected: Some(true),
            environment: Some("production".into()),
            pipeline_source: Some("push".into()),
        }
    }

    fn rule(text: &str) -> JobCondition {
        let rule: Rule = toml::from_str(text).unwrap();
        let mut all: Vec<_> = JobCondition::all_of(&rule).collect();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn each_key_holds_for_what_the_job_is_and_for_nothing_near() {
        for (text, verdict) in [
            ("ci_project = \"ACME/web/Shop\"", Verdict::Holds),
            ("ci_project = \"acme/web/shop2\"", Verdict::Fails),
            ("ci_project = \"acme/shop\"", Verdict::Fails),
            ("ci_namespace = \"Acme/Web\"", Verdict::Holds),
            ("ci_namespace = \"acme\"", Verdict::Fails),
            ("ci_namespace = \"acme/web/shop\"", Verdict::Fails),
            ("ref = \"main\"", Verdict::Holds),
            ("ref = \"ma*\"", Verdict::Holds),
            ("ref = \"MAIN\"", Verdict::Fails),
            ("ref = \"refs/tags/main\"", Verdict::Fails),
            ("ref_protected = true", Verdict::Holds),
            ("ref_protected = false", Verdict::Fails),
            ("environment = \"production\"", Verdict::Holds),
            ("environment = \"Production\"", Verdict::Fails),
            ("environment = \"prod\"", Verdict::Fails),
            ("pipeline_source = \"push\"", Verdict::Holds),
            ("pipeline_source = \"schedule\"", Verdict::Fails),
        ] {
            assert_eq!(rule(text).verdict(&job()), verdict, "{text}");
        }
        let tag = Job { is_tag: true, ..job() };
        assert_eq!(rule("ref = \"main\"").verdict(&tag), Verdict::Fails);
        assert_eq!(rule("ref = \"refs/tags/main\"").verdict(&tag), Verdict::Holds);
    }

    #[test]
    fn what_gitlab_did_not_say_holds_nothing() {
        let bare = Job { ref_protected: None, environment: None, pipeline_source: None, ..job() };
        for text in [
            "ref_protected = true",
            "ref_protected = false",
            "environment = \"production\"",
            "pipeline_source = \"push\"",
        ] {
            assert_eq!(rule(text).verdict(&bare), Verdict::Unknown, "{text}");
            assert!(rule(text).held(&bare).contains("has not said"), "{text}");
        }
    }
}
