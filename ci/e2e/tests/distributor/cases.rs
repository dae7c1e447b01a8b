//! Workloads of real clusters: gates, rollouts in an outage, controllers with one pod each, volumes, taints, affinity, and costs of others.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::autoscaler::{evictions, is_unschedulable};
use crate::distribution::{GROUP, assert_exact, pods, scale, settled, shares};
use crate::fixture::{condition, install, nodes, template, workload};

const ZONE: &str = "topology.kubernetes.io/zone";

/// The groups default and spot, at these weights.
fn weights(default: u32, spot: u32) -> Value {
    json!([{"nodeLabel": {"type": "default"}, "weight": default}, {"nodeLabel": {"type": "spot"}, "weight": spot}])
}

/// Applies the PodDistributor `sample`, and waits until the leader knows it.
async fn distribute(namespace: &str, distribution: Value, target: Value, fields: Value) {
    let mut spec = json!({"distribution": distribution, "target": target});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    apply(&json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": "sample", "namespace": namespace}, "spec": spec,
    }))
    .await;
    eventually("the distributor is known", PATIENCE, async || {
        let known = get(&["poddistributor", "sample", "-n", namespace]).await;
        (known["status"]["observedGeneration"] == known["metadata"]["generation"]).then_some(())
    })
    .await;
}

async fn status(namespace: &str) -> Value {
    get(&["poddistributor", "sample", "-n", namespace]).await["status"].clone()
}

async fn until(namespace: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    eventually(what, PATIENCE, async || Some(status(namespace).await).filter(&reached)).await
}

/// Ends a case.
async fn clean(namespace: &str, workloads: &[&str]) {
    let delete =
        ["delete", "poddistributor/sample", "-n", namespace, "--cascade=foreground", "--ignore-not-found"];
    kubectl(&[&delete[..], workloads].concat()).await;
    eventually("no pods", PATIENCE, async || pods_of(namespace).await.is_empty().then_some(())).await;
}

async fn pods_of(namespace: &str) -> Vec<Value> {
    get(&["pods", "-n", namespace]).await["items"].as_array().unwrap().clone()
}

/// How many pods each group has.
async fn groups(namespace: &str) -> BTreeMap<String, usize> {
    let mut groups = BTreeMap::new();
    for pod in pods_of(namespace).await {
        let group = pod["metadata"]["annotations"][GROUP].as_str().unwrap_or("none");
        *groups.entry(group.trim_start_matches("type=").to_owned()).or_default() += 1;
    }
    groups
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(group, pods)| ((*group).to_owned(), *pods)).collect()
}

/// Whether the spot nodes take pods.
async fn taint_spot(full: bool) {
    let taint = if full { "full=true:NoSchedule" } else { "full=true:NoSchedule-" };
    let taint = ["taint", "node", "spot-1", "spot-2", taint, "--overwrite"];
    kubectl(&taint[..if full { 6 } else { 5 }]).await;
}

async fn deployment(namespace: &str, replicas: usize) {
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": replicas})).await;
}

#[tokio::test]
async fn workloads_of_real_clusters_keep_their_shares() {
    nodes().await;
    let owners = json!({"owners": [
        {"apiGroup": "keda.example.com", "resources": ["scaledjobs"]},
        {"apiGroup": "", "resources": ["persistentvolumeclaims", "persistentvolumes"]},
    ]});
    let release = install("cases", &owners).await;
    let namespace = &*release.pods;
    gated_pods_close_no_group(namespace).await;
    rollout_ends_while_spot_is_short(namespace).await;
    controllers_with_one_pod_share_their_owners_sequence(namespace).await;
    runs_of_a_cron_job_are_shared_out_over_time(namespace).await;
    pod_follows_its_volume(namespace).await;
    tainted_group_closes(namespace).await;
    pod_that_insists_on_spot_goes_there(namespace).await;
    pods_from_before_count_by_their_nodes(namespace).await;
    removed_deletion_costs_are_reported(namespace).await;
    let before = evictions(&release).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(evictions(&release).await, before, "nothing is left");
}

