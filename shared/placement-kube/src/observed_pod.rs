//! A pod as a list or a watch returns it, read for what a ledger needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use podshaper_core::object::{FromObject, OwnerReference};
use podshaper_placement::identity::GroupEvidence;
use podshaper_placement::ledger::{PodName, PodPlacement, PodRecord, PodState, ResourceVersion};
use podshaper_placement::pod_object::{PodCondition, PodObject, WaitingPod};
use serde_json::value::RawValue;

use crate::placement_object::{LedgerId, NamespacedOwner};

/// Whether a pod works. No slot depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is ready or has succeeded.
    Ready,
    /// It is not ready.
    Unready,
}

/// A pod.
pub(crate) struct ObservedPod {
    pub name: PodName,
    /// With the group in its annotations: which one it is now depends on the policy.
    pub record: PodRecord,
    pub evidence: GroupEvidence,
    pub node: Option<Box<str>>,
    pub health: Health,
    /// Whether another controller has removed its deletion cost.
    pub lacks_cost: bool,
    /// Set while the pod has no node.
    pub waiting: Option<Arc<WaitingPod>>,
    /// The controller. Of a pod without one, it has only the uid of the owner of the ledger.
    pub controller: NamespacedOwner,
    /// The uid of the owner of the ledger that the pod counts in.
    pub sequence_owner: Box<str>,
    /// The value of [`PLACED`].
    placed_by: Option<String>,
    skipped: bool,
}

impl ObservedPod {
    /// Reads a pod; `None` if no ledger counts it: it has no controller and no policy selects it, or webhooks are to skip it.
    pub(crate) fn parse(object: &RawValue) -> serde_json::Result<Option<Self>> {
        Ok(Self::parse_any(object)?.filter(|pod| !pod.skipped && !pod.sequence_owner.is_empty()))
    }

    fn parse_any(object: &RawValue) -> serde_json::Result<Option<Self>> {
        let Some(pod) = PodObject::from_object(serde_json::from_str(object.get())?) else { return Ok(None) };
        let Some(version) = pod.version else { return Ok(None) };
        let costed = pod.has_own_deletion_cost();
        let lacks_cost = pod.lacks_deletion_cost();
        let of_no_controller = || OwnerReference::new("", "", "", pod.sequence_owner.as_str());
        let controller = pod.controller.unwrap_or_else(of_no_controller);
        let record = PodRecord {
            version,
            state: pod.state,
            placement: pod.assignment.map_or(PodPlacement::Unknown, PodPlacement::Assigned),
            costed,
            marked: pod.placed_by.is_some(),
        };
        Ok(Some(Self {
            name: pod.name.as_str().into(),
            record,
            evidence: pod.evidence,
            lacks_cost,
            node: pod.node.map(String::into_boxed_str),
            health: if pod.state == PodState::Succeeded { Health::Ready } else { health(&pod.conditions) },
            waiting: pod.waiting.filter(|_| pod.state == PodState::Active).map(Arc::new),
            sequence_owner: pod.sequence_owner.into(),
            placed_by: pod.placed_by,
            skipped: pod.skipped,
            controller: NamespacedOwner { namespace: pod.namespace, owner: controller },
        }))
    }

    pub(crate) fn ledger_id(&self) -> LedgerId {
        LedgerId::new(&self.controller.namespace, &self.sequence_owner)
    }

    /// Whether the ledger that `webhook` keeps for the owner with this uid counts the pod.
    pub(crate) fn counts_for(&self, owner: &str, webhook: &str) -> bool {
        *self.sequence_owner == *owner && self.placed_by.as_ref().is_none_or(|placed_by| placed_by == webhook)
    }
}

fn health(conditions: &[PodCondition]) -> Health {
    let is_ready = |condition: &PodCondition| condition.r#type == "Ready" && condition.status == "True";
    if conditions.iter().any(is_ready) { Health::Ready } else { Health::Unready }
}

/// A pod that a policy selects by its labels.
#[derive(Clone, Debug)]
pub struct SelectedPod {
    /// `metadata.name`.
    pub name: String,
    /// The labels that were asked for. A pod may have more than the memory of this process could take.
    pub labels: BTreeMap<String, String>,
    /// Its controller, if it has one.
    pub controller: Option<OwnerReference>,
    /// The uid of the owner of the ledger that the pod counts in; empty if it counts in none.
    pub sequence_owner: String,
    /// The webhook that has placed it, if one has.
    pub placed_by: Option<String>,
    /// `metadata.resourceVersion`.
    pub(crate) version: ResourceVersion,
    /// Whether it has no slot, and its author has not set its deletion cost.
    pub(crate) needs_deletion_cost: bool,
}

impl SelectedPod {
    /// Reads a pod of a list; `None` if it has ended or webhooks are to skip it.
    pub(crate) fn parse(
        object: &RawValue,
        keeps_label: impl Fn(&str) -> bool,
    ) -> serde_json::Result<Option<Self>> {
        let pod = PodObject::from_object(serde_json::from_str(object.get())?);
        let Some(mut pod) = pod.filter(|pod| pod.state != PodState::Gone && !pod.skipped) else {
            return Ok(None);
        };
        let Some(version) = pod.version else { return Ok(None) };
        pod.labels.retain(|key, _| keeps_label(key));
        let needs_deletion_cost = pod.assignment.is_none() && !pod.has_own_deletion_cost();
        Ok(Some(Self {
            name: pod.name,
            labels: pod.labels,
            controller: pod.controller,
            sequence_owner: pod.sequence_owner,
            placed_by: pod.placed_by,
            version,
            needs_deletion_cost,
        }))
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
        let pod = ObservedPod::parse_any(object)?.filter(|pod| pod.record.state != PodState::Gone);
        let Some(pod) = pod.filter(|pod| !pod.sequence_owner.is_empty()) else { return Ok(()) };
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
