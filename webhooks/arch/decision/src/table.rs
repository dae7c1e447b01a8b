//! The architectures of a cluster's nodes, and the labels that select their nodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use podshaper_core::label::is_value;
use podshaper_core::pod::{NodeSelectorRequirement, Pod};
use serde_json::{Value, json};

use crate::platform::{Architecture, Platforms};

/// The label that every kubelet gives its node.
pub const ARCH_LABEL: &str = "kubernetes.io/arch";

/// The values of `kubernetes.io/arch` that kubelets set: `GOARCH` of the platforms that Kubernetes is or was built for.
const WELL_KNOWN: [&str; 9] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"];

/// An invalid label value. It represents every value that neither pod nor settings name.
const ANOTHER: &str = "-";

/// The largest number of node selector entries, requirements, and values of architecture labels in a pod. Each is compared with each
/// architecture, and a pod has room for hundreds of thousands.
const MAX_WORDS: usize = 1024;

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

/// The nodes of one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Their architecture.
    pub architecture: Architecture,
    /// The labels that distinguish these nodes.
    pub labels: Labels,
    /// The taints that keep pods off that don't say they can run there.
    pub taints: Vec<Taint>,
}

/// All architectures that nodes may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Those that were configured; if none were, every architecture there is.
    configured: Vec<Nodes>,
}

impl Nodes {
    /// The nodes with the label of this architecture.
    pub fn labelled(architecture: Architecture) -> Self {
        let labels = [(ARCH_LABEL.to_owned(), architecture.name.to_string())].into();
        Self { architecture, labels, taints: Vec::new() }
    }

    fn another(keys: &BTreeSet<&str>) -> Self {
        let labels = keys.iter().map(|key| ((*key).to_owned(), ANOTHER.to_owned())).collect();
        Self {
            architecture: Architecture { name: ANOTHER.into(), variant: None },
            labels,
            taints: Vec::new(),
        }
    }
}

impl Table {
    /// A table of these.
    pub fn new(configured: Vec<Nodes>) -> Self {
        Self { configured }
    }

    /// The configured architectures.
    pub fn configured(&self) -> &[Nodes] {
        &self.configured
    }

    /// Whether the pod says more of its nodes than is weighed.
    pub fn is_overtaxed_by(&self, pod: &Pod<'_>) -> bool {
        let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let requirements = pod.required_terms().unwrap_or_default().iter().flat_map(|term| {
            [&term.match_expressions, &term.match_fields].into_iter().flat_map(|list| list.iter().flatten())
        });
        let distinguishes = |key: &str| match &*self.configured {
            [] => key == ARCH_LABEL,
            configured => configured.iter().any(|nodes| nodes.labels.contains_key(key)),
        };
        let values = |own: &NodeSelectorRequirement<'_>| match &own.values {
            Some(values) if distinguishes(&own.key) => values.len(),
            _ => 0,
        };
        let selected = selector.map_or(0, |selector| selector.iter().count());
        selected + requirements.map(|own| 1 + values(own)).sum::<usize>() > MAX_WORDS
    }

    /// The kinds of nodes that a decision about `pod` with these images distinguishes: the configured ones; or else those that the
    /// pod names or that may run every image, and one for all other nodes.
    pub fn nodes_for<'i>(
        &self,
        pod: &Pod<'_>,
        images: impl IntoIterator<Item = &'i Platforms>,
    ) -> Cow<'_, [Nodes]> {
        if !self.configured.is_empty() {
            return Cow::Borrowed(&self.configured);
        }
        let built = images.into_iter().filter_map(Platforms::architectures);
        // An architecture that only some of the images name does not run all of them, like one that none names.
        let shared = built.reduce(|shared, other| &shared & &other).unwrap_or_default();
        let names: BTreeSet<&str> =
            WELL_KNOWN.into_iter().chain(shared).chain(mentioned(pod, ARCH_LABEL)).collect();
        // A pod or an image can name any text as an architecture. The API server accepts valid label values only.
        let real = names.into_iter().filter(|name| is_value(name) && !name.is_empty());
        let labelled = real.map(|name| Nodes::labelled(Architecture { name: name.into(), variant: None }));
        let another = Nodes::another(&BTreeSet::from([ARCH_LABEL]));
        Cow::Owned(labelled.chain([another]).collect())
    }

    /// Whether the pod's own node selector and required affinity, by what they mean, choose one architecture already.
    pub fn decided_by(&self, pod: &Pod<'_>) -> bool {
        let nodes = self.nodes_for(pod, []);
        let keys: BTreeSet<&str> =
            nodes.iter().flat_map(|nodes| nodes.labels.keys().map(|key| &**key)).collect();
        let others = pod.may_run_on(&Nodes::another(&keys).labels);
        let allowed = nodes.iter().filter(|nodes| pod.may_run_on(&nodes.labels)).take(2).count();
        if allowed <= 1 && (allowed < nodes.len() || !others) {
            return true;
        }
        // The values of each label with which the pod may run: two are as good as many.
        let values: BTreeMap<&str, Vec<&str>> = keys
            .iter()
            .map(|&key| {
                let named = nodes.iter().filter_map(|nodes| nodes.labels.get(key)).map(|value| &**value);
                let all: BTreeSet<&str> = named.chain(mentioned(pod, key)).chain([ANOTHER]).collect();
                let may_run = |value: &&str| pod.may_run_on(&[(key.to_owned(), (*value).to_owned())].into());
                (key, all.into_iter().filter(may_run).take(2).collect())
            })
            .collect();
        let only =
            |key: &str, value: &str| values.get(key).into_iter().flatten().all(|other| *other == value);
        nodes.iter().any(|nodes| {
            nodes.labels.iter().all(|(key, value)| only(key, value)) && pod.may_run_on(&nodes.labels)
        })
    }
}

/// Every value that the pod's node selector and required affinity name for a label.
fn mentioned<'p>(pod: &'p Pod<'_>, key: &str) -> Vec<&'p str> {
    let terms = pod.required_terms().unwrap_or_default().iter();
    let requirements = terms.flat_map(|term| term.match_expressions.as_deref().unwrap_or_default());
    let values =
        requirements.filter(|own| &*own.key == key).flat_map(|own| own.values.as_deref().unwrap_or_default());
    pod.node_selector(key).into_iter().chain(values.map(|value| &**value)).collect()
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
        let usual = Nodes::labelled(name.parse().unwrap());
        if labels.is_empty() { usual } else { Nodes { labels, ..usual } }
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
    fn architecture_of_some_images_is_not_distinguished() {
        let images: Vec<_> = (0..100)
            .map(|image| {
                let own = (0..200).map(|number| format!("a{image}x{number}"));
                let all = own.chain(["amd64".to_owned(), "shared".to_owned()]);
                Platforms::Only(
                    all.map(|name| crate::platform::Platform::new("linux", &name, None)).collect(),
                )
            })
            .collect();
        let table = Table::default();
        let nodes = table.nodes_for(&Pod::default(), &images);
        assert_eq!(nodes.len(), WELL_KNOWN.len() + 2, "those, what all share, and any other");
        assert!(nodes.iter().any(|nodes| &*nodes.architecture.name == "shared"));
    }

    #[test]
    fn a_pod_that_has_decided() {
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
            let decided = [&open, &closed, &one, &pools].map(|table| table.decided_by(&view));
            assert_eq!(decided, expected, "{pod}");
        }
    }
}
