//! Lengths of time as people write them: `"15m"`, `"1h 30m"`, `"500ms"`, `"7d"`; a number always has a unit.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Units from the longest, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What is longer is a mistake, and could overflow a date.
const LONGEST: Duration = Duration::from_hours(87600);

pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Duration, D::Error> {
    parse(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(in crate::config) fn serialize<S: Serializer>(
    duration: &Duration,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(&written(*duration))
}

/// The same for a duration that need not be given.
pub(in crate::config) mod optional {
    use super::{Deserializer, Duration, Serializer};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(from).map(Some)
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, to),
            None => to.serialize_none(),
        }
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let mistake = || format!("`{text}` is not a duration, such as `15m` or `1h 30m`");
    let mut rest = text.trim();
    let mut total = 0_u64;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(mistake)?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at_checked(letters).ok_or_else(mistake)?;
        let factor = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, factor) = factor.filter(|(_, factor)| *factor < last).ok_or_else(mistake)?;
        let number: u64 = number.parse().map_err(|_| mistake())?;
        total = number
            .checked_mul(*factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(mistake)?;
        last = *factor;
        rest = tail.trim_start();
    }
    match Duration::from_millis(total) {
        _ if last == u64::MAX => Err(mistake()),
        duration if duration > LONGEST => Err(format!("`{text}` is longer than ten years")),
        duration => Ok(duration),
    }
}

fn written(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, factor) in UNITS {
        if rest >= factor {
            parts.push(format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, millis, again) in [
            ("15m", 900_000, "15m"),
            ("1h 30m", 5_400_000, "1h 30m"),
            ("1h30m", 5_400_000, "1h 30m"),
            ("90m", 5_400_000, "1h 30m"),
            ("0s", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("1s 500ms", 1_500, "1s 500ms"),
            ("7d", 604_800_000, "7d"),
            (" 24h ", 86_400_000, "1d"),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(written(duration), again);
            assert_eq!(parse(&written(duration)), Ok(duration));
        }
    }

    #[test]
    fn numbers_without_units_and_the_like_are_refused() {
        for text in [
            "",
            " ",
            "15",
            "m",
            "-5m",
            "1.5h",
            "15 minutes",
            "5 m",
            "15M",
            "1m 1h",
            "1m 1m",
            "1h 30",
            "1w",
            "99999999999999999999s",
            "18446744073709551615d",
            "5000d",
            "٣m",
            "1h,30m",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
