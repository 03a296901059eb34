//! A `Plan`: the configuration with its names resolved, its secrets read and its parts checked against each other; every problem is told at once.
//!
//! What one table shows by itself, such as a missing key, `config` has told already; here it is only no part of the plan.

mod api;
mod gitlab;
mod identity;
mod route;
mod server;
mod session;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::{
    build::{group_need, needs},
    guard::Guard,
    hand_over::sign_in_origin,
    hooks::HookSecret,
};
use crate::{
    authenticate::Takes,
    authorize::UsersFiles,
    clock::Clock,
    config::{AccessLevel, Allow, Config, HostPattern, Problem},
    gitlab::{GroupNeed, Provider, ProviderError, Roots, Unobserved},
    identity::{Assertions, HeaderTable},
    route::Entry,
    session::{KeyRing, Marks, Means, Random, Store, StoreLimits, StoreSettings},
    target::{Origin, Scheme, Trust},
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
    pub(super) assertions: Option<Assertions>,
    pub(super) keys: KeyRing,
    pub(super) secrets: BTreeMap<String, Zeroizing<String>>,
    pub(super) store: StoreSettings,
    pub(super) hooks: BTreeMap<String, HookSecret>,
    pub(super) routes: Vec<Entry<PlannedRoute>>,
    pub(super) users: UsersFiles,
}

/// One `[[route]]` with its names resolved.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub(super) struct PlannedRoute {
    /// Its place in the configuration, from 0.
    pub(super) index: usize,
    /// What logs and metrics call it: host and path as configured.
    pub(super) name: String,
    /// Whether it names its host, or serves any.
    pub(super) names_host: bool,
    pub(super) guard: Guard,
    /// Which tokens count.
    pub(super) takes: Takes,
    /// Name of the upstream, or its URL if it has no table; none where only front proxies ask.
    pub(super) upstream: Option<String>,
    pub(super) sign_in_page: bool,
    pub(super) hide_rules: bool,
    /// Whether access tokens are handed on.
    pub(super) access_token: bool,
}

impl Plan {
    /// Draws a plan from `config`; there is one exactly if no problem is more than a warning.
    pub fn draw(config: &Config, env: Env<'_>) -> (Option<Self>, Vec<Problem>) {
        Self::drawn(Draft { config, env, is_sketch: false, problems: Vec::new() })
    }

    /// The same to be looked at, not run by: secrets and authorities' certificates that can't be read are no problem, since these are where labgate runs.
    pub fn sketch(config: &Config, env: Env<'_>) -> (Option<Self>, Vec<Problem>) {
        Self::drawn(Draft { config, env, is_sketch: true, problems: Vec::new() })
    }

    fn drawn(mut draft: Draft<'_>) -> (Option<Self>, Vec<Problem>) {
        let plan = draft.draw();
        let sound = draft.problems.iter().all(|problem| problem.warning);
        (plan.filter(|_| sound), draft.problems)
    }

    /// The redirect URIs to register at the GitLab called `name`: one for each host on which its users may sign in; of hosts by pattern, that pattern. One
    /// alone if there is a host where everybody signs in.
    pub fn redirect_uris(&self, name: &str) -> BTreeSet<String> {
        if let Some(host) = &self.config.server.sign_in_host {
            let origin = sign_in_origin(host, self.public.as_ref(), self.scheme());
            return BTreeSet::from([redirect_uri(&origin, &self.config.server.prefix)]);
        }
        let routes = self.config.route.iter().filter(|route| route.admits(name));
        let origins = routes.flat_map(|route| self.origins(route.host.as_ref()));
        origins.map(|origin| redirect_uri(&origin, &self.config.server.prefix)).collect()
    }

    /// The headers that say who somebody is.
    pub fn identity_headers(&self) -> &HeaderTable {
        &self.headers
    }

    /// Whether a peer at `addr` may ask for a front proxy.
    pub fn trusts(&self, addr: IpAddr) -> bool {
        self.trust.contains(addr)
    }

    /// Where the GitLab called `name` sends its hooks, if it may send any.
    pub fn hook_url(&self, name: &str) -> Option<String> {
        self.hooks.get(name)?;
        let callback = self.redirect_uris(name).into_iter().find(|uri| !uri.contains("://*."))?;
        Some(format!("{}/hooks/{name}", callback.strip_suffix("/callback")?))
    }

    /// Which tokens of the GitLab called `name` count at which route: key, and what counts.
    pub fn takes(&self, name: &str) -> Vec<(String, String)> {
        let told = self.routes.iter().map(|entry| {
            let PlannedRoute { index, takes, .. } = &entry.value;
            let own = takes.kinds.iter().find(|(gitlab, _)| gitlab == name);
            let mut words: Vec<_> =
                own.into_iter().flat_map(|(_, kinds)| kinds).map(|kind| kind.as_str()).collect();
            if words.is_empty() {
                words.push("none");
            } else if takes.basic {
                words.push("(also as a password)");
            }
            (format!("route[{index}]"), words.join(" "))
        });
        told.collect()
    }

