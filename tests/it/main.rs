//! All integration tests, one binary; one module per capability, all of them against the [`support::Lab`].

#![expect(unreachable_pub, reason = "modules of one test binary")]
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests, may fail them"
)]

mod api;
mod assertion;
mod bad_input;
mod browser;
mod ci;
mod cli;
mod deploy;
mod drain;
mod envoy;
mod expiry;
mod explain;
mod ext_authz;
mod facts;
mod floods;
mod forward_auth;
#[path = "../fronts/mod.rs"]
mod fronts;
mod hand_over;
mod headers;
mod hooks;
mod http1;
mod http2;
mod id_token;
mod landing;
mod limits;
mod loops;
mod metrics;
mod nginx;
mod operators;
mod paths;
mod person;
mod policy;
mod process;
mod proxy;
mod recheck;
mod redis;
mod reload;
mod replicas;
mod review_sign_in;
mod review_wire;
mod session;
mod sign_in;
mod sign_in_refused;
mod sign_out;
mod store;
mod support;
mod telemetry;
mod tokens;
mod tunnels;
mod unsent;
mod upgrade;
