//! `FlexDaemonsetTemplate`: the size of a `DaemonSet`'s pods in proportion to their node.
//!
//! The schema of the `CustomResourceDefinition` is derived from these types, and their comments are its descriptions.

use std::collections::BTreeMap;

use podshaper_crd::{Conditions, rule, rule_at};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The API group.
pub const GROUP: &str = "flexdaemonsets.xai";
/// API group and version.
pub const API_VERSION: &str = "flexdaemonsets.xai/v1alpha1";
/// The kind.
pub const KIND: &str = "FlexDaemonsetTemplate";
/// The plural, as paths have it.
pub const PLURAL: &str = "flexdaemonsettemplates";

/// Size of the pods of a DaemonSet in proportion to their node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = spec_rules()))]
pub struct TemplateSpec {
    /// The size on nodes that no override selects.
    #[serde(flatten)]
    pub size: Size,
    /// Whether every container gets the whole value, or the pod gets it once.
    pub distribution: Distribution,
    /// How distribution Split divides the pod's value among containers. Containers that are not listed share the rest.
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub containers: Vec<ContainerShare>,
    /// How limits are set.
    pub limits: Limits,
    /// Sizes for some nodes. The first override that selects the node applies.
    #[schemars(length(max = 32))]
    pub overrides: Vec<Override>,
    /// Size if a minimum exceeds the node's allocatable.
    pub when_min_exceeds_allocatable: WhenMinExceedsAllocatable,
    /// Whether running pods are resized when this template or their node changes.
    pub refit: Refit,
}

fn spec_rules() -> Vec<Value> {
    let mut rules = vec![
        rule(
            "[has(self.cpuPercentage), has(self.memoryPercentage), has(self.storagePercentage), has(self.minCPU), \
             has(self.minMemory), has(self.minStorage), has(self.overrides) && size(self.overrides) > 0].exists(x, x)",
            "at least one percentage or minimum must be set",
        ),
        rule_at(
            ".containers",
            "!has(self.containers) || size(self.containers) == 0 || (has(self.distribution) && self.distribution == 'Split')",
            "requires distribution Split",
        ),
        rule_at(
            ".containers",
            "!has(self.containers) || self.containers.map(c, has(c.percent) ? c.percent : 0).sum() <= 100",
            "the percentages must not sum to more than 100",
        ),
    ];
    rules.extend(size_rules());
    rules
}

/// No maximum is below its minimum. The lengths of [`Amount`] are bounded: otherwise the API server rejects the rule for its cost.
fn size_rules() -> Vec<Value> {
    let rule = |resource: &str| {
        let (min, max) = (format!("min{resource}"), format!("max{resource}"));
        rule_at(
            &format!(".{max}"),
            &format!(
                "!has(self.{min}) || !has(self.{max}) || !isQuantity(string(self.{min})) || !isQuantity(string(self.{max})) || \
                 quantity(string(self.{max})).compareTo(quantity(string(self.{min}))) >= 0"
            ),
            &format!("must be at least {min}"),
        )
    };
    ["CPU", "Memory", "Storage"].map(rule).into()
}

/// Percentages of a node, with minimums and maximums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Size {
    /// Percentage of the node's allocatable cpu.
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percentage: Option<u8>,
    /// Percentage of the node's allocatable memory.
    #[schemars(range(min = 1, max = 100))]
    pub memory_percentage: Option<u8>,
    /// Percentage of the node's allocatable ephemeral-storage.
    #[schemars(range(min = 1, max = 100))]
    pub storage_percentage: Option<u8>,
    /// Minimum of cpu.
    #[serde(rename = "minCPU")]
    pub min_cpu: Option<Amount>,
    /// Minimum of memory.
    pub min_memory: Option<Amount>,
    /// Minimum of ephemeral-storage.
    pub min_storage: Option<Amount>,
    /// Maximum of cpu.
    #[serde(rename = "maxCPU")]
    pub max_cpu: Option<Amount>,
    /// Maximum of memory.
    pub max_memory: Option<Amount>,
    /// Maximum of ephemeral-storage.
    pub max_storage: Option<Amount>,
}

