//! All integration tests, one binary; one module per capability, all of them against the [`support::Lab`].

#![expect(unreachable_pub, reason = "modules of one test binary")]

mod deploy;
mod id_token;
mod landing;
mod person;
mod recheck;
mod session;
mod sign_in;
mod sign_in_refused;
mod sign_out;
mod support;
