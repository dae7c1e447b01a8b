//! The promises of docs/flexdaemonset.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use flexdaemonset_decision::offline::OfflineCluster;
use podshaper_core::admission::Verdict;
use podshaper_core::facts::FactKey;
use serde_json::{Value, json};
use support::{
    NODE, container, daemon_set, decide, decoded_by_api_server, limit_ranged, node, pass, pod, template,
};

fn cluster(spec: Value, allocatable: Value) -> Vec<Value> {
    vec![node(NODE, allocatable), template(spec), daemon_set()]
}

fn large() -> Value {
    json!({"cpu": "4000m", "memory": "16Gi", "ephemeral-storage": "100Gi"})
}

fn original() -> Value {
    json!({"cpuPercentage": 10, "memoryPercentage": 15, "storagePercentage": 5, "minCPU": "100m", "minMemory": "128Mi", "minStorage": "1Gi"})
}

/// Requests of each container after one pass, init containers last.
fn requests(facts: &[Value], spec: Value) -> Value {
    let after = pass(facts, &pod(NODE, spec));
    let lists = ["containers", "initContainers"].map(|list| after["spec"][list].as_array().cloned());
    lists.into_iter().flatten().flatten().map(|c| c["resources"]["requests"].clone()).collect()
}

#[test]
fn size_is_percentage_of_node() {
    let facts = cluster(original(), large());
    let size = json!({"cpu": "400m", "memory": "2576980377", "ephemeral-storage": "5Gi"});
    let before = pod(NODE, json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
    let after = pass(&facts, &before);
    for container in [&after["spec"]["containers"][0], &after["spec"]["initContainers"][0]] {
        assert_eq!(container["resources"], json!({"requests": size, "limits": size}));
    }
    let record: Value = serde_json::from_str(
        after["metadata"]["annotations"]["podshaper.dev/flexdaemonset"].as_str().unwrap(),
    )
    .unwrap();
    assert_eq!((&record["template"], &record["node"]), (&json!("agent"), &json!(NODE)));
    let small = cluster(original(), json!({"cpu": "500m", "memory": "16Gi"}));
    assert_eq!(
        requests(&small, json!({"containers": [{"name": "a"}]})),
        json!([{"cpu": "100m", "memory": "2576980377", "ephemeral-storage": "1Gi"}]),
        "the minimum of half a core, and of a node without allocatable storage"
    );
}

#[test]
fn resource_without_size_is_unchanged() {
    let facts =
        cluster(json!({"cpuPercentage": 1, "memoryPercentage": 10}), json!({"cpu": "50m", "memory": "1Gi"}));
    let own = json!({"cpu": "7m", "memory": "1Mi", "example.com/a": "1", "ephemeral-storage": "1Gi"});
    let after = pass(&facts, &pod(NODE, json!({"containers": [container("a", own.clone(), own)]})));
    let size = json!({"cpu": "7m", "memory": "107374182", "example.com/a": "1", "ephemeral-storage": "1Gi"});
    assert_eq!(
        after["spec"]["containers"][0]["resources"],
        json!({"requests": size, "limits": size}),
        "one percent of 50m is nothing"
    );
}

#[test]
fn min_above_allocatable_follows_policy() {
    let spec = json!({"containers": [container("a", json!({"cpu": "30m"}), json!({}))]});
    for (when, expected) in [("KeepMin", "2"), ("Cap", "1"), ("UseTemplate", "30m")] {
        let template = json!({"cpuPercentage": 10, "minCPU": 2, "whenMinExceedsAllocatable": when});
        let facts = cluster(template, json!({"cpu": "1"}));
        assert_eq!(requests(&facts, spec.clone()), json!([{"cpu": expected}]), "{when}");
        let warnings = decide(&facts, &pod(NODE, spec.clone())).warnings;
        assert_eq!(warnings.len(), usize::from(when == "KeepMin"), "{when}: {warnings:?}");
    }
}

#[test]
fn first_matching_override_applies() {
    let spec = json!({
        "cpuPercentage": 10, "maxCPU": "1",
        "overrides": [
            {"nodeSelector": {"matchExpressions": [{"key": "size", "operator": "NotIn", "values": [NODE, "other"]}]}, "cpuPercentage": 1},
            {"nodeSelector": {"matchLabels": {"size": NODE}}, "cpuPercentage": 50},
            {"nodeSelector": {}, "cpuPercentage": 2},
        ],
    });
    let facts = [
        cluster(spec, json!({"cpu": "1500m"})),
        vec![node("huge", json!({"cpu": "64"})), node("other", json!({"cpu": "10"}))],
    ]
    .concat();
    for (name, expected) in [(NODE, "750m"), ("huge", "640m"), ("other", "200m")] {
        let after = pass(&facts, &pod(name, json!({"containers": [{"name": "a"}]})));
        assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["cpu"], expected, "{name}");
    }
}

