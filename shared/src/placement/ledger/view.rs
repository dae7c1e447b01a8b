//! The pods of one controller as a replica knows them: from its watch, and from lists that were ahead of it.

use std::collections::BTreeMap;

use super::stored::{PodName, Stamp, Version};
use crate::placement::policy::GroupName;

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

/// The pods, complete up to the version of the watch or of the last list, whichever is later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct View {
    pods: BTreeMap<PodName, Pod>,
    listed: Version,
}

impl View {
    /// Takes in what the watch says about one pod; what a list has overtaken changes nothing.
    pub(super) fn watched(&mut self, name: PodName, pod: Pod) {
        if pod.version > self.listed {
            self.set(name, pod);
        }
    }

    /// Takes in a list as of `version`; one that the watch or another list has overtaken changes nothing.
    pub(super) fn listed(&mut self, version: Version, watched: Version, pods: BTreeMap<PodName, Pod>) {
        if version >= self.reaches(watched) {
            self.listed = version;
            self.pods.clear();
            for (name, pod) in pods {
                self.set(name, pod);
            }
        }
    }

    fn set(&mut self, name: PodName, pod: Pod) {
        match pod.phase {
            Phase::Gone => self.pods.remove(&name),
            Phase::Live | Phase::Succeeded => self.pods.insert(name, pod),
        };
    }

    /// Up to which version nothing is missing.
    pub(super) fn reaches(&self, watched: Version) -> Version {
        self.listed.max(watched)
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
