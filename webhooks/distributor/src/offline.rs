//! Facts from objects as `kubectl get -o yaml` prints them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use podshaper::placement::ledger::{Answer, Stamp};
use podshaper::placement::marks;
use podshaper::placement::owners::{Chain, Looked, Owner, OwnerRef};
use podshaper::placement::policy::{GroupName, GroupSet, Policy};
use podshaper::placement::rules::{Occupied, Rules, locked};
use serde_json::Value;

use crate::distributor::{Distributor, GROUP, KIND, Plan};
use crate::facts::{Asking, Facts};

/// Where a workload stands for many pods there is nothing to decide.
const HINT: &str =
    "the pods of a workload differ from each other: `distributor plan` shows them, and `mutate` places Pods";

/// A cluster made of files.
#[derive(Debug, Default)]
pub struct Offline {
    distributors: Vec<Arc<Distributor>>,
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
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let namespace = Some(text("/metadata/namespace")).filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let api_version = text("/apiVersion");
        match &*text("/kind") {
            KIND if api_version.split('/').next() == Some(GROUP) => {
                let read = Distributor::from_spec(object.get("spec").cloned().unwrap_or_default());
                let (name, uid) = (text("/metadata/name"), text("/metadata/uid"));
                let created = text("/metadata/creationTimestamp");
                self.distributors.push(Arc::new(Distributor { name, namespace, uid, created, ..read }));
            }
            "Node" if api_version == "v1" => {
                let unusable = object.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
                self.nodes.extend((!unusable).then(|| texts(object.pointer("/metadata/labels"))));
            }
            "Pod" if api_version == "v1" => {
                let annotations = texts(object.pointer("/metadata/annotations"));
                let annotation = |key: &str| annotations.get(key).map(String::as_str);
                let stamp = marks::stamp(annotation);
                let owner = annotation(marks::OWNER).filter(|_| stamp.is_some()).map(str::to_owned);
                let Some(owner) = owner.or_else(|| controller(object).map(|owner| owner.uid)) else { return };
                let known = Known { stamp, selector: texts(object.pointer("/spec/nodeSelector")) };
                self.pods
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(owner)
                    .or_default()
                    .push(known);
            }
            kind => {
                let start = object.pointer("/spec/ordinals/start").and_then(Value::as_u64).unwrap_or(0);
                let owner = Owner {
                    uid: text("/metadata/uid"),
                    controller: controller(object),
                    first_ordinal: u32::try_from(start).unwrap_or(0),
                    ..Owner::default()
                };
                self.owners.insert([namespace, kind.to_owned(), text("/metadata/name")], Arc::new(owner));
            }
        }
    }
}

/// The strings of a map.
fn texts(map: Option<&Value>) -> BTreeMap<String, String> {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn controller(object: &Value) -> Option<OwnerRef> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let text = |field: &str| owner[field].as_str().unwrap_or_default().to_owned();
    Some(OwnerRef {
        api_version: text("apiVersion"),
        kind: text("kind"),
        name: text("name"),
        uid: text("uid"),
    })
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

impl Facts for Offline {
    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>> {
        self.distributors.iter().filter(|distributor| distributor.namespace == namespace).cloned().collect()
    }

    async fn owner(&self, namespace: &str, owner: &OwnerRef, _: Instant) -> Looked {
        let key = [namespace, &owner.kind, &owner.name].map(str::to_owned);
        self.owners.get(&key).map_or(Looked::Unknown, |owner| Looked::Object(Arc::clone(owner)))
    }

    fn available(&self, _: &Chain, plan: &Plan) -> GroupSet {
        let rules = locked(&plan.rules);
        let policy = rules.policy();
        let bears = |labels: &BTreeMap<String, String>, index: &usize| {
            let group = policy.groups().get(*index);
            group.is_some_and(|group| {
                group.node_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            })
        };
        (0..policy.groups().len())
            .filter(|index| self.nodes.iter().any(|labels| bears(labels, index)))
            .collect()
    }

    async fn place(&self, pod: Asking<'_>, _: Instant) -> Option<Answer> {
        if pod.bears.is_some() {
            return Some(Answer::Kept);
        }
        let (owner, _) = pod.chain.sharer()?;
        let mut all = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = all.entry(owner.uid.clone()).or_default();
        let mut rules = locked(&pod.plan.rules);
        let occupied = occupied(pods, &rules);
        let Some((slot, index)) = rules.next(&occupied, pod.fitting) else { return Some(Answer::Unplaced) };
        let group = rules.policy().groups().get(index)?.name.clone();
        let stamp = Stamp { token: pod.token, slot, group };
        // The next one comes after it.
        pods.push(Known { stamp: Some(stamp.clone()), selector: BTreeMap::new() });
        Some(Answer::Placed(stamp))
    }

    fn hint(&self) -> Option<&'static str> {
        Some(HINT)
    }
}