#[test]
fn split_uses_percent_then_weight_then_request() {
    let split = |containers: Value| {
        let spec = json!({"distribution": "Split", "cpuPercentage": 25, "containers": containers});
        cluster(spec, json!({"cpu": "4001m"}))
    };
    let three = ["a", "b", "c"].map(|name| container(name, json!({}), json!({})));
    let three = json!({"containers": three});
    let cpus = |facts: &[Value], spec: &Value| -> Vec<String> {
        let requests = requests(facts, spec.clone());
        requests.as_array().unwrap().iter().map(|r| r["cpu"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(cpus(&split(json!([])), &three), ["334m", "333m", "333m"]);
    let percent = json!([{"name": "b", "percent": 50}]);
    assert_eq!(cpus(&split(percent), &three), ["250m", "500m", "250m"]);
    let weight = json!([{"name": "b", "percent": 10}, {"name": "a", "weight": 2}]);
    assert_eq!(cpus(&split(weight), &three), ["600m", "100m", "300m"]);
    let all =
        json!([{"name": "a", "percent": 10}, {"name": "b", "percent": 10}, {"name": "c", "percent": 20}]);
    assert_eq!(cpus(&split(all), &three), ["250m", "250m", "500m"], "percentages below 100 without a rest");

    let requesting = json!({
        "containers": [container("a", json!({"cpu": "100m"}), json!({})), container("b", json!({}), json!({"cpu": "300m"}))],
        "initContainers": [
            container("i", json!({"cpu": "3"}), json!({})),
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            container("j", json!({}), json!({})),
        ],
    });
    assert_eq!(cpus(&split(json!([])), &requesting), ["200m", "600m", "1", "200m", "800m"]);
    let excluded = json!([{"name": "a", "excluded": true}, {"name": "i", "excluded": true}]);
    assert_eq!(cpus(&split(excluded), &requesting), ["100m", "675m", "3", "225m", "775m"]);
}

#[test]
fn split_without_rest_keeps_own_requests() {
    let spec = json!({"distribution": "Split", "cpuPercentage": 10, "containers": [{"name": "a", "excluded": true}]});
    let facts = cluster(spec, json!({"cpu": "1"}));
    let own = json!({"containers": [container("a", json!({"cpu": "100m"}), json!({})), container("b", json!({"cpu": "5m"}), json!({}))]});
    let decision = decide(&facts, &pod(NODE, own));
    assert!(decision.patch.is_empty());
    assert!(decision.warnings[0].contains("all keep their own"), "{:?}", decision.warnings);
}

#[test]
fn limits_follow_policy() {
    let own = json!({"containers": [container("a", json!({"cpu": "100m", "memory": "64Mi"}), json!({"cpu": "200m", "memory": "1Gi"}))]});
    for (limits, cpu, memory) in [
        (json!({}), json!("1"), json!("512Mi")),
        (json!({"cpu": "None", "memory": "Keep"}), Value::Null, json!("1Gi")),
        (json!({"cpu": "Ratio", "memory": "None"}), json!("2"), Value::Null),
        (json!({"cpu": "Keep", "memory": "Ratio"}), json!("1"), json!("8Gi")),
    ] {
        let spec = json!({"cpuPercentage": 25, "memoryPercentage": 50, "limits": limits});
        let after = pass(&cluster(spec, json!({"cpu": "4", "memory": "1Gi"})), &pod(NODE, own.clone()));
        let set = &after["spec"]["containers"][0]["resources"]["limits"];
        assert_eq!((&set["cpu"], &set["memory"]), (&cpu, &memory), "{limits}");
    }
}

#[test]
fn limit_range_bounds_size_with_warning() {
    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r", "namespace": "ns"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "300m"}, "default": {"cpu": "200m", "memory": "64Mi"}}]},
    });
    let spec = json!({"cpuPercentage": 10, "memoryPercentage": 10, "limits": {"memory": "None"}});
    let facts = [cluster(spec, json!({"cpu": "4", "memory": "1Gi"})), vec![range]].concat();
    let before = limit_ranged(
        pod(NODE, json!({"containers": [{"name": "a"}]})),
        &json!({"cpu": "200m", "memory": "64Mi"}),
    );
    let decision = decide(&facts, &before);
    assert!(decision.warnings[0].contains("LimitRange"), "{:?}", decision.warnings);
    let after = pass(&facts, &before);
    assert_eq!(
        after["spec"]["containers"][0]["resources"],
        json!({
            "limits": {"cpu": "300m", "memory": "107374182"},
            "requests": {"cpu": "300m", "memory": "107374182"},
        }),
        "LimitRanger's default limit of memory would be below the request"
    );
}

#[test]
fn limit_range_moves_excess_to_other_containers() {
    let range = |item: Value| {
        json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r", "namespace": "ns"},
            "spec": {"limits": [item]},
        })
    };
    let split = json!({
        "distribution": "Split", "cpuPercentage": 25, "containers": [{"name": "a", "percent": 60}, {"name": "b", "percent": 10}],
    });
    let replicate = json!({"cpuPercentage": 25});
    let three = ["a", "b", "c"].map(|name| container(name, json!({}), json!({})));
    let three = json!({"containers": three});
    for (spec, item, expected, warning) in [
        (&split, json!({"type": "Container", "max": {"cpu": "2"}}), ["600m", "100m", "300m"], None),
        (
            &split,
            json!({"type": "Container", "max": {"cpu": "400m"}}),
            ["400m", "200m", "400m"],
            Some("is shared out as the namespace's LimitRange allows"),
        ),
        (
            &split,
            json!({"type": "Container", "max": {"cpu": "200m"}}),
            ["200m", "200m", "200m"],
            Some("cpu 1 becomes 600m"),
        ),
        (
            &split,
            json!({"type": "Pod", "min": {"cpu": "2"}}),
            ["1200m", "200m", "600m"],
            Some("cpu 1 becomes 2"),
        ),
        (
            &replicate,
            json!({"type": "Pod", "min": {"cpu": "3100m"}}),
            ["1034m"; 3],
            Some("cpu 1 becomes 1034m"),
        ),
        (&replicate, json!({"type": "Pod", "max": {"cpu": "1"}}), ["333m"; 3], Some("cpu 1 becomes 333m")),
    ] {
        let facts = [cluster(spec.clone(), json!({"cpu": "4"})), vec![range(item.clone())]].concat();
        let expected = expected.map(|cpu| json!({"cpu": cpu}));
        assert_eq!(requests(&facts, three.clone()), json!(expected), "{item}");
        let warnings = decide(&facts, &pod(NODE, three.clone())).warnings;
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{warnings:?}");
        assert!(warning.is_none_or(|warning| warnings[0].contains(warning)), "{warnings:?}");
    }
}

