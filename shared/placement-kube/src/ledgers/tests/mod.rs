//! Ledgers against an API server in memory, in the time of its round trips.

mod api_server;
mod whose;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::Method;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::api_server::{ApiServer, UID};
use super::reconcile::{Policies, reconcile};
use super::{Ledgers, Standing, Told, Workload};
use podshaper_core::owner_reference::OwnerReference;
use podshaper_kube::store::Store;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::{DELETION_COST, GROUP, PLACED, SLOT};
use podshaper_placement::ledger::{Assignment, SlotReply, SlotRequest, Token};
use podshaper_placement::policy::{Group, Policy, Tie};

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

fn workload(pods: u32) -> Arc<Workload> {
    Arc::new(Workload {
        namespace: "ns".to_owned(),
        owner: OwnerReference::new("apps/v1", "ReplicaSet", "web", UID),
        path: "/apis/apps/v1/namespaces/ns/replicasets/web".to_owned(),
        selector: "app=web".to_owned(),
        pods: Some(pods),
        created: None,
        version: 0,
    })
}

/// How many places are reserved; none without a ledger.
fn reserved(server: &ApiServer) -> Option<usize> {
    let stored = server.lock();
    stored.placements.values().next().map(|one| one["spec"]["reservations"].as_str().unwrap().lines().count())
}

/// Asks a replica for a place.
async fn ask(
    ledgers: &Arc<Ledgers>,
    token: u64,
    replicas: u32,
    allocator: &Arc<SlotAllocator>,
) -> Option<SlotReply> {
    let fitting = allocator.policy().all();
    let deadline = Instant::now() + Duration::from_secs(2);
    let ask = SlotRequest { token: Token(token), fitting, existing: None, dry_run: false };
    ledgers.place(&workload(replicas), allocator, ask, deadline).await
}

async fn placed(
    ledgers: &Arc<Ledgers>,
    token: u64,
    replicas: u32,
    allocator: &Arc<SlotAllocator>,
) -> Assignment {
    match ask(ledgers, token, replicas, allocator).await {
        Some(SlotReply::Placed(stamp)) => stamp,
        other => panic!("not placed but {other:?}"),
    }
}

/// Has so many replicas place 500 pods, each so long after the one before; how long it took, and how many writes.
async fn burst(replicas: usize, step: Duration) -> (Duration, usize) {
    let server = ApiServer::default();
    server.lock().replicas = 500;
    let replicas: Vec<_> = (0..replicas).map(|_| server.replica()).collect();
    let allocator = allocator();
    let begun = Instant::now();
    let asked = (0..500).map(async |token| {
        sleep(step * token).await;
        let replica = &replicas[token as usize % replicas.len()];
        placed(replica, token.into(), 500, &allocator).await
    });
    let stamps = join_all(asked).await;
    let took = begun.elapsed();
    let mut slots: Vec<u32> = stamps.iter().map(|stamp| stamp.slot).collect();
    slots.sort_unstable();
    assert!(slots.into_iter().eq(0..500), "each slot once");
    assert_eq!(stamps.iter().filter(|stamp| &*stamp.group == "spot").count(), 100);
    assert_eq!(server.lock().lists(), 0);
    let writes = server.lock().writes();
    (took, writes)
}

/// Time stands still but for round trips of 5 ms, so the figures are those of the protocol.
#[tokio::test(start_paused = true)]
async fn a_burst_of_500_costs_a_few_writes() {
    let spread = Duration::from_micros(400);
    for (replicas, step, most) in
        [(1, Duration::ZERO, 60), (3, Duration::ZERO, 150), (1, spread, 260), (3, spread, 350)]
    {
        let (took, writes) = burst(replicas, step).await;
        println!("{replicas} replicas, one each {step:?}: {took:?}, {writes} writes");
        assert!(took <= Duration::from_millis(most), "{took:?}");
        // One in 20 ms, and two.
        let writes_most = (took.as_millis() / 20 + 2) * replicas as u128;
        assert!(writes as u128 <= writes_most, "{replicas} replicas: {writes} writes in {took:?}");
    }
}

/// The same in real time, processor time included; a machine may be ten times as slow. `ci/bench distributor` prints what it took.
#[tokio::test]
async fn a_burst_of_500_takes_no_time_of_its_own() {
    for (replicas, most) in [(1, 60), (3, 150)] {
        let (took, writes) = burst(replicas, Duration::ZERO).await;
        println!("{replicas} replicas in real time: {took:?}, {writes} writes");
        assert!(took <= Duration::from_millis(most) * 10, "{took:?}");
    }
}

