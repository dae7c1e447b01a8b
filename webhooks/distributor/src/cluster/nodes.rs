//! Which groups have a node that takes pods.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use podshaper_kube::store::Store;
use podshaper_placement::policy::{GroupSet, Policy};
use tokio::sync::watch;

use distributor_decision::node::{SchedulableNode, groups_with_node};

/// How many answers are cached until nodes change.
const MAX_CACHED: usize = 1024;

/// The nodes that take pods.
pub(super) struct Nodes {
    store: Arc<Store<SchedulableNode>>,
    cache: Mutex<LabelCache>,
}

/// Whether a node has these labels.
struct LabelCache {
    changes: watch::Receiver<u64>,
    by_labels: BTreeMap<BTreeMap<String, String>, bool>,
}

impl Nodes {
    pub(super) fn new(store: Arc<Store<SchedulableNode>>) -> Self {
        let cache = Mutex::new(LabelCache { changes: store.changes(), by_labels: BTreeMap::new() });
        Self { store, cache }
    }

    pub(super) fn has_synced(&self) -> bool {
        self.store.has_synced()
    }

    /// The groups with a node that takes pods.
    pub(super) fn available_groups(&self, policy: &Policy) -> GroupSet {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.changes.has_changed().unwrap_or(false) {
            cache.changes.mark_unchanged();
            cache.by_labels.clear();
        }
        groups_with_node(policy, |labels| self.has_node(&mut cache, labels))
    }

    fn has_node(&self, cache: &mut LabelCache, labels: &BTreeMap<String, String>) -> bool {
        if let Some(cached) = cache.by_labels.get(labels) {
            return *cached;
        }
        let any = self.store.all().iter().any(|(_, node)| node.has_labels(labels));
        if cache.by_labels.len() < MAX_CACHED {
            cache.by_labels.insert(labels.clone(), any);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use podshaper_placement::policy::{Group, Tie};

    use super::*;

    #[test]
    fn available_groups_follow_nodes() {
        let store = Arc::new(Store::default());
        let nodes = Nodes::new(Arc::clone(&store));
        let labels = |kind: &str| BTreeMap::from([("type".to_owned(), kind.to_owned())]);
        let group = |name: &str| Group {
            name: name.into(),
            node_labels: labels(name),
            weight: 1,
            ..Group::default()
        };
        let policy = Policy::new(["default", "spot"].map(group).into(), Tie::First).unwrap();
        let available = || [0, 1].map(|index| nodes.available_groups(&policy).contains(index));
        assert_eq!(available(), [false, false]);
        store.put("a".to_owned(), SchedulableNode::new(labels("default")));
        store.put("b".to_owned(), SchedulableNode::new(labels("other")));
        assert_eq!(available(), [true, false]);
        store.put("b".to_owned(), SchedulableNode::new(labels("spot")));
        store.remove("a");
        assert_eq!(available(), [false, true]);
    }
}
