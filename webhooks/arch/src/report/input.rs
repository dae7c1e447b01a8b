//! The workloads, pods and nodes of the input.

use std::collections::{BTreeMap, HashSet};

use podshaper_core::facts::Fact;
use podshaper_core::object::{OwnerReference, controller_of};
use podshaper_core::pod::Pod;
use podshaper_core::workload::pod_template;
use serde::Deserialize;
use serde_json::Value;

use super::{Input, ReportedPod};
use arch_decision::images::images_of;
use arch_decision::learned::ClusterNode;
use arch_decision::platform::Architecture;

/// The objects that a report is about.
pub(super) fn select(objects: &[Value]) -> Input {
    let nodes: BTreeMap<_, _> = objects.iter().filter_map(node).collect();
    let all: Vec<_> = objects.iter().filter_map(|object| Some((object, reported(object)?))).collect();
    let uids = all.iter().filter_map(|(object, _)| object.pointer("/metadata/uid")?.as_str());
    let here: HashSet<_> = uids.collect();
    let is_own = |object: &Value| controller(object).is_none_or(|uid| !here.contains(&*uid));
    let is_placed = |object: &Value| {
        is_pod(object)
            && object
                .pointer("/spec/nodeName")
                .and_then(Value::as_str)
                .is_some_and(|node| nodes.contains_key(node))
    };
    let placed = objects.iter().filter(|object| is_placed(object)).filter_map(reported).collect();
    let workloads = all.into_iter().filter(|(object, _)| is_own(object)).map(|(_, pod)| pod).collect();
    Input { workloads, placed, nodes }
}

/// The name and architecture of a Linux node.
fn node(object: &Value) -> Option<(String, Architecture)> {
    let fact = Fact::new(object).filter(|fact| fact.is_kind("", "Node"))?;
    let (key, node) = fact.project::<ClusterNode>().ok()??;
    Some((key.name, node.architecture))
}

fn is_pod(object: &Value) -> bool {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    text("kind") == Some("Pod") && text("apiVersion") == Some("v1")
}

/// The UID of what manages an object.
fn controller(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences").map(Vec::<OwnerReference>::deserialize)?.ok()?;
    controller_of(Some(&owners)).map(|owner| owner.uid.clone())
}

/// The pod that an object is, or has a template of.
fn reported(object: &Value) -> Option<ReportedPod> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    let pod = if is_pod(object) { object } else { object.pointer(pod_template(object)?.as_str())? };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let pod = pod.to_string();
    let view: Pod<'_> = serde_json::from_str(&pod).ok()?;
    images_of(&view).ok()?;
    Some(ReportedPod {
        namespace: text("/metadata/namespace").to_owned(),
        name: format!("{kind}/{}", text("/metadata/name")),
        pod,
    })
}

#[cfg(test)]
mod tests {
    use arch_decision::table::ARCH_LABEL;
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_with_a_node_are_placed() {
        let node = |name: &str, labels: Value, info: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": {"nodeInfo": info}});
        let pod = |name: &str, node: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"image": "a"}]}});
        let input = select(&[
            node("arm", json!({ARCH_LABEL: "arm64"}), Value::Null),
            node("amd", Value::Null, json!({"architecture": "amd64", "operatingSystem": "linux"})),
            node("windows", json!({ARCH_LABEL: "amd64", "kubernetes.io/os": "windows"}), Value::Null),
            pod("a", "arm"),
            pod("b", "windows"),
            pod("c", "elsewhere"),
        ]);
        let nodes: Vec<_> = input.nodes.iter().map(|(name, own)| format!("{name} {own}")).collect();
        assert_eq!(nodes, ["amd amd64", "arm arm64"]);
        let names = |pods: &[ReportedPod]| pods.iter().map(|pod| pod.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&input.placed), ["Pod/a"]);
        assert_eq!(names(&input.workloads), ["Pod/a", "Pod/b", "Pod/c"]);
    }
}
