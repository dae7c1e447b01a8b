//! A model of one workload with two groups: every order of capacity that comes and goes, of pods, of leaders, and of time.
//!
//! The leader, the admission of pods, taking back and the return of pods are those of the product, reduced to two pods: a pod is in group 0, which has
//! nodes, or in group 1, which may not have. Time passes in steps of a minute up to a horizon.

use std::collections::BTreeSet;

use super::{Evidence, GroupAvailability, Phase};
use crate::ledger::Token;

/// After so many minutes an unschedulable pod closes its group.
const AFTER: u8 = 5;
/// Minutes that are explored.
const HORIZON: u8 = 24;
/// Pods that the workload wants; one of them belongs to group 1.
const PODS: usize = 2;
/// Changes of capacity that are explored.
const CHANGES: u8 = 3;
/// Pods that are rejected after their admission, by a quota for example.
const REJECTIONS: u8 = 1;
/// The first pause before a probe, in minutes.
const FIRST_PAUSE: u8 = 5;

/// A mechanism that availability rests on. The model must find a history that fails without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    /// A pod that is unschedulable for too long closes its group.
    Closing,
    /// Pods that wait for a closed group are taken back.
    TakingBack,
    /// The pod that tries the group is named in the status, so that no other pod tries it.
    Claim,
    /// A closed group is tried after a pause.
    Pause,
    /// A pod that tries the group and does not appear is replaced.
    Grace,
    /// A new node ends the pause.
    NewNode,
    /// A pod that gets a node opens its group.
    Opening,
}

