//! Properties of the decision about any pod, template and node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use podshaper_core::admission::Verdict;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::generated::{RESOURCES, nodes, pods, quantity, templates};
use support::{
    NODE, amount, containers_mut, daemon_set, decide, decoded_by_api_server, limit_ranged, node, patched,
    pod, template,
};

/// The budget by another implementation; `None` for a pod that keeps its own requests.
fn budget(
    spec: &Value,
    node: &Value,
    (resource, percent, min, max): (&str, &str, &str, &str),
) -> Option<i64> {
    let field = |key: &str| {
        let other = spec.pointer("/overrides/0").and_then(|other| other.get(key));
        other.or(spec.get(key)).filter(|value| !value.is_null()).cloned()
    };
    let read = |text: &Value| amount(&json!({"resources": {"x": {resource: text}}}), "x", resource).unwrap();
    let allocatable = node["status"]["allocatable"].get(resource).map_or(0, read);
    let min_amount = field(min).map_or(0, |min| read(&min));
    let max_amount = field(max).map_or(i64::MAX, |max| read(&max));
    let percent = field(percent).and_then(|percent| percent.as_i64()).unwrap_or(0);
    let share = allocatable / 100 * percent + allocatable % 100 * percent / 100;
    let too_much = min_amount > allocatable;
    let amount = match spec["whenMinExceedsAllocatable"].as_str().unwrap() {
        "UseTemplate" if too_much => return None,
        "Cap" if too_much => allocatable.min(max_amount),
        _ => share.max(min_amount).min(max_amount),
    };
    Some(amount).filter(|amount| *amount > 0)
}

/// Kubernetes' `PodRequests` by another implementation.
fn effective(pod: &Value, resource: &str) -> i64 {
    let request = |container: &Value| amount(container, "requests", resource).unwrap_or(0);
    let mut together: i64 = pod["spec"]["containers"].as_array().unwrap().iter().map(request).sum();
    let mut sidecars = 0;
    let mut most = 0;
    for init in pod["spec"]["initContainers"].as_array().into_iter().flatten() {
        let asked = if init["restartPolicy"] == "Always" {
            together += request(init);
            sidecars += request(init);
            sidecars
        } else {
            sidecars + request(init)
        };
        most = most.max(asked);
    }
    let overhead = json!({"resources": {"requests": pod["spec"]["overhead"]}});
    together.max(most) + request(&overhead)
}

/// `pod` with amounts instead of quantities: `2192M` equals `2140625Ki`.
fn with_amounts(mut pod: Value) -> Value {
    for container in containers_mut(&mut pod) {
        let before = Value::Object(container.clone());
        for field in ["requests", "limits"] {
            for (resource, ..) in RESOURCES {
                if let Some(amount) = amount(&before, field, resource) {
                    container["resources"][field][resource] = json!(amount);
                }
            }
        }
    }
    pod
}

fn cluster(spec: &Value, node: &Value) -> Vec<Value> {
    vec![node.clone(), template(spec.clone()), daemon_set()]
}

/// One pass with the decoding of the API server.
fn pass(facts: &[Value], pod: &Value) -> Value {
    let decision = decide(facts, pod);
    assert_eq!(decision.verdict, Verdict::Admit, "{pod}");
    decoded_by_api_server(patched(pod, &decision))
}

