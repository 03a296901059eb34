//! `POST /oauth2/hooks/NAME`: system hooks and group webhooks of GitLab, by which the words that it gave before are too old.
//!
//! ```text
//! NAME known? ─▶ guesses left? ─▶ token ─▶ pace ─▶ body ─▶ event ─▶ marks
//!   404            429            401      429     400 408 413        204
//! ```
//!
//! A hook makes labgate ask; it signs nobody in and changes no session by what it says, so that one who has the secret can cause questions, no more. What
//! follows from a mark is `authenticate`'s.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Gate, endpoints::not_allowed, story::Story};
use crate::{
    body::{Body, Response},
    refusal::{HookTrouble, Refusal},
    respond,
    session::Whom,
    target::Target,
    telemetry::{Audit, AuditEvent},
};

/// The secret token of one GitLab's hooks; only its hash is kept, so that comparing tells nothing of its length.
#[derive(Clone)]
pub(super) struct HookSecret([u8; 32]);

impl HookSecret {
    /// None if it is short enough to be guessed.
    pub(super) fn new(text: &str) -> Option<Self> {
        (text.len() >= SHORTEST).then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }

    fn is(&self, token: &HeaderValue) -> bool {
        let token: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.0.ct_eq(&token).into()
    }
}

impl fmt::Debug for HookSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("HookSecret")
    }
}

impl Gate {
    /// Takes a hook for the GitLab called `name`.
    pub(super) async fn hook(
        &self,
        name: &str,
        target: &Target,
        headers: &HeaderMap,
        body: Body,
        story: &Story<'_>,
    ) -> Result<Response, Refusal> {
        let Some((name, secret)) = self.hooks.get_key_value(name) else {
            return Err(Refusal::NotFound);
        };
        if target.method != Method::POST {
            return not_allowed(&[Method::POST]);
        }
        let taken = self.take(name, secret, target, headers, body).await.map_err(Refusal::Hook);
        let result = match &taken {
            Ok(0) => "ignored",
            Ok(_) => "marked",
            Err(refusal) => refusal.code(),
        };
        self.shared.metrics.hook(name, result);
        if let Err(Refusal::Hook(HookTrouble::Token)) = &taken {
            Audit {
                event: AuditEvent::HookRefused,
                request_id: Some(story.request_id.as_str()),
                client: Some(target.client),
                user: None,
                gitlab: Some(name),
                cause: Some(result),
                rule: None,
            }
            .emit();
        }
        taken.map(|_| respond::done())
    }

    /// Marks everybody of GitLabs whose hooks came too fast to be read.
    pub fn settle_hooks(&self) {
        for gitlab in self.shared.hooks.lost() {
            tracing::warn!(
                gitlab,
                "hooks came too fast and were not read, so everybody is rechecked; leave fewer events on at GitLab"
            );
            self.mark(&gitlab, Whom::Everybody);
        }
    }

    /// How many marks come of it.
    async fn take(
        &self,
        name: &str,
        secret: &HookSecret,
        target: &Target,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<usize, HookTrouble> {
        let pace = &self.shared.hooks;
        let too_many = |retry_after| HookTrouble::TooMany { retry_after };
        pace.may_guess(target.client).map_err(too_many)?;
        if !only(headers, &TOKEN).is_some_and(|token| secret.is(token)) {
            pace.guessed(target.client);
            return Err(HookTrouble::Token);
        }
        pace.hook(name).map_err(too_many)?;
        if !is_json(headers) {
            return Err(HookTrouble::Body("it is not application/json"));
        }
        let body = whole(body).await?;
        let event = Event::read(&body).ok_or(HookTrouble::Body("it is no JSON object"))?;
        let named = event.named().map_err(HookTrouble::Body)?;
        tracing::debug!(gitlab = name, marks = named.len(), event = event.label(), "a hook came");
        let marks = named.len();
        for whom in named {
            self.mark(name, whom);
        }
        Ok(marks)
    }

    /// The one place where marks begin.
    fn mark(&self, gitlab: &str, whom: Whom) {
        let mark = self.shared.marks.mark(gitlab, whom, self.shared.clock.now());
        self.shared.store.tell(mark);
    }
}

/// The fields that count of a system hook or group webhook (GitLab, *System hooks* and *Webhook events*); what they hold is checked where they are used,
/// since other events use the same names.
#[derive(Deserialize)]
struct Event {
    #[serde(default, rename = "event_name")]
    name: Value,
    #[serde(default)]
    user_id: Value,
    #[serde(default)]
    full_path: Value,
    #[serde(default)]
    old_full_path: Value,
    #[serde(default)]
    path_with_namespace: Value,
    #[serde(default)]
    old_path_with_namespace: Value,
}

impl Event {
    fn read(body: &[u8]) -> Option<Self> {
        // To serde a list would do as well.
        body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok())?
    }

