//! Groups of nodes, and the share of a workload's pods that each gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use podshaper_core::label;

use super::definition::Definition;

/// Maximum number of groups in a policy.
pub const MAX_GROUPS: usize = 32;
/// Maximum weight, base and max of a group. With [`MAX_GROUPS`] it keeps the arithmetic of the slot order within 64 bits.
pub const MAX_NUMBER: u32 = 1_000_000;
/// Maximum length of a group's name in bytes, which is kept for every placed pod. Eight labels are shorter.
pub const MAX_NAME: usize = 4096;

/// Valid groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    groups: Vec<Group>,
    /// By index of the group.
    definitions: Vec<Definition>,
    tie: Tie,
}

/// Nodes that belong together, and their share of the pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Unique in its policy. In annotations and messages it names the group.
    pub name: GroupName,
    /// The labels that its nodes have. They may be empty only if [`Self::node_affinity`] is not.
    pub node_labels: BTreeMap<String, String>,
    /// How many pods it gets before weights count.
    pub base: u32,
    /// Its share of the other pods, relative to the sum of all weights.
    pub weight: u32,
    /// Maximum number of its pods, including its base.
    pub max: Option<u32>,
    /// `v1.Toleration`s that its pods get. They must be valid.
    pub tolerations: Vec<Value>,
    /// `v1.NodeSelectorTerm`s. A node needs to match one of them, besides the labels. They must be valid.
    pub node_affinity: Vec<Value>,
    /// Whether its pods get a preferred node affinity instead of a node selector.
    pub preferred: bool,
    /// Whether it gets pods only while no other group that they fit into takes pods. It has no weight and no base.
    pub stand_in: bool,
}

/// A group's name.
pub type GroupName = Arc<str>;

/// Which group gets a slot that is equally due to several groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The first group in the policy.
    First,
    /// The last group in the policy.
    Last,
}

/// Some of the groups of a policy, by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSet(u32);

/// Why a policy is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The policy has no groups.
    #[error("there is no group")]
    Empty,
    /// The policy has more than [`MAX_GROUPS`] groups.
    #[error("{0} groups; the maximum is {MAX_GROUPS}")]
    TooMany(usize),
    /// Two groups have one name.
    #[error("two groups are named {0}")]
    Duplicate(GroupName),
    /// No group would ever get a pod.
    #[error("no group has a weight or a base")]
    NoShare,
    /// A group is invalid.
    #[error("group {name}: {problem}")]
    Group {
        /// The group.
        name: GroupName,
        /// The field and what is wrong with it.
        problem: String,
    },
}

impl Policy {
    /// A policy with these groups.
    pub fn new(groups: Vec<Group>, tie: Tie) -> Result<Self, PolicyError> {
        match groups.len() {
            0 => return Err(PolicyError::Empty),
            count if count > MAX_GROUPS => return Err(PolicyError::TooMany(count)),
            _ => {}
        }
        let mut names = BTreeSet::new();
        for group in &groups {
            group.check().map_err(|problem| PolicyError::Group { name: group.name.clone(), problem })?;
            if !names.insert(&group.name) {
                return Err(PolicyError::Duplicate(group.name.clone()));
            }
        }
        if groups.iter().all(|group| group.weight == 0 && group.base == 0) {
            return Err(PolicyError::NoShare);
        }
        let define = |group: &Group| {
            group.define().map_err(|problem| PolicyError::Group { name: group.name.clone(), problem })
        };
        let definitions = groups.iter().map(define).collect::<Result<_, _>>()?;
        Ok(Self { groups, definitions, tie })
    }

    /// The groups. Elsewhere a group is given by its index in them.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The definitions of the groups, in the same order.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The policy without the maximum of each group.
    pub(crate) fn without_max(&self) -> Self {
        let groups = self.groups.iter().map(|group| Group { max: None, ..group.clone() });
        Self { groups: groups.collect(), ..self.clone() }
    }

    /// Which group gets a slot that is equally due to several.
    pub fn tie(&self) -> Tie {
        self.tie
    }

    /// All groups.
    pub fn all(&self) -> GroupSet {
        (0..self.groups.len()).collect()
    }

    /// The groups that only stand in for others.
    pub fn stand_ins(&self) -> GroupSet {
        self.indexes(|group| group.stand_in)
    }

    /// The groups for which `includes` is true.
    pub fn indexes(&self, includes: impl Fn(&Group) -> bool) -> GroupSet {
        let groups = self.groups.iter().enumerate().filter(|(_, group)| includes(group));
        groups.map(|(index, _)| index).collect()
    }

    /// The group `name`.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| &*group.name == name)
    }

    /// The index of the group `name`.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.groups.iter().position(|group| &*group.name == name)
    }
}

