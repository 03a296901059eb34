//! All integration tests, one binary; one module per capability, all of them against the [`support::Lab`].

#![expect(unreachable_pub, reason = "modules of one test binary")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may fail by panicking, its helpers too"
)]

mod deploy;
mod drain;
mod headers;
mod http1;
mod http2;
mod limits;
mod paths;
mod policy;
mod proxy;
mod sign_in;
mod support;
mod upgrade;
