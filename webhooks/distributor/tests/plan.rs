//! `distributor plan`, as it is called.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn plan(arguments: &[&str], input: &Value) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_distributor"))
        .args([&["plan", "-f", "-"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // With wrong arguments it ends before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.to_string().as_bytes());
    child.wait_with_output().unwrap()
}

fn sample() -> Value {
    json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor", "metadata": {"name": "sample"},
        "spec": {
            "distribution": [
                {"name": "default", "nodeLabel": {"type": "default"}, "weight": 80},
                {"nodeLabel": {"type": "spot"}, "weight": 20},
            ],
            "target": {"name": "nginx"},
        },
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn plan_prints_a_table() {
    let stderr = plan(&["--replicas", "5"], &sample());
    assert_eq!(
        text(stderr.stdout),
        "PodDistributor sample: 5 pods of Deployment nginx\n\
         GROUP      PODS\n\
         default    4\n\
         type=spot  1\n\
         in the order default default type=spot default default\n"
    );
    assert!(stderr.status.success());
}

#[test]
fn json_is_the_contracts() {
    let stderr = plan(&["--replicas=10", "-o", "json"], &sample());
    let stderr: Value = serde_json::from_str(&text(stderr.stdout)).unwrap();
    assert_eq!(stderr["podDistributor"], "sample");
    assert_eq!(stderr["target"], json!({"kind": "Deployment", "name": "nginx"}));
    assert_eq!(stderr["replicas"], 10);
    assert_eq!(
        stderr["groups"],
        json!([
            {"name": "default", "nodeLabels": {"type": "default"}, "pods": 8},
            {"name": "type=spot", "nodeLabels": {"type": "spot"}, "pods": 2},
        ])
    );
    assert_eq!(stderr["sequence"], json!([0, 0, 1, 0, 0, 0, 0, 1, 0, 0]));
}

#[test]
fn closed_groups_and_stand_ins_are_noted() {
    let mut object = sample();
    let group = json!({"name": "reserve", "nodeLabel": {"type": "reserve"}, "standIn": true});
    object["spec"]["distribution"].as_array_mut().unwrap().push(group);
    let closed = json!({"name": "type=spot", "state": "Closed", "reason": "Unschedulable", "nextProbe": "2026-01-01T00:05:00Z"});
    object["status"] = json!({"groups": [closed, {"name": "default", "state": "Probing", "reason": "Unschedulable", "probe": ""}]});
    let planned = plan(&["--replicas", "5"], &object);
    assert_eq!(
        text(planned.stderr),
        "note: PodDistributor sample: default is closed: one pod tries it, the others go to open groups\n\
         note: PodDistributor sample: type=spot is closed: its pods go to open groups; the next pod tries it at 2026-01-01T00:05:00Z\n\
         note: PodDistributor sample: reserve gets pods only while no other group is open\n"
    );
}

#[test]
fn unplannable_input_is_an_error() {
    let mut senseless = sample();
    senseless["spec"]["distribution"] = json!([]);
    let refused = plan(&[], &senseless);
    assert_eq!(text(refused.stderr), "error: PodDistributor sample: spec.distribution: there is no group\n");
    assert_eq!(refused.status.code(), Some(1));
    for (pointer, field, problem) in [
        ("/spec/distribution/0", "wieght", "spec.distribution[0].wieght: unknown field"),
        ("/spec", "whenUnavailabel", "spec.whenUnavailabel: unknown field"),
        (
            "/spec/distribution/1",
            "weight",
            "spec.distribution[1].weight: invalid type: string \"80%\", expected i64",
        ),
        ("/spec/target", "kind", "spec.target.kind: \"80%\" is not a kind, such as Deployment"),
    ] {
        let mut misspelled = sample();
        misspelled.pointer_mut(pointer).unwrap()[field] = json!("80%");
        assert_eq!(text(plan(&[], &misspelled).stderr), format!("error: PodDistributor sample: {problem}\n"));
    }
    let none = plan(&[], &json!({"kind": "Pod"}));
    assert_eq!(text(none.stderr), "error: no PodDistributor in the files of -f\n");
    assert_eq!(plan(&["--replicas=-1"], &sample()).status.code(), Some(2));
    let mut bounded = sample();
    bounded["spec"]["distribution"] = json!([{"nodeLabel": {"type": "a"}, "base": 2}]);
    assert!(text(plan(&[], &bounded).stdout).contains("8 pods are left unplaced: every group is full"));
}

#[test]
fn group_that_the_namespace_excludes_has_a_note() {
    let key = "scheduler.alpha.kubernetes.io/node-selector";
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "annotations": {key: "type=default"}},
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [sample(), namespace]});
    let stderr = text(plan(&[], &list).stderr);
    let expected = format!(
        "note: PodDistributor sample: type=spot gets no pods: the annotation {key} of the namespace excludes it\n"
    );
    assert_eq!(stderr, expected);
}
