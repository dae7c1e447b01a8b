//! Conditions on a node that all must hold: of a node selector and a node selector term, or of a group of nodes.
//!
//! Semantics: `nodeaffinity.NodeSelector.Match` of k8s.io/component-helpers and `labels.Requirement.Matches` of k8s.io/apimachinery.

use std::collections::BTreeMap;

use super::Pod;
use super::node_affinity::{NodeSelectorRequirement, NodeSelectorTerm, Operator, integer};
use crate::json::{Text, TextMap};

/// Requirements that all must hold.
#[derive(Clone, Debug, Default)]
pub struct NodeRequirements<'r> {
    by_key: BTreeMap<NodeKey<'r>, Vec<Requirement<'r>>>,
}

/// A property of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NodeKey<'r> {
    Label(&'r str),
    /// `metadata.name` is the only field that the API server allows. Every node has it.
    Field(&'r str),
}

#[derive(Clone, Copy, Debug)]
struct Requirement<'r> {
    operator: Operator,
    values: Values<'r>,
}

#[derive(Clone, Copy, Debug)]
enum Values<'r> {
    One(&'r str),
    List(&'r [Text<'r>]),
}

/// The values that a key can have under its requirements.
enum Possible<'r> {
    /// No others than these.
    Listed(Vec<&'r str>),
    /// Unlimited: those that all requirements allow. The bounds are exclusive.
    Any { above: Option<i64>, below: Option<i64> },
}

impl<'r> NodeRequirements<'r> {
    /// Requires a label, as a node selector does.
    pub fn require_label(&mut self, key: &'r str, value: &'r str) {
        let requirement = Requirement { operator: Operator::In, values: Values::One(value) };
        self.by_key.entry(NodeKey::Label(key)).or_default().push(requirement);
    }

    /// Requires what a term does. The term must not be empty: an empty one matches no node.
    pub fn require_term(&mut self, term: &'r NodeSelectorTerm<'_>) {
        let mut require = |key, requirement: &'r NodeSelectorRequirement<'_>| {
            let values = Values::List(requirement.values.as_deref().unwrap_or_default());
            self.by_key
                .entry(key)
                .or_default()
                .push(Requirement { operator: requirement.operator(), values });
        };
        for requirement in term.match_expressions.iter().flatten() {
            require(NodeKey::Label(&requirement.key), requirement);
        }
        for requirement in term.match_fields.iter().flatten() {
            require(NodeKey::Field(&requirement.key), requirement);
        }
    }

    /// Whether some node can meet all requirements.
    pub fn is_possible(&self) -> bool {
        self.by_key.iter().all(|(key, requirements)| is_possible(*key, requirements))
    }

    /// Whether some node can meet all requirements of both. Each alone must be possible.
    pub fn agrees_with(&self, other: &NodeRequirements<'_>) -> bool {
        other.by_key.iter().all(|(key, theirs)| {
            let own = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
            own.is_empty() || is_possible(*key, &[own, theirs].concat())
        })
    }

    /// Whether each node that meets these requirements meets those of `other`, too.
    pub fn implies(&self, other: &NodeRequirements<'_>) -> bool {
        other.by_key.iter().all(|(key, theirs)| {
            let own = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
            theirs.iter().all(|required| implies(*key, own, *required))
        })
    }

    /// Whether a node with these labels and this name meets all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>, name: &str) -> bool {
        self.by_key.iter().all(|(key, requirements)| {
            let value = match key {
                NodeKey::Label(key) => labels.get(*key).map(String::as_str),
                NodeKey::Field(_) => Some(name),
            };
            requirements.iter().all(|requirement| requirement.allows(value))
        })
    }
}

impl Requirement<'_> {
    fn allows(&self, value: Option<&str>) -> bool {
        match self.values {
            Values::One(only) => self.operator.allows(value, |value| value == only, || integer(only)),
            Values::List(list) => self.operator.allows(
                value,
                |value| list.iter().any(|own| &**own == value),
                || list.first().and_then(|bound| integer(bound)),
            ),
        }
    }

    fn values(&self) -> Vec<&str> {
        match self.values {
            Values::One(only) => vec![only],
            Values::List(list) => list.iter().map(|value| &**value).collect(),
        }
    }

    fn bound(&self) -> Option<i64> {
        self.values().first().and_then(|bound| integer(bound))
    }
}

