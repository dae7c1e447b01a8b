//! `distributor` in a cluster, installed by the chart with three replicas: shares are exact on every step, through bursts,
//! scaling and rollouts, whatever controller creates the pods.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use e2e::browser::Browser;
use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output};
use e2e::release::Release;
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const GROUP: &str = "placement.podshaper.dev/group";
const SLOT: &str = "placement.podshaper.dev/slot";
const TOKEN: &str = "placement.podshaper.dev/token";

/// How often what depends on chance is tried: `ci/test --long` says more.
fn rounds() -> usize {
    std::env::var("PODSHAPER_TEST_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"))
}

/// Nodes that only seem to be some: pods bound to them seem to run.
async fn nodes() {
    for group in ["default", "spot"] {
        let label = format!("type={group}");
        let arguments =
            ["nodes", "2", "--prefix", group, "--label", &label, "--pods", "1000", "--cpu", "1000"];
        output(&format!("{REPOSITORY}/ci/cluster"), &arguments, "").await;
    }
}

async fn install(name: &str, values: &Value) -> Release {
    let mut block = json!({"replicas": 3});
    block.as_object_mut().unwrap().extend(values.as_object().unwrap().clone());
    let crds: Vec<_> = ["poddistributors", "placements"]
        .iter()
        .flat_map(|plural| ["-f".to_owned(), format!("{REPOSITORY}/crds/{plural}.yaml")])
        .collect();
    let crds: Vec<&str> = crds.iter().map(String::as_str).collect();
    kubectl(&[&["apply", "--server-side", "--force-conflicts"], &crds[..]].concat()).await;
    eventually("the kinds are served", PATIENCE, async || {
        let served = e2e::cluster::run("kubectl", &["get", "poddistributors,placements", "-A"], "").await;
        served.status.success().then_some(())
    })
    .await;
    Release::install_webhook("distributor", name, &json!({"crds": {"enabled": false}, "distributor": block}))
        .await
}

/// The original's sample: 80 percent on default nodes, 20 on spot nodes.
async fn distributor(namespace: &str, target: &Value) {
    apply(&json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": "sample", "namespace": namespace},
        "spec": {
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": target,
        },
    }))
    .await;
}

/// A pod template whose pods may run on the fake nodes.
fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "containers": [{"name": "c", "image": "podshaper/pause:1"}],
        },
    })
}

async fn workload(namespace: &str, api_version: &str, kind: &str, spec: Value) {
    let mut all = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template()});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let metadata = json!({"name": "web", "namespace": namespace});
    apply(&json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": all})).await;
}

/// A pod as far as placement is concerned.
#[derive(Debug)]
struct Pod {
    owner: String,
    group: Option<String>,
    slot: Option<u32>,
    gone: bool,
    ready: bool,
}

async fn pods(namespace: &str) -> Vec<Pod> {
    let list = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods")]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let read = |pod: &Value| {
        let annotation = |key: &str| pod["metadata"]["annotations"][key].as_str().map(str::to_owned);
        let group = pod["spec"]["nodeSelector"]["type"].as_str().map(str::to_owned);
        let marked = annotation(GROUP).map(|name| name.trim_start_matches("type=").to_owned());
        assert_eq!(group, marked, "what is marked is what is selected: {pod:#}");
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        Pod {
            owner: pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default().to_owned(),
            group,
            slot: annotation(SLOT).map(|slot| slot.parse().unwrap()),
            gone: !pod["metadata"]["deletionTimestamp"].is_null() || phase == "Failed",
            ready: phase == "Succeeded"
                || conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True"),
        }
    };
    list["items"].as_array().unwrap().iter().map(read).collect()
}

/// How many pods are in the groups default and spot.
fn shares<'p>(pods: impl IntoIterator<Item = &'p Pod>) -> (usize, usize) {
    pods.into_iter().fold((0, 0), |(default, spot), pod| match pod.group.as_deref() {
        Some("default") => (default + 1, spot),
        Some("spot") => (default, spot + 1),
        other => panic!("a pod in no group, {other:?}: {pod:?}"),
    })
}

