//! A pod through the real server and an API server in memory. `ci/request-path` lists the files that its review passes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use clap::Parser;
use distributor::cluster::{ClusterSettings, DistributorCluster, EvictionSettings};
use distributor_decision::DistributorWebhook;
use e2e::in_process::answer;
use podshaper_core::admission::Webhook;
use podshaper_kube::replica::Replica;
use podshaper_placement_kube::PodSeries;
use podshaper_testing::InMemoryApiServer;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const NAMESPACE: &str = "/namespaces/shop";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    replica: Replica,
}

/// A Deployment of ten pods, its ReplicaSet, a PodDistributor for it, and a node of each group.
fn cluster() -> InMemoryApiServer {
    let server = InMemoryApiServer::default();
    for group in ["default", "spot"] {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": group, "uid": group, "labels": {"type": group}},
            "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        server.put(&format!("/api/v1/nodes/{group}"), node);
    }
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "deployment"}, "spec": {"replicas": 10},
    });
    server.put(&format!("/apis/apps/v1{NAMESPACE}/deployments/web"), deployment);
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "deployment", "controller": true});
    let replica_set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "replicaset", "ownerReferences": [owner]},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 0},
    });
    server.put(&format!("/apis/apps/v1{NAMESPACE}/replicasets/web-1"), replica_set);
    let distributor = json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": "web", "namespace": "shop", "uid": "distributor", "generation": 1},
        "spec": {
            "distribution": [
                {"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20},
            ],
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        },
    });
    server.put(&format!("/apis/versprei.versprei.io/v1beta1{NAMESPACE}/poddistributors/web"), distributor);
    server
}

fn review(uid: &str) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "replicaset", "controller": true});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": uid, "operation": "CREATE", "namespace": "shop",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "object": {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "web-1-", "labels": {"app": "web"}, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "web", "image": "web"}]},
        },
    }})
}

#[tokio::test]
async fn pod_is_placed() {
    let server = cluster();
    let replica = Flags::parse_from(["distributor"]).replica;
    let (_end, ending) = watch::channel(false);
    let evictions = EvictionSettings { enabled: true, replacing: vec![], excluded_namespaces: vec![] };
    let webhook = DistributorWebhook::new(DistributorCluster::start(
        &server.client(),
        &replica,
        ClusterSettings { evictions, reads_namespaces: true, series: PodSeries::Sums, bare_pods: false },
        &mut Registry::default(),
        ending,
    ));
    let ready = async {
        while webhook.not_ready().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), ready).await.unwrap();
    for answer in answer(webhook, "/mutate", &["1", "2", "3"].map(review)).await {
        assert_eq!(answer["response"]["patchType"], "JSONPatch", "{answer}");
    }
}
