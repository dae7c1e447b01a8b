//! Whose pods are, where their annotations say one thing and their owner references another, and pods that no watch shows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::api_server::{ApiServer, UID};
use super::{allocator, place, placed, places, reconciled, reconciled_with, workload};
use crate::ledgers::pods::{Others, Pods};
use crate::ledgers::{LedgerId, Ledgers, Workload};
use podshaper_kube::watch::Sink;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::{CONTROLLER, DELETION_COST, GROUP, OWNER, PLACED, SLOT, TOKEN};
use podshaper_placement::ledger::{Assignment, SlotReply, SlotRequest, Token};

/// As when somebody takes its labels away to look into it, and its controller replaces it.
#[tokio::test(start_paused = true)]
async fn a_pod_that_its_controller_releases_is_forgotten() {
    let server = ApiServer::default();
    let replica = server.replica();
    let stamp = |token| Assignment { token: Token(token), slot: 0, group: "default".into() };
    server.lock().create("web-0", Some(&stamp(1)));
    server.lock().create("web-1", Some(&stamp(2)));
    let ledger = LedgerId::new("ns", "uid-of-web");
    let pods = || replica.census().into_iter().map(|one| (one.ledger, one.pods.len())).collect::<Vec<_>>();
    assert_eq!(pods(), [(ledger.clone(), 2)]);
    let mut released = server.lock().pods["web-0"].clone();
    released["metadata"]["ownerReferences"] = json!([]);
    server.lock().put_pod(released);
    assert_eq!(pods(), [(ledger, 1)]);
}

/// Neither a pod of another namespace that names the owner's uid nor one that was copied into another workload counts.
#[tokio::test(start_paused = true)]
async fn nobody_counts_among_the_pods_of_strangers() {
    let server = ApiServer::default();
    server.lock().replicas = 3;
    let (allocator, replica) = (allocator(), server.replica());
    let stamp = Assignment { token: Token(1), slot: 0, group: "default".into() };
    server.lock().create("web-0", Some(&stamp));
    let pod = server.lock().pods["web-0"].clone();
    for (pointer, to) in
        [("/metadata/namespace", "elsewhere"), ("/metadata/ownerReferences/0/uid", "another")]
    {
        let mut pod = pod.clone();
        pod["metadata"]["name"] = to.into();
        *pod.pointer_mut(pointer).unwrap() = to.into();
        server.lock().put_pod(pod);
    }
    let census: HashMap<_, _> =
        replica.census().into_iter().map(|one| (one.ledger, one.pods.len())).collect();
    let each = [("elsewhere", "uid-of-web"), ("ns", "another"), ("ns", "uid-of-web")];
    let each = each.map(|(namespace, uid)| (LedgerId::new(namespace, uid), 1));
    assert_eq!(census, HashMap::from(each));
    assert_eq!(placed(&replica, 2, 3, &allocator).await.slot, 1);
}

