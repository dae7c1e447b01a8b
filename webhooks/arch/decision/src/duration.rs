//! Durations with days in them: `7d`, `1h30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// More than anybody means: a hundred years.
const MOST: u64 = 100 * 365 * 86_400_000;

/// A text that is no duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration: one is 7d, 1h30m, 90s or 250ms")]
pub struct DurationError(String);

/// Reads numbers with units, added up; each unit once, the longer first.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    total(text).map(Duration::from_millis).ok_or_else(|| DurationError(text.to_owned()))
}

fn total(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0_u64);
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at_checked(letters)?;
        let (_, milliseconds) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*milliseconds)?)?;
        rest = after;
    }
    (!text.is_empty() && total <= MOST).then_some(total)
}

/// Reads a field that holds a duration.
pub(crate) fn field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// The same where null, or no field, means none.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ones_and_short_ones() {
        for (text, seconds) in [
            ("7d", 604_800.0),
            ("1h30m", 5400.0),
            ("1w2d", 777_600.0),
            ("90s", 90.0),
            ("1s250ms", 1.25),
            ("0s", 0.0),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs_f64(seconds), "{text}");
        }
        for text in [
            "",
            "7",
            "d",
            "1x",
            "1m1h",
            "1h1h",
            "-1h",
            "1.5h",
            " 1h",
            "1h ",
            "99999999999w",
            "37000d",
            "٣d",
            "1é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("1y").unwrap_err().to_string(),
            "\"1y\" is no duration: one is 7d, 1h30m, 90s or 250ms"
        );
    }
}
