//! The groups in which the volumes of a pod can be mounted.

use std::borrow::Borrow;
use std::time::Instant;

use podshaper_core::object::Lookup;
use podshaper_core::pod::{NodeSelectorTerm, Pod, alternatives};
use podshaper_placement::policy::{GroupSet, Policy};
use serde::Deserialize;
use serde_json::Value;

use crate::facts::DistributorFacts;
use crate::node::Node;

/// Claims of one pod that are read. A pod has fewer in practice.
const MAX_CLAIMS: usize = 16;

/// `v1.PersistentVolumeClaimSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// `volumeName`: the volume that the claim is bound to.
    pub volume_name: Option<String>,
}

/// `v1.PersistentVolumeSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    node_affinity: Option<VolumeNodeAffinity>,
}

/// `v1.VolumeNodeAffinity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeNodeAffinity {
    required: Option<Required>,
}

/// `v1.NodeSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Required {
    node_selector_terms: Vec<Value>,
}

/// The nodes that a bound volume can be mounted on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeNodes(Option<Vec<NodeSelectorTerm<'static>>>);

/// `v1.Volume`, if it is a claim.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodVolume {
    persistent_volume_claim: Option<ClaimSource>,
}

/// `v1.PersistentVolumeClaimVolumeSource`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSource {
    claim_name: String,
}

/// The groups that a pod cannot go to, and the claim that may not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExcludedGroups {
    pub groups: GroupSet,
    pub forbidden: Option<String>,
}

impl From<VolumeSpec> for VolumeNodes {
    fn from(spec: VolumeSpec) -> Self {
        let required = spec.node_affinity.and_then(|affinity| affinity.required);
        let parse = |term| NodeSelectorTerm::deserialize(term).unwrap_or_default();
        Self(required.map(|required| required.node_selector_terms.into_iter().map(parse).collect()))
    }
}

impl VolumeNodes {
    /// The groups of `policy` in which the volume cannot be mounted: their definition contradicts its node affinity, or they have nodes and
    /// none meets it.
    pub fn excluded_groups<N: Borrow<Node>>(
        &self,
        policy: &Policy,
        nodes: impl Iterator<Item = N>,
    ) -> GroupSet {
        let Some(terms) = &self.0 else { return GroupSet::default() };
        let alternatives = alternatives([].into_iter(), Some(terms));
        let mut with_nodes = GroupSet::default();
        let mut allowed = GroupSet::default();
        for node in nodes {
            let node = node.borrow();
            let groups = node.groups(policy);
            with_nodes = with_nodes.union(groups);
            if alternatives.iter().any(|alternative| alternative.matches(&node.labels, &node.name)) {
                allowed = allowed.union(groups);
            }
        }
        let definitions = policy.definitions().iter().enumerate();
        let contradicting = definitions.filter(|(_, definition)| !definition.allows_one_of(&alternatives));
        let contradicting: GroupSet = contradicting.map(|(index, _)| index).collect();
        contradicting.union(with_nodes.difference(allowed))
    }
}

/// The names of the claims that the pod mounts. The claim of a generic ephemeral volume is created after the pod, so it has no volume.
fn claims(pod: &Pod<'_>) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes);
    let Some(volumes) = volumes.filter(|volumes| volumes.get().contains("\"persistentVolumeClaim\"")) else {
        return Vec::new();
    };
    let volumes: Vec<PodVolume> = serde_json::from_str(volumes.get()).unwrap_or_default();
    let claims = volumes.into_iter().filter_map(|volume| Some(volume.persistent_volume_claim?.claim_name));
    claims.take(MAX_CLAIMS).collect()
}

/// The groups in which a volume of the pod cannot be mounted, as far as that can be read by the deadline.
pub(crate) async fn excluded_groups(
    facts: &impl DistributorFacts,
    namespace: &str,
    pod: &Pod<'_>,
    policy: &Policy,
    deadline: Instant,
) -> ExcludedGroups {
    let mut excluded = ExcludedGroups::default();
    if policy.groups().len() < 2 {
        return excluded;
    }
    for claim in claims(pod) {
        match facts.volume_nodes(namespace, &claim, deadline).await {
            Lookup::Found(nodes) => {
                excluded.groups = excluded.groups.union(facts.groups_without_volume(&nodes, policy));
            }
            Lookup::Forbidden => excluded.forbidden = Some(claim),
            Lookup::NotFound | Lookup::Unavailable => {}
        }
    }
    excluded
}

#[cfg(test)]
mod tests {
    use podshaper_placement::policy::{Group, Tie};
    use serde_json::json;

    use super::*;

    fn node(zone: &str, kind: &str) -> Node {
        Node::new(
            kind,
            [("zone", zone), ("type", kind)].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        )
    }

    fn excluded(labels: [(&str, &str); 2], volume: Value, nodes: &[Node]) -> [bool; 2] {
        let group = |(key, value): (&str, &str)| Group {
            name: value.into(),
            node_labels: [(key.to_owned(), value.to_owned())].into(),
            weight: 1,
            ..Group::default()
        };
        let policy = Policy::new(labels.map(group).into(), Tie::First).unwrap();
        let volume: VolumeSpec = serde_json::from_value(volume).unwrap();
        let groups = VolumeNodes::from(volume).excluded_groups(&policy, nodes.iter());
        [0, 1].map(|index| groups.contains(index))
    }

    #[test]
    fn volume_excludes_groups_of_other_zones() {
        let zone_a = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a"]}]}]}}});
        let zones = [("zone", "a"), ("zone", "b")];
        assert_eq!(excluded(zones, zone_a.clone(), &[]), [false, true], "by the definition");
        assert_eq!(excluded(zones, json!({}), &[]), [false, false], "it can be mounted anywhere");
        let kinds = [("type", "default"), ("type", "spot")];
        assert_eq!(excluded(kinds, zone_a.clone(), &[]), [false, false], "no node shows a zone");
        let nodes = [node("a", "default"), node("b", "spot")];
        assert_eq!(excluded(kinds, zone_a.clone(), &nodes), [false, true], "by the nodes");
        let more = [node("a", "default"), node("b", "spot"), node("a", "spot")];
        assert_eq!(excluded(kinds, zone_a, &more), [false, false]);
    }

    #[test]
    fn claims_of_a_pod_are_read() {
        let text = json!({"spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "b", "emptyDir": {}},
            {"name": "c", "ephemeral": {}}]}})
        .to_string();
        assert_eq!(claims(&serde_json::from_str(&text).unwrap()), ["data"]);
    }
}