proptest! {
    #[test]
    fn pod_requests_its_budget(spec in templates(), node in nodes(), before in pods()) {
        let after = pass(&cluster(&spec, &node), &before);
        let all = |pod: &Value| -> Vec<Value> { containers_mut(&mut pod.clone()).into_iter().map(|c| Value::Object(c.clone())).collect() };
        for keys in RESOURCES {
            let resource = keys.0;
            let overhead = amount(&json!({"resources": {"requests": before["spec"]["overhead"]}}), "requests", resource).unwrap_or(0);
            match budget(&spec, &node, keys) {
                None => prop_assert_eq!(effective(&after, resource), effective(&before, resource)),
                Some(budget) if spec["distribution"] == "Replicate" => {
                    for container in all(&after) {
                        prop_assert_eq!(amount(&container, "requests", resource), Some(budget));
                    }
                }
                Some(budget) if budget > overhead => {
                    prop_assert_eq!(effective(&after, resource), budget, "{} of {}", resource, after);
                }
                Some(_) => prop_assert_eq!(effective(&after, resource), effective(&before, resource)),
            }
        }
        for container in all(&after) {
            for (resource, ..) in RESOURCES {
                if let (Some(request), Some(limit)) = (amount(&container, "requests", resource), amount(&container, "limits", resource)) {
                    prop_assert!(request <= limit, "{resource} of {container}");
                }
            }
        }
    }

    #[test]
    fn second_pass_changes_nothing(
        spec in templates(), node in nodes(), before in pods(),
        range in prop::option::of((quantity("cpu"), quantity("memory"), quantity("memory"))),
    ) {
        let mut facts = cluster(&spec, &node);
        let mut defaults = json!({});
        if let Some((cpu, memory, max)) = &range {
            defaults = json!({"cpu": cpu, "memory": memory});
            facts.push(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"namespace": "ns"}, "spec": {"limits": [
                {"type": "Container", "default": defaults, "max": {"ephemeral-storage": max}},
            ]}}));
        }
        let before = decoded_by_api_server(limit_ranged(before, &defaults));
        let once = decoded_by_api_server(limit_ranged(pass(&facts, &before), &defaults));
        let again = decide(&facts, &once);
        prop_assert!(again.patch.is_empty(), "{}\nonce {once}", String::from_utf8(again.patch.to_json()).unwrap());
    }

    #[test]
    fn injected_container_gets_its_share(spec in templates(), node in nodes(), before in pods()) {
        let facts = cluster(&spec, &node);
        let injected = json!({"name": "injected", "resources": {"requests": {"cpu": "10m", "memory": "10Mi", "ephemeral-storage": "1Mi"}}});
        let inject = |mut pod: Value| {
            pod["spec"]["containers"].as_array_mut().unwrap().push(injected.clone());
            pod
        };
        let late = pass(&facts, &inject(pass(&facts, &before)));
        let early = pass(&facts, &inject(before));
        prop_assert_eq!(with_amounts(late)["spec"].take(), with_amounts(early)["spec"].take());
    }

    #[test]
    fn patch_changes_nothing_else(spec in templates(), node in nodes(), before in pods()) {
        let without = |mut pod: Value| {
            for container in containers_mut(&mut pod) {
                for list in container.get_mut("resources").and_then(Value::as_object_mut).into_iter().flat_map(|r| r.values_mut()) {
                    if let Some(list) = list.as_object_mut() {
                        for (resource, ..) in RESOURCES {
                            list.shift_remove(resource);
                        }
                    }
                }
                if container.get("resources").is_some_and(|r| r.as_object().unwrap().values().all(|v| v == &json!({}))) {
                    container.shift_remove("resources");
                }
            }
            pod["metadata"].as_object_mut().unwrap().shift_remove("annotations");
            pod
        };
        let mut before = before;
        before["spec"]["new"] = json!({"x": [1.5, null]});
        before["spec"]["containers"][0]["resources"] = json!({"requests": {}, "limits": {}, "new": {}});
        let decision = decide(&cluster(&spec, &node), &before);
        prop_assert_eq!(without(patched(&before, &decision)), without(before));
    }

    #[test]
    fn extreme_quantities_do_not_panic(
        spec in prop::sample::select(vec![
            json!({"cpuPercentage": 100, "distribution": "Split", "minMemory": "8E"}),
            json!({"cpuPercentage": 1, "minStorage": "8E", "limits": {"cpu": "Ratio"}}),
        ]),
        requests in prop::collection::vec("(-)?[0-9]{1,30}(m|Gi|E|e30)?", 4),
        memory in prop::option::of(".{0,40}"),
    ) {
        let node = node(NODE, json!({"cpu": &requests[0], "memory": &requests[1]}));
        let mut pod = pod(NODE, json!({"containers": requests.iter().enumerate().map(|(index, quantity)| {
            json!({"name": format!("c{index}"), "resources": {"requests": {"cpu": quantity, "memory": quantity}, "limits": {"cpu": quantity}}})
        }).collect::<Vec<_>>()}));
        if let Some(memory) = memory {
            pod["metadata"]["annotations"] = json!({"podshaper.dev/flexdaemonset": memory});
        }
        patched(&pod, &decide(&cluster(&spec, &node), &pod));
    }
}
