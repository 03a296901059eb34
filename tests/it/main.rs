//! All integration tests, one binary; one module per capability, all of them against the [`support::Lab`].

#![expect(unreachable_pub, reason = "modules of one test binary")]

mod cli;
mod deploy;
mod sign_in;
mod support;
