//! `[upstream.NAME]`: an application that needs more than a plain URL in its route.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Problem, value};

/// An application that needs more than a plain URL in its route.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Where it listens: `http` or `https`, host and port, without a path. Required. Example `"http://127.0.0.1:3000"`.
    #[serde(deserialize_with = "value::upstream")]
    pub url: Option<Url>,
    /// How long connecting may take. Default `"5s"`.
    #[serde(with = "value::duration")]
    pub connect_timeout: Duration,
    /// How long it may take to begin its response. Default `"60s"`.
    #[serde(with = "value::duration")]
    pub response_timeout: Duration,
}

impl Upstream {
    pub(super) fn problems(&self, key: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.url.is_none() {
            let message = "the URL of the application is needed";
            problems.push(Problem::error(format!("{key}.url"), message));
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
        ];
        let zeroes = times.into_iter().filter(|(_, time)| time.is_zero());
        problems.extend(zeroes.map(|(name, _)| {
            Problem::error(format!("{key}.{name}"), "with zero no request could pass")
        }));
        problems
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_mins(1),
        }
    }
}
