//! The pods of one controller as a replica knows them: from its watch, and from lists that were ahead of it.

use std::collections::BTreeMap;

use super::stored::{PodName, Stamp, Version};
use crate::policy::GroupName;

/// A pod as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Of this state of it, or of its deletion.
    pub version: Version,
    /// Whether it counts.
    pub phase: Phase,
    /// What is known of its place.
    pub place: Place,
    /// Whether its author has given it a deletion cost.
    pub costed: bool,
    /// Whether it is marked as one that its webhook has seen: only those does the watch show.
    pub marked: bool,
}

/// Whether a pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It runs or will.
    Live,
    /// A Job's pod that has succeeded: its place is taken, but its controller may create others beside it.
    Succeeded,
    /// It has failed, is being deleted, or was deleted: its place is free.
    Gone,
}

impl Phase {
    /// That of a pod whose controller is of this kind: by `status.phase`, and whether it is being deleted.
    pub fn of(status: &str, deleted: bool, controller: &str) -> Self {
        match status {
            _ if deleted => Self::Gone,
            "Succeeded" if controller == "Job" => Self::Succeeded,
            // For any other controller it is over (`IsPodActive` of k8s.io/kubernetes/pkg/controller).
            "Failed" | "Succeeded" => Self::Gone,
            _ => Self::Live,
        }
    }
}

/// What is known of a pod's place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// It was placed.
    Stamped(Stamp),
    /// It wasn't, but its node or its selector tells its group.
    Told(GroupName),
    /// It wasn't, and may be anywhere.
    Unknown,
}

/// The pods. Those that are marked are complete up to the version of the watch, or of the last list or event, whichever is later; the
/// others up to that of the last list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct View {
    pods: BTreeMap<PodName, Pod>,
    complete: Version,
    /// Up to which version pods are known that aren't marked.
    unmarked: Version,
}

impl View {
    /// Takes in what the watch says about one pod, in the order of versions; what a list has overtaken changes nothing.
    pub(super) fn watched(&mut self, name: PodName, pod: Pod) {
        if pod.version > self.complete {
            self.complete = pod.version;
            self.set(name, pod);
        }
    }

    /// Takes in a list of all pods as of `version`. Where the watch or another list has overtaken it, it still tells of pods that
    /// aren't marked.
    pub(super) fn listed(&mut self, version: Version, watched: Version, pods: BTreeMap<PodName, Pod>) {
        if version >= self.reaches(watched) {
            self.complete = version;
            self.unmarked = version;
            self.pods.clear();
            for (name, pod) in pods {
                self.set(name, pod);
            }
        } else if version > self.unmarked {
            self.unmarked = version;
            self.pods.retain(|_, pod| pod.marked);
            for (name, pod) in pods {
                if !pod.marked && !self.pods.contains_key(&name) {
                    self.set(name, pod);
                }
            }
        }
    }

    /// Takes in what the watch began anew with, as of `version`: all pods that are marked.
    pub(super) fn relisted(&mut self, version: Version, watched: Version, pods: BTreeMap<PodName, Pod>) {
        if version >= self.reaches(watched) {
            self.complete = version;
            self.pods.retain(|_, pod| !pod.marked);
            for (name, pod) in pods {
                self.set(name, pod);
            }
        }
    }

    /// Forgets those that no watch will show to be gone.
    pub(super) fn forget_unmarked(&mut self) {
        self.pods.retain(|_, pod| pod.marked);
    }

    fn set(&mut self, name: PodName, pod: Pod) {
        match pod.phase {
            Phase::Gone => self.pods.remove(&name),
            Phase::Live | Phase::Succeeded => self.pods.insert(name, pod),
        };
    }

    /// Up to which version nothing is missing.
    pub(super) fn reaches(&self, watched: Version) -> Version {
        self.complete.max(watched)
    }

    /// Those that count, by name.
    pub(super) fn pods(&self) -> &BTreeMap<PodName, Pod> {
        &self.pods
    }
}

impl Pod {
    /// Its stamp, if it was placed.
    pub fn stamp(&self) -> Option<&Stamp> {
        match &self.place {
            Place::Stamped(stamp) => Some(stamp),
            Place::Told(_) | Place::Unknown => None,
        }
    }

    /// Its group, if it is known.
    pub fn group(&self) -> Option<&GroupName> {
        match &self.place {
            Place::Stamped(Stamp { group, .. }) | Place::Told(group) => Some(group),
            Place::Unknown => None,
        }
    }
}
