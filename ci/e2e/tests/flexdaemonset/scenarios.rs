//! Scenarios from bug reports of users. They run with `ci/test --long`.

use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output, run};
use serde_json::{Value, json};

use super::REPOSITORY;
use super::fixture::{
    daemon_set, install, one_container, pod_on, pods, reconciled_again, requests, running_pod, status,
    template,
};
use super::nodes::{Nodes, confined, fake_node, node, real_node};

/// The chart.
const CHART: &str = "charts/podshaper";

/// One container with these resources.
fn with_resources(resources: Value) -> Value {
    json!([{"name": "agent", "image": "podshaper/pause:1", "resources": resources}])
}

#[tokio::test]
async fn pod_passes_limit_ranges_and_quotas() {
    let release = install("flex-bounds", json!({})).await;
    let nodes = Nodes(vec![fake_node("flex-bounds", "4", "16Gi", "10Gi").await]);
    let range = |item: Value| {
        json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r", "namespace": release.pods},
            "spec": {"limits": [item]},
        })
    };
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "r", "namespace": release.pods},
        "spec": {"hard": {"limits.cpu": "10"}},
    });
    let small = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}});
    let large =
        json!({"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    let of_pod = json!({"type": "Pod", "max": {"cpu": "2"}});
    let of_ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "4"}});
    for (bound, policy, percentage, own) in [
        (range(of_ratio), "Keep", 5, large),
        (range(of_pod.clone()), "None", 10, small.clone()),
        (range(of_pod), "Ratio", 10, small.clone()),
        (quota, "None", 10, small),
    ] {
        let kind = bound["kind"].as_str().unwrap().to_lowercase();
        apply(&bound).await;
        template("flex-bounds", json!({"cpuPercentage": percentage, "limits": {"cpu": policy}})).await;
        reconciled_again("flex-bounds").await;
        apply(&confined(daemon_set(&release.pods, "flex-bounds", &with_resources(own)), &nodes.0)).await;
        let pod = pod_on(&release.pods, &nodes.0[0]).await;
        let expected = format!("{}m", 40 * percentage);
        assert_eq!(requests(&pod, 0)["cpu"], *expected, "{bound}");
        kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
        kubectl(&["delete", &kind, "r", "--namespace", &release.pods]).await;
    }
}

#[tokio::test]
async fn node_without_ephemeral_storage_counts_as_zero() {
    let release = install("flex-noeph", json!({})).await;
    let name = "flex-noeph";
    let nodes = Nodes(vec![format!("{name}-1")]);
    apply(&node(&nodes.0[0], json!({"cpu": "4", "memory": "16Gi", "pods": "10"}))).await;
    for when in ["KeepMin", "Cap", "UseTemplate"] {
        let spec = json!({"storagePercentage": 5, "minStorage": "1Gi", "whenMinExceedsAllocatable": when});
        template(name, spec).await;
        reconciled_again(name).await;
        apply(&confined(daemon_set(&release.pods, name, &one_container()), &nodes.0)).await;
        if when == "KeepMin" {
            let short = async || (status(name).await["nodesShort"] == 1).then_some(());
            eventually("the node is short", PATIENCE, short).await;
        } else {
            eventually("the pod is bound", PATIENCE, async || {
                (pod_on(&release.pods, &nodes.0[0]).await["spec"]["nodeName"] == nodes.0[0]).then_some(())
            })
            .await;
        }
        kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
    }
}

#[tokio::test]
async fn pods_of_excluded_namespaces_are_not_refitted() {
    let release = install("flex-optout", json!({})).await;
    let name = "flex-optout";
    let nodes = Nodes(vec![fake_node(name, "4", "8Gi", "10Gi").await]);
    kubectl(&["label", "namespace", &release.pods, "podshaper.dev/skip=true"]).await;
    // A size changes the QoS class, so the remedy would be a new pod.
    template(name, json!({"minCPU": "100m", "minMemory": "64Mi", "refit": "InPlaceOrRecreate"})).await;
    let namespaces = [&*release.pods, "kube-system", &*release.name];
    let mut before = Vec::new();
    for namespace in namespaces {
        apply(&confined(daemon_set(namespace, name, &one_container()), &nodes.0)).await;
        before.push(pod_on(namespace, &nodes.0[0]).await["metadata"]["uid"].clone());
    }
    reconciled_again(name).await;
    for (namespace, before) in namespaces.iter().zip(before) {
        assert_eq!(pod_on(namespace, &nodes.0[0]).await["metadata"]["uid"], before, "{namespace}");
        kubectl(&["delete", "daemonset", "agent", "--namespace", namespace]).await;
    }
    assert_eq!(status(name).await["daemonSets"], 0);
}