/// What 80/20 comes to.
fn exact(pods: usize) -> (usize, usize) {
    let default = (pods * 8).div_ceil(10);
    (default, pods - default)
}

/// Waits until there are so many pods, all of them ready, and nothing else.
async fn settled(namespace: &str, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods"), PATIENCE * 2, async || {
        let pods = pods(namespace).await;
        (pods.len() == count && pods.iter().all(|pod| pod.ready && !pod.gone)).then_some(pods)
    })
    .await
}

async fn scale(namespace: &str, kind: &str, count: usize) -> Vec<Pod> {
    kubectl(&["scale", "-n", namespace, &format!("{kind}/web"), &format!("--replicas={count}")]).await;
    settled(namespace, count).await
}

fn assert_exact(pods: &[Pod], what: &str) {
    assert_eq!(shares(pods), exact(pods.len()), "{what}");
    let slots: BTreeSet<u32> = pods.iter().filter_map(|pod| pod.slot).collect();
    assert_eq!(slots.len(), pods.len(), "each slot once: {what}");
}

/// Less than a pod off the exact share.
fn assert_near((default, spot): (usize, usize), what: &str) {
    let count = default + spot;
    let off = default as f64 - count as f64 * 0.8;
    assert!(off.abs() < 1.0, "{what}: {default}/{spot} of {count}");
}

/// How many places are reserved for pods which nobody has seen, by owner.
async fn reserved(namespace: &str) -> BTreeMap<String, usize> {
    let placements = get(&["placements", "-n", namespace]).await;
    let read = |placement: &Value| {
        let owner = placement["metadata"]["ownerReferences"][0]["name"].as_str().unwrap().to_owned();
        (owner, placement["spec"]["reservations"].as_array().map_or(0, Vec::len))
    };
    placements["items"].as_array().unwrap().iter().map(read).collect()
}

/// While a Deployment is rolled out, each revision is within one pod of its shares, whenever its controller isn't amid a batch.
async fn rollout(namespace: &str, count: usize) {
    kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await;
    let (begun, mut looked) = (Instant::now(), 0);
    loop {
        let sets = get(&["replicasets", "-n", namespace]).await;
        let pods = pods(namespace).await;
        let mut revisions: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.gone) {
            revisions.entry(&pod.owner).or_default().push(pod);
        }
        for set in sets["items"].as_array().unwrap() {
            let pods = revisions.remove(set["metadata"]["name"].as_str().unwrap()).unwrap_or_default();
            if set["spec"]["replicas"] == pods.len() && !pods.is_empty() {
                assert_near(shares(pods.iter().copied()), "amid a rollout");
                looked += 1;
            }
        }
        let deployment = get(&["deployment", "web", "-n", namespace]).await;
        let status = &deployment["status"];
        let done = deployment["metadata"]["generation"] == status["observedGeneration"]
            && [&status["updatedReplicas"], &status["replicas"], &status["availableReplicas"]]
                .iter()
                .all(|number| **number == count);
        if done {
            break;
        }
        assert!(begun.elapsed() < PATIENCE * 2, "the rollout ends: {status}");
    }
    println!("a rollout of {count}, looked at {looked} times");
    assert!(looked > 2, "it was looked at");
    assert_exact(&settled(namespace, count).await, "at the end of a rollout");
}

