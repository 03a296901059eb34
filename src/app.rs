//! The running process: its listeners, the gate that answers now, the swap to another one on reload, and the drain at the end.
//!
//! ```text
//! worker threads   accept ─▶ Front ─▶ the current Gate           one runtime a core; as many again for Envoy's listener, if it is on
//! one for each API accept ─▶ ApiFront ─▶ the current Gate        one runtime
//! background       GitLab calls, discovery, watched files, admin  one runtime
//! ```
//!
//! What the configuration says is the gate's; what a process does about signals is `cli`'s.

mod ext_authz;

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use self::ext_authz::EnvoyFront;
use crate::{
    accept::{self, Counts, Handler, Server},
    body::{Request, Response},
    clock::Clock,
    config::{self, Config},
    forward::Tunnels,
    gate::{BuildError, Env, Gate, Plan, Shared},
    target::Peer,
    telemetry::{Admin, Health, Metrics},
};

/// A running labgate.
#[derive(Debug)]
pub struct App {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    front: Arc<Front>,
    shared: Arc<Shared>,
    server: Arc<Server>,
    /// Where Envoy asks, if it does.
    ext_authz: Option<(SocketAddr, Arc<Server>)>,
    apis: BTreeMap<String, ApiListener>,
    health: Arc<Health>,
    config: Config,
    tasks: JoinSet<()>,
    watches: JoinSet<()>,
    trouble: watch::Sender<Option<String>>,
}

/// Why labgate does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A listener or a worker thread can't be had; the message names which.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is no gate.
    #[error(transparent)]
    Gate(#[from] BuildError),
}

impl App {
    /// Starts to serve `plan` on `cores` worker threads; everything else runs on `background`.
    ///
    /// # Errors
    /// When an address is taken, or the gate can't be built.
    pub fn start(
        plan: Plan,
        clock: Clock,
        background: &Handle,
        cores: usize,
        env: Env<'_>,
    ) -> Result<Self, AppError> {
        let listener = accept::bind(plan.config.server.listen)?;
        Self::start_on(listener, plan, clock, background, cores, env)
    }

