//! A pod, as ledgers count it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use podshaper_core::object::{FromObject, Object, OwnerReference, lenient};
use podshaper_core::pod::{NodeSelectorTerm, SKIP};

use super::annotations::{
    DELETION_COST, GROUP, GROUP_HASH, LOWEST_DELETION_COST, PLACED, deletion_cost, parse, sequence_owner,
};
use super::definition::DefinitionHash;
use super::identity::{GroupEvidence, NodeLabels};
use super::ledger::{Assignment, PodPlacement, PodState, ResourceVersion};
use super::policy::{GroupName, MAX_NAME, Policy};

/// Bytes of the longest name of a node (a DNS subdomain).
const MAX_NODE_NAME: usize = 253;
/// Bytes of the longest node selector, and of the longest node affinity, that is kept for a pod. A longer one counts as absent: it shows no
/// group.
const MAX_CONSTRAINTS: usize = 8 << 10;

/// A pod, as far as its place is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct PodObject {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.resourceVersion`; a file may lack it.
    pub version: Option<ResourceVersion>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The pod's controller, if it has one.
    pub controller: Option<OwnerReference>,
    /// The uid of the owner of the ledger that the pod counts in; empty if it counts in none.
    pub sequence_owner: String,
    /// Whether it counts.
    pub state: PodState,
    /// Its slot and group, if a webhook has placed it.
    pub assignment: Option<Assignment>,
    /// The evidence of its group.
    pub evidence: GroupEvidence,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// The value of [`DELETION_COST`].
    pub deletion_cost: Option<String>,
    /// The value of [`PLACED`].
    pub placed_by: Option<String>,
    /// Whether webhooks are to skip the pod.
    pub skipped: bool,
    /// `status.conditions`.
    pub conditions: Vec<PodCondition>,
    /// The state of a pod that has no node.
    pub waiting: Option<WaitingPod>,
}

/// A pod without a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitingPod {
    /// `metadata.uid`.
    pub uid: String,
    /// Its controller, if it has one.
    pub controller: Option<OwnerReference>,
    /// The verdict of the scheduler.
    pub scheduling: Scheduling,
    /// Whether Kueue manages it: it has a label of Kueue.
    pub queued: bool,
    /// The names of its persistent volume claims.
    pub claims: Vec<String>,
}

/// The verdict of the scheduler about a pod that has no node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// It has not tried the pod.
    #[default]
    Untried,
    /// It does not try the pod: the pod has scheduling gates.
    Gated,
    /// It has chosen a node that is not free yet (`status.nominatedNodeName`).
    Nominated,
    /// It has found no node.
    Unschedulable,
}

/// The prefix of Kueue's labels.
const KUEUE: &str = "kueue.x-k8s.io/";

/// The fields of `v1.PodSpec` that show a pod's group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodObjectSpec {
    node_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "lenient")]
    affinity: Option<Affinity>,
    scheduling_gates: Option<Vec<IgnoredAny>>,
    volumes: Option<Vec<ClaimVolume>>,
}

/// The fields of `v1.Volume` that name a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimVolume {
    name: String,
    persistent_volume_claim: Option<ClaimSource>,
    ephemeral: Option<IgnoredAny>,
}

/// `v1.PersistentVolumeClaimVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSource {
    claim_name: String,
}

impl ClaimVolume {
    /// The claim of the volume. A generic ephemeral volume has one that is named after the pod.
    fn claim(&self, pod: &str) -> Option<String> {
        match (&self.persistent_volume_claim, &self.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{pod}-{}", self.name)),
            (None, None) => None,
        }
    }
}

/// `v1.Affinity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

/// `v1.NodeAffinity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
}

/// `v1.NodeSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector {
    node_selector_terms: Vec<Value>,
}

impl PodObjectSpec {
    /// The node selector, unless it is longer than [`MAX_CONSTRAINTS`].
    fn node_selector(&mut self) -> BTreeMap<String, String> {
        let selector = self.node_selector.take().unwrap_or_default();
        let length: usize = selector.iter().map(|(key, value)| key.len() + value.len()).sum();
        if length > MAX_CONSTRAINTS { BTreeMap::new() } else { selector }
    }

    /// The required terms, unless they are longer than [`MAX_CONSTRAINTS`]. A term of another shape matches no node.
    fn required_terms(&mut self) -> Option<Vec<NodeSelectorTerm<'static>>> {
        let terms = self.affinity.take()?.node_affinity?.required?.node_selector_terms;
        let length: usize = terms.iter().map(text_length).sum();
        let parse = |term| NodeSelectorTerm::deserialize(term).unwrap_or_default();
        (length <= MAX_CONSTRAINTS).then(|| terms.into_iter().map(parse).collect())
    }
}