/// A quantity as it is written, a string or a number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend(
    "x-kubernetes-int-or-string" = true,
    "maxLength" = 32,
    "x-kubernetes-validations" = [rule(
        "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('0')) >= 0",
        "must be a non-negative quantity, such as 100m or 1Gi",
    )],
))]
pub enum Amount {
    /// `100m`, `1Gi`
    Text(String),
    /// `1`
    Number(i64),
}

/// How a value is divided among containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Distribution {
    /// Every container and init container gets the whole value.
    #[default]
    Replicate,
    /// The pod gets the value once. The shares of its containers add up exactly to it.
    Split,
}

/// The share of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "required" = ["name"],
    "x-kubernetes-validations" = [rule(
        "[has(self.percent), has(self.weight), has(self.excluded) && self.excluded].filter(x, x).size() == 1",
        "must set one of percent, weight and excluded",
    )],
))]
pub struct ContainerShare {
    /// Name of the container.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Percentage of what excluded containers leave.
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u8>,
    /// Share of what percentages leave, in proportion to the sum of all weights. Containers that are not listed have weight 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: Option<u32>,
    /// The container keeps its own resources. They are subtracted first.
    pub excluded: bool,
}

/// How limits are set, by resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Limits of cpu.
    pub cpu: LimitPolicy,
    /// Limits of memory.
    pub memory: LimitPolicy,
    /// Limits of ephemeral-storage.
    pub storage: LimitPolicy,
}

/// How a limit is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LimitPolicy {
    /// The limit equals the request.
    #[default]
    Equal,
    /// There is no limit.
    None,
    /// The container keeps its limit, raised to the request if that is higher.
    Keep,
    /// The limit keeps the container's own ratio of limit to request.
    Ratio,
}

/// A size for some nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["nodeSelector"], "x-kubernetes-validations" = size_rules()))]
pub struct Override {
    /// Labels of the nodes.
    pub node_selector: Selector,
    /// Values that differ. All others are those for all nodes.
    #[serde(flatten)]
    pub size: Size,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that a node must have.
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that a node must meet.
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Requirement>,
}

/// A requirement on a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "required" = ["key", "operator"],
    "x-kubernetes-validations" = [rule_at(
        ".values",
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "must be set for In and NotIn, and only for those",
    )],
))]
pub struct Requirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label relates to the values.
    pub operator: Operator,
    /// Values, for operators In and NotIn.
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// `metav1.LabelSelectorOperator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "Kubernetes' own words")]
pub enum Operator {
    In,
    NotIn,
    #[default]
    Exists,
    DoesNotExist,
}

/// Size if a minimum exceeds the node's allocatable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum WhenMinExceedsAllocatable {
    /// The pod requests the minimum and stays Pending.
    #[default]
    KeepMin,
    /// The pod requests what the node has.
    Cap,
    /// The pod keeps the resources of the DaemonSet's own pod template.
    UseTemplate,
}

/// Whether running pods are resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Refit {
    /// Pods keep the size that they were created with.
    #[default]
    Off,
    /// The status says which pods would be resized.
    DryRun,
    /// Pods are resized in place where possible.
    InPlace,
    /// Pods that can't be resized in place are recreated, one after the other.
    InPlaceOrRecreate,
}

/// Result of the template. Maintained by the webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateStatus {
    /// The metadata.generation that this status is about.
    pub observed_generation: Option<i64>,
    /// DaemonSets that name the template.
    pub daemon_sets: u32,
    /// Pods that have the size that the template gives them.
    pub pods_sized: u32,
    /// Pods that were created without a size, because the webhook didn't answer or didn't know their node.
    pub pods_pending: u32,
    /// Pods with the size of an earlier template or node.
    pub pods_outdated: u32,
    /// Pods that the kubelet can't resize now.
    pub pods_infeasible: u32,
    /// Nodes that are too small for the pod, even if nothing else runs there.
    pub nodes_short: u32,
    /// Ready: the template can be used. Progressing: running pods are being resized.
    pub conditions: Conditions,
}
