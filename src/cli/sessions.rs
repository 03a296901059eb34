//! `labgate sessions`: who is signed in, by the store that all replicas share, and the end of some of these sessions.

use std::{fmt::Write, io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{Environment, MISTAKE, planned, print, run::background, say};
use crate::{
    session::{Listed, Store},
    telemetry::{Audit, AuditEvent, start_logging},
};

/// What to do with sessions.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who is signed in: session, user, GitLab, kind, since when, last seen.
    List {
        #[command(flatten)]
        whose: Whose,
        /// As JSON, one array.
        #[arg(long)]
        json: bool,
    },
    /// End sessions, on all replicas at once.
    #[command(arg_required_else_help = true)]
    End {
        #[command(flatten)]
        whose: Whose,
        /// The session of this id, as listed or logged.
        #[arg(long, value_name = "ID", conflicts_with = "user")]
        id: Option<String>,
        /// Everybody's.
        #[arg(long, conflicts_with_all = ["user", "id"])]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct Whose {
    /// Only sessions of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only users of this GitLab, by the name of its table.
    #[arg(long, value_name = "NAME")]
    gitlab: Option<String>,
}

impl Whose {
    fn includes(&self, session: &Listed) -> bool {
        let same = |wanted: &Option<String>, is: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(is))
        };
        same(&self.user, &session.username) && same(&self.gitlab, &session.gitlab)
    }
}

/// Ends with 2 if replicas share no store, with 1 if it can't be reached or no session was meant.
pub(super) fn run(
    arguments: &Arguments,
    path: Option<PathBuf>,
    env: &Environment,
) -> anyhow::Result<ExitCode> {
    let plan = match planned(path, env) {
        Ok(plan) => plan,
        Err(code) => return Ok(code),
    };
    let _logs = start_logging(&plan.config.telemetry, std::io::stderr().is_terminal())?;
    let background = background()?;
    let Some(store) = plan.open_store(background.handle()) else {
        say(
            "labgate: error: `session.store` is \"memory\": each process knows its own sessions only; set `store = { redis = \"…\" }`\n",
        );
        return Ok(ExitCode::from(MISTAKE));
    };
    background.block_on(async {
        match &arguments.command {
            Command::List { whose, json } => list(&store, whose, *json).await,
            Command::End { whose, id, all } => end(&store, whose, id.as_deref(), *all).await,
        }
    })
}

async fn list(store: &Store, whose: &Whose, json: bool) -> anyhow::Result<ExitCode> {
    let mut sessions = store.list().await?;
    sessions.retain(|session| whose.includes(session));
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&sessions)?))?,
        false => print(&table(&sessions)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn end(
    store: &Store,
    whose: &Whose,
    id: Option<&str>,
    all: bool,
) -> anyhow::Result<ExitCode> {
    if id.is_none() && whose.user.is_none() && !all {
        say("labgate: error: say whose sessions end: --user NAME, --id ID or --all\n");
        return Ok(ExitCode::from(MISTAKE));
    }
    let mut sessions = store.list().await?;
    let named = |session: &Listed| id.is_none_or(|id| id.eq_ignore_ascii_case(&session.id));
    sessions.retain(|session| whose.includes(session) && named(session));
    for session in &sessions {
        store.end(session).await?;
        let user = format!("{}@{}", session.username, session.gitlab);
        Audit {
            event: AuditEvent::SessionEnded,
            request_id: None,
            client: None,
            user: Some(&user),
            gitlab: Some(&session.gitlab),
            cause: Some("operator"),
            rule: None,
        }
        .emit();
    }
    print(&table(&sessions)?)?;
    if sessions.is_empty() {
        say("labgate: there is no such session\n");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns for people; every value is one word.
fn table(sessions: &[Listed]) -> anyhow::Result<String> {
    let widest = |column: fn(&Listed) -> &str, least: usize| {
        sessions.iter().map(|session| column(session).chars().count()).fold(least, usize::max)
    };
    let user = widest(|session| &session.username, 4);
    let gitlab = widest(|session| &session.gitlab, 6);
    let mut text = format!(
        "{:12}  {:user$}  {:gitlab$}  {:7}  {:20}  {:20}\n",
        "ID", "USER", "GITLAB", "KIND", "SINCE", "LAST SEEN"
    );
    for session in sessions {
        let Listed { id, username, gitlab: name, kind, since, seen, .. } = session;
        writeln!(
            text,
            "{id:12}  {username:user$}  {name:gitlab$}  {kind:7}  {since:20}  {seen:20}",
            since = moment(*since),
            seen = moment(*seen)
        )?;
    }
    Ok(text)
}

/// A moment in RFC 3339.
fn moment(at: crate::clock::Timestamp) -> String {
    let seconds = i64::try_from(at.unix()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| at.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn the_table_lines_up() {
        let session = |username: &str, gitlab: &str| Listed {
            id: "0123456789ab".into(),
            username: username.into(),
            gitlab: gitlab.into(),
            kind: "browser".into(),
            since: Timestamp::from_unix(1_790_000_000),
            seen: Timestamp::from_unix(1_790_000_060),
            until: Timestamp::from_unix(1_790_040_000),
        };
        let text = table(&[session("alice", "main"), session("bob", "gitlab_com")]).unwrap();
        let expected = "\
ID            USER   GITLAB      KIND     SINCE                 LAST SEEN           \n\
0123456789ab  alice  main        browser  2026-09-21T14:13:20Z  2026-09-21T14:14:20Z\n\
0123456789ab  bob    gitlab_com  browser  2026-09-21T14:13:20Z  2026-09-21T14:14:20Z\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn names_are_compared_as_gitlab_does() {
        let whose = Whose { user: Some("Alice".into()), gitlab: None };
        let mut session = Listed {
            id: String::new(),
            username: "alice".into(),
            gitlab: "main".into(),
            kind: "browser".into(),
            since: Timestamp::default(),
            seen: Timestamp::default(),
            until: Timestamp::default(),
        };
        assert!(whose.includes(&session));
        session.username = "alice2".into();
        assert!(!whose.includes(&session));
    }
}