/// What this process has of the machine's memory, in MiB.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096 / (1 << 20)
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn fifty_thousand_pods_are_kept_small() {
    let ledgers = ApiServer::default().replica();
    let mut watch = Pods::new(Arc::clone(&ledgers));
    let before = resident();
    watch.restart();
    for number in 0..50_000 {
        let (set, slot) = (number / 100, number % 100);
        let uid = format!("5f0c2a6e-0000-4000-8000-{set:012}");
        let pod = json!({
            "metadata": {
                "name": format!("shop-frontend-{set}-5d89b7f6c4-{slot:05}"), "namespace": "shop", "resourceVersion": format!("{number}"),
                "labels": {PLACED: "distributor"},
                "annotations": {OWNER: uid, TOKEN: format!("{number:016x}"), SLOT: slot.to_string(), GROUP: "type=spot"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop", "uid": uid, "controller": true}],
            },
            "spec": {"nodeSelector": {"type": "spot"}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        watch.listed(&serde_json::value::to_raw_value(&pod).unwrap()).unwrap();
    }
    watch.complete("50000");
    assert_eq!(ledgers.census().iter().map(|one| one.pods.len()).sum::<usize>(), 50_000);
    let grown = resident().saturating_sub(before);
    assert!(grown <= 48, "{grown} MiB");
    println!("50,000 pods of 500 owners: {grown} MiB");
}

/// A pod of another workload, in another namespace.
fn strange(number: u32) -> Value {
    json!({
        "metadata": {
            "name": format!("other-{}", number % 10), "namespace": "elsewhere", "labels": {PLACED: "distributor"},
            "annotations": {OWNER: "other", TOKEN: "00000000000000aa", SLOT: "0", GROUP: "default"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "other", "uid": "other", "controller": true}],
        },
        "spec": {}, "status": {"phase": "Running"},
    })
}

/// Pods of other workloads change all the time.
async fn bustle(server: &ApiServer) {
    for number in 0.. {
        sleep(Duration::from_micros(1900)).await;
        server.lock().put_pod(strange(number));
    }
}

/// Asks for a place in a workload of `replicas` that says it has `created` pods.
async fn answered(
    ledgers: &Arc<Ledgers>,
    allocator: &Arc<SlotAllocator>,
    replicas: u32,
    created: u32,
    token: u64,
) -> Option<SlotReply> {
    let workload = Arc::new(Workload { created: Some(created), ..Arc::unwrap_or_clone(workload(replicas)) });
    let fitting = allocator.policy().all();
    let deadline = Instant::now() + Duration::from_secs(2);
    let ask = SlotRequest { token: Token(token), fitting, existing: None, dry_run: false };
    ledgers.place(&workload, allocator, ask, deadline).await
}

/// The same, where it gets one.
async fn among(
    ledgers: &Arc<Ledgers>,
    allocator: &Arc<SlotAllocator>,
    replicas: u32,
    created: u32,
    token: u64,
) -> Assignment {
    match answered(ledgers, allocator, replicas, created, token).await {
        Some(SlotReply::Placed(stamp)) => stamp,
        other => panic!("not placed but {other:?}"),
    }
}

/// Stores a pod of the workload that nobody placed.
fn create(server: &ApiServer, name: &str, labels: Value, selector: Value) {
    server.lock().create(name, None);
    let mut pod = server.lock().pods[name].clone();
    if !labels.is_null() {
        pod["metadata"]["labels"] = labels;
    }
    pod["spec"]["nodeSelector"] = selector;
    server.lock().pods.insert(name.to_owned(), pod);
}

/// What the watch shows of others while a list is on its way makes the list no older.
#[tokio::test(start_paused = true)]
async fn pods_from_before_count_in_a_cluster_that_is_busy() {
    let server = ApiServer::default();
    server.lock().replicas = 6;
    for name in ["web-a", "web-b", "web-c", "web-d"] {
        create(&server, name, Value::Null, json!({"type": "default"}));
    }
    let (allocator, replica) = (allocator(), server.replica());
    let asked = join_all((0..2).map(|token| among(&replica, &allocator, 6, 4, token)));
    let stamps = tokio::select! { stamps = asked => stamps, () = bustle(&server) => unreachable!() };
    let mut groups: Vec<String> = stamps.into_iter().map(|stamp| stamp.group.to_string()).collect();
    groups.sort_unstable();
    assert_eq!(groups, ["default", "spot"], "four pods of default are there already");
}

/// Each pod waits for less long than the API server takes.
#[tokio::test(start_paused = true)]
async fn pods_from_before_are_listed_once_where_that_takes_long() {
    let server = ApiServer::default();
    server.lock().replicas = 6;
    server.lock().way = Some(Duration::from_millis(1200));
    for name in ["web-a", "web-b", "web-c", "web-d"] {
        create(&server, name, Value::Null, json!({"type": "default"}));
    }
    let (allocator, replica) = (allocator(), server.replica());
    let mut groups = Vec::new();
    for token in 0..2 {
        match answered(&replica, &allocator, 6, 4, token).await {
            Some(SlotReply::Estimated(stamp)) => groups.push(stamp.group.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((server.lock().lists(), groups[1].as_str()), (1, "spot"), "the second knows of the four");
}

#[tokio::test(start_paused = true)]
async fn one_look_takes_in_all_pods_from_before() {
    let server = ApiServer::default();
    server.lock().replicas = 2;
    create(&server, "web-a", Value::Null, Value::Null);
    create(&server, "web-b", Value::Null, json!({"type": "spot"}));
    let replica = server.replica();
    let look = async {
        replica.tend(&workload(2), &allocator()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    };
    tokio::select! { () = bustle(&server) => {}, () = look => {} }
    let own = places(&server).into_iter().filter(|(name, ..)| name.starts_with("web"));
    assert_eq!(own.collect::<Vec<_>>(), [place("web-a", "-", "-"), place("web-b", "0", "spot")]);
    assert_eq!(server.lock().pods["web-a"]["metadata"]["labels"][PLACED], "distributor", "it is marked");
}

/// The watch, when it begins anew, tells nothing of pods that it doesn't show.
#[tokio::test(start_paused = true)]
async fn pods_from_before_outlive_a_new_watch() {
    let server = ApiServer::default();
    server.lock().replicas = 6;
    for name in ["web-a", "web-b", "web-c", "web-d"] {
        create(&server, name, Value::Null, json!({"type": "default"}));
    }
    let (allocator, replica) = (allocator(), server.replica());
    let mut groups = Vec::new();
    for token in 0..2 {
        let stamp = among(&replica, &allocator, 6, 4, token).await;
        let name = format!("web-{token}");
        server.lock().create(&name, Some(&stamp));
        groups.push(stamp.group.to_string());
        let mut watch = Pods::new(Arc::clone(&replica));
        watch.restart();
        watch.listed(&serde_json::value::to_raw_value(&server.lock().pods[&name]).unwrap()).unwrap();
        watch.complete(&(1000 + token).to_string());
    }
    groups.sort_unstable();
    assert_eq!(groups, ["default", "spot"]);
}

/// Who places a pod may have had to list them; the leader marks them all the same, so that the watch shows when they go. Those that go
/// before are forgotten with their ledger.
#[tokio::test(start_paused = true)]
async fn pods_that_only_a_list_has_shown_do_not_stay() {
    let server = ApiServer::default();
    server.lock().replicas = 3;
    create(&server, "web-a", Value::Null, Value::Null);
    create(&server, "web-b", Value::Null, json!({"type": "spot"}));
    let (allocator, replica) = (allocator(), server.replica());
    let stamp = among(&replica, &allocator, 3, 2, 1).await;
    server.lock().create("web-c", Some(&stamp));
    let known = || replica.census().iter().map(|one| one.pods.len()).sum::<usize>();
    assert_eq!(known(), 3);
    let mut placement = server.lock().placements["distributor-uid-of-web"].clone();
    placement["metadata"]["resourceVersion"] = "1000".into();
    server.lock().show_ledger(&placement, true);
    assert_eq!(known(), 1);

    let replica = server.replica();
    server.lock().delete("web-c");
    server.lock().replicas = 2;
    among(&replica, &allocator, 3, 2, 2).await;
    replica.tend(&workload(2), &allocator).await.unwrap();
    assert_eq!(server.lock().pods["web-a"]["metadata"]["labels"][PLACED], "distributor");
}

/// Where nothing happens to its pods any more.
#[tokio::test(start_paused = true)]
async fn a_clash_is_undone_though_the_api_server_fails_once() {
    let server = ApiServer::default();
    server.lock().replicas = 2;
    for token in 1..=2 {
        let stamp = Assignment { token: Token(token), slot: 0, group: "default".into() };
        server.lock().create(&format!("web-{token}"), Some(&stamp));
    }
    server.lock().down = true;
    let up = async {
        sleep(Duration::from_secs(3)).await;
        server.lock().down = false;
        std::future::pending::<()>().await;
    };
    let run = reconciled_with(&server, Arc::default(), true, Duration::from_secs(30));
    tokio::select! { () = run => {}, () = up => {} }
    assert_eq!(places(&server), [place("web-1", "0", "default"), place("web-2", "1", "default")]);
}

/// A pod of this Job, in the ledger of a `CronJob`.
fn of_job(job: u32, controller: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("tick-{job}-x"), "namespace": "ns", "labels": {PLACED: "distributor"},
            "annotations": {
                OWNER: "uid-of-cron", CONTROLLER: controller, TOKEN: format!("{job:016x}"), SLOT: job.to_string(), GROUP: "default",
            },
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": format!("tick-{job}"), "uid": format!("job-{job}"), "controller": true},
            ],
        },
        "spec": {}, "status": {"phase": "Succeeded"},
    })
}

#[tokio::test(start_paused = true)]
async fn a_cron_jobs_pods_come_from_a_job_that_is_there() {
    let server = ApiServer::default();
    let replica = server.replica();
    for job in 1..=5 {
        server.lock().put_pod(of_job(job, &format!("job-{job}")));
        if job > 3 {
            server.lock().delete(&format!("tick-{}-x", job - 3));
        }
    }
    for replica in [replica, server.replica()] {
        let census = replica.census();
        let [census] = census.iter().filter(|one| !one.pods.is_empty()).collect::<Vec<_>>()[..] else {
            panic!()
        };
        assert_eq!(census.ledger, LedgerId::new("ns", "uid-of-cron"));
        assert_eq!((census.pods.len(), &*census.origin.controller.name), (3, "tick-5"));
    }
}

/// As where a Job's template was made from a placed pod, annotations and all.
#[tokio::test(start_paused = true)]
async fn a_jobs_pods_that_were_copied_count_among_its_own() {
    let server = ApiServer::default();
    server.lock().create("web-0", Some(&Assignment { token: Token(1), slot: 0, group: "default".into() }));
    let mut copied = server.lock().pods["web-0"].clone();
    copied["metadata"]["name"] = "backup".into();
    copied["metadata"]["ownerReferences"] = of_job(1, "job-1")["metadata"]["ownerReferences"].clone();
    server.lock().put_pod(copied);
    server.lock().put_pod(of_job(2, "job-of-another"));
    let replica = server.replica();
    let census: HashMap<_, _> =
        replica.census().into_iter().map(|one| (one.ledger, one.pods.len())).collect();
    let each = ["job-1", "job-2", UID].map(|uid| (LedgerId::new("ns", uid), 1));
    assert_eq!(census, HashMap::from(each));
}

/// The webhook isn't called for it, so the leader leaves it alone, too.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_to_be_left_alone_is() {
    let server = ApiServer::default();
    server.lock().replicas = 3;
    for (name, selector) in [("web-a", Value::Null), ("web-b", json!({"type": "spot"}))] {
        create(&server, name, json!({"podshaper.dev/skip": "true"}), selector);
    }
    create(&server, "web-c", Value::Null, Value::Null);
    reconciled(&server, true, Duration::from_secs(30)).await;
    let cost = |pod: &str| server.lock().pods[pod]["metadata"]["annotations"][DELETION_COST].clone();
    assert_eq!(["web-a", "web-b", "web-c"].map(cost), [Value::Null, Value::Null, "-2147483647".into()]);
    assert!(places(&server).iter().all(|(_, slot, _)| slot == "-"));
}

/// What is found of pods that this webhook hasn't placed.
#[test]
fn who_else_there_is() {
    let of = |name: &str, labels: Value, phase: &str| {
        let controller = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true});
        let metadata =
            json!({"name": name, "resourceVersion": "1", "labels": labels, "ownerReferences": [controller]});
        json!({"metadata": metadata, "status": {"phase": phase}})
    };
    let pods = [
        of("a", Value::Null, "Running"),
        of("b", Value::Null, "Pending"),
        of("c", Value::Null, "Failed"),
        of("d", json!({"podshaper.dev/skip": "true"}), "Running"),
        of("e", json!({"podshaper.dev/placed": "another"}), "Running"),
        json!({"metadata": {"name": "f", "resourceVersion": "1"}}),
    ];
    let pods = pods.map(|pod| serde_json::value::to_raw_value(&pod).unwrap());
    let mut others = Others::default();
    others.add(&pods.iter().map(|pod| &**pod).collect::<Vec<_>>()).unwrap();
    assert_eq!(others.unmarked.values().copied().collect::<Vec<_>>(), [2]);
    assert_eq!((others.elsewhere, others.placed_by.as_deref()), (2, Some("another")));
}

