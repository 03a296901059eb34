//! What tests can make different: lifetimes, clock skew, failures of an endpoint, and false words in answers.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::keys::Tamper;
use crate::demo::answer::{self, Answer};

/// An endpoint, as faults and hit counts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `/.well-known/openid-configuration`
    Discovery,
    /// `/oauth/discovery/keys`
    Keys,
    /// `/oauth/authorize`
    Authorize,
    /// `/oauth/token`
    Token,
    /// `/oauth/revoke`
    Revoke,
    /// `/oauth/introspect`
    Introspect,
    /// `/oauth/token/info`
    TokenInfo,
    /// `/oauth/userinfo`
    Userinfo,
    /// `/users/…`
    SignIn,
    /// `/api/v4/user`
    ApiUser,
    /// `/api/v4/{groups,projects}/:id/members/all/:user_id`
    ApiMembers,
    /// `/api/v4/{groups,projects}/:id`
    ApiPlace,
    /// `/api/v4/personal_access_tokens/self`
    ApiToken,
    /// `/api/v4/job`
    ApiJob,
    /// Everything else.
    Other,
}

/// What happens instead of, or before, the right answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Only the delay; then the right answer.
    #[default]
    Slow,
    /// This answer; nothing is done.
    Answer {
        /// HTTP status.
        status: u16,
        /// Its body.
        #[serde(default)]
        body: String,
        /// Its `Content-Type`.
        #[serde(default = "plain")]
        content_type: String,
        /// Its `Retry-After`.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The request is carried out at once, only the reply is delayed.
    LateReply,
    /// The request is carried out, then the connection closes without a reply.
    DropReply,
    /// The connection closes at once; nothing is done.
    Refuse,
    /// No answer, ever.
    Hang,
}

fn plain() -> String {
    "text/plain".to_owned()
}

/// A failure of the next requests to an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// How many requests.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens.
    #[serde(default)]
    pub failure: Failure,
    /// Milliseconds before it happens.
    #[serde(default)]
    pub delay_ms: u64,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// The next `times` requests get `failure`.
    pub const fn new(endpoint: Endpoint, times: u32, failure: Failure) -> Self {
        Self { endpoint, times, failure, delay_ms: 0 }
    }

    /// The next `times` requests get this status and JSON body.
    pub fn json(endpoint: Endpoint, times: u32, status: u16, body: &Value) -> Self {
        Self::answer(endpoint, times, status, "application/json", &body.to_string())
    }

    /// The next `times` requests get this answer.
    pub fn answer(
        endpoint: Endpoint,
        times: u32,
        status: u16,
        content_type: &str,
        body: &str,
    ) -> Self {
        let (body, content_type) = (body.to_owned(), content_type.to_owned());
        Self::new(
            endpoint,
            times,
            Failure::Answer { status, body, content_type, retry_after: None },
        )
    }

    /// The next `times` requests get GitLab's throttle answer, a plain-text 429.
    pub fn throttled(endpoint: Endpoint, times: u32, retry_after: &str) -> Self {
        let failure = Failure::Answer {
            status: 429,
            body: "Retry later\n".to_owned(),
            content_type: plain(),
            retry_after: Some(retry_after.to_owned()),
        };
        Self::new(endpoint, times, failure)
    }

    /// The next `times` requests get the right answer, later.
    pub fn slow(endpoint: Endpoint, times: u32, delay: Duration) -> Self {
        Self::new(endpoint, times, Failure::Slow).after(delay)
    }

    /// The same, this much later.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self
    }
}

/// The answer of a `Failure::Answer`.
pub(super) fn failed(
    status: u16,
    content_type: &str,
    retry_after: Option<&str>,
    body: &str,
) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = answer::text(status, body.to_owned());
    let content_type: Option<(HeaderName, _)> = Some((header::CONTENT_TYPE, content_type));
    let retry_after = retry_after.map(|value| (header::RETRY_AFTER, value));
    for (name, value) in content_type.into_iter().chain(retry_after) {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// Members laid over JSON answers; null takes one away.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlays {
    pub(super) discovery: Map<String, Value>,
    pub(super) token: Map<String, Value>,
    pub(super) userinfo: Map<String, Value>,
    pub(super) user: Map<String, Value>,
}

/// The JSON answers that can be overlaid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// The discovery document.
    Discovery,
    /// The answer of the token endpoint.
    Token,
    /// The answer of userinfo.
    Userinfo,
    /// The answer of `/api/v4/user`.
    User,
}

/// Everything that is switched at present.
#[derive(Debug)]
pub(super) struct Switches {
    pub(super) access_token_seconds: u64,
    pub(super) id_token_seconds: u64,
    pub(super) skew_seconds: i64,
    pub(super) silent: bool,
    pub(super) tamper: Tamper,
    pub(super) overlays: Overlays,
    faults: Vec<Fault>,
    hits: BTreeMap<Endpoint, u64>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            access_token_seconds: 7200,
            id_token_seconds: 120,
            skew_seconds: 0,
            silent: false,
            tamper: Tamper::default(),
            overlays: Overlays::default(),
            faults: Vec::new(),
            hits: BTreeMap::new(),
        }
    }
}

impl Switches {
    pub(super) fn overlay(&mut self, document: Document, members: Map<String, Value>) {
        *match document {
            Document::Discovery => &mut self.overlays.discovery,
            Document::Token => &mut self.overlays.token,
            Document::Userinfo => &mut self.overlays.userinfo,
            Document::User => &mut self.overlays.user,
        } = members;
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        if fault.times > 0 {
            self.faults.push(fault);
        }
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Counts a request and takes the fault that waits for it.
    pub(super) fn hit(&mut self, endpoint: Endpoint) -> Option<Fault> {
        *self.hits.entry(endpoint).or_default() += 1;
        let fault = self.faults.iter_mut().find(|fault| fault.endpoint == endpoint)?;
        fault.times = fault.times.saturating_sub(1);
        let taken = fault.clone();
        self.faults.retain(|fault| fault.times > 0);
        Some(taken)
    }

    pub(super) fn hits(&self) -> &BTreeMap<Endpoint, u64> {
        &self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lasts_as_many_requests_as_it_says_and_only_at_its_endpoint() {
        let mut switches = Switches::default();
        switches.fail(Fault::new(Endpoint::Token, 2, Failure::Hang));
        assert!(switches.hit(Endpoint::Userinfo).is_none());
        assert!(switches.hit(Endpoint::Token).is_some());
        assert!(switches.hit(Endpoint::Token).is_some());
        assert!(switches.hit(Endpoint::Token).is_none());
        assert_eq!(switches.hits().get(&Endpoint::Token), Some(&3));
    }
}
