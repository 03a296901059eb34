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
mod dialect;
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
mod secrets;
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
    dialect::Dialect,
    document::Document,
    gitlab::{Api, GitLab},
    identity::{Assertion, Identity},
    names::nearest,
    policy::{Allow, Rule},
    problem::{Problem, render},
    route::Route,
    secret::{Secret, SecretError},
    secrets::Secrets,
    server::{Limits, Server, Timeouts, TrustedProxies},
    session::{CookieSettings, RedisStore, SameSite, Session, StoreKind},
    source::load,
    telemetry::{LogFormat, Telemetry},
    upstream::Upstream,
    value::{
        AccessLevel, GroupPath, GroupPattern, HostAndPort, HostPattern, PathPrefix, ProjectPath,
        parse_origin,
    },
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
            let secrets = gitlab.client_secret.iter_mut().chain(&mut gitlab.hook_secret);
            secrets.for_each(|secret| secret.rebase(directory));
        }
        self.session.keys.iter_mut().for_each(|key| key.rebase(directory));
        let assertion = self.identity.assertion.iter_mut();
        assertion.flat_map(|table| &mut table.key.0).for_each(|key| key.rebase(directory));
        if let StoreKind::Redis(store) = &mut self.session.store {
            store.redis.rebase(directory);
            store.ca.iter_mut().for_each(rebase);
        }
        let rules = self.route.iter_mut().filter_map(|route| match &mut route.allow {
            Some(Allow::Rules(rules)) => Some(rules),
            Some(Allow::Public | Allow::SignedIn) | None => None,
        });
        rules.flatten().filter_map(|rule| rule.users_file.as_mut()).for_each(rebase);
    }

    /// Every secret, with its key path.
    fn secrets(&self) -> impl Iterator<Item = (String, &Secret)> {
        let keys = self.session.keys.iter().enumerate();
        let keys = keys.map(|(index, key)| (format!("session.keys[{index}]"), key));
        let gitlabs = self.gitlab.iter().flat_map(|(name, gitlab)| {
            let secrets =
                [("client_secret", &gitlab.client_secret), ("hook_secret", &gitlab.hook_secret)];
            secrets.into_iter().filter_map(move |(field, secret)| {
                Some((format!("gitlab.{name}.{field}"), secret.as_ref()?))
            })
        });
        let store = match &self.session.store {
            StoreKind::Redis(store) => Some(("session.store.redis".into(), &store.redis)),
            StoreKind::Memory => None,
        };
        let assertion = self.identity.assertion.iter();
        let assertion = assertion.flat_map(|table| table.key.named("identity.assertion.key"));
        keys.chain(gitlabs).chain(store).chain(assertion)
    }

    /// The files that are read when a configuration is loaded: secrets and certificate authorities.
    pub fn files(&self) -> Vec<PathBuf> {
        let secrets = self.secrets().filter_map(|(_, secret)| match secret {
            Secret::File(path) => Some(path.clone()),
            Secret::Inline(_) | Secret::Env(_) => None,
        });
        let authorities = self.gitlab.values().filter_map(|gitlab| gitlab.ca.clone());
        let store = match &self.session.store {
            StoreKind::Redis(store) => store.ca.clone(),
            StoreKind::Memory => None,
        };
        secrets.chain(authorities).chain(store).collect()
    }

    /// What is wrong within single tables; whether tables fit each other is checked where the gate is built.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.missing();
        problems.extend(self.server.problems());
        problems.extend(self.session.problems());
        problems.extend(self.identity.problems());
        for (name, gitlab) in &self.gitlab {
            problems.extend(names::table("gitlab", name));
            problems.extend(gitlab.problems(&format!("gitlab.{name}")));
        }
        for (name, upstream) in &self.upstream {
            problems.extend(names::table("upstream", name));
            problems.extend(upstream.problems(&format!("upstream.{name}")));
        }
        for (index, route) in self.route.iter().enumerate() {
            let key = format!("route[{index}]");
            problems.extend(route.problems(&key, !self.server.trusted_proxies.0.is_empty()));
        }
        let open = self.secrets().filter(|(_, secret)| secret.is_open());
        problems.extend(open.map(|(key, _)| {
            Problem::warning(key, "every user of this machine may read the secret's file")
                .help("take the permission away: `chmod o-r`, or `defaultMode: 0440` of a Kubernetes volume")
        }));
        problems
    }

    fn missing(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.gitlab.is_empty() {
            let help = "add a table `[gitlab.main]` with `client_id`, or set `LABGATE_GITLAB__MAIN__CLIENT_ID`";
            problems.push(Problem::error("gitlab", "no GitLab to sign in with").help(help));
        }
        if self.route.is_empty() {
            let help =
                "add a table `[[route]]` with `upstream` and `allow`, or set `LABGATE_ROUTE`";
            problems.push(Problem::error("route", "nothing is protected: no route").help(help));
        }
        problems
    }
}

#[cfg(test)]
mod tests;
