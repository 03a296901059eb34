//! All integration tests, one binary; one module per capability, all of them against the [`support::Lab`].

#![expect(unreachable_pub, reason = "modules of one test binary")]

mod bad_input;
mod cli;
mod deploy;
mod nginx;
mod process;
mod reload;
mod sign_in;
mod support;
mod telemetry;
