//! The bytes inside a sealed session: a version, then postcard, compressed where that is shorter.
//!
//! ```text
//! bytes = version | 0 | postcard
//!       | version | 1 | length of the postcard, u16 little-endian | lz4 block
//! ```
//!
//! Postcard does not describe itself: each version has a struct of its own, and a reader keeps the structs of the versions before, so that
//! replicas of two releases read each other's cookies. Names of groups and people come from GitLab, never from a request, so that what a
//! stranger can choose is not compressed beside a token.

use lz4_flex::block;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Session, SessionId, Tokens, token};
use crate::{
    clock::Timestamp,
    config::AccessLevel,
    identity::{Identity, Membership, ProjectMembership},
};

/// Why bytes are no session; they were sealed by us, so another release or a flaw made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PayloadError {
    #[error("a session of version {0} can't be read")]
    Version(u8),
    #[error("the session can't be decompressed")]
    Compression,
    #[error("the session can't be decoded")]
    Decoding,
}

/// The session has more than 64 KiB before compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) usize);

/// What is written; 1 lacked `issued`, 2 the flags of the account and the projects.
const VERSION: u8 = 3;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;

#[derive(Serialize, Deserialize)]
struct V1<'a> {
    id: SessionId,
    #[serde(borrow)]
    gitlab: &'a str,
    issuer: &'a str,
    sub: &'a str,
    username: &'a str,
    name: &'a str,
    email: Option<&'a str>,
    groups: Vec<(&'a str, u8)>,
    ruled_groups: u32,
    created: u64,
    seen: u64,
    checked: u64,
    access: token::Short<'a>,
    refresh: Option<token::Short<'a>>,
    expires: u64,
    scope: &'a str,
    generation: u32,
}

#[derive(Serialize, Deserialize)]
struct V2<'a> {
    #[serde(borrow)]
    before: V1<'a>,
    issued: u64,
}

#[derive(Serialize, Deserialize)]
struct V3<'a> {
    #[serde(borrow)]
    before: V2<'a>,
    two_factor: Option<bool>,
    external: Option<bool>,
    /// Level 0 is no member.
    projects: Vec<(&'a str, u8)>,
}

/// The bytes of `session` with its first `groups` groups.
pub(super) fn encode(session: &Session, groups: usize) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    let Session { identity, tokens, .. } = session;
    let access = token::shorten(&tokens.access);
    let refresh = tokens.refresh.as_ref().map(|token| token::shorten(token));
    let groups = identity.groups.iter().take(groups);
    let v1 = V1 {
        id: session.id,
        gitlab: &identity.gitlab,
        issuer: &identity.issuer,
        sub: &identity.sub,
        username: &identity.username,
        name: &identity.name,
        email: identity.email.as_deref(),
        groups: groups.map(|group| (group.path.as_str(), group.level.number())).collect(),
        ruled_groups: u32::try_from(session.ruled_groups).unwrap_or(u32::MAX),
        created: session.created.unix(),
        seen: session.seen.unix(),
        checked: session.checked.unix(),
        access: access.short(),
        refresh: refresh.as_ref().map(token::Shortened::short),
        expires: tokens.expires.unix(),
        scope: &tokens.scope,
        generation: session.generation,
    };
    let v2 = V2 { before: v1, issued: tokens.issued.unix() };
    let level = |level: Option<AccessLevel>| level.map_or(0, AccessLevel::number);
    let projects = identity.projects.iter();
    let v3 = V3 {
        before: v2,
        two_factor: identity.two_factor,
        external: identity.external,
        projects: projects.map(|project| (project.path.as_str(), level(project.level))).collect(),
    };
    let bytes = postcard::to_allocvec(&v3).map_err(|_| TooLong(usize::MAX))?;
    compress(&Zeroizing::new(bytes))
}

