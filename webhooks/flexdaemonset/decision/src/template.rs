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
    /// The smallest request of a container, whatever the percentages are.
    pub floors: Floors,
    /// Sizes for some nodes. The first override that selects the node applies.
    #[schemars(length(max = 15))]
    pub overrides: Vec<Override>,
    /// Size if a minimum exceeds the node's allocatable.
    pub when_min_exceeds_allocatable: WhenMinExceedsAllocatable,
    /// Whether running pods are resized when this template or their node changes.
    pub refit: Refit,
}

fn spec_rules() -> Vec<Value> {
    let mut rules = vec![
        rule(
            "has(self.cpuPercentage) || has(self.memoryPercentage) || has(self.storagePercentage) || has(self.cpuShare) || \
             has(self.memoryShare) || has(self.storageShare) || has(self.minCPU) || has(self.minMemory) || \
             has(self.minStorage) || (has(self.overrides) && size(self.overrides) > 0)",
            "at least one percentage, share or minimum must be set",
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

/// No maximum is below its minimum.
///
/// A quantity is a string or an integer, and API servers before Kubernetes 1.34 assume that it has 3 MiB. Their budget allows to read two
/// such quantities in each of 15 items, and no `string(self.x)`, which costs as much again.
fn size_rules() -> Vec<Value> {
    let quantity = |field: &str| {
        format!(
            "(type(self.{field}) in [int] ? quantity('0').add(int(self.{field})) : quantity(self.{field}))"
        )
    };
    let rule = |resource: &str| {
        let min = format!("min{resource}");
        let max = format!("max{resource}");
        let least = quantity(&min);
        let most = quantity(&max);
        rule_at(
            &format!(".{max}"),
            &format!("!has(self.{min}) || !has(self.{max}) || {most}.compareTo({least}) >= 0"),
            &format!("must be at least {min}"),
        )
    };
    let replaced = |resource: &str| {
        let share = format!("{resource}Share");
        let percentage = format!("{resource}Percentage");
        rule_at(
            &format!(".{share}"),
            &format!("!has(self.{share}) || !has(self.{percentage})"),
            &format!("replaces {percentage}, set only one of them"),
        )
    };
    let mut rules: Vec<_> = ["CPU", "Memory", "Storage"].map(rule).into();
    rules.extend(["cpu", "memory", "storage"].map(replaced));
    rules
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
    /// Share of the node's allocatable cpu as text, for fractions of a percent: 0.5%. It replaces cpuPercentage.
    pub cpu_share: Option<Share>,
    /// Share of the node's allocatable memory as text, for fractions of a percent: 0.5%. It replaces memoryPercentage.
    pub memory_share: Option<Share>,
    /// Share of the node's allocatable ephemeral-storage as text, for fractions of a percent: 0.5%. It replaces
    /// storagePercentage.
    pub storage_share: Option<Share>,
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

/// A percentage with up to seven decimal places, as text: `0.5%`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend(
    "maxLength" = 10,
    "pattern" = r"^(100|[1-9][0-9]?(\.[0-9]{1,7})?|0\.[0-9]{0,6}[1-9][0-9]{0,6})%$",
))]
pub struct Share(pub String);

/// A quantity as it is written, a string or a number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend(
    "x-kubernetes-int-or-string" = true,
    "maxLength" = 32,
    "minimum" = 0,
    "pattern" = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
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

/// The smallest request of a container, by resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Floors {
    /// Smallest request of cpu.
    pub cpu: Floor,
    /// Smallest request of memory.
    pub memory: Floor,
    /// Smallest request of ephemeral-storage.
    pub storage: Floor,
}

/// The smallest request of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Floor {
    /// Percentages and minimums alone decide.
    #[default]
    None,
    /// A container requests at least what its own pod template requests.
    OwnRequest,
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
    "x-kubernetes-validations" = [
        rule_at(
            ".values",
            "(self.operator in ['Exists', 'DoesNotExist']) == (!has(self.values) || size(self.values) == 0)",
            "must be set for In, NotIn, Gt and Lt, and only for those",
        ),
        rule_at(
            ".values",
            "!(self.operator in ['Gt', 'Lt']) || (has(self.values) && size(self.values) == 1 && \
             self.values[0].matches('^-?[0-9]{1,18}$'))",
            "must be one integer for Gt and Lt",
        ),
    ],
))]
pub struct Requirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label relates to the values.
    pub operator: Operator,
    /// Values for operators In and NotIn, or one integer for Gt and Lt.
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// `v1.NodeSelectorOperator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "Kubernetes' own words")]
pub enum Operator {
    In,
    NotIn,
    #[default]
    Exists,
    DoesNotExist,
    Gt,
    Lt,
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
    /// Pods that have failed, for example because the topology manager of the kubelet refuses their size.
    pub pods_failed: u32,
    /// Nodes that are too small for the pod, even if nothing else runs there.
    pub nodes_short: u32,
    /// Ready: the template can be used. Progressing: running pods are being resized. `WideSpread`: autoscalers assume a size far from
    /// that of some pods.
    pub conditions: Conditions,
}
