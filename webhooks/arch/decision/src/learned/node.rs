//! Nodes, as far as their architecture is concerned.

use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod;
use serde::Deserialize;

use super::taints_of;
use crate::platform::Architecture;
use crate::table::{ARCH_LABEL, Taint};

/// The label that every kubelet gives its node for its operating system.
const OS_LABEL: &str = "kubernetes.io/os";

/// A Linux node.
#[derive(Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its architecture, by its label, or else by what the kubelet reports.
    pub architecture: Architecture,
    /// Its taints with the name of the architecture as value.
    pub taints: Vec<Taint>,
}

/// `v1.NodeSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    taints: Option<Vec<pod::Taint>>,
}

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterNodeStatus {
    node_info: Option<NodeInfo>,
}

/// `v1.NodeSystemInfo`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    architecture: String,
    operating_system: String,
}

impl FromObject for ClusterNode {
    type Spec = NodeSpec;
    type Status = ClusterNodeStatus;
    const PLURAL: &'static str = "nodes";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<NodeSpec, ClusterNodeStatus>) -> Option<Self> {
        let labels = object.metadata.labels.unwrap_or_default();
        let info = object.status.and_then(|status| status.node_info).unwrap_or_default();
        let os = labels.get(OS_LABEL).unwrap_or(&info.operating_system);
        if !matches!(&**os, "" | "linux") {
            return None;
        }
        let architecture: Architecture = labels.get(ARCH_LABEL).unwrap_or(&info.architecture).parse().ok()?;
        let taints = object.spec.and_then(|spec| spec.taints).unwrap_or_default();
        Some(Self { taints: taints_of(&architecture.name, taints).collect(), architecture })
    }
}
