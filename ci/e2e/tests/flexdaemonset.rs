//! `flexdaemonset` in a cluster, installed by the chart: pods are born with their size, on every node that there is or
//! will be, and those that run follow their template as it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output, run};
use e2e::release::Release;
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A node that only seems to be one, and is called `PREFIX-1`. By kwok where ci/cluster has it; elsewhere a node
/// without a kubelet, whose pods are created and bound all the same.
async fn fake_node(prefix: &str, cpu: &str, memory: &str, storage: &str) -> String {
    let name = format!("{prefix}-1");
    if std::env::var_os("PODSHAPER_CLUSTER").is_some() {
        let nodes = format!("{REPOSITORY}/ci/cluster");
        let amounts = ["--cpu", cpu, "--memory", memory, "--ephemeral-storage", storage];
        output(&nodes, &[&["nodes", "1", "--prefix", prefix], &amounts[..]].concat(), "").await;
    } else {
        let amounts = json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage, "pods": "110"});
        apply(&node(&name, amounts)).await;
    }
    name
}

fn node(name: &str, allocatable: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": allocatable, "allocatable": allocatable},
    })
}

/// Deletes nodes as it goes.
struct Nodes(Vec<String>);

impl Drop for Nodes {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl")
            .args(["delete", "node", "--ignore-not-found"])
            .args(&self.0)
            .output();
    }
}

/// A release. The definition of the kind is every test's, so it belongs to none of the releases.
async fn install(name: &str, values: Value) -> Release {
    let crds = format!("{REPOSITORY}/crds/flexdaemonsettemplates.yaml");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &crds]).await;
    eventually("the definition is established", Duration::from_mins(1), async || {
        let definition = get(&["-f", &crds]).await;
        let mut conditions = definition["status"]["conditions"].as_array()?.iter();
        conditions.find(|c| c["type"] == "Established" && c["status"] == "True").map(|_| ())
    })
    .await;
    let values = json!({"crds": {"enabled": false}, "flexdaemonset": values});
    Release::install_webhook("flexdaemonset", name, &values).await
}

async fn template(name: &str, spec: Value) {
    apply(&json!({
        "apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate", "metadata": {"name": name}, "spec": spec,
    }))
    .await;
}

fn daemon_set(namespace: &str, template: &str, containers: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": "agent", "namespace": namespace,
            "annotations": {"flexdaemonsets.xai/resource-template": template},
        },
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": containers,
                },
            },
        },
    })
}

fn one_container() -> Value {
    json!([{"name": "agent", "image": "podshaper/pause:1"}])
}

/// The pods of the DaemonSet, by node; also of those that aren't bound, because the size doesn't fit.
async fn pods(namespace: &str) -> Vec<(String, Value)> {
    let list = get(&["pods", "--namespace", namespace, "--selector", "app=agent"]).await;
    let node = |pod: &Value| {
        let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
        pod.pointer(affinity).unwrap().as_str().unwrap().to_owned()
    };
    list["items"].as_array().unwrap().iter().map(|pod| (node(pod), pod.clone())).collect()
}

/// Waits for the pod of `node`.
async fn pod_on(namespace: &str, node: &str) -> Value {
    eventually(&format!("a pod for {node}"), PATIENCE, async || {
        let found = pods(namespace)
            .await
            .into_iter()
            .find(|(name, pod)| name == node && pod["metadata"]["deletionTimestamp"].is_null());
        found.map(|(_, pod)| pod)
    })
    .await
}

/// The pod of the node that is real, once it runs.
async fn running_pod(namespace: &str, node: &str) -> Value {
    eventually("the pod runs", PATIENCE, async || {
        let pod = pod_on(namespace, node).await;
        (pod["status"]["containerStatuses"][0]["ready"] == true).then_some(pod)
    })
    .await
}

async fn real_node() -> String {
    let nodes = get(&["nodes"]).await;
    let real = nodes["items"].as_array().unwrap().iter().find(|node| {
        node["metadata"]["annotations"]["kwok.x-k8s.io/node"].is_null()
            && node["status"]["nodeInfo"]["kubeletVersion"]
                .as_str()
                .is_some_and(|version| !version.is_empty())
    });
    real.expect("a node with a kubelet")["metadata"]["name"].as_str().unwrap().to_owned()
}

