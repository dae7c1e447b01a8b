//! A `PodDistributor` that selects pods by their labels: the leader and the webhook with an API server in memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use clap::Parser;
use distributor::cluster::{ClusterSettings, DistributorCluster, EvictionSettings};
use distributor_decision::DistributorWebhook;
use podshaper_core::admission::{Request, Webhook};
use podshaper_core::pod::Pod;
use podshaper_kube::replica::Replica;
use podshaper_placement_kube::PodSeries;
use podshaper_testing::InMemoryApiServer;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const PODS: &str = "/api/v1/namespaces/shop/pods";
const DISTRIBUTORS: &str = "/apis/versprei.versprei.io/v1beta1/namespaces/shop/poddistributors";
const PLACEMENTS: &str = "/apis/podshaper.dev/v1alpha1/namespaces/shop/placements";
const OWNER: &str = "placement.podshaper.dev/owner";
const CONTROLLER: &str = "placement.podshaper.dev/controller";
const STEP: Duration = Duration::from_millis(500);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    replica: Replica,
}

/// A namespace with nodes of the groups `default` and `spot`.
struct Shop {
    server: InMemoryApiServer,
    webhook: DistributorWebhook<DistributorCluster>,
    _ending: watch::Sender<bool>,
    requests: usize,
}

fn replica_set(number: usize) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("tenant-{number}"), "uid": format!("set-{number}"), "controller": true})
}

fn pod(owner: Option<Value>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "labels": {"tier": "tenant"}, "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]}, "status": {"phase": "Pending"},
    })
}

fn running(mut pod: Value, node: &str) -> Value {
    pod["spec"]["nodeName"] = json!(node);
    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    pod
}

fn distributor(name: &str, target: &Value) -> Value {
    json!({
        "metadata": {"namespace": "shop", "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "distribution": [
                {"name": "default", "nodeLabel": {"type": "default"}, "weight": 80},
                {"name": "spot", "nodeLabel": {"type": "spot"}, "weight": 20},
            ],
            "target": target,
        },
    })
}

