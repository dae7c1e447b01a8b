//! What a placement is to come to: groups of nodes and the shares of a workload's pods that belong on them.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::once;
use std::sync::Arc;

use serde_json::Value;

use podshaper_core::label;

/// The most groups of one policy.
pub const MAX_GROUPS: usize = 32;
/// The highest weight, base and max of a group. With [`MAX_GROUPS`] it keeps the arithmetic of the sequence within 64 bits.
pub const MAX_NUMBER: u32 = 1_000_000;
/// The longest name of a group, in bytes: it is kept for every placed pod. Eight labels are shorter.
pub const MAX_NAME: usize = 4096;

/// The groups of a policy, and how they share.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    groups: Vec<Group>,
    tie: Tie,
}

/// Nodes that belong together, and their share of the pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Names the group in annotations and for people; unique in its policy.
    pub name: GroupName,
    /// The labels that its nodes bear.
    pub node_labels: BTreeMap<String, String>,
    /// How many of the first pods it gets, before weights count.
    pub base: u32,
    /// Its share of the other pods, in proportion to the sum of all weights.
    pub weight: u32,
    /// The most pods that it gets, its base among them.
    pub max: Option<u32>,
    /// `v1.Toleration`s that its pods are given, which must be valid.
    pub tolerations: Vec<Value>,
    /// `v1.NodeSelectorTerm`s of which a node must meet one, besides the labels. They must be valid.
    pub node_affinity: Vec<Value>,
    /// Whether its nodes are preferred only: by affinity, in place of a node selector.
    pub preferred: bool,
}

/// A group's name, shared by all that mention it.
pub type GroupName = Arc<str>;

/// Who gets a slot that several groups have the same claim to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The group that is named first.
    First,
    /// The group that is named last.
    Last,
}

/// Some of the groups of a policy, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSet(u32);

/// Why groups make no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There are none.
    #[error("there is no group")]
    Empty,
    /// There are too many.
    #[error("{0} groups; at most {MAX_GROUPS} can share a workload")]
    TooMany(usize),
    /// A weight, base or max is too high.
    #[error("group {name}: {field} is {number}, the highest is {MAX_NUMBER}")]
    Number {
        /// The group.
        name: GroupName,
        /// `weight`, `base` or `max`.
        field: &'static str,
        /// What it is.
        number: u32,
    },
    /// A max below the base.
    #[error("group {name}: max is {max}, less than its base of {base}")]
    MaxBelowBase {
        /// The group.
        name: GroupName,
        /// Its max.
        max: u32,
        /// Its base.
        base: u32,
    },
    /// Two groups of one name.
    #[error("two groups are named {0}")]
    Duplicate(GroupName),
    /// Nodes can't be told apart from all others.
    #[error("group {0} has no node label")]
    NoLabels(GroupName),
    /// A label that the API server would refuse a pod for, or a name that is too long or of more than one line.
    #[error("group {name}: {field}: {problem}")]
    Invalid {
        /// The group.
        name: GroupName,
        /// `name` or `nodeLabel`.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// No group may ever get a pod.
    #[error("no group has a weight or a base")]
    NoShare,
}

impl Policy {
    /// A policy of these groups, if they make sense.
    pub fn new(groups: Vec<Group>, tie: Tie) -> Result<Self, PolicyError> {
        match groups.len() {
            0 => return Err(PolicyError::Empty),
            count if count > MAX_GROUPS => return Err(PolicyError::TooMany(count)),
            _ => {}
        }
        let mut names = BTreeSet::new();
        for group in &groups {
            group.check()?;
            if !names.insert(&group.name) {
                return Err(PolicyError::Duplicate(group.name.clone()));
            }
        }
        if groups.iter().all(|group| group.weight == 0 && group.base == 0) {
            return Err(PolicyError::NoShare);
        }
        Ok(Self { groups, tie })
    }

