//! The promises of docs/peerpods.md.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use podshaper_core::admission::{Request, Verdict};
use podshaper_core::pod::Pod;
use serde_json::{Value, json};
use support::{RECORD, VM, compatible, container, decide, limit_ranged, pass, patched, pod, sizes, webhook};

/// One pass over a pod with one container.
fn sized(requests: Value, limits: Value) -> String {
    sizes(&pass(&compatible(), &pod(json!([container("c", requests, limits)]))).unwrap())
}

fn denial(webhook: &peerpods_decision::PeerPods, pod: &Value) -> String {
    match decide(webhook, pod).verdict {
        Verdict::Deny(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn vm_size_follows_requests_and_limits() {
    let table = [
        (json!({"cpu": "2", "memory": "4Gi"}), json!({"cpu": "3", "memory": "5Gi"}), "3 5120 - -"),
        (json!({"cpu": "2"}), json!({}), "2 - - -"),
        (json!({}), json!({}), "- - - -"),
        (json!({"cpu": "200m", "memory": "4Gi"}), json!({"cpu": "1500m", "memory": "4Gi"}), "2 4096 - -"),
        // The test cases of cloud-api-adaptor's webhook, and the edges of its rule.
        (json!({"memory": "4Gi"}), json!({}), "- 4096 - -"),
        (json!({"nvidia.com/gpu": "1"}), json!({"nvidia.com/gpu": "1"}), "- - 1 -"),
        (json!({"cpu": "2", "memory": "4Gi"}), json!({"cpu": "2", "memory": "4Gi"}), "2 4096 - -"),
        (json!({}), json!({"cpu": "2", "memory": "4Gi"}), "- - - -"),
        (json!({"cpu": "0", "memory": "0"}), json!({"cpu": "2", "memory": "4Gi"}), "- - - -"),
        (json!({"cpu": "1m", "memory": "1"}), json!({}), "1 1 - -"),
        (json!({"memory": "1G"}), json!({"memory": "1G"}), "- 954 - -"),
    ];
    for (requests, limits, expected) in table {
        assert_eq!(sized(requests.clone(), limits.clone()), expected, "{requests} / {limits}");
    }
}

#[test]
fn compat_sizing_sums_all_containers() {
    let mut pod = pod(json!([
        container("a", json!({"cpu": "2", "memory": "4Gi"}), json!({"cpu": "3", "memory": "5Gi"})),
        container("b", json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "1", "memory": "1Gi"})),
        container(
            "c",
            json!({"cpu": "1", "nvidia.com/gpu": "1"}),
            json!({"cpu": "1", "nvidia.com/gpu": "1"})
        ),
    ]));
    pod["spec"]["initContainers"] =
        json!([container("i", json!({"cpu": "1", "memory": "2Gi"}), json!({"cpu": "1", "memory": "2Gi"}))]);
    let after = pass(&compatible(), &pod).unwrap();
    assert_eq!(sizes(&after), "6 8192 1 -");
    assert_eq!(
        after["spec"]["containers"][0]["resources"],
        json!({"requests": {VM: "1"}, "limits": {VM: "1"}})
    );
    for stripped in [
        &after["spec"]["containers"][1],
        &after["spec"]["containers"][2],
        &after["spec"]["initContainers"][0],
    ] {
        assert!(stripped.get("resources").is_none());
    }
}

#[test]
fn pod_of_other_class_is_unchanged() {
    for class in [json!(null), json!("kata"), json!("")] {
        let mut pod = pod(json!([container("c", json!({"cpu": "nonsense"}), json!({}))]));
        pod["spec"]["runtimeClassName"] = class;
        let decision = decide(&compatible(), &pod);
        assert_eq!((decision.verdict, decision.patch.is_empty()), (Verdict::Admit, true));
    }
}

#[test]
fn mirror_pod_is_unchanged() {
    let mut pod = pod(json!([container("c", json!({"cpu": "1"}), json!({}))]));
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert!(decide(&compatible(), &pod).patch.is_empty());
}

#[test]
fn other_request_is_unchanged() {
    let object = pod(json!([container("c", json!({"cpu": "1"}), json!({}))]));
    for (operation, sub, kind, warned) in [
        ("UPDATE", "", "Pod", false),
        ("UPDATE", "resize", "Pod", false),
        ("CREATE", "binding", "Pod", false),
        ("CREATE", "", "ReplicationController", true),
    ] {
        let request = json!({
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": kind}, "subResource": sub,
            "operation": operation, "object": object,
        })
        .to_string();
        let request: Request<'_, Pod<'_>> = serde_json::from_str(&request).unwrap();
        let decision = compatible().decide(&request);
        assert!(decision.patch.is_empty() && decision.verdict == Verdict::Admit, "{operation} {sub} {kind}");
        assert_eq!(!decision.warnings.is_empty(), warned, "{operation} {sub} {kind}");
    }
}

#[test]
fn pod_without_containers_is_undecided() {
    for pod in [pod(json!([])), pod(json!(null)), json!({"spec": {"runtimeClassName": "kata-remote"}})] {
        assert!(matches!(decide(&compatible(), &pod).verdict, Verdict::Undecided(_)));
    }
}

#[test]
fn empty_resources_are_unchanged() {
    let containers = json!([{"name": "a"}, {"name": "b", "resources": {}}, {"name": "c", "resources": null}]);
    let after = pass(&compatible(), &pod(containers.clone())).unwrap();
    assert_eq!(after["spec"]["containers"][1], containers[1]);
    assert_eq!(after["spec"]["containers"][2], containers[2]);
}

#[test]
fn other_annotations_are_unchanged() {
    let mut pod = pod(json!([container("c", json!({"cpu": "1"}), json!({}))]));
    pod["metadata"]["annotations"] =
        json!({"io.katacontainers.config.hypervisor.machine_type": "t3.large", "a": "b"});
    let after = pass(&compatible(), &pod).unwrap();
    assert_eq!(sizes(&after), "1 - - t3.large");
    assert_eq!(after["metadata"]["annotations"]["a"], "b");
}

#[test]
fn vm_resource_of_author_is_replaced() {
    let pod = pod(json!([
        container("a", json!({}), json!({})),
        container("b", json!({VM: "2", "cpu": "1"}), json!({VM: "2"})),
    ]));
    let decision = decide(&compatible(), &pod);
    let after = patched(&pod, &decision);
    assert_eq!(after["spec"]["containers"][1].get("resources"), None);
    assert_eq!(after["spec"]["containers"][0]["resources"]["requests"], json!({VM: "1"}));
    assert!(decision.warnings.is_empty());
    assert!(!after["metadata"]["annotations"][RECORD].as_str().unwrap().contains(VM));
}

// Faults of cloud-api-adaptor's webhook.

#[test]
fn limit_range_defaults_between_passes_change_nothing() {
    let webhook = compatible();
    let pod = pod(json!([container("a", json!({"cpu": "2"}), json!({})), {"name": "b"}]));
    let first = pass(&webhook, &pod).unwrap();
    let filled = limit_ranged(first.clone(), &json!({"cpu": "4", "memory": "8Gi"}), &json!({"cpu": "16"}));
    let second = pass(&webhook, &filled).unwrap();
    assert_eq!(sizes(&second), "2 - - -");
    assert_eq!(support::without_limit_ranger(second), first);
}

#[test]
fn second_pass_changes_nothing() {
    let first = pass(&compatible(), &pod(json!([container("a", json!({"cpu": "2"}), json!({}))]))).unwrap();
    assert!(decide(&compatible(), &first).patch.is_empty());
}

#[test]
fn injected_container_is_counted() {
    let webhook = compatible();
    let mut pod = pass(&webhook, &pod(json!([container("a", json!({"cpu": "2"}), json!({}))]))).unwrap();
    let sidecar = container("sidecar", json!({"cpu": "500m", "memory": "64Mi"}), json!({}));
    pod["spec"]["containers"].as_array_mut().unwrap().insert(0, sidecar);
    let after = pass(&webhook, &pod).unwrap();
    assert_eq!(sizes(&after), "3 64 - -");
    assert_eq!(after["spec"]["containers"][0]["resources"]["limits"], json!({VM: "1"}));
    assert_eq!(after["spec"]["containers"][1].get("resources"), None, "the VM moved to the first container");
    assert!(decide(&webhook, &after).patch.is_empty());
}

#[test]
fn record_by_author_counts_as_resources() {
    let mut recorded = pod(json!([{"name": "a"}, {"name": "b"}]));
    recorded["metadata"]["annotations"] = json!({
        RECORD: r#"{"containers": {"a": {"requests": {"cpu": "2"}}, "gone": {"requests": {"cpu": "9"}}}}"#,
        "io.katacontainers.config.hypervisor.default_memory": "1000",
    });
    let plain = json!([container("a", json!({"cpu": "2"}), json!({})), {"name": "b"}]);
    let mut plain = pod(plain);
    plain["metadata"]["annotations"] = json!({"io.katacontainers.config.hypervisor.default_memory": "1000"});
    for policy in ["overwrite", "keep", "max"] {
        let webhook = webhook(&json!({"userAnnotations": policy}));
        assert_eq!(sizes(&pass(&webhook, &recorded).unwrap()), "2 1000 - -");
        assert_eq!(sizes(&pass(&webhook, &plain).unwrap()), "2 1000 - -");
    }
}

#[test]
fn unreadable_record_is_denied() {
    let mut pod = pod(json!([{"name": "a"}]));
    for unreadable in ["", "null", "[]", "{\"containers\":{\"a\":1}}", "{"] {
        pod["metadata"]["annotations"] = json!({RECORD: unreadable});
        let reason = denial(&compatible(), &pod);
        assert!(reason.contains(RECORD) && reason.contains("remove it"), "{reason}");
    }
}

#[test]
fn memory_overflow_is_denied() {
    for memory in ["9Ei", "9223372036854775807", "10E"] {
        let reason =
            denial(&compatible(), &pod(json!([container("a", json!({"memory": memory}), json!({}))])));
        assert!(reason.contains("memory"), "{reason}");
    }
    let half = || container("a", json!({"memory": "4611686018427387904"}), json!({}));
    let mut other = half();
    other["name"] = json!("b");
    denial(&compatible(), &pod(json!([half(), other])));
}

#[test]
fn pod_that_breaks_a_rule_of_kubernetes_is_unchanged() {
    for (requests, limits, problem) in [
        (json!({"cpu": "abc"}), json!({}), "requests[cpu] is \"abc\": a quantity is a number and a suffix"),
        (json!({"cpu": "-1"}), json!({}), "requests[cpu] must not be negative"),
        (json!({"memory": "1Zi"}), json!({}), "suffix"),
        (json!({"cpu": "2"}), json!({"cpu": "1"}), "requests[cpu] must not exceed its limit"),
        (json!({}), json!({"nvidia.com/gpu": "500m"}), "limits[nvidia.com/gpu] must be a whole number"),
        (json!({"nvidia.com/gpu": "1"}), json!({"nvidia.com/gpu": "2"}), "must equal its limit"),
        (json!({"nvidia.com/gpu": "1"}), json!({}), "requests[nvidia.com/gpu] needs a limit"),
        (json!({"cpu ": "1"}), json!({}), "\"cpu \" is not a resource of containers"),
        (json!({"foo": "1"}), json!({}), "\"foo\" is not a resource of containers"),
        (
            json!({"cpu": "1", "hugepages-2Mi": "2Mi"}),
            json!({"hugepages-2Mi": "4Mi"}),
            "must equal its limit",
        ),
    ] {
        let pod = pod(json!([container("app", requests, limits), {"name": "b"}]));
        let decision = decide(&compatible(), &pod);
        assert_eq!((&decision.verdict, decision.patch.is_empty()), (&Verdict::Admit, true), "{pod}");
        let warning = decision.warnings.join("\n");
        let start = "peerpods: the pod keeps its resources and its VM is not sized: container app: ";
        assert!(warning.starts_with(start) && warning.contains(problem), "{warning}");
        let audit = decide(&webhook(&json!({"mode": "audit"})), &pod);
        assert!(audit.patch.is_empty() && audit.warnings[0].contains(problem), "{:?}", audit.warnings);
    }
}

#[test]
fn invalid_quantity_of_record_is_denied() {
    let mut pod = pod(json!([{"name": "app"}]));
    for (text, problem) in [("abc", "a number and a suffix"), ("-1", "must not be negative")] {
        let record = json!({"containers": {"app": {"requests": {"cpu": text}}}}).to_string();
        pod["metadata"]["annotations"] = json!({RECORD: record});
        let reason = denial(&compatible(), &pod);
        assert!(
            reason.contains("resources.requests[cpu] of container app") && reason.contains(problem),
            "{reason}"
        );
    }
}

#[test]
fn claim_that_the_pod_lacks_leaves_it_unchanged() {
    let mut pod = pod(json!([container("a", json!({"cpu": "1"}), json!({}))]));
    pod["spec"]["containers"][0]["resources"]["claims"] = json!([{"name": "nobody"}]);
    let decision = decide(&compatible(), &pod);
    assert!(decision.patch.is_empty());
    assert!(decision.warnings[0].contains("claim \"nobody\" is none of spec.resourceClaims"));
}

#[test]
fn claims_of_the_pod_follow_those_of_its_containers() {
    let mut pod = pod(json!([container("a", json!({"cpu": "1"}), json!({}))]));
    pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]);
    pod["spec"]["containers"][0]["resources"]["claims"] = json!([{"name": "gpu"}]);
    let decision = decide(&compatible(), &pod);
    assert_eq!(
        decision.warnings,
        [
            "peerpods: not given to the VM: claims of a",
            "peerpods: not given to the VM: spec.resourceClaims gpu",
        ]
    );
    let mut after = patched(&pod, &decision);
    assert!(after["spec"].get("resourceClaims").is_none());
    // The claim stays known to containers that are added later.
    let mut sidecar = container("sidecar", json!({"cpu": "1"}), json!({}));
    sidecar["resources"]["claims"] = json!([{"name": "gpu"}]);
    after["spec"]["containers"].as_array_mut().unwrap().push(sidecar);
    assert_eq!(sizes(&pass(&compatible(), &after).unwrap()), "2 - - -");

    let kept = pass(&webhook(&json!({"keepResources": ["claims"]})), &pod).unwrap();
    assert_eq!(kept["spec"]["resourceClaims"], pod["spec"]["resourceClaims"]);
    assert_eq!(kept["spec"]["containers"][0]["resources"]["claims"], json!([{"name": "gpu"}]));
}

