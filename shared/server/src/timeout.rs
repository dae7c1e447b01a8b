//! The time that the API server gives a call, in the `timeout` parameter of its URL.

use std::time::Duration;

use podshaper_core::duration;

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
        .and_then(|timeout| duration::parse(timeout).ok())
        .map_or(DEFAULT, |timeout| timeout.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(of_query(Some("timeout=2s")), Duration::from_secs(2));
        assert_eq!(of_query(Some("a=b&timeout=2s")), Duration::from_secs(2));
        assert_eq!(of_query(Some("timeout=1.5s")), Duration::from_millis(1500));
        assert_eq!(of_query(Some("timeout=1h")), LONGEST);
        assert_eq!(of_query(Some("timeout=soon")), DEFAULT);
        assert_eq!(of_query(None), DEFAULT);
    }
}
