//! Capacity that goes and comes back, with an autoscaler. These tests come with `ci/test --long`. The pauses between two probes are minutes: the
//! tests end them in the status.

use std::time::{Duration, Instant};

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output};
use e2e::release::Release;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::autoscaler::{Autoscaler, evictions, is_unschedulable, node_names};
use crate::distribution::{GROUP, assert_exact, pods, scale, settled, shares};
use crate::fixture::{condition, distributor, install, nodes, rounds, status, template, workload};

/// `unschedulableAfter` of these tests: above the time in which the autoscaler adds a node.
const AFTER: Duration = Duration::from_secs(15);
/// The time of a probe and of the successors that return one by one.
const RETURN: Duration = Duration::from_mins(2);

/// A release, a distributor of 80/20 with these further fields, and an autoscaler with so many nodes of ten pods each.
async fn start(name: &str, spec: &Value, spot_nodes: usize, pods_per_node: usize) -> (Release, Autoscaler) {
    nodes().await;
    let release = install(name, &json!({})).await;
    let namespace = &*release.pods;
    let autoscaler = Autoscaler::start(namespace, "spot", spot_nodes, pods_per_node).await;
    distributor(namespace, &json!({"name": "web"})).await;
    let mut spec = spec.clone();
    spec["unschedulableAfter"] = json!(format!("{}s", AFTER.as_secs()));
    patch(namespace, &spec).await;
    (release, autoscaler)
}

async fn patch(namespace: &str, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    kubectl(&["patch", "poddistributor", "sample", "-n", namespace, "--type=merge", "-p", &patch]).await;
    eventually("the distributor is known", PATIENCE, async || {
        let known = get(&["poddistributor", "sample", "-n", namespace]).await;
        (known["status"]["observedGeneration"] == known["metadata"]["generation"]).then_some(())
    })
    .await;
}

async fn deployment(namespace: &str, replicas: usize) {
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": replicas})).await;
}

fn state(status: &Value) -> &Value {
    &status["groups"][1]["state"]
}

/// Ends the pause before the next probe of the group with this index.
async fn end_pause(namespace: &str, group: usize) {
    let now = output("date", &["--utc", "+%Y-%m-%dT%H:%M:%SZ"], "").await;
    let field = format!("/status/groups/{group}/nextProbe");
    let change = json!([{"op": "replace", "path": field, "value": now.trim()}]).to_string();
    let options = ["--subresource=status", "--type=json", "-p", &change];
    kubectl(&[&["patch", "poddistributor", "sample", "-n", namespace], &options[..]].concat()).await;
}

/// A workload of pods that may not be replaced, with a distributor of its own.
async fn fragile(namespace: &str, name: &str, spec: Value) {
    let mut template = template();
    template["metadata"]["labels"] = json!({"app": name});
    template["spec"]["restartPolicy"] = json!("Never");
    // They run for longer than the outage.
    template["metadata"]["annotations"] = json!({"pod-complete.stage.kwok.x-k8s.io/delay": "10m"});
    let mut job = json!({"template": template});
    job.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    apply(&json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": {"kind": "Job", "name": name}, "unschedulableAfter": "15s",
        },
    }))
    .await;
    eventually("the distributor is known", PATIENCE, async || {
        let known = get(&["poddistributor", name, "-n", namespace]).await;
        known["status"]["observedGeneration"].is_number().then_some(())
    })
    .await;
    let metadata = json!({"name": name, "namespace": namespace});
    apply(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job})).await;
}

