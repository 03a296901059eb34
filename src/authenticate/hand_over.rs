//! Hand-over: who signed in at the host where everybody does gets a session of the same id on another host.
//!
//! ```text
//! other host    ask        state in a sealed cookie of this browser ──▶ sign-in host, with that state as `nonce`
//! sign-in host  give       session, nonce, other host ──sealed──▶ ticket
//! other host    take       ticket ▶ cookie of its nonce ▶ used for the first time ▶ session stands ──▶ cookie of this host
//! ```
//!
//! The sessions of all hosts share their id, so that tokens, rechecks and revocations are one in the store: GitLab's refresh token exists once. A
//! ticket that is stolen lacks the cookie, one of another host does not open, and nothing is spent before the cookie was seen.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::{Authenticator, Failed, Landed, site};
use crate::{
    clock::Timestamp,
    refusal::{Attempt, Refusal},
    session::{Reading, Session, Ticket, Wish},
    target::Target,
};

/// A hand-over that has begun.
#[derive(Debug)]
pub struct Asked {
    /// What the ticket has to name; 43 characters of base64url.
    pub nonce: String,
    /// `Set-Cookie` values that keep it.
    pub set_cookies: Vec<HeaderValue>,
}

impl Authenticator {
    /// Begins a hand-over to this host that leads to `rd`.
    ///
    /// # Errors
    /// [`Refusal::Internal`] without random numbers.
    pub fn ask_for_hand_over(
        &self,
        rd: String,
        round: u8,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Asked, Refusal> {
        let empty = String::new;
        let wish = Wish { gitlab: empty(), rd, redirect_uri: empty(), reply: empty(), round };
        let (attempt, set_cookies) = self
            .attempts
            .begin(headers, site(target), wish, now)
            .map_err(|error| Refusal::Internal(error.into()))?;
        Ok(Asked { nonce: attempt.state, set_cookies })
    }

    /// A ticket that hands `session` over to `origin`, for the browser that has the cookie of `nonce` there.
    ///
    /// # Errors
    /// [`Refusal::Internal`] without random numbers.
    pub fn give_ticket(
        &self,
        session: &Session,
        origin: &str,
        nonce: &str,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let ticket = self.tickets.seal(session, origin, nonce, now);
        self.metrics.hand_over("given");
        ticket.map_err(|error| Refusal::Internal(error.into()))
    }

    /// Takes the ticket that `target`, at `origin`, brings.
    ///
    /// # Errors
    /// Why it gives no session.
    pub async fn take_ticket(
        &self,
        target: &Target,
        origin: &str,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Landed, Failed> {
        let taken = self.try_ticket(target, origin, headers, now).await;
        let result = taken.as_ref().map_or_else(|failed| failed.reason.code(), |_| "taken");
        self.metrics.hand_over(result);
        taken
    }

    async fn try_ticket(
        &self,
        target: &Target,
        origin: &str,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Landed, Failed> {
        let site = site(target);
        let ticket = only_ticket(target).ok_or_else(|| refused("none, or more than one"))?;
        let opened = self.tickets.open(&ticket, origin, now).map_err(|error| {
            tracing::debug!(reason = %error, "a hand-over is refused");
            Attempt::Ticket("it does not open")
        })?;
        let (attempt, ended) = self
            .attempts
            .take(headers, site, &opened.nonce, now)
            .map_err(|error| refused_for("this browser has not begun it", &error))?;
        if !attempt.wish.gitlab.is_empty() {
            return Err(refused("its nonce is a sign-in's").into());
        }
        let failed = |reason: Refusal| Failed {
            reason,
            rd: Some(attempt.wish.rd.clone()),
            set_cookies: vec![ended.clone()],
        };
        let session = self.first_use(opened, now).await.map_err(|reason| failed(reason.into()))?;
        let standing = self.standing(session, false, now, self.recheck_timeout).await;
        let session = standing
            .map_err(failed)?
            .map(|(session, _)| session)
            .ok_or_else(|| failed(refused("its session has ended").into()))?;
        let packed = self.codec.pack(&session, site, now);
        let packed = packed.map_err(|error| failed(Refusal::Internal(error.into())))?;
        self.make_room(target, headers, &session, now).await;
        let mut set_cookies = vec![packed.cookie, ended];
        set_cookies.extend(self.attempts.landed(site, attempt.wish.round, now));
        let began = attempt.created;
        Ok(Landed { rd: attempt.wish.rd, reply: String::new(), began, session, set_cookies })
    }

    /// The session of a ticket that comes for the first time.
    async fn first_use(&self, ticket: Ticket, now: Timestamp) -> Result<Arc<Session>, Attempt> {
        match self.store.spend(&ticket.id, ticket.until, now).await {
            Ok(true) => Ok(ticket.session),
            Ok(false) => Err(refused("it was used before")),
            Err(error) => Err(Attempt::Unproven(error.into())),
        }
    }

    /// Ends the session that this host's cookie still holds, unless it is the one that was handed over.
    async fn make_room(
        &self,
        target: &Target,
        headers: &HeaderMap,
        session: &Session,
        now: Timestamp,
    ) {
        if let Reading::Session(found) = self.codec.read(headers, site(target))
            && found.session.id != session.id
        {
            self.revoke(found.session, "replaced", now).await;
        }
    }
}

/// The one parameter `ticket`; none if it is missing or doubled.
fn only_ticket(target: &Target) -> Option<String> {
    let query = target.path_and_query().split_once('?').map_or("", |(_, query)| query);
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    let mut tickets = pairs.filter(|(name, _)| name == "ticket");
    let ticket = tickets.next().map(|(_, value)| value.into_owned());
    ticket.filter(|_| tickets.next().is_none())
}

fn refused(reason: &'static str) -> Attempt {
    tracing::debug!(reason, "a hand-over is refused");
    Attempt::Ticket(reason)
}

fn refused_for(reason: &'static str, error: &dyn std::error::Error) -> Attempt {
    tracing::debug!(reason, %error, "a hand-over is refused");
    Attempt::Ticket(reason)
}
