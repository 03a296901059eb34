//! Calls of an application, passed on to GitLab's API with a user's token: bodies stream both ways, and what GitLab answers is the application's.
//!
//! They have connections of their own and no part in the circuits but this: while GitLab is known to be out of reach none is tried, and one that can't connect
//! counts. An answer that is slow, or 502, may be what the application asked for. Which calls may be made, and whose token it is, is the gate's.

use std::time::Duration;

use http::Request;
use tokio::time::{Instant, timeout};

use super::{CallError, Provider};
use crate::body::{Body, Response};

impl Provider {
    /// Sends `request`, of which the path begins with `/api/`, as the bearer of `token`; the answer's body is still to come.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn relay(
        &self,
        mut request: Request<Body>,
        token: &str,
    ) -> Result<Response, CallError> {
        let start = Instant::now();
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let uri = self.client.uri(path.trim_start_matches('/'))?;
        *request.uri_mut() = uri;
        let answer = match timeout(PATIENCE, self.client.relay(request, token)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout),
        };
        let label = match &answer {
            Ok(answer) => answer.status().as_str().to_owned(),
            Err(error) => error.label(),
        };
        self.client.observed("api", &label, start.elapsed());
        answer.map(|answer| answer.map(Body::from))
    }
}

/// How long GitLab may take to begin its answer.
const PATIENCE: Duration = Duration::from_mins(1);
