//! `labgate run`: load, serve, reload on SIGHUP or when the file changes, drain on SIGTERM or SIGINT; a second signal ends at once.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::available_parallelism,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    time::interval,
};

use super::{Environment, planned};
use crate::{app::App, clock::Clock, gate::Plan, telemetry::start_logging};

/// Serves until a signal says otherwise; ends with 2 if the configuration can't be used.
pub(super) fn run(path: Option<PathBuf>, env: &Environment) -> anyhow::Result<ExitCode> {
    let plan = match planned(path.clone(), env) {
        Ok(plan) => plan,
        Err(code) => return Ok(code),
    };
    let _logs = start_logging(&plan.config.telemetry, std::io::stderr().is_terminal())?;
    let background = background()?;
    let ended = background.block_on(serve(plan, path, env, background.handle()));
    // Whatever still runs there has had its time.
    background.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// The runtime for everything that is no request: calls to GitLab, watches, signals.
pub(super) fn background() -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("labgate-background").enable_all();
    builder.build().context("no thread for the background can be had")
}

/// How many worker threads serve requests: one for each core that this process may use.
pub(super) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

async fn serve(
    plan: Plan,
    path: Option<PathBuf>,
    env: &Environment,
    background: &Handle,
) -> anyhow::Result<ExitCode> {
    let lookup = |name: &str| env.get(name).cloned();
    let mut ends = Ends::new()?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut app = App::start(plan, Clock::system(), background, cores(), &lookup)?;
    tracing::info!(
        listen = %app.addr(),
        admin = %app.admin_addr(),
        version = env!("CARGO_PKG_VERSION"),
        "labgate serves"
    );
    let mut changes = Changes::of(path.as_deref());
    loop {
        let reload = tokio::select! {
            () = ends.next() => break,
            trouble = app.trouble() => anyhow::bail!(trouble),
            _ = hang_up.recv() => true,
            renewed = changes.next() => renewed,
        };
        if reload {
            reload_now(&mut app, path.clone(), env, background);
        }
    }
    tracing::info!("draining; another signal ends at once");
    tokio::select! {
        left = app.drain() => match left {
            0 => tracing::info!("all requests are finished"),
            left => tracing::warn!(connections = left, "the time to drain is over"),
        },
        () = ends.next() => tracing::warn!("ended at once, as asked for"),
    }
    Ok(ExitCode::SUCCESS)
}

/// A configuration that can't be used changes nothing.
fn reload_now(app: &mut App, path: Option<PathBuf>, env: &Environment, background: &Handle) {
    let lookup = |name: &str| env.get(name).cloned();
    let reloaded = match planned(path, env) {
        Ok(plan) => app.reload(plan, background, &lookup).map_err(|error| format!("{error:#}")),
        Err(_) => Err("its problems are on standard error".into()),
    };
    match reloaded {
        Ok(()) => tracing::info!("the configuration is reloaded"),
        Err(reason) => {
            app.reload_failed();
            tracing::error!(reason, "the configuration can't be used; the one before still serves");
        },
    }
}

/// Signals that ask for the end.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {},
            _ = self.interrupt.recv() => {},
        }
    }
}

/// Looks at the file now and then: a mounted `ConfigMap` is swapped by a link, which watching the file itself would miss.
struct Changes {
    path: Option<PathBuf>,
    tick: tokio::time::Interval,
    seen: Option<SystemTime>,
}

impl Changes {
    fn of(path: Option<&Path>) -> Self {
        let path = path.map(Path::to_owned);
        let seen = path.as_deref().and_then(modified);
        Self { path, tick: interval(LOOK), seen }
    }

    /// Whether the file has another date than at the last look.
    async fn next(&mut self) -> bool {
        self.tick.tick().await;
        let now = self.path.as_deref().and_then(modified);
        let changed = now.is_some() && now != self.seen;
        self.seen = now.or(self.seen);
        changed
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

const LOOK: Duration = Duration::from_secs(5);
