//! Reconciliation by the leader.

use std::sync::Arc;
use std::time::Duration;

use podshaper_placement::admit::PlacementBackend;
use podshaper_placement::annotations::{DELETION_COST, PLACED};
use podshaper_placement::identity::UnknownNodes;
use podshaper_placement_kube::{ClusterBackend, LedgerId, NamespacedOwner, PlacedWorkload, PolicySource};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::fixture::{
    Cluster, PLACEMENT, UID, WEBHOOK, assignment, deliver, existing_workload, place, placed_pod, workload,
};

struct OnePolicy;

impl PolicySource for OnePolicy {
    async fn find(&self, _: &LedgerId, owner: &NamespacedOwner) -> Option<Arc<PlacedWorkload>> {
        assert_eq!(owner.owner.uid, UID);
        Some(workload(0))
    }
}

/// Runs a new replica for some time.
async fn run_replica(cluster: &Cluster, leads: bool, time: Duration) {
    let (_leadership, leadership) = watch::channel(leads.then(|| Instant::now() + time * 2));
    let backend = ClusterBackend::start(&cluster.server.client(), WEBHOOK, &[], Arc::new(UnknownNodes));
    backend.reconcile(OnePolicy, leadership.into());
    sleep(time).await;
}

/// As after an outage in which each of two webhooks placed pods while the other one was down.
#[tokio::test(start_paused = true)]
async fn two_placements_of_one_owner_end_as_the_older_one() {
    const OTHER: &str = "custom-scheduler-annotations";
    let cluster = Cluster::new(10);
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": UID}]);
    for (webhook, second) in [(WEBHOOK, 1), (OTHER, 2)] {
        let metadata = json!({
            "namespace": "ns", "labels": {PLACED: webhook}, "ownerReferences": owner, "creationTimestamp": format!("2026-01-01T00:00:0{second}Z"),
        });
        let name = format!("{webhook}-{UID}");
        let path = format!("/apis/podshaper.dev/v1alpha1/namespaces/ns/placements/{name}");
        cluster.server.put(&path, json!({"metadata": metadata, "spec": {}}));
    }
    for number in 0..10 {
        let (webhook, slot) = if number < 5 { (WEBHOOK, number) } else { (OTHER, number - 5) };
        let mut pod =
            placed_pod(&assignment(number.into(), slot, if slot == 2 { "spot" } else { "default" }));
        pod["metadata"]["labels"][PLACED] = webhook.into();
        pod["metadata"]["annotations"][DELETION_COST] =
            podshaper_placement::annotations::deletion_cost(slot).into();
        cluster.put_pod(&format!("web-{number}"), pod).await;
    }
    let (_leadership, leadership) = watch::channel(Some(Instant::now() + Duration::from_hours(1)));
    let [yielding, remaining] = [OTHER, WEBHOOK].map(|webhook| {
        let backend = ClusterBackend::start(&cluster.server.client(), webhook, &[], Arc::new(UnknownNodes));
        backend.reconcile(OnePolicy, leadership.clone().into());
        backend
    });
    sleep(Duration::from_mins(2)).await;
    assert_eq!(yielding.superseded_by("ns", UID).as_deref(), Some(WEBHOOK));
    assert_eq!(remaining.superseded_by("ns", UID), None);
    let placements = cluster.server.list("/apis/podshaper.dev/v1alpha1/placements");
    assert_eq!(placements.len(), 1, "{placements:?}");
    assert_eq!(placements[0]["metadata"]["labels"][PLACED], WEBHOOK);
    let mut slots: Vec<u32> = cluster.placements().iter().map(|(_, slot, _)| slot.parse().unwrap()).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..10).collect::<Vec<_>>());
    for (name, slot, group) in cluster.placements() {
        let pod = cluster.pod(&name);
        assert_eq!(pod["metadata"]["labels"][PLACED], WEBHOOK, "{name}");
        assert_eq!(pod["spec"]["nodeSelector"]["type"], *group, "{name}");
        let cost = podshaper_placement::annotations::deletion_cost(slot.parse().unwrap());
        assert_eq!(deletion_cost(&cluster, &name), cost, "{name}");
    }
}

