//! Groups that close, pods that are taken back, probes and recovery: the leader and the webhook with an API server in memory, a controller that
//! replaces pods, and a scheduler with a given capacity.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
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
const SETS: &str = "/apis/apps/v1/namespaces/shop/replicasets";
const DISTRIBUTOR: &str = "/apis/versprei.versprei.io/v1beta1/namespaces/shop/poddistributors/web";
/// Between two steps of controller and scheduler.
const STEP: Duration = Duration::from_millis(500);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    replica: Replica,
}

/// A cluster with one workload of the groups `default` and `spot`.
struct Simulation {
    server: InMemoryApiServer,
    webhook: DistributorWebhook<DistributorCluster>,
    ending: watch::Sender<bool>,
    /// How many pods the nodes of each group take.
    capacity: BTreeMap<&'static str, usize>,
    replicas: usize,
    created: usize,
    /// Changes of each new pod.
    pod: Value,
    /// Pods that were deleted by evictions, in order.
    evicted: Vec<String>,
}

fn put_node(server: &InMemoryApiServer, name: &str, group: &str) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"type": group}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    server.put(&format!("/api/v1/nodes/{name}"), node);
}

impl Simulation {
    /// Starts a leader.
    async fn start(replicas: usize, spec: &Value, pod: Value) -> Self {
        let server = InMemoryApiServer::default();
        put_node(&server, "default-1", "default");
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "deployment", "controller": true});
        let deployment = json!({"metadata": {"uid": "deployment"}, "spec": {"replicas": replicas}});
        server.put("/apis/apps/v1/namespaces/shop/deployments/web", of_namespace(deployment));
        let set = json!({
            "metadata": {"uid": "replicaset", "ownerReferences": [owner]},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": []}}},
        });
        server.put(&format!("{SETS}/web-1"), of_namespace(set));
        let mut distributor = json!({
            "metadata": {"uid": "distributor"},
            "spec": {
                "distribution": [
                    {"name": "default", "nodeLabel": {"type": "default"}, "weight": 80},
                    {"name": "spot", "nodeLabel": {"type": "spot"}, "weight": 20},
                ],
                "target": {"name": "web"}, "unschedulableAfter": "3s",
            },
        });
        for (field, value) in spec.as_object().unwrap() {
            distributor["spec"][field] = value.clone();
        }
        server.put(DISTRIBUTOR, of_namespace(distributor));
        let (webhook, end) = replica(&server, "a");
        while webhook.not_ready().is_some() {
            sleep(STEP).await;
        }
        let capacity = BTreeMap::from([("default", 100), ("spot", 0)]);
        Self { server, webhook, ending: end, capacity, replicas, created: 0, pod, evicted: Vec::new() }
    }

    fn pods(&self) -> Vec<Value> {
        self.server.list(PODS)
    }

    /// The pods of each group with and without a node.
    fn counts(&self) -> [(usize, usize); 2] {
        ["default", "spot"].map(|group| {
            let pods = self.pods();
            let (running, waiting): (Vec<_>, Vec<_>) = pods
                .iter()
                .filter(|pod| pod["spec"]["nodeSelector"]["type"] == group)
                .partition(|pod| pod["spec"]["nodeName"].is_string());
            (running.len(), waiting.len())
        })
    }

    async fn scale(&mut self, replicas: usize) {
        self.replicas = replicas;
        let change = json!({"spec": {"replicas": replicas}});
        self.server.patch("/apis/apps/v1/namespaces/shop/deployments/web", &change);
        self.server.patch(&format!("{SETS}/web-1"), &change);
        self.step().await;
    }

    async fn create(&mut self) {
        self.created += 1;
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "replicaset", "controller": true});
        let mut pod = json!({
            "metadata": {"generateName": "web-1-", "labels": {"app": "web"}, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "web", "image": "web"}]}, "status": {"phase": "Pending"},
        });
        json_patch::merge(&mut pod, &self.pod);
        let pod = of_namespace(pod);
        let request = json!({
            "uid": format!("request-{}", self.created), "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE", "namespace": "shop", "object": pod,
        });
        let text = request.to_string();
        let request: Request<'_, Pod<'_>> = serde_json::from_str(&text).unwrap();
        // The clock of tokio is ahead of the system's while time is paused.
        let decision = self.webhook.decide(&request, Instant::now() + Duration::from_hours(10)).await;
        let patch: json_patch::Patch =
            serde_json::from_str(&String::from_utf8(decision.patch.to_json()).unwrap()).unwrap();
        let mut placed = pod.clone();
        json_patch::patch(&mut placed, &patch).unwrap();
        self.server.put(&format!("{PODS}/web-1-{:03}", self.created), placed);
    }

    /// One round of the controller and of the scheduler.
    async fn step(&mut self) {
        let before: Vec<Value> = self.pods();
        sleep(STEP).await;
        let left = self.pods();
        let is_left =
            |pod: &Value| left.iter().any(|other| other["metadata"]["uid"] == pod["metadata"]["uid"]);
        let gone = before.iter().filter(|pod| !is_left(pod));
        self.evicted.extend(gone.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()));
        while self.pods().len() < self.replicas {
            self.create().await;
        }
        while self.pods().len() > self.replicas {
            let pods = self.pods();
            let waiting = pods.iter().find(|pod| pod["spec"]["nodeName"].is_null());
            let name = waiting.or(pods.last()).unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
            self.server.delete(&format!("{PODS}/{name}"));
        }
        self.server.patch(&format!("{SETS}/web-1"), &json!({"status": {"replicas": self.replicas}}));
        self.server.patch(
            "/apis/apps/v1/namespaces/shop/deployments/web",
            &json!({"status": {"replicas": self.replicas}}),
        );
        for pod in self.pods().iter().filter(|pod| pod["spec"]["nodeName"].is_null()) {
            self.schedule(pod);
        }
    }

    fn schedule(&self, pod: &Value) {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        let group = pod["spec"]["nodeSelector"]["type"].as_str().unwrap_or("default");
        if pod["spec"]["schedulingGates"].is_array() {
            return;
        }
        let [default, spot] = self.counts();
        let running = if group == "spot" { spot.0 } else { default.0 };
        if running < self.capacity[group] {
            let ready =
                json!([{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]);
            self.server.patch(
                &path,
                &json!({"spec": {"nodeName": group}, "status": {"phase": "Running", "conditions": ready}}),
            );
        } else {
            let condition = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
            self.server.patch(&path, &json!({"status": {"conditions": condition}}));
        }
    }

    fn spot(&self) -> Value {
        self.server.get(DISTRIBUTOR)["status"]["groups"][1].clone()
    }

    fn condition(&self, kind: &str) -> Value {
        let status = self.server.get(DISTRIBUTOR)["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    }

    /// Steps until the pods with and without a node are these, in each group.
    async fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let steps = async {
            while !reached(self) {
                self.step().await;
            }
        };
        let in_time = timeout(Duration::from_mins(10), steps).await.is_ok();
        let (status, evicted) = (self.server.get(DISTRIBUTOR)["status"].clone(), self.evicted.len());
        assert!(in_time, "{what}: {:?} {status:#} {evicted}", self.counts());
    }

    async fn steps(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.step().await;
        }
    }
}