impl Group {
    fn check(&self) -> Result<(), String> {
        let max = self.max.unwrap_or(self.base);
        for (field, number) in [("weight", self.weight), ("base", self.base), ("max", max)] {
            if number > MAX_NUMBER {
                return Err(format!("{field} is {number}, the maximum is {MAX_NUMBER}"));
            }
        }
        if max < self.base {
            return Err(format!("max is {max}, less than the base of {}", self.base));
        }
        if self.stand_in && (self.weight > 0 || self.base > 0) {
            return Err("standIn: it requires weight 0 and base 0".to_owned());
        }
        if self.name.contains(char::is_control) || self.name.len() > MAX_NAME {
            return Err(format!("name: it has a control character, or more than {MAX_NAME} bytes"));
        }
        if self.node_labels.is_empty() && (self.node_affinity.is_empty() || self.preferred) {
            return Err("nodeLabel: there is no label".to_owned());
        }
        // The API server would refuse a pod with an invalid node selector.
        let mut labels = self.node_labels.iter();
        labels
            .try_for_each(|(key, value)| label::check(key, value))
            .map_err(|problem| format!("nodeLabel: {problem}"))
    }

    fn define(&self) -> Result<Definition, String> {
        let definition = Definition::new(&self.node_labels, &self.node_affinity);
        let definition = definition.map_err(|error| format!("nodeAffinity: {error}"))?;
        if definition.is_possible() {
            Ok(definition)
        } else {
            Err("nodeAffinity: no node can match a term and have the labels".to_owned())
        }
    }
}

impl GroupSet {
    /// Whether the group with this index is in the set.
    pub fn contains(self, index: usize) -> bool {
        u32::try_from(index)
            .ok()
            .and_then(|shift| self.0.checked_shr(shift))
            .is_some_and(|bits| bits & 1 == 1)
    }

    /// Whether the set has no group.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The groups that are in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The groups that are in one or both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The groups that are not in `other`.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<usize> for GroupSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indexes: I) -> Self {
        let bit = |index| u32::try_from(index).ok().and_then(|shift| 1u32.checked_shl(shift)).unwrap_or(0);
        Self(indexes.into_iter().fold(0, |set, index| set | bit(index)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(name: &str, base: u32, weight: u32, max: Option<u32>) -> Group {
        let node_labels = BTreeMap::from([("type".to_owned(), name.to_owned())]);
        Group { name: name.into(), node_labels, base, weight, max, ..Group::default() }
    }

    #[test]
    fn invalid_groups_are_rejected() {
        let invalid_label = Group {
            node_labels: BTreeMap::from([("a b".to_owned(), String::new())]),
            ..group("a", 0, 1, None)
        };
        let unlabelled = Group { node_labels: BTreeMap::new(), ..group("a", 0, 1, None) };
        let no_a = json!({"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["a"]}]});
        let impossible = Group { node_affinity: vec![no_a.clone()], ..group("a", 0, 1, None) };
        let preferred_nothing = Group { preferred: true, node_affinity: vec![no_a], ..unlabelled.clone() };
        for (groups, expected) in [
            (vec![], "there is no group"),
            (vec![group("a", 0, 1, None); 33], "33 groups; the maximum is 32"),
            (vec![group("a", 0, 1, None), group("a", 1, 0, None)], "two groups are named a"),
            (vec![group("a", 0, 0, None), group("b", 0, 0, Some(3))], "no group has a weight or a base"),
            (vec![group("a", 3, 0, Some(2))], "group a: max is 2, less than the base of 3"),
            (vec![group("a", 0, 1_000_001, None)], "group a: weight is 1000001, the maximum is 1000000"),
            (vec![group("a", 0, 1, Some(2_000_000))], "group a: max is 2000000, the maximum is 1000000"),
            (
                vec![Group { stand_in: true, ..group("a", 0, 1, None) }],
                "group a: standIn: it requires weight 0 and base 0",
            ),
            (vec![unlabelled], "group a: nodeLabel: there is no label"),
            (vec![preferred_nothing], "group a: nodeLabel: there is no label"),
            (vec![impossible], "group a: nodeAffinity: no node can match a term and have the labels"),
            (vec![invalid_label], "group a: nodeLabel: \"a b\" is not a label key"),
            (vec![group("a\nb", 0, 1, None)], "group a\nb: name: it has a control character"),
        ] {
            let error = Policy::new(groups, Tie::First).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn group_sets_intersect_and_differ() {
        let set: GroupSet = [0, 31, 32].into_iter().collect();
        assert!(set.contains(0) && set.contains(31) && !set.contains(1) && !set.contains(32));
        assert!(set.intersection([1].into_iter().collect()).is_empty());
        assert_eq!(set.difference([0, 1].into_iter().collect()), [31].into_iter().collect());
    }
}
