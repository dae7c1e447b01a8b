//! The pods of one controller as a replica knows them: from its watch, and from lists that were ahead of it.

use std::collections::BTreeMap;

use super::content::{Assignment, PodName, ResourceVersion, Token};
use crate::allocator::Occupancy;
use crate::policy::{GroupName, Policy};

/// The pods of one owner.
pub type PodMap = BTreeMap<PodName, PodRecord>;

/// A pod as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRecord {
    /// The version of this state of the pod, or of its deletion.
    pub version: ResourceVersion,
    /// Whether the pod counts.
    pub state: PodState,
    /// The known slot and group of the pod.
    pub placement: PodPlacement,
    /// Whether the pod's author has set a deletion cost.
    pub costed: bool,
    /// Whether the pod has the label of its webhook. The watch shows only such pods.
    pub marked: bool,
}

/// Whether a pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodState {
    /// The pod runs or will run.
    Active,
    /// The pod of a Job has succeeded. Its slot stays occupied, and the Job may create further pods.
    Succeeded,
    /// The pod has failed, is being deleted, or was deleted. Its slot is free.
    Gone,
}

impl PodState {
    /// The state of a pod with a controller of this kind: by `status.state`, and whether it is being deleted.
    pub fn of(status: &str, deleted: bool, controller: &str) -> Self {
        match status {
            _ if deleted => Self::Gone,
            "Succeeded" if controller == "Job" => Self::Succeeded,
            // Other controllers replace the pod (`IsPodActive` of k8s.io/kubernetes/pkg/controller).
            "Failed" | "Succeeded" => Self::Gone,
            _ => Self::Active,
        }
    }
}

/// The known placement of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PodPlacement {
    /// The pod was placed.
    Assigned(Assignment),
    /// The pod was placed in a group that the policy no longer has. It occupies its slot and counts in no group.
    Orphaned(Assignment),
    /// The pod is not placed, but its node or its selector implies its group.
    Inferred(GroupName),
    /// The pod is not placed, and its group is unknown.
    Unknown,
}

/// The pods. Those that are marked are complete up to the version of the watch, or of the last list or event, whichever is later; the
/// others up to that of the last list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PodView {
    pods: PodMap,
    complete: ResourceVersion,
    /// The version up to which pods without the label are known.
    unmarked: ResourceVersion,
}

impl PodView {
    /// Takes in what the watch says about one pod, in the order of versions; what a list has overtaken changes nothing.
    pub(super) fn apply_event(&mut self, name: PodName, pod: PodRecord) {
        if pod.version > self.complete {
            self.complete = pod.version;
            self.set(name, pod);
        }
    }

    /// Applies a list of all pods as of `version`. If the watch or another list is newer, it still counts for pods that
    /// aren't marked.
    pub(super) fn apply_list(&mut self, version: ResourceVersion, watched: ResourceVersion, pods: PodMap) {
        let is_newest = version >= self.complete_up_to(watched);
        let counts = pods.into_iter().filter(|(_, pod)| pod.state != PodState::Gone);
        if is_newest {
            self.complete = version;
            self.unmarked = version;
            self.pods = counts.collect();
        } else if version > self.unmarked {
            self.unmarked = version;
            self.pods.retain(|_, pod| pod.marked);
            for (name, pod) in counts.filter(|(_, pod)| !pod.marked) {
                self.pods.entry(name).or_insert(pod);
            }
        }
    }

    /// Takes in what the watch began anew with, as of `version`: all pods that are marked.
    pub(super) fn apply_restart(&mut self, version: ResourceVersion, watched: ResourceVersion, pods: PodMap) {
        if version >= self.complete_up_to(watched) {
            self.complete = version;
            self.pods.retain(|_, pod| !pod.marked);
            for (name, pod) in pods {
                self.set(name, pod);
            }
        }
    }

    /// Sets the group of each pod.
    pub(super) fn regroup(&mut self, group_of: impl Fn(&PodName) -> Option<GroupName>) {
        for (name, pod) in &mut self.pods {
            pod.placement = PodPlacement::new(pod.assignment(), group_of(name));
        }
    }

    /// Forgets those that no watch will show to be gone.
    pub(super) fn forget_unmarked(&mut self) {
        self.pods.retain(|_, pod| pod.marked);
    }

    fn set(&mut self, name: PodName, pod: PodRecord) {
        match pod.state {
            PodState::Gone => self.pods.remove(&name),
            PodState::Active | PodState::Succeeded => self.pods.insert(name, pod),
        };
    }

    /// The version up to which all pods are known.
    pub(super) fn complete_up_to(&self, watched: ResourceVersion) -> ResourceVersion {
        self.complete.max(watched)
    }

    /// How many pods are active.
    pub(super) fn active(&self) -> usize {
        self.pods.values().filter(|pod| pod.state == PodState::Active).count()
    }

    /// The tokens of pods that have a slot.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.pods.values().filter_map(PodRecord::assignment).map(|assignment| assignment.token)
    }

    /// Those that count, by name.
    pub(super) fn pods(&self) -> &PodMap {
        &self.pods
    }
}

impl PodRecord {
    /// The pod's slot and group, if it was placed.
    pub fn assignment(&self) -> Option<&Assignment> {
        match &self.placement {
            PodPlacement::Assigned(assignment) | PodPlacement::Orphaned(assignment) => Some(assignment),
            PodPlacement::Inferred(_) | PodPlacement::Unknown => None,
        }
    }

    /// The pod's group, if it is known.
    pub fn group(&self) -> Option<&GroupName> {
        match &self.placement {
            PodPlacement::Assigned(Assignment { group, .. }) | PodPlacement::Inferred(group) => Some(group),
            PodPlacement::Orphaned(_) | PodPlacement::Unknown => None,
        }
    }
}

impl PodPlacement {
    /// The placement of a pod with this assignment in its annotations that belongs to this group.
    pub fn new(assignment: Option<&Assignment>, group: Option<GroupName>) -> Self {
        match (assignment.cloned(), group) {
            (Some(assignment), Some(group)) => Self::Assigned(Assignment { group, ..assignment }),
            (Some(assignment), None) => Self::Orphaned(assignment),
            (None, Some(group)) => Self::Inferred(group),
            (None, None) => Self::Unknown,
        }
    }

    /// Takes the pod's slot, and counts the pod in its group.
    pub fn occupy(&self, occupancy: &mut Occupancy, policy: &Policy) {
        match self {
            Self::Assigned(assignment) => assignment.occupy(occupancy, policy),
            Self::Inferred(group) => {
                if let Some(group) = policy.index(group) {
                    occupancy.add_pod(group);
                }
            }
            Self::Orphaned(assignment) => occupancy.take_slot(assignment.slot),
            Self::Unknown => {}
        }
    }
}
