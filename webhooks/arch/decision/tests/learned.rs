//! Decisions with architectures that are learned from a cluster.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::needless_pass_by_value)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arch_decision::config::Settings;
use arch_decision::learned::{ClusterObjects, NodeHistory, SettingsSource, learn};
use podshaper_core::admission::{Decision, Verdict};
use podshaper_core::pod::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::generated::{every_node, pods, settings};
use support::{Arch, ByName, decide, denial, pass, patched, pod, terms, terms_of};

const ARCH: &str = "kubernetes.io/arch";

#[derive(Debug)]
struct Learned(Arc<Settings>);

impl SettingsSource for Learned {
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0)
    }

    fn has_synced(&self) -> bool {
        true
    }
}

/// The webhook with these settings and `architecturesFrom: Cluster`, in a cluster with these objects.
fn webhook_with(mut settings: Value, objects: &[Value]) -> Arch {
    settings["architecturesFrom"] = json!("Cluster");
    let settings = Settings::from_value(settings).unwrap();
    let (keys, now) =
        (settings.learned_taint_keys.clone().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_hours(1));
    let objects = ClusterObjects::from_facts(objects).unwrap();
    let learned = learn(&objects, &keys, &mut NodeHistory::new(), now);
    let source = Learned(Arc::new(settings.with_learned(&learned)));
    Arch::new(settings, ByName).with_settings_from(Arc::new(source))
}

fn webhook(objects: &[Value]) -> Arch {
    webhook_with(json!({}), objects)
}

fn taint(key: &str, value: &str, effect: &str) -> Value {
    json!({"key": key, "value": value, "effect": effect})
}

fn node(name: &str, architecture: &str, taints: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "spec": {"taints": taints},
        "metadata": {"name": name, "labels": {ARCH: architecture, "kubernetes.io/os": "linux"}}})
}

fn only(architecture: &str) -> Value {
    json!([{"matchExpressions": [{"key": ARCH, "operator": "In", "values": [architecture]}]}])
}

fn toleration() -> Value {
    json!([{"key": ARCH, "operator": "Equal", "value": "arm64", "effect": "NoSchedule"}])
}

/// The tolerations of a pod with an image for both, after a check that nothing is refused: of images for amd64, arm64, both and s390x.
fn tolerations(webhook: &Arch) -> Value {
    for image in ["amd64", "arm64"] {
        assert_eq!(terms_of(&pass(webhook, &pod(&[image], json!({})))), only(image));
    }
    let before = pod(&["s390x"], json!({}));
    assert_eq!(pass(webhook, &before), before);
    let amd64 = pass(webhook, &pod(&["amd64"], json!({})));
    assert_eq!(amd64["spec"]["tolerations"], Value::Null);
    pass(webhook, &pod(&["amd64_arm64"], json!({})))["spec"]["tolerations"].take()
}

#[test]
fn taint_of_control_planes_is_not_tolerated() {
    let control_plane = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    let cluster = [node("control", "arm64", control_plane), node("worker", "amd64", json!(null))];
    assert_eq!(tolerations(&webhook(&cluster)), Value::Null);
}

#[test]
fn taints_of_dedicated_pool_are_not_tolerated() {
    let dedicated = taint("dedicated", "arm64", "NoSchedule");
    let team = taint("team", "ml", "NoExecute");
    let workers = node("worker", "amd64", json!([]));
    let pool = |taints: Value| [workers.clone(), node("arm", "arm64", taints)];
    assert_eq!(tolerations(&webhook(&pool(json!([dedicated, team])))), Value::Null);
    let both = pool(json!([dedicated, team, taint(ARCH, "arm64", "NoSchedule")]));
    assert_eq!(tolerations(&webhook(&both)), toleration());
    let listed = webhook_with(json!({"learnTaintKeys": ["dedicated"]}), &both);
    assert_eq!(tolerations(&listed)[0]["key"], "dedicated");
}

#[test]
fn taints_of_nodes_that_are_not_ready_are_not_tolerated() {
    let taints = json!([
        taint(ARCH, "arm64", "NoSchedule"),
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
    ]);
    let mut arm = node("arm", "arm64", taints);
    arm["status"] = json!({"conditions": [{"type": "Ready", "status": "Unknown"}]});
    assert_eq!(tolerations(&webhook(&[node("worker", "amd64", json!([])), arm])), toleration());
}

#[test]
fn node_pool_without_nodes_is_learned() {
    let spec = json!({"requirements": [{"key": ARCH, "operator": "In", "values": ["arm64"]}],
        "taints": [taint(ARCH, "arm64", "NoSchedule")], "startupTaints": [taint("boot", "arm64", "NoSchedule")]});
    let pool = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "arm"},
        "spec": {"template": {"spec": spec}}});
    assert_eq!(tolerations(&webhook(&[node("worker", "amd64", json!([])), pool])), toleration());
}

