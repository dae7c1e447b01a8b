//! A node, as far as sizes depend on it.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::resource::{PerResource, SizedResource};

/// A node's labels, and its allocatable resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Sorted by key.
    labels: Box<[(Box<str>, Box<str>)]>,
    /// `status.allocatable` in millicores and bytes; `None` if it is absent or invalid.
    pub allocatable: PerResource<Option<i64>>,
    /// Whether its condition `Ready` is true: only then does its kubelet resize pods.
    pub is_ready: bool,
}

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeStatus {
    allocatable: Option<BTreeMap<String, Value>>,
    conditions: Option<Vec<NodeCondition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeCondition {
    r#type: String,
    status: String,
}

impl Node {
    /// A node without labels that no pod is too large for.
    pub fn unlimited() -> Self {
        Self { labels: Box::default(), allocatable: PerResource::from_fn(|_| Some(i64::MAX)), is_ready: true }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let index = self.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.labels.get(index).map(|(_, value)| &**value)
    }
}

impl FromObject for Node {
    type Spec = IgnoredAny;
    type Status = NodeStatus;
    const PLURAL: &'static str = "nodes";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<IgnoredAny, NodeStatus>) -> Option<Self> {
        let labels = object.metadata.labels.unwrap_or_default().into_iter();
        let (allocatable, conditions) =
            object.status.map(|status| (status.allocatable, status.conditions)).unwrap_or_default();
        let allocatable = allocatable.unwrap_or_default();
        let is_ready = |condition: &NodeCondition| condition.r#type == "Ready" && condition.status == "True";
        let amount = |resource: SizedResource| {
            let amount = resource.parse_json(allocatable.get(resource.name())?).ok()?;
            Some(amount).filter(|amount| *amount >= 0)
        };
        Some(Self {
            labels: labels.map(|(key, value)| (key.into(), value.into())).collect(),
            allocatable: PerResource::from_fn(amount),
            is_ready: conditions.unwrap_or_default().iter().any(is_ready),
        })
    }
}