#[test]
fn volumes_of_hugepages_follow_those_of_the_containers() {
    let pages = json!({"hugepages-2Mi": "100Mi", "memory": "256Mi"});
    let mut pod = pod(json!([container("a", pages.clone(), pages)]));
    let volume = |name, medium| json!({"name": name, "emptyDir": {"medium": medium}});
    pod["spec"]["volumes"] = json!([
        volume("tmp", "Memory"),
        volume("any", "HugePages"),
        volume("small", "HugePages-2048Ki"),
        volume("large", "HugePages-1Gi"),
    ]);
    let media = |webhook: &peerpods_decision::PeerPods| {
        let decision = decide(webhook, &pod);
        let volumes = patched(&pod, &decision)["spec"]["volumes"].as_array().unwrap().clone();
        let media =
            volumes.iter().map(|volume| volume["emptyDir"]["medium"].as_str().unwrap_or("-").to_owned());
        (media.collect::<Vec<_>>().join(" "), decision.warnings)
    };
    let (removed, warnings) = media(&compatible());
    assert_eq!(removed, "Memory - - -");
    let warning = "peerpods: the VM has no hugepages: volume any, small, large becomes an ordinary emptyDir";
    assert!(warnings.contains(&warning.to_owned()), "{warnings:?}");
    let keeps = webhook(&json!({"keepResources": ["hugepages-2Mi", "cpu", "memory"]}));
    assert_eq!(media(&keeps).0, "Memory HugePages HugePages-2048Ki -");
}