#[test]
fn zero_request_has_no_limit() {
    let spec =
        json!({"minCPU": "34m", "distribution": "Split", "containers": [{"name": "c0", "weight": 46}]});
    let facts = cluster(spec, json!({}));
    let bare = |names: &[&str]| {
        let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        pod(
            NODE,
            json!({
                "containers": containers, "overhead": {"cpu": "2m"},
                "initContainers": [{"name": "i0", "restartPolicy": "Always"}],
            }),
        )
    };
    let mut late = decoded_by_api_server(pass(&facts, &bare(&["c0"])));
    let sidecar = |pod: &Value| pod["spec"]["initContainers"][0]["resources"].clone();
    assert_eq!(sidecar(&late), json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "1m"}}));
    late["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "injected"}));
    let late = decoded_by_api_server(pass(&facts, &late));
    assert_eq!(sidecar(&late), json!({"requests": {"cpu": "0"}}), "a limit of zero is no limit");
    let early = decoded_by_api_server(pass(&facts, &bare(&["c0", "injected"])));
    assert_eq!(late["spec"], early["spec"]);
}

#[test]
fn pod_level_resources_are_sized() {
    let spec = json!({"distribution": "Split", "cpuPercentage": 25});
    let facts = cluster(spec, json!({"cpu": "4"}));
    let own = json!({
        "resources": {"requests": {"cpu": "3", "memory": "1Gi"}, "limits": {"cpu": "3"}},
        "overhead": {"cpu": "100m"},
        "containers": [{"name": "a"}, {"name": "b"}],
    });
    let after = pass(&facts, &pod(NODE, own));
    assert_eq!(
        after["spec"]["resources"],
        json!({"requests": {"cpu": "900m", "memory": "1Gi"}, "limits": {"cpu": "900m"}})
    );
    assert_eq!(after["spec"]["containers"][1]["resources"]["requests"]["cpu"], "450m");
}

