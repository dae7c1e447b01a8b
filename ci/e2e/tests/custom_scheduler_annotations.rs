//! `custom-scheduler-annotations` in a cluster, installed by the chart with two replicas: the original's sample, both generations of
//! annotations, exempt pods, warnings about invalid strategies, and a `PodDistributor` beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output, run};
use e2e::release::Release;
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const WEBHOOK: &str = "custom-scheduler-annotations";
const STRATEGY: &str = "custom-pod-schedule-strategy";
/// The original's sample.
const SAMPLE: &str =
    "nodesize=od4vcpu16gb,base=1,weight=0:nodesize=spot4vcpu16gb,weight=1:nodesize=spot8vcpu32gb,weight=1";
const GROUPS: [&str; 3] = ["od4vcpu16gb", "spot4vcpu16gb", "spot8vcpu32gb"];

/// Nodes that only seem to be some: pods bound to them seem to run.
async fn nodes() {
    for group in GROUPS {
        let label = format!("nodesize={group}");
        let arguments =
            ["nodes", "1", "--prefix", group, "--label", &label, "--pods", "1000", "--cpu", "1000"];
        output(&format!("{REPOSITORY}/ci/cluster"), &arguments, "").await;
    }
}

/// Installs the webhook, beside others of these values; its pods' namespace has opted in.
async fn install(name: &str, values: Value) -> Release {
    for plural in ["poddistributors", "placements"] {
        let file = format!("{REPOSITORY}/crds/{plural}.yaml");
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await;
    }
    eventually("the kinds are served", PATIENCE, async || {
        let served = run("kubectl", &["get", "poddistributors,placements", "-A"], "").await;
        served.status.success().then_some(())
    })
    .await;
    let mut all = json!({"crds": {"enabled": false}});
    all.as_object_mut().unwrap().extend(values.as_object().unwrap().clone());
    let release = Release::install_webhook(WEBHOOK, name, &all).await;
    opt_in(&release.pods).await;
    release
}

async fn opt_in(namespace: &str) {
    kubectl(&["label", "namespace", namespace, "--overwrite", "custom-kube-scheduler-webhook=enabled"]).await;
}

/// A workload with pods for the fake nodes. The annotations are on the workload or on its pods.
fn workload(namespace: &str, kind: &str, own: &Value, pods: &Value, spec: &Value) -> Value {
    let api_version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let mut all = json!({
        "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": pods},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                "containers": [{"name": "c", "image": "podshaper/pause:1"}],
            },
        },
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    if kind == "Job" {
        all["template"]["spec"]["restartPolicy"] = json!("Never");
    } else {
        all["selector"] = json!({"matchLabels": {"app": "web"}});
    }
    let metadata = json!({"name": "web", "namespace": namespace, "annotations": own});
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": all})
}

fn deployment(namespace: &str, own: &Value, pods: &Value, replicas: usize) -> Value {
    workload(namespace, "Deployment", own, pods, &json!({"replicas": replicas}))
}

/// The pods of the namespace that aren't going, once there are so many and all are ready.
async fn settled(namespace: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} pods"), PATIENCE * 2, async || {
        let list = get(&["pods", "-n", namespace]).await;
        let pods = list["items"].as_array().unwrap().clone();
        let ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let mut ready = conditions.filter(|one| one["type"] == "Ready" && one["status"] == "True");
            pod["status"]["phase"] == "Succeeded"
                || (pod["metadata"]["deletionTimestamp"].is_null() && ready.next().is_some())
        };
        (pods.len() == count && pods.iter().all(ready)).then_some(pods)
    })
    .await
}

fn annotation<'p>(pod: &'p Value, key: &str) -> Option<&'p str> {
    pod["metadata"]["annotations"][format!("placement.podshaper.dev/{key}")].as_str()
}

/// How many of the pods are in each of the sample's groups; each of them has a slot of its own, and is where it was put.
fn shares(pods: &[Value]) -> [usize; 3] {
    let mut shares = [0; 3];
    let mut slots = BTreeSet::new();
    for pod in pods {
        let selected = pod["spec"]["nodeSelector"]["nodesize"].as_str().expect("it is placed");
        assert_eq!(annotation(pod, "group"), Some(&*format!("nodesize={selected}")));
        let node = pod["spec"]["nodeName"].as_str().unwrap();
        assert!(node.starts_with(selected), "{node} is none of {selected}'s");
        assert!(slots.insert(annotation(pod, "slot").unwrap()), "a slot twice: {pod:#}");
        shares[GROUPS.iter().position(|group| *group == selected).unwrap()] += 1;
    }
    shares
}

