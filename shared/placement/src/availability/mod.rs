//! Whether a group of nodes takes pods, by the evidence of the pods that were placed in it.
//!
//! ```text
//!            a pod is unschedulable for too long
//!      Open ─────────────────────────────────────▶ Closed ◀──────────┐ the pod that tries the group
//!        ▲                                           │               │ is unschedulable for too long
//!        │                                           │ a pause ends, │
//!        │                                           │ or a node is  │
//!        │      a pod of the group gets a node       ▼ ready         │
//!        └───────────────────────────────────────────┴─ Probing ─────┘
//! ```
//!
//! The absence of nodes closes no group: a pod that waits is what makes an autoscaler add a node. One replica, the leader, calls
//! [`GroupAvailability::next`] and publishes the result; all replicas decide about pods by what it has published.

#[cfg(test)]
mod model;

use crate::ledger::Token;

/// The pauses before a closed group is tried: after no, one, two, and more failed tries. In seconds.
const PAUSES: [i64; 4] = [5 * 60, 10 * 60, 20 * 60, 30 * 60];
/// How long a pod that tries a group may be missing: it was rejected after its admission, or deleted. In seconds.
const PROBE_GRACE: i64 = 60;

/// Whether a group takes pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It takes any pod.
    Open,
    /// It takes none.
    Closed,
    /// It takes one pod, which tries whether there are nodes for it again. The token is of its admission request, once there is one.
    Probing(Option<Token>),
}

/// The availability of one group. Times are in seconds since 1970: the state is published, and the next leader continues from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupAvailability {
    /// Whether the group takes pods.
    pub phase: Phase,
    /// When this phase began.
    pub since: i64,
    /// When a pod may try the group, if it is closed.
    pub next_probe: i64,
    /// How many pods have tried the group in vain since its pods were last complete.
    pub failed_probes: u32,
}

/// The observations of the leader about a group between two calls of [`GroupAvailability::next`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "the observations do not depend on one another")]
pub struct Evidence {
    /// A pod of the group has been unschedulable for too long.
    pub overdue: bool,
    /// A pod of the group has no node.
    pub waiting: bool,
    /// A pod of the group has got a node.
    pub scheduled: bool,
    /// A node that matches the group has become ready.
    pub new_node: bool,
    /// The group has fewer pods than its share.
    pub lacks_pods: bool,
}

impl GroupAvailability {
    /// A group that takes pods.
    pub const OPEN: Self = Self { phase: Phase::Open, since: 0, next_probe: 0, failed_probes: 0 };

    /// Whether the group takes any pod.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the group takes one pod that does not exist yet.
    pub fn wants_probe(&self) -> bool {
        self.phase == Phase::Probing(None)
    }

    /// The availability after `evidence`.
    #[must_use]
    pub fn next(self, evidence: Evidence, now: i64) -> Self {
        let Evidence { overdue, waiting, scheduled, new_node, lacks_pods } = evidence;
        match self.phase {
            Phase::Open if overdue => Self::closed(self.failed_probes, now),
            // Once its pods are complete, the next closure is another story.
            Phase::Open if !lacks_pods && !waiting => Self { failed_probes: 0, ..self },
            Phase::Closed | Phase::Probing(_) if scheduled => Self { phase: Phase::Open, since: now, ..self },
            Phase::Closed => {
                let next_probe = if new_node { now.min(self.next_probe) } else { self.next_probe };
                // A pod that waits tries the group all the time.
                if next_probe <= now && lacks_pods && !waiting {
                    return Self { phase: Phase::Probing(None), since: now, next_probe, ..self };
                }
                Self { next_probe, ..self }
            }
            Phase::Probing(_) if overdue => Self::closed(self.failed_probes.saturating_add(1), now),
            Phase::Probing(None) if !lacks_pods => Self { phase: Phase::Closed, since: now, ..self },
            Phase::Probing(Some(_)) if !waiting && now.saturating_sub(self.since) > PROBE_GRACE => {
                Self { phase: Phase::Probing(None), since: now, ..self }
            }
            Phase::Open | Phase::Probing(_) => self,
        }
    }

    /// The availability once a pod with this token tries the group.
    #[must_use]
    pub fn tried_by(self, token: Token, now: i64) -> Self {
        match self.phase {
            Phase::Probing(None) => Self { phase: Phase::Probing(Some(token)), since: now, ..self },
            _ => self,
        }
    }

    fn closed(failed_probes: u32, now: i64) -> Self {
        let pause = PAUSES.get(failed_probes as usize).or(PAUSES.last()).copied().unwrap_or_default();
        Self { phase: Phase::Closed, since: now, next_probe: now.saturating_add(pause), failed_probes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERDUE: Evidence =
        Evidence { overdue: true, waiting: true, scheduled: false, new_node: false, lacks_pods: false };
    const LACKING: Evidence = Evidence { overdue: false, waiting: false, lacks_pods: true, ..OVERDUE };

    #[test]
    fn pause_grows_with_each_failed_probe() {
        let mut group = GroupAvailability::OPEN.next(OVERDUE, 0);
        let mut now = 0;
        for minutes in [5, 10, 20, 30, 30] {
            assert_eq!((group.phase, group.next_probe - now), (Phase::Closed, minutes * 60));
            assert_eq!(group.next(LACKING, group.next_probe - 1).phase, Phase::Closed);
            now = group.next_probe;
            group = group.next(LACKING, now);
            assert!(group.wants_probe());
            group = group.tried_by(Token(7), now).next(Evidence { waiting: true, ..LACKING }, now + 10);
            assert_eq!(group.phase, Phase::Probing(Some(Token(7))));
            now += 300;
            group = group.next(Evidence { lacks_pods: true, ..OVERDUE }, now);
        }
    }

    #[test]
    fn new_node_ends_the_pause() {
        let closed = GroupAvailability::OPEN.next(OVERDUE, 0);
        let node = Evidence { new_node: true, ..LACKING };
        assert!(closed.next(node, 10).wants_probe());
        // A pod still waits: it tries the node. Once it is gone, another one may.
        let waits = closed.next(Evidence { waiting: true, ..node }, 10);
        assert_eq!(waits.phase, Phase::Closed);
        assert!(waits.next(LACKING, 12).wants_probe());
    }

    #[test]
    fn only_a_pod_with_a_node_opens_a_group() {
        let closed = GroupAvailability::OPEN.next(OVERDUE, 0);
        let none = Evidence { lacks_pods: false, ..LACKING };
        assert_eq!(closed.next(none, 10_000).phase, Phase::Closed, "the workload was scaled down");
        let probing = closed.next(LACKING, 10_000);
        assert_eq!(probing.next(none, 10_001).phase, Phase::Closed, "there is nothing to try with");
        for phase in [closed, probing, probing.tried_by(Token(1), 10_000)] {
            assert!(phase.next(Evidence { scheduled: true, ..OVERDUE }, 10_002).is_open());
        }
    }

    #[test]
    fn rejected_probe_is_replaced() {
        let tried = GroupAvailability::OPEN.next(OVERDUE, 0).next(LACKING, 400).tried_by(Token(1), 410);
        assert_eq!(tried.next(LACKING, 410 + PROBE_GRACE).phase, Phase::Probing(Some(Token(1))));
        assert!(tried.next(LACKING, 411 + PROBE_GRACE).wants_probe());
    }
}