#[test]
fn later_change_is_warned_about_and_does_not_count() {
    let webhook = compatible();
    let pod = pod(json!([container("a", json!({"cpu": "100m", "memory": "512Mi"}), json!({}))]));
    let mut later = pass(&webhook, &pod).unwrap();
    later["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("700m");
    let decision = decide(&webhook, &later);
    assert_eq!(
        decision.warnings,
        ["peerpods: container a: requests[cpu] 700m was set after the first call and does not count; \
          let peerpods run after the webhook that sets it"]
    );
    let after = patched(&later, &decision);
    assert_eq!(sizes(&after), "1 512 - -");
    assert_eq!(decide(&webhook, &after).warnings, [""; 0]);
}

#[test]
fn floor_and_step_raise_the_size() {
    let webhook = webhook(&json!({
        "floor": {"memory": "512Mi"}, "step": {"memory": "1Gi"},
        "runtimeClasses": {"large": {"floor": {"vcpus": 4}}},
    }));
    let mut small = pod(json!([container("a", json!({"cpu": "50m", "memory": "64Mi"}), json!({}))]));
    let decision = decide(&webhook, &small);
    assert_eq!((sizes(&patched(&small, &decision)), decision.warnings), ("1 1024 - -".into(), vec![]));
    small["spec"]["runtimeClassName"] = json!("large");
    assert_eq!(sizes(&pass(&webhook, &small).unwrap()), "4 1024 - -");
    let nothing = pod(json!([{"name": "a"}]));
    assert_eq!(sizes(&pass(&webhook, &nothing).unwrap()), "- - - -", "no size stays none");
}

#[test]
fn memory_too_small_for_a_guest_is_warned_about() {
    let small = pod(json!([container("a", json!({"memory": "64Mi"}), json!({}))]));
    let decision = decide(&compatible(), &small);
    assert_eq!(sizes(&patched(&small, &decision)), "- 64 - -");
    assert!(decision.warnings[0].contains("default_memory is 64 MiB"), "{:?}", decision.warnings);
    assert_eq!(decide(&compatible(), &patched(&small, &decision)).warnings, [""; 0]);
}

#[test]
fn dropped_resources_are_warned_about_once() {
    let dropped =
        json!({"ephemeral-storage": "1Gi", "example.com/fpga": "1", "hugepages-2Mi": "2Mi", "memory": "1Gi"});
    let containers: Vec<Value> =
        (0..6).map(|i| container(&format!("c{i}"), dropped.clone(), dropped.clone())).collect();
    let mut pod = pod(containers.into());
    pod["spec"]["containers"][4]["resources"]["claims"] = json!([{"name": "gpu"}]);
    pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "object"}]);
    let webhook = compatible();
    let decision = decide(&webhook, &pod);
    let all = "of c0, c1, c2 and 3 more";
    assert_eq!(
        decision.warnings,
        [
            format!("peerpods: not given to the VM: ephemeral-storage {all}"),
            format!("peerpods: not given to the VM: example.com/fpga {all}"),
            format!("peerpods: not given to the VM: hugepages-2Mi {all}"),
            "peerpods: not given to the VM: claims of c4".into(),
            "peerpods: not given to the VM: spec.resourceClaims gpu".into(),
        ]
    );
    assert_eq!(decide(&webhook, &patched(&pod, &decision)).warnings, [""; 0]);
}

