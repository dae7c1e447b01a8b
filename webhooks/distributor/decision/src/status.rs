//! `PodDistributor.status`, and how it follows from what the leader observes.

use std::collections::BTreeMap;

use podshaper_crd::{ConditionStatus, Conditions, NewCondition};
use podshaper_placement::definition::DefinitionHash;
use podshaper_placement::policy::{Group, Policy};
use podshaper_placement::spread::{GroupSpread, Spread};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::findings::Findings;

/// The message about a target without pods.
const NO_PODS: &str = "the target has no pods of its own. If pods run for it, another object owns them, such as a Rollout with workloadRef, or \
                       NAME-primary of Flagger: select that object as the target";

/// The message about a selector without pods.
const NO_SELECTED_PODS: &str = "no pod of the namespace matches the selector";

/// How many revisions a status lists.
const MAX_REVISIONS: usize = 10;

/// How the pods are distributed. Maintained by the webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDistributorStatus {
    /// The metadata.generation that this status is about.
    pub observed_generation: Option<i64>,
    /// Name of the workload, or the text of the selector, as in app=web.
    pub target: Option<String>,
    /// Placed pods of each group, in the order of the groups, as in 8/2.
    pub pods: Option<String>,
    /// Desired pods of each group, as in 8/2.
    pub desired: Option<String>,
    /// Pods that the workload wants.
    pub replicas: Option<u32>,
    /// Pods that are placed.
    pub placed: Option<u32>,
    /// Pods of the workload that are not placed: they were created before the PodDistributor or while no webhook answered, or no group
    /// was left for them. They are removed first when the workload shrinks.
    pub unplaced: Option<u32>,
    /// The groups, over all revisions of the workload.
    pub groups: Option<Vec<GroupStatus>>,
    /// The owners of pods, such as the ReplicaSets of a Deployment. Each one distributes its own pods exactly.
    pub revisions: Option<Vec<RevisionStatus>>,
    /// Ready: pods are placed. Balanced: every group has the desired number of pods, and every pod is placed. Available: every group is
    /// open.
    pub conditions: Conditions,
}

/// The pods of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct GroupStatus {
    /// Name of the group, or its labels if it has no name, as in type=spot.
    pub name: String,
    /// Hash of the group's labels and node affinity, as in the annotation placement.podshaper.dev/group-hash of its pods. The state of a
    /// group belongs to the hash: a renamed group keeps it, and a group with other labels begins anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Pods that the group should have, by its share of the placed pods.
    pub desired: u32,
    /// Pods that are placed in the group.
    pub actual: u32,
    /// Pods of the group that are not ready.
    pub pending: u32,
    /// Actual minus desired pods.
    #[schemars(with = "i32")]
    pub deviation: i64,
    /// Whether new pods go to the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
    /// Whether the group was not available, and has had too few pods since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovering: Option<bool>,
    /// Whether new pods go to the group. Replicas of the webhook decide by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<GroupState>,
    /// When the group got this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// Why the group is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClosedReason>,
    /// When a pod may try the closed group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub next_probe: Option<String>,
    /// How many pods in a row have tried the group without getting a node. The pause until the next try grows with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_probes: Option<u32>,
    /// Token of the admission request of the pod that tries the group; empty until there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// Pods of the group that have no node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// Those of the waiting pods of a closed group that are not taken back, by reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_taken_back: Option<BTreeMap<String, u32>>,
}

/// Whether new pods go to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupState {
    /// They do.
    Open,
    /// They do not.
    Closed,
    /// One pod tries the group.
    Probing,
}

/// Why a group is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClosedReason {
    /// One of its pods was unschedulable for longer than unschedulableAfter.
    Unschedulable,
    /// With availability Nodes: it has no node for its pods.
    NoNodes,
    /// The annotations of the namespace exclude it.
    ExcludedByNamespace,
}

impl GroupStatus {
    fn is_open(&self) -> bool {
        self.state == Some(GroupState::Open)
    }

