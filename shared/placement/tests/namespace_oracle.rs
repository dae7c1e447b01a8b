//! A group is excluded exactly if the admission plugins of Kubernetes refuse pods with its node selector and its tolerations.
//!
//! `PODSHAPER_NAMESPACE_ORACLE` names the binary of `ci/go/namespace-oracle`. `PODSHAPER_ORACLE_PODS` and `PODSHAPER_SEED` say how many
//! pods, and which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::str::FromStr;

use podshaper_core::object::FromObject;
use podshaper_placement::namespace::NamespaceRestrictions;
use podshaper_placement::policy::{Group, Policy, Tie};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRng, TestRunner};
use serde_json::{Map, Value, json};

fn number_from_env<N: FromStr>(name: &str, default: N) -> N {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn toleration() -> impl Strategy<Value = Value> {
    let text = |values: &'static [&'static str]| of(select(values));
    let fields = (
        text(&["", "a", "b"]),
        text(&["", "Equal", "Exists", "Lt"]),
        text(&["", "x", "y"]),
        text(&["", "NoSchedule", "NoExecute"]),
        of(-1i64..3),
    );
    fields.prop_map(|(key, operator, value, effect, seconds)| {
        let mut toleration = Map::new();
        for (field, text) in [("key", key), ("operator", operator), ("value", value), ("effect", effect)] {
            toleration.extend(text.map(|text| (field.to_owned(), json!(text))));
        }
        toleration.extend(seconds.map(|seconds| ("tolerationSeconds".to_owned(), json!(seconds))));
        Value::Object(toleration)
    })
}

fn labels() -> impl Strategy<Value = Value> {
    btree_map(select(&["type", "zone"][..]), select(&["a", "b"][..]), 1..3).prop_map(|labels| json!(labels))
}

/// The annotations of a namespace. The plugin refuses every pod if it cannot parse the node selector, so each one is valid.
fn annotations() -> impl Strategy<Value = Value> {
    let selector = labels().prop_map(|labels| {
        let labels = labels.as_object().unwrap().iter();
        let labels = labels.map(|(key, value)| format!(" {key} = {}", value.as_str().unwrap()));
        labels.collect::<Vec<_>>().join(",")
    });
    let whitelist = prop_oneof![
        8 => vec(toleration(), 0..4).prop_map(|list| json!(list).to_string()),
        1 => select(&["", "null", "{", "[{\"key\": 1}]"][..]).prop_map(str::to_owned),
    ];
    (of(selector), of(whitelist)).prop_map(|(selector, whitelist)| {
        let mut annotations = Map::new();
        let prefix = "scheduler.alpha.kubernetes.io";
        annotations.extend(selector.map(|text| (format!("{prefix}/node-selector"), json!(text))));
        annotations.extend(whitelist.map(|text| (format!("{prefix}/tolerationsWhitelist"), json!(text))));
        Value::Object(annotations)
    })
}

fn is_excluded(annotations: &Value, labels: &Value, tolerations: &[Value]) -> bool {
    let namespace = json!({"metadata": {"name": "ns", "annotations": annotations}});
    let restrictions = NamespaceRestrictions::from_object(serde_json::from_value(namespace).unwrap());
    let group = Group {
        name: "group".into(),
        node_labels: serde_json::from_value(labels.clone()).unwrap(),
        tolerations: tolerations.to_vec(),
        weight: 1,
        ..Group::default()
    };
    let policy = Policy::new(vec![group], Tie::First).unwrap();
    restrictions.is_some_and(|restrictions| restrictions.excluded_groups(&policy).contains(0))
}

#[test]
fn group_is_excluded_exactly_if_the_plugins_refuse_its_pods() {
    let program = env::var_os("PODSHAPER_NAMESPACE_ORACLE")
        .expect("PODSHAPER_NAMESPACE_ORACLE must name the binary of ci/go/namespace-oracle");
    let count: u32 = number_from_env("PODSHAPER_ORACLE_PODS", 4000);
    let seed: u64 = number_from_env("PODSHAPER_SEED", 1);
    println!("{count} pods, PODSHAPER_SEED={seed}");
    // The plugin logs each unknown operator.
    let mut command = Command::new(program);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(seed.to_le_bytes()).for_each(|(byte, of_seed)| *byte = of_seed);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let cases = (annotations(), labels(), vec(toleration(), 0..3));
    let mut refused = 0;
    for _ in 0..count {
        let (annotations, labels, tolerations) = cases.new_tree(&mut runner).unwrap().current();
        let pod = json!({"spec": {"nodeSelector": labels, "tolerations": tolerations}});
        writeln!(input, "{}", json!({"annotations": annotations, "pod": pod})).unwrap();
        let answer = answers.next().expect("an answer for each pod").unwrap();
        let problem: String = serde_json::from_str(&answer).unwrap();
        let excluded = is_excluded(&annotations, &labels, &tolerations);
        assert_eq!(excluded, !problem.is_empty(), "{annotations} {pod}: {problem}");
        refused += u32::from(excluded);
    }
    println!("{refused} refused");
    assert!(refused > count / 10 && refused < count / 10 * 9, "{refused} of {count} refused");
    drop(input);
    assert!(child.wait().unwrap().success());
}