async fn scale(namespace: &str, count: usize) -> Vec<Value> {
    kubectl(&["scale", "-n", namespace, "deployment/web", &format!("--replicas={count}")]).await;
    settled(namespace, count).await
}

async fn remove(namespace: &str, workload: &str) {
    kubectl(&["delete", workload, "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
}

#[tokio::test]
async fn original_sample_places_by_weight() {
    nodes().await;
    let release = install("sample", json!({})).await;
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;
    let namespace = &*release.pods;
    let newer = json!({STRATEGY: SAMPLE});
    let older = json!({"UseCustomKubeScheduler": "true", "CustomPodScheduleStrategy": SAMPLE});
    for (own, pods) in
        [(&newer, &json!({})), (&older, &json!({})), (&json!({}), &newer), (&json!({}), &older)]
    {
        apply(&deployment(namespace, own, pods, 5)).await;
        assert_eq!(shares(&settled(namespace, 5).await), [1, 2, 2], "{own} {pods}");
        for (count, wanted) in [(10, [1, 4, 5]), (30, [1, 14, 15])] {
            assert_eq!(shares(&scale(namespace, count).await), wanted, "{own} {pods}");
        }
        let seven = shares(&scale(namespace, 7).await);
        assert!(matches!(seven, [1, 3, 3]), "the base stays, and the others share: {seven:?}");
        rollout(namespace, 7).await;
        placement_status(&release, "1/3/3").await;
        remove(namespace, "deployment/web").await;
    }
    let decisions = release.metric("podshaper_custom_scheduler_annotations_decisions_total").await;
    assert!(decisions.len() >= 2, "both replicas have placed some: {decisions:?}");
}

/// A rolling update: pods of each revision have their places among themselves.
async fn rollout(namespace: &str, count: usize) {
    kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await;
    kubectl(&["rollout", "status", "-n", namespace, "deployment/web", "--timeout=120s"]).await;
    let pods = settled(namespace, count).await;
    assert_eq!(
        pods.iter().map(|pod| &pod["metadata"]["ownerReferences"][0]["uid"]).collect::<Vec<_>>().len(),
        count
    );
    assert_eq!(shares(&pods), [1, (count - 1) / 2, count / 2], "after a rolling update");
}

/// The ledger says so, and so do metrics.
async fn placement_status(release: &Release, pods: &str) {
    eventually("the ledger tells", PATIENCE, async || {
        let ledgers = get(&["placements", "-n", &release.pods]).await;
        let status = |ledger: &Value| ledger["status"] == json!({"pods": pods, "desired": pods});
        ledgers["items"].as_array().unwrap().iter().any(status).then_some(())
    })
    .await;
    // The metrics are sums over all workloads.
    let total: u32 = pods.split('/').map(|count| count.parse::<u32>().unwrap()).sum();
    eventually("the metrics count the pods", PATIENCE, async || {
        let gauges = release.metric("podshaper_custom_scheduler_annotations_pods").await;
        gauges.iter().any(|gauge| gauge.parse::<u32>().is_ok_and(|count| count >= total)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_controller_keeps_shares_and_removes_unplaced_pods_first() {
    nodes().await;
    let release = install("others", json!({})).await;
    let namespace = &*release.pods;
    let own = json!({STRATEGY: SAMPLE});
    let stateful = json!({"replicas": 10, "podManagementPolicy": "Parallel", "serviceName": "web"});
    apply(&workload(namespace, "StatefulSet", &own, &json!({}), &stateful)).await;
    assert_eq!(shares(&settled(namespace, 10).await), [1, 4, 5], "a StatefulSet");
    remove(namespace, "statefulset/web").await;
    apply(&workload(namespace, "ReplicaSet", &own, &json!({}), &json!({"replicas": 10}))).await;
    assert_eq!(shares(&settled(namespace, 10).await), [1, 4, 5], "a ReplicaSet");
    remove(namespace, "replicaset/web").await;
    let job = json!({"parallelism": 5, "completions": 10});
    apply(&workload(namespace, "Job", &json!({}), &own, &job)).await;
    assert_eq!(shares(&settled(namespace, 10).await), [1, 4, 5], "a Job's completions");
    remove(namespace, "job/web").await;

    // While no webhook answers, pods are created as they are; they are the first to go.
    apply(&deployment(namespace, &own, &json!({}), 5)).await;
    assert_eq!(shares(&settled(namespace, 5).await), [1, 2, 2]);
    let webhook = format!("deployment/{}", release.fullname());
    release.kubectl(&["scale", &webhook, "--replicas=0"]).await;
    release
        .kubectl(&[
            "wait",
            "--for=delete",
            "pod",
            "--selector=app.kubernetes.io/component=webhook",
            "--timeout=90s",
        ])
        .await;
    scale(namespace, 8).await;
    release.kubectl(&["scale", &webhook, "--replicas=2"]).await;
    release.kubectl(&["rollout", "status", &webhook, "--timeout=120s"]).await;
    eventually("they are the first to go", PATIENCE, async || {
        let list = get(&["pods", "-n", namespace]).await;
        let cost = |pod: &&Value| {
            pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] == "-2147483647"
        };
        (list["items"].as_array().unwrap().iter().filter(cost).count() == 3).then_some(())
    })
    .await;
    assert_eq!(shares(&scale(namespace, 5).await), [1, 2, 2], "the placed stay");
    // The strategy changes on the Deployment: pods that come go where they are missing, at once.
    let more = format!(
        "{STRATEGY}=nodesize=od4vcpu16gb,weight=1:nodesize=spot4vcpu16gb,weight=1:nodesize=spot8vcpu32gb,weight=1"
    );
    kubectl(&["annotate", "-n", namespace, "--overwrite", "deployment/web", &more]).await;
    eventually("what the owners say is read once a second", PATIENCE, async || {
        let owners = get(&["pods", "-n", namespace]).await["items"][0]["metadata"]["ownerReferences"].clone();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "web-", "namespace": namespace, "ownerReferences": owners},
            "spec": {"containers": [{"name": "c", "image": "podshaper/pause:1"}]},
        });
        let tried = e2e::cluster::create(&pod, &["--dry-run=server"]).await.unwrap();
        (tried["spec"]["nodeSelector"]["nodesize"] == GROUPS[0]).then_some(())
    })
    .await;
    assert_eq!(shares(&scale(namespace, 9).await), [3, 3, 3]);
    // Without a strategy pods go anywhere; the ReplicaSet keeps a copy of it that doesn't count.
    kubectl(&["annotate", "-n", namespace, "deployment/web", &format!("{STRATEGY}-")]).await;
    eventually("the strategy is gone", PATIENCE, async || {
        scale(namespace, 9).await;
        let pods = scale(namespace, 10).await;
        pods.iter().any(|pod| annotation(pod, "slot").is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_of_excluded_namespaces_are_unchanged() {
    nodes().await;
    let mut values = json!({});
    values[WEBHOOK] = json!({"blocklistedNamespaces": ["alone-blocked"]});
    let release = install("alone", values).await;
    let own = json!({STRATEGY: SAMPLE});
    for (namespace, labels) in [
        ("alone-unlabelled", json!({"podshaper-test": release.pods})),
        (
            "alone-blocked",
            json!({"podshaper-test": release.pods, "custom-kube-scheduler-webhook": "enabled"}),
        ),
    ] {
        let metadata = json!({"name": namespace, "labels": labels});
        apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).await;
        apply(&deployment(namespace, &own, &own, 3)).await;
        for pod in settled(namespace, 3).await {
            assert!(pod["spec"]["nodeSelector"].is_null() && annotation(&pod, "slot").is_none(), "{pod:#}");
        }
        remove(namespace, "deployment/web").await;
    }
    apply(&deployment(&release.pods, &own, &json!({}), 3)).await;
    assert_eq!(shares(&settled(&release.pods, 3).await), [1, 1, 1], "and this one isn't");
}

#[tokio::test]
async fn invalid_strategy_is_a_warning_and_an_event() {
    nodes().await;
    let release = install("bad", json!({})).await;
    let namespace = &*release.pods;
    let bad = deployment(namespace, &json!({STRATEGY: "nodesize=od4vcpu16gb,weight=-1"}), &json!({}), 3);
    let apply = async || run("kubectl", &["apply", "-f", "-"], &bad.to_string()).await;
    let applied = apply().await;
    let output = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.success(), "{output}");
    let wanted = "Warning: custom-scheduler-annotations: custom-pod-schedule-strategy: at character 29: weight must be a whole number \
                  from 0 to 1000000, not \"-1\"\nWarning:   nodesize=od4vcpu16gb,weight=-1\nWarning:   ";
    let wanted = format!("{wanted}{:28}^\n", "");
    assert!(output.contains(&wanted), "{output}");
    for pod in settled(namespace, 3).await {
        assert!(pod["spec"]["nodeSelector"].is_null() && annotation(&pod, "slot").is_none(), "{pod:#}");
    }
    eventually("an Event", PATIENCE, async || {
        let events = kubectl(&["events", "-n", namespace, "--for=deployment/web"]).await;
        (events.contains("InvalidStrategy") && events.contains("at character 29")).then_some(())
    })
    .await;
    assert!(counted(&release, "invalid").await >= 3);

    let mut strict = json!({"crds": {"enabled": false}});
    strict[WEBHOOK] = json!({"validate": true});
    release.upgrade(&strict).await;
    // Other changes of the workload are admitted.
    kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=2"]).await;
    kubectl(&["annotate", "-n", namespace, "deployment/web", "note=it-changes"]).await;
    remove(namespace, "deployment/web").await;
    let refused = apply().await;
    let output = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && output.contains("denied the request"), "{output}");
    assert!(output.contains(&format!("\n  nodesize=od4vcpu16gb,weight=-1\n  {:28}^", "")), "{output}");
    let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "web", "namespace": namespace}});
    let template =
        &workload(namespace, "Job", &json!({}), &json!({STRATEGY: "a=b"}), &json!({}))["spec"]["template"];
    cron["spec"] = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}});
    let output = e2e::cluster::create(&cron, &["--dry-run=server"]).await.unwrap_err();
    assert!(output.contains("no group has a weight or a base"), "{output}");
}

