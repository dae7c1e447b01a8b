//! Nodes that take pods.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod::{NodeSelectorTerm, Taint, Toleration};
use podshaper_placement::policy::{Group, GroupSet, Policy};
use serde::Deserialize;
use serde_json::Value;

/// A node that is ready and not cordoned.
#[derive(Debug, PartialEq, Eq)]
pub struct SchedulableNode {
    name: String,
    labels: BTreeMap<String, String>,
    /// Those that keep pods away.
    taints: Vec<Taint>,
}

/// `v1.NodeSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    unschedulable: bool,
    taints: Option<Vec<Taint>>,
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
    /// A node without taints.
    pub fn new(name: impl Into<String>, labels: BTreeMap<String, String>) -> Self {
        Self { name: name.into(), labels, taints: Vec::new() }
    }

    /// Whether it meets the definition of the group: its labels and its node affinity.
    pub fn is_in(&self, group: &Group) -> bool {
        let has = |(key, value): (&String, &String)| self.labels.get(key) == Some(value);
        let matches = |term: &Value| {
            NodeSelectorTerm::deserialize(term).is_ok_and(|term| term.matches_node(&self.name, &self.labels))
        };
        group.node_labels.iter().all(has)
            && (group.node_affinity.is_empty() || group.node_affinity.iter().any(matches))
    }

    /// Whether it has no taint that keeps pods of the group away, which have these tolerations of their own.
    pub fn is_tolerated(&self, group: &Group, own: &[Toleration]) -> bool {
        if self.taints.is_empty() {
            return true;
        }
        let of_group: Vec<_> =
            group.tolerations.iter().filter_map(|value| Toleration::deserialize(value).ok()).collect();
        let is_tolerated =
            |taint: &Taint| own.iter().chain(&of_group).any(|toleration| toleration.tolerates(taint));
        self.taints.iter().all(is_tolerated)
    }
}

/// The groups that one of these nodes is for, given the tolerations that their pods have of their own.
pub fn groups_with_node<'n>(
    policy: &Policy,
    nodes: &(impl Iterator<Item = &'n SchedulableNode> + Clone),
    tolerations: &[Toleration],
) -> GroupSet {
    policy
        .indexes(|group| nodes.clone().any(|node| node.is_in(group) && node.is_tolerated(group, tolerations)))
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
        let spec = object.spec.unwrap_or_default();
        if !ready || spec.unschedulable {
            return None;
        }
        let taints = spec.taints.unwrap_or_default().into_iter().filter(Taint::repels);
        Some(Self {
            name: object.metadata.name,
            labels: object.metadata.labels.unwrap_or_default(),
            taints: taints.collect(),
        })
    }
}
