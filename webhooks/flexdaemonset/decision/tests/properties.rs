//! Properties of the decision about any pod, template and node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use podshaper_core::admission::Verdict;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use support::{
    NODE, amount, containers_mut, daemon_set, decide, decoded_by_api_server, limit_ranged, node, patched,
    pod, template,
};

const RESOURCES: [(&str, &str, &str, &str); 3] = [
    ("cpu", "cpuPercentage", "minCPU", "maxCPU"),
    ("memory", "memoryPercentage", "minMemory", "maxMemory"),
    ("ephemeral-storage", "storagePercentage", "minStorage", "maxStorage"),
];

fn quantity(resource: &'static str) -> impl Strategy<Value = String> {
    let (units, most): (&[&str], u32) = match resource {
        "cpu" => (&["m", ""], 5000),
        _ => (&["", "Mi", "Gi", "M"], 5000),
    };
    (0..most, prop::sample::select(units)).prop_map(|(n, unit)| format!("{n}{unit}"))
}

fn resources() -> impl Strategy<Value = Value> {
    let list = |resource: &'static str| prop::option::of((quantity(resource), any::<bool>(), any::<bool>()));
    (list("cpu"), list("memory"), list("ephemeral-storage"), any::<bool>()).prop_map(
        |(cpu, memory, storage, device)| {
            let (mut requests, mut limits) = (Map::new(), Map::new());
            for (name, asked) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)] {
                let Some((quantity, requested, limited)) = asked else { continue };
                if requested {
                    requests.insert(name.to_owned(), json!(quantity));
                }
                if limited {
                    limits.insert(name.to_owned(), json!(quantity));
                }
            }
            if device {
                limits.insert("example.com/device".to_owned(), json!("1"));
            }
            json!({"requests": requests, "limits": limits})
        },
    )
}

fn pods() -> impl Strategy<Value = Value> {
    let container = || prop::option::of(resources());
    let overhead =
        prop::option::of((0..3_u32).prop_map(|n| json!({"cpu": format!("{n}m"), "memory": n.to_string()})));
    let inits = prop::collection::vec((container(), any::<bool>()), 0..4);
    (prop::collection::vec(container(), 1..5), inits, overhead).prop_map(|(containers, inits, overhead)| {
        let named = |prefix: &str, index: usize, resources: Option<Value>| {
            let mut container = json!({"name": format!("{prefix}{index}"), "image": "i"});
            if let Some(resources) = resources {
                container["resources"] = resources;
            }
            container
        };
        let mut spec = json!({
            "containers": containers.into_iter().enumerate().map(|(i, c)| named("c", i, c)).collect::<Vec<_>>(),
            "initContainers": inits.into_iter().enumerate().map(|(i, (c, sidecar))| {
                let mut container = named("i", i, c);
                if sidecar {
                    container["restartPolicy"] = json!("Always");
                }
                container
            }).collect::<Vec<_>>(),
        });
        if let Some(overhead) = overhead {
            spec["overhead"] = overhead;
        }
        decoded_by_api_server(pod(NODE, spec))
    })
}

fn sizes() -> impl Strategy<Value = Map<String, Value>> {
    let one = |resource: &'static str| {
        (
            prop::option::of(1..=100_u8),
            prop::option::of(quantity(resource)),
            prop::option::of(quantity(resource)),
        )
    };
    (one("cpu"), one("memory"), one("ephemeral-storage")).prop_map(|(cpu, memory, storage)| {
        let mut size = Map::new();
        for ((resource, percent_key, min_key, max_key), (percent, min, max)) in
            RESOURCES.into_iter().zip([cpu, memory, storage])
        {
            if let Some(percent) = percent {
                size.insert(percent_key.to_owned(), json!(percent));
            }
            let read = |text: &String| {
                amount(&json!({"resources": {"x": {resource: text}}}), "x", resource).unwrap()
            };
            let ordered = !matches!((&min, &max), (Some(min), Some(max)) if read(min) > read(max));
            if let Some(min) = min {
                size.insert(min_key.to_owned(), json!(min));
            }
            if let Some(max) = max.filter(|_| ordered) {
                size.insert(max_key.to_owned(), json!(max));
            }
        }
        size
    })
}

fn shares() -> impl Strategy<Value = Vec<Value>> {
    let share = prop_oneof![
        (1..30_u32).prop_map(|percent| json!({"percent": percent})),
        (1..100_u32).prop_map(|weight| json!({"weight": weight})),
    ];
    let name = prop::sample::subsequence(vec!["c0", "c1", "c2", "i0", "i1"], 0..=3);
    (name, prop::collection::vec(share, 3)).prop_map(|(names, shares)| {
        names
            .into_iter()
            .zip(shares)
            .map(|(name, mut share)| {
                share["name"] = json!(name);
                share
            })
            .collect()
    })
}

/// Any valid template.
fn templates() -> impl Strategy<Value = Value> {
    let policy = || prop::sample::select(vec!["Equal", "None", "Keep", "Ratio"]);
    (
        sizes(),
        any::<bool>(),
        shares(),
        [policy(), policy(), policy()],
        prop::sample::select(vec!["KeepMin", "Cap", "UseTemplate"]),
        prop::option::of(sizes()),
    )
        .prop_map(|(mut spec, split, shares, [cpu, memory, storage], when, other)| {
            spec.insert("distribution".into(), json!(if split { "Split" } else { "Replicate" }));
            spec.insert("containers".into(), json!(if split { shares } else { vec![] }));
            spec.insert("limits".into(), json!({"cpu": cpu, "memory": memory, "storage": storage}));
            spec.insert("whenMinExceedsAllocatable".into(), json!(when));
            if let Some(mut other) = other {
                other.insert("nodeSelector".into(), json!({"matchLabels": {"size": NODE}}));
                spec.insert("overrides".into(), json!([other]));
            }
            Value::Object(spec)
        })
}

fn nodes() -> impl Strategy<Value = Value> {
    let amount = |resource| prop::option::of(quantity(resource));
    (amount("cpu"), amount("memory"), amount("ephemeral-storage")).prop_map(|(cpu, memory, storage)| {
        let mut allocatable = Map::new();
        for (name, quantity) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)] {
            allocatable.extend(quantity.map(|quantity| (name.to_owned(), json!(quantity))));
        }
        node(NODE, Value::Object(allocatable))
    })
}

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
    let allocatable = node["status"]["allocatable"].get(resource).map(read);
    let min_amount = field(min).map_or(0, |min| read(&min));
    let max_amount = field(max).map_or(i64::MAX, |max| read(&max));
    let share = allocatable.unwrap_or(0) / 100 * field(percent).and_then(|p| p.as_i64()).unwrap_or(0)
        + allocatable.unwrap_or(0) % 100 * field(percent).and_then(|p| p.as_i64()).unwrap_or(0) / 100;
    let too_much = allocatable.is_some_and(|allocatable| min_amount > allocatable);
    let amount = match spec["whenMinExceedsAllocatable"].as_str().unwrap() {
        "UseTemplate" if too_much => return None,
        "Cap" if too_much => allocatable.unwrap().min(max_amount),
        _ => share.max(min_amount).min(max_amount),
    };
    Some(amount).filter(|amount| *amount > 0)
}

/// Kubernetes' `PodRequests` by another implementation.
fn effective(pod: &Value, resource: &str) -> i64 {
    let request = |container: &Value| amount(container, "requests", resource).unwrap_or(0);
    let mut together: i64 = pod["spec"]["containers"].as_array().unwrap().iter().map(request).sum();
    let (mut sidecars, mut most) = (0, 0);
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
