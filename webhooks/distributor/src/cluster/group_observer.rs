//! The evidence about the groups of one distributor, as this leader observes it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use podshaper_placement::availability::{Evidence, GroupAvailability, Phase};
use podshaper_placement::definition::DefinitionHash;
use podshaper_placement::ledger::{PodName, Token};
use podshaper_placement::pod_object::{Scheduling, WaitingPod};
use podshaper_placement::policy::{GroupName, Policy};
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::{InventoryPod, LedgerInventory};
use tokio::time::Instant;

use super::nodes::Nodes;
use distributor_decision::status::{ClosedReason, GroupState, GroupStatus, PodDistributorStatus};

/// The memory of a leader about the pods and nodes of one distributor.
#[derive(Default)]
pub(super) struct GroupObserver {
    /// When this leader first saw a pod unschedulable, by uid. A condition's own time is older than its reason: it is also the time of a
    /// scheduling gate.
    unschedulable: HashMap<Box<str>, Instant>,
    groups: HashMap<(DefinitionHash, GroupName), ObservedGroup>,
}

/// A group that is not open.
#[derive(Default)]
struct ObservedGroup {
    /// The pods that had a node at the last look.
    scheduled: Option<HashSet<PodName>>,
    /// The nodes at the last look, and the revision of all nodes then.
    nodes: Option<(u64, HashSet<Box<str>>)>,
    /// The pod that tries the group.
    claim: Option<Token>,
}

/// A pod that waits, and is evidence against its group if it waits for too long.
pub(super) struct OverduePod {
    pub(super) group: usize,
    pub(super) pod: Arc<WaitingPod>,
}

impl GroupObserver {
    /// Observes which pods are unschedulable, and returns those that have been so for longer than `after`.
    pub(super) fn overdue_pods(
        &mut self,
        policy: &Policy,
        inventories: &[&LedgerInventory],
        after: Duration,
    ) -> Vec<OverduePod> {
        let mut before = std::mem::take(&mut self.unschedulable);
        let mut overdue = Vec::new();
        for (group, pod) in placed_pods(policy, inventories) {
            let waits = pod.waiting.as_ref();
            let counts = |pod: &&Arc<WaitingPod>| pod.scheduling == Scheduling::Unschedulable;
            let Some(waiting) = waits.filter(counts) else { continue };
            let (uid, since) = before
                .remove_entry(&*waiting.uid)
                .unwrap_or_else(|| (waiting.uid.as_str().into(), Instant::now()));
            self.unschedulable.insert(uid, since);
            if since.elapsed() > after {
                overdue.push(OverduePod { group, pod: Arc::clone(waiting) });
            }
        }
        overdue
    }

    /// How many pods of each group have been unschedulable for longer than `limit`, as of the last [`Self::overdue_pods`].
    pub(super) fn unschedulable_for(
        &self,
        policy: &Policy,
        inventories: &[&LedgerInventory],
        limit: Duration,
    ) -> Vec<u32> {
        let mut pods = vec![0; policy.groups().len()];
        for (group, pod) in placed_pods(policy, inventories) {
            let since = pod.waiting.as_ref().and_then(|waiting| self.unschedulable.get(&*waiting.uid));
            if let (Some(count), true) =
                (pods.get_mut(group), since.is_some_and(|since| since.elapsed() > limit))
            {
                *count += 1;
            }
        }
        pods
    }

    /// The availability of each group after this look. `overdue` has the groups with evidence against them.
    pub(super) fn next(
        &mut self,
        policy: &Policy,
        inventories: &[&LedgerInventory],
        status: &PodDistributorStatus,
        total: &Spread,
        overdue: &HashSet<usize>,
        nodes: &Nodes,
    ) -> Vec<GroupAvailability> {
        let now = Timestamp::now().as_second();
        let mut waiting = vec![0u32; policy.groups().len()];
        for (group, pod) in placed_pods(policy, inventories) {
            if let Some(count) = waiting.get_mut(group) {
                *count += u32::from(pod.waiting.is_some());
            }
        }
        let mut next = Vec::new();
        for (index, (group, definition)) in policy.groups().iter().zip(policy.definitions()).enumerate() {
            let before = availability(status.group(policy, index));
            let key = (definition.hash(), Arc::clone(&group.name));
            let spread = total.groups.get(index).copied().unwrap_or_default();
            let mut evidence = Evidence {
                overdue: !group.preferred && overdue.contains(&index),
                waiting: waiting.get(index).is_some_and(|count| *count > 0),
                lacks_pods: spread.deviation() < 0,
                ..Evidence::default()
            };
            if before.is_open() {
                let after = before.next(evidence, now);
                self.groups.remove(&key);
                if !after.is_open() {
                    let observed = self.groups.entry(key).or_default();
                    observed.has_scheduled(policy, inventories, index);
                }
                next.push(after);
                continue;
            }
            let observed = self.groups.entry(key).or_default();
            let before = observed.claimed(before, now);
            evidence.scheduled = observed.has_scheduled(policy, inventories, index);
            evidence.new_node = observed.has_new_node(nodes.revision(), || nodes.names_in(definition));
            let after = before.next(evidence, now);
            if after.is_open() {
                // The time of the other pods of the group begins anew.
                self.restart(policy, inventories, index);
            }
            next.push(after);
        }
        next
    }

