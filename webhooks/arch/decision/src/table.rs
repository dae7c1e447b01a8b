//! The architectures of a cluster's nodes, and the labels that select their nodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use podshaper_core::label::is_value;
use podshaper_core::pod::{NodeSelectorRequirement, Pod};
use serde_json::{Value, json};

use crate::platform::{Architecture, KUBERNETES_ARCHITECTURES};

/// The label that every kubelet gives its node.
pub const ARCH_LABEL: &str = "kubernetes.io/arch";

/// Its older name. The node lifecycle controller keeps both equal (`labelReconcileInfo` of
/// k8s.io/kubernetes/pkg/controller/nodelifecycle).
pub const BETA_ARCH_LABEL: &str = "beta.kubernetes.io/arch";

/// An invalid label value. It represents every value that neither pod nor settings name.
const ANOTHER: &str = "-";

/// The largest number of node selector entries, requirements, and values of architecture labels in a pod. Each is compared with each
/// architecture, and a pod has room for hundreds of thousands.
pub(crate) const MAX_REQUIREMENTS: usize = 1024;

/// The labels of a node, or those that it must have.
pub type Labels = BTreeMap<String, String>;

/// A taint of nodes (`v1.Taint`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// `key`.
    pub key: String,
    /// `value`; empty for none.
    pub value: String,
    /// `effect`.
    pub effect: String,
}

/// As `kubectl` writes it: `KEY=VALUE:EFFECT`.
impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, effect } = self;
        if value.is_empty() { write!(f, "{key}:{effect}") } else { write!(f, "{key}={value}:{effect}") }
    }
}

/// The nodes of one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Their architecture.
    pub architecture: Architecture,
    /// The labels that distinguish these nodes, which pods are made to require.
    labels: Labels,
    /// The same, and the older name of the architecture label: all that the pod's own requirements are compared with.
    known_labels: Labels,
    /// The taints that keep pods off that don't say they can run there.
    pub taints: Vec<Taint>,
}

/// All architectures that nodes may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Those that were configured; if none were, every architecture there is.
    configured: Vec<Nodes>,
    /// The others that the cluster has; none if architectures are not learned. Beside these, every architecture may exist: a group of
    /// nodes without a node is not seen.
    learned: Option<Vec<Nodes>>,
}

impl Nodes {
    /// The nodes with these labels.
    pub fn new(architecture: Architecture, labels: Labels, taints: Vec<Taint>) -> Self {
        Self { architecture, known_labels: with_both_names(&labels), labels, taints }
    }

    /// The nodes with the label of this architecture.
    pub fn labelled(architecture: Architecture) -> Self {
        let labels = [(ARCH_LABEL.to_owned(), architecture.name.to_string())].into();
        Self::new(architecture, labels, Vec::new())
    }

    /// Nodes of no architecture that an image may be for.
    fn another(labels: Labels) -> Self {
        Self::new(Architecture { name: ANOTHER.into(), variant: None }, labels, Vec::new())
    }

    /// The labels that distinguish these nodes.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The known labels of these nodes, under each name.
    pub fn known_labels(&self) -> &Labels {
        &self.known_labels
    }
}

/// The labels, and the architecture by both of its names.
fn with_both_names(labels: &Labels) -> Labels {
    let mut all = labels.clone();
    for (name, other) in [(ARCH_LABEL, BETA_ARCH_LABEL), (BETA_ARCH_LABEL, ARCH_LABEL)] {
        if let Some(value) = labels.get(name) {
            all.entry(other.to_owned()).or_insert_with(|| value.clone());
        }
    }
    all
}

/// The names of a label.
fn names(key: &str) -> &[&str] {
    const ARCH: [&str; 2] = [ARCH_LABEL, BETA_ARCH_LABEL];
    ARCH.iter().position(|name| *name == key).map_or(&[], |_| &ARCH)
}

impl Table {
    /// A table of these.
    pub fn new(configured: Vec<Nodes>) -> Self {
        Self { configured, learned: None }
    }

    /// The same table, with the architectures that a cluster has. A configured architecture stays as it is.
    #[must_use]
    pub(crate) fn with_learned(&self, learned: impl Iterator<Item = Nodes>) -> Self {
        let is_new = |own: &Nodes| !has_name(&self.configured, &own.architecture.name);
        Self { configured: self.configured.clone(), learned: Some(learned.filter(is_new).collect()) }
    }

