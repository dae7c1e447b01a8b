//! A ReplicaSet `web`, its pods, and replicas of a webhook that places them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use podshaper_core::object::OwnerReference;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::{GROUP, OWNER, PLACED, SLOT, TOKEN};
use podshaper_placement::identity::UnknownNodes;
use podshaper_placement::ledger::{Assignment, SlotReply, SlotRequest, Token};
use podshaper_placement::policy::{Group, Policy, Tie};
use podshaper_placement_kube::{Ledgers, PlacedWorkload};
use podshaper_testing::InMemoryApiServer;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub(crate) const WEBHOOK: &str = "distributor";
pub(crate) const UID: &str = "uid-of-web";
pub(crate) const REPLICA_SET: &str = "/apis/apps/v1/namespaces/ns/replicasets/web";
pub(crate) const PLACEMENT: &str =
    "/apis/podshaper.dev/v1alpha1/namespaces/ns/placements/distributor-uid-of-web";
const ROUND_TRIP: Duration = Duration::from_millis(5);
const PODS: &str = "/api/v1/namespaces/ns/pods";

pub(crate) struct Cluster {
    pub(crate) server: InMemoryApiServer,
}

impl Cluster {
    /// A ReplicaSet of `replicas` pods, none of which exists.
    pub(crate) fn new(replicas: u32) -> Self {
        let server = InMemoryApiServer::default();
        server.set_round_trip(ROUND_TRIP);
        let cluster = Self { server };
        cluster.scale(replicas);
        cluster
    }

    pub(crate) fn scale(&self, replicas: u32) {
        self.server.put(REPLICA_SET, json!({"metadata": {"uid": UID}, "spec": {"replicas": replicas}}));
    }

    /// Starts a replica of the webhook.
    pub(crate) async fn replica(&self) -> Arc<Ledgers> {
        let ledgers = Ledgers::start(self.server.client(), WEBHOOK, Arc::new(UnknownNodes));
        while !ledgers.has_synced() {
            sleep(ROUND_TRIP).await;
        }
        // The watches are open a round trip after the lists.
        sleep(2 * ROUND_TRIP).await;
        ledgers
    }

    /// Creates a pod of the ReplicaSet as admission leaves it.
    pub(crate) async fn create_placed(&self, name: &str, assignment: &Assignment) {
        self.put_pod(name, placed_pod(assignment)).await;
    }

    /// Creates a pod of the ReplicaSet that no webhook has placed.
    pub(crate) async fn create_unplaced(&self, name: &str, node_selector: Value) {
        let mut pod = pod();
        pod["spec"]["nodeSelector"] = node_selector;
        self.put_pod(name, pod).await;
    }

    /// Creates or replaces a pod, and lets the watches deliver it.
    pub(crate) async fn put_pod(&self, name: &str, pod: Value) {
        self.server.put(&pod_path(name), pod);
        deliver().await;
    }

    pub(crate) async fn delete_pod(&self, name: &str) {
        self.server.delete(&pod_path(name));
        deliver().await;
    }

    pub(crate) fn pod(&self, name: &str) -> Value {
        self.server.get(&pod_path(name))
    }

    /// Name, slot and group of each pod in the namespace.
    pub(crate) fn placements(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let placement = |pod: Value| {
            let annotations = &pod["metadata"]["annotations"];
            (text(&pod["metadata"]["name"]), text(&annotations[SLOT]), text(&annotations[GROUP]))
        };
        self.server.list(PODS).into_iter().map(placement).collect()
    }

    /// How many slots the Placement reserves; `None` without one.
    pub(crate) fn reserved(&self) -> Option<usize> {
        Some(self.server.get(PLACEMENT)["spec"]["reservations"].as_str()?.lines().count())
    }

    /// How often a replica tried to write a Placement.
    pub(crate) fn writes(&self) -> usize {
        self.count(|method, path| method != Method::GET && path.contains("/placements"))
    }

    /// How often a replica listed the pods of the namespace.
    pub(crate) fn lists(&self) -> usize {
        self.count(|method, path| method == Method::GET && path == PODS)
    }

    /// How often a replica read the Placement.
    pub(crate) fn reads(&self) -> usize {
        self.count(|method, path| method == Method::GET && path == PLACEMENT)
    }

    fn count(&self, is: impl Fn(&Method, &str) -> bool) -> usize {
        self.server.calls().iter().filter(|call| is(&call.method, &call.path)).count()
    }
}

/// Lets all tasks run until they wait: time only advances then.
pub(crate) async fn deliver() {
    sleep(Duration::from_millis(1)).await;
}

fn pod_path(name: &str) -> String {
    format!("{PODS}/{name}")
}

fn pod() -> Value {
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": UID, "controller": true});
    json!({
        "metadata": {"namespace": "ns", "labels": {"app": "web"}, "ownerReferences": [owner]},
        "spec": {},
        "status": {"phase": "Pending"},
    })
}

pub(crate) fn placed_pod(assignment: &Assignment) -> Value {
    let Assignment { token, slot, group } = assignment;
    let mut pod = pod();
    pod["metadata"]["labels"][PLACED] = WEBHOOK.into();
    pod["metadata"]["annotations"] =
        json!({OWNER: UID, TOKEN: token.to_string(), SLOT: slot.to_string(), GROUP: **group});
    pod["spec"]["nodeSelector"] = json!({"type": **group});
    pod
}

pub(crate) fn assignment(token: u64, slot: u32, group: &str) -> Assignment {
    Assignment { token: Token(token), slot, group: group.into() }
}

/// 80 % of the pods in `default`, 20 % in `spot`.
pub(crate) fn allocator() -> Arc<SlotAllocator> {
    let group = |name: &str, weight: u32| Group {
        name: name.into(),
        node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
        weight,
        ..Group::default()
    };
    let policy = Policy::new(vec![group("default", 80), group("spot", 20)], Tie::First).unwrap();
    Arc::new(SlotAllocator::new(policy))
}

/// The ReplicaSet, of `pods` pods.
pub(crate) fn workload(pods: u32) -> Arc<PlacedWorkload> {
    Arc::new(PlacedWorkload {
        namespace: "ns".to_owned(),
        owner: OwnerReference::new("apps/v1", "ReplicaSet", "web", UID),
        path: Some(REPLICA_SET.to_owned()),
        selector: "app=web".to_owned(),
        pods: Some(pods),
        created: None,
        version: 0,
        shared: false,
        allocator: allocator(),
    })
}

/// The ReplicaSet, of `pods` pods, of which `created` exist.
pub(crate) fn existing_workload(pods: u32, created: u32) -> Arc<PlacedWorkload> {
    Arc::new(PlacedWorkload { created: Some(created), ..Arc::unwrap_or_clone(workload(pods)) })
}

/// Requests a slot, which must come within two seconds.
pub(crate) async fn request(
    ledgers: &Ledgers,
    workload: &Arc<PlacedWorkload>,
    token: u64,
) -> Option<SlotReply> {
    let fitting = workload.allocator.policy().all();
    let request =
        SlotRequest { token: Token(token), fitting, existing: None, dry_run: false, over_time: false };
    ledgers.place(workload, request, Instant::now() + Duration::from_secs(2)).await
}

pub(crate) async fn place(ledgers: &Ledgers, workload: &Arc<PlacedWorkload>, token: u64) -> Assignment {
    match request(ledgers, workload, token).await {
        Some(SlotReply::Placed(assignment)) => assignment,
        other => panic!("not placed but {other:?}"),
    }
}
