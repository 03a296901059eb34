//! A `Plan`: the configuration with its names resolved, its secrets read and its parts checked against each other; every problem is told at once.
//!
//! What one table shows by itself, such as a missing key, `config` has told already; here it is only no part of the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use tokio::runtime::Handle;
use url::Url;
use zeroize::Zeroizing;

use super::build::needs;
use crate::{
    authorize::{Policy, PolicyError, UsersFiles},
    clock::Clock,
    config::{self, Allow, Config, HostPattern, Problem, Rule, StoreKind, nearest},
    gitlab::{Provider, ProviderError, Roots, STATE_SCOPES, Unobserved},
    identity::HeaderTable,
    route::{Entry, RouteTable},
    session::{KeyRing, Means, Random, RedisSettings, Store, StoreLimits, StoreSettings},
    target::{Origin, Trust},
    telemetry::Metrics,
};

/// The environment's variables by name.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration whose parts fit together.
#[derive(Debug)]
pub struct Plan {
    /// The configuration it was drawn from.
    pub config: Config,
    pub(super) public: Option<Origin>,
    pub(super) trust: Trust,
    pub(super) headers: HeaderTable,
    pub(super) keys: KeyRing,
    pub(super) secrets: BTreeMap<String, Zeroizing<String>>,
    pub(super) store: StoreSettings,
    pub(super) routes: Vec<Entry<PlannedRoute>>,
    pub(super) users: UsersFiles,
}

/// One `[[route]]` with its names resolved.
#[derive(Clone, Debug)]
pub(super) struct PlannedRoute {
    /// What logs and metrics call it: host and path as configured.
    pub(super) name: String,
    /// Whether it names its host, or serves any.
    pub(super) names_host: bool,
    pub(super) policy: Policy,
    /// Name of the upstream, or its URL if it has no table.
    pub(super) upstream: String,
    pub(super) gitlabs: Vec<String>,
    pub(super) sign_in_page: bool,
}

impl Plan {
    /// Draws a plan from `config`; there is one exactly if no problem is more than a warning.
    pub fn draw(config: &Config, env: Env<'_>) -> (Option<Self>, Vec<Problem>) {
        let mut draft = Draft { config, env, problems: Vec::new() };
        let plan = draft.draw();
        let sound = draft.problems.iter().all(|problem| problem.warning);
        (plan.filter(|_| sound), draft.problems)
    }

    /// The redirect URIs to register at the GitLab called `name`: one for each host on which its users may sign in; of hosts by pattern, that pattern.
    pub fn redirect_uris(&self, name: &str) -> BTreeSet<String> {
        let routes = self.config.route.iter().filter(|route| route.admits(name));
        let origins = routes.flat_map(|route| self.origins(route.host.as_ref()));
        origins.map(|origin| redirect_uri(&origin, &self.config.server.prefix)).collect()
    }

    /// The scopes that sign-ins at the GitLab called `name` ask for.
    pub fn scopes(&self, name: &str) -> Vec<String> {
        let configured = self.config.gitlab.get(name).map(|gitlab| gitlab.scopes.as_slice());
        needs(&self.config, name).scopes(configured.unwrap_or_default())
    }

    /// The store that replicas share, opened beside them; none if each has its own.
    pub fn open_store(self, background: &Handle) -> Option<Store> {
        let means = Means {
            keys: Arc::new(self.keys),
            random: Random::system(),
            background: background.clone(),
            metrics: Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), "")),
            clock: Clock::system(),
        };
        let store = Store::memory(StoreLimits::default());
        store.attach(&self.store, means);
        store.is_shared().then_some(store)
    }

    /// What browsers call the hosts of one route.
    fn origins(&self, host: Option<&HostPattern>) -> Vec<String> {
        let covers = |public: &&Origin| host.is_none_or(|host| host.matches(&public.host));
        let public = self.public.as_ref().filter(covers).map(ToString::to_string);
        let others = host.filter(|host| {
            let is_public = |public: &Origin| **host == HostPattern::Exact(public.host.clone());
            !self.public.as_ref().is_some_and(is_public)
        });
        let port = self.public.as_ref().and_then(|public| public.port);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let others = others.map(|host| format!("{}://{host}{port}", self.scheme()));
        public.into_iter().chain(others).collect()
    }

    /// How browsers speak to hosts of which nothing is known but their names: the public URL tells it, or a proxy in front does with each
    /// request; without either it is what arrives here.
    fn scheme(&self) -> &'static str {
        match &self.public {
            Some(public) => public.scheme.as_str(),
            None if self.config.server.trusted_proxies.0.is_empty() => "http",
            None => "https",
        }
    }
}