    /// Why the group `name` is not open, in words.
    fn problem(&self, name: &str) -> String {
        if self.reason == Some(ClosedReason::NoNodes) {
            return format!("{name} has no node that is ready, schedulable and tolerated");
        }
        if self.reason == Some(ClosedReason::ExcludedByNamespace) {
            return format!(
                "{name} gets no pods: an annotation of the namespace (node-selector or tolerationsWhitelist) excludes it"
            );
        }
        let closed = format!("pods of {name} were unschedulable for longer than unschedulableAfter");
        let probe = match (self.state, &self.next_probe) {
            (Some(GroupState::Probing), _) => "; one pod tries the group".to_owned(),
            (_, Some(next)) => format!("; the next pod tries the group at {next}"),
            _ => String::new(),
        };
        let kept = self.not_taken_back.iter().flatten().map(|(reason, pods)| format!("{pods} {reason}"));
        let kept = match &*kept.collect::<Vec<_>>().join(", ") {
            "" => String::new(),
            kept => format!("; waiting pods that are not taken back: {kept}"),
        };
        [closed, probe, kept].concat()
    }

    /// Whether the group is not open because its pods were unschedulable.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, Some(GroupState::Closed | GroupState::Probing))
            && !matches!(self.reason, Some(ClosedReason::NoNodes | ClosedReason::ExcludedByNamespace))
    }
}

/// The pods of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["name"]))]
pub struct RevisionStatus {
    /// Kind of the owner, as in ReplicaSet.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Placed pods of the owner.
    pub pods: u32,
    /// Pods of the owner in each group, in the order of the groups.
    pub groups: Vec<GroupStatus>,
}

/// The leader's observation of a `PodDistributor` and its workload.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Name of the workload, or the text of the selector.
    pub target: String,
    /// Whether the target is a selector.
    pub is_selector: bool,
    /// Whether new pods are placed.
    pub readiness: Readiness,
    /// The desired number of pods of the workload, if known.
    pub replicas: Option<u32>,
    /// The pods of all revisions.
    pub total: Spread,
    /// Whether pods take slots over time. The existing pods then need not have exact shares.
    pub over_time: bool,
    /// Kind and name of each owner of pods, and its pods.
    pub revisions: Vec<(String, String, Spread)>,
    /// The state of each group, in the order of the policy. Its numbers of pods do not count.
    pub groups: Vec<GroupStatus>,
    /// The reason why rebalancing is held, if it is.
    pub rebalance_held: Option<String>,
    /// The reason why taking back is held, if it is.
    pub take_back_held: Option<String>,
    /// Problems other than the shares.
    pub findings: Findings,
}

/// Whether new pods of the workload are placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// New pods are placed.
    Placing,
    /// New pods are placed, except pods without a controller: the API server does not call the webhook for them. The number of those that
    /// match the selector.
    PlacingOwned(u32),
    /// An older `PodDistributor` places them.
    SupersededByOlder(String),
    /// Another webhook places them.
    SupersededByWebhook(String),
    /// The workload does not exist.
    TargetNotFound(String),
    /// The webhook may not read the workload.
    TargetForbidden(String),
    /// The workload could not be read.
    TargetUnknown(String),
    /// The workload has no pods. This object runs pods in its place.
    NoOwnPods(String),
    /// The API server does not serve the kind Placement.
    NoLedgers,
}

impl Readiness {
    fn condition(&self, policy: &Policy) -> NewCondition {
        use ConditionStatus::{False, True, Unknown};
        let (status, reason, message) = match self {
            Self::Placing => (True, "Placing", placing_message(policy)),
            Self::PlacingOwned(bare) => (True, "Placing", placing_owned_message(policy, *bare)),
            Self::SupersededByOlder(name) => (
                False,
                "Superseded",
                format!("PodDistributor {name} is older and selects the same workload: it applies"),
            ),
            Self::SupersededByWebhook(webhook) => {
                (False, "Superseded", format!("{webhook} already places pods of the same workload"))
            }
            Self::TargetNotFound(target) => (False, "TargetNotFound", format!("there is no {target}")),
            Self::TargetForbidden(target) => (
                Unknown,
                "TargetForbidden",
                format!("{target} may not be read; the chart's distributor.owners gives the right"),
            ),
            Self::NoOwnPods(other) => (
                False,
                "NoOwnPods",
                format!("the target has no pods of its own, {other} has them: select it as the target"),
            ),
            Self::NoLedgers => (
                False,
                "NoLedgers",
                "the kind Placement can't be listed, so pods are placed without a ledger and shares are not exact; install its \
                 CustomResourceDefinition (the chart's crds.enabled)"
                    .to_owned(),
            ),
            Self::TargetUnknown(target) => (
                Unknown,
                "TargetUnknown",
                format!("{target} can't be read now; the log of the replica that leads says why"),
            ),
        };
        NewCondition { kind: "Ready", status, reason, message }
    }
}