// Settings that it doesn't have.

#[test]
fn keep_resources_stay_on_containers() {
    let webhook = webhook(&json!({
        "keepResources": ["ephemeral-storage", "claims", "hugepages-2Mi"],
        "placeholders": {"memory": {"request": "1Mi"}},
    }));
    let requests =
        json!({"cpu": "1", "ephemeral-storage": "1Gi", "hugepages-2Mi": "2Mi", "example.com/fpga": "1"});
    let limits = json!({"hugepages-2Mi": "2Mi", "example.com/fpga": "1"});
    let mut pod = pod(json!([{"name": "a"}, container("b", requests, limits)]));
    pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "object"}]);
    pod["spec"]["containers"][1]["resources"]["claims"] = json!([{"name": "gpu", "request": "one"}]);
    let decision = decide(&webhook, &pod);
    assert_eq!(decision.warnings, ["peerpods: not given to the VM: example.com/fpga of b"]);
    let after = patched(&pod, &decision);
    assert_eq!(
        after["spec"]["containers"][0]["resources"],
        json!({"requests": {"memory": "1Mi", VM: "1"}, "limits": {VM: "1"}})
    );
    assert_eq!(
        after["spec"]["containers"][1]["resources"],
        json!({
            "requests": {"ephemeral-storage": "1Gi", "hugepages-2Mi": "2Mi", "memory": "1Mi"},
            "limits": {"hugepages-2Mi": "2Mi"},
            "claims": [{"name": "gpu", "request": "one"}],
        })
    );
    assert!(decide(&webhook, &after).patch.is_empty());
}

