//! What upstreams are told about the user: the headers of `[identity.headers]`, the assertion and the access token among them.
//!
//! ```text
//! lasting   username, groups …    rendered once for a session's cookie
//! passing   assertion             signed once for a session or token, an origin and half a lifetime, then ready
//!           access_token          as the session has it, on routes that ask for it; the token of a caller goes nowhere
//! ```

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Gate, Permit,
    ready::{Ready, Subject},
};
use crate::{
    clock::Timestamp,
    identity::{Asserted, AssertionError, Assertions, Occasion, Passing, Signed},
    refusal::Refusal,
    target::Target,
};

/// Signs assertions and keeps those that can be handed on again.
#[derive(Debug)]
pub(super) struct Asserting {
    assertions: Assertions,
    ready: Ready,
}

impl Asserting {
    /// What an assertion of labgate's own says.
    pub(super) fn read(&self, text: &str, now: Timestamp) -> Result<Asserted, AssertionError> {
        self.assertions.read(text, now)
    }

    pub(super) fn new(assertions: Assertions) -> Self {
        Self { assertions, ready: Ready::default() }
    }

    /// The public keys as a JWKS document.
    pub(super) fn published(&self) -> &str {
        self.assertions.published()
    }
}

impl Gate {
    /// Says in `headers`, from which everything like it was stripped, who holds `permit`; nothing if nobody does.
    ///
    /// # Errors
    /// When an assertion is wanted and can't be made: an application that relies on it must not be asked without.
    pub(super) fn tell(
        &self,
        permit: &Permit<'_>,
        target: &Target,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        headers.extend(self.lasting(permit).iter().cloned());
        headers.extend(self.passing(permit, target, now, ROOMY)?);
        Ok(())
    }

    /// The headers that say who holds `permit` in what lasts; none if nobody does.
    pub(super) fn lasting<'p>(&self, permit: &'p Permit<'_>) -> &'p [(HeaderName, HeaderValue)] {
        let who = permit.who();
        let Some(identity) = who.identity() else { return &[] };
        who.told.get_or_init(|| self.headers.render(identity))
    }

    /// The headers that say who holds `permit` in what passes: the assertion, with so much `room` for groups, and the access token.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub(super) fn passing(
        &self,
        permit: &Permit<'_>,
        target: &Target,
        now: Timestamp,
        room: usize,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
        let subject = Subject::of(permit.who()).filter(|_| self.headers.has_passing());
        let Some(subject) = subject else { return Ok(Vec::new()) };
        let assertion = match &self.asserting {
            Some(asserting) if self.headers.asserts() => {
                Some(self.assertion(asserting, subject, target, now, room)?)
            },
            Some(_) | None => None,
        };
        let tokens = subject.session().map(|session| &session.tokens);
        let good = tokens.filter(|tokens| permit.route().access_token && now < tokens.expires);
        let passing = Passing {
            assertion: assertion.as_ref(),
            access_token: good.map(|tokens| tokens.access.as_str()),
        };
        Ok(self.headers.render_passing(subject.identity(), passing).collect())
    }

    /// An assertion for the host of `target` that is good for another half of its lifetime.
    fn assertion(
        &self,
        asserting: &Asserting,
        subject: Subject<'_>,
        target: &Target,
        now: Timestamp,
        room: usize,
    ) -> Result<HeaderValue, Refusal> {
        let sign = || {
            let signed = self.signed(&asserting.assertions, subject, target, now, room)?;
            self.shared.metrics.assertion_signed();
            if let Some(session) = subject.session().filter(|_| !self.apis.is_empty()) {
                // Whoever shows it asks GitLab with this session's token.
                self.shared.store.remember(session);
            }
            if signed.was_cut {
                tracing::warn!(
                    user = %subject.identity(),
                    "groups were left out of an assertion: a header has no room for them; narrow `identity.groups` to those that the application needs"
                );
            }
            Ok((signed.value, signed.until))
        };
        asserting
            .ready
            .get_or_sign(subject, &target.origin, room, now, sign)
            .map_err(Refusal::Internal)
    }

    fn signed(
        &self,
        assertions: &Assertions,
        subject: Subject<'_>,
        target: &Target,
        now: Timestamp,
        room: usize,
    ) -> Result<Signed, Box<dyn std::error::Error + Send + Sync>> {
        let issuer = self.public.as_ref().unwrap_or(&target.origin).to_string();
        let session = subject.session().map(|session| session.id.alias());
        let occasion = Occasion {
            issuer: &issuer,
            audience: &target.origin.host,
            session: session.as_deref(),
            id: self.shared.random.bytes()?,
            now,
            ends: subject.ends(),
            room,
        };
        Ok(assertions.sign(subject.identity(), &occasion)?)
    }
}

/// Bytes of groups in an assertion for an application that reads it itself: most servers take heads of 8 KB.
pub(super) const ROOMY: usize = 4096;

/// The same for one that a front proxy copies: nginx keeps 4 KB for all headers of an answer.
pub(super) const NARROW: usize = 800;
