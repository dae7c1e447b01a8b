//! `PodDistributor.status`, and how it follows from what the leader observes.

use podshaper_crd::{ConditionStatus, Conditions, NewCondition};
use podshaper_placement::policy::{Group, GroupSet, Policy};
use podshaper_placement::spread::{GroupSpread, Spread};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many revisions a status lists.
const MAX_REVISIONS: usize = 10;

/// How the pods are distributed. Maintained by the webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDistributorStatus {
    /// The metadata.generation that this status is about.
    pub observed_generation: Option<i64>,
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
    /// Ready: pods are placed. Balanced: every group has the desired number of pods, and every pod is placed. Available: every group has
    /// nodes.
    pub conditions: Conditions,
}

/// The pods of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["name"]))]
pub struct GroupStatus {
    /// Name of the group, or its labels if it has no name, as in type=spot.
    pub name: String,
    /// Pods that the group should have, by its share of the placed pods.
    pub desired: u32,
    /// Pods that are placed in the group.
    pub actual: u32,
    /// Pods of the group that are not ready.
    pub pending: u32,
    /// Actual minus desired pods.
    #[schemars(with = "i32")]
    pub deviation: i64,
    /// Whether the group has a node that is ready and not cordoned, and none of its pods is unschedulable for longer than
    /// unschedulableAfter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
    /// Whether the group had no nodes, and has had too few pods since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovering: Option<bool>,
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
    /// Whether new pods are placed.
    pub readiness: Readiness,
    /// Pods that the workload wants, if it says so.
    pub replicas: Option<u32>,
    /// All pods.
    pub total: Spread,
    /// Kind and name of each owner of pods, and its pods.
    pub revisions: Vec<(String, String, Spread)>,
    /// Groups that take pods.
    pub available: GroupSet,
    /// Other groups with nodes and with pods that have been unschedulable for too long.
    pub unschedulable: GroupSet,
    /// Why no pods are evicted, if some should be.
    pub rebalance_held: Option<String>,
}

/// Whether new pods of the workload are placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They are.
    Placing,
    /// An older `PodDistributor` places them.
    SupersededByOlder(String),
    /// Another webhook places them.
    SupersededByWebhook(String),
    /// There is no such workload.
    TargetNotFound(String),
    /// RBAC doesn't allow to read the workload.
    TargetForbidden(String),
    /// The API server didn't answer about the workload.
    TargetUnknown(String),
}

