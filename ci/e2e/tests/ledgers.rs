//! Ledgers against a real API server: three replicas, a burst, a restart, pods that share a slot, and the end of a workload.
//!
//! The workload is a Deployment that is paused from the start: the test creates its pods, not a controller.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output, run};
use kube::Client;
use podshaper_core::object::OwnerReference;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::{GROUP, OWNER, PLACED, SLOT, TOKEN};
use podshaper_placement::identity::UnknownNodes;
use podshaper_placement::ledger::{Assignment, SlotReply, SlotRequest, Token};
use podshaper_placement::policy::{Group, Policy, Tie};
use podshaper_placement_kube::{
    LedgerId, Ledgers, NamespacedOwner, PlacedWorkload, PolicySource, crd, reconcile,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// Also the name of the webhook.
const NAMESPACE: &str = "ledgers";
const PODS: u32 = 60;

/// 80 % of the pods in `default`, 20 % in `spot`.
fn allocator() -> Arc<SlotAllocator> {
    let group = |name: &str, weight: u32| Group {
        name: name.into(),
        node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
        weight,
        ..Group::default()
    };
    let policy = Policy::new(vec![group("default", 80), group("spot", 20)], Tie::First).unwrap();
    Arc::new(SlotAllocator::new(policy))
}

/// Applies the Deployment with `replicas` replicas.
async fn deployment(replicas: u32) -> Arc<PlacedWorkload> {
    let container = json!({"name": "c", "image": "none"});
    apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "paused": true, "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    }))
    .await;
    let object = get(&["deployment", "web", "-n", NAMESPACE]).await;
    let field = |name: &str| object["metadata"][name].as_str().unwrap();
    Arc::new(PlacedWorkload {
        namespace: NAMESPACE.to_owned(),
        owner: OwnerReference::new("apps/v1", "Deployment", "web", field("uid")),
        path: Some(format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web")),
        selector: "app=web".to_owned(),
        pods: Some(replicas),
        created: None,
        version: field("resourceVersion").parse().unwrap(),
        shared: false,
        allocator: allocator(),
    })
}

async fn place(ledgers: &Ledgers, workload: &Arc<PlacedWorkload>, token: u64) -> Assignment {
    let fitting = workload.allocator.policy().all();
    let deadline = Instant::now() + Duration::from_secs(20);
    let request =
        SlotRequest { token: Token(token), fitting, existing: None, dry_run: false, over_time: false };
    match ledgers.place(workload, request, deadline).await {
        Some(SlotReply::Placed(assignment)) => assignment,
        other => panic!("not placed but {other:?}"),
    }
}

/// Creates pods as admission leaves them.
async fn create(workload: &PlacedWorkload, pods: &[(String, Assignment)]) {
    let OwnerReference { api_version, kind, name, uid, .. } = &workload.owner;
    let pod = |(pod, assignment): &(String, Assignment)| {
        let Assignment { token, slot, group } = assignment;
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod, "namespace": NAMESPACE, "labels": {"app": "web", PLACED: "ledgers"},
                "annotations": {OWNER: uid, TOKEN: token.to_string(), SLOT: slot.to_string(), GROUP: **group},
                "ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}],
            },
            "spec": {"containers": [{"name": "c", "image": "none"}], "nodeSelector": {"no": "such-node", "type": **group}},
        })
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods.iter().map(pod).collect::<Vec<_>>()});
    output("kubectl", &["create", "-f", "-"], &list.to_string()).await;
}

/// Slot and group of each pod, by slot.
async fn placements() -> Vec<(u32, String)> {
    let pods = get(&["pods", "-n", NAMESPACE]).await;
    let text = |pod: &Value, key: &str| pod["metadata"]["annotations"][key].as_str().unwrap().to_owned();
    let pods = pods["items"].as_array().unwrap().iter();
    let mut placements: Vec<_> =
        pods.map(|pod| (text(pod, SLOT).parse().unwrap(), text(pod, GROUP))).collect();
    placements.sort();
    placements
}

struct OnePolicy(Arc<PlacedWorkload>);

