//! Which groups have a node that could take a pod.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use podshaper_kube::store::Store;
use podshaper_placement::policy::{GroupSet, Policy};
use tokio::sync::watch;

use distributor_decision::kinds::Node;

/// Labels that were looked for are remembered up to this number.
const MAX_REMEMBERED: usize = 1024;

/// The nodes that could take a pod.
pub(super) struct Nodes {
    store: Arc<Store<Node>>,
    found: Mutex<Found>,
}

/// Which labels some node bears.
struct Found {
    changes: watch::Receiver<u64>,
    by_labels: BTreeMap<BTreeMap<String, String>, bool>,
}

impl Nodes {
    pub(super) fn new(store: Arc<Store<Node>>) -> Self {
        let found = Mutex::new(Found { changes: store.changes(), by_labels: BTreeMap::new() });
        Self { store, found }
    }

    pub(super) fn filled(&self) -> bool {
        self.store.filled()
    }

    /// The groups with such a node.
    pub(super) fn available(&self, policy: &Policy) -> GroupSet {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.changes.has_changed().unwrap_or(false) || found.by_labels.len() > MAX_REMEMBERED {
            found.changes.mark_unchanged();
            found.by_labels.clear();
        }
        let mut has_node = |labels: &BTreeMap<String, String>| {
            if let Some(known) = found.by_labels.get(labels) {
                return *known;
            }
            let bears = |node: &Node| labels.iter().all(|(key, value)| node.0.get(key) == Some(value));
            let any = self.store.all().iter().any(|(_, node)| bears(node));
            found.by_labels.insert(labels.clone(), any);
            any
        };
        let groups = policy.groups().iter().enumerate();
        groups.filter(|(_, group)| has_node(&group.node_labels)).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use podshaper_placement::policy::{Group, Tie};

    use super::*;

    #[test]
    fn nodes_come_and_go() {
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
        let available = || [0, 1].map(|index| nodes.available(&policy).contains(index));
        assert_eq!(available(), [false, false]);
        store.put("a".to_owned(), Node(labels("default")));
        store.put("b".to_owned(), Node(labels("other")));
        assert_eq!(available(), [true, false]);
        store.put("b".to_owned(), Node(labels("spot")));
        store.remove("a");
        assert_eq!(available(), [false, true]);
    }
}
