//! The order in which pods of Jobs that share a sequence take its slots: one after the other, over time.

use super::hash::fnv1a;
use super::policy::{GroupSet, Policy};
use super::sequence::MAX_SLOTS;
use super::slot_order::SlotOrder;

/// The slots of a policy as a cycle: first those of the bases, then those of one period of the weights, again and again.
#[derive(Debug)]
pub struct Cycle {
    /// The policy without the maximum of each group: that bounds live pods, not pods over time.
    policy: Policy,
    /// The first slot after the bases.
    start: u32,
    /// The first slot after one period.
    end: u32,
    /// Of the policy.
    hash: u32,
}

/// The slot that the next pod takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The policy that the slot is one of; 0: no pod has taken a slot.
    pub policy: u32,
    /// The slot.
    pub next: u32,
}

impl Cycle {
    pub(super) fn new(policy: &Policy) -> Self {
        let slots = |sum: u64| u32::try_from(sum).unwrap_or(u32::MAX).min(MAX_SLOTS);
        let groups = policy.groups();
        let start = slots(groups.iter().map(|group| u64::from(group.base)).sum());
        let weights = groups.iter().map(|group| u64::from(group.weight)).filter(|weight| *weight > 0);
        let divisor = weights.clone().reduce(greatest_common_divisor).unwrap_or(1);
        let period = slots(weights.sum::<u64>() / divisor);
        Self {
            policy: policy.without_max(),
            start: if period == 0 { 0 } else { start },
            end: start.saturating_add(period).min(MAX_SLOTS),
            hash: hash(policy),
        }
    }

    /// The group of a slot in the order of these groups alone.
    pub(super) fn group(&self, slot: u32, groups: GroupSet) -> Option<usize> {
        SlotOrder::new(&self.policy, groups).nth(slot as usize).map(usize::from)
    }

    /// The slot that the next pod takes. A cursor of another policy begins anew. Without a cursor the slot after the last that a pod has.
    pub fn resume(&self, cursor: Cursor, last: Option<u32>) -> u32 {
        match cursor {
            Cursor { policy: 0, .. } => last.map_or(0, |last| self.after(last)),
            Cursor { policy, next } if policy == self.hash && next < self.end => next,
            Cursor { .. } => 0,
        }
    }

    /// The cursor at this slot.
    pub fn cursor(&self, next: u32) -> Cursor {
        Cursor { policy: self.hash, next }
    }

    /// The slot after this one.
    pub fn after(&self, slot: u32) -> u32 {
        let next = slot.saturating_add(1);
        if next < self.end { next } else { self.start }
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A hash of the shares and definitions of all groups. It is never 0.
fn hash(policy: &Policy) -> u32 {
    let groups = policy.groups().iter().zip(policy.definitions());
    let lines = groups.map(|(group, definition)| {
        format!("{} {} {:?} {}", group.base, group.weight, group.max, definition.hash())
    });
    let hash = fnv1a(&lines.collect::<Vec<_>>().join("\n"));
    u32::try_from((hash >> 32) ^ (hash & u64::from(u32::MAX))).unwrap_or_default().max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::allocator::{Occupancy, SlotAllocator};
    use crate::policy::{Group, Tie};

    fn allocator(groups: &[(u32, u32, Option<u32>)]) -> SlotAllocator {
        let group = |(index, (base, weight, max)): (usize, &(u32, u32, Option<u32>))| Group {
            name: index.to_string().into(),
            node_labels: BTreeMap::from([("group".to_owned(), index.to_string())]),
            base: *base,
            weight: *weight,
            max: *max,
            ..Group::default()
        };
        SlotAllocator::new(Policy::new(groups.iter().enumerate().map(group).collect(), Tie::First).unwrap())
    }

    /// How many of `pods` pods, one after the other, each group gets.
    fn over_time(allocator: &SlotAllocator, pods: usize) -> Vec<u32> {
        let mut slot = 0;
        let mut counts = vec![0; allocator.policy().groups().len()];
        for _ in 0..pods {
            let group =
                allocator.group_over_time(slot, &Occupancy::default(), allocator.policy().all()).unwrap();
            counts[group] += 1;
            slot = allocator.cycle().after(slot);
        }
        counts
    }

    #[test]
    fn shares_are_exact_over_time() {
        let ninety = allocator(&[(0, 90, None), (0, 10, None)]);
        assert_eq!(ninety.cycle().end, 10);
        assert_eq!(over_time(&ninety, 10), [9, 1]);
        assert_eq!(over_time(&ninety, 20), [18, 2]);
        assert_eq!(over_time(&ninety, 1000), [900, 100]);
        let thirds = allocator(&[(0, 1, None), (0, 1, None), (0, 1, None)]);
        assert_eq!(over_time(&thirds, 300), [100, 100, 100]);
        let based = allocator(&[(1, 0, None), (0, 1, None)]);
        assert_eq!(over_time(&based, 10), [1, 9], "the base comes once");
        assert_eq!(over_time(&allocator(&[(2, 0, None), (1, 0, None)]), 6), [4, 2], "only bases");
    }

    #[test]
    fn cursor_of_another_policy_begins_anew() {
        let (one, other) =
            (allocator(&[(0, 4, None), (0, 1, None)]), allocator(&[(0, 3, None), (0, 2, None)]));
        let cursor = one.cycle().cursor(3);
        assert_eq!((one.cycle().resume(cursor, None), other.cycle().resume(cursor, None)), (3, 0));
        assert_eq!(one.cycle().resume(Cursor::default(), Some(2)), 3, "the ledger was deleted");
        assert_eq!(one.cycle().resume(Cursor::default(), None), 0);
        assert_eq!(one.cycle().after(4), 0);
        assert_eq!(one.cycle().resume(one.cycle().cursor(5), None), 0, "beyond the period");
    }

    #[test]
    fn max_bounds_live_pods() {
        let limited = allocator(&[(0, 1, None), (0, 1, Some(1))]);
        let mut occupancy = Occupancy::default();
        let all = limited.policy().all();
        assert_eq!(limited.group_over_time(1, &occupancy, all), Some(1));
        occupancy.add_pod(1);
        assert_eq!(limited.group_over_time(1, &occupancy, all), Some(0));
        assert_eq!(limited.group_over_time(1, &Occupancy::default(), [0].into_iter().collect()), Some(0));
    }
}
