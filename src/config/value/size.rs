//! Amounts of bytes: `"64KiB"`; the unit is `B`, `KiB`, `MiB` or `GiB`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<usize, D::Error> {
    parse(&String::deserialize(from)?).map_err(D::Error::custom)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(in crate::config) fn serialize<S: Serializer>(size: &usize, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&written(*size))
}

fn parse(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start());
    unit.and_then(|(_, factor)| number.parse::<usize>().ok()?.checked_mul(*factor))
        .ok_or_else(|| format!("`{text}` is not a size, such as `64KiB`"))
}

fn written(size: usize) -> String {
    let fits = |(_, factor): &&(&str, usize)| size > 0 && size.is_multiple_of(*factor);
    match UNITS.iter().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", size / factor),
        None => format!("{size}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_binary() {
        for (text, size, again) in [
            ("0B", 0, "0B"),
            ("100B", 100, "100B"),
            ("64KiB", 65_536, "64KiB"),
            ("64 KiB", 65_536, "64KiB"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("1GiB", 1 << 30, "1GiB"),
        ] {
            assert_eq!(parse(text), Ok(size));
            assert_eq!(written(size), again);
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        for text in ["", "64", "KiB", "64kB", "64KB", "-1B", "1.5MiB", "99999999999GiB", "1 K iB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
