//! Any peer pod, and settings.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::VM;

const QUANTITIES: [&str; 12] =
    ["0", "1", "2", "100m", "500m", "0.9999", "1.0001", "64Mi", "2Mi", "4Mi", "1Gi", "-1"];
const NAMES: [&str; 17] = [
    "cpu",
    "cpu",
    "memory",
    "memory",
    "ephemeral-storage",
    "nvidia.com/gpu",
    "nvidia.com/gpu",
    "hugepages-2Mi",
    "hugepages-1Gi",
    "hugepages-x",
    "example.kubernetes.io/x",
    "requests.example.com/x",
    "foo",
    "cpu ",
    "a/b/c",
    "Example.com/x",
    VM,
];

/// The name of a resource, its request and its limit.
type Entry = (&'static str, Option<&'static str>, Option<&'static str>);

/// An entry that Kubernetes accepts.
fn sound() -> impl Strategy<Value = Entry> {
    let entries = vec![
        ("cpu", "1", "2"),
        ("cpu", "500m", "500m"),
        ("memory", "64Mi", "1Gi"),
        ("memory", "64Mi", "64Mi"),
        ("ephemeral-storage", "1Gi", "2Gi"),
        ("nvidia.com/gpu", "1", "1"),
        ("example.com/a_b", "2", "2"),
        ("hugepages-2Mi", "4Mi", "4Mi"),
        ("example.kubernetes.io/x", "500m", "1"),
    ];
    (select(entries), any::<(bool, bool)>()).prop_map(|((name, request, limit), (requested, limited))| {
        let is_device = request == limit;
        (name, (requested || is_device).then_some(request), (limited || is_device).then_some(limit))
    })
}

/// Entries that break a rule, each rule alone, and two that only seem to.
const FAULTS: [Entry; 22] = [
    ("cpu", Some("2"), Some("1")),
    ("memory", Some("2Gi"), Some("1Gi")),
    ("cpu", Some("-1"), None),
    ("memory", None, Some("-1")),
    ("nvidia.com/gpu", Some("500m"), Some("500m")),
    ("nvidia.com/gpu", None, Some("1500m")),
    ("nvidia.com/gpu", Some("1"), Some("2")),
    ("nvidia.com/gpu", Some("2"), Some("1")),
    ("nvidia.com/gpu", Some("1"), None),
    ("hugepages-2Mi", Some("2Mi"), Some("4Mi")),
    ("hugepages-2Mi", Some("2Mi"), None),
    ("hugepages-2Mi", Some("3Mi"), Some("3Mi")),
    ("hugepages-x", Some("1"), Some("1")),
    ("foo", Some("1"), None),
    ("cpu ", Some("1"), None),
    ("a/b/c", Some("1"), Some("1")),
    ("Example.com/x", Some("1"), Some("1")),
    ("requests.example.com/x", Some("1"), Some("1")),
    ("example.com/x.", Some("1"), Some("1")),
    ("requests.cpu", Some("1"), None),
    ("nvidia.com/gpu", Some("0.9999"), Some("0.9999")),
    ("cpu", Some("1.0009"), Some("1.001")),
];

fn entry() -> impl Strategy<Value = Entry> {
    let any_entry =
        (select(&NAMES[..]), option::of(select(&QUANTITIES[..])), option::of(select(&QUANTITIES[..])));
    prop_oneof![40 => sound(), 3 => select(&FAULTS[..]), 1 => any_entry]
}

fn resources() -> impl Strategy<Value = Value> {
    let claim = (
        prop_oneof![12 => select(vec!["one", "two"]), 1 => select(vec!["nobody", ""])],
        prop_oneof![6 => Just(None), 6 => Just(Some("r")), 1 => Just(Some("No"))],
    );
    let claims = option::weighted(0.2, vec(claim, 1..3));
    (vec(entry(), 0..5), claims).prop_map(|(entries, claims)| {
        let mut requests = Map::new();
        let mut limits = Map::new();
        for (name, request, limit) in entries {
            requests.remove(name);
            limits.remove(name);
            requests.extend(request.map(|quantity| (name.to_owned(), json!(quantity))));
            limits.extend(limit.map(|quantity| (name.to_owned(), json!(quantity))));
        }
        let mut resources = json!({"requests": requests, "limits": limits});
        if let Some(claims) = claims {
            let claims = claims.into_iter().map(|(name, request)| match request {
                Some(request) => json!({"name": name, "request": request}),
                None => json!({"name": name}),
            });
            resources["claims"] = claims.collect();
        }
        resources
    })
}

fn containers(
    prefix: &'static str,
    count: std::ops::Range<usize>,
    may_restart: bool,
) -> impl Strategy<Value = Value> {
    vec((resources(), any::<bool>()), count).prop_map(move |list| {
        let named = list.into_iter().enumerate().map(|(index, (resources, restarts))| {
            let mut container =
                json!({"name": format!("{prefix}{index}"), "image": "i", "resources": resources});
            if restarts && may_restart {
                container["restartPolicy"] = json!("Always");
            }
            container
        });
        named.collect()
    })
}

/// `spec.resources`: mostly larger than the containers' total.
fn pod_level() -> impl Strategy<Value = Value> {
    let amount = select(vec!["16", "1", "500m", "64Gi", "1Gi"]);
    let name = prop_oneof![
        12 => select(vec!["cpu", "memory"]), 3 => Just("hugepages-2Mi"), 1 => select(vec!["nvidia.com/gpu", "foo"]),
    ];
    let list = || vec((name.clone(), amount.clone()), 0..3);
    (list(), list(), prop::bool::weighted(0.05)).prop_map(|(requests, limits, has_claims)| {
        let map =
            |list: Vec<(&str, &str)>| -> Value { list.into_iter().map(|(k, v)| (k, json!(v))).collect() };
        let mut resources = json!({"requests": map(requests), "limits": map(limits)});
        if has_claims {
            resources["claims"] = json!([{"name": "one"}]);
        }
        resources
    })
}

fn pod_claims() -> impl Strategy<Value = Value> {
    let sound = json!([
        {"name": "one", "resourceClaimName": "object"}, {"name": "two", "resourceClaimTemplateName": "a.template"},
    ]);
    let faulty = vec![
        json!([{"name": "one"}]),
        json!([{"name": "one", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}]),
        json!([{"name": "one", "resourceClaimName": "a"}, {"name": "one", "resourceClaimName": "b"}]),
        json!([{"name": "One", "resourceClaimName": "a"}]),
        json!([{"name": "one.two", "resourceClaimName": "a"}]),
        json!([{"name": "one", "resourceClaimName": "A"}]),
    ];
    prop_oneof![12 => Just(sound), 1 => select(faulty), 1 => Just(json!([]))]
}

/// Pods of the class `kata-remote`, valid ones and ones that break a rule of Kubernetes.
pub(crate) fn pods() -> impl Strategy<Value = Value> {
    let media = select(vec!["HugePages", "HugePages-2Mi", "HugePages-1Gi", "Memory", ""]);
    let overhead =
        select(vec![json!({"cpu": "250m", "memory": "120Mi"}), json!({"cpu": "-1"}), json!({"foo": 1})]);
    (
        (containers("c", 1..4, false), option::of(containers("i", 1..3, true))),
        option::weighted(0.8, pod_claims()),
        option::weighted(0.3, pod_level()),
        option::weighted(0.3, media),
        option::weighted(0.1, overhead),
        prop::bool::weighted(0.02),
    )
        .prop_map(|((containers, inits), claims, pod_level, medium, overhead, windows)| {
            let mut spec = json!({"runtimeClassName": "kata-remote", "containers": containers});
            if let Some(medium) = medium {
                spec["volumes"] = json!([{"name": "v", "emptyDir": {"medium": medium, "sizeLimit": "1Gi"}}]);
                spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
            }
            if windows {
                spec["os"] = json!({"name": "windows"});
            }
            let members = [
                ("initContainers", inits),
                ("resourceClaims", claims),
                ("resources", pod_level),
                ("overhead", overhead),
            ];
            for (key, value) in members {
                if let Some(value) = value {
                    spec[key] = value;
                }
            }
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec})
        })
}

/// Settings with which different resources stay on the containers.
pub(crate) fn settings() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"sizing": "effective", "overhead": true}),
        json!({"keepResources": ["cpu", "memory", "hugepages-2Mi", "claims"]}),
        json!({
            "keepResources": ["ephemeral-storage", "nvidia.com/gpu", "hugepages-2Mi"],
            "placeholders": {"cpu": {"request": "1m", "limit": "1"}, "memory": {"request": "1Mi"}},
        }),
    ])
}
