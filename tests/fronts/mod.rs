//! labgate behind real front proxies, each with the configuration that `labgate front` prints, to the letter.
//!
//! ```text
//! front     starts the proxy on what was printed
//! yard      labgate with its GitLab and two applications, and the proxy before them
//! people    who signs in, who is refused, who signs out
//! strangers what a client can say to be taken for somebody, or to get past the question
//! wire      uploads and WebSockets
//! time      tokens that end, GitLab gone, labgate restarted
//! browser   all of it in a real Chromium
//! printed   TLS and many hosts: the programs read what is printed
//! compose   the files in deploy/compose/fronts
//! ```
//!
//! The files of the proxies hold one line a test, and what is different there. Traefik can't be installed from the registries that `tests/run` uses: a
//! peer that follows its documented behaviour stands in, on the same printed file. Apache knows no forward-auth: it stands before labgate's other door.

mod apache;
mod browser;
mod caddy;
mod compose;
mod envoy;
mod envoy_grpc;
mod front;
mod haproxy;
mod nginx;
mod people;
mod printed;
mod strangers;
mod time;
mod traefik;
mod wire;
mod yard;
