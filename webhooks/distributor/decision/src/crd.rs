//! The `CustomResourceDefinition` of `PodDistributor`.

use podshaper_crd::{CustomResource, ResourceScope};
use serde_json::Value;

use crate::spec::PodDistributorSpec;
use crate::status::PodDistributorStatus;

/// The API group.
pub const GROUP: &str = "versprei.versprei.io";
/// API group and version.
pub const API_VERSION: &str = "versprei.versprei.io/v1beta1";
/// The kind.
pub const KIND: &str = "PodDistributor";
/// The plural, as in paths.
pub const PLURAL: &str = "poddistributors";

/// The `CustomResourceDefinition`.
pub fn crd() -> Value {
    CustomResource {
        api_version: API_VERSION,
        scope: ResourceScope::Namespaced,
        kind: KIND,
        plural: PLURAL,
        short_names: &["pd"],
        description: "A PodDistributor distributes the pods of a workload over groups of nodes.",
        columns: &[
            ("Kind", "string", ".spec.target.kind"),
            ("Target", "string", ".status.target"),
            ("Pods", "string", ".status.pods"),
            ("Desired", "string", ".status.desired"),
            ("Unplaced", "integer", ".status.unplaced"),
            ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
            ("Balanced", "string", ".status.conditions[?(@.type=='Balanced')].status"),
        ],
        requires_spec: true,
    }
    .definition::<PodDistributorSpec, PodDistributorStatus>()
}
