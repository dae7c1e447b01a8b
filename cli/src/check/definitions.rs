//! The CustomResourceDefinitions that a webhook needs.

use serde_json::Value;

use super::finding::Finding;
use super::hints::helm_upgrade;
use super::snapshot::{Read, Snapshot};
use super::webhook::{name, program};

const DISTRIBUTORS: &str = "poddistributors.versprei.versprei.io";
const PLACEMENTS: &str = "placements.podshaper.dev";
const TEMPLATES: &str = "flexdaemonsettemplates.flexdaemonsets.xai";

/// All definitions of the chart.
pub(super) const NAMES: &[&str] = &[DISTRIBUTORS, PLACEMENTS, TEMPLATES];

fn needed(program: &str) -> &'static [&'static str] {
    match program {
        "distributor" => &[DISTRIBUTORS, PLACEMENTS],
        "custom-scheduler-annotations" => &[PLACEMENTS],
        "flexdaemonset" => &[TEMPLATES],
        _ => &[],
    }
}

/// Whether the definitions exist and are served.
pub(super) fn check(configuration: &Value, cluster: &Snapshot) -> Vec<Finding> {
    let program = program(configuration);
    let label = name(configuration).unwrap_or_default();
    let hint = format!(
        "kubectl podshaper {program} crd | kubectl apply --server-side --filename -\nor, if the release installs definitions: {}",
        helm_upgrade(configuration, "--set crds.enabled=true")
    );
    needed(program)
        .iter()
        .map(|definition| match cluster.definitions.get(*definition) {
            Some(Read::Found(Some(object))) if is_established(object) => {
                Finding::passed(format!("{label} has the definition {definition}"))
            }
            Some(Read::Found(Some(_))) => Finding::failed(
                format!("{label} needs the definition {definition}, which the API server does not serve"),
                format!("kubectl describe customresourcedefinition {definition}"),
            ),
            Some(Read::Hidden(reason)) => {
                Finding::skipped(&format!("{label} has the definition {definition}"), reason)
            }
            _ => Finding::failed(
                format!("{label} needs the definition {definition}, which does not exist"),
                hint.as_str(),
            ),
        })
        .collect()
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| {
            let field = |name: &str| condition.get(name).and_then(Value::as_str);
            field("type") == Some("Established") && field("status") == Some("True")
        })
    })
}
