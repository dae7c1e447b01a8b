//! The distributors at the start of one reconciliation, by namespace and target: looking one up does not depend on their number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::LedgerId;

use distributor_decision::distributor::{Distributor, governing};

/// Namespace, kind and name of a target. Distributors that differ in its API group only are few.
type TargetKey = (String, String, String);

pub(super) struct DistributorIndex {
    by_target: HashMap<TargetKey, Vec<Arc<Distributor>>>,
    /// Those that select pods by their labels.
    by_ledger: HashMap<LedgerId, Arc<Distributor>>,
    namespaces: HashSet<String>,
}

impl DistributorIndex {
    pub(super) fn new<'d>(distributors: impl IntoIterator<Item = &'d Arc<Distributor>>) -> Self {
        let mut by_target: HashMap<TargetKey, Vec<_>> = HashMap::new();
        let mut by_ledger = HashMap::new();
        let mut namespaces = HashSet::new();
        for distributor in distributors {
            if !namespaces.contains(&distributor.namespace) {
                namespaces.insert(distributor.namespace.clone());
            }
            if distributor.target.selector.is_some() {
                let ledger = LedgerId::new(&distributor.namespace, &distributor.sequence_owner().uid);
                by_ledger.insert(ledger, Arc::clone(distributor));
            }
            by_target.entry(target_key(distributor)).or_default().push(Arc::clone(distributor));
        }
        Self { by_target, by_ledger, namespaces }
    }

    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The distributor that owns this ledger, because it selects pods by their labels.
    pub(super) fn selecting(&self, ledger: &LedgerId) -> Option<&Arc<Distributor>> {
        self.by_ledger.get(ledger)
    }

    /// The distributor that governs the pods of this chain, because it selects an owner.
    pub(super) fn governing(&self, namespace: &str, chain: &OwnerChain) -> Option<Arc<Distributor>> {
        let of_owners = chain.owners().iter().flat_map(|owner| {
            let key = (namespace.to_owned(), owner.kind.clone(), owner.name.clone());
            self.by_target.get(&key).into_iter().flatten().cloned()
        });
        governing(&of_owners.collect::<Vec<_>>(), chain).cloned()
    }

    /// The distributor that applies instead of this one, which selects the same workload.
    pub(super) fn older(&self, distributor: &Distributor) -> Option<&Arc<Distributor>> {
        let others = self.by_target.get(&target_key(distributor)).into_iter().flatten().filter(|other| {
            other.uid != distributor.uid && other.has_target_of(distributor) && other.precedes(distributor)
        });
        others.reduce(|oldest, other| if other.precedes(oldest) { other } else { oldest })
    }
}

/// Those that select pods by their labels have one key in each namespace.
fn target_key(distributor: &Distributor) -> TargetKey {
    let target = &distributor.target;
    (distributor.namespace.clone(), target.kind().to_owned(), target.name().to_owned())
}

#[cfg(test)]
mod tests {
    use podshaper_core::object::{Lookup, OwnerReference};
    use podshaper_placement::owner_object::OwnerObject;
    use serde_json::{Value, json};

    use super::*;

    fn distributor(namespace: &str, name: &str, created: &str, target: &Value) -> Arc<Distributor> {
        let groups = json!([{"nodeLabel": {"type": "a"}, "weight": 1}]);
        let distributor = Distributor::from_spec(&json!({"distribution": groups, "target": target}));
        Arc::new(Distributor {
            uid: name.to_owned(),
            name: name.to_owned(),
            created: created.to_owned(),
            namespace: namespace.to_owned(),
            ..distributor
        })
    }

    #[test]
    fn index_finds_what_a_search_finds() {
        let web = json!({"name": "web"});
        let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Deployment", "name": "web"});
        let set = json!({"kind": "ReplicaSet", "name": "web"});
        let all = [
            distributor("a", "young", "2", &web),
            distributor("a", "old", "1", &web),
            distributor("a", "other-group", "0", &rollout),
            distributor("b", "elsewhere", "0", &web),
            distributor("a", "set", "3", &set),
        ];
        let owner = |kind: &str| OwnerReference::new("apps/v1", kind, "web", kind);
        let mut chain = OwnerChain::from(Some(owner("ReplicaSet")));
        let object = OwnerObject {
            uid: "ReplicaSet".to_owned(),
            controller: Some(owner("Deployment")),
            ..OwnerObject::default()
        };
        chain.record_read(Lookup::Found(object.into()));
        for count in 0..=all.len() {
            let index = DistributorIndex::new(&all[..count]);
            for namespace in ["a", "b"] {
                let own: Vec<_> =
                    all[..count].iter().filter(|own| own.namespace == namespace).cloned().collect();
                let expected = governing(&own, &chain).map(|found| &found.name);
                assert_eq!(index.governing(namespace, &chain).as_ref().map(|found| &found.name), expected);
            }
        }
        let index = DistributorIndex::new(&all);
        let older = |distributor: &Distributor| index.older(distributor).map(|older| older.name.clone());
        assert_eq!(all.each_ref().map(|own| older(own)), [Some("old".to_owned()), None, None, None, None]);
    }
}