impl PodDistributorStatus {
    /// The status after this one of an object of `generation`; `now` is in RFC 3339.
    #[must_use]
    pub fn observed(&self, generation: i64, policy: &Policy, observation: &Observation, now: &str) -> Self {
        let conditions = [
            observation.readiness.condition(policy),
            observation.balanced(policy),
            observation.availability(policy),
        ];
        let conditions = conditions.into_iter().chain(observation.findings.conditions(policy));
        let revisions = observation.revisions.iter().take(MAX_REVISIONS);
        let revisions = revisions.map(|(kind, name, spread)| RevisionStatus {
            kind: kind.clone(),
            name: name.clone(),
            pods: spread.placed(),
            groups: group_statuses(policy, spread),
        });
        let groups = group_statuses(policy, &observation.total).into_iter().zip(&observation.groups);
        let groups = groups.enumerate().map(|(index, (counts, state))| {
            let available = state.state == Some(GroupState::Open);
            let recovering = !available || (counts.deviation < 0 && self.is_recovering(policy, index));
            GroupStatus {
                name: counts.name,
                hash: policy.definitions().get(index).map(|definition| definition.hash().to_string()),
                desired: counts.desired,
                actual: counts.actual,
                pending: counts.pending,
                deviation: counts.deviation,
                available: Some(available),
                recovering: Some(recovering),
                ..state.clone()
            }
        });
        Self {
            observed_generation: Some(generation),
            target: Some(observation.target.clone()),
            pods: Some(observation.total.pods()),
            desired: Some(observation.total.desired()),
            replicas: observation.replicas,
            placed: Some(observation.total.placed()),
            unplaced: Some(observation.total.unplaced),
            groups: Some(groups.collect()),
            revisions: Some(revisions.collect()),
            conditions: self.conditions.replaced_by(conditions, generation, now),
        }
    }

    /// The status after this one of an object with an invalid spec. There is nothing to count without a policy.
    #[must_use]
    pub fn invalid(&self, generation: i64, problem: &str, now: &str) -> Self {
        let message = problem.to_owned();
        let ready =
            NewCondition { kind: "Ready", status: ConditionStatus::False, reason: "Invalid", message };
        Self {
            observed_generation: Some(generation),
            conditions: self.conditions.replaced_by([ready], generation, now),
            ..Self::default()
        }
    }

    /// The status of a group of `policy`.
    pub fn group(&self, policy: &Policy, group: usize) -> Option<&GroupStatus> {
        self.groups.as_deref()?.get(self.position(policy, group)?)
    }

    /// The index of the status of a group of `policy`, which may have changed since the status was written.
    ///
    /// It is the status with the hash of the group's definition. Earlier versions did not write hashes: there, the name decides.
    pub fn position(&self, policy: &Policy, group: usize) -> Option<usize> {
        let statuses = self.groups.as_deref()?;
        let hash = policy.definitions().get(group)?.hash();
        let name = &*policy.groups().get(group)?.name;
        let has_hash =
            |status: &GroupStatus| status.hash.as_deref().and_then(DefinitionHash::parse) == Some(hash);
        let named = statuses.iter().position(|status| has_hash(status) && status.name == name);
        let with_hash = || statuses.iter().position(has_hash);
        let without_hash = || statuses.iter().position(|status| status.hash.is_none() && status.name == name);
        named.or_else(with_hash).or_else(without_hash)
    }

    /// Whether the group was not available, and has had too few pods since.
    pub fn is_recovering(&self, policy: &Policy, group: usize) -> bool {
        self.group(policy, group).is_some_and(|before| before.recovering == Some(true))
    }
}

