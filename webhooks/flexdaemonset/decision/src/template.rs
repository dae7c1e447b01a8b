//! `FlexDaemonsetTemplate`: how large the pods of a `DaemonSet` are to be.
//!
//! The schema of the `CustomResourceDefinition` comes from these types and their comments, see [`crate::crd`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "flexdaemonsets.xai";
/// The version of the API.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "FlexDaemonsetTemplate";
/// The plural, as paths have it.
pub const PLURAL: &str = "flexdaemonsettemplates";

/// How large the pods of a DaemonSet are to be, in proportion to their node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateSpec {
    /// The size, for nodes that no override is for
    #[serde(flatten)]
    pub size: Size,
    /// Whether every container gets the whole value, or the pod gets it once
    pub distribution: Distribution,
    /// How the pod's value is shared out by distribution Split; containers that aren't named share the rest
    #[schemars(length(max = 64))]
    pub containers: Vec<ContainerShare>,
    /// What becomes of limits
    pub limits: Limits,
    /// Sizes for some nodes; the first whose selector matches the node counts
    #[schemars(length(max = 32))]
    pub overrides: Vec<Override>,
    /// What happens where a minimum is more than the node has
    pub when_min_exceeds_allocatable: WhenMinExceedsAllocatable,
    /// Whether running pods follow when this template or their node changes
    pub refit: Refit,
}

/// Percentages of a node, with floors and ceilings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Size {
    /// Percent of the node's allocatable cpu
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percentage: Option<u8>,
    /// Percent of the node's allocatable memory
    #[schemars(range(min = 1, max = 100))]
    pub memory_percentage: Option<u8>,
    /// Percent of the node's allocatable ephemeral-storage
    #[schemars(range(min = 1, max = 100))]
    pub storage_percentage: Option<u8>,
    /// At least so much cpu
    #[serde(rename = "minCPU")]
    pub min_cpu: Option<Amount>,
    /// At least so much memory
    pub min_memory: Option<Amount>,
    /// At least so much ephemeral-storage
    pub min_storage: Option<Amount>,
    /// At most so much cpu
    #[serde(rename = "maxCPU")]
    pub max_cpu: Option<Amount>,
    /// At most so much memory
    pub max_memory: Option<Amount>,
    /// At most so much ephemeral-storage
    pub max_storage: Option<Amount>,
}

/// A quantity as it is written, a string or a number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Amount {
    /// `100m`, `1Gi`
    Text(String),
    /// `1`
    Number(i64),
}

/// How a value becomes the containers' own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum Distribution {
    /// Every container and init container gets the whole value.
    #[default]
    Replicate,
    /// The pod gets the value once: its containers' shares sum exactly to it.
    Split,
}

/// The share of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerShare {
    /// The container's name
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Percent of what excluded containers leave
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u8>,
    /// Part of what percentages leave; containers that say nothing weigh 1 beside it
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: Option<u32>,
    /// The container keeps its own resources, which are subtracted first
    pub excluded: bool,
}

/// What becomes of limits, by resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Limits of cpu
    pub cpu: LimitPolicy,
    /// Limits of memory
    pub memory: LimitPolicy,
    /// Limits of ephemeral-storage
    pub storage: LimitPolicy,
}

/// What becomes of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum LimitPolicy {
    /// As much as the request.
    #[default]
    Equal,
    /// No limit.
    None,
    /// The container's own, raised to the request where it is less.
    Keep,
    /// In the container's own proportion of limit to request.
    Ratio,
}

/// A size for some nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Override {
    /// The nodes, by their labels
    pub node_selector: Selector,
    /// What differs; anything else is as for all nodes
    #[serde(flatten)]
    pub size: Size,
}

/// `metav1.LabelSelector`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that a node must have
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that a node must meet
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Requirement>,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Requirement {
    /// The label's key
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label relates to the values
    pub operator: Operator,
    /// Values, for In and NotIn
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// `metav1.LabelSelectorOperator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[allow(missing_docs, reason = "Kubernetes' own words")]
pub enum Operator {
    In,
    NotIn,
    #[default]
    Exists,
    DoesNotExist,
}

/// What happens where a minimum is more than the node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum WhenMinExceedsAllocatable {
    /// The minimum counts; the pod stays Pending, where everybody sees it.
    #[default]
    KeepMin,
    /// As much as the node has.
    Cap,
    /// What the DaemonSet's own pod template says.
    UseTemplate,
}

/// Whether running pods follow changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum Refit {
    /// They keep the size that they were born with.
    #[default]
    Off,
    /// The status says which would follow.
    DryRun,
    /// They are resized in place where that is possible.
    InPlace,
    /// Those that can't be resized in place are recreated, one after the other.
    InPlaceOrRecreate,
}
