//! Pods are created with their size, and nothing prevents their creation.

use std::time::{Duration, Instant};

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output, run};
use serde_json::json;

use super::cgroup::{amount, cpu_quota, memory_limit};
use super::fixture::{
    assert_created_with_size, daemon_set, install, one_container, pod_on, pods, progressing, requests,
    resource_version, running_pod, status, template,
};
use super::nodes::{Nodes, fake_node, node, real_node};

#[tokio::test]
async fn pods_are_created_with_their_size() {
    let release = install("flex-create", json!({})).await;
    let mut nodes = Nodes(Vec::new());
    // (node, cpu, memory, storage, cpu and memory and storage of the pod)
    let sizes = [
        ("flex-a", "500m", "1Gi", "10Gi", ["100m", "161061273", "1Gi"]),
        ("flex-b", "1", "2Gi", "20Gi", ["100m", "322122547", "1Gi"]),
        ("flex-c", "2", "7Gi", "50Gi", ["200m", "1127428915", "2560Mi"]),
        ("flex-d", "4", "16Gi", "100Gi", ["400m", "2576980377", "5Gi"]),
        ("flex-e", "32", "250Gi", "1Ti", ["3200m", "40265318400", "54975581388"]),
        ("flex-f", "96", "768Gi", "3Ti", ["9600m", "123695058124", "164926744166"]),
    ];
    for (prefix, cpu, memory, storage, _) in &sizes {
        nodes.0.push(fake_node(prefix, cpu, memory, storage).await);
    }
    let spec = json!({
        "cpuPercentage": 10, "memoryPercentage": 15, "storagePercentage": 5,
        "minCPU": "100m", "minMemory": "128Mi", "minStorage": "1Gi",
    });
    template("flex-create", spec).await;
    let before = resource_version(&release.pods).await;
    apply(&daemon_set(&release.pods, "flex-create", &one_container())).await;
    for ((prefix, .., expected), node) in sizes.iter().zip(&nodes.0) {
        let pod = pod_on(&release.pods, node).await;
        let [cpu, memory, storage] = expected;
        let expected = json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage});
        let got = requests(&pod, 0);
        for resource in ["cpu", "memory", "ephemeral-storage"] {
            assert_eq!(amount(&got[resource]), amount(&expected[resource]), "{resource} on {prefix}: {got}");
        }
        assert_eq!(got, &pod["spec"]["containers"][0]["resources"]["limits"], "limits are equal");
    }
    // On the real node, the cgroup has the size.
    let real = real_node().await;
    let pod = running_pod(&release.pods, &real).await;
    let allocatable = get(&["node", &real]).await["status"]["allocatable"].clone();
    let memory = amount(&requests(&pod, 0)["memory"]) / 1000;
    let share = amount(&allocatable["memory"]) / 1000 * 15 / 100;
    assert_eq!(memory, share.max(128 << 20), "15% of {allocatable}");
    // The kernel rounds to pages.
    assert_eq!(memory_limit(&pod).expect("the container's cgroup") / 4096, memory / 4096);
    assert_eq!(cpu_quota(&pod).expect("the container's cgroup"), amount(&requests(&pod, 0)["cpu"]) * 100);
    assert_eq!(assert_created_with_size(&release.pods, &before).await, sizes.len() + 1);

    // A node that joins later, and one without allocatable ephemeral-storage.
    nodes.0.push(fake_node("flex-late", "8", "32Gi", "200Gi").await);
    let pod = pod_on(&release.pods, "flex-late-1").await;
    assert_eq!(requests(&pod, 0)["cpu"], "800m");
    apply(&node("flex-bare", json!({"cpu": "2", "memory": "4Gi", "pods": "10"}))).await;
    let pod = pod_on(&release.pods, "flex-bare").await;
    assert_eq!(requests(&pod, 0)["ephemeral-storage"], "1Gi", "the minimum");
    // That pod stays Pending, and a template with such a pod is not settled. The DaemonSet controller has no handler for deleted nodes:
    // it would delete the pod at its next event of the DaemonSet, which may be minutes later.
    kubectl(&["delete", "node", "flex-bare"]).await;
    let name = pod["metadata"]["name"].as_str().unwrap();
    kubectl(&["delete", "pod", name, "--namespace", &release.pods]).await;

    assert!(assert_created_with_size(&release.pods, &before).await > sizes.len() + 2);

    let all = nodes.0.len() + 1;
    eventually("the status has the counts", PATIENCE, async || {
        let status = status("flex-create").await;
        (status["podsSized"] == all
            && status["podsPending"] == 0
            && progressing(&status)["reason"] == "Settled")
            .then_some(())
    })
    .await;
    let columns = kubectl(&["get", "fdt", "flex-create"]).await;
    assert!(columns.contains("SIZED") && columns.contains(&format!(" {all} ")), "{columns}");
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;

    // The webhook restarts with empty caches while pods are created: each has its size.
    let restart = async {
        release.restart().await;
    };
    let recreate = async {
        for _ in 0..3 {
            kubectl(&["delete", "pods", "--namespace", &release.pods, "--all", "--wait=false"]).await;
            eventually("the pods are recreated", PATIENCE, async || {
                let alive = pods(&release.pods).await;
                let alive = alive.iter().filter(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_null());
                (alive.count() == all).then_some(())
            })
            .await;
        }
    };
    tokio::join!(restart, recreate);
    for (node, pod) in pods(&release.pods).await {
        assert!(!requests(&pod, 0)["cpu"].is_null(), "the pod of {node} has no size");
    }
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn missing_template_or_node_does_not_block_pods() {
    let release = install("flex-missing", json!({})).await;
    apply(&daemon_set(&release.pods, "no-such-template", &one_container())).await;
    let real = real_node().await;
    let pod = running_pod(&release.pods, &real).await;
    assert_eq!(pod["spec"]["containers"][0]["resources"], json!({}));
    eventually("an Event on the DaemonSet", PATIENCE, async || {
        let events =
            get(&["events", "--namespace", &release.pods, "--field-selector", "reason=TemplateMissing"])
                .await;
        let events = events["items"].as_array().unwrap().clone();
        events.into_iter().find(|event| event["involvedObject"]["kind"] == "DaemonSet")
    })
    .await;
    let missing = release.metric("podshaper_flexdaemonset_decisions_total").await;
    assert!(missing.iter().any(|count| count != "0"), "{missing:?}");
    // The client that creates a pod gets a warning.
    let marked = |template: &str, node: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "early", "namespace": release.pods,
                "annotations": {"flexdaemonsets.xai/apply-template": template},
            },
            "spec": {"nodeName": node, "containers": one_container()},
        })
        .to_string()
    };
    let dry_run = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    let created = run("kubectl", &dry_run, &marked("no-such-template", &real)).await;
    let warned = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(
        created.status.success() && warned.contains("there is no FlexDaemonsetTemplate no-such-template"),
        "{warned}"
    );
    // A pod for an unknown node is created unchanged at once, with a warning.
    template("flex-missing", json!({"cpuPercentage": 10})).await;
    let begun = Instant::now();
    let created = run("kubectl", &dry_run, &marked("flex-missing", "unknown-node")).await;
    let warned = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(created.status.success() && warned.contains("node unknown-node isn't known"), "{warned}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn invalid_template_is_rejected() {
    let _release = install("flex-bad", json!({})).await;
    for (spec, field) in [
        (json!({"cpuPercentage": 0}), "spec.cpuPercentage"),
        (json!({"memoryPercentage": 101}), "spec.memoryPercentage"),
        (json!({"minCPU": "2", "maxCPU": "500m"}), "spec.maxCPU"),
        (json!({"minMemory": "lots"}), "spec.minMemory"),
        (json!({"maxStorage": "-1Gi", "storagePercentage": 1}), "spec.maxStorage"),
        (
            json!({"overrides": [{"nodeSelector": {}, "minCPU": "2", "maxCPU": 1}]}),
            "spec.overrides[0].maxCPU",
        ),
        (
            json!({"overrides": [{"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}),
            "matchExpressions[0].values",
        ),
        (json!({"cpuPercentage": 1, "containers": [{"name": "a", "weight": 1}]}), "spec.containers"),
        (
            json!({"cpuPercentage": 1, "distribution": "Split", "containers": [{"name": "a", "weight": 1, "percent": 1}]}),
            "spec.containers[0]",
        ),
        (
            json!({"cpuPercentage": 1, "distribution": "Split", "containers": [{"name": "a", "percent": 60}, {"name": "b", "percent": 41}]}),
            "spec.containers",
        ),
        (json!({"cpuPercentage": 1, "refit": "Maybe"}), "spec.refit"),
        (json!({"maxCPU": "1"}), "at least one percentage, share or minimum must be set"),
    ] {
        let object = json!({
            "apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate", "metadata": {"name": "flex-bad"}, "spec": spec,
        });
        let refused = create(&object, &["--dry-run=server"]).await.expect_err(&spec.to_string());
        assert!(refused.contains(field), "{spec}: {refused}");
    }
}

/// A replica that drains does not create it again.
#[tokio::test]
async fn lease_is_deleted_with_the_release() {
    let release = install("flex-lease", json!({})).await;
    let name = release.fullname();
    let owner = "jsonpath={.metadata.ownerReferences[0].kind}";
    let owner = eventually("there is a Lease", PATIENCE, async || {
        let kind = release.kubectl(&["get", "lease", &name, "--ignore-not-found", "-o", owner]).await;
        (!kind.is_empty()).then_some(kind)
    })
    .await;
    assert_eq!(owner, "Deployment");
    output("helm", &["uninstall", &release.name, "--namespace", &release.name], "").await;
    eventually("the pods are gone", PATIENCE, async || {
        release.kubectl(&["get", "pods", "-o", "name"]).await.is_empty().then_some(())
    })
    .await;
    eventually("the Lease is gone", PATIENCE, async || {
        release.kubectl(&["get", "leases", &name, "--ignore-not-found"]).await.is_empty().then_some(())
    })
    .await;
}
