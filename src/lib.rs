//! labgate puts GitLab sign-in in front of any web application.
//!
//! A browser's request meets one short line of verbs, told in [`gate`]: *route* it, *authenticate* whoever asks, *authorize* them against the
//! route's policy, then *forward* the request or *respond* with the reason why not. Everything else is a noun that those verbs use. The same
//! story for those who run it is `docs/how-it-works.md`.
//!
//! ```text
//! floor 6  cli                                 the only room that prints or exits
//! floor 5  app  demo                           the running process; the development GitLab and sample app
//! floor 4  gate                                the order of the verbs: handle, admit, finish
//! floor 3  accept  route  authenticate  authorize  forward  respond
//! floor 2  session  gitlab                     who is remembered; what GitLab says
//! floor 1  telemetry  target  identity         what operators see; what was asked for; who asks
//! floor 0  config  body  refusal  clock        what was configured; what flows; why not; when
//! ```
//!
//! A room imports lower floors only, never its own; `tests/tidy.rs` checks that.

pub mod body;
pub mod clock;
pub mod config;
pub mod refusal;

pub mod identity;
pub mod target;
pub mod telemetry;

pub mod gitlab;
pub mod session;

pub mod accept;
pub mod authenticate;
pub mod authorize;
pub mod forward;
pub mod respond;
pub mod route;

pub mod gate;

pub mod app;
pub mod demo;

pub mod cli;
