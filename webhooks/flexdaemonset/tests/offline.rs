//! The offline commands decide about the pods that the webhook is called for, and say why a pod stays unchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

use serde_json::{Value, json};

/// A node, and the template `agent`.
fn cluster() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"conditions": [], "allocatable": {"cpu": "4"}}}),
        json!({"apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate", "metadata": {"name": "agent"}, "spec": {"cpuPercentage": 10}}),
    ]
}

fn daemon_set(api_version: &str, metadata: &Value, template_metadata: &Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": "DaemonSet",
        "metadata": {"name": "agent", "annotations": {"flexdaemonsets.xai/resource-template": "agent"}},
        "spec": {"template": {"metadata": template_metadata, "spec": {"containers": [{"name": "agent", "image": "x"}]}}},
    });
    object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    object
}

/// The exit status, standard output and standard error of a command on these objects.
fn run(command: &str, files: &[Value], facts: &[Value], arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, items: &[Value]| {
        let path = folder.path().join(name);
        std::fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
            .unwrap();
        path
    };
    let files = write("files.json", files);
    let facts = write("facts.json", facts);
    let output = Command::new(env!("CARGO_BIN_EXE_flexdaemonset"))
        .arg(command)
        .arg("-f")
        .arg(files)
        .arg("--facts")
        .arg(facts)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn mutate(files: &[Value], facts: &[Value], arguments: &[&str]) -> (i32, String, String) {
    run("mutate", files, facts, &[&["-o", "patch", "--node", "n"], arguments].concat())
}

#[test]
fn pod_that_webhook_is_not_called_for_is_unchanged_with_reason() {
    let skip = json!({"labels": {"podshaper.dev/skip": "true"}});
    let labelled = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "out", "labels": {"podshaper.dev/skip": "true"}}});
    let facts = [cluster(), vec![labelled]].concat();
    for (daemon_set, reason) in [
        (daemon_set("apps/v1", &json!({"namespace": "kube-system"}), &json!({})), "kube-system"),
        (daemon_set("apps/v1", &json!({}), &skip), "the pod has the label podshaper.dev/skip"),
        (daemon_set("apps/v1", &json!({"namespace": "out"}), &json!({})), "namespace out has the label"),
        (daemon_set("apps/v1", &json!({"annotations": {}}), &json!({})), "names no template"),
        (daemon_set("apps.kruise.io/v1alpha1", &json!({}), &json!({})), "a DaemonSet of apps.kruise.io"),
    ] {
        let (status, patch, errors) = mutate(std::slice::from_ref(&daemon_set), &facts, &[]);
        assert!(!patch.contains("cpu"), "{reason}: {patch}");
        assert!(status == 0 && errors.contains(reason), "{reason}: {errors}");
        let (status, table, errors) = run("plan", std::slice::from_ref(&daemon_set), &facts, &[]);
        assert!(status == 1 && table.is_empty(), "{reason}: {table}");
        assert!(
            errors.contains(reason) && errors.contains("no DaemonSet in the files of -f is sized"),
            "{errors}"
        );
    }
    let kube_system = daemon_set("apps/v1", &json!({"namespace": "kube-system"}), &json!({}));
    let (_, patch, errors) = mutate(&[kube_system], &facts, &["--selection", r#"{"kubeSystem": ["agent"]}"#]);
    assert!(patch.contains("400m"), "{patch} {errors}");
}

#[test]
fn daemon_set_of_another_group_is_sized_by_its_pod_template() {
    let named = json!({"annotations": {"flexdaemonsets.xai/resource-template": "agent"}});
    let advanced = daemon_set("apps.kruise.io/v1alpha1", &json!({}), &named);
    let (status, patch, errors) = mutate(std::slice::from_ref(&advanced), &cluster(), &[]);
    assert!(status == 0 && patch.contains("400m"), "{patch} {errors}");
    let (status, table, errors) = run("plan", &[advanced], &cluster(), &[]);
    assert!(status == 0 && table.contains("400m"), "{table} {errors}");
}

#[test]
fn daemon_set_of_listed_kind_is_read() {
    let advanced = daemon_set("apps.kruise.io/v1alpha1", &json!({}), &json!({}));
    let listed = r#"{"ownerKinds": [{"apiVersion": "apps.kruise.io/v1alpha1", "kind": "DaemonSet", "resource": "daemonsets"}]}"#;
    // A DaemonSet of the same name is another one.
    let other = daemon_set("apps/v1", &json!({"annotations": {}}), &json!({}));
    let facts = [cluster(), vec![other]].concat();
    let (status, patch, errors) = mutate(std::slice::from_ref(&advanced), &facts, &["--selection", listed]);
    assert!(status == 0 && patch.contains("400m"), "{patch} {errors}");
    let (status, table, errors) = run("plan", &[advanced], &facts, &["--selection", listed]);
    assert!(status == 0 && table.contains("400m"), "{table} {errors}");
    let newer = daemon_set("apps.kruise.io/v1beta1", &json!({}), &json!({}));
    let (_, patch, _) = mutate(&[newer], &cluster(), &["--selection", listed]);
    assert!(patch.contains("400m"), "another version of the group: {patch}");
}

#[test]
fn daemon_set_of_files_needs_no_facts_and_takes_the_namespace() {
    let unnamed = daemon_set("apps/v1", &json!({}), &json!({}));
    let quota = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "300m"}}]}});
    let facts = [cluster(), vec![quota]].concat();
    for namespace in ["default", "other"] {
        let (_, patch, errors) = mutate(std::slice::from_ref(&unnamed), &facts, &["-n", namespace]);
        assert!(patch.contains("300m"), "{namespace}: {patch} {errors}");
        let (_, table, errors) = run("plan", std::slice::from_ref(&unnamed), &facts, &["-n", namespace]);
        assert!(
            table.contains(&format!("DaemonSet {namespace}/agent")) && table.contains("300m"),
            "{table} {errors}"
        );
    }
}

#[test]
fn plan_continues_past_daemon_set_that_is_not_sized() {
    let proxy = daemon_set(
        "apps/v1",
        &json!({"name": "kube-proxy", "namespace": "kube-system", "annotations": {}}),
        &json!({}),
    );
    let agent = daemon_set("apps/v1", &json!({}), &json!({}));
    let facts = [cluster(), vec![proxy.clone(), agent.clone()]].concat();
    let (status, table, errors) = run("plan", &[proxy, agent], &facts, &[]);
    assert_eq!((status, table.matches("DaemonSet").count()), (0, 1), "{table}{errors}");
    assert!(
        errors.contains("DaemonSet kube-system/kube-proxy: its pods keep their own resources"),
        "{errors}"
    );
}
