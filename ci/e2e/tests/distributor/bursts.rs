//! A Deployment through its life.

use std::collections::BTreeMap;
use std::time::Instant;

use e2e::cluster::{PATIENCE, eventually, get, kubectl, output};
use serde_json::json;

use crate::distribution::{
    Pod, assert_exact, assert_near, nothing_reserved, pods, reserved, scale, settled, shares,
};
use crate::fixture::{distributor, install, nodes, rounds, starting_deployment};

#[tokio::test]
async fn deployment_keeps_exact_shares_until_deletion() {
    nodes().await;
    let release = install("spread", &json!({})).await;
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;
    let namespace = &*release.pods;
    distributor(namespace, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"})).await;
    for round in 0..rounds() {
        starting_deployment(namespace).await;
        assert_exact(&settled(namespace, 10).await, "10");
        // Larger bursts need release binaries: on a small machine the API server is otherwise busy for longer than the webhook's timeout.
        let bursts = if rounds() > 1 { 2 } else { 1 };
        for count in [100, 500].into_iter().take(bursts) {
            let begun = Instant::now();
            let before = ledger_writes().await;
            assert_exact(&scale(namespace, "deployment", count).await, &format!("{count}"));
            let (took, [writes, lost]) = (begun.elapsed(), ledger_writes().await);
            let writes = writes - before[0];
            let lost = lost - before[1];
            println!(
                "round {round}: {count} pods after {took:?}, {writes} writes of the ledger, {lost} of them lost"
            );
            // Of each of three replicas one in 20 ms, and two for each of at most nine batches, each twice the one before.
            assert!(u128::from(writes) <= 3 * (took.as_millis() / 20 + 2 * 9), "{writes} writes");
        }
        for count in [37, 5] {
            assert_near(shares(&scale(namespace, "deployment", count).await), &format!("down to {count}"));
        }
        scale(namespace, "deployment", 40).await;
        rollout(namespace, 40).await;
        nothing_reserved(namespace).await;
        kubectl(&["delete", "deployment/web", "-n", namespace, "--cascade=foreground"]).await;
        settled(namespace, 0).await;
    }
    // Ledgers go with their owners.
    eventually("no ledger", PATIENCE, async || reserved(namespace).await.is_empty().then_some(())).await;
    assert!(
        release.metric("podshaper_distributor_decisions_total").await.len() >= 3,
        "each replica has placed some"
    );
}

/// While a Deployment is rolled out, each revision is within one pod of its shares, whenever its controller isn't amid a batch.
async fn rollout(namespace: &str, count: usize) {
    kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await;
    let begun = Instant::now();
    let mut looked = 0;
    loop {
        let sets = get(&["replicasets", "-n", namespace]).await;
        let pods = pods(namespace).await;
        let mut revisions: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.gone) {
            revisions.entry(&pod.owner).or_default().push(pod);
        }
        for set in sets["items"].as_array().unwrap() {
            let pods = revisions.remove(set["metadata"]["name"].as_str().unwrap()).unwrap_or_default();
            if set["spec"]["replicas"] == pods.len() && !pods.is_empty() {
                assert_near(shares(pods.iter().copied()), "amid a rollout");
                looked += 1;
            }
        }
        let deployment = get(&["deployment", "web", "-n", namespace]).await;
        let status = &deployment["status"];
        let done = deployment["metadata"]["generation"] == status["observedGeneration"]
            && [&status["updatedReplicas"], &status["replicas"], &status["availableReplicas"]]
                .iter()
                .all(|number| **number == count);
        if done {
            break;
        }
        assert!(begun.elapsed() < PATIENCE * 2, "the rollout ends: {status}");
    }
    println!("a rollout of {count}, looked at {looked} times");
    assert!(looked > 2, "it was looked at");
    assert_exact(&settled(namespace, count).await, "at the end of a rollout");
}

/// How often somebody has written a ledger, or tried to, and how often that was lost, as the API server counts it.
async fn ledger_writes() -> [u64; 2] {
    let metrics = kubectl(&["get", "--raw", "/metrics"]).await;
    let written = |line: &&str| {
        let is = |label: &str| line.contains(label);
        line.starts_with("apiserver_request_total{")
            && is("resource=\"placements\"")
            && is("subresource=\"\"")
            && (is("verb=\"PATCH\"") || is("verb=\"POST\""))
    };
    let count = |lost: bool| {
        let lines = metrics.lines().filter(written).filter(|line| !lost || line.contains("code=\"409\""));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
    };
    [count(false), count(true)]
}
