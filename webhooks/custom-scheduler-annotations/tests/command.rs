//! The command, as it is called.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Standard output, standard error, and the exit status.
fn run(arguments: &[&str], input: &str) -> (String, String, i32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_custom-scheduler-annotations"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails at once does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

#[test]
fn plan_prints_table_and_json() {
    let strategy = "nodesize=od,base=1,weight=0:nodesize=spot4,weight=1:nodesize=spot8,weight=1";
    let table = "5 pods\nGROUP           PODS\nnodesize=od     1\nnodesize=spot4  2\nnodesize=spot8  2\n\
                 in the order nodesize=od nodesize=spot8 nodesize=spot4 nodesize=spot8 nodesize=spot4\n";
    assert_eq!(run(&["plan", strategy, "--replicas", "5"], ""), (table.to_owned(), String::new(), 0));
    let (json, _, status) = run(&["plan", strategy, "--replicas=30", "-o", "json"], "");
    let plan: Value = serde_json::from_str(&json).unwrap();
    let pods: Vec<_> = plan["groups"].as_array().unwrap().iter().map(|group| &group["pods"]).collect();
    assert_eq!((pods, status), (vec![&json!(1), &json!(14), &json!(15)], 0));
    assert_eq!(plan["sequence"].as_array().unwrap().len(), 30);
    assert_eq!(plan["strategy"], strategy);
    let (unplaced, ..) = run(&["plan", "a=b,base=2"], "");
    assert!(unplaced.contains("8 pods are left unplaced"), "{unplaced}");
}

#[test]
fn errors_point_at_their_position() {
    let wrong = "error: at character 14: base must be a whole number from 0 to 1000000, not \"x\"\n  a=b:a=c,base=x\n               ^\n";
    let (_, stderr, status) = run(&["plan", "a=b:a=c,base=x"], "");
    assert_eq!((stderr, status), (wrong.to_owned(), 1));
    assert_eq!(run(&["plan"], "").2, 2);
    assert_eq!(run(&["plan", "a=b,weight=1", "--replicas=-1"], "").2, 2);
}

#[test]
fn manifests() {
    let deployment = |strategy: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "annotations": {"custom-pod-schedule-strategy": strategy}},
            "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "c"}]}}},
        })
        .to_string()
    };
    let good = deployment("a=b,base=1:a=c,weight=1");
    let (out, stderr, status) = run(&["mutate", "-o", "json"], &good);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), serde_json::from_str::<Value>(&good).unwrap());
    assert!(
        stderr.ends_with(
            "web: custom-pod-schedule-strategy: of 3 pods 1 to a=b, 2 to a=c; `plan` shows their order\n"
        ) && status == 0,
        "{stderr}"
    );
    assert!(!stderr.contains("warning"), "{stderr}");
    let bad = deployment("a=b,base");
    let (_, stderr, status) = run(&["mutate"], &bad);
    assert!(stderr.contains("at character 5: \"base\" isn't KEY=VALUE") && status == 0, "{stderr}");
    let (out, stderr, status) = run(&["mutate", "--validate"], &bad);
    assert!(out.is_empty() && stderr.contains("denied: ") && status == 1, "{out} {stderr}");
    let blocked = good.replace("shop", "kube-public");
    let (_, stderr, _) = run(&["mutate"], &blocked);
    assert!(stderr.contains("on the blocklist"), "{stderr}");
    let (_, stderr, _) = run(&["mutate", "--blocklisted-namespaces="], &blocked);
    assert!(stderr.contains("of 3 pods"), "{stderr}");
}

/// Ten Jobs of one pod each share the strategy of their owner: the base comes once.
#[test]
fn jobs_of_one_owner_share_the_base() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let output = Command::new(env!("CARGO_BIN_EXE_custom-scheduler-annotations"))
        .args(["mutate", "-o", "json", "-f"])
        .arg(folder.join("scaled-job.pods.yaml"))
        .arg("--facts")
        .arg(folder.join("scaled-job.facts.yaml"))
        .output()
        .unwrap();
    let pods: Value = serde_json::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let groups = pods["items"].as_array().unwrap().iter();
    let of_base = groups.filter(|pod| pod["spec"]["nodeSelector"]["type"] == "default");
    assert_eq!((of_base.count(), pods["items"].as_array().unwrap().len()), (1, 10));
}