/// A pod that was gated for a long time has not been unschedulable for as long.
async fn gated_pods_close_no_group(namespace: &str) {
    taint_spot(true).await;
    distribute(namespace, weights(80, 20), json!({"name": "web"}), json!({"unschedulableAfter": "12s"}))
        .await;
    let mut template = template();
    template["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10, "template": template})).await;
    eventually("ten pods", PATIENCE, async || (pods_of(namespace).await.len() == 10).then_some(())).await;
    // Longer than `unschedulableAfter`.
    sleep(Duration::from_secs(15)).await;
    for pod in pods_of(namespace).await {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let remove = r#"[{"op": "remove", "path": "/spec/schedulingGates"}]"#;
        kubectl(&["patch", "pod", name, "-n", namespace, "--type=json", "-p", remove]).await;
    }
    eventually("two pods wait", PATIENCE, async || {
        (pods_of(namespace).await.iter().filter(|pod| is_unschedulable(pod)).count() == 2).then_some(())
    })
    .await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(condition(&status(namespace).await, "Available")["status"], "True");
    until(namespace, "closed", |status| condition(status, "Available")["reason"] == "Unschedulable").await;
    taint_spot(false).await;
    clean(namespace, &["deployment/web"]).await;
}

async fn rollout_ends_while_spot_is_short(namespace: &str) {
    taint_spot(true).await;
    distribute(namespace, weights(80, 20), json!({"name": "web"}), json!({"unschedulableAfter": "5s"})).await;
    deployment(namespace, 10).await;
    until(namespace, "closed", |status| condition(status, "Available")["reason"] == "Unschedulable").await;
    kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await;
    kubectl(&["rollout", "status", "-n", namespace, "deployment/web", "--timeout=120s"]).await;
    assert_eq!(shares(&settled(namespace, 10).await), (10, 0), "all new pods are on default");
    taint_spot(false).await;
    clean(namespace, &["deployment/web"]).await;
}

/// Ten Jobs of one pod, as KEDA creates them.
async fn controllers_with_one_pod_share_their_owners_sequence(namespace: &str) {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledjobs.keda.example.com"},
        "spec": {
            "group": "keda.example.com", "scope": "Namespaced", "names": {"kind": "ScaledJob", "plural": "scaledjobs"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
        },
    }))
    .await;
    let (api_version, metadata) =
        ("keda.example.com/v1alpha1", json!({"name": "consumer", "namespace": namespace}));
    let scaled_job = json!({"apiVersion": api_version, "kind": "ScaledJob", "metadata": metadata});
    let owner = eventually("scaled jobs are served", PATIENCE, async || {
        e2e::cluster::create(&scaled_job, &[]).await.ok()
    });
    let uid = owner.await["metadata"]["uid"].clone();
    let target = json!({"apiVersion": api_version, "kind": "ScaledJob", "name": "consumer"});
    distribute(namespace, weights(80, 20), target, json!({})).await;
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    let job = |number: usize| {
        let owners = json!([{"apiVersion": api_version, "kind": "ScaledJob", "name": "consumer", "uid": uid, "controller": true}]);
        let metadata =
            json!({"name": format!("consumer-{number}"), "namespace": namespace, "ownerReferences": owners});
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}})
    };
    let jobs = json!({"apiVersion": "v1", "kind": "List", "items": (0..10).map(job).collect::<Vec<_>>()});
    output("kubectl", &["create", "-f", "-"], &jobs.to_string()).await;
    eventually("ten pods", PATIENCE, async || (pods_of(namespace).await.len() == 10).then_some(())).await;
    assert_eq!(groups(namespace).await, counts(&[("default", 8), ("spot", 2)]));
    clean(namespace, &["scaledjob/consumer"]).await;
}

