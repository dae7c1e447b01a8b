use serde_json::json;

use super::*;
use crate::runtime_class::DEFAULT_VM_RESOURCE;

fn classes(settings: Value) -> Result<Vec<RuntimeClass>, String> {
    let classes =
        Config::from_value(settings).and_then(|c| c.into_classes(["kata-remote"], DEFAULT_VM_RESOURCE));
    classes.map_err(|e| e.to_string())
}

#[test]
fn empty_config_is_compatible() {
    assert_eq!(classes(json!({})).unwrap(), [RuntimeClass::compatible("kata-remote")]);
}

#[test]
fn class_inherits_what_it_does_not_set() {
    let classes = classes(json!({
        "sizing": "effective",
        "headroom": {"memory": "+256Mi"},
        "runtimeClasses": {"a": {"sizing": "compat", "resource": "example.com/a"}, "b": {"basis": "limits"}},
    }))
    .unwrap();
    let [a, b, remote] = &classes[..] else { panic!("{classes:?}") };
    assert_eq!((&*a.name, &*a.resource, a.sizing.sizing), ("a", "example.com/a", Sizing::Compat));
    assert_eq!(b.sizing.sizing, Sizing::Effective { basis: Basis::Limits, overhead: false });
    assert_eq!((&*remote.name, &*remote.resource), ("kata-remote", "kata.peerpods.io/vm"));
    assert!(classes.iter().all(|class| class.sizing.memory_headroom == Headroom::Amount(256 << 20)));
}

#[test]
fn headroom_is_percent_or_amount() {
    let cases =
        [("+10%", Headroom::Percent(10)), ("1", Headroom::Amount(1000)), ("+500m", Headroom::Amount(500))];
    for (text, expected) in cases {
        let classes = classes(json!({"headroom": {"vcpus": text}})).unwrap();
        assert_eq!(classes[0].sizing.vcpu_headroom, expected, "{text}");
    }
}

#[test]
fn errors_name_the_key() {
    let machine = |price: Value| json!({"name": "m", "vcpus": 1, "memory": "1Gi", "price": price});
    for (settings, expected) in [
        (json!({"sizings": "compat"}), "sizings: unknown field `sizings`"),
        (json!({"sizing": "exact"}), "sizing: unknown variant `exact`, expected `compat` or `effective`"),
        (json!({"basis": "limits"}), "basis: needs sizing: effective"),
        (
            json!({"runtimeClasses": {"a": {"overhead": true}}}),
            "runtimeClasses.a.overhead: needs sizing: effective",
        ),
        (
            json!({"runtimeClasses": {"a": {"runtimeClasses": {}}}}),
            "runtimeClasses.a.runtimeClasses: belongs to",
        ),
        (json!({"runtimeClasses": {"": {}}}), "runtimeClasses.: a runtime class has a name"),
        (json!({"resource": "vm"}), "resource: \"vm\" is not the name of an extended resource"),
        (json!({"resource": "kubernetes.io/vm"}), "is not the name of an extended resource"),
        (json!({"resource": "a_b.io/vm"}), "is not the name of an extended resource"),
        (json!({"runtimeClasses": {"a": {"resource": "x/"}}}), "runtimeClasses.a.resource: \"x/\" is not"),
        (json!({"headroom": {"memory": "lots"}}), "headroom.memory: \"lots\": a quantity is"),
        (json!({"headroom": {"vcpus": "-10%"}}), "headroom.vcpus: \"-10%\": invalid digit"),
        (json!({"headroom": {"vcpus": "-1"}}), "headroom.vcpus: must not be negative"),
        (json!({"fallback": {"memory": "9Ei"}}), "fallback.memory: is too large"),
        (json!({"gpus": {"gpu": 1}}), "\"gpu\" is not the name of an extended resource"),
        (json!({"keepResources": ["kata.peerpods.io/vm"]}), "keepResources: kata.peerpods.io/vm is set"),
        (json!({"keepResources": ["storage"]}), "keepResources: \"storage\" is not a resource"),
        (json!({"keepResources": ["hugepages-2Mi", "cpu"]}), "keepResources: a container with hugepages-2Mi"),
        (json!({"placeholders": {"a.b/c": {"request": 1}}}), "placeholders.a.b/c: must be cpu"),
        (json!({"placeholders": {"cpu": {"request": 2, "limit": 1}}}), "placeholders.cpu.limit: is less"),
        (json!({"catalogue": [machine(json!(-1))]}), "catalogue.m.price: must be a number"),
        (json!({"catalogue": [machine(json!(1)), machine(json!(null))]}), "catalogue: either every machine"),
        (json!({"step": {"memory": 0}}), "step.memory: must not be zero"),
        (json!({"floor": {"memory": "lots"}}), "floor.memory: \"lots\": a quantity is"),
        (
            json!({"catalogue": [{"name": "m", "vcpus": 1, "memory": 1, "gpuResources": ["a.b/c"]}]}),
            "catalogue.m.gpuResources: the machine has no gpus",
        ),
        (
            json!({"catalogue": [{"name": "m", "vcpus": 1, "memory": 1, "gpus": 1, "gpuResources": ["a.b/c"]}]}),
            "catalogue.m.gpuResources: a.b/c is not in gpus",
        ),
        (
            json!({"catalogue": [
                {"name": "m", "vcpus": 1, "memory": 1, "disk": "1Gi"}, {"name": "n", "vcpus": 1, "memory": 1},
            ]}),
            "catalogue: either every machine has a disk or none has",
        ),
        (
            json!({"catalogue": [{"name": "m", "vcpus": 0, "memory": "1Gi"}]}),
            "catalogue[0].vcpus: invalid value: integer `0`",
        ),
    ] {
        let error = classes(settings.clone()).unwrap_err();
        assert!(error.contains(expected), "{settings}: {error}");
    }
    for (keep, placeholders) in [
        (json!(["hugepages-2Mi", "cpu", "memory"]), json!({})),
        (json!(["hugepages-1Gi"]), json!({"cpu": {"request": 0.1}})),
    ] {
        classes(json!({"keepResources": keep, "placeholders": placeholders})).unwrap();
    }
}