impl Observation {
    fn balanced(&self, policy: &Policy) -> NewCondition {
        let deviation = |(group, tally): (&Group, &GroupSpread)| match tally.deviation() {
            0 => None,
            more @ 1.. => Some(format!("{} has {more} too many", group.name)),
            fewer => Some(format!("{} has {} too few", group.name, -fewer)),
        };
        let groups = policy.groups().iter().zip(&self.total.groups);
        let deviations = groups.filter_map(deviation).collect::<Vec<_>>().join(", ");
        let (status, reason, message) = match (&*deviations, &self.rebalance_held) {
            ("", _) if matches!(self.readiness, Readiness::TargetForbidden(_)) => {
                let message =
                    "the target may not be read, so pods from before the PodDistributor are not counted";
                (ConditionStatus::Unknown, "TargetForbidden", message.to_owned())
            }
            ("", _) if self.has_no_pods() && self.is_selector => {
                (ConditionStatus::Unknown, "NoPods", NO_SELECTED_PODS.to_owned())
            }
            ("", _) if self.has_no_pods() => (ConditionStatus::Unknown, "NoPods", NO_PODS.to_owned()),
            ("", _) if self.total.placed() == 0 && self.total.unplaced == 0 => {
                (ConditionStatus::Unknown, "NoPods", "there are no pods to count, see Ready".to_owned())
            }
            ("", _) if self.findings.unreadable_owner.is_some() => {
                let message = "pods of an owner that may not be read are not counted, see OwnersUnreadable";
                (ConditionStatus::Unknown, "OwnersUnreadable", message.to_owned())
            }
            ("", _) if self.total.unplaced > 0 => {
                (ConditionStatus::False, "Unplaced", self.unplaced_message(policy))
            }
            ("", _) => {
                let sequences = self.revisions.iter().filter(|(.., spread)| spread.placed() > 0).count();
                let pods = format!("{} pods: {}", self.total.placed(), self.total.pods());
                if sequences > 1 {
                    let message = format!("{pods}; each of {sequences} owners of pods is exact by itself");
                    (ConditionStatus::True, "ExactByRevision", message)
                } else {
                    (ConditionStatus::True, "Exact", pods)
                }
            }
            _ if self.over_time && self.is_near_shares() && self.total.unplaced == 0 => {
                let pods = format!("{} pods: {}", self.total.placed(), self.total.pods());
                (
                    ConditionStatus::True,
                    "ExactOverTime",
                    format!("{pods}; the shares apply to pods over time"),
                )
            }
            (_, Some(held)) => (ConditionStatus::False, "RebalanceHeld", format!("{deviations}; {held}")),
            _ => (ConditionStatus::False, "OffShares", deviations),
        };
        NewCondition { kind: "Balanced", status, reason, message }
    }

    /// Whether new pods would be placed, and there are none.
    fn has_no_pods(&self) -> bool {
        let may_place = matches!(
            self.readiness,
            Readiness::Placing | Readiness::PlacingOwned(_) | Readiness::NoOwnPods(_)
        );
        may_place && self.total.placed() == 0 && self.total.unplaced == 0
    }

    /// Whether these pods can be part of a sequence that is exact over time: of consecutive slots, no group has three more or fewer than its
    /// share.
    fn is_near_shares(&self) -> bool {
        self.total.groups.iter().all(|tally| tally.deviation().abs() <= 2)
    }

    fn unplaced_message(&self, policy: &Policy) -> String {
        let unplaced = self.total.unplaced;
        let capacity = policy.groups().iter().map(|group| group.max).sum::<Option<u32>>();
        let full = |capacity: u32| self.revisions.iter().any(|(.., spread)| capacity <= spread.placed());
        let bare = match self.readiness {
            Readiness::PlacingOwned(bare) if bare > 0 => format!("; {bare} of them have no controller"),
            _ => String::new(),
        };
        let why = if capacity.is_some_and(full) {
            "every group has as many as its max allows"
        } else {
            "they were there before this distributor or came while no webhook answered (restarting the workload places them), or \
             their own selectors leave none of the groups"
        };
        format!("{unplaced} pods have no place: {why}{bare}")
    }

