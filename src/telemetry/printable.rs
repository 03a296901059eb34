//! Text from strangers on its way into a log line: bounded, and free of signs that a terminal or a line reader would act on.

use std::{borrow::Cow, fmt::Write as _};

/// `bytes`, at most `most` of them, as text that only shows.
///
/// Control characters, format characters such as bidirectional overrides, and bytes that are no UTF-8 come out escaped. Common text is not copied.
pub(super) fn printable(bytes: &[u8], most: usize) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= most && text.bytes().all(is_plain) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes, most)),
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn escaped(bytes: &[u8], most: usize) -> String {
    let shown = bytes.get(..most).unwrap_or(bytes);
    let mut text = String::with_capacity(shown.len() + 16);
    for chunk in shown.utf8_chunks() {
        for sign in chunk.valid().chars() {
            match sign {
                // `escape_debug` would also escape these, which act on nothing.
                '"' | '\'' | '\\' => text.push(sign),
                _ => text.extend(sign.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a `String` can't fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if shown.len() < bytes.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_escaped_and_what_is_read_stays() {
        let cases: [(&[u8], &str); 10] = [
            (b"/plain/path", "/plain/path"),
            ("Zoë 日本".as_bytes(), "Zoë 日本"),
            (b"a\r\nb", "a\\r\\nb"),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            (b"a\x00b\x7f", "a\\0b\\u{7f}"),
            ("a\u{9b}31m".as_bytes(), "a\\u{9b}31m"),
            ("a\u{202e}gpj.exe".as_bytes(), "a\\u{202e}gpj.exe"),
            ("a\u{2028}b".as_bytes(), "a\\u{2028}b"),
            (b"a\xffb", "a\\xffb"),
            (b"it's \"\\\"", "it's \"\\\""),
        ];
        for (raw, shown) in cases {
            assert_eq!(printable(raw, 100), shown);
        }
    }

    #[test]
    fn long_text_is_cut_even_within_a_character() {
        assert_eq!(printable(b"abcdef", 3), "abc…");
        assert_eq!(printable(b"abc", 3), "abc");
        assert_eq!(printable("aé".as_bytes(), 2), "a\\xc3…");
    }
}