fn row(name: &str, slot: &str, group: &str) -> (String, String, String) {
    (name.to_owned(), slot.to_owned(), group.to_owned())
}

fn deletion_cost(cluster: &Cluster, pod: &str) -> Value {
    cluster.pod(pod)["metadata"]["annotations"][DELETION_COST].clone()
}

#[tokio::test(start_paused = true)]
async fn leader_moves_conflicting_pods_and_places_unplaced_ones() {
    let cluster = Cluster::new(5);
    cluster.create_placed("web-a", &assignment(1, 0, "default")).await;
    cluster.create_placed("web-b", &assignment(2, 0, "default")).await;
    cluster.create_unplaced("web-c", Value::Null).await;
    let spot = json!({"type": "spot", "disk": "ssd"});
    cluster.create_unplaced("web-d", spot.clone()).await;
    cluster.create_unplaced("web-e", spot).await;
    let mut costed = cluster.pod("web-e");
    costed["metadata"]["annotations"] = json!({DELETION_COST: "50"});
    cluster.put_pod("web-e", costed).await;

    run_replica(&cluster, false, Duration::from_secs(10)).await;
    assert_eq!(cluster.writes(), 0, "only the leader writes");
    run_replica(&cluster, true, Duration::from_secs(30)).await;
    let reconciled = [
        row("web-a", "0", "default"),
        row("web-b", "1", "default"),
        row("web-c", "-", "-"),
        row("web-d", "2", "spot"),
        row("web-e", "7", "spot"),
    ];
    assert_eq!(cluster.placements(), reconciled);
    assert_eq!(deletion_cost(&cluster, "web-d"), "-2");
    assert_eq!(deletion_cost(&cluster, "web-e"), "50", "the author's cost is kept");
    assert_eq!(deletion_cost(&cluster, "web-c"), "-2147483647", "a pod without a group is deleted first");
    assert_eq!(cluster.pod("web-c")["metadata"]["labels"][PLACED], WEBHOOK, "the watch selects it now");
    assert_eq!(cluster.reserved(), Some(0));
    let writes = cluster.writes();
    run_replica(&cluster, true, Duration::from_secs(30)).await;
    assert_eq!(cluster.writes(), writes, "a reconciled ledger is not written");
}

/// Replicas that cannot write the ledger do not know each other's slots.
#[tokio::test(start_paused = true)]
async fn leader_moves_conflicting_pods_without_a_placement() {
    let cluster = Cluster::new(2);
    for token in 1..=2 {
        cluster.create_placed(&format!("web-{token}"), &assignment(token, 0, "default")).await;
    }
    run_replica(&cluster, true, Duration::from_secs(10)).await;
    assert_eq!(cluster.placements(), [row("web-1", "0", "default"), row("web-2", "1", "default")]);
}

/// No pod changes after the failure.
#[tokio::test(start_paused = true)]
async fn failed_reconciliation_is_repeated() {
    let cluster = Cluster::new(2);
    for token in 1..=2 {
        cluster.create_placed(&format!("web-{token}"), &assignment(token, 0, "default")).await;
    }
    let recover = async {
        // Once the watch runs, the reads of the owner fail.
        deliver().await;
        sleep(Duration::from_millis(500)).await;
        cluster.server.fail("/apis/apps", 503, "ServiceUnavailable");
        sleep(Duration::from_secs(3)).await;
        assert!(cluster.writes() == 0, "the reconciliation has failed");
        cluster.server.recover();
    };
    tokio::join!(run_replica(&cluster, true, Duration::from_secs(30)), recover);
    assert_eq!(cluster.placements(), [row("web-1", "0", "default"), row("web-2", "1", "default")]);
}

