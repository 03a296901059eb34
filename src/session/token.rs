//! Tokens in few bytes: compression finds nothing in them, but their alphabets are narrow.
//!
//! GitLab's tokens are 64 hex digits, others' are base64url in parts with dots between. A form is used only if it gives back the very same text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A token as it is kept.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Short<'a> {
    form: u8,
    bytes: &'a [u8],
}

/// A token made short.
pub(super) struct Shortened {
    form: u8,
    bytes: Zeroizing<Vec<u8>>,
}

const TEXT: u8 = 0;
const HEX: u8 = 1;
const PARTS: u8 = 2;

/// The shortest form of `token` that gives it back.
pub(super) fn shorten(token: &str) -> Shortened {
    let forms = [(HEX, from_hex(token)), (PARTS, from_parts(token))];
    let forms =
        forms.into_iter().filter_map(|(form, bytes)| Some(Shortened { form, bytes: bytes? }));
    forms
        .filter(|made| made.bytes.len() < token.len())
        .filter(|made| made.short().restore().is_some_and(|text| *text == token))
        .min_by_key(|made| made.bytes.len())
        .unwrap_or_else(|| Shortened {
            form: TEXT,
            bytes: Zeroizing::new(token.as_bytes().to_vec()),
        })
}

impl Shortened {
    /// What goes into the session.
    pub(super) fn short(&self) -> Short<'_> {
        Short { form: self.form, bytes: &self.bytes }
    }
}

impl Short<'_> {
    /// The token itself, if the bytes are of their form.
    pub(super) fn restore(&self) -> Option<Zeroizing<String>> {
        match self.form {
            TEXT => {
                let text = std::str::from_utf8(self.bytes).ok()?;
                Some(Zeroizing::new(text.into()))
            },
            HEX => Some(to_hex(self.bytes)),
            PARTS => to_parts(self.bytes),
            _ => None,
        }
    }
}

fn from_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.as_bytes().chunks(2) {
        let [high, low] = *pair else { return None };
        bytes.push(digit(high)? << 4 | digit(low)?);
    }
    Some(bytes)
}

fn digit(sign: u8) -> Option<u8> {
    match sign {
        b'0'..=b'9' => Some(sign - b'0'),
        b'a'..=b'f' => Some(sign - b'a' + 10),
        _ => None,
    }
}

fn to_hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(half.into(), 16));
        }
    }
    text
}

/// Each part: its length as u16 little-endian, then its bytes.
fn from_parts(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    for part in text.split('.') {
        let part = Zeroizing::new(URL_SAFE_NO_PAD.decode(part).ok()?);
        let length = u16::try_from(part.len()).ok()?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&part);
    }
    Some(bytes)
}

fn to_parts(mut bytes: &[u8]) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 4 / 3 + 4));
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (part, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        URL_SAFE_NO_PAD.encode_string(part, &mut text);
        bytes = rest;
        if !bytes.is_empty() {
            text.push('.');
        }
    }
    bytes.is_empty().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_were() {
        let hex = "0123456789abcdef".repeat(4);
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        let table = [
            (hex.as_str(), 32),
            (jwt, 3 * 2 + 20 + 11 + 9 - 5),
            ("", 0),
            ("ABCDEF", 6),
            (".", 1),
            ("a", 1),
            ("glpat-ABCDEFGHIJKLMNOPQR..", 26),
            ("ö€", 5),
            ("with space", 10),
        ];
        for (token, longest) in table {
            let made = shorten(token);
            assert_eq!(*made.short().restore().unwrap(), token, "{token}");
            assert!(made.bytes.len() <= longest, "{token}: {}", made.bytes.len());
        }
    }

    #[test]
    fn bytes_of_no_form_are_no_token() {
        let table: [(u8, &[u8]); 4] =
            [(TEXT, &[0xff]), (PARTS, &[1]), (PARTS, &[9, 0, 1]), (7, b"token")];
        for (form, bytes) in table {
            assert!(Short { form, bytes }.restore().is_none(), "{form}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(token in ".*") {
            proptest::prop_assert_eq!(&*shorten(&token).short().restore().unwrap(), &token);
        }

        #[test]
        fn anything_like_a_token_comes_back(token in "[a-f0-9.]{0,80}|[A-Za-z0-9_.-]{0,80}") {
            proptest::prop_assert_eq!(&*shorten(&token).short().restore().unwrap(), &token);
        }

        #[test]
        fn any_bytes_are_read_without_harm(form in 0_u8..4, bytes: Vec<u8>) {
            let _text = Short { form, bytes: &bytes }.restore();
        }
    }
}
