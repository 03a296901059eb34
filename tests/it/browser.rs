//! A real Chromium before the real binary: what people see, click and read, from the first link to the signed-out page.
//!
//! ```text
//! journeys   each person, what opens and what does not; tabs, back, change of person; streams
//! hosts      one host signs in for others; a form that was not sent goes through
//! pictures   every page in light and dark, desktop and phone: nothing overflows, nothing complains
//! terminal   what `labgate demo` says, and how it ends
//! ```
//!
//! `LABGATE_SCREENSHOTS=DIRECTORY` keeps the pictures. Needs Debian's chromium and chromium-driver.

mod demo;
mod driver;
mod hosts;
mod journeys;
mod pictures;
mod terminal;

pub use self::driver::Chromium;
