//! When a pod that waits is looked at again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gated::GatedPod;

/// Between two looks at a pod, at first.
pub(super) const SHORTEST: Duration = Duration::from_secs(2);
/// The same at last for a pod whose images aren't known: as long as it is remembered that they aren't.
pub(super) const LONGEST_IF_UNKNOWN: Duration = Duration::from_secs(16);
/// The same for one that can't go whoever looks.
const LONGEST_IF_STUCK: Duration = Duration::from_secs(256);

/// What came of a look at a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GateVerdict {
    /// It has gone, or another has changed it.
    Done,
    /// Its images aren't known, or the API server didn't answer.
    Unknown,
    /// It can't go: nothing runs its images, or the API server refuses what should be done.
    Stuck,
}

/// When a pod is looked at again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recheck {
    pub(super) length: Duration,
    pub(super) end: Instant,
}

impl Recheck {
    /// The pause after this look, where `before` was the one before it.
    pub(super) fn after(look: GateVerdict, before: Option<Self>) -> Self {
        let longest = match look {
            GateVerdict::Done => SHORTEST,
            GateVerdict::Unknown => LONGEST_IF_UNKNOWN,
            GateVerdict::Stuck => LONGEST_IF_STUCK,
        };
        let length = before.map_or(SHORTEST, |before| before.length * 2).min(longest);
        Self { length, end: Instant::now() + length }
    }
}

/// The pauses of pods, by their keys.
#[derive(Default)]
pub(super) struct Rechecks(pub(super) HashMap<Box<str>, (Arc<GatedPod>, Recheck)>);

impl Rechecks {
    /// The last pause of this pod, not that of one of the same name before it.
    pub(super) fn of(&self, key: &str, pod: &GatedPod) -> Option<Recheck> {
        self.0.get(key).filter(|(own, _)| own.uid == pod.uid).map(|(_, pause)| *pause)
    }
}
