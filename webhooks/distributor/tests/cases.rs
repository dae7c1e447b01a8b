//! `distributor mutate` about pods of real clusters: each case is a pair of files and the number of pods that each group gets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Facts, pods, and the pods of each group by name.
const CASES: [(&str, &str, &str); 26] = [
    // Only spot nodes have the label of AKS, so that regular nodes are those without it.
    ("aks-only-spot-nodes", "aks-pod-insists-on-spot", "spot 1"),
    ("aks", "aks-pod-insists-on-spot", "spot 1"),
    ("aks", "aks-pod-selects-spot", "spot 1"),
    // Eight running pods select only linux: any group may have them.
    ("pods-from-before", "ten", "regular 8, spot 2"),
    // Ten running pods are placed on default.
    ("before-the-name", "ten", "type=default 6, type=spot 4"),
    ("label-migration", "ten", "karpenter.sh/capacity-type=spot 2, type=default 8"),
    ("pods-from-before-on-default-nodes", "ten", "type=default 6, type=spot 4"),
    ("spot-is-arm", "amd64-pods", "type=default 10"),
    ("hostname", "hostname", "type=spot 1"),
    ("preferred", "ten", "type=default 8, type=spot 2"),
    ("preferred-wait", "ten", "type=default 8, type=spot 2"),
    ("own-cost", "own-cost", "type=default 2, type=spot 1"),
    // Ten Jobs of one pod each share the sequence of their owner.
    ("scaled-job", "scaled-job", "type=default 8, type=spot 2"),
    ("job-set", "job-set", "type=default 8, type=spot 2"),
    ("cron-job", "cron-job", "type=default 8, type=spot 2"),
    ("kruise-stateful-set", "kruise-stateful-set", "type=default 1, type=spot 2"),
    // The volume of db-1 is in zone a, and its ordinal belongs to zone b.
    ("volume-zone", "volume-zone", "topology.kubernetes.io/zone=a 1"),
    // The driver is a pod and owns the five executors.
    ("spark", "spark", "type=default 5, type=spot 1"),
    // PodTolerationRestriction would refuse pods with the toleration of spot.
    ("namespace-whitelist", "ten", "type=default 10"),
    ("namespace-whitelist-with-spot", "ten", "type=default 8, type=spot 2"),
    // PodNodeSelector, and its counterpart of OpenShift.
    ("namespace-node-selector", "ten", "type=default 10"),
    ("openshift-node-selector", "ten", "type=spot 10"),
    ("bare-pod", "bare-pod", "type=default 1"),
    // Fifty Deployments of one pod each share the sequence of the selector.
    ("selector", "selector-of-deployments", "type=default 40, type=spot 10"),
    // They end, so they take slots over time.
    ("selector", "bare-tasks", "type=default 8, type=spot 2"),
    // Eight of them run on default already. The pod of a DaemonSet does not count.
    ("selector-pods-from-before", "bare-workers", "type=default 8, type=spot 4"),
];

fn run(facts: &str, pods: &str) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut command = Command::new(env!("CARGO_BIN_EXE_distributor"));
    command.args(["mutate", "-o", "json", "-f"]).arg(folder.join(format!("{pods}.pods.yaml")));
    command.arg("--facts").arg(folder.join(format!("{facts}.facts.yaml"))).output().unwrap()
}

/// The pods of a case after admission, and the warnings.
fn mutate(facts: &str, pods: &str) -> (Vec<Value>, String) {
    let output = run(facts, pods);
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{warnings}");
    let mut printed: Value = serde_json::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let pods = match printed["items"].take() {
        Value::Array(items) => items,
        _ => vec![printed],
    };
    (pods, warnings)
}

fn annotation<'p>(pod: &'p Value, key: &str) -> Option<&'p str> {
    pod["metadata"]["annotations"][key].as_str()
}

fn group(pod: &Value) -> Option<&str> {
    annotation(pod, "placement.podshaper.dev/group")
}

/// How many pods each group has.
fn count(pods: &[Value]) -> String {
    let mut groups: BTreeMap<&str, u32> = BTreeMap::new();
    for pod in pods {
        *groups.entry(group(pod).unwrap_or("none")).or_default() += 1;
    }
    groups.iter().map(|(group, pods)| format!("{group} {pods}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn pods_are_shared_out_as_expected() {
    for (facts, pods, expected) in CASES {
        let (placed, warnings) = mutate(facts, pods);
        assert_eq!(count(&placed), expected, "{facts} {pods}: {warnings}");
    }
}

#[test]
fn namespace_that_excludes_all_groups_is_named_in_a_warning() {
    let output = run("namespace-without-groups", "ten");
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "an undecided pod");
    let expected =
        "the annotations of the namespace exclude each group that the pod fits into: it isn't placed";
    assert!(warnings.contains(expected), "{warnings}");
}

#[test]
fn pod_of_preferred_group_has_no_node_selector() {
    let (pods, _) = mutate("preferred", "ten");
    for pod in pods.iter().filter(|pod| group(pod) == Some("type=spot")) {
        assert_eq!(pod["spec"].get("nodeSelector"), None);
        let affinity = &pod["spec"]["affinity"]["nodeAffinity"];
        assert_eq!(affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array().unwrap().len(), 1);
        assert_eq!(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"), None);
    }
}

#[test]
fn deletion_cost_of_the_author_is_kept() {
    let (pods, _) = mutate("own-cost", "own-cost");
    assert!(
        pods.iter().all(|pod| annotation(pod, "controller.kubernetes.io/pod-deletion-cost") == Some("100"))
    );
}

#[test]
fn worker_runs_in_the_group_of_its_leader() {
    let (pods, warnings) = mutate("leader-worker-set", "leader-worker-set");
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    let leaders: BTreeMap<String, &str> =
        pods[..5].iter().map(|pod| (name(pod), group(pod).unwrap())).collect();
    assert_eq!(count(&pods[..5]), "type=default 4, type=spot 1", "{warnings}");
    for worker in &pods[5..] {
        let leader = leaders[name(worker).rsplit_once('-').unwrap().0];
        assert_eq!(group(worker), Some(leader), "{worker}");
        let selected = worker["spec"]["nodeSelector"]["type"].as_str().unwrap();
        assert_eq!(format!("type={selected}"), leader);
        assert_eq!(annotation(worker, "placement.podshaper.dev/slot"), None);
    }
}
