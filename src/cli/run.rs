//! `labgate run`: load, serve, reload on SIGHUP or when the file or one that it names changes, drain on SIGTERM or SIGINT; a second signal ends at once.

use std::{
    collections::BTreeMap,
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
    time::sleep,
};

use super::{Environment, planned};
use crate::{
    app::App,
    clock::Clock,
    config::Config,
    gate::Plan,
    telemetry::{LogGuard, start_logging},
};

/// Serves until a signal says otherwise; ends with 2 if the configuration can't be used.
pub(super) fn run(path: Option<PathBuf>, env: &Environment) -> anyhow::Result<ExitCode> {
    // Looked at before it is read: a change in between counts as one.
    let mut changes = Changes::of(path.as_deref());
    let plan = match planned(path.clone(), env) {
        Ok(plan) => plan,
        Err(code) => return Ok(code),
    };
    changes.follow(Some(&plan.config));
    let logs = start_logging(&plan.config.telemetry, std::io::stderr().is_terminal())?;
    let background = background()?;
    let source = Source { path, env, logs: &logs, background: background.handle() };
    let ended = background.block_on(serve(plan, &source, changes));
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

/// Where the configuration comes from, and what follows it beside the app.
struct Source<'a> {
    path: Option<PathBuf>,
    env: &'a Environment,
    logs: &'a LogGuard,
    background: &'a Handle,
}

async fn serve(plan: Plan, source: &Source<'_>, mut changes: Changes) -> anyhow::Result<ExitCode> {
    let lookup = |name: &str| source.env.get(name).cloned();
    let mut ends = Ends::new()?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut app = App::start(plan, Clock::system(), source.background, cores(), &lookup)?;
    tracing::info!(
        listen = %app.addr(),
        admin = %app.admin_addr(),
        ext_authz = app.ext_authz_addr().map(tracing::field::display),
        version = env!("CARGO_PKG_VERSION"),
        "labgate serves"
    );
    loop {
        tokio::select! {
            () = ends.next() => break,
            trouble = app.trouble() => anyhow::bail!(trouble),
            _ = hang_up.recv() => { changes.look(); },
            () = changes.next() => {},
        }
        source.reload(&mut app, &mut changes);
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

impl Source<'_> {
    /// A configuration that can't be used changes nothing.
    fn reload(&self, app: &mut App, changes: &mut Changes) {
        match self.try_reload(app, changes) {
            Ok(()) => tracing::info!("the configuration is reloaded"),
            Err(error) => {
                app.reload_failed();
                let reason = format!("{error:#}");
                tracing::error!(
                    reason,
                    "the configuration can't be used; the one before still serves"
                );
            },
        }
    }

    fn try_reload(&self, app: &mut App, changes: &mut Changes) -> anyhow::Result<()> {
        let Ok(plan) = planned(self.path.clone(), self.env) else {
            anyhow::bail!("its problems are on standard error");
        };
        let telemetry = plan.config.telemetry.clone();
        changes.follow(Some(&plan.config));
        app.reload(plan, self.background, &|name| self.env.get(name).cloned())?;
        Ok(self.logs.reload(&telemetry)?)
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

/// Looks now and then at the configuration and the files that it names: a mounted `ConfigMap` or Secret is swapped by a link, which watching the
/// file itself would miss.
struct Changes {
    path: Option<PathBuf>,
    seen: BTreeMap<PathBuf, SystemTime>,
}

impl Changes {
    fn of(path: Option<&Path>) -> Self {
        let mut changes = Self { path: path.map(Path::to_owned), seen: BTreeMap::new() };
        changes.follow(None);
        changes
    }

    /// From now on the files that `config` names count too, as they are now.
    fn follow(&mut self, config: Option<&Config>) {
        let named = config.map(Config::files).unwrap_or_default();
        let files = self.path.iter().cloned().chain(named);
        let known = |file: PathBuf| {
            let seen = self.seen.get(&file).copied().or_else(|| modified(&file))?;
            Some((file, seen))
        };
        self.seen = files.filter_map(known).collect();
    }

    /// Waits until a file has another date than at the last look.
    async fn next(&mut self) {
        loop {
            sleep(LOOK).await;
            if self.look() {
                return;
            }
        }
    }

    /// Whether a file has another date than at the last look; one that is away for a moment has not changed.
    fn look(&mut self) -> bool {
        let mut changed = false;
        for (file, seen) in &mut self.seen {
            if let Some(now) = modified(file).filter(|now| now != seen) {
                (*seen, changed) = (now, true);
            }
        }
        changed
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

const LOOK: Duration = Duration::from_secs(3);