/// Where GitLab sends browsers back to that signed in at `origin`.
pub(super) fn redirect_uri(origin: &dyn fmt::Display, prefix: &str) -> String {
    format!("{origin}{prefix}/callback")
}

/// Draws one plan and gathers what is wrong.
struct Draft<'a> {
    config: &'a Config,
    env: Env<'a>,
    problems: Vec<Problem>,
}

impl Draft<'_> {
    fn draw(&mut self) -> Option<Plan> {
        self.server();
        self.session();
        let secrets = self.gitlabs();
        let keys = self.keys();
        let store = self.store();
        let headers = self.headers();
        let mut users = UsersFiles::default();
        let routes = self.routes(&mut users);
        let server = &self.config.server;
        Some(Plan {
            public: server.public_url.as_ref().and_then(Origin::of),
            trust: Trust::new(&server.trusted_proxies),
            headers: headers?,
            keys: keys?,
            secrets,
            store: store?,
            routes: routes?,
            users,
            config: self.config.clone(),
        })
    }

    fn error(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::error(key, message));
    }

    fn advise(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::error(key, message).help(help));
    }

    fn warn(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::warning(key, message).help(help));
    }

    fn server(&mut self) {
        let server = &self.config.server;
        if !server.admin.ip().is_loopback() {
            self.warn(
                "server.admin",
                "the admin listener can be reached from other machines",
                "it answers everybody: keep it on 127.0.0.1 or behind a network policy",
            );
        }
        let any_host = self.config.route.iter().any(|route| route.host.is_none());
        if server.public_url.is_none() && any_host {
            self.advise(
                "server.public_url",
                "the address that browsers see is missing",
                "set `public_url = \"https://app.example.com\"`, or give every route a `host`",
            );
        } else if server.public_url.is_none() && server.trusted_proxies.0.is_empty() {
            self.warn(
                "server.public_url",
                "nobody says that browsers come over https, so http is assumed: cookies are not `Secure`",
                "set `public_url`, or name the proxies that send `X-Forwarded-Proto` in `trusted_proxies`",
            );
        }
    }

    fn session(&mut self) {
        let session = &self.config.session;
        if session.grace < session.recheck {
            self.warn(
                "session.grace",
                "`grace` is shorter than `recheck`",
                "it counts as `recheck`: while GitLab is out of reach, its last word is good for that long",
            );
        }
        let https = self.config.server.public_url.as_ref().map(|url| url.scheme() == "https");
        if session.cookie.same_site == config::SameSite::None && https == Some(false) {
            self.advise(
                "session.cookie.same_site",
                "browsers keep `same_site = \"none\"` cookies over https only",
                "use \"lax\", or an https `server.public_url`",
            );
        }
        if let (Some(domain), Some(public)) =
            (&session.cookie.domain, &self.config.server.public_url)
        {
            let host = public.host_str().unwrap_or_default();
            let covers = host == domain || host.ends_with(&format!(".{domain}"));
            if !covers {
                let message = format!("`{host}` of `server.public_url` does not lie in `{domain}`");
                self.error("session.cookie.domain", message);
            }
        }
    }

    fn keys(&mut self) -> Option<KeyRing> {
        let keys = &self.config.session.keys;
        let mut texts = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match key.read(self.env) {
                Ok(text) => texts.push(text),
                Err(error) => self.error(format!("session.keys[{index}]"), chain(&error)),
            }
        }
        if texts.is_empty() || texts.len() < keys.len() {
            return None;
        }
        match KeyRing::new(&texts) {
            Ok(ring) => Some(ring),
            Err(error) => {
                let index = error.index().unwrap_or_default();
                self.error(format!("session.keys[{index}]"), error.to_string());
                None
            },
        }
    }

    fn store(&mut self) -> Option<StoreSettings> {
        let store = match &self.config.session.store {
            StoreKind::Memory => return Some(StoreSettings::Memory),
            StoreKind::Redis(store) => store,
        };
        let ca = match store.ca.as_ref().map(std::fs::read).transpose() {
            Ok(ca) => ca,
            Err(error) => {
                self.error("session.store.ca", format!("can't be read: {error}"));
                return None;
            },
        };
        let url = match store.redis.read(self.env) {
            Ok(url) => url,
            Err(error) => {
                self.error("session.store.redis", chain(&error));
                return None;
            },
        };
        match RedisSettings::parse(&url, &store.prefix, ca) {
            Ok(settings) => Some(StoreSettings::Redis(settings)),
            Err(error) => {
                self.error("session.store.redis", error.to_string());
                None
            },
        }
    }

    fn gitlabs(&mut self) -> BTreeMap<String, Zeroizing<String>> {
        let mut secrets = BTreeMap::new();
        for (name, gitlab) in &self.config.gitlab {
            let key = format!("gitlab.{name}");
            if let Some(secret) = &gitlab.client_secret {
                match secret.read(self.env) {
                    Ok(secret) => drop(secrets.insert(name.clone(), secret)),
                    Err(error) => self.error(format!("{key}.client_secret"), chain(&error)),
                }
            }
            self.transport(&key, gitlab);
            self.ways(&key, name, gitlab);
            let scopes = needs(self.config, name).scopes(&gitlab.scopes);
            if !scopes.iter().any(|scope| STATE_SCOPES.contains(&scope.as_str())) {
                self.advise(
                    &format!("{key}.scopes"),
                    "without `read_user` GitLab does not say whether an account is blocked",
                    "add `read_user`, here and where the application is registered",
                );
            }
        }
        secrets
    }

    /// What would be in the way of calling this GitLab; the rest of its table is judged elsewhere.
    fn ways(&mut self, key: &str, name: &str, gitlab: &config::GitLab) {
        let (roots, needs) = (Roots::none(), needs(self.config, name));
        let observe = Arc::new(Unobserved);
        match Provider::new(name, gitlab, None, needs, &roots, self.env, observe) {
            Err(error @ (ProviderError::CaFile(_) | ProviderError::CaContent)) => {
                self.error(format!("{key}.ca"), chain(&error));
            },
            Err(error @ (ProviderError::Proxy | ProviderError::Tls(_))) => {
                self.error(key, chain(&error));
            },
            Ok(_) | Err(_) => {},
        }
    }

    /// Tokens over http can be read on the way; only a lab does that.
    fn transport(&mut self, key: &str, gitlab: &config::GitLab) {
        let (field, url) = match &gitlab.internal_url {
            Some(url) => ("internal_url", url),
            None => ("base_url", &gitlab.base_url),
        };
        if url.scheme() == "http" && !is_loopback(url) {
            self.warn(
                &format!("{key}.{field}"),
                "tokens and the client secret go over http, where others on the way can read them",
                "use https unless the network between labgate and GitLab is your own",
            );
        }
    }

    fn headers(&mut self) -> Option<HeaderTable> {
        match HeaderTable::new(&self.config.identity.headers) {
            Ok(table) => Some(table),
            Err(errors) => {
                for error in errors {
                    self.error(format!("identity.headers.{}", error.header), error.reason);
                }
                None
            },
        }
    }

    fn routes(&mut self, users: &mut UsersFiles) -> Option<Vec<Entry<PlannedRoute>>> {
        let routes = self.config.route.iter().enumerate();
        let entries: Vec<_> =
            routes.filter_map(|(index, route)| self.route(index, route, users)).collect();
        if entries.len() < self.config.route.len() {
            return None;
        }
        let bare = entries.iter().map(|entry| entry.with(()));
        let overlaps = RouteTable::new(bare.collect()).err().unwrap_or_default();
        for overlap in &overlaps {
            let message = format!("`route[{}]` has the same host, path and methods", overlap.first);
            self.error(format!("route[{}]", overlap.second), message);
        }
        overlaps.is_empty().then_some(entries)
    }

    fn route(
        &mut self,
        index: usize,
        route: &config::Route,
        users: &mut UsersFiles,
    ) -> Option<Entry<PlannedRoute>> {
        let key = format!("route[{index}]");
        let upstream = self.upstream(&key, route.upstream.as_deref());
        let gitlabs = self.named_gitlabs(&key, route);
        let policy = self.policy(&key, route, users);
        let host = route.host.as_ref().map_or_else(String::new, ToString::to_string);
        let planned = PlannedRoute {
            name: format!("{host}{}", route.path.as_str()),
            names_host: route.host.is_some(),
            policy: policy?,
            upstream: upstream?,
            gitlabs: gitlabs?,
            sign_in_page: route.sign_in_page,
        };
        Some(Entry {
            host: route.host.clone(),
            path: route.path.clone(),
            methods: route.methods.clone(),
            value: planned,
        })
    }

    fn upstream(&mut self, key: &str, upstream: Option<&str>) -> Option<String> {
        let key = format!("{key}.upstream");
        let upstream = upstream?;
        if let Some(table) = self.config.upstream.get(upstream) {
            return table.url.is_some().then(|| upstream.into());
        }
        if !upstream.contains("://") {
            let message = format!("there is no `[upstream.{upstream}]`");
            match nearest(upstream, &keys(&self.config.upstream)) {
                Some(known) => self.advise(&key, message, format!("did you mean `{known}`?")),
                None => self.error(key, message),
            }
            return None;
        }
        match config::parse_origin(upstream) {
            Ok(_) => Some(upstream.into()),
            Err(message) => {
                self.error(key, message);
                None
            },
        }
    }

    fn named_gitlabs(&mut self, key: &str, route: &config::Route) -> Option<Vec<String>> {
        let known = keys(&self.config.gitlab);
        let Some(names) = &route.gitlab else {
            return Some(known.into_iter().map(Into::into).collect());
        };
        let missing: Vec<_> = names
            .iter()
            .enumerate()
            .filter(|(_, name)| !self.config.gitlab.contains_key(*name))
            .map(|(index, name)| (index, name.clone(), nearest(name, &known).map(str::to_owned)))
            .collect();
        for (index, name, near) in &missing {
            let key = format!("{key}.gitlab[{index}]");
            let message = format!("there is no `[gitlab.{name}]`");
            match near {
                Some(near) => self.advise(&key, message, format!("did you mean `{near}`?")),
                None => self.error(key, message),
            }
        }
        (missing.is_empty() && !names.is_empty()).then(|| names.clone())
    }

    fn policy(
        &mut self,
        key: &str,
        route: &config::Route,
        users: &mut UsersFiles,
    ) -> Option<Policy> {
        let key = format!("{key}.allow");
        let allow = route.allow.as_ref()?;
        self.all_of_gitlab_com(&key, route, allow);
        match Policy::new(allow, users) {
            Ok(policy) => Some(policy),
            Err(errors) => {
                for error in errors {
                    match &error {
                        // The table shows them by itself: `config` has told them.
                        PolicyError::NoRules
                        | PolicyError::EmptyRule(_)
                        | PolicyError::RoleAlone(_) => {},
                        PolicyError::UsersFile { rule, .. } => {
                            self.error(format!("{key}[{rule}].users_file"), chain(&error));
                        },
                    }
                }
                None
            },
        }
    }

    /// Anybody can have an account at gitlab.com, with any address that they can receive mail at.
    fn all_of_gitlab_com(&mut self, key: &str, route: &config::Route, allow: &Allow) {
        let open = self.config.gitlab.iter().any(|(name, gitlab)| {
            route.admits(name) && gitlab.base_url.host_str() == Some("gitlab.com")
        });
        match allow {
            Allow::SignedIn if open && !route.insecure_allow_all_of_gitlab_com => self.advise(
                key,
                "everybody in the world can sign in at gitlab.com",
                "name groups or users; or say `insecure_allow_all_of_gitlab_com = true` if that is meant",
            ),
            Allow::Rules(rules) if open => {
                for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| by_domain(rule)) {
                    let domain = rule.email_domain.as_deref().unwrap_or_default();
                    self.warn(
                        &format!("{key}[{index}].email_domain"),
                        format!("an address at `{domain}` is all it takes, and gitlab.com's word for it"),
                        "add a `group` to the rule if only colleagues should pass",
                    );
                }
            },
            Allow::Public | Allow::SignedIn | Allow::Rules(_) => {},
        }
    }
}

