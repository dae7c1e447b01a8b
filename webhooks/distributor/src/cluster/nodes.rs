//! The nodes of the cluster: the group of each, and the groups with a node that takes their pods.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use podshaper_core::pod::{Pod, Toleration};
use podshaper_kube::store::Store;
use podshaper_placement::definition::Definition;
use podshaper_placement::identity::NodeLabels;
use podshaper_placement::policy::{GroupSet, Policy};
use tokio::sync::watch;

use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::node::{Node, groups_with_node, suitable_groups};
use distributor_decision::volumes::VolumeNodes;

/// How many answers are cached until nodes change.
const MAX_CACHED: usize = 1024;

/// The nodes of the cluster.
pub(super) struct Nodes {
    store: Arc<Store<Node>>,
    cache: Mutex<GroupCache>,
}

/// The groups with a node.
struct GroupCache {
    changes: watch::Receiver<u64>,
    groups: HashMap<GroupsKey, GroupSet>,
}

/// Uid and generation of a distributor, and the tolerations of its pods.
type GroupsKey = (String, i64, Vec<Toleration>);

impl Nodes {
    pub(super) fn new(store: Arc<Store<Node>>) -> Self {
        let cache = Mutex::new(GroupCache { changes: store.changes(), groups: HashMap::new() });
        Self { store, cache }
    }

    pub(super) fn has_synced(&self) -> bool {
        self.store.has_synced()
    }

    /// Counts the changes of nodes.
    pub(super) fn revision(&self) -> u64 {
        *self.store.changes().borrow()
    }

    /// The names of the nodes that take pods and meet a definition.
    pub(super) fn names_in(&self, definition: &Definition) -> HashSet<Box<str>> {
        let nodes =
            self.store.all().into_iter().filter(|(_, node)| node.takes_pods && node.is_in(definition));
        nodes.map(|(name, _)| name).collect()
    }

    /// The groups in which a volume cannot be mounted.
    pub(super) fn groups_without_volume(&self, volume: &VolumeNodes, policy: &Policy) -> GroupSet {
        let nodes = self.store.all().into_iter().map(|(_, node)| node).filter(|node| node.takes_pods);
        volume.excluded_groups(policy, nodes)
    }

    /// The groups of `policy` that suit the pod.
    pub(super) fn suitable_groups(&self, policy: &Policy, pod: &Pod<'_>) -> GroupSet {
        suitable_groups(policy, pod, || self.store.all().into_iter().map(|(_, node)| node))
    }

    /// The groups with a node for pods that have these tolerations of their own.
    pub(super) fn groups_with_nodes(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        tolerations: &[Toleration],
    ) -> GroupSet {
        let key = (distributor.uid.clone(), distributor.generation, tolerations.to_owned());
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.changes.has_changed().unwrap_or(false) {
                cache.changes.mark_unchanged();
                cache.groups.clear();
            }
            if let Some(groups) = cache.groups.get(&key) {
                return *groups;
            }
        }
        let nodes = self.store.all();
        let nodes = nodes.iter().map(|(_, node)| &**node);
        let groups = groups_with_node(spec.allocator.policy(), &nodes, tolerations);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.groups.len() < MAX_CACHED && !cache.changes.has_changed().unwrap_or(true) {
            cache.groups.insert(key, groups);
        }
        groups
    }
}

impl NodeLabels for Nodes {
    fn labels(&self, node: &str) -> Option<Arc<BTreeMap<String, String>>> {
        self.store.get(node).map(|node| Arc::clone(&node.labels))
    }

    fn all(&self) -> Vec<(String, Arc<BTreeMap<String, String>>)> {
        self.store.all().into_iter().map(|(_, node)| (node.name.clone(), Arc::clone(&node.labels))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn available_groups_follow_nodes() {
        let store = Arc::new(Store::default());
        let nodes = Nodes::new(Arc::clone(&store));
        let node = |kind: &str| Node::new("node", BTreeMap::from([("type".to_owned(), kind.to_owned())]));
        let distributor = Distributor::from_spec(&json!({
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 1}, {"nodeLabel": {"type": "spot"}, "weight": 1}],
            "target": {"name": "web"},
        }));
        let spec = distributor.spec.as_ref().unwrap();
        let available =
            || [0, 1].map(|index| nodes.groups_with_nodes(&distributor, spec, &[]).contains(index));
        assert_eq!(available(), [false, false]);
        store.put("a".to_owned(), node("default"));
        store.put("b".to_owned(), node("other"));
        assert_eq!(available(), [true, false]);
        store.put("b".to_owned(), node("spot"));
        store.remove("a");
        assert_eq!(available(), [false, true]);
    }
}
