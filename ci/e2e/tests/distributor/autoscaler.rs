//! An autoscaler that adds a fake node for a pod that no node takes, and removes nodes without pods.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e::cluster::{get, kubectl, output, run};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::distribution::{assert_exact, settled};
use crate::fixture::{AUTOSCALED, REPOSITORY, distributor, install, nodes, workload};

/// How long a pod is unschedulable before its node is added.
const PROVISIONING: Duration = Duration::from_secs(5);
/// How long a node is without pods before it is removed.
const EMPTY: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(500);

/// Serves the pods of one namespace in one group of nodes (label `type`) until it is dropped.
pub(crate) struct Autoscaler {
    state: Arc<Mutex<Capacity>>,
    group: &'static str,
    task: JoinHandle<()>,
}

/// The capacity of the cloud.
struct Capacity {
    nodes: usize,
    pods_per_node: usize,
}

impl Autoscaler {
    /// Begins without a node of the group. The cloud has so many nodes for so many pods each.
    pub(crate) async fn start(
        namespace: &str,
        group: &'static str,
        nodes: usize,
        pods_per_node: usize,
    ) -> Self {
        remove_nodes(group).await;
        let state = Arc::new(Mutex::new(Capacity { nodes, pods_per_node }));
        let task = tokio::spawn(scale(namespace.to_owned(), group, Arc::clone(&state)));
        Self { state, group, task }
    }

    /// The cloud has so many nodes from now on. Others are taken away at once, with their pods.
    pub(crate) async fn limit(&self, nodes: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).nodes = nodes;
        if nodes == 0 {
            remove_nodes(self.group).await;
        }
    }
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The names of the nodes of a group.
pub(crate) async fn node_names(group: &str) -> Vec<String> {
    let list = get(&["nodes", "-l", &format!("type={group}")]).await;
    let names = list["items"].as_array().into_iter().flatten();
    names.filter_map(|node| Some(node["metadata"]["name"].as_str()?.to_owned())).collect()
}

/// Removes the nodes of a group. Their pods are deleted with them, as by a cloud that takes its machines back.
pub(crate) async fn remove_nodes(group: &str) {
    for node in node_names(group).await {
        kubectl(&["delete", "node", &node, "--wait=false"]).await;
        let of_node = format!("--field-selector=spec.nodeName={node}");
        kubectl(&["delete", "pods", "-A", &of_node, "--grace-period=0", "--force", "--wait=false"]).await;
    }
}

async fn scale(namespace: String, group: &'static str, state: Arc<Mutex<Capacity>>) {
    let (mut waiting, mut empty): (BTreeMap<String, Instant>, BTreeMap<String, Instant>) = Default::default();
    let mut added = 0;
    loop {
        sleep(STEP).await;
        // The API server may be restarted meanwhile.
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let listed = run("kubectl", &["get", "--raw", &path], "").await;
        let Ok(pods) = serde_json::from_str::<Value>(&String::from_utf8_lossy(&listed.stdout)) else {
            continue;
        };
        let pods: Vec<&Value> = pods["items"].as_array().into_iter().flatten().collect();
        let unschedulable = pods.iter().filter(|pod| pod["spec"]["nodeSelector"]["type"] == group);
        let unschedulable: Vec<String> = unschedulable
            .filter(|pod| is_unschedulable(pod))
            .filter_map(|pod| Some(pod["metadata"]["uid"].as_str()?.to_owned()))
            .collect();
        waiting.retain(|uid, _| unschedulable.contains(uid));
        for uid in unschedulable {
            waiting.entry(uid).or_insert_with(Instant::now);
        }
        let names = node_names(group).await;
        let due = waiting.values().filter(|since| since.elapsed() >= PROVISIONING).count();
        let (most, pods_per_node) = {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.nodes, state.pods_per_node)
        };
        if due > 0 && names.len() < most {
            added += 1;
            let prefix = format!("{group}-scaled-{added}");
            let label = format!("type={group}");
            let capacity = pods_per_node.to_string();
            let labels = ["--label", &label, "--label", AUTOSCALED];
            let arguments = ["nodes", "1", "--prefix", &prefix, "--pods", &capacity, "--cpu", "1000"];
            let arguments = [&arguments[..], &labels].concat();
            output(&format!("{REPOSITORY}/ci/cluster"), &arguments, "").await;
            // The scheduler has had no time to use it.
            waiting.clear();
            continue;
        }
        let has_pods = |name: &String| pods.iter().any(|pod| pod["spec"]["nodeName"] == **name);
        empty.retain(|name, _| names.contains(name) && !has_pods(name));
        for name in names.into_iter().filter(|name| !has_pods(name)) {
            let since = *empty.entry(name.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= EMPTY && waiting.is_empty() {
                kubectl(&["delete", "node", &name, "--wait=false", "--ignore-not-found"]).await;
            }
        }
    }
}

pub(crate) fn is_unschedulable(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["spec"]["nodeName"].is_null()
        && conditions.any(|one| one["type"] == "PodScheduled" && one["reason"] == "Unschedulable")
}

/// The number of evictions that the webhook counts, of pods that waited and of pods that were moved.
pub(crate) async fn evictions(release: &e2e::release::Release) -> u32 {
    let mut sum = 0.0;
    for name in ["podshaper_distributor_take_backs_total", "podshaper_distributor_evictions_total"] {
        sum += release.metric(name).await.iter().map(|count| count.parse::<f64>().unwrap()).sum::<f64>();
    }
    sum as u32
}

#[tokio::test]
async fn group_without_nodes_gets_its_share_and_its_first_node() {
    nodes().await;
    let release = install("zero", &json!({})).await;
    let namespace = &*release.pods;
    let _autoscaler = Autoscaler::start(namespace, "spot", 2, 10).await;
    distributor(namespace, &json!({"name": "web"})).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
    assert_exact(&settled(namespace, 10).await, "from zero nodes");
    assert_eq!(node_names("spot").await.len(), 1);
    assert_eq!(evictions(&release).await, 0);
}
