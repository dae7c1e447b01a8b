//! Requests for slots.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::ledger::{SlotReply, SlotRequest, Token};
use podshaper_placement::policy::{Policy, Tie};
use podshaper_placement_kube::PlacedWorkload;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::{Cluster, PLACEMENT, UID, deliver, existing_workload, place, request, workload};

/// Has `replicas` replicas place 500 pods, each `step` after the one before. Returns the time and the number of writes.
async fn burst(replicas: usize, step: Duration) -> (Duration, usize) {
    let cluster = Cluster::new(500);
    let replicas = join_all((0..replicas).map(|_| cluster.replica())).await;
    let workload = workload(500);
    let started = Instant::now();
    let requests = (0..500).map(async |token| {
        sleep(step * token).await;
        let replica = &replicas[token as usize % replicas.len()];
        place(replica, &workload, token.into()).await
    });
    let assignments = join_all(requests).await;
    let elapsed = started.elapsed();
    let mut slots: Vec<u32> = assignments.iter().map(|assignment| assignment.slot).collect();
    slots.sort_unstable();
    assert!(slots.into_iter().eq(0..500), "each slot once");
    assert_eq!(assignments.iter().filter(|assignment| &*assignment.group == "spot").count(), 100);
    assert_eq!(cluster.lists(), 0);
    (elapsed, cluster.writes())
}

#[tokio::test(start_paused = true)]
async fn burst_of_500_pods_shares_writes() {
    let spread = Duration::from_micros(400);
    for (replicas, step, most) in
        [(1, Duration::ZERO, 60), (3, Duration::ZERO, 150), (1, spread, 260), (3, spread, 350)]
    {
        let (elapsed, writes) = burst(replicas, step).await;
        println!("{replicas} replicas, a pod each {step:?}: {elapsed:?}, {writes} writes");
        assert!(elapsed <= Duration::from_millis(most), "{elapsed:?}");
        // One in 20 ms, and two.
        let most_writes = (elapsed.as_millis() / 20 + 2) * replicas as u128;
        assert!(writes as u128 <= most_writes, "{replicas} replicas: {writes} writes in {elapsed:?}");
    }
}

/// In real time, processor time included. The bounds allow for a machine that is ten times as slow.
#[tokio::test]
async fn burst_of_500_pods_takes_little_processor_time() {
    for (replicas, most) in [(1, 60), (3, 150)] {
        let (elapsed, writes) = burst(replicas, Duration::ZERO).await;
        println!("{replicas} replicas in real time: {elapsed:?}, {writes} writes");
        assert!(elapsed <= Duration::from_millis(most) * 10, "{elapsed:?}");
    }
}

/// The round trip is five times the pause between writes: the replica that has written could write again before the others have read.
#[tokio::test(start_paused = true)]
async fn slow_api_server_starves_no_replica() {
    let cluster = Cluster::new(500);
    let replicas = join_all((0..3).map(|_| cluster.replica())).await;
    cluster.server.set_round_trip(Duration::from_millis(100));
    let workload = workload(500);
    let waits = join_all((0..500u32).map(async |token| {
        sleep(Duration::from_millis(4) * token).await;
        let requested = Instant::now();
        place(&replicas[token as usize % 3], &workload, token.into()).await;
        requested.elapsed()
    }))
    .await;
    let longest = waits.into_iter().max().unwrap();
    println!("at most {longest:?}, {} writes", cluster.writes());
    assert!(longest <= Duration::from_millis(1500), "{longest:?}");
}

/// Creates four pods that another scheduler has put into the group `default`.
async fn create_four_unplaced(cluster: &Cluster) {
    for name in ["web-a", "web-b", "web-c", "web-d"] {
        cluster.create_unplaced(name, json!({"type": "default"})).await;
    }
}

/// The groups of the next two pods, which are requested at once.
async fn next_two_groups(cluster: &Cluster) -> Vec<String> {
    let replica = cluster.replica().await;
    let workload = existing_workload(6, 4);
    let assignments = join_all((0..2).map(|token| place(&replica, &workload, token))).await;
    let mut groups: Vec<_> = assignments.iter().map(|assignment| assignment.group.to_string()).collect();
    groups.sort_unstable();
    groups
}

