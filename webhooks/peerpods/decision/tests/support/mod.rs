//! The API server's steps around the webhook, and pods for tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

pub(crate) mod generated;

use peerpods_decision::PeerPods;
use peerpods_decision::config::Config;
use podshaper_core::admission::{Decision, Request, Verdict};
use podshaper_core::pod::Pod;
use podshaper_core::quantity::Quantity;
use serde_json::{Map, Value, json};

pub(crate) const VM: &str = "kata.peerpods.io/vm";
pub(crate) const PREFIX: &str = "io.katacontainers.config.hypervisor.";
pub(crate) const RECORD: &str = "podshaper.dev/peerpods-resources";

/// The webhook with these settings, for the class `kata-remote`.
pub(crate) fn webhook(settings: &Value) -> PeerPods {
    let config = Config::from_value(settings.clone()).unwrap();
    PeerPods::new(config, ["kata-remote"], VM).unwrap()
}

/// The webhook without settings.
pub(crate) fn compatible() -> PeerPods {
    webhook(&json!({}))
}

/// The decision about the creation of `pod`.
pub(crate) fn decide(webhook: &PeerPods, pod: &Value) -> Decision {
    let request = json!({
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": pod,
    });
    let request = request.to_string();
    let request: Request<'_, Pod<'_>> = serde_json::from_str(&request).unwrap();
    webhook.decide(&request)
}

/// `pod` after the decision's patch, which must apply.
pub(crate) fn patched(pod: &Value, decision: &Decision) -> Value {
    let patch = String::from_utf8(decision.patch.to_json()).unwrap();
    let patch: json_patch::Patch = serde_json::from_str(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap_or_else(|e| panic!("{e}\npatch {patch}\npod {pod}"));
    pod
}

/// `pod` after one pass of the webhook; `None` if it was denied.
pub(crate) fn pass(webhook: &PeerPods, pod: &Value) -> Option<Value> {
    let decision = decide(webhook, pod);
    (decision.verdict == Verdict::Admit).then(|| patched(pod, &decision))
}

/// A pod of the class `kata-remote`.
pub(crate) fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"runtimeClassName": "kata-remote", "containers": containers}})
}

/// A container with these requests and limits.
pub(crate) fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "image": "i", "resources": {"requests": requests, "limits": limits}})
}

/// The values of `default_vcpus`, `default_memory`, `default_gpus` and `machine_type`; a dash for a missing one.
pub(crate) fn sizes(pod: &Value) -> String {
    let annotation = |name| {
        let key = format!("{PREFIX}{name}");
        pod["metadata"]["annotations"][key].as_str().unwrap_or("-").to_owned()
    };
    ["default_vcpus", "default_memory", "default_gpus", "machine_type"].map(annotation).join(" ")
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

/// `pod` after the API server has decoded it: requests default to limits (`SetDefaults_Pod`), quantities are respelled,
/// every container has `resources`, and empty lists are gone.
pub(crate) fn decoded_by_api_server(mut pod: Value) -> Value {
    for container in containers_mut(&mut pod) {
        let resources = object_at(container, "resources");
        let limits = resources.get("limits").cloned().unwrap_or_default();
        for (name, limit) in limits.as_object().into_iter().flatten() {
            object_at(resources, "requests").entry(name).or_insert_with(|| limit.clone());
        }
        for field in ["requests", "limits"] {
            for (_, quantity) in resources.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten()
            {
                if let Some(Ok(stored)) = quantity.as_str().map(Quantity::stored) {
                    *quantity = Value::String(stored.into_owned());
                }
            }
        }
        resources.retain(|_, value| !value.is_null() && *value != json!({}));
    }
    pod
}

/// The member `key` of `object`, an object that is created if it is missing.
fn object_at<'o>(object: &'o mut Map<String, Value>, key: &str) -> &'o mut Map<String, Value> {
    let member = object.entry(key).or_insert(Value::Null);
    if member.is_null() {
        *member = json!({});
    }
    member.as_object_mut().unwrap()
}

/// The annotation of the LimitRanger plugin.
const LIMIT_RANGER: &str = "kubernetes.io/limit-ranger";

/// `mergePodResourceRequirements` of the LimitRanger plugin.
pub(crate) fn limit_ranged(mut pod: Value, default_requests: &Value, default_limits: &Value) -> Value {
    let mut entries = Vec::new();
    for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let container = container.as_object_mut().unwrap();
            let name = container["name"].as_str().unwrap().to_owned();
            for (field, what, defaults) in
                [("requests", "request", default_requests), ("limits", "limit", default_limits)]
            {
                let list = object_at(object_at(container, "resources"), field);
                let mut set = Vec::new();
                for (resource, quantity) in defaults.as_object().unwrap() {
                    if !list.contains_key(resource) {
                        list.insert(resource.clone(), quantity.clone());
                        set.push(&**resource);
                    }
                }
                set.sort_unstable();
                if !set.is_empty() {
                    entries.push(format!("{} {what} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !entries.is_empty() {
        let annotation = format!("LimitRanger plugin set: {}", entries.join("; "));
        let metadata = object_at(pod.as_object_mut().unwrap(), "metadata");
        object_at(metadata, "annotations").insert(LIMIT_RANGER.to_owned(), json!(annotation));
    }
    decoded_by_api_server(pod)
}

/// `pod` without the annotation of the LimitRanger plugin.
pub(crate) fn without_limit_ranger(mut pod: Value) -> Value {
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.shift_remove(LIMIT_RANGER);
    }
    pod
}

/// `pod` without what the webhook may change.
pub(crate) fn untouched(mut pod: Value) -> Value {
    for container in containers_mut(&mut pod) {
        container.shift_remove("resources");
    }
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.shift_remove("resources");
    spec.shift_remove("resourceClaims");
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(empty_dir) = volume["emptyDir"].as_object_mut() {
            empty_dir.shift_remove("medium");
        }
    }
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| !key.starts_with(PREFIX) && key != RECORD);
    }
    let no_annotations = pod["metadata"]["annotations"].as_object().is_none_or(Map::is_empty);
    if let Some(metadata) = pod["metadata"].as_object_mut().filter(|_| no_annotations) {
        metadata.shift_remove("annotations");
    }
    if pod["metadata"].as_object().is_none_or(Map::is_empty) {
        pod.as_object_mut().unwrap().shift_remove("metadata");
    }
    pod
}