/// Nothing is reserved any more.
async fn nothing_reserved(namespace: &str) {
    eventually("no reservations", PATIENCE, async || {
        reserved(namespace).await.values().all(|count| *count == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deployment_through_its_life() {
    nodes().await;
    let release = install("spread", &json!({})).await;
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;
    let namespace = &*release.pods;
    distributor(namespace, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"})).await;
    for round in 0..rounds() {
        workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
        assert_exact(&settled(namespace, 10).await, "10");
        for count in [100, 500] {
            let begun = Instant::now();
            assert_exact(&scale(namespace, "deployment", count).await, &format!("{count}"));
            println!("round {round}: {count} pods after {:?}", begun.elapsed());
        }
        for count in [37, 5] {
            assert_near(shares(&scale(namespace, "deployment", count).await), &format!("down to {count}"));
        }
        scale(namespace, "deployment", 40).await;
        rollout(namespace, 40).await;
        nothing_reserved(namespace).await;
        kubectl(&["delete", "deployment/web", "-n", namespace, "--cascade=foreground"]).await;
        settled(namespace, 0).await;
    }
    // Ledgers go with their owners.
    eventually("no ledger", PATIENCE, async || reserved(namespace).await.is_empty().then_some(())).await;
    assert!(
        release.metric("podshaper_distributor_decisions_total").await.len() >= 3,
        "each replica has placed some"
    );
}

#[tokio::test]
async fn every_controller() {
    nodes().await;
    let owners = json!({"owners": [{"apiGroup": "farms.example.com", "resources": ["farms"]}]});
    let release = install("kinds", &owners).await;
    let namespace = &*release.pods;
    for _ in 0..rounds() {
        numbered(namespace).await;
        jobs(namespace).await;
        foreign(namespace).await;
    }
    distributor(namespace, &json!({"name": "nobody"})).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 3})).await;
    let untouched = eventually("three pods", PATIENCE, async || {
        let pods = pods(namespace).await;
        (pods.len() == 3).then_some(pods)
    })
    .await;
    assert!(untouched.iter().all(|pod| pod.group.is_none()), "of no distributor: {untouched:?}");
}

/// A StatefulSet: its pods' slots are their ordinals.
async fn numbered(namespace: &str) {
    distributor(namespace, &json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"})).await;
    let spec = json!({"replicas": 10, "podManagementPolicy": "Parallel", "ordinals": {"start": 3}, "serviceName": "web"});
    workload(namespace, "apps/v1", "StatefulSet", spec).await;
    assert_exact(&settled(namespace, 10).await, "a StatefulSet");
    assert_near(shares(&scale(namespace, "statefulset", 3).await), "three of them");
    assert_exact(&scale(namespace, "statefulset", 20).await, "and twenty");
    assert!(reserved(namespace).await.is_empty(), "numbers need no ledger");
    kubectl(&["delete", "statefulset/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
}

/// Jobs: the shares are over all completions. Those of a CronJob share them.
async fn jobs(namespace: &str) {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    let job = |name: &str, owner: Option<&Value>, spec: Value| {
        let mut all = json!({"template": template});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let owners = owner.map(|cron| {
            json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "web", "uid": cron["metadata"]["uid"], "controller": true}])
        });
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "spec": all,
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
        })
    };
    distributor(namespace, &json!({"apiVersion": "batch/v1", "kind": "Job", "name": "web"})).await;
    apply(&job("web", None, json!({"parallelism": 2, "completions": 10}))).await;
    assert_exact(&settled(namespace, 10).await, "a Job's completions");
    kubectl(&["delete", "job/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
    apply(&job("web", None, json!({"parallelism": 4, "completions": 10, "completionMode": "Indexed"}))).await;
    assert_exact(&settled(namespace, 10).await, "an Indexed Job's completions");
    kubectl(&["delete", "job/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;

    distributor(namespace, &json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "web"})).await;
    apply(&json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}},
    }))
    .await;
    let cron = get(&["cronjob", "web", "-n", namespace]).await;
    for (number, pods) in [(1, 5), (2, 10)] {
        let of = job(&format!("web-{number}"), Some(&cron), json!({"parallelism": 5, "completions": 5}));
        apply(&of).await;
        assert_exact(&settled(namespace, pods).await, "the Jobs of a CronJob");
    }
    kubectl(&["delete", "cronjob/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
}

/// A controller that nobody has heard of.
async fn foreign(namespace: &str) {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "farms.farms.example.com"},
        "spec": {
            "group": "farms.example.com", "scope": "Namespaced", "names": {"kind": "Farm", "plural": "farms"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
        },
    }))
    .await;
    let farm = json!({
        "apiVersion": "farms.example.com/v1", "kind": "Farm", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "web"}}},
    });
    let farm = eventually("farms are served", PATIENCE, async || create(&farm, &[]).await.ok()).await;
    distributor(namespace, &json!({"apiVersion": "farms.example.com/v1", "kind": "Farm", "name": "web"}))
        .await;
    let mut pod = template();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["namespace"] = json!(namespace);
    pod["metadata"]["generateName"] = json!("web-");
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "farms.example.com/v1", "kind": "Farm", "name": "web", "uid": farm["metadata"]["uid"], "controller": true,
    }]);
    eventually("the distributor is known", Duration::from_secs(30), async || {
        let tried = create(&pod, &["--dry-run=server"]).await.unwrap();
        tried["spec"]["nodeSelector"]["type"].as_str().map(|_| ())
    })
    .await;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": vec![pod; 10]});
    output("kubectl", &["create", "-f", "-"], &list.to_string()).await;
    assert_exact(&settled(namespace, 10).await, "a foreign controller's");
    kubectl(&["delete", "farm/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
}

/// The status of the distributor, once it is as wanted.
async fn status(namespace: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, PATIENCE, async || {
        let status = get(&["poddistributor", "sample", "-n", namespace]).await["status"].clone();
        wanted(&status).then_some(status)
    })
    .await
}

