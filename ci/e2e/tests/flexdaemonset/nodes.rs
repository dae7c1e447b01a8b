//! Real and fake nodes.

use e2e::cluster::{apply, get, output};
use serde_json::{Value, json};

use super::REPOSITORY;

/// Creates a node without a kubelet, `PREFIX-1`. In ci/cluster kwok acts as its kubelet; elsewhere its pods are created and
/// bound, but don't run.
pub(super) async fn fake_node(prefix: &str, cpu: &str, memory: &str, storage: &str) -> String {
    let name = format!("{prefix}-1");
    if std::env::var_os("PODSHAPER_CLUSTER").is_some() {
        let nodes = format!("{REPOSITORY}/ci/cluster");
        let amounts = ["--cpu", cpu, "--memory", memory, "--ephemeral-storage", storage];
        output(&nodes, &[&["nodes", "1", "--prefix", prefix], &amounts[..]].concat(), "").await;
    } else {
        let amounts = json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage, "pods": "110"});
        apply(&node(&name, amounts)).await;
    }
    name
}

pub(super) fn node(name: &str, allocatable: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": allocatable, "allocatable": allocatable},
    })
}

/// Deletes the nodes when it is dropped.
pub(super) struct Nodes(pub(super) Vec<String>);

impl Drop for Nodes {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl")
            .args(["delete", "node", "--ignore-not-found"])
            .args(&self.0)
            .output();
    }
}

pub(super) async fn real_node() -> String {
    let nodes = get(&["nodes"]).await;
    let real = nodes["items"].as_array().unwrap().iter().find(|node| {
        node["metadata"]["annotations"]["kwok.x-k8s.io/node"].is_null()
            && node["status"]["nodeInfo"]["kubeletVersion"]
                .as_str()
                .is_some_and(|version| !version.is_empty())
    });
    real.expect("a node with a kubelet")["metadata"]["name"].as_str().unwrap().to_owned()
}

/// `daemon_set` with a node affinity for these nodes.
pub(super) fn confined(mut daemon_set: Value, nodes: &[String]) -> Value {
    daemon_set["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]},
        ]},
    }});
    daemon_set
}