/// The session in `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Session, PayloadError> {
    let (version, plain) = decompress(bytes)?;
    let decoded = match version {
        1 => postcard::take_from_bytes::<V1<'_>>(&plain).map(|(v1, rest)| (v1.session(None), rest)),
        2 => postcard::take_from_bytes::<V2<'_>>(&plain).map(|(v2, rest)| (v2.session(), rest)),
        _ => postcard::take_from_bytes::<V3<'_>>(&plain).map(|(v3, rest)| (v3.session(), rest)),
    };
    let (session, rest) = decoded.map_err(|_| PayloadError::Decoding)?;
    session.filter(|_| rest.is_empty()).ok_or(PayloadError::Decoding)
}

impl V1<'_> {
    fn session(&self, issued: Option<u64>) -> Option<Session> {
        let group = |(path, level): &(&str, u8)| {
            Some(Membership { path: (*path).into(), level: AccessLevel::from_number(*level)? })
        };
        let identity = Identity {
            gitlab: self.gitlab.into(),
            issuer: self.issuer.into(),
            sub: self.sub.into(),
            username: self.username.into(),
            name: self.name.into(),
            email: self.email.map(Into::into),
            groups: self.groups.iter().map(group).collect::<Option<_>>()?,
            // What was not noted is not known; and all sessions are browsers'.
            ..Identity::default()
        };
        let refresh = match &self.refresh {
            None => None,
            Some(short) => Some(short.restore()?),
        };
        let tokens = Tokens {
            access: self.access.restore()?,
            refresh,
            // Whoever did not note it had GitLab's usual two hours.
            issued: Timestamp::from_unix(issued.unwrap_or(self.expires.saturating_sub(7200))),
            expires: Timestamp::from_unix(self.expires),
            scope: self.scope.into(),
        };
        Some(Session {
            id: self.id,
            identity,
            ruled_groups: usize::try_from(self.ruled_groups).ok()?,
            created: Timestamp::from_unix(self.created),
            seen: Timestamp::from_unix(self.seen),
            checked: Timestamp::from_unix(self.checked),
            tokens,
            generation: self.generation,
        })
    }
}

impl V2<'_> {
    fn session(&self) -> Option<Session> {
        self.before.session(Some(self.issued))
    }
}

impl V3<'_> {
    fn session(&self) -> Option<Session> {
        let mut session = self.before.session()?;
        let project = |(path, level): &(&str, u8)| ProjectMembership {
            path: (*path).into(),
            level: AccessLevel::from_number(*level),
        };
        session.identity.projects = self.projects.iter().map(project).collect();
        session.identity.two_factor = self.two_factor;
        session.identity.external = self.external;
        Some(session)
    }
}

fn compress(plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    let length = u16::try_from(plain.len()).map_err(|_| TooLong(plain.len()))?;
    let block = Zeroizing::new(block::compress(plain));
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 + block.len().max(plain.len())));
    bytes.push(VERSION);
    if block.len() + 2 < plain.len() {
        bytes.push(LZ4);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&block);
    } else {
        bytes.push(PLAIN);
        bytes.extend_from_slice(plain);
    }
    Ok(bytes)
}

/// The version and what it is a version of. The length is two bytes, so that nothing inflates beyond 64 KiB; it must hold exactly.
fn decompress(bytes: &[u8]) -> Result<(u8, Zeroizing<Vec<u8>>), PayloadError> {
    let (version, kind, rest) = match bytes {
        [version, kind, rest @ ..] => (*version, *kind, rest),
        [_] | [] => return Err(PayloadError::Decoding),
    };
    if !(1..=VERSION).contains(&version) {
        return Err(PayloadError::Version(version));
    }
    let plain = match kind {
        PLAIN => Some(Zeroizing::new(rest.to_vec())),
        LZ4 => inflate(rest),
        _ => None,
    };
    plain.map(|plain| (version, plain)).ok_or(PayloadError::Compression)
}

fn inflate(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (length, block) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_le_bytes(*length));
    let mut plain = Zeroizing::new(vec![0; length]);
    let written = block::decompress_into(block, &mut plain).ok()?;
    (written == length).then_some(plain)
}
