//! A pod as a list or a watch returns it, read for what a ledger needs.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use podshaper_core::object::{Object, lenient};
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::pod::SKIP;
use podshaper_placement::annotations::{
    DELETION_COST, LOWEST_DELETION_COST, PLACED, deletion_cost, infer_group, parse, sequence_owner,
};
use podshaper_placement::ledger::{PodName, PodPlacement, PodRecord, PodState};
use podshaper_placement::policy::Policy;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::placement_object::parse_version;
use crate::workload::{LedgerId, NamespacedOwner};

/// The fields of `v1.PodSpec` that show a pod's group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelection {
    node_selector: Option<BTreeMap<String, String>>,
}

/// The fields of `v1.PodStatus` that show a pod's health.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct HealthStatus {
    phase: String,
    conditions: Option<Vec<HealthCondition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HealthCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    // A value that is no time is ignored: no slot depends on it.
    #[serde(deserialize_with = "lenient")]
    last_transition_time: Option<Timestamp>,
}

/// Whether a pod works. No slot depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is ready or has succeeded.
    Ready,
    /// It is not ready.
    Unready,
    /// The scheduler finds no node for it since then, in seconds since 1970.
    Unschedulable(i64),
}

/// A pod that has a controller.
pub(crate) struct ObservedPod {
    pub name: PodName,
    pub record: PodRecord,
    pub health: Health,
    pub controller: NamespacedOwner,
    /// The uid of the owner in whose ledger the pod counts.
    pub sequence_owner: Box<str>,
    /// The value of [`PLACED`].
    placed_by: Option<String>,
    skipped: bool,
}

impl ObservedPod {
    /// Reads a pod; `None` if no ledger counts it: it has no controller, or webhooks are to skip it. With `policy`, the group of a pod that
    /// is not placed is inferred from its node selector.
    pub(crate) fn parse(object: &RawValue, policy: Option<&Policy>) -> serde_json::Result<Option<Self>> {
        Ok(Self::parse_any(object, policy)?.filter(|pod| !pod.skipped))
    }

    fn parse_any(object: &RawValue, policy: Option<&Policy>) -> serde_json::Result<Option<Self>> {
        let object: Object<NodeSelection, HealthStatus> = serde_json::from_str(object.get())?;
        let metadata = &object.metadata;
        let controller =
            metadata.controller().filter(|owner| owner.is_valid()).map(OwnerReference::coordinates);
        let (Some(owner), Some(version)) = (controller, parse_version(&metadata.resource_version)) else {
            return Ok(None);
        };
        let label = |key| metadata.labels.as_ref()?.get(key);
        let annotation = |key: &str| metadata.annotation(key);
        let assignment = parse(annotation);
        let sequence_owner = sequence_owner(annotation, &owner.uid).into();
        let status = object.status.unwrap_or_default();
        let state = PodState::of(&status.phase, metadata.deletion_timestamp.is_some(), &owner.kind);
        let cost_of_slot = assignment.as_ref().map(|assignment| deletion_cost(assignment.slot));
        let ours = cost_of_slot.as_deref().unwrap_or(LOWEST_DELETION_COST);
        let costed =
            annotation(DELETION_COST).is_some_and(|cost| cost != ours && cost != LOWEST_DELETION_COST);
        let placed_by = label(PLACED).cloned();
        let selector = object.spec.unwrap_or_default().node_selector.unwrap_or_default();
        let group = || infer_group(|key| selector.get(key).map(String::as_str), policy?);
        let placement = match assignment {
            Some(assignment) => PodPlacement::Assigned(assignment),
            None => group().map_or(PodPlacement::Unknown, PodPlacement::Inferred),
        };
        Ok(Some(Self {
            name: metadata.name.as_str().into(),
            record: PodRecord { version, state, placement, costed, marked: placed_by.is_some() },
            health: if state == PodState::Succeeded { Health::Ready } else { status.health() },
            controller: NamespacedOwner { namespace: metadata.namespace.clone().unwrap_or_default(), owner },
            sequence_owner,
            placed_by,
            skipped: label(SKIP).is_some_and(|skip| skip == "true"),
        }))
    }

    pub(crate) fn ledger_id(&self) -> LedgerId {
        LedgerId::new(&self.controller.namespace, &self.sequence_owner)
    }

    /// Whether the ledger that `webhook` keeps for the owner with this uid counts the pod.
    pub(crate) fn counts_for(&self, owner: &str, webhook: &str) -> bool {
        *self.sequence_owner == *owner && self.placed_by.as_ref().is_none_or(|placed_by| placed_by == webhook)
    }

    /// Whether it runs without a slot, a group or the label that the watch selects by.
    pub(crate) fn is_unplaced(&self) -> bool {
        !self.record.marked
            && self.record.state == PodState::Active
            && self.record.placement == PodPlacement::Unknown
    }
}

impl HealthStatus {
    fn health(&self) -> Health {
        let find = |kind: &str| self.conditions.iter().flatten().find(|condition| condition.kind == kind);
        if find("Ready").is_some_and(|condition| condition.status == "True") {
            return Health::Ready;
        }
        let scheduled =
            find("PodScheduled").filter(|condition| condition.reason.as_deref() == Some("Unschedulable"));
        let since = scheduled.and_then(|condition| condition.last_transition_time);
        since.map_or(Health::Unready, |since| Health::Unschedulable(since.as_second()))
    }
}

/// Pods that a webhook has not placed.
#[derive(Debug, Default)]
pub struct UnplacedPods {
    /// How many no webhook has placed, by their controller.
    pub unmarked: BTreeMap<OwnerReference, u32>,
    /// How many this webhook does not place: another webhook has placed them, or webhooks are to skip them.
    pub excluded: u32,
    /// Another webhook that has placed some of them.
    pub placed_by: Option<String>,
}

impl UnplacedPods {
    /// Counts a pod of a list.
    pub(crate) fn add(&mut self, object: &RawValue) -> serde_json::Result<()> {
        let pod = ObservedPod::parse_any(object, None)?.filter(|pod| pod.record.state != PodState::Gone);
        let Some(pod) = pod else { return Ok(()) };
        if pod.skipped {
            self.excluded += 1;
        } else if pod.placed_by.is_some() {
            self.excluded += 1;
            self.placed_by = pod.placed_by;
        } else {
            *self.unmarked.entry(pod.controller.owner).or_default() += 1;
        }
        Ok(())
    }
}