impl Readiness {
    fn condition(&self) -> NewCondition {
        use ConditionStatus::{False, True, Unknown};
        let (status, reason, message) = match self {
            Self::Placing => (True, "Placing", "pods are placed when they are created".to_owned()),
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
            observation.readiness.condition(),
            observation.balanced(policy),
            observation.availability(policy),
        ];
        let revisions = observation.revisions.iter().take(MAX_REVISIONS);
        let revisions = revisions.map(|(kind, name, spread)| RevisionStatus {
            kind: kind.clone(),
            name: name.clone(),
            pods: spread.placed(),
            groups: group_statuses(policy, spread),
        });
        let mut groups = group_statuses(policy, &observation.total);
        for (index, group) in groups.iter_mut().enumerate() {
            let available = observation.available.contains(index);
            group.available = Some(available);
            group.recovering = Some(!available || (group.deviation < 0 && self.is_recovering(&group.name)));
        }
        Self {
            observed_generation: Some(generation),
            pods: Some(observation.total.pods()),
            desired: Some(observation.total.desired()),
            replicas: observation.replicas,
            placed: Some(observation.total.placed()),
            unplaced: Some(observation.total.unplaced),
            groups: Some(groups),
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

    /// Whether the group had no nodes, and has had too few pods since.
    pub fn is_recovering(&self, group: &str) -> bool {
        self.groups.iter().flatten().any(|before| before.name == group && before.recovering == Some(true))
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
            ("", _) if self.total.unplaced > 0 => {
                (ConditionStatus::False, "Unplaced", self.unplaced_message(policy))
            }
            ("", _) => (
                ConditionStatus::True,
                "Exact",
                format!("{} pods: {}", self.total.placed(), self.total.pods()),
            ),
            (_, Some(held)) => (ConditionStatus::False, "RebalanceHeld", format!("{deviations}; {held}")),
            _ => (ConditionStatus::False, "OffShares", deviations),
        };
        NewCondition { kind: "Balanced", status, reason, message }
    }

    fn unplaced_message(&self, policy: &Policy) -> String {
        let unplaced = self.total.unplaced;
        let capacity = policy.groups().iter().map(|group| group.max).sum::<Option<u32>>();
        let full = |capacity: u32| self.revisions.iter().any(|(.., spread)| capacity <= spread.placed());
        let why = if capacity.is_some_and(full) {
            "every group has as many as its max allows"
        } else {
            "they were there before this distributor or came while no webhook answered (restarting the workload places them), or \
             their own selectors leave none of the groups"
        };
        format!("{unplaced} pods have no place: {why}")
    }

    fn availability(&self, policy: &Policy) -> NewCondition {
        let names = |includes: &dyn Fn(usize) -> bool| {
            let groups = policy.groups().iter().enumerate().filter(|(index, _)| includes(*index));
            groups.map(|(_, group)| &*group.name).collect::<Vec<_>>().join(", ")
        };
        let unschedulable = names(&|index| self.unschedulable.contains(index));
        let nodeless = names(&|index| !self.available.contains(index) && !self.unschedulable.contains(index));
        let mut problems = Vec::new();
        if !nodeless.is_empty() {
            problems.push(format!("no node is ready and takes pods in {nodeless}"));
        }
        if !unschedulable.is_empty() {
            problems.push(format!(
                "pods of {unschedulable} have been unschedulable for longer than unschedulableAfter"
            ));
        }
        let (status, reason, message) = if problems.is_empty() {
            (ConditionStatus::True, "NodesReady", "every group has a node that is ready".to_owned())
        } else {
            let reason = if nodeless.is_empty() { "Unschedulable" } else { "NoNodes" };
            (ConditionStatus::False, reason, problems.join("; "))
        };
        NewCondition { kind: "Available", status, reason, message }
    }
}

fn group_statuses(policy: &Policy, spread: &Spread) -> Vec<GroupStatus> {
    let status = |(group, tally): (&Group, &GroupSpread)| GroupStatus {
        name: group.name.to_string(),
        desired: tally.desired,
        actual: tally.actual,
        pending: tally.pending,
        deviation: tally.deviation(),
        available: None,
        recovering: None,
    };
    policy.groups().iter().zip(&spread.groups).map(status).collect()
}

#[cfg(test)]
mod tests {
    use podshaper_placement::allocator::SlotAllocator;
    use podshaper_placement::policy::Tie;

    use super::*;

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
            readiness: Readiness::Placing,
            replicas: Some(10),
            revisions: vec![("ReplicaSet".to_owned(), "web-1".to_owned(), total.clone())],
            total,
            available: policy().all(),
            unschedulable: [].into_iter().collect(),
            rebalance_held: None,
        }
    }

    fn condition<'s>(status: &'s PodDistributorStatus, kind: &str) -> (ConditionStatus, &'s str, &'s str) {
        let condition = status.conditions.get(kind).unwrap();
        (condition.status, &condition.reason, &condition.message)
    }

    #[test]
    fn group_without_nodes_recovers_once_its_pods_are_back() {
        let mut observation = observation(0);
        observation.available = [0].into_iter().collect();
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
            (ConditionStatus::False, "NoNodes", "no node is ready and takes pods in spot")
        );
        assert!(lost.is_recovering("spot") && !lost.is_recovering("default"));

        observation.available = policy().all();
        let back = lost.observed(2, &policy(), &observation, "now");
        let spot = GroupStatus {
            name: "spot".to_owned(),
            desired: 2,
            actual: 0,
            pending: 0,
            deviation: -2,
            available: Some(true),
            recovering: Some(true),
        };
        assert_eq!(back.groups.as_ref().unwrap()[1], spot);
        assert_eq!(back.conditions.get("Balanced").unwrap().last_transition_time, "then");

        let exact = back.observed(2, &policy(), &self::observation(2), "now");
        assert_eq!(condition(&exact, "Balanced"), (ConditionStatus::True, "Exact", "10 pods: 8/2"));
        assert!(!exact.is_recovering("spot"));
    }

    #[test]
    fn unschedulable_group_is_unavailable() {
        let mut observation = observation(0);
        observation.available = [0].into_iter().collect();
        observation.unschedulable = [1].into_iter().collect();
        let status = PodDistributorStatus::default().observed(1, &policy(), &observation, "now");
        let (_, reason, message) = condition(&status, "Available");
        assert_eq!(reason, "Unschedulable");
        assert!(message.starts_with("pods of spot have been unschedulable"), "{message}");
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
        let invalid = superseded.invalid(2, "spec.target.name: must name the workload", "now");
        assert_eq!(condition(&invalid, "Ready").1, "Invalid");
        assert_eq!((invalid.conditions.get("Balanced"), &invalid.pods), (None, &None));
    }
}
