//! The times at which a gated pod is checked again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gated::GatedPod;

/// The first interval between two checks of a pod.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(2);
/// The longest interval for a pod with unknown images: the cache keeps most errors that long.
const MAX_INTERVAL_IF_UNKNOWN: Duration = Duration::from_secs(16);
/// The longest interval for a pod that cannot be released.
const MAX_INTERVAL_IF_STUCK: Duration = Duration::from_secs(256);

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GateVerdict {
    /// The pod is deleted, or another replica changed it.
    Done,
    /// Its images are unknown, or the API server did not answer.
    Unknown,
    /// No node runs its images, or the API server refuses the patch.
    Stuck,
}

/// The next check of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recheck {
    interval: Duration,
    at: Instant,
}

impl Recheck {
    /// The interval after this check; `before` is the previous one.
    pub(super) fn after(verdict: GateVerdict, before: Option<Self>) -> Self {
        let longest = match verdict {
            GateVerdict::Done => MIN_INTERVAL,
            GateVerdict::Unknown => MAX_INTERVAL_IF_UNKNOWN,
            GateVerdict::Stuck => MAX_INTERVAL_IF_STUCK,
        };
        let interval = before.map_or(MIN_INTERVAL, |before| before.interval * 2).min(longest);
        Self { interval, at: Instant::now() + interval }
    }

    /// The same check, `left` from now at the latest.
    pub(super) fn within(self, left: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + left), ..self }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }
}

/// The next checks of pods, by their keys.
#[derive(Default)]
pub(super) struct Rechecks(HashMap<Box<str>, (Arc<GatedPod>, Recheck)>);

impl Rechecks {
    pub(super) fn insert(&mut self, key: Box<str>, pod: Arc<GatedPod>, recheck: Recheck) {
        self.0.insert(key, (pod, recheck));
    }

    /// The time of the next check of any pod.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|(_, recheck)| recheck.at).min()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The recheck of this pod. A pod with the same name and another uid has none.
    pub(super) fn of(&self, key: &str, pod: &GatedPod) -> Option<Recheck> {
        self.0.get(key).filter(|(own, _)| own.uid() == pod.uid()).map(|(_, recheck)| *recheck)
    }
}
