//! The pod as decisions read it, and the patch that they write.
//!
//! The view has the fields that some decision reads, borrowed from the raw JSON. It is never serialized: changes are
//! [`PodPatch`]es, so that unknown fields survive byte for byte.

mod node_affinity;
mod node_requirements;
mod patch;
mod toleration;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::node_affinity::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
};
pub use self::node_requirements::{NodeRequirements, alternatives};
pub use self::patch::{AnnotationsTooLarge, PodPatch, ResourceTarget};
pub use self::toleration::{Taint, Toleration};
use crate::json::{Entries, Scalar, Text, TextMap, bounded_list};
use crate::object::{OwnerReference, controller_of};

/// More containers in one list than a node can run. A pod with more is an error.
const MAX_CONTAINERS: usize = 1024;
/// More owners than a pod has in practice, which is one.
const MAX_OWNERS: usize = 64;
/// More pull secrets, scheduling gates, and resource claims than a pod has in practice.
const MAX_NAMES: usize = 1024;
/// More volumes than a pod has in practice.
const MAX_VOLUMES: usize = 1024;
/// More claims than a container can name.
const MAX_CLAIMS: usize = 1024;

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
    /// `restartPolicy`.
    #[serde(borrow)]
    pub restart_policy: Option<Text<'a>>,
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
    /// `serviceAccountName`; the template of a workload often has none, which means `default`.
    #[serde(borrow)]
    pub service_account_name: Option<Text<'a>>,
    /// `imagePullSecrets`. The `ServiceAccount` admission plugin has added those of the service account.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_NAMES>")]
    pub image_pull_secrets: Option<Vec<NameRef<'a>>>,
    /// `schedulingGates`.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_NAMES>")]
    pub scheduling_gates: Option<Vec<NameRef<'a>>>,
    /// `os`.
    #[serde(borrow)]
    pub os: Option<NameRef<'a>>,
    /// `resourceClaims`, which containers name in `resources.claims`.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_NAMES>")]
    pub resource_claims: Option<Vec<PodResourceClaim<'a>>>,
}

/// `v1.PodResourceClaim`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodResourceClaim<'a> {
    /// `name`, unique in the pod.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// `resourceClaimName`.
    #[serde(borrow)]
    pub resource_claim_name: Option<Text<'a>>,
    /// `resourceClaimTemplateName`.
    #[serde(borrow)]
    pub resource_claim_template_name: Option<Text<'a>>,
}

/// An object with the one field `name`: `v1.LocalObjectReference`, `v1.PodSchedulingGate`, `v1.PodOS`.
#[derive(Debug, Default, Deserialize)]
pub struct NameRef<'a> {
    /// `name`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// A volume with `emptyDir.medium`.
#[derive(Debug, PartialEq, Eq)]
pub struct EmptyDirMedium<'a> {
    /// The index in `spec.volumes`.
    pub index: usize,
    /// The volume's name.
    pub volume: Text<'a>,
    /// `emptyDir.medium`: `Memory`, `HugePages`, or `HugePages-` and a size.
    pub medium: Text<'a>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Volumes<'a>(
    #[serde(borrow, deserialize_with = "bounded_list::<_, _, MAX_VOLUMES>")] Option<Vec<Volume<'a>>>,
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow)]
    empty_dir: Option<EmptyDir<'a>>,
}

#[derive(Deserialize)]
struct EmptyDir<'a> {
    #[serde(borrow)]
    medium: Option<Text<'a>>,
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

    /// `metadata.labels`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.metadata.as_ref().and_then(|metadata| metadata.labels);
        labels.and_then(|labels| serde_json::from_str(labels.get()).ok()).unwrap_or_default()
    }

    /// Whether its containers end, and are then not started again.
    pub fn runs_to_completion(&self) -> bool {
        let policy = self.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        policy.is_some_and(|policy| policy != "Always")
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

    /// The volumes with `emptyDir.medium`. There are none if `spec.volumes` is malformed, or longer than a pod has in practice.
    pub fn empty_dir_media(&self) -> Vec<EmptyDirMedium<'a>> {
        let Some(volumes) = self.spec.as_ref().and_then(|spec| spec.volumes) else { return Vec::new() };
        // Most pods have volumes, and few of them a medium.
        if !volumes.get().contains("\"medium\"") {
            return Vec::new();
        }
        let Ok(Volumes(volumes)) = serde_json::from_str(volumes.get()) else { return Vec::new() };
        let media = volumes.into_iter().flatten().enumerate().filter_map(|(index, volume)| {
            Some(EmptyDirMedium { index, volume: volume.name, medium: volume.empty_dir?.medium? })
        });
        media.collect()
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

    /// `spec.tolerations`; none if they cannot be parsed.
    pub fn tolerations(&self) -> Vec<Toleration> {
        let tolerations = self.spec.as_ref().and_then(|spec| spec.tolerations);
        tolerations.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
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
    /// `imagePullPolicy`. The API server defaults it before it calls a webhook.
    #[serde(borrow)]
    pub image_pull_policy: Option<Text<'a>>,
    /// `resources`.
    #[serde(borrow)]
    pub resources: Option<Resources<'a>>,
    /// `restartPolicy`. An init container with `Always` is a sidecar.
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
        deserialize_with = "bounded_list::<_, _, MAX_CLAIMS>",
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

/// `v1.ResourceList`: quantities, as text, by resource name.
pub type ResourceList<'a> = Entries<'a, Scalar<'a>>;

/// One of a pod's lists of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerList {
    /// `spec.containers`.
    Containers,
    /// `spec.initContainers`.
    InitContainers,
}

impl ContainerList {
    /// The list's name in `spec`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::InitContainers => "initContainers",
        }
    }
}

