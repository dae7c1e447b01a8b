//! Facts from files, for `distributor mutate` and `distributor plan`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use podshaper_core::facts::{DEFAULT_NAMESPACE, Fact, FactError, FactKey};
use podshaper_core::object::{Lookup, Object};
use podshaper_core::pod::{Pod, Toleration};
use podshaper_placement::ledger::Token;
use podshaper_placement::namespace::NamespaceRestrictions;
use podshaper_placement::offline::FileBackend;
use podshaper_placement::policy::{GroupSet, Policy};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::crd::{GROUP, KIND};
use crate::distributor::{Distributor, ValidSpec, govern_by_labels};
use crate::facts::DistributorFacts;
use crate::node::{Node, groups_with_node, suitable_groups};
use crate::volumes::{ClaimSpec, VolumeNodes, VolumeSpec};

const TEMPLATE_WARNING: &str = "the pods of a workload go to different groups: `distributor plan` shows them, and `mutate` places single pods";

/// Objects of files in place of those of a cluster.
#[derive(Debug, Default)]
pub struct FileFacts {
    distributors: Vec<Arc<Distributor>>,
    nodes: Vec<Node>,
    /// The volume of each bound claim.
    claims: HashMap<FactKey, String>,
    volumes: HashMap<String, Arc<VolumeNodes>>,
    namespaces: HashMap<String, Arc<NamespaceRestrictions>>,
    backend: FileBackend,
    /// Namespace, distributor and index of the groups that a pod of this run tries.
    probes: Mutex<BTreeSet<(String, String, usize)>>,
}

impl FileFacts {
    /// The facts in these objects.
    pub fn new<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Result<Self, FactError> {
        let mut facts = Self::default();
        for fact in objects.into_iter().filter_map(Fact::new) {
            if fact.is_kind(GROUP, KIND) {
                facts.distributors.extend(fact.project()?.map(|(_, distributor)| Arc::new(distributor)));
            } else if fact.is_kind("", "Node") {
                facts.nodes.extend(fact.project()?.map(|(_, node)| node));
                facts.backend.add(fact)?;
            } else if fact.is_kind("", "Namespace") {
                let restrictions = fact.project()?;
                facts
                    .namespaces
                    .extend(restrictions.map(|(key, restrictions)| (key.name, Arc::new(restrictions))));
            } else if fact.is_kind("", "PersistentVolumeClaim") {
                let claim: Object<ClaimSpec, IgnoredAny> = fact.parse()?;
                let volume = claim.spec.and_then(|spec| spec.volume_name);
                facts.claims.extend(volume.map(|volume| (fact.key(), volume)));
            } else if fact.is_kind("", "PersistentVolume") {
                let volume: Object<VolumeSpec, IgnoredAny> = fact.parse()?;
                let nodes = VolumeNodes::from(volume.spec.unwrap_or_default());
                facts.volumes.insert(volume.metadata.name, Arc::new(nodes));
            } else {
                facts.backend.add(fact)?;
            }
        }
        let Self { distributors, backend, .. } = &mut facts;
        backend.set_sequence_owners(|pod, mut chain| {
            let of_namespace = |distributor: &&Arc<Distributor>| distributor.namespace == pod.namespace;
            let distributors: Vec<_> = distributors.iter().filter(of_namespace).cloned().collect();
            let distributor = govern_by_labels(&distributors, &pod.labels, &mut chain)?;
            Some(distributor.sequence_owner().uid)
        });
        Ok(facts)
    }

    /// The distributors of all namespaces.
    pub fn distributors(&self) -> &[Arc<Distributor>] {
        &self.distributors
    }
}

impl DistributorFacts for FileFacts {
    type Backend = FileBackend;

    fn backend(&self) -> &FileBackend {
        &self.backend
    }

    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>> {
        self.distributors.iter().filter(|distributor| distributor.namespace == namespace).cloned().collect()
    }

    fn groups_with_nodes(&self, _: &Distributor, spec: &ValidSpec, tolerations: &[Toleration]) -> GroupSet {
        groups_with_node(spec.allocator.policy(), &self.nodes.iter(), tolerations)
    }

    async fn claim_probe(&self, distributor: &Distributor, group: usize, _: Token, _: Instant) -> bool {
        let probe = (distributor.namespace.clone(), distributor.name.clone(), group);
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).insert(probe)
    }

    fn suitable_groups(&self, pod: &Pod<'_>, policy: &Policy) -> GroupSet {
        suitable_groups(policy, pod, || self.nodes.iter())
    }

    async fn volume_nodes(&self, namespace: &str, claim: &str, _: Instant) -> Lookup<VolumeNodes> {
        let key = FactKey { namespace: namespace.to_owned(), name: claim.to_owned() };
        let volume = self.claims.get(&key).and_then(|volume| self.volumes.get(volume));
        volume.map_or(Lookup::NotFound, |volume| Lookup::Found(Arc::clone(volume)))
    }

    fn namespace_restrictions(&self, namespace: &str) -> Option<Arc<NamespaceRestrictions>> {
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        self.namespaces.get(namespace).cloned()
    }

    fn groups_without_volume(&self, volume: &VolumeNodes, policy: &Policy) -> GroupSet {
        volume.excluded_groups(policy, self.nodes.iter().filter(|node| node.takes_pods))
    }

    fn template_warning(&self) -> Option<&'static str> {
        Some(TEMPLATE_WARNING)
    }
}
