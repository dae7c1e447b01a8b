//! The files in `crds/` are generated from the types. `UPDATE_CRDS=1 cargo test -p podshaper-crd` writes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use distributor_decision::spec::{GroupSpec, PodDistributorSpec};
use podshaper_offline::yaml;
use serde_json::{Value, json};

fn definitions() -> [Value; 3] {
    [distributor_decision::crd::crd(), flexdaemonset_decision::crd::crd(), podshaper_placement_kube::crd()]
}

/// The schema at `pointer` below `schema`, the whole object's.
fn schema(definition: &Value, pointer: &str) -> Value {
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema.pointer(pointer).unwrap().clone()
}

#[test]
fn files_are_current() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds");
    for definition in definitions() {
        let path = format!("{folder}/{}.yaml", definition["spec"]["names"]["plural"].as_str().unwrap());
        let generated = yaml::to_string(&definition);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(file, generated, "{path} is outdated, run: UPDATE_CRDS=1 cargo test -p podshaper-crd");
    }
}

#[test]
fn every_field_is_described() {
    fn check(schema: &Value, path: &str) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let standard = [".apiVersion", ".kind", ".metadata"].contains(&path.as_str());
            let described = field["description"].as_str().is_some_and(|text| text.ends_with('.'));
            assert!(standard || described, "{path}");
            check(field, &path);
            check(&field["items"], &format!("{path}[]"));
        }
    }
    for definition in definitions() {
        check(&schema(&definition, ""), "");
    }
}

/// Fields that the API server rejects in a structural schema.
#[test]
fn schemas_are_structural() {
    fn check(schema: &Value, path: &str) {
        for forbidden in ["$ref", "oneOf", "allOf", "not", "definitions", "title", "const"] {
            assert_eq!(schema.get(forbidden), None, "{path}");
        }
        assert_eq!(
            schema.get("anyOf").is_some(),
            schema.get("x-kubernetes-int-or-string").is_some(),
            "{path}"
        );
        assert!(schema["type"].is_string() || schema.get("anyOf").is_some(), "{path}");
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            check(field, &format!("{path}.{name}"));
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(inner) {
                check(inner, &format!("{path}[]"));
            }
        }
    }
    for definition in definitions() {
        check(&schema(&definition, ""), "");
    }
}

/// Otherwise no ledger could be written about such groups.
#[test]
fn hundreds_of_reservations_of_the_longest_group_names_fit_into_a_placement() {
    let [distributors, _, placements] = definitions();
    let labels = schema(&distributors, "/properties/spec/properties/distribution/items/properties/nodeLabel");
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let value = "v".repeat(number(&labels["additionalProperties"]["maxLength"]));
    let label = |index: usize| (format!("{}/{index:063}", "k".repeat(253)), value.clone());
    let node_label = (0..number(&labels["maxProperties"])).map(label).collect();
    let longest_name = GroupSpec { node_label, ..GroupSpec::default() }.name().len();
    let reservations = schema(&placements, "/properties/spec/properties/reservations/maxLength");
    assert!(number(&reservations) > 300 * longest_name, "{longest_name}");
    assert!(number(&reservations) < 1_500_000, "etcd rejects larger objects");
}

#[test]
fn field_of_another_type_is_rejected() {
    let full = json!({
        "distribution": [{
            "name": "a", "nodeLabel": {"type": "a"}, "weight": 1, "base": 1, "max": 2, "tolerations": [], "nodeAffinity": [],
            "preferred": false, "standIn": false,
        }],
        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "selector": {}},
        "whenUnavailable": "UseOthers", "unschedulableAfter": "5m", "availability": "Nodes", "takeBack": "Never",
        "rebalance": {"mode": "Always", "maxUnavailable": 1},
    });
    assert!(serde_json::from_value::<PodDistributorSpec>(full.clone()).is_ok());
    let definition = distributor_decision::crd::crd();
    for (pointer, properties) in [
        ("", "/properties/spec/properties"),
        ("/distribution/0", "/properties/spec/properties/distribution/items/properties"),
        ("/target", "/properties/spec/properties/target/properties"),
        ("/rebalance", "/properties/spec/properties/rebalance/properties"),
    ] {
        let properties = schema(&definition, properties);
        let fields: Vec<&String> = properties.as_object().unwrap().keys().collect();
        for field in &fields {
            let mut invalid = full.clone();
            let value = &mut invalid.pointer_mut(pointer).unwrap()[field.as_str()];
            *value = if value.is_object() { json!(17) } else { json!({"odd": []}) };
            assert!(serde_json::from_value::<PodDistributorSpec>(invalid).is_err(), "{pointer}/{field}");
        }
        assert_eq!(full.pointer(pointer).unwrap().as_object().unwrap().len(), fields.len(), "{pointer}");
    }
}
