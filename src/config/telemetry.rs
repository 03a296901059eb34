//! `[telemetry]`: what operators see.

use serde::{Deserialize, Serialize};

use super::value;

/// What operators see.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Level, or a filter by target. Default `"info"`. Example `"labgate=debug,hyper=warn"`.
    #[serde(deserialize_with = "value::log_filter")]
    pub log: String,
    /// Form of the log lines: `"text"`, `"json"`, or `"auto"` for text on a terminal and JSON otherwise. Default `"auto"`.
    pub format: LogFormat,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info".into(), format: LogFormat::Auto }
    }
}
