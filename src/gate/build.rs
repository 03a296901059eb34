//! From a plan to a gate, around what all gates of a process share.

use std::{collections::BTreeMap, fmt, io, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::Instant};
use url::Url;

use super::{
    Gate, Route,
    pace::Pace,
    plan::{Env, Plan},
    relay::Relay,
    renewals::Renewals,
    tell::Asserting,
};
use crate::{
    authenticate::{Authenticator, Flights, Refresher, SignIns, TokenCache},
    clock::Clock,
    config::{self, ProjectPath},
    forward::{self, Reserved, Tunnels, Upstream},
    gitlab::{GroupNeed, Needs, Observe, Provider, ProviderError, Roots},
    route::RouteTable,
    session::{
        Activity, Attempts, CookieError, Deadlines, Marks, Means, Random, SessionCodec,
        SessionCookie, Store, StoreLimits, Tickets,
    },
    telemetry::{Metrics, RequestIds},
};

/// What all gates of one process share, so that a reload loses nothing of it.
pub struct Shared {
    /// Tells the time.
    pub clock: Clock,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// Upgraded connections, whoever opened them.
    pub tunnels: Arc<Tunnels>,
    pub(super) request_ids: RequestIds,
    background: Handle,
    cores: usize,
    pub(super) random: Random,
    /// What outruns the cookies.
    pub store: Arc<Store>,
    activity: Arc<Activity>,
    /// What hooks have said of whom.
    pub(super) marks: Arc<Marks>,
    /// How many hooks come, and how many with a wrong token.
    pub(super) hooks: Pace,
    /// Browsers that were sent to fetch their cookie.
    pub(super) renewals: Renewals,
    flights: Arc<Flights>,
    sign_ins: Arc<SignIns>,
    tokens: Arc<TokenCache>,
    roots: Roots,
    tls: Arc<rustls::ClientConfig>,
}

/// Why there is no gate although the plan is sound.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A GitLab can't be used.
    #[error("gitlab.{0}")]
    GitLab(String, #[source] ProviderError),
    /// An upstream can't be used.
    #[error("upstream {0}")]
    Upstream(String, #[source] io::Error),
    /// The session cookie can't be as configured.
    #[error("session.cookie")]
    Cookie(#[from] CookieError),
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// The system gives no random numbers.
    #[error(transparent)]
    Random(#[from] crate::session::NoRandom),
}

impl Shared {
    /// What a process with this configuration shares among its gates; calls to GitLab run on `background`.
    ///
    /// # Errors
    /// When TLS or randomness can't be had.
    pub fn new(
        limits: &config::Limits,
        clock: Clock,
        background: Handle,
        cores: usize,
    ) -> Result<Arc<Self>, BuildError> {
        let random = Random::system();
        let seed = [random.bytes()?, random.bytes()?].map(u64::from_le_bytes);
        let revision = option_env!("LABGATE_REVISION").unwrap_or_default();
        Ok(Arc::new(Self {
            clock,
            metrics: Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), revision)),
            tunnels: Tunnels::new(limits.tunnels),
            request_ids: RequestIds::new(seed),
            background,
            cores,
            tokens: TokenCache::new(&random)?,
            random,
            store: Arc::new(Store::memory(StoreLimits::default())),
            activity: Arc::default(),
            marks: Arc::default(),
            hooks: Pace::default(),
            renewals: Renewals::default(),
            flights: Arc::default(),
            sign_ins: Arc::default(),
            roots: Roots::system(),
            tls: forward::tls()?,
        }))
    }
}

impl Shared {
    /// Waits until no session is under way to GitLab and the store has all of them, for `patience` at most.
    pub async fn settle(&self, patience: Duration) {
        let began = Instant::now();
        self.flights.landed(patience).await;
        self.store.settle(patience.saturating_sub(began.elapsed())).await;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shared").field("cores", &self.cores).finish_non_exhaustive()
    }
}

