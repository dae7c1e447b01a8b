//! The patch of a pod.

use std::fmt;
use std::iter;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use thiserror::Error;

use super::node_affinity::{NodeSelectorTerm, items};
use super::node_requirements::NodeRequirements;
use super::{ContainerList, Pod, ResourceField, Resources};
use crate::patch::{Patch, Pointer};

/// Bytes that the annotations of a pod may have, keys and values (`TotalAnnotationSizeLimitB` of Kubernetes).
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Bytes of an item of a list that is compared with a new item.
const MAX_ITEM: usize = 16 << 10;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The API server would refuse the pod for the size of its annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "its annotations leave no room for those of the webhook: a pod can have at most {MAX_ANNOTATIONS} bytes of them"
)]
pub struct AnnotationsTooLarge;

/// The owner of resources in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceTarget {
    /// A container, by its list and its index there.
    Container(ContainerList, usize),
    /// The pod as a whole: `spec.resources`.
    Pod,
}

/// A patch of one pod. It applies to that pod, whatever methods are called in whatever order.
///
/// A method that has nothing to change, or no place in the pod for the change, does nothing.
#[derive(Debug)]
pub struct PodPatch<'p, 'a> {
    pod: &'p Pod<'a>,
    patch: Patch,
    /// Objects and lists that the patch creates.
    created: Vec<Pointer>,
    /// Bytes of annotations that the patch adds.
    added_annotations: usize,
    /// Bytes of annotations that the patch removes.
    removed_annotations: usize,
}

impl<'p, 'a> PodPatch<'p, 'a> {
    /// An empty patch of `pod`.
    pub fn new(pod: &'p Pod<'a>) -> Self {
        Self {
            pod,
            patch: Patch::default(),
            created: Vec::new(),
            added_annotations: 0,
            removed_annotations: 0,
        }
    }

    /// The pod without the patch.
    pub fn pod(&self) -> &'p Pod<'a> {
        self.pod
    }