#[test]
fn placeholders_are_set_on_every_container() {
    let placeholders = json!({"cpu": {"request": "1m", "limit": "10m"}, "memory": {"request": "1Mi"}});
    let webhook = webhook(&json!({"placeholders": placeholders}));
    let mut pod = pod(json!([container("a", json!({"cpu": "2"}), json!({})), {"name": "b"}]));
    pod["spec"]["initContainers"] = json!([{"name": "i"}]);
    let after = pass(&webhook, &pod).unwrap();
    assert_eq!(sizes(&after), "2 - - -");
    let held = json!({"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "10m"}});
    assert_eq!(after["spec"]["containers"][1]["resources"], held);
    assert_eq!(after["spec"]["initContainers"][0]["resources"], held);
    assert!(decide(&webhook, &support::decoded_by_api_server(after)).patch.is_empty());
}

fn with_sidecar() -> Value {
    let mut pod = pod(json!([container("app", json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "2"}))]));
    let mut sidecar = container("sidecar", json!({"cpu": "500m"}), json!({}));
    sidecar["restartPolicy"] = json!("Always");
    pod["spec"]["initContainers"] =
        json!([sidecar, container("init", json!({"cpu": "3", "memory": "100Mi"}), json!({}))]);
    pod["spec"]["overhead"] = json!({"cpu": "250m", "memory": "120Mi"});
    pod
}

