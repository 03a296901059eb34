//! `[upstream.NAME]`: an application that needs more than a plain URL in its route.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::value;

/// An application that needs more than a plain URL in its route.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Where it listens: `http` or `https`, host and port, without a path. Required.
    #[serde(deserialize_with = "value::optional_origin")]
    pub url: Option<Url>,
    /// How long connecting may take. Default `"5s"`.
    #[serde(with = "value::duration")]
    pub connect_timeout: Duration,
    /// How long it may take to begin its response. Default `"60s"`.
    #[serde(with = "value::duration")]
    pub response_timeout: Duration,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
        }
    }
}
