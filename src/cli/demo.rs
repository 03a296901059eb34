//! `labgate demo`: the whole product on this machine, with nothing to register: a development GitLab, a sample app, and labgate between.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use url::Url;

use super::run::{background, cores};
use crate::{
    accept,
    app::App,
    clock::Clock,
    config::{self, Config},
    demo::{Demo, gitlab},
    gate::Plan,
    session::{KeyRing, Random},
    telemetry::start_logging,
};

/// What `labgate demo` is told.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Protect an app of your own instead of the sample app, such as `http://127.0.0.1:3000`.
    #[arg(long, value_name = "URL", value_parser = config::parse_origin)]
    upstream: Option<Url>,
}

/// Runs until Ctrl-C, which ends all of it at once.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let background = background()?;
    background.block_on(serve(arguments, background.handle()))?;
    background.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: &Arguments, background: &tokio::runtime::Handle) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (listener, taken) = listen(PORT)?;
    let addr = listener.local_addr()?;
    let public = format!("http://{addr}");
    let callback = format!("{public}/oauth2/callback");
    let demo = Demo::start(vec![callback], arguments.upstream.is_none()).await?;
    let upstream = match (&arguments.upstream, &demo.app) {
        (Some(url), _) => url.to_string(),
        (None, Some(app)) => app.url(),
        (None, None) => bail!("there is no app to protect"),
    };
    let config = configuration(&demo, addr, &public, &upstream)?;
    let _logs = start_logging(&config.telemetry, io::stderr().is_terminal())?;
    let (plan, problems) = Plan::draw(&config, &|_| None);
    let plan = plan.with_context(|| format!("the demo's own configuration: {problems:?}"))?;
    let clock = Clock::system();
    let app = App::start_on(listener, plan, clock, background, cores(), &|_| None)?;
    let moved = taken.map(|taken| format!("{taken} is taken, so labgate listens on {addr}"));
    let silent = match &arguments.upstream {
        Some(url) if !answers(url).await => {
            Some(format!("nothing answers at {url} yet; start your app there"))
        },
        Some(_) | None => None,
    };
    for notice in moved.into_iter().chain(demo.notices()).chain(silent) {
        super::say(&format!("{notice}\n"));
    }
    super::print(&welcome(&public, &upstream, &demo))?;
    tokio::select! {
        _ = interrupt.recv() => {},
        _ = terminate.recv() => {},
    }
    drop(app);
    Ok(())
}

/// Whether something listens at `url`.
async fn answers(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or_default();
    let connected = timeout(Duration::from_secs(1), TcpStream::connect((host, port))).await;
    matches!(connected, Ok(Ok(_)))
}

/// A socket on the preferred port, or on a free one and which was taken; held from now on, so that no other program comes between.
fn listen(preferred: u16) -> anyhow::Result<(TcpListener, Option<SocketAddr>)> {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match accept::bind(address(preferred)) {
        Ok(listener) => Ok((listener, None)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let free = accept::bind(address(0)).context("no port is free on 127.0.0.1")?;
            Ok((free, Some(address(preferred))))
        },
        Err(error) => Err(error.into()),
    }
}

/// What a user would write, but for the keys, which end with the demo.
fn configuration(
    demo: &Demo,
    listen: SocketAddr,
    public: &str,
    upstream: &str,
) -> anyhow::Result<Config> {
    let own = demo.app.is_none();
    let key = KeyRing::generate(&Random::system())?;
    let (gitlab, id, secret) =
        (demo.gitlab.external_url(), gitlab::CLIENT_ID, gitlab::CLIENT_SECRET);
    let mut text = format!(
        r#"
        [server]
        listen = "{listen}"
        admin = "127.0.0.1:0"
        public_url = "{public}"
        limits = {{ connections = 256 }}
        [gitlab.main]
        base_url = "{gitlab}"
        client_id = "{id}"
        client_secret = "{secret}"
        label = "the development GitLab"
        [session]
        keys = ["{}"]
        recheck = "30s"
        [telemetry]
        log = "warn"
        [[route]]
        upstream = "{upstream}"
        allow = "{}"
        "#,
        key.as_str(),
        if own { "signed-in" } else { "public" },
    );
    if !own {
        for (path, allow) in protected() {
            write!(
                text,
                "\n[[route]]\npath = \"{path}\"\nupstream = \"{upstream}\"\nallow = {allow}\n"
            )?;
        }
    }
    Ok(toml::from_str(&text)?)
}

/// What the terminal says: one URL to open, and whom to be.
fn welcome(public: &str, upstream: &str, demo: &Demo) -> String {
    let own = demo.app.is_none();
    let guarded = if own { format!("your app at {upstream}") } else { "a sample app".to_owned() };
    let people = gitlab::people();
    let longest = people.iter().map(|person| person.roles.len()).max().unwrap_or_default();
    let lines = people.iter().map(|gitlab::Person { username, roles, may_see, .. }| {
        // Before an app of one's own, whoever can sign in sees all of it.
        let sees = if own && may_see.starts_with('/') { "everything" } else { may_see };
        format!("  {username:<6} {roles:<longest$}  sees {sees}\n")
    });
    let (people, gitlab) = (lines.collect::<String>(), demo.gitlab.external_url());
    format!(
        "\nlabgate now guards {guarded}, with a GitLab just for this demo.\n\n\
         Open {public}/\n\n\
         Sign in as one of these; nobody has a password:\n\n\
         {people}\n\
         The development GitLab is at {gitlab}\n\
         Ctrl-C ends all of it.\n"
    )
}

/// What of the sample app is protected, and how.
fn protected() -> [(&'static str, String); 6] {
    let (team, maintained) = (gitlab::TEAM, gitlab::MAINTAINERS_OF);
    let signed_in = || "\"signed-in\"".to_owned();
    [
        ("/private", signed_in()),
        ("/live", signed_in()),
        ("/events", signed_in()),
        ("/ws", signed_in()),
        ("/team", format!("[{{ group = \"{team}\" }}]")),
        ("/maintainers", format!("[{{ group = \"{maintained}\", role = \"maintainer\" }}]")),
    ]
}

/// The port that labgate prefers in the demo.
const PORT: u16 = 4180;