#[test]
fn effective_sizing_counts_peak() {
    for (basis, overhead, expected) in [
        ("requests", false, "4 1024 - -"),
        ("limits", false, "2 - - -"),
        ("max", false, "4 1024 - -"),
        ("requests", true, "4 1144 - -"),
        ("limits", true, "3 - - -"),
    ] {
        let webhook = webhook(&json!({"sizing": "effective", "basis": basis, "overhead": overhead}));
        assert_eq!(sizes(&pass(&webhook, &with_sidecar()).unwrap()), expected, "{basis} {overhead}");
    }
    assert_eq!(sizes(&pass(&compatible(), &with_sidecar()).unwrap()), "5 1124 - -");
}

#[test]
fn resources_of_the_pod_move_to_the_vm() {
    let mut pod = with_sidecar();
    pod["spec"]["resources"] =
        json!({"requests": {"cpu": "6"}, "limits": {"cpu": "8", "memory": "2Gi", "hugepages-2Mi": "2Mi"}});
    let effective = webhook(&json!({"sizing": "effective"}));
    let decision = decide(&effective, &pod);
    let after = patched(&pod, &decision);
    assert_eq!(sizes(&after), "8 2048 - -");
    assert_eq!(after["spec"].get("resources"), None);
    assert_eq!(decision.warnings, ["peerpods: not given to the VM: hugepages-2Mi of spec.resources"]);
    assert!(decide(&effective, &after).patch.is_empty());

    let after = pass(&compatible(), &pod).unwrap();
    assert_eq!(sizes(&after), "8 2048 - -");
    assert_eq!(after["spec"].get("resources"), None);
    assert!(decide(&compatible(), &after).patch.is_empty());
}

