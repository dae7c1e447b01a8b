//! Any pod, template, node and LimitRange.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{NODE, amount, decoded_by_api_server, node, pod};

/// Each resource, and the fields of its percentage, minimum and maximum.
pub(crate) const RESOURCES: [(&str, &str, &str, &str); 3] = [
    ("cpu", "cpuPercentage", "minCPU", "maxCPU"),
    ("memory", "memoryPercentage", "minMemory", "maxMemory"),
    ("ephemeral-storage", "storagePercentage", "minStorage", "maxStorage"),
];

pub(crate) fn quantity(resource: &'static str) -> impl Strategy<Value = String> {
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
            let mut requests = Map::new();
            let mut limits = Map::new();
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

pub(crate) fn pods() -> impl Strategy<Value = Value> {
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
pub(crate) fn templates() -> impl Strategy<Value = Value> {
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

pub(crate) fn nodes() -> impl Strategy<Value = Value> {
    let amount = |resource| prop::option::of(quantity(resource));
    (amount("cpu"), amount("memory"), amount("ephemeral-storage")).prop_map(|(cpu, memory, storage)| {
        let mut allocatable = Map::new();
        for (name, quantity) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)] {
            allocatable.extend(quantity.map(|quantity| (name.to_owned(), json!(quantity))));
        }
        node(NODE, Value::Object(allocatable))
    })
}

/// LimitRanges as administrators write them: few constraints, which many pods meet.
pub(crate) fn limit_ranges() -> impl Strategy<Value = Vec<Value>> {
    let amounts = |few: Vec<&'static str>| prop::option::weighted(0.25, prop::sample::select(few));
    let list = |cpu: Vec<&'static str>, memory: Vec<&'static str>| {
        (amounts(cpu), amounts(memory.clone()), amounts(memory)).prop_map(|(cpu, memory, storage)| {
            let all = [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)];
            let set = all.into_iter().filter_map(|(name, amount)| Some((name.to_owned(), json!(amount?))));
            Value::Object(set.collect())
        })
    };
    let item = (
        any::<bool>(),
        list(vec!["1m", "10m", "200m"], vec!["1", "1Mi", "200Mi"]),
        list(vec!["900m", "2", "6"], vec!["900M", "4Gi", "6T"]),
        list(vec!["1", "1.5", "3", "40"], vec!["1", "1.1", "4", "33"]),
        list(vec!["300m", "1"], vec!["200Mi", "1G"]),
        list(vec!["20m", "300m"], vec!["2Mi", "200Mi"]),
    );
    let item = item.prop_map(|(of_pod, min, max, ratio, default, default_request)| {
        let mut item = json!({"type": "Pod", "min": min, "max": max, "maxLimitRequestRatio": ratio});
        if !of_pod {
            item["type"] = json!("Container");
            item["default"] = default;
            item["defaultRequest"] = default_request;
        }
        item
    });
    let range = prop::collection::vec(item, 1..3).prop_map(|limits| {
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"namespace": "ns"}, "spec": {"limits": limits}})
    });
    prop::collection::vec(range, 1..3)
}

/// A pod, some of them with resources of the pod as a whole.
pub(crate) fn pods_with_pod_level() -> impl Strategy<Value = Value> {
    let amounts = || (prop::option::of(quantity("cpu")), prop::option::of(quantity("memory")));
    (pods(), prop::option::weighted(0.3, (amounts(), amounts()))).prop_map(|(mut pod, pod_level)| {
        if let Some((requests, limits)) = pod_level {
            pod["spec"]["resources"] = json!({
                "requests": {"cpu": requests.0, "memory": requests.1},
                "limits": {"cpu": limits.0, "memory": limits.1},
            });
            for field in ["requests", "limits"] {
                let list = pod["spec"]["resources"][field].as_object_mut().unwrap();
                list.retain(|_, amount| !amount.is_null());
            }
        }
        pod
    })
}