fn is_possible(key: NodeKey<'_>, requirements: &[Requirement<'_>]) -> bool {
    can_be_absent(key, requirements)
        || match possible_values(requirements) {
            Possible::Listed(values) => !values.is_empty(),
            Possible::Any { .. } => true,
        }
}

/// Whether a node without the key meets the requirements.
fn can_be_absent(key: NodeKey<'_>, requirements: &[Requirement<'_>]) -> bool {
    matches!(key, NodeKey::Label(_)) && requirements.iter().all(|requirement| requirement.allows(None))
}

fn possible_values<'r>(requirements: &[Requirement<'r>]) -> Possible<'r> {
    let of = |operator| requirements.iter().filter(move |requirement| requirement.operator == operator);
    if of(Operator::DoesNotExist).next().is_some() {
        return Possible::Listed(Vec::new());
    }
    let allowed = |value: &&str| requirements.iter().all(|requirement| requirement.allows(Some(value)));
    if let Some(listed) = of(Operator::In).next() {
        let values: Vec<&'r str> = match listed.values {
            Values::One(only) => vec![only],
            Values::List(list) => list.iter().map(|value| &**value).collect(),
        };
        return Possible::Listed(values.into_iter().filter(allowed).collect());
    }
    // A bound that is no integer allows no value.
    let bounds = |operator| of(operator).map(Requirement::bound).collect::<Option<Vec<i64>>>();
    let (Some(above), Some(below)) = (bounds(Operator::Gt), bounds(Operator::Lt)) else {
        return Possible::Listed(Vec::new());
    };
    let above = above.into_iter().max();
    let below = below.into_iter().min();
    // Each integer has several spellings, as 5 and 05, so that a NotIn leaves some.
    match (above, below) {
        (Some(above), Some(below)) if above.saturating_add(1) >= below => Possible::Listed(Vec::new()),
        (above, below) => Possible::Any { above, below },
    }
}

/// Whether all values that `own` allows meet the requirement.
fn implies(key: NodeKey<'_>, own: &[Requirement<'_>], required: Requirement<'_>) -> bool {
    if can_be_absent(key, own) && !required.allows(None) {
        return false;
    }
    match possible_values(own) {
        Possible::Listed(values) => values.iter().all(|value| required.allows(Some(value))),
        Possible::Any { above, below } => match required.operator {
            Operator::Exists => true,
            Operator::In | Operator::DoesNotExist => false,
            Operator::NotIn => {
                let excluded = |value: &str| !own.iter().all(|own| own.allows(Some(value)));
                required.values().into_iter().all(excluded)
            }
            Operator::Gt => above.zip(required.bound()).is_some_and(|(above, bound)| above >= bound),
            Operator::Lt => below.zip(required.bound()).is_some_and(|(below, bound)| below <= bound),
        },
    }
}

/// The alternatives of a node selector and the terms of a required node affinity: a node must meet one of them. An alternative that
/// no node can meet is left out.
pub fn alternatives<'r>(
    selector: impl Iterator<Item = (&'r str, &'r str)>,
    terms: Option<&'r [NodeSelectorTerm<'_>]>,
) -> Vec<NodeRequirements<'r>> {
    let mut selected = NodeRequirements::default();
    selector.for_each(|(key, value)| selected.require_label(key, value));
    let all = match terms {
        None => vec![selected],
        Some(terms) => {
            let with = |term| {
                let mut all = selected.clone();
                all.require_term(term);
                all
            };
            terms.iter().filter(|term| !term.is_empty()).map(with).collect()
        }
    };
    all.into_iter().filter(NodeRequirements::is_possible).collect()
}

