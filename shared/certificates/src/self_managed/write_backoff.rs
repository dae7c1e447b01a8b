//! Delays writes that another writer keeps undoing, such as a controller with a caBundle of its own.

use tokio::time::{Duration, Instant};

/// As many writes in a row aren't delayed: an installation or a rotation takes two or three.
const BURST: u32 = 4;
const MAX_DELAY: Duration = Duration::from_secs(32);
/// The backoff resets when no write follows for this time after the delay.
const QUIET: Duration = Duration::from_secs(5);

/// The delay before the next write: none for a burst, then a second, doubled with each write up to [`MAX_DELAY`].
#[derive(Debug, Default)]
pub(super) struct WriteBackoff {
    writes: u32,
    last: Option<Instant>,
}

impl WriteBackoff {
    pub(super) fn delay(&self, now: Instant) -> Duration {
        let since = self.last.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        self.interval().saturating_sub(since)
    }

    pub(super) fn record_write(&mut self, now: Instant) {
        let quiet =
            self.last.is_none_or(|last| now.saturating_duration_since(last) > self.interval() + QUIET);
        self.writes = if quiet { 1 } else { self.writes + 1 };
        self.last = Some(now);
    }

    fn interval(&self) -> Duration {
        match self.writes.checked_sub(BURST) {
            None => Duration::ZERO,
            Some(doublings) => Duration::from_secs(1 << doublings.min(5)).min(MAX_DELAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_writes_are_delayed_until_a_quiet_time() {
        let mut backoff = WriteBackoff::default();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..12 {
            let delay = backoff.delay(now);
            delays.push(delay.as_secs());
            now += delay;
            backoff.record_write(now);
        }
        assert_eq!(delays, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 32, 32]);
        now += MAX_DELAY + QUIET + Duration::from_secs(1);
        backoff.record_write(now);
        assert_eq!(backoff.delay(now), Duration::ZERO);
    }
}
