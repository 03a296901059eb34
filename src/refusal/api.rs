//! Why an application's call of GitLab's API, in the name of a user, was not passed on.

use std::time::Duration;

use http::StatusCode;

use super::{BoxError, Refusal, Words};

/// Why an application's call of GitLab's API was not passed on.
#[derive(Debug)]
pub enum ApiTrouble {
    /// The configuration does not list the method.
    Method,
    /// The path is not below `/api/`, or could be read as one that is not.
    Path,
    /// A parameter would bring another token, user or method in; its name.
    Parameter(&'static str),
    /// The body could bring in another method.
    Form,
    /// The assertion is missing, or no good one; why.
    Assertion(&'static str),
    /// The session that the assertion names has ended, or is not known here.
    Session,
    /// GitLab gave no answer.
    Unanswered {
        /// When to try again, if it was not even asked.
        retry_after: Option<Duration>,
        /// What came in its way.
        source: BoxError,
    },
}

impl From<ApiTrouble> for Refusal {
    fn from(trouble: ApiTrouble) -> Self {
        Self::Api(trouble)
    }
}

impl ApiTrouble {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unanswered { retry_after: None, .. } => StatusCode::BAD_GATEWAY,
            Self::Unanswered { retry_after: Some(_), .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Method
            | Self::Path
            | Self::Parameter(_)
            | Self::Form
            | Self::Assertion(_)
            | Self::Session => StatusCode::FORBIDDEN,
        }
    }

    /// A stable word for logs, metrics and problem documents.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Method => "api_method",
            Self::Path => "api_path",
            Self::Parameter(_) => "api_parameter",
            Self::Form => "api_form",
            Self::Assertion(_) => "api_assertion",
            Self::Session => "api_session",
            Self::Unanswered { .. } => "api_unanswered",
        }
    }

    pub(super) fn words(&self) -> Words {
        let refused = |detail| {
            Words::new(
                "This call is not passed on",
                detail,
                "See what the operator allows the application to ask of GitLab.",
            )
        };
        match self {
            Self::Method => refused("Its method is not among those that may be used here.")
                .operator("`gitlab.NAME.api.methods` lists the methods that pass."),
            Self::Path => {
                refused("Only paths below /api/ are, and none that can be read as leading out of it.")
            },
            Self::Parameter(name) => refused("")
                .detail(format!("The parameter `{name}` is not the application's to set here.")),
            Self::Form => refused(
                "A form could ask for another method than its own; send JSON, or a body of no kind at all.",
            )
            .operator("With PUT, PATCH and DELETE in `gitlab.NAME.api.methods` forms pass too."),
            Self::Assertion(why) => Words::new(
                "The call says for whom it is in no way that counts",
                "",
                "Send the X-Labgate-Assertion that came with the request of that person, and only while it is fresh.",
            )
            .detail(format!("Its X-Labgate-Assertion can't be used: {why}.")),
            Self::Session => Words::new(
                "The session is over",
                "The person for whom the application asks has signed out, or may not come in any more.",
                "Wait for their next request.",
            )
            .operator("Sessions without a store of their own are known to the labgate that signed the assertion, until it restarts."),
            Self::Unanswered { .. } => Words::new(
                "GitLab does not answer",
                "The call was allowed, but there is no answer of GitLab's.",
                "Try again in a moment.",
            )
            .operator("The log has the cause under this request id."),
        }
    }
}