/// An autoscaler may add nodes of an architecture that nothing in the cluster names yet.
#[test]
fn pool_that_is_not_seen_excludes_no_pod_and_gets_none_that_fails_there() {
    let webhook = webhook(&[node("worker", "amd64", json!([]))]);
    assert_eq!(terms_of(&pass(&webhook, &pod(&["amd64"], json!({})))), only("amd64"));
    let both = terms_of(&pass(&webhook, &pod(&["amd64_arm64"], json!({}))));
    assert_eq!(both[0]["matchExpressions"][0]["values"], json!(["amd64", "arm64"]));
    let arm64 = pod(&["arm64"], json!({}));
    let decision = decide(&webhook, &arm64);
    assert_eq!((&decision.verdict, decision.patch.is_empty()), (&Verdict::Admit, true));
    assert_eq!(
        decision.warnings,
        ["arch: no architecture that nodes of the cluster have runs all images, of amd64: arm64 (arm64)"]
    );
    let variants = pass(&webhook, &pod(&["amd64.v3_arm64"], json!({})));
    assert_eq!(
        variants["metadata"]["annotations"]["podshaper.dev/arch"], "amd64,arm64",
        "a variant makes nothing impossible"
    );
}

#[test]
fn default_architecture_without_a_node_is_ignored() {
    let settings =
        |default: &str| json!({"onUnknown": "default-architectures", "defaultArchitectures": [default]});
    let cluster = [node("worker", "amd64", json!([])), node("arm", "arm64", json!([]))];
    let images = pod(&["amd64_arm64_s390x", "timeout"], json!({}));
    let terms = |default| terms_of(&pass(&webhook_with(settings(default), &cluster), &images));
    assert_eq!(terms("arm64"), only("arm64"));
    assert_eq!(terms("s390x")[0]["matchExpressions"][0]["values"], json!(["amd64", "arm64", "s390x"]));
}

#[test]
fn images_without_a_common_architecture_are_impossible() {
    let cluster = [node("a", "amd64", json!([])), node("b", "arm64", json!([]))];
    let both = pod(&["amd64", "arm64"], json!({}));
    assert_eq!(
        denial(&decide(&webhook(&cluster), &both)),
        "arch: no architecture runs all images: amd64 (amd64); arm64 (arm64)"
    );
    let leave = webhook_with(json!({"onImpossible": "leave"}), &cluster);
    assert_eq!(pass(&leave, &both), both);
}

#[test]
fn configured_architecture_precedes_learned_one() {
    let own = json!({"architectures": {"arm64": {"taintsToTolerate": [taint("own", "arm64", "NoSchedule")], "requireNodeLabels": [{"pool": "arm"}]}}});
    let cluster = [
        node("worker", "amd64", json!([])),
        node("arm", "arm64", json!([taint(ARCH, "arm64", "NoSchedule")])),
    ];
    let webhook = webhook_with(own, &cluster);
    let both = pass(&webhook, &pod(&["amd64_arm64"], json!({})));
    assert_eq!(both["spec"]["tolerations"][0]["key"], "own");
    assert_eq!(both["spec"]["tolerations"].as_array().unwrap().len(), 1);
    let arm = terms_of(&pass(&webhook, &pod(&["arm64"], json!({}))));
    assert_eq!(arm[0]["matchExpressions"][0]["key"], "pool");
}

#[test]
fn without_nodes_every_architecture_exists() {
    let webhook = webhook(&[]);
    assert_eq!(terms_of(&pass(&webhook, &pod(&["s390x"], json!({})))), only("s390x"));
}

#[test]
fn own_choice_of_an_architecture_stays() {
    let webhook = webhook(&[node("worker", "amd64", json!([]))]);
    for spec in [json!({"nodeSelector": {ARCH: "s390x"}}), terms(only("s390x"))] {
        assert_eq!(decide(&webhook, &pod(&["s390x"], spec)), Decision::unchanged());
    }
}

/// Whether the pod may run on a node with these labels.
fn selects(pod: &Value, labels: &BTreeMap<String, String>) -> bool {
    let text =
        json!({"spec": {"nodeSelector": pod["spec"]["nodeSelector"], "affinity": pod["spec"]["affinity"]}})
            .to_string();
    let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
    // A label that a node lacks has a value that no pod names.
    let own = |key: &str| labels.get(key).cloned().unwrap_or_else(|| "~".to_owned());
    pod.may_run_on(&[ARCH, "pool", "zone"].map(|key| (key.to_owned(), own(key))).into())
}

proptest! {
    /// A pod that is refused would be refused with every architecture, and a changed pod may run on fewer nodes, once and for all.
    #[test]
    fn learned_list_never_refuses_and_narrows_once(mut settings in settings(), pod in pods()) {
        settings["architectures"] = json!({});
        let cluster = [node("worker", "amd64", json!([])), node("arm", "arm64", json!([taint(ARCH, "arm64", "NoSchedule")]))];
        let open = support::webhook(settings.clone());
        let learned = webhook_with(settings, &cluster);
        let decision = decide(&learned, &pod);
        if decision.verdict != Verdict::Admit {
            prop_assert_eq!(decide(&open, &pod).verdict, decision.verdict);
            return Ok(());
        }
        let after = patched(&pod, &decision);
        for node in every_node() {
            prop_assert!(!selects(&after, &node) || selects(&pod, &node), "{:?} came in by {}", node, after);
        }
        prop_assert!(decide(&learned, &after).patch.is_empty());
    }
}