#[tokio::test]
async fn withdrawn_capacity_is_replaced_in_time_and_returns_at_rest() {
    let spec = json!({"rebalance": {"mode": "OnRecovery"}});
    let (release, autoscaler) = start("withdrawn", &spec, 2, 20).await;
    let namespace = &*release.pods;
    deployment(namespace, 10).await;
    assert_exact(&settled(namespace, 10).await, "before");

    autoscaler.limit(0).await;
    let begun = Instant::now();
    eventually("every pod runs", AFTER + Duration::from_mins(1), async || {
        let pods = pods(namespace).await;
        let runs = pods.len() == 10 && pods.iter().all(|pod| pod.ready && !pod.gone);
        (runs && shares(&pods) == (10, 0)).then_some(())
    })
    .await;
    println!("ten pods run again after {:?}", begun.elapsed());
    let lost = status(namespace, "closed", |status| state(status) == "Closed").await;
    assert_eq!(condition(&lost, "Available")["reason"], "Unschedulable");

    leader_dies(&release).await;
    assert_eq!(
        shares(&scale(namespace, "deployment", 12).await),
        (12, 0),
        "no new pod goes to a closed group"
    );
    scale(namespace, "deployment", 10).await;
    let before = evictions(&release).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(evictions(&release).await, before, "at rest");

    // No pod is created: the pod that tries the group is the successor of an evicted one.
    autoscaler.limit(2).await;
    end_pause(namespace, 1).await;
    let back = eventually("8/2", RETURN, async || {
        let pods = pods(namespace).await;
        let ready = pods.iter().filter(|pod| pod.ready && !pod.gone).count();
        assert!(ready >= 9, "one at a time: {ready}");
        (ready == 10 && shares(&pods) == (8, 2)).then_some(pods)
    })
    .await;
    assert_exact(&back, "all are back");
    status(namespace, "open", |status| condition(status, "Available")["status"] == "True").await;
}

