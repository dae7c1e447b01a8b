//! Moves of pods to other slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::content::{Assignment, PodName, ResourceVersion, Token};
use super::pods::{PodMap, PodRecord};
use crate::allocator::{Occupancy, SlotAllocator};
use crate::policy::GroupName;

/// The move of a pod to another slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Move {
    pub token: Token,
    pub pod: PodName,
    /// The version that the pod must still have.
    pub version: ResourceVersion,
    group: GroupName,
    /// The new slot; `None`: any of its group, or else any.
    to: Option<u32>,
}

impl Move {
    /// Moves a pod away from the slot `from`; `None` if its group is unknown.
    fn new(pod: &PodName, record: &PodRecord, from: Option<u32>, to: Option<u32>) -> Option<Self> {
        // The token is the same in every replica that finds the pod in this slot. So its format must not change.
        let token = Token::of(&format!("{pod}/{from:?}"));
        Some(Self { token, pod: pod.clone(), version: record.version, group: record.group()?.clone(), to })
    }

    /// The new assignment, if its slot is free.
    pub(super) fn assignment(&self, occupancy: &Occupancy, allocator: &SlotAllocator) -> Option<Assignment> {
        let slot = match self.to {
            Some(to) => Some(to).filter(|to| occupancy.is_free(*to))?,
            None => allocator.slot_in(occupancy, allocator.policy().index(&self.group)?),
        };
        Some(Assignment { token: self.token, slot, group: self.group.clone() })
    }
}

/// The moves of pods without a slot, and of pods with the slot of another pod. With an `occupancy`, all pods of the owner exist: then pods
/// also move down to free slots of their group.
pub(super) fn moves(pods: &PodMap, occupancy: Option<&Occupancy>, allocator: &SlotAllocator) -> Vec<Move> {
    let mut holders = BTreeSet::new();
    let mut moves = Vec::new();
    let mut settled: BTreeMap<usize, Vec<(u32, &PodName, &PodRecord)>> = BTreeMap::new();
    for (name, pod) in pods {
        let Some(group) = pod.group().and_then(|group| allocator.policy().index(group)) else { continue };
        let slot = pod.assignment().map(|assignment| assignment.slot);
        match slot.filter(|slot| holders.insert(*slot)) {
            Some(slot) => settled.entry(group).or_default().push((slot, name, pod)),
            None => moves.extend(Move::new(name, pod, slot, None)),
        }
    }
    let Some(occupancy) = occupancy else { return moves };
    for (group, mut pods) in settled {
        // Those in slots of other groups first, then those in the highest slots.
        let is_foreign = |slot: u32| allocator.group_of(slot) != Some(group);
        pods.sort_by_key(|(slot, ..)| Reverse((is_foreign(*slot), *slot)));
        let down = allocator.free_slots(occupancy, group).zip(pods);
        let down = down.take_while(|(to, (slot, ..))| is_foreign(*slot) || to < slot);
        moves.extend(down.filter_map(|(to, (slot, name, pod))| Move::new(name, pod, Some(slot), Some(to))));
    }
    moves
}