fn condition<'s>(status: &'s Value, kind: &str) -> &'s Value {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

async fn spot_nodes(verb: &str) {
    kubectl(&[verb, "spot-1", "spot-2"]).await;
}

#[tokio::test]
async fn a_group_without_nodes_and_its_return() {
    nodes().await;
    spot_nodes("uncordon").await;
    let release = install("lend", &json!({})).await;
    let namespace = &*release.pods;
    distributor(namespace, &json!({"name": "web"})).await;
    let rebalance = json!({"spec": {"rebalance": {"mode": "OnRecovery", "maxUnavailable": 1}}}).to_string();
    kubectl(&["patch", "poddistributor", "sample", "-n", namespace, "--type=merge", "-p", &rebalance]).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
    assert_exact(&settled(namespace, 10).await, "before");
    status(namespace, "8/2", |status| {
        status["pods"] == "8/2" && condition(status, "Balanced")["status"] == "True"
    })
    .await;

    spot_nodes("cordon").await;
    status(namespace, "unavailable", |status| condition(status, "Available")["status"] == "False").await;
    assert_eq!(shares(&scale(namespace, "deployment", 20).await), (18, 2), "the others stand in");
    let lent = status(namespace, "18/2", |status| status["pods"] == "18/2").await;
    assert_eq!((&lent["due"], &lent["replicas"]), (&json!("16/4"), &json!(20)));
    assert_eq!(
        condition(&lent, "Balanced")["message"],
        "type=default has 2 too many, type=spot has 2 too few"
    );
    assert_eq!(
        lent["groups"][1],
        json!({
            "name": "type=spot", "desired": 4, "actual": 2, "pending": 0, "deviation": -2, "available": false, "recovering": true,
        })
    );

    // Back they go, one at a time, as the budget has it.
    apply(&json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"minAvailable": 19, "selector": {"matchLabels": {"app": "web"}}},
    }))
    .await;
    spot_nodes("uncordon").await;
    let back = eventually("16/4", PATIENCE * 2, async || {
        let pods = pods(namespace).await;
        let ready = pods.iter().filter(|pod| pod.ready && !pod.gone).count();
        assert!(ready >= 19, "one at a time: {ready}");
        (pods.len() == 20 && ready == 20 && shares(&pods) == (16, 4)).then_some(pods)
    })
    .await;
    assert_exact(&back, "all are back");
    status(namespace, "balanced", |status| condition(status, "Balanced")["status"] == "True").await;
    let evictions: u32 = release
        .metric("podshaper_distributor_evictions_total")
        .await
        .iter()
        .map(|count| count.parse::<f64>().unwrap() as u32)
        .sum();
    assert_eq!(evictions, 2, "and no more than need be");
    let events = kubectl(&["events", "-n", namespace, "--for=poddistributor/sample"]).await;
    for reason in ["GroupUnavailable", "GroupsAvailable", "Rebalance"] {
        assert!(events.contains(reason), "{reason}: {events}");
    }
    let ledger = eventually("the ledger tells", PATIENCE, async || {
        let ledgers = get(&["placements", "-n", namespace]).await;
        (ledgers["items"][0]["status"]["pods"] == "16/4").then(|| ledgers["items"][0].clone())
    })
    .await;
    assert_eq!(ledger["status"]["due"], "16/4");
}

