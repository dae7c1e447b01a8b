//! Conditions that a `PodDistributor` has only while something is wrong beside its shares.

use podshaper_crd::{ConditionStatus, NewCondition};
use podshaper_placement::policy::Policy;

/// The types of these conditions. They are true or absent.
pub const FINDINGS: [&str; 3] = [PODS_UNSCHEDULABLE, DELETION_COSTS_REMOVED, OWNERS_UNREADABLE];

const PODS_UNSCHEDULABLE: &str = "PodsUnschedulable";
const DELETION_COSTS_REMOVED: &str = "DeletionCostsRemoved";
const OWNERS_UNREADABLE: &str = "OwnersUnreadable";

/// Problems that the leader finds beside the shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// How many pods of each group have been unschedulable for long, in the order of the policy.
    pub unschedulable: Vec<u32>,
    /// How many placed pods have no deletion cost any more, although scaling down removes pods by it.
    pub without_cost: u32,
    /// An owner of pods of the namespace that may not be read. The target may own it.
    pub unreadable_owner: Option<String>,
}

impl Findings {
    pub(crate) fn conditions(&self, policy: &Policy) -> impl Iterator<Item = NewCondition> {
        [self.pods_unschedulable(policy), self.deletion_costs_removed(), self.owners_unreadable()]
            .into_iter()
            .flatten()
    }

    fn pods_unschedulable(&self, policy: &Policy) -> Option<NewCondition> {
        let groups = policy.groups().iter().zip(&self.unschedulable).filter(|(_, pods)| **pods > 0);
        let groups: Vec<String> = groups.map(|(group, pods)| format!("{pods} of {}", group.name)).collect();
        let message = format!(
            "pods have been unschedulable for more than twice unschedulableAfter: {}; their Events name the reason. Add nodes to the group, \
             or let pods go to other groups (whenUnavailable: UseOthers, takeBack)",
            groups.join(", ")
        );
        (!groups.is_empty()).then(|| condition(PODS_UNSCHEDULABLE, "Unschedulable", message))
    }

    fn deletion_costs_removed(&self) -> Option<NewCondition> {
        let message = format!(
            "another controller has removed the deletion cost of {} pods, so that scaling down does not keep the shares; disable that \
             function of the controller, and restart the workload",
            self.without_cost
        );
        (self.without_cost > 0).then(|| condition(DELETION_COSTS_REMOVED, "RemovedByOthers", message))
    }

    fn owners_unreadable(&self) -> Option<NewCondition> {
        let owner = self.unreadable_owner.as_ref()?;
        let message = format!(
            "pods of the namespace have an owner that may not be read, {owner}; if the target owns it, its pods are neither placed nor \
             counted. The chart's distributor.owners gives the right"
        );
        Some(condition(OWNERS_UNREADABLE, "Forbidden", message))
    }
}

fn condition(kind: &'static str, reason: &'static str, message: String) -> NewCondition {
    NewCondition { kind, status: ConditionStatus::True, reason, message }
}
