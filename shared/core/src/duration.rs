//! Durations as text: Go's syntax (`time.ParseDuration`), and days and weeks.
//!
//! A duration is numbers with units, added up: `1h30m`, `1.5h`, `250ms`, `7d`. The units are `w` (7 days), `d` (24 hours), `h`, `m`,
//! `s`, `ms`, `us` or `µs`, and `ns`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::label::excerpt;

/// Nanoseconds by unit. Go knows both spellings of the micro sign, U+00B5 and U+03BC.
const UNITS: [(&str, u128); 10] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
];

/// The longest duration: an instant plus this never overflows.
const MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// Digits of a fraction that count. Each unit has fewer digits in nanoseconds.
const MAX_FRACTION: usize = 18;

/// A text that is not a duration, or is one of more than a hundred years.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is not a duration such as 7d, 1h30m, 90s or 250ms", excerpt(.0))]
pub struct DurationError(String);

/// Reads a duration. A sign is an error: no duration here is negative.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    nanoseconds(text)
        .and_then(|total| u64::try_from(total).ok())
        .map(Duration::from_nanos)
        .filter(|total| *total <= MAX)
        .ok_or_else(|| DurationError(text.to_owned()))
}

fn nanoseconds(text: &str) -> Option<u128> {
    if text.is_empty() {
        return None;
    }
    let in_number = |c: char| c == '.' || c.is_ascii_digit();
    let mut rest = text;
    let mut total = 0_u128;
    // As in Go, a zero needs no unit.
    while !rest.is_empty() && text != "0" {
        let (number, after) = rest.split_at(rest.find(|c| !in_number(c))?);
        let (unit, after) = after.split_at(after.find(in_number).unwrap_or(after.len()));
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *unit)?)?;
        rest = after;
    }
    Some(total)
}

/// A decimal number of units, rounded down to nanoseconds.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let fraction = fraction.get(..MAX_FRACTION).unwrap_or(fraction);
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)?.checked_mul(unit)? / scale)
}

/// Deserializes a field that holds a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Deserializes a field that holds a duration, or null for none.
pub fn deserialize_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_text_parses() {
        for (text, seconds) in [
            ("7d", 604_800.0),
            ("1h30m", 5400.0),
            ("1w2d", 777_600.0),
            ("90s", 90.0),
            ("1s250ms", 1.25),
            ("1.5h", 5400.0),
            (".5s", 0.5),
            ("1.s", 1.0),
            ("1m1h1m", 3720.0),
            ("500us", 0.0005),
            ("500µs500μs", 0.001),
            ("1.0000000000000000000009s", 1.0),
            ("0", 0.0),
            ("0s", 0.0),
            ("36500d", 3_153_600_000.0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn invalid_text_is_an_error() {
        let long = "9".repeat(60);
        for text in [
            "",
            "7",
            "00",
            "d",
            ".s",
            "1x",
            "1y",
            "1..5s",
            "1.5.s",
            "-1h",
            "+1h",
            " 1h",
            "1h ",
            "1 h",
            "99999999999w",
            "36501d",
            "9e9s",
            "٣d",
            "1é",
            &format!("{long}h"),
            &format!("1{long}.{long}h"),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let error = parse("1y").unwrap_err().to_string();
        assert_eq!(error, "\"1y\" is not a duration such as 7d, 1h30m, 90s or 250ms");
    }
}