    /// The groups, in the order in which they were named.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Who wins a tie.
    pub fn tie(&self) -> Tie {
        self.tie
    }

    /// All groups.
    pub fn all(&self) -> GroupSet {
        (0..self.groups.len()).collect()
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
    fn check(&self) -> Result<(), PolicyError> {
        let name = || self.name.clone();
        for (field, number) in
            [("weight", self.weight), ("base", self.base), ("max", self.max.unwrap_or_default())]
        {
            if number > MAX_NUMBER {
                return Err(PolicyError::Number { name: name(), field, number });
            }
        }
        match self.max {
            Some(max) if max < self.base => {
                Err(PolicyError::MaxBelowBase { name: name(), max, base: self.base })
            }
            _ if self.node_labels.is_empty() => Err(PolicyError::NoLabels(name())),
            _ => self.check_validity(),
        }
    }

    /// A pod that is given what the API server refuses would be refused itself.
    fn check_validity(&self) -> Result<(), PolicyError> {
        let one_line = if self.name.contains(char::is_control) {
            Err("it has a control character".into())
        } else if self.name.len() > MAX_NAME {
            Err(format!("it is longer than {MAX_NAME} bytes"))
        } else {
            Ok(())
        };
        let labels = self.node_labels.iter().map(|(key, value)| ("nodeLabel", label::check(key, value)));
        for (field, checked) in once(("name", one_line)).chain(labels) {
            checked.map_err(|problem| PolicyError::Invalid { name: self.name.clone(), field, problem })?;
        }
        Ok(())
    }
}

impl GroupSet {
    /// Whether the group at `index` is one of them.
    pub fn contains(self, index: usize) -> bool {
        u32::try_from(index)
            .ok()
            .and_then(|shift| self.0.checked_shr(shift))
            .is_some_and(|bits| bits & 1 == 1)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that aren't in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
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
    use super::*;

    fn group(name: &str, base: u32, weight: u32, max: Option<u32>) -> Group {
        let node_labels = BTreeMap::from([("type".to_owned(), name.to_owned())]);
        Group { name: name.into(), node_labels, base, weight, max, ..Group::default() }
    }

    #[test]
    fn what_makes_no_policy() {
        let mislabelled = Group {
            node_labels: BTreeMap::from([("a b".to_owned(), String::new())]),
            ..group("a", 0, 1, None)
        };
        let unlabelled = Group { node_labels: BTreeMap::new(), ..group("a", 0, 1, None) };
        for (groups, error) in [
            (vec![], "there is no group"),
            (vec![group("a", 0, 1, None); 33], "33 groups; at most 32 can share a workload"),
            (vec![group("a", 0, 1, None), group("a", 1, 0, None)], "two groups are named a"),
            (vec![group("a", 0, 0, None), group("b", 0, 0, Some(3))], "no group has a weight or a base"),
            (vec![group("a", 3, 0, Some(2))], "group a: max is 2, less than its base of 3"),
            (vec![group("a", 0, 1_000_001, None)], "group a: weight is 1000001, the highest is 1000000"),
            (vec![group("a", 0, 1, Some(2_000_000))], "group a: max is 2000000, the highest is 1000000"),
            (vec![unlabelled], "group a has no node label"),
            (vec![mislabelled], "group a: nodeLabel: \"a b\" is not a label key"),
            (vec![group("a\nb", 0, 1, None)], "group a\nb: name: it has a control character"),
        ] {
            let told = Policy::new(groups, Tie::First).unwrap_err().to_string();
            assert!(told.starts_with(error), "{told}");
        }
    }

    #[test]
    fn sets_of_groups() {
        let set: GroupSet = [0, 31, 32].into_iter().collect();
        assert!(set.contains(0) && set.contains(31) && !set.contains(1) && !set.contains(32));
        assert!(set.and([1].into_iter().collect()).is_empty());
        assert_eq!(set.without([0, 1].into_iter().collect()), [31].into_iter().collect());
    }
}
