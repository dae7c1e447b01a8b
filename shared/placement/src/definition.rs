//! Which nodes belong to a group: labels and node affinity together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use podshaper_core::pod::{NodeRequirements, NodeSelectorTerm, alternatives};
use serde::Deserialize;
use serde_json::Value;

use super::hash::fnv1a;

/// The definition of a group. A node belongs to the group if it has all labels and matches one of the terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    labels: BTreeMap<String, String>,
    /// `None`: the labels alone decide.
    terms: Option<Vec<NodeSelectorTerm<'static>>>,
    hash: DefinitionHash,
}

/// A hash of a definition. It does not depend on the order of terms, requirements and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionHash(u32);

impl Definition {
    /// The definition with these labels and these `v1.NodeSelectorTerm`s.
    pub(crate) fn new(labels: &BTreeMap<String, String>, terms: &[Value]) -> Result<Self, serde_json::Error> {
        let parsed =
            terms.iter().cloned().map(NodeSelectorTerm::deserialize).collect::<Result<Vec<_>, _>>()?;
        let hash = DefinitionHash(fold(fnv1a(&canonical_text(labels, &parsed))));
        Ok(Self { labels: labels.clone(), terms: (!parsed.is_empty()).then_some(parsed), hash })
    }

    /// The hash that a pod of the group carries.
    pub fn hash(&self) -> DefinitionHash {
        self.hash
    }

    /// Whether some node can belong to the group.
    pub fn is_possible(&self) -> bool {
        !self.alternatives().is_empty()
    }

    /// Whether a node with these labels and this name belongs to the group.
    pub fn includes(&self, labels: &BTreeMap<String, String>, name: &str) -> bool {
        self.alternatives().iter().any(|alternative| alternative.matches(labels, name))
    }

    /// Whether a node of the group can meet one of these alternatives.
    pub fn allows_one_of(&self, pod: &[NodeRequirements<'_>]) -> bool {
        let own = self.alternatives();
        pod.iter().any(|pod| own.iter().any(|own| pod.agrees_with(own)))
    }

    /// Whether each node that meets one of these alternatives belongs to the group.
    pub fn is_implied_by(&self, pod: &[NodeRequirements<'_>]) -> bool {
        let own = self.alternatives();
        !pod.is_empty() && pod.iter().all(|pod| own.iter().any(|own| pod.implies(own)))
    }

    fn alternatives(&self) -> Vec<NodeRequirements<'_>> {
        let labels = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        alternatives(labels, self.terms.as_deref())
    }
}

impl DefinitionHash {
    /// Parses what is displayed.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hash = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u32::from_str_radix(text, 16).ok().filter(|_| is_hash).map(Self)
    }
}

impl fmt::Display for DefinitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Both halves of the hash in one.
fn fold(hash: u64) -> u32 {
    u32::try_from((hash >> 32) ^ (hash & u64::from(u32::MAX))).unwrap_or_default()
}

/// The text must stay the same in every version: pods carry its hash.
fn canonical_text(labels: &BTreeMap<String, String>, terms: &[NodeSelectorTerm<'_>]) -> String {
    let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
    let requirements = |term: &NodeSelectorTerm<'_>| {
        let lists = [("label", &term.match_expressions), ("field", &term.match_fields)];
        let requirements = lists.into_iter().flat_map(|(kind, list)| {
            list.iter().flatten().map(move |requirement| {
                let values: BTreeSet<&str> =
                    requirement.values.iter().flatten().map(|value| &**value).collect();
                let values = values.into_iter().collect::<Vec<_>>().join(",");
                format!("{kind} {} {} {values}", &*requirement.key, &*requirement.operator)
            })
        });
        requirements.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(";")
    };
    let terms: BTreeSet<String> = terms.iter().map(requirements).collect();
    labels.chain(terms.into_iter().map(|term| format!("[{term}]"))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(labels: &[(&str, &str)], terms: &Value) -> Definition {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Definition::new(&labels, terms.as_array().unwrap()).unwrap()
    }

    fn node(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_and_affinity_decide_together() {
        let no_spot = json!([{"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}]);
        let regular = definition(&[("os", "linux")], &no_spot);
        assert!(regular.includes(&node(&[("os", "linux")]), "a"));
        assert!(!regular.includes(&node(&[("os", "linux"), ("spot", "true")]), "a"));
        assert!(!regular.includes(&node(&[]), "a"));
        let unlabelled = definition(&[], &no_spot);
        assert!(unlabelled.includes(&node(&[]), "a") && unlabelled.is_possible());
        let contradiction = definition(&[("spot", "true")], &no_spot);
        assert!(!contradiction.is_possible());
    }

    #[test]
    fn hash_ignores_order_and_nothing_else() {
        let requirement = |values: Value| json!({"key": "zone", "operator": "In", "values": values});
        let of = |terms: Value| definition(&[("a", "b")], &terms).hash();
        let first = json!({"matchExpressions": [requirement(json!(["x", "y"]))]});
        let second = json!({"matchExpressions": [{"key": "gpu", "operator": "Exists"}]});
        let turned = json!({"matchExpressions": [requirement(json!(["y", "x"]))], "matchFields": []});
        assert_eq!(of(json!([first, second])), of(json!([second, turned])));
        let hashes = [
            of(json!([])),
            of(json!([first])),
            of(json!([second])),
            of(json!([first, second])),
            definition(&[("a", "c")], &json!([])).hash(),
            definition(&[], &json!([first])).hash(),
        ];
        assert_eq!(BTreeSet::from(hashes).len(), hashes.len());
        for hash in hashes {
            assert_eq!(DefinitionHash::parse(&hash.to_string()), Some(hash));
        }
        // Pods of earlier versions carry it.
        assert_eq!(definition(&[("type", "spot")], &json!([])).hash().to_string(), "8b760dd2");
        for invalid in ["", "1234567", "1234567G", "+1234567"] {
            assert_eq!(DefinitionHash::parse(invalid), None);
        }
    }
}