/// An estimate of the bytes of a JSON value.
fn text_length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 8,
        Value::Array(items) => 8 + items.iter().map(text_length).sum::<usize>(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| key.len() + text_length(value)).sum::<usize>() + 8
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// The fields of `v1.PodStatus` that show a pod's state and health.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodObjectStatus {
    phase: String,
    nominated_node_name: Option<String>,
    conditions: Option<Vec<PodCondition>>,
}

/// `v1.PodCondition`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// `type`.
    pub r#type: String,
    /// `status`.
    pub status: String,
    /// `reason`.
    pub reason: Option<String>,
}

fn scheduling(spec: &PodObjectSpec, nominated: Option<&str>, conditions: &[PodCondition]) -> Scheduling {
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        Scheduling::Gated
    } else if nominated.is_some_and(|node| !node.is_empty()) {
        Scheduling::Nominated
    } else if conditions.iter().any(PodCondition::is_unschedulable) {
        Scheduling::Unschedulable
    } else {
        Scheduling::Untried
    }
}

impl PodCondition {
    /// Whether the scheduler has tried the pod and found no node (`PodReasonUnschedulable` of k8s.io/api). A pod with scheduling gates has
    /// another reason.
    fn is_unschedulable(&self) -> bool {
        self.r#type == "PodScheduled"
            && self.status == "False"
            && self.reason.as_deref() == Some("Unschedulable")
    }
}

impl PodObject {
    /// Where the pod is, by this policy.
    pub fn placement(&self, policy: &Policy, nodes: &dyn NodeLabels) -> PodPlacement {
        let group = self.evidence.group(policy, self.node.as_deref(), nodes);
        let group = group.and_then(|group| policy.groups().get(group)).map(|group| group.name.clone());
        PodPlacement::new(self.assignment.as_ref(), group)
    }

    /// Whether the pod has a slot and no deletion cost. Each pod gets one with its slot, so another controller has removed it.
    pub fn lacks_deletion_cost(&self) -> bool {
        self.assignment.is_some() && self.deletion_cost.is_none()
    }

    /// Whether the pod's author has set its deletion cost, which this project then keeps.
    pub fn has_own_deletion_cost(&self) -> bool {
        let cost_of_slot = self.assignment.as_ref().map(|assignment| deletion_cost(assignment.slot));
        let ours = cost_of_slot.as_deref().unwrap_or(LOWEST_DELETION_COST);
        self.deletion_cost.as_ref().is_some_and(|cost| cost != ours && cost != LOWEST_DELETION_COST)
    }
}

impl FromObject for PodObject {
    type Spec = PodObjectSpec;
    type Status = PodObjectStatus;
    const PLURAL: &'static str = "pods";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<PodObjectSpec, PodObjectStatus>) -> Option<Self> {
        let metadata = object.metadata;
        let controller = match metadata.controller() {
            Some(owner) if owner.is_valid() => Some(owner.coordinates()),
            Some(_) => return None,
            None => None,
        };
        let annotation = |key: &str| metadata.annotation(key);
        let label = |key: &str| metadata.labels.as_ref()?.get(key);
        let status = object.status.unwrap_or_default();
        let mut spec = object.spec.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let has_node = spec.node_name.as_ref().is_some_and(|node| !node.is_empty());
        let waiting = (!has_node).then(|| WaitingPod {
            uid: metadata.uid.clone(),
            controller: controller.clone(),
            scheduling: scheduling(&spec, status.nominated_node_name.as_deref(), &conditions),
            queued: metadata.labels.iter().flatten().any(|(key, _)| key.starts_with(KUEUE)),
            claims: spec.volumes.iter().flatten().filter_map(|volume| volume.claim(&metadata.name)).collect(),
        });
        let evidence = GroupEvidence {
            name: annotation(GROUP).filter(|name| name.len() <= MAX_NAME).map(GroupName::from),
            hash: annotation(GROUP_HASH).and_then(DefinitionHash::parse),
            node_selector: spec.node_selector(),
            terms: spec.required_terms(),
        };
        let controller_uid = controller.as_ref().map_or("", |controller| &controller.uid);
        let controller_kind = controller.as_ref().map_or("", |controller| &controller.kind);
        Some(Self {
            version: metadata.resource_version.parse().ok(),
            sequence_owner: sequence_owner(annotation, controller_uid).to_owned(),
            state: PodState::of(&status.phase, metadata.deletion_timestamp.is_some(), controller_kind),
            assignment: parse(annotation),
            evidence,
            node: spec.node_name.filter(|node| (1..=MAX_NODE_NAME).contains(&node.len())),
            deletion_cost: annotation(DELETION_COST).map(str::to_owned),
            placed_by: label(PLACED).cloned(),
            skipped: label(SKIP).is_some_and(|skip| skip == "true"),
            conditions,
            waiting,
            controller,
            labels: metadata.labels.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name,
        })
    }
}
