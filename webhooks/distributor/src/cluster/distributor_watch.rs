//! The watch of distributors. Anyone with the cluster role `edit` in some namespace creates them, so their memory is bounded: for each namespace, so
//! that none affects another, and for all.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Client;
use podshaper_core::object::{FromObject, Object};
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchHandler, WatchScope, list_and_watch};
use serde_json::value::RawValue;

use distributor_decision::crd::PLURAL;
use distributor_decision::distributor::Distributor;

/// Bytes that the distributors of one namespace, and all, may take.
const MAX_OF_NAMESPACE: usize = 8 << 20;
const MAX_IN_ALL: usize = 24 << 20;

/// Starts the watch and returns its store.
pub(super) fn spawn(client: &Client) -> Arc<Store<Distributor>> {
    let store = Arc::new(Store::default());
    let mut writer =
        DistributorWriter { store: Arc::clone(&store), listed: Vec::new(), weights: Weights::default() };
    let client = client.clone();
    tokio::spawn(async move {
        list_and_watch(client, WatchScope::default(), Distributor::API, PLURAL, &mut writer).await;
    });
    store
}

/// Writes distributors into a store. One that would exceed a bound is stored as invalid.
struct DistributorWriter {
    store: Arc<Store<Distributor>>,
    listed: Vec<(String, Distributor)>,
    weights: Weights,
}

/// The weights of distributors, by key, and their sums.
#[derive(Default)]
struct Weights {
    of: HashMap<String, usize>,
    of_namespace: HashMap<String, usize>,
    in_all: usize,
}

impl Weights {
    /// Counts a distributor instead of an earlier one of this key. If a bound would be exceeded, only its target and status are kept.
    fn admit(&mut self, key: &str, mut distributor: Distributor) -> Distributor {
        self.remove(key, &distributor.namespace);
        let weight = distributor.weight();
        let of_namespace = self.of_namespace.get(&distributor.namespace).copied().unwrap_or_default();
        let problem = if of_namespace + weight > MAX_OF_NAMESPACE {
            Some("the PodDistributors of this namespace")
        } else if self.in_all + weight > MAX_IN_ALL {
            Some("all PodDistributors")
        } else {
            None
        };
        if let Some(which) = problem {
            let problem =
                format!("spec: {which} have too many values together; delete some, and change this one");
            distributor.spec = Err(problem);
        }
        let weight = distributor.weight();
        self.of.insert(key.to_owned(), weight);
        *self.of_namespace.entry(distributor.namespace.clone()).or_default() += weight;
        self.in_all += weight;
        distributor
    }

    fn remove(&mut self, key: &str, namespace: &str) {
        let Some(weight) = self.of.remove(key) else { return };
        self.in_all -= weight;
        if let Some(sum) = self.of_namespace.get_mut(namespace) {
            *sum -= weight;
            if *sum == 0 {
                self.of_namespace.remove(namespace);
            }
        }
    }
}

fn parse(
    object: &RawValue,
) -> serde_json::Result<Object<<Distributor as FromObject>::Spec, <Distributor as FromObject>::Status>> {
    serde_json::from_str(object.get())
}

impl WatchHandler for DistributorWriter {
    fn list_started(&mut self) {
        self.listed.clear();
        self.weights = Weights::default();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        let object = parse(object)?;
        let key = object.metadata.key();
        if let Some(distributor) = Distributor::from_object(object) {
            let distributor = self.weights.admit(&key, distributor);
            self.listed.push((key, distributor));
        }
        Ok(())
    }

    fn list_completed(&mut self, _version: &str) {
        self.store.replace(std::mem::take(&mut self.listed));
    }

    fn changed(&mut self, object: &RawValue, deleted: bool) -> serde_json::Result<String> {
        let object = parse(object)?;
        let key = object.metadata.key();
        let version = object.metadata.resource_version.clone();
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let present = if deleted { None } else { Distributor::from_object(object) };
        if let Some(distributor) = present {
            let distributor = self.weights.admit(&key, distributor);
            self.store.put(key, distributor);
        } else {
            self.weights.remove(&key, &namespace);
            self.store.remove(&key);
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    /// A distributor with as many values as one may have.
    fn largest(namespace: &str, number: usize) -> Box<RawValue> {
        let values =
            |from: usize| (0..32).map(|value| format!("{:04}", from * 32 + value)).collect::<Vec<_>>();
        let term =
            |from| json!({"matchExpressions": [{"key": "a", "operator": "In", "values": values(from)}]});
        let group = |group: usize| {
            let terms: Vec<Value> = (0..8).map(|index| term(group * 8 + index)).collect();
            json!({"name": group.to_string(), "nodeLabel": {"type": "a"}, "weight": 1, "nodeAffinity": terms})
        };
        let object = json!({
            "metadata": {"name": format!("d{number}"), "namespace": namespace, "uid": number.to_string(), "resourceVersion": "1"},
            "spec": {"distribution": (0..4).map(group).collect::<Vec<_>>(), "target": {"name": "web"}},
        });
        to_raw_value(&object).unwrap()
    }

    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096 / (1 << 20)
    }

    #[test]
    fn one_namespace_has_a_bound_and_does_not_affect_another() {
        let store = Arc::new(Store::default());
        let mut writer =
            DistributorWriter { store: Arc::clone(&store), listed: Vec::new(), weights: Weights::default() };
        let before = resident();
        writer.list_started();
        for number in 0..500 {
            writer.listed(&largest("a", number)).unwrap();
        }
        writer.list_completed("1");
        let grown = resident().saturating_sub(before);
        assert!(grown <= 32, "{grown} MiB");
        writer.changed(&largest("b", 0), false).unwrap();
        let invalid = |namespace: &str| {
            let all = store.in_namespace(namespace);
            all.iter().filter(|distributor| distributor.spec.is_err()).count()
        };
        assert!((400..480).contains(&invalid("a")), "{}", invalid("a"));
        assert_eq!(invalid("b"), 0);
        let last = store.get("a/d499").unwrap();
        let problem = last.spec.as_ref().unwrap_err();
        assert!(
            problem.starts_with("spec: the PodDistributors of this namespace have too many values"),
            "{problem}"
        );
        assert_eq!(last.target.name(), "web");
        // Others are gone.
        for number in 0..400 {
            writer.changed(&largest("a", number), true).unwrap();
        }
        writer.changed(&largest("a", 499), false).unwrap();
        assert!(store.get("a/d499").unwrap().spec.is_ok());
        assert_eq!(writer.weights.of.len(), store.len());
    }
}
