//! Placement without a cluster: by objects of files, and for the self-test.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use podshaper_core::facts::{Fact, FactError, FactKey};
use podshaper_core::object::{Lookup, Object, OwnerReference};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::admit::{PlaceRequest, PlacementBackend};
use super::allocator::Occupancy;
use super::annotations::GROUP;
use super::cycle::Cursor;
use super::identity::NodeLabels;
use super::ledger::{Assignment, PodState, SlotReply};
use super::owner_object::OwnerObject;
use super::owners::OwnerChain;
use super::pod_object::PodObject;

/// Objects of files that take the place of the cluster's.
#[derive(Debug, Default)]
pub struct FileBackend {
    /// By kind, then by namespace and name.
    owners: HashMap<(String, FactKey), Arc<OwnerObject>>,
    nodes: FileNodes,
    pods: Vec<PodObject>,
    /// Pods that this run has placed.
    placed: Mutex<HashMap<String, Vec<Assignment>>>,
    /// Those of them with a name, as owners of further pods.
    placed_owners: Mutex<HashMap<FactKey, OwnerObject>>,
    /// Where pods take slots over time, the slot of the next pod, by the uid of the owner of the sequence.
    cursors: Mutex<HashMap<String, Cursor>>,
}

/// The labels of each node.
#[derive(Debug, Default)]
struct FileNodes(HashMap<String, Arc<BTreeMap<String, String>>>);

impl NodeLabels for FileNodes {
    fn labels(&self, node: &str) -> Option<Arc<BTreeMap<String, String>>> {
        self.0.get(node).cloned()
    }

    fn all(&self) -> Vec<(String, Arc<BTreeMap<String, String>>)> {
        self.0.iter().map(|(name, labels)| (name.clone(), Arc::clone(labels))).collect()
    }
}

impl FileBackend {
    /// The backend with these objects.
    pub fn new<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Result<Self, FactError> {
        let mut backend = Self::default();
        objects.into_iter().filter_map(Fact::new).try_for_each(|fact| backend.add(fact))?;
        Ok(backend)
    }

    /// Adds an object. Any kind but a Pod can own pods.
    pub fn add(&mut self, fact: Fact<'_>) -> Result<(), FactError> {
        if fact.is_kind("", "Node") {
            let node: Object<IgnoredAny, IgnoredAny> = fact.parse()?;
            let labels = node.metadata.labels.unwrap_or_default();
            self.nodes.0.insert(node.metadata.name, Arc::new(labels));
        } else if !fact.is_kind("", "Pod") {
            let owner = fact.reference();
            let object = OwnerObject::from_object(fact.parse()?, &owner, |_| true);
            self.owners.insert((owner.kind, fact.key()), Arc::new(object));
        } else {
            let owner = fact.reference();
            let object = OwnerObject::from_object(fact.parse()?, &owner, |_| true);
            self.owners.insert((owner.kind, fact.key()), Arc::new(object));
            let pod = fact.project::<PodObject>()?.map(|(_, pod)| pod);
            self.pods.extend(pod.filter(|pod| pod.state != PodState::Gone && !pod.skipped));
        }
        Ok(())
    }

    /// Sets the owners of the sequences that pods count in, where `owner_of` returns one: those of policies that select pods by their labels.
    pub fn set_sequence_owners(&mut self, owner_of: impl Fn(&PodObject, OwnerChain) -> Option<String>) {
        for index in 0..self.pods.len() {
            let Some(pod) = self.pods.get(index) else { continue };
            let owner = owner_of(pod, self.chain(pod));
            if let (Some(owner), Some(pod)) = (owner, self.pods.get_mut(index)) {
                pod.sequence_owner = owner;
            }
        }
    }

    /// The owners of a pod, as far as the files have them.
    fn chain(&self, pod: &PodObject) -> OwnerChain {
        let mut chain = OwnerChain::from(pod.controller.clone());
        while let Some(owner) = chain.next_to_read() {
            let found = self.owner_object(&pod.namespace, owner).map_or(Lookup::Unavailable, Lookup::Found);
            chain.record_read(found);
        }
        chain
    }

