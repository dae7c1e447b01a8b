//! Properties of the decision about any pod.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use podshaper_core::admission::Verdict;
use podshaper_core::quantity::Quantity;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use support::{
    PREFIX, VM, compatible, containers_mut, decide, decoded_by_api_server, limit_ranged, pass, patched,
    sizes, untouched, webhook, without_limit_ranger,
};

/// Quantities that a VM can have.
const QUANTITIES: [&str; 17] = [
    "0", "1", "2", "100m", "1500m", "0.5", ".5", "5.", "1e3", "1E3", "64Mi", "1Gi", "1048577", "100M", "1u",
    "3n", "+2",
];
/// Quantities that are invalid, or too large for a VM.
const INVALID: [&str; 9] = ["-1", "", "abc", "9Ei", "10E", "9223372036854775807", "1e40", "1Zi", "\u{1f980}"];

const RESOURCES: [&str; 10] = [
    "cpu",
    "memory",
    "cpu",
    "memory",
    "nvidia.com/gpu",
    "ephemeral-storage",
    "hugepages-2Mi",
    "example.com/fpga",
    "example.com/a~b",
    VM,
];

/// Settings with any of their keys.
fn settings() -> impl Strategy<Value = Value> {
    let effective = (select(vec!["max", "requests", "limits"]), any::<bool>())
        .prop_map(|(basis, overhead)| json!({"sizing": "effective", "basis": basis, "overhead": overhead}));
    let parts = vec![
        json!({"headroom": {"vcpus": "+10%", "memory": "+256Mi"}}),
        json!({"fallback": {"vcpus": 2, "memory": "2Gi"}}),
        json!({"floor": {"vcpus": 1, "memory": "512Mi"}, "step": {"vcpus": 2, "memory": "1Gi"}}),
        json!({"userAnnotations": "keep"}),
        json!({"userAnnotations": "max"}),
        json!({"gpus": {"nvidia.com/gpu": 2, "example.com/fpga": 3}}),
        json!({"keepResources": ["ephemeral-storage", "cpu", "claims"]}),
        json!({"placeholders": {"cpu": {"request": "1m", "limit": "1"}, "memory": {"request": "1Mi"}}}),
        json!({"catalogue": [
            {"name": "s", "vcpus": 2, "memory": "4Gi", "price": 1},
            {"name": "m", "vcpus": 16, "memory": "64Gi", "price": 2},
            {"name": "l", "vcpus": 100_000, "memory": "4Pi", "gpus": 100_000, "price": 9},
            {"name": "xl", "vcpus": 100_000, "memory": "4Pi", "price": 8},
        ]}),
    ];
    (prop_oneof![Just(json!({})), effective], subsequence(parts.clone(), 0..=parts.len())).prop_map(
        |(sizing, parts)| {
            let all = std::iter::once(sizing).chain(parts).flat_map(|part| part.as_object().unwrap().clone());
            Value::Object(all.collect())
        },
    )
}

fn quantities(values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![
        9 => prop::collection::vec((select(&RESOURCES[..]), select(values)), 0..5)
            .prop_map(|list| Value::Object(list.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect())),
        1 => Just(Value::Null),
    ]
}

fn resources(of: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let claims = prop_oneof![4 => Just(None), 1 => Just(Some(json!([{"name": "c", "request": "r"}]))), 1 => Just(Some(json!(null)))];
    let all = (proptest::option::of(quantities(of)), proptest::option::of(quantities(of)), claims);
    all.prop_map(|(requests, limits, claims)| {
        let members = [("requests", requests), ("limits", limits), ("claims", claims)];
        Value::Object(members.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect())
    })
}

fn container(of: &'static [&'static str]) -> impl Strategy<Value = Map<String, Value>> {
    let resources =
        prop_oneof![1 => Just(None), 1 => Just(Some(Value::Null)), 6 => resources(of).prop_map(Some)];
    (resources, any::<bool>(), any::<Option<u32>>()).prop_map(|(resources, sidecar, unknown)| {
        let mut container = Map::new();
        if let Some(unknown) = unknown {
            container.insert("a/b~c\u{e9}".into(), json!({"n": unknown, "resources": {"cpu": 1.5}}));
        }
        container.extend(resources.map(|resources| ("resources".to_owned(), resources)));
        if sidecar {
            container.insert("restartPolicy".into(), json!("Always"));
        }
        container
    })
}

