//! The distribution of pods over the groups of a policy, actual and desired.

use super::allocator::SlotAllocator;
use super::policy::Policy;

/// The pods of one owner, or of several, by group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// In the order of the policy.
    pub groups: Vec<GroupSpread>,
    /// Pods without a group, or with a group that the policy no longer has.
    pub unplaced: u32,
}

/// The pods of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupSpread {
    /// The number of pods by its share of the placed pods.
    pub desired: u32,
    /// The number of its pods.
    pub actual: u32,
    /// The number of its pods that aren't ready.
    pub pending: u32,
}

impl GroupSpread {
    /// `actual` minus `desired`.
    pub fn deviation(self) -> i64 {
        i64::from(self.actual) - i64::from(self.desired)
    }
}

impl Spread {
    /// Counts the pods of one owner. A pod is its group, if that is known, and whether it is ready.
    pub fn of<'p>(
        pods: impl IntoIterator<Item = (Option<&'p str>, bool)>,
        allocator: &SlotAllocator,
    ) -> Self {
        let mut spread = Self::none(allocator.policy());
        for (group, ready) in pods {
            let index = group.and_then(|group| allocator.policy().index(group));
            match index.and_then(|index| spread.groups.get_mut(index)) {
                Some(tally) => {
                    tally.actual += 1;
                    tally.pending += u32::from(!ready);
                }
                None => spread.unplaced += 1,
            }
        }
        let desired = allocator.desired(spread.placed());
        for (tally, desired) in spread.groups.iter_mut().zip(desired) {
            tally.desired = desired;
        }
        spread
    }

    /// The distribution of no pods.
    pub fn none(policy: &Policy) -> Self {
        Self { groups: vec![GroupSpread::default(); policy.groups().len()], unplaced: 0 }
    }

    /// Adds the pods of another owner.
    pub fn add(&mut self, other: &Self) {
        for (tally, other) in self.groups.iter_mut().zip(&other.groups) {
            tally.desired += other.desired;
            tally.actual += other.actual;
            tally.pending += other.pending;
        }
        self.unplaced += other.unplaced;
    }

    /// The number of pods with a group.
    pub fn placed(&self) -> u32 {
        self.groups.iter().map(|tally| tally.actual).sum()
    }

    /// The number of pods beyond the desired number of their group.
    pub fn misplaced(&self) -> u32 {
        let surplus = |tally: &GroupSpread| tally.actual.saturating_sub(tally.desired);
        self.groups.iter().map(surplus).sum()
    }

    /// The pods of the groups, as in `8/2`.
    pub fn pods(&self) -> String {
        self.join(|tally| tally.actual)
    }

    /// The desired numbers, for example `8/2`.
    pub fn desired(&self) -> String {
        self.join(|tally| tally.desired)
    }

    fn join(&self, of: impl Fn(&GroupSpread) -> u32) -> String {
        self.groups.iter().map(|tally| of(tally).to_string()).collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::policy::{Group, Tie};

    use super::*;

    #[test]
    fn pods_are_counted_against_their_shares() {
        let group = |(name, weight): (&str, u32)| Group {
            name: name.into(),
            node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
            weight,
            ..Group::default()
        };
        let policy = Policy::new([("default", 80), ("spot", 20)].map(group).into(), Tie::First).unwrap();
        let allocator = SlotAllocator::new(policy);
        let pods = [(Some("default"), true); 9].into_iter().chain([
            (Some("spot"), false),
            (None, true),
            (Some("gone"), true),
        ]);
        let mut spread = Spread::of(pods, &allocator);
        assert_eq!((&*spread.pods(), &*spread.desired(), spread.unplaced), ("9/1", "8/2", 2));
        assert_eq!(spread.groups[1], GroupSpread { desired: 2, actual: 1, pending: 1 });
        assert_eq!(
            (spread.groups[0].deviation(), spread.groups[1].deviation(), spread.misplaced()),
            (1, -1, 1)
        );
        let other = spread.clone();
        spread.add(&other);
        assert_eq!((&*spread.pods(), &*spread.desired(), spread.placed()), ("18/2", "16/4", 20));
        assert_eq!(Spread::none(allocator.policy()).pods(), "0/0");
    }
}