impl Gate {
    /// The gate of `plan`.
    ///
    /// # Errors
    /// When a certificate file, an address or the session cookie can't be used after all.
    ///
    /// # Panics
    /// Never: the plan has resolved all names.
    pub fn build(plan: Plan, shared: &Arc<Shared>, env: Env<'_>) -> Result<Self, BuildError> {
        let providers = providers(&plan, shared, env)?;
        let upstreams = upstreams(&plan, shared)?;
        let store_settings = plan.store.clone();
        let Plan { config, public, trust, headers, assertions, keys, hooks, routes, users, .. } =
            plan;
        let keys = Arc::new(keys);
        let means = Means {
            keys: keys.clone(),
            random: shared.random.clone(),
            marks: shared.marks.clone(),
            background: shared.background.clone(),
            metrics: shared.metrics.clone(),
            clock: shared.clock.clone(),
        };
        let cookie = SessionCookie::new(&config.session.cookie)?;
        let deadlines = Deadlines::from(&config.session);
        shared.marks.last_for(deadlines.recheck);
        let (store, random) = (shared.store.clone(), shared.random.clone());
        let authenticator = Authenticator {
            providers,
            codec: SessionCodec::new(cookie.clone(), keys.clone(), deadlines, random.clone()),
            attempts: Attempts::new(
                &cookie,
                attempts_path(&config.server),
                keys.clone(),
                random.clone(),
            ),
            tickets: Tickets::new(keys, random.clone()),
            sign_ins: shared.sign_ins.clone(),
            activity: shared.activity.clone(),
            refresher: Arc::new(Refresher {
                flights: shared.flights.clone(),
                background: shared.background.clone(),
                store: store.clone(),
                marks: shared.marks.clone(),
                deadlines,
                metrics: shared.metrics.clone(),
                clock: shared.clock.clone(),
            }),
            store,
            deadlines,
            recheck_timeout: config.session.recheck_timeout,
            tokens: shared.tokens.clone(),
            random,
            metrics: shared.metrics.clone(),
            background: shared.background.clone(),
        };
        let entries = routes.into_iter().map(|entry| {
            let upstream = entry.value.upstream.as_ref();
            let metrics = shared.metrics.route(&entry.value.name);
            let upstream_metrics = upstream.map(|name| shared.metrics.upstream(name));
            let upstream = upstream.map(|name| upstreams.get(name).expect("the plan resolved it"));
            let upstream = upstream.cloned();
            entry.with(Route::new(&entry.value, upstream, metrics, upstream_metrics))
        });
        let routes = RouteTable::new(entries.collect()).expect("the plan found no overlap");
        let apis = config.gitlab.iter().filter_map(|(name, gitlab)| {
            let api = gitlab.api.as_ref()?;
            Some((name.clone(), Relay::new(api.methods())))
        });
        let apis = apis.collect();
        let development = config
            .gitlab
            .into_iter()
            .filter_map(|(name, gitlab)| gitlab.insecure_allow_development_gitlab.then_some(name));
        // Last, since nothing may change if the gate can't be built.
        shared.store.attach(&store_settings, means);
        Ok(Self {
            shared: shared.clone(),
            routes,
            authenticator,
            headers,
            asserting: assertions.map(Asserting::new),
            cookie,
            public,
            trust,
            sign_in_host: config.server.sign_in_host,
            prefix: config.server.prefix,
            hooks,
            own: shared.metrics.route("labgate"),
            none: shared.metrics.route("none"),
            users,
            apis,
            relayed: shared.metrics.route("api"),
            development: development.collect(),
            exposed: !config.server.listen.ip().is_loopback(),
        })
    }
}

/// Where cookies of sign-ins live. With hosts that are handed sessions, such as review apps, a neighbour must not be able to set one: that takes the
/// prefix `__Host-`, and that the whole host.
fn attempts_path(server: &config::Server) -> &str {
    match server.sign_in_host {
        Some(_) => "/",
        None => &server.prefix,
    }
}

fn providers(
    plan: &Plan,
    shared: &Arc<Shared>,
    env: Env<'_>,
) -> Result<BTreeMap<String, Arc<Provider>>, BuildError> {
    let mut providers = BTreeMap::new();
    for (name, mut gitlab) in plan.config.gitlab.clone() {
        if gitlab.label.is_none() && plan.config.gitlab.len() > 1 {
            gitlab.label = gitlab.base_url.host_str().map(Into::into);
        }
        let secret = plan.secrets.get(&name).cloned();
        let observe = Arc::new(Observed(shared.metrics.clone()));
        let needs = needs(&plan.config, &name);
        let provider = Provider::new(&name, &gitlab, secret, needs, &shared.roots, env, observe)
            .map_err(|error| BuildError::GitLab(name.clone(), error))?;
        providers.insert(name, Arc::new(provider));
    }
    Ok(providers)
}

/// What the rules of routes that admit the GitLab called `name` need to know of its users.
pub(super) fn needs(config: &config::Config, name: &str) -> Needs {
    let routes = config.route.iter().filter(|route| route.admits(name));
    let rules = routes.filter_map(|route| match &route.allow {
        Some(config::Allow::Rules(rules)) => Some(rules),
        Some(config::Allow::Public | config::Allow::SignedIn) | None => None,
    });
    let mut needs = Needs { hand_on: config.identity.groups.clone(), ..Needs::default() };
    for rule in rules.flatten().filter(|rule| rule.concerns(name)) {
        needs.groups.extend(group_need(rule));
        let known = |path: &ProjectPath| needs.projects.iter().any(|other| other.is(path.as_str()));
        needs.projects.extend(rule.project.clone().filter(|path| !known(path)));
        needs.flags |= rule.two_factor.is_some() || rule.external.is_some();
    }
    needs
}

/// What `rule` needs to know of a group.
pub(super) fn group_need(rule: &config::Rule) -> Option<GroupNeed> {
    Some(GroupNeed { path: rule.group.clone()?, role: rule.role })
}

fn upstreams(
    plan: &Plan,
    shared: &Arc<Shared>,
) -> Result<BTreeMap<String, Arc<Upstream>>, BuildError> {
    let headers = plan.headers.clone();
    let reserved: Reserved = Arc::new(move |name| headers.claims(name));
    let mut upstreams = BTreeMap::new();
    for name in plan.routes.iter().filter_map(|planned| planned.value.upstream.as_ref()) {
        if upstreams.contains_key(name) {
            continue;
        }
        let table = plan.config.upstream.get(name).cloned().unwrap_or_default();
        let url = table.url.or_else(|| Url::parse(name).ok()).expect("the plan resolved it");
        let upstream = Upstream::new(forward::Settings {
            name,
            url: &url,
            connect_timeout: table.connect_timeout,
            response_timeout: table.response_timeout,
            cores: shared.cores,
            tls: &shared.tls,
            reserved: reserved.clone(),
        })
        .map_err(|error| BuildError::Upstream(name.clone(), error))?;
        upstreams.insert(name.clone(), Arc::new(upstream));
    }
    Ok(upstreams)
}

/// Requests to GitLab, as metrics count them.
struct Observed(Arc<Metrics>);

impl Observe for Observed {
    fn request(&self, gitlab: &str, endpoint: &'static str, status: &str, took: Duration) {
        self.0.gitlab_request(gitlab, endpoint, status, took);
    }
}
