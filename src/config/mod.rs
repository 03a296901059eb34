//! `labgate.toml` as types: one file a table, in the order of the reference.
//!
//! ```text
//! file + LABGATE_* ──source──▶ Document (keeps positions) ──serde──▶ Config ──gate::build──▶ Gate
//!                                   └──────────── Problem { key, message } ◀──┘
//! ```
//!
//! A `Config` says what was written, with defaults filled in and every leaf parsed by its own type. Whether the names in it exist and its
//! parts fit together is checked where the gate is built; both stages report `Problem`s by key path, and the `Document` knows where a key stands.

mod access;
mod document;
mod environment;
mod excerpt;
mod fault;
mod gitlab;
mod identity;
mod names;
mod notes;
mod policy;
mod problem;
mod reader;
mod route;
mod secret;
mod server;
mod session;
mod source;
mod telemetry;
mod tree;
mod upstream;
mod value;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::{
    document::Document,
    gitlab::GitLab,
    identity::Identity,
    policy::{Allow, Rule},
    problem::{Problem, render},
    route::Route,
    secret::{Secret, SecretError},
    server::{Limits, Server, Timeouts, TrustedProxies},
    session::{CookieSettings, SameSite, Session, StoreKind},
    source::load,
    telemetry::{LogFormat, Telemetry},
    upstream::Upstream,
    value::{AccessLevel, GroupPath, GroupPattern, HostPattern, PathPrefix},
};

/// The whole of `labgate.toml`, one field a table.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[server]`: sockets, names and limits of this process.
    pub server: Server,
    /// `[gitlab.NAME]`: one table per GitLab, by the name that routes, logs and metrics say.
    pub gitlab: BTreeMap<String, GitLab>,
    /// `[session]`: how a signed-in browser is remembered, and for how long.
    pub session: Session,
    /// `[identity]`: what upstreams are told about the user.
    pub identity: Identity,
    /// `[upstream.NAME]`: applications that need more than a plain URL.
    pub upstream: BTreeMap<String, Upstream>,
    /// `[[route]]`: what is protected, by whom it may be used.
    pub route: Vec<Route>,
    /// `[telemetry]`: what operators see.
    pub telemetry: Telemetry,
}

impl Config {
    /// Lets relative paths start from `directory`.
    fn resolve(&mut self, directory: &Path) {
        let rebase = |path: &mut PathBuf| *path = directory.join(&*path);
        for gitlab in self.gitlab.values_mut() {
            gitlab.ca.iter_mut().for_each(rebase);
            gitlab
                .client_secret
                .iter_mut()
                .for_each(|secret| secret.rebase(directory));
        }
        self.session
            .keys
            .iter_mut()
            .for_each(|key| key.rebase(directory));
        let rules = self
            .route
            .iter_mut()
            .filter_map(|route| match &mut route.allow {
                Some(Allow::Rules(rules)) => Some(rules),
                Some(Allow::Public | Allow::SignedIn) | None => None,
            });
        rules
            .flatten()
            .filter_map(|rule| rule.users_file.as_mut())
            .for_each(rebase);
    }

    /// What is wrong within single tables.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}
