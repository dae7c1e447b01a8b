//! Which pods are evicted, so that the pods that replace them go to groups that have too few.

use std::cmp::Reverse;

use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::{GroupSet, Policy};
use podshaper_placement::spread::Spread;

use crate::spec::{Rebalance, RebalanceMode};
use crate::status::PodDistributorStatus;

/// A pod in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedPod<'p> {
    /// `metadata.name`.
    pub name: &'p str,
    /// The slot.
    pub slot: u32,
    /// Index of the group in the policy.
    pub group: usize,
}

/// The available groups that have too few pods and are given theirs back.
pub fn groups_behind(
    mode: RebalanceMode,
    status: &PodDistributorStatus,
    policy: &Policy,
    spread: &Spread,
    available: GroupSet,
) -> GroupSet {
    let groups = spread.groups.iter().enumerate();
    let behind = groups.filter(|(index, pods)| {
        let applies = match mode {
            RebalanceMode::Never => false,
            RebalanceMode::OnRecovery => status.is_recovering(policy, *index),
            RebalanceMode::Always => true,
        };
        applies && available.contains(*index) && pods.deviation() < 0
    });
    behind.map(|(index, _)| index).collect()
}

/// Whether pods of this controller may be evicted. Slots are reserved for pods that the watch has not shown yet, so the
/// counts are not final. The pods of a Job run to completion, and an evicted one would begin anew.
pub fn may_evict(chain: &OwnerChain, reserved: usize) -> bool {
    let is_job = chain.controller().is_some_and(|(owner, _)| owner.is_kind("batch", "Job"));
    reserved == 0 && !is_job
}

/// How many of `pods` pods may be evicted, given how many aren't ready, placed or not. The only pod of a workload is never evicted.
pub fn eviction_budget(rebalance: &Rebalance, pods: usize, unready: usize) -> usize {
    if pods < 2 {
        return 0;
    }
    let pods = u32::try_from(pods).unwrap_or(u32::MAX);
    let most = rebalance.max_unavailable.as_ref().map_or(Some(1), |max| max.of(pods)).unwrap_or(1);
    (most as usize).saturating_sub(unready)
}

/// How many pods may be evicted, so that their successors go to groups of `behind`.
///
/// Pods return to a group that was closed one by one: the next one only when all pods, and so the last successor, are ready.
pub fn return_budget(
    budget: usize,
    unready: usize,
    behind: GroupSet,
    status: &PodDistributorStatus,
    policy: &Policy,
) -> usize {
    let returns =
        (0..policy.groups().len()).any(|index| behind.contains(index) && status.is_recovering(policy, index));
    match (!returns, unready) {
        (true, _) => budget,
        (false, 0) => budget.min(1),
        (false, _) => 0,
    }
}

/// The names of as many pods as the groups of `behind` lack. Each is in a group that has too many: first those with a slot that belongs to another
/// group, then those with the highest slots.
pub fn select_evictions<'p>(
    mut pods: Vec<PlacedPod<'p>>,
    spread: &Spread,
    allocator: &SlotAllocator,
    behind: GroupSet,
) -> Vec<&'p str> {
    let lacking = spread.groups.iter().enumerate().filter(|(index, _)| behind.contains(*index));
    let lacking: u32 = lacking.map(|(_, group)| group.desired.saturating_sub(group.actual)).sum();
    let surplus = spread.groups.iter().map(|group| group.actual.saturating_sub(group.desired));
    let mut surplus: Vec<u32> = surplus.collect();
    pods.sort_by_key(|pod| (allocator.group_of(pod.slot) == Some(pod.group), Reverse(pod.slot)));
    pods.retain(|pod| match surplus.get_mut(pod.group) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    });
    pods.into_iter().take(lacking as usize).map(|pod| pod.name).collect()
}

#[cfg(test)]
mod tests {
    use podshaper_placement::policy::{Group, Tie};

    use super::*;
    use crate::spec::MaxUnavailable;

