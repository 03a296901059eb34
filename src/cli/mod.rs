//! The commands: what people type, what they read, and how the process ends. The only room that prints or exits.
//!
//! ```text
//! 0  it worked
//! 1  it failed while running
//! 2  usage or configuration
//! ```
//!
//! Results go to standard output, messages for people to standard error. Each command has its own file.

mod check;
mod ci_claims;
mod demo;
mod dev_gitlab;
mod explain;
mod front;
mod health;
mod keygen;
mod run;
mod sessions;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    config::{self, Config, Document, Problem},
    gate::{Env, Plan},
};

/// A usage or configuration mistake.
const MISTAKE: u8 = 2;

/// Where the configuration is unless somebody says otherwise.
const DEFAULT: &str = "/etc/labgate/labgate.toml";

/// The environment, as far as it is text.
type Environment = BTreeMap<String, String>;

/// Puts GitLab sign-in in front of any web application.
#[derive(Debug, Parser)]
#[command(name = "labgate", version)]
struct Cli {
    /// The configuration; without it `LABGATE_CONFIG`, then /etc/labgate/labgate.toml.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Run,
    /// Try labgate on this machine: a development GitLab, a sample app, and labgate between.
    Demo(demo::Arguments),
    /// Run the development GitLab alone, for compose files and tests.
    DevGitlab(dev_gitlab::Arguments),
    /// Name every problem of the configuration, or show what it means and what to register in GitLab.
    Check,
    /// Tell which route and rule a user would meet at a URL, and why; ends with 0 if they would pass, with 1 if not.
    Explain(explain::Arguments),
    /// Print the configuration of a front proxy that asks this labgate about each request.
    Front(front::Arguments),
    /// Make a key, ready for a secret file.
    Keygen(keygen::Arguments),
    /// Show who is signed in, or end sessions, where replicas share a store.
    Sessions(sessions::Arguments),
    /// End with 0 if the running instance is ready; for images without a shell.
    Health,
}

/// Runs the command that `arguments`, the program's name first, ask for.
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            // What can't be told to a closed terminal is told by the exit code.
            drop(usage.print());
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(MISTAKE));
        },
    };
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let env: Environment = environment.into_iter().filter_map(text).collect();
    let path = located(cli.config, &env);
    let ended = match cli.command.unwrap_or(Command::Run) {
        Command::Run => run::run(path, &env),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DevGitlab(arguments) => dev_gitlab::run(&arguments),
        Command::Check => check::run(path, &env),
        Command::Explain(arguments) => explain::run(&arguments, path, &env),
        Command::Front(arguments) => front::run(&arguments, path, &env),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Sessions(arguments) => sessions::run(&arguments, path, &env),
        Command::Health => health::run(path, &env),
    };
    ended.unwrap_or_else(|error| {
        say(&format!("labgate: error: {error:#}\n"));
        ExitCode::FAILURE
    })
}

/// The file that is meant; none if nobody named one and there is none at the usual place.
fn located(given: Option<PathBuf>, env: &Environment) -> Option<PathBuf> {
    let named = || env.get("LABGATE_CONFIG").filter(|path| !path.is_empty());
    given
        .or_else(|| named().map(PathBuf::from))
        .or_else(|| Path::new(DEFAULT).exists().then(|| DEFAULT.into()))
}

/// How a configuration becomes a plan.
type Draw = fn(&Config, Env<'_>) -> (Option<Plan>, Vec<Problem>);

/// The plan of the configuration, after all that is wrong with it was said; the exit code if it can't be used.
fn planned(path: Option<PathBuf>, env: &Environment) -> Result<Plan, ExitCode> {
    drawn(path, env, Plan::draw)
}

/// The same for commands that only look at it: they work where the secrets are not.
fn sketched(path: Option<PathBuf>, env: &Environment) -> Result<Plan, ExitCode> {
    drawn(path, env, Plan::sketch)
}

fn drawn(path: Option<PathBuf>, env: &Environment, draw: Draw) -> Result<Plan, ExitCode> {
    let (document, config, mut problems) = config::load(path, env);
    let plan = config.and_then(|config| {
        let (plan, across) = draw(&config, &|name| env.get(name).cloned());
        problems.extend(document.settle(across));
        plan
    });
    say(&told(&problems, &document));
    let usable = problems.iter().all(|problem| problem.warning);
    plan.filter(|_| usable).ok_or(ExitCode::from(MISTAKE))
}

fn told(problems: &[Problem], document: &Document) -> String {
    let mut text = config::render(problems, document);
    if document.path.is_none() && problems.iter().any(|problem| !problem.warning) {
        text.push_str("labgate: no configuration file: name one with --config or LABGATE_CONFIG, ");
        text.extend(["or put it at ", DEFAULT, "\n"]);
    }
    text
}

/// A message for people.
fn say(text: &str) {
    // A closed standard error can't be told so.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// A result.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_mistakes_end_with_two_and_questions_with_zero() {
        for (arguments, code) in [
            (&["labgate", "serve"][..], 2),
            (&["labgate", "check", "--confg", "x"], 2),
            (&["labgate", "keygen", "asertion"], 2),
            (&["labgate", "--version"], 0),
            (&["labgate", "check", "--help"], 0),
        ] {
            let usage = Cli::try_parse_from(arguments).unwrap_err();
            assert_eq!(usage.exit_code(), code, "{arguments:?}");
        }
    }

    #[test]
    fn the_file_is_the_one_named_last() {
        let env: Environment = [("LABGATE_CONFIG".into(), "b.toml".into())].into();
        let nothing: Environment = [("LABGATE_CONFIG".into(), String::new())].into();
        assert_eq!(located(Some("a.toml".into()), &env), Some("a.toml".into()));
        assert_eq!(located(None, &env), Some("b.toml".into()));
        let usual = Path::new(DEFAULT).exists().then(|| DEFAULT.into());
        assert_eq!(located(None, &nothing), usual);
    }

    #[test]
    fn no_mistake_is_told_twice() {
        let text = r#"
            server.public_url = "https://app.example.com"
            gitlab.main = { base_url = "https://gitlab.example.com", client_id = "x" }
            session.keys = []
            [[route]]
            path = "/a"
            upstream = "http://127.0.0.1:3000"
            allow = [{ role = "guest" }, {}]
            [[route]]
            path = "/b"
            upstream = "http://127.0.0.1:3000"
            allow = []
        "#;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("labgate.toml");
        std::fs::write(&path, text).unwrap();
        let (document, config, problems) = config::load(Some(path), &Environment::new());
        let (plan, across) = Plan::draw(&config.unwrap(), &|_| None);
        assert!(plan.is_none());
        assert_eq!(across, []);
        assert_eq!(problems.len(), 4, "{}", config::render(&problems, &document));
    }

    #[test]
    fn a_configuration_with_mistakes_ends_with_two() {
        let missing = Some("does/not/exist.toml".into());
        assert_eq!(planned(missing, &Environment::new()).err(), Some(ExitCode::from(2)));
    }
}
