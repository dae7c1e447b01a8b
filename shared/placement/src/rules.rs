//! Who goes where next, given who is where.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ledger::Settings;
use super::policy::{GroupSet, Policy};
use super::sequence::Sequence;

/// Slots of numbered pods that are remembered: anybody can make a number up, and each costs memory as far as it goes.
const REMEMBERED: u32 = 512;
/// So many different sets of groups are remembered: as many as workloads of one policy have different selectors.
const MAX_SEQUENCES: usize = 16;

/// A policy with what has been worked out of it. It holds no state of any workload, so that all may share it.
#[derive(Clone, Debug)]
pub struct Rules {
    policy: Policy,
    whole: Sequence,
    parts: HashMap<GroupSet, Sequence>,
    settings: Settings,
    #[cfg(test)]
    without: Option<Mechanism>,
}

/// The rules of one policy, for all workloads that it is about.
pub type SharedRules = Arc<Mutex<Rules>>;

/// The rules, for a moment.
pub fn locked(rules: &SharedRules) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the exactness of placement rests on; tests take one away and must find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Who decides has seen all pods whose reservations were dropped.
    Fence,
    /// Reservations beyond the owner's number of pods are found out.
    Bound,
    /// Pods that clash are moved.
    Restamping,
}

/// Which slots of a workload are taken, and how many pods each group has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupied {
    /// By slot; slots beyond the number of pods needn't stand here.
    slots: Vec<bool>,
    taken: u32,
    counts: Vec<u32>,
}

impl Rules {
    /// The rules of `policy`.
    pub fn new(policy: Policy) -> Self {
        let whole = Sequence::new(&policy, policy.all());
        Self {
            policy,
            whole,
            parts: HashMap::new(),
            settings: Settings::default(),
            #[cfg(test)]
            without: None,
        }
    }

    /// The same with other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same without one of the mechanisms.
    #[cfg(test)]
    pub(super) fn without(mut self, mechanism: Mechanism) -> Self {
        self.without = Some(mechanism);
        self
    }

