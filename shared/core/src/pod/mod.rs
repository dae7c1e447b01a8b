//! The pod as decisions read it, and the patch that they write.
//!
//! The view has the fields that some decision reads, borrowed from the raw JSON. It is never serialized: changes are
//! [`PodPatch`]es, so that unknown fields survive byte for byte.

mod container;
mod node_affinity;
mod patch;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::container::{
    Container, ContainerList, ContainerRole, ResourceClaim, ResourceField, ResourceList, Resources, aggregate,
};
pub use self::node_affinity::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
};
pub use self::patch::{AnnotationsTooLarge, PodPatch, ResourceTarget};
use crate::json::{Text, TextMap, bounded_list};
use crate::owner_reference::{OwnerReference, controller_of};

/// More containers in one list than a node can run. A pod with more is an error.
const MAX_CONTAINERS: usize = 1024;
/// More owners than a pod has in practice, which is one.
const MAX_OWNERS: usize = 64;
/// More pull secrets, and scheduling gates, than a pod has in practice.
const MAX_NAMES: usize = 1024;

/// The label, with the value `true`, of pods and namespaces for which the API server calls no webhook.
pub const SKIP: &str = "podshaper.dev/skip";

/// `v1.Pod`.
#[derive(Debug, Default, Deserialize)]
pub struct Pod<'a> {
    /// `metadata`. The API server always sends it, but a file may lack it.
    #[serde(borrow)]
    pub metadata: Option<Metadata<'a>>,
    /// `spec`.
    #[serde(borrow)]
    pub spec: Option<Box<PodSpec<'a>>>,
}

/// `metav1.ObjectMeta`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// `annotations`.
    #[serde(borrow)]
    pub annotations: Option<TextMap<'a>>,
    /// `labels`, as raw JSON: nearly every pod has some, and few decisions read them.
    #[serde(borrow)]
    pub labels: Option<&'a RawValue>,
    /// `ownerReferences`.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_OWNERS>")]
    pub owner_references: Option<Vec<OwnerReference<Text<'a>>>>,
}

/// `v1.PodSpec`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec<'a> {
    /// `runtimeClassName`.
    #[serde(borrow)]
    pub runtime_class_name: Option<Text<'a>>,
    /// `containers`.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_CONTAINERS>")]
    pub containers: Option<Vec<Container<'a>>>,
    /// `initContainers`, in the order in which they start, sidecars included.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_CONTAINERS>")]
    pub init_containers: Option<Vec<Container<'a>>>,
    /// `resources` of the pod as a whole (Kubernetes 1.34 and later).
    #[serde(borrow)]
    pub resources: Option<Resources<'a>>,
    /// `overhead`, which the `RuntimeClass` admission plugin fills in.
    #[serde(borrow)]
    pub overhead: Option<ResourceList<'a>>,
    /// `nodeName`, if the pod is already bound to a node.
    #[serde(borrow)]
    pub node_name: Option<Text<'a>>,
    /// `nodeSelector`.
    #[serde(borrow)]
    pub node_selector: Option<TextMap<'a>>,
    /// `tolerations`, as raw JSON.
    #[serde(borrow)]
    pub tolerations: Option<&'a RawValue>,
    /// `affinity`.
    #[serde(borrow)]
    pub affinity: Option<Affinity<'a>>,
    /// `volumes`, as raw JSON: few decisions read them.
    #[serde(borrow)]
    pub volumes: Option<&'a RawValue>,
    /// `imagePullSecrets`. The `ServiceAccount` admission plugin has added those of the service account.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_NAMES>")]
    pub image_pull_secrets: Option<Vec<NameRef<'a>>>,
    /// `schedulingGates`.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_NAMES>")]
    pub scheduling_gates: Option<Vec<NameRef<'a>>>,
    /// `os`.
    #[serde(borrow)]
    pub os: Option<NameRef<'a>>,
}

/// An object with the one field `name`: `v1.LocalObjectReference`, `v1.PodSchedulingGate`, `v1.PodOS`.
#[derive(Debug, Default, Deserialize)]
pub struct NameRef<'a> {
    /// `name`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