impl Shop {
    async fn start(bare_pods: bool) -> Self {
        let server = InMemoryApiServer::default();
        for group in ["default", "spot"] {
            let node = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": group, "labels": {"type": group}}, "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            });
            server.put(&format!("/api/v1/nodes/{group}"), node);
        }
        let selector = json!({"selector": {"matchLabels": {"tier": "tenant"}}});
        server.put(&format!("{DISTRIBUTORS}/tenants"), distributor("tenants", &selector));
        let replica = Flags::parse_from(["distributor", "--pod-name", "a"]).replica;
        let (ending, terminating) = watch::channel(false);
        let evictions = EvictionSettings { enabled: true, replacing: vec![], excluded_namespaces: vec![] };
        let settings =
            ClusterSettings { evictions, reads_namespaces: false, series: PodSeries::Sums, bare_pods };
        let cluster = DistributorCluster::start(
            &server.client(),
            &replica,
            settings,
            &mut Registry::default(),
            terminating,
        );
        let webhook = DistributorWebhook::new(cluster);
        while webhook.not_ready().is_some() {
            sleep(STEP).await;
        }
        Self { server, webhook, _ending: ending, requests: 0 }
    }

    fn put_replica_set(&self, number: usize, owner: Option<Value>) {
        let owners: Vec<Value> = owner.into_iter().collect();
        let set = json!({
            "metadata": {"namespace": "shop", "uid": format!("set-{number}"), "ownerReferences": owners},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": format!("tenant-{number}")}}},
        });
        self.server.put(&format!("/apis/apps/v1/namespaces/shop/replicasets/tenant-{number}"), set);
    }

    /// Creates a pod as the API server does, and starts it in its group.
    async fn create(&mut self, name: &str, pod: &Value) {
        self.requests += 1;
        let request = json!({
            "uid": format!("request-{}", self.requests), "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE", "namespace": "shop", "name": name, "object": pod,
        });
        let text = request.to_string();
        let request: Request<'_, Pod<'_>> = serde_json::from_str(&text).unwrap();
        let decision = self.webhook.decide(&request, Instant::now() + Duration::from_hours(10)).await;
        let patch: json_patch::Patch =
            serde_json::from_str(&String::from_utf8(decision.patch.to_json()).unwrap()).unwrap();
        let mut placed = pod.clone();
        json_patch::patch(&mut placed, &patch).unwrap();
        let node = placed["spec"]["nodeSelector"]["type"].as_str().unwrap_or("default").to_owned();
        self.server.put(&format!("{PODS}/{name}"), running(placed, &node));
    }

    fn status(&self, distributor: &str) -> Value {
        self.server.get(&format!("{DISTRIBUTORS}/{distributor}"))["status"].clone()
    }

    fn condition(&self, distributor: &str, kind: &str) -> Value {
        let conditions = self.status(distributor)["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    }

    fn annotation(&self, pod: &str, key: &str) -> Value {
        self.server.get(&format!("{PODS}/{pod}"))["metadata"]["annotations"][key].clone()
    }

    async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let wait = async {
            while !reached(self) {
                sleep(STEP).await;
            }
        };
        let in_time = timeout(Duration::from_mins(5), wait).await.is_ok();
        let pods = self.server.list(PODS);
        let annotations: Vec<_> = pods.iter().map(|pod| &pod["metadata"]["annotations"]).collect();
        assert!(in_time, "{what}: {:#} {annotations:#?}", self.status("tenants"));
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_deployments_of_one_pod_share_a_sequence() {
    let mut shop = Shop::start(true).await;
    for number in 0..50 {
        shop.put_replica_set(number, None);
        shop.create(&format!("tenant-{number:02}"), &pod(Some(replica_set(number)))).await;
    }
    shop.until("40/10", |shop| shop.status("tenants")["pods"] == "40/10").await;
    shop.until("exact", |shop| shop.condition("tenants", "Balanced")["reason"] == "Exact").await;
    let status = shop.status("tenants");
    assert_eq!((&status["target"], &status["unplaced"]), (&json!("tier=tenant"), &json!(0)));
    assert_eq!(status["revisions"][0]["kind"], "PodDistributor");
    assert_eq!(shop.condition("tenants", "Ready")["message"], "pods are placed when they are created");
    let placements = shop.server.list(PLACEMENTS);
    let owner = &placements[0]["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("PodDistributor"), &json!("uid-tenants")));
    assert_eq!(placements.len(), 1);
    // The 51st pod is on default, and takes the place of a deleted one.
    shop.server.delete(&format!("{PODS}/tenant-07"));
    shop.until("deleted", |shop| shop.status("tenants")["placed"] == 49).await;
    shop.create("bare", &pod(None)).await;
    shop.until("50 pods", |shop| shop.status("tenants")["pods"] == "40/10").await;
    assert_eq!(
        (shop.annotation("bare", OWNER), shop.annotation("bare", CONTROLLER)),
        (json!("uid-tenants"), json!(""))
    );
}

#[tokio::test(start_paused = true)]
async fn pods_from_before_count_by_their_nodes() {
    let shop = Shop::start(true).await;
    for number in 0..4 {
        let (owner, node) = if number < 2 { (None, "default") } else { (Some(replica_set(number)), "spot") };
        shop.put_replica_set(number, None);
        shop.server.put(&format!("{PODS}/before-{number}"), running(pod(owner), node));
    }
    let agent = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "agent", "controller": true});
    shop.server.put(&format!("{PODS}/agent"), running(pod(Some(agent)), "spot"));
    shop.until("counted", |shop| shop.status("tenants")["pods"] == "2/2").await;
    shop.until("slots", |shop| {
        (0..4).all(|number| {
            shop.annotation(&format!("before-{number}"), "placement.podshaper.dev/slot").is_string()
        })
    })
    .await;
    assert_eq!(shop.condition("tenants", "Balanced")["reason"], "OffShares");
    assert_eq!(
        shop.annotation("agent", OWNER),
        Value::Null,
        "the pod of a DaemonSet is no pod to distribute"
    );
    let mut shop = shop;
    for number in 0..6 {
        shop.create(&format!("new-{number}"), &pod(None)).await;
    }
    shop.until("8/2", |shop| shop.status("tenants")["pods"] == "8/2").await;
}

#[tokio::test(start_paused = true)]
async fn pods_without_a_controller_are_unseen_unless_the_chart_says_so() {
    let shop = Shop::start(false).await;
    let message = "pods without a controller are not seen (the chart value distributor.barePods is false)";
    shop.until("said", |shop| {
        shop.condition("tenants", "Ready")["message"].as_str().is_some_and(|text| text.ends_with(message))
    })
    .await;
    shop.server.put(&format!("{PODS}/bare"), running(pod(None), "default"));
    shop.until("counted", |shop| shop.condition("tenants", "Balanced")["reason"] == "Unplaced").await;
    let ready = shop.condition("tenants", "Ready");
    assert!(ready["message"].as_str().unwrap().ends_with(": 1 match the selector"), "{ready}");
    assert_eq!(shop.annotation("bare", OWNER), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn pods_follow_the_distributor_that_governs_them() {
    let mut shop = Shop::start(true).await;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "deployment", "controller": true});
    shop.put_replica_set(0, Some(deployment));
    shop.server.put(
        "/apis/apps/v1/namespaces/shop/deployments/web",
        json!({"metadata": {"namespace": "shop", "uid": "deployment"}, "spec": {"replicas": 5}}),
    );
    for number in 0..5 {
        shop.create(&format!("web-{number}"), &pod(Some(replica_set(0)))).await;
    }
    shop.until("selected", |shop| shop.status("tenants")["pods"] == "4/1").await;
    shop.server.put(&format!("{DISTRIBUTORS}/web"), distributor("web", &json!({"name": "web"})));
    shop.until("named", |shop| shop.status("web")["pods"] == "4/1" && shop.status("tenants")["placed"] == 0)
        .await;
    shop.server.delete(&format!("{DISTRIBUTORS}/web"));
    shop.until("selected again", |shop| shop.status("tenants")["pods"] == "4/1").await;
    assert_eq!(shop.annotation("web-0", OWNER), "uid-tenants");
    // The ledger of the ReplicaSet does not keep a pod that left it and was then deleted.
    shop.server.delete(&format!("{PODS}/web-1"));
    shop.until("deleted", |shop| shop.status("tenants")["placed"] == 4).await;
    shop.server.put(&format!("{DISTRIBUTORS}/web"), distributor("web", &json!({"name": "web"})));
    shop.until("named again", |shop| {
        shop.status("web")["placed"] == 4 && shop.status("tenants")["placed"] == 0
    })
    .await;
}
