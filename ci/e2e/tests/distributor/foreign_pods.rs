//! Pods and distributors that others have made.

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl};
use serde_json::{Value, json};

use crate::distribution::{SLOT, TOKEN, assert_exact, nothing_reserved, pods, reserved, settled};
use crate::fixture::{condition, distributor, install, nodes, spot_nodes, status, workload};

#[tokio::test]
async fn older_pods_count_and_second_distributor_is_superseded() {
    nodes().await;
    spot_nodes("uncordon").await;
    let release = install("before", &json!({})).await;
    let namespace = &*release.pods;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 3})).await;
    eventually("three pods", PATIENCE, async || (pods(namespace).await.len() == 3).then_some(())).await;
    distributor(namespace, &json!({"name": "web"})).await;
    // They count in the groups of their nodes.
    let adopted = |count: u64| {
        move |status: &Value| {
            status["placed"] == count && status["unplaced"].as_u64().unwrap_or_default() == 0
        }
    };
    status(namespace, "three adopted", adopted(3)).await;
    kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=10"]).await;
    status(namespace, "ten in groups", adopted(10)).await;
    // A rollout replaces them by pods that are placed at their creation.
    kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await;
    kubectl(&["rollout", "status", "-n", namespace, "deployment/web", "--timeout=120s"]).await;
    eventually("the adopted pods are gone", PATIENCE, async || {
        let all = get(&["pods", "-n", namespace]).await;
        (all["items"].as_array().unwrap().len() == 10).then_some(())
    })
    .await;
    assert_exact(&settled(namespace, 10).await, "ten");
    kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=5"]).await;
    eventually("the placed stay", PATIENCE, async || {
        let pods = pods(namespace).await;
        (pods.len() == 5 && pods.iter().all(|pod| pod.group.is_some())).then(|| assert_exact(&pods, "five"))
    })
    .await;

    // A copy is another pod, regardless of its annotations. A dry run has no side effect.
    let mut copy = get(&["pods", "-n", namespace]).await["items"][0].clone();
    let token = copy["metadata"]["annotations"][TOKEN].clone();
    copy["metadata"]["name"] = json!("copy");
    for field in ["resourceVersion", "uid", "creationTimestamp"] {
        copy["metadata"].as_object_mut().unwrap().remove(field);
    }
    copy["spec"].as_object_mut().unwrap().remove("nodeName");
    let copied = create(&copy, &[]).await.unwrap();
    assert_ne!(copied["metadata"]["annotations"][TOKEN], token);
    assert_ne!(copied["metadata"]["annotations"][SLOT], copy["metadata"]["annotations"][SLOT]);
    settled(namespace, 5).await;
    nothing_reserved(namespace).await;
    copy["metadata"]["annotations"] = json!({});
    let dry = create(&copy, &["--dry-run=server"]).await.unwrap();
    assert!(dry["metadata"]["annotations"][SLOT].is_string());
    assert!(reserved(namespace).await.values().all(|count| *count == 0));

    let mut rival = get(&["poddistributor", "sample", "-n", namespace]).await;
    rival["metadata"] = json!({"name": "rival", "namespace": namespace});
    rival["spec"]["distribution"][0]["weight"] = json!(1);
    apply(&rival).await;
    let mut lost = rival.clone();
    lost["metadata"]["name"] = json!("lost");
    lost["spec"]["target"]["name"] = json!("nobody");
    apply(&lost).await;
    for (name, reason) in [("rival", "Superseded"), ("lost", "TargetNotFound"), ("sample", "Placing")] {
        eventually(reason, PATIENCE, async || {
            let status = get(&["poddistributor", name, "-n", namespace]).await["status"].clone();
            (condition(&status, "Ready")["reason"] == reason).then_some(())
        })
        .await;
    }
}
