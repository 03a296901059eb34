//! Sign-ins that must not begin, and those that lead nowhere: who only fetches, who sits in another site's frame, whose cookies don't come back.
//!
//! What a request shows of the likely cause goes to the person as a page and to the operator as a line of the log.

use http::{HeaderMap, HeaderValue};

use super::{Gate, endpoints::Ask, story::Story};
use crate::{
    authenticate::Presence,
    refusal::{Attempt, Lost, Refusal, SignIn},
    target::Target,
};

impl Gate {
    /// Lets only a person go on who navigates: whatever else is sent here would collect cookies of sign-ins that nobody ends.
    ///
    /// # Errors
    /// 401 with the address for those who fetch.
    pub(super) fn must_navigate(&self, ask: &Ask<'_>) -> Result<(), Refusal> {
        let Ask { target, headers, ref query, .. } = *ask;
        let fetched = text(headers, "sec-fetch-mode").is_some_and(|mode| mode != b"navigate");
        if fetched {
            let rd = self.landing(query.get("rd"), target);
            let url = format!("{}{}", self.home(target, None), self.sign_in_path(&rd));
            return Err(Refusal::SignIn(SignIn { url, navigation: false }));
        }
        Ok(())
    }

    /// Which round of sign-ins begins with this request.
    ///
    /// # Errors
    /// [`Attempt::Loop`] if the rounds before have led nowhere; [`Attempt::Lost`] in another site's frame.
    pub(super) async fn round<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<u8, Refusal> {
        let Ask { target, headers, now, .. } = *ask;
        // Frames of the same site work: cookies come along, GitLab's too if it is of that site. Those of another never do.
        if is_framed(headers) && text(headers, "sec-fetch-site") == Some(b"cross-site") {
            return Err(Attempt::Lost(Lost::Frame).into());
        }
        match self.authenticator.round(target, headers, now).await {
            Ok(round) => Ok(round),
            Err((presence, forget)) => {
                let lost = likely(target, headers, presence);
                tracing::warn!(
                    request_id = story.request_id.as_str(),
                    host = target.origin.host,
                    cause = lost.name(),
                    "a browser signs in again and again: it does not bring its session back"
                );
                story.page = true;
                story.set_cookies.extend(forget);
                story.again = Some(self.sign_in_path(&self.landing(ask.query.get("rd"), target)));
                Err(Attempt::Loop(lost).into())
            },
        }
    }

    /// `reason`, or what shows to be the cause of it where the browser brings none of the cookies that a sign-in leaves.
    pub(super) fn lost_or(&self, reason: Refusal, ask: &Ask<'_>) -> Refusal {
        if self.authenticator.has_begun(ask.target, ask.headers) {
            return reason;
        }
        match likely(ask.target, ask.headers, Presence::Gone) {
            Lost::Cookies => reason,
            lost => {
                tracing::warn!(
                    host = ask.target.origin.host,
                    cause = lost.name(),
                    "a sign-in can't be finished: its cookie does not come back"
                );
                Attempt::Lost(lost).into()
            },
        }
    }
}

/// The likely cause of a cookie that does not come back.
fn likely(target: &Target, headers: &HeaderMap, presence: Presence) -> Lost {
    let said = text(headers, "x-forwarded-proto");
    let scheme = target.origin.scheme.as_str();
    let differs = said.is_some_and(|said| !said.eq_ignore_ascii_case(scheme.as_bytes()));
    let host = text(headers, "x-forwarded-host");
    let other_host = host.is_some_and(|host| {
        let name = host.split(|byte| *byte == b':').next().unwrap_or_default();
        !name.eq_ignore_ascii_case(target.origin.host.as_bytes())
    });
    match presence {
        Presence::Unreadable => Lost::Keys,
        Presence::Over => Lost::Clock,
        Presence::Fine | Presence::Gone if is_framed(headers) => Lost::Frame,
        Presence::Fine | Presence::Gone if target.trusted && differs => Lost::Http,
        Presence::Fine | Presence::Gone if differs => Lost::Untold,
        Presence::Fine | Presence::Gone if !target.trusted && other_host => Lost::Host,
        Presence::Fine | Presence::Gone if is_in_the_clear(target, headers) => Lost::Http,
        Presence::Fine | Presence::Gone => Lost::Cookies,
    }
}

/// Whether a browser seems to use http where https is meant: over https, all of them say how they fetch (Fetch Metadata).
fn is_in_the_clear(target: &Target, headers: &HeaderMap) -> bool {
    let browser = text(headers, "user-agent").is_some_and(|agent| agent.starts_with(b"Mozilla/"));
    target.origin.is_secure() && browser && text(headers, "sec-fetch-mode").is_none()
}

fn is_framed(headers: &HeaderMap) -> bool {
    let kinds: [&[u8]; 5] = [b"iframe", b"frame", b"embed", b"object", b"fencedframe"];
    text(headers, "sec-fetch-dest").is_some_and(|dest| kinds.contains(&dest))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}