fn keys<T>(tables: &BTreeMap<String, T>) -> Vec<&str> {
    tables.keys().map(String::as_str).collect()
}

fn by_domain(rule: &Rule) -> bool {
    rule.email_domain.is_some()
        && rule.group.is_none()
        && rule.user.is_none()
        && rule.email.is_none()
        && rule.users_file.is_none()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_own_redirect_uri_as_browsers_call_it() {
        let uris = |server: &str, hosts: &[&str]| {
            let route = |host: &&str| {
                format!(
                    "[[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = \"public\"\n{host}\n"
                )
            };
            let routes: String = hosts.iter().map(route).collect();
            let text = format!(
                "[server]\n{server}\n[gitlab.main]\nbase_url = \"https://git.example\"\nclient_id = \"x\"\n\
                 [session]\nkeys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n{routes}"
            );
            let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None);
            let plan = plan.unwrap_or_else(|| panic!("{problems:#?}"));
            plan.redirect_uris("main").into_iter().collect::<Vec<_>>().join(" ")
        };
        let (a, b, any) = ("host = \"a.example\"", "host = \"b.example\"", "");
        let wild = "host = \"*.example\"";
        let elsewhere = "host = \"c.example\"\ngitlab = [\"other\"]";
        let public = "public_url = \"https://a.example\"";
        let local = "public_url = \"http://a.example:4180\"\nprefix = \"/-/gate\"";
        let proxied = "trusted_proxies = [\"10.0.0.0/8\"]";
        for (server, hosts, expected) in [
            (public, &[any][..], "https://a.example/oauth2/callback"),
            (public, &[a, any], "https://a.example/oauth2/callback"),
            (public, &[b], "https://b.example/oauth2/callback"),
            (
                public,
                &[wild],
                "https://*.example/oauth2/callback https://a.example/oauth2/callback",
            ),
            (
                local,
                &[a, b],
                "http://a.example:4180/-/gate/callback http://b.example:4180/-/gate/callback",
            ),
            (
                proxied,
                &[a, b],
                "https://a.example/oauth2/callback https://b.example/oauth2/callback",
            ),
            ("", &[a], "http://a.example/oauth2/callback"),
        ] {
            assert_eq!(uris(server, hosts), expected, "{server} {hosts:?}");
        }
        let with_other = format!(
            "{public}\n[gitlab.other]\nbase_url = \"https://other.example\"\nclient_id = \"y\""
        );
        assert_eq!(uris(&with_other, &[a, elsewhere]), "https://a.example/oauth2/callback");
    }
}
