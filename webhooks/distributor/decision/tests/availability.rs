//! Which groups take new pods: by the state in the status of a PodDistributor, and by nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use distributor_decision::DistributorWebhook;
use distributor_decision::offline::FileFacts;
use podshaper_core::admission::{Request, Webhook};
use podshaper_core::pod::Pod;
use serde_json::{Value, json};

/// The groups `base` and `spot`, at 80 % and 20 %.
fn distributor(change: impl FnOnce(&mut Value)) -> Value {
    let mut distributor = json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "distribution": [
                {"name": "base", "nodeLabel": {"capacity": "on-demand"}, "weight": 80},
                {"name": "spot", "nodeLabel": {"capacity": "spot"}, "weight": 20},
            ],
            "target": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
        },
    });
    change(&mut distributor);
    distributor
}

fn node(capacity: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": capacity, "labels": {"capacity": capacity}}, "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn tainted(key: &str) -> Value {
    node("spot", &json!({"taints": [{"key": key, "value": "1", "effect": "NoSchedule"}]}))
}

fn pod(spec: &Value) -> Value {
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "ownerReferences": [owner]},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// The groups of ten pods, with their numbers.
async fn ten(distributor: &Value, nodes: &[Value], pod: &Value) -> BTreeMap<String, u32> {
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "shop", "uid": "u"}});
    let facts = [distributor.clone(), set].into_iter().chain(nodes.iter().cloned()).collect::<Vec<_>>();
    let webhook = DistributorWebhook::new(FileFacts::new(&facts).unwrap());
    let mut groups = BTreeMap::new();
    for number in 0..10 {
        let request = json!({
            "uid": format!("request-{number}"), "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "namespace": "shop", "object": pod,
        });
        let text = request.to_string();
        let request: Request<'_, Pod<'_>> = serde_json::from_str(&text).unwrap();
        let decision = webhook.decide(&request, Instant::now() + Duration::from_secs(2)).await;
        let patch: json_patch::Patch =
            serde_json::from_str(&String::from_utf8(decision.patch.to_json()).unwrap()).unwrap();
        let mut placed = pod.clone();
        json_patch::patch(&mut placed, &patch).unwrap();
        let group = placed["metadata"]["annotations"]["placement.podshaper.dev/group"].as_str().unwrap();
        *groups.entry(group.to_owned()).or_default() += 1;
    }
    groups
}

fn expected(groups: &[(&str, u32)]) -> BTreeMap<String, u32> {
    groups.iter().map(|(group, pods)| ((*group).to_owned(), *pods)).collect()
}

fn with_state(distributor: &mut Value, states: &[(&str, &str)]) {
    let groups = states.iter().map(|(name, state)| json!({"name": name, "state": state, "probe": ""}));
    distributor["status"] = json!({"groups": groups.collect::<Vec<_>>()});
}

#[tokio::test]
async fn group_without_nodes_takes_pods() {
    let plain = pod(&json!({}));
    let on_demand = node("on-demand", &json!({}));
    let cordoned = node("spot", &json!({"unschedulable": true}));
    for nodes in [
        vec![],
        vec![on_demand.clone()],
        vec![on_demand.clone(), cordoned],
        vec![on_demand.clone(), tainted("karpenter.sh/disrupted")],
        vec![on_demand.clone(), tainted("ToBeDeletedByClusterAutoscaler")],
    ] {
        let by_pods = ten(&distributor(|_| {}), &nodes, &plain).await;
        assert_eq!(by_pods, expected(&[("base", 8), ("spot", 2)]), "{nodes:?}");
        let waits = distributor(|object| {
            object["spec"]["whenUnavailable"] = json!("Wait");
            object["spec"]["unschedulableAfter"] = json!("5m");
        });
        assert_eq!(ten(&waits, &nodes, &plain).await, expected(&[("base", 8), ("spot", 2)]));
        if nodes.len() == 2 {
            let by_nodes = distributor(|object| object["spec"]["availability"] = json!("Nodes"));
            assert_eq!(ten(&by_nodes, &nodes, &plain).await, expected(&[("base", 10)]), "{nodes:?}");
        }
    }
}

#[tokio::test]
async fn node_counts_only_for_pods_that_it_can_take() {
    let by_nodes = |change: &dyn Fn(&mut Value)| {
        distributor(|object| {
            object["spec"]["availability"] = json!("Nodes");
            change(&mut object["spec"]["distribution"][1]);
        })
    };
    let nodes = |spot: Value| [node("on-demand", &json!({})), spot];
    let plain = pod(&json!({}));
    let both = expected(&[("base", 8), ("spot", 2)]);
    let one = expected(&[("base", 10)]);
    let toleration = json!([{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]);
    let tolerates = by_nodes(&|group| group["tolerations"] = toleration.clone());
    assert_eq!(ten(&tolerates, &nodes(tainted("spot")), &plain).await, both);
    assert_eq!(ten(&tolerates, &nodes(tainted("other")), &plain).await, one);
    // The pods have the toleration themselves.
    let tolerating = pod(&json!({"tolerations": toleration}));
    assert_eq!(ten(&by_nodes(&|_| {}), &nodes(tainted("spot")), &tolerating).await, both);
    // The node has the labels, but does not match the node affinity.
    let zone =
        |zone: &str| json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]);
    let in_zone = by_nodes(&|group| group["nodeAffinity"] = zone("a"));
    let mut spot = node("spot", &json!({}));
    assert_eq!(ten(&in_zone, &nodes(spot.clone()), &plain).await, one);
    spot["metadata"]["labels"]["zone"] = json!("a");
    assert_eq!(ten(&in_zone, &nodes(spot), &plain).await, both);
}