#[tokio::test(start_paused = true)]
async fn unplaced_pods_count_for_their_groups() {
    let cluster = Cluster::new(6);
    create_four_unplaced(&cluster).await;
    assert_eq!(next_two_groups(&cluster).await, ["default", "spot"]);
    assert_eq!(cluster.lists(), 1, "one list for both requests");
}

/// Watch events of other workloads while the list is read do not make the list older.
#[tokio::test(start_paused = true)]
async fn unplaced_pods_count_in_a_busy_cluster() {
    let cluster = Cluster::new(6);
    create_four_unplaced(&cluster).await;
    let groups = tokio::select! {
        groups = next_two_groups(&cluster) => groups,
        () = crate::ownership::change_foreign_pods(&cluster) => unreachable!(),
    };
    assert_eq!(groups, ["default", "spot"]);
}

/// Each request waits for less time than the list takes.
#[tokio::test(start_paused = true)]
async fn slow_list_of_unplaced_pods_is_requested_once() {
    let cluster = Cluster::new(6);
    create_four_unplaced(&cluster).await;
    let replica = cluster.replica().await;
    let workload = existing_workload(6, 4);
    cluster.server.set_round_trip(Duration::from_millis(2400));
    let mut groups = Vec::new();
    for token in 0..2 {
        match request(&replica, &workload, token).await {
            Some(SlotReply::Estimated(assignment)) => groups.push(assignment.group.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((cluster.lists(), groups[1].as_str()), (1, "spot"), "the second request counts the four pods");
}

#[tokio::test(start_paused = true)]
async fn unplaced_pods_count_after_the_watch_lists_again() {
    let cluster = Cluster::new(6);
    create_four_unplaced(&cluster).await;
    let replica = cluster.replica().await;
    let workload = existing_workload(6, 4);
    let mut groups = Vec::new();
    for token in 0..2 {
        let assignment = place(&replica, &workload, token).await;
        cluster.create_placed(&format!("web-{token}"), &assignment).await;
        groups.push(assignment.group.to_string());
        cluster.server.expire_watches();
        // A watch that ends starts again after a second.
        sleep(Duration::from_secs(2)).await;
    }
    groups.sort_unstable();
    assert_eq!(groups, ["default", "spot"]);
}

#[tokio::test(start_paused = true)]
async fn new_replica_continues_the_sequence() {
    let cluster = Cluster::new(4);
    let workload = workload(4);
    let first = cluster.replica().await;
    for token in 0..2 {
        let assignment = place(&first, &workload, token).await;
        cluster.create_placed(&format!("web-{token}"), &assignment).await;
    }
    let reserved = place(&first, &workload, 2).await;
    let second = cluster.replica().await;
    let next = place(&second, &workload, 3).await;
    assert_eq!((reserved.slot, next.slot), (2, 3));
    assert_eq!(cluster.lists(), 0);
}

#[tokio::test(start_paused = true)]
async fn writes_of_other_replicas_arrive_by_watch() {
    let cluster = Cluster::new(9);
    let workload = workload(9);
    let one = cluster.replica().await;
    let other = cluster.replica().await;
    for token in 0..4 {
        let replica = if token % 2 == 0 { &one } else { &other };
        assert_eq!(u64::from(place(replica, &workload, token).await.slot), token);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        (cluster.writes(), cluster.reads()),
        (4, 2),
        "each replica reads once, and no write conflicts"
    );
}

#[tokio::test(start_paused = true)]
async fn copy_of_a_placement_is_ignored() {
    let cluster = Cluster::new(9);
    let workload = workload(9);
    let replica = cluster.replica().await;
    assert_eq!(place(&replica, &workload, 0).await.slot, 0);
    let mut copy = cluster.server.get(PLACEMENT);
    copy["spec"]["reservations"] = "".into();
    cluster.server.put(&PLACEMENT.replace("distributor-uid-of-web", "copy"), copy);
    deliver().await;
    assert_eq!(place(&replica, &workload, 1).await.slot, 1);
    assert_eq!((cluster.writes(), cluster.reads()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn slot_of_a_rejected_pod_is_given_again() {
    let cluster = Cluster::new(3);
    let workload = workload(3);
    let replica = cluster.replica().await;
    for token in 0..3 {
        let assignment = place(&replica, &workload, token).await;
        if token != 1 {
            cluster.create_placed(&format!("web-{token}"), &assignment).await;
        }
    }
    assert_eq!(place(&replica, &workload, 9).await.slot, 1);
    assert_eq!(cluster.lists(), 1, "more pods were requested than the owner may have");
}

#[tokio::test(start_paused = true)]
async fn failing_api_server_delays_no_reply_past_the_deadline() {
    let cluster = Cluster::new(3);
    let workload = workload(3);
    let replica = cluster.replica().await;
    cluster.server.fail("/api", 503, "ServiceUnavailable");
    let started = Instant::now();
    let replies = join_all((0..3).map(|token| request(&replica, &workload, token))).await;
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    let slots = replies.into_iter().map(|reply| match reply {
        Some(SlotReply::Estimated(assignment)) => assignment.slot,
        other => panic!("{other:?}"),
    });
    assert_eq!(slots.collect::<Vec<_>>(), [0, 1, 2]);
    sleep(Duration::from_mins(1)).await;
    cluster.server.recover();
    place(&replica, &workload, 7).await;
}

#[tokio::test(start_paused = true)]
async fn cancelled_request_reserves_no_slot() {
    let cluster = Cluster::new(9);
    let workload = workload(9);
    let replica = cluster.replica().await;
    let waiting = place(&replica, &workload, 1);
    let cancelled = timeout(Duration::from_millis(1), request(&replica, &workload, 2));
    let (assignment, cancelled) = tokio::join!(waiting, cancelled);
    assert!(cancelled.is_err());
    assert_eq!(assignment.slot, 0);
    assert_eq!(cluster.reserved(), Some(1));
    assert_eq!(cluster.server.get(PLACEMENT)["metadata"]["ownerReferences"][0]["uid"], UID);
}

#[tokio::test(start_paused = true)]
async fn repeated_request_gets_the_same_slot() {
    let cluster = Cluster::new(9);
    let workload = workload(9);
    let one = cluster.replica().await;
    let other = cluster.replica().await;
    let (first, second) = tokio::join!(place(&one, &workload, 1), place(&one, &workload, 1));
    let third = place(&other, &workload, 1).await;
    assert_eq!((&first, &first), (&second, &third));
}

#[tokio::test(start_paused = true)]
async fn slot_of_a_replaced_policy_is_not_used_for_a_group_that_does_not_fit() {
    let cluster = Cluster::new(9);
    let before = workload(9);
    let replica = cluster.replica().await;
    let mut groups = before.allocator.policy().groups().to_vec();
    groups.reverse();
    let allocator = Arc::new(SlotAllocator::new(Policy::new(groups, Tie::First).unwrap()));
    let after = Arc::new(PlacedWorkload { allocator, ..PlacedWorkload::clone(&before) });
    let spot = std::iter::once(1).collect();
    let only_spot =
        SlotRequest { token: Token(1), fitting: spot, existing: None, dry_run: false, over_time: false };
    let deadline = Instant::now() + Duration::from_secs(2);
    let (only_spot, any) =
        tokio::join!(replica.place(&before, only_spot, deadline), place(&replica, &after, 2));
    assert_eq!((only_spot, &*any.group), (None, "default"));
}

/// Anyone can label a pod `podshaper.dev/skip`, and other webhooks place pods too.
#[tokio::test(start_paused = true)]
async fn unplaced_pods_of_a_selector_are_counted_by_controller() {
    let cluster = Cluster::new(9);
    let replica = cluster.replica().await;
    for (name, label, phase) in [
        ("a", None, "Running"),
        ("b", None, "Pending"),
        ("c", None, "Failed"),
        ("d", Some(("podshaper.dev/skip", "true")), "Running"),
        ("e", Some(("podshaper.dev/placed", "another")), "Running"),
        ("f", Some(("podshaper.dev/placed", "distributor")), "Running"),
    ] {
        cluster.create_unplaced(name, Value::Null).await;
        let mut pod = cluster.pod(name);
        if let Some((key, value)) = label {
            pod["metadata"]["labels"][key] = value.into();
        }
        pod["status"]["phase"] = phase.into();
        cluster.put_pod(name, pod).await;
    }
    cluster.put_pod("without-controller", json!({"metadata": {"labels": {"app": "web"}}})).await;
    let unplaced = replica.list_unplaced("ns", "app=web").await.unwrap();
    assert_eq!(unplaced.unmarked.values().copied().collect::<Vec<_>>(), [2]);
    assert_eq!((unplaced.excluded, unplaced.placed_by.as_deref()), (2, Some("another")));
}
