//! Nodes that take pods.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use podshaper_placement::policy::{GroupSet, Policy};
use serde::Deserialize;

/// The labels of a node that is ready and not cordoned.
#[derive(Debug, PartialEq, Eq)]
pub struct SchedulableNode(BTreeMap<String, String>);

/// `v1.NodeSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    unschedulable: bool,
}

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    conditions: Option<Vec<NodeCondition>>,
}

/// `v1.NodeCondition`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeCondition {
    r#type: String,
    status: String,
}

impl SchedulableNode {
    /// A node with these labels.
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// Whether it has these labels.
    pub fn has_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }
}

/// The groups with labels that a node has.
pub fn groups_with_node(
    policy: &Policy,
    mut has_node: impl FnMut(&BTreeMap<String, String>) -> bool,
) -> GroupSet {
    let groups = policy.groups().iter().enumerate();
    groups.filter(|(_, group)| has_node(&group.node_labels)).map(|(index, _)| index).collect()
}

impl FromObject for SchedulableNode {
    type Spec = NodeSpec;
    type Status = NodeStatus;
    const PLURAL: &'static str = "nodes";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<NodeSpec, NodeStatus>) -> Option<Self> {
        let conditions = object.status.unwrap_or_default().conditions.unwrap_or_default();
        let ready =
            conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True");
        let takes_pods = ready && !object.spec.unwrap_or_default().unschedulable;
        takes_pods.then(|| Self(object.metadata.labels.unwrap_or_default()))
    }
}
