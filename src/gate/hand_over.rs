//! The host where everybody signs in (`server.sign_in_host`): how browsers get there from other hosts, and back with a ticket.
//!
//! ```text
//! wiki/sign_in ─▶ auth/sign_in?rd&nonce ─┬─ signed in ───────────────────────────────▶ wiki/handoff?ticket ─▶ rd
//!                                        └─▶ GitLab ─▶ auth/callback ─▶ auth/start?rd&nonce ──▲
//! ```
//!
//! After the callback the browser comes once more before it gets a ticket: so answers stay small, and a session cookie that this host loses is noticed here.
//! Whom a ticket is for is what `rd` says, once it is known to lead to a host that labgate serves; which GitLabs will do is what its route says.

use super::{
    Gate, encoded,
    endpoints::{Ask, is_asked_here},
    story::Story,
};
use crate::{
    authenticate::{Failed, Landed},
    body::Response,
    config::HostAndPort,
    refusal::{Attempt, Refusal, SignIn},
    respond,
    target::{Origin, Scheme, Target},
    telemetry::AuditEvent,
};

impl Gate {
    /// The host where everybody signs in, as the browser behind `target` calls it.
    pub(super) fn sign_in_origin(&self, target: &Target) -> Option<Origin> {
        let known = self.sign_in_host.as_ref()?;
        Some(sign_in_origin(known, self.public.as_ref(), target.origin.scheme))
    }

    /// The same, unless this is it.
    pub(super) fn signs_in_elsewhere(&self, target: &Target) -> Option<Origin> {
        self.sign_in_origin(target).filter(|origin| origin.host != target.origin.host)
    }

