//! Spaces writes out where somebody undoes them at once, as another controller that insists on its own caBundle.

use tokio::time::{Duration, Instant};

/// So many writes in a row need no pause: an installation or a rotation takes two or three.
const FREE: u32 = 4;
const LONGEST: Duration = Duration::from_secs(32);
/// After so much quiet beyond the pause, a write is a first one again.
const QUIET: Duration = Duration::from_secs(5);

/// The pause before the next write: none at first, then a second, doubled with each write up to [`LONGEST`].
#[derive(Debug, Default)]
pub(super) struct Pace {
    writes: u32,
    last: Option<Instant>,
}

impl Pace {
    /// How long to wait before a write.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        let since = self.last.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        self.interval().saturating_sub(since)
    }

    /// Notes a write.
    pub(super) fn wrote(&mut self, now: Instant) {
        let quiet =
            self.last.is_none_or(|last| now.saturating_duration_since(last) > self.interval() + QUIET);
        self.writes = if quiet { 1 } else { self.writes + 1 };
        self.last = Some(now);
    }

    fn interval(&self) -> Duration {
        match self.writes.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(doublings) => Duration::from_secs(1 << doublings.min(5)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_are_undone_at_once_become_rare_and_a_quiet_time_makes_them_free_again() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = pace.pause(now);
            pauses.push(pause.as_secs());
            now += pause;
            pace.wrote(now);
        }
        assert_eq!(pauses, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 32, 32]);
        now += LONGEST + QUIET + Duration::from_secs(1);
        pace.wrote(now);
        assert_eq!(pace.pause(now), Duration::ZERO);
    }
}