fn annotations() -> impl Strategy<Value = Value> {
    let own = ["default_vcpus", "default_memory", "default_gpus", "machine_type"]
        .map(|name| format!("{PREFIX}{name}"));
    let other = ["a/b~1", "\u{e9}\"\\\n", ""].map(str::to_owned);
    let key = select(own.into_iter().chain(other).collect::<Vec<_>>());
    let value = select(vec!["8", "1024", "0", "x", "\u{1f980}\"", ""]);
    prop::collection::vec((key, value), 0..5)
        .prop_map(|list| Value::Object(list.into_iter().map(|(k, v)| (k, json!(v))).collect()))
}

fn pod(of: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let metadata = prop_oneof![
        Just(None),
        Just(Some(json!(null))),
        Just(Some(json!({"annotations": null, "labels": {"x/y": "z"}}))),
        annotations().prop_map(|annotations| Some(json!({"name": "p", "annotations": annotations}))),
    ];
    let containers = prop::collection::vec(container(of), 1..5);
    let inits = proptest::option::of(prop::collection::vec(container(of), 0..4));
    let pod_level = prop_oneof![3 => Just(None), 1 => resources(of).prop_map(Some)];
    let overhead = proptest::option::of(Just(json!({"cpu": "250m", "memory": "120Mi"})));
    (metadata, containers, inits, pod_level, overhead).prop_map(
        |(metadata, containers, inits, resources, overhead)| {
            let name = |list: Vec<Map<String, Value>>, letter: char| -> Value {
                let named = list.into_iter().enumerate().map(|(i, mut container)| {
                    container.insert("name".into(), json!(format!("{letter}{i}")));
                    Value::Object(container)
                });
                named.collect()
            };
            let mut spec = json!({"runtimeClassName": "kata-remote", "unknown": [1, {"x": null}]});
            spec["containers"] = name(containers, 'c');
            if let Some(inits) = inits {
                spec["initContainers"] = name(inits, 'i');
            }
            for (key, value) in [("resources", resources), ("overhead", overhead)] {
                if let Some(value) = value {
                    spec[key] = value;
                }
            }
            let mut pod = json!({"kind": "Pod", "spec": spec, "from/the~future": {"a": [1.5, "\u{e9}"]}});
            if let Some(metadata) = metadata {
                pod["metadata"] = metadata;
            }
            pod
        },
    )
}

/// A pod that the API server accepts.
fn valid_pod() -> impl Strategy<Value = Value> {
    pod(&QUANTITIES).prop_map(|mut pod| {
        for container in containers_mut(&mut pod) {
            make_valid(container);
        }
        pod["spec"]["resourceClaims"] = json!([{"name": "c", "resourceClaimName": "object"}]);
        let spec = pod["spec"].as_object_mut().unwrap();
        if let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) {
            resources.shift_remove("claims");
            // More than all containers together have, and little enough for nanounits in 64 bits.
            for (field, amount) in [("requests", "9G"), ("limits", "9200M")] {
                if let Some(list) = resources.get_mut(field).and_then(Value::as_object_mut) {
                    list.retain(|name, _| matches!(name.as_str(), "cpu" | "memory"));
                    for (_, quantity) in list {
                        *quantity = json!(amount);
                    }
                }
            }
        }
        pod
    })
}

fn valid_container() -> impl Strategy<Value = Map<String, Value>> {
    container(&QUANTITIES).prop_map(|mut container| {
        make_valid(&mut container);
        container
    })
}

/// Makes resources valid that have names of [`RESOURCES`].
fn make_valid(container: &mut Map<String, Value>) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let list = |resources: &Map<String, Value>, field: &str| {
        resources.get(field).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let mut requests = list(resources, "requests");
    let mut limits = list(resources, "limits");
    let names: Vec<String> = requests.keys().chain(limits.keys()).cloned().collect();
    for name in names {
        let amount = |list: &Map<String, Value>| {
            list.get(&name).map(|text| text.as_str().unwrap().parse::<Quantity>().unwrap())
        };
        let whole = if name == "hugepages-2Mi" { "2Mi" } else { "3" };
        match &*name {
            "example.com/a~b" => {
                requests.shift_remove(&name);
                limits.shift_remove(&name);
            }
            "cpu" | "memory" | "ephemeral-storage" => {
                if let (Some(request), Some(limit)) = (amount(&requests), amount(&limits))
                    && request > limit
                {
                    std::mem::swap(&mut requests[&name], &mut limits[&name]);
                }
            }
            _ => {
                requests.insert(name.clone(), json!(whole));
                limits.insert(name, json!(whole));
            }
        }
    }
    if limits.contains_key("hugepages-2Mi") && !limits.contains_key("cpu") {
        requests.entry("cpu").or_insert(json!("1"));
    }
    resources.insert("requests".into(), Value::Object(requests));
    resources.insert("limits".into(), Value::Object(limits));
}

