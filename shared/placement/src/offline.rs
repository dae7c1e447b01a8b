//! The surroundings of pods as files tell them: objects as `kubectl get -o yaml` prints them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::admit::{PlaceRequest, PlacementBackend};
use super::allocator::Occupancy;
use super::annotations;
use super::ledger::{Assignment, PodState, SlotReply};
use super::owners::OwnerObject;
use super::policy::{GroupName, GroupSet, Policy};
use podshaper_core::lookup::Lookup;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::pod::SKIP;

/// A cluster made of files.
#[derive(Debug, Default)]
pub struct FileBackend {
    /// By namespace, kind and name.
    owners: HashMap<[String; 3], Arc<OwnerObject>>,
    /// The labels of each.
    nodes: Vec<BTreeMap<String, String>>,
    /// By the uid of the owner that they share a sequence by.
    pods: Mutex<HashMap<String, Vec<FilePod>>>,
}

/// A pod that is there.
#[derive(Debug)]
struct FilePod {
    assignment: Option<Assignment>,
    selector: BTreeMap<String, String>,
}

/// The string at `pointer`; empty where there is none.
pub fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The namespace of an object; `default` where it says none.
pub fn namespace(object: &Value) -> String {
    let namespace = Some(text(object, "/metadata/namespace")).filter(|name| !name.is_empty());
    namespace.unwrap_or_else(|| "default".to_owned())
}

impl FileBackend {
    /// Takes in an object; what isn't a Node or a Pod may own pods.
    pub fn add(&mut self, object: &Value) {
        let text = |pointer| text(object, pointer);
        match (&*text("/apiVersion"), &*text("/kind")) {
            ("v1", "Node") => {
                let takes_pods =
                    is_ready(object) && object.pointer("/spec/unschedulable") != Some(&Value::Bool(true));
                self.nodes.extend(takes_pods.then(|| texts(object.pointer("/metadata/labels"))));
            }
            ("v1", "Pod") => {
                let annotations = texts(object.pointer("/metadata/annotations"));
                let annotation = |key: &str| annotations.get(key).map(String::as_str);
                let Some(controller) = controller(object) else { return };
                let deleted = object.pointer("/metadata/deletionTimestamp").is_some();
                let state = PodState::of(&text("/status/phase"), deleted, &controller.kind);
                let skipped =
                    texts(object.pointer("/metadata/labels")).get(SKIP).is_some_and(|skip| skip == "true");
                if state == PodState::Gone || skipped {
                    return;
                }
                let owner = annotations::sequence_owner(annotation, &controller.uid).to_owned();
                let selector = texts(object.pointer("/spec/nodeSelector"));
                let pods = self.pods.get_mut().unwrap_or_else(PoisonError::into_inner);
                pods.entry(owner)
                    .or_default()
                    .push(FilePod { assignment: annotations::parse(annotation), selector });
            }
            (_, kind) => {
                let start = object.pointer("/spec/ordinals/start").and_then(Value::as_u64).unwrap_or(0);
                let owner = OwnerObject {
                    uid: text("/metadata/uid"),
                    controller: controller(object),
                    first_ordinal: u32::try_from(start).unwrap_or(0),
                    annotations: texts(object.pointer("/metadata/annotations")),
                    ..OwnerObject::default()
                };
                self.owners
                    .insert([namespace(object), kind.to_owned(), text("/metadata/name")], Arc::new(owner));
            }
        }
    }

    /// The groups with a node that takes pods.
    pub fn available(&self, policy: &Policy) -> GroupSet {
        let bears = |labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let groups = policy.groups().iter().enumerate();
        groups
            .filter(|(_, group)| self.nodes.iter().any(|labels| bears(labels, &group.node_labels)))
            .map(|(index, _)| index)
            .collect()
    }
}

/// The strings of a map.
fn texts(map: Option<&Value>) -> BTreeMap<String, String> {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Whether a node says that it is, or nothing of it, as one that somebody wrote for a trial.
fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.filter(|condition| condition["type"] == "Ready").all(|condition| condition["status"] == "True")
}

fn controller(object: &Value) -> Option<OwnerReference> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let [api_version, kind, name, uid] =
        ["/apiVersion", "/kind", "/name", "/uid"].map(|pointer| text(owner, pointer));
    Some(OwnerReference::new(api_version, kind, name, uid))
}

impl FilePod {
    fn group(&self, policy: &Policy) -> Option<GroupName> {
        let told = || annotations::infer_group(|key| self.selector.get(key).map(String::as_str), policy);
        self.assignment.as_ref().map(|assignment| assignment.group.clone()).or_else(told)
    }
}

fn occupancy(pods: &[FilePod], policy: &Policy) -> Occupancy {
    let mut occupancy = Occupancy::default();
    for pod in pods {
        if let Some(assignment) = &pod.assignment {
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
        let key = [namespace, &owner.kind, &owner.name].map(str::to_owned);
        self.owners.get(&key).map_or(Lookup::Unavailable, |owner| Lookup::Found(Arc::clone(owner)))
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
        pods.push(FilePod { assignment: Some(assignment.clone()), selector: BTreeMap::new() });
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