    /// The configured architectures.
    pub fn configured(&self) -> &[Nodes] {
        &self.configured
    }

    /// The configured and the learned architectures.
    pub fn listed(&self) -> impl Iterator<Item = &Nodes> {
        self.configured.iter().chain(self.learned.iter().flatten())
    }

    /// Whether architectures that are not listed may exist.
    pub fn is_open(&self) -> bool {
        self.configured.is_empty() || self.learned.is_some()
    }

    /// Whether nodes of the architecture are known to exist: it is listed, or nothing is known of the nodes.
    pub(crate) fn has(&self, nodes: &Nodes) -> bool {
        self.learned.is_none() || self.listed().any(|own| own.architecture == nodes.architecture)
    }

    /// Whether the node selector and affinity of the pod have more than `MAX_REQUIREMENTS` requirements and values.
    pub fn is_exceeded_by(&self, pod: &Pod<'_>) -> bool {
        let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let requirements = pod.required_terms().unwrap_or_default().iter().flat_map(|term| {
            [&term.match_expressions, &term.match_fields].into_iter().flat_map(|list| list.iter().flatten())
        });
        let distinguishes = |key: &str| {
            self.is_open() && (key == ARCH_LABEL || key == BETA_ARCH_LABEL)
                || self.configured.iter().any(|nodes| nodes.known_labels.contains_key(key))
        };
        let values = |own: &NodeSelectorRequirement<'_>| match &own.values {
            Some(values) if distinguishes(&own.key) => values.len(),
            _ => 0,
        };
        let selected = selector.map_or(0, |selector| selector.iter().count());
        selected + requirements.map(|own| 1 + values(own)).sum::<usize>() > MAX_REQUIREMENTS
    }

    /// Whether nodes of this architecture may exist: one that Kubernetes knows, or a configured one.
    pub fn knows(&self, architecture: &Architecture) -> bool {
        architecture.is_known() || has_name(&self.configured, &architecture.name)
    }

    /// The kinds of nodes that a decision about `pod` distinguishes: the listed ones; and, unless these are all that there are, those that
    /// Kubernetes knows, those that the pod names, and one for all other nodes.
    pub fn nodes_for(&self, pod: &Pod<'_>) -> Cow<'_, [Nodes]> {
        if !self.is_open() {
            return Cow::Borrowed(&self.configured);
        }
        let architecture = |name: &str| Architecture { name: name.into(), variant: None };
        let is_listed = |name: &str| self.listed().any(|own| &*own.architecture.name == name);
        let others = KUBERNETES_ARCHITECTURES.into_iter().filter(|name| !is_listed(name));
        let known = self.listed().cloned().chain(others.map(|name| Nodes::labelled(architecture(name))));
        let label = |value: &str| [(ARCH_LABEL.to_owned(), value.to_owned())].into();
        let named: BTreeSet<&str> = mentioned(pod, ARCH_LABEL).into_iter().collect();
        // A pod can name any text. The API server accepts valid label values only.
        let real = |name: &&str| is_value(name) && !name.is_empty() && !architecture(name).is_known();
        let named = named.into_iter().filter(real).chain([ANOTHER]);
        Cow::Owned(known.chain(named.map(|name| Nodes::another(label(name)))).collect())
    }

    /// Whether the pod's own node selector and required affinity admit one architecture only. Labels of nodes count that imply one.
    pub fn admits_one_architecture(&self, pod: &Pod<'_>) -> bool {
        let nodes = self.nodes_for(pod);
        let keys: BTreeSet<&str> =
            nodes.iter().flat_map(|nodes| nodes.labels.keys().map(|key| &**key)).collect();
        let labels = keys.iter().map(|key| ((*key).to_owned(), ANOTHER.to_owned())).collect();
        let others = pod.may_run_on(&Nodes::another(labels).known_labels);
        let allowed = nodes.iter().filter(|nodes| pod.may_run_on(&nodes.known_labels)).take(2).count();
        if allowed <= 1 && (allowed < nodes.len() || !others) {
            return true;
        }
        // The values of each label with which the pod may run: two are as good as many.
        let values: BTreeMap<&str, Vec<&str>> = keys
            .iter()
            .map(|&key| {
                let named = nodes.iter().filter_map(|nodes| nodes.labels.get(key)).map(|value| &**value);
                let all: BTreeSet<&str> = named.chain(mentioned(pod, key)).chain([ANOTHER]).collect();
                let labels = |value: &str| with_both_names(&[(key.to_owned(), value.to_owned())].into());
                let may_run = |value: &&str| pod.may_run_on(&labels(value));
                (key, all.into_iter().filter(may_run).take(2).collect())
            })
            .collect();
        let only =
            |key: &str, value: &str| values.get(key).into_iter().flatten().all(|other| *other == value);
        nodes.iter().any(|nodes| {
            nodes.labels.iter().all(|(key, value)| only(key, value)) && pod.may_run_on(&nodes.known_labels)
        })
    }
}