/// `pod` with the container `new` before or after the others.
fn injected(mut pod: Value, new: &Value, init: bool, front: bool) -> Value {
    let list = if init { "initContainers" } else { "containers" };
    let list =
        pod["spec"].as_object_mut().unwrap().entry(list).or_insert_with(|| json!([])).as_array_mut().unwrap();
    list.insert(if front { 0 } else { list.len() }, new.clone());
    pod
}

/// Kubernetes' formula as a simulation: the most that runs at any time of the pod's life.
fn peak(pod: &Value, side: &str, resource: &str) -> i128 {
    let requested = |container: &Value| -> i128 {
        let text = container["resources"][side][resource].as_str().unwrap_or("0");
        text.parse::<Quantity>().unwrap().scaled_value(-9).unwrap().into()
    };
    let list = |name: &str| pod["spec"][name].as_array().cloned().unwrap_or_default();
    let mut sidecars = 0;
    let mut peak = 0;
    for init in list("initContainers") {
        peak = peak.max(sidecars + requested(&init));
        if init["restartPolicy"] == "Always" {
            sidecars += requested(&init);
        }
    }
    peak.max(sidecars + list("containers").iter().map(requested).sum::<i128>())
}

/// The amount of `spec.resources`.
fn pod_level(pod: &Value, side: &str, resource: &str) -> Option<i128> {
    let text = pod["spec"]["resources"][side][resource].as_str()?;
    Some(text.parse::<Quantity>().unwrap().scaled_value(-9).unwrap().into())
}

/// The sum over all containers.
fn sum(pod: &Value, side: &str, resource: &str) -> i128 {
    let mut flat = pod.clone();
    let mut all = flat["spec"]["containers"].as_array().cloned().unwrap();
    all.extend(flat["spec"]["initContainers"].as_array().cloned().unwrap_or_default());
    flat["spec"] = json!({"containers": all});
    peak(&flat, side, resource)
}

const NANO: i128 = 1_000_000_000;

