//! The surroundings of pods as files tell them: objects as `kubectl get -o yaml` prints them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::ledger::{Answer, Phase, Stamp};
use super::marks;
use super::owners::Owner;
use super::placing::{Asking, Surroundings};
use super::policy::{GroupName, GroupSet, Policy};
use super::rules::{Occupied, Rules, locked};
use podshaper_core::lookup::Lookup;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::pod::SKIP;

/// A cluster made of files.
#[derive(Debug, Default)]
pub struct Offline {
    /// By namespace, kind and name.
    owners: HashMap<[String; 3], Arc<Owner>>,
    /// The labels of each.
    nodes: Vec<BTreeMap<String, String>>,
    /// By the uid of the owner that they share a sequence by.
    pods: Mutex<HashMap<String, Vec<Known>>>,
}

/// A pod that is there.
#[derive(Debug)]
struct Known {
    stamp: Option<Stamp>,
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

impl Offline {
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
                let phase = Phase::of(&text("/status/phase"), deleted, &controller.kind);
                let skipped =
                    texts(object.pointer("/metadata/labels")).get(SKIP).is_some_and(|skip| skip == "true");
                if phase == Phase::Gone || skipped {
                    return;
                }
                let owner = marks::sharer(annotation, &controller.uid).to_owned();
                let selector = texts(object.pointer("/spec/nodeSelector"));
                let pods = self.pods.get_mut().unwrap_or_else(PoisonError::into_inner);
                pods.entry(owner).or_default().push(Known { stamp: marks::stamp(annotation), selector });
            }
            (_, kind) => {
                let start = object.pointer("/spec/ordinals/start").and_then(Value::as_u64).unwrap_or(0);
                let owner = Owner {
                    uid: text("/metadata/uid"),
                    controller: controller(object),
                    first_ordinal: u32::try_from(start).unwrap_or(0),
                    annotations: texts(object.pointer("/metadata/annotations")),
                    ..Owner::default()
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

impl Known {
    fn group(&self, policy: &Policy) -> Option<GroupName> {
        let told = || marks::told(|key| self.selector.get(key).map(String::as_str), policy);
        self.stamp.as_ref().map(|stamp| stamp.group.clone()).or_else(told)
    }
}

fn occupied(pods: &[Known], rules: &Rules) -> Occupied {
    let mut occupied = Occupied::default();
    for pod in pods {
        if let Some(stamp) = &pod.stamp {
            occupied.take(stamp.slot);
        }
        if let Some(group) = pod.group(rules.policy()).and_then(|group| rules.policy().index(&group)) {
            occupied.count_in(group);
        }
    }
    occupied
}

impl Surroundings for Offline {
    async fn owner(&self, namespace: &str, owner: &OwnerReference, _: Instant) -> Lookup<Owner> {
        let key = [namespace, &owner.kind, &owner.name].map(str::to_owned);
        self.owners.get(&key).map_or(Lookup::Unavailable, |owner| Lookup::Found(Arc::clone(owner)))
    }

    async fn place(&self, pod: Asking<'_>, _: Instant) -> Option<Answer> {
        if pod.bears.is_some() {
            return Some(Answer::Kept);
        }
        let (owner, _) = pod.chain.sharer()?;
        let mut all = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = all.entry(owner.uid.clone()).or_default();
        let mut rules = locked(pod.rules);
        let occupied = occupied(pods, &rules);
        let Some((slot, index)) = rules.next(&occupied, pod.fitting) else { return Some(Answer::Unplaced) };
        let group = rules.policy().groups().get(index)?.name.clone();
        let stamp = Stamp { token: pod.token, slot, group };
        // The next one comes after it.
        pods.push(Known { stamp: Some(stamp.clone()), selector: BTreeMap::new() });
        Some(Answer::Placed(stamp))
    }
}

/// The surroundings of a self-test: each owner is there, and owns nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Supposed;

impl Surroundings for Supposed {
    async fn owner(&self, _: &str, owner: &OwnerReference, _: Instant) -> Lookup<Owner> {
        Lookup::Found(Arc::new(Owner { uid: owner.uid.clone(), ..Owner::default() }))
    }

    async fn place(&self, pod: Asking<'_>, _: Instant) -> Option<Answer> {
        let group = locked(pod.rules).policy().groups().first()?.name.clone();
        Some(Answer::Placed(Stamp { token: pod.token, slot: 0, group }))
    }
}
