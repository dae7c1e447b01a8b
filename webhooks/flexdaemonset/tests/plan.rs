//! The binary on the examples, without a cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flexdaemonset");
    Command::new(env!("CARGO_BIN_EXE_flexdaemonset")).current_dir(examples).args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const PLAN: [&str; 7] = ["plan", "-f", "daemonset.yaml", "--facts", "template.yaml", "--facts", "nodes.yaml"];

#[test]
fn plan_prints_table() {
    let expected = "\
DaemonSet default/agent, template agent
NODE    CPU    SHARE  MEMORY       SHARE  STORAGE  SHARE  NOTE
edge    100m   20.0%  153.6Mi  15.0%  1Gi       12.5%
huge    1920m  2.0%   15.4Gi   2.0%   102.4Gi  5.0%
worker  400m   10.0%  2.4Gi    15.0%  5Gi      5.0%
Karpenter assumes the newest pod's requests for every instance type: cpu 100m to 1920m, memory 153.6Mi to 15.4Gi, ephemeral-storage 1Gi to 102.4Gi
The cluster autoscaler assumes the pod template's requests for a node group without nodes: nothing
The sizes differ by more than a factor of two. For autoscalers, bound the size with minimums and maximums, or use one DaemonSet and template for each class of nodes
";
    // The widths of columns don't matter.
    let words = |text: &str| {
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(words(&printed(&PLAN)), words(expected));
}

#[test]
fn plan_prints_json() {
    let json = printed(&[&PLAN[..], &["-o", "json"]].concat());
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    let worker = &plan["nodes"][2];
    assert_eq!(worker["requests"]["cpu"], "400m");
    assert_eq!(worker["containers"][0]["requests"]["cpu"], "320m");
    assert_eq!(worker["containers"][1]["requests"]["cpu"], "80m");
    assert_eq!(worker["containers"][1]["limits"].get("cpu"), None, "limits: None");
    let autoscalers = &plan["autoscalers"];
    assert_eq!(autoscalers["karpenter"]["smallest"]["cpu"], "100m");
    assert_eq!(autoscalers["karpenter"]["largest"]["cpu"], "1920m");
    assert_eq!(autoscalers["wideSpread"], true);
}

#[test]
fn plan_without_template_fails() {
    let output = run(&["plan", "-f", "daemonset.yaml", "--facts", "nodes.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("DaemonSet agent: there is no FlexDaemonsetTemplate agent in --facts"), "{error}");
}

#[test]
fn mutate_sizes_daemon_set_for_one_node() {
    let facts = ["--facts", "template.yaml", "--facts", "nodes.yaml", "--facts", "daemonset.yaml"];
    let arguments =
        [&["mutate", "-f", "daemonset.yaml", "-o", "patch", "--node", "worker"], &facts[..]].concat();
    let patch = printed(&arguments);
    assert!(patch.contains(r#""/spec/template/spec/containers/1/resources/requests/cpu""#), "{patch}");
    assert!(patch.contains(r#""80m""#), "{patch}");
}

#[test]
fn crd_prints_definition() {
    assert!(printed(&["crd"]).contains("name: flexdaemonsettemplates.flexdaemonsets.xai"));
}