#[tokio::test]
async fn infeasible_resize_leads_to_a_new_pod() {
    let release = install("flex-infeasible", json!({})).await;
    let name = "flex-infeasible";
    let nodes = Nodes(vec![fake_node(name, "4", "8Gi", "10Gi").await]);
    let spec = |cpu: &str| json!({"minCPU": cpu, "maxCPU": cpu, "minMemory": "64Mi", "maxMemory": "64Mi", "refit": "InPlaceOrRecreate"});
    template(name, spec("100m")).await;
    apply(&confined(daemon_set(&release.pods, name, &one_container()), &nodes.0)).await;
    let pod = eventually("the pod runs", PATIENCE, async || {
        let pod = pod_on(&release.pods, &nodes.0[0]).await;
        (!pod["status"]["containerStatuses"].is_null()).then_some(pod)
    })
    .await;
    let pod_name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let patch_status = async |operation: Value| {
        let patch = json!([operation]).to_string();
        let arguments = [
            "patch",
            "pod",
            &pod_name,
            "--namespace",
            &release.pods,
            "--subresource=status",
            "--type=json",
            "--patch",
            &patch,
        ];
        kubectl(&arguments).await;
    };
    let amounts = json!({"cpu": "100m", "memory": "64Mi"});
    let resources = json!({"requests": amounts, "limits": amounts});
    patch_status(json!({"op": "add", "path": "/status/containerStatuses/0/resources", "value": resources}))
        .await;
    template(name, spec("300m")).await;
    eventually("the pod is resized", PATIENCE, async || {
        let pod = pod_on(&release.pods, &nodes.0[0]).await;
        (requests(&pod, 0)["cpu"] == "300m").then_some(())
    })
    .await;
    let condition = json!({
        "type": "PodResizePending", "status": "True", "reason": "Infeasible",
        "message": "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"",
    });
    patch_status(json!({"op": "add", "path": "/status/conditions/-", "value": condition})).await;
    eventually("a new pod", Duration::from_mins(2), async || {
        let living = pod_on(&release.pods, &nodes.0[0]).await;
        (living["metadata"]["uid"] != pod["metadata"]["uid"]).then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn fail_holds_no_pod_without_template() {
    let release = install("flex-fail", json!({"failurePolicy": "Fail"})).await;
    let nodes = Nodes(vec![fake_node("flex-fail", "4", "8Gi", "10Gi").await]);
    template("flex-fail", json!({"cpuPercentage": 10})).await;
    let deployment = format!("deployment/{}", release.fullname());
    release.kubectl(&["scale", &deployment, "--replicas=0"]).await;
    eventually("the webhook is down", PATIENCE, async || {
        let pods = get(&["pods", "--namespace", &release.name]).await;
        pods["items"].as_array()?.is_empty().then_some(())
    })
    .await;
    let mut network = confined(daemon_set(&release.pods, "flex-fail", &one_container()), &nodes.0);
    network["metadata"]["annotations"] = json!({});
    apply(&network).await;
    pod_on(&release.pods, &nodes.0[0]).await;
    // A pod that names a template itself is held.
    let mut marked = confined(daemon_set(&release.pods, "flex-fail", &one_container()), &nodes.0);
    marked["metadata"]["name"] = json!("marked");
    marked["spec"]["selector"]["matchLabels"] = json!({"app": "marked"});
    marked["spec"]["template"]["metadata"] = json!({
        "labels": {"app": "marked"}, "annotations": {"flexdaemonsets.xai/resource-template": "flex-fail"},
    });
    apply(&marked).await;
    eventually("an Event of the failure", PATIENCE, async || {
        let events =
            ["get", "events", "--namespace", &release.pods, "--field-selector", "reason=FailedCreate"];
        kubectl(&events).await.contains("failed calling webhook").then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "marked", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn definition_of_another_owner_is_adopted_as_documented() {
    // The definition exists, and is not the release's.
    drop(install("flex-owner", json!({})).await);
    template("flex-owner", json!({"cpuPercentage": 10})).await;
    let chart = format!("{REPOSITORY}/{CHART}");
    let set = [
        "--set=flexdaemonset.enabled=true",
        "--set=defaults.image.pullPolicy=Never",
        "--set=flexdaemonset.replicas=0",
    ];
    let arguments = [&["install", "flex-owner", &*chart, "--namespace=flex-owner"], &set[..]].concat();
    let refused = run("helm", &arguments, "").await;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("cannot be imported"), "{message}");
    output("helm", &[&arguments[..], &["--take-ownership"]].concat(), "").await;
    assert_eq!(get(&["flexdaemonsettemplate", "flex-owner"]).await["spec"]["cpuPercentage"], 10);
    output("helm", &["uninstall", "flex-owner", "--namespace=flex-owner", "--wait"], "").await;
    get(&["flexdaemonsettemplate", "flex-owner"]).await;
}

#[tokio::test]
async fn self_test_passes_in_a_namespace_with_quota() {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "flex-quoted"},
        "spec": {"hard": {"requests.cpu": "2", "requests.memory": "2Gi", "limits.cpu": "2", "limits.memory": "2Gi"}},
    });
    apply(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "flex-quoted", "labels": {"podshaper-test": "flex-quoted"}},
    }))
    .await;
    apply(&quota).await;
    // The quota demands limits of cpu, which the chart does not set.
    let limits = json!({"limits": {"cpu": "100m"}});
    let release =
        install("flex-quoted", json!({"resources": limits, "selftest": {"resources": limits}})).await;
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;
    kubectl(&["delete", "quota", "q", "--namespace", &release.name]).await;
}