#[test]
fn undecided_pod_is_unchanged_with_reason() {
    let good = cluster(original(), large());
    let plain = json!({"containers": [{"name": "a"}]});
    let broken = cluster(json!({"cpuPercentage": 101}), large());
    let mut no_node = pod(NODE, plain.clone());
    no_node["spec"]["affinity"] = Value::Null;
    for (facts, pod, reason) in [
        (&good[..1], pod(NODE, plain.clone()), None),
        (
            &[good[0].clone(), good[2].clone()][..],
            pod(NODE, plain.clone()),
            Some("there is no FlexDaemonsetTemplate agent"),
        ),
        (&good[1..], pod(NODE, plain.clone()), Some("node node-1 isn't known")),
        (&good, no_node, Some("names no node")),
        (&broken, pod(NODE, plain.clone()), Some("spec.cpuPercentage: must be from 1 to 100")),
        (
            &good,
            pod(NODE, json!({"containers": [container("a", json!({"cpu": "much"}), json!({}))]})),
            Some("resources.requests[cpu] of a: "),
        ),
    ] {
        let decision = decide(facts, &pod);
        assert!(decision.patch.is_empty());
        match (decision.verdict, reason) {
            (Verdict::Admit, None) => {}
            (Verdict::Undecided(actual), Some(reason)) => assert!(actual.contains(reason), "{actual}"),
            (other, _) => panic!("{other:?} instead of {reason:?}"),
        }
    }
}

#[test]
fn template_is_named_by_pod_or_daemon_set() {
    let facts = cluster(original(), large());
    for key in ["flexdaemonsets.xai/resource-template", "flexdaemonsets.xai/apply-template"] {
        let mut bare = pod(NODE, json!({"containers": [{"name": "a"}]}));
        bare["metadata"] = json!({"annotations": {key: "agent"}});
        assert_eq!(
            pass(&facts, &bare)["spec"]["containers"][0]["resources"]["requests"]["cpu"],
            "400m",
            "{key}"
        );
    }
    // The annotation of its pod template precedes its own.
    let mut both = daemon_set();
    both["spec"]["template"]["metadata"]["annotations"] =
        json!({"flexdaemonsets.xai/resource-template": "other"});
    let both = {
        let key = FactKey { namespace: "ns".to_owned(), name: "agent".to_owned() };
        let facts = OfflineCluster::new([&both]).unwrap();
        facts.daemon_set_named("apps", "DaemonSet", key).unwrap().template.clone()
    };
    assert_eq!(both.as_deref(), Some("other"));
    let mut of_replica_set = pod(NODE, json!({"containers": [{"name": "a"}]}));
    of_replica_set["metadata"]["ownerReferences"][0]["kind"] = json!("ReplicaSet");
    assert!(decide(&facts, &of_replica_set).patch.is_empty());
}

