//! The pages: sign-in, signed-in, refused, unsent, sign-out, signed-out, and one for everything that goes wrong. Templates escape every value.

use askama::Template;
use http::{HeaderValue, StatusCode, header};

use super::{
    Voice, answer,
    style::{STYLE, form_policy, page_policy},
};
use crate::{
    body::{Body, Response},
    refusal::{Attempt, Fault, Forbidden, FrontTrouble, Refusal, Words},
};

/// One GitLab that may be signed in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What its button says.
    pub label: String,
    /// Absolute URL or path that begins a sign-in there; followed with GET.
    pub url: String,
}

/// What the sign-out page asks about.
#[derive(Clone, Copy, Debug)]
pub struct SignOut<'a> {
    /// Username of who is signed in; none if nobody is.
    pub username: Option<&'a str>,
    /// Label of the GitLab that they come from.
    pub gitlab: Option<&'a str>,
    /// Where to go afterwards, already checked; sent along as `rd`.
    pub rd: &'a str,
}

/// What the signed-out page offers.
#[derive(Clone, Copy, Debug)]
pub struct SignedOut<'a> {
    /// Label and URL of the GitLab where they are still signed in, if known.
    pub gitlab: Option<(&'a str, &'a str)>,
    /// Where to go on, already checked.
    pub rd: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignInPage<'a> {
    frame: Frame<'a>,
    destination: String,
    choices: &'a [Choice],
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    frame: Frame<'a>,
    words: Words,
    forbidden: &'a Forbidden,
    switch: &'a str,
    sign_out: String,
}

#[derive(Template)]
#[template(path = "unsent.html")]
struct UnsentPage<'a> {
    frame: Frame<'a>,
    words: Words,
    sign_in: &'a str,
}

#[derive(Template)]
#[template(path = "signed-in.html")]
struct SignedInPage<'a> {
    frame: Frame<'a>,
    username: &'a str,
    gitlab: &'a str,
    sign_out: String,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: Frame<'a>,
    words: Words,
    status: u16,
    code: &'a str,
    way_on: Option<WayOn>,
    wait: Option<u64>,
}

#[derive(Template)]
#[template(path = "sign-out.html")]
struct SignOutPage<'a> {
    frame: Frame<'a>,
    ask: &'a SignOut<'a>,
    action: String,
    sign_in: String,
}

#[derive(Template)]
#[template(path = "signed-out.html")]
struct SignedOutPage<'a> {
    frame: Frame<'a>,
    done: &'a SignedOut<'a>,
    sign_in: String,
}

/// What all pages have.
struct Frame<'a> {
    title: &'a str,
    style: &'static str,
    request_id: &'a str,
}

impl<'a> Frame<'a> {
    fn new(title: &'a str, voice: &Voice<'a>) -> Self {
        Self { title, style: STYLE, request_id: voice.request_id }
    }
}

/// The link that leads on from an error.
struct WayOn {
    label: &'static str,
    url: String,
}

/// `url` as a link: http, https or a path of this host. Templates escape text, but would let `javascript:` pass.
fn link(url: &str) -> &str {
    let is_web = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
    // Browsers read a backslash as a slash, and two slashes as another host.
    let is_path = url.starts_with('/') && !url.starts_with("//") && !url.starts_with("/\\");
    if is_web || is_path || url.is_empty() { url } else { "/" }
}

/// The page that lets people choose where to sign in; `destination` is host and path of what they asked for, whose query is not shown.
pub fn sign_in_page(choices: &[Choice], destination: &str, voice: &Voice<'_>) -> Response {
    let page = SignInPage {
        frame: Frame::new("Sign in", voice),
        destination: shortened(destination.split(['?', '#']).next().unwrap_or_default()),
        choices,
    };
    render(StatusCode::OK, &page, page_policy())
}

/// The page that asks whether to sign out; its form posts to the same path.
pub fn sign_out_page(ask: &SignOut<'_>, voice: &Voice<'_>) -> Response {
    let page = SignOutPage {
        frame: Frame::new("Sign out", voice),
        ask,
        action: voice.sign_out(),
        sign_in: voice.sign_in_again(),
    };
    let mut response = render(StatusCode::OK, &page, form_policy(ask.rd));
    // With no-referrer the browser would send `Origin: null`, and the form could not be told from another site's.
    let same_origin = HeaderValue::from_static("same-origin");
    response.headers_mut().insert(header::REFERRER_POLICY, same_origin);
    response
}

