//! Leaves of the configuration that parse themselves, so that an error points at the very value.
//!
//! What is a type of its own is read and written by it; for types of others there are functions, or modules of two, for serde's field attributes.

mod access_level;
mod authority;
pub(super) mod duration;
mod group;
mod host;
mod network;
mod path;
mod project;
mod ref_pattern;
pub(super) mod size;
mod url;
mod wildcard;
mod word;

pub use self::{
    access_level::AccessLevel,
    authority::HostAndPort,
    group::{GroupPath, GroupPattern},
    host::HostPattern,
    path::PathPrefix,
    project::ProjectPath,
    ref_pattern::RefPattern,
    url::parse_origin,
};
pub(super) use self::{
    network::{networks, optional_socket_address, socket_address},
    path::prefix,
    url::{
        base as base_url, one as one_upstream, optional_base as optional_base_url, optional_origin,
        upstream,
    },
    word::{cookie_domain, cookie_name, log_filter, methods, scopes},
};
