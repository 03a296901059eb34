//! Which token a set of headers carries, on routes that take any; pure.
//!
//! ```text
//! Authorization: Bearer TOKEN           any kind
//! Authorization: Basic base64(x:TOKEN)  any kind, where the route says `basic`
//! PRIVATE-TOKEN: TOKEN                  of an account, as at GitLab
//! JOB-TOKEN: TOKEN                      of a running CI job
//! ```
//!
//! Two of them are none: nobody could say whose the request is. `Authorization` with another scheme is the application's. Tokens in a query or a body are
//! not looked at. What a token is worth is `token`'s.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use zeroize::Zeroizing;

use crate::{config::TokenKind, refusal::TokenTrouble};

/// Which tokens a route takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// Kinds by the name of the GitLab, only where there are any.
    pub kinds: Vec<(String, Vec<TokenKind>)>,
    /// Whether a token may come as a password.
    pub basic: bool,
}

impl Takes {
    /// Whether tokens count here at all.
    pub fn any(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// Whether tokens of this kind of the GitLab called `gitlab` count.
    pub fn takes(&self, gitlab: &str, kind: TokenKind) -> bool {
        self.kinds.iter().any(|(name, kinds)| name == gitlab && kinds.contains(&kind))
    }

    /// All kinds that count, each once.
    pub fn words(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.kinds.iter().flat_map(|(_, kinds)| kinds.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(TokenKind::as_str).collect()
    }
}

/// A token that came with a request.
pub(super) struct Presented {
    pub(super) token: Zeroizing<String>,
    pub(super) form: Form,
    /// Which header it came in.
    pub(super) header: HeaderName,
}

/// How a token came, as far as that says what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As a bearer token or a password: anything.
    Any,
    /// As `PRIVATE-TOKEN`: an account's, but no OAuth token.
    Private,
    /// As `JOB-TOKEN`, or under the name that GitLab gives to such passwords.
    Job,
}

/// The token in `headers`, if there is one.
pub(super) fn presented(
    headers: &HeaderMap,
    basic: bool,
) -> Result<Option<Presented>, TokenTrouble> {
    let mut found: Vec<(HeaderName, Form, Option<Zeroizing<String>>)> = Vec::new();
    let lines = headers.get_all(AUTHORIZATION);
    let several = lines.iter().nth(1).is_some();
    for line in lines {
        let (scheme, rest) = split(line.as_bytes());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            found.push((AUTHORIZATION, Form::Any, text(rest)));
        } else if basic && scheme.eq_ignore_ascii_case(b"basic") {
            let (form, token) = password(rest);
            found.push((AUTHORIZATION, form, token));
        }
    }
    if several && !found.is_empty() {
        return Err(TokenTrouble::Several);
    }
    for (name, form) in [(PRIVATE_TOKEN, Form::Private), (JOB_TOKEN, Form::Job)] {
        let lines = headers.get_all(&name).iter();
        found.extend(lines.map(|line| (name.clone(), form, text(line.as_bytes()))));
    }
    match found.len() {
        0 => Ok(None),
        1 => {
            let only = found
                .pop()
                .and_then(|(header, form, token)| Some(Presented { token: token?, form, header }));
            only.map(Some).ok_or(TokenTrouble::Malformed)
        },
        _ => Err(TokenTrouble::Several),
    }
}

/// Scheme and the rest of an `Authorization` line.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    line.split_at_checked(end).unwrap_or((line, &[]))
}

