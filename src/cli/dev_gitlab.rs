//! `labgate dev-gitlab`: the development GitLab alone, for compose files and other people's tests.

use std::{net::SocketAddr, process::ExitCode};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::run::background;
use crate::demo::gitlab::{self, Application, DevGitlab};

/// What `labgate dev-gitlab` is told.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4181")]
    listen: SocketAddr,
    /// Listen although others can reach the address: anybody there can be anybody.
    #[arg(long)]
    force_public: bool,
    /// What browsers call it; its issuer. Default: where it listens.
    #[arg(long, value_name = "URL")]
    external_url: Option<String>,
    /// Id of the application to register.
    #[arg(long, value_name = "ID", default_value = gitlab::CLIENT_ID)]
    client_id: String,
    /// Secret of the application.
    #[arg(long, value_name = "SECRET", default_value = gitlab::CLIENT_SECRET)]
    client_secret: String,
    /// Redirect URI of the application; may be repeated.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4180/oauth2/callback")]
    redirect_uri: Vec<String>,
}

/// Runs until Ctrl-C.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let background = background()?;
    background.block_on(serve(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let redirect_uris: Vec<_> = arguments.redirect_uri.iter().map(String::as_str).collect();
    let gitlab = DevGitlab::start(gitlab::Options {
        listen: arguments.listen,
        force_public: arguments.force_public,
        external_url: arguments.external_url.clone(),
        redirect_uris: arguments.redirect_uri.clone(),
        applications: vec![Application::new(
            &arguments.client_id,
            &arguments.client_secret,
            &redirect_uris,
        )],
        ..gitlab::Options::default()
    })
    .await?;
    super::print(&format!(
        "The development GitLab is at {}\nclient_id = \"{}\"\nclient_secret = \"{}\"\n",
        gitlab.external_url(),
        arguments.client_id,
        arguments.client_secret,
    ))?;
    tokio::select! {
        _ = interrupt.recv() => {},
        _ = terminate.recv() => {},
    }
    gitlab.stop().await;
    Ok(())
}
