//! The binary on inputs that are modelled on bug reports of users: one question each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

const POD: &str = "/spec/template/spec/";

/// Standard output and standard error of a command on a case. The template has one percent of cpu, if the case has none of its own.
fn run(command: &str, case: &str, arguments: &[&str]) -> (String, String) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
    let facts = ["--facts", "template.yaml", "--facts", case, "--facts", "nodes.yaml"];
    let output = Command::new(env!("CARGO_BIN_EXE_flexdaemonset"))
        .current_dir(folder)
        .args([command, "-f", case])
        .args(facts)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The operations of the patch for `node`, by path; `null` for a removal. And the warnings.
fn mutate(case: &str, node: &str) -> (BTreeMap<String, Value>, String) {
    let (patch, warnings) = run("mutate", case, &["-o", "patch", "--node", node]);
    let patch: Vec<Value> = serde_json::from_str(&patch).unwrap_or_else(|error| panic!("{error}: {patch}"));
    let operations = patch.iter().map(|one| (one["path"].as_str().unwrap().to_owned(), one["value"].clone()));
    (operations.collect(), warnings)
}

/// Asserts the values at these paths below the pod's spec.
fn assert_patch(case: &str, node: &str, expected: &[(&str, &str)]) -> String {
    let (patch, warnings) = mutate(case, node);
    for (path, value) in expected {
        let actual = patch.get(&format!("{POD}{path}"));
        let actual = actual.map(|actual| actual.as_str().unwrap_or_default());
        assert_eq!(actual, Some(*value), "{case} on {node}: {path}: {patch:#?}");
    }
    warnings
}

#[test]
fn ratio_of_limit_range_lowers_limits() {
    let warnings = assert_patch(
        "limit-range-ratio.yaml",
        "small",
        &[
            ("containers/0/resources/requests/cpu", "96m"),
            ("containers/0/resources/limits/cpu", "384m"),
            ("containers/0/resources/limits/memory", "338836Ki"),
        ],
    );
    assert!(warnings.contains("limit of cpu 384m instead of 1"), "{warnings}");
}

#[test]
fn maximum_of_pod_is_a_limit() {
    for (case, warning) in [
        ("pod-maximum-without-limit.yaml", "limit of cpu 2 instead of none"),
        ("pod-maximum-in-ratio.yaml", "limit of cpu 2 instead of 4"),
    ] {
        let expected =
            [("containers/0/resources/requests/cpu", "400m"), ("containers/0/resources/limits/cpu", "2")];
        let warnings = assert_patch(case, "rootless", &expected);
        assert!(warnings.contains(warning), "{case}: {warnings}");
    }
}

#[test]
fn limit_of_whole_pod_follows_policy() {
    let limit = format!("{POD}resources/limits/cpu");
    let (removed, _) = mutate("pod-level-none.yaml", "rootless");
    assert_eq!(removed.get(&limit), Some(&Value::Null), "{removed:#?}");
    let (kept, _) = mutate("pod-level-keep.yaml", "rootless");
    assert_eq!(kept.get(&limit), None, "4, as before: {kept:#?}");
    // 400m × 4 / 200m.
    let ratio = [("resources/limits/cpu", "8"), ("resources/requests/cpu", "400m")];
    assert_patch("pod-level-ratio.yaml", "rootless", &ratio);
}

#[test]
fn storage_that_node_does_not_report_counts_as_zero() {
    let (patch, warnings) = mutate("no-storage-cap.yaml", "rootless");
    assert!(
        patch.is_empty() && warnings.contains("no allocatable ephemeral-storage"),
        "{patch:?} {warnings}"
    );
    let (reporting, _) = mutate("no-storage-cap.yaml", "young");
    assert!(reporting.is_empty(), "as where it reports zero: {reporting:?}");
    let expected = [("containers/0/resources/requests/ephemeral-storage", "1Gi")];
    let warnings = assert_patch("no-storage-keep-min.yaml", "rootless", &expected);
    assert!(warnings.contains("it stays Pending"), "{warnings}");
}

#[test]
fn advanced_daemon_set_that_is_not_listed_is_unchanged_with_reason() {
    for case in ["advanced.yaml", "advanced-pod.yaml"] {
        let (patch, warnings) = mutate(case, "rootless");
        assert!(patch.is_empty(), "{case}: {patch:?}");
        assert!(
            warnings.contains("apps.kruise.io") && warnings.contains("flexdaemonset.ownerKinds"),
            "{warnings}"
        );
    }
    let (_, reason) = run("plan", "advanced.yaml", &[]);
    assert!(reason.contains("apps.kruise.io") && reason.contains("flexdaemonset.ownerKinds"), "{reason}");
    let (marked, _) = mutate("advanced-pod-marked.yaml", "rootless");
    assert_eq!(marked["/spec/containers/0/resources/requests/cpu"], "40m");
}

#[test]
fn offline_commands_decide_as_the_server() {
    assert_patch("plain.yaml", "rootless", &[("containers/0/resources/requests/cpu", "400m")]);
    assert_patch("no-namespace.yaml", "rootless", &[("containers/0/resources/requests/cpu", "40m")]);
    for (case, reason) in
        [("kube-system.yaml", "flexdaemonset.kubeSystem"), ("skip.yaml", "podshaper.dev/skip")]
    {
        let (patch, warnings) = mutate(case, "rootless");
        assert!(patch.is_empty() && warnings.contains(reason), "{case}: {warnings}");
        let (_, errors) = run("plan", case, &[]);
        assert!(errors.contains(reason), "{case}: {errors}");
    }
    let (table, errors) = run("plan", "two.yaml", &[]);
    assert!(table.contains("DaemonSet default/agent") && errors.contains("kube-proxy"), "{table}{errors}");
}

#[test]
fn container_that_pod_lacks_is_named() {
    let (_, warnings) = mutate("misspelt-container.yaml", "rootless");
    assert!(warnings.contains("no container agnet, helpr"), "{warnings}");
}

#[test]
fn split_gives_each_container_its_part() {
    let (one, _) = run("plan", "less-than-containers.yaml", &[]);
    assert!(one.contains("big") && one.contains(" 1m "), "{one}");
    let init =
        [("containers/0/resources/requests/cpu", "40m"), ("initContainers/0/resources/requests/cpu", "40m")];
    assert_patch("init-container.yaml", "rootless", &init);
    let (many, _) = run("plan", "many-containers.yaml", &[]);
    // 5 percent of 95690m, 4 cores and 1930m.
    for size in ["4784m", "200m", "96m"] {
        assert!(many.contains(size), "{size}: {many}");
    }
}