/// A token of signs that tokens have; none if it is anything else.
fn text(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let bytes = bytes.trim_ascii();
    let plain = (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(bytes).ok().filter(|_| plain)?;
    Some(Zeroizing::new(text.to_owned()))
}

/// The password of `Basic` (RFC 7617), whatever the name.
fn password(encoded: &[u8]) -> (Form, Option<Zeroizing<String>>) {
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok().map(Zeroizing::new);
    let at = decoded.as_ref().and_then(|pair| pair.iter().position(|byte| *byte == b':'));
    let parts = decoded.as_ref().zip(at).and_then(|(pair, at)| pair.split_at_checked(at));
    let Some((name, [_, password @ ..])) = parts else { return (Form::Any, None) };
    let form = if name == JOB_USER { Form::Job } else { Form::Any };
    (form, text(password))
}

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");
const JOB_TOKEN: HeaderName = HeaderName::from_static("job-token");

/// The name beside a `CI_JOB_TOKEN` in passwords.
const JOB_USER: &[u8] = b"gitlab-ci-token";

/// The longest token, in bytes: ID tokens of CI jobs list up to 200 groups.
const LONGEST: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    type Found = Result<Option<(String, Form, &'static str)>, u16>;

    fn found(fields: &[(&'static str, &str)], basic: bool) -> Found {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match presented(&headers, basic) {
            Ok(found) => Ok(found.map(|found| {
                let header = match found.header.as_str() {
                    "authorization" => "authorization",
                    "private-token" => "private-token",
                    _ => "job-token",
                };
                (found.token.to_string(), found.form, header)
            })),
            Err(trouble) => Err(crate::refusal::Refusal::Token(trouble).status().as_u16()),
        }
    }

    fn one(token: &str, form: Form, header: &'static str) -> (String, Form, &'static str) {
        (token.to_owned(), form, header)
    }

    #[test]
    fn each_place_is_found_and_told_apart() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let auth = "authorization";
        assert_eq!(found(&[], true), Ok(None));
        assert_eq!(found(&[("cookie", "a=b"), ("x-token", "c")], true), Ok(None));
        for spelling in ["Bearer abc", "bearer  abc ", "BEARER abc"] {
            assert_eq!(found(&[(auth, spelling)], false), Ok(Some(one("abc", Form::Any, auth))));
        }
        assert_eq!(
            found(&[("PRIVATE-TOKEN", "abc")], false),
            Ok(Some(one("abc", Form::Private, "private-token")))
        );
        assert_eq!(
            found(&[("job-token", "abc")], false),
            Ok(Some(one("abc", Form::Job, "job-token")))
        );
        assert_eq!(
            found(&[(auth, &basic("ann:a:b"))], true),
            Ok(Some(one("a:b", Form::Any, auth)))
        );
        assert_eq!(found(&[(auth, &basic(":abc"))], true), Ok(Some(one("abc", Form::Any, auth))));
        assert_eq!(
            found(&[(auth, &basic("gitlab-ci-token:x"))], true),
            Ok(Some(one("x", Form::Job, auth)))
        );
    }

    #[test]
    fn what_is_the_applications_stays_so() {
        for line in ["Basic YTpi", "Digest x", "Negotiate abc", "AWS4-HMAC-SHA256 x", "", "abc"] {
            assert_eq!(found(&[("authorization", line)], false), Ok(None), "{line}");
        }
        assert_eq!(found(&[("authorization", "Digest x")], true), Ok(None));
        assert_eq!(found(&[("private_token", "abc")], true), Ok(None), "another header");
    }

    #[test]
    fn what_is_no_token_is_refused_and_so_are_two() {
        let long = format!("Bearer {}", "x".repeat(LONGEST + 1));
        for line in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,Bearer b ",
            "Bearer \u{e4}",
            "Basic ",
            "Basic !!!",
            "Basic YWJj",
            "Basic YTo=",
            "Basic YTpiIGM=",
            &long,
        ] {
            assert_eq!(found(&[("authorization", line)], true), Err(401), "{line}");
        }
        let auth = ("authorization", "Bearer a");
        for both in [
            [auth, auth],
            [auth, ("authorization", "Digest x")],
            [auth, ("private-token", "a")],
            [("private-token", "a"), ("private-token", "a")],
            [("private-token", "a"), ("job-token", "")],
            [auth, ("job-token", "b")],
        ] {
            assert_eq!(found(&both, false), Err(400), "{both:?}");
        }
    }
}
