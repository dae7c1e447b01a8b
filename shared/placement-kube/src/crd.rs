//! The `CustomResourceDefinition` of `Placement`.

use podshaper_crd::{CustomResource, ResourceScope};
use serde_json::Value;

use crate::placement_object::{API_VERSION, KIND, PLURAL, PlacementSpec, PlacementStatus};

/// The `CustomResourceDefinition`.
pub fn crd() -> Value {
    CustomResource {
        api_version: API_VERSION,
        scope: ResourceScope::Namespaced,
        kind: KIND,
        plural: PLURAL,
        short_names: &[],
        description: "A Placement holds what the replicas of a webhook have agreed on about the pods of one workload. The replicas \
                      maintain it, and it is deleted with the workload.",
        columns: &[
            ("Kind", "string", ".metadata.ownerReferences[0].kind"),
            ("Owner", "string", ".metadata.ownerReferences[0].name"),
            ("Pods", "string", ".status.pods"),
            ("Due", "string", ".status.due"),
        ],
        requires_spec: false,
    }
    .definition::<PlacementSpec, PlacementStatus>()
}
