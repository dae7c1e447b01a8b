//! A limit of actions per minute.

use tokio::time::{Duration, Instant};

/// A token bucket that is full at first and refills within a minute.
pub(super) struct TokenBucket {
    tokens: u32,
    per_minute: u32,
    filled: Instant,
}

impl TokenBucket {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { tokens: per_minute, per_minute, filled: Instant::now() }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self) -> bool {
        let interval = Duration::from_mins(1) / self.per_minute.max(1);
        while self.tokens < self.per_minute && self.filled.elapsed() >= interval {
            self.tokens += 1;
            self.filled += interval;
        }
        if self.tokens == self.per_minute {
            self.filled = Instant::now();
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bucket_refills_within_a_minute() {
        let taken = |bucket: &mut TokenBucket| (0..100).filter(|_| bucket.take()).count();
        let mut bucket = TokenBucket::new(6);
        assert_eq!(taken(&mut bucket), 6);
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(taken(&mut bucket), 2);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(taken(&mut bucket), 1, "a partial interval isn't lost");
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(taken(&mut bucket), 6, "the bucket never exceeds its size");
        assert_eq!(taken(&mut TokenBucket::new(0)), 0);
    }
}
