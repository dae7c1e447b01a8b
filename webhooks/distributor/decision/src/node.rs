//! Nodes: their labels, and whether they take pods.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod::{Pod, Taint, Toleration};
use podshaper_placement::definition::Definition;
use podshaper_placement::policy::{Group, GroupSet, Policy};
use serde::Deserialize;

/// A node.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Whether it is ready and not cordoned.
    pub takes_pods: bool,
    /// Those that keep pods away.
    pub taints: Vec<Taint>,
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

impl Node {
    /// A node without taints that takes pods.
    pub fn new(name: impl Into<String>, labels: BTreeMap<String, String>) -> Self {
        Self { name: name.into(), labels: Arc::new(labels), takes_pods: true, taints: Vec::new() }
    }

    /// Whether it belongs to the group with this definition.
    pub fn is_in(&self, definition: &Definition) -> bool {
        definition.includes(&self.labels, &self.name)
    }

    /// The groups that it belongs to.
    pub fn groups(&self, policy: &Policy) -> GroupSet {
        let definitions = policy.definitions().iter().enumerate();
        definitions.filter(|(_, definition)| self.is_in(definition)).map(|(index, _)| index).collect()
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
    nodes: &(impl Iterator<Item = &'n Node> + Clone),
    tolerations: &[Toleration],
) -> GroupSet {
    let groups = policy.groups().iter().zip(policy.definitions()).enumerate();
    let has_node = |group: &Group, definition: &Definition| {
        nodes
            .clone()
            .any(|node| node.takes_pods && node.is_in(definition) && node.is_tolerated(group, tolerations))
    };
    groups.filter(|(_, (group, definition))| has_node(group, definition)).map(|(index, _)| index).collect()
}

/// The groups that suit the pod by the labels of their nodes.
///
/// If a group has nodes that take pods and the pod's own constraints allow none of them, and another group has a node that they allow, the
/// first group does not suit. A group without nodes always does: the pod may be what an autoscaler needs to create one.
pub fn suitable_groups<N: Borrow<Node>, I: Iterator<Item = N>>(
    policy: &Policy,
    pod: &Pod<'_>,
    nodes: impl FnOnce() -> I,
) -> GroupSet {
    if !pod.has_node_constraints() {
        return policy.all();
    }
    let alternatives = pod.node_alternatives();
    let mut with_nodes = GroupSet::default();
    let mut allowed = GroupSet::default();
    for node in nodes() {
        let node = node.borrow();
        if !node.takes_pods {
            continue;
        }
        let groups = node.groups(policy);
        with_nodes = with_nodes.union(groups);
        if alternatives.iter().any(|alternative| alternative.matches(&node.labels, &node.name)) {
            allowed = allowed.union(groups);
        }
    }
    if allowed.is_empty() { policy.all() } else { policy.all().difference(with_nodes.difference(allowed)) }
}

impl FromObject for Node {
    type Spec = NodeSpec;
    type Status = NodeStatus;
    const PLURAL: &'static str = "nodes";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<NodeSpec, NodeStatus>) -> Option<Self> {
        let conditions = object.status.unwrap_or_default().conditions.unwrap_or_default();
        let ready =
            conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True");
        let spec = object.spec.unwrap_or_default();
        let taints = spec.taints.unwrap_or_default().into_iter().filter(Taint::repels);
        Some(Self {
            takes_pods: ready && !spec.unschedulable,
            taints: taints.collect(),
            labels: Arc::new(object.metadata.labels.unwrap_or_default()),
            name: object.metadata.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use podshaper_placement::policy::{Group, Tie};
    use serde_json::{Value, json};

    use super::*;

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn node(kind: &str, arch: &str) -> Node {
        let labels = labels(&[("type", kind), ("arch", arch)]);
        Node::new(format!("{kind}-{arch}"), labels)
    }

    fn suitable(pod: &Value, nodes: &[Node]) -> [bool; 2] {
        let group = |name: &str| Group {
            name: name.into(),
            node_labels: labels(&[("type", name)]),
            weight: 1,
            ..Group::default()
        };
        let policy = Policy::new(["default", "spot"].map(group).into(), Tie::First).unwrap();
        let text = json!({"spec": pod}).to_string();
        let pod = serde_json::from_str(&text).unwrap();
        let groups = suitable_groups(&policy, &pod, || nodes.iter());
        [0, 1].map(|index| groups.contains(index))
    }

    #[test]
    fn group_with_unsuitable_nodes_comes_last() {
        let amd64 = json!({"nodeSelector": {"arch": "amd64"}});
        let both = [node("default", "amd64"), node("spot", "arm64")];
        assert_eq!(suitable(&amd64, &both), [true, false]);
        assert_eq!(suitable(&json!({}), &both), [true, true]);
        assert_eq!(suitable(&amd64, &both[..1]), [true, true], "spot has no node");
        assert_eq!(suitable(&amd64, &both[1..]), [true, true], "no group has a node for it");
        let mixed = [node("default", "amd64"), node("spot", "arm64"), node("spot", "amd64")];
        assert_eq!(suitable(&amd64, &mixed), [true, true]);
        let cordoned = [node("default", "amd64"), Node { takes_pods: false, ..node("spot", "arm64") }];
        assert_eq!(suitable(&amd64, &cordoned), [true, true], "a cordoned node says nothing");
        let named = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["spot-arm64"]}]}]}}}});
        assert_eq!(suitable(&named, &both), [false, true]);
    }
}
