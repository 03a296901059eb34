//! What sealed text withstands: bent bytes, other uses, other keys, any size.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::session::tests::{counting, hex, key, ring};

fn seal(ring: &KeyRing, plain: &[u8]) -> String {
    let random = Random::system();
    let text = ring.seal(Purpose::Session, "name", "host.example", plain, &random);
    text.unwrap()
}

fn open(ring: &KeyRing, text: &str) -> Result<Vec<u8>, OpenError> {
    let opened = ring.open(Purpose::Session, "name", "host.example", text)?;
    Ok(opened.bytes.to_vec())
}

/// The published vectors, so that text outlives a change of the crate: C2SP XAES-256-GCM.
#[test]
fn the_cipher_gives_the_known_answers() {
    let table: [(u8, &[u8], &str); 2] = [
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ];
    for (fill, aad, expected) in table {
        let cipher = Xaes256Gcm::new(&[fill; KEY].into());
        let msg = b"XAES-256-GCM".as_slice();
        let sealed = cipher
            .encrypt(&Nonce::from(*b"ABCDEFGHIJKLMNOPQRSTUVWX"), Payload { msg, aad })
            .unwrap();
        assert_eq!(hex(&sealed), expected);
    }
}

/// Replicas of two releases read each other's text: neither layout nor associated data may change under version 1.
#[test]
fn the_format_stays() {
    let text = ring(&[0]).seal(Purpose::Attempt, "name", "host.example", b"plain", &counting());
    assert_eq!(
        text.unwrap(),
        "AYKC9f0VfEp_uXk3nir4lP5y8248P3TffSxtptohXyBS3EKFQ4vlpDMI9eXCsMd39ic"
    );
}

#[test]
fn keys_are_checked_one_by_one() {
    let text = |text: &str| Zeroizing::new(text.to_owned());
    let weak = text(&STANDARD.encode([7; KEY]));
    let short = text(&STANDARD.encode([7; 31]));
    let long = text(&STANDARD.encode([7; 33]));
    let table = [
        (vec![], KeyError::None, None),
        (vec![text("secret!")], KeyError::Encoding { index: 0 }, Some(0)),
        (vec![key(1), text("")], KeyError::Length { index: 1, length: 0 }, Some(1)),
        (vec![key(1), short], KeyError::Length { index: 1, length: 31 }, Some(1)),
        (vec![long], KeyError::Length { index: 0, length: 33 }, Some(0)),
        (vec![key(1), key(2), weak], KeyError::Weak { index: 2 }, Some(2)),
        (vec![key(1), key(2), key(1)], KeyError::Duplicate { index: 2, first: 0 }, Some(2)),
    ];
    for (keys, error, index) in table {
        let refused = KeyRing::new(&keys).unwrap_err();
        assert_eq!((refused.index(), refused), (index, error));
    }
}

#[test]
fn any_base64_of_a_key_is_that_key() {
    let standard = key(0xf7);
    let text = seal(&ring(&[0xf7]), b"plain");
    let url = standard.replace('+', "-").replace('/', "_");
    let bare = standard.trim_end_matches('=').to_owned();
    for form in [url, bare, format!("{}\n", *standard)] {
        let ring = KeyRing::new(&[Zeroizing::new(form)]).unwrap();
        assert_eq!(open(&ring, &text).unwrap(), b"plain");
    }
}

#[test]
fn a_generated_key_is_a_key() {
    let random = Random::system();
    let keys = [(); 2].map(|()| KeyRing::generate(&random).unwrap());
    assert!(KeyRing::new(&keys).is_ok());
}

/// B4: nonces don't repeat, nor does text.
#[test]
fn ten_thousand_seals_share_no_nonce() {
    let ring = ring(&[1]);
    let nonces: HashSet<Vec<u8>> = (0..10_000)
        .map(|_| URL_SAFE_NO_PAD.decode(seal(&ring, b"same")).unwrap()[5..29].to_vec())
        .collect();
    assert_eq!(nonces.len(), 10_000);
}