    /// The scopes that sign-ins at the GitLab called `name` ask for.
    pub fn scopes(&self, name: &str) -> Vec<String> {
        let configured = self.config.gitlab.get(name).map(|gitlab| gitlab.scopes.as_slice());
        needs(&self.config, name).scopes(configured.unwrap_or_default())
    }

    /// The rules that can only be judged with the scope `read_api`, of sign-ins at the GitLab called `name`: key and what is asked there.
    pub fn rules_that_read_api(&self, name: &str) -> Vec<String> {
        let routes = self.config.route.iter().enumerate().filter(|(_, route)| route.admits(name));
        let rules = routes.flat_map(|(route, table)| {
            let rules = table.allow.as_ref().and_then(Allow::rules).unwrap_or_default();
            let rules = rules.iter().enumerate().filter(|(_, keys)| keys.concerns(name));
            rules.map(move |(rule, keys)| (route, rule, keys))
        });
        let reasons = rules.filter_map(|(route, rule, keys)| {
            let project = keys.project.as_ref().map(|path| format!("project {}", path.as_str()));
            let group = group_need(keys).filter(GroupNeed::asks_api).map(|need| {
                let role = need.role.map_or("", AccessLevel::name);
                format!("role {role} in group {}", need.path.as_str())
            });
            let asked: Vec<_> = group.into_iter().chain(project).collect();
            (!asked.is_empty())
                .then(|| format!("route[{route}].allow[{rule}]: {}", asked.join(", ")))
        });
        reasons.collect()
    }

    /// Whether groups reached by sharing would count for users of the GitLab called `name`, if only sign-ins asked for the scope that tells of them.
    pub fn misses_sharing(&self, name: &str) -> bool {
        let may_ask =
            self.scopes(name).iter().any(|scope| matches!(scope.as_str(), "api" | "read_api"));
        !may_ask && !needs(&self.config, name).groups.is_empty()
    }

    /// The GitLab called `name`, to be asked about people; it needs no secret for that.
    ///
    /// # Errors
    /// When its table can't be used.
    pub fn provider(&self, name: &str, env: Env<'_>) -> Result<Provider, ProviderError> {
        let table = self.config.gitlab.get(name).cloned().unwrap_or_default();
        let needs = needs(&self.config, name);
        Provider::new(name, &table, None, needs, &Roots::system(), env, Arc::new(Unobserved))
    }

    /// The store that replicas share, opened beside them; none if each has its own.
    pub fn open_store(self, background: &Handle) -> Option<Store> {
        // Marks are swept by everybody who looks; not before their time.
        let marks = Marks::default();
        marks.last_for(self.config.session.recheck);
        let means = Means {
            keys: Arc::new(self.keys),
            random: Random::system(),
            marks: Arc::new(marks),
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
        let others = others.map(|host| format!("{}://{host}{port}", self.scheme().as_str()));
        public.into_iter().chain(others).collect()
    }

    /// How browsers speak to hosts of which nothing is known but their names: the public URL tells it, or a proxy in front does with each
    /// request; without either it is what arrives here.
    fn scheme(&self) -> Scheme {
        match &self.public {
            Some(public) => public.scheme,
            None if self.config.server.trusted_proxies.0.is_empty() => Scheme::Http,
            None => Scheme::Https,
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
    is_sketch: bool,
    problems: Vec<Problem>,
}

impl Draft<'_> {
    fn draw(&mut self) -> Option<Plan> {
        self.server();
        self.session();
        let secrets = self.gitlabs();
        self.apis();
        let hooks = self.hooks();
        let keys = self.keys();
        let store = self.store();
        let headers = self.headers();
        let assertions = self.assertions();
        let mut users = UsersFiles::default();
        let routes = self.routes(&mut users);
        let server = &self.config.server;
        let mut config = self.config.clone();
        config.identity.headers = Some(config.identity.table());
        Some(Plan {
            public: server.public_url.as_ref().and_then(Origin::of),
            trust: Trust::new(&server.trusted_proxies),
            headers: headers?,
            assertions,
            keys: keys?,
            secrets,
            store: store?,
            hooks,
            routes: routes?,
            users,
            config,
        })
    }

    fn error(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::error(key, message));
    }

    /// What is not here, and must be where labgate runs.
    fn missing(&mut self, key: &str, message: impl Into<String>) {
        if !self.is_sketch {
            self.error(key, message);
        }
    }

    fn advise(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::error(key, message).help(help));
    }