#[test]
fn invalid_template_names_the_field() {
    use flexdaemonset_decision::rules::Template;
    for (spec, message) in [
        (json!({"cpuPercentage": 0}), "spec.cpuPercentage: must be from 1 to 100"),
        (json!({"storagePercentage": 101}), "spec.storagePercentage: must be from 1 to 100"),
        (json!({"minCPU": "1", "maxCPU": "500m"}), "spec.maxCPU: must be at least spec.minCPU"),
        (json!({"minMemory": "lots"}), "spec.minMemory: a quantity is"),
        (json!({"minStorage": -1}), "spec.minStorage: must not be negative"),
        (json!({"overrides": [{"maxMemory": "x"}]}), "spec.overrides[0].maxMemory: "),
        (json!({"cpuShare": "0.5"}), "spec.cpuShare: must be a percentage above 0% and at most 100%"),
        (json!({"memoryShare": "0.00%"}), "spec.memoryShare: must be a percentage above 0%"),
        (json!({"storageShare": "100.1%"}), "spec.storageShare: must be a percentage above 0%"),
        (json!({"cpuShare": "1%", "cpuPercentage": 1}), "spec.cpuShare: replaces cpuPercentage"),
        (
            json!({"overrides": [{"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["b"]}]}}]}),
            "spec.overrides[0].nodeSelector: a: Gt and Lt need one integer",
        ),
        (json!({"distribution": "Some"}), "spec.distribution: unknown variant"),
        (json!({"containers": [{"name": "a", "weight": 1}]}), "only distribution Split"),
        (json!({"distribution": "Split", "containers": [{"name": "a"}]}), "each takes one of"),
        (
            json!({"distribution": "Split", "containers": [{"name": "a", "percent": 60}, {"name": "b", "percent": 41}]}),
            "sum to more than 100",
        ),
    ] {
        let error = Template::from_spec(&spec).unwrap_err().to_string();
        assert!(error.contains(message), "{spec}: {error}");
    }
}

/// The resources of the container `agent` on a node of this size, and the warnings.
fn sized(spec: &Value, pod_spec: &Value, items: &[Value], allocatable: Value) -> (Value, Vec<String>) {
    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r", "namespace": "ns"}, "spec": {"limits": items},
    });
    let facts = [cluster(spec.clone(), allocatable), vec![range]].concat();
    let before = pod(NODE, pod_spec.clone());
    let after = pass(&facts, &before);
    (after["spec"].clone(), decide(&facts, &before).warnings)
}

fn small() -> Value {
    json!({"cpu": "1930m", "memory": "3388360Ki", "ephemeral-storage": "18242267924"})
}

#[test]
fn limit_stays_within_ratio_of_limit_range() {
    let own = json!({"cpu": "500m", "memory": "512Mi"});
    let container = container("agent", own, json!({"cpu": "1", "memory": "1Gi"}));
    let spec =
        json!({"cpuPercentage": 5, "memoryPercentage": 5, "limits": {"cpu": "Keep", "memory": "Keep"}});
    let item = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "4", "memory": "2"}});
    let (after, warnings) = sized(&spec, &json!({"containers": [container]}), &[item], small());
    assert_eq!(
        after["containers"][0]["resources"],
        json!({"requests": {"cpu": "96m", "memory": "169418Ki"}, "limits": {"cpu": "384m", "memory": "338836Ki"}})
    );
    assert_eq!(
        warnings[0],
        "flexdaemonset: container agent: limit of cpu 384m instead of 1: a LimitRange or ResourceQuota of the namespace demands it"
    );
}

