//! The running pods of DaemonSets that name a template: a watch for each DaemonSet, by its selector.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod::{Pod, SKIP};
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, reflect_owned};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use flexdaemonset_decision::daemon_set::{DaemonSet, named_template};
use flexdaemonset_decision::original_requests::{ANNOTATION, OriginalRequests};

use super::shared_text::share;

/// The annotation in which peerpods remembers the resources of containers.
const PEERPODS_RESOURCES: &str = "podshaper.dev/peerpods-resources";
/// Bytes of an annotation that is read. A record has about 100 bytes for each container. A pod with more, or with twice as much in all,
/// counts as pending.
const MAX_JSON: usize = 32 << 10;
/// Bytes of the longest selector of a DaemonSet. The API server reads URLs of at most 64 KiB, in which a byte can take three.
const MAX_SELECTOR: usize = 8 << 10;
/// Bytes of the reason of a failed pod that are kept.
const MAX_FAILURE: usize = 256;
/// Seconds after which a deferred resize is given up, as VPA does.
const DEFERRED_SECONDS: i64 = 300;
/// Time for the first lists of a leader, and of the pods of a new DaemonSet.
const LISTED_WITHIN: Duration = Duration::from_secs(30);

/// A running pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunningPod {
    uid: Box<str>,
    resource_version: Box<str>,
    /// `creationTimestamp` in Unix seconds.
    created_at: Option<i64>,
    /// The template that its own annotation names.
    template: Option<Box<str>>,
    /// The node that it is bound to, or that it was sized for. Empty if neither is known.
    node: Box<str>,
    scheduling: Scheduling,
    qos_class: Box<str>,
    is_ready: bool,
    /// Whether it is terminating, or has ended.
    is_gone: bool,
    /// Reason and message of a pod that has failed, and isn't deleted yet.
    failure: Option<Box<str>>,
    resize: Option<ResizeStatus>,
    /// Whether peerpods has moved its resources to a VM.
    is_peer: bool,
    /// The JSON of a [`Pod`]: what sizing needs of it, without the node. It is parsed at each reconciliation, because it borrows.
    json: Arc<str>,
}

/// Whether a pod has a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scheduling {
    /// It is bound to one.
    Bound,
    /// The scheduler hasn't decided yet.
    #[default]
    Waiting,
    /// The scheduler finds no place for it.
    Unschedulable,
}

/// A resize that hasn't completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResizeStatus {
    /// The kubelet resizes the pod.
    InProgress,
    /// The kubelet can't resize the pod; the condition's reason and message.
    Infeasible(Box<str>),
    /// The node has no room at the moment; the condition's reason and message, and when it began.
    Deferred(Box<str>, Option<Timestamp>),
}

