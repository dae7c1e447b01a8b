//! Which nodes a pod may run on: what its author says, and how a patch adds to it without taking anything away.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodPatch};
use crate::patch::Pointer;

/// Bytes of an item of a list that is compared.
const LONGEST_ITEM: usize = 16 << 10;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

impl<'a> Pod<'a> {
    /// `spec.nodeSelector[key]`.
    pub fn selects(&self, key: &str) -> Option<&str> {
        self.spec.as_ref()?.node_selector.as_ref()?.get(key).map(|value| &**value)
    }

    /// Whether a node with these labels, whatever others it bears, may be one that the pod's node selector and required node
    /// affinity allow.
    pub fn may_run_with(&self, labels: &BTreeMap<String, String>) -> bool {
        // One term must be met.
        self.may_select(labels)
            && self.required_terms().is_none_or(|terms| terms.iter().any(|term| term.may_be_met(labels)))
    }

    /// The same by the node selector alone.
    pub fn may_select(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(key, value)| self.selects(key).is_none_or(|own| own == value))
    }

    fn node_affinity(&self) -> Option<&NodeAffinity<'a>> {
        self.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
    }

    /// The terms of the required node affinity, if there is one.
    pub fn required_terms(&self) -> Option<&[NodeSelectorTerm<'a>]> {
        let required = self.node_affinity()?.required.as_ref()?;
        Some(required.node_selector_terms.as_deref().unwrap_or_default())
    }
}

impl NodeSelectorTerm<'_> {
    /// Whether it has no requirement: no node meets it then (`v1.NodeSelectorTerm`).
    pub fn is_empty(&self) -> bool {
        self.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && self.match_fields.as_ref().is_none_or(Vec::is_empty)
    }

    /// Whether a node with these labels, whatever others it bears, may be one that meets it.
    pub fn may_be_met(&self, labels: &BTreeMap<String, String>) -> bool {
        let expressions = self.match_expressions.as_deref().unwrap_or_default();
        !self.is_empty()
            && labels.iter().all(|(key, value)| {
                expressions.iter().filter(|own| &*own.key == key.as_str()).all(|own| own.met_by(value))
            })
    }

    /// Whether all requirements of `term`, a `v1.NodeSelectorTerm`, are among its own.
    pub fn includes(&self, term: &Value) -> bool {
        let lists = [("matchExpressions", &self.match_expressions), ("matchFields", &self.match_fields)];
        lists.into_iter().all(|(member, own)| {
            let own = own.as_deref().unwrap_or_default();
            items(term, member).iter().all(|item| own.iter().any(|own| own.is(item)))
        })
    }
}

impl NodeSelectorRequirement<'_> {
    /// Whether a label of this value meets it (`labels.Requirement.Matches` of k8s.io/apimachinery).
    fn met_by(&self, value: &str) -> bool {
        let values = self.values.as_deref().unwrap_or_default();
        let listed = values.iter().any(|own| &**own == value);
        let compare = || Some(value.parse::<i64>().ok()?.cmp(&values.first()?.parse::<i64>().ok()?));
        match &*self.operator {
            "In" => listed,
            "NotIn" => !listed,
            "DoesNotExist" => false,
            "Gt" => compare().is_some_and(std::cmp::Ordering::is_gt),
            "Lt" => compare().is_some_and(std::cmp::Ordering::is_lt),
            // `Exists`; anything else the API server refuses.
            _ => true,
        }
    }

    fn is(&self, requirement: &Value) -> bool {
        let text = |member: &str| requirement.get(member).and_then(Value::as_str).unwrap_or_default();
        let values = self.values.as_deref().unwrap_or_default();
        let same = values
            .iter()
            .map(|value| &**value)
            .eq(items(requirement, "values").iter().filter_map(Value::as_str));
        &*self.key == text("key") && &*self.operator == text("operator") && same
    }
}

impl PodPatch<'_, '_> {
    /// Adds a label to the node selector; nothing where it is there, or where there is no spec. Call it once per key.
    pub fn select_node(&mut self, key: &str, value: &str) {
        let Some(spec) = &self.pod.spec else { return };
        if self.pod.selects(key) != Some(value) {
            let selector = Pointer::root().key("spec").key("nodeSelector");
            self.make(&selector, spec.node_selector.is_some());
            self.patch.add(&selector.key(key), value);
        }
    }

    /// Adds a `v1.Toleration`; nothing where it is there, or where there is no spec.
    pub fn tolerate(&mut self, toleration: &Value) {
        let Some(spec) = &self.pod.spec else { return };
        if !holds(spec.tolerations, toleration) {
            let list = Pointer::root().key("spec").key("tolerations");
            self.append(&list, spec.tolerations.is_some(), toleration);
        }
    }

    /// Adds a scheduling gate, or nothing where there is no spec. Call it once, for a gate that isn't there.
    pub fn gate(&mut self, name: &str) {
        let Some(spec) = &self.pod.spec else { return };
        let list = Pointer::root().key("spec").key("schedulingGates");
        self.append(&list, spec.scheduling_gates.is_some(), &json!({"name": name}));
    }