    #[cfg(test)]
    pub(super) fn has(&self, mechanism: Mechanism) -> bool {
        self.without != Some(mechanism)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    pub(super) fn has(&self, _: Mechanism) -> bool {
        true
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where one more pod goes that fits into the groups of `fitting`: its slot and its group's index. `None` where they are
    /// all full.
    ///
    /// Its group is the one whose next slot comes first. Of that group's slots it takes the lowest that is free; where the
    /// group has none among as many slots as there are pods, the lowest of all: then it stands in for another. While nothing
    /// was taken out of order that is the lowest free slot, and the slot's own group.
    pub fn next(&mut self, occupied: &Occupied, fitting: GroupSet) -> Option<(u32, usize)> {
        let counts: Vec<u32> = (0..self.policy.groups().len())
            .map(|group| if fitting.contains(group) { occupied.count(group) } else { 0 })
            .collect();
        let group = self.sequence(fitting).next(&counts)?;
        Some((self.slot(occupied, group), group))
    }

    /// The slot that a pod of this group takes.
    pub fn slot(&mut self, occupied: &Occupied, group: usize) -> u32 {
        let end = occupied.pods().saturating_add(1);
        let own = self.whole.slots_of(group, end).find(|slot| occupied.free(*slot));
        own.or_else(|| (0..end).find(|slot| occupied.free(*slot))).unwrap_or(end)
    }

    /// The group of a slot.
    pub fn group(&mut self, slot: u32) -> Option<usize> {
        self.whole.group(slot)
    }

    /// The group of the pod with this number that fits into the groups of `fitting`: its slot's own, or that which the slot has without
    /// the others.
    pub fn numbered(&mut self, slot: u32, fitting: GroupSet) -> Option<usize> {
        if slot >= super::sequence::MAX_SLOTS {
            return None;
        }
        let all = self.policy.all();
        let mut group = |groups: GroupSet| match slot {
            0..REMEMBERED => self.sequence(groups).group(slot),
            _ => Sequence::new(&self.policy, groups.and(all)).group(slot),
        };
        let own = group(all);
        if fitting == all { own } else { own.filter(|own| fitting.contains(*own)).or_else(|| group(fitting)) }
    }

    /// The slots of a group that nobody has, the lowest first, as far as twice the number of pods.
    pub fn free_slots(&mut self, occupied: &Occupied, group: usize) -> Vec<u32> {
        let end = occupied.pods().saturating_mul(2).saturating_add(2);
        self.whole.slots_of(group, end).filter(|slot| occupied.free(*slot)).collect()
    }

    /// How many of `pods` pods belong to each group.
    pub fn due(&mut self, pods: u32) -> Vec<u32> {
        self.whole.counts(pods)
    }

    /// The sequence of some of the groups.
    pub fn sequence(&mut self, groups: GroupSet) -> &mut Sequence {
        let groups = groups.and(self.policy.all());
        if groups == self.policy.all() {
            return &mut self.whole;
        }
        if self.parts.len() >= MAX_SEQUENCES && !self.parts.contains_key(&groups) {
            self.parts.clear();
        }
        self.parts.entry(groups).or_insert_with(|| Sequence::new(&self.policy, groups))
    }
}

impl Occupied {
    /// Takes a slot.
    pub fn take(&mut self, slot: u32) {
        let index = slot as usize;
        // Not the memory for whatever somebody has written into an annotation: a slot further out doesn't matter yet.
        if slot < super::sequence::MAX_SLOTS {
            if self.slots.len() <= index {
                self.slots.resize(index + 1, false);
            }
            if let Some(taken) = self.slots.get_mut(index).filter(|taken| !**taken) {
                *taken = true;
                self.taken += 1;
            }
        }
    }

    /// Counts one more pod of a group.
    pub fn count_in(&mut self, group: usize) {
        if self.counts.len() <= group {
            self.counts.resize(group + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(group) {
            *count += 1;
        }
    }

    /// How many pods the group has.
    pub fn count(&self, group: usize) -> u32 {
        self.counts.get(group).copied().unwrap_or(0)
    }

    /// How many pods there are: those with slots, or those in groups, whichever are more.
    fn pods(&self) -> u32 {
        self.counts.iter().fold(0u32, |sum, count| sum.saturating_add(*count)).max(self.taken)
    }

    /// Whether nobody has this slot.
    pub fn free(&self, slot: u32) -> bool {
        !self.slots.get(slot as usize).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::{Group, Tie};

    fn rules(weights: &[u32]) -> Rules {
        let group = |(index, weight): (usize, &u32)| Group {
            name: index.to_string().into(),
            node_labels: BTreeMap::from([("group".to_owned(), index.to_string())]),
            weight: *weight,
            ..Group::default()
        };
        Rules::new(Policy::new(weights.iter().enumerate().map(group).collect(), Tie::First).unwrap())
    }

    fn occupied(pods: impl IntoIterator<Item = (u32, usize)>) -> Occupied {
        let mut occupied = Occupied::default();
        for (slot, group) in pods {
            occupied.take(slot);
            occupied.count_in(group);
        }
        occupied
    }

    /// Places `pods` more.
    fn place(
        rules: &mut Rules,
        occupied: &mut Occupied,
        fitting: GroupSet,
        pods: usize,
    ) -> Vec<(u32, usize)> {
        let mut next = || {
            let (slot, group) = rules.next(occupied, fitting).unwrap();
            occupied.take(slot);
            occupied.count_in(group);
            (slot, group)
        };
        (0..pods).map(|_| next()).collect()
    }

    #[test]
    fn pods_fill_the_sequence() {
        let mut rules = rules(&[80, 20]);
        let all = rules.policy().all();
        let placed = place(&mut rules, &mut Occupied::default(), all, 500);
        for (slot, place) in (0..).zip(placed) {
            assert_eq!(place, (slot, rules.whole.group(slot).unwrap()));
        }
    }

    #[test]
    fn numbers_that_are_made_up_cost_no_memory() {
        let [mut rules, mut others] = [(); 2].map(|()| rules(&[3, 2]));
        let (all, second) = (rules.policy().all(), GroupSet::from_iter([1]));
        for slot in [0, REMEMBERED - 1, REMEMBERED, 100_000] {
            assert_eq!(rules.numbered(slot, all), others.group(slot));
            assert_eq!(rules.numbered(slot, second), Some(1));
        }
        let remembered = [&rules.whole, &rules.parts[&second]].map(Sequence::remembered);
        assert!(remembered.iter().all(|slots| *slots <= REMEMBERED as usize), "{remembered:?}");
    }

    #[test]
    fn holes_are_filled_group_by_group() {
        let mut rules = rules(&[80, 20]);
        let all = rules.policy().all();
        let holed = (0..10).filter(|slot| ![0, 2].contains(slot)).map(|slot| (slot, usize::from(slot == 7)));
        // Seven and one are left: the second of group 1 comes before the eighth of group 0.
        assert_eq!(place(&mut rules, &mut occupied(holed), all, 3), [(2, 1), (0, 0), (10, 0)]);
    }

    #[test]
    fn pods_stand_in_for_a_group_that_is_left_out() {
        let mut rules = rules(&[80, 20]);
        let only_first: GroupSet = [0].into_iter().collect();
        let mut pods = Occupied::default();
        let placed = place(&mut rules, &mut pods, only_first, 10);
        assert_eq!(
            placed.iter().map(|(slot, _)| *slot).collect::<std::collections::BTreeSet<_>>(),
            (0..10).collect()
        );
        assert!(placed.iter().all(|(_, group)| *group == 0));
        let all = rules.policy().all();
        assert_eq!(place(&mut rules, &mut pods, all, 1), [(10, 1)], "the group left out is furthest behind");
    }

    #[test]
    fn slots_that_somebody_made_up_cost_nothing() {
        let mut rules = rules(&[1]);
        let all = rules.policy().all();
        assert_eq!(rules.next(&occupied([(u32::MAX, 0), (70, 0)]), all), Some((0, 0)));
        assert_eq!(occupied([(u32::MAX, 0)]).slots.len(), 0);
    }
}