/// B1, A6: each byte is authenticated, and each length.
#[test]
fn no_byte_may_differ_and_none_be_missing() {
    let ring = ring(&[1]);
    let bytes = URL_SAFE_NO_PAD.decode(seal(&ring, b"plain text")).unwrap();
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut bent = bytes.clone();
            bent[position] ^= 1 << bit;
            assert!(open(&ring, &URL_SAFE_NO_PAD.encode(bent)).is_err(), "{position}");
        }
        let cut = &bytes[..position];
        assert!(open(&ring, &URL_SAFE_NO_PAD.encode(cut)).is_err(), "{position}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(open(&ring, &URL_SAFE_NO_PAD.encode(longer)).is_err());
    assert!(open(&ring, &URL_SAFE_NO_PAD.encode(bytes)).is_ok());
}

/// B3: what was sealed for one use opens for no other.
#[test]
fn purpose_name_and_audience_are_bound() {
    let ring = ring(&[1]);
    let text = seal(&ring, b"plain");
    let table = [
        (Purpose::Attempt, "name", "host.example"),
        (Purpose::Session, "Name", "host.example"),
        (Purpose::Session, "nam", "ehost.example"),
        (Purpose::Session, "name", "other.example"),
        (Purpose::Session, "name", "host.example."),
        (Purpose::Session, "", "namehost.example"),
    ];
    for (purpose, name, audience) in table {
        let error = ring.open(purpose, name, audience, &text).unwrap_err();
        assert_eq!(error, OpenError::NotAuthentic, "{name} {audience}");
    }
    assert!(ring.open(Purpose::Session, "name", "HOST.example", &text).is_ok());
}

#[test]
fn an_old_key_opens_and_a_removed_one_does_not() {
    let text = seal(&ring(&[1]), b"plain");
    let opened = |keys: &[u8]| ring(keys).open(Purpose::Session, "name", "host.example", &text);
    assert!(!opened(&[1, 2]).unwrap().old_key);
    assert!(opened(&[3, 2, 1]).unwrap().old_key);
    assert_eq!(opened(&[3, 2]).unwrap_err(), OpenError::UnknownKey);
}

/// A key whose id was chosen to collide does not open either.
#[test]
fn a_key_id_alone_opens_nothing() {
    let mut other = ring(&[2]);
    other.newest.id = ring(&[1]).newest.id;
    let error = open(&other, &seal(&ring(&[1]), b"plain")).unwrap_err();
    assert_eq!(error, OpenError::NotAuthentic);
}

#[test]
fn sizes_are_capped_before_any_work() {
    let ring = ring(&[1]);
    let random = Random::system();
    let most = vec![0; MAX_PLAIN];
    let text = seal(&ring, &most);
    assert!(text.len() <= MAX_TEXT);
    assert_eq!(open(&ring, &text).unwrap(), most);
    let more = vec![0; MAX_PLAIN + 1];
    let error = ring.seal(Purpose::Session, "name", "host", &more, &random);
    assert_eq!(error, Err(SealError::TooLong(MAX_PLAIN + 1)));
    let long = "A".repeat(MAX_TEXT + 1);
    assert_eq!(open(&ring, &long), Err(OpenError::TooLong));
}

#[test]
fn without_randomness_nothing_is_sealed() {
    let none = Random::new(|_| Err(NoRandom));
    let error = ring(&[1]).seal(Purpose::Session, "name", "host", b"", &none);
    assert_eq!(error, Err(SealError::Random(NoRandom)));
}

proptest! {
    #[test]
    fn what_is_sealed_opens(plain: Vec<u8>) {
        let ring = ring(&[1, 2]);
        let text = seal(&ring, &plain);
        prop_assert_eq!(text.len(), sealed_len(plain.len()));
        prop_assert_eq!(open(&ring, &text).unwrap(), plain);
    }

    #[test]
    fn any_text_is_refused_without_harm(text in ".{0,200}|[A-Za-z0-9_-]{0,200}") {
        prop_assert!(open(&ring(&[1]), &text).is_err());
    }
}
