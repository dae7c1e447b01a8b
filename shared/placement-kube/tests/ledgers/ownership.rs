//! Which ledger counts a pod, if its annotations and its owner references differ.

use std::collections::HashMap;
use std::time::Duration;

use podshaper_placement::annotations::{CONTROLLER, GROUP, OWNER, PLACED, SLOT, TOKEN};
use podshaper_placement_kube::{LedgerId, LedgerInventory, Ledgers};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{Cluster, UID, WEBHOOK, assignment, deliver, place, workload};

/// Changes pods of another workload for ever.
pub(crate) async fn change_foreign_pods(cluster: &Cluster) {
    for number in 0.. {
        sleep(Duration::from_micros(1900)).await;
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "other", "uid": "other", "controller": true});
        let annotations =
            json!({OWNER: "other", TOKEN: format!("{number:016x}"), SLOT: "0", GROUP: "default"});
        let pod = json!({
            "metadata": {
                "namespace": "elsewhere", "labels": {PLACED: WEBHOOK}, "annotations": annotations, "ownerReferences": [owner],
            },
            "spec": {}, "status": {"phase": "Running"},
        });
        cluster.server.put(&format!("/api/v1/namespaces/elsewhere/pods/other-{}", number % 10), pod);
    }
}

fn inventories(ledgers: &Ledgers) -> Vec<LedgerInventory> {
    ledgers.inventory().into_iter().filter(|inventory| !inventory.pods.is_empty()).collect()
}

/// How many pods each ledger has.
fn pods(ledgers: &Ledgers) -> HashMap<LedgerId, usize> {
    inventories(ledgers).into_iter().map(|inventory| (inventory.ledger, inventory.pods.len())).collect()
}

/// As when a user removes a pod's labels to debug it, and its controller replaces it.
#[tokio::test(start_paused = true)]
async fn released_pod_is_forgotten() {
    let cluster = Cluster::new(2);
    let replica = cluster.replica().await;
    cluster.create_placed("web-0", &assignment(1, 0, "default")).await;
    cluster.create_placed("web-1", &assignment(2, 0, "default")).await;
    let ledger = LedgerId::new("ns", UID);
    assert_eq!(pods(&replica), HashMap::from([(ledger.clone(), 2)]));
    let mut released = cluster.pod("web-0");
    released["metadata"]["ownerReferences"] = json!([]);
    cluster.put_pod("web-0", released).await;
    assert_eq!(pods(&replica), HashMap::from([(ledger, 1)]));
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_namespaces_and_copies_do_not_count() {
    let cluster = Cluster::new(3);
    let replica = cluster.replica().await;
    cluster.create_placed("web-0", &assignment(1, 0, "default")).await;
    let mut elsewhere = cluster.pod("web-0");
    elsewhere["metadata"]["namespace"] = "elsewhere".into();
    cluster.server.put("/api/v1/namespaces/elsewhere/pods/web-0", elsewhere);
    let mut copy = cluster.pod("web-0");
    copy["metadata"]["ownerReferences"][0]["uid"] = "another".into();
    cluster.put_pod("copy", copy).await;
    let ledgers = [("elsewhere", UID), ("ns", "another"), ("ns", UID)];
    let expected = ledgers.map(|(namespace, uid)| (LedgerId::new(namespace, uid), 1));
    assert_eq!(pods(&replica), HashMap::from(expected));
    assert_eq!(place(&replica, &workload(3), 2).await.slot, 1);
}

/// A pod of a Job, in the ledger of a CronJob. The annotation names `controller` as its Job.
fn job_pod(job: u32, controller: &str) -> Value {
    let name = format!("tick-{job}");
    let uid = format!("job-{job}");
    json!({
        "metadata": {
            "namespace": "ns", "labels": {PLACED: WEBHOOK},
            "annotations": {
                OWNER: "uid-of-cron", CONTROLLER: controller, TOKEN: format!("{job:016x}"), SLOT: job.to_string(), GROUP: "default",
            },
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": true}],
        },
        "spec": {}, "status": {"phase": "Succeeded"},
    })
}

#[tokio::test(start_paused = true)]
async fn controller_of_cron_job_pods_is_an_existing_job() {
    let cluster = Cluster::new(0);
    let replica = cluster.replica().await;
    for job in 1..=5 {
        cluster.put_pod(&format!("tick-{job}-x"), job_pod(job, &format!("job-{job}"))).await;
        if job > 3 {
            cluster.delete_pod(&format!("tick-{}-x", job - 3)).await;
        }
    }
    for replica in [replica, cluster.replica().await] {
        let inventories = inventories(&replica);
        let [inventory] = &inventories[..] else { panic!("{inventories:?}") };
        assert_eq!(inventory.ledger, LedgerId::new("ns", "uid-of-cron"));
        assert_eq!((inventory.pods.len(), &*inventory.controller.owner.name), (3, "tick-5"));
    }
}

/// As where the template of a Job was made from a placed pod, with its annotations.
#[tokio::test(start_paused = true)]
async fn copied_job_pods_count_for_their_own_job() {
    let cluster = Cluster::new(1);
    cluster.create_placed("web-0", &assignment(1, 0, "default")).await;
    let mut copy = cluster.pod("web-0");
    copy["metadata"]["ownerReferences"] = job_pod(1, "job-1")["metadata"]["ownerReferences"].clone();
    cluster.put_pod("backup", copy).await;
    cluster.put_pod("tick-2-x", job_pod(2, "job-of-another")).await;
    let expected = ["job-1", "job-2", UID].map(|uid| (LedgerId::new("ns", uid), 1));
    assert_eq!(pods(&*cluster.replica().await), HashMap::from(expected));
}

#[tokio::test(start_paused = true)]
async fn owner_reference_that_is_too_long_is_ignored() {
    let cluster = Cluster::new(0);
    for (number, field) in (1..).zip(["uid", "kind", "apiVersion", "name"]) {
        let mut pod = job_pod(number, &format!("job-{number}"));
        pod["metadata"]["annotations"] = Value::Null;
        pod["metadata"]["ownerReferences"][0][field] = "x".repeat(250_000).into();
        cluster.put_pod(&format!("tick-{number}-x"), pod).await;
    }
    assert_eq!(pods(&*cluster.replica().await), HashMap::new());
}

/// Any client can write 250 KB of annotations into each pod. Values that are longer than any of ours are not kept.
#[tokio::test(start_paused = true)]
async fn annotation_that_is_too_long_is_ignored() {
    let cluster = Cluster::new(0);
    let long = "x".repeat(250_000);
    for (number, owner, group) in [(1, &*long, "default"), (2, "uid-of-cron", &*long)] {
        let mut pod = job_pod(number, &format!("job-{number}"));
        pod["metadata"]["annotations"][OWNER] = owner.into();
        pod["metadata"]["annotations"][GROUP] = group.into();
        cluster.put_pod(&format!("tick-{number}-x"), pod).await;
    }
    let replica = cluster.replica().await;
    deliver().await;
    let groups: HashMap<_, _> = inventories(&replica)
        .into_iter()
        .map(|inventory| (inventory.ledger, inventory.pods[0].group.clone()))
        .collect();
    let expected = [("job-1", Some("default".into())), ("uid-of-cron", None)];
    assert_eq!(groups, expected.map(|(uid, group)| (LedgerId::new("ns", uid), group)).into());
}
