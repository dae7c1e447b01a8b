//! Commands with `architecturesFrom: Cluster`, and with the nodes of a cluster in files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::registry::{Registry, index, ok};
use support::server::{BINARY, file, flag};
use tokio::process::Command;

const ARCH: &str = "kubernetes.io/arch";

async fn arch(settings: &Value, objects: &[Value], arguments: &[&str]) -> Output {
    let settings = file(&settings.to_string());
    let facts = file(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    let mut command = Command::new(BINARY);
    command.args(arguments).arg(flag("config", settings.path()));
    if !objects.is_empty() {
        command.arg(flag("facts", facts.path()));
    }
    command.env("HOME", "/nonexistent").output().await.unwrap()
}

fn text(output: &Output) -> (String, String) {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap()).into()
}

fn cluster() -> [Value; 3] {
    let taint = json!({"key": ARCH, "value": "arm64", "effect": "NoSchedule"});
    let control_plane = json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"});
    let conditions = json!([{"type": "Ready", "status": "False"}]);
    let node = |name: &str, architecture: &str, taints: Value| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {ARCH: architecture}},
            "spec": {"taints": taints}, "status": {"conditions": conditions}})
    };
    let requirement = json!({"key": ARCH, "operator": "In", "values": ["arm64"]});
    let template = json!({"spec": {"requirements": [requirement], "taints": [taint]}});
    [
        node("control-plane", "arm64", json!([control_plane])),
        node("worker", "amd64", json!([])),
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "arm"}, "spec": {"template": template}}),
    ]
}

#[tokio::test]
async fn explain_names_the_source_of_each_architecture() {
    let settings = json!({"architecturesFrom": "Cluster", "architectures": {"s390x": {}}});
    let output = arch(&settings, &cluster(), &["explain"]).await;
    let (table, problems) = text(&output);
    assert!(output.status.success(), "{problems}");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[1..],
        [
            vec!["s390x", "architectures"],
            vec!["amd64", "node", "worker"],
            vec!["arm64", "kubernetes.io/arch=arm64:NoSchedule", "node", "control-plane;", "NodePool", "arm"],
        ]
    );
    let output = arch(&settings, &cluster(), &["explain", "--output=json"]).await;
    let items: Value = serde_json::from_str(&text(&output).0).unwrap();
    assert_eq!(
        items[2],
        json!({"architecture": "arm64", "taints": ["kubernetes.io/arch=arm64:NoSchedule"], "from": "node control-plane; NodePool arm"})
    );
}

#[tokio::test]
async fn pod_is_decided_by_the_architectures_of_the_cluster() {
    let registry = Registry::start(|asked| async move {
        let platforms: &[&str] =
            if asked.path.contains("/both/") { &["linux/amd64", "linux/arm64"] } else { &["linux/s390x"] };
        ok(&asked, index(platforms))
    })
    .await;
    let settings = json!({"architecturesFrom": "Cluster", "registries": {"plainHttp": [registry.host()]}});
    let pod = |image: &str| {
        let container = json!({"name": "main", "image": format!("{}/{image}:1", registry.host())});
        file(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}).to_string())
    };
    let both = pod("both");
    let output =
        arch(&settings, &cluster(), &["mutate", "--output=patch", &flag("filename", both.path())]).await;
    let (patch, problems) = text(&output);
    assert!(output.status.success() && problems.is_empty(), "{problems}");
    assert!(patch.contains(r#""key":"kubernetes.io/arch","operator":"Equal","value":"arm64""#), "{patch}");
    assert!(!patch.contains("control-plane"), "{patch}");
    let other = pod("other");
    let output =
        arch(&settings, &cluster(), &["mutate", "--output=patch", &flag("filename", other.path())]).await;
    let (patch, problems) = text(&output);
    assert!(output.status.success() && patch.trim() == "[]" || patch.is_empty(), "{patch} {problems}");
    assert!(
        problems.contains("no architecture that nodes of the cluster have runs all images, of amd64, arm64"),
        "{problems}"
    );
}

#[tokio::test]
async fn facts_without_effect_are_an_error() {
    let output = arch(&json!({}), &cluster(), &["explain"]).await;
    let (_, problems) = text(&output);
    assert!(!output.status.success());
    assert!(
        problems.contains("--facts has no effect: the configuration lacks architecturesFrom: Cluster"),
        "{problems}"
    );
}

#[tokio::test]
async fn no_nodes_are_a_warning() {
    let pod =
        file(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}"#);
    let settings = json!({"architecturesFrom": "Cluster"});
    let output = arch(&settings, &[], &["mutate", &flag("filename", pod.path())]).await;
    let (_, problems) = text(&output);
    assert!(problems.contains("--facts names no Node or NodePool"), "{problems}");
}
