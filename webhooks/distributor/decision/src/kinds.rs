//! What is kept of the kinds that are watched.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::crd::PLURAL;
use crate::distributor::Distributor;
use crate::status::PodDistributorStatus;

impl FromObject for Distributor {
    type Spec = Value;
    type Status = Value;
    const PLURAL: &'static str = PLURAL;
    const API: &'static str = "/apis/versprei.versprei.io/v1beta1";

    fn from_object(object: Object<Value, Value>) -> Option<Self> {
        let metadata = object.metadata;
        if metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(Self {
            name: metadata.name,
            namespace: metadata.namespace?,
            uid: metadata.uid,
            created: metadata.creation_timestamp.unwrap_or_default(),
            generation: metadata.generation,
            // A status of another version counts as none, and is written anew.
            status: PodDistributorStatus::deserialize(object.status.unwrap_or_default()).unwrap_or_default(),
            ..Self::from_spec(object.spec.unwrap_or_default())
        })
    }
}

/// The labels of a node that could take a pod: it is ready, and not cordoned.
#[derive(Debug, PartialEq, Eq)]
pub struct Node(pub BTreeMap<String, String>);

/// `v1.NodeSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    unschedulable: bool,
}

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl FromObject for Node {
    type Spec = NodeSpec;
    type Status = NodeStatus;
    const PLURAL: &'static str = "nodes";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<NodeSpec, NodeStatus>) -> Option<Self> {
        let conditions = object.status.unwrap_or_default().conditions.unwrap_or_default();
        let ready = conditions.iter().any(|one| one.kind == "Ready" && one.status == "True");
        let usable = ready && !object.spec.unwrap_or_default().unschedulable;
        usable.then(|| Self(object.metadata.labels.unwrap_or_default()))
    }
}