    fn restart(&mut self, policy: &Policy, inventories: &[&LedgerInventory], group: usize) {
        for (of, pod) in placed_pods(policy, inventories) {
            let since = pod.waiting.as_ref().and_then(|pod| self.unschedulable.get_mut(&*pod.uid));
            if let Some(since) = since.filter(|_| of == group) {
                *since = Instant::now();
            }
        }
    }
}

impl ObservedGroup {
    /// The state, with the time at which this leader first saw the pod that tries the group.
    fn claimed(&mut self, state: GroupAvailability, now: i64) -> GroupAvailability {
        let claim = match state.phase {
            Phase::Probing(claim) => claim,
            Phase::Open | Phase::Closed => None,
        };
        let is_new = claim.is_some() && self.claim != claim;
        self.claim = claim;
        if is_new { GroupAvailability { since: now, ..state } } else { state }
    }

    /// Whether a pod of the group has got a node since the last look.
    fn has_scheduled(&mut self, policy: &Policy, inventories: &[&LedgerInventory], group: usize) -> bool {
        let of_group = placed_pods(policy, inventories).filter(|(of, _)| *of == group).map(|(_, pod)| pod);
        let with_node: Vec<&InventoryPod> = of_group.filter(|pod| pod.waiting.is_none()).collect();
        let is_new = |pod: &&InventoryPod| match &self.scheduled {
            Some(before) => !before.contains(&pod.name),
            // The first look of this leader: the pod that tries the group is known by its token.
            None => self.claim.is_some() && pod.token == self.claim,
        };
        let found = with_node.iter().any(is_new);
        self.scheduled = Some(with_node.into_iter().map(|pod| Arc::clone(&pod.name)).collect());
        found
    }

    /// Whether a node of the group has become ready since the last look.
    fn has_new_node(&mut self, revision: u64, names: impl FnOnce() -> HashSet<Box<str>>) -> bool {
        if self.nodes.as_ref().is_some_and(|(seen, _)| *seen == revision) {
            return false;
        }
        let names = names();
        let is_new = self.nodes.as_ref().is_some_and(|(_, before)| !names.is_subset(before));
        self.nodes = Some((revision, names));
        is_new
    }
}

/// The pods that were placed, each with the index of its group.
pub(super) fn placed_pods<'i>(
    policy: &'i Policy,
    inventories: &'i [&'i LedgerInventory],
) -> impl Iterator<Item = (usize, &'i InventoryPod)> {
    let pods = inventories.iter().flat_map(|inventory| &inventory.pods).filter(|pod| pod.slot.is_some());
    pods.filter_map(|pod| Some((policy.index(pod.group.as_deref()?)?, pod)))
}

/// The availability that a status states. A group without a status is open.
pub(super) fn availability(status: Option<&GroupStatus>) -> GroupAvailability {
    let Some(status) = status.filter(|status| status.is_closed()) else {
        let open = status.filter(|status| status.reason.is_none());
        let failed_probes = open.and_then(|status| status.failed_probes).unwrap_or_default();
        let since = seconds(open.and_then(|status| status.since.as_ref()));
        return GroupAvailability { failed_probes, since, ..GroupAvailability::OPEN };
    };
    let claim = status.probe.as_deref().and_then(Token::parse);
    GroupAvailability {
        phase: if status.state == Some(GroupState::Probing) { Phase::Probing(claim) } else { Phase::Closed },
        since: seconds(status.since.as_ref()),
        next_probe: seconds(status.next_probe.as_ref()),
        failed_probes: status.failed_probes.unwrap_or_default(),
    }
}

/// Writes the availability of a group into its status. `problem` closes a group without the evidence of its pods.
pub(super) fn describe_group(
    availability: &GroupAvailability,
    problem: Option<ClosedReason>,
    before: Option<&GroupStatus>,
    status: &mut GroupStatus,
) {
    let GroupAvailability { phase, since, next_probe, failed_probes } = *availability;
    let is_excluded = problem == Some(ClosedReason::ExcludedByNamespace);
    if let Some(problem) = problem.filter(|_| is_excluded || phase == Phase::Open) {
        let before = before.filter(|before| before.reason == Some(problem));
        let since = before.and_then(|before| before.since.clone());
        status.state = Some(GroupState::Closed);
        status.since = since.or_else(|| Some(time(Timestamp::now().as_second())));
        status.reason = Some(problem);
        return;
    }
    status.since = (since > 0).then(|| time(since));
    status.failed_probes = (failed_probes > 0).then_some(failed_probes);
    if phase == Phase::Open {
        status.state = Some(GroupState::Open);
        return;
    }
    status.reason = Some(ClosedReason::Unschedulable);
    status.next_probe = Some(time(next_probe));
    status.state = Some(GroupState::Closed);
    if let Phase::Probing(claim) = phase {
        status.state = Some(GroupState::Probing);
        status.probe = Some(claim.map(|token| token.to_string()).unwrap_or_default());
    }
}

fn seconds(time: Option<&String>) -> i64 {
    time.and_then(|time| time.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_second)
}

fn time(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    format!("{time:.0}")
}
