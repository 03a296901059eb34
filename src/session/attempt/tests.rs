//! What cookies of sign-ins withstand: other browsers, many tabs, floods and junk.

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::session::tests::{NOW, SITE, cookie, pair, request, ring};

fn attempts() -> Attempts {
    Attempts::new(&cookie(None), "/oauth2", Arc::new(ring(&[1])), Random::system())
}

fn wish(rd: &str) -> Wish {
    Wish {
        gitlab: "main".into(),
        rd: rd.into(),
        redirect_uri: "https://app.example.com/oauth2/callback".into(),
        reply: String::new(),
        round: 1,
    }
}

/// A browser's cookies, oldest first, as far as these tests need one.
#[derive(Default)]
struct Browser(Vec<(String, String)>);

impl Browser {
    fn request(&self) -> HeaderMap {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request(&[&pairs.join("; ")])
    }

    fn keep(&mut self, cookies: &[HeaderValue]) {
        for cookie in cookies {
            let pair = pair(cookie);
            let (name, value) = pair.split_once('=').unwrap();
            self.0.retain(|(other, _)| other != name);
            if !cookie.to_str().unwrap().contains("Max-Age=0;") {
                self.0.push((name.into(), value.into()));
            }
        }
    }

    fn begin(&mut self, attempts: &Attempts, rd: &str, now: Timestamp) -> Attempt {
        let (attempt, cookies) = attempts.begin(&self.request(), SITE, wish(rd), now).unwrap();
        self.keep(&cookies);
        attempt
    }
}

fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

#[test]
fn a_sign_in_is_taken_as_it_was_begun_and_then_gone() {
    let attempts = attempts();
    let mut browser = Browser::default();
    let (begun, cookies) = attempts.begin(&HeaderMap::new(), SITE, wish("/page?a=b"), NOW).unwrap();
    let [cookie] = cookies.as_slice() else { panic!("one cookie") };
    let text = cookie.to_str().unwrap();
    assert!(text.starts_with("__Secure-labgate-attempt-"), "{text}");
    assert!(
        text.ends_with("; Path=/oauth2; Max-Age=600; HttpOnly; SameSite=Lax; Secure"),
        "{text}"
    );
    for secret in [&begun.state, &begun.nonce, &*begun.verifier] {
        assert_eq!(secret.len(), 43);
        assert!(!text.contains(secret.as_str()));
    }
    assert!(!format!("{begun:?}").contains(&*begun.verifier));
    browser.keep(&cookies);
    let (taken, clear) = attempts.take(&browser.request(), SITE, &begun.state, later(600)).unwrap();
    assert_eq!(taken, begun);
    assert!(
        clear
            .to_str()
            .unwrap()
            .ends_with("=; Path=/oauth2; Max-Age=0; HttpOnly; SameSite=Lax; Secure")
    );
    browser.keep(&[clear]);
    let again = attempts.take(&browser.request(), SITE, &begun.state, NOW);
    assert_eq!(again.unwrap_err(), AttemptError::Unknown);
}

/// A1: states, nonces and verifiers never repeat.
#[test]
fn a_thousand_sign_ins_share_nothing() {
    let attempts = attempts();
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        let (attempt, _) = attempts.begin(&HeaderMap::new(), SITE, wish("/"), NOW).unwrap();
        for text in [attempt.state, attempt.nonce, attempt.verifier.to_string()] {
            assert!(seen.insert(text));
        }
    }
}

/// A2, A3, A4, B3: other states, hosts, schemes, keys, times and purposes.
#[test]
fn nothing_but_the_sign_in_of_this_browser_is_taken() {
    let attempts = attempts();
    let (begun, cookies) = attempts.begin(&HeaderMap::new(), SITE, wish("/"), NOW).unwrap();
    let (foreign, _) = attempts.begin(&HeaderMap::new(), SITE, wish("/"), NOW).unwrap();
    let pair = pair(&cookies[0]);
    let (name, value) = pair.split_once('=').unwrap();
    let good = request(&[&pair]);
    let fails = |headers: &HeaderMap, site, state: &str, now| {
        attempts.take(headers, site, state, now).unwrap_err()
    };
    for state in ["", "x", &foreign.state, begun.state.split_at(1).1, &begun.state.to_lowercase()] {
        assert_eq!(fails(&good, SITE, state, NOW), AttemptError::Unknown, "{state}");
    }
    assert_eq!(fails(&HeaderMap::new(), SITE, &begun.state, NOW), AttemptError::Unknown);
    let renamed = request(&[&format!("{}={value}", attempts.name(SITE, &foreign.state))]);
    assert_eq!(fails(&renamed, SITE, &foreign.state, NOW), AttemptError::NotAuthentic);
    // Only a flaw of ours could seal one under the name of another; the state inside is compared nevertheless.
    let misnamed = attempts.name(SITE, &foreign.state);
    let swapped =
        ring(&[1]).seal(Purpose::Attempt, &misnamed, SITE.host, &begun.encode(), &Random::system());
    let swapped = request(&[&format!("{misnamed}={}", swapped.unwrap())]);
    assert_eq!(fails(&swapped, SITE, &foreign.state, NOW), AttemptError::NotAuthentic);
    let other = Site { host: "other.example.com", ..SITE };
    assert_eq!(fails(&good, other, &begun.state, NOW), AttemptError::NotAuthentic);
    let http = Site { secure: false, ..SITE };
    assert_eq!(fails(&good, http, &begun.state, NOW), AttemptError::Unknown);
    assert_eq!(fails(&good, SITE, &begun.state, later(601)), AttemptError::Expired);
    assert_eq!(
        fails(&good, SITE, &begun.state, NOW - Duration::from_secs(61)),
        AttemptError::Expired
    );
    let as_session =
        ring(&[1]).seal(Purpose::Session, name, SITE.host, &begun.encode(), &Random::system());
    let as_session = request(&[&format!("{name}={}", as_session.unwrap())]);
    assert_eq!(fails(&as_session, SITE, &begun.state, NOW), AttemptError::NotAuthentic);
    for position in 0..value.len() {
        let mut bent: Vec<u8> = value.into();
        bent[position] = if bent[position] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bent).unwrap();
        let bent = request(&[&format!("{name}={bent}")]);
        assert_eq!(fails(&bent, SITE, &begun.state, NOW), AttemptError::NotAuthentic, "{position}");
    }
    assert!(attempts.take(&good, SITE, &begun.state, NOW).is_ok());
}

