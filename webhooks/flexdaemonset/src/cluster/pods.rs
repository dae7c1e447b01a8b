//! The pods of `DaemonSets` that name a template: a watch for each of these, by its own selector.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Client;
use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod::SKIP;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{Scope, follow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use flexdaemonset_decision::facts::{Owner, named_template};
use flexdaemonset_decision::memory::{ANNOTATION, Memory};

/// A running pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunningPod {
    pub(super) uid: Box<str>,
    /// The template that it names by itself.
    pub(super) template: Option<Box<str>>,
    /// The uid of its controller.
    pub(super) controller: Box<str>,
    /// The node that it is bound to, or sized for; empty where neither is known.
    pub(super) node: Box<str>,
    /// Whether it is bound to the node.
    pub(super) bound: bool,
    /// `status.qosClass`.
    pub(super) qos: Box<str>,
    pub(super) ready: bool,
    /// Whether it goes, or is over.
    pub(super) gone: bool,
    /// How its resize stands, if one is under way.
    pub(super) resize: Option<Resize>,
    /// The pod as decisions read it, as JSON.
    pub(super) text: Box<str>,
}

/// A resize that isn't done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resize {
    /// The kubelet is at it.
    InProgress,
    /// The kubelet can't, now or ever; in its words.
    Held(Box<str>),
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    containers: Vec<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init_containers: Option<Vec<Container>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    phase: String,
    qos_class: String,
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
}

impl FromObject for RunningPod {
    type Spec = PodSpec;
    type Status = PodStatus;
    const PLURAL: &'static str = "pods";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<PodSpec, PodStatus>) -> Option<Self> {
        // Whoever bears this is left alone: the webhook isn't called for it either.
        let labels = object.metadata.labels.as_ref();
        if labels.and_then(|labels| labels.get(SKIP)).is_some_and(|skip| skip == "true") {
            return None;
        }
        let spec = object.spec?;
        let status = object.status.unwrap_or_default();
        let condition = |name: &str| {
            let conditions = status.conditions.as_deref().unwrap_or_default().iter();
            conditions
                .filter(|condition| condition.status == "True")
                .find(|condition| condition.r#type == name)
        };
        // v1.PodResizePending and v1.PodResizeInProgress; the latter tells errors by its reason.
        let held = |condition: &Condition| {
            Resize::Held(format!("{}: {}", condition.reason, condition.message).into())
        };
        let resize = match (condition("PodResizePending"), condition("PodResizeInProgress")) {
            (Some(pending), _) => Some(held(pending)),
            (None, Some(progress)) if progress.reason == "Error" => Some(held(progress)),
            (None, progress) => progress.map(|_| Resize::InProgress),
        };
        let memory = object.metadata.annotation(ANNOTATION).map(|memory| json!({ANNOTATION: memory}));
        let node_of =
            |memory: &str| serde_json::from_str::<Memory<'_>>(memory).ok().map(|m| m.node.to_string());
        let bound = spec.node_name.as_deref().is_some_and(|name| !name.is_empty());
        let node = if bound {
            spec.node_name.clone()
        } else {
            object.metadata.annotation(ANNOTATION).and_then(node_of)
        };
        let text = json!({"metadata": {"annotations": memory}, "spec": spec}).to_string();
        Some(Self {
            controller: object.metadata.controller()?.uid.as_str().into(),
            template: named_template(|key| object.metadata.annotation(key)).map(Into::into),
            node: node.unwrap_or_default().into(),
            bound,
            qos: status.qos_class.clone().into(),
            ready: condition("Ready").is_some(),
            gone: object.metadata.deletion_timestamp.is_some()
                || status.phase == "Succeeded"
                || status.phase == "Failed",
            resize,
            text: text.into(),
            uid: object.metadata.uid.into(),
        })
    }
}

/// The watches.
pub(super) struct Pods {
    client: Client,
    followed: HashMap<Box<str>, Followed>,
}

struct Followed {
    owner: Arc<Owner>,
    store: Arc<Store<RunningPod>>,
    changes: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pods {
    pub(super) fn new(client: Client) -> Self {
        Self { client, followed: HashMap::new() }
    }

    /// Follows the pods of these `DaemonSets` (by key) and of no others.
    pub(super) fn follow(&mut self, owners: &[(Box<str>, Arc<Owner>)]) {
        self.followed.retain(|key, followed| {
            let owner = owners.iter().find(|(other, _)| other == key);
            owner.is_some_and(|(_, owner)| {
                owner.uid == followed.owner.uid && owner.selector == followed.owner.selector
            })
        });
        for (key, owner) in owners {
            if self.followed.contains_key(key) || owner.selector.is_empty() {
                continue;
            }
            let namespace = key.split('/').next().map(str::to_owned);
            let scope = Scope { namespace, labels: owner.selector.to_string() };
            let store = Arc::new(Store::default());
            let changes = store.changes();
            let task = tokio::spawn(follow(self.client.clone(), scope, Arc::clone(&store)));
            self.followed.insert(key.clone(), Followed { owner: Arc::clone(owner), store, changes, task });
        }
    }

    /// The pods of a `DaemonSet` by key, also those that go; none while they haven't been read.
    pub(super) fn of(&self, key: &str) -> Option<Vec<(Box<str>, Arc<RunningPod>)>> {
        let Followed { owner, store, .. } = self.followed.get(key)?;
        let ours = |(_, pod): &(Box<str>, Arc<RunningPod>)| pod.controller == owner.uid;
        store.filled().then(|| store.all().into_iter().filter(ours).collect())
    }

    /// What wakes at each change of any of them.
    pub(super) fn changes(&mut self) -> impl Iterator<Item = &mut watch::Receiver<u64>> {
        self.followed.values_mut().map(|followed| &mut followed.changes)
    }
}
