//! `labgate demo`: the whole product on this machine, with nothing to register: a development GitLab, a sample app, and labgate between.

use std::{
    fmt::Write,
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use super::run::{background, cores};
use crate::{
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
    let (listen, taken) = port(PORT)?;
    let public = format!("http://{listen}");
    let callback = format!("{public}/oauth2/callback");
    let demo = Demo::start(vec![callback], arguments.upstream.is_none()).await?;
    let upstream = match (&arguments.upstream, &demo.app) {
        (Some(url), _) => url.to_string(),
        (None, Some(app)) => app.url(),
        (None, None) => bail!("there is no app to protect"),
    };
    let config = configuration(&demo, listen, &public, &upstream, arguments.upstream.is_some())?;
    let _logs = start_logging(&config.telemetry, std::io::stderr().is_terminal())?;
    let (plan, problems) = Plan::draw(&config, &|_| None);
    let plan = plan.with_context(|| format!("the demo's own configuration: {problems:?}"))?;
    let app = App::start(plan, Clock::system(), background, cores(), &|_| None)?;
    let mut notices = demo.notices();
    notices.extend(taken.map(|taken| format!("{taken} is taken, so labgate listens on {listen}")));
    for notice in notices {
        super::say(&format!("{notice}\n"));
    }
    super::print(&welcome(&public, &demo))?;
    tokio::select! {
        _ = interrupt.recv() => {},
        _ = terminate.recv() => {},
    }
    drop(app);
    Ok(())
}

/// The preferred address, or a free one and which was taken.
fn port(preferred: u16) -> anyhow::Result<(SocketAddr, Option<SocketAddr>)> {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(address(preferred)).is_ok() {
        return Ok((address(preferred), None));
    }
    let free = TcpListener::bind(address(0)).context("no port is free on 127.0.0.1")?;
    Ok((free.local_addr()?, Some(address(preferred))))
}

/// What a user would write, but for the keys, which end with the demo.
fn configuration(
    demo: &Demo,
    listen: SocketAddr,
    public: &str,
    upstream: &str,
    own: bool,
) -> anyhow::Result<Config> {
    let key = KeyRing::generate(&Random::system())?;
    let (gitlab, id, secret) =
        (demo.gitlab.external_url(), gitlab::CLIENT_ID, gitlab::CLIENT_SECRET);
    let mut text = format!(
        r#"
        [server]
        listen = "{listen}"
        admin = "127.0.0.1:0"
        public_url = "{public}"
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

fn welcome(public: &str, demo: &Demo) -> String {
    let mut text = format!(
        "\nlabgate stands before {}.\n\nOpen {public}/\n\nSign in as one of these, no password:\n\n",
        if demo.app.is_some() { "a sample app" } else { "your app" },
    );
    for person in gitlab::people() {
        text.push_str(&["  ", person.username, "\t", person.may_see, "\n"].concat());
    }
    let gitlab = demo.gitlab.external_url();
    text + &format!("\nThe development GitLab is at {gitlab}. Ctrl-C ends all of it.\n")
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