#[tokio::test]
async fn pods_from_before_and_rivals() {
    nodes().await;
    spot_nodes("uncordon").await;
    let release = install("before", &json!({})).await;
    let namespace = &*release.pods;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 3})).await;
    eventually("three pods", PATIENCE, async || (pods(namespace).await.len() == 3).then_some(())).await;
    distributor(namespace, &json!({"name": "web"})).await;
    let told = status(namespace, "three unplaced", |status| status["unplaced"] == 3).await;
    assert_eq!((&told["placed"], &told["pods"]), (&json!(0), &json!("0/0")));
    eventually("they are the first to go", PATIENCE, async || {
        let all = get(&["pods", "-n", namespace]).await;
        let cost = |pod: &Value| {
            pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] == "-2147483647"
        };
        all["items"].as_array().unwrap().iter().all(cost).then_some(())
    })
    .await;
    kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=8"]).await;
    status(namespace, "five placed", |status| status["placed"] == 5 && status["unplaced"] == 3).await;
    eventually("all are ready", PATIENCE, async || {
        pods(namespace).await.iter().all(|pod| pod.ready).then_some(())
    })
    .await;
    kubectl(&["scale", "-n", namespace, "deployment/web", "--replicas=5"]).await;
    eventually("the placed stay", PATIENCE, async || {
        let pods = pods(namespace).await;
        (pods.len() == 5 && pods.iter().all(|pod| pod.group.is_some())).then(|| assert_exact(&pods, "five"))
    })
    .await;

    // A copy is another pod, whoever's marks it bears; a dry run gets an answer and leaves nothing.
    let mut copy = get(&["pods", "-n", namespace]).await["items"][0].clone();
    let token = copy["metadata"]["annotations"][TOKEN].clone();
    copy["metadata"]["name"] = json!("copy");
    for field in ["resourceVersion", "uid", "creationTimestamp"] {
        copy["metadata"].as_object_mut().unwrap().remove(field);
    }
    copy["spec"].as_object_mut().unwrap().remove("nodeName");
    let copied = create(&copy, &[]).await.unwrap();
    assert_ne!(copied["metadata"]["annotations"][TOKEN], token);
    assert_ne!(copied["metadata"]["annotations"][SLOT], copy["metadata"]["annotations"][SLOT]);
    settled(namespace, 5).await;
    nothing_reserved(namespace).await;
    copy["metadata"]["annotations"] = json!({});
    let dry = create(&copy, &["--dry-run=server"]).await.unwrap();
    assert!(dry["metadata"]["annotations"][SLOT].is_string());
    assert!(reserved(namespace).await.values().all(|count| *count == 0));

    let mut rival = get(&["poddistributor", "sample", "-n", namespace]).await;
    rival["metadata"] = json!({"name": "rival", "namespace": namespace});
    rival["spec"]["distribution"][0]["weight"] = json!(1);
    apply(&rival).await;
    let mut lost = rival.clone();
    lost["metadata"]["name"] = json!("lost");
    lost["spec"]["target"]["name"] = json!("nobody");
    apply(&lost).await;
    for (name, reason) in [("rival", "Superseded"), ("lost", "TargetNotFound"), ("sample", "Placing")] {
        eventually(reason, PATIENCE, async || {
            let status = get(&["poddistributor", name, "-n", namespace]).await["status"].clone();
            (condition(&status, "Ready")["reason"] == reason).then_some(())
        })
        .await;
    }
}

/// The page of one of the webhook's pods, forwarded.
async fn forward(release: &Release) -> (tokio::process::Child, &'static str) {
    let deployment = format!("deployment/{}", release.fullname());
    let child = tokio::process::Command::new("kubectl")
        .args(["port-forward", "--namespace", &release.name, &deployment, "18082:8082"])
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = "http://127.0.0.1:18082/";
    eventually("the page", PATIENCE, async || {
        let answer = e2e::cluster::run("curl", &["--silent", "--fail", "--max-time", "5", url], "").await;
        answer.status.success().then_some(())
    })
    .await;
    (child, url)
}

