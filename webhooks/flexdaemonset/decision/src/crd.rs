//! The `CustomResourceDefinition` of `FlexDaemonsetTemplate`.

use podshaper_crd::{CustomResource, ResourceScope};
use serde_json::Value;

use crate::template::{API_VERSION, KIND, PLURAL, TemplateSpec, TemplateStatus};

/// The `CustomResourceDefinition`.
pub fn crd() -> Value {
    CustomResource {
        api_version: API_VERSION,
        scope: ResourceScope::Cluster,
        kind: KIND,
        plural: PLURAL,
        short_names: &["fdt"],
        description: "A FlexDaemonsetTemplate sets the size of a DaemonSet's pods in proportion to their node.",
        columns: &[
            ("CPU %", "integer", ".spec.cpuPercentage"),
            ("Memory %", "integer", ".spec.memoryPercentage"),
            ("Storage %", "integer", ".spec.storagePercentage"),
            ("Refit", "string", ".spec.refit"),
            ("Sized", "integer", ".status.podsSized"),
            ("Pending", "integer", ".status.podsPending"),
            ("Outdated", "integer", ".status.podsOutdated"),
            ("Infeasible", "integer", ".status.podsInfeasible"),
            ("Short", "integer", ".status.nodesShort"),
            ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
        ],
        requires_spec: true,
    }
    .definition::<TemplateSpec, TemplateStatus>()
}