proptest! {
    #[test]
    fn patch_applies_and_changes_nothing_else(settings in settings(), pod in pod(&INVALID), sane in valid_pod()) {
        let webhook = webhook(&settings);
        for pod in [pod, sane] {
            let decision = decide(&webhook, &pod);
            let after = patched(&pod, &decision);
            if decision.verdict == Verdict::Admit && !decision.patch.is_empty() {
                prop_assert_eq!(untouched(after.clone()), untouched(pod));
                prop_assert_eq!(&after["spec"]["containers"][0]["resources"]["limits"][VM], "1");
            } else {
                prop_assert_eq!(after, pod);
                prop_assert!(decision.verdict != Verdict::Admit || !decision.warnings.is_empty());
            }
        }
    }

    #[test]
    fn second_pass_changes_nothing(settings in settings(), mut pod in valid_pod(), same_names in any::<bool>()) {
        for container in containers_mut(&mut pod).into_iter().filter(|_| same_names) {
            container.insert("name".into(), json!("same"));
        }
        let webhook = webhook(&settings);
        let pod = decoded_by_api_server(pod);
        if let Some(first) = pass(&webhook, &pod) {
            let first = decoded_by_api_server(first);
            let second = decide(&webhook, &first);
            prop_assert!(second.patch.is_empty(), "{}", String::from_utf8(second.patch.to_json()).unwrap());
            prop_assert_eq!(second.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn limit_range_defaults_between_passes_change_nothing(settings in settings(), pod in valid_pod()) {
        let webhook = webhook(&settings);
        let pod = decoded_by_api_server(pod);
        if let Some(first) = pass(&webhook, &pod) {
            let defaults = json!({"cpu": "7", "memory": "9Gi", "ephemeral-storage": "1Gi"});
            let filled = limit_ranged(first.clone(), &defaults, &json!({"cpu": "8", "memory": "9Gi"}));
            let decision = decide(&webhook, &filled);
            prop_assert_eq!(&decision.warnings, &[""; 0]);
            let second = patched(&filled, &decision);
            prop_assert_eq!(sizes(&second), sizes(&first));
            let compared = |pod| without_limit_ranger(decoded_by_api_server(pod));
            prop_assert_eq!(compared(second), compared(first));
        }
    }

    #[test]
    fn injected_container_counts_like_an_original_one(
        settings in settings(), pod in valid_pod(), new in valid_container(),
        init in any::<bool>(), front in any::<bool>(), limit_range in any::<bool>(),
    ) {
        let webhook = webhook(&settings);
        let mut new = Value::Object(new);
        new["name"] = json!("injected");
        let filled = |pod: Value| {
            let requests = if limit_range { json!({"cpu": "300m", "memory": "1Gi"}) } else { json!({}) };
            limit_ranged(pod, &requests, &json!({}))
        };
        let at_once = pass(&webhook, &filled(injected(pod.clone(), &new, init, front)));
        let first = pass(&webhook, &filled(pod));
        let Some((at_once, first)) = at_once.zip(first) else { return Ok(()) };
        // A default request may exceed a limit of the author's, and then the pod is invalid.
        prop_assume!(at_once["spec"]["containers"][0]["resources"]["limits"][VM] == "1");
        let later = pass(&webhook, &filled(injected(first, &new, init, front))).unwrap();
        let compared = |pod| without_limit_ranger(decoded_by_api_server(pod));
        prop_assert_eq!(compared(later), compared(at_once));
    }

    #[test]
    fn audit_never_patches(mut settings in settings(), pod in pod(&INVALID)) {
        settings["mode"] = json!("audit");
        let decision = decide(&webhook(&settings), &pod);
        prop_assert!(decision.patch.is_empty());
        prop_assert_eq!(decision.verdict, Verdict::Admit);
        prop_assert!(!decision.warnings.is_empty());
    }

    #[test]
    fn compat_sizing_is_the_sum(pod in valid_pod()) {
        let mut pod = pod;
        pod["metadata"] = json!({});
        let size = |resource: &str, unit: i128| {
            let side = |side: &str| pod_level(&pod, side, resource).unwrap_or_else(|| sum(&pod, side, resource));
            let requests = side("requests");
            let limits = side("limits");
            let total = if requests != 0 && limits >= requests { limits } else { requests };
            let rounded = (total + unit - 1) / unit;
            if rounded == 0 { "-".to_owned() } else { rounded.to_string() }
        };
        let gpus = (sum(&pod, "requests", "nvidia.com/gpu") + NANO - 1) / NANO;
        let gpus = if gpus == 0 { "-".to_owned() } else { gpus.to_string() };
        let expected = format!("{} {} {gpus} -", size("cpu", NANO), size("memory", NANO << 20));
        prop_assert_eq!(sizes(&pass(&compatible(), &pod).unwrap()), expected);
    }

    #[test]
    fn effective_sizing_is_the_peak_over_time(pod in valid_pod(), basis in select(vec!["requests", "limits", "max"])) {
        let mut pod = pod;
        pod["metadata"] = json!({});
        let size = |resource: &str, unit: i128| {
            let side = |side: &str| pod_level(&pod, side, resource).unwrap_or_else(|| peak(&pod, side, resource));
            let total = match basis {
                "max" => side("requests").max(side("limits")),
                one => side(one),
            };
            let rounded = (total + unit - 1) / unit;
            if rounded == 0 { "-".to_owned() } else { rounded.to_string() }
        };
        let after = pass(&webhook(&json!({"sizing": "effective", "basis": basis, "gpus": {}})), &pod).unwrap();
        prop_assert_eq!(sizes(&after), format!("{} {} - -", size("cpu", NANO), size("memory", NANO << 20)));
        prop_assert!(after["spec"].get("resources").is_none());
    }

    #[test]
    fn no_fitting_machine_is_cheaper_than_the_chosen_one(
        machines in prop::collection::vec((1..9_u64, 1..9_u64, 0..3_u64, 0..4_u8), 1..8),
        wanted in (1..9_u64, 1..9_u64, 0..3_u64),
    ) {
        let catalogue: Vec<Value> = machines.iter().enumerate().map(|(i, (vcpus, memory, gpus, price))| {
            json!({"name": i.to_string(), "vcpus": vcpus, "memory": format!("{memory}Gi"), "gpus": gpus, "price": price})
        }).collect();
        let (vcpus, memory, gpus) = wanted;
        let asked = json!({"cpu": vcpus.to_string(), "memory": format!("{memory}Gi"), "nvidia.com/gpu": gpus.to_string()});
        let pod = support::pod(json!([support::container("c", asked.clone(), asked)]));
        let fits = |(v, m, g, _): &(u64, u64, u64, u8)| *v >= vcpus && *m >= memory && *g >= gpus && (gpus > 0 || *g == 0);
        let cheapest = machines.iter().filter(|m| fits(m)).map(|m| m.3).min();
        let chosen = pass(&webhook(&json!({"catalogue": catalogue})), &pod).map(|after| {
            let name = sizes(&after).split(' ').next_back().unwrap().parse::<usize>().unwrap();
            assert!(fits(&machines[name]));
            machines[name].3
        });
        prop_assert_eq!(chosen, cheapest);
    }
}
