//! The group that a pod belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use podshaper_core::pod::{NodeRequirements, NodeSelectorTerm, alternatives};

use super::definition::DefinitionHash;
use super::policy::{GroupName, Policy};

/// The labels of nodes.
pub trait NodeLabels: Send + Sync {
    /// Those of the node with this name, if it is known.
    fn labels(&self, node: &str) -> Option<Arc<BTreeMap<String, String>>>;
    /// Name and labels of each node.
    fn all(&self) -> Vec<(String, Arc<BTreeMap<String, String>>)>;
}

/// No node is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnknownNodes;

impl NodeLabels for UnknownNodes {
    fn labels(&self, _: &str) -> Option<Arc<BTreeMap<String, String>>> {
        None
    }

    fn all(&self) -> Vec<(String, Arc<BTreeMap<String, String>>)> {
        Vec::new()
    }
}

/// The fields of a pod that show its group, except its node. Pods of one group and one template have equal ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupEvidence {
    /// The group's name in the pod's annotations, if a webhook has placed it.
    pub name: Option<GroupName>,
    /// The hash of the group's definition at that time. Earlier versions did not write it.
    pub hash: Option<DefinitionHash>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// The required node affinity.
    pub terms: Option<Vec<NodeSelectorTerm<'static>>>,
}

impl GroupEvidence {
    /// The index of the pod's group.
    ///
    /// A pod belongs to the group with the hash that it carries; else to the group with the name that it carries, if the pod's own
    /// constraints allow only nodes of that group; else to the group that its constraints imply; else to the first group, in the order of
    /// the policy, that its node belongs to. A placed pod without a node belongs to the group of all nodes that its constraints allow.
    pub fn group(&self, policy: &Policy, node: Option<&str>, nodes: &dyn NodeLabels) -> Option<usize> {
        if let Some(group) = self.group_by_hash(policy) {
            return Some(group);
        }
        let selector = self.node_selector.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let pod = alternatives(selector, self.terms.as_deref());
        if let Some(group) = self.group_by_name(policy, &pod) {
            return Some(group);
        }
        let implied = implied_groups(policy, &pod);
        let labels = || {
            let name = node?;
            Some((nodes.labels(name)?, name))
        };
        match &implied[..] {
            [group] => Some(*group),
            [] if node.is_none() && self.name.is_some() => group_of_allowed_nodes(policy, &pod, nodes),
            [] => first_including(policy, 0..policy.groups().len(), labels()?),
            [first, ..] => {
                let by_node =
                    labels().and_then(|node| first_including(policy, implied.iter().copied(), node));
                by_node.or(Some(*first))
            }
        }
    }

    /// The group with the hash. Of several that differ in their names only, the one with the pod's name.
    fn group_by_hash(&self, policy: &Policy) -> Option<usize> {
        let hash = self.hash?;
        let has_hash = |index: &usize| policy.definitions().get(*index).is_some_and(|own| own.hash() == hash);
        let named = self.name.as_ref().and_then(|name| policy.index(name)).filter(has_hash);
        named.or_else(|| (0..policy.groups().len()).find(has_hash))
    }