#[test]
fn limits_stay_within_maximum_of_pod() {
    let own = || container("agent", json!({"cpu": "100m"}), json!({"cpu": "1"}));
    let item = json!({"type": "Pod", "max": {"cpu": "2", "memory": "4Gi"}});
    let two = json!({"containers": [own(), container("b", json!({"cpu": "300m"}), json!({"cpu": "3"}))]});
    let one = json!({"containers": [own()]});
    for (policy, node, pod, expected) in [
        ("None", "1930m", &one, json!([["193m", "2"]])),
        ("Ratio", "1930m", &one, json!([["193m", "1930m"]])),
        ("None", "95690m", &one, json!([["2", "2"]])),
        ("Ratio", "95690m", &one, json!([["2", "2"]])),
        ("Keep", "4", &two, json!([["400m", "727m"], ["400m", "1273m"]])),
    ] {
        let spec = json!({"cpuPercentage": 10, "limits": {"cpu": policy}});
        let (after, _) = sized(&spec, pod, std::slice::from_ref(&item), json!({"cpu": node}));
        let got: Value = after["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| {
                json!([container["resources"]["requests"]["cpu"], container["resources"]["limits"]["cpu"]])
            })
            .collect();
        assert_eq!(got, expected, "{policy} on {node}");
    }
}

#[test]
fn containers_keep_their_own_where_limit_range_admits_no_size() {
    let own = json!({"containers": [container("agent", json!({"cpu": "100m"}), json!({"cpu": "100m"})), json!({"name": "b"})]});
    let items =
        [json!({"type": "Container", "min": {"cpu": "2"}}), json!({"type": "Pod", "max": {"cpu": "3"}})];
    let (after, warnings) = sized(&json!({"cpuPercentage": 10}), &own, &items, small());
    assert_eq!(after["containers"], own["containers"]);
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("admits no size of cpu: all containers keep their own"), "{warning}");
}

#[test]
fn quota_on_limits_keeps_limit_with_policy_none() {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "ns"},
        "spec": {"hard": {"limits.cpu": "10", "requests.memory": "1Gi"}},
    });
    let spec =
        json!({"cpuPercentage": 10, "memoryPercentage": 10, "limits": {"cpu": "None", "memory": "None"}});
    let facts = [cluster(spec, large()), vec![quota]].concat();
    let limits = |own: Value| {
        let after = pass(
            &facts,
            &pod(NODE, json!({"containers": [container("agent", json!({"cpu": "100m"}), own)]})),
        );
        after["spec"]["containers"][0]["resources"]["limits"].clone()
    };
    assert_eq!(limits(json!({"cpu": "1", "memory": "1Gi"})), json!({"cpu": "1"}));
    assert_eq!(limits(json!({})), json!({"cpu": "400m"}));
}

#[test]
fn pod_level_limit_follows_policy() {
    let own = json!({
        "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"cpu": "4", "memory": "2Gi"}},
        "containers": [{"name": "agent"}, {"name": "helper"}],
    });
    for (policy, cpu, limit) in [
        ("None", "400m", Value::Null),
        ("Keep", "400m", json!("4")),
        ("Ratio", "400m", json!("8")),
        ("Equal", "400m", json!("400m")),
    ] {
        let spec = json!({"cpuPercentage": 10, "distribution": "Split", "limits": {"cpu": policy}});
        let facts = cluster(spec.clone(), json!({"cpu": "4"}));
        let after = pass(&facts, &pod(NODE, own.clone()));
        let resources = &after["spec"]["resources"];
        assert_eq!(
            (&resources["requests"]["cpu"], &resources["limits"]["cpu"]),
            (&json!(cpu), &limit),
            "{policy}"
        );
        assert_eq!(resources["limits"]["memory"], "2Gi", "{policy}");
        assert!(decide(&facts, &after).patch.is_empty(), "{policy}: a second pass has the original limit");
    }
}