    /// Whom it names; nobody, if it is of no concern.
    fn named(&self) -> Result<Vec<Whom>, &'static str> {
        match self.label() {
            "user_add_to_group"
            | "user_update_for_group"
            | "user_remove_from_group"
            | "user_add_to_team"
            | "user_update_for_team"
            | "user_remove_from_team"
            | "user_destroy"
            | "user_rename"
            | "user_failed_login" => {
                let id = self.user_id.as_u64().ok_or("its `user_id` is no number")?;
                Ok(vec![Whom::User(id.to_string())])
            },
            "group_rename" | "group_destroy" | "subgroup_destroy" => {
                paths([&self.full_path, &self.old_full_path])
            },
            "project_rename" | "project_transfer" | "project_destroy" => {
                paths([&self.path_with_namespace, &self.old_path_with_namespace])
            },
            _ => Ok(Vec::new()),
        }
    }

    /// What GitLab calls it, if that is an event that labgate knows; else empty.
    fn label(&self) -> &'static str {
        let name = self.name.as_str().unwrap_or_default();
        EVENTS.into_iter().find(|event| *event == name).unwrap_or_default()
    }
}

/// The groups at these full paths; everybody, if there is none: old GitLabs give the last segment alone.
fn paths(paths: [&Value; 2]) -> Result<Vec<Whom>, &'static str> {
    let given = paths.into_iter().filter_map(Value::as_str).filter(|path| !path.is_empty());
    let mut named = Vec::new();
    for path in given {
        if path.len() > LONGEST_PATH {
            return Err("its path is too long");
        }
        named.push(Whom::Group(path.trim_matches('/').to_owned()));
    }
    if named.is_empty() {
        named.push(Whom::Everybody);
    }
    Ok(named)
}

