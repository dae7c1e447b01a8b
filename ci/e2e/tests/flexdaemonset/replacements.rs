//! Pods that a refit replaces, and pods that it must not replace.

use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, eventually, kubectl};
use serde_json::{Value, json};

use super::fixture::{
    daemon_set, exclude_namespace, install, one_container, pod_on, pods, progressing, reconciled_again,
    requests, status, template,
};
use super::nodes::{Nodes, confined, fake_node};

/// Two nodes with 4 cores.
async fn two_nodes(prefix: &str) -> Nodes {
    let mut nodes = Nodes(Vec::new());
    for index in 0..2 {
        nodes.0.push(fake_node(&format!("{prefix}-{index}"), "4", "8Gi", "10Gi").await);
    }
    nodes
}

async fn uids(namespace: &str) -> Vec<Value> {
    let pods = pods(namespace).await.into_iter().map(|(_, pod)| pod);
    let living = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    living.map(|pod| pod["metadata"]["uid"].clone()).collect()
}

fn fixed(cpu: &str, refit: &str) -> Value {
    json!({"minCPU": cpu, "maxCPU": cpu, "minMemory": "64Mi", "maxMemory": "64Mi", "refit": refit})
}

#[tokio::test]
async fn unready_pods_are_replaced_within_a_minute() {
    let release = install("flex-unready", json!({})).await;
    let name = "flex-unready";
    let nodes = two_nodes(name).await;
    // No node has that much: both pods stay Pending.
    template(name, fixed("100", "InPlaceOrRecreate")).await;
    apply(&confined(daemon_set(&release.pods, name, &one_container()), &nodes.0)).await;
    eventually("the status has both", PATIENCE, async || {
        (status(name).await["nodesShort"] == 2).then_some(())
    })
    .await;
    template(name, fixed("100m", "InPlaceOrRecreate")).await;
    eventually("both are replaced", Duration::from_mins(1), async || {
        let pods = pods(&release.pods).await;
        let fits = |(_, pod): &(String, Value)| {
            requests(pod, 0)["cpu"] == "100m" && pod["spec"]["nodeName"].is_string()
        };
        (pods.iter().filter(|pod| fits(pod)).count() == 2).then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn pod_with_refused_resize_is_recreated() {
    let release = install("flex-refused", json!({})).await;
    let name = "flex-refused";
    let nodes = Nodes(vec![fake_node(name, "4", "8Gi", "10Gi").await]);
    template(name, fixed("100m", "InPlaceOrRecreate")).await;
    apply(&confined(daemon_set(&release.pods, name, &one_container()), &nodes.0)).await;
    eventually("the pod is sized", PATIENCE, async || (status(name).await["podsSized"] == 1).then_some(()))
        .await;
    let before = uids(&release.pods).await;
    // The API server refuses a resize of pods without resources in their status, as those of kwok.
    template(name, fixed("200m", "InPlaceOrRecreate")).await;
    eventually("a new pod", PATIENCE, async || {
        let pod = pod_on(&release.pods, &nodes.0[0]).await;
        (!before.contains(&pod["metadata"]["uid"]) && requests(&pod, 0)["cpu"] == "200m").then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn pod_of_on_delete_is_not_evicted() {
    let release = install("flex-ondelete", json!({})).await;
    let name = "flex-ondelete";
    let nodes = Nodes(vec![fake_node(name, "4", "8Gi", "10Gi").await]);
    let spec = |storage: &str| json!({"minStorage": storage, "refit": "InPlaceOrRecreate"});
    template(name, spec("1Mi")).await;
    let mut object = confined(daemon_set(&release.pods, name, &one_container()), &nodes.0);
    object["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    apply(&object).await;
    eventually("the pod is sized", PATIENCE, async || (status(name).await["podsSized"] == 1).then_some(()))
        .await;
    let before = uids(&release.pods).await;
    template(name, spec("2Mi")).await;
    eventually("the status has the reason", PATIENCE, async || {
        let status = status(name).await;
        progressing(&status)["message"].as_str()?.contains("updateStrategy OnDelete").then_some(())
    })
    .await;
    reconciled_again(name).await;
    assert_eq!(uids(&release.pods).await, before);
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn peer_pod_with_its_size_is_not_evicted() {
    let release = install("flex-peer", json!({})).await;
    let name = "flex-peer";
    let nodes = Nodes(vec![fake_node(name, "4", "8Gi", "10Gi").await]);
    template(name, json!({"cpuPercentage": 10, "refit": "Off"})).await;
    // The pods are as flexdaemonset and then peerpods leave them: sized, and with the sizes in an annotation instead of the container.
    exclude_namespace(&release, name).await;
    let size = json!({"requests": {"cpu": "400m"}, "limits": {"cpu": "400m"}});
    let mut object = confined(daemon_set(&release.pods, name, &one_container()), &nodes.0);
    object["spec"]["template"]["metadata"]["annotations"] = json!({
        "podshaper.dev/flexdaemonset": json!({"template": name, "node": nodes.0[0], "containers": {"agent": {}}}).to_string(),
        "podshaper.dev/peerpods-resources": json!({"containers": {"agent": size}, "annotations": {}}).to_string(),
    });
    apply(&object).await;
    let before = pod_on(&release.pods, &nodes.0[0]).await["metadata"]["uid"].clone();
    template(name, json!({"cpuPercentage": 10, "refit": "InPlaceOrRecreate"})).await;
    reconciled_again(name).await;
    let counted = eventually("the pod counts", PATIENCE, async || {
        let status = status(name).await;
        (status["podsSized"] == 1).then_some(status)
    })
    .await;
    assert_eq!(progressing(&counted)["reason"], "Settled", "{counted:#}");
    assert_eq!(uids(&release.pods).await, [before]);
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn quota_that_refuses_pods_is_an_event_of_the_template() {
    let release = install("flex-quota", json!({})).await;
    let name = "flex-quota";
    let nodes = two_nodes(name).await;
    template(name, fixed("100m", "Off")).await;
    apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": release.pods},
        "spec": {"hard": {"requests.cpu": "150m"}},
    }))
    .await;
    apply(&confined(daemon_set(&release.pods, name, &one_container()), &nodes.0)).await;
    eventually("the status has the reason", PATIENCE, async || {
        let status = status(name).await;
        let message = progressing(&status)["message"].as_str()?.to_owned();
        (progressing(&status)["reason"] == "PodsRefused" && message.contains("exceeded quota")).then_some(())
    })
    .await;
    eventually("an Event on the template", PATIENCE, async || {
        let selector = format!("reason=PodsRefused,involvedObject.name={name}");
        let events = kubectl(&["get", "events", "--namespace=default", "--field-selector", &selector]).await;
        events.contains("exceeded quota").then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}