#[test]
fn headroom_and_fallback_apply() {
    let webhook = webhook(&json!({
        "headroom": {"vcpus": "+10%", "memory": "+256Mi"}, "fallback": {"vcpus": 1, "memory": "2Gi"},
    }));
    for (requests, expected) in [
        (json!({"cpu": "2", "memory": "1Gi"}), "3 1280 - -"),
        (json!({"cpu": "500m"}), "1 2048 - -"),
        (json!({}), "1 2048 - -"),
    ] {
        let pod = pod(json!([container("a", requests.clone(), json!({}))]));
        assert_eq!(sizes(&pass(&webhook, &pod).unwrap()), expected, "{requests}");
    }
}

#[test]
fn user_annotations_policy_decides() {
    let mut pod = pod(json!([container("a", json!({"cpu": "2", "memory": "1Gi"}), json!({}))]));
    pod["metadata"]["annotations"] = json!({
        "io.katacontainers.config.hypervisor.default_vcpus": "8",
        "io.katacontainers.config.hypervisor.default_memory": "512",
        "io.katacontainers.config.hypervisor.default_gpus": "1",
    });
    for (policy, expected, with_sidecar) in [
        ("overwrite", "2 1024 1 -", "12 1024 1 -"),
        ("keep", "8 512 1 -", "8 512 1 -"),
        ("max", "8 1024 1 -", "12 1024 1 -"),
    ] {
        let webhook = webhook(&json!({"userAnnotations": policy}));
        let mut after = pass(&webhook, &pod).unwrap();
        assert_eq!(sizes(&after), expected, "{policy}");
        assert!(decide(&webhook, &after).patch.is_empty(), "{policy}");
        // A later pass finds the author's values in the record.
        after["spec"]["containers"].as_array_mut().unwrap().push(container(
            "s",
            json!({"cpu": "10"}),
            json!({}),
        ));
        assert_eq!(sizes(&pass(&webhook, &after).unwrap()), with_sidecar, "{policy}");
    }
}

#[test]
fn size_that_becomes_zero_restores_author_annotation() {
    let webhook = compatible();
    let mut pod =
        pod(json!([{"name": "a"}, container("b", json!({"cpu": "2", "memory": "1Gi"}), json!({}))]));
    pod["metadata"]["annotations"] = json!({"io.katacontainers.config.hypervisor.default_vcpus": "8"});
    let mut after = pass(&webhook, &pod).unwrap();
    assert_eq!(sizes(&after), "2 1024 - -");
    after["spec"]["containers"].as_array_mut().unwrap().pop();
    assert_eq!(sizes(&pass(&webhook, &after).unwrap()), "8 - - -");
}

#[test]
fn gpus_map_weighs_resources() {
    let webhook = webhook(&json!({"gpus": {"nvidia.com/gpu": 1, "example.com/quad": 4}}));
    let gpus = json!({"nvidia.com/gpu": "1", "example.com/quad": "2"});
    let pod = pod(json!([container("a", gpus.clone(), gpus)]));
    let decision = decide(&webhook, &pod);
    assert_eq!(sizes(&patched(&pod, &decision)), "- - 9 -");
    assert!(decision.warnings.is_empty());
}

#[test]
fn catalogue_sets_cheapest_machine_type() {
    let webhook = webhook(&json!({"catalogue": [
        {"name": "large", "vcpus": 8, "memory": "32Gi", "price": 0.4},
        {"name": "small", "vcpus": 2, "memory": "8Gi", "price": 0.1},
        {"name": "gpu", "vcpus": 8, "memory": "32Gi", "gpus": 1, "price": 0.9},
    ]}));
    for (requests, expected) in [
        (json!({"cpu": "2", "memory": "4Gi"}), "2 4096 - small"),
        (json!({"cpu": "2500m"}), "3 - - large"),
        (json!({"cpu": "1", "nvidia.com/gpu": "1"}), "1 - 1 gpu"),
        (json!({}), "- - - -"),
    ] {
        let pod = pod(json!([container("a", requests.clone(), requests.clone())]));
        let after = pass(&webhook, &pod).unwrap();
        assert_eq!(sizes(&after), expected, "{requests}");
        assert!(decide(&webhook, &after).patch.is_empty());
    }
    let reason = denial(&webhook, &pod(json!([container("a", json!({"cpu": "9"}), json!({}))])));
    assert!(reason.contains("no machine in the catalogue has 9 vCPUs"), "{reason}");

    let mut named = pod(json!([container("a", json!({"cpu": "9"}), json!({}))]));
    named["metadata"]["annotations"] = json!({"io.katacontainers.config.hypervisor.machine_type": "huge"});
    let after = pass(&webhook, &named).unwrap();
    assert_eq!(sizes(&after), "9 - - huge", "the author's machine type stays");
    assert!(decide(&webhook, &after).patch.is_empty());
}