/// How many pods had this outcome.
async fn counted(release: &Release, outcome: &str) -> usize {
    let name = "podshaper_custom_scheduler_annotations_decisions_total";
    let page = |pod: String| async move {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:8080/proxy/metrics", release.name);
        kubectl(&["get", "--raw", &path]).await
    };
    let selector = format!("--selector=app.kubernetes.io/name={WEBHOOK},app.kubernetes.io/component=webhook");
    let pods = get(&["pods", "-n", &release.name, &selector]).await;
    let mut count = 0;
    for pod in pods["items"].as_array().unwrap() {
        let page = page(pod["metadata"]["name"].as_str().unwrap().to_owned()).await;
        let label = format!("outcome=\"{outcome}\"");
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(&label));
        count += lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum::<usize>();
    }
    count
}

#[tokio::test]
async fn workload_with_distributor_is_placed_by_distributor() {
    nodes().await;
    let selector = json!({"matchLabels": {"podshaper-test": "both-pods"}});
    let release =
        install("both", json!({"distributor": {"enabled": true, "namespaceSelector": selector}})).await;
    let namespace = &*release.pods;
    apply(&json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "distribution": [{"nodeLabel": {"nodesize": GROUPS[0]}, "weight": 80}, {"nodeLabel": {"nodesize": GROUPS[1]}, "weight": 20}],
            "target": {"kind": "Deployment", "name": "web"},
        },
    }))
    .await;
    apply(&deployment(namespace, &json!({STRATEGY: SAMPLE}), &json!({}), 10)).await;
    let pods = settled(namespace, 10).await;
    assert_eq!(shares(&pods), [1, 4, 5], "the annotation counts");
    let placed_by = |pod: &Value| pod["metadata"]["labels"]["podshaper.dev/placed"] == WEBHOOK;
    assert!(pods.iter().all(placed_by), "no pod has two groups");
    for pod in &pods {
        assert!(pod["metadata"]["annotations"]["mutated-by"].is_null(), "{pod:#}");
    }
    // And the distributor says so.
    let ready = eventually("it is reported", PATIENCE, async || {
        let distributor = get(&["poddistributor", "web", "-n", namespace]).await;
        let conditions = distributor["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|one| one["type"] == "Ready" && one["reason"] == "Superseded")?;
        Some(ready.clone())
    })
    .await;
    assert_eq!(ready["message"], "custom-scheduler-annotations already places pods of the same workload");
    assert_eq!(shares(&scale(namespace, 30).await), [1, 14, 15]);
    assert_eq!(shares(&scale(namespace, 7).await), [1, 3, 3]);
    // Without the annotation the distributor has its way with the pods that come.
    kubectl(&["annotate", "-n", namespace, "deployment/web", &format!("{STRATEGY}-")]).await;
    eventually("the distributor places", PATIENCE, async || {
        kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await;
        kubectl(&["rollout", "status", "-n", namespace, "deployment/web", "--timeout=120s"]).await;
        let pods = settled(namespace, 7).await;
        let placed_by = |pod: &Value| pod["metadata"]["labels"]["podshaper.dev/placed"] == "distributor";
        pods.iter().all(placed_by).then(|| assert_eq!(shares(&pods), [6, 1, 0]))
    })
    .await;
    eventually("it is ready", PATIENCE, async || {
        let distributor = get(&["poddistributor", "web", "-n", namespace]).await;
        let conditions = distributor["status"]["conditions"].as_array()?;
        conditions.iter().find(|one| one["type"] == "Ready" && one["status"] == "True").map(|_| ())
    })
    .await;
}
