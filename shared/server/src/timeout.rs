//! The time that the API server gives a call, in the `timeout` parameter of its URL.

use std::time::Duration;

/// The API server allows a webhook at most this long.
const LONGEST: Duration = Duration::from_secs(30);
/// What the API server gives a webhook that doesn't say: also for callers that send no `timeout`.
const DEFAULT: Duration = Duration::from_secs(10);

/// The time that a request with this query has, from 0 to 30 s; 10 s where it doesn't say or can't be read.
pub(super) fn of_query(query: Option<&str>) -> Duration {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(parse)
        .map_or(DEFAULT, |timeout| timeout.min(LONGEST))
}

/// A duration as Go prints it (`time.Duration.String`): `5s`, `1m30s`, `500ms`, `1.5s`.
fn parse(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total =
            total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, millis) in
            [("5s", 5000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("1h", 3_600_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "1..5s", "9e9s", "99999999999999999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn queries() {
        assert_eq!(of_query(Some("timeout=2s")), Duration::from_secs(2));
        assert_eq!(of_query(Some("a=b&timeout=2s")), Duration::from_secs(2));
        assert_eq!(of_query(Some("timeout=1h")), LONGEST);
        assert_eq!(of_query(Some("timeout=soon")), DEFAULT);
        assert_eq!(of_query(None), DEFAULT);
    }
}
