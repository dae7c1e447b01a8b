//! Placement without a cluster: by objects of files, and for the self-test.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use podshaper_core::facts::{Fact, FactError, FactKey};
use podshaper_core::lookup::Lookup;
use podshaper_core::owner_reference::OwnerReference;
use serde_json::Value;

use super::admit::{PlaceRequest, PlacementBackend};
use super::allocator::Occupancy;
use super::ledger::{Assignment, PodPlacement, PodState, SlotReply};
use super::owner_object::OwnerObject;
use super::pod_object::PodObject;
use super::policy::{GroupName, Policy};

/// Objects of files that take the place of the cluster's.
#[derive(Debug, Default)]
pub struct FileBackend {
    /// By kind, then by namespace and name.
    owners: HashMap<(String, FactKey), Arc<OwnerObject>>,
    /// By the uid of the owner in whose sequence they count.
    pods: Mutex<HashMap<String, Vec<FilePod>>>,
}

/// A pod that takes part in a sequence.
#[derive(Debug)]
enum FilePod {
    Existing(Box<PodObject>),
    /// A pod that this run has placed.
    New(Assignment),
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
        if !fact.is_kind("", "Pod") {
            let owner = fact.reference();
            let object = OwnerObject::from_object(fact.parse()?, &owner, |_| true);
            self.owners.insert((owner.kind, fact.key()), Arc::new(object));
        } else if let Some((_, pod)) = fact.project::<PodObject>()?
            && pod.state != PodState::Gone
            && !pod.skipped
        {
            let pods = self.pods.get_mut().unwrap_or_else(PoisonError::into_inner);
            pods.entry(pod.sequence_owner.clone()).or_default().push(FilePod::Existing(pod.into()));
        }
        Ok(())
    }
}

impl FilePod {
    fn assignment(&self) -> Option<&Assignment> {
        match self {
            Self::Existing(pod) => pod.assignment.as_ref(),
            Self::New(assignment) => Some(assignment),
        }
    }

    fn group(&self, policy: &Policy) -> Option<GroupName> {
        match self {
            Self::Existing(pod) => match pod.placement(Some(policy)) {
                PodPlacement::Assigned(Assignment { group, .. }) | PodPlacement::Inferred(group) => {
                    Some(group)
                }
                PodPlacement::Unknown => None,
            },
            Self::New(assignment) => Some(assignment.group.clone()),
        }
    }
}

fn occupancy(pods: &[FilePod], policy: &Policy) -> Occupancy {
    let mut occupancy = Occupancy::default();
    for pod in pods {
        if let Some(assignment) = pod.assignment() {
            occupancy.take_slot(assignment.slot);
        }
        if let Some(group) = pod.group(policy).and_then(|group| policy.index(&group)) {
            occupancy.add_pod(group);
        }
    }
    occupancy
}

impl PlacementBackend for FileBackend {
    async fn owner(&self, namespace: &str, owner: &OwnerReference, _: Instant) -> Lookup<OwnerObject> {
        let key = FactKey { namespace: namespace.to_owned(), name: owner.name.clone() };
        // The files may be incomplete: an owner that is missing there may still exist.
        let found = self.owners.get(&(owner.kind.clone(), key));
        found.map_or(Lookup::Unavailable, |owner| Lookup::Found(Arc::clone(owner)))
    }

    async fn place(&self, request: PlaceRequest<'_>, _: Instant) -> Option<SlotReply> {
        let PlaceRequest { chain, allocator, slot, .. } = request;
        if slot.existing.is_some() {
            return Some(SlotReply::Kept);
        }
        let (owner, _) = chain.sequence_owner()?;
        let mut all = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = all.entry(owner.uid.clone()).or_default();
        let occupancy = occupancy(pods, allocator.policy());
        let Some((number, group)) = allocator.allocate(&occupancy, slot.fitting) else {
            return Some(SlotReply::Unplaced);
        };
        let group = allocator.policy().groups().get(group)?.name.clone();
        let assignment = Assignment { token: slot.token, slot: number, group };
        // The next pod comes after it.
        pods.push(FilePod::New(assignment.clone()));
        Some(SlotReply::Placed(assignment))
    }
}

/// The surroundings of a self-test: each owner is there, and owns nothing.
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
