//! Which groups have a node that takes their pods.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use podshaper_core::pod::Toleration;
use podshaper_kube::store::Store;
use podshaper_placement::policy::{Group, GroupSet};
use tokio::sync::watch;

use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::node::{SchedulableNode, groups_with_node};

/// How many answers are cached until nodes change.
const MAX_CACHED: usize = 1024;

/// The nodes that take pods.
pub(super) struct Nodes {
    store: Arc<Store<SchedulableNode>>,
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
    pub(super) fn new(store: Arc<Store<SchedulableNode>>) -> Self {
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

    /// The names of the nodes that meet the definition of a group.
    pub(super) fn names_in(&self, group: &Group) -> HashSet<Box<str>> {
        let nodes = self.store.all().into_iter().filter(|(_, node)| node.is_in(group));
        nodes.map(|(name, _)| name).collect()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn available_groups_follow_nodes() {
        let store = Arc::new(Store::default());
        let nodes = Nodes::new(Arc::clone(&store));
        let node =
            |kind: &str| SchedulableNode::new("node", BTreeMap::from([("type".to_owned(), kind.to_owned())]));
        let distributor = Distributor::from_spec(json!({
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
