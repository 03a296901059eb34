//! `GET /api/v4/job`: the running job that a `CI_JOB_TOKEN` belongs to.

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;

use super::{
    api::{self, Outcome},
    bearer,
    state::Instance,
};
use crate::demo::answer::{self, Params};

/// The job by `JOB-TOKEN`, `job_token` or as bearer; any other token that is good gets 404, as does none that is known 401.
pub(super) fn running(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Outcome {
    let world = gitlab.world();
    let token = answer::header_text(headers, HeaderName::from_static("job-token"))
        .or_else(|| params.text("job_token"))
        .or_else(|| bearer::presented(headers, params));
    let Some(job) = token.and_then(|token| world.jobs.iter().find(|job| job.token == token)) else {
        api::caller(gitlab, &world, headers, params, gitlab.clock.now())?;
        return Err(api::not_found("404 Job Not Found"));
    };
    let Some(user) = world.directory.user(job.user) else {
        let body = json!({ "message": "401 Unauthorized" });
        return Err(Box::new(answer::json(StatusCode::UNAUTHORIZED, &body)));
    };
    if let Some(reason) = api::denial(gitlab, user) {
        let body = json!({ "message": format!("403 Forbidden - {reason}") });
        return Err(Box::new(answer::json(StatusCode::FORBIDDEN, &body)));
    }
    let project = format!("{}/{}", gitlab.external_url, job.path);
    Ok(answer::json(
        StatusCode::OK,
        &json!({
            "id": job.id,
            "status": "running",
            "stage": "deploy",
            "name": "deploy",
            "ref": job.ref_name,
            "tag": job.tag,
            "web_url": format!("{project}/-/jobs/{}", job.id),
            "user": { "id": user.id, "username": user.username, "name": user.name, "state": user.state.word() },
            "pipeline": {
                "id": 7001, "project_id": job.project_id, "ref": job.ref_name, "status": "running",
                "source": job.source, "web_url": format!("{project}/-/pipelines/7001"),
            },
            "project": { "ci_job_token_scope_enabled": true },
        }),
    ))
}
