//! Generated pods that the API server accepts.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use crate::release::peer_pod;

/// `count` different peer pods for `namespace`, the same in every run.
pub fn peer_pods(namespace: &str, count: usize) -> Vec<Value> {
    let mut runner = TestRunner::deterministic();
    let base = peer_pod(namespace);
    let pods = pod(base);
    (0..count).map(|_| pods.new_tree(&mut runner).expect("a pod").current()).collect()
}

fn pod(base: Value) -> impl Strategy<Value = Value> {
    (vec(container(), 1..5), vec((container(), any::<bool>()), 0..3), annotations()).prop_map(
        move |(containers, inits, annotations)| {
            let mut pod = base.clone();
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = annotations;
            }
            let named = |(index, mut container): (usize, Value), prefix: &str| {
                container["name"] = json!(format!("{prefix}-{index}"));
                container
            };
            pod["spec"]["containers"] = containers.into_iter().enumerate().map(|c| named(c, "app")).collect();
            pod["spec"]["initContainers"] = inits
                .into_iter()
                .map(|(mut container, sidecar)| {
                    if sidecar {
                        container["restartPolicy"] = json!("Always");
                    }
                    container
                })
                .enumerate()
                .map(|c| named(c, "init"))
                .collect();
            pod
        },
    )
}

fn annotations() -> impl Strategy<Value = Option<Value>> {
    let key = prop_oneof![
        "[a-z]([a-z0-9._-]{0,20}[a-z0-9])?",
        "[a-z]{1,8}\\.example\\.com/[A-Za-z]([A-Za-z0-9._-]{0,20}[a-z0-9])?",
        Just("io.katacontainers.config.hypervisor.default_vcpus".to_owned()),
        Just("io.katacontainers.config.hypervisor.machine_type".to_owned()),
    ];
    prop::option::of(btree_map(key, any::<String>(), 0..5).prop_map(|map| json!(map)))
}

fn container() -> impl Strategy<Value = Value> {
    (resources(), prop::bool::ANY).prop_map(|(resources, resizable)| {
        let mut container = json!({"image": "podshaper/pause:1"});
        if let Some(resources) = resources {
            container["resources"] = resources;
        }
        if resizable {
            container["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
        }
        container
    })
}

/// Requests and limits, each request at most its limit, as the API server demands.
fn resources() -> impl Strategy<Value = Option<Value>> {
    let amount = |units: &'static [&'static str]| {
        (1u32..4000, prop::sample::select(units), any::<bool>())
            .prop_map(|(n, unit, limited)| (format!("{n}{unit}"), limited))
    };
    let each = (
        prop::option::of(amount(&["m", "", "e-1", ".5"])),
        prop::option::of(amount(&["Mi", "M", "Gi", "000Ki", "e6"])),
        prop::option::of(amount(&["Mi", "M"])),
        prop::option::of(1u32..4),
    );
    prop::option::of(each.prop_map(|(cpu, memory, storage, gpus)| {
        let mut requests = Map::new();
        let mut limits = Map::new();
        for (name, amount) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)] {
            let Some((amount, limited)) = amount else { continue };
            // A limit alone would be made a request too, before any webhook sees it.
            requests.insert(name.to_owned(), json!(amount));
            if limited {
                limits.insert(name.to_owned(), json!(amount));
            }
        }
        if let Some(gpus) = gpus {
            requests.insert("nvidia.com/gpu".to_owned(), json!(gpus.to_string()));
            limits.insert("nvidia.com/gpu".to_owned(), json!(gpus.to_string()));
        }
        // The API server drops an empty list.
        let lists =
            [("requests", requests), ("limits", limits)].into_iter().filter(|(_, list)| !list.is_empty());
        lists.map(|(name, list)| (name.to_owned(), Value::Object(list))).collect()
    }))
}