/// The page after signing out; the caller adds the cookies that end the session.
pub fn signed_out_page(done: &SignedOut<'_>, voice: &Voice<'_>) -> Response {
    let page = SignedOutPage {
        frame: Frame::new("Signed out", voice),
        done,
        sign_in: voice.sign_in_again(),
    };
    render(StatusCode::OK, &page, page_policy())
}

/// The page for those who have signed in to go on in another tab.
pub fn signed_in_page(username: &str, gitlab: &str, voice: &Voice<'_>) -> Response {
    let frame = Frame::new("You are signed in", voice);
    let page = SignedInPage { frame, username, gitlab, sign_out: voice.sign_out() };
    render(StatusCode::OK, &page, page_policy())
}

/// The page for those who are signed in and may not pass; `switch` is where they sign in as somebody else.
pub(super) fn forbidden(
    refusal: &Refusal,
    forbidden: &Forbidden,
    switch: &str,
    voice: &Voice<'_>,
) -> Response {
    let words = refusal.words();
    let frame = Frame::new(words.title, voice);
    let page = RefusedPage { frame, words, forbidden, switch, sign_out: voice.sign_out() };
    render(refusal.status(), &page, page_policy())
}

/// The page that says any other `refusal`.
pub(super) fn refused(refusal: &Refusal, voice: &Voice<'_>) -> Response {
    let words = refusal.words();
    let frame = Frame::new(words.title, voice);
    if let Refusal::Unsent(sign_in) = refusal {
        let page = UnsentPage { frame, words, sign_in: &sign_in.url };
        return render(refusal.status(), &page, page_policy());
    }
    let page = ErrorPage {
        frame,
        words,
        status: refusal.status().as_u16(),
        code: refusal.code(),
        way_on: way_on(refusal, voice),
        wait: refusal.retry_after().map(|wait| wait.as_secs().max(1)),
    };
    render(refusal.status(), &page, page_policy())
}

/// What can be tried from here, if anything helps.
fn way_on(refusal: &Refusal, voice: &Voice<'_>) -> Option<WayOn> {
    match refusal {
        Refusal::Attempt(Attempt::Unproven(_)) => {
            Some(WayOn { label: "Start again", url: voice.sign_in_again() })
        },
        Refusal::Attempt(_) if refusal.fault() == Fault::Us => None,
        Refusal::Attempt(_) => Some(WayOn { label: "Start again", url: voice.sign_in_again() }),
        Refusal::Unconfirmed { .. }
        | Refusal::Upstream(_)
        | Refusal::Exhausted(_)
        | Refusal::Front(FrontTrouble::Unused)
        | Refusal::Internal(_) => Some(WayOn {
            label: "Try again",
            // The address of the page itself.
            url: String::new(),
        }),
        Refusal::Malformed(_)
        | Refusal::Misdirected
        | Refusal::NotFound
        | Refusal::MethodNotAllowed(_)
        | Refusal::SignIn(_)
        | Refusal::Token(_)
        | Refusal::Unsent(_)
        | Refusal::Forbidden(_)
        | Refusal::CrossSite
        | Refusal::Hook(_)
        | Refusal::Api(_)
        | Refusal::Front(_)
        | Refusal::Renew(_) => None,
    }
}

/// At most 80 characters, the middle left out, so that both the host and the end can be read.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    let count = text.chars().count();
    if count <= MOST {
        return text.to_owned();
    }
    let head = text.chars().take(MOST * 5 / 8);
    let tail = text.chars().skip(count - (MOST * 3 / 8 - 1));
    head.chain(['…']).chain(tail).collect()
}

fn render(status: StatusCode, page: &impl Template, policy: HeaderValue) -> Response {
    // Templates only fail when writing does, and a `String` takes everything.
    let html = page.render().unwrap_or_default();
    let mut response = answer::own(status, Body::full(html), policy);
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_web_or_stay_on_this_host() {
        for good in ["", "/", "/oauth2/start?rd=%2F", "https://app.test/a", "http://app.test"] {
            assert_eq!(link(good), good);
        }
        for bad in
            ["javascript:alert(1)", "//evil.test", "/\\evil.test", "data:text/html,x", " /", "a"]
        {
            assert_eq!(link(bad), "/", "{bad}");
        }
    }
}
