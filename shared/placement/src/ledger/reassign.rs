//! Pods that should have another slot.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::content::PodName;
use super::pods::PodRecord;
use super::queue::Move;
use crate::allocator::{Occupancy, SlotAllocator};

/// Moves for the pods that have no slot or one that another pod has. With an `occupancy`, which stands for all pods that the owner
/// wants, also for pods that can move down to a free slot of their group.
pub(super) fn moves(
    pods: &BTreeMap<PodName, PodRecord>,
    occupancy: Option<&Occupancy>,
    allocator: &SlotAllocator,
) -> Vec<Move> {
    let mut holders = BTreeSet::new();
    let mut moves = Vec::new();
    let mut settled: BTreeMap<usize, Vec<(u32, &PodName, &PodRecord)>> = BTreeMap::new();
    for (name, pod) in pods {
        let Some(group) = pod.group().and_then(|group| allocator.policy().index(group)) else { continue };
        match pod.assignment() {
            Some(assignment) if holders.insert(assignment.slot) => {
                settled.entry(group).or_default().push((assignment.slot, name, pod));
            }
            duplicate => {
                moves.extend(Move::new(name, pod, duplicate.map(|assignment| assignment.slot), None));
            }
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
