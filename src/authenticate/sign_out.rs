//! Signing out: the session ends for every copy of its cookie.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};

use super::{Authenticator, Landed, site};
use crate::{
    clock::Timestamp,
    session::{Overlay, Reading, Session},
    target::Target,
};

impl Authenticator {
    /// Ends the session of this browser, if it has one, and if its GitLab is to hear of it, its tokens there too, a little later; gives the `Set-Cookie` that clears it.
    pub async fn sign_out(
        &self,
        target: &Target,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> (Option<Arc<Session>>, HeaderValue) {
        let site = site(target);
        let ended = match self.codec.read(headers, site) {
            Reading::Session(found) => self.revoke(found.session, "sign_out", now).await,
            Reading::Nothing | Reading::Broken => None,
        };
        if let Some(session) = &ended {
            let provider = self.providers.get(&session.identity.gitlab);
            let same = provider.filter(|provider| provider.issuer() == session.identity.issuer);
            if let Some(provider) = same.filter(|provider| provider.revokes_on_sign_out()) {
                self.refresher.revoke_tokens(session.clone(), provider);
            }
        }
        (ended, self.codec.clear(site))
    }

    /// Ends the session that a browser had before it signed in anew; its cookie is about to be replaced.
    pub async fn replace(&self, target: &Target, headers: &HeaderMap, now: Timestamp) {
        if let Reading::Session(found) = self.codec.read(headers, site(target)) {
            self.revoke(found.session, "replaced", now).await;
        }
    }

    /// The same at the host where everybody signs in, whose sessions other hosts hold too. When several of them have sent the browser at once, the
    /// session that came first stays, and the one that has just `landed` goes: nobody is thrown out who has just come in, and whoever signs out does so
    /// everywhere. A session of another GitLab stays where it was handed to.
    pub async fn replace_shared(
        &self,
        target: &Target,
        headers: &HeaderMap,
        mut landed: Landed,
        now: Timestamp,
    ) -> Landed {
        let states = self.attempts.open_states(headers, site(target), now);
        let first = self.sign_ins.first(&states, &landed.session, now);
        if first.id != landed.session.id && self.join(first, &mut landed, target, now).await {
            return landed;
        }
        let Reading::Session(found) = self.codec.read(headers, site(target)) else { return landed };
        let known = found.session;
        if known.identity.gitlab != landed.session.identity.gitlab {
            return landed;
        }
        let same = known.identity.is_same_person(&landed.session.identity);
        let meanwhile = known.created >= landed.began;
        if meanwhile && same && self.join(known.clone(), &mut landed, target, now).await {
            return landed;
        }
        self.revoke(known, "replaced", now).await;
        landed
    }

    /// Gives the browser `first` instead of the session that it has just got; false if that has ended.
    async fn join(
        &self,
        first: Arc<Session>,
        landed: &mut Landed,
        target: &Target,
        now: Timestamp,
    ) -> bool {
        let standing = self.standing(first, false, now, self.recheck_timeout).await;
        let Ok(Some((first, _))) = standing else { return false };
        let Ok(packed) = self.codec.pack(&first, site(target), now) else { return false };
        let doubled = std::mem::replace(&mut landed.session, first);
        self.revoke(doubled, "doubled", now).await;
        if let Some(cookie) = landed.set_cookies.first_mut() {
            *cookie = packed.cookie;
        }
        true
    }

    /// Whether somebody or GitLab has ended `session`.
    pub async fn is_revoked(&self, session: &Arc<Session>, now: Timestamp) -> bool {
        let until = session.until(&self.deadlines);
        self.store.get(session, until, now).await.overlay == Some(Overlay::Revoked)
    }

    /// Ends `session`; gives the newest copy of it that is known, unless it has ended before.
    pub(super) async fn revoke(
        &self,
        session: Arc<Session>,
        cause: &'static str,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        let until = session.until(&self.deadlines);
        let session = match self.store.get(&session, until, now).await.overlay {
            Some(Overlay::Revoked) => return None,
            Some(Overlay::Newer(newer)) if newer.generation > session.generation => newer,
            Some(Overlay::Newer(_)) | None => session,
        };
        self.store.revoke(session.id, until, now).await;
        self.metrics.session_revoked(cause);
        Some(session)
    }
}

/// Whether a request that changes something comes from a page of the same origin, by what browsers say (Fetch, `Sec-Fetch-Site`; RFC 6454, `Origin`).
///
/// A request that says neither is no browser's, or an old one's whose `SameSite` cookie is all there is: refused.
pub fn is_same_origin(target: &Target, headers: &HeaderMap) -> bool {
    let fetch = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    debug_assert_ne!(target.method, Method::GET, "reading needs no such check");
    match (fetch, origin) {
        (Some(site), _) => site == b"same-origin",
        (None, Some(origin)) => origin == target.origin.to_string().as_bytes(),
        (None, None) => false,
    }
}