    fn availability(&self, policy: &Policy) -> NewCondition {
        let closed: Vec<_> =
            policy.groups().iter().zip(&self.groups).filter(|(_, state)| !state.is_open()).collect();
        let problems: Vec<_> = closed.iter().map(|(group, state)| state.problem(&group.name)).collect();
        let (status, reason, mut message) = match &*closed {
            [] => (ConditionStatus::True, "Open", "every group takes pods".to_owned()),
            closed => {
                let message = problems.join("; ");
                let mut reasons = closed.iter().filter_map(|(_, state)| state.reason);
                let of_pods = |reason: &ClosedReason| *reason != ClosedReason::ExcludedByNamespace;
                if !reasons.clone().any(|reason| of_pods(&reason)) {
                    (ConditionStatus::False, "ExcludedByNamespace", message)
                } else if closed.len() == policy.groups().len() {
                    let excluded =
                        if reasons.all(|reason| of_pods(&reason)) { "" } else { " that is not excluded" };
                    let message =
                        format!("{message}; no group is open, so new pods go to each of them{excluded}");
                    (ConditionStatus::False, "NoGroupSchedules", message)
                } else {
                    let is_nodeless = reasons.any(|reason| reason == ClosedReason::NoNodes);
                    (ConditionStatus::False, if is_nodeless { "NoNodes" } else { "Unschedulable" }, message)
                }
            }
        };
        if let Some(held) = &self.take_back_held {
            message = format!("{message}; {held}");
        }
        let reason = if self.take_back_held.is_some() { "TakeBackHeld" } else { reason };
        NewCondition { kind: "Available", status, reason, message }
    }
}

/// The message of a distributor with a selector, in a cluster where the webhook is not called for pods without a controller.
fn placing_owned_message(policy: &Policy, bare: u32) -> String {
    let placing = placing_message(policy);
    let unseen = "pods without a controller are not seen (the chart value distributor.barePods is false)";
    match bare {
        0 => format!("{placing}; {unseen}"),
        _ => format!("{placing}; {unseen}: {bare} match the selector"),
    }
}

/// The message of a distributor that places pods. It names the groups that get none.
fn placing_message(policy: &Policy) -> String {
    let without_share = policy.groups().iter().filter(|group| group.weight == 0 && group.base == 0);
    let names = |stand_in| {
        let groups = without_share.clone().filter(move |group| group.stand_in == stand_in);
        groups.map(|group| &*group.name).collect::<Vec<_>>().join(", ")
    };
    let mut messages = vec!["pods are placed when they are created".to_owned()];
    let nothing = names(false);
    if !nothing.is_empty() {
        messages.push(format!(
            "{nothing}: weight 0, so no pod goes there, not even while no other group is open (standIn: true does that)"
        ));
    }
    let stand_ins = names(true);
    if !stand_ins.is_empty() {
        messages.push(format!("{stand_ins}: stands in while no other group is open"));
    }
    messages.join("; ")
}

fn group_statuses(policy: &Policy, spread: &Spread) -> Vec<GroupStatus> {
    let status = |(group, tally): (&Group, &GroupSpread)| GroupStatus {
        name: group.name.to_string(),
        desired: tally.desired,
        actual: tally.actual,
        pending: tally.pending,
        deviation: tally.deviation(),
        ..GroupStatus::default()
    };
    policy.groups().iter().zip(&spread.groups).map(status).collect()
}

#[cfg(test)]
mod tests {
    use podshaper_placement::allocator::SlotAllocator;
    use podshaper_placement::policy::Tie;

    use super::*;
    use crate::findings::FINDINGS;

    fn policy() -> Policy {
        let group = |(name, weight): (&str, u32)| Group {
            name: name.into(),
            node_labels: [("type".to_owned(), name.to_owned())].into(),
            weight,
            ..Group::default()
        };
        Policy::new([("default", 80), ("spot", 20)].map(group).into(), Tie::First).unwrap()
    }

    /// Ten placed pods, of which so many are in the group spot.
    fn observation(spot: usize) -> Observation {
        let pods = (0..10).map(|index| (Some(if index < spot { "spot" } else { "default" }), true));
        let total = Spread::of(pods, &SlotAllocator::new(policy()));
        Observation {
            target: "web".to_owned(),
            is_selector: false,
            readiness: Readiness::Placing,
            replicas: Some(10),
            over_time: false,
            revisions: vec![("ReplicaSet".to_owned(), "web-1".to_owned(), total.clone())],
            total,
            groups: states(&[]),
            rebalance_held: None,
            take_back_held: None,
            findings: Findings::default(),
        }
    }

