//! Which slot and group the next pod gets, given which slots are taken.

use std::sync::OnceLock;

use super::cycle::Cycle;
use super::policy::{GroupSet, Policy};
use super::sequence::{MAX_SLOTS, Sequence};
use super::slot_order::SlotOrder;

/// Ordinals from here on are looked up in a sequence that is not kept: a pod's author chooses the ordinal, and a kept sequence takes
/// memory up to it.
const MAX_KEPT_ORDINAL: u32 = 512;
/// Sequences of parts of the groups that are kept. A policy needs one for each set of groups that pods are restricted to by their
/// selectors, or by groups without a ready node; what is beyond this number is computed anew each time.
const KEPT_SEQUENCES: usize = 32;

/// A policy and the sequences of its slots. It holds no state of any workload, so that all workloads of the policy share it.
#[derive(Debug)]
pub struct SlotAllocator {
    policy: Policy,
    all: Sequence,
    /// Filled in order, never emptied.
    partial: [OnceLock<Box<(GroupSet, Sequence)>>; KEPT_SEQUENCES],
    cycle: Cycle,
}

/// Which slots of a workload are taken, and how many pods each group has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// By slot; slots beyond the last one taken are free.
    slots: Vec<bool>,
    taken: u32,
    /// The lowest free slot.
    first_free: u32,
    counts: Vec<u32>,
}

impl SlotAllocator {
    /// An allocator for `policy`.
    pub fn new(policy: Policy) -> Self {
        let all = Sequence::new(&policy, policy.all());
        let cycle = Cycle::new(&policy);
        Self { policy, all, partial: Default::default(), cycle }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The slot and the group's index of one more pod that fits into the groups of `fitting`; `None` where they are all full.
    ///
    /// Its group is the one with the earliest next slot. The pod takes the lowest free slot of that group, among as many slots as there are
    /// pods. If the group has none there, the pod takes the lowest free slot of all, which belongs to another group. While pods take slots in
    /// order, that is the lowest free slot, and the slot's own group.
    pub fn allocate(&self, occupancy: &Occupancy, fitting: GroupSet) -> Option<(u32, usize)> {
        let counts: Vec<u32> = (0..self.policy.groups().len())
            .map(|group| if fitting.contains(group) { occupancy.pods_of(group) } else { 0 })
            .collect();
        let group = self.with_sequence(fitting, |sequence| sequence.next(&counts))?;
        Some((self.slot_in(occupancy, group), group))
    }

    /// The order in which pods take slots over time.
    pub fn cycle(&self) -> &Cycle {
        &self.cycle
    }

    /// The group of the pod that takes `slot` over time and fits into the groups of `fitting`. A group with as many pods as its max allows
    /// counts as one that the pod does not fit into.
    pub fn group_over_time(&self, slot: u32, occupancy: &Occupancy, fitting: GroupSet) -> Option<usize> {
        let has_room = |index: usize| {
            let max = self.policy.groups().get(index).and_then(|group| group.max);
            max.is_none_or(|max| occupancy.pods_of(index) < max)
        };
        let open: GroupSet = (0..self.policy.groups().len())
            .filter(|index| fitting.contains(*index) && has_room(*index))
            .collect();
        self.cycle.group(slot, self.policy.all()).filter(|own| open.contains(*own)).or_else(|| {
            // Stand-ins have no share of their own: the first is used.
            let stand_in = || (0..self.policy.groups().len()).find(|index| open.contains(*index));
            self.cycle.group(slot, open).or_else(stand_in)
        })
    }

    /// The slot that one more pod of this group takes.
    pub fn slot_in(&self, occupancy: &Occupancy, group: usize) -> u32 {
        let end = occupancy.pods().saturating_add(1);
        let own = self.all.slots_of(group, occupancy.first_free..end).find(|slot| occupancy.is_free(*slot));
        own.unwrap_or(occupancy.first_free)
    }

    /// The group of a slot.
    pub fn group_of(&self, slot: u32) -> Option<usize> {
        self.all.group(slot)
    }

    /// The group of the pod with this ordinal that fits into the groups of `fitting`: the group of the slot with this number, or the
    /// group that the slot has in the sequence of the fitting groups alone.
    pub fn group_of_ordinal(&self, ordinal: u32, fitting: GroupSet) -> Option<usize> {
        let group = |groups: GroupSet| match ordinal {
            0..MAX_KEPT_ORDINAL => self.with_sequence(groups, |sequence| sequence.group(ordinal)),
            MAX_KEPT_ORDINAL..MAX_SLOTS => {
                SlotOrder::new(&self.policy, groups).nth(ordinal as usize).map(usize::from)
            }
            MAX_SLOTS.. => None,
        };
        let own = group(self.policy.all());
        own.filter(|own| fitting.contains(*own)).or_else(|| group(fitting))
    }

    /// The free slots of a group in ascending order, as far as twice the number of pods.
    pub fn free_slots(&self, occupancy: &Occupancy, group: usize) -> impl Iterator<Item = u32> {
        let end = occupancy.pods().saturating_mul(2).saturating_add(2);
        self.all.slots_of(group, occupancy.first_free..end).filter(|slot| occupancy.is_free(*slot))
    }

    /// How many of `pods` pods belong to each group.
    pub fn desired(&self, pods: u32) -> Vec<u32> {
        self.all.counts(pods)
    }

    /// Reads the sequence of some of the groups.
    fn with_sequence<R>(&self, groups: GroupSet, read: impl FnOnce(&Sequence) -> R) -> R {
        let groups = groups.intersection(self.policy.all());
        if groups == self.policy.all() {
            return read(&self.all);
        }
        for kept in &self.partial {
            let (of, sequence) =
                &**kept.get_or_init(|| Box::new((groups, Sequence::new(&self.policy, groups))));
            if *of == groups {
                return read(sequence);
            }
        }
        read(&Sequence::new(&self.policy, groups))
    }
}

impl Occupancy {
    /// Takes a slot.
    pub fn take_slot(&mut self, slot: u32) {
        let index = slot as usize;
        // Anyone may write any slot into an annotation: higher ones must not take memory, and no pod is given them.
        if slot < MAX_SLOTS {
            if self.slots.len() <= index {
                self.slots.resize(index + 1, false);
            }
            if let Some(taken) = self.slots.get_mut(index).filter(|taken| !**taken) {
                *taken = true;
                self.taken += 1;
                let taken =
                    self.slots.iter().skip(self.first_free as usize).take_while(|taken| **taken).count();
                self.first_free += u32::try_from(taken).unwrap_or(u32::MAX);
            }
        }
    }