#[tokio::test]
async fn the_page_in_a_browser() {
    nodes().await;
    let release = install("page", &json!({})).await;
    let namespace = &*release.pods;
    distributor(namespace, &json!({"name": "web"})).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
    settled(namespace, 10).await;
    let (_forward, url) = forward(&release).await;
    let phone = Browser::open(390, 844).await;
    phone.go(&format!("{url}#namespace={namespace}&workload=composed&pods=20")).await;
    // The figures and the bars of the groups, as percents of the longest.
    let bars = async || {
        let read = "return [...document.querySelectorAll('article > .group')].map((group) => [group.querySelector('.figures').textContent, \
                    parseFloat(group.querySelector('.bar').style.width)])";
        phone.script(read).await
    };
    let shows = async |wanted: Value| {
        eventually(&format!("bars {wanted}"), PATIENCE, async || (bars().await == wanted).then_some(()))
            .await;
    };
    shows(json!([["8 of 8", 100], ["2 of 2", 25]])).await;
    let element = "return window.kept === (window.kept ||= document.querySelector('.bar'))";
    phone.script(element).await;
    scale(namespace, "deployment", 20).await;
    shows(json!([["16 of 16", 100], ["4 of 4", 25]])).await;
    assert_eq!(
        phone.script("return document.querySelector('.bar') === window.kept").await,
        true,
        "they move"
    );
    // Nothing is wider than the phone, and nothing came from elsewhere.
    assert_eq!(phone.script("return document.documentElement.scrollWidth").await, 390);
    let elsewhere = "return performance.getEntriesByType('resource').map((one) => new URL(one.name).origin).filter((origin) => origin !== location.origin)";
    assert_eq!(phone.script(elsewhere).await, json!([]));
    if let Some(folder) = std::env::var_os("PODSHAPER_SCREENSHOTS") {
        std::fs::write(std::path::Path::new(&folder).join("distributor.png"), phone.screenshot().await)
            .unwrap();
    }

    // The composer: another weight, at once another plan; its YAML applies.
    let weigh = "const weight = document.querySelector('#groups input[type=range]'); weight.value = 20; \
                 weight.dispatchEvent(new Event('input'));";
    phone.script(weigh).await;
    let planned = "return [...document.querySelectorAll('#groups .figures')].map((cell) => cell.textContent)";
    eventually("the plan", PATIENCE, async || {
        (phone.script(planned).await == json!(["10", "10"])).then_some(())
    })
    .await;
    assert_eq!(phone.script("return document.querySelectorAll('#sequence span').length").await, 20);
    let yaml = phone.script("return document.getElementById('yaml').textContent").await;
    output("kubectl", &["apply", "-f", "-"], yaml.as_str().unwrap()).await;
    let applied = get(&["poddistributor", "composed", "-n", namespace]).await;
    assert_eq!(applied["spec"]["distribution"][0], json!({"nodeLabel": {"type": "default"}, "weight": 20}));
    // The page only reads, and is nobody's but who may forward.
    let refused = e2e::cluster::run("curl", &["--silent", "--fail", "-X", "POST", url], "").await;
    assert!(!refused.status.success());
    let pods = get(&["pods", "-n", &release.name]).await;
    let address = pods["items"][0]["status"]["podIP"].as_str().unwrap();
    let open =
        e2e::cluster::run("curl", &["--silent", "--max-time", "3", &format!("http://{address}:8082/")], "")
            .await;
    assert!(!open.status.success(), "on loopback alone");
}