fn has_name(nodes: &[Nodes], name: &str) -> bool {
    nodes.iter().any(|own| &*own.architecture.name == name)
}

/// Every value that the pod's node selector and required affinity name for a label, under each of its names.
fn mentioned<'p>(pod: &'p Pod<'_>, key: &str) -> Vec<&'p str> {
    let is_named = |own: &str| own == key || names(key).contains(&own);
    let terms = pod.required_terms().unwrap_or_default().iter();
    let requirements = terms.flat_map(|term| term.match_expressions.as_deref().unwrap_or_default());
    let values = requirements
        .filter(|own| is_named(&own.key))
        .flat_map(|own| own.values.as_deref().unwrap_or_default());
    let selected = [key].into_iter().chain(names(key).iter().copied().filter(|name| *name != key));
    selected.filter_map(|name| pod.node_selector(name)).chain(values.map(|value| &**value)).collect()
}

/// The `v1.NodeSelectorTerm`s that these nodes meet, one at least each, and no others that are in the table: as few as can
/// be, since nodes that differ in the value of one label alone share a term.
pub fn terms<'n>(nodes: impl IntoIterator<Item = &'n Nodes>) -> Vec<Value> {
    groups(nodes).iter().map(Group::term).collect()
}

/// Nodes that one term can select.
#[derive(Debug)]
pub(crate) struct Group<'n> {
    /// The values that each label may have; all but one key have one.
    values: BTreeMap<&'n str, BTreeSet<&'n str>>,
    /// The nodes.
    pub(crate) nodes: Vec<&'n Nodes>,
}

/// Groups nodes, as few as can be.
pub(crate) fn groups<'n>(nodes: impl IntoIterator<Item = &'n Nodes>) -> Vec<Group<'n>> {
    let mut groups: Vec<Group<'n>> = Vec::new();
    for nodes in nodes {
        if !groups.iter_mut().any(|group| group.take_in(nodes)) {
            let values = nodes.labels.iter().map(|(key, value)| (&**key, [&**value].into())).collect();
            groups.push(Group { values, nodes: vec![nodes] });
        }
    }
    groups
}

impl<'n> Group<'n> {
    /// Adds `nodes` if one term still selects exactly the group.
    fn take_in(&mut self, nodes: &'n Nodes) -> bool {
        let same_keys = self.values.keys().copied().eq(nodes.labels.keys().map(|key| &**key));
        let value_of = |key: &str| nodes.labels.get(key).map(|value| &**value).unwrap_or_default();
        let other = |(key, values): &(&&'n str, &BTreeSet<&'n str>)| !values.contains(value_of(key));
        let wide = self.values.iter().filter(|(_, values)| values.len() > 1).map(|(key, _)| *key);
        let mut open: BTreeSet<&str> = wide.collect();
        open.extend(self.values.iter().filter(other).map(|(key, _)| *key));
        let fits = same_keys && open.len() <= 1;
        if fits {
            for (key, values) in &mut self.values {
                values.insert(value_of_label(nodes, key));
            }
            self.nodes.push(nodes);
        }
        fits
    }

    /// The `v1.NodeSelectorTerm` that selects the group.
    pub(crate) fn term(&self) -> Value {
        let requirements: Vec<_> = self
            .values
            .iter()
            .map(|(key, values)| json!({"key": key, "operator": "In", "values": values}))
            .collect();
        json!({"matchExpressions": requirements})
    }

    /// A `v1.NodeSelectorTerm` that none of it meets.
    pub(crate) fn never(&self) -> Value {
        let requirement = self.values.iter().next();
        let requirement =
            requirement.map(|(key, values)| json!({"key": key, "operator": "NotIn", "values": values}));
        json!({"matchExpressions": requirement.as_slice()})
    }
}