    /// Counts one more pod of a group.
    pub fn add_pod(&mut self, group: usize) {
        if self.counts.len() <= group {
            self.counts.resize(group + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(group) {
            *count += 1;
        }
    }

    /// The highest slot that is taken.
    pub fn last_slot(&self) -> Option<u32> {
        self.slots.iter().rposition(|taken| *taken).and_then(|slot| u32::try_from(slot).ok())
    }

    /// How many pods the group has.
    pub fn pods_of(&self, group: usize) -> u32 {
        self.counts.get(group).copied().unwrap_or(0)
    }

    /// How many pods there are: those with slots, or those in groups, whichever are more.
    fn pods(&self) -> u32 {
        self.counts.iter().fold(0u32, |sum, count| sum.saturating_add(*count)).max(self.taken)
    }

    /// Whether no pod has this slot.
    pub fn is_free(&self, slot: u32) -> bool {
        !self.slots.get(slot as usize).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;
    use crate::policy::{Group, Tie};

    fn allocator(weights: &[u32]) -> SlotAllocator {
        let group = |(index, weight): (usize, &u32)| Group {
            name: index.to_string().into(),
            node_labels: BTreeMap::from([("group".to_owned(), index.to_string())]),
            weight: *weight,
            ..Group::default()
        };
        SlotAllocator::new(Policy::new(weights.iter().enumerate().map(group).collect(), Tie::First).unwrap())
    }

    fn occupancy(pods: impl IntoIterator<Item = (u32, usize)>) -> Occupancy {
        let mut occupancy = Occupancy::default();
        for (slot, group) in pods {
            occupancy.take_slot(slot);
            occupancy.add_pod(group);
        }
        occupancy
    }

    /// Places `pods` more.
    fn place(
        allocator: &SlotAllocator,
        occupancy: &mut Occupancy,
        fitting: GroupSet,
        pods: usize,
    ) -> Vec<(u32, usize)> {
        let mut next = || {
            let (slot, group) = allocator.allocate(occupancy, fitting).unwrap();
            occupancy.take_slot(slot);
            occupancy.add_pod(group);
            (slot, group)
        };
        (0..pods).map(|_| next()).collect()
    }

    #[test]
    fn pods_fill_the_sequence() {
        let allocator = allocator(&[80, 20]);
        let all = allocator.policy().all();
        let placed = place(&allocator, &mut Occupancy::default(), all, 500);
        for (slot, place) in (0..).zip(placed) {
            assert_eq!(place, (slot, allocator.group_of(slot).unwrap()));
        }
    }

    /// `ci/bench distributor` reads the line that this prints.
    #[test]
    fn large_workload_is_continued_in_sequence() {
        const PODS: u32 = 50_000;
        const MORE: u32 = 1000;
        let allocator = allocator(&[80, 20]);
        let slots = (0..PODS).map(|slot| (slot, allocator.group_of(slot).unwrap()));
        let mut pods = occupancy(slots);
        let started = Instant::now();
        let placed = place(&allocator, &mut pods, allocator.policy().all(), MORE as usize);
        println!("a slot beside {PODS} pods: {:?}", started.elapsed() / MORE);
        let expected = (PODS..PODS + MORE).map(|slot| (slot, allocator.group_of(slot).unwrap()));
        assert_eq!(placed, expected.collect::<Vec<_>>());
    }

    #[test]
    fn invented_numbers_cost_no_memory() {
        let numbered = allocator(&[3, 2]);
        let other = allocator(&[3, 2]);
        let all = numbered.policy().all();
        let second = GroupSet::from_iter([1]);
        for ordinal in [0, MAX_KEPT_ORDINAL - 1, MAX_KEPT_ORDINAL, 100_000] {
            assert_eq!(numbered.group_of_ordinal(ordinal, all), other.group_of(ordinal));
            assert_eq!(numbered.group_of_ordinal(ordinal, second), Some(1));
        }
        let partial = &numbered.partial[0].get().unwrap().1;
        for kept in [&numbered.all, partial] {
            assert!(kept.kept_slots() <= MAX_KEPT_ORDINAL as usize);
        }
    }

    #[test]
    fn holes_are_filled_group_by_group() {
        let allocator = allocator(&[80, 20]);
        let all = allocator.policy().all();
        let holed = (0..10).filter(|slot| ![0, 2].contains(slot)).map(|slot| (slot, usize::from(slot == 7)));
        // Seven and one are left: the second of group 1 comes before the eighth of group 0.
        assert_eq!(place(&allocator, &mut occupancy(holed), all, 3), [(2, 1), (0, 0), (10, 0)]);
    }

    #[test]
    fn pods_stand_in_for_a_group_that_is_left_out() {
        let allocator = allocator(&[80, 20]);
        let only_first: GroupSet = [0].into_iter().collect();
        let mut pods = Occupancy::default();
        let placed = place(&allocator, &mut pods, only_first, 10);
        assert_eq!(
            placed.iter().map(|(slot, _)| *slot).collect::<std::collections::BTreeSet<_>>(),
            (0..10).collect()
        );
        assert!(placed.iter().all(|(_, group)| *group == 0));
        let all = allocator.policy().all();
        assert_eq!(place(&allocator, &mut pods, all, 1), [(10, 1)], "the group left out is furthest behind");
    }

    #[test]
    fn invented_slots_are_ignored() {
        let allocator = allocator(&[1]);
        let all = allocator.policy().all();
        assert_eq!(allocator.allocate(&occupancy([(u32::MAX, 0), (70, 0)]), all), Some((0, 0)));
        assert_eq!(occupancy([(u32::MAX, 0)]).slots.len(), 0);
    }
}