    /// Sets an annotation. Call it once per key.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        if self.pod.annotation(key) != Some(value) {
            self.annotate(key, |patch, path| patch.add(path, value));
        }
    }

    /// Sets an annotation to the JSON of `value`. Its maps must have string keys. Call it once for each key.
    pub fn set_annotation_json<V: Serialize>(&mut self, key: &str, value: &V) {
        let is_json = |own| serde_json::to_string(value).is_ok_and(|json| json == own);
        if !self.pod.annotation(key).is_some_and(is_json) {
            self.annotate(key, |patch, path| patch.add_json_text(path, value));
        }
    }

    /// Removes an annotation.
    pub fn remove_annotation(&mut self, key: &str) {
        if self.pod.annotation(key).is_some() {
            self.patch.remove(&Pointer::root().key("metadata").key("annotations").key(key));
            self.count_removed(key);
        }
    }

    /// Sets a label. Call it once per key.
    pub fn set_label(&mut self, key: &str, value: &str) {
        if self.pod.label(key).as_deref() == Some(value) {
            return;
        }
        let labels = self.pod.metadata.as_ref().and_then(|metadata| metadata.labels);
        let labels = self.create_in_metadata("labels", labels.is_some());
        self.patch.add(&labels.key(key), value);
    }

    fn annotate(&mut self, key: &str, write: impl FnOnce(&mut Patch, &Pointer)) {
        let annotations = self.pod.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
        let path = self.create_in_metadata("annotations", annotations.is_some()).key(key);
        let before = self.patch.len();
        write(&mut self.patch, &path);
        // The operation is longer than the key and the value in it.
        self.added_annotations += self.patch.len() - before;
        self.count_removed(key);
    }

    fn count_removed(&mut self, key: &str) {
        self.removed_annotations += self.pod.annotation(key).map_or(0, |value| key.len() + value.len());
    }

    fn create_in_metadata(&mut self, member: &str, exists: bool) -> Pointer {
        let metadata = Pointer::root().key("metadata");
        self.create(&metadata, self.pod.metadata.is_some());
        let member = metadata.key(member);
        self.create(&member, exists);
        member
    }

    /// Sets all `resources`.
    pub fn set_resources<R: Serialize>(&mut self, target: ResourceTarget, resources: &R) {
        if self.exists(target) {
            self.patch.add(&target.pointer(), resources);
        }
    }

    /// Removes all `resources`.
    pub fn remove_resources(&mut self, target: ResourceTarget) {
        if self.resources(target).is_some() {
            self.patch.remove(&target.pointer());
        }
    }

    /// Sets the request or limit of one resource, and keeps all others. Call it once per request or limit.
    pub fn set_quantity(
        &mut self,
        target: ResourceTarget,
        field: ResourceField,
        resource: &str,
        quantity: &str,
    ) {
        if !self.exists(target) {
            return;
        }
        let resources = self.resources(target);
        let list = target.pointer().key(field.field());
        self.create(&target.pointer(), resources.is_some());
        self.create(&list, resources.is_some_and(|resources| field.of(resources).is_some()));
        self.patch.add(&list.key(resource), quantity);
    }

    /// Removes the request or limit of one resource. Call it once per request or limit.
    pub fn remove_quantity(&mut self, target: ResourceTarget, field: ResourceField, resource: &str) {
        let list = self.resources(target).and_then(|resources| field.of(resources));
        if list.is_some_and(|list| list.get(resource).is_some()) {
            self.patch.remove(&target.pointer().key(field.field()).key(resource));
        }
    }

    /// Removes `spec.resourceClaims`.
    pub fn remove_resource_claims(&mut self) {
        if self.pod.spec.as_ref().is_some_and(|spec| spec.resource_claims.is_some()) {
            self.patch.remove(&Pointer::root().key("spec").key("resourceClaims"));
        }
    }

    /// Removes `emptyDir.medium` of the volumes that `is_removed` returns true for. Call it once.
    pub fn remove_empty_dir_media(&mut self, is_removed: impl Fn(&str) -> bool) {
        for volume in self.pod.empty_dir_media().iter().filter(|volume| is_removed(&volume.medium)) {
            let volume = Pointer::root().key("spec").key("volumes").index(volume.index);
            self.patch.remove(&volume.key("emptyDir").key("medium"));
        }
    }

    fn exists(&self, target: ResourceTarget) -> bool {
        match target {
            ResourceTarget::Container(list, index) => index < self.pod.list(list).len(),
            ResourceTarget::Pod => self.pod.spec.is_some(),
        }
    }

    fn resources(&self, target: ResourceTarget) -> Option<&'p Resources<'a>> {
        match target {
            ResourceTarget::Container(list, index) => self.pod.list(list).get(index)?.resources.as_ref(),
            ResourceTarget::Pod => self.pod.spec.as_ref()?.resources.as_ref(),
        }
    }

    /// Adds a label to the node selector. Call it once per key.
    pub fn set_node_selector(&mut self, key: &str, value: &str) {
        let Some(spec) = &self.pod.spec else { return };
        if self.pod.node_selector(key) != Some(value) {
            let selector = Pointer::root().key("spec").key("nodeSelector");
            self.create(&selector, spec.node_selector.is_some());
            self.patch.add(&selector.key(key), value);
        }
    }

    /// Adds a `v1.Toleration`.
    pub fn add_toleration(&mut self, toleration: &Value) {
        let Some(spec) = &self.pod.spec else { return };
        if !contains(spec.tolerations, toleration) {
            let list = Pointer::root().key("spec").key("tolerations");
            self.append(&list, spec.tolerations.is_some(), toleration);
        }
    }

    /// Adds a scheduling gate. Call it once, for a gate that the pod has not.
    pub fn add_scheduling_gate(&mut self, name: &str) {
        let Some(spec) = &self.pod.spec else { return };
        let list = Pointer::root().key("spec").key("schedulingGates");
        self.append(&list, spec.scheduling_gates.is_some(), &json!({"name": name}));
    }

    /// Adds a `v1.PreferredSchedulingTerm`.
    pub fn add_preferred_term(&mut self, term: &Value) {
        let own = self.pod.node_affinity().and_then(|own| own.preferred);
        if contains(own, term) {
            return;
        }
        if let Some(affinity) = self.create_node_affinity() {
            self.append(&affinity.key(PREFERRED), own.is_some(), term);
        }
    }

    /// Requires that the node matches one of these `v1.NodeSelectorTerm`s too. Call it once, with terms that are not empty.
    ///
    /// A required term of the pod that contradicts all of them is removed: no node can match it any more. If every term of the pod does,
    /// the patch changes nothing.
    pub fn require_one_of(&mut self, terms: &[Value]) {
        let own = self.pod.required_terms().unwrap_or_default();
        let implies_one =
            |own: &NodeSelectorTerm<'_>| !is_possible(own) || terms.iter().any(|term| own.includes(term));
        if terms.is_empty() || (!own.is_empty() && own.iter().all(implies_one)) {
            return;
        }
        if self.pod.required_terms().is_none() {
            let Some(affinity) = self.create_node_affinity() else { return };
            let possible =
                |term: &&Value| NodeSelectorTerm::deserialize(*term).is_ok_and(|term| is_possible(&term));
            let terms: Vec<&Value> = terms.iter().filter(possible).collect();
            self.patch.add(&affinity.key(REQUIRED), &json!({"nodeSelectorTerms": terms}));
            return;
        }
        // A node must match one of the pod's terms and one of these: every pair that agrees becomes a term.
        let added: Vec<Vec<Value>> = own.iter().map(|own| agreeing(own, terms)).collect();
        let contradicts =
            |(own, added): (&NodeSelectorTerm<'_>, &Vec<Value>)| added.is_empty() && is_possible(own);
        let impossible: Vec<bool> = own.iter().zip(&added).map(contradicts).collect();
        if added.iter().all(Vec::is_empty) {
            return;
        }
        self.narrow_required_terms(&added);
        let list = required_terms_pointer();
        for (index, _) in impossible.iter().enumerate().rev().filter(|(_, impossible)| **impossible) {
            self.patch.remove(&list.clone().index(index));
        }
    }

    /// Adds requirements to each required term: those of the alternatives at the term's index. No alternative leaves the term as it is; for
    /// several `v1.NodeSelectorTerm`s the term is copied to the end of the list, once for each further one. An empty term matches no node
    /// and stays empty. Call it once, and not after [`Self::require_one_of`].
    pub fn narrow_required_terms<T: AsRef<[Value]>>(&mut self, alternatives: &[T]) {
        let own = self.pod.required_terms().unwrap_or_default();
        let pairs = || {
            let pairs = own.iter().zip(alternatives).map(|(own, added)| (own, added.as_ref())).enumerate();
            pairs.filter(|(_, (own, _))| !own.is_empty())
        };
        let list = required_terms_pointer();
        // All copies come first: they are of the terms without any addition.
        for (index, (own, added)) in pairs() {
            let bytes = own.json_bytes();
            for _ in added.iter().skip(1) {
                self.patch.copy(&list.clone().index(index), &list.clone().key("-"), bytes);
            }
        }
        let mut copies = own.len()..;
        for (index, (own, added)) in pairs() {
            let indices = iter::once(index).chain(copies.by_ref().take(added.len().saturating_sub(1)));
            for (index, term) in indices.zip(added) {
                let target = list.clone().index(index);
                let expressions = target.clone().key("matchExpressions");
                self.append_all(
                    &expressions,
                    own.match_expressions.is_some(),
                    items(term, "matchExpressions"),
                );
                let fields = target.key("matchFields");
                self.append_all(&fields, own.match_fields.is_some(), items(term, "matchFields"));
            }
        }
    }

    /// Creates `spec.affinity.nodeAffinity`; `None` without a spec.
    fn create_node_affinity(&mut self) -> Option<Pointer> {
        let affinity = Pointer::root().key("spec").key("affinity");
        self.create(&affinity, self.pod.spec.as_ref()?.affinity.is_some());
        let affinity = affinity.key("nodeAffinity");
        self.create(&affinity, self.pod.node_affinity().is_some());
        Some(affinity)
    }

    /// Adds an empty object once, unless it exists in the pod.
    fn create(&mut self, pointer: &Pointer, exists: bool) {
        self.create_as(pointer, exists, &json!({}));
    }

    /// Appends to a list, which is created first unless it exists in the pod.
    fn append<V: Serialize + ?Sized>(&mut self, list: &Pointer, exists: bool, item: &V) {
        self.create_as(list, exists, &json!([]));
        self.patch.add(&list.clone().key("-"), item);
    }

    fn append_all(&mut self, list: &Pointer, exists: bool, items: &[Value]) {
        for item in items {
            self.append(list, exists, item);
        }
    }

    fn create_as(&mut self, pointer: &Pointer, exists: bool, empty: &Value) {
        if !exists && !self.created.contains(pointer) {
            self.patch.add(pointer, empty);
            self.created.push(pointer.clone());
        }
    }

    /// Whether the patch changes nothing so far.
    pub fn is_empty(&self) -> bool {
        self.patch.is_empty()
    }

    /// The operations.
    ///
    /// # Errors
    /// The API server would refuse the pod for annotations that the patch adds.
    pub fn finish(self) -> Result<Patch, AnnotationsTooLarge> {
        let own = self.pod.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
        let own = own.map_or(0, |all| all.iter().map(|(key, value)| key.len() + value.len()).sum());
        let total = self.added_annotations.saturating_add(own).saturating_sub(self.removed_annotations);
        if self.added_annotations > 0 && total > MAX_ANNOTATIONS {
            return Err(AnnotationsTooLarge);
        }
        Ok(self.patch)
    }
}