impl PolicySource for OnePolicy {
    async fn find(&self, _: &LedgerId, owner: &NamespacedOwner) -> Option<Arc<PlacedWorkload>> {
        (owner.owner == self.0.owner).then(|| Arc::clone(&self.0))
    }
}

/// Places the pods through three replicas at once, each with a watch of its own. Returns their assignments by slot.
async fn burst(client: &Client, workload: &Arc<PlacedWorkload>) -> Vec<(String, Assignment)> {
    let replicas: Vec<_> =
        (0..3).map(|_| Ledgers::start(client.clone(), "ledgers", Arc::new(UnknownNodes))).collect();
    let filled = async || replicas.iter().all(|replica| replica.has_synced()).then_some(());
    eventually("watches", PATIENCE, filled).await;
    let started = Instant::now();
    let requests: Vec<_> = (0..PODS)
        .map(|number| {
            let replica = Arc::clone(&replicas[number as usize % 3]);
            let workload = Arc::clone(workload);
            tokio::spawn(async move {
                (format!("web-{number:02}"), place(&replica, &workload, number.into()).await)
            })
        })
        .collect();
    let mut pods = Vec::new();
    for request in requests {
        pods.push(request.await.unwrap());
    }
    println!("{PODS} pods through three replicas in {:?}", started.elapsed());
    pods.sort_by_key(|(_, assignment)| assignment.slot);
    assert!(pods.iter().map(|(_, assignment)| assignment.slot).eq(0..PODS));
    pods
}

#[tokio::test]
async fn ledger_stays_exact_from_first_to_last_pod() {
    apply(&crd()).await;
    apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await;
    let served =
        async || run("kubectl", &["get", "placements", "-A"], "").await.status.success().then_some(());
    eventually("Placements", PATIENCE, served).await;
    let workload = deployment(PODS).await;
    let client = Client::try_default().await.unwrap();

    // One of the pods is rejected after admission, one is created twice, and one is deleted.
    let mut pods = burst(&client, &workload).await;
    let (_, rejected) = pods.remove(7);
    create(&workload, &pods).await;
    create(&workload, &[("copy".to_owned(), pods[9].1.clone())]).await;
    kubectl(&["delete", "pod", "-n", NAMESPACE, &pods[12].0, "--force", "--grace-period=0"]).await;

    // A new replica finds the slot of the rejected pod, which is reserved, and that of the deleted pod.
    let replica = Ledgers::start(client.clone(), "ledgers", Arc::new(UnknownNodes));
    eventually("the watch", PATIENCE, async || replica.has_synced().then_some(())).await;
    let again = place(&replica, &workload, 1000).await;
    assert_eq!(
        (again.slot, &*again.group),
        (rejected.slot, "spot"),
        "59 pods, two reservations and this one are 62"
    );
    create(&workload, &[("again".to_owned(), again)]).await;

    // The leader moves one of the pods that share a slot, and drops the reservations of pods that exist.
    let (leads, leadership) = watch::channel(Some(Instant::now() + Duration::from_hours(1)));
    let policies = OnePolicy(Arc::clone(&workload));
    let reconciling = tokio::spawn(reconcile(Arc::clone(&replica), policies, leadership.into()));
    eventually("sixty slots", PATIENCE, async || {
        placements().await.iter().map(|(slot, _)| *slot).eq(0..PODS).then_some(())
    })
    .await;
    assert_eq!(placements().await.iter().filter(|(_, group)| group == "spot").count(), 12);
    let objects = async || get(&["placements", "-n", NAMESPACE]).await["items"].clone();
    eventually("no reservation", PATIENCE, async || {
        (objects().await[0]["spec"]["reservations"] == "").then_some(())
    })
    .await;

    // A workload without pods has no Placement.
    deployment(0).await;
    kubectl(&["delete", "pods", "-n", NAMESPACE, "--all", "--force", "--grace-period=0"]).await;
    eventually("no Placement", PATIENCE, async || (objects().await == json!([])).then_some(())).await;
    drop(leads);
    reconciling.await.unwrap();
    kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]).await;
}