fn value_of_label<'n>(nodes: &'n Nodes, key: &str) -> &'n str {
    nodes.labels.get(key).map(|value| &**value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(name: &str, labels: &[(&str, &str)]) -> Nodes {
        let labels: Labels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let architecture: Architecture = name.parse().unwrap();
        if labels.is_empty() {
            Nodes::labelled(architecture)
        } else {
            Nodes::new(architecture, labels, Vec::new())
        }
    }

    #[test]
    fn one_term_where_one_key_differs() {
        let table = [
            nodes("amd64", &[]),
            nodes("arm64", &[("pool", "arm"), (ARCH_LABEL, "arm64")]),
            nodes("s390x", &[]),
            nodes("ppc64le", &[("pool", "power"), (ARCH_LABEL, "ppc64le")]),
        ];
        let terms = Value::from(terms(&table));
        assert_eq!(
            terms,
            json!([
                {"matchExpressions": [{"key": ARCH_LABEL, "operator": "In", "values": ["amd64", "s390x"]}]},
                {"matchExpressions": [
                    {"key": ARCH_LABEL, "operator": "In", "values": ["arm64"]},
                    {"key": "pool", "operator": "In", "values": ["arm"]}
                ]},
                {"matchExpressions": [
                    {"key": ARCH_LABEL, "operator": "In", "values": ["ppc64le"]},
                    {"key": "pool", "operator": "In", "values": ["power"]}
                ]},
            ])
        );
    }

    #[test]
    fn named_architecture_is_distinguished_and_runs_nothing() {
        let pod = r#"{"spec":{"nodeSelector":{"beta.kubernetes.io/arch":"wasm"}}}"#;
        let nodes = Table::default().nodes_for(&serde_json::from_str(pod).unwrap()).into_owned();
        assert_eq!(nodes.len(), KUBERNETES_ARCHITECTURES.len() + 2, "those, the named one, and any other");
        let named = nodes.iter().find(|nodes| nodes.labels[ARCH_LABEL] == "wasm").unwrap();
        assert_eq!(&*named.architecture.name, ANOTHER);
    }

    #[test]
    fn pod_that_selects_an_architecture_is_exempt() {
        let pod = |spec: &str| format!(r#"{{"spec": {spec}}}"#);
        let affinity = |requirement: &str| {
            pod(&format!(
                r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{{"matchExpressions":[{requirement}]}}]}}}}}}}}"#
            ))
        };
        let arch = |operator: &str, values: &str| {
            affinity(&format!(r#"{{"key":"kubernetes.io/arch","operator":"{operator}","values":{values}}}"#))
        };
        let selector = |key: &str, value: &str| pod(&format!(r#"{{"nodeSelector":{{"{key}":"{value}"}}}}"#));
        let open = Table::default();
        let closed = Table::new(vec![nodes("amd64", &[]), nodes("arm64", &[])]);
        let one = Table::new(vec![nodes("arm64", &[])]);
        let pools = Table::new(vec![nodes("amd64", &[]), nodes("arm64", &[("pool", "arm")])]);
        for (pod, expected) in [
            (pod("{}"), [false; 4]),
            (selector(ARCH_LABEL, "arm64"), [true; 4]),
            (selector(ARCH_LABEL, "amd64"), [true; 4]),
            (selector(ARCH_LABEL, "sparc"), [true; 4]),
            (selector(BETA_ARCH_LABEL, "arm64"), [true; 4]),
            (selector("pool", "arm"), [false, false, false, true]),
            (selector("zone", "a"), [false; 4]),
            (arch("Exists", "[]"), [false; 4]),
            (arch("DoesNotExist", "[]"), [true; 4]),
            (arch("In", r#"["arm64"]"#), [true; 4]),
            (arch("In", r#"["amd64","arm64"]"#), [false, false, true, false]),
            (arch("NotIn", r#"["amd64"]"#), [false, true, false, true]),
            (arch("NotIn", r#"["s390x"]"#), [false; 4]),
            (arch("Gt", r#"["5"]"#), [true; 4]),
        ] {
            let view: Pod = serde_json::from_str(&pod).unwrap();
            let fixed = [&open, &closed, &one, &pools].map(|table| table.admits_one_architecture(&view));
            assert_eq!(fixed, expected, "{pod}");
        }
    }
}