/// And any owner, of any length.
#[tokio::test(start_paused = true)]
async fn an_owner_that_nothing_can_be_called_is_none() {
    let server = ApiServer::default();
    for (number, field) in (1..).zip(["uid", "kind", "apiVersion", "name"]) {
        let mut pod = of_job(number, &format!("job-{number}"));
        pod["metadata"]["annotations"] = Value::Null;
        pod["metadata"]["ownerReferences"][0][field] = "x".repeat(250_000).into();
        server.lock().put_pod(pod);
    }
    let census: Vec<_> = server.replica().census().into_iter().filter(|one| !one.pods.is_empty()).collect();
    assert!(census.is_empty(), "{}", census.len());
}

/// Anybody may write annotations, and 250 KB of them into each pod: what is longer than any of ours isn't kept.
#[tokio::test(start_paused = true)]
async fn what_pods_are_annotated_with_is_kept_small() {
    let server = ApiServer::default();
    let long = "x".repeat(250_000);
    for (number, (owner, group)) in [(1, (&*long, "default")), (2, ("uid-of-cron", &*long))] {
        let mut pod = of_job(number, &format!("job-{number}"));
        pod["metadata"]["annotations"][OWNER] = owner.into();
        pod["metadata"]["annotations"][GROUP] = group.into();
        server.lock().put_pod(pod);
    }
    let census: HashMap<_, _> =
        server.replica().census().into_iter().map(|one| (one.ledger, one.pods[0].group.clone())).collect();
    let each = [("job-1", Some("default".into())), ("uid-of-cron", None)];
    assert_eq!(census, each.map(|(uid, group)| (LedgerId::new("ns", uid), group)).into());
}
