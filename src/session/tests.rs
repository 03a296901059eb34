//! The room as a whole: what browsers and strangers send, sealed, tossed, bent and cut.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use proptest::prelude::*;

use super::*;
use crate::{
    config::{self, AccessLevel, CookieSettings, SameSite},
    identity::{Membership, ProjectMembership},
};

pub(super) const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);
pub(super) const SITE: Site<'static> = Site { host: "app.example.com", secure: true };

pub(super) fn key(fill: u8) -> Zeroizing<String> {
    let bytes: Vec<u8> = (0..32).map(|index| index ^ fill).collect();
    Zeroizing::new(STANDARD.encode(bytes))
}

pub(super) fn ring(fills: &[u8]) -> KeyRing {
    let keys: Vec<_> = fills.iter().map(|fill| key(*fill)).collect();
    KeyRing::new(&keys).unwrap()
}

/// Counts up, so that a test's bytes repeat from run to run and never within one.
pub(super) fn counting() -> Random {
    let next = AtomicU64::new(1);
    Random::new(move |bytes| {
        for chunk in bytes.chunks_mut(8) {
            let number = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let number = number.to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        Ok(())
    })
}

pub(super) fn session(groups: usize, ruled: usize) -> Session {
    let group = |index| Membership {
        path: format!("company/department-{}/team-{index}", index % 7),
        level: AccessLevel::DEVELOPER,
    };
    let identity = Identity {
        gitlab: "main".into(),
        issuer: "https://gitlab.example.com".into(),
        sub: "42".into(),
        username: "ada".into(),
        name: "Ada Ä. Lovelace".into(),
        email: Some("ada@example.com".into()),
        groups: (0..groups).map(group).collect(),
        ..Identity::default()
    };
    let tokens = Tokens {
        access: Zeroizing::new("0123456789abcdef".repeat(4)),
        refresh: Some(Zeroizing::new("fedcba9876543210".repeat(4))),
        issued: NOW,
        expires: NOW + Duration::from_hours(2),
        scope: "openid email read_user".into(),
    };
    Session::start(identity, ruled, tokens, NOW, &Random::system()).unwrap()
}

pub(super) fn cookie(domain: Option<&str>) -> SessionCookie {
    let settings = CookieSettings { domain: domain.map(Into::into), ..CookieSettings::default() };
    SessionCookie::new(&settings).unwrap()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn codec(keys: KeyRing) -> SessionCodec {
    let deadlines = Deadlines::from(&config::Session::default());
    SessionCodec::new(cookie(None), Arc::new(keys), deadlines, Random::system())
}

pub(super) fn request(lines: &[&str]) -> HeaderMap {
    let values = lines.iter().map(|line| HeaderValue::from_bytes(line.as_bytes()));
    values.map(|value| (COOKIE, value.unwrap())).collect()
}

/// What a browser sends back of a `Set-Cookie`.
pub(super) fn pair(set_cookie: &HeaderValue) -> String {
    let text = set_cookie.to_str().unwrap();
    text.split(';').next().unwrap().into()
}

fn found(codec: &SessionCodec, lines: &[&str]) -> Option<Session> {
    match codec.read(&request(lines), SITE) {
        Reading::Session(found) => Some(Session::clone(&found.session)),
        Reading::Nothing | Reading::Broken => None,
    }
}

fn packed(codec: &SessionCodec, session: &Session) -> String {
    pair(&codec.pack(session, SITE, NOW).unwrap().cookie)
}

#[test]
fn a_session_comes_back_as_it_was() {
    let codec = codec(ring(&[1]));
    for (groups, refresh) in [(0, true), (1, false), (20, true)] {
        let mut session = session(groups, groups.min(1));
        if !refresh {
            session.tokens.refresh = None;
            session.identity.email = None;
        }
        let packed = codec.pack(&session, SITE, NOW).unwrap();
        assert_eq!(packed.dropped_groups, 0);
        let text = packed.cookie.to_str().unwrap();
        assert!(text.starts_with("__Host-labgate="), "{text}");
        let attributes = text.split_once("; ").unwrap().1;
        assert_eq!(attributes, "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure");
        assert!(packed.cookie.is_sensitive());
        assert_eq!(found(&codec, &[&pair(&packed.cookie)]), Some(session));
    }
}

#[test]
fn max_age_is_what_remains() {
    let codec = codec(ring(&[1]));
    let session = session(0, 0);
    let later = NOW + Duration::from_secs(43_000);
    let cookie = codec.pack(&session, SITE, later).unwrap().cookie;
    assert!(cookie.to_str().unwrap().contains("; Max-Age=200;"));
}

/// B1: no byte may differ, none may be missing.
#[test]
fn bent_cut_doubled_and_reversed_cookies_are_no_sessions() {
    let codec = codec(ring(&[1]));
    let cookie = packed(&codec, &session(3, 1));
    let (name, value) = cookie.split_once('=').unwrap();
    for position in 0..value.len() {
        for sign in ['A', '-', '%', '"', ' '] {
            let mut bent: Vec<char> = value.chars().collect();
            if bent[position] == sign {
                continue;
            }
            bent[position] = sign;
            let bent: String = bent.into_iter().collect();
            assert_eq!(found(&codec, &[&format!("{name}={bent}")]), None, "{position}");
        }
        let (cut, tail) = value.split_at(position);
        assert_eq!(found(&codec, &[&format!("{name}={cut}")]), None, "{position}");
        let tail = tail.split_at(1).1;
        assert_eq!(found(&codec, &[&format!("{name}={tail}")]), None, "{position}");
    }
    let reversed: String = value.chars().rev().collect();
    let others = [
        format!("{name}={value}{value}"),
        format!("{name}={reversed}"),
        format!("{name}={value}A"),
        format!("{name}={value}="),
        format!("{name}= {value}"),
        format!("{name}={value} x"),
        format!("{name}=\"{value}\""),
        format!("{}={value}", name.to_lowercase()),
        format!("{}={value}", name.to_uppercase()),
        format!("labgate={value}"),
        format!("__Secure-labgate={value}"),
    ];
    for other in &others {
        assert_eq!(found(&codec, &[other]), None, "{other}");
    }
    assert!(found(&codec, &[&cookie]).is_some());
}

/// B3: a cookie of another host, name or scheme is none.
#[test]
fn a_cookie_counts_for_its_own_site_only() {
    let codec = codec(ring(&[1]));
    let cookie = packed(&codec, &session(0, 0));
    let value = cookie.split_once('=').unwrap().1;
    let other = Site { host: "other.example.com", secure: true };
    assert!(matches!(codec.read(&request(&[&cookie]), other), Reading::Broken));
    let http = Site { secure: false, ..SITE };
    let plain = format!("labgate={value}");
    assert!(matches!(codec.read(&request(&[&plain]), http), Reading::Broken));
    let shouted = Site { host: "APP.example.COM", secure: true };
    assert!(matches!(codec.read(&request(&[&cookie]), shouted), Reading::Session(_)));
}

/// What is answered from memory is what opening gave, without our cookies and for this site alone.
#[test]
fn a_line_that_was_opened_is_remembered_as_it_was() {
    let codec = codec(ring(&[1]));
    let session = session(3, 2);
    let cookie = packed(&codec, &session);
    let line = format!("a=1; {cookie}; b=\"2\"");
    for _ in 0..2 {
        let Reading::Session(found) = codec.read(&request(&[&line]), SITE) else {
            panic!("it opens");
        };
        assert_eq!(*found.session, session);
        assert_eq!(found.others, Others::Line(HeaderValue::from_static("a=1; b=\"2\"")));
    }
    let Reading::Session(alone) = codec.read(&request(&[&cookie]), SITE) else {
        panic!("it opens");
    };
    assert_eq!(alone.others, Others::None);
    let other = Site { host: "other.example.com", secure: true };
    assert!(matches!(codec.read(&request(&[&line]), other), Reading::Broken));
    assert!(matches!(codec.read(&request(&[&format!("{line}x")]), SITE), Reading::Session(_)));
    assert!(matches!(
        codec.read(&request(&[cookie.get(..cookie.len() - 1).unwrap()]), SITE),
        Reading::Broken
    ));
}

/// B5: an old key opens and asks for renewal; a removed one does not open.
#[test]
fn keys_rotate() {
    let session = session(2, 0);
    let old = packed(&codec(ring(&[1])), &session);
    let rotated = codec(ring(&[2, 3, 1]));
    let Reading::Session(found) = rotated.read(&request(&[&old]), SITE) else {
        panic!("an old key opens");
    };
    assert_eq!((found.renew, &*found.session), (true, &session));
    let renewed = packed(&rotated, &found.session);
    let Reading::Session(found) = codec(ring(&[2])).read(&request(&[&renewed]), SITE) else {
        panic!("the newest key has sealed");
    };
    assert!(!found.renew);
    assert!(matches!(codec(ring(&[2, 3])).read(&request(&[&old]), SITE), Reading::Broken));
}

/// B8: whatever the size, the answer is the session or none.
#[test]
fn oversize_and_many_cookies_do_no_harm() {
    let codec = codec(ring(&[1]));
    let session = session(0, 0);
    let cookie = packed(&codec, &session);
    for length in [16, 60, 100] {
        let long = format!("__Host-labgate={}", "A".repeat(length * 1024));
        assert!(matches!(codec.read(&request(&[&long]), SITE), Reading::Broken));
    }
    let many = "a=;".repeat(10_000);
    let all = format!("{many} {cookie}");
    assert_eq!(found(&codec, &[&all]).as_ref(), Some(&session));
    let lines: Vec<String> = (0..500).map(|index| format!("c{index}=v")).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.push(&cookie);
    assert_eq!(found(&codec, &lines), Some(session));
    assert!(matches!(codec.read(&request(&[&many]), SITE), Reading::Nothing));
}

/// B9: junk under our name does not lock anybody out.
#[test]
fn the_real_cookie_is_found_among_tossed_ones() {
    let codec = codec(ring(&[1]));
    let session = session(0, 0);
    let cookie = packed(&codec, &session);
    let junk = "__Host-labgate=junk";
    let ill = "__Host-labgate=!; __Host-labgate=; __Host-labgate";
    let table = [
        vec![format!("{junk}; {cookie}")],
        vec![format!("{cookie}; {junk}")],
        vec![format!("{junk}; {junk}; {junk}; {cookie}; {junk}")],
        vec![junk.into(), cookie.clone()],
        vec![format!("{ill}; {ill}; {ill}; {cookie}")],
        vec![format!("a=\"x; {cookie}; b=\"y\"")],
    ];
    for lines in table {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(found(&codec, &lines).as_ref(), Some(&session), "{lines:?}");
    }
    let too_many = format!("{junk}; {junk}; {junk}; {junk}; {cookie}");
    assert!(matches!(codec.read(&request(&[&too_many]), SITE), Reading::Broken));
}

/// B12, B19: names that only look like ours, and readings that only old parsers know.
#[test]
fn prefix_tricks_and_legacy_forms_are_not_taken() {
    let codec = codec(ring(&[1]));
    let cookie = packed(&codec, &session(0, 0));
    let table = [
        format!(" {cookie}"),
        format!("  {cookie}"),
        format!("\t{cookie}"),
        format!("a=b;  {cookie}"),
        format!("\u{2000}{cookie}"),
        format!("\u{a0}{cookie}"),
        format!("={cookie}"),
        format!("$Version=1; {cookie}"),
        format!("$Version=1, {cookie}"),
        format!("{cookie}; $version=\"1\""),
        format!("a={cookie}"),
        format!("a=b,{cookie}"),
        format!("a=\"{cookie}\""),
        format!("a=\"x; {cookie}; b=\""),
        format!("a=\"x; {cookie}; b=y\""),
        format!("a=\"x; c=d; {cookie}; c=d; b=\"; e=f"),
        cookie.replace('=', " ="),
        cookie.replacen("__Host", "__host", 1),
        cookie.replace('=', "=\u{e9}"),
    ];
    for line in &table {
        assert_eq!(found(&codec, &[line]), None, "{line}");
    }
}

/// B7: nothing inflates beyond its limit, even out of our own hands.
#[test]
fn a_compression_bomb_is_no_session() {
    let codec = codec(ring(&[1]));
    let block = lz4_flex::block::compress(&vec![b'a'; 1 << 20]);
    assert!(block.len() < 5000);
    for declared in [0_u16, 1, 0xffff] {
        let mut bytes = vec![1, 1];
        bytes.extend_from_slice(&declared.to_le_bytes());
        bytes.extend_from_slice(&block);
        assert!(payload::decode(&bytes).is_err());
        let name = "__Host-labgate";
        let random = Random::system();
        let text = ring(&[1]).seal(Purpose::Session, name, SITE.host, &bytes, &random);
        let line = format!("{name}={}", text.unwrap());
        assert!(matches!(codec.read(&request(&[&line]), SITE), Reading::Broken));
    }
}

#[test]
fn groups_that_rules_mention_stay_and_others_fill_up() {
    let codec = codec(ring(&[1]));
    let mut session = session(5000, 5);
    // Names that don't compress away.
    for (index, group) in session.identity.groups.iter_mut().enumerate() {
        let hash = Sha256::digest(index.to_le_bytes());
        group.path = hex(&hash[..12]);
    }
    let packed = codec.pack(&session, SITE, NOW).unwrap();
    assert!(packed.cookie.len() <= 4096);
    assert!(packed.cookie.len() > 4000, "{}", packed.cookie.len());
    let kept = found(&codec, &[&pair(&packed.cookie)]).unwrap().identity.groups;
    assert_eq!(kept.len() + packed.dropped_groups, 5000);
    assert!(kept.len() >= 50, "{}", kept.len());
    assert_eq!(kept, session.identity.groups[..kept.len()]);

    session.ruled_groups = kept.len();
    assert_eq!(codec.pack(&session, SITE, NOW).unwrap().dropped_groups, packed.dropped_groups);
    session.ruled_groups = 300;
    assert!(
        matches!(codec.pack(&session, SITE, NOW), Err(PackError::TooLarge(size)) if size > 4096)
    );
    session.ruled_groups = 5000;
    assert!(
        matches!(codec.pack(&session, SITE, NOW), Err(PackError::TooLarge(size)) if size > 4096)
    );
    session.ruled_groups = usize::MAX;
    assert!(codec.pack(&session, SITE, NOW).is_err());
}

#[test]
fn long_tokens_push_groups_out_first() {
    let codec = codec(ring(&[1]));
    let random = counting();
    let noise = |length: usize| -> String {
        let text = (0..=length / 43).map(|_| random.token().unwrap());
        text.collect::<String>().chars().take(length).collect()
    };
    let mut session = session(100, 0);
    session.tokens.access = Zeroizing::new(noise(2048));
    session.tokens.refresh = Some(Zeroizing::new(noise(1024)));
    let packed = codec.pack(&session, SITE, NOW).unwrap();
    let back = found(&codec, &[&pair(&packed.cookie)]).unwrap();
    assert_eq!(back.tokens, session.tokens);
    session.tokens.refresh = Some(Zeroizing::new(noise(2048)));
    assert!(matches!(codec.pack(&session, SITE, NOW), Err(PackError::TooLarge(_))));
}

#[test]
fn nothing_secret_is_printed() {
    let codec = codec(ring(&[1]));
    let session = session(1, 0);
    let cookie = codec.pack(&session, SITE, NOW).unwrap().cookie;
    let reading = codec.read(&request(&[&pair(&cookie)]), SITE);
    let shown = format!("{session:?} {codec:?} {reading:?} {cookie:?} {}", session.id);
    assert!(!shown.contains("0123456789abcdef"), "{shown}");
    assert!(!shown.contains("fedcba98"), "{shown}");
    assert!(!shown.contains(&hex(&session.id.0)), "{shown}");
    assert_eq!(session.id.to_string().len(), 12);
}

#[test]
fn session_ids_are_new_each_time() {
    let ids: HashSet<_> = (0..1000).map(|_| session(0, 0).id).collect();
    assert_eq!(ids.len(), 1000);
}

#[test]
fn the_later_generation_counts_but_was_seen_by_either() {
    let old = session(1, 0);
    let mut new = old.clone();
    new.generation = 3;
    new.identity.groups.clear();
    let mut seen = old.clone();
    seen.seen = NOW + Duration::from_secs(9);
    let merged = seen.clone().overtake(&new);
    assert_eq!((merged.generation, merged.seen), (3, seen.seen));
    assert!(merged.identity.groups.is_empty());
    let merged = new.clone().overtake(&seen);
    assert_eq!((merged.generation, merged.seen), (3, seen.seen));
    let mut stranger = session(9, 9);
    (stranger.generation, stranger.seen) = (9, seen.seen);
    assert_eq!(old.clone().overtake(&stranger), old);
}

#[test]
fn each_change_makes_the_later_generation() {
    let first = session(3, 1);
    let mut identity = first.identity.clone();
    identity.groups.clear();
    let later = NOW + Duration::from_mins(5);
    let second = first.confirmed(identity, 0, later);
    assert_eq!((second.checked, second.created, second.generation), (later, NOW, 1));
    let mut tokens = first.tokens.clone();
    tokens.access = Zeroizing::new("new".into());
    let third = second.refreshed(tokens);
    assert_eq!((third.checked, third.generation, third.id), (later, 2, first.id));
    assert_eq!(first.overtake(&third), third);
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap()).collect()
}

/// Replicas of two releases read each other's cookies: the bytes of version 1 may not change.
#[test]
fn version_1_stays() {
    let mut session = session(2, 1);
    session.id = SessionId(*b"0123456789abcdef");
    session.generation = 300;
    let hex = concat!(
        "01010701ff6830313233343536373839616263646566046d61696e1a68747470733a2f2f6769746c61622e6578616d70",
        "6c652e636f6d023432036164611041646120c3842e204c6f76656c616365010f616461406578616d706c652e636f6d02",
        "1b636f6d70616e792f6465706172746d656e742d302f7465616d2d301e1d000112311d0086311e0180f7c4d5060500af",
        "01200123456789abcdef080006af0120fedcba9876543210080005f00fa0afc5d506166f70656e696420656d61696c20",
        "726561645f75736572ac02",
    );
    let bytes = unhex(hex);
    assert_eq!(payload::decode(&bytes).unwrap(), session);
    let mut next = bytes.clone();
    next[0] = 4;
    assert_eq!(payload::decode(&next), Err(payload::PayloadError::Version(4)));
    let plain =
        lz4_flex::block::decompress(&bytes[4..], u16::from_le_bytes([bytes[2], bytes[3]]).into())
            .unwrap();
    let mut plain = [&[1, 0], plain.as_slice()].concat();
    assert_eq!(payload::decode(&plain).unwrap(), session);
    for bytes in [&mut bytes.clone(), &mut plain] {
        bytes.push(0);
        assert!(payload::decode(bytes).is_err());
    }
}

/// The same of version 2, which notes when tokens were given.
#[test]
fn version_2_stays() {
    let mut session = session(2, 1);
    session.id = SessionId(*b"0123456789abcdef");
    session.tokens.issued = NOW - Duration::from_hours(1);
    let hex = concat!(
        "02010b01ff6830313233343536373839616263646566046d61696e1a68747470733a2f2f6769746c61622e6578616d70",
        "6c652e636f6d023432036164611041646120c3842e204c6f76656c616365010f616461406578616d706c652e636f6d02",
        "1b636f6d70616e792f6465706172746d656e742d302f7465616d2d301e1d000112311d0086311e0180f7c4d5060500af",
        "01200123456789abcdef080006af0120fedcba9876543210080005f013a0afc5d506166f70656e696420656d61696c20",
        "726561645f7573657200f0dac4d506",
    );
    assert_eq!(payload::decode(&unhex(hex)).unwrap(), session);
}

/// The same of version 3, which notes what GitLab said of the account and its projects.
#[test]
fn version_3_stays() {
    let mut session = session(2, 1);
    session.id = SessionId(*b"0123456789abcdef");
    told(&mut session, 2);
    let hex = concat!(
        "03014401ff6830313233343536373839616263646566046d61696e1a68747470733a2f2f6769746c61622e6578616d",
        "706c652e636f6d023432036164611041646120c3842e204c6f76656c616365010f616461406578616d706c652e636f",
        "6d021b636f6d70616e792f6465706172746d656e742d302f7465616d2d301e1d000112311d0086311e0180f7c4d506",
        "0500af01200123456789abcdef080006af0120fedcba9876543210080005f10ea0afc5d506166f70656e696420656d",
        "61696c20726561645f75736572006c0064010101000218b600018c00ca302f70726f6a6563742d30281a00c0312f70",
        "726f6a6563742d3100",
    );
    let fresh = payload::encode(&session, 2).unwrap();
    assert_eq!(self::hex(&fresh), hex);
    assert_eq!(payload::decode(&unhex(hex)).unwrap(), session);
}

/// Adds what rules may ask for: a second factor, no external user, and so many projects, of every other one a maintainer.
fn told(session: &mut Session, projects: usize) {
    session.identity.two_factor = Some(true);
    session.identity.external = Some(false);
    let project = |index| ProjectMembership {
        path: format!("company/team-{}/project-{index}", index % 7),
        level: (index % 2 == 0).then_some(AccessLevel::MAINTAINER),
    };
    session.identity.projects = (0..projects).map(project).collect();
}

#[test]
fn what_rules_ask_for_never_leaves_the_cookie() {
    let codec = codec(ring(&[1]));
    let mut session = session(3000, 2);
    told(&mut session, 40);
    let packed = codec.pack(&session, SITE, NOW).unwrap();
    assert!(packed.dropped_groups > 1000 && packed.cookie.len() <= 4096);
    let found = found(&codec, &[&pair(&packed.cookie)]).unwrap();
    assert!(found.identity.groups.len() >= 2);
    assert_eq!(found.identity.projects, session.identity.projects);
    assert_eq!((found.identity.two_factor, found.identity.external), (Some(true), Some(false)));
    // As many as a configuration may name without a warning, and nothing in them to compress.
    let random = Random::system();
    let path = |_| {
        let part = || hex(&random.bytes::<10>().unwrap());
        format!("{}/{}", part(), part())
    };
    session.identity.projects =
        (0..40).map(|index| ProjectMembership { path: path(index), level: None }).collect();
    assert!(codec.pack(&session, SITE, NOW).unwrap().cookie.len() <= 4096);
}

/// B11: names and attributes by scheme and domain.
#[test]
fn attributes_follow_scheme_and_domain() {
    let http = Site { host: "app.example.com", secure: false };
    let elsewhere = Site { host: "evilexample.com", secure: true };
    let table = [
        (None, SITE, "__Host-labgate=v; Path=/; Max-Age=9; HttpOnly; SameSite=None; Secure"),
        (None, http, "labgate=v; Path=/; Max-Age=9; HttpOnly; SameSite=Lax"),
        (
            Some("example.com"),
            SITE,
            "__Secure-labgate=v; Path=/; Max-Age=9; HttpOnly; SameSite=None; Secure; Domain=example.com",
        ),
        (
            Some("example.com"),
            elsewhere,
            "__Host-labgate=v; Path=/; Max-Age=9; HttpOnly; SameSite=None; Secure",
        ),
    ];
    for (domain, site, expected) in table {
        let settings = CookieSettings {
            same_site: SameSite::None,
            domain: domain.map(Into::into),
            ..CookieSettings::default()
        };
        let cookie = SessionCookie::new(&settings).unwrap();
        assert_eq!(cookie.set(site, "v", Duration::from_secs(9)), expected);
        let cleared = expected.replace("=v;", "=;").replace("Max-Age=9", "Max-Age=0");
        assert_eq!(cookie.clear(site), cleared);
    }
    let cookie = cookie(Some("example.com"));
    assert_eq!(cookie.audience(SITE), "example.com");
    assert_eq!(cookie.audience(elsewhere), "evilexample.com");
}

#[test]
fn names_and_domains_carry_nothing_else() {
    for bad in ["", "a b", "a;b", "a=b", "a\r\nSet-Cookie: x", "a,b", "é"] {
        let name = CookieSettings { name: bad.into(), ..CookieSettings::default() };
        assert!(matches!(SessionCookie::new(&name), Err(CookieError::Name(_))), "{bad}");
        let domain = CookieSettings { domain: Some(bad.into()), ..CookieSettings::default() };
        assert!(matches!(SessionCookie::new(&domain), Err(CookieError::Domain(_))), "{bad}");
    }
}

/// B16: ours never go on, others do as they are.
#[test]
fn stripping_leaves_other_cookies_byte_for_byte() {
    let table: [(&[&str], &[&str]); 15] = [
        (&["a=1; __Host-labgate=x; b=2"], &["a=1; b=2"]),
        (&["__Host-labgate=x; a=1"], &["a=1"]),
        (&["a=1; __Host-labgate=x"], &["a=1"]),
        (&["__Host-labgate=x"], &[]),
        (&["__Host-labgate=x;"], &[]),
        (&["labgate=x", "a=1; b", "__Secure-labgate=x; c=\"d e\""], &["a=1; b", "c=\"d e\""]),
        (&["__HOST-LabGate=x; a=1"], &["a=1"]),
        (&["__Secure-labgate-attempt-abc=x; labgate-attempt-=y; a=1"], &["a=1"]),
        (&["a=\"x; __Host-labgate=s; b=\""], &["a=\"x; b=\""]),
        (&["  __Host-labgate =s;a=1;;  b=2 ;"], &["a=1;;  b=2 ;"]),
        (&["=__Host-labgate=s; a=1; __Host-labgate"], &["a=1"]),
        (&["a=1;  b = \u{e9};;c=labgate=2"], &["a=1;  b = \u{e9};;c=labgate=2"]),
        (&["labgates=1; xlabgate=2; labgate-x=3"], &["labgates=1; xlabgate=2; labgate-x=3"]),
        (&["", "; ;"], &["", "; ;"]),
        (&[], &[]),
    ];
    for (before, after) in table {
        let mut headers = request(before);
        headers.insert("x-other", HeaderValue::from_static("stays"));
        cookie(None).strip(&mut headers, &Others::Unknown);
        let left: Vec<_> =
            headers.get_all(COOKIE).iter().map(|line| line.as_bytes().to_vec()).collect();
        let after: Vec<_> = after.iter().map(|line| line.as_bytes().to_vec()).collect();
        assert_eq!(left, after, "{before:?}");
        assert_eq!(headers["x-other"], "stays");
    }
}

/// B17: an upstream can't set ours.
#[test]
fn upstreams_set_their_own_cookies_only() {
    let sets = [
        ("a=1; Path=/", true),
        ("__Host-labgate=x; Path=/; Secure", false),
        ("b=2; Comment=labgate=x", true),
        ("__host-labgate=x", false),
        (" \tlabgate = x", false),
        ("=labgate=x", false),
        (" = labgate=x", false),
        ("labgate", false),
        ("labgate; Path=/", false),
        ("__Secure-labgate-attempt-0123456789ab=x; Path=/oauth2", false),
        ("labgate-attempt-=", false),
        ("labgatex=1", true),
        ("", true),
        ("c=3", true),
    ];
    let mut headers: HeaderMap =
        sets.iter().map(|(set, _)| (SET_COOKIE, HeaderValue::from_static(set))).collect();
    assert_eq!(cookie(None).drop_hostile_set_cookies(&mut headers), 9);
    let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
    let kept: Vec<_> = sets.iter().filter(|(_, kept)| *kept).map(|(set, _)| set).collect();
    assert_eq!(left, kept);
    assert_eq!(cookie(None).drop_hostile_set_cookies(&mut headers), 0);
}

proptest! {
    #[test]
    fn strip_removes_ours_and_nothing_else(
        pieces in prop::collection::vec("[a-z$\"= ]{0,8}|(__Host-|__SECURE-)?lab[Gg]ate(-attempt-[a-z]{0,3})?=[a-z]{0,3}", 0..8)
    ) {
        let is_ours = |piece: &&String| piece.to_lowercase().contains("labgate");
        let before = pieces.join(";");
        let mut headers = request(&[&before]);
        cookie(None).strip(&mut headers, &Others::Unknown);
        let after = headers.get(COOKIE).map_or("", |line| line.to_str().unwrap());
        let kept: Vec<&str> = pieces.iter().filter(|piece| !is_ours(piece)).map(String::as_str).collect();
        if kept.len() == pieces.len() {
            prop_assert_eq!(after, before);
        } else if kept.iter().all(|piece| piece.trim().is_empty()) {
            prop_assert_eq!(after, "");
        } else {
            let kept = kept.join(";");
            let moved = pieces.first().is_some_and(|piece| is_ours(&piece));
            let kept = if moved { kept.trim_start() } else { kept.as_str() };
            prop_assert_eq!(after, kept);
        }
    }

    #[test]
    fn any_header_is_read_and_stripped_without_harm(bytes in prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff, Just(b'\t'), Just(b';'), Just(b'"')], 0..200)) {
        let value = HeaderValue::from_bytes(&bytes).unwrap();
        let mut headers: HeaderMap = [(COOKIE, value.clone()), (SET_COOKIE, value)].into_iter().collect();
        let cookie = cookie(None);
        prop_assert!(cookie.read(&headers, SITE).values.is_empty());
        cookie.strip(&mut headers, &Others::Unknown);
        cookie.drop_hostile_set_cookies(&mut headers);
    }

    #[test]
    fn any_session_comes_back(
        texts in prop::array::uniform8(".{0,20}"),
        email in prop::option::of(".{0,20}"),
        refresh in prop::option::of("[0-9a-f]{64}|.{0,30}"),
        groups in prop::collection::vec((".{0,30}", 1_u8..=50), 0..20),
        projects in prop::collection::vec((".{0,30}", 0_u8..=60), 0..9),
        flags: [Option<bool>; 2],
        numbers: [u64; 5],
        generation: u32,
    ) {
        let [gitlab, issuer, sub, username, name, access, scope, _] = texts;
        let groups: Vec<_> = groups
            .into_iter()
            .filter_map(|(path, level)| Some(Membership { path, level: AccessLevel::from_number(level)? }))
            .collect();
        let all = groups.len();
        let projects = projects.into_iter().map(|(path, level)| {
            ProjectMembership { path, level: AccessLevel::from_number(level) }
        });
        let projects = projects.collect();
        let [two_factor, external] = flags;
        let identity = Identity { gitlab, issuer, sub, username, name, email, groups, projects, two_factor, external, ..Identity::default() };
        let [created, seen, checked, issued, expires] = numbers.map(Timestamp::from_unix);
        let tokens = Tokens {
            access: Zeroizing::new(access),
            refresh: refresh.map(Zeroizing::new),
            issued,
            expires,
            scope,
        };
        let id = SessionId(Random::system().bytes().unwrap());
        let session = Session { id, identity, ruled_groups: all / 2, created, seen, checked, tokens, generation };
        let bytes = payload::encode(&session, all).unwrap();
        prop_assert_eq!(payload::decode(&bytes).unwrap(), session);
    }

    #[test]
    fn any_bytes_are_decoded_without_harm(bytes: Vec<u8>, version in 1_u8..5, kind in 0_u8..3) {
        let _any = payload::decode(&bytes);
        let mut headed = vec![version, kind];
        headed.extend_from_slice(&bytes);
        let _any = payload::decode(&headed);
    }
}
