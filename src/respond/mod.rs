//! The answer when nothing is forwarded: a `Refusal` or a page of labgate's own, in the caller's language.
//!
//! ```text
//! Refusal ─▶ 302 to sign in      a person navigates
//!         ─▶ page                the caller prefers HTML
//!         ─▶ problem document    everybody else (RFC 9457)
//! ```
//!
//! To a front proxy that asks in forward-auth the same is said in its dialect. Every answer but public keys is `no-store`; none can be framed or sniffed, or loads
//! anything. The words are `refusal`'s; which answer is due is decided by the gate.

mod answer;
mod caller;
mod dialect;
mod pages;
mod problem;
mod style;

pub use self::{
    answer::{done, json, key_set, redirect, see_other},
    caller::{is_form, is_navigation, prefers_html},
    dialect::allow,
    pages::{
        Choice, SignOut, SignedOut, sign_in_page, sign_out_page, signed_in_page, signed_out_page,
    },
};
use crate::{
    body::Response,
    config::Dialect,
    refusal::{Refusal, SignIn},
};

/// How to speak to the caller of one request.
#[derive(Clone, Copy, Debug)]
pub struct Voice<'a> {
    /// Whether the caller prefers a page to a problem document; [`prefers_html`] tells.
    pub html: bool,
    /// What the log calls this request.
    pub request_id: &'a str,
    /// The path prefix that labgate owns, such as `/oauth2`.
    pub prefix: &'a str,
    /// Where to begin again after a sign-in that did not work out; by default the sign-in page without a return address.
    pub again: Option<&'a str>,
    /// The front proxy that passes the answer on; none if the client reads it.
    pub front: Option<Dialect>,
}

impl Voice<'_> {
    fn sign_in_again(&self) -> String {
        self.again.map_or_else(|| format!("{}/sign_in", self.prefix), str::to_owned)
    }

    fn sign_out(&self) -> String {
        format!("{}/sign_out", self.prefix)
    }
}

/// The answer that says `refusal`: a redirect to sign in, a page, or a problem document.
pub fn refuse(refusal: &Refusal, voice: &Voice<'_>) -> Response {
    let mut response = match refusal {
        Refusal::SignIn(SignIn { url, navigation, .. }) if *navigation => redirect(url, []),
        Refusal::Renew(url) => redirect(url, []),
        // Scripts and programs can do nothing with a page, so they get the URL as data even if they would accept HTML.
        Refusal::SignIn(_) | Refusal::Token(_) => problem::document(refusal, voice),
        // Nor can whoever brought a token: the page is for those who can sign in.
        Refusal::Forbidden(forbidden) => match forbidden.switch_url() {
            Some(switch) if voice.html => pages::forbidden(refusal, forbidden, switch, voice),
            _ => problem::document(refusal, voice),
        },
        _ if voice.html => pages::refused(refusal, voice),
        _ => problem::document(refusal, voice),
    };
    answer::explain_by_headers(refusal, response.headers_mut());
    if let Some(dialect) = voice.front {
        dialect::translate(refusal, dialect, &mut response);
    }
    response
}

#[cfg(test)]
mod tests;