const MECHANISMS: [Mechanism; 7] = [
    Mechanism::Closing,
    Mechanism::TakingBack,
    Mechanism::Claim,
    Mechanism::Pause,
    Mechanism::Grace,
    Mechanism::NewNode,
    Mechanism::Opening,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ModelPod {
    /// In group 0, which always has nodes.
    Elsewhere,
    /// In group 1 without a node, for so many minutes as this leader has observed.
    Waiting(u8),
    /// In group 1 with a node.
    Running,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    minute: u8,
    capacity: bool,
    changes: u8,
    pods: Vec<ModelPod>,
    /// The published state: phase as (0 open, 1 closed, 2 probing, 3 probing with a pod), since, next probe, failed probes.
    group: (u8, i64, i64, u32),
    /// Pods evicted in this minute to try the group or to return to it.
    returns: u8,
    leader_changes: u8,
    rejections: u8,
    /// When a pod that tried the group was rejected.
    rejected: Option<u8>,
    /// When a probe last failed, or the group closed.
    failed: Option<u8>,
    /// A node has come, and no pod has tried it since.
    untried: bool,
}

impl World {
    fn group(&self) -> GroupAvailability {
        let (phase, since, next_probe, failed_probes) = self.group;
        let phase = match phase {
            0 => Phase::Open,
            1 => Phase::Closed,
            2 => Phase::Probing(None),
            _ => Phase::Probing(Some(Token(1))),
        };
        GroupAvailability { phase, since, next_probe, failed_probes }
    }

    fn set(&mut self, group: GroupAvailability) {
        let phase = match group.phase {
            Phase::Open => 0,
            Phase::Closed => 1,
            Phase::Probing(None) => 2,
            Phase::Probing(Some(_)) => 3,
        };
        self.group = (phase, group.since, group.next_probe, group.failed_probes);
    }

    fn now(&self) -> i64 {
        i64::from(self.minute) * 60
    }

    fn in_group(&self) -> usize {
        self.pods.iter().filter(|pod| **pod != ModelPod::Elsewhere).count()
    }

    fn waiting(&self) -> usize {
        self.pods.iter().filter(|pod| matches!(pod, ModelPod::Waiting(_))).count()
    }

    /// Admission of a pod. A rejected one is replaced by its controller.
    fn create(&mut self, rejected: bool, without: Option<Mechanism>) {
        let group = self.group();
        let wanted = self.in_group() == 0 && self.pods.len() + 1 == PODS;
        let pod = if group.wants_probe() {
            // A rejected pod is replaced at once.
            let is_due = |failed: u8| {
                self.untried
                    || self.minute >= failed + FIRST_PAUSE
                    || self.rejected.is_some_and(|rejected| rejected >= failed)
            };
            assert!(
                self.failed.is_none_or(is_due),
                "a pod tries the group before the pause is over: {self:?}"
            );
            self.untried = false;
            if without != Some(Mechanism::Claim) {
                self.set(group.tried_by(Token(1), self.now()));
            }
            if rejected {
                self.rejections += 1;
                self.rejected = Some(self.minute);
                return;
            }
            ModelPod::Waiting(0)
        } else if group.is_open() && wanted {
            ModelPod::Waiting(0)
        } else {
            ModelPod::Elsewhere
        };
        self.pods.push(pod);
    }

    /// The leader's pass, given whether a pod has got a node and whether a node has come. One of the pods that are created may be rejected.
    fn lead(&mut self, scheduled: bool, new_node: bool, rejected: bool, without: Option<Mechanism>) {
        let has = |mechanism: Mechanism| without != Some(mechanism);
        let overdue =
            self.pods.iter().any(|pod| matches!(pod, ModelPod::Waiting(minutes) if *minutes >= AFTER));
        let evidence = Evidence {
            overdue: overdue && has(Mechanism::Closing),
            waiting: self.waiting() > 0,
            scheduled: scheduled && has(Mechanism::Opening),
            new_node: new_node && has(Mechanism::NewNode),
            lacks_pods: self.pods.len() == PODS && self.in_group() == 0,
        };
        let mut before = self.group();
        match before.phase {
            Phase::Closed if !has(Mechanism::Pause) => before.next_probe = self.now(),
            Phase::Probing(Some(_)) if !has(Mechanism::Grace) => before.since = self.now(),
            _ => {}
        }
        self.untried |= new_node && !before.is_open();
        let after = before.next(evidence, self.now());
        self.set(after);
        if after.phase == Phase::Closed && evidence.overdue {
            self.failed = Some(self.minute);
            self.untried = false;
        }
        if after.is_open() {
            (self.failed, self.untried) = (None, false);
        }
        assert!(
            !(self.untried && evidence.lacks_pods && after.phase == Phase::Closed),
            "no pod tries the new node: {self:?}"
        );
        if after.phase == Phase::Closed && self.waiting() > 0 && has(Mechanism::TakingBack) {
            self.pods.retain(|pod| !matches!(pod, ModelPod::Waiting(_)));
        } else if (after.wants_probe() || after.is_open()) && evidence.lacks_pods {
            // Its successor tries the group, or returns to it.
            self.pods.pop();
            self.returns += 1;
        }
        let mut rejected = rejected;
        while self.pods.len() < PODS {
            let before = self.rejections;
            self.create(rejected, without);
            rejected &= self.rejections == before;
        }
    }

    fn schedule(&mut self) -> bool {
        let waiting = self.pods.iter_mut().find(|pod| matches!(pod, ModelPod::Waiting(_)));
        match waiting {
            Some(pod) if self.capacity => {
                *pod = ModelPod::Running;
                true
            }
            _ => false,
        }
    }

    /// The worlds after one more minute.
    fn successors(&self, without: Option<Mechanism>) -> Vec<Self> {
        let choices = [false, true];
        let all = choices.iter().flat_map(|change| choices.map(|leader| (*change, leader)));
        let all = all.flat_map(|(change, leader)| choices.map(|rejected| (change, leader, rejected)));
        let possible = all.filter(|(change, leader, rejected)| {
            !(*change && self.changes == CHANGES
                || *leader && self.leader_changes == 1
                || *rejected && self.rejections == REJECTIONS)
        });
        let after =
            possible.map(|(change, leader, rejected)| self.after_minute(change, leader, rejected, without));
        after.collect()
    }

    fn after_minute(
        &self,
        change: bool,
        leader_changes: bool,
        rejected: bool,
        without: Option<Mechanism>,
    ) -> Self {
        let mut world = self.clone();
        world.minute += 1;
        world.returns = 0;
        for pod in &mut world.pods {
            if let ModelPod::Waiting(minutes) = pod {
                // A new leader counts from when it first sees the pod.
                *minutes = if leader_changes { 0 } else { *minutes + 1 };
            }
        }
        world.leader_changes += u8::from(leader_changes);
        if change {
            world.changes += 1;
            world.capacity = !world.capacity;
            if !world.capacity {
                world.untried = false;
                // The nodes go, and their pods are replaced.
                world.pods.retain(|pod| *pod != ModelPod::Running);
                while world.pods.len() < PODS {
                    world.create(false, without);
                }
            }
        }
        let scheduled = world.schedule();
        world.lead(scheduled, change && world.capacity, rejected, without);
        world
    }

    fn check(&self) {
        assert!(self.waiting() <= 1, "more than one pod tries a group: {self:?}");
        assert!(self.returns <= 1, "more than one eviction: {self:?}");
        assert_eq!(self.pods.len(), PODS);
        let too_long = |pod: &ModelPod| matches!(pod, ModelPod::Waiting(minutes) if *minutes > AFTER);
        assert!(!self.pods.iter().any(too_long), "a pod waits for too long: {self:?}");
        if self.group().phase == Phase::Closed {
            assert_eq!(self.waiting(), 0, "a pod waits for a closed group: {self:?}");
        }
    }
}

/// Explores every order of events.
fn explore(without: Option<Mechanism>) {
    let start = World {
        minute: 0,
        capacity: false,
        changes: 0,
        pods: vec![ModelPod::Elsewhere, ModelPod::Waiting(0)],
        group: (0, 0, 0, 0),
        returns: 0,
        leader_changes: 0,
        rejections: 0,
        rejected: None,
        failed: None,
        untried: false,
    };
    let mut seen = BTreeSet::from([start.clone()]);
    let mut open = vec![start];
    let mut closed = 0;
    let mut tried = 0;
    let mut reopened = 0;
    while let Some(world) = open.pop() {
        if world.minute == HORIZON {
            continue;
        }
        for next in world.successors(without) {
            next.check();
            match (world.group().phase, next.group().phase) {
                (Phase::Open, Phase::Closed) => closed += 1,
                (_, Phase::Probing(Some(_))) => tried += 1,
                (Phase::Probing(_) | Phase::Closed, Phase::Open) => reopened += 1,
                _ => {}
            }
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    assert!(closed > 0 && tried > 0 && reopened > 0, "{closed} {tried} {reopened}");
    // With capacity that stays, the pod is in its group in the end: a closed group is tried after 20 minutes at most.
    // A rejected pod is replaced after two minutes.
    let late = |world: &&World| {
        let is_late = world.minute == HORIZON && world.changes == 1 && world.capacity;
        is_late && world.rejected.is_none_or(|at| at + 3 <= HORIZON)
    };
    let mut settled = seen.iter().filter(late).peekable();
    assert!(settled.peek().is_some());
    assert!(settled.all(|world| world.in_group() == 1), "the pod has returned");
}

#[test]
fn group_settles_in_every_order_of_events() {
    explore(None);
}

#[test]
fn exploration_without_a_mechanism_fails() {
    for mechanism in MECHANISMS {
        let found = std::panic::catch_unwind(|| explore(Some(mechanism))).is_err();
        assert!(found, "no history fails without {mechanism:?}");
    }
}