#[tokio::test(start_paused = true)]
async fn reservation_expires_and_placement_without_pods_is_deleted() {
    let cluster = Cluster::new(9);
    let assignment = place(&*cluster.replica().await, &workload(9), 1).await;
    run_replica(&cluster, true, Duration::from_secs(50)).await;
    assert_eq!(cluster.reserved(), Some(1), "the pod may still be created");
    run_replica(&cluster, true, Duration::from_secs(80)).await;
    assert_eq!(cluster.reserved(), Some(0));

    cluster.create_placed("web-1", &assignment).await;
    cluster.delete_pod("web-1").await;
    cluster.scale(0);
    run_replica(&cluster, true, Duration::from_secs(10)).await;
    assert_eq!(cluster.reserved(), None);
}

#[tokio::test(start_paused = true)]
async fn one_reconciliation_takes_all_unplaced_pods() {
    let cluster = Cluster::new(2);
    cluster.create_unplaced("web-a", Value::Null).await;
    cluster.create_unplaced("web-b", json!({"type": "spot"})).await;
    let replica = cluster.replica().await;
    let reconcile = async {
        replica.reconcile(&workload(2)).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    };
    tokio::select! { () = crate::ownership::change_foreign_pods(&cluster) => {}, () = reconcile => {} }
    assert_eq!(cluster.placements(), [row("web-a", "-", "-"), row("web-b", "0", "spot")]);
    assert_eq!(cluster.pod("web-a")["metadata"]["labels"][PLACED], WEBHOOK);
}

/// The watch does not deliver pods without its label, so it cannot show that they are deleted.
#[tokio::test(start_paused = true)]
async fn pods_known_only_from_a_list_are_forgotten_with_the_placement() {
    let cluster = Cluster::new(3);
    cluster.create_unplaced("web-a", Value::Null).await;
    cluster.create_unplaced("web-b", json!({"type": "spot"})).await;
    let replica = cluster.replica().await;
    let assignment = place(&replica, &existing_workload(3, 2), 1).await;
    cluster.create_placed("web-c", &assignment).await;
    let known = || replica.inventory().iter().map(|inventory| inventory.pods.len()).sum::<usize>();
    assert_eq!(known(), 3);
    cluster.server.delete(PLACEMENT);
    deliver().await;
    assert_eq!(known(), 1);
}

#[tokio::test(start_paused = true)]
async fn reconciliation_labels_pods_that_a_request_has_listed() {
    let cluster = Cluster::new(2);
    cluster.create_unplaced("web-a", Value::Null).await;
    cluster.create_unplaced("web-b", json!({"type": "spot"})).await;
    let replica = cluster.replica().await;
    place(&replica, &existing_workload(2, 2), 2).await;
    replica.reconcile(&workload(2)).await.unwrap();
    assert_eq!(cluster.pod("web-a")["metadata"]["labels"][PLACED], WEBHOOK);
}

/// The webhook is not called for pods with the label `podshaper.dev/skip`.
#[tokio::test(start_paused = true)]
async fn leader_does_not_change_skipped_pods() {
    let cluster = Cluster::new(3);
    for (name, node_selector) in [("web-a", Value::Null), ("web-b", json!({"type": "spot"}))] {
        let mut pod = placed_pod(&assignment(1, 0, "default"));
        pod["metadata"]["annotations"] = Value::Null;
        pod["metadata"]["labels"] = json!({"app": "web", "podshaper.dev/skip": "true"});
        pod["spec"]["nodeSelector"] = node_selector;
        cluster.put_pod(name, pod).await;
    }
    cluster.create_unplaced("web-c", Value::Null).await;
    let replica = cluster.replica().await;
    replica.reconcile(&workload(3)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let costs = ["web-a", "web-b", "web-c"].map(|pod| deletion_cost(&cluster, pod));
    assert_eq!(costs, [Value::Null, Value::Null, "-2147483647".into()]);
    assert!(cluster.placements().iter().all(|(_, slot, _)| slot == "-"));
}
