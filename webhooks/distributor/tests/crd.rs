//! `crds/` is what the code says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use podshaper_offline::yaml;
use podshaper_placement::distribution::Distribution;
use serde_json::{Value, json};

/// `UPDATE_CRDS=1` writes the file instead.
#[test]
fn the_file_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds/poddistributors.yaml");
    let generated = yaml::to_string(&distributor_decision::crd::crd());
    if std::env::var_os("UPDATE_CRDS").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(file, generated, "run: UPDATE_CRDS=1 cargo test -p distributor --test crd");
}

fn schema(pointer: &str) -> Value {
    let crd = distributor_decision::crd::crd();
    crd.pointer(&format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec{pointer}")).unwrap().clone()
}

/// Else no ledger could be written about such groups.
#[test]
fn hundreds_of_pods_of_groups_with_the_longest_names_fit_into_a_ledger() {
    let labels = schema("/properties/distribution/items/properties/nodeLabel");
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let value = "v".repeat(number(&labels["additionalProperties"]["maxLength"]));
    let label = |index: usize| (format!("{}/{index:063}", "k".repeat(253)), value.clone());
    let node_label = (0..number(&labels["maxProperties"])).map(label).collect();
    let longest = podshaper_placement::distribution::GroupSpec { node_label, ..Default::default() }.name();
    let reservations =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/reservations/maxLength";
    let longest_ledger = number(podshaper_placement_kube::ledgers::crd().pointer(reservations).unwrap());
    assert!(longest_ledger > 300 * longest.len(), "{}", longest.len());
    assert!(longest_ledger < 1_500_000, "etcd takes no more");
}

/// Every field of the schema is one that the code reads: a value of another type is noticed.
#[test]
fn every_field_is_read() {
    let full = json!({
        "distribution": [{
            "name": "a", "nodeLabel": {"type": "a"}, "weight": 1, "base": 1, "max": 2, "tolerations": [], "nodeAffinity": [],
            "preferred": false,
        }],
        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "whenUnavailable": "Wait", "unschedulableAfter": "5m",
        "rebalance": {"mode": "Always", "maxUnavailable": 1},
    });
    assert!(serde_json::from_value::<Distribution>(full.clone()).is_ok());
    for (of, at) in [
        ("", ""),
        ("/distribution/items", "/distribution/0"),
        ("/target", "/target"),
        ("/rebalance", "/rebalance"),
    ] {
        let pointer: String =
            of.split('/').filter(|step| !step.is_empty()).fold(String::new(), |so_far, step| {
                let list = step == "items";
                so_far + &if list { "/items".to_owned() } else { format!("/properties/{step}") }
            });
        for field in schema(&format!("{pointer}/properties")).as_object().unwrap().keys() {
            let mut odd = full.clone();
            let of = odd.pointer_mut(at).unwrap();
            of[field] = if of[field].is_object() { json!(17) } else { json!({"odd": []}) };
            assert!(serde_json::from_value::<Distribution>(odd).is_err(), "{at}/{field}");
        }
        let known = full.pointer(at).unwrap().as_object().unwrap();
        assert_eq!(known.len(), schema(&format!("{pointer}/properties")).as_object().unwrap().len(), "{at}");
    }
}

#[test]
fn every_field_says_what_it_is() {
    fn look(schema: &Value, path: &str) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let standard = [".apiVersion", ".kind", ".metadata"].contains(&path.as_str());
            assert!(standard || field["description"].as_str().is_some_and(|text| text.len() > 12), "{path}");
            look(field, &path);
            look(&field["items"], &format!("{path}[]"));
        }
    }
    look(&distributor_decision::crd::crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "");
    look(&podshaper_placement_kube::ledgers::crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "");
}