    /// The same on a socket that listens already, whatever `server.listen` says.
    ///
    /// # Errors
    /// When the admin address is taken, or the gate can't be built.
    pub fn start_on(
        listener: TcpListener,
        plan: Plan,
        clock: Clock,
        background: &Handle,
        cores: usize,
        env: Env<'_>,
    ) -> Result<Self, AppError> {
        let addr = listener.local_addr()?;
        let config = plan.config.clone();
        let limits = &config.server.limits;
        let shared = Shared::new(limits, clock, background.clone(), cores)?;
        let gate = Arc::new(Gate::build(plan, &shared, env)?);
        let admin_listener = accept::bind(config.server.admin)?;
        let envoy_listener = config.server.ext_authz.map(accept::bind).transpose()?;
        let front = Arc::new(Front { gate: ArcSwap::new(gate.clone()) });
        let settings = accept::Settings::from(&config.server);
        let server = Arc::new(Server::start(&front, &settings, cores)?);
        let health = Arc::new(Health::default());
        let mut listeners = vec![(server.clone(), listener)];
        let mut ext_authz = None;
        if let Some(listener) = envoy_listener {
            let patience = config.server.timeouts.header;
            let envoy = EnvoyFront { front: front.clone(), health: health.clone(), patience };
            let envoy = Arc::new(Server::start(&Arc::new(envoy), &settings, cores)?);
            ext_authz = Some((listener.local_addr()?, envoy.clone()));
            listeners.push((envoy, listener));
        }
        let admin = Arc::new(AdminFront {
            admin: Admin { health: health.clone(), metrics: shared.metrics.clone() },
            tunnels: shared.tunnels.clone(),
            connections: listeners.iter().map(|(server, _)| server.counts().clone()).collect(),
            told: Default::default(),
        });
        let admin = Arc::new(Server::start(&admin, &admin_settings(), 1)?);
        let admin_addr = admin_listener.local_addr()?;
        listeners.push((admin, admin_listener));
        let mut apis = apis(&config, &front)?;
        for api in apis.values_mut() {
            listeners.extend(api.listener.take().map(|listener| (api.server.clone(), listener)));
        }
        let mut app = Self {
            addr,
            admin_addr,
            front,
            shared,
            server,
            ext_authz,
            apis,
            health,
            config,
            tasks: JoinSet::new(),
            watches: JoinSet::new(),
            trouble: watch::Sender::new(None),
        };
        app.accept(background, listeners);
        app.watch(background, &gate);
        app.review_tunnels(background);
        app.shared.metrics.reloaded(app.shared.clock.now());
        app.get_ready(background);
        Ok(app)
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Where Envoy asks, if it does.
    pub fn ext_authz_addr(&self) -> Option<SocketAddr> {
        self.ext_authz.as_ref().map(|(addr, _)| *addr)
    }

    /// Where applications reach the API of the GitLab called `gitlab`, if they may.
    pub fn api_addr(&self, gitlab: &str) -> Option<SocketAddr> {
        self.apis.get(gitlab).map(|api| api.addr)
    }

    /// What operators see.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Waits for a reason to end that has nothing to do with signals; forever, if all goes well.
    pub async fn trouble(&self) -> String {
        let mut trouble = self.trouble.subscribe();
        match trouble.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Serves `plan` from now on; requests under way finish as they began. Addresses and limits stay as they were at the start.
    ///
    /// # Errors
    /// When its gate can't be built; then nothing has changed.
    pub fn reload(
        &mut self,
        plan: Plan,
        background: &Handle,
        env: Env<'_>,
    ) -> Result<(), BuildError> {
        let addresses = |server: &config::Server| (server.listen, server.admin, server.ext_authz);
        if addresses(&plan.config.server) != addresses(&self.config.server) {
            tracing::warn!(
                "`server.listen`, `server.admin` and `server.ext_authz` change with a restart only"
            );
        }
        if api_listens(&plan.config) != api_listens(&self.config) {
            tracing::warn!("`gitlab.NAME.api.listen` changes with a restart only");
        }
        let gate = Arc::new(Gate::build(plan, &self.shared, env)?);
        self.front.gate.store(gate.clone());
        self.watch(background, &gate);
        self.shared.metrics.reloaded(self.shared.clock.now());
        Ok(())
    }

    /// Notes that a reload could not even be tried.
    pub fn reload_failed(&self) {
        self.shared.metrics.reload_failed();
    }

    /// Ends gracefully: not ready, then not listening, then requests and tunnels finish within `server.timeouts.drain`. Returns how many did not.
    pub async fn drain(self) -> usize {
        let timeouts = &self.config.server.timeouts;
        self.health.drain();
        sleep(timeouts.drain_delay).await;
        let envoy = async {
            match &self.ext_authz {
                Some((_, server)) => server.drain(timeouts.drain).await,
                None => 0,
            }
        };
        let (left, of_envoy) = tokio::join!(self.server.drain(timeouts.drain), envoy);
        let left = left + of_envoy;
        self.shared.tunnels.end();
        // What was renewed for the last requests must not go with this process.
        self.shared.settle(SETTLE).await;
        left
    }

    fn accept(&mut self, background: &Handle, listeners: Vec<(Arc<Server>, TcpListener)>) {
        for (server, listener) in listeners {
            let serve = async move {
                if let Err(error) = server.accept(listener).await {
                    tracing::error!(%error, "no connections can be accepted");
                }
            };
            self.tasks.spawn_on(serve, background);
        }
    }

    /// Ready as soon as it is known what other replicas know, or that this can't be known.
    fn get_ready(&mut self, background: &Handle) {
        if !self.shared.store.is_shared() {
            self.health.serve();
            return;
        }
        let (store, health) = (self.shared.store.clone(), self.health.clone());
        let ready = async move {
            store.tried().await;
            health.serve();
        };
        self.tasks.spawn_on(ready, background);
    }

    /// Lets the gate that is current judge open tunnels, one round after the other. Those of sessions have rounds of their own: GitLab is waited for about
    /// tokens, and nobody's sign-out may wait for that.
    fn review_tunnels(&mut self, background: &Handle) {
        let front = self.front.clone();
        let sessions = async move {
            loop {
                sleep(REVIEW).await;
                let gate = front.gate.load_full();
                gate.review_sessions().await;
            }
        };
        let front = self.front.clone();
        let tokens = async move {
            loop {
                sleep(REVIEW).await;
                let gate = front.gate.load_full();
                gate.review_tokens().await;
            }
        };
        self.tasks.spawn_on(sessions, background);
        self.tasks.spawn_on(tokens, background);
    }

    /// Watches what a gate depends on: each GitLab's discovery, and files that change by themselves.
    fn watch(&mut self, background: &Handle, gate: &Arc<Gate>) {
        self.watches = JoinSet::new();
        for provider in gate.providers() {
            let provider = provider.clone();
            self.watches.spawn_on(async move { provider.watch().await }, background);
        }
        let (gate, health, trouble) = (gate.clone(), self.health.clone(), self.trouble.clone());
        let store = self.shared.store.clone();
        let watch = async move {
            let mut tick = interval(WATCH);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                note(&gate, &health);
                match store.trouble() {
                    Some(trouble) => health.note("store", &trouble),
                    None => health.clear("store"),
                }
                gate.settle_hooks();
                if let Some(reason) = gate.playground() {
                    trouble.send_replace(Some(reason));
                    return;
                }
                let files = gate.clone();
                let read = tokio::task::spawn_blocking(move || files.refresh_files());
                // A file system that hangs must not hold up the rest.
                drop(timeout(WATCH * 10, read).await);
            }
        };
        self.watches.spawn_on(watch, background);
    }
}

/// `/readyz` stays green while a GitLab is out of reach, but says so.
fn note(gate: &Gate, health: &Health) {
    for provider in gate.providers() {
        let part = format!("gitlab.{}", provider.name());
        match provider.is_down() {
            true => health.note(&part, "out of reach; sessions go on until `session.grace`"),
            false => health.clear(&part),
        }
    }
}

/// Gives every request to the gate that is current when it comes.
#[derive(Debug)]
struct Front {
    gate: ArcSwap<Gate>,
}

impl Handler for Front {
    async fn handle(&self, request: &mut Request, addr: SocketAddr, core: usize) -> Response {
        let gate = self.gate.load_full();
        gate.handle(request, Peer { addr, core }).await
    }
}

/// The admin listener, which reads the gauges of other rooms when it is asked.
#[derive(Debug)]
struct AdminFront {
    admin: Admin,
    tunnels: Arc<Tunnels>,
    connections: Vec<Arc<Counts>>,
    /// What of these counts the metrics know already.
    told: [AtomicU64; 2],
}

impl Handler for AdminFront {
    async fn handle(&self, request: &mut Request, _: SocketAddr, _: usize) -> Response {
        let metrics = &self.admin.metrics;
        let open = self.connections.iter().map(|counts| counts.open.load(Ordering::Relaxed));
        metrics.open(open.sum(), self.tunnels.open());
        let sum = |count: fn(&Counts) -> &AtomicU64| {
            self.connections.iter().map(|counts| count(counts).load(Ordering::Relaxed)).sum::<u64>()
        };
        let reached = [
            ("connections", sum(|counts| &counts.turned_away)),
            ("headers", sum(|counts| &counts.large_heads)),
        ];
        for ((limit, count), told) in reached.into_iter().zip(&self.told) {
            let told = told.swap(count, Ordering::Relaxed);
            metrics.limit_reached_often(limit, count.saturating_sub(told));
        }
        self.admin.handle(request)
    }
}

/// One GitLab's API for applications.
#[derive(Debug)]
struct ApiListener {
    addr: SocketAddr,
    server: Arc<Server>,
    /// Until it accepts.
    listener: Option<TcpListener>,
}

/// Gives every call of an application to the gate that is current when it comes.
#[derive(Debug)]
struct ApiFront {
    front: Arc<Front>,
    gitlab: String,
}

impl Handler for ApiFront {
    async fn handle(&self, request: &mut Request, addr: SocketAddr, core: usize) -> Response {
        let gate = self.front.gate.load_full();
        gate.relay(&self.gitlab, request, Peer { addr, core }).await
    }
}

/// Listeners of the APIs that `config` names.
fn apis(config: &Config, front: &Arc<Front>) -> io::Result<BTreeMap<String, ApiListener>> {
    let mut settings = accept::Settings::from(&config.server);
    settings.connections = settings.connections.min(API_CONNECTIONS);
    let mut listeners = BTreeMap::new();
    for (name, listen) in api_listens(config) {
        let listener = accept::bind(listen)?;
        let front = Arc::new(ApiFront { front: front.clone(), gitlab: name.clone() });
        let server = Arc::new(Server::start(&front, &settings, 1)?);
        let addr = listener.local_addr()?;
        listeners.insert(name, ApiListener { addr, server, listener: Some(listener) });
    }
    Ok(listeners)
}

fn api_listens(config: &Config) -> BTreeMap<String, SocketAddr> {
    let gitlabs = config.gitlab.iter();
    gitlabs.filter_map(|(name, gitlab)| Some((name.clone(), gitlab.api.as_ref()?.listen))).collect()
}

/// Connections of applications to one API at once.
const API_CONNECTIONS: usize = 256;

fn admin_settings() -> accept::Settings {
    accept::Settings {
        connections: 64,
        header_bytes: 16 * 1024,
        headers: 64,
        http2_streams: 16,
        header: Duration::from_secs(5),
        idle: Duration::from_secs(75),
    }
}

/// How long a process that ends waits for what is under way to GitLab and the store.
const SETTLE: Duration = Duration::from_secs(10);
/// How soon open tunnels are judged again.
const REVIEW: Duration = Duration::from_millis(400);

/// How often watched things are looked at.
const WATCH: Duration = Duration::from_secs(3);
