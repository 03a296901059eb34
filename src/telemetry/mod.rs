//! What operators see: logs, metrics, the access and audit lines, request ids, and the admin listener's answers.
//!
//! This room writes down what others tell it. When something is worth a line or a count is theirs to know.

mod access;
mod admin;
mod log;
mod metrics;
mod printable;
mod process;
mod request_id;
mod route_metrics;

pub use self::{
    access::{Access, Audit, AuditEvent, Decision},
    admin::{Admin, Health, Standing},
    log::{LogError, LogGuard, causes, start_logging},
    metrics::{Described, Metrics, REFERENCE},
    request_id::{RequestId, RequestIds},
    route_metrics::{RouteMetrics, UpstreamMetrics},
};

#[cfg(test)]
mod tests;
