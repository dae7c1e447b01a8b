//! So many in a minute.

use tokio::time::{Duration, Instant};

/// A token bucket, full at first.
pub(super) struct Pace {
    tokens: u32,
    per_minute: u32,
    filled: Instant,
}

impl Pace {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { tokens: per_minute, per_minute, filled: Instant::now() }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self) -> bool {
        let each = Duration::from_mins(1) / self.per_minute.max(1);
        while self.tokens < self.per_minute && self.filled.elapsed() >= each {
            self.tokens += 1;
            self.filled += each;
        }
        if self.tokens == self.per_minute {
            self.filled = Instant::now();
        }
        let some = self.tokens > 0;
        self.tokens -= u32::from(some);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_in_a_minute() {
        let taken = |pace: &mut Pace| (0..100).filter(|_| pace.take()).count();
        let mut pace = Pace::new(6);
        assert_eq!(taken(&mut pace), 6);
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(taken(&mut pace), 2);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(taken(&mut pace), 1, "what was begun isn't lost");
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(taken(&mut pace), 6, "no more are saved up");
        assert_eq!(taken(&mut Pace::new(0)), 0);
    }
}
