//! Ledgers of placement against a real API server: three replicas, a burst, a crash, clashes, and the end of a workload.
//!
//! The workload is a Deployment that is paused before it has begun: no controller creates its pods, the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output, run};
use kube::Client;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_kube::store::Store;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::{GROUP, OWNER, PLACED, SLOT, TOKEN};
use podshaper_placement::ledger::{Assignment, SlotReply, SlotRequest, Token};
use podshaper_placement::policy::{Group, Policy, Tie};
use podshaper_placement_kube::ledgers::{
    Ledgers, Policies, Standing, Workload, crd, follow_standings, reconcile,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

const NAMESPACE: &str = "ledgers";
const PODS: u32 = 60;

fn allocator() -> Arc<SlotAllocator> {
    let group = |(name, weight): (&str, u32)| Group {
        name: name.into(),
        node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
        weight,
        ..Group::default()
    };
    let policy = Policy::new([("default", 80), ("spot", 20)].map(group).into(), Tie::First).unwrap();
    Arc::new(SlotAllocator::new(policy))
}

/// A Deployment of so many pods, none of which anybody creates.
async fn deployment(replicas: u32) -> Arc<Workload> {
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
    let owner =
        OwnerReference::new("apps/v1", "Deployment", "web", object["metadata"]["uid"].as_str().unwrap());
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web");
    let namespace = NAMESPACE.to_owned();
    let (pods, version) =
        (Some(replicas), object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());
    Arc::new(Workload {
        namespace,
        owner,
        path,
        selector: "app=web".to_owned(),
        pods,
        created: None,
        version,
    })
}

async fn place(
    ledgers: &Arc<Ledgers>,
    workload: &Arc<Workload>,
    token: u64,
    allocator: &Arc<SlotAllocator>,
) -> Assignment {
    let fitting = allocator.policy().all();
    let deadline = Instant::now() + Duration::from_secs(20);
    let request = SlotRequest { token: Token(token), fitting, existing: None, dry_run: false };
    match ledgers.place(workload, allocator, request, deadline).await {
        Some(SlotReply::Placed(assignment)) => assignment,
        other => panic!("not placed but {other:?}"),
    }
}

/// Pods that bear these assignments, as the API server would have them after admission.
async fn create(workload: &Workload, assignments: &[(String, Assignment)]) {
    let OwnerReference { api_version, kind, name, uid, .. } = &workload.owner;
    let pod = |(pod, assignment): &(String, Assignment)| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod, "namespace": NAMESPACE, "labels": {"app": "web", PLACED: "ledgers"},
                "annotations": {OWNER: uid, TOKEN: assignment.token.to_string(), SLOT: assignment.slot.to_string(), GROUP: *assignment.group},
                "ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}],
            },
            "spec": {"containers": [{"name": "c", "image": "none"}], "nodeSelector": {"no": "such-node"}},
        })
    };
    let list =
        json!({"apiVersion": "v1", "kind": "List", "items": assignments.iter().map(pod).collect::<Vec<_>>()});
    output("kubectl", &["create", "-f", "-"], &list.to_string()).await;
}

/// Slot and group of every pod, by slot.
async fn places() -> Vec<(u32, String)> {
    let pods = get(&["pods", "-n", NAMESPACE]).await;
    let text = |pod: &Value, key: &str| pod["metadata"]["annotations"][key].as_str().unwrap().to_owned();
    let pods = pods["items"].as_array().unwrap().iter();
    let mut places: Vec<_> = pods.map(|pod| (text(pod, SLOT).parse().unwrap(), text(pod, GROUP))).collect();
    places.sort();
    places
}

struct Known(Arc<Workload>, Arc<SlotAllocator>);

impl Policies for Known {
    async fn find(&self, standing: &Standing) -> Option<(Arc<Workload>, Arc<SlotAllocator>)> {
        (standing.owner == self.0.owner).then(|| (Arc::clone(&self.0), Arc::clone(&self.1)))
    }
}