#[tokio::test]
async fn release_name_that_no_service_can_have_is_refused() {
    let chart = format!("{REPOSITORY}/{CHART}");
    for (name, problem) in [("my.release", "has a dot"), ("1podshaper", "begins with a digit")] {
        let arguments = ["install", name, &chart, "--dry-run=client", "--set=flexdaemonset.enabled=true"];
        let refused = run("helm", &arguments, "").await;
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && message.contains(problem), "{name}: {message}");
    }
}

#[tokio::test]
async fn limit_of_whole_pod_follows_policy() {
    let release = install("flex-podlevel", json!({})).await;
    let name = "flex-podlevel";
    let real = real_node().await;
    for (policy, cpu, memory) in [
        ("None", Value::Null, Value::Null),
        ("Keep", json!("2"), json!("1Gi")),
        ("Ratio", json!("4"), json!("512Mi")),
    ] {
        template(
            name,
            json!({
                "minCPU": "100m", "maxCPU": "100m", "minMemory": "32Mi", "maxMemory": "32Mi",
                "distribution": "Split", "limits": {"cpu": policy, "memory": policy},
            }),
        )
        .await;
        reconciled_again(name).await;
        let mut object =
            confined(daemon_set(&release.pods, name, &one_container()), std::slice::from_ref(&real));
        object["spec"]["template"]["spec"]["resources"] =
            json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        apply(&object).await;
        let pod = running_pod(&release.pods, &real).await;
        let resources = &pod["spec"]["resources"];
        assert_eq!(resources["requests"], json!({"cpu": "100m", "memory": "32Mi"}), "{policy}");
        assert_eq!(
            (&resources["limits"]["cpu"], &resources["limits"]["memory"]),
            (&cpu, &memory),
            "{policy}"
        );
        kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
        eventually("the pod is gone", PATIENCE, async || pods(&release.pods).await.is_empty().then_some(()))
            .await;
    }
}
