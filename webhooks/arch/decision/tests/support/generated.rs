//! Pods, settings and nodes of all kinds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

const ARCHITECTURES: [&str; 4] = ["amd64", "arm64", "s390x", "386"];

/// An image that is known.
pub(crate) fn known_image() -> impl Strategy<Value = String> {
    subsequence(ARCHITECTURES.to_vec(), 1..=4).prop_map(|names| names.join("_"))
}

fn image() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => known_image(),
        2 => Just("amd64_arm64_s390x_386".to_owned()),
        1 => select(vec!["timeout".to_owned(), "not-found".to_owned()]),
    ]
}

fn requirement() -> impl Strategy<Value = Value> {
    let key = select(vec!["kubernetes.io/arch", "kubernetes.io/arch", "pool", "zone"]);
    let values = subsequence(vec!["amd64", "arm64", "s390x", "386", "a", "arm"], 1..=4);
    let number = select(vec!["3", "386", "1000"]);
    (key, 0..6, values, number).prop_map(|(key, operator, values, number)| match operator {
        0 | 1 => json!({"key": key, "operator": "In", "values": values}),
        2 => json!({"key": key, "operator": "NotIn", "values": values}),
        3 => json!({"key": key, "operator": "Exists"}),
        4 => json!({"key": key, "operator": "DoesNotExist", "values": []}),
        _ => json!({"key": key, "operator": if values.len() > 2 { "Gt" } else { "Lt" }, "values": [number]}),
    })
}

fn term() -> impl Strategy<Value = Value> {
    let requirements = prop_oneof![
        5 => prop::collection::vec(requirement(), 1..3).prop_map(|list| Some(json!(list))),
        1 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!([]))),
    ];
    let fields = prop_oneof![
        5 => Just(None),
        1 => Just(Some(json!([{"key": "metadata.name", "operator": "In", "values": ["n"]}]))),
        1 => Just(Some(Value::Null)),
    ];
    (requirements, fields).prop_map(|(expressions, fields)| {
        let members = [("matchExpressions", expressions), ("matchFields", fields)];
        Value::Object(members.into_iter().filter_map(|(key, list)| Some((key.to_owned(), list?))).collect())
    })
}

fn affinity() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        3 => Just(None),
        6 => prop::collection::vec(term(), 1..4).prop_map(|terms| Some(super::terms(json!(terms))["affinity"].clone())),
        1 => select(vec![json!(null), json!({}), json!({"nodeAffinity": null}), json!({"podAffinity": {}, "nodeAffinity": {}})]).prop_map(Some),
    ]
}

/// A pod.
pub(crate) fn pods() -> impl Strategy<Value = Value> {
    let selector = prop_oneof![
        4 => Just(None),
        1 => select(vec![json!({"zone": "a"}), json!({"pool": "arm"}), json!({"kubernetes.io/arch": "arm64"}), json!(null), json!({})]).prop_map(Some),
    ];
    let tolerations = prop_oneof![
        4 => Just(None),
        1 => select(vec![json!([]), json!(null), json!([{"operator": "Exists"}]), json!([{"key": "x", "operator": "Exists"}]),
            json!([{"key": "arch", "operator": "Equal", "value": "arm64"}])]).prop_map(Some),
    ];
    (prop::collection::vec(image(), 1..4), affinity(), selector, tolerations).prop_map(
        |(images, affinity, selector, tolerations)| {
            let images: Vec<_> = images.iter().map(String::as_str).collect();
            let members = [("affinity", affinity), ("nodeSelector", selector), ("tolerations", tolerations)];
            let spec: Map<_, _> =
                members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
            super::pod(&images, Value::Object(spec))
        },
    )
}

fn nodes(name: &'static str) -> impl Strategy<Value = Value> {
    let taint = json!({"key": format!("only-{name}"), "value": name, "effect": "NoSchedule"});
    let arch = json!({"key": "arch", "value": name, "effect": "NoExecute"});
    select(vec![
        json!({}),
        json!({"taintsToTolerate": [taint]}),
        json!({"taintsToTolerate": [taint], "requireNodeLabels": [{"pool": "arm"}, {"kubernetes.io/arch": name}]}),
        json!({"requireNodeLabels": [{"pool": name}]}),
        json!({"taintsToTolerate": [arch]}),
    ])
}

/// Settings.
pub(crate) fn settings() -> impl Strategy<Value = Value> {
    let table = prop_oneof![
        1 => Just(json!({})),
        3 => (subsequence(vec!["amd64", "arm64", "s390x"], 1..=3), nodes("amd64"), nodes("arm64"), nodes("s390x")).prop_map(
            |(names, amd64, arm64, s390x)| {
                let all = [("amd64", amd64), ("arm64", arm64), ("s390x", s390x)];
                Value::Object(all.into_iter().filter(|(name, _)| names.contains(name)).map(|(k, v)| (k.to_owned(), v)).collect())
            },
        ),
    ];
    let policy = select(vec![json!("skip"), json!("gate"), json!("deny"), json!("default-architectures")]);
    (table, policy, any::<bool>(), any::<bool>()).prop_map(|(table, policy, leave, prefer)| {
        let first = table.as_object().unwrap().keys().next().map_or("amd64", String::as_str).to_owned();
        let defaults = if policy == "default-architectures" { json!([first]) } else { json!([]) };
        json!({
            "architectures": table, "onUnknown": policy, "defaultArchitectures": defaults,
            "onImpossible": if leave { "leave" } else { "deny" },
            "preferred": if prefer { json!([first]) } else { json!([]) },
        })
    })
}

/// Nodes with every combination of labels that anything here speaks of.
pub(crate) fn every_node() -> Vec<BTreeMap<String, String>> {
    let mut nodes = vec![BTreeMap::new()];
    for (key, values) in [
        ("kubernetes.io/arch", &["amd64", "arm64", "s390x", "386", "riscv64"][..]),
        ("pool", &["arm", "amd64", "arm64", "s390x", "5", "2000"]),
        ("zone", &["a", "b", "500"]),
    ] {
        let with = |node: &BTreeMap<String, String>, value: &str| {
            let mut node = node.clone();
            node.insert(key.to_owned(), value.to_owned());
            node
        };
        nodes = nodes
            .iter()
            .flat_map(|node| values.iter().map(|value| with(node, value)).chain([node.clone()]))
            .collect();
    }
    nodes
}

/// Settings and a pod of them, by a number.
pub(crate) fn pod_of(seed: u64) -> (Value, Value) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (settings(), pods()).new_tree(&mut runner).unwrap().current()
}
