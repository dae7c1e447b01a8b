//! The API server's steps around the webhook, and objects for tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

pub(crate) mod generated;

use std::time::{Duration, Instant};

use flexdaemonset_decision::FlexDaemonset;
use flexdaemonset_decision::offline::OfflineCluster;
use podshaper_core::admission::{Decision, Request, Verdict};
use podshaper_core::pod::Pod;
use podshaper_core::quantity::Quantity;
use serde_json::{Map, Value, json};

pub(crate) const NODE: &str = "node-1";

/// A node with this allocatable.
pub(crate) fn node(name: &str, allocatable: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"size": name}}, "status": {"allocatable": allocatable}})
}

/// The template `agent`.
pub(crate) fn template(spec: Value) -> Value {
    json!({
        "apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate",
        "metadata": {"name": "agent"}, "spec": spec,
    })
}

/// A DaemonSet `agent` that names the template `agent`.
pub(crate) fn daemon_set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "ns", "annotations": {"flexdaemonsets.xai/resource-template": "agent"}},
    })
}

/// A pod as the DaemonSet controller creates it for `node`.
pub(crate) fn pod(node: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": {
            "generateName": "agent-",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "u", "controller": true}],
        },
        "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}],
        }}}},
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

/// A container with these requests and limits.
pub(crate) fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

/// The decision about the creation of `pod` in the cluster of these objects.
pub(crate) fn decide(facts: &[Value], pod: &Value) -> Decision {
    let webhook = FlexDaemonset::new(OfflineCluster::new(facts).unwrap());
    let request = json!({
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "namespace": "ns",
        "object": pod,
    })
    .to_string();
    let request: Request<'_, Pod<'_>> = serde_json::from_str(&request).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(webhook.decide(&request, deadline))
}

/// `pod` after the decision's patch, which must apply.
pub(crate) fn patched(pod: &Value, decision: &Decision) -> Value {
    let patch = String::from_utf8(decision.patch.to_json()).unwrap();
    let patch: json_patch::Patch = serde_json::from_str(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap_or_else(|e| panic!("{e}\npatch {patch}\npod {pod}"));
    pod
}

/// `pod` after one pass, which must admit it.
pub(crate) fn pass(facts: &[Value], pod: &Value) -> Value {
    let decision = decide(facts, pod);
    assert_eq!(decision.verdict, Verdict::Admit, "{pod}");
    patched(pod, &decision)
}

/// Every container and init container of `pod`.
pub(crate) fn containers_mut(pod: &mut Value) -> Vec<&mut Map<String, Value>> {
    let Some(spec) = pod["spec"].as_object_mut() else { return Vec::new() };
    spec.iter_mut()
        .filter(|(field, _)| matches!(field.as_str(), "containers" | "initContainers"))
        .flat_map(|(_, list)| list.as_array_mut().into_iter().flatten())
        .filter_map(Value::as_object_mut)
        .collect()
}

/// `pod` after the API server has decoded it: requests default to limits (`SetDefaults_Pod`), quantities are respelled, and
/// empty lists are gone (`omitempty`).
pub(crate) fn decoded_by_api_server(mut pod: Value) -> Value {
    for container in containers_mut(&mut pod) {
        let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { continue };
        let limits = resources.get("limits").cloned().unwrap_or_default();
        for (name, limit) in limits.as_object().into_iter().flatten() {
            let requests = resources.entry("requests").or_insert_with(|| json!({}));
            if requests.is_null() {
                *requests = json!({});
            }
            requests.as_object_mut().unwrap().entry(name).or_insert_with(|| limit.clone());
        }
        for list in resources.values_mut().filter_map(Value::as_object_mut) {
            for quantity in list.values_mut() {
                if let Some(Ok(stored)) = quantity.as_str().map(Quantity::stored) {
                    *quantity = Value::String(stored.into_owned());
                }
            }
        }
        resources.retain(|_, list| *list != json!({}));
    }
    pod
}

/// `mergePodResourceRequirements` of the LimitRanger plugin.
pub(crate) fn limit_ranged(mut pod: Value, defaults: &Value) -> Value {
    for container in containers_mut(&mut pod) {
        let resources = container.entry("resources").or_insert_with(|| json!({}));
        for field in ["limits", "requests"] {
            let list = resources.as_object_mut().unwrap().entry(field).or_insert_with(|| json!({}));
            for (name, quantity) in defaults.as_object().unwrap() {
                list.as_object_mut().unwrap().entry(name).or_insert_with(|| quantity.clone());
            }
        }
    }
    pod
}

/// Millicores or bytes; `None` for a missing quantity.
pub(crate) fn amount(container: &Value, field: &str, resource: &str) -> Option<i64> {
    let quantity: Quantity = container["resources"][field].get(resource)?.as_str()?.parse().unwrap();
    if resource == "cpu" { quantity.milli_value() } else { quantity.value() }
}
