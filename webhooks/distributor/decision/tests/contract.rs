//! The decision about single pods, as the contract has it, by facts from files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use distributor_decision::DistributorWebhook;
use distributor_decision::offline::FileFacts;
use podshaper_core::admission::{Decision, Request, Verdict, Webhook};
use podshaper_core::pod::Pod;
use serde_json::{Value, json};

/// The original's sample.
fn sample() -> Value {
    json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor", "metadata": {"name": "sample"},
        "spec": {
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-deployment"},
        },
    })
}

fn object(api_version: &str, kind: &str, name: &str, controller: Option<(&str, &str)>) -> Value {
    let owners = controller.map(|(kind, name)| {
        let group = if kind.contains("Job") { "batch/v1" } else { "apps/v1" };
        json!([{"apiVersion": group, "kind": kind, "name": name, "uid": format!("{kind}-{name}"), "controller": true}])
    });
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "uid": format!("{kind}-{name}"), "ownerReferences": owners},
    })
}

fn set() -> Value {
    object("apps/v1", "ReplicaSet", "nginx-1", Some(("Deployment", "nginx-deployment")))
}

fn pod() -> Value {
    let mut pod = object("v1", "Pod", "", Some(("ReplicaSet", "nginx-1")));
    pod["metadata"]["generateName"] = json!("nginx-1-");
    pod["spec"] = json!({"containers": [{"name": "nginx", "image": "nginx"}]});
    pod
}

fn webhook(facts: &[Value]) -> DistributorWebhook<FileFacts> {
    DistributorWebhook::new(FileFacts::new(facts).unwrap())
}

async fn decide(webhook: &DistributorWebhook<FileFacts>, pod: &Value, name: Option<&str>) -> Decision {
    let request = json!({
        "uid": "a-request", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
        "namespace": "default", "name": name, "object": pod,
    });
    let text = request.to_string();
    let request: Request<'_, Pod<'_>> = serde_json::from_str(&text).unwrap();
    webhook.decide(&request, Instant::now() + Duration::from_secs(2)).await
}

