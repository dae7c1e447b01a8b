//! Facts from objects as `kubectl get -o yaml` prints them.

use std::sync::Arc;

use podshaper_placement::offline;
use podshaper_placement::offline::{namespace, text};
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::GroupSet;
use serde_json::Value;

use crate::crd::{GROUP, KIND};
use crate::distributor::{Distributor, ValidSpec};
use crate::facts::Facts;

/// Where a workload stands for many pods there is nothing to decide.
const HINT: &str =
    "the pods of a workload differ from each other: `distributor plan` shows them, and `mutate` places Pods";

/// A cluster made of files.
#[derive(Debug, Default)]
pub struct Offline {
    distributors: Vec<Arc<Distributor>>,
    others: offline::FileBackend,
}

impl Offline {
    /// The cluster that has these objects; kinds that don't matter are passed over.
    pub fn new<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Self {
        let mut facts = Self::default();
        for object in objects {
            facts.add(object);
        }
        facts
    }

    /// All distributors.
    pub fn all(&self) -> &[Arc<Distributor>] {
        &self.distributors
    }

    fn add(&mut self, object: &Value) {
        let text = |pointer| text(object, pointer);
        if text("/kind") != KIND || text("/apiVersion").split('/').next() != Some(GROUP) {
            return self.others.add(object);
        }
        let read = Distributor::from_spec(object.get("spec").cloned().unwrap_or_default());
        let [name, uid, created] =
            ["/metadata/name", "/metadata/uid", "/metadata/creationTimestamp"].map(text);
        let namespace = namespace(object);
        self.distributors.push(Arc::new(Distributor { name, namespace, uid, created, ..read }));
    }
}

impl Facts for Offline {
    type Surroundings = offline::FileBackend;

    fn surroundings(&self) -> &offline::FileBackend {
        &self.others
    }

    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>> {
        self.distributors.iter().filter(|distributor| distributor.namespace == namespace).cloned().collect()
    }

    fn available(&self, _: &str, _: &OwnerChain, spec: &ValidSpec) -> GroupSet {
        self.others.available(spec.allocator.policy())
    }

    fn hint(&self) -> Option<&'static str> {
        Some(HINT)
    }
}
