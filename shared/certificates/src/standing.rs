//! Since when each CA has stood where clients read what to trust.

use rustls_pki_types::CertificateDer;
use tokio::time::{Duration, Instant};

/// The CAs that stand now, each with the moment from which on it has stood without a gap, by the monotonic clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing(Vec<(CertificateDer<'static>, Instant)>);

impl Standing {
    /// What stands at `now`: what is no longer there is forgotten, what is new counts from now.
    pub(super) fn observe<'a>(
        &mut self,
        present: impl IntoIterator<Item = &'a CertificateDer<'static>>,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.0);
        for ca in present {
            let since = before.iter().find(|(other, _)| other == ca).map_or(now, |(_, since)| *since);
            self.0.push((ca.clone(), since));
        }
    }

    /// What stands now was never seen before, or could have been gone in between: all of it counts anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn contains(&self, ca: &CertificateDer<'_>) -> bool {
        self.0.iter().any(|(other, _)| other == ca)
    }

    /// How long until `ca` has stood for `hold`: zero once it has, none while it doesn't stand.
    pub(super) fn remaining(
        &self,
        ca: &CertificateDer<'_>,
        hold: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let (_, since) = self.0.iter().find(|(other, _)| other == ca)?;
        Some(hold.saturating_sub(now.saturating_duration_since(*since)))
    }
}
