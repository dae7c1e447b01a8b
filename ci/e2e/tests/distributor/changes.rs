//! Changes of a PodDistributor while pods run.

use e2e::cluster::{apply, get};
use serde_json::json;

use crate::distribution::{assert_exact, nothing_reserved, scale, settled, shares};
use crate::fixture::{distributor, install, nodes, spot_nodes, status, workload};

#[tokio::test]
async fn changed_weights_apply_to_new_pods() {
    nodes().await;
    spot_nodes("uncordon").await;
    let release = install("weights", &json!({})).await;
    let namespace = &*release.pods;
    distributor(namespace, &json!({"name": "web"})).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
    assert_exact(&settled(namespace, 10).await, "before");
    let mut sample = get(&["poddistributor", "sample", "-n", namespace]).await;
    let metadata = json!({"name": "sample", "namespace": namespace});
    (sample["metadata"], sample["status"]) = (metadata, json!({}));
    for group in 0..2 {
        sample["spec"]["distribution"][group]["weight"] = json!(1);
    }
    apply(&sample).await;
    status(namespace, "the new weights", |status| status["pods"] == "8/2" && status["desired"] == "5/5")
        .await;
    // The group that has too few comes first; nothing that runs is touched.
    assert_eq!(shares(&scale(namespace, "deployment", 14).await), (8, 6));
    assert_eq!(shares(&scale(namespace, "deployment", 30).await), (15, 15));
    nothing_reserved(namespace).await;
}