/// Twenty runs of one pod, with the default history of three.
async fn runs_of_a_cron_job_are_shared_out_over_time(namespace: &str) {
    distribute(namespace, weights(90, 10), json!({"kind": "CronJob", "name": "nightly"}), json!({})).await;
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    apply(&json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly", "namespace": namespace},
        "spec": {"suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}},
    }))
    .await;
    let mut runs = BTreeMap::new();
    for run in 0..20 {
        let name = format!("n-{run}");
        kubectl(&["create", "job", "-n", namespace, "--from=cronjob/nightly", &name]).await;
        let of_run = format!("job-name={name}");
        let group = eventually("its pod", PATIENCE, async || {
            let pods = get(&["pods", "-n", namespace, "-l", &of_run]).await;
            pods["items"][0]["spec"]["nodeSelector"]["type"].as_str().map(str::to_owned)
        })
        .await;
        *runs.entry(group).or_insert(0) += 1;
        // The history is shorter than the sequence.
        kubectl(&["delete", "job", &name, "-n", namespace]).await;
    }
    assert_eq!(runs, counts(&[("default", 18), ("spot", 2)]));
    clean(namespace, &["cronjob/nightly"]).await;
}

/// The volume of db-1 is in zone a, and its ordinal belongs to zone b.
async fn pod_follows_its_volume(namespace: &str) {
    for (node, zone) in [("default-1", "a"), ("default-2", "a"), ("spot-1", "b"), ("spot-2", "b")] {
        kubectl(&["label", "node", node, &format!("{ZONE}={zone}"), "--overwrite"]).await;
    }
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "zonal"},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
    });
    apply(&class).await;
    for number in 0..3 {
        let in_zone_a = json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["a"]}]});
        apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("pv-{number}")},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "zonal",
                "claimRef": {"namespace": namespace, "name": format!("data-db-{number}")}, "hostPath": {"path": format!("/tmp/pv-{number}")},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [in_zone_a]}},
            },
        }))
        .await;
    }
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "zonal", "resources": {"requests": {"storage": "1Gi"}}});
    let metadata = json!({"name": "db", "namespace": namespace});
    apply(&json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": {
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": template(),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }}))
    .await;
    let rollout = ["rollout", "status", "-n", namespace, "statefulset/db", "--timeout=120s"];
    kubectl(&rollout).await;
    let zones = json!([{"nodeLabel": {ZONE: "a"}, "weight": 50}, {"nodeLabel": {ZONE: "b"}, "weight": 50}]);
    distribute(namespace, zones, json!({"kind": "StatefulSet", "name": "db"}), json!({})).await;
    kubectl(&["rollout", "restart", "-n", namespace, "statefulset/db"]).await;
    kubectl(&rollout).await;
    for pod in pods_of(namespace).await {
        assert_eq!(pod["spec"]["nodeSelector"][ZONE], "a", "{}", pod["metadata"]["name"]);
        assert!(pod["spec"]["nodeName"].is_string());
    }
    clean(namespace, &["statefulset/db"]).await;
    kubectl(&["delete", "persistentvolumeclaims", "--all", "-n", namespace]).await;
    kubectl(&[
        "delete",
        "persistentvolume/pv-0",
        "persistentvolume/pv-1",
        "persistentvolume/pv-2",
        "storageclass/zonal",
    ])
    .await;
}

/// The only nodes of the group have a taint that its pods do not tolerate, as nodes that Karpenter is about to remove.
async fn tainted_group_closes(namespace: &str) {
    taint_spot(true).await;
    // Nodes are compared with the tolerations in the template of the target.
    deployment(namespace, 0).await;
    distribute(namespace, weights(80, 20), json!({"name": "web"}), json!({"availability": "Nodes"})).await;
    let tainted =
        until(namespace, "closed", |status| condition(status, "Available")["status"] == "False").await;
    assert_eq!(condition(&tainted, "Available")["reason"], "NoNodes");
    assert_eq!(shares(&scale(namespace, "deployment", 10).await), (10, 0));
    taint_spot(false).await;
    clean(namespace, &["deployment/web"]).await;
}