    /// Sends a browser that wants to sign in to `origin`, where everybody does.
    pub(super) async fn send_to<'g>(
        &'g self,
        origin: &Origin,
        path: &str,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, ref query, now } = *ask;
        let rd = self.landing(query.get("rd"), target);
        // The ticket is for the host that is wanted in the end, so it begins there.
        if let Some(there) = origin_of(&rd).filter(|there| there.host != target.origin.host) {
            let query = query.with(&[("rd", &rd)]);
            return Ok(respond::redirect(&format!("{there}{}{path}?{query}", self.prefix), []));
        }
        let round = self.round(ask, story).await?;
        let authenticator = &self.authenticator;
        let asked = authenticator.ask_for_hand_over(rd.clone(), round, target, headers, now)?;
        story.set_cookies.extend(asked.set_cookies);
        let mut set = vec![("rd", rd.as_str()), ("nonce", asked.nonce.as_str())];
        if !is_asked_here(headers) {
            set.push(("account", ""));
        }
        let query = query.with(&set);
        Ok(respond::redirect(&format!("{origin}{}{path}?{query}", self.prefix), []))
    }

    /// The nonce of a hand-over that this request is part of, and where to; none if the person is to stay on this host.
    pub(super) fn reply<'a>(&self, rd: &str, ask: &'a Ask<'_>) -> Option<(Origin, &'a str)> {
        let hub = self.sign_in_origin(ask.target)?;
        let nonce = Some(ask.query.get("nonce")).filter(|nonce| is_nonce(nonce))?;
        Some((origin_of(rd).filter(|there| there.host != hub.host)?, nonce))
    }

    /// Hands over who is signed in here with a GitLab that will do: `gitlab`, or any that the route at `rd` admits.
    pub(super) async fn hand_over<'g>(
        &'g self,
        rd: &str,
        gitlab: &str,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Option<Response>, Refusal> {
        let Ask { target, headers, now, .. } = *ask;
        let Some((origin, nonce)) = self.reply(rd, ask) else { return Ok(None) };
        let who = self.authenticator.authenticate(target, headers, now).await?;
        let session = who.session.clone();
        self.meet(who, ask, story);
        let will_do = |name: &str| {
            let (choices, _) = self.choices(rd);
            (gitlab.is_empty() || name == gitlab) && choices.iter().any(|it| it.name() == name)
        };
        let Some(session) = session.filter(|it| will_do(&it.identity.gitlab)) else {
            return Ok(None);
        };
        let ticket = self.authenticator.give_ticket(&session, &origin.to_string(), nonce, now)?;
        let location = format!("{origin}{}/handoff?ticket={ticket}", self.prefix);
        Ok(Some(respond::redirect(&location, [])))
    }

    /// Where a sign-in that another host waits for goes on.
    pub(super) fn way_back(&self, landed: &Landed, target: &Target) -> Option<String> {
        let hub = self.sign_in_origin(target).filter(|_| !landed.reply.is_empty())?;
        let (rd, nonce) = (encoded(&landed.rd), encoded(&landed.reply));
        let gitlab = encoded(&landed.session.identity.gitlab);
        Some(format!("{hub}{}/start?rd={rd}&nonce={nonce}&gitlab={gitlab}", self.prefix))
    }

    /// Takes a ticket of the host where everybody signs in.
    pub(super) async fn take_over<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, now, .. } = *ask;
        if self.signs_in_elsewhere(target).is_none() {
            return Err(Refusal::NotFound);
        }
        story.page = true;
        let origin = self.home(target, None).to_string();
        match self.authenticator.take_ticket(target, &origin, headers, now).await {
            Ok(landed) => {
                story.audit(AuditEvent::HandOver, Some(&landed.session));
                story.set_cookies.extend(landed.set_cookies);
                Ok(respond::redirect(&self.landing(&landed.rd, target), []))
            },
            Err(Failed { reason, rd, set_cookies }) => {
                story.set_cookies.extend(set_cookies);
                story.again = rd.map(|rd| self.sign_in_path(&self.landing(&rd, target)));
                Err(match reason {
                    Refusal::Attempt(Attempt::Ticket(_)) => self.lost_or(reason, ask),
                    reason => reason,
                })
            },
        }
    }

    /// The page for those who have signed in to go on in another tab.
    pub(super) async fn signed_in<'g>(
        &'g self,
        ask: &Ask<'_>,
        story: &mut Story<'g>,
    ) -> Result<Response, Refusal> {
        let Ask { target, headers, now, .. } = *ask;
        let who = self.authenticator.authenticate(target, headers, now).await?;
        let session = who.session.clone();
        self.meet(who, ask, story);
        let Some(session) = session else {
            let navigation = respond::is_navigation(&target.method, headers);
            return Err(Refusal::SignIn(SignIn { url: self.signed_in_url(target), navigation }));
        };
        let identity = &session.identity;
        let provider = self.authenticator.providers.get(&identity.gitlab);
        let gitlab = provider.map_or(identity.gitlab.as_str(), |provider| provider.label());
        Ok(respond::signed_in_page(&identity.username, gitlab, &self.voice(story)))
    }

    /// The URL that signs in and then says to go back to another tab.
    pub(super) fn signed_in_url(&self, target: &Target) -> String {
        let home = self.home(target, None);
        format!("{home}{}", self.sign_in_path(&format!("{}/signed_in", self.prefix)))
    }
}

/// The origin of the host where everybody signs in: browsers use one scheme for all hosts, and the public host's own port for that.
pub(super) fn sign_in_origin(
    known: &HostAndPort,
    public: Option<&Origin>,
    scheme: Scheme,
) -> Origin {
    if let Some(public) = public.filter(|public| public.host == known.host()) {
        return public.clone();
    }
    let mut origin = Origin { scheme, host: known.host().into(), port: None };
    origin.port = known.port().filter(|port| *port != origin.port_or_default());
    origin
}

fn origin_of(url: &str) -> Option<Origin> {
    Origin::of(&url::Url::parse(url).ok()?)
}

/// Whether this can be the state of a hand-over: 43 characters of base64url.
fn is_nonce(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() == 43 && text.bytes().all(is_sign)
}
