//! Node affinity, and which nodes it allows.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::{Text, bounded_list};

/// More terms of a node affinity, and requirements of a term, than the API server evaluates in time.
const MAX_TERMS: usize = 1024;

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
    /// `preferredDuringSchedulingIgnoredDuringExecution`, as raw JSON.
    #[serde(borrow, rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Option<&'a RawValue>,
}

/// `v1.NodeSelector`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector<'a> {
    /// `nodeSelectorTerms`. A node must match one of them.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_TERMS>")]
    pub node_selector_terms: Option<Vec<NodeSelectorTerm<'a>>>,
}

/// `v1.NodeSelectorTerm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelectorTerm<'a> {
    /// `matchExpressions`, over labels.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_TERMS>")]
    pub match_expressions: Option<Vec<NodeSelectorRequirement<'a>>>,
    /// `matchFields`, over fields. The API server allows only `metadata.name`.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_TERMS>")]
    pub match_fields: Option<Vec<NodeSelectorRequirement<'a>>>,
}

/// `v1.NodeSelectorRequirement`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NodeSelectorRequirement<'a> {
    /// `key`.
    #[serde(borrow, default)]
    pub key: Text<'a>,
    /// `operator`.
    #[serde(borrow, default)]
    pub operator: Text<'a>,
    /// `values`.
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_TERMS>")]
    pub values: Option<Vec<Text<'a>>>,
}

impl NodeSelectorTerm<'_> {
    /// Whether the term has no requirement. Such a term matches no node (`v1.NodeSelectorTerm`).
    pub fn is_empty(&self) -> bool {
        self.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && self.match_fields.as_ref().is_none_or(Vec::is_empty)
    }

    /// Whether the term matches some node with these labels. The node may have other labels too.
    pub fn may_match(&self, labels: &BTreeMap<String, String>) -> bool {
        let expressions = self.match_expressions.as_deref().unwrap_or_default();
        !self.is_empty()
            && labels.iter().all(|(key, value)| {
                expressions.iter().filter(|own| &*own.key == key.as_str()).all(|own| own.matches(value))
            })
    }

    /// Whether the term matches the node with this name and these labels (`nodeaffinity.GetRequiredNodeAffinity` of
    /// k8s.io/component-helpers).
    pub fn matches_node(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let expressions = self.match_expressions.as_deref().unwrap_or_default();
        let fields = self.match_fields.as_deref().unwrap_or_default();
        let label = |own: &NodeSelectorRequirement<'_>| match labels.get(&*own.key) {
            Some(value) => own.matches(value),
            None => matches!(&*own.operator, "NotIn" | "DoesNotExist"),
        };
        !self.is_empty() && expressions.iter().all(label) && fields.iter().all(|field| field.matches(name))
    }

    /// Whether the term has each requirement of `other`, a `v1.NodeSelectorTerm`.
    pub fn includes(&self, other: &Value) -> bool {
        let lists = [("matchExpressions", &self.match_expressions), ("matchFields", &self.match_fields)];
        lists.into_iter().all(|(member, own)| {
            let own = own.as_deref().unwrap_or_default();
            items(other, member).iter().all(|other| own.iter().any(|own| own.equals(other)))
        })
    }

    /// Bytes of the term as JSON, at least.
    pub(super) fn json_bytes(&self) -> usize {
        let lists = [&self.match_expressions, &self.match_fields];
        lists.into_iter().flatten().flatten().map(NodeSelectorRequirement::json_bytes).sum()
    }

    /// The one node that the term can match: `matchFields: metadata.name In [NODE]`.
    pub(super) fn node(&self) -> Option<&str> {
        let mut fields = self.match_fields.as_deref()?.iter();
        let by_name = fields.find(|field| {
            &*field.key == "metadata.name" && &*field.operator == "In" && field.values.is_some()
        });
        match by_name?.values.as_deref()? {
            [name] => Some(name),
            _ => None,
        }
    }
}

/// `v1.NodeSelectorOperator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Operator {
    /// Whether a label with this value, `None` if the node has no such label, meets a requirement with this operator.
    pub(super) fn allows(
        self,
        value: Option<&str>,
        lists: impl FnOnce(&str) -> bool,
        bound: impl FnOnce() -> Option<i64>,
    ) -> bool {
        let Some(value) = value else { return matches!(self, Self::NotIn | Self::DoesNotExist) };
        match self {
            Self::In => lists(value),
            Self::NotIn => !lists(value),
            Self::Exists => true,
            Self::DoesNotExist => false,
            Self::Gt | Self::Lt => {
                let order = if self == Self::Gt { Ordering::Greater } else { Ordering::Less };
                integer(value).zip(bound()).is_some_and(|(value, bound)| value.cmp(&bound) == order)
            }
        }
    }
}

/// A bound of `Gt` and `Lt`, and a value that is compared with it.
pub(super) fn integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

impl NodeSelectorRequirement<'_> {
    fn json_bytes(&self) -> usize {
        let frame = r#"{"key":"","operator":"","values":[]},"#.len();
        // The quotes and the comma of a value.
        let values: usize = self.values.iter().flatten().map(|value| value.len() + 3).sum();
        frame + self.key.len() + self.operator.len() + values
    }

    pub(super) fn operator(&self) -> Operator {
        match &*self.operator {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            // The API server refuses any other operator.
            _ => Operator::Exists,
        }
    }

    /// Whether a label with this value meets it (`labels.Requirement.Matches` of k8s.io/apimachinery).
    fn matches(&self, value: &str) -> bool {
        let values = self.values.as_deref().unwrap_or_default();
        let lists = |value: &str| values.iter().any(|own| &**own == value);
        self.operator().allows(Some(value), lists, || integer(values.first()?))
    }

    fn equals(&self, other: &Value) -> bool {
        let text = |member: &str| other.get(member).and_then(Value::as_str).unwrap_or_default();
        let values = self.values.iter().flatten().map(|value| &**value);
        &*self.key == text("key")
            && &*self.operator == text("operator")
            && values.eq(items(other, "values").iter().filter_map(Value::as_str))
    }
}

/// The items of a member that is a list; none if it is not.
pub(super) fn items<'v>(object: &'v Value, member: &str) -> &'v [Value] {
    object.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn term_matches_node_by_labels_and_name() {
        let labels =
            BTreeMap::from([("type".to_owned(), "spot".to_owned()), ("cpus".to_owned(), "8".to_owned())]);
        for (term, expected) in [
            (r#"{"matchExpressions":[{"key":"type","operator":"In","values":["spot"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"type","operator":"NotIn","values":["spot"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"absent","operator":"NotIn","values":["spot"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"absent","operator":"DoesNotExist"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"absent","operator":"Exists"}]}"#, false),
            (r#"{"matchExpressions":[{"key":"absent","operator":"Gt","values":["1"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"cpus","operator":"Gt","values":["4"]}]}"#, true),
            (r#"{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}"#, true),
            (r#"{"matchFields":[{"key":"metadata.name","operator":"NotIn","values":["n"]}]}"#, false),
            ("{}", false),
        ] {
            let parsed: NodeSelectorTerm<'_> = serde_json::from_str(term).unwrap();
            assert_eq!(parsed.matches_node("n", &labels), expected, "{term}");
        }
    }
}