#[test]
fn catalogue_has_gpu_models_and_disks() {
    let webhook = webhook(&json!({
        "gpus": {"example.com/small": 1, "example.com/large": 1},
        "catalogue": [
            {"name": "s", "vcpus": 8, "memory": "32Gi", "gpus": 2, "gpuResources": ["example.com/small"],
             "disk": "100Gi", "price": 1},
            {"name": "l", "vcpus": 8, "memory": "32Gi", "gpus": 2, "gpuResources": ["example.com/large"],
             "disk": "500Gi", "price": 2},
            {"name": "cpu", "vcpus": 8, "memory": "32Gi", "disk": "1Ti", "price": 3},
        ],
    }));
    for (requests, expected) in [
        (json!({"example.com/small": "1"}), Ok("- - 1 s")),
        (json!({"example.com/large": "1"}), Ok("- - 1 l")),
        (json!({"cpu": "1", "ephemeral-storage": "600Gi"}), Ok("1 - - cpu")),
        (
            json!({"example.com/small": "1", "ephemeral-storage": "101Gi"}),
            Err("103424 MiB of disk of example.com/small"),
        ),
    ] {
        let pod = pod(json!([container("a", requests.clone(), requests.clone())]));
        match expected {
            Ok(sized) => {
                let decision = decide(&webhook, &pod);
                assert_eq!(sizes(&patched(&pod, &decision)), sized, "{requests}");
                assert_eq!(decision.warnings, [""; 0], "{requests}");
            }
            Err(reason) => assert!(denial(&webhook, &pod).contains(reason), "{}", denial(&webhook, &pod)),
        }
    }
}

#[test]
fn each_runtime_class_has_its_settings() {
    let webhook = webhook(&json!({"runtimeClasses": {
        "kata-gpu": {"resource": "kata.peerpods.io/gpu-vm", "sizing": "effective", "basis": "limits"},
    }}));
    let mut gpu = pod(json!([container("a", json!({"cpu": "1"}), json!({"cpu": "2"}))]));
    let remote = pass(&webhook, &gpu).unwrap();
    assert_eq!(remote["spec"]["containers"][0]["resources"]["requests"], json!({VM: "1"}));
    gpu["spec"]["runtimeClassName"] = json!("kata-gpu");
    let after = pass(&webhook, &gpu).unwrap();
    assert_eq!(
        after["spec"]["containers"][0]["resources"]["requests"],
        json!({"kata.peerpods.io/gpu-vm": "1"})
    );
    assert_eq!(sizes(&after), "2 - - -");
}

#[test]
fn audit_warns_and_changes_nothing() {
    let webhook = webhook(&json!({"mode": "audit"}));
    let requests = json!({"cpu": "2", "memory": "4Gi", "ephemeral-storage": "1Gi"});
    let decision = decide(&webhook, &pod(json!([container("a", requests, json!({}))])));
    assert!(decision.patch.is_empty() && decision.verdict == Verdict::Admit);
    let warnings = decision.warnings.join("\n");
    assert!(warnings.contains("one kata.peerpods.io/vm, default_vcpus 2, default_memory 4096"), "{warnings}");
    assert!(warnings.contains("ephemeral-storage"), "{warnings}");

    let decision = decide(&webhook, &pod(json!([container("a", json!({"memory": "9Ei"}), json!({}))])));
    assert!(decision.patch.is_empty() && decision.verdict == Verdict::Admit);
    assert!(decision.warnings[0].contains("refuse"), "{:?}", decision.warnings);
}