impl ResizeStatus {
    /// Whether the resize won't complete. VPA recreates a pod after the same time.
    pub(super) fn is_hopeless(&self, now: Timestamp) -> bool {
        match self {
            Self::InProgress => false,
            Self::Infeasible(_) => true,
            Self::Deferred(_, since) => {
                since.is_some_and(|since| now.duration_since(since).as_secs() >= DEFERRED_SECONDS)
            }
        }
    }
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
        self.scheduling == Scheduling::Bound
    }

    /// Whether it is ready and stays.
    pub(super) fn is_available(&self) -> bool {
        self.is_ready && !self.is_gone
    }

    /// Whether it counts as a pod of `template`.
    pub(super) fn counts_for(&self, template: &str) -> bool {
        !self.is_gone && self.is_of(template)
    }

    /// Why it has failed, if it is a pod of `template` and has. The kubelet refuses a pod by its size, for example, if its topology
    /// manager finds no place.
    pub(super) fn failure_for(&self, template: &str) -> Option<&str> {
        self.failure.as_deref().filter(|_| self.is_of(template))
    }

    /// A pod of an earlier pod template may name another template.
    fn is_of(&self, template: &str) -> bool {
        self.template.as_deref().is_none_or(|own| own == template)
    }

    /// `creationTimestamp` in Unix seconds.
    pub(super) fn created_at(&self) -> Option<i64> {
        self.created_at
    }

    pub(super) fn resource_version(&self) -> &str {
        &self.resource_version
    }

    /// `status.qosClass`.
    pub(super) fn qos_class(&self) -> &str {
        &self.qos_class
    }

    pub(super) fn resize(&self) -> Option<&ResizeStatus> {
        self.resize.as_ref()
    }

    pub(super) fn is_unschedulable(&self) -> bool {
        self.scheduling == Scheduling::Unschedulable
    }

    pub(super) fn is_peer(&self) -> bool {
        self.is_peer
    }

    pub(super) fn parse(&self) -> Option<Pod<'_>> {
        serde_json::from_str(&self.json).ok()
    }

    #[cfg(test)]
    pub(super) fn for_test(uid: &str, node: &str) -> Self {
        Self { uid: uid.into(), node: node.into(), resource_version: "7".into(), ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn ready(self) -> Self {
        Self { is_ready: true, ..self }
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

/// The resources that peerpods has removed from a pod, in its annotation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PeerResources {
    containers: HashMap<String, Value>,
    pod: Option<Value>,
}

impl RunningPodSpec {
    fn restore(&mut self, mut resources: PeerResources) {
        let containers = self.containers.iter_mut().chain(self.init_containers.iter_mut().flatten());
        for container in containers {
            if let Some(removed) = resources.containers.remove(&container.name) {
                container.resources = Some(removed);
            }
        }
        self.resources = resources.pod.or(self.resources.take());
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RunningPodStatus {
    phase: String,
    reason: Option<String>,
    message: Option<String>,
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
    #[serde(rename = "lastTransitionTime")]
    last_transition_time: Option<String>,
}

impl RunningPodStatus {
    /// v1.PodScheduled with the reason Unschedulable.
    fn is_unschedulable(&self) -> bool {
        let conditions = self.conditions.as_deref().unwrap_or_default();
        conditions
            .iter()
            .any(|one| one.r#type == "PodScheduled" && one.status == "False" && one.reason == "Unschedulable")
    }

    /// Reason and message of the phase `Failed`.
    fn failure(&self) -> Option<String> {
        let words = || [self.reason.as_deref(), self.message.as_deref()].into_iter().flatten();
        let mut failure = words().collect::<Vec<_>>().join(": ");
        failure.truncate(failure.floor_char_boundary(MAX_FAILURE));
        (self.phase == "Failed").then_some(failure)
    }

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
            let since = pending.last_transition_time.as_deref().and_then(|time| time.parse().ok());
            return Some(match &*pending.reason {
                "Deferred" => ResizeStatus::Deferred(format!("Deferred: {}", pending.message).into(), since),
                _ => infeasible(pending),
            });
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
        let mut spec = object.spec?;
        let status = object.status.unwrap_or_default();
        let peer_resources = object.metadata.annotation(PEERPODS_RESOURCES);
        if let Some(resources) = peer_resources.filter(|record| record.len() <= MAX_JSON) {
            spec.restore(serde_json::from_str(resources).unwrap_or_default());
        }
        let is_deleted = object.metadata.deletion_timestamp.is_some();
        let record = object.metadata.annotation(ANNOTATION).filter(|record| record.len() <= MAX_JSON);
        let is_bound = spec.node_name.as_deref().is_some_and(|name| !name.is_empty());
        // Without the node, the text of pods on equal nodes is equal.
        let bound_to = spec.node_name.take();
        let parsed = record.map(serde_json::from_str::<OriginalRequests<'_>>);
        let (record, sized_for) = match parsed {
            Some(Ok(mut parsed)) => {
                let node = std::mem::take(&mut parsed.node).to_string();
                (serde_json::to_string(&parsed).ok(), Some(node))
            }
            // A record that can't be parsed stays: such a pod isn't refitted.
            _ => (record.map(str::to_owned), None),
        };
        let node = if is_bound { bound_to } else { sized_for };
        let annotations = record.map(|record| json!({ANNOTATION: record}));
        let mut json = json!({"metadata": {"annotations": annotations}, "spec": spec}).to_string();
        if json.len() > 2 * MAX_JSON {
            json.clear();
        }
        let created: Option<Timestamp> =
            object.metadata.creation_timestamp.as_deref().and_then(|time| time.parse().ok());
        Some(Self {
            created_at: created.map(Timestamp::as_second),
            template: named_template(|key| object.metadata.annotation(key)).map(Into::into),
            node: node.unwrap_or_default().into(),
            scheduling: match (is_bound, status.is_unschedulable()) {
                (true, _) => Scheduling::Bound,
                (false, true) => Scheduling::Unschedulable,
                (false, false) => Scheduling::Waiting,
            },
            qos_class: status.qos_class.clone().into(),
            is_ready: status.true_condition("Ready").is_some(),
            is_gone: is_deleted || matches!(&*status.phase, "Succeeded" | "Failed"),
            failure: status.failure().filter(|_| !is_deleted).map(Into::into),
            is_peer: peer_resources.is_some(),
            resource_version: object.metadata.resource_version.into(),
            resize: status.resize(),
            json: share(&json),
            uid: object.metadata.uid.into(),
        })
    }
}

/// Why the pods of a DaemonSet can't be listed, if they can't.
fn unlistable(daemon_set: &DaemonSet) -> Option<&'static str> {
    if daemon_set.selector.is_empty() {
        Some("its selector is empty")
    } else if daemon_set.selector.len() > MAX_SELECTOR {
        Some("its selector is longer than 8 KiB")
    } else {
        None
    }
}

/// The watches of running pods.
pub(super) struct RunningPods {
    client: Client,
    /// By the uid of the DaemonSet.
    watches: HashMap<Box<str>, PodWatch>,
    started: Instant,
}

/// The pods of a DaemonSet.
pub(super) enum Listing {
    /// The pods with their keys, terminating ones included.
    Pods(Vec<(Box<str>, Arc<RunningPod>)>),
    /// The first list isn't complete yet.
    Pending,
    /// There is no list, for this reason.
    Failed(&'static str),
}

struct PodWatch {
    selector: Box<str>,
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
        Self { client, watches: HashMap::new(), started: Instant::now() }
    }

    /// Watches the pods of these DaemonSets, and of no others.
    pub(super) fn watch(&mut self, daemon_sets: &[(Box<str>, Arc<DaemonSet>)]) {
        let selectors: HashMap<&str, &str> =
            daemon_sets.iter().map(|(_, daemon_set)| (&*daemon_set.uid, &*daemon_set.selector)).collect();
        self.watches
            .retain(|uid, watch| selectors.get(&**uid).is_some_and(|selector| **selector == *watch.selector));
        for (key, daemon_set) in daemon_sets {
            if self.watches.contains_key(&daemon_set.uid) || unlistable(daemon_set).is_some() {
                continue;
            }
            let namespace = key.split('/').next().map(str::to_owned);
            let scope = WatchScope { namespace, label_selector: daemon_set.selector.to_string() };
            let store = Arc::new(Store::default());
            let changes = store.changes();
            let uid = daemon_set.uid.to_string();
            let task = tokio::spawn(reflect_owned(self.client.clone(), scope, Arc::clone(&store), uid));
            let watch = PodWatch { selector: daemon_set.selector.clone(), store, changes, task };
            self.watches.insert(daemon_set.uid.clone(), watch);
        }
    }

    /// The pods of a DaemonSet.
    pub(super) fn of(&self, daemon_set: &DaemonSet) -> Listing {
        if let Some(reason) = unlistable(daemon_set) {
            return Listing::Failed(reason);
        }
        match self.watches.get(&daemon_set.uid) {
            Some(watch) if watch.store.has_synced() => Listing::Pods(watch.store.all().into_iter().collect()),
            // Later, a DaemonSet that is created again and again must not delay others.
            _ if self.started.elapsed() < LISTED_WITHIN => Listing::Pending,
            _ => Listing::Failed("the API server hasn't listed its pods yet"),
        }
    }

    /// Receivers that wake at every change.
    pub(super) fn changes(&mut self) -> impl Iterator<Item = &mut watch::Receiver<u64>> {
        self.watches.values_mut().map(|watch| &mut watch.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(metadata: &Value, status: &Value) -> RunningPod {
        let object = json!({
            "metadata": metadata, "status": status,
            "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "x"}, {"name": "b", "resources": {"limits": {"cpu": "1"}}}]},
        });
        RunningPod::from_object(serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn peer_pod_has_its_recorded_resources() {
        let record = json!({"containers": {"a": {"requests": {"cpu": "2"}}}, "annotations": {}}).to_string();
        let pod = pod(&json!({"annotations": {PEERPODS_RESOURCES: record}}), &json!({}));
        assert!(pod.is_peer());
        let view = pod.parse().unwrap();
        let (_, _, first) = view.containers().next().unwrap();
        let requests = first.resources.as_ref().and_then(|resources| resources.requests.as_ref()).unwrap();
        assert_eq!(requests.get("cpu").map(|cpu| cpu.to_string()).as_deref(), Some("2"));
    }

    #[test]
    fn creation_has_full_seconds() {
        let created = |metadata: Value| pod(&metadata, &json!({})).created_at();
        assert_eq!(created(json!({"creationTimestamp": "1970-01-01T00:01:00Z"})), Some(60));
        assert_eq!(created(json!({})), None);
    }

    #[test]
    fn failed_pod_has_reason_until_it_is_deleted() {
        let failed = json!({"phase": "Failed", "reason": "TopologyAffinityError", "message": "no place"});
        let kept = pod(&json!({}), &failed);
        assert_eq!(kept.failure_for("t"), Some("TopologyAffinityError: no place"));
        assert!(!kept.counts_for("t"));
        let named = json!({"annotations": {"flexdaemonsets.xai/resource-template": "other"}});
        assert_eq!(pod(&named, &failed).failure_for("t"), None);
        assert_eq!(
            pod(&json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), &failed).failure_for("t"),
            None
        );
        assert_eq!(pod(&json!({}), &json!({"phase": "Running"})).failure_for("t"), None);
        assert_eq!(pod(&json!({}), &json!({"phase": "Failed"})).failure_for("t"), Some(""));
    }

    #[test]
    fn pods_of_equal_nodes_share_their_text() {
        let on = |node: &str| {
            let record =
                json!({"template": "t", "node": node, "containers": {"a": {"requests": {"cpu": "3"}}}});
            let object = json!({
                "metadata": {"annotations": {ANNOTATION: record.to_string()}},
                "spec": {"nodeName": node, "containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}]},
            });
            RunningPod::from_object(serde_json::from_value(object).unwrap()).unwrap()
        };
        let one = on("n-1");
        let other = on("n-2");
        assert_eq!((one.node(), other.node()), ("n-1", "n-2"));
        assert!(Arc::ptr_eq(&one.json, &other.json), "{} {}", one.json, other.json);
        let view = one.parse().unwrap();
        let original = OriginalRequests::from_pod(&view).unwrap().unwrap();
        assert!(original.containers.get("a").is_some_and(|resources| resources.requests.is_some()));
    }

    #[test]
    fn large_annotation_takes_no_memory() {
        let record = "x".repeat(250 << 10);
        let pod = pod(&json!({"annotations": {ANNOTATION: record, PEERPODS_RESOURCES: record}}), &json!({}));
        assert!(pod.json.len() < 1000, "{}", pod.json.len());
    }

    #[test]
    fn deferred_resize_is_hopeless_after_five_minutes() {
        let status = |reason: &str, since: &str| {
            let condition = json!({"type": "PodResizePending", "status": "True", "reason": reason, "lastTransitionTime": since});
            pod(&json!({}), &json!({"conditions": [condition]})).resize().cloned().unwrap()
        };
        let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        assert!(status("Deferred", "2026-01-01T00:00:00Z").is_hopeless(now));
        assert!(!status("Deferred", "2026-01-01T00:00:01Z").is_hopeless(now));
        assert!(status("Infeasible", "2026-01-01T00:04:59Z").is_hopeless(now));
    }

    #[test]
    fn selector_that_makes_no_list_has_reason() {
        let reason =
            |selector: &str| unlistable(&DaemonSet { selector: selector.into(), ..DaemonSet::default() });
        assert_eq!(reason("app=agent"), None);
        assert!(reason("").is_some() && reason(&"a".repeat(MAX_SELECTOR + 1)).is_some());
    }
}