#[tokio::test]
async fn closed_group_takes_no_pods() {
    let plain = pod(&json!({}));
    let closed = |states: &[(&str, &str)]| distributor(|object| with_state(object, states));
    assert_eq!(ten(&closed(&[("spot", "Closed")]), &[], &plain).await, expected(&[("base", 10)]));
    let all = closed(&[("base", "Closed"), ("spot", "Closed")]);
    assert_eq!(ten(&all, &[], &plain).await, expected(&[("base", 8), ("spot", 2)]), "all count as open");
    // A pod that fits only the closed group waits for it.
    let picky = pod(&json!({"nodeSelector": {"capacity": "spot"}}));
    assert_eq!(ten(&closed(&[("spot", "Closed")]), &[], &picky).await, expected(&[("spot", 10)]));
    let waits = distributor(|object| {
        object["spec"]["whenUnavailable"] = json!("Wait");
        with_state(object, &[("spot", "Closed")]);
    });
    assert_eq!(ten(&waits, &[], &plain).await, expected(&[("base", 8), ("spot", 2)]));
    // The open group is full: the other pods wait.
    let full = distributor(|object| {
        object["spec"]["distribution"][0]["max"] = json!(1);
        with_state(object, &[("spot", "Closed")]);
    });
    assert_eq!(ten(&full, &[], &plain).await, expected(&[("base", 1), ("spot", 9)]));
}

#[tokio::test]
async fn one_pod_tries_a_closed_group() {
    let probing = distributor(|object| with_state(object, &[("spot", "Probing")]));
    assert_eq!(ten(&probing, &[], &pod(&json!({}))).await, expected(&[("base", 9), ("spot", 1)]));
    let claimed = distributor(|object| {
        with_state(object, &[("spot", "Probing")]);
        object["status"]["groups"][0]["probe"] = json!("00000000000000ff");
    });
    assert_eq!(ten(&claimed, &[], &pod(&json!({}))).await, expected(&[("base", 10)]));
    // A pod that excludes the group does not try it.
    let picky = pod(&json!({"nodeSelector": {"capacity": "on-demand"}}));
    assert_eq!(ten(&probing, &[], &picky).await, expected(&[("base", 10)]));
}

#[tokio::test]
async fn stand_in_takes_pods_only_while_no_other_group_is_open() {
    let plain = pod(&json!({}));
    let weights = |stand_in: bool, state: &[(&str, &str)]| {
        distributor(|object| {
            object["spec"]["distribution"][0]["weight"] = json!(0);
            object["spec"]["distribution"][0]["standIn"] = json!(stand_in);
            with_state(object, state);
        })
    };
    let spot = expected(&[("spot", 10)]);
    let base = expected(&[("base", 10)]);
    assert_eq!(ten(&weights(true, &[]), &[], &plain).await, spot);
    assert_eq!(ten(&weights(true, &[("spot", "Closed")]), &[], &plain).await, base);
    assert_eq!(ten(&weights(true, &[("spot", "Closed"), ("base", "Closed")]), &[], &plain).await, spot);
    assert_eq!(ten(&weights(false, &[("spot", "Closed")]), &[], &plain).await, spot, "weight 0 gets nothing");
    let heavy = distributor(|object| object["spec"]["distribution"][0]["standIn"] = json!(true));
    let facts = FileFacts::new(&[heavy]).unwrap();
    let problem = facts.distributors()[0].spec.as_ref().unwrap_err();
    assert_eq!(problem, "spec.distribution: group base: standIn: it requires weight 0 and base 0");
}

#[tokio::test]
async fn weights_and_bases_hold_without_nodes() {
    let on_demand = [node("on-demand", &json!({}))];
    let plain = pod(&json!({}));
    let of = |base: Value, spot: Value| {
        distributor(|object| {
            for (index, fields) in [base, spot].into_iter().enumerate() {
                for (field, value) in fields.as_object().unwrap() {
                    object["spec"]["distribution"][index][field] = value.clone();
                }
            }
        })
    };
    for (base, spot, pods) in [
        (json!({"weight": 0}), json!({"weight": 100}), expected(&[("spot", 10)])),
        (json!({"weight": 1}), json!({"weight": 1_000_000}), expected(&[("spot", 10)])),
        (json!({"weight": 100}), json!({"weight": 0, "base": 3}), expected(&[("base", 7), ("spot", 3)])),
        (json!({}), json!({"preferred": true}), expected(&[("base", 8), ("spot", 2)])),
    ] {
        let message = format!("{base} {spot}");
        assert_eq!(ten(&of(base, spot), &on_demand, &plain).await, pods, "{message}");
    }
    // A preferred group is always open.
    let mut preferred = of(json!({}), json!({"preferred": true}));
    with_state(&mut preferred, &[("spot", "Closed")]);
    preferred["spec"]["availability"] = json!("Nodes");
    assert_eq!(ten(&preferred, &on_demand, &plain).await, expected(&[("base", 8), ("spot", 2)]));
}