/// Where a round trip takes five times the pause, the replica that has written would write again before the others have read.
#[tokio::test(start_paused = true)]
async fn a_slow_api_server_starves_no_replica() {
    let server = ApiServer::default();
    (server.lock().replicas, server.lock().way) = (500, Some(Duration::from_millis(50)));
    let replicas: Vec<_> = (0..3).map(|_| server.replica()).collect();
    let allocator = allocator();
    let waits = join_all((0..500u32).map(async |token| {
        sleep(Duration::from_millis(4) * token).await;
        let asked = Instant::now();
        placed(&replicas[token as usize % 3], token.into(), 500, &allocator).await;
        asked.elapsed()
    }))
    .await;
    let (longest, writes) = (waits.into_iter().max().unwrap(), server.lock().writes());
    println!("at most {longest:?}, {writes} writes");
    assert!(longest <= Duration::from_millis(1500), "{longest:?}");
}

/// Four pods that another has put where a policy of 80 and 20 wants them, and two that come after them.
#[tokio::test(start_paused = true)]
async fn pods_from_before_the_first_count_for_it() {
    let server = ApiServer::default();
    server.lock().replicas = 6;
    for name in ["web-a", "web-b", "web-c", "web-d"] {
        server.lock().create(name, None);
        let mut told = server.lock().pods[name].clone();
        told["spec"]["nodeSelector"] = serde_json::json!({"type": "default"});
        server.lock().pods.insert(name.to_owned(), told);
    }
    let (allocator, replica) = (allocator(), server.replica());
    let before = Arc::new(Workload { created: Some(4), ..Arc::unwrap_or_clone(workload(6)) });
    let fitting = allocator.policy().all();
    let deadline = Instant::now() + Duration::from_secs(2);
    let ask = |token| SlotRequest { token: Token(token), fitting, existing: None, dry_run: false };
    let answers =
        join_all((0..2).map(|token| replica.place(&before, &allocator, ask(token), deadline))).await;
    let group = |answer| match answer {
        Some(SlotReply::Placed(Assignment { group, .. })) => group.to_string(),
        other => panic!("{other:?}"),
    };
    let groups: BTreeSet<String> = answers.into_iter().map(group).collect();
    assert_eq!(groups, ["default", "spot"].map(str::to_owned).into(), "one each");
    assert_eq!(server.lock().lists(), 1, "by one list for both");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_new_goes_on_where_the_others_are() {
    let server = ApiServer::default();
    server.lock().replicas = 4;
    let (allocator, first) = (allocator(), server.replica());
    for token in 0..2 {
        let stamp = placed(&first, token, 4, &allocator).await;
        server.lock().create(&format!("web-{token}"), Some(&stamp));
    }
    let unseen = placed(&first, 2, 4, &allocator).await;
    drop(first);
    let second = server.replica();
    assert_eq!([unseen.slot, placed(&second, 3, 4, &allocator).await.slot], [2, 3]);
    assert_eq!(server.lock().lists(), 0);
}

/// Others' writes are seen by the watch, and so is an object that somebody has copied: that says nothing.
#[tokio::test(start_paused = true)]
async fn what_others_write_is_known_and_copies_are_not() {
    let server = ApiServer::default();
    server.lock().replicas = 9;
    let (allocator, one, other) = (allocator(), server.replica(), server.replica());
    for token in 0..4 {
        let replica = if token % 2 == 0 { &one } else { &other };
        assert_eq!(placed(replica, token, 9, &allocator).await.slot, u32::try_from(token).unwrap());
        sleep(Duration::from_millis(50)).await;
    }
    // Each replica has read once, and none has lost.
    let calls = || {
        let stored = server.lock();
        let reads =
            stored.calls.iter().filter(|(method, kind)| method == Method::GET && kind == "placements");
        (stored.writes(), reads.count())
    };
    assert_eq!(calls(), (4, 2));

    let mut copy = server.lock().placements["distributor-uid-of-web"].clone();
    copy["metadata"]["name"] = "copy".into();
    copy["metadata"]["resourceVersion"] = "1000".into();
    copy["spec"]["reservations"] = "".into();
    server.lock().show_ledger(&copy, false);
    assert_eq!(placed(&one, 4, 9, &allocator).await.slot, 4);
    assert_eq!(calls(), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_pod_that_was_rejected_is_given_again() {
    let server = ApiServer::default();
    server.lock().replicas = 3;
    let (allocator, replica) = (allocator(), server.replica());
    for token in 0..3 {
        let stamp = placed(&replica, token, 3, &allocator).await;
        if token != 1 {
            server.lock().create(&format!("web-{token}"), Some(&stamp));
        }
    }
    assert_eq!(placed(&replica, 9, 3, &allocator).await.slot, 1);
    assert_eq!(server.lock().lists(), 1, "the owner's bound was exceeded");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_down_keeps_nobody_waiting() {
    let server = ApiServer::default();
    server.lock().down = true;
    let (allocator, replica) = (allocator(), server.replica());
    let begun = Instant::now();
    let answers = join_all((0..3).map(|token| ask(&replica, token, 3, &allocator))).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    let slots = answers.into_iter().map(|answer| match answer {
        Some(SlotReply::Estimated(stamp)) => stamp.slot,
        other => panic!("{other:?}"),
    });
    assert_eq!(slots.collect::<Vec<_>>(), [0, 1, 2]);
    sleep(Duration::from_mins(1)).await;
    server.lock().down = false;
    placed(&replica, 7, 3, &allocator).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_left_is_forgotten() {
    let server = ApiServer::default();
    server.lock().replicas = 9;
    let (allocator, replica) = (allocator(), server.replica());
    let patient = placed(&replica, 1, 9, &allocator);
    let hasty = timeout(Duration::from_millis(1), ask(&replica, 2, 9, &allocator));
    let (patient, hasty) = tokio::join!(patient, hasty);
    assert!(hasty.is_err());
    assert_eq!(patient.slot, 0);
    let placement = server.lock().placements["distributor-uid-of-web"].clone();
    assert_eq!(reserved(&server), Some(1), "{placement}");
    assert_eq!(placement["metadata"]["ownerReferences"][0]["uid"], UID);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_sent_twice_are_answered_alike() {
    let server = ApiServer::default();
    server.lock().replicas = 9;
    let (allocator, one, other) = (allocator(), server.replica(), server.replica());
    let (a, b) = tokio::join!(placed(&one, 1, 9, &allocator), placed(&one, 1, 9, &allocator));
    let c = placed(&other, 1, 9, &allocator).await;
    assert_eq!((&a, &a), (&b, &c));
}

struct One(Arc<SlotAllocator>);

impl Policies for One {
    async fn find(&self, standing: &Standing) -> Option<(Arc<Workload>, Arc<SlotAllocator>)> {
        assert_eq!(standing.owner.uid, UID);
        Some((workload(0), Arc::clone(&self.0)))
    }
}

/// Lets a leader work for so long, which has no other knowledge than what the API server tells it.
async fn reconciled(server: &ApiServer, leads: bool, time: Duration) {
    let standings = Arc::new(Store::default());
    stand(&standings);
    reconciled_with(server, standings, leads, time).await;
}

async fn reconciled_with(server: &ApiServer, standings: Arc<Store<Standing>>, leads: bool, time: Duration) {
    let (_leadership, leadership) = watch::channel(leads);
    let reconciling = reconcile(server.replica(), standings, One(allocator()), leadership);
    assert!(timeout(time, reconciling).await.is_err());
}

/// Has the watch of ledgers show the one that there is.
fn stand(standings: &Store<Standing>) {
    let owner = workload(0).owner.clone();
    standings.put(
        "ns/x".to_owned(),
        Standing {
            namespace: "ns".to_owned(),
            owner,
            name: "x".to_owned(),
            reserved: 1,
            told: Told::default(),
        },
    );
}

fn places(server: &ApiServer) -> Vec<(String, String, String)> {
    let stored = server.lock();
    let text = |pod: &serde_json::Value, key: &str| {
        pod["metadata"]["annotations"][key].as_str().unwrap_or("-").to_owned()
    };
    let place =
        |(name, pod): (&String, &serde_json::Value)| (name.clone(), text(pod, SLOT), text(pod, GROUP));
    stored.pods.iter().map(place).collect()
}

fn place(name: &str, slot: &str, group: &str) -> (String, String, String) {
    (name.to_owned(), slot.to_owned(), group.to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_leader_undoes_clashes_and_adopts() {
    let server = ApiServer::default();
    server.lock().replicas = 4;
    let stamp = |token, slot, group: &str| Assignment { token: Token(token), slot, group: group.into() };
    server.lock().create("web-a", Some(&stamp(1, 0, "default")));
    server.lock().create("web-b", Some(&stamp(2, 0, "default")));
    server.lock().create("web-c", None);
    let mut told = server.lock().pods["web-c"].clone();
    told["metadata"]["name"] = "web-d".into();
    told["spec"]["nodeSelector"] = serde_json::json!({"type": "spot", "disk": "ssd"});
    let mut costed = told.clone();
    costed["metadata"]["name"] = "web-e".into();
    costed["metadata"]["annotations"] = serde_json::json!({DELETION_COST: "50"});
    server.lock().pods.insert("web-d".to_owned(), told);
    server.lock().pods.insert("web-e".to_owned(), costed);
    server.lock().replicas = 5;

    reconciled(&server, false, Duration::from_secs(10)).await;
    assert_eq!(server.lock().writes(), 0, "only the leader does anything");
    reconciled(&server, true, Duration::from_secs(30)).await;
    let settled = [
        place("web-a", "0", "default"),
        place("web-b", "1", "default"),
        place("web-c", "-", "-"),
        place("web-d", "2", "spot"),
        place("web-e", "7", "spot"),
    ];
    assert_eq!(places(&server), settled);
    let cost = |pod: &str| server.lock().pods[pod]["metadata"]["annotations"][DELETION_COST].clone();
    assert_eq!([cost("web-d"), cost("web-e")], ["-2", "50"], "its author's stays");
    let unplaced = server.lock().pods["web-c"]["metadata"].clone();
    assert_eq!(unplaced["annotations"][DELETION_COST], "-2147483647", "the first to go");
    assert_eq!(unplaced["labels"][PLACED], "distributor", "and seen from now on");
    let placement = server.lock().placements["distributor-uid-of-web"].clone();
    assert_eq!(placement["spec"]["reservations"], "", "{placement}");
    let calls = server.lock().writes();
    reconciled(&server, true, Duration::from_secs(30)).await;
    assert_eq!(server.lock().writes(), calls, "what is in order is left alone");
}

/// Replicas that can't have the ledger know nothing of each other.
#[tokio::test(start_paused = true)]
async fn clashes_of_pods_that_were_all_placed_without_a_ledger_are_undone() {
    let server = ApiServer::default();
    server.lock().replicas = 2;
    for token in 1..=2 {
        let stamp = Assignment { token: Token(token), slot: 0, group: "default".into() };
        server.lock().create(&format!("web-{token}"), Some(&stamp));
    }
    reconciled_with(&server, Arc::default(), true, Duration::from_secs(10)).await;
    assert_eq!(places(&server), [place("web-1", "0", "default"), place("web-2", "1", "default")]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_for_ever_and_nothing_is_left_behind() {
    let server = ApiServer::default();
    server.lock().replicas = 9;
    let stamp = placed(&server.replica(), 1, 9, &allocator()).await;
    reconciled(&server, true, Duration::from_secs(50)).await;
    assert_eq!(reserved(&server), Some(1), "its pod may still come");
    reconciled(&server, true, Duration::from_secs(80)).await;
    assert_eq!(reserved(&server), Some(0));

    server.lock().create("web-1", Some(&stamp));
    server.lock().delete("web-1");
    server.lock().replicas = 0;
    reconciled(&server, true, Duration::from_secs(10)).await;
    assert_eq!(reserved(&server), None, "no pods, no ledger");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_changes_meanwhile_moves_nobody_where_it_may_not_go() {
    let server = ApiServer::default();
    server.lock().replicas = 9;
    let (before, replica) = (allocator(), server.replica());
    let mut groups = before.policy().groups().to_vec();
    groups.reverse();
    let after = Arc::new(SlotAllocator::new(Policy::new(groups, Tie::First).unwrap()));
    let deadline = Instant::now() + Duration::from_secs(2);
    let spot = std::iter::once(1).collect();
    let ask = SlotRequest { token: Token(1), fitting: spot, existing: None, dry_run: false };
    let workload = workload(9);
    let (only_spot, any) =
        tokio::join!(replica.place(&workload, &before, ask, deadline), placed(&replica, 2, 9, &after));
    assert_eq!((only_spot, &*any.group), (None, "default"));
}