#[test]
fn resource_that_node_does_not_report_counts_as_zero() {
    let own = json!({"containers": [container("agent", json!({"cpu": "100m"}), json!({"cpu": "1"}))]});
    for (when, storage) in [("KeepMin", json!("1Gi")), ("Cap", Value::Null), ("UseTemplate", Value::Null)] {
        let spec = json!({"storagePercentage": 5, "minStorage": "1Gi", "whenMinExceedsAllocatable": when});
        let zero = json!({"cpu": "4", "memory": "16Gi", "ephemeral-storage": "0"});
        let (with_zero, _) = sized(&spec, &own, &[], zero);
        let (without, warnings) = sized(&spec, &own, &[], json!({"cpu": "4", "memory": "16Gi"}));
        assert_eq!(without["containers"], with_zero["containers"], "{when}");
        assert_eq!(without["containers"][0]["resources"]["requests"]["ephemeral-storage"], storage, "{when}");
        assert!(
            warnings[0].contains("the node reports no allocatable ephemeral-storage"),
            "{when}: {warnings:?}"
        );
    }
}

#[test]
fn unknown_container_of_template_is_named() {
    let shares = json!([{"name": "agnet", "percent": 90}, {"name": "helpr", "excluded": true}]);
    let spec = json!({"cpuPercentage": 10, "distribution": "Split", "containers": shares});
    let own = json!({"containers": [{"name": "agent"}, {"name": "helper"}]});
    let (_, warnings) = sized(&spec, &own, &[], small());
    assert_eq!(
        warnings,
        [
            "flexdaemonset: the pod has no container agnet, helpr, which the template names; it has agent, helper"
        ]
    );
}

#[test]
fn share_is_fraction_of_percent() {
    let spec = json!({
        "cpuShare": "0.5%", "memoryPercentage": 10,
        "overrides": [{"nodeSelector": {"matchLabels": {"size": "huge"}}, "cpuPercentage": 2, "memoryShare": "0.25%"}],
    });
    let facts =
        [cluster(spec, large()), vec![node("huge", json!({"cpu": "100", "memory": "1000"}))]].concat();
    for (name, cpu, memory) in [(NODE, "20m", "1717986918"), ("huge", "2", "2")] {
        let after = pass(&facts, &pod(name, json!({"containers": [{"name": "a"}]})));
        let requests = &after["spec"]["containers"][0]["resources"]["requests"];
        assert_eq!((&requests["cpu"], &requests["memory"]), (&json!(cpu), &json!(memory)), "{name}");
    }
}

#[test]
fn floor_is_own_request() {
    let own = json!({"containers": [
        container("a", json!({"cpu": "300m"}), json!({})), container("b", json!({"cpu": "10m"}), json!({})),
    ]});
    for (distribution, expected) in [
        ("Replicate", json!([{"cpu": "300m"}, {"cpu": "193m"}])),
        ("Split", json!([{"cpu": "300m"}, {"cpu": "10m"}])),
    ] {
        let spec =
            json!({"cpuPercentage": 10, "distribution": distribution, "floors": {"cpu": "OwnRequest"}});
        assert_eq!(requests(&cluster(spec, small()), own.clone()), expected, "{distribution}");
    }
}

#[test]
fn override_compares_integer_label() {
    let expression = |operator: &str, value: &str| json!({"nodeSelector": {"matchExpressions": [{"key": "size", "operator": operator, "values": [value]}]}});
    let mut large = expression("Gt", "64");
    large["cpuPercentage"] = json!(2);
    let mut small = expression("Lt", "8");
    small["cpuPercentage"] = json!(20);
    let facts = ["96", "64", "2", "many"].map(|name| node(name, json!({"cpu": "10"})));
    let spec = json!({"cpuPercentage": 10, "overrides": [large, small]});
    let facts = [cluster(spec, json!({})), facts.to_vec()].concat();
    for (name, expected) in [("96", "200m"), ("64", "1"), ("2", "2"), ("many", "1")] {
        let after = pass(&facts, &pod(name, json!({"containers": [{"name": "a"}]})));
        assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["cpu"], expected, "{name}");
    }
}