    fn owner_object(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<OwnerObject>> {
        let key = FactKey { namespace: namespace.to_owned(), name: owner.name.clone() };
        self.owners.get(&(owner.kind.clone(), key)).cloned()
    }
}

impl PlacementBackend for FileBackend {
    async fn owner(&self, namespace: &str, owner: &OwnerReference, _: Instant) -> Lookup<OwnerObject> {
        // The files may be incomplete: an owner that is missing there may still exist.
        if let Some(found) = self.owner_object(namespace, owner) {
            return Lookup::Found(found);
        }
        let key = FactKey { namespace: namespace.to_owned(), name: owner.name.clone() };
        let placed = self.placed_owners.lock().unwrap_or_else(PoisonError::into_inner);
        match placed.get(&key).filter(|_| owner.is_kind("", "Pod")) {
            // A pod has no uid before the API server has created it.
            Some(pod) => Lookup::Found(Arc::new(OwnerObject { uid: owner.uid.clone(), ..pod.clone() })),
            None => Lookup::Unavailable,
        }
    }

    fn placed(&self, namespace: &str, name: &str, controller: Option<OwnerReference>, placed: &Assignment) {
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let key = FactKey { namespace: namespace.to_owned(), name: name.to_owned() };
        let annotations = BTreeMap::from([(GROUP.to_owned(), placed.group.to_string())]);
        let owner = OwnerObject { controller, annotations, ..OwnerObject::default() };
        self.placed_owners.lock().unwrap_or_else(PoisonError::into_inner).insert(key, owner);
    }

    async fn place(&self, request: PlaceRequest<'_>, _: Instant) -> Option<SlotReply> {
        let PlaceRequest { chain, allocator, slot, .. } = request;
        if slot.existing.is_some() {
            return Some(SlotReply::Kept);
        }
        let (owner, _) = chain.sequence_owner()?;
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        let placed = placed.entry(owner.uid.clone()).or_default();
        let mut occupancy = Occupancy::default();
        for pod in self.pods.iter().filter(|pod| pod.sequence_owner == owner.uid) {
            pod.placement(allocator.policy(), &self.nodes).occupy(&mut occupancy, allocator.policy());
        }
        for assignment in &*placed {
            assignment.occupy(&mut occupancy, allocator.policy());
        }
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let cursor = cursors.entry(owner.uid.clone()).or_default();
        let next = allocator.cycle().resume(*cursor, occupancy.last_slot());
        let found = if slot.over_time {
            allocator.group_over_time(next, &occupancy, slot.fitting).map(|group| (next, group))
        } else {
            allocator.allocate(&occupancy, slot.fitting)
        };
        let Some((number, group)) = found else { return Some(SlotReply::Unplaced) };
        if slot.over_time {
            *cursor = allocator.cycle().cursor(allocator.cycle().after(next));
        }
        let group = allocator.policy().groups().get(group)?.name.clone();
        let assignment = Assignment { token: slot.token, slot: number, group };
        placed.push(assignment.clone());
        Some(SlotReply::Placed(assignment))
    }
}

/// A cluster in which each owner exists and has no pods.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfTestBackend;

impl PlacementBackend for SelfTestBackend {
    async fn owner(&self, _: &str, owner: &OwnerReference, _: Instant) -> Lookup<OwnerObject> {
        Lookup::Found(Arc::new(OwnerObject { uid: owner.uid.clone(), ..OwnerObject::default() }))
    }

    async fn place(&self, request: PlaceRequest<'_>, _: Instant) -> Option<SlotReply> {
        let group = request.allocator.policy().groups().first()?.name.clone();
        Some(SlotReply::Placed(Assignment { token: request.slot.token, slot: 0, group }))
    }
}