fn requests(pod: &Value, container: usize) -> &Value {
    &pod["spec"]["containers"][container]["resources"]["requests"]
}

/// The version at which the pods of a namespace stand.
async fn version(namespace: &str) -> String {
    let pods = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods")]).await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    pods["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Nobody has changed the size of a pod since it was created: in its history since `version` there is no other, at any
/// resourceVersion. How many pods there were.
async fn assert_born_so(namespace: &str, version: &str) -> usize {
    let history =
        format!("/api/v1/namespaces/{namespace}/pods?watch=true&resourceVersion={version}&timeoutSeconds=1");
    let history = kubectl(&["get", "--raw", &history]).await;
    let mut born: BTreeMap<String, Value> = BTreeMap::new();
    for event in history.lines() {
        let event: Value = serde_json::from_str(event).unwrap();
        let pod = &event["object"];
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let containers = pod["spec"]["containers"].as_array().unwrap();
        let resources: Value = containers.iter().map(|container| container["resources"].clone()).collect();
        if event["type"] == "ADDED" {
            assert!(!resources[0]["requests"]["cpu"].is_null(), "created without a size: {pod:#}");
            born.insert(uid.clone(), resources.clone());
        }
        assert_eq!(born[&uid], resources, "changed after its creation: {pod:#}");
    }
    born.len()
}

/// Takes the namespace from the webhook's, and waits until pods in it are created without.
async fn hide(release: &Release, template: &str) {
    kubectl(&["label", "namespace", &release.pods, "podshaper-test-"]).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "probe", "namespace": release.pods,
            "annotations": {"flexdaemonsets.xai/apply-template": template},
        },
        "spec": {"nodeName": real_node().await, "containers": one_container()},
    });
    eventually("the webhook isn't called any more", PATIENCE, async || {
        let pod = create(&pod, &["--dry-run=server"]).await.unwrap();
        pod["metadata"]["annotations"]["podshaper.dev/flexdaemonset"].is_null().then_some(())
    })
    .await;
}

/// Waits until the leader has looked at everything again, and has done what it does about that.
async fn looked_again(template: &str) {
    // It acts after it writes the status: so what it has seen first is done when it sees the second.
    for cpu in ["1k", "2k"] {
        let patch = json!({"spec": {"maxCPU": cpu}}).to_string();
        kubectl(&["patch", "flexdaemonsettemplate", template, "--type=merge", "--patch", &patch]).await;
        let generation = get(&["flexdaemonsettemplate", template]).await["metadata"]["generation"].clone();
        eventually("it is seen", PATIENCE, async || {
            (status(template).await["observedGeneration"] == generation).then_some(())
        })
        .await;
    }
}

/// A quantity as millicores, or as a number of units.
fn amount(quantity: &Value) -> i64 {
    let quantity: podshaper::quantity::Quantity = quantity.as_str().expect("a quantity").parse().unwrap();
    quantity.milli_value().unwrap()
}

/// The file `name` of the cgroup of the pod's first container, in whichever hierarchy it is.
fn cgroup_file(pod: &Value, names: &[&str]) -> Option<String> {
    let uid = pod["metadata"]["uid"].as_str()?;
    let container = pod["status"]["containerStatuses"][0]["containerID"].as_str()?.rsplit('/').next()?;
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).ok()?.flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let text = path.to_string_lossy();
            let of_pod = text.contains(uid) || text.contains(&uid.replace('-', "_"));
            if of_pod
                && text.contains(container)
                && let Some(found) =
                    names.iter().find_map(|name| std::fs::read_to_string(path.join(name)).ok())
            {
                return Some(found.trim().to_owned());
            }
            if path.parent() != Some(Path::new("/sys/fs/cgroup")) || !text.ends_with("cpuset") {
                folders.push(path);
            }
        }
    }
    None
}

/// Microseconds of a core in 100 ms (`cpu.cfs_quota_us`, or the first word of `cpu.max`).
fn cpu_quota(pod: &Value) -> Option<i64> {
    cgroup_file(pod, &["cpu.max", "cpu.cfs_quota_us"])?.split_whitespace().next()?.parse().ok()
}