impl ResourceTarget {
    fn pointer(self) -> Pointer {
        let spec = Pointer::root().key("spec");
        match self {
            Self::Container(list, index) => spec.key(list.field()).index(index).key("resources"),
            Self::Pod => spec.key("resources"),
        }
    }
}

fn required_terms_pointer() -> Pointer {
    let path = ["spec", "affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"];
    path.into_iter().fold(Pointer::root(), Pointer::key)
}

/// Whether some node can match the term.
fn is_possible(term: &NodeSelectorTerm<'_>) -> bool {
    let mut alone = NodeRequirements::default();
    alone.require_term(term);
    !term.is_empty() && alone.is_possible()
}

/// Those of `terms` that some node can match together with `own`.
fn agreeing(own: &NodeSelectorTerm<'_>, terms: &[Value]) -> Vec<Value> {
    let agrees = |term: &&Value| {
        // A term of another shape counts as one that agrees: its author has checked it.
        let Ok(term) = NodeSelectorTerm::deserialize(*term) else { return true };
        let mut both = NodeRequirements::default();
        both.require_term(own);
        both.require_term(&term);
        both.is_possible()
    };
    terms.iter().filter(agrees).cloned().collect()
}

/// Whether the list contains this item, or is no list: the API server refuses such a pod, and a patch must not append to it.
///
/// The items are parsed one by one, so that a list of any content takes little memory.
fn contains(list: Option<&RawValue>, item: &Value) -> bool {
    struct Contains<'i>(&'i Value);
    impl<'de> Visitor<'de> for Contains<'_> {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
            let mut contains = false;
            while let Some(own) = list.next_element::<&RawValue>()? {
                // A longer item is another one.
                contains |= own.get().len() <= MAX_ITEM
                    && serde_json::from_str::<Value>(own.get()).is_ok_and(|own| own == *self.0);
            }
            Ok(contains)
        }
    }
    list.is_some_and(|list| {
        serde_json::Deserializer::from_str(list.get()).deserialize_seq(Contains(item)).unwrap_or(true)
    })
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
        let mut value: Value = serde_json::from_str(pod).unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        value.to_string()
    }

    #[test]
    fn annotation_creates_missing_parents() {
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
    fn equal_annotation_is_not_patched() {
        let view: Pod = serde_json::from_str(r#"{"metadata":{"annotations":{"a":"1"}}}"#).unwrap();
        let mut patch = PodPatch::new(&view);
        patch.set_annotation("a", "1");
        assert!(patch.finish().unwrap().is_empty());
    }

    #[test]
    fn oversized_annotations_are_an_error() {
        let finished = |size: usize, edit: fn(&mut PodPatch<'_, '_>)| {
            let pod = format!(r#"{{"metadata":{{"annotations":{{"a":"{}"}}}}}}"#, "x".repeat(size));
            let view: Pod = serde_json::from_str(&pod).unwrap();
            let mut patch = PodPatch::new(&view);
            edit(&mut patch);
            patch.finish().map(|patch| patch.is_empty())
        };
        let write: fn(&mut PodPatch<'_, '_>) = |patch| patch.set_annotation("b", "1");
        assert_eq!(finished(MAX_ANNOTATIONS - 100, write), Ok(false));
        assert_eq!(finished(MAX_ANNOTATIONS - 2, write), Err(AnnotationsTooLarge));
        assert_eq!(
            finished(MAX_ANNOTATIONS - 2, |patch| patch.set_annotation_json("b", &1)),
            Err(AnnotationsTooLarge)
        );
        assert_eq!(finished(MAX_ANNOTATIONS - 2, |patch| patch.set_annotation("a", "1")), Ok(false));
        assert_eq!(finished(MAX_ANNOTATIONS - 2, |patch| patch.set_label("b", "1")), Ok(false));
        assert_eq!(finished(MAX_ANNOTATIONS + 2, |_| {}), Ok(true), "it was too much before");
    }

    #[test]
    fn absent_annotation_is_not_removed() {
        let remove = |p: &mut PodPatch<'_, '_>| p.remove_annotation("a/b");
        assert_eq!(
            patched(r#"{"metadata":{"annotations":{"a/b":"1"}}}"#, remove),
            r#"{"metadata":{"annotations":{}}}"#
        );
        assert_eq!(patched("{}", remove), "{}");
    }

    #[test]
    fn set_quantity_keeps_other_quantities() {
        let first = ResourceTarget::Container(ContainerList::Containers, 0);
        let edit = |p: &mut PodPatch<'_, '_>| {
            p.set_quantity(first, ResourceField::Requests, "cpu", "2");
            p.set_quantity(first, ResourceField::Requests, "memory", "1Gi");
            p.remove_quantity(first, ResourceField::Limits, "cpu");
            p.set_quantity(ResourceTarget::Pod, ResourceField::Limits, "cpu", "3");
            p.set_quantity(
                ResourceTarget::Container(ContainerList::InitContainers, 0),
                ResourceField::Limits,
                "a",
                "1",
            );
        };
        let after = |resources: &str| {
            let pod = format!(r#"{{"spec":{{"containers":[{{{resources}}}]}}}}"#);
            let after: Value = serde_json::from_str(&patched(&pod, edit)).unwrap();
            assert_eq!(after["spec"]["resources"], json!({"limits": {"cpu": "3"}}));
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
    fn absent_resources_are_not_removed() {
        let pod = r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":1}},"x":1},{"name":"b"}],"initContainers":null}}"#;
        let after = patched(pod, |p| {
            for list in [ContainerList::Containers, ContainerList::InitContainers] {
                for index in 0..3 {
                    p.remove_resources(ResourceTarget::Container(list, index));
                }
            }
            p.set_resources(
                ResourceTarget::Container(ContainerList::Containers, 1),
                &json!({"limits": {"v": "1"}}),
            );
            p.set_resources(ResourceTarget::Container(ContainerList::InitContainers, 0), &1);
            p.remove_resources(ResourceTarget::Pod);
        });
        assert_eq!(
            after,
            r#"{"spec":{"containers":[{"x":1},{"name":"b","resources":{"limits":{"v":"1"}}}],"initContainers":null}}"#
        );
    }

    #[test]
    fn claims_and_media_are_removed_where_they_exist() {
        let pod = r#"{"spec":{"resourceClaims":[],"volumes":[{"name":"a"},{"emptyDir":{"medium":"HugePages","sizeLimit":"1Gi"}},{"emptyDir":{"medium":"Memory"}}]}}"#;
        let edit = |p: &mut PodPatch<'_, '_>| {
            p.remove_resource_claims();
            p.remove_empty_dir_media(|medium| medium.starts_with("HugePages"));
        };
        assert_eq!(
            patched(pod, edit),
            r#"{"spec":{"volumes":[{"name":"a"},{"emptyDir":{"sizeLimit":"1Gi"}},{"emptyDir":{"medium":"Memory"}}]}}"#
        );
        for absent in ["{}", r#"{"spec":null}"#, r#"{"spec":{"resourceClaims":null,"volumes":null}}"#] {
            assert_eq!(patched(absent, edit), absent);
        }
    }

    #[test]
    fn list_contains_only_equal_items() {
        let long = Value::from("x".repeat(MAX_ITEM));
        let list = json!([{"a": 1}, [long], {"b": {"c": [2]}}, null]).to_string();
        for (list, item, expected) in [
            (&*list, json!({"b": {"c": [2]}}), true),
            (&list, json!({"b": {"c": [3]}}), false),
            (&list, json!(null), true),
            (&list, json!([long]), false),
            ("[]", json!({}), false),
            (r#"[ {"b" : 1, "a":2} ]"#, json!({"a": 2, "b": 1}), true),
            ("{}", json!({}), true),
        ] {
            let raw: &RawValue = serde_json::from_str(list).unwrap();
            assert_eq!(contains(Some(raw), &item), expected, "{item:.80}");
        }
        assert!(!contains(None, &json!({})));
    }
}
