//! Problem documents for programs (RFC 9457): the refusal's own code and words, and what it takes to get past it.

use serde::Serialize;

use super::{Voice, answer};
use crate::{
    body::Response,
    refusal::{Refusal, Unmet},
};

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    advice: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sign_in: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gitlab: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Rule<'a>>,
}

/// One rule that does not hold; any of them would do.
#[derive(Serialize)]
struct Rule<'a> {
    needed: &'a str,
    held: &'a str,
    /// GitLab's pages of those who hold roles there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<&'a str>,
}

impl<'a> From<&'a Unmet> for Rule<'a> {
    fn from(Unmet { needed, held, places, unknown: _ }: &'a Unmet) -> Self {
        let members = places.iter().map(|place| place.members_url.as_str()).collect();
        Self { needed, held, members }
    }
}

/// `refusal` as a problem document; its type is `urn:labgate:problem:` and the refusal's code.
pub(super) fn document(refusal: &Refusal, voice: &Voice<'_>) -> Response {
    let words = refusal.words();
    let mut document = Document {
        kind: format!("urn:labgate:problem:{}", refusal.code()),
        title: words.title,
        status: refusal.status().as_u16(),
        detail: &words.detail,
        advice: words.advice,
        request_id: voice.request_id,
        sign_in: None,
        user: None,
        gitlab: None,
        rules: Vec::new(),
    };
    if let Refusal::SignIn(sign_in) | Refusal::Unsent(sign_in) = refusal {
        document.sign_in = Some(&sign_in.url);
    }
    if let Refusal::Forbidden(forbidden) = refusal {
        document.user = Some(&forbidden.username);
        document.gitlab = Some(&forbidden.gitlab);
        document.sign_in = forbidden.switch_url();
        document.rules = forbidden.shown().iter().map(Rule::from).collect();
    }
    answer::structured(refusal.status(), "application/problem+json", &document)
}
