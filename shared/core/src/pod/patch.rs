//! What is changed in a pod.

use serde::Serialize;
use thiserror::Error;

use super::{ContainerList, Pod, ResourceField, Resources};
use crate::patch::{Patch, Pointer};

/// Bytes that all annotations of a pod may have, keys and values (`TotalAnnotationSizeLimitB` of Kubernetes).
const MAX_ANNOTATIONS: usize = 256 << 10;

/// The API server would refuse the pod for the size of its annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "its annotations leave no room for what would be written there: a pod has at most {MAX_ANNOTATIONS} bytes of them"
)]
pub struct AnnotationsTooLarge;

/// Whose resources are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A container's, by its place.
    Container(ContainerList, usize),
    /// Those of the pod as a whole, `spec.resources`.
    Pod,
}

/// A patch of one pod. Whatever is called, in whatever order, the result applies to that pod.
#[derive(Debug)]
pub struct PodPatch<'p, 'a> {
    pub(super) pod: &'p Pod<'a>,
    pub(super) patch: Patch,
    /// Objects and lists that the patch has added so far.
    made: Vec<Pointer>,
    /// Bytes of annotations that the patch adds, and that it takes away.
    annotations: (usize, usize),
}

impl<'p, 'a> PodPatch<'p, 'a> {
    /// An empty patch of `pod`.
    pub fn new(pod: &'p Pod<'a>) -> Self {
        Self { pod, patch: Patch::default(), made: Vec::new(), annotations: (0, 0) }
    }

    /// The pod that is to be changed, as it was.
    pub fn pod(&self) -> &'p Pod<'a> {
        self.pod
    }