#[tokio::test]
async fn what_the_definition_refuses() {
    let release = install("refusals", &json!({"replicas": 1})).await;
    let group = |more: Value| {
        let mut group = json!({"nodeLabel": {"type": "a"}, "weight": 1});
        group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        group
    };
    let of = |distribution: Value, more: Value| {
        let mut spec = json!({"distribution": distribution, "target": {"name": "web"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({
            "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
            "metadata": {"generateName": "d-", "namespace": release.pods}, "spec": spec,
        })
    };
    let one = |more: Value| of(json!([group(more)]), json!({}));
    let term = |requirement: Value| one(json!({"nodeAffinity": [{"matchExpressions": [requirement]}]}));
    let labels: Value =
        (0..9).map(|n| (format!("l{n}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    for (object, said) in [
        (
            of(json!([]), json!({})),
            "spec.distribution: Invalid value: 0: spec.distribution in body should have at least 1",
        ),
        (one(json!({"weight": -1})), "spec.distribution[0].weight: Invalid value: -1"),
        (one(json!({"weight": 2_000_000})), "spec.distribution[0].weight"),
        (one(json!({"weight": 0})), "one group at least needs a weight or a base"),
        (one(json!({"nodeLabel": {}})), "spec.distribution[0].nodeLabel: Invalid value: 0"),
        (one(json!({"nodeLabel": labels})), "spec.distribution[0].nodeLabel: Too many: 9"),
        (one(json!({"nodeLabel": {"a b": "c"}})), "a label's key is [PREFIX/]NAME"),
        (one(json!({"nodeLabel": {"a": "b c"}})), "spec.distribution[0].nodeLabel.a"),
        (
            one(json!({"base": 3, "max": 2})),
            "spec.distribution[0].max: Invalid value: 2: must be at least base",
        ),
        (
            of(json!([group(json!({"name": "x"})), group(json!({"name": "x"}))]), json!({})),
            "no two groups may have one name",
        ),
        (
            of(json!([group(json!({})), group(json!({}))]), json!({})),
            "groups with the same labels need names",
        ),
        (one(json!({"tolerations": [{}]})), "must be Exists where there is no key"),
        (
            one(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]})),
            "must be empty with operator Exists",
        ),
        (one(json!({"tolerations": [{"key": "a", "tolerationSeconds": 3}]})), "is for effect NoExecute"),
        (one(json!({"nodeAffinity": [{}]})), "requires nothing, and no node meets such a term"),
        (term(json!({"key": "a", "operator": "In"})), "are for In, NotIn, Gt and Lt"),
        (
            term(json!({"key": "a", "operator": "Gt", "values": ["x"]})),
            "must be one whole number for Gt and Lt",
        ),
        (term(json!({"key": "a", "operator": "In", "values": ["x y"]})), "matchExpressions[0].values[0]"),
        (of(json!([group(json!({}))]), json!({"target": {}})), "spec.target.name: Required value"),
        (
            of(json!([group(json!({}))]), json!({"whenUnavailable": "Panic"})),
            "spec.whenUnavailable: Unsupported value",
        ),
        (of(json!([group(json!({}))]), json!({"unschedulableAfter": "soon"})), "spec.unschedulableAfter"),
        (
            of(json!([group(json!({}))]), json!({"rebalance": {"maxUnavailable": "0%"}})),
            "must be a number from 1 on",
        ),
    ] {
        let refused = create(&object, &["--dry-run=server"]).await.unwrap_err();
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let full = group(json!({
        "name": "spot nodes", "base": 1, "max": 5, "preferred": true,
        "tolerations": [{"operator": "Exists"}, {"key": "spot", "value": "true", "effect": "NoExecute", "tolerationSeconds": 30}],
        "nodeAffinity": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "cpus", "operator": "Gt", "values": ["4"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node"]}]},
        ],
    }));
    let more = json!({
        "whenUnavailable": "Wait", "unschedulableAfter": "5m", "rebalance": {"mode": "OnRecovery", "maxUnavailable": "10%"},
    });
    let made = create(&of(json!([full, group(json!({}))]), more), &["--dry-run=server"]).await.unwrap();
    assert_eq!(made["spec"]["target"], json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}));
    for field in [
        "spec.distribution.weight",
        "spec.rebalance.maxUnavailable",
        "status.groups.deviation",
        "spec.target.kind",
    ] {
        let told = kubectl(&["explain", &format!("poddistributors.{field}")]).await;
        let (_, description) = told.split_once("DESCRIPTION:").unwrap();
        assert!(description.trim().len() > 20 && !description.contains("<empty>"), "{field}: {told}");
    }
}