/// A5: five tabs finish in any order, each at its own page.
#[test]
fn five_tabs_sign_in_at_once() {
    let attempts = attempts();
    let mut browser = Browser::default();
    let mut begun: Vec<_> =
        (0..5).map(|tab| browser.begin(&attempts, &format!("/{tab}"), NOW)).collect();
    begun.swap(0, 3);
    begun.swap(1, 4);
    for attempt in begun {
        let (taken, clear) = attempts.take(&browser.request(), SITE, &attempt.state, NOW).unwrap();
        assert_eq!(taken.wish, attempt.wish);
        browser.keep(&[clear]);
    }
    assert!(browser.0.is_empty());
}

/// A5: unfinished sign-ins stay bounded, the oldest go first.
#[test]
fn the_oldest_of_too_many_is_evicted() {
    let attempts = attempts();
    let mut browser = Browser::default();
    let begun: Vec<_> = (0..50).map(|tab| browser.begin(&attempts, "/", later(tab / 3))).collect();
    assert_eq!(browser.0.len(), 5);
    for (index, attempt) in begun.iter().enumerate() {
        let taken = attempts.take(&browser.request(), SITE, &attempt.state, later(20));
        assert_eq!(taken.is_ok(), index >= 45, "{index}");
    }
}

#[test]
fn cookies_that_are_over_or_never_opened_are_cleared() {
    let attempts = attempts();
    let mut browser = Browser::default();
    let old = browser.begin(&attempts, "/", NOW);
    let name = attempts.name(SITE, "junk");
    browser.0.push((name.clone(), "junk".into()));
    browser.0.push(("__Secure-labgate-attempt-short".into(), "stays".into()));
    browser.begin(&attempts, "/", later(601));
    let left: BTreeMap<_, _> = browser.0.iter().cloned().collect();
    assert!(!left.contains_key(&name));
    assert!(!left.contains_key(&attempts.name(SITE, &old.state)));
    assert!(left.contains_key("__Secure-labgate-attempt-short"));
    assert_eq!(left.len(), 2);
}

#[test]
fn tossed_junk_neither_hides_nor_evicts_a_sign_in() {
    let attempts = attempts();
    let mut browser = Browser::default();
    let begun = browser.begin(&attempts, "/", NOW);
    let name = attempts.name(SITE, &begun.state);
    browser.0.insert(0, (name, "junk".into()));
    assert!(attempts.take(&browser.request(), SITE, &begun.state, NOW).is_ok());
    let (_, cookies) = attempts.begin(&browser.request(), SITE, wish("/"), NOW).unwrap();
    assert_eq!(cookies.len(), 1);
}

#[test]
fn a_flood_of_cookies_makes_no_flood_of_answers() {
    let attempts = attempts();
    let flood: Vec<_> =
        (0..500).map(|index| format!("__Secure-labgate-attempt-{index:012}=x")).collect();
    let (_, cookies) =
        attempts.begin(&request(&[&flood.join("; ")]), SITE, wish("/"), NOW).unwrap();
    assert_eq!(cookies.len(), MAX_LOOKED_AT + 1);
}

/// C8: a long return address does not make a long cookie.
#[test]
fn return_addresses_are_bounded() {
    let attempts = attempts();
    let longest = format!("/{}", "ä".repeat((MAX_RD - 1) / 2));
    for (rd, kept) in [
        (longest.clone(), longest),
        ("/".repeat(MAX_RD + 1), "/".into()),
        ("/x".repeat(50_000), "/".into()),
    ] {
        let (attempt, cookies) = attempts.begin(&HeaderMap::new(), SITE, wish(&rd), NOW).unwrap();
        assert_eq!(attempt.wish.rd, kept);
        assert!(cookies[0].len() <= cookie::MAX_COOKIE);
    }
    let mut long = wish("/");
    long.redirect_uri = "x".repeat(MAX_REDIRECT_URI + 1);
    assert!(attempts.begin(&HeaderMap::new(), SITE, long, NOW).is_err());
}

#[test]
fn on_http_the_name_has_no_prefix() {
    let site = Site { secure: false, ..SITE };
    let (begun, cookies) = attempts().begin(&HeaderMap::new(), site, wish("/"), NOW).unwrap();
    let text = cookies[0].to_str().unwrap();
    assert!(text.starts_with("labgate-attempt-") && !text.contains("Secure"), "{text}");
    assert!(attempts().take(&request(&[&pair(&cookies[0])]), site, &begun.state, NOW).is_ok());
}
