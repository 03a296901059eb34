//! The sample app's pages: each greets whoever labgate says it is, and shows the headers that say so.
//!
//! One static script, on the live page; everything a header says is escaped by askama. Which page is for whom is left to labgate.

use askama::Template;
use http::{HeaderMap, StatusCode};

use crate::demo::{
    answer::{self, Answer},
    gitlab,
};

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A page of the app: its path, its title, and for whom the demo opens it.
struct Page {
    path: &'static str,
    title: &'static str,
    audience: &'static str,
}

const PAGES: [Page; 5] = [
    Page { path: "/", title: "Home", audience: "Open to everybody" },
    Page { path: "/private", title: "Private", audience: "For everybody who is signed in" },
    Page { path: "/team", title: "Team", audience: "For members of the group acme" },
    Page {
        path: "/maintainers",
        title: "Maintainers",
        audience: "For maintainers and owners of acme/ops",
    },
    Page {
        path: "/live",
        title: "Live",
        audience: "A counter and an echo, streamed to whoever is signed in",
    },
];

/// What is shown instead of a page that is not there.
const MISSING: Page = Page { path: "", title: "No such page", audience: "" };

#[derive(Template)]
#[template(path = "app_page.html")]
struct AppPage<'a> {
    pages: &'a [Page],
    here: &'a Page,
    /// The display of who asks, if anybody is signed in.
    user: Option<String>,
    identity: Vec<(String, String)>,
    sign_in: String,
}

/// One of the pages, or the 404.
pub(super) fn page(path: &str, headers: &HeaderMap) -> Answer {
    let found = PAGES.iter().find(|page| page.path == path);
    let here = found.unwrap_or(&MISSING);
    let status = found.map_or(StatusCode::NOT_FOUND, |_| StatusCode::OK);
    let identity = identity(headers);
    let value = |name: &str| identity.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let user = value("x-forwarded-preferred-username").or_else(|| value("x-forwarded-user"));
    let page = AppPage {
        pages: &PAGES,
        here,
        user: user.filter(|user| !user.is_empty()),
        sign_in: format!(
            "/oauth2/sign_in?rd={}",
            if here.path.is_empty() { "/" } else { here.path }
        ),
        identity,
    };
    answer::page(status, POLICY, page.render())
}

/// The headers by which labgate says who asks.
fn identity(headers: &HeaderMap) -> Vec<(String, String)> {
    const KNOWN: [&str; 4] = [
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-preferred-username",
    ];
    let told = headers.iter().filter(|(name, _)| {
        KNOWN.contains(&name.as_str()) || name.as_str().starts_with("x-labgate-")
    });
    told.map(|(name, value)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    })
    .collect()
}

pub(super) fn stylesheet() -> Answer {
    answer::typed(StatusCode::OK, "text/css; charset=utf-8", gitlab::STYLESHEET)
}

pub(super) fn script() -> Answer {
    const SCRIPT: &str = include_str!("../pages/live.js");
    answer::typed(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)
}