/// Regular nodes are those without the label of spot nodes, as on AKS.
async fn pod_that_insists_on_spot_goes_there(namespace: &str) {
    const PRIORITY: &str = "kubernetes.azure.com/scalesetpriority";
    kubectl(&["label", "node", "spot-1", "spot-2", &format!("{PRIORITY}=spot")]).await;
    let regular = json!([{"matchExpressions": [{"key": PRIORITY, "operator": "DoesNotExist"}]}]);
    let groups_of_aks = json!([
        {"name": "regular", "nodeLabel": {"kubernetes.io/os": "linux"}, "nodeAffinity": regular, "weight": 80},
        {"name": "spot", "nodeLabel": {PRIORITY: "spot"}, "weight": 20},
    ]);
    distribute(namespace, groups_of_aks, json!({"name": "web"}), json!({})).await;
    let mut template = template();
    let spot = json!({"matchExpressions": [{"key": PRIORITY, "operator": "In", "values": ["spot"]}]});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [spot]}});
    template["spec"]["affinity"] = json!({"nodeAffinity": required});
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10, "template": template})).await;
    eventually("ten pods run", PATIENCE, async || {
        let pods = pods_of(namespace).await;
        (pods.len() == 10 && pods.iter().all(|pod| pod["status"]["phase"] == "Running")).then_some(())
    })
    .await;
    assert_eq!(groups(namespace).await, counts(&[("spot", 10)]));
    kubectl(&["label", "node", "spot-1", "spot-2", &format!("{PRIORITY}-")]).await;
    clean(namespace, &["deployment/web"]).await;
}

async fn pods_from_before_count_by_their_nodes(namespace: &str) {
    // Neither spot nodes nor a node that is in no group.
    kubectl(&["cordon", "-l", "type!=default"]).await;
    deployment(namespace, 10).await;
    eventually("ten pods", PATIENCE, async || {
        let pods = pods(namespace).await;
        (pods.len() == 10 && pods.iter().all(|pod| pod.ready)).then_some(())
    })
    .await;
    kubectl(&["uncordon", "-l", "type!=default"]).await;
    distribute(namespace, weights(80, 20), json!({"name": "web"}), json!({})).await;
    until(namespace, "they count", |status| status["pods"] == "10/0").await;
    kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=20"]).await;
    until(namespace, "16/4 together", |status| status["pods"] == "16/4").await;
    assert_eq!(groups(namespace).await, counts(&[("default", 16), ("spot", 4)]));
    clean(namespace, &["deployment/web"]).await;
}

/// Another controller takes the deletion costs away.
async fn removed_deletion_costs_are_reported(namespace: &str) {
    distribute(namespace, weights(80, 20), json!({"name": "web"}), json!({})).await;
    deployment(namespace, 10).await;
    assert_exact(&settled(namespace, 10).await, "before");
    let remove =
        ["annotate", "pods", "-n", namespace, "-l", "app=web", "controller.kubernetes.io/pod-deletion-cost-"];
    kubectl(&remove).await;
    let reported = |status: &Value| condition(status, "DeletionCostsRemoved")["status"] == "True";
    until(namespace, "reported", reported).await;
    let events = eventually("an Event", PATIENCE, async || {
        let events = kubectl(&["events", "-n", namespace, "--for=poddistributor/sample"]).await;
        events.contains("DeletionCostsRemoved").then_some(events)
    })
    .await;
    assert!(events.contains("10 pods"), "{events}");
    // New pods have costs.
    kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await;
    kubectl(&["rollout", "status", "-n", namespace, "deployment/web", "--timeout=120s"]).await;
    until(namespace, "no more", |status| condition(status, "DeletionCostsRemoved").is_null()).await;
    settled(namespace, 10).await;
    assert_exact(&scale(namespace, "deployment", 5).await, "five");
    clean(namespace, &["deployment/web"]).await;
}