/// The pod after the decision.
async fn placed(webhook: &DistributorWebhook<FileFacts>, pod: &Value) -> Value {
    let decision = decide(webhook, pod, None).await;
    assert_eq!((&decision.verdict, &decision.warnings[..]), (&Verdict::Admit, &[][..]));
    let patch: json_patch::Patch =
        serde_json::from_str(&String::from_utf8(decision.patch.to_json()).unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// The groups of `count` pods that are created one after the other.
async fn groups(webhook: &DistributorWebhook<FileFacts>, pod: &Value, count: usize) -> Vec<String> {
    let mut groups = Vec::new();
    for _ in 0..count {
        let placed = placed(webhook, pod).await;
        groups.push(placed["spec"]["nodeSelector"]["type"].as_str().unwrap().to_owned());
    }
    groups
}

async fn undecided(facts: &[Value], pod: &Value) -> String {
    match decide(&webhook(facts), pod, None).await.verdict {
        Verdict::Undecided(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sample_of_the_original_is_placed() {
    let webhook = webhook(&[sample(), set()]);
    let placed = placed(&webhook, &pod()).await;
    assert_eq!(placed["spec"]["nodeSelector"], json!({"type": "default"}));
    let annotations = &placed["metadata"]["annotations"];
    assert_eq!(annotations["mutated-by"], "spread-webhook-service");
    assert_eq!(annotations["placement.podshaper.dev/slot"], "0");
    assert_eq!(annotations["placement.podshaper.dev/owner"], "ReplicaSet-nginx-1");
    assert_eq!(annotations["controller.kubernetes.io/pod-deletion-cost"], "0");
    assert_eq!(placed["metadata"]["labels"], json!({"podshaper.dev/placed": "distributor"}));
    let others = groups(&webhook, &pod(), 9).await;
    assert_eq!(others.iter().filter(|group| *group == "spot").count(), 2, "{others:?}");
    // Another revision begins anew.
    let next = object("apps/v1", "ReplicaSet", "nginx-2", Some(("Deployment", "nginx-deployment")));
    let mut of_next = pod();
    of_next["metadata"]["ownerReferences"] =
        object("v1", "Pod", "", Some(("ReplicaSet", "nginx-2")))["metadata"]["ownerReferences"].clone();
    let webhook = self::webhook(&[sample(), set(), next]);
    groups(&webhook, &pod(), 3).await;
    assert_eq!(groups(&webhook, &of_next, 3).await, ["default", "default", "spot"]);
}

#[tokio::test]
async fn existing_pods_count() {
    let there = |slot: u32, group: &str| {
        let mut pod = pod();
        pod["metadata"]["name"] = json!(format!("nginx-1-{slot}"));
        pod["metadata"]["annotations"] = json!({
            "placement.podshaper.dev/token": format!("{slot:016x}"), "placement.podshaper.dev/slot": slot.to_string(),
            "placement.podshaper.dev/group": group, "placement.podshaper.dev/owner": "ReplicaSet-nginx-1",
        });
        pod["spec"]["nodeSelector"] = json!({"type": group.split_once('=').unwrap().1});
        pod
    };
    let facts = [sample(), set(), there(0, "type=default"), there(1, "type=default")];
    assert_eq!(groups(&webhook(&facts), &pod(), 1).await, ["spot"]);
    // But those that don't count for the server either.
    for (pointer, field, value) in [
        ("/metadata", "deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        ("/metadata", "labels", json!({"podshaper.dev/skip": "true"})),
        ("", "status", json!({"phase": "Failed"})),
    ] {
        let mut gone = there(1, "type=default");
        gone.pointer_mut(pointer).unwrap()[field] = value;
        let facts = [sample(), set(), there(0, "type=default"), gone];
        assert_eq!(groups(&webhook(&facts), &pod(), 1).await, ["default"], "{field}");
    }
    // A placed pod keeps its slot.
    assert!(decide(&webhook(&facts), &there(0, "type=default"), None).await.patch.is_empty());
    // One that was copied into another workload gets a place of that one.
    let mut copied = there(0, "type=spot");
    copied["metadata"]["annotations"]["placement.podshaper.dev/owner"] = json!("another");
    let placed = placed(&webhook(&facts), &copied).await;
    assert_eq!(placed["metadata"]["annotations"]["placement.podshaper.dev/owner"], "ReplicaSet-nginx-1");
    assert_eq!(placed["metadata"]["annotations"]["placement.podshaper.dev/slot"], "2");
}

#[tokio::test]
async fn excluded_groups_are_not_chosen() {
    let mut picky = pod();
    picky["spec"]["nodeSelector"] = json!({"type": "spot", "disk": "ssd"});
    let placed = placed(&webhook(&[sample(), set()]), &picky).await;
    assert_eq!(placed["spec"]["nodeSelector"], json!({"type": "spot", "disk": "ssd"}));
    picky["spec"]["nodeSelector"] = json!({"type": "gpu"});
    let reason = undecided(&[sample(), set()], &picky).await;
    assert_eq!(
        reason,
        "distributor: PodDistributor sample: the pod's own node selector and affinity leave none of the groups: it isn't placed"
    );
}

#[tokio::test]
async fn numbered_pods_need_no_ledger() {
    let mut distributor = sample();
    distributor["spec"]["target"] = json!({"kind": "StatefulSet", "name": "db"});
    let mut set = object("apps/v1", "StatefulSet", "db", None);
    set["spec"] = json!({"ordinals": {"start": 5}});
    let mut pod = pod();
    pod["metadata"]["ownerReferences"] =
        object("v1", "Pod", "", Some(("StatefulSet", "db")))["metadata"]["ownerReferences"].clone();
    let webhook = webhook(&[distributor, set]);
    for (ordinal, group) in [(5, "default"), (7, "spot"), (7, "spot"), (6, "default"), (12, "spot")] {
        let decision = decide(&webhook, &pod, Some(&format!("db-{ordinal}"))).await;
        let patch = String::from_utf8(decision.patch.to_json()).unwrap();
        assert!(
            patch.contains(&format!(r#""type":"{group}""#))
                || patch.contains(&format!(r#""value":"{group}""#)),
            "{ordinal}: {patch}"
        );
        assert!(patch.contains(&format!(r#""value":"{}""#, ordinal - 5)), "{patch}");
    }
}

#[tokio::test]
async fn every_group_is_full() {
    let mut distributor = sample();
    for group in distributor["spec"]["distribution"].as_array_mut().unwrap() {
        group["max"] = json!(1);
    }
    let webhook = webhook(&[distributor, set()]);
    groups(&webhook, &pod(), 2).await;
    let Verdict::Undecided(reason) = decide(&webhook, &pod(), None).await.verdict else { panic!("placed") };
    assert!(reason.ends_with("every group that the pod fits into is full: it isn't placed"), "{reason}");
}

#[tokio::test]
async fn exempt_pods_stay_unchanged() {
    let unchanged = async |facts: &[Value], pod: &Value| {
        let decision = decide(&webhook(facts), pod, Some("a-name")).await;
        assert_eq!(decision, Decision::unchanged());
    };
    // No distributor, one elsewhere, one for another workload.
    unchanged(&[set()], &pod()).await;
    let mut elsewhere = sample();
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    unchanged(&[elsewhere, set()], &pod()).await;
    let of_another = object("apps/v1", "ReplicaSet", "nginx-1", Some(("Deployment", "another")));
    unchanged(&[sample(), of_another, object("apps/v1", "Deployment", "another", None)], &pod()).await;
    unchanged(&[sample(), object("apps/v1", "ReplicaSet", "nginx-1", None)], &pod()).await;
    // A pod without an owner, and one with the uid of another owner.
    unchanged(&[sample(), set()], &object("v1", "Pod", "a-name", None)).await;
    let mut impostor = pod();
    impostor["metadata"]["ownerReferences"][0]["uid"] = json!("made up");
    unchanged(&[sample(), set()], &impostor).await;
}

#[tokio::test]
async fn undecided_pod_gets_a_warning() {
    assert_eq!(
        undecided(&[sample()], &pod()).await,
        "distributor: cannot read ReplicaSet nginx-1; the pod is not placed"
    );
    let mut senseless = sample();
    senseless["spec"]["distribution"][1]["weight"] = json!(-1);
    assert_eq!(
        undecided(&[senseless, set()], &pod()).await,
        "distributor: PodDistributor sample: spec.distribution[1].weight: -1 is not a number from 0 to 1000000; the pod is not placed"
    );
}

#[tokio::test]
async fn older_distributor_applies() {
    let of = |name: &str, created: &str, weight: u32| {
        let mut distributor = sample();
        distributor["metadata"] = json!({"name": name, "creationTimestamp": created});
        distributor["spec"]["distribution"][1]["weight"] = json!(weight);
        distributor
    };
    let facts = [of("young", "2026-01-02T00:00:00Z", 0), of("old", "2026-01-01T00:00:00Z", 1000), set()];
    assert_eq!(groups(&webhook(&facts), &pod(), 1).await, ["spot"]);
}

#[tokio::test]
async fn template_gets_a_hint() {
    let mut template = pod();
    template["metadata"] = json!({"labels": {"app": "nginx"}});
    for owner in [
        None,
        Some(
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "", "controller": true}]),
        ),
    ] {
        template["metadata"]["ownerReferences"] = owner.unwrap_or_default();
        let decision = decide(&webhook(&[sample(), set()]), &template, None).await;
        assert!(decision.patch.is_empty());
        assert!(decision.warnings[0].contains("`distributor plan` shows them"), "{:?}", decision.warnings);
        let without = decide(&webhook(&[set()]), &template, None).await;
        assert_eq!(without, Decision::unchanged(), "where there is no distributor there is nothing to say");
    }
}

/// Its kubelet would fail it for a node selector that the node doesn't meet.
#[tokio::test]
async fn pod_with_node_name_stays_unchanged() {
    let mut bound = pod();
    bound["spec"]["nodeName"] = json!("gpu-node");
    assert_eq!(
        undecided(&[sample(), set()], &bound).await,
        "distributor: PodDistributor sample: the pod names its node in spec.nodeName: it isn't placed"
    );
}

/// A distributor with the same groups that selects pods by a label.
fn selecting(name: &str, created: &str) -> Value {
    let mut object = sample();
    object["metadata"] = json!({"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created});
    object["spec"]["target"] = json!({"selector": {"matchLabels": {"app": "web"}}});
    object
}

fn owner_of(pod: &Value) -> Option<&str> {
    pod["metadata"]["annotations"]["placement.podshaper.dev/owner"].as_str()
}

#[tokio::test]
async fn distributor_of_an_owner_applies_before_a_selector() {
    let deployment = object("apps/v1", "Deployment", "nginx-deployment", None);
    let mut labelled = pod();
    labelled["metadata"]["labels"] = json!({"app": "web"});
    let old = selecting("old", "2025-01-01T00:00:00Z");
    let young = selecting("young", "2025-02-01T00:00:00Z");
    let facts = [sample(), old.clone(), young.clone(), set(), deployment.clone()];
    let placed_pod = placed(&webhook(&facts), &labelled).await;
    assert_eq!(owner_of(&placed_pod), Some("ReplicaSet-nginx-1"), "the sample selects the Deployment");
    let placed_pod = placed(&webhook(&[young, old, set(), deployment.clone()]), &labelled).await;
    assert_eq!(owner_of(&placed_pod), Some("uid-old"), "the older one");
    let controller = &placed_pod["metadata"]["annotations"]["placement.podshaper.dev/controller"];
    assert_eq!(controller, "ReplicaSet-nginx-1");
    let other = placed(&webhook(&[selecting("s", ""), set(), deployment]), &pod()).await;
    assert_eq!(owner_of(&other), None, "it has no label");
}

#[tokio::test]
async fn pod_without_controller_is_selected_by_its_labels() {
    let facts = webhook(&[selecting("s", "")]);
    let bare = json!({
        "metadata": {"name": "bare", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]},
    });
    let decision = decide(&facts, &bare, Some("bare")).await;
    assert!(decision.warnings.is_empty(), "{:?}", decision.warnings);
    let patch: json_patch::Patch =
        serde_json::from_str(&String::from_utf8(decision.patch.to_json()).unwrap()).unwrap();
    let mut placed_pod = bare.clone();
    json_patch::patch(&mut placed_pod, &patch).unwrap();
    assert_eq!(owner_of(&placed_pod), Some("uid-s"));
    assert_eq!(placed_pod["metadata"]["annotations"]["placement.podshaper.dev/controller"], "");
    assert_eq!(placed_pod["spec"]["nodeSelector"]["type"], "default");
}

#[tokio::test]
async fn selector_does_not_apply_while_an_owner_that_may_be_a_target_is_unread() {
    let mut labelled = pod();
    labelled["metadata"]["labels"] = json!({"app": "web"});
    let alone = placed(&webhook(&[selecting("s", "")]), &labelled).await;
    assert_eq!(owner_of(&alone), Some("uid-s"), "no distributor selects an owner");
    let decision = decide(&webhook(&[selecting("s", ""), sample()]), &labelled, None).await;
    let Verdict::Undecided(reason) = decision.verdict else { panic!("placed") };
    assert_eq!(reason, "distributor: cannot read ReplicaSet nginx-1; the pod is not placed");
}

#[tokio::test]
async fn pod_that_the_other_webhook_has_placed_is_left_to_it() {
    let mut labelled = pod();
    labelled["metadata"]["labels"] =
        json!({"app": "web", "podshaper.dev/placed": "custom-scheduler-annotations"});
    labelled["metadata"]["annotations"] = json!({
        "placement.podshaper.dev/owner": "ReplicaSet-nginx-1", "placement.podshaper.dev/token": "00000000000000ff",
        "placement.podshaper.dev/slot": "0", "placement.podshaper.dev/group": "x",
    });
    let deployment = object("apps/v1", "Deployment", "nginx-deployment", None);
    let decision = decide(&webhook(&[selecting("s", ""), set(), deployment]), &labelled, None).await;
    assert!(decision.warnings[0].contains("has already placed the pod"), "{:?}", decision.warnings);
}

#[tokio::test]
async fn pod_from_before_counts_for_the_distributor_that_governs_it() {
    let deployment = object("apps/v1", "Deployment", "nginx-deployment", None);
    let mut before = pod();
    before["metadata"]["name"] = json!("before");
    before["metadata"]["labels"] = json!({"app": "web"});
    before["spec"]["nodeSelector"] = json!({"type": "default"});
    before["status"] = json!({"phase": "Running"});
    let mut bare = before.clone();
    bare["metadata"] = json!({"name": "bare", "labels": {"app": "web"}});
    let slot = async |facts: &[Value]| {
        let mut pod = bare.clone();
        pod["spec"].as_object_mut().unwrap().remove("nodeSelector");
        let decision = decide(&webhook(facts), &pod, Some("bare")).await;
        let patch: json_patch::Patch =
            serde_json::from_str(&String::from_utf8(decision.patch.to_json()).unwrap()).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod["spec"]["nodeSelector"]["type"].as_str().unwrap().to_owned()
    };
    let mut pods = vec![selecting("s", ""), set(), deployment];
    for number in 0..2 {
        before["metadata"]["name"] = json!(format!("before-{number}"));
        pods.push(before.clone());
    }
    assert_eq!(slot(&pods).await, "spot", "the third of three pods");
    pods.push(sample());
    assert_eq!(slot(&pods).await, "default", "the first: the sample governs the other two");
}
