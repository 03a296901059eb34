//! System hooks: what changes by command is told to the URLs that a command named, as GitLab tells it.
//!
//! ```text
//! command ──▶ event (who and what, before the change) ──▶ change ──▶ queue ──▶ POST with X-Gitlab-Token, once, in order
//! ```
//!
//! As at GitLab nothing is told of a block, a ban or a changed address; that a blocked person tried to sign in is. Answers don't matter, and nothing is
//! sent twice. Only `http` URLs are called.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use url::Url;

use super::{
    command::{Command, CommandError},
    people::{Role, User, UserState},
    state::World,
};

/// Where events are told, and what proves that it is this GitLab that does.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    url: Url,
    token: String,
}

impl Hook {
    pub(super) fn new(url: &str, token: String) -> Result<Self, CommandError> {
        let parsed = Url::parse(url).ok();
        let parsed = parsed.filter(|url| url.scheme() == "http" && url.has_host());
        parsed.map(|url| Self { url, token }).ok_or_else(|| CommandError::HookUrl(url.to_owned()))
    }
}

/// The queue of what is to be told; ends with its GitLab.
#[derive(Debug)]
pub(super) struct Messenger(mpsc::Sender<(Hook, String)>);

impl Messenger {
    /// Starts to tell, on the current runtime.
    pub(super) fn start() -> Self {
        let (sender, mut queue) = mpsc::channel::<(Hook, String)>(QUEUE);
        tokio::spawn(async move {
            while let Some((hook, body)) = queue.recv().await {
                let told = timeout(PATIENCE, tell(&hook, body)).await;
                if let Err(error) = told.unwrap_or_else(|late| Err(late.into())) {
                    tracing::warn!(url = %hook.url, error = %format!("{error:#}"), "a hook was not taken");
                }
            }
        });
        Self(sender)
    }

    /// Tells `event` to all hooks of `world`.
    pub(super) fn send(&self, world: &World, event: &Value) {
        for hook in &world.hooks {
            if self.0.try_send((hook.clone(), event.to_string())).is_err() {
                tracing::warn!(url = %hook.url, "too many hooks wait, so this one is not told");
            }
        }
    }
}

async fn tell(hook: &Hook, body: String) -> anyhow::Result<()> {
    let host = hook.url.host_str().context("no host")?;
    let port = hook.url.port_or_known_default().context("no port")?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::post(hook.url.path())
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::USER_AGENT, "GitLab/dev")
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-gitlab-event", "System Hook")
        .header("x-gitlab-token", hook.token.as_str())
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer?.status();
    anyhow::ensure!(status.is_success(), "it was answered with {status}");
    Ok(())
}

/// What GitLab tells of `command`, if anything; asked before it is carried out.
pub(super) fn event(world: &World, command: &Command) -> Option<Value> {
    match command {
        Command::SetGroupRole { group, user, role } => {
            let place = world.directory.group(group)?;
            let user = world.directory.user_named(user)?;
            let mut event = about(user, &membership(place.members.get(&user.id), *role, "group")?);
            merge(
                &mut event,
                &json!({ "group_id": place.id, "group_path": place.path, "group_name": place.path }),
            );
            Some(event)
        },
        Command::SetProjectRole { project, user, role } => {
            let place = world.directory.projects.iter().find(|place| place.path == *project)?;
            let user = world.directory.user_named(user)?;
            let mut event = about(user, &membership(place.members.get(&user.id), *role, "team")?);
            merge(
                &mut event,
                &json!({ "project_id": place.id, "project_path_with_namespace": place.path }),
            );
            Some(event)
        },
        Command::DeleteUser { user } => {
            Some(about(world.directory.user_named(user)?, "user_destroy"))
        },
        Command::Rename { user, to } => {
            let mut event = about(world.directory.user_named(user)?, "user_rename");
            merge(&mut event, &json!({ "username": to, "old_username": user }));
            Some(event)
        },
        Command::RenameGroup { path, to } => Some(json!({
            "event_name": "group_rename", "group_id": world.directory.group(path)?.id,
            "path": to.rsplit('/').next(), "full_path": to,
            "old_path": path.rsplit('/').next(), "old_full_path": path,
        })),
        _ => None,
    }
}

/// What GitLab tells when somebody who may not sign in tries to.
pub(super) fn failed_login(user: &User) -> Option<Value> {
    let mut event = about(user, "user_failed_login");
    merge(&mut event, &json!({ "state": user.state.word() }));
    matches!(user.state, UserState::Blocked | UserState::Banned).then_some(event)
}

fn about(user: &User, event: &str) -> Value {
    json!({
        "event_name": event, "user_id": user.id, "user_username": user.username, "username": user.username,
        "user_name": user.name, "name": user.name, "user_email": user.email, "email": user.email,
    })
}

fn merge(event: &mut Value, members: &Value) {
    if let (Value::Object(event), Value::Object(members)) = (event, members) {
        event.extend(members.clone());
    }
}

/// The event of a role that changes from `before` to `after`, in a `group` or a project's `team`.
fn membership(before: Option<&Role>, after: Option<Role>, place: &str) -> Option<String> {
    match (before, after) {
        (None, Some(_)) => Some(format!("user_add_to_{place}")),
        (Some(_), Some(_)) => Some(format!("user_update_for_{place}")),
        (Some(_), None) => Some(format!("user_remove_from_{place}")),
        (None, None) => None,
    }
}

/// Events that may wait.
const QUEUE: usize = 10_000;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
