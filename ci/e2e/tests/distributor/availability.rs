//! A group without nodes is closed. When its nodes are back, its pods return.

use std::collections::BTreeSet;

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl};
use serde_json::{Value, json};

use crate::autoscaler::evictions;
use crate::distribution::{assert_exact, pods, scale, settled, shares};
use crate::fixture::{condition, distributor, install, nodes, spot_nodes, status, workload};

/// The uids of all pods.
async fn uids(namespace: &str) -> BTreeSet<String> {
    let list = get(&["pods", "-n", namespace]).await;
    let pods = list["items"].as_array().unwrap().iter();
    pods.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn cordoned_group_closes_and_pods_return() {
    nodes().await;
    spot_nodes("uncordon").await;
    let release = install("lend", &json!({})).await;
    let namespace = &*release.pods;
    distributor(namespace, &json!({"name": "web"})).await;
    let rebalance = json!({"mode": "OnRecovery", "maxUnavailable": 1});
    let rebalance = json!({"spec": {"availability": "Nodes", "rebalance": rebalance}}).to_string();
    kubectl(&["patch", "poddistributor", "sample", "-n", namespace, "--type=merge", "-p", &rebalance]).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
    assert_exact(&settled(namespace, 10).await, "before");
    status(namespace, "8/2", |status| {
        status["pods"] == "8/2" && condition(status, "Balanced")["status"] == "True"
    })
    .await;

    spot_nodes("cordon").await;
    status(namespace, "unavailable", |status| condition(status, "Available")["status"] == "False").await;
    assert_eq!(shares(&scale(namespace, "deployment", 20).await), (18, 2), "the others stand in");
    let lent = status(namespace, "18/2", |status| status["pods"] == "18/2").await;
    assert_eq!((&lent["desired"], &lent["replicas"]), (&json!("16/4"), &json!(20)));
    assert_eq!(
        condition(&lent, "Balanced")["message"],
        "type=default has 2 too many, type=spot has 2 too few"
    );
    let mut spot = lent["groups"][1].clone();
    for field in ["since", "hash"] {
        assert!(spot.as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    assert_eq!(
        spot,
        json!({
            "name": "type=spot", "desired": 4, "actual": 2, "pending": 0, "deviation": -2, "available": false, "recovering": true,
            "state": "Closed", "reason": "NoNodes",
        })
    );

    // Back they go, one at a time, as the budget has it.
    apply(&json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"minAvailable": 19, "selector": {"matchLabels": {"app": "web"}}},
    }))
    .await;
    let before = uids(namespace).await;
    spot_nodes("uncordon").await;
    let back = eventually("16/4", PATIENCE * 2, async || {
        let pods = pods(namespace).await;
        let ready = pods.iter().filter(|pod| pod.ready && !pod.gone).count();
        assert!(ready >= 19, "one at a time: {ready}");
        (pods.len() == 20 && ready == 20 && shares(&pods) == (16, 4)).then_some(pods)
    })
    .await;
    assert_exact(&back, "all are back");
    status(namespace, "balanced", |status| condition(status, "Balanced")["status"] == "True").await;
    assert_eq!(before.difference(&uids(namespace).await).count(), 2, "as many as return were replaced");
    // The counter of a replica begins anew when its container restarts, and an eviction in flight when a leader loses its lease is not counted.
    let evictions = evictions(&release).await;
    assert!((1..=2).contains(&evictions), "and no more than need be: {evictions}");
    let events = kubectl(&["events", "-n", namespace, "--for=poddistributor/sample"]).await;
    for reason in ["GroupUnavailable", "GroupsAvailable", "Rebalance"] {
        assert!(events.contains(reason), "{reason}: {events}");
    }
    let ledger = eventually("the ledger tells", PATIENCE, async || {
        let ledgers = get(&["placements", "-n", namespace]).await;
        (ledgers["items"][0]["status"]["pods"] == "16/4").then(|| ledgers["items"][0].clone())
    })
    .await;
    assert_eq!(ledger["status"]["desired"], "16/4");
    kubectl(&[
        "delete",
        "deployment/web",
        "poddisruptionbudget/web",
        "-n",
        namespace,
        "--cascade=foreground",
    ])
    .await;
    settled(namespace, 0).await;

    // Nodes that are there and take no pod: after a while the others stand in.
    kubectl(&["taint", "node", "spot-1", "spot-2", "full=true:NoSchedule"]).await;
    let impatient = json!({
        "availability": "Pods", "unschedulableAfter": "3s", "takeBack": "Never", "rebalance": {"mode": "Never"},
    });
    let impatient = json!({"spec": impatient}).to_string();
    kubectl(&["patch", "poddistributor", "sample", "-n", namespace, "--type=merge", "-p", &impatient]).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
    let stuck =
        |status: &Value| status["pods"] == "8/2" && condition(status, "Available")["status"] == "False";
    status(namespace, "two pods wait for too long", stuck).await;
    kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=20"]).await;
    eventually("the others stand in", PATIENCE, async || {
        (shares(&pods(namespace).await) == (18, 2)).then_some(())
    })
    .await;
    kubectl(&["taint", "node", "spot-1", "spot-2", "full-"]).await;
    status(namespace, "they run", |status| condition(status, "Available")["status"] == "True").await;
}