    /// Adds a `v1.PreferredSchedulingTerm`; nothing where it is there, or where there is no spec.
    pub fn prefer_nodes(&mut self, term: &Value) {
        let own = self.pod.node_affinity().and_then(|own| own.preferred);
        if holds(own, term) {
            return;
        }
        if let Some(affinity) = self.make_node_affinity() {
            let list = affinity.key("preferredDuringSchedulingIgnoredDuringExecution");
            self.append(&list, own.is_some(), term);
        }
    }

    /// Requires one of these `v1.NodeSelectorTerm`s besides what is required already; nothing where that is so, or where
    /// there is no spec. Call it once, with terms that have requirements.
    pub fn require_nodes(&mut self, terms: &[Value]) {
        let own = self.pod.required_terms().unwrap_or_default();
        let includes =
            |own: &NodeSelectorTerm<'_>| own.is_empty() || terms.iter().any(|term| own.includes(term));
        let stands = !own.is_empty() && own.iter().all(includes);
        if terms.is_empty() || stands {
            return;
        }
        let required = self.pod.required_terms().is_some();
        let Some(affinity) = self.make_node_affinity() else { return };
        if !required {
            self.patch.add(&affinity.key(REQUIRED), &NodeSelector { node_selector_terms: terms });
            return;
        }
        // One of the pod's and one of these: every pair of them is a term.
        let added: Vec<_> = own.iter().map(|_| terms).collect();
        self.narrow_terms(&added);
    }

    /// Adds to the requirements of each required term what `alternatives` holds at its place: none leaves it, of several `v1.NodeSelectorTerm`s
    /// each gets a copy of the term (copies stand behind all). Call it once, and neither after [`Self::require_nodes`].
    ///
    /// A term without requirements is met by no node, and stays as it is.
    pub fn narrow_terms<T: AsRef<[Value]>>(&mut self, alternatives: &[T]) {
        let own = self.pod.required_terms().unwrap_or_default();
        let pairs = || {
            let pairs = own.iter().zip(alternatives).map(|(own, added)| (own, added.as_ref())).enumerate();
            pairs.filter(|(_, (own, _))| !own.is_empty())
        };
        let list = ["spec", "affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"];
        let list = list.into_iter().fold(Pointer::root(), Pointer::key);
        for (index, (_, added)) in pairs() {
            for _ in added.iter().skip(1) {
                self.patch.copy(&list.clone().index(index), &list.clone().key("-"));
            }
        }
        let mut copies = own.len()..;
        for (index, (own, added)) in pairs() {
            let places = std::iter::once(index).chain(copies.by_ref().take(added.len().saturating_sub(1)));
            for (place, term) in places.zip(added) {
                let term_there = list.clone().index(place);
                for (member, stands) in [
                    ("matchExpressions", own.match_expressions.is_some()),
                    ("matchFields", own.match_fields.is_some()),
                ] {
                    for requirement in items(term, member) {
                        self.append(&term_there.clone().key(member), stands, requirement);
                    }
                }
            }
        }
    }

    /// `spec.affinity.nodeAffinity`, which stands from now on; `None` where there is no spec.
    fn make_node_affinity(&mut self) -> Option<Pointer> {
        let affinity = Pointer::root().key("spec").key("affinity");
        self.make(&affinity, self.pod.spec.as_ref()?.affinity.is_some());
        let affinity = affinity.key("nodeAffinity");
        self.make(&affinity, self.pod.node_affinity().is_some());
        Some(affinity)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelector<'t> {
    node_selector_terms: &'t [Value],
}

/// Whether the list holds this item; one that is no list can't be added to, and the API server refuses it. Of what is in the
/// list, which may be anything, one item at a time is in memory.
fn holds(list: Option<&RawValue>, item: &Value) -> bool {
    struct Holds<'i>(&'i Value);
    impl<'de> Visitor<'de> for Holds<'_> {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
            let mut holds = false;
            while let Some(own) = list.next_element::<&RawValue>()? {
                // What is longer says more than the item does.
                holds |= own.get().len() <= LONGEST_ITEM
                    && serde_json::from_str::<Value>(own.get()).is_ok_and(|own| own == *self.0);
            }
            Ok(holds)
        }
    }
    list.is_some_and(|list| {
        serde_json::Deserializer::from_str(list.get()).deserialize_seq(Holds(item)).unwrap_or(true)
    })
}

/// The items of a list, none where it is no list.
fn items<'v>(object: &'v Value, member: &str) -> &'v [Value] {
    object.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_holds() {
        let long = Value::from("x".repeat(LONGEST_ITEM));
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
            assert_eq!(holds(Some(raw), &item), expected, "{item:.80}");
        }
        assert!(!holds(None, &json!({})));
    }
}