/// One of the lists in [`Resources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceField {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl ResourceField {
    /// The list's name in `resources`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }

    /// The list in `resources`.
    pub fn of<'r, 'a>(self, resources: &'r Resources<'a>) -> Option<&'r ResourceList<'a>> {
        match self {
            Self::Requests => resources.requests.as_ref(),
            Self::Limits => resources.limits.as_ref(),
        }
    }
}

/// When a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRole {
    /// One of `spec.containers`: beside all others, for as long as the pod runs.
    App,
    /// A restartable init container: from its turn on, beside all that follow.
    Sidecar,
    /// An init container: in its turn, beside the sidecars before it.
    Init,
}

impl Container<'_> {
    /// When the container runs if it is in this list.
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
    /// Whether there are no requests, limits and claims.
    pub fn is_empty(&self) -> bool {
        self.requests.as_ref().is_none_or(Entries::is_empty)
            && self.limits.as_ref().is_none_or(Entries::is_empty)
            && self.claims.as_ref().is_none_or(Vec::is_empty)
    }
}

/// The amount of one resource that a pod of these containers needs: all app containers and sidecars together, or the init container
/// that needs most beside the sidecars before it (`AggregateContainerRequests` and `AggregateContainerLimits` of
/// k8s.io/component-helpers/resource; pod-level resources and overhead are the caller's).
///
/// Init containers come in their order. No amount is negative, so a sidecar that starts needs no more than all that run later.
pub fn aggregate<A: Copy + Default + Ord, E>(
    containers: impl IntoIterator<Item = Result<(ContainerRole, A), E>>,
    add: impl Fn(A, A) -> Result<A, E>,
) -> Result<A, E> {
    let mut running = A::default();
    let mut sidecars = A::default();
    let mut starting = A::default();
    for container in containers {
        let (role, amount) = container?;
        match role {
            ContainerRole::App => running = add(running, amount)?,
            ContainerRole::Sidecar => {
                running = add(running, amount)?;
                sidecars = add(sidecars, amount)?;
            }
            ContainerRole::Init => starting = starting.max(add(sidecars, amount)?),
        }
    }
    Ok(running.max(starting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_dir_media_have_index_and_name() {
        let pod = |volumes: &str| format!(r#"{{"spec":{{"volumes":{volumes}}}}}"#);
        let media = |pod: &str| {
            let pod: Pod = serde_json::from_str(pod).unwrap();
            let media = pod.empty_dir_media().into_iter();
            media.map(|m| (m.index, m.volume.to_string(), m.medium.to_string())).collect::<Vec<_>>()
        };
        let volumes = r#"[{"name":"a","emptyDir":{}},{"name":"b","emptyDir":{"medium":"HugePages"}},{"name":"c","emptyDir":null}]"#;
        assert_eq!(media(&pod(volumes)), [(1, "b".to_owned(), "HugePages".to_owned())]);
        for none in ["null", "[]", r#"{"medium":1}"#, r#"[{"emptyDir":{"medium":{}}}]"#] {
            assert_eq!(media(&pod(none)), []);
        }
    }

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
        let a = name(r#"["a"]"#);
        let b = name(r#"["b"]"#);
        let ab = name(r#"["a","b"]"#);
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

    #[test]
    fn larger_of_running_and_starting_counts() {
        use ContainerRole::{App, Init, Sidecar};
        let total = |containers: &[(ContainerRole, i64)]| {
            aggregate(containers.iter().copied().map(Ok), |a, b| a.checked_add(b).ok_or("overflow"))
        };
        assert_eq!(total(&[(App, 3), (App, 4), (Init, 5)]), Ok(7));
        assert_eq!(total(&[(App, 3), (Init, 9)]), Ok(9));
        assert_eq!(total(&[(App, 3), (Sidecar, 2), (Init, 9), (Sidecar, 5)]), Ok(11));
        assert_eq!(total(&[(App, 3), (Init, 4), (Sidecar, 2)]), Ok(5));
        assert_eq!(total(&[(Sidecar, i64::MAX), (Init, 1)]), Err("overflow"));
    }
}
