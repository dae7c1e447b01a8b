//! The pod as decisions read it, and the patch that they write against it.
//!
//! The view holds only fields that some decision reads, borrowed from the raw JSON. It is never written back: changes
//! are [`PodPatch`]es, so that fields nobody here has heard of survive byte for byte.

mod aggregate;
mod patch;
mod scheduling;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::aggregate::{ContainerRole, aggregate};
pub use self::patch::{AnnotationsTooLarge, Holder, PodPatch};
use crate::json::{Entries, Scalar, Text, TextMap, at_most};
use crate::owner_reference::{OwnerReference, controller_of};

/// More containers in one list than any pod has that a node could run. A pod beyond it can't be read.
const MAX_CONTAINERS: usize = 1024;
/// More claims than a container may name.
const MAX_CLAIMS: usize = 1024;
/// More owners than any pod has; of most there is one.
const MAX_OWNERS: usize = 64;
/// More secrets, and more gates, than any pod names.
const MAX_NAMES: usize = 1024;
/// More terms of a node affinity, and requirements of a term, than the API server would evaluate in time.
const MAX_TERMS: usize = 1024;

/// The label, `true`, of pods and namespaces that no webhook is called for.
pub const SKIP: &str = "podshaper.dev/skip";

/// `v1.Pod`.
#[derive(Debug, Default, Deserialize)]
pub struct Pod<'a> {
    /// `metadata`; the API server always sends it, a file may lack it.
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
    /// `labels`, as they stand: nearly every pod has some, and few decisions read them.
    #[serde(borrow)]
    pub labels: Option<&'a RawValue>,
    /// `ownerReferences`.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_OWNERS>")]
    pub owner_references: Option<Vec<OwnerReference<Text<'a>>>>,
}

/// `v1.PodSpec`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec<'a> {
    /// `runtimeClassName`.
    #[serde(borrow)]
    pub runtime_class_name: Option<Text<'a>>,
    /// `containers`, in order.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_CONTAINERS>")]
    pub containers: Option<Vec<Container<'a>>>,
    /// `initContainers`, in order, sidecars among them.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_CONTAINERS>")]
    pub init_containers: Option<Vec<Container<'a>>>,
    /// `resources` of the pod as a whole (Kubernetes 1.34 and later).
    #[serde(borrow)]
    pub resources: Option<Resources<'a>>,
    /// `overhead`, which the `RuntimeClass` admission plugin fills in.
    #[serde(borrow)]
    pub overhead: Option<ResourceList<'a>>,
    /// `nodeName`: the node that the pod is bound to already.
    #[serde(borrow)]
    pub node_name: Option<Text<'a>>,
    /// `nodeSelector`.
    #[serde(borrow)]
    pub node_selector: Option<TextMap<'a>>,
    /// `tolerations`, as they stand.
    #[serde(borrow)]
    pub tolerations: Option<&'a RawValue>,
    /// `affinity`.
    #[serde(borrow)]
    pub affinity: Option<Affinity<'a>>,
    /// `volumes`, as they stand: most decisions have no use for them.
    #[serde(borrow)]
    pub volumes: Option<&'a RawValue>,
    /// `imagePullSecrets`, with which the `ServiceAccount` admission plugin has filled in those of the service account.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_NAMES>")]
    pub image_pull_secrets: Option<Vec<Named<'a>>>,
    /// `schedulingGates`.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_NAMES>")]
    pub scheduling_gates: Option<Vec<Named<'a>>>,
    /// `os`.
    #[serde(borrow)]
    pub os: Option<Named<'a>>,
}

/// What is told by its name alone: `v1.LocalObjectReference`, `v1.PodSchedulingGate`, `v1.PodOS`.
#[derive(Debug, Default, Deserialize)]
pub struct Named<'a> {
    /// `name`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// `v1.Affinity`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity<'a> {
    /// `nodeAffinity`.
    #[serde(borrow)]
    pub node_affinity: Option<NodeAffinity<'a>>,
}

/// `v1.NodeAffinity`.
#[derive(Debug, Default, Deserialize)]
pub struct NodeAffinity<'a> {
    /// `requiredDuringSchedulingIgnoredDuringExecution`.
    #[serde(borrow, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector<'a>>,
    /// `preferredDuringSchedulingIgnoredDuringExecution`, as it stands.
    #[serde(borrow, rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Option<&'a RawValue>,
}

/// `v1.NodeSelector`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector<'a> {
    /// `nodeSelectorTerms`, of which one must be met.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_TERMS>")]
    pub node_selector_terms: Option<Vec<NodeSelectorTerm<'a>>>,
}

