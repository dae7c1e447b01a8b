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
    cloud: Option<Cloud>,
}

/// An autoscaler of the group `spot`: it adds a node for a pod that has been unschedulable for five seconds, and removes all nodes when they
/// have had no pods for as long.
struct Cloud {
    /// The largest number of nodes.
    most: usize,
    pods_per_node: usize,
    nodes: usize,
    waiting: BTreeMap<String, tokio::time::Instant>,
    empty: Option<tokio::time::Instant>,
}

impl Cloud {
    const DELAY: Duration = Duration::from_secs(5);

    fn new(most: usize, pods_per_node: usize) -> Self {
        Self { most, pods_per_node, nodes: 0, waiting: BTreeMap::new(), empty: None }
    }
}

fn put_node(server: &InMemoryApiServer, name: &str, group: &str) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"type": group}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    server.put(&format!("/api/v1/nodes/{name}"), node);
}

fn remove_nodes(server: &InMemoryApiServer, cloud: &mut Cloud) {
    for node in 1..=cloud.nodes {
        server.delete(&format!("/api/v1/nodes/spot-{node}"));
    }
    (cloud.nodes, cloud.empty) = (0, None);
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
        Self {
            server,
            webhook,
            ending: end,
            capacity,
            replicas,
            created: 0,
            pod,
            evicted: Vec::new(),
            cloud: None,
        }
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
        self.autoscale();
    }

    fn autoscale(&mut self) {
        let pods = self.pods();
        let of_spot = || pods.iter().filter(|pod| pod["spec"]["nodeSelector"]["type"] == "spot");
        let Some(cloud) = &mut self.cloud else { return };
        let waiting = of_spot().filter(|pod| pod["spec"]["nodeName"].is_null());
        let waiting: Vec<String> = waiting.map(|pod| pod["metadata"]["uid"].to_string()).collect();
        cloud.waiting.retain(|uid, _| waiting.contains(uid));
        let now = tokio::time::Instant::now();
        for uid in waiting {
            cloud.waiting.entry(uid).or_insert(now);
        }
        if cloud.nodes < cloud.most && cloud.waiting.values().any(|since| since.elapsed() >= Cloud::DELAY) {
            cloud.nodes += 1;
            cloud.waiting.clear();
            put_node(&self.server, &format!("spot-{}", cloud.nodes), "spot");
        }
        let is_empty = cloud.nodes > 0 && cloud.waiting.is_empty() && of_spot().next().is_none();
        cloud.empty = is_empty.then(|| cloud.empty.unwrap_or(now));
        if cloud.empty.is_some_and(|since| since.elapsed() >= Cloud::DELAY) {
            remove_nodes(&self.server, cloud);
        }
        self.capacity.insert("spot", cloud.nodes * cloud.pods_per_node);
    }

    /// The cloud takes all spot nodes with their pods back, and has no others.
    fn withdraw(&mut self) {
        for pod in self.pods().iter().filter(|pod| pod["spec"]["nodeName"] == "spot") {
            self.server.delete(&format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap()));
        }
        if let Some(cloud) = &mut self.cloud {
            remove_nodes(&self.server, cloud);
            cloud.most = 0;
        }
        self.capacity.insert("spot", 0);
    }

    /// Ends the pause of a closed group. It counts by the clock of the system, which does not follow the paused time of the test.
    fn end_pause(&self) {
        let mut groups = self.server.get(DISTRIBUTOR)["status"]["groups"].clone();
        assert_eq!(groups[1]["state"], "Closed");
        groups[1]["nextProbe"] = json!("2026-01-01T00:00:00Z");
        self.server.patch(DISTRIBUTOR, &json!({"status": {"groups": groups}}));
    }

    fn uids(&self) -> Vec<Value> {
        let running = self.pods().into_iter().filter(|pod| pod["spec"]["nodeName"].is_string());
        running.map(|pod| pod["metadata"]["uid"].clone()).collect()
    }

    fn schedule(&self, pod: &Value) {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        let group = pod["spec"]["nodeSelector"]["type"].as_str().unwrap_or("default");
        let fits_nowhere = pod["metadata"]["labels"]["size"] == "huge";
        if pod["spec"]["schedulingGates"].is_array() {
            return;
        }
        let [default, spot] = self.counts();
        let running = if group == "spot" { spot.0 } else { default.0 };
        if running < self.capacity[group] && !fits_nowhere {
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
        let status = self.server.get(DISTRIBUTOR)["status"].clone();
        let evicted = self.evicted.len();
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
    let settings =
        ClusterSettings { evictions, reads_namespaces: true, series: PodSeries::Sums, bare_pods: false };
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

#[tokio::test(start_paused = true)]
async fn pods_that_wait_for_long_are_reported() {
    let mut simulation =
        Simulation::start(10, &json!({"whenUnavailable": "Wait", "unschedulableAfter": null}), json!({}))
            .await;
    simulation.step().await;
    simulation.steps(Duration::from_mins(9)).await;
    assert_eq!(simulation.condition("PodsUnschedulable"), Value::Null);
    simulation.until("reported", |now| now.condition("PodsUnschedulable")["status"] == "True").await;
    let message = simulation.condition("PodsUnschedulable")["message"].to_string();
    assert!(message.contains("2 of spot"), "{message}");
    simulation.capacity.insert("spot", 2);
    simulation.until("no more", |now| now.condition("PodsUnschedulable").is_null()).await;
}

#[tokio::test(start_paused = true)]
async fn removed_deletion_costs_are_reported() {
    let mut simulation = Simulation::start(10, &json!({}), json!({})).await;
    simulation.capacity.insert("spot", 100);
    simulation.until("balanced", |now| now.condition("Balanced")["reason"] == "Exact").await;
    let pods = simulation.pods();
    let path = |pod: &Value| format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
    let cost = |cost: Value| json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
    for pod in &pods {
        simulation.server.patch(&path(pod), &cost(Value::Null));
    }
    simulation.until("reported", |now| now.condition("DeletionCostsRemoved")["status"] == "True").await;
    let message = simulation.condition("DeletionCostsRemoved")["message"].to_string();
    assert!(message.contains("deletion cost of 10 pods"), "{message}");
    for pod in &pods {
        simulation.server.patch(&path(pod), &cost(json!("7")));
    }
    simulation.until("no more", |now| now.condition("DeletionCostsRemoved").is_null()).await;
}

#[tokio::test(start_paused = true)]
async fn object_that_runs_pods_in_place_of_the_target_is_named() {
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}});
    let deployment = "/apis/apps/v1/namespaces/shop/deployments/web";
    // Flagger.
    let mut simulation = Simulation::start(0, &json!({}), json!({})).await;
    simulation.server.put(&format!("{deployment}-primary"), of_namespace(json!({"spec": {"replicas": 3}})));
    simulation.server.patch(deployment, &selector);
    simulation.until("named", |now| now.condition("Ready")["reason"] == "NoOwnPods").await;
    let message = simulation.condition("Ready")["message"].to_string();
    assert!(message.contains("Deployment web-primary has them"), "{message}");
    assert_eq!(simulation.condition("Balanced")["reason"], "NoPods");

    // A Rollout with a workloadRef: its pods have the labels of the Deployment.
    let mut simulation = Simulation::start(0, &json!({}), json!({})).await;
    let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "rollout", "controller": true});
    let set = json!({"metadata": {"uid": "other", "ownerReferences": [rollout]}});
    simulation.server.put(&format!("{SETS}/web-r"), of_namespace(set));
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-r", "uid": "other", "controller": true});
    let pod = json!({"metadata": {"labels": {"app": "web"}, "ownerReferences": [owner]}, "spec": {}, "status": {"phase": "Running"}});
    simulation.server.put(&format!("{PODS}/web-r-1"), of_namespace(pod));
    simulation.replicas = 1;
    simulation.server.patch(deployment, &selector);
    let reason = |now: &Simulation| now.condition("Ready")["reason"] == "NoOwnPods";
    let looks = async {
        while !reason(&simulation) {
            sleep(STEP).await;
        }
    };
    timeout(Duration::from_mins(10), looks).await.unwrap();
    let message = simulation.condition("Ready")["message"].to_string();
    assert!(message.contains("Rollout web of argoproj.io/v1alpha1 has them"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn owner_that_may_not_be_read_is_reported() {
    let kind = |plural: &str, kind: &str| json!({"groupVersion": "", "resources": [{"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": []}]});
    let mut simulation = Simulation::start(3, &json!({}), json!({})).await;
    let server = &simulation.server;
    server.put("/apis/farms.example.com/v1", kind("farms", "Farm"));
    server.put("/apis/barns.example.com/v1", kind("barns", "Barn"));
    server.put(
        "/apis/farms.example.com/v1/namespaces/shop/farms/web",
        of_namespace(json!({"metadata": {"uid": "farm"}})),
    );
    // The owner of the ReplicaSet belongs to the target, but only that object shows it.
    let barn = json!({"apiVersion": "barns.example.com/v1", "kind": "Barn", "name": "barn", "uid": "barn", "controller": true});
    server.patch(&format!("{SETS}/web-1"), &json!({"metadata": {"ownerReferences": [barn]}}));
    server.fail("/apis/barns.example.com/v1/namespaces", 403, "Forbidden");
    let target = json!({"apiVersion": "farms.example.com/v1", "kind": "Farm", "name": "web"});
    server.patch(DISTRIBUTOR, &json!({"spec": {"target": target}}));
    simulation.until("reported", |now| now.condition("OwnersUnreadable")["status"] == "True").await;
    let message = simulation.condition("OwnersUnreadable")["message"].to_string();
    assert!(message.contains("Barn barn of barns.example.com/v1"), "{message}");
    assert_eq!(simulation.condition("Balanced")["status"], "Unknown");
}

#[tokio::test(start_paused = true)]
async fn group_without_nodes_gets_its_share_and_its_first_node() {
    let mut simulation = Simulation::start(10, &json!({"unschedulableAfter": "15s"}), json!({})).await;
    simulation.cloud = Some(Cloud::new(2, 10));
    // Nights at zero: the autoscaler removes the nodes, and the next day begins without one.
    for day in 0..10 {
        simulation.scale(10).await;
        simulation.until("8/2", |now| now.counts() == [(8, 0), (2, 0)]).await;
        assert_eq!(simulation.spot()["state"], "Open", "day {day}");
        simulation.scale(0).await;
        simulation.until("no node", |now| now.capacity["spot"] == 0).await;
    }
    assert!(simulation.evicted.is_empty());
}

#[tokio::test(start_paused = true)]
async fn withdrawn_capacity_is_replaced_in_time_and_returns_at_rest() {
    let spec = json!({"unschedulableAfter": "15s", "rebalance": {"mode": "OnRecovery"}});
    let mut simulation = Simulation::start(10, &spec, json!({})).await;
    simulation.cloud = Some(Cloud::new(2, 10));
    simulation.until("8/2", |now| now.counts() == [(8, 0), (2, 0)]).await;

    simulation.withdraw();
    let withdrawn = tokio::time::Instant::now();
    simulation.until("all run", |now| now.counts() == [(10, 0), (0, 0)]).await;
    assert!(withdrawn.elapsed() <= Duration::from_secs(15 + 60), "{:?}", withdrawn.elapsed());
    let evicted = simulation.evicted.len();
    assert_eq!(evicted, 2, "the pods that waited");

    // Capacity returns. Nothing waits for it, and no pod is created: one pod is evicted to try the group.
    simulation.cloud = Some(Cloud::new(2, 10));
    simulation.end_pause();
    simulation
        .until("8/2 again", |now| {
            let [default, spot] = now.counts();
            assert!(default.0 + spot.0 >= 9, "one at a time: {:?}", now.counts());
            now.counts() == [(8, 0), (2, 0)]
        })
        .await;
    assert_eq!(simulation.evicted.len() - evicted, 2, "as many as return");
    simulation.until("open", |now| now.condition("Available")["status"] == "True").await;
}

#[tokio::test(start_paused = true)]
async fn room_for_a_part_is_used_and_probes_become_rare() {
    let spec = json!({"unschedulableAfter": "15s", "rebalance": {"mode": "OnRecovery"}});
    let mut simulation = Simulation::start(20, &spec, json!({})).await;
    // Four pods belong there.
    simulation.cloud = Some(Cloud::new(1, 2));
    simulation.until("18/2", |now| now.counts() == [(18, 0), (2, 0)]).await;
    simulation.until("closed", |now| now.spot()["state"] == "Closed").await;
    let evicted = simulation.evicted.len();
    for probe in 1..=3 {
        simulation.end_pause();
        simulation.until("a probe", |now| now.evicted.len() > evicted + 2 * (probe - 1)).await;
        simulation.until("18/2 again", |now| now.counts() == [(18, 0), (2, 0)]).await;
        simulation.steps(Duration::from_mins(4)).await;
        // One eviction for the probe, and one that takes it back.
        assert_eq!(simulation.evicted.len(), evicted + 2 * probe);
        assert_eq!(simulation.spot()["failedProbes"], probe);
    }
}

#[tokio::test(start_paused = true)]
async fn only_pod_is_never_evicted() {
    let spec = json!({
        "unschedulableAfter": "15s", "rebalance": {"mode": "Always"},
        "distribution": [
            {"name": "default", "nodeLabel": {"type": "default"}, "standIn": true},
            {"name": "spot", "nodeLabel": {"type": "spot"}, "weight": 1},
        ],
    });
    let mut simulation = Simulation::start(1, &spec, json!({})).await;
    simulation.until("it runs", |now| now.counts() == [(1, 0), (0, 0)]).await;
    let pods = simulation.uids();
    let evicted = simulation.evicted.len();
    simulation.cloud = Some(Cloud::new(2, 10));
    simulation.until("closed", |now| now.spot()["state"] == "Closed").await;
    simulation.end_pause();
    simulation.until("probing", |now| now.spot()["state"] == "Probing").await;
    simulation.steps(Duration::from_mins(5)).await;
    assert_eq!((simulation.uids(), simulation.evicted.len()), (pods, evicted));
}

#[tokio::test(start_paused = true)]
async fn pod_that_fits_nowhere_moves_no_other() {
    let spec = json!({"unschedulableAfter": "15s", "rebalance": {"mode": "Always"}});
    let mut simulation = Simulation::start(10, &spec, json!({})).await;
    simulation.cloud = Some(Cloud::new(2, 10));
    simulation.until("8/2", |now| now.counts() == [(8, 0), (2, 0)]).await;
    let pods = simulation.uids();
    simulation.pod = json!({"metadata": {"labels": {"size": "huge"}}});
    simulation.scale(11).await;
    simulation.steps(Duration::from_mins(5)).await;
    assert_eq!(simulation.uids(), pods, "no other pod has moved");
    assert!(simulation.evicted.len() <= 1, "{:?}", simulation.evicted);
}

/// Puts a distributor, its Deployment, and one placed pod.
fn put_workload(server: &InMemoryApiServer, number: usize) {
    let name = format!("web-{number}");
    let owner = |kind: &str, uid: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {"spec": {"containers": []}}});
    let deployment = json!({"metadata": {"uid": name}, "spec": spec, "status": {"replicas": 1}});
    server.put(&format!("/apis/apps/v1/namespaces/shop/deployments/{name}"), of_namespace(deployment));
    let set_uid = format!("set-{number}");
    let metadata = json!({"uid": set_uid, "ownerReferences": owner("Deployment", &name)});
    server.put(
        &format!("{SETS}/{name}"),
        of_namespace(json!({"metadata": metadata, "spec": spec, "status": {"replicas": 1}})),
    );
    let annotations = json!({
        "placement.podshaper.dev/owner": set_uid, "placement.podshaper.dev/token": format!("{number:016x}"),
        "placement.podshaper.dev/slot": "0", "placement.podshaper.dev/group": "default",
    });
    let labels = json!({"app": name, "podshaper.dev/placed": "distributor"});
    let pod = json!({
        "metadata": {"uid": format!("pod-{number}"), "labels": labels, "annotations": annotations, "ownerReferences": owner("ReplicaSet", &set_uid)},
        "spec": {"nodeName": "default-1", "nodeSelector": {"type": "default"}, "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    server.put(&format!("{PODS}/{name}"), of_namespace(pod));
    let mut distributor = server.get(DISTRIBUTOR);
    distributor["metadata"] =
        json!({"name": name, "namespace": "shop", "uid": format!("distributor-{number}")});
    distributor["spec"]["target"]["name"] = json!(name);
    distributor["status"] = json!({});
    server.put(
        &format!("/apis/versprei.versprei.io/v1beta1/namespaces/shop/poddistributors/{name}"),
        distributor,
    );
}

#[tokio::test(start_paused = true)]
async fn many_distributors_at_rest_cost_at_most_five_requests_a_second() {
    // A thousand take a minute of CPU time.
    let distributors = if std::env::var_os("PODSHAPER_MODEL_LONG").is_some() { 1000 } else { 100 };
    let simulation = Simulation::start(0, &json!({}), json!({})).await;
    let server = &simulation.server;
    for number in 0..distributors {
        put_workload(server, number);
    }
    sleep(Duration::from_mins(1)).await;
    // Each of a thousand targets is read after 430 s.
    let before = server.calls().len();
    let time = Duration::from_mins(8);
    sleep(time).await;
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for call in server.calls().iter().skip(before) {
        let kind = call.path.rsplit('/').nth(usize::from(!call.path.contains('?'))).unwrap_or_default();
        *kinds.entry(format!("{} {kind}", call.method)).or_default() += 1;
    }
    println!("requests in {time:?}: {kinds:?}");
    assert!(kinds["GET deployments"] >= distributors, "each target is read: {kinds:?}");
    let requests: usize = kinds.values().sum();
    assert!(requests as u64 <= 5 * time.as_secs(), "more than 5 requests a second: {kinds:?}");
}
