//! The pod as decisions read it, and the patch that they write against it.
//!
//! The view holds only fields that some decision reads, borrowed from the raw JSON. It is never written back: changes
//! are [`PodPatch`]es, so that fields nobody here has heard of survive byte for byte.

use serde::{Deserialize, Serialize};

use crate::json::{Entries, Scalar, Text, TextMap, at_most};
use crate::patch::{Patch, Pointer};

/// More containers in one list than any pod has that a node could run. A pod beyond it can't be read.
const MAX_CONTAINERS: usize = 1024;
/// More claims than a container may name.
const MAX_CLAIMS: usize = 1024;

/// `v1.Pod`.
#[derive(Debug, Default, Deserialize)]
pub struct Pod<'a> {
    /// `metadata`; the API server always sends it, a file may lack it.
    #[serde(borrow)]
    pub metadata: Option<Metadata<'a>>,
    /// `spec`.
    #[serde(borrow)]
    pub spec: Option<PodSpec<'a>>,
}

/// `metav1.ObjectMeta`.
#[derive(Debug, Default, Deserialize)]
pub struct Metadata<'a> {
    /// `annotations`.
    #[serde(borrow)]
    pub annotations: Option<TextMap<'a>>,
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
}

/// `v1.Container`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// `name`, unique among containers and init containers.
    #[serde(borrow, default)]
    pub name: Text<'a>,
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

impl Container<'_> {
    /// A restartable init container: it starts in the order of init containers and runs beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
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

/// A patch of one pod. Whatever is called, in whatever order, the result applies to that pod.
#[derive(Debug)]
pub struct PodPatch<'p, 'a> {
    pod: &'p Pod<'a>,
    patch: Patch,
    annotations_stand: bool,
}

impl<'p, 'a> PodPatch<'p, 'a> {
    /// An empty patch of `pod`.
    pub fn new(pod: &'p Pod<'a>) -> Self {
        let annotations_stand = pod.metadata.as_ref().is_some_and(|m| m.annotations.is_some());
        Self { pod, patch: Patch::default(), annotations_stand }
    }

    /// Sets an annotation; nothing where it already has that value. Call it once per key.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        if self.pod.annotation(key) == Some(value) {
            return;
        }
        let metadata = Pointer::root().key("metadata");
        let annotations = metadata.clone().key("annotations");
        if !self.annotations_stand {
            if self.pod.metadata.is_none() {
                self.patch.add(&metadata, &Empty {});
            }
            self.patch.add(&annotations, &Empty {});
            self.annotations_stand = true;
        }
        self.patch.add(&annotations.key(key), value);
    }

    /// Removes an annotation; nothing where it isn't there.
    pub fn remove_annotation(&mut self, key: &str) {
        if self.pod.annotation(key).is_some() {
            self.patch.remove(&Pointer::root().key("metadata").key("annotations").key(key));
        }
    }

    /// Sets the whole `resources` of a container; nothing where there is no such container.
    pub fn set_resources<R: Serialize>(&mut self, list: ContainerList, index: usize, resources: &R) {
        if index < self.pod.list(list).len() {
            self.patch.add(&resources_of(list, index), resources);
        }
    }

    /// Removes the `resources` of a container; nothing where there are none.
    pub fn remove_resources(&mut self, list: ContainerList, index: usize) {
        if self.pod.list(list).get(index).is_some_and(|c| c.resources.is_some()) {
            self.patch.remove(&resources_of(list, index));
        }
    }

    /// Removes `spec.resources`, those of the pod as a whole; nothing where there are none.
    pub fn remove_pod_resources(&mut self) {
        if self.pod.spec.as_ref().is_some_and(|s| s.resources.is_some()) {
            self.patch.remove(&Pointer::root().key("spec").key("resources"));
        }
    }

    /// The operations.
    pub fn finish(self) -> Patch {
        self.patch
    }
}

#[derive(Serialize)]
struct Empty {}

fn resources_of(list: ContainerList, index: usize) -> Pointer {
    Pointer::root().key("spec").key(list.field()).index(index).key("resources")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(pod: &str, edit: impl Fn(&mut PodPatch<'_, '_>)) -> String {
        let view: Pod = serde_json::from_str(pod).unwrap();
        let mut patch = PodPatch::new(&view);
        edit(&mut patch);
        let patch: json_patch::Patch =
            serde_json::from_str(&String::from_utf8(patch.finish().to_json()).unwrap()).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(pod).unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        value.to_string()
    }

    #[test]
    fn annotations_make_their_parents() {
        for pod in
            ["{}", r#"{"metadata":null}"#, r#"{"metadata":{}}"#, r#"{"metadata":{"annotations":null}}"#]
        {
            let after = patched(pod, |p| {
                p.set_annotation("a/b", "1");
                p.set_annotation("c", "2");
            });
            assert_eq!(after, r#"{"metadata":{"annotations":{"a/b":"1","c":"2"}}}"#, "{pod}");
        }
    }

    #[test]
    fn an_annotation_that_stands_is_left_alone() {
        let view: Pod = serde_json::from_str(r#"{"metadata":{"annotations":{"a":"1"}}}"#).unwrap();
        let mut patch = PodPatch::new(&view);
        patch.set_annotation("a", "1");
        assert!(patch.finish().is_empty());
    }

    #[test]
    fn an_annotation_that_is_absent_is_not_removed() {
        let remove = |p: &mut PodPatch<'_, '_>| p.remove_annotation("a/b");
        assert_eq!(
            patched(r#"{"metadata":{"annotations":{"a/b":"1"}}}"#, remove),
            r#"{"metadata":{"annotations":{}}}"#
        );
        assert_eq!(patched("{}", remove), "{}");
    }

    #[test]
    fn resources_that_are_absent_are_not_removed() {
        let pod = r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":1}},"x":1},{"name":"b"}],"initContainers":null}}"#;
        let after = patched(pod, |p| {
            for list in [ContainerList::Containers, ContainerList::InitContainers] {
                for index in 0..3 {
                    p.remove_resources(list, index);
                }
            }
            p.set_resources(ContainerList::Containers, 1, &serde_json::json!({"limits": {"v": "1"}}));
            p.set_resources(ContainerList::InitContainers, 0, &1);
            p.remove_pod_resources();
        });
        assert_eq!(
            after,
            r#"{"spec":{"containers":[{"x":1},{"name":"b","resources":{"limits":{"v":"1"}}}],"initContainers":null}}"#
        );
    }
}