    fn warn(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::warning(key, message).help(help));
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
    fn a_hook_secret_that_can_be_guessed_or_read_nowhere_is_a_problem() {
        let problems = |secret: &str| {
            let text = format!(
                "server.public_url = \"https://a.example\"\ngitlab.main = {{ client_id = \"x\", hook_secret = {secret} }}\n\
                 session.keys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
                 [[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = \"public\"\n"
            );
            let env = |name: &str| (name == "SHORT").then(|| "hunter2".to_owned());
            let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &env);
            let told = |problem: Problem| format!("{}: {}", problem.key, problem.message);
            (plan.is_some(), problems.into_iter().map(told).collect::<Vec<_>>().join("; "))
        };
        assert_eq!(problems("\"sixteen bytes ok\""), (true, String::new()));
        for (secret, told) in [
            ("\"fifteen bytes !\"", "gitlab.main.hook_secret: the secret can be guessed"),
            ("{ env = \"SHORT\" }", "gitlab.main.hook_secret: the secret can be guessed"),
            ("{ env = \"GONE\" }", "gitlab.main.hook_secret: environment variable GONE is not set"),
            ("{ file = \"/gone\" }", "gitlab.main.hook_secret: secret file /gone can't be read"),
        ] {
            let (sound, problem) = problems(secret);
            assert!(!sound && problem.starts_with(told), "{secret}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn rules_that_can_hold_for_nobody_of_a_gitlab_ask_it_for_no_scope() {
        let reads = |keys: &str| {
            let text = format!(
                "server.public_url = \"https://a.example\"\n\
                 gitlab.main = {{ base_url = \"https://git.example\", client_id = \"x\" }}\n\
                 gitlab.other = {{ base_url = \"https://git.other.example\", client_id = \"y\" }}\n\
                 session.keys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
                 [[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = [{{ project = \"acme/shop\", {keys} }}]\n"
            );
            let plan = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None).0.unwrap();
            ["main", "other"].map(|name| {
                let reads = plan.scopes(name).contains(&"read_api".to_owned());
                assert_eq!(plan.rules_that_read_api(name).is_empty(), !reads, "{keys}");
                reads
            })
        };
        assert_eq!(reads("two_factor = true"), [true, true]);
        assert_eq!(reads("gitlab = \"main\""), [true, false]);
        assert_eq!(reads("ci_project = \"acme/shop\""), [false, false]);
    }

    #[test]
    fn more_projects_than_a_cookie_may_hold_are_a_warning() {
        let warnings = |count: usize| {
            let rules: Vec<_> =
                (0..count).map(|number| format!("{{ project = \"acme/p{number}\" }}")).collect();
            let text = format!(
                "server.public_url = \"https://a.example\"\n\
                 [gitlab.main]\nbase_url = \"https://git.example\"\nclient_id = \"x\"\n\
                 [session]\nkeys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
                 [[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = [{}]\n",
                rules.join(", ")
            );
            let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None);
            assert!(plan.is_some());
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(warnings(40), "");
        assert!(warnings(41).starts_with("rules name 41 projects"), "{}", warnings(41));
    }

    #[test]
    fn the_host_where_everybody_signs_in_fits_the_rest() {
        let problems = |server: &str, more: &str, host: &str| {
            let text = format!(
                "[server]\npublic_url = \"https://a.example:8443\"\nsign_in_host = \"{server}\"\n\
                 [gitlab.main]\nbase_url = \"https://git.example\"\nclient_id = \"x\"\n\
                 [session]\nkeys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n{more}\n\
                 [[route]]\nhost = \"{host}\"\nupstream = \"http://127.0.0.1:3000\"\nallow = \"public\"\n"
            );
            let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None);
            let told =
                problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message));
            (plan.is_some(), told.collect::<Vec<_>>().join("; "))
        };
        for fine in ["auth.example", "auth.example:8443", "a.example", "a.example:8443"] {
            assert_eq!(problems(fine, "", "a.example"), (true, String::new()), "{fine}");
        }
        let (sound, told) = problems("a.example:443", "", "a.example");
        assert!(!sound && told.contains("but not its port"), "{told}");
        let (sound, told) = problems("auth.review.example", "", "*.review.example");
        assert!(sound && told.contains("`*.review.example` serves this host too"), "{told}");
        let (sound, told) =
            problems("auth.example", "cookie = { domain = \"a.example\" }", "a.example");
        assert!(sound && told.contains("share their cookie"), "{told}");
    }

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
        let hub = "public_url = \"https://a.example\"\nsign_in_host = \"auth.example\"";
        assert_eq!(uris(hub, &[a, b, wild]), "https://auth.example/oauth2/callback");
        let hub = "trusted_proxies = [\"10.0.0.0/8\"]\nsign_in_host = \"auth.example:8443\"";
        assert_eq!(uris(hub, &[a]), "https://auth.example:8443/oauth2/callback");
        let hub = "public_url = \"https://a.example:8443\"\nsign_in_host = \"a.example\"";
        assert_eq!(uris(hub, &[a, b]), "https://a.example:8443/oauth2/callback");
        let hub = "sign_in_host = \"auth.example:80\"";
        assert_eq!(uris(hub, &[a]), "http://auth.example/oauth2/callback");
        let with_other = format!(
            "{public}\n[gitlab.other]\nbase_url = \"https://other.example\"\nclient_id = \"y\""
        );
        assert_eq!(uris(&with_other, &[a, elsewhere]), "https://a.example/oauth2/callback");
    }
}