impl<'a> Pod<'a> {
    /// `metadata.annotations[key]`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.annotations.as_ref()?.get(key).map(|v| &**v)
    }

    /// `metadata.labels[key]`.
    pub fn label(&self, key: &str) -> Option<String> {
        let labels: TextMap<'_> = serde_json::from_str(self.metadata.as_ref()?.labels?.get()).ok()?;
        labels.get(key).map(ToString::to_string)
    }

    /// Whether it is a mirror pod: the API server's copy of a static pod, which the kubelet runs already.
    pub fn is_mirror(&self) -> bool {
        self.annotation("kubernetes.io/config.mirror").is_some()
    }

    /// The owner that manages the pod.
    pub fn controller(&self) -> Option<&OwnerReference<Text<'a>>> {
        controller_of(self.metadata.as_ref()?.owner_references.as_deref())
    }

    /// Whether the pod names its node, so that the scheduler ignores it.
    pub fn is_bound(&self) -> bool {
        let node = self.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node.is_some_and(|name| !name.is_empty())
    }

    /// The one node that the pod can run on: `spec.nodeName`, or what the `DaemonSet` controller writes into the node
    /// affinity, `matchFields: metadata.name In [NODE]` in every term (`ReplaceDaemonSetPodNodeNameNodeAffinity` of
    /// k8s.io/kubernetes/pkg/controller/daemon/util).
    pub fn node(&self) -> Option<&str> {
        let spec = self.spec.as_ref()?;
        if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
            return Some(name);
        }
        let mut nodes = self.required_terms()?.iter().map(NodeSelectorTerm::node);
        let first = nodes.next()??;
        nodes.all(|node| node == Some(first)).then_some(first)
    }

    /// The containers of one list.
    pub fn list(&self, list: ContainerList) -> &[Container<'a>] {
        let Some(spec) = &self.spec else { return &[] };
        match list {
            ContainerList::Containers => spec.containers.as_deref(),
            ContainerList::InitContainers => spec.init_containers.as_deref(),
        }
        .unwrap_or_default()
    }

    /// The containers, then the init containers, each with its list and its index there.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerList, usize, &Container<'a>)> {
        [ContainerList::Containers, ContainerList::InitContainers]
            .into_iter()
            .flat_map(move |list| self.list(list).iter().enumerate().map(move |(i, c)| (list, i, c)))
    }

    /// `spec.nodeSelector[key]`.
    pub fn node_selector(&self, key: &str) -> Option<&str> {
        self.spec.as_ref()?.node_selector.as_ref()?.get(key).map(|value| &**value)
    }

    /// Whether the node selector allows some node with these labels. The node may have other labels too.
    pub fn may_select(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(key, value)| self.node_selector(key).is_none_or(|own| own == value))
    }

    /// Whether the node selector and the required node affinity allow some node with these labels.
    pub fn may_run_on(&self, labels: &BTreeMap<String, String>) -> bool {
        self.may_select(labels)
            && self.required_terms().is_none_or(|terms| terms.iter().any(|term| term.may_match(labels)))
    }

    /// The terms of the required node affinity, if there is one.
    pub fn required_terms(&self) -> Option<&[NodeSelectorTerm<'a>]> {
        let required = self.node_affinity()?.required.as_ref()?;
        Some(required.node_selector_terms.as_deref().unwrap_or_default())
    }

    fn node_affinity(&self) -> Option<&NodeAffinity<'a>> {
        self.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_of_daemon_set_pod_comes_from_affinity() {
        let node = |spec: &str| {
            let pod = format!(r#"{{"spec":{spec}}}"#);
            serde_json::from_str::<Pod>(&pod).unwrap().node().map(str::to_owned)
        };
        let affinity = |terms: &str| {
            node(&format!(
                r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":{terms}}}}}}}}}"#
            ))
        };
        let name = |names: &str| {
            format!(r#"{{"matchFields":[{{"key":"metadata.name","operator":"In","values":{names}}}]}}"#)
        };
        let (a, b, ab) = (name(r#"["a"]"#), name(r#"["b"]"#), name(r#"["a","b"]"#));
        assert_eq!(affinity(&format!("[{a}]")).as_deref(), Some("a"));
        assert_eq!(affinity(&format!("[{a},{a}]")).as_deref(), Some("a"));
        assert_eq!(node(r#"{"nodeName":"n"}"#).as_deref(), Some("n"));
        for several in
            [format!("[{a},{b}]"), format!("[{ab}]"), format!("[{a},{{}}]"), "[]".into(), "null".into()]
        {
            assert_eq!(affinity(&several), None, "{several}");
        }
        assert_eq!(node(r#"{"nodeName":"","affinity":null}"#), None);
    }
}