    fn allocator() -> SlotAllocator {
        let group = |(name, weight): (&str, u32)| Group {
            name: name.into(),
            node_labels: [("type".to_owned(), name.to_owned())].into(),
            weight,
            ..Group::default()
        };
        SlotAllocator::new(
            Policy::new([("default", 80), ("spot", 20)].map(group).into(), Tie::First).unwrap(),
        )
    }

    fn spread(groups: &[&str]) -> Spread {
        Spread::of(groups.iter().map(|group| (Some(*group), true)), &allocator())
    }

    #[test]
    fn unready_pods_reduce_the_budget() {
        let rebalance = |max| Rebalance { max_unavailable: max, ..Rebalance::default() };
        let half = MaxUnavailable::Percent("50%".to_owned());
        assert_eq!(eviction_budget(&rebalance(None), 4, 1), 0, "one may be unavailable, and is");
        assert_eq!(eviction_budget(&rebalance(Some(half)), 4, 1), 1);
        assert_eq!(eviction_budget(&rebalance(None), 2, 0), 1);
        assert_eq!(eviction_budget(&rebalance(None), 1, 0), 0, "it is the only pod");
    }

    #[test]
    fn mode_decides_which_groups_are_behind() {
        let allocator = allocator();
        let spread = spread(&["default"; 10]);
        let policy = allocator.policy();
        let recovering: PodDistributorStatus =
            serde_json::from_value(serde_json::json!({"groups": [{"name": "spot", "recovering": true}]}))
                .unwrap();
        let lost = PodDistributorStatus::default();
        let spot: GroupSet = [1].into_iter().collect();
        let none: GroupSet = [].into_iter().collect();
        for (mode, status, available, expected) in [
            (RebalanceMode::Never, &recovering, policy.all(), none),
            (RebalanceMode::OnRecovery, &recovering, policy.all(), spot),
            (RebalanceMode::OnRecovery, &recovering, none, none),
            (RebalanceMode::OnRecovery, &lost, policy.all(), none),
            (RebalanceMode::Always, &lost, policy.all(), spot),
        ] {
            assert_eq!(groups_behind(mode, status, policy, &spread, available), expected, "{mode:?}");
        }
    }

    #[test]
    fn pods_return_one_by_one() {
        let allocator = allocator();
        let policy = allocator.policy();
        let recovering: PodDistributorStatus =
            serde_json::from_value(serde_json::json!({"groups": [{"name": "spot", "recovering": true}]}))
                .unwrap();
        let of = |unready, status| return_budget(5, unready, policy.all(), status, policy);
        assert_eq!((of(0, &recovering), of(1, &recovering)), (1, 0));
        assert_eq!(of(1, &PodDistributorStatus::default()), 5);
    }

    #[test]
    fn pods_in_slots_of_other_groups_are_evicted_first() {
        let allocator = allocator();
        let all = allocator.policy().all();
        // Slots 2 and 7 belong to spot.
        let names: Vec<String> = (0..10).map(|slot| format!("pod-{slot}")).collect();
        let pods: Vec<_> =
            (0..10).zip(&names).map(|(slot, name)| PlacedPod { name, slot, group: 0 }).collect();
        let default = spread(&["default"; 10]);
        assert_eq!(select_evictions(pods.clone(), &default, &allocator, all), ["pod-7", "pod-2"]);
        let behind = [0].into_iter().collect();
        assert_eq!(select_evictions(pods.clone(), &default, &allocator, behind), [""; 0]);
        // One pod too many, in a slot of its own group.
        let mut nine = pods[..9].to_vec();
        nine[2].group = 1;
        nine[7].group = 1;
        nine.push(PlacedPod { name: "new", slot: 10, group: 1 });
        let mut groups = ["default"; 10];
        (groups[2], groups[7], groups[9]) = ("spot", "spot", "spot");
        assert_eq!(select_evictions(nine, &spread(&groups), &allocator, all), ["new"]);
    }
}