fn memory_limit(pod: &Value) -> Option<i64> {
    cgroup_file(pod, &["memory.max", "memory.limit_in_bytes"])?.parse().ok()
}

async fn status(template: &str) -> Value {
    get(&["flexdaemonsettemplate", template]).await["status"].clone()
}

fn progressing(status: &Value) -> &Value {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == "Progressing").unwrap_or(&Value::Null)
}

#[tokio::test]
async fn every_pod_is_born_with_its_size() {
    let release = install("flex-born", json!({})).await;
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
    template("flex-born", spec).await;
    let before = version(&release.pods).await;
    apply(&daemon_set(&release.pods, "flex-born", &one_container())).await;
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
    // On the node that is real the kubelet runs it so.
    let real = real_node().await;
    let pod = running_pod(&release.pods, &real).await;
    let allocatable = get(&["node", &real]).await["status"]["allocatable"].clone();
    let memory = amount(&requests(&pod, 0)["memory"]) / 1000;
    let share = amount(&allocatable["memory"]) / 1000 * 15 / 100;
    assert_eq!(memory, share.max(128 << 20), "15% of {allocatable}");
    // The kernel counts in pages.
    assert_eq!(memory_limit(&pod).expect("the container's cgroup") / 4096, memory / 4096);
    assert_eq!(cpu_quota(&pod).expect("the container's cgroup"), amount(&requests(&pod, 0)["cpu"]) * 100);
    assert_eq!(assert_born_so(&release.pods, &before).await, sizes.len() + 1);

    // A node that joins later, and one that doesn't tell its storage.
    nodes.0.push(fake_node("flex-late", "8", "32Gi", "200Gi").await);
    let pod = pod_on(&release.pods, "flex-late-1").await;
    assert_eq!(requests(&pod, 0)["cpu"], "800m");
    apply(&node("flex-bare", json!({"cpu": "2", "memory": "4Gi", "pods": "10"}))).await;
    nodes.0.push("flex-bare".to_owned());
    let pod = pod_on(&release.pods, "flex-bare").await;
    assert_eq!(requests(&pod, 0)["ephemeral-storage"], "1Gi", "the floor alone");

    assert!(assert_born_so(&release.pods, &before).await > sizes.len() + 2);

    // Who watches sees it all.
    let all = nodes.0.len() + 1;
    eventually("the status counts", PATIENCE, async || {
        let status = status("flex-born").await;
        (status["podsSized"] == all
            && status["podsPending"] == 0
            && progressing(&status)["reason"] == "Settled")
            .then_some(())
    })
    .await;
    let columns = kubectl(&["get", "fdt", "flex-born"]).await;
    assert!(columns.contains("SIZED") && columns.contains(&format!(" {all} ")), "{columns}");
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;

    // Restarted with cold caches while pods are created: none is blocked, and each has its size.
    let restart = async {
        release.restart().await;
    };
    let recreate = async {
        for _ in 0..3 {
            kubectl(&["delete", "pods", "--namespace", &release.pods, "--all", "--wait=false"]).await;
            eventually("the pods are there again", PATIENCE, async || {
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
async fn what_is_missing_blocks_nobody() {
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
    // Who creates a pod is told.
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
    // A pod for a node that nobody knows: at once, with a warning, as it is.
    template("flex-missing", json!({"cpuPercentage": 10})).await;
    let begun = Instant::now();
    let created = run("kubectl", &dry_run, &marked("flex-missing", "nobody-knows")).await;
    let warned = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(created.status.success() && warned.contains("node nobody-knows isn't known"), "{warned}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

#[tokio::test]
async fn templates_that_cannot_work_are_refused() {
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
        (json!({"maxCPU": "1"}), "at least one percentage or minimum"),
    ] {
        let object = json!({
            "apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate", "metadata": {"name": "flex-bad"}, "spec": spec,
        });
        let refused = create(&object, &["--dry-run=server"]).await.expect_err(&spec.to_string());
        assert!(refused.contains(field), "{spec}: {refused}");
    }
}

#[tokio::test]
async fn running_pods_follow_their_template() {
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

    // DryRun: told, not done.
    template(name, spec("200Mi", "DryRun")).await;
    let told = eventually("DryRun is told", PATIENCE, async || {
        let status = status(name).await;
        (progressing(&status)["reason"] == "DryRun").then_some(status)
    })
    .await;
    assert!(progressing(&told)["message"].as_str().unwrap().contains("memory 100Mi → 200Mi"), "{told:#}");
    assert_eq!(same().await["metadata"]["generation"], first["metadata"]["generation"]);

    // In place, up and down: the same container, never restarted.
    for (memory, bytes) in [("200Mi", 200 << 20), ("120Mi", 120 << 20)] {
        template(name, spec(memory, "InPlace")).await;
        let pod = limit_becomes(bytes).await;
        assert_eq!(container(&pod), container(&first), "the same container");
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    }
    let settled = async || {
        eventually("settled", PATIENCE, async || {
            let (status, object) = (status(name).await, get(&["flexdaemonsettemplate", name]).await);
            let seen = status["observedGeneration"] == object["metadata"]["generation"];
            (seen && status["podsSized"].as_u64() > Some(0) && progressing(&status)["reason"] == "Settled")
                .then_some(())
        })
        .await;
    };
    settled().await;

    // Less than five percent isn't worth it.
    let before = same().await["metadata"]["generation"].clone();
    template(name, spec("125Mi", "InPlace")).await;
    settled().await;
    assert_eq!(same().await["metadata"]["generation"], before);

    // More than the node has: the kubelet declines, or the API server for it, and the reason is told.
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

    // What can't be done in place needs a new pod, where that is allowed.
    let with_storage = |refit: &str| {
        let mut spec = spec("140Mi", refit);
        spec["minStorage"] = json!("1Mi");
        spec
    };
    template(name, with_storage("InPlace")).await;
    eventually("the reason is told", PATIENCE, async || {
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
async fn refits_keep_their_pace() {
    let release = install("flex-pace", json!({"refit": {"perMinute": 3, "inFlight": 2}})).await;
    let name = "flex-pace";
    let mut nodes = Nodes(Vec::new());
    for index in 0..6 {
        nodes.0.push(fake_node(&format!("flex-pace-{index}"), "4", "8Gi", "10Gi").await);
    }
    // QoS stays Burstable: so the limit keeps its distance.
    let spec = |refit: &str| json!({"cpuPercentage": 10, "limits": {"cpu": "Ratio"}, "refit": refit});
    template(name, spec("Off")).await;
    // Created while no webhook sees them: they are pending, and follow all the same.
    hide(&release, name).await;
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
        // A kubelet that can resize says what its containers have; the nodes here only seem to have one.
        let told = json!([{"op": "add", "path": "/status/containerStatuses/0/resources", "value": {"requests": {"cpu": "100m"}}}]);
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
            &told.to_string(),
        ])
        .await;
    }
    eventually("they are counted", PATIENCE, async || {
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
    let memory =
        first["metadata"]["annotations"]["podshaper.dev/flexdaemonset"].as_str().expect("it remembers");
    assert!(memory.contains(r#""requests":{"cpu":"100m"}"#), "{memory}");
    let more = eventually("one more", PATIENCE, async || {
        let now = resized().await;
        (now > 3).then_some(now)
    })
    .await;
    assert!(begun.elapsed() > Duration::from_secs(10), "{more} after {:?}", begun.elapsed());
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods]).await;
}

/// A DaemonSet for these nodes and no others.
fn confined(mut daemon_set: Value, nodes: &[String]) -> Value {
    daemon_set["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]},
        ]},
    }});
    daemon_set
}

#[tokio::test]
async fn pods_are_recreated_one_after_the_other() {
    let release = install("flex-evict", json!({"refit": {"perMinute": 1000}})).await;
    let name = "flex-evict";
    let mut nodes = Nodes(Vec::new());
    for index in 0..3 {
        nodes.0.push(fake_node(&format!("flex-evict-{index}"), "4", "8Gi", "10Gi").await);
    }
    let spec = |storage: &str| json!({"minStorage": storage, "refit": "InPlaceOrRecreate"});
    template(name, spec("1Mi")).await;
    let mut object = confined(daemon_set(&release.pods, name, &one_container()), &nodes.0);
    // A pod that goes stays until this is taken off.
    object["spec"]["template"]["metadata"]["finalizers"] = json!(["test.podshaper.dev/hold"]);
    apply(&object).await;
    let leaving = async || {
        let pods = pods(&release.pods).await.into_iter().map(|(_, pod)| pod);
        pods.filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).collect::<Vec<_>>()
    };
    let of_size = async |storage: &str| {
        let pods = pods(&release.pods).await;
        pods.iter().filter(|(_, pod)| requests(pod, 0)["ephemeral-storage"] == storage).count()
    };
    let release_pod = async |pod: &Value| {
        let pod = pod["metadata"]["name"].as_str().unwrap();
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        kubectl(&["patch", "pod", pod, "--namespace", &release.pods, "--type=merge", "--patch", patch]).await;
    };
    eventually("all are counted", PATIENCE, async || (status(name).await["podsSized"] == 3).then_some(()))
        .await;
    template(name, spec("2Mi")).await;
    for recreated in 0..3 {
        let going = eventually("one goes", PATIENCE, async || leaving().await.pop()).await;
        looked_again(name).await;
        assert_eq!(leaving().await.len(), 1, "while one goes no other does");
        assert_eq!(of_size("2Mi").await, recreated);
        release_pod(&going).await;
    }
    eventually("all are new", PATIENCE, async || (of_size("2Mi").await == 3).then_some(())).await;
    assert_eq!(leaving().await.len(), 0);
    kubectl(&["delete", "daemonset", "agent", "--namespace", &release.pods, "--wait=false"]).await;
    eventually("they are gone", PATIENCE, async || {
        for pod in leaving().await {
            release_pod(&pod).await;
        }
        pods(&release.pods).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_evicted_again_and_again() {
    let release = install("flex-vain", json!({"refit": {"perMinute": 1000}})).await;
    let name = "flex-vain";
    let nodes = Nodes(vec![fake_node("flex-vain", "4", "8Gi", "10Gi").await]);
    template(name, json!({"minMemory": "100Mi", "minCPU": "100m", "refit": "Off"})).await;
    // The webhook isn't called for these pods: one that is created anew has no size either.
    hide(&release, name).await;
    let object = confined(daemon_set(&release.pods, name, &one_container()), &nodes.0);
    apply(&object).await;
    let first = pod_on(&release.pods, &nodes.0[0]).await["metadata"]["uid"].clone();
    template(name, json!({"minMemory": "100Mi", "minCPU": "100m", "refit": "InPlaceOrRecreate"})).await;
    let held = eventually("it is told", PATIENCE, async || {
        let status = status(name).await;
        (status["podsInfeasible"] == 1).then_some(status)
    })
    .await;
    let reason = progressing(&held)["message"].as_str().unwrap();
    assert!(reason.contains("a new pod came in place of one with the same fault"), "{held:#}");
    let second = pod_on(&release.pods, &nodes.0[0]).await["metadata"]["uid"].clone();
    assert_ne!(second, first, "once it was tried");
    looked_again(name).await;
    assert_eq!(pod_on(&release.pods, &nodes.0[0]).await["metadata"]["uid"], second);

    // Who opts out isn't even counted.
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
async fn a_pod_too_large_for_its_node_is_seen() {
    let release = install("flex-short", json!({})).await;
    let name = "flex-short";
    let nodes = Nodes(vec![fake_node("flex-short", "500m", "8Gi", "10Gi").await]);
    let spec = |when: &str| {
        json!({
            "cpuPercentage": 10, "minCPU": "2", "whenMinExceedsAllocatable": when,
            "refit": "InPlaceOrRecreate", "limits": {"cpu": "None"},
        })
    };
    // What the namespace allows counts as well.
    apply(&json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "most", "namespace": release.pods},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "300m"}}]},
    }))
    .await;
    template(name, spec("KeepMin")).await;
    apply(&confined(daemon_set(&release.pods, name, &one_container()), &nodes.0)).await;
    let pod = pod_on(&release.pods, &nodes.0[0]).await;
    assert_eq!(requests(&pod, 0)["cpu"], "1", "the floor, as far as the LimitRange lets it");
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1", "300m would be below it");
    eventually("it is told", PATIENCE, async || (status(name).await["nodesShort"] == 1).then_some(())).await;
    assert!(pod_on(&release.pods, &nodes.0[0]).await["spec"]["nodeName"].is_null(), "it is Pending");
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