    fn group_by_name(&self, policy: &Policy, pod: &[NodeRequirements<'_>]) -> Option<usize> {
        let index = policy.index(self.name.as_ref()?)?;
        let agrees =
            policy.groups().get(index)?.preferred || policy.definitions().get(index)?.is_implied_by(pod);
        // A pod with a hash belongs to a preferred group only by the hash: its constraints do not show the group.
        (agrees && !(self.hash.is_some() && policy.groups().get(index)?.preferred)).then_some(index)
    }
}

fn implied_groups(policy: &Policy, pod: &[NodeRequirements<'_>]) -> Vec<usize> {
    let definitions = policy.definitions().iter().enumerate();
    definitions.filter(|(_, own)| own.is_implied_by(pod)).map(|(index, _)| index).collect()
}

/// The group of all nodes that these constraints allow, if they have one.
fn group_of_allowed_nodes(
    policy: &Policy,
    pod: &[NodeRequirements<'_>],
    nodes: &dyn NodeLabels,
) -> Option<usize> {
    let allowed = nodes.all().into_iter();
    let allowed =
        allowed.filter(|(name, labels)| pod.iter().any(|alternative| alternative.matches(labels, name)));
    let mut groups =
        allowed.map(|(name, labels)| first_including(policy, 0..policy.groups().len(), (labels, &name)));
    let first = groups.next()??;
    groups.all(|group| group == Some(first)).then_some(first)
}

fn first_including(
    policy: &Policy,
    mut groups: impl Iterator<Item = usize>,
    (labels, name): (Arc<BTreeMap<String, String>>, &str),
) -> Option<usize> {
    groups.find(|group| policy.definitions().get(*group).is_some_and(|own| own.includes(&labels, name)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::{Group, Tie};

    struct OneNode(Arc<BTreeMap<String, String>>);

    impl NodeLabels for OneNode {
        fn labels(&self, node: &str) -> Option<Arc<BTreeMap<String, String>>> {
            (node == "n").then(|| Arc::clone(&self.0))
        }

        fn all(&self) -> Vec<(String, Arc<BTreeMap<String, String>>)> {
            vec![("n".to_owned(), Arc::clone(&self.0))]
        }
    }

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn group(name: &str, node_labels: &[(&str, &str)]) -> Group {
        Group { name: name.into(), node_labels: labels(node_labels), weight: 1, ..Group::default() }
    }

    fn policy(groups: &[(&str, &[(&str, &str)])]) -> Policy {
        Policy::new(groups.iter().map(|(name, labels)| group(name, labels)).collect(), Tie::First).unwrap()
    }

    /// A pod that was placed in this group.
    fn placed(name: &str, node_labels: &[(&str, &str)], hash: bool) -> GroupEvidence {
        let definition = crate::definition::Definition::new(&labels(node_labels), &[]).unwrap();
        GroupEvidence {
            name: Some(name.into()),
            hash: hash.then_some(definition.hash()),
            node_selector: labels(node_labels),
            terms: None,
        }
    }

    fn of(pod: &GroupEvidence, policy: &Policy, node: &[(&str, &str)]) -> Option<usize> {
        pod.group(policy, Some("n"), &OneNode(Arc::new(labels(node))))
    }

    const DEFAULT: &[(&str, &str)] = &[("type", "default")];
    const SPOT: &[(&str, &str)] = &[("type", "spot")];
    const NEW_SPOT: &[(&str, &str)] = &[("capacity", "spot")];

    #[test]
    fn changed_policy_keeps_pods_in_their_groups() {
        for hash in [true, false] {
            let pod = placed("spot", SPOT, hash);
            let unnamed = placed("type=spot", SPOT, hash);
            let with_names = policy(&[("default", DEFAULT), ("spot", SPOT)]);
            assert_eq!(of(&unnamed, &with_names, &[]), Some(1), "a name is added");
            let named = policy(&[("od", DEFAULT), ("cheap", SPOT)]);
            assert_eq!(of(&pod, &named, &[]), Some(1), "another name");
            let swapped = policy(&[("spot", DEFAULT), ("default", SPOT)]);
            assert_eq!(of(&pod, &swapped, &[]), Some(1), "two names are swapped");
            let relabelled = policy(&[("default", DEFAULT), ("spot", NEW_SPOT)]);
            assert_eq!(of(&pod, &relabelled, &[]), None, "the pod's node is unknown");
            let node: &[_] = &[("type", "spot"), ("capacity", "spot")];
            assert_eq!(of(&pod, &relabelled, node), Some(1), "other labels");
            let both = policy(&[("od", DEFAULT), ("cheap", NEW_SPOT)]);
            assert_eq!(of(&pod, &both, node), Some(1), "other labels and another name");
        }
    }

    #[test]
    fn placed_pod_without_a_node_belongs_to_the_group_of_the_nodes_that_it_allows() {
        let relabelled = policy(&[("default", DEFAULT), ("spot", NEW_SPOT)]);
        let of = |pod: &GroupEvidence, node: &[(&str, &str)]| {
            pod.group(&relabelled, None, &OneNode(Arc::new(labels(node))))
        };
        let pod = placed("type=spot", SPOT, true);
        let node = [("type", "spot"), ("capacity", "spot")];
        assert_eq!(of(&pod, &node), Some(1));
        assert_eq!(of(&pod, SPOT), None, "the node is in no group");
        assert_eq!(of(&pod, NEW_SPOT), None, "the pod allows no node");
        assert_eq!(
            of(&GroupEvidence { name: None, hash: None, ..pod }, &node),
            None,
            "the pod was not placed"
        );
    }

    #[test]
    fn node_in_two_groups_belongs_to_the_first() {
        let pod = GroupEvidence::default();
        let two = policy(&[("a", DEFAULT), ("b", NEW_SPOT)]);
        let node: &[_] = &[("type", "default"), ("capacity", "spot")];
        assert_eq!(of(&pod, &two, node), Some(0));
        let narrow = GroupEvidence { node_selector: labels(NEW_SPOT), ..GroupEvidence::default() };
        assert_eq!(of(&narrow, &two, node), Some(1), "its selector comes before its node");
    }

    #[test]
    fn selector_of_two_groups_follows_the_node() {
        let two = policy(&[("b", SPOT), ("b2", &[("type", "spot"), ("size", "2")])]);
        let pod = GroupEvidence {
            node_selector: labels(&[("type", "spot"), ("size", "2")]),
            ..GroupEvidence::default()
        };
        assert_eq!(of(&pod, &two, &[]), Some(0));
        let one = GroupEvidence { node_selector: labels(SPOT), ..GroupEvidence::default() };
        assert_eq!(of(&one, &two, &[("type", "spot"), ("size", "2")]), Some(0));
    }

    #[test]
    fn affinity_is_part_of_the_definition() {
        let no_spot = json!({"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]});
        let regular = Group { node_affinity: vec![no_spot.clone()], ..group("regular", &[("os", "linux")]) };
        let policy = Policy::new(vec![regular, group("spot", &[("spot", "true")])], Tie::First).unwrap();
        let selects = GroupEvidence { node_selector: labels(&[("os", "linux")]), ..GroupEvidence::default() };
        assert_eq!(of(&selects, &policy, &[]), None);
        assert_eq!(of(&selects, &policy, &[("os", "linux")]), Some(0));
        assert_eq!(of(&selects, &policy, &[("os", "linux"), ("spot", "true")]), Some(1));
        let term = |value: Value| serde::Deserialize::deserialize(value).unwrap();
        let requires = GroupEvidence { terms: Some(vec![term(no_spot)]), ..selects };
        assert_eq!(of(&requires, &policy, &[]), Some(0));
    }

    #[test]
    fn preferred_group_is_known_by_name_or_hash() {
        let preferred = Group { preferred: true, ..group("spot", SPOT) };
        let policy = Policy::new(vec![group("default", DEFAULT), preferred], Tie::First).unwrap();
        for hash in [true, false] {
            let pod = GroupEvidence { node_selector: BTreeMap::new(), ..placed("spot", SPOT, hash) };
            assert_eq!(of(&pod, &policy, DEFAULT), Some(1));
        }
        let moved = GroupEvidence { node_selector: BTreeMap::new(), ..placed("spot", NEW_SPOT, true) };
        assert_eq!(of(&moved, &policy, DEFAULT), Some(0), "the labels have changed");
    }
}
