//! The contract, sentence by sentence.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::needless_pass_by_value)]

mod support;

use podshaper_core::admission::{Decision, Verdict};
use serde_json::{Value, json};
use support::{decide, decide_gated, denial, pass, patched, pod, terms, terms_of, webhook};

const ARCH: &str = "kubernetes.io/arch";
const BETA: &str = "beta.kubernetes.io/arch";
const ANNOTATION: &str = "podshaper.dev/arch";

fn requires(values: Value) -> Value {
    json!({"key": ARCH, "operator": "In", "values": values})
}

fn taint() -> Value {
    json!({"key": "arch", "value": "arm64", "effect": "NoSchedule"})
}

/// amd64 and tainted arm64.
fn two() -> Value {
    json!({"amd64": {}, "arm64": {"taintsToTolerate": [taint()]}})
}

fn pools() -> Value {
    json!({"amd64": {}, "arm64": {"taintsToTolerate": [taint()], "requireNodeLabels": [{"pool": "arm"}]}, "s390x": {}})
}

fn annotation(pod: &Value) -> &str {
    pod["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or("-")
}

#[test]
fn pod_requires_the_architectures_that_all_images_share() {
    let open = webhook(json!({}));
    for (images, expected) in [
        (&["amd64"][..], json!(["amd64"])),
        (&["amd64_arm64"], json!(["amd64", "arm64"])),
        (&["amd64_arm64_s390x", "arm64_s390x", "386_s390x_arm64"], json!(["arm64", "s390x"])),
        (&["arm.v6_amd64"], json!(["amd64", "arm"])),
        (&["windows-amd64_arm64"], json!(["arm64"])),
        // The API server refuses what can't be a label's value.
        (&["amd64_a b_{x}_$"], json!(["amd64"])),
    ] {
        let after = pass(&open, &pod(images, json!({})));
        assert_eq!(
            terms_of(&after),
            json!([{"matchExpressions": [requires(expected.clone())]}]),
            "{images:?}"
        );
        let names: Vec<_> = expected.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(annotation(&after), names.join(","));
    }
}

#[test]
fn unrestricted_pod_stays_unchanged() {
    let two = webhook(json!({"architectures": {"amd64": {}, "arm64": {}}}));
    let both = pod(&["amd64_arm64_s390x"], json!({}));
    assert_eq!(decide(&two, &both), Decision::unchanged());
    let never =
        json!({"metadata": {}, "spec": {"containers": [{"image": "amd64", "imagePullPolicy": "Never"}]}});
    assert_eq!(decide(&two, &never), Decision::unchanged());
}

/// A platform that no node has is neither a requirement nor an impossible one.
#[test]
fn image_for_other_platform_is_unknown() {
    for settings in [
        json!({}),
        json!({"architectures": two()}),
        json!({"architectures": two(), "onUnknown": "gate"}),
        json!({"onUnknown": "default-architectures", "defaultArchitectures": ["amd64"]}),
    ] {
        let webhook = webhook(settings);
        for (image, platform) in [
            ("wasi-wasm", "wasi/wasm"),
            ("wasip1-wasm", "wasip1/wasm"),
            ("wasm", "linux/wasm"),
            ("a b", "linux/a b"),
            ("plan9-amd64_darwin-arm64", "darwin/arm64, plan9/amd64"),
        ] {
            let decision = decide(&webhook, &pod(&[image], json!({"runtimeClassName": "wasmtime"})));
            assert_eq!((&decision.verdict, decision.patch.is_empty()), (&Verdict::Admit, true), "{image}");
            assert_eq!(
                decision.warnings,
                [format!("arch: image {image} is for {platform}, which is no platform of Kubernetes nodes")]
            );
        }
        let beside = pass(&webhook, &pod(&["wasi-wasm", "amd64"], json!({})));
        assert_eq!(annotation(&beside), "amd64; unknown: wasi-wasm");
    }
    let selected = terms(json!([{"matchExpressions": [requires(json!(["amd64", "wasm"]))]}]));
    let named = pass(&webhook(json!({})), &pod(&["amd64_wasm"], selected));
    assert_eq!(annotation(&named), "amd64", "an image and a pod that name the same word");
    let deny = webhook(json!({"onUnknown": "deny"}));
    assert!(denial(&decide(&deny, &pod(&["wasi-wasm"], json!({})))).contains("wasi/wasm"));
    let exempt = webhook(json!({"onUnknown": "deny", "exemptRuntimeClasses": ["wasmtime"]}));
    let class = json!({"runtimeClassName": "wasmtime"});
    assert_eq!(decide(&exempt, &pod(&["wasi-wasm"], class)), Decision::unchanged());
    assert!(!denial(&decide(&exempt, &pod(&["wasi-wasm"], json!({})))).is_empty());
}

#[test]
fn variant_narrows_and_never_refuses() {
    for settings in [json!({}), json!({"architectures": two()})] {
        let webhook = webhook(settings);
        for (images, expected) in [
            (&["amd64.v3_arm64"][..], "arm64"),
            (&["amd64_arm64.v9"], "amd64"),
            (&["amd64.v3"], "amd64"),
            (&["amd64.v3_arm64", "amd64"], "amd64"),
            (&["amd64.v1_s390x"], "amd64"),
        ] {
            let after = pass(&webhook, &pod(images, json!({})));
            assert!(annotation(&after).split(',').next() == Some(expected), "{images:?}: {after}");
        }
    }
    let selects = terms(json!([{"matchExpressions": [requires(json!(["amd64", "386"]))]}]));
    let after = pass(&webhook(json!({})), &pod(&["amd64.v3_arm64"], selects));
    assert_eq!(annotation(&after), "amd64", "the pod excludes the other choice");
    let levels = webhook(json!({"architectures": {"amd64/v3": {}, "arm64": {}}}));
    assert_eq!(annotation(&pass(&levels, &pod(&["amd64.v2"], json!({})))), "amd64/v3");
}

#[test]
fn toleration_is_no_choice_of_nodes() {
    let webhook = webhook(json!({"architectures": two()}));
    for tolerations in [
        json!([{"key": "arch", "operator": "Exists"}]),
        json!([{"key": "arch", "value": "arm64", "effect": "NoSchedule"}]),
    ] {
        let after = pass(&webhook, &pod(&["amd64"], json!({"tolerations": tolerations})));
        assert_eq!(terms_of(&after), json!([{"matchExpressions": [requires(json!(["amd64"]))]}]));
        let both = pass(&webhook, &pod(&["amd64_arm64"], json!({"tolerations": tolerations})));
        assert_eq!(both["spec"]["tolerations"], tolerations, "no toleration is added twice");
    }
}

#[test]
fn older_name_of_the_architecture_label_counts() {
    let webhook = webhook(json!({"architectures": two()}));
    for image in ["amd64", "amd64_arm64"] {
        for name in ["amd64", "arm64", "s390x"] {
            let decision = decide(&webhook, &pod(&[image], json!({"nodeSelector": {BETA: name}})));
            assert_eq!(decision, Decision::unchanged(), "{image} {name}");
        }
    }
    let open = self::webhook(json!({}));
    let own = json!([{"matchExpressions": [{"key": BETA, "operator": "In", "values": ["arm64", "s390x"]}]}]);
    let denied = decide(&open, &pod(&["amd64"], terms(own.clone())));
    assert!(denial(&denied).contains("of the nodes that the pod selects"), "{denied:?}");
    let after = pass(&open, &pod(&["amd64_arm64"], terms(own)));
    assert_eq!(annotation(&after), "arm64");
}

#[test]
fn statement_of_the_operator_replaces_a_lookup() {
    let images = json!([
        {"match": "docker.io/library/timeout", "architectures": ["arm64"]},
        {"match": "docker.io/library/amd64", "architectures": ["arm64"]},
        {"match": "docker.io/library/s390x", "ignore": true},
    ]);
    let webhook = webhook(json!({"architectures": two(), "images": images, "onUnknown": "gate"}));
    assert_eq!(annotation(&pass(&webhook, &pod(&["timeout"], json!({})))), "arm64");
    assert_eq!(annotation(&pass(&webhook, &pod(&["amd64", "arm64", "s390x"], json!({})))), "arm64");
    assert_eq!(decide(&webhook, &pod(&["s390x"], json!({}))), Decision::unchanged());
}

#[test]
fn annotations_skip_and_prefer() {
    let webhook = webhook(json!({"preferred": ["s390x"]}));
    let annotated = |key: &str, value: &str| {
        let mut pod = pod(&["amd64_arm64_s390x"], json!({}));
        pod["metadata"]["annotations"] = json!({key: value});
        pod
    };
    assert_eq!(decide(&webhook, &annotated("podshaper.dev/arch-skip", "true")), Decision::unchanged());
    let odd = decide(&webhook, &annotated("podshaper.dev/arch-skip", "yes"));
    assert!(odd.warnings[0].contains("podshaper.dev/arch-skip has no effect"), "{odd:?}");
    let preferred = |pod: &Value| {
        let after = pass(&webhook, pod);
        let terms =
            &after["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        terms.as_array().map(|terms| {
            terms
                .iter()
                .map(|term| term["preference"]["matchExpressions"][0]["values"][0].clone())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        preferred(&annotated("podshaper.dev/arch-preferred", "arm64,amd64")).unwrap(),
        ["arm64", "amd64"]
    );
    assert_eq!(preferred(&annotated("podshaper.dev/arch-preferred", "")), None);
    assert_eq!(preferred(&annotated("example.com/other", "")).unwrap(), ["s390x"]);
}

#[test]
fn exempt_pods_stay_unchanged_by_kind() {
    let webhook = webhook(json!({"architectures": two()}));
    let owner = |kind: &str, api: &str| {
        let mut pod = pod(&["amd64"], json!({}));
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": api, "kind": kind, "name": "d", "uid": "u", "controller": true}]);
        pod
    };
    let mut mirror = pod(&["amd64"], json!({}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    for alone in [
        owner("DaemonSet", "apps/v1"),
        mirror,
        pod(&["amd64"], json!({"nodeName": "n"})),
        pod(&["amd64"], json!({"nodeSelector": {ARCH: "arm64"}})),
        pod(
            &["amd64"],
            terms(json!([{"matchExpressions": [{"key": ARCH, "operator": "NotIn", "values": ["amd64"]}]}])),
        ),
    ] {
        assert_eq!(decide(&webhook, &alone), Decision::unchanged(), "{alone}");
    }
    for treated in [
        owner("ReplicaSet", "apps/v1"),
        owner("DaemonSet", "example.com/v1"),
        pod(&["amd64"], json!({"nodeName": ""})),
        pod(&["amd64"], json!({"tolerations": [{"key": "other", "operator": "Exists"}]})),
        pod(&["amd64"], terms(json!([{"matchExpressions": [{"key": ARCH, "operator": "Exists"}]}]))),
    ] {
        assert_eq!(annotation(&pass(&webhook, &treated)), "amd64", "{treated}");
    }
}

#[test]
fn tolerations_for_what_every_image_is_known_to_run_on() {
    let webhook = webhook(json!({"architectures": two()}));
    let tolerations = |pod: &Value| pass(&webhook, pod)["spec"]["tolerations"].clone();
    let exactly = json!({"key": "arch", "operator": "Equal", "value": "arm64", "effect": "NoSchedule"});
    assert_eq!(tolerations(&pod(&["amd64_arm64"], json!({}))), json!([exactly]));
    assert_eq!(tolerations(&pod(&["amd64_arm64", "amd64"], json!({}))), Value::Null);
    assert_eq!(tolerations(&pod(&["amd64_arm64", "timeout"], json!({}))), Value::Null);
    let everything = json!([{"operator": "Exists"}]);
    let after = pass(&webhook, &pod(&["arm64"], json!({"tolerations": everything})));
    assert_eq!((&after["spec"]["tolerations"], annotation(&after)), (&everything, "arm64"));
}

#[test]
fn terms_are_anded_by_meaning() {
    let webhook = webhook(json!({"architectures": {"amd64": {}, "arm64": {}, "s390x": {}}}));
    let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let before = json!([
        {"matchExpressions": [zone]},
        {},
        {"matchExpressions": [requires(json!(["amd64"]))]},
        {"matchExpressions": [requires(json!(["arm64", "s390x"]))]},
        {"matchExpressions": [{"key": ARCH, "operator": "NotIn", "values": ["s390x"]}], "matchFields": null},
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
        {"matchExpressions": [{"key": ARCH, "operator": "Exists"}, zone]},
    ]);
    let after = pass(&webhook, &pod(&["amd64_arm64"], terms(before)));
    let both = requires(json!(["amd64", "arm64"]));
    assert_eq!(
        terms_of(&after),
        json!([
            {"matchExpressions": [zone, both]},
            {},
            {"matchExpressions": [requires(json!(["amd64"]))]},
            {"matchExpressions": [requires(json!(["arm64", "s390x"])), requires(json!(["arm64"]))]},
            {"matchExpressions": [{"key": ARCH, "operator": "NotIn", "values": ["s390x"]}], "matchFields": null},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}], "matchExpressions": [both]},
            {"matchExpressions": [{"key": ARCH, "operator": "Exists"}, zone, both]},
        ])
    );
}

#[test]
fn node_labels_that_differ_make_a_product() {
    let webhook = webhook(json!({"architectures": pools()}));
    let zones = ["a", "b"].map(|zone| json!({"key": "zone", "operator": "In", "values": [zone]}));
    let before = json!([{"matchExpressions": [zones[0]]}, {"matchExpressions": [zones[1]]}]);
    let after = pass(&webhook, &pod(&["amd64_arm64"], terms(before)));
    let arm = json!({"key": "pool", "operator": "In", "values": ["arm"]});
    let amd = requires(json!(["amd64"]));
    assert_eq!(
        terms_of(&after),
        json!([
            {"matchExpressions": [zones[0], amd]},
            {"matchExpressions": [zones[1], amd]},
            {"matchExpressions": [zones[0], arm]},
            {"matchExpressions": [zones[1], arm]},
        ])
    );
    let none = pass(&webhook, &pod(&["amd64_arm64"], json!({})));
    assert_eq!(terms_of(&none), json!([{"matchExpressions": [amd]}, {"matchExpressions": [arm]}]));
}

#[test]
fn oversized_affinity_is_undecided() {
    let names = |count: usize| (0..count).map(|number| format!("v{number}")).collect::<Vec<_>>();
    let open = webhook(json!({}));
    let own = |values: Vec<String>| {
        terms(json!([{"matchExpressions": [{"key": ARCH, "operator": "NotIn", "values": values}]}]))
    };
    let many =
        |requirement: Value, count: usize| terms(json!([{"matchExpressions": vec![requirement; count]}]));
    let exists = json!({"key": "zone", "operator": "Exists"});
    let hosts = json!({"key": "kubernetes.io/hostname", "operator": "NotIn", "values": names(1000)});
    let selector: serde_json::Map<_, _> = names(1025).into_iter().map(|key| (key, json!("x"))).collect();
    for (said, weighed) in [
        (own(names(1023)), true),
        (own(names(1024)), false),
        (many(exists.clone(), 1024), true),
        (terms(json!(vec![json!({"matchExpressions": vec![exists; 41]}); 25])), false),
        // Requirements on other labels do not count.
        (many(hosts, 20), true),
        (json!({"nodeSelector": selector}), false),
    ] {
        for more in [json!({}), json!({"schedulingGates": [{"name": ANNOTATION}]})] {
            let mut pod = pod(&["amd64"], said.clone());
            pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let decision = decide(&open, &pod);
            let undecided = Verdict::Undecided(
                "arch: the node selector and affinity of the pod have more than 1024 requirements and values"
                    .to_owned(),
            );
            assert_eq!(decision.verdict, if weighed { Verdict::Admit } else { undecided });
            assert_eq!(decision.patch.is_empty(), !weighed);
        }
    }
}

#[test]
fn largest_affinity_is_decided_fast() {
    let open = webhook(json!({}));
    let names =
        |prefix: &str, count| (0..count).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>();
    let images: Vec<_> =
        (0..127).map(|own| format!("{}_own{own}_arm64", names("a", 254).join("_"))).collect();
    let images: Vec<_> = images.iter().map(String::as_str).collect();
    let mut pod = pod(
        &images,
        terms(
            json!([{"matchExpressions": [{"key": ARCH, "operator": "NotIn", "values": names("v", 1020)}]}]),
        ),
    );
    let begun = std::time::Instant::now();
    let after = pass(&open, &pod);
    // An optimised build takes a twentieth of it.
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(terms_of(&after)[0]["matchExpressions"][1], requires(json!(["arm64"])));
    pod["spec"]["containers"][0]["image"] = json!("amd64");
    let denied = decide(&open, &pod);
    assert!(denial(&denied).len() < 10_000 && denial(&denied).ends_with("; and 115 more"), "{denied:?}");
}

#[test]
fn pod_for_windows_is_annotated_only() {
    let affinity = |operator: &str, os: &str| {
        terms(
            json!([{"matchExpressions": [{"key": "kubernetes.io/os", "operator": operator, "values": [os]}]}]),
        )
    };
    let build = json!({"nodeSelector": {"node.kubernetes.io/windows-build": "10.0.20348"}});
    for settings in [json!({}), json!({"architectures": two(), "onUnknown": "deny"})] {
        let webhook = webhook(settings);
        for (images, said, expected) in [
            (&["windows-amd64_arm64"][..], affinity("In", "windows"), "windows"),
            (&["windows-amd64_arm64"], affinity("NotIn", "linux"), "windows"),
            (&["windows-amd64_arm64"], affinity("In", "linux"), "arm64"),
            (&["windows-amd64_arm64"], affinity("NotIn", "windows"), "arm64"),
            (&["windows-amd64"], json!({"nodeSelector": {"kubernetes.io/os": "windows"}}), "windows"),
            (&["timeout"], json!({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}), "windows"),
            (&["windows-amd64_arm64"], build.clone(), "windows"),
            (&["windows-amd64_arm64"], json!({"os": {"name": "linux"}}), "arm64"),
            (&["windows-amd64_arm64"], json!({}), "arm64"),
            // A pool label and a toleration do not state the operating system; the images do.
            (&["windows-amd64"], json!({"nodeSelector": {"agentpool": "winnp"}}), "windows"),
            (&["windows-amd64", "windows-amd64_arm64"], json!({}), "windows"),
        ] {
            let before = pod(images, said.clone());
            let after = pass(&webhook, &before);
            assert_eq!(annotation(&after), expected, "{images:?} {said}");
            if expected == "windows" {
                assert_eq!(after["spec"], before["spec"]);
                assert!(decide(&webhook, &after).patch.is_empty());
            }
        }
    }
    let open = webhook(json!({}));
    let mixed = decide(&open, &pod(&["windows-amd64", "amd64"], json!({})));
    assert!(denial(&mixed).ends_with("amd64 (amd64); windows-amd64 (windows/amd64)"), "{mixed:?}");
    let linux = decide(&open, &pod(&["windows-amd64"], json!({"os": {"name": "linux"}})));
    assert!(denial(&linux).ends_with("windows-amd64 (windows/amd64)"), "{linux:?}");
}

#[test]
fn amd64_nodes_run_386_and_arm_needs_a_node_label() {
    let two = webhook(json!({"architectures": {"amd64": {}, "arm64": {}}}));
    assert_eq!(annotation(&pass(&two, &pod(&["386", "amd64_arm64"], json!({})))), "amd64");
    assert!(denial(&decide(&two, &pod(&["arm.v7"], json!({})))).contains("arm.v7 (arm/v7)"));
    let arm =
        webhook(json!({"architectures": {"arm64": {}, "arm": {"requireNodeLabels": [{ARCH: "arm64"}]}}}));
    let after = pass(&arm, &pod(&["arm.v7"], json!({})));
    assert_eq!(terms_of(&after), json!([{"matchExpressions": [requires(json!(["arm64"]))]}]));
}

#[test]
fn long_list_is_truncated() {
    let images: Vec<_> = (0..100).map(|number| format!("not-found-{number}_arm64")).collect();
    let mut images: Vec<_> = images.iter().map(String::as_str).collect();
    images.push("s390x");
    let decision = decide(&webhook(json!({})), &pod(&images, json!({})));
    let denial = denial(&decision);
    assert!(denial.len() < 1000 && denial.ends_with("; and 89 more"), "{denial}");
}

#[test]
fn one_toleration_for_a_taint_of_several() {
    let nodes = json!({"taintsToTolerate": [taint()]});
    let webhook = webhook(json!({"architectures": {"amd64": {}, "arm64": nodes, "s390x": nodes}}));
    let after = pass(&webhook, &pod(&["amd64_arm64_s390x"], json!({})));
    assert_eq!(after["spec"]["tolerations"].as_array().unwrap().len(), 1, "{after}");
}

#[test]
fn pod_created_with_gate_is_watched() {
    let open = webhook(json!({}));
    let gated = json!({"schedulingGates": [{"name": ANNOTATION}]});
    for images in [&["amd64"][..], &["amd64", "timeout"]] {
        let after = pass(&open, &pod(images, gated.clone()));
        assert_eq!(after["metadata"]["labels"]["podshaper.dev/arch-gated"], "true");
        assert_eq!(after["spec"]["schedulingGates"], gated["schedulingGates"]);
    }
    let mut never = pod(&["amd64"], gated.clone());
    never["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    assert_eq!(pass(&open, &never)["metadata"]["labels"]["podshaper.dev/arch-gated"], "true");
    let leave = webhook(json!({"onImpossible": "leave"}));
    let after = pass(&leave, &pod(&["amd64", "arm64"], gated));
    assert_eq!(after["metadata"]["labels"]["podshaper.dev/arch-gated"], "true");
}

#[test]
fn annotation_follows_the_last_decision() {
    let leave = webhook(json!({"onImpossible": "leave", "onUnknown": "gate"}));
    let mut gated = pass(&leave, &pod(&["amd64", "timeout"], json!({})));
    assert_eq!(annotation(&gated), "waits for: timeout");
    gated["spec"]["containers"][1]["image"] = json!("arm64");
    let lifted = patched(&gated, &decide_gated(&leave, &gated));
    assert_eq!(annotation(&lifted), "arch: no architecture runs all images: amd64 (amd64); arm64 (arm64)");
}

#[test]
fn no_node_for_all_images() {
    let images = ["amd64", "arm64_s390x", "timeout"];
    let open = webhook(json!({}));
    let decision = decide(&open, &pod(&images, json!({})));
    assert_eq!(
        denial(&decision),
        "arch: no architecture runs all images: amd64 (amd64); arm64_s390x (arm64, s390x)"
    );
    assert_eq!(decision.warnings, ["arch: image timeout couldn't be read in time"]);
    let configured = webhook(json!({"architectures": {"s390x": {}}, "onImpossible": "leave"}));
    let decision = decide(&configured, &pod(&["amd64"], json!({})));
    assert!(decision.patch.is_empty());
    assert_eq!(decision.warnings, ["arch: no architecture runs all images, of s390x: amd64 (amd64)"]);
    let selected = terms(json!([{"matchExpressions": [requires(json!(["arm64", "s390x"]))]}]));
    let decision = decide(&open, &pod(&["amd64"], selected));
    assert!(denial(&decision).contains("of the nodes that the pod selects"), "{decision:?}");
}

#[test]
fn unknown_image_follows_policy() {
    let images = pod(&["amd64_arm64", "not-found"], json!({}));
    let with = |policy: Value| {
        let mut settings = json!({"architectures": pools()});
        settings.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
        webhook(settings)
    };
    let skipped = pass(&with(json!({})), &images);
    assert_eq!(annotation(&skipped), "amd64,arm64; unknown: not-found");
    assert_eq!(terms_of(&skipped).as_array().unwrap().len(), 2);
    assert_eq!(decide(&with(json!({})), &images).warnings, ["arch: image not-found isn't there"]);

    let defaults = json!({"onUnknown": "default-architectures", "defaultArchitectures": ["amd64"]});
    let defaulted = pass(&with(defaults.clone()), &images);
    assert_eq!(terms_of(&defaulted), json!([{"matchExpressions": [requires(json!(["amd64"]))]}]));
    let against = pass(&with(defaults), &pod(&["arm64", "not-found"], json!({})));
    assert_eq!(annotation(&against), "arm64; unknown: not-found", "what is known has the last word");

    let denied = decide(&with(json!({"onUnknown": "deny"})), &images);
    assert_eq!(
        denial(&denied),
        "arch: the architectures of this pod are unknown: image not-found isn't there"
    );

    let gated = pass(&with(json!({"onUnknown": "gate"})), &images);
    assert_eq!(gated["spec"]["schedulingGates"], json!([{"name": "podshaper.dev/arch"}]));
    assert_eq!(annotation(&gated), "waits for: not-found");
    assert_eq!(terms_of(&gated), Value::Null, "as many terms as there will be: any number");
}

#[test]
fn pod_with_unknown_images_stays_unchanged() {
    let decision = decide(&webhook(json!({})), &pod(&["unavailable"], json!({})));
    let terms = terms_of(&patched(&pod(&["unavailable"], json!({})), &decision));
    assert_eq!((terms, decision.warnings.len()), (Value::Null, 1));
    assert!(decision.patch.is_empty());
}

#[test]
fn gated_pod_is_narrowed_without_another_term() {
    let zones = ["a", "b"].map(|zone| json!({"key": "zone", "operator": "In", "values": [zone]}));
    let own = terms(json!([{"matchExpressions": [zones[0]]}, {}, {"matchExpressions": [zones[1]]}]));
    let gate = webhook(json!({"architectures": pools(), "onUnknown": "gate"}));
    let gated = pass(&gate, &pod(&["amd64_arm64_s390x", "timeout"], own));
    let shaped = terms_of(&gated);
    assert_eq!(shaped.as_array().unwrap().len(), 5, "each of the two for each of the two kinds of nodes");
    for (answer, expected) in [("amd64_arm64", 5), ("s390x", 5), ("arm64", 5)] {
        let mut answered = gated.clone();
        answered["spec"]["containers"][1]["image"] = json!(answer);
        let decision = decide_gated(&gate, &answered);
        let lifted = patched(&answered, &decision);
        let terms = terms_of(&lifted);
        assert_eq!(terms.as_array().unwrap().len(), expected);
        for (before, after) in shaped.as_array().unwrap().iter().zip(terms.as_array().unwrap()) {
            let [before, after] =
                [before, after].map(|term| term["matchExpressions"].as_array().cloned().unwrap_or_default());
            assert_eq!(after[..before.len()], before, "requirements are only added");
        }
        let expected = answer.replace('_', ",");
        assert_eq!(annotation(&lifted), expected);
        let tolerates = lifted["spec"]["tolerations"] != Value::Null;
        assert_eq!(tolerates, answer.contains("arm64"));
    }
}

#[test]
fn second_call_counts_a_sidecar() {
    let webhook = webhook(json!({"architectures": two(), "preferred": ["arm64"]}));
    let first = pass(&webhook, &pod(&["amd64_arm64"], json!({})));
    assert_eq!(annotation(&first), "amd64,arm64");
    let mut injected = first.clone();
    injected["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "s", "image": "amd64"}));
    let second = pass(&webhook, &injected);
    assert_eq!(annotation(&second), "amd64");
    assert_eq!(terms_of(&second), json!([{"matchExpressions": [requires(json!(["amd64"]))]}]));
    assert_eq!(pass(&webhook, &second), second);
}

#[test]
fn preferred_architectures_stand_beside_the_required_ones() {
    let webhook = webhook(json!({"preferred": ["arm64", "s390x"]}));
    let preferred = |images: &[&str]| {
        let after = pass(&webhook, &pod(images, json!({})));
        after["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"].clone()
    };
    let term = |weight: u32, name| json!({"weight": weight, "preference": {"matchExpressions": [requires(json!([name]))]}});
    assert_eq!(preferred(&["amd64_arm64_s390x"]), json!([term(100, "arm64"), term(50, "s390x")]));
    assert_eq!(preferred(&["amd64_s390x"]), json!([term(50, "s390x")]));
    assert_eq!(preferred(&["arm64"]), Value::Null, "there is nothing to choose");
    assert_eq!(preferred(&["arm64_amd64", "timeout"]), Value::Null, "no image has an answer");
}

#[test]
fn volumes_count_where_they_restrict() {
    let open = webhook(json!({}));
    let volume = |image: &str| json!({"volumes": [{"name": "v", "image": {"reference": image}}]});
    assert_eq!(annotation(&pass(&open, &pod(&["amd64_arm64"], volume("any")))), "amd64,arm64");
    assert_eq!(annotation(&pass(&open, &pod(&["amd64_arm64"], volume("arm64_s390x")))), "arm64");
    let container = decide(&open, &pod(&["any"], json!({})));
    assert_eq!(container.warnings, ["arch: image any is an artifact without an architecture"]);
}