/// The body, if it is not too long and comes in time.
async fn whole(body: Body) -> Result<Bytes, HookTrouble> {
    let whole = Limited::new(body, LARGEST).collect();
    match tokio::time::timeout(PATIENCE, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(HookTrouble::TooLarge),
        Ok(Err(_)) => Err(HookTrouble::Body("it broke off")),
        Err(_) => Err(HookTrouble::Slow),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = only(headers, &header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// The value of a field that comes once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

const TOKEN: HeaderName = HeaderName::from_static("x-gitlab-token");

/// Events that name somebody.
const EVENTS: [&str; 15] = [
    "user_add_to_group",
    "user_update_for_group",
    "user_remove_from_group",
    "user_add_to_team",
    "user_update_for_team",
    "user_remove_from_team",
    "user_destroy",
    "user_rename",
    "user_failed_login",
    "group_rename",
    "group_destroy",
    "subgroup_destroy",
    "project_rename",
    "project_transfer",
    "project_destroy",
];

/// Bytes of a secret that nobody guesses.
const SHORTEST: usize = 16;

/// Bytes of a body; those that count have a few hundred.
const LARGEST: usize = 1024 * 1024;

/// Bytes of a full path; GitLab's have 255 at most.
const LONGEST_PATH: usize = 1024;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(event: &Value) -> Result<Vec<Whom>, &'static str> {
        serde_json::from_value::<Event>(event.clone()).unwrap().named()
    }

    fn user(id: &str) -> Vec<Whom> {
        vec![Whom::User(id.into())]
    }

    fn groups(paths: &[&str]) -> Vec<Whom> {
        paths.iter().map(|path| Whom::Group((*path).into())).collect()
    }

    #[test]
    fn every_event_marks_whom_it_names() {
        for (event, whom) in [
            (
                json!({ "event_name": "user_remove_from_group", "user_id": 41, "group_path": "acme" }),
                user("41"),
            ),
            (json!({ "event_name": "user_add_to_group", "user_id": 41 }), user("41")),
            (json!({ "event_name": "user_update_for_group", "user_id": 41 }), user("41")),
            (
                json!({ "event_name": "user_add_to_team", "user_id": 41, "project_path_with_namespace": "a/b" }),
                user("41"),
            ),
            (json!({ "event_name": "user_update_for_team", "user_id": 41 }), user("41")),
            (json!({ "event_name": "user_remove_from_team", "user_id": 41 }), user("41")),
            (json!({ "event_name": "user_destroy", "user_id": 41, "email": "a@b.c" }), user("41")),
            (
                json!({ "event_name": "user_rename", "user_id": 58, "old_username": "x" }),
                user("58"),
            ),
            (
                json!({ "event_name": "user_failed_login", "user_id": 26, "state": "blocked" }),
                user("26"),
            ),
            (
                json!({ "event_name": "group_rename", "full_path": "parent/new", "old_full_path": "parent/old" }),
                groups(&["parent/new", "parent/old"]),
            ),
            (
                json!({ "event_name": "group_destroy", "full_path": "acme", "path": "acme" }),
                groups(&["acme"]),
            ),
            (
                json!({ "event_name": "subgroup_destroy", "full_path": "acme/web" }),
                groups(&["acme/web"]),
            ),
            (
                json!({ "event_name": "project_transfer", "path_with_namespace": "scores/x", "old_path_with_namespace": "jsmith/x" }),
                groups(&["scores/x", "jsmith/x"]),
            ),
            (
                json!({ "event_name": "project_rename", "path_with_namespace": "a/y", "old_path_with_namespace": "a/x" }),
                groups(&["a/y", "a/x"]),
            ),
            (
                json!({ "event_name": "project_destroy", "path_with_namespace": "a/x" }),
                groups(&["a/x"]),
            ),
            (
                json!({ "event_name": "group_destroy", "path": "storecloud", "full_path": null }),
                vec![Whom::Everybody],
            ),
        ] {
            assert_eq!(named(&event), Ok(whom), "{event}");
        }
    }

    #[test]
    fn everything_else_marks_nobody_whoever_it_names() {
        for event in [
            json!({ "event_name": "user_create", "user_id": 41 }),
            json!({ "event_name": "user_access_request_to_group", "user_id": 41 }),
            json!({ "event_name": "user_access_request_revoked_for_project", "user_id": 41 }),
            json!({ "event_name": "push", "object_kind": "push", "user_id": 4 }),
            json!({ "event_name": "group_create", "full_path": "acme" }),
            json!({ "event_name": "project_update", "path_with_namespace": "a/b" }),
            json!({ "event_name": "USER_DESTROY", "user_id": 41 }),
            json!({ "event_name": ["user_destroy"], "user_id": 41 }),
            json!({ "object_kind": "merge_request", "user": { "id": 1 } }),
            json!({}),
        ] {
            assert_eq!(named(&event), Ok(Vec::new()), "{event}");
        }
    }

    #[test]
    fn an_event_that_names_nobody_it_should_name_is_refused() {
        for id in [json!(null), json!("41"), json!(-1), json!(1.5), json!({ "id": 1 })] {
            let event = json!({ "event_name": "user_destroy", "user_id": id });
            assert!(named(&event).is_err(), "{event}");
        }
        let long = "x/".repeat(2000);
        assert!(named(&json!({ "event_name": "group_destroy", "full_path": long })).is_err());
    }

    #[test]
    fn the_list_of_events_is_the_list_of_those_that_mark() {
        for name in EVENTS {
            let event = json!({ "event_name": name, "user_id": 1, "full_path": "a", "path_with_namespace": "a/b" });
            assert_eq!(named(&event).unwrap().len(), 1, "{name}");
        }
    }

    #[test]
    fn a_secret_is_long_and_compares_as_a_whole() {
        for short in ["", "a", "fifteen bytes !"] {
            assert!(HookSecret::new(short).is_none(), "{short}");
        }
        let secret = HookSecret::new("sixteen bytes ok").unwrap();
        for (token, is) in [
            ("sixteen bytes ok", true),
            ("sixteen bytes o", false),
            ("sixteen bytes okk", false),
            ("Sixteen bytes ok", false),
            ("", false),
        ] {
            assert_eq!(secret.is(&HeaderValue::from_static(token)), is, "{token}");
        }
        assert_eq!(format!("{secret:?}"), "HookSecret");
    }
}
