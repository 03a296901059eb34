//! What a header says: one claim, or text with `{claim}` in it. `{{` and `}}` are braces.

use std::str::FromStr;

use http::HeaderValue;

use super::Passing;
use crate::identity::{Identity, Job};

/// Pieces in order, at least one of them a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Claim(Claim),
}

/// What can be said of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Sub,
    Username,
    Email,
    Name,
    Groups,
    GitLab,
    Kind,
    ProjectPath,
    Ref,
    Environment,
    Assertion,
    AccessToken,
}

const CLAIMS: [(&str, Claim); 12] = [
    ("sub", Claim::Sub),
    ("username", Claim::Username),
    ("email", Claim::Email),
    ("name", Claim::Name),
    ("groups", Claim::Groups),
    ("gitlab", Claim::GitLab),
    ("kind", Claim::Kind),
    ("project_path", Claim::ProjectPath),
    ("ref", Claim::Ref),
    ("environment", Claim::Environment),
    ("assertion", Claim::Assertion),
    ("access_token", Claim::AccessToken),
];

impl Template {
    /// Whether it says an assertion.
    pub(super) fn asserts(&self) -> bool {
        self.0.contains(&Piece::Claim(Claim::Assertion))
    }

    /// Whether it says groups and nothing beside them.
    pub(super) fn lists(&self) -> bool {
        self.0 == [Piece::Claim(Claim::Groups)]
    }

    /// Whether it says an access token.
    pub(super) fn tells_token(&self) -> bool {
        self.0.contains(&Piece::Claim(Claim::AccessToken))
    }

    /// The value for `identity`, encoded; none if a claim in it is empty.
    pub(super) fn render(&self, identity: &Identity, passing: &Passing<'_>) -> Option<HeaderValue> {
        match (self.0.as_slice(), passing.assertion) {
            // The usual one is ready.
            ([Piece::Claim(Claim::Assertion)], assertion) => assertion.cloned(),
            _ => HeaderValue::try_from(self.text(identity, passing)?).ok(),
        }
    }

    fn text(&self, identity: &Identity, passing: &Passing<'_>) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Claim(claim) => {
                    let start = out.len();
                    claim.write(identity, passing, &mut out);
                    if out.len() == start {
                        return None;
                    }
                },
            }
        }
        Some(out)
    }
}

impl Claim {
    fn write(self, identity: &Identity, passing: &Passing<'_>, out: &mut String) {
        match self {
            Self::Sub => encode(&identity.sub, false, out),
            Self::Username => encode(&identity.username, false, out),
            Self::Email => encode(identity.email.as_deref().unwrap_or_default(), false, out),
            Self::Name => encode(&identity.name, false, out),
            Self::GitLab => encode(&identity.gitlab, false, out),
            Self::Kind => out.push_str(identity.kind.as_str()),
            Self::ProjectPath => encode(job(identity, |job| Some(&job.project_path)), false, out),
            Self::Ref => encode(job(identity, |job| Some(&job.ref_name)), false, out),
            Self::Environment => encode(job(identity, |job| job.environment.as_ref()), false, out),
            Self::Assertion => {
                let text = passing.assertion.and_then(|value| value.to_str().ok());
                encode(text.unwrap_or_default(), false, out);
            },
            Self::AccessToken => encode(passing.access_token.unwrap_or_default(), false, out),
            Self::Groups => {
                let paths = identity.groups.iter().map(|group| group.path.as_str());
                for (place, path) in paths.filter(|path| !path.is_empty()).enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    encode(path, true, out);
                }
            },
        }
    }
}

/// What is said of a CI job; empty if it is none, or that was not said.
fn job(identity: &Identity, claim: impl Fn(&Job) -> Option<&String>) -> &str {
    identity.job.as_deref().and_then(claim).map_or("", String::as_str)
}

/// Percent-encodes what a header can't carry or a reader could split, drop or decode.
fn encode(text: &str, in_list: bool, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let carried = match byte {
            // At either end, readers trim it.
            b' ' => at != 0 && at != last,
            b',' => !in_list,
            b'%' => false,
            _ => byte.is_ascii_graphic(),
        };
        if carried {
            out.push(char::from(byte));
        } else {
            out.push_str(percent_encoding::percent_encode_byte(byte));
        }
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(['{', '}']) {
            pieces(text).map(Self)
        } else {
            Ok(Self(vec![Piece::Claim(claim(text)?)]))
        }
    }
}

fn claim(name: &str) -> Result<Claim, String> {
    let found = CLAIMS.iter().find(|(known, _)| *known == name);
    found.map(|(_, claim)| *claim).ok_or_else(|| {
        let names = CLAIMS.map(|(name, _)| name).join(", ");
        format!("unknown claim `{name}`, expected one of {names}, or a template such as `{{username}}@{{gitlab}}`")
    })
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !visible || text.trim() != text {
        return Err("a template is visible ASCII, without spaces at its ends".into());
    }
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        push_text(&mut pieces, before);
        let escaped = tail.strip_prefix("{{").or(tail.strip_prefix("}}"));
        rest = if let Some(after) = escaped {
            push_text(&mut pieces, tail.get(..1).unwrap_or_default());
            after
        } else {
            let inner = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
            let (name, after) = inner.ok_or("a brace has no counterpart")?;
            pieces.push(Piece::Claim(claim(name)?));
            after
        };
    }
    push_text(&mut pieces, rest);
    if pieces.iter().any(|piece| matches!(piece, Piece::Claim(_))) {
        Ok(pieces)
    } else {
        Err("a template needs a claim".into())
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {},
        Some(Piece::Text(before)) => before.push_str(text),
        Some(Piece::Claim(_)) | None => pieces.push(Piece::Text(text.into())),
    }
}