    /// The states of the two groups; these are closed, for this reason.
    fn states(closed: &[(usize, ClosedReason)]) -> Vec<GroupStatus> {
        let state = |index: usize| match closed.iter().find(|(group, _)| *group == index) {
            Some((_, reason)) => GroupStatus {
                state: Some(GroupState::Closed),
                reason: Some(*reason),
                ..GroupStatus::default()
            },
            None => GroupStatus { state: Some(GroupState::Open), ..GroupStatus::default() },
        };
        [0, 1].map(state).into()
    }

    fn condition<'s>(status: &'s PodDistributorStatus, kind: &str) -> (ConditionStatus, &'s str, &'s str) {
        let condition = status.conditions.get(kind).unwrap();
        (condition.status, &condition.reason, &condition.message)
    }

    #[test]
    fn group_without_nodes_recovers_once_its_pods_are_back() {
        let mut observation = observation(0);
        observation.groups = states(&[(1, ClosedReason::NoNodes)]);
        let lost = PodDistributorStatus::default().observed(2, &policy(), &observation, "then");
        assert_eq!(
            (lost.pods.as_deref(), lost.desired.as_deref(), lost.placed),
            (Some("10/0"), Some("8/2"), Some(10))
        );
        assert_eq!(
            condition(&lost, "Balanced"),
            (ConditionStatus::False, "OffShares", "default has 2 too many, spot has 2 too few")
        );
        assert_eq!(
            condition(&lost, "Available"),
            (ConditionStatus::False, "NoNodes", "spot has no node that is ready, schedulable and tolerated")
        );
        assert!(lost.is_recovering(&policy(), 1) && !lost.is_recovering(&policy(), 0));

        observation.groups = states(&[]);
        let back = lost.observed(2, &policy(), &observation, "now");
        let spot = GroupStatus {
            name: "spot".to_owned(),
            hash: Some(policy().definitions()[1].hash().to_string()),
            desired: 2,
            actual: 0,
            pending: 0,
            deviation: -2,
            available: Some(true),
            recovering: Some(true),
            state: Some(GroupState::Open),
            ..GroupStatus::default()
        };
        assert_eq!(back.groups.as_ref().unwrap()[1], spot);
        assert_eq!(back.conditions.get("Balanced").unwrap().last_transition_time, "then");

        let exact = back.observed(2, &policy(), &self::observation(2), "now");
        assert_eq!(condition(&exact, "Balanced"), (ConditionStatus::True, "Exact", "10 pods: 8/2"));
        assert!(!exact.is_recovering(&policy(), 1));
    }

    #[test]
    fn state_of_a_group_belongs_to_its_definition() {
        let mut observation = observation(0);
        observation.groups = states(&[(1, ClosedReason::Unschedulable)]);
        let status = PodDistributorStatus::default().observed(1, &policy(), &observation, "now");
        let closed = |status: &PodDistributorStatus, groups: [(&str, &str); 2]| {
            let group = |(name, label): (&str, &str)| Group {
                name: name.into(),
                node_labels: [("type".to_owned(), label.to_owned())].into(),
                weight: 1,
                ..Group::default()
            };
            let policy = Policy::new(groups.map(group).into(), Tie::First).unwrap();
            [0, 1].map(|index| status.group(&policy, index).is_some_and(GroupStatus::is_closed))
        };
        assert_eq!(closed(&status, [("default", "default"), ("spot", "spot")]), [false, true]);
        assert_eq!(
            closed(&status, [("default", "default"), ("cheap", "spot")]),
            [false, true],
            "another name"
        );
        assert_eq!(
            closed(&status, [("spot", "default"), ("default", "spot")]),
            [false, true],
            "swapped names"
        );
        assert_eq!(
            closed(&status, [("spot", "spot"), ("default", "default")]),
            [true, false],
            "another order"
        );
        assert_eq!(
            closed(&status, [("default", "default"), ("spot", "other")]),
            [false, false],
            "other labels"
        );
        let mut of_earlier_version = status.clone();
        for group in of_earlier_version.groups.iter_mut().flatten() {
            group.hash = None;
        }
        assert_eq!(closed(&of_earlier_version, [("spot", "other"), ("default", "default")]), [true, false]);
    }

    #[test]
    fn unschedulable_group_is_unavailable() {
        let mut observation = observation(0);
        observation.groups = states(&[(1, ClosedReason::Unschedulable)]);
        observation.groups[1].next_probe = Some("2026-01-01T00:05:00Z".to_owned());
        observation.groups[1].not_taken_back = Some([("Job".to_owned(), 2)].into());
        let closed = "pods of spot were unschedulable for longer than unschedulableAfter; the next pod tries the group at \
             2026-01-01T00:05:00Z; waiting pods that are not taken back: 2 Job";
        assert_eq!(message(&observation), ("Unschedulable".to_owned(), closed.to_owned()));
        observation.take_back_held = Some("held".to_owned());
        assert_eq!(message(&observation), ("TakeBackHeld".to_owned(), format!("{closed}; held")));
        observation.take_back_held = None;
        observation.groups[0] = observation.groups[1].clone();
        let (reason, text) = message(&observation);
        assert_eq!(reason, "NoGroupSchedules");
        assert!(text.ends_with("no group is open, so new pods go to each of them"), "{text}");
        observation.groups =
            states(&[(0, ClosedReason::Unschedulable), (1, ClosedReason::ExcludedByNamespace)]);
        let (reason, text) = message(&observation);
        assert_eq!(reason, "NoGroupSchedules");
        assert!(text.ends_with("to each of them that is not excluded"), "{text}");
    }

    #[test]
    fn group_that_the_namespace_excludes_is_named() {
        let mut observation = observation(0);
        observation.groups = states(&[(1, ClosedReason::ExcludedByNamespace)]);
        let (reason, text) = message(&observation);
        assert_eq!(reason, "ExcludedByNamespace");
        assert!(text.starts_with("spot gets no pods: an annotation of the namespace"), "{text}");
        assert!(!observation.groups[1].is_closed(), "no pod of it is taken back");
    }

    /// Reason and message of the condition `Available`.
    fn message(observation: &Observation) -> (String, String) {
        let status = PodDistributorStatus::default().observed(1, &policy(), observation, "now");
        let (_, reason, message) = condition(&status, "Available");
        (reason.to_owned(), message.to_owned())
    }

    #[test]
    fn group_without_share_is_named() {
        let group = |(name, weight, stand_in): (&str, u32, bool)| Group {
            name: name.into(),
            node_labels: [("type".to_owned(), name.to_owned())].into(),
            weight,
            stand_in,
            ..Group::default()
        };
        let groups = [("spot", 1, false), ("idle", 0, false), ("reserve", 0, true)].map(group);
        let message = placing_message(&Policy::new(groups.into(), Tie::First).unwrap());
        assert!(message.contains("idle: weight 0, so no pod goes there"), "{message}");
        assert!(message.ends_with("reserve: stands in while no other group is open"), "{message}");
        assert_eq!(placing_message(&policy()), "pods are placed when they are created");
    }

    #[test]
    fn findings_are_conditions_while_they_last() {
        let mut observation = observation(2);
        observation.findings = Findings {
            unschedulable: vec![0, 2],
            without_cost: 10,
            unreadable_owner: Some("Runner a of b/v1".to_owned()),
        };
        let status = PodDistributorStatus::default().observed(1, &policy(), &observation, "now");
        for (kind, part) in [
            ("PodsUnschedulable", "unschedulableAfter: 2 of spot;"),
            ("DeletionCostsRemoved", "deletion cost of 10 pods"),
            ("OwnersUnreadable", "may not be read, Runner a of b/v1;"),
        ] {
            let (is_true, _, message) = condition(&status, kind);
            assert!(is_true == ConditionStatus::True && message.contains(part), "{kind}: {message}");
        }
        assert_eq!(condition(&status, "Balanced").1, "OwnersUnreadable", "pods that are not counted");
        let after = status.observed(1, &policy(), &self::observation(2), "later");
        assert!(FINDINGS.iter().all(|kind| after.conditions.get(kind).is_none()));
        assert_eq!(condition(&after, "Balanced").1, "Exact");
    }

    #[test]
    fn pods_that_may_not_be_counted_are_not_balanced() {
        let balanced = |readiness: Readiness, total: Spread| {
            let observation = Observation { readiness, total, ..observation(2) };
            let status = PodDistributorStatus::default().observed(1, &policy(), &observation, "now");
            let (balanced, reason, _) = condition(&status, "Balanced");
            (balanced, reason.to_owned())
        };
        let unknown = |reason: &str| (ConditionStatus::Unknown, reason.to_owned());
        let forbidden = Readiness::TargetForbidden("Farm web".to_owned());
        assert_eq!(balanced(forbidden, observation(2).total), unknown("TargetForbidden"));
        let missing = Readiness::TargetNotFound("Farm web".to_owned());
        assert_eq!(balanced(missing, Spread::none(&policy())), unknown("NoPods"));
        assert_eq!(balanced(Readiness::Placing, observation(2).total).0, ConditionStatus::True);
    }

    #[test]
    fn object_that_has_the_pods_of_the_target_is_named() {
        let readiness = Readiness::NoOwnPods("Deployment web-primary".to_owned());
        let none =
            Observation { total: Spread::none(&policy()), revisions: vec![], readiness, ..observation(2) };
        let status = PodDistributorStatus::default().observed(1, &policy(), &none, "now");
        let (ready, reason, message) = condition(&status, "Ready");
        assert_eq!((ready, reason), (ConditionStatus::False, "NoOwnPods"));
        assert!(message.ends_with("Deployment web-primary has them: select it as the target"), "{message}");
        assert_eq!(condition(&status, "Balanced").1, "NoPods");
    }

    #[test]
    fn target_without_pods_is_not_balanced() {
        let none = Observation { total: Spread::none(&policy()), revisions: vec![], ..observation(2) };
        let status = PodDistributorStatus::default().observed(1, &policy(), &none, "now");
        let (balanced, reason, message) = condition(&status, "Balanced");
        assert_eq!((balanced, reason), (ConditionStatus::Unknown, "NoPods"));
        assert!(message.starts_with("the target has no pods of its own"), "{message}");
    }

    #[test]
    fn pods_that_the_webhook_does_not_see_are_named() {
        let seen = |bare: u32| {
            let mut observation = Observation {
                target: "app=web".to_owned(),
                is_selector: true,
                readiness: Readiness::PlacingOwned(bare),
                ..observation(2)
            };
            observation.total.unplaced = bare;
            PodDistributorStatus::default().observed(1, &policy(), &observation, "now")
        };
        let none = seen(0);
        let two = seen(2);
        assert_eq!(none.target.as_deref(), Some("app=web"));
        let (ready, _, message) = condition(&none, "Ready");
        assert_eq!(ready, ConditionStatus::True);
        assert!(message.ends_with("(the chart value distributor.barePods is false)"), "{message}");
        assert_eq!(condition(&none, "Balanced").1, "Exact");
        assert!(condition(&two, "Ready").2.ends_with("is false): 2 match the selector"));
        let (balanced, reason, message) = condition(&two, "Balanced");
        assert_eq!((balanced, reason), (ConditionStatus::False, "Unplaced"));
        assert!(message.ends_with("; 2 of them have no controller"), "{message}");
        let empty = Observation {
            total: Spread::none(&policy()),
            revisions: vec![],
            is_selector: true,
            ..observation(2)
        };
        let empty = PodDistributorStatus::default().observed(1, &policy(), &empty, "now");
        assert_eq!(condition(&empty, "Balanced").2, NO_SELECTED_PODS);
    }

    #[test]
    fn unplaced_pods_are_unbalanced() {
        let mut observation = observation(2);
        observation.total.unplaced = 3;
        let status = PodDistributorStatus::default().observed(1, &policy(), &observation, "now");
        let (_, reason, message) = condition(&status, "Balanced");
        assert_eq!(reason, "Unplaced");
        assert!(message.starts_with("3 pods have no place: they were there before"), "{message}");
    }

    #[test]
    fn invalid_spec_clears_counts() {
        let mut observation = observation(2);
        observation.readiness = Readiness::SupersededByOlder("old".to_owned());
        let superseded = PodDistributorStatus::default().observed(1, &policy(), &observation, "then");
        assert_eq!(condition(&superseded, "Ready").1, "Superseded");
        let invalid = superseded.invalid(
            2,
            "spec.target.name: must name the workload, unless there is a selector",
            "now",
        );
        assert_eq!(condition(&invalid, "Ready").1, "Invalid");
        assert_eq!((invalid.conditions.get("Balanced"), &invalid.pods), (None, &None));
    }
}