#[tokio::test]
async fn a_workloads_life() {
    apply(&crd()).await;
    apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await;
    // It is served a little later.
    let served =
        async || run("kubectl", &["get", "placements", "-A"], "").await.status.success().then_some(());
    eventually("Placements", PATIENCE, served).await;
    let (workload, allocator) = (deployment(PODS).await, allocator());
    let client = Client::try_default().await.unwrap();

    // A burst through three replicas, each with a watch of its own.
    let replicas: Vec<_> = (0..3).map(|_| Ledgers::start(client.clone(), "ledgers")).collect();
    eventually("watches", PATIENCE, async || replicas.iter().all(|one| one.filled()).then_some(())).await;
    let begun = Instant::now();
    let asked: Vec<_> = (0..PODS)
        .map(|number| {
            let (replica, workload, allocator) =
                (Arc::clone(&replicas[number as usize % 3]), Arc::clone(&workload), Arc::clone(&allocator));
            tokio::spawn(async move {
                (format!("web-{number:02}"), place(&replica, &workload, number.into(), &allocator).await)
            })
        })
        .collect();
    let mut assignments = Vec::new();
    for asked in asked {
        assignments.push(asked.await.unwrap());
    }
    println!("{PODS} pods through three replicas in {:?}", begun.elapsed());
    let mut slots: Vec<u32> = assignments.iter().map(|(_, assignment)| assignment.slot).collect();
    slots.sort_unstable();
    assert!(slots.into_iter().eq(0..PODS));
    // One of them was rejected by somebody else, and one comes twice, copied by hand.
    assignments.sort_by_key(|(_, assignment)| assignment.slot);
    let rejected = assignments.remove(7).1;
    create(&workload, &assignments).await;
    let copy = ("copy".to_owned(), assignments[9].1.clone());
    create(&workload, &[copy]).await;
    kubectl(&["delete", "pod", "-n", NAMESPACE, &assignments[12].0, "--force", "--grace-period=0"]).await;

    // All replicas have crashed. The new one finds the rejected pod's place, which was reserved, and the deleted one's.
    drop(replicas);
    let replica = Ledgers::start(client.clone(), "ledgers");
    eventually("the watch", PATIENCE, async || replica.filled().then_some(())).await;
    let again = place(&replica, &workload, 1000, &allocator).await;
    assert_eq!(
        (again.slot, &*again.group),
        (rejected.slot, "spot"),
        "59 pods, two reservations and this one are 62"
    );
    create(&workload, &[("again".to_owned(), again)]).await;

    // The leader undoes the clash and confirms what was reserved; what comes of it is exact.
    let standings = Arc::new(Store::<Standing>::default());
    let following = follow_standings(client.clone(), Arc::clone(&replica), Arc::clone(&standings));
    let following = tokio::spawn(following);
    let (leads, leadership) = watch::channel(true);
    let known = Known(Arc::clone(&workload), Arc::clone(&allocator));
    let reconciling = tokio::spawn(reconcile(Arc::clone(&replica), standings, known, leadership));
    eventually("sixty slots", PATIENCE, async || {
        places().await.iter().map(|(slot, _)| *slot).eq(0..PODS).then_some(())
    })
    .await;
    assert_eq!(places().await.iter().filter(|(_, group)| group == "spot").count(), 12);
    let ledger = async || get(&["placements", "-n", NAMESPACE]).await["items"].clone();
    eventually("no reservation", PATIENCE, async || {
        (ledger().await[0]["spec"]["reservations"] == "").then_some(())
    })
    .await;

    // A workload without pods has no ledger.
    deployment(0).await;
    kubectl(&["delete", "pods", "-n", NAMESPACE, "--all", "--force", "--grace-period=0"]).await;
    eventually("no ledger", PATIENCE, async || (ledger().await == json!([])).then_some(())).await;
    drop(leads);
    reconciling.await.unwrap();
    following.abort();
    kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]).await;
}