impl Pod<'_> {
    /// Whether the pod has a node selector or a required node affinity.
    pub fn has_node_constraints(&self) -> bool {
        let selector = self.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        selector.is_some_and(|selector| selector.iter().next().is_some()) || self.required_terms().is_some()
    }

    /// The alternatives that the pod's node selector and required node affinity leave: its node must meet one of them.
    pub fn node_alternatives(&self) -> Vec<NodeRequirements<'_>> {
        let selector = self.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let selector = selector.into_iter().flat_map(TextMap::iter);
        alternatives(selector.map(|(key, value)| (key, &**value)), self.required_terms())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn term(expressions: &Value) -> NodeSelectorTerm<'static> {
        use serde::Deserialize;
        NodeSelectorTerm::deserialize(json!({"matchExpressions": expressions})).unwrap()
    }

    fn requirement(operator: &str, values: &[&str]) -> Value {
        json!({"key": "n", "operator": operator, "values": values})
    }

    #[test]
    fn contradiction_is_found() {
        for (left, right, possible) in [
            (("In", &["a", "b"][..]), ("In", &["b", "c"][..]), true),
            (("In", &["a"]), ("In", &["b"]), false),
            (("In", &["a"]), ("NotIn", &["a"]), false),
            (("In", &["a"]), ("DoesNotExist", &[]), false),
            (("Exists", &[]), ("DoesNotExist", &[]), false),
            (("NotIn", &["a"]), ("DoesNotExist", &[]), true),
            (("Gt", &["4"]), ("Lt", &["6"]), true),
            (("Gt", &["4"]), ("Lt", &["5"]), false),
            (("Gt", &["4"]), ("In", &["3", "5"]), true),
            (("Gt", &["4"]), ("In", &["3", "x"]), false),
            (("Gt", &["4"]), ("DoesNotExist", &[]), false),
            (("Gt", &["x"]), ("Exists", &[]), false),
            (("In", &[]), ("Exists", &[]), false),
        ] {
            let (left, right) =
                (json!([requirement(left.0, left.1)]), json!([requirement(right.0, right.1)]));
            let left = term(&left);
            let right = term(&right);
            let mut both = NodeRequirements::default();
            both.require_term(&left);
            both.require_term(&right);
            assert_eq!(both.is_possible(), possible, "{left:?} {right:?}");
            let [mut first, mut second] = [NodeRequirements::default(), NodeRequirements::default()];
            first.require_term(&left);
            second.require_term(&right);
            assert_eq!(first.agrees_with(&second), possible, "{left:?} {right:?}");
        }
    }

    #[test]
    fn implication_holds_for_every_node() {
        for (own, required, implied) in [
            (("In", &["a"][..]), ("In", &["a", "b"][..]), true),
            (("In", &["a", "b"]), ("In", &["a"]), false),
            (("In", &["a"]), ("NotIn", &["b"]), true),
            (("In", &["a"]), ("Exists", &[]), true),
            (("In", &["a"]), ("DoesNotExist", &[]), false),
            (("NotIn", &["a", "b"]), ("NotIn", &["a"]), true),
            (("NotIn", &["a"]), ("NotIn", &["a", "b"]), false),
            (("NotIn", &["a"]), ("DoesNotExist", &[]), false),
            (("DoesNotExist", &[]), ("NotIn", &["a"]), true),
            (("DoesNotExist", &[]), ("DoesNotExist", &[]), true),
            (("Exists", &[]), ("Exists", &[]), true),
            (("Exists", &[]), ("In", &["a"]), false),
            (("Gt", &["5"]), ("Gt", &["4"]), true),
            (("Gt", &["4"]), ("Gt", &["5"]), false),
            (("Lt", &["4"]), ("Lt", &["5"]), true),
            (("In", &["7"]), ("Gt", &["5"]), true),
        ] {
            let (own, required) =
                (json!([requirement(own.0, own.1)]), json!([requirement(required.0, required.1)]));
            let own = term(&own);
            let required = term(&required);
            let [mut left, mut right] = [NodeRequirements::default(), NodeRequirements::default()];
            left.require_term(&own);
            right.require_term(&required);
            assert_eq!(left.implies(&right), implied, "{own:?} {required:?}");
            assert!(!NodeRequirements::default().implies(&right) || !implied);
        }
    }

    #[test]
    fn node_name_is_a_field() {
        let named = json!({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]});
        let named: NodeSelectorTerm<'_> = serde_json::from_value::<Value>(named)
            .map(|value| serde::Deserialize::deserialize(value).unwrap())
            .unwrap();
        let mut requirements = NodeRequirements::default();
        requirements.require_term(&named);
        requirements.require_label("zone", "x");
        let labels = BTreeMap::from([("zone".to_owned(), "x".to_owned())]);
        assert!(requirements.matches(&labels, "b") && !requirements.matches(&labels, "a"));
        assert!(!requirements.matches(&BTreeMap::new(), "b"));
    }
}
