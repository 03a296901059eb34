//! What `labgate demo` and the integration tests run against: a development GitLab and a sample app, both on loopback.

mod answer;
mod serve;

pub mod gitlab;
pub mod upstream;