/// The replica that leads ends without notice. Another one continues from the status.
async fn leader_dies(release: &Release) {
    let lease = get(&["lease", &release.fullname(), "-n", &release.name]).await;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap().to_owned();
    release.kubectl(&["delete", "pod", &holder, "--grace-period=0", "--force"]).await;
    let deployment = format!("deployment/{}", release.fullname());
    release.kubectl(&["rollout", "status", &deployment, "--timeout=120s"]).await;
    eventually("another leader", PATIENCE, async || {
        let lease = get(&["lease", &release.fullname(), "-n", &release.name]).await;
        (lease["spec"]["holderIdentity"] != *holder).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_of_fragile_jobs_are_not_evicted() {
    let (release, autoscaler) = start("fragile", &json!({}), 0, 20).await;
    let namespace = &*release.pods;
    fragile(namespace, "once", json!({"backoffLimit": 0, "parallelism": 5, "completions": 5})).await;
    fragile(namespace, "many", json!({"backoffLimit": 6, "parallelism": 20, "completions": 20})).await;
    let indexed = json!({"backoffLimit": 0, "parallelism": 5, "completions": 5, "completionMode": "Indexed"});
    fragile(namespace, "indexed", indexed).await;
    let mut bare = template();
    bare["apiVersion"] = json!("v1");
    bare["kind"] = json!("Pod");
    bare["metadata"]["name"] = json!("bare");
    bare["metadata"]["namespace"] = json!(namespace);
    bare["spec"]["nodeSelector"] = json!({"type": "spot"});
    apply(&bare).await;
    let bare = async || get(&["pod", "bare", "-n", namespace]).await["metadata"]["uid"].clone();
    let uid = bare().await;
    for (name, kept) in [("once", 1), ("many", 4), ("indexed", 1)] {
        eventually("its pods are kept", PATIENCE, async || {
            let status = get(&["poddistributor", name, "-n", namespace]).await["status"].clone();
            (status["groups"][1]["notTakenBack"] == json!({"Job": kept})).then_some(())
        })
        .await;
    }
    sleep(AFTER * 2).await;
    assert_eq!(evictions(&release).await, 0);
    assert_eq!(bare().await, uid);
    autoscaler.limit(2).await;
    for name in ["once", "many", "indexed"] {
        let job = eventually("its pods run", PATIENCE, async || {
            let job = get(&["job", name, "-n", namespace]).await;
            (job["status"]["ready"] == job["spec"]["parallelism"]).then_some(job)
        })
        .await;
        assert!(job["status"]["failed"].is_null(), "{name}: {}", job["status"]);
    }
}

#[tokio::test]
async fn room_for_a_part_is_used_and_no_more_is_evicted() {
    // Four of twenty pods belong on spot, and the cloud has room for two.
    let spec = json!({"rebalance": {"mode": "OnRecovery"}});
    let (release, _autoscaler) = start("half", &spec, 1, 2).await;
    let namespace = &*release.pods;
    deployment(namespace, 20).await;
    let runs = async || {
        let pods = pods(namespace).await;
        (pods.iter().filter(|pod| pod.ready && !pod.gone).count() == 20).then(|| shares(&pods))
    };
    eventually("18/2", PATIENCE, async || runs().await.filter(|shares| *shares == (18, 2))).await;
    let settled = status(namespace, "closed", |status| state(status) == "Closed").await;
    assert!(settled["groups"][1]["failedProbes"].is_null());
    let before = evictions(&release).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(evictions(&release).await, before, "in the pause");
    // One eviction for the probe, and one that takes it back.
    end_pause(namespace, 1).await;
    status(namespace, "a failed probe", |status| status["groups"][1]["failedProbes"] == 1).await;
    eventually("18/2 again", PATIENCE, async || runs().await.filter(|shares| *shares == (18, 2))).await;
    assert_eq!(evictions(&release).await - before, 2);
}

#[tokio::test]
async fn nights_at_zero_change_nothing() {
    let (release, _autoscaler) = start("nights", &json!({}), 2, 20).await;
    let namespace = &*release.pods;
    deployment(namespace, 0).await;
    for round in 0..if rounds() > 1 { 10 } else { 2 } {
        assert_exact(&scale(namespace, "deployment", 10).await, &format!("day {round}"));
        scale(namespace, "deployment", 0).await;
        eventually("the nodes are gone", PATIENCE, async || {
            node_names("spot").await.is_empty().then_some(())
        })
        .await;
    }
    assert_eq!(evictions(&release).await, 0);
}

#[tokio::test]
async fn only_pod_is_never_evicted() {
    let spec = json!({
        "rebalance": {"mode": "Always"},
        "distribution": [
            {"name": "spot", "nodeLabel": {"type": "spot"}, "weight": 1},
            {"name": "default", "nodeLabel": {"type": "default"}, "standIn": true},
        ],
    });
    let (release, autoscaler) = start("single", &spec, 0, 20).await;
    let namespace = &*release.pods;
    deployment(namespace, 1).await;
    let on_default = async || {
        let pods = pods(namespace).await;
        (pods.len() == 1 && pods[0].ready && pods[0].group.as_deref() == Some("default")).then_some(())
    };
    eventually("it runs on default", PATIENCE, on_default).await;
    let evicted = evictions(&release).await;
    autoscaler.limit(2).await;
    end_pause(namespace, 0).await;
    let begun = Instant::now();
    while begun.elapsed() < RETURN {
        sleep(Duration::from_secs(2)).await;
        assert!(on_default().await.is_some(), "it is there all the time");
    }
    assert_eq!(evictions(&release).await, evicted);
}

#[tokio::test]
async fn pod_that_fits_nowhere_moves_no_other() {
    let spec = json!({"rebalance": {"mode": "Always"}});
    let (release, _autoscaler) = start("huge", &spec, 2, 20).await;
    let namespace = &*release.pods;
    deployment(namespace, 10).await;
    assert_exact(&settled(namespace, 10).await, "before");
    let running = async || {
        let list = get(&["pods", "-n", namespace]).await;
        let pods = list["items"].as_array().unwrap().clone();
        let running = pods.iter().filter(|pod| !is_unschedulable(pod));
        running.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // A revision of pods that ask for more than any node has. Its rollout does not take away the pods of the old one.
    let before = running().await;
    let huge = json!({"spec": {
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100000"}}}]}},
    }});
    kubectl(&["patch", "deployment/web", "-n", namespace, "-p", &huge.to_string()]).await;
    eventually("it waits", PATIENCE, async || {
        let list = get(&["pods", "-n", namespace]).await;
        let mut pods = list["items"].as_array().unwrap().iter();
        pods.any(|pod| is_unschedulable(pod) && pod["metadata"]["annotations"][GROUP].is_string())
            .then_some(())
    })
    .await;
    sleep(AFTER * 4).await;
    let mut after = running().await;
    after.retain(|uid| before.contains(uid));
    assert_eq!(after.len(), 10, "no other pod has moved");
    assert!(evictions(&release).await <= 1, "nothing is evicted twice");
}
