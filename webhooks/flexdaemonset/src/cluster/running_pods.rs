//! The running pods of DaemonSets that name a template: a watch for each DaemonSet, by its selector.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Client;
use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod::{Pod, SKIP};
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, reflect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use flexdaemonset_decision::daemon_set::{DaemonSet, named_template};
use flexdaemonset_decision::original_requests::{ANNOTATION, OriginalRequests};

/// A running pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunningPod {
    uid: Box<str>,
    /// The template that its own annotation names.
    template: Option<Box<str>>,
    /// The uid of its controller.
    controller: Box<str>,
    /// The node that it is bound to, or that it was sized for. Empty if neither is known.
    node: Box<str>,
    is_bound: bool,
    qos_class: Box<str>,
    is_ready: bool,
    /// Whether it is terminating, or has ended.
    is_gone: bool,
    resize: Option<ResizeStatus>,
    /// The JSON of a [`Pod`]: what sizing needs of it. It is parsed at each reconciliation, because it borrows.
    json: Box<str>,
}

/// A resize that hasn't completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResizeStatus {
    /// The kubelet resizes the pod.
    InProgress,
    /// The kubelet can't resize the pod, now or ever; the condition's reason and message.
    Infeasible(Box<str>),
}

impl RunningPod {
    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// The node that it is bound to, or that it was sized for. Empty if neither is known.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// Whether it is ready and stays.
    pub(super) fn is_available(&self) -> bool {
        self.is_ready && !self.is_gone
    }

    /// Whether it counts as a pod of `template`. A pod of an earlier pod template may name another one.
    pub(super) fn counts_for(&self, template: &str) -> bool {
        !self.is_gone && self.template.as_deref().is_none_or(|own| own == template)
    }

    /// `status.qosClass`.
    pub(super) fn qos_class(&self) -> &str {
        &self.qos_class
    }

    pub(super) fn resize(&self) -> Option<&ResizeStatus> {
        self.resize.as_ref()
    }

    pub(super) fn parse(&self) -> Option<Pod<'_>> {
        serde_json::from_str(&self.json).ok()
    }

    #[cfg(test)]
    pub(super) fn for_test(uid: &str, node: &str) -> Self {
        Self { uid: uid.into(), node: node.into(), ..Self::default() }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RunningPodSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    containers: Vec<RunningContainer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init_containers: Option<Vec<RunningContainer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct RunningContainer {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RunningPodStatus {
    phase: String,
    qos_class: String,
    conditions: Option<Vec<PodCondition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodCondition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
}

impl RunningPodStatus {
    fn true_condition(&self, name: &str) -> Option<&PodCondition> {
        let conditions = self.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| condition.r#type == name && condition.status == "True")
    }

    /// v1.PodResizePending and v1.PodResizeInProgress, of which the latter has the reason Error after a failure.
    fn resize(&self) -> Option<ResizeStatus> {
        let infeasible = |condition: &PodCondition| {
            ResizeStatus::Infeasible(format!("{}: {}", condition.reason, condition.message).into())
        };
        if let Some(pending) = self.true_condition("PodResizePending") {
            return Some(infeasible(pending));
        }
        let progress = self.true_condition("PodResizeInProgress")?;
        Some(if progress.reason == "Error" { infeasible(progress) } else { ResizeStatus::InProgress })
    }
}

impl FromObject for RunningPod {
    type Spec = RunningPodSpec;
    type Status = RunningPodStatus;
    const PLURAL: &'static str = "pods";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<RunningPodSpec, RunningPodStatus>) -> Option<Self> {
        // The webhook isn't called for such a pod either.
        let labels = object.metadata.labels.as_ref();
        if labels.and_then(|labels| labels.get(SKIP)).is_some_and(|skip| skip == "true") {
            return None;
        }
        let spec = object.spec?;
        let status = object.status.unwrap_or_default();
        let record = object.metadata.annotation(ANNOTATION);
        let is_bound = spec.node_name.as_deref().is_some_and(|name| !name.is_empty());
        let node = if is_bound {
            spec.node_name.clone()
        } else {
            let record: Option<OriginalRequests<'_>> =
                record.and_then(|json| serde_json::from_str(json).ok());
            record.map(|record| record.node.to_string())
        };
        let annotations = record.map(|record| json!({ANNOTATION: record}));
        let json = json!({"metadata": {"annotations": annotations}, "spec": spec}).to_string();
        Some(Self {
            controller: object.metadata.controller()?.uid.as_str().into(),
            template: named_template(|key| object.metadata.annotation(key)).map(Into::into),
            node: node.unwrap_or_default().into(),
            is_bound,
            qos_class: status.qos_class.clone().into(),
            is_ready: status.true_condition("Ready").is_some(),
            is_gone: object.metadata.deletion_timestamp.is_some()
                || matches!(&*status.phase, "Succeeded" | "Failed"),
            resize: status.resize(),
            json: json.into(),
            uid: object.metadata.uid.into(),
        })
    }
}

/// The watches of running pods.
pub(super) struct RunningPods {
    client: Client,
    /// By the key of the DaemonSet.
    watches: HashMap<Box<str>, PodWatch>,
}

struct PodWatch {
    daemon_set: Arc<DaemonSet>,
    store: Arc<Store<RunningPod>>,
    changes: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RunningPods {
    pub(super) fn new(client: Client) -> Self {
        Self { client, watches: HashMap::new() }
    }

    /// Watches the pods of these DaemonSets, by their keys, and of no others.
    pub(super) fn watch(&mut self, daemon_sets: &[(Box<str>, Arc<DaemonSet>)]) {
        self.watches.retain(|key, watch| {
            let daemon_set =
                daemon_sets.iter().find(|(other, _)| other == key).map(|(_, daemon_set)| daemon_set);
            let watched = &watch.daemon_set;
            daemon_set.is_some_and(|new| new.uid == watched.uid && new.selector == watched.selector)
        });
        for (key, daemon_set) in daemon_sets {
            if self.watches.contains_key(key) || daemon_set.selector.is_empty() {
                continue;
            }
            let namespace = key.split('/').next().map(str::to_owned);
            let scope = WatchScope { namespace, label_selector: daemon_set.selector.to_string() };
            let store = Arc::new(Store::default());
            let changes = store.changes();
            let task = tokio::spawn(reflect(self.client.clone(), scope, Arc::clone(&store)));
            let watch = PodWatch { daemon_set: Arc::clone(daemon_set), store, changes, task };
            self.watches.insert(key.clone(), watch);
        }
    }

    /// The pods of a DaemonSet with their keys, terminating ones included. `None` until their first list is complete.
    pub(super) fn of(&self, key: &str) -> Option<Vec<(Box<str>, Arc<RunningPod>)>> {
        let PodWatch { daemon_set, store, .. } = self.watches.get(key)?;
        let is_controlled = |(_, pod): &(Box<str>, Arc<RunningPod>)| pod.controller == daemon_set.uid;
        store.has_synced().then(|| store.all().into_iter().filter(is_controlled).collect())
    }

    /// Receivers that wake at every change.
    pub(super) fn changes(&mut self) -> impl Iterator<Item = &mut watch::Receiver<u64>> {
        self.watches.values_mut().map(|watch| &mut watch.changes)
    }
}
