//! A selector as the target: pods of many workloads, and pods without a controller.

use e2e::cluster::{apply, create, get};
use serde_json::{Value, json};

use crate::fixture::{condition, distributor, install, nodes, status, template};

/// A pod that nothing owns.
fn bare_pod(namespace: &str, name: &str) -> Value {
    let mut pod = template();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    pod
}

#[tokio::test]
async fn selector_shares_out_pods_of_all_workloads_and_of_none() {
    nodes().await;
    let release = install("selector", &json!({"barePods": true})).await;
    let namespace = &*release.pods;
    // It is there before the PodDistributor, and counts by its node.
    create(&bare_pod(namespace, "before"), &[]).await.unwrap();
    distributor(namespace, &json!({"selector": {"matchLabels": {"app": "web"}}})).await;
    status(namespace, "the pod from before", |status| status["placed"] == 1).await;
    for number in 0..5 {
        let metadata = json!({"name": format!("web-{number}"), "namespace": namespace});
        let selector = json!({"matchLabels": {"app": "web", "number": number.to_string()}});
        let mut template = template();
        template["metadata"]["labels"]["number"] = json!(number.to_string());
        let spec = json!({"replicas": 1, "selector": selector, "template": template});
        apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}))
            .await;
    }
    for number in 0..4 {
        let placed = create(&bare_pod(namespace, &format!("bare-{number}")), &[]).await.unwrap();
        assert!(placed["spec"]["nodeSelector"]["type"].is_string(), "{placed:#}");
    }
    let exact = status(namespace, "ten exact pods", |status| {
        status["placed"] == 10 && status["unplaced"] == 0 && condition(status, "Balanced")["status"] == "True"
    })
    .await;
    assert_eq!((&exact["pods"], &exact["target"]), (&json!("8/2"), &json!("app=web")));
    let pods = get(&["pods", "-n", namespace]).await;
    let selects_group = |pod: &&Value| pod["spec"]["nodeSelector"]["type"].is_string();
    let placed = pods["items"].as_array().unwrap().iter().filter(selects_group).count();
    assert_eq!(placed, 9, "the pod from before stays as it is");
    let placements = get(&["placements", "-n", namespace]).await;
    let owner = &placements["items"][0]["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("PodDistributor"), &json!("sample")));
}
