//! All integration tests, one binary; one module per capability, all of them against the [`support::Lab`].

#![expect(unreachable_pub, reason = "modules of one test binary")]

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
