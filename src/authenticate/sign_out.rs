//! Signing out: the session ends for every copy of its cookie.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};

use super::{Authenticator, site};
use crate::{
    clock::Timestamp,
    session::{Overlay, Reading, Session},
    target::Target,
};

impl Authenticator {
    /// Ends the session of this browser, if it has one; gives the `Set-Cookie` that clears it.
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
        (ended, self.codec.clear(site))
    }

    /// Ends the session that a browser had before it signed in anew; its cookie is about to be replaced.
    pub async fn replace(&self, target: &Target, headers: &HeaderMap, now: Timestamp) {
        if let Reading::Session(found) = self.codec.read(headers, site(target)) {
            self.revoke(found.session, "replaced", now).await;
        }
    }

    /// Whether somebody or GitLab has ended `session`.
    pub async fn is_revoked(&self, session: &Arc<Session>, now: Timestamp) -> bool {
        let until = session.until(&self.deadlines);
        self.store.get(session, until, now).await.overlay == Some(Overlay::Revoked)
    }

    async fn revoke(
        &self,
        session: Arc<Session>,
        cause: &'static str,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        if self.is_revoked(&session, now).await {
            return None;
        }
        self.store.revoke(session.id, session.until(&self.deadlines), now).await;
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