    /// Sets an annotation; nothing where it already has that value. Call it once per key.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        if self.pod.annotation(key) != Some(value) {
            self.annotate(key, |patch, place| patch.add(place, value));
        }
    }

    /// The same with the JSON of `value`, which has string keys.
    pub fn set_annotation_to_json<V: Serialize>(&mut self, key: &str, value: &V) {
        let stands = |standing| serde_json::to_string(value).is_ok_and(|json| json == standing);
        if !self.pod.annotation(key).is_some_and(stands) {
            self.annotate(key, |patch, place| patch.add_as_text(place, value));
        }
    }

    /// Sets a label; nothing where it already has that value. Call it once per key.
    pub fn set_label(&mut self, key: &str, value: &str) {
        if self.pod.label(key).as_deref() == Some(value) {
            return;
        }
        let labels = self.pod.metadata.as_ref().and_then(|metadata| metadata.labels);
        let labels = self.make_in_metadata("labels", labels.is_some());
        self.patch.add(&labels.key(key), value);
    }

    fn annotate(&mut self, key: &str, write: impl FnOnce(&mut Patch, &Pointer)) {
        let metadata = self.pod.metadata.as_ref();
        let stand = metadata.is_some_and(|metadata| metadata.annotations.is_some());
        let place = self.make_in_metadata("annotations", stand).key(key);
        let before = self.patch.len();
        write(&mut self.patch, &place);
        // The operation is longer than the key and the value in it.
        self.annotations.0 += self.patch.len() - before;
        self.forget(key);
    }

    /// The annotation as it stood takes no room any more.
    fn forget(&mut self, key: &str) {
        self.annotations.1 += self.pod.annotation(key).map_or(0, |value| key.len() + value.len());
    }

    /// A member of the metadata, which stands from now on.
    fn make_in_metadata(&mut self, member: &str, stands: bool) -> Pointer {
        let metadata = Pointer::root().key("metadata");
        self.make(&metadata, self.pod.metadata.is_some());
        let member = metadata.key(member);
        self.make(&member, stands);
        member
    }

    /// Removes an annotation; nothing where it isn't there.
    pub fn remove_annotation(&mut self, key: &str) {
        if self.pod.annotation(key).is_some() {
            self.patch.remove(&annotation(key));
            self.forget(key);
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

    /// Sets the request or limit of one resource and leaves all others as they are; nothing where there is no such
    /// container, or no spec. Call it once per place.
    pub fn set_quantity(&mut self, holder: Holder, field: ResourceField, resource: &str, quantity: &str) {
        if !self.stands(holder) {
            return;
        }
        let resources = self.resources_of(holder);
        let resources_stand = resources.is_some();
        let list_stands = resources.is_some_and(|resources| field.of(resources).is_some());
        let resources = holder.pointer();
        let list = resources.clone().key(field.field());
        self.make(&resources, resources_stand);
        self.make(&list, list_stands);
        self.patch.add(&list.key(resource), quantity);
    }

    /// Removes the request or limit of one resource; nothing where there is none. Call it once per place.
    pub fn remove_quantity(&mut self, holder: Holder, field: ResourceField, resource: &str) {
        let list = self.resources_of(holder).and_then(|resources| field.of(resources));
        if list.is_some_and(|list| list.get(resource).is_some()) {
            self.patch.remove(&holder.pointer().key(field.field()).key(resource));
        }
    }

    /// Adds an empty object, once, unless it stands already.
    pub(super) fn make(&mut self, pointer: &Pointer, stands: bool) {
        self.make_as(pointer, stands, &Empty {});
    }

    /// Appends to a list, which is made first unless it stands.
    pub(super) fn append<V: Serialize + ?Sized>(&mut self, list: &Pointer, stands: bool, item: &V) {
        self.make_as(list, stands, &[(); 0]);
        self.patch.add(&list.clone().key("-"), item);
    }

    fn make_as<V: Serialize + ?Sized>(&mut self, pointer: &Pointer, stands: bool, empty: &V) {
        if !stands && !self.made.contains(pointer) {
            self.patch.add(pointer, empty);
            self.made.push(pointer.clone());
        }
    }

    /// Whether there is such a container, or a spec.
    fn stands(&self, holder: Holder) -> bool {
        match holder {
            Holder::Container(list, index) => index < self.pod.list(list).len(),
            Holder::Pod => self.pod.spec.is_some(),
        }
    }

    fn resources_of(&self, holder: Holder) -> Option<&'p Resources<'a>> {
        match holder {
            Holder::Container(list, index) => self.pod.list(list).get(index)?.resources.as_ref(),
            Holder::Pod => self.pod.spec.as_ref()?.resources.as_ref(),
        }
    }

    /// Removes `spec.resources`, those of the pod as a whole; nothing where there are none.
    pub fn remove_pod_resources(&mut self) {
        if self.pod.spec.as_ref().is_some_and(|s| s.resources.is_some()) {
            self.patch.remove(&Pointer::root().key("spec").key("resources"));
        }
    }

    /// Whether there is nothing to change so far.
    pub fn is_empty(&self) -> bool {
        self.patch.is_empty()
    }

    /// The operations, unless the API server would refuse the pod for them.
    pub fn finish(self) -> Result<Patch, AnnotationsTooLarge> {
        let (added, gone) = self.annotations;
        let standing = self.pod.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
        let standing = standing.map_or(0, |all| all.iter().map(|(key, value)| key.len() + value.len()).sum());
        if added > 0 && added.saturating_add(standing).saturating_sub(gone) > MAX_ANNOTATIONS {
            return Err(AnnotationsTooLarge);
        }
        Ok(self.patch)
    }
}

#[derive(Serialize)]
struct Empty {}

fn annotation(key: &str) -> Pointer {
    Pointer::root().key("metadata").key("annotations").key(key)
}

fn resources_of(list: ContainerList, index: usize) -> Pointer {
    Pointer::root().key("spec").key(list.field()).index(index).key("resources")
}

impl Holder {
    fn pointer(self) -> Pointer {
        match self {
            Self::Container(list, index) => resources_of(list, index),
            Self::Pod => Pointer::root().key("spec").key("resources"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(pod: &str, edit: impl Fn(&mut PodPatch<'_, '_>)) -> String {
        let view: Pod = serde_json::from_str(pod).unwrap();
        let mut patch = PodPatch::new(&view);
        edit(&mut patch);
        let patch: json_patch::Patch =
            serde_json::from_str(&String::from_utf8(patch.finish().unwrap().to_json()).unwrap()).unwrap();
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
        assert!(patch.finish().unwrap().is_empty());
    }

    #[test]
    fn annotations_that_leave_no_room() {
        let finished = |standing: usize, edit: fn(&mut PodPatch<'_, '_>)| {
            let pod = format!(r#"{{"metadata":{{"annotations":{{"a":"{}"}}}}}}"#, "x".repeat(standing));
            let view: Pod = serde_json::from_str(&pod).unwrap();
            let mut patch = PodPatch::new(&view);
            edit(&mut patch);
            patch.finish().map(|patch| patch.is_empty())
        };
        let write: fn(&mut PodPatch<'_, '_>) = |patch| patch.set_annotation("b", "1");
        assert_eq!(finished(MAX_ANNOTATIONS - 100, write), Ok(false));
        assert_eq!(finished(MAX_ANNOTATIONS - 2, write), Err(AnnotationsTooLarge));
        assert_eq!(
            finished(MAX_ANNOTATIONS - 2, |patch| patch.set_annotation_to_json("b", &1)),
            Err(AnnotationsTooLarge)
        );
        assert_eq!(finished(MAX_ANNOTATIONS - 2, |patch| patch.set_annotation("a", "1")), Ok(false));
        assert_eq!(finished(MAX_ANNOTATIONS - 2, |patch| patch.set_label("b", "1")), Ok(false));
        assert_eq!(finished(MAX_ANNOTATIONS + 2, |_| {}), Ok(true), "it was too much before");
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
    fn one_quantity_is_set_and_the_others_stay() {
        let first = Holder::Container(ContainerList::Containers, 0);
        let edit = |p: &mut PodPatch<'_, '_>| {
            p.set_quantity(first, ResourceField::Requests, "cpu", "2");
            p.set_quantity(first, ResourceField::Requests, "memory", "1Gi");
            p.remove_quantity(first, ResourceField::Limits, "cpu");
            p.set_quantity(Holder::Pod, ResourceField::Limits, "cpu", "3");
            p.set_quantity(
                Holder::Container(ContainerList::InitContainers, 0),
                ResourceField::Limits,
                "a",
                "1",
            );
        };
        let after = |resources: &str| {
            let pod = format!(r#"{{"spec":{{"containers":[{{{resources}}}]}}}}"#);
            let after: serde_json::Value = serde_json::from_str(&patched(&pod, edit)).unwrap();
            assert_eq!(after["spec"]["resources"], serde_json::json!({"limits": {"cpu": "3"}}));
            after["spec"]["containers"][0]["resources"].to_string()
        };
        let set = r#"{"requests":{"cpu":"2","memory":"1Gi"}}"#;
        for absent in ["", r#""resources":null"#, r#""resources":{}"#, r#""resources":{"requests":null}"#] {
            assert_eq!(after(absent), set, "{absent}");
        }
        assert_eq!(
            after(r#""resources":{"limits":{"cpu":1,"x":"1"},"requests":{"cpu":"1","x":"1"},"new":1}"#),
            r#"{"limits":{"x":"1"},"requests":{"cpu":"2","x":"1","memory":"1Gi"},"new":1}"#
        );
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
