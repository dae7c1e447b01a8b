//! How long each CA has been trusted without a gap.
//!
//! The API server reads a changed caBundle with a delay, so a leaf is served only after its CA has been trusted for a while.

use tokio::time::{Duration, Instant};

use crate::certificate::Certificate;

/// The CAs that are trusted now, each with the time since when, by the monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct CaHold {
    period: Duration,
    trusted: Vec<(Certificate, Instant)>,
}

impl CaHold {
    /// Requires a CA to be trusted for `period`.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, trusted: Vec::new() }
    }

    /// Replaces the trusted CAs. The time of a CA that was trusted before goes on.
    pub(crate) fn observe<'a>(&mut self, trusted: impl IntoIterator<Item = &'a Certificate>, now: Instant) {
        let before = std::mem::take(&mut self.trusted);
        for ca in trusted {
            let since = before.iter().find(|(other, _)| other == ca).map_or(now, |(_, since)| *since);
            self.trusted.push((ca.clone(), since));
        }
    }

    /// Restarts the time of every CA, because changes since the last observation may have been missed.
    pub(crate) fn reset(&mut self) {
        self.trusted.clear();
    }

    pub(crate) fn contains(&self, ca: &Certificate) -> bool {
        self.trusted.iter().any(|(other, _)| other == ca)
    }

    /// The rest of the hold of `ca`, zero when it is over. `None` if `ca` isn't trusted.
    pub(crate) fn remaining(&self, ca: &Certificate, now: Instant) -> Option<Duration> {
        let (_, since) = self.trusted.iter().find(|(other, _)| other == ca)?;
        Some(self.period.saturating_sub(now.saturating_duration_since(*since)))
    }

    pub(crate) fn is_over(&self, ca: &Certificate, now: Instant) -> bool {
        self.remaining(ca, now) == Some(Duration::ZERO)
    }
}
