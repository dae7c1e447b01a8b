//! Refits of running pods.

use std::time::{Duration, Instant};

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl};
use serde_json::{Value, json};

use super::cgroup::memory_limit;
use super::fixture::{
    daemon_set, exclude_namespace, install, one_container, pod_on, pods, progressing, reconciled_again,
    requests, running_pod, status, template,
};
use super::nodes::{Nodes, confined, fake_node, real_node};

#[tokio::test]
async fn template_change_refits_running_pods() {
    let release = install("flex-refit", json!({"refit": {"perMinute": 1000}})).await;
    let name = "flex-refit";
    let spec = |memory: &str, refit: &str| json!({"minMemory": memory, "maxMemory": memory, "minCPU": "50m", "refit": refit});
    template(name, spec("100Mi", "DryRun")).await;
    apply(&daemon_set(&release.pods, name, &one_container())).await;
    let real = real_node().await;
    let first = running_pod(&release.pods, &real).await;
    assert_eq!(memory_limit(&first), Some(100 << 20));
    let same = async || running_pod(&release.pods, &real).await;
    let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    let limit_becomes = async |bytes: i64| {
        eventually(&format!("the cgroup's limit is {bytes}"), PATIENCE, async || {
            let pod = same().await;
            (memory_limit(&pod) == Some(bytes)).then_some(pod)
        })
        .await
    };

    // DryRun: the status names the change, and the pod keeps its size.
    template(name, spec("200Mi", "DryRun")).await;
    let dry_run = eventually("the status names the change", PATIENCE, async || {
        let status = status(name).await;
        (progressing(&status)["reason"] == "DryRun").then_some(status)
    })
    .await;
    assert!(
        progressing(&dry_run)["message"].as_str().unwrap().contains("memory 100Mi → 200Mi"),
        "{dry_run:#}"
    );
    assert_eq!(same().await["metadata"]["generation"], first["metadata"]["generation"]);

    // In place, up and down: the container stays and never restarts.
    for (memory, bytes) in [("200Mi", 200 << 20), ("120Mi", 120 << 20)] {
        template(name, spec(memory, "InPlace")).await;
        let pod = limit_becomes(bytes).await;
        assert_eq!(container(&pod), container(&first), "the same container");
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    }
    let settled = async || {
        eventually("settled", PATIENCE, async || {
            let status = status(name).await;
            let object = get(&["flexdaemonsettemplate", name]).await;
            let observed = status["observedGeneration"] == object["metadata"]["generation"];
            (observed
                && status["podsSized"].as_u64() > Some(0)
                && progressing(&status)["reason"] == "Settled")
                .then_some(())
        })
        .await;
    };
    settled().await;

    // Less than five percent: within the hysteresis.
    let before = same().await["metadata"]["generation"].clone();
    template(name, spec("125Mi", "InPlace")).await;
    settled().await;
    assert_eq!(same().await["metadata"]["generation"], before);

    // More than the node has: the status has the reason of the kubelet or the API server.
    template(name, spec("100Ti", "InPlace")).await;
    let held = eventually("the kubelet's reason", PATIENCE, async || {
        let status = status(name).await;
        (status["podsInfeasible"].as_u64() > Some(0)).then_some(status)
    })
    .await;
    let reason = progressing(&held)["message"].as_str().unwrap();
    assert!(reason.contains("Infeasible") || reason.contains("enough allocatable resources"), "{held:#}");
    assert_eq!(container(&same().await), container(&first));
    template(name, spec("140Mi", "InPlace")).await;
    limit_becomes(140 << 20).await;

    // A change that needs a new pod, without and with permission to evict.
    let with_storage = |refit: &str| {
        let mut spec = spec("140Mi", refit);
        spec["minStorage"] = json!("1Mi");
        spec
    };
    template(name, with_storage("InPlace")).await;
    eventually("the status has the reason", PATIENCE, async || {
        let status = status(name).await;
        progressing(&status)["message"].as_str()?.contains("needs a new pod: ephemeral-storage").then_some(())
    })
    .await;
    assert_eq!(same().await["metadata"]["uid"], first["metadata"]["uid"]);
    template(name, with_storage("InPlaceOrRecreate")).await;
    eventually("a new pod", PATIENCE, async || {
        let pod = same().await;
        (pod["metadata"]["uid"] != first["metadata"]["uid"]
            && requests(&pod, 0)["ephemeral-storage"] == "1Mi")
            .then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn refits_respect_rate_and_concurrency() {
    let release = install("flex-rate", json!({"refit": {"perMinute": 3, "inFlight": 2}})).await;
    let name = "flex-rate";
    let mut nodes = Nodes(Vec::new());
    for index in 0..6 {
        nodes.0.push(fake_node(&format!("flex-rate-{index}"), "4", "8Gi", "10Gi").await);
    }
    // The limit stays above the request, so that the QoS class stays Burstable.
    let spec = |refit: &str| json!({"cpuPercentage": 10, "limits": {"cpu": "Ratio"}, "refit": refit});
    template(name, spec("Off")).await;
    // The webhook isn't called for these pods: they count as pending, and are refitted.
    exclude_namespace(&release, name).await;
    let object = daemon_set(
        &release.pods,
        name,
        &json!([{
            "name": "agent", "image": "podshaper/pause:1",
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "150m"}},
        }]),
    );
    apply(&object).await;
    for node in &nodes.0 {
        let pod = eventually("the pod is bound", PATIENCE, async || {
            let pod = pod_on(&release.pods, node).await;
            (!pod["status"]["containerStatuses"].is_null()).then_some(pod)
        })
        .await;
        // The API server resizes only pods with resources in their container status, which kwok doesn't set.
        let patch = json!([{"op": "add", "path": "/status/containerStatuses/0/resources", "value": {"requests": {"cpu": "100m"}}}]);
        let pod = pod["metadata"]["name"].as_str().unwrap();
        kubectl(&[
            "patch",
            "pod",
            pod,
            "--namespace",
            &release.pods,
            "--subresource=status",
            "--type=json",
            "--patch",
            &patch.to_string(),
        ])
        .await;
    }
    eventually("the status counts them", PATIENCE, async || {
        (status(name).await["podsPending"].as_u64() >= Some(6)).then_some(())
    })
    .await;
    template(name, spec("InPlace")).await;
    let resized = async || {
        let pods = pods(&release.pods).await;
        pods.iter().filter(|(_, pod)| requests(pod, 0)["cpu"] == "400m").count()
    };
    eventually("the first are resized", PATIENCE, async || (resized().await >= 2).then_some(())).await;
    let begun = Instant::now();
    let at_once = resized().await;
    assert!(at_once <= 3, "{at_once} at once");
    let first =
        pods(&release.pods).await.into_iter().find(|(_, pod)| requests(pod, 0)["cpu"] == "400m").unwrap().1;
    assert_eq!(first["spec"]["containers"][0]["resources"]["limits"]["cpu"], "600m");
    let record = first["metadata"]["annotations"]["podshaper.dev/flexdaemonset"].as_str().expect("a record");
    assert!(record.contains(r#""requests":{"cpu":"100m"}"#), "{record}");
    let more = eventually("one more", PATIENCE, async || {
        let now = resized().await;
        (now > 3).then_some(now)
    })
    .await;
    assert!(begun.elapsed() > Duration::from_secs(10), "{more} after {:?}", begun.elapsed());
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn pods_are_evicted_one_at_a_time() {
    let release = install("flex-evict", json!({"refit": {"perMinute": 1000}})).await;
    let name = "flex-evict";
    let mut nodes = Nodes(Vec::new());
    for index in 0..3 {
        nodes.0.push(fake_node(&format!("flex-evict-{index}"), "4", "8Gi", "10Gi").await);
    }
    let spec = |storage: &str| json!({"minStorage": storage, "refit": "InPlaceOrRecreate"});
    template(name, spec("1Mi")).await;
    let mut object = confined(daemon_set(&release.pods, name, &one_container()), &nodes.0);
    // A deleted pod stays terminating until the test removes this finalizer.
    object["spec"]["template"]["metadata"]["finalizers"] = json!(["test.podshaper.dev/hold"]);
    apply(&object).await;
    let terminating = async || {
        let pods = pods(&release.pods).await.into_iter().map(|(_, pod)| pod);
        pods.filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).collect::<Vec<_>>()
    };
    let of_size = async |storage: &str| {
        let pods = pods(&release.pods).await;
        pods.iter().filter(|(_, pod)| requests(pod, 0)["ephemeral-storage"] == storage).count()
    };
    let remove_finalizer = async |pod: &Value| {
        let pod = pod["metadata"]["name"].as_str().unwrap();
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        kubectl(&["patch", "pod", pod, "--namespace", &release.pods, "--type=merge", "--patch", patch]).await;
    };
    eventually("the status counts them", PATIENCE, async || {
        (status(name).await["podsSized"] == 3).then_some(())
    })
    .await;
    template(name, spec("2Mi")).await;
    for recreated in 0..3 {
        let pod = eventually("a pod is terminating", PATIENCE, async || terminating().await.pop()).await;
        reconciled_again(name).await;
        assert_eq!(terminating().await.len(), 1, "one pod at a time");
        assert_eq!(of_size("2Mi").await, recreated);
        remove_finalizer(&pod).await;
    }
    eventually("all pods are replaced", PATIENCE, async || (of_size("2Mi").await == 3).then_some(())).await;
    assert_eq!(terminating().await.len(), 0);
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods, "--wait=false"]).await;
    eventually("the pods are gone", PATIENCE, async || {
        for pod in terminating().await {
            remove_finalizer(&pod).await;
        }
        pods(&release.pods).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn replacement_with_same_change_is_not_evicted() {
    let release = install("flex-again", json!({"refit": {"perMinute": 1000}})).await;
    let name = "flex-again";
    let nodes = Nodes(vec![fake_node("flex-again", "4", "8Gi", "10Gi").await]);
    template(name, json!({"minMemory": "100Mi", "minCPU": "100m", "refit": "Off"})).await;
    // The webhook isn't called for these pods: a replacement has no size either.
    exclude_namespace(&release, name).await;
    let object = confined(daemon_set(&release.pods, name, &one_container()), &nodes.0);
    apply(&object).await;
    let first = pod_on(&release.pods, &nodes.0[0]).await["metadata"]["uid"].clone();
    template(name, json!({"minMemory": "100Mi", "minCPU": "100m", "refit": "InPlaceOrRecreate"})).await;
    let held = eventually("the status has it", PATIENCE, async || {
        let status = status(name).await;
        (status["podsInfeasible"] == 1).then_some(status)
    })
    .await;
    let reason = progressing(&held)["message"].as_str().unwrap();
    assert!(reason.contains("the pod replaced an evicted one and needs the same change"), "{held:#}");
    let second = pod_on(&release.pods, &nodes.0[0]).await["metadata"]["uid"].clone();
    assert_ne!(second, first, "the first pod was evicted");
    reconciled_again(name).await;
    assert_eq!(pod_on(&release.pods, &nodes.0[0]).await["metadata"]["uid"], second);

    // A skipped pod isn't counted.
    let mut skipping = object;
    skipping["spec"]["template"]["metadata"]["labels"]["podshaper.dev/skip"] = json!("true");
    apply(&skipping).await;
    eventually("no pod counts", PATIENCE, async || {
        let status = status(name).await;
        (status["daemonSets"] == 1 && status["podsPending"] == 0 && status["podsInfeasible"] == 0)
            .then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn pod_larger_than_its_node_is_reported() {
    let release = install("flex-short", json!({})).await;
    let name = "flex-short";
    let nodes = Nodes(vec![fake_node("flex-short", "500m", "8Gi", "10Gi").await]);
    let spec = |when: &str| {
        json!({
            "cpuPercentage": 10, "minCPU": "2", "whenMinExceedsAllocatable": when,
            "refit": "InPlaceOrRecreate", "limits": {"cpu": "None"},
        })
    };
    // A LimitRange bounds the size.
    apply(&json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "most", "namespace": release.pods},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "300m"}}]},
    }))
    .await;
    template(name, spec("KeepMin")).await;
    apply(&confined(daemon_set(&release.pods, name, &one_container()), &nodes.0)).await;
    let pod = pod_on(&release.pods, &nodes.0[0]).await;
    assert_eq!(requests(&pod, 0)["cpu"], "1", "the minimum, bounded by the LimitRange");
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1",
        "300m would be below the request"
    );
    eventually("the status has it", PATIENCE, async || (status(name).await["nodesShort"] == 1).then_some(()))
        .await;
    assert!(pod_on(&release.pods, &nodes.0[0]).await["spec"]["nodeName"].is_null(), "the pod is Pending");
    template(name, spec("Cap")).await;
    eventually("a pod that fits", PATIENCE, async || {
        let pod = pod_on(&release.pods, &nodes.0[0]).await;
        (requests(&pod, 0)["cpu"] == "500m" && pod["spec"]["nodeName"] == nodes.0[0]).then_some(())
    })
    .await;
    eventually("settled", PATIENCE, async || {
        let status = status(name).await;
        (status["nodesShort"] == 0 && progressing(&status)["reason"] == "Settled").then_some(())
    })
    .await;
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}