fn of_namespace(mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!("shop");
    object
}

fn replica(
    server: &InMemoryApiServer,
    name: &str,
) -> (DistributorWebhook<DistributorCluster>, watch::Sender<bool>) {
    let replica = Flags::parse_from(["distributor", "--pod-name", name]).replica;
    let (end, ending) = watch::channel(false);
    let evictions = EvictionSettings { enabled: true, replacing: vec![], excluded_namespaces: vec![] };
    let settings = ClusterSettings { evictions, reads_namespaces: true, series: PodSeries::Sums };
    let cluster =
        DistributorCluster::start(&server.client(), &replica, settings, &mut Registry::default(), ending);
    (DistributorWebhook::new(cluster), end)
}

#[tokio::test(start_paused = true)]
async fn pods_leave_a_closed_group_and_return_one_by_one() {
    let spec = json!({"rebalance": {"mode": "OnRecovery"}});
    let mut simulation = Simulation::start(10, &spec, json!({})).await;
    simulation.step().await;
    assert_eq!(simulation.counts(), [(8, 0), (0, 2)], "pods wait: an autoscaler sees them");
    simulation.until("closed", |now| now.spot()["state"] == "Closed").await;
    simulation.until("taken back", |now| now.counts() == [(10, 0), (0, 0)]).await;
    assert_eq!(simulation.evicted.len(), 2);
    assert_eq!(simulation.condition("Available")["reason"], "Unschedulable");
    simulation.scale(12).await;
    assert_eq!(simulation.counts(), [(12, 0), (0, 0)], "new pods go to the open group");
    simulation.steps(Duration::from_mins(1)).await;
    assert_eq!(simulation.evicted.len(), 2, "at rest");

    // A node with room for one pod.
    simulation.capacity.insert("spot", 1);
    put_node(&simulation.server, "spot-1", "spot");
    simulation.until("one is back", |now| now.counts()[1].0 == 1).await;
    assert_eq!(simulation.evicted.len(), 3, "one pod tries the group");
    simulation.until("open", |now| now.spot()["state"] == "Open").await;
    simulation.until("the next one has no room", |now| now.spot()["state"] == "Closed").await;
    simulation.until("it is taken back", |now| now.counts() == [(11, 0), (1, 0)]).await;
    let evicted = simulation.evicted.len();
    simulation.steps(Duration::from_mins(2)).await;
    assert_eq!((simulation.counts(), simulation.evicted.len()), ([(11, 0), (1, 0)], evicted), "it settles");

    // Another node.
    simulation.capacity.insert("spot", 100);
    put_node(&simulation.server, "spot-2", "spot");
    simulation.until("all are back", |now| now.counts() == [(10, 0), (2, 0)]).await;
    simulation.until("balanced", |now| now.condition("Balanced")["status"] == "True").await;
    assert_eq!(simulation.condition("Available")["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn without_rebalance_a_new_pod_tries_the_group() {
    let mut simulation = Simulation::start(10, &json!({}), json!({})).await;
    simulation.step().await;
    simulation.until("taken back", |now| now.counts() == [(10, 0), (0, 0)]).await;
    let evicted = simulation.evicted.len();
    simulation.capacity.insert("spot", 100);
    put_node(&simulation.server, "spot-1", "spot");
    simulation.until("probing", |now| now.spot()["state"] == "Probing").await;
    simulation.steps(Duration::from_mins(1)).await;
    assert_eq!(simulation.counts(), [(10, 0), (0, 0)], "no pod is evicted");
    simulation.scale(14).await;
    assert_eq!(simulation.counts()[1], (1, 0), "one pod tries, the others go to the open group");
    simulation.until("open", |now| now.spot()["state"] == "Open").await;
    simulation.scale(20).await;
    assert_eq!(simulation.counts(), [(16, 0), (4, 0)]);
    assert_eq!(simulation.evicted.len(), evicted);
}

#[tokio::test(start_paused = true)]
async fn new_leader_continues_with_the_published_state() {
    let mut simulation = Simulation::start(10, &json!({"takeBack": "Never"}), json!({})).await;
    simulation.step().await;
    simulation.until("closed", |now| now.spot()["state"] == "Closed").await;
    let (webhook, end) = replica(&simulation.server, "b");
    while webhook.not_ready().is_some() {
        sleep(STEP).await;
    }
    (simulation.webhook, simulation.ending) = (webhook, end);
    simulation.scale(20).await;
    assert_eq!(simulation.counts(), [(18, 0), (0, 2)], "no new pod goes there");
    simulation.steps(Duration::from_mins(1)).await;
    assert_eq!(simulation.spot()["state"], "Closed");
    assert_eq!(simulation.spot()["notTakenBack"], json!({"Disabled": 2}));
    assert!(simulation.evicted.is_empty());
    // The pods that wait try the group. One of them gets a node.
    simulation.capacity.insert("spot", 1);
    simulation.until("open", |now| now.spot()["state"] == "Open").await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_wait_for_another_reason_close_no_group() {
    let gated = json!({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}});
    let nominated = json!({"status": {"nominatedNodeName": "node"}});
    let claim =
        json!({"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    for pod in [gated, nominated, claim] {
        let mut simulation = Simulation::start(10, &json!({}), pod.clone()).await;
        simulation.step().await;
        simulation.steps(Duration::from_secs(30)).await;
        assert_eq!(simulation.spot()["state"], "Open", "{pod}");
        assert!(simulation.evicted.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_back_while_no_group_is_open() {
    let mut simulation = Simulation::start(10, &json!({}), json!({})).await;
    simulation.capacity.insert("default", 0);
    simulation.step().await;
    simulation.until("all closed", |now| now.condition("Available")["reason"] == "NoGroupSchedules").await;
    simulation.steps(Duration::from_mins(1)).await;
    assert_eq!(simulation.counts(), [(0, 8), (0, 2)]);
    assert!(simulation.evicted.is_empty());
    // One group takes pods again: the others follow.
    simulation.capacity.insert("default", 100);
    simulation.until("they run", |now| now.counts() == [(10, 0), (0, 0)]).await;
}

#[tokio::test(start_paused = true)]
async fn bound_claims_and_groups_of_the_template_keep_pods() {
    let claim =
        json!({"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    let mut simulation = Simulation::start(10, &json!({}), claim).await;
    let bound = of_namespace(json!({"spec": {"volumeName": "pv-1"}}));
    simulation.server.put("/api/v1/namespaces/shop/persistentvolumeclaims/data", bound);
    simulation.step().await;
    simulation.until("closed", |now| now.spot()["notTakenBack"] == json!({"BoundClaim": 2})).await;
    simulation.steps(Duration::from_mins(1)).await;
    assert!(simulation.evicted.is_empty());
    let message = simulation.condition("Available")["message"].to_string();
    assert!(message.contains("waiting pods that are not taken back: 2 BoundClaim"), "{message}");

    let picky = json!({"spec": {"nodeSelector": {"type": "spot"}}});
    let mut simulation = Simulation::start(3, &json!({}), picky.clone()).await;
    simulation.server.patch(&format!("{SETS}/web-1"), &json!({"spec": {"template": picky}}));
    simulation.step().await;
    simulation.until("closed", |now| now.spot()["notTakenBack"] == json!({"FitsNoOtherGroup": 3})).await;
    simulation.steps(Duration::from_mins(1)).await;
    assert!(simulation.evicted.is_empty());
}

#[tokio::test(start_paused = true)]
async fn group_that_the_namespace_excludes_gets_no_pods() {
    let mut simulation = Simulation::start(10, &json!({"rebalance": {"mode": "Always"}}), json!({})).await;
    simulation.capacity.insert("spot", 100);
    let annotations = json!({"scheduler.alpha.kubernetes.io/node-selector": "type=default"});
    let namespace = json!({"metadata": {"name": "shop", "annotations": annotations}});
    simulation.server.put("/api/v1/namespaces/shop", namespace);
    let reason = |now: &Simulation| now.spot()["reason"] == "ExcludedByNamespace";
    sleep(STEP).await;
    simulation.until("excluded", reason).await;
    assert_eq!(simulation.counts(), [(10, 0), (0, 0)]);
    assert_eq!(simulation.condition("Available")["reason"], "ExcludedByNamespace");
    simulation.steps(Duration::from_mins(1)).await;
    assert_eq!((simulation.counts(), simulation.evicted.len()), ([(10, 0), (0, 0)], 0), "no pod can move");

    let namespace = json!({"metadata": {"name": "shop", "annotations": {}}});
    simulation.server.put("/api/v1/namespaces/shop", namespace);
    simulation.until("balanced", |now| now.counts() == [(8, 0), (2, 0)]).await;
    assert_eq!(simulation.spot()["state"], "Open");
}