/// `v1.NodeSelectorTerm`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelectorTerm<'a> {
    /// `matchExpressions`, over labels.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_TERMS>")]
    pub match_expressions: Option<Vec<NodeSelectorRequirement<'a>>>,
    /// `matchFields`; the only field that there is to match is `metadata.name`.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_TERMS>")]
    pub match_fields: Option<Vec<NodeSelectorRequirement<'a>>>,
}

/// `v1.NodeSelectorRequirement`.
#[derive(Debug, Default, Deserialize)]
pub struct NodeSelectorRequirement<'a> {
    /// `key`.
    #[serde(borrow, default)]
    pub key: Text<'a>,
    /// `operator`.
    #[serde(borrow, default)]
    pub operator: Text<'a>,
    /// `values`.
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_TERMS>")]
    pub values: Option<Vec<Text<'a>>>,
}

/// `v1.Container`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// `name`, unique among containers and init containers.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// `image`.
    #[serde(borrow)]
    pub image: Option<Text<'a>>,
    /// `imagePullPolicy`; the API server fills it in.
    #[serde(borrow)]
    pub image_pull_policy: Option<Text<'a>>,
    /// `resources`.
    #[serde(borrow)]
    pub resources: Option<Resources<'a>>,
    /// `restartPolicy`; an init container with `Always` is a sidecar.
    #[serde(borrow)]
    pub restart_policy: Option<Text<'a>>,
}

/// `v1.ResourceRequirements`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Resources<'a> {
    /// `requests`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceList<'a>>,
    /// `limits`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceList<'a>>,
    /// `claims`.
    #[serde(
        borrow,
        default,
        deserialize_with = "at_most::<_, _, MAX_CLAIMS>",
        skip_serializing_if = "Option::is_none"
    )]
    pub claims: Option<Vec<ResourceClaim<'a>>>,
}

/// `v1.ResourceClaim`, as a container names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ResourceClaim<'a> {
    /// `name`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// `request`, one of those in the claim.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub request: Option<Text<'a>>,
}

/// `v1.ResourceList`: quantities by resource name, as text.
pub type ResourceList<'a> = Entries<'a, Scalar<'a>>;

/// Which of a pod's lists a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerList {
    /// `spec.containers`.
    Containers,
    /// `spec.initContainers`.
    InitContainers,
}

impl ContainerList {
    /// The field's name.
    pub fn field(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::InitContainers => "initContainers",
        }
    }
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

    /// Whether it names its node itself, so that no scheduler is asked.
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
        let required = spec.affinity.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
        let mut nodes =
            required.node_selector_terms.as_deref().unwrap_or_default().iter().map(NodeSelectorTerm::node);
        let first = nodes.next()??;
        nodes.all(|node| node == Some(first)).then_some(first)
    }

    /// The containers of one list, in order.
    pub fn list(&self, list: ContainerList) -> &[Container<'a>] {
        let Some(spec) = &self.spec else { return &[] };
        match list {
            ContainerList::Containers => spec.containers.as_deref(),
            ContainerList::InitContainers => spec.init_containers.as_deref(),
        }
        .unwrap_or_default()
    }

    /// All containers: those of `spec.containers` first, then init containers, each with its place.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerList, usize, &Container<'a>)> {
        [ContainerList::Containers, ContainerList::InitContainers]
            .into_iter()
            .flat_map(move |list| self.list(list).iter().enumerate().map(move |(i, c)| (list, i, c)))
    }
}

impl NodeSelectorTerm<'_> {
    fn node(&self) -> Option<&str> {
        let field = self.match_fields.as_deref()?.iter();
        let names =
            |field: &&NodeSelectorRequirement<'_>| &*field.key == "metadata.name" && &*field.operator == "In";
        match field.filter(names).find_map(|field| field.values.as_deref())? {
            [name] => Some(name),
            _ => None,
        }
    }
}

impl Container<'_> {
    /// When the container of this list runs.
    pub fn role(&self, list: ContainerList) -> ContainerRole {
        match list {
            ContainerList::Containers => ContainerRole::App,
            ContainerList::InitContainers if self.restart_policy.as_deref() == Some("Always") => {
                ContainerRole::Sidecar
            }
            ContainerList::InitContainers => ContainerRole::Init,
        }
    }
}

impl Resources<'_> {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.requests.as_ref().is_none_or(Entries::is_empty)
            && self.limits.as_ref().is_none_or(Entries::is_empty)
            && self.claims.as_ref().is_none_or(Vec::is_empty)
    }
}

/// One half of [`Resources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceField {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl ResourceField {
    /// The field's name.
    pub fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }

    /// That half of `resources`.
    pub fn of<'r, 'a>(self, resources: &'r Resources<'a>) -> Option<&'r ResourceList<'a>> {
        match self {
            Self::Requests => resources.requests.as_ref(),
            Self::Limits => resources.limits.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_of_a_daemon_sets_pod() {
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
