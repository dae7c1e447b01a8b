//! Which group each slot belongs to.
//!
//! First the base slots, group by group; then Tijdeman's chairman assignment (R. Tijdeman, *The chairman assignment problem*,
//! Discrete Mathematics 32, 1980): of m groups with positive weight, the k-th place goes, among those that are behind
//! their share by at least c = 1/(2m − 2), to the one that will first be behind it by 1 − c. No prefix is then off by more
//! than 1 − c of a pod from any group's exact share. Nothing here depends on how many pods a workload is to have.
//!
//! Exact shares are those of water poured into vessels as wide as the groups' weights: at the level θ a group holds
//! min(weight · θ, max − base). Tijdeman's theorem holds for shares that change on the way, so a group that is full keeps the
//! others exact as well. In terms of levels "will first be behind by 1 − c" is the least (placed + 1 − c) / weight,
//! and everything can be counted in integers.

use super::policy::{GroupSet, Policy, Tie};

/// The most slots that are told apart: more than any cluster has pods. Each costs five bytes, up to whichever somebody makes up.
pub const MAX_SLOTS: u32 = 1 << 18;

/// The slots of some groups of a policy, found one after the other and remembered.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Groups with a base, and the slot at which it ends.
    bases: Vec<(u8, u64)>,
    shares: Vec<Share>,
    /// Indexes into `shares` in the order in which groups become full.
    filling: Vec<usize>,
    /// How many of `filling` are full at the last place.
    full: usize,
    tie: Tie,
    /// 2m − 2, which is 1/c.
    spread: u64,
    slots: Vec<u8>,
    /// Per group of the policy, its slots in ascending order.
    places: Vec<Vec<u32>>,
}

/// One group's part of the places after the base.
#[derive(Clone, Debug)]
struct Share {
    group: u8,
    weight: u64,
    /// The most places after the base.
    room: Option<u64>,
    placed: u64,
}

impl Sequence {
    /// The sequence of those groups of `policy` that are in `groups`.
    pub fn new(policy: &Policy, groups: GroupSet) -> Self {
        let members = || (0u8..).zip(policy.groups()).filter(|(index, _)| groups.contains((*index).into()));
        let mut end = 0;
        let bases = members().filter(|(_, group)| group.base > 0).map(|(index, group)| {
            end += u64::from(group.base);
            (index, end)
        });
        let bases = bases.collect();
        let shares: Vec<Share> = members()
            .map(|(index, group)| {
                let room = group.max.map(|max| u64::from(max.saturating_sub(group.base)));
                Share { group: index, weight: group.weight.into(), room, placed: 0 }
            })
            .filter(|share| share.weight > 0 && share.room != Some(0))
            .collect();
        let mut filling: Vec<_> =
            (0..).zip(&shares).filter_map(|(i, share)| Some((share.room?, share.weight, i))).collect();
        // By room / weight.
        filling.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
        Self {
            bases,
            filling: filling.into_iter().map(|(_, _, index)| index).collect(),
            full: 0,
            tie: policy.tie(),
            spread: (shares.len() as u64 * 2).saturating_sub(2),
            shares,
            slots: Vec::new(),
            places: vec![Vec::new(); policy.groups().len()],
        }
    }

    /// The group of `slot`; `None` where every group is full before it, or beyond [`MAX_SLOTS`].
    pub fn group(&mut self, slot: u32) -> Option<usize> {
        let slot = slot as usize;
        while self.slots.len() <= slot {
            if !self.extend() {
                return None;
            }
        }
        self.slots.get(slot).map(|group| usize::from(*group))
    }

    /// How many of the first `slots` slots belong to each group of the policy.
    pub fn counts(&mut self, slots: u32) -> Vec<u32> {
        let mut counts = vec![0; self.places.len()];
        for slot in 0..slots {
            let Some(count) = self.group(slot).and_then(|group| counts.get_mut(group)) else { break };
            *count += 1;
        }
        counts
    }

    /// The group that is to get the next pod when each has as many as `counts` says: the one whose next slot comes first.
    ///
    /// From any prefix of the sequence this is the next slot's group. From anything else it is the group that is furthest
    /// behind, so that shares come right with every pod that is added. No slot is looked at beyond the sum of `counts`.
    pub fn next(&mut self, counts: &[u32]) -> Option<usize> {
        // Among one more slot than there are pods some group has more slots than pods, unless all are full.
        let mut end = counts.iter().fold(0u32, |sum, count| sum.saturating_add(*count));
        let mut first = None;
        for (group, count) in counts.iter().enumerate() {
            let place = |this: &Self| this.places.get(group)?.get(*count as usize).copied();
            while place(self).is_none() && self.slots.len() <= end as usize && self.extend() {}
            if let Some(slot) = place(self).filter(|slot| *slot <= end) {
                (first, end) = (Some(group), slot);
            }
        }
        first
    }

    /// The slots of one group that are below `end`, in ascending order.
    pub fn slots_of(&mut self, group: usize, end: u32) -> impl Iterator<Item = u32> {
        self.group(end.saturating_sub(1));
        self.places.get(group).into_iter().flatten().copied().take_while(move |slot| *slot < end)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.slots.len()
    }

    /// Finds one more slot; false where there is none.
    fn extend(&mut self) -> bool {
        let slot = self.slots.len() as u64;
        if slot >= MAX_SLOTS.into() {
            return false;
        }
        let base = self.bases.iter().find(|(_, end)| slot < *end).map(|(group, _)| *group);
        let Some(group) = base.or_else(|| self.assign(slot)) else { return false };
        if let (Some(places), Ok(slot)) = (self.places.get_mut(usize::from(group)), u32::try_from(slot)) {
            places.push(slot);
        }
        self.slots.push(group);
        true
    }

    /// Gives `slot`, which lies after the base, to a group.
    fn assign(&mut self, slot: u64) -> Option<u8> {
        let level = self.pour(slot + 1 - self.bases.last().map_or(0, |(_, end)| *end))?;
        let spread = self.spread;
        let claims = self.shares.iter_mut().enumerate().filter(|(_, share)| share.behind(&level, spread));
        // (placed + 1 − c) / weight, compared crosswise.
        let deadline = |share: &Share| ((share.placed + 1) * spread).saturating_sub(1);
        let (_, share) = claims.min_by(|(i, a), (j, b)| {
            let tie = if self.tie == Tie::First { i.cmp(j) } else { j.cmp(i) };
            (deadline(a) * b.weight).cmp(&(deadline(b) * a.weight)).then(tie)
        })?;
        share.placed += 1;
        Some(share.group)
    }

    /// Pours `total` places, no fewer than the last time; `None` where that is more than there is room for.
    fn pour(&mut self, total: u64) -> Option<Level> {
        let mut level = Level { poured: total, width: self.shares.iter().map(|share| share.weight).sum() };
        for (number, share) in (1..).zip(self.filling.iter().filter_map(|&index| self.shares.get(index))) {
            let room = share.room.unwrap_or(u64::MAX);
            if number > self.full && !level.fills(share.weight, room) {
                break;
            }
            self.full = self.full.max(number);
            level = Level { poured: level.poured - room, width: level.width - share.weight };
        }
        (level.width > 0 || level.poured == 0).then_some(level)
    }
}

/// How high the groups stand that aren't full: poured / width.
struct Level {
    /// How many places they share.
    poured: u64,
    /// The sum of their weights.
    width: u64,
}

impl Level {
    /// Whether a group of this weight has reached `room`.
    fn fills(&self, weight: u64, room: u64) -> bool {
        weight * self.poured >= room * self.width
    }
}

impl Share {
    /// Whether it is behind its share by at least c.
    fn behind(&self, level: &Level, spread: u64) -> bool {
        match self.room {
            Some(room) if level.fills(self.weight, room) => self.placed < room,
            // A group alone gets every place.
            _ if spread == 0 => true,
            // weight · poured / width − placed ≥ 1 / spread
            _ => self.weight * level.poured * spread >= level.width * (self.placed * spread + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::shares::exact_shares;
    use crate::policy::Group;

    /// (base, weight, max) of each group.
    type Numbers = (u32, u32, Option<u32>);

    fn policy(groups: &[Numbers], tie: Tie) -> Policy {
        let group = |(index, (base, weight, max)): (usize, &Numbers)| Group {
            name: index.to_string().into(),
            node_labels: BTreeMap::from([("group".to_owned(), index.to_string())]),
            base: *base,
            weight: *weight,
            max: *max,
            ..Group::default()
        };
        Policy::new(groups.iter().enumerate().map(group).collect(), tie).unwrap()
    }

    fn sequence(groups: &[Numbers], tie: Tie) -> Sequence {
        let policy = policy(groups, tie);
        Sequence::new(&policy, policy.all())
    }

    const OD_AND_TWO_SPOT: [Numbers; 3] = [(1, 0, None), (0, 1, None), (0, 1, None)];

    #[test]
    fn eighty_to_twenty() {
        for tie in [Tie::First, Tie::Last] {
            let mut sequence = sequence(&[(0, 80, None), (0, 20, None)], tie);
            let prefixes = [[1, 0], [2, 0], [2, 1], [3, 1], [4, 1], [5, 1], [6, 1], [6, 2], [7, 2], [8, 2]];
            for (slots, counts) in (1..).zip(prefixes) {
                assert_eq!(sequence.counts(slots), counts);
            }
            assert_eq!(sequence.counts(100), [80, 20]);
            assert_eq!(sequence.counts(500), [400, 100]);
        }
    }

    #[test]
    fn a_base_and_two_weights() {
        let mut last = sequence(&OD_AND_TWO_SPOT, Tie::Last);
        for (pods, counts) in [(1, [1, 0, 0]), (5, [1, 2, 2]), (10, [1, 4, 5]), (30, [1, 14, 15])] {
            assert_eq!(last.counts(pods), counts);
        }
        assert_eq!(sequence(&OD_AND_TWO_SPOT, Tie::First).counts(10), [1, 5, 4]);
        assert_eq!(sequence(&[(2, 1, None), (0, 3, None)], Tie::Last).counts(10), [4, 6]);
    }

    #[test]
    fn where_no_group_has_room() {
        let mut bases = sequence(&[(2, 0, None), (1, 0, None)], Tie::First);
        assert_eq!(
            (0..5).map(|slot| bases.group(slot)).collect::<Vec<_>>(),
            [Some(0), Some(0), Some(1), None, None]
        );
        assert_eq!(bases.next(&[2, 1]), None);
        assert_eq!(bases.next(&[1, 5]), Some(0));
        let mut full = sequence(&[(0, 3, Some(2)), (0, 1, Some(1))], Tie::First);
        assert_eq!(full.counts(10), [2, 1]);
    }

    #[test]
    fn a_full_group_leaves_its_share_to_the_others() {
        let mut sequence = sequence(&[(0, 50, Some(2)), (0, 30, None), (0, 20, None)], Tie::First);
        assert_eq!(sequence.counts(12), [2, 6, 4]);
        assert_eq!(sequence.counts(1002), [2, 600, 400]);
    }

    #[test]
    fn the_furthest_behind_comes_next() {
        let mut sequence = sequence(&[(0, 80, None), (0, 20, None)], Tie::First);
        // Ten pods placed half and half before the weights were changed.
        let mut counts = [5, 5];
        for _ in 0..15 {
            assert_eq!(sequence.next(&counts), Some(0));
            counts[0] += 1;
        }
        assert_eq!(sequence.next(&[0, 20]), Some(0));
        assert_eq!(sequence.next(&[75, 20]), Some(0));
        assert_eq!(sequence.next(&[80, 15]), Some(1));
    }

    #[test]
    fn slots_end_somewhere() {
        let mut one = sequence(&[(0, 1, None)], Tie::First);
        assert_eq!(one.group(MAX_SLOTS - 1), Some(0));
        assert_eq!(one.group(MAX_SLOTS), None);
        let mut bases = sequence(&[(1_000_000, 0, None); 32], Tie::First);
        assert_eq!(bases.group(0), Some(0));
        assert_eq!(bases.slots.len(), 1, "nothing is found before it is asked for");
    }

    fn groups() -> impl Strategy<Value = Vec<Numbers>> {
        let weight = prop_oneof![Just(0), 1..5u32, 1..=1_000_000u32, Just(1_000_000)];
        let group =
            (prop_oneof![3 => Just(0), 1 => 0..5u32], weight, proptest::option::weighted(0.3, 0..60u32));
        let group = group.prop_map(|(base, weight, room)| (base, weight, room.map(|room| base + room)));
        prop::collection::vec(group, 1..=20)
            .prop_filter("a share", |groups| groups.iter().any(|(base, weight, _)| base + weight > 0))
    }

    proptest! {
        #[test]
        fn no_prefix_is_off_by_a_pod(groups in groups(), tie in prop_oneof![Just(Tie::First), Just(Tie::Last)]) {
            let mut sequence = sequence(&groups, tie);
            let based: u32 = groups.iter().map(|(base, ..)| *base).sum();
            let m = groups.iter().map(|(base, weight, max)| f64::from(u8::from(*weight > 0 && *max != Some(*base)))).sum::<f64>();
            let most = if m > 1.0 { 1.0 - 1.0 / (2.0 * m - 2.0) } else { 0.0 };
            let room: Option<u32> =
                groups.iter().map(|(base, weight, max)| if *weight == 0 { Some(*base) } else { *max }).sum();
            let mut counts = vec![0u32; groups.len()];
            for pods in 1..=400 {
                let next = sequence.next(&counts);
                let group = sequence.group(pods - 1);
                prop_assert_eq!(next, group, "the next of a prefix is the next slot");
                prop_assert_eq!(group.is_none(), room.is_some_and(|room| pods > room), "placed while there is room");
                let Some(group) = group else { break };
                counts[group] += 1;
                for ((count, (base, _, max)), share) in counts.iter().zip(&groups).zip(exact_shares(&policy(&groups, tie), pods)) {
                    prop_assert!(max.is_none_or(|max| *count <= max));
                    prop_assert!(pods > based || count <= base, "the base comes first");
                    prop_assert!(pods < based || (f64::from(*count) - share).abs() <= most + 1e-6, "{count} for {share} at {pods}");
                }
            }
        }

        #[test]
        fn deviations_heal(groups in groups(), start in prop::collection::vec(0..30u32, 20)) {
            let mut sequence = sequence(&groups, Tie::First);
            let start = &start[..groups.len()];
            let mut counts = start.to_vec();
            let mut placed = counts.iter().sum::<u32>();
            for _ in 0..500 {
                let Some(next) = sequence.next(&counts) else { break };
                counts[next] += 1;
                placed += 1;
                prop_assert!(groups[next].2.is_none_or(|max| counts[next] <= max));
            }
            let due = sequence.counts(placed);
            let ahead = (0..groups.len()).filter(|group| counts[*group] > due[*group]).collect::<Vec<_>>();
            if ahead.is_empty() {
                prop_assert_eq!(&counts, &due);
            }
            for group in ahead {
                prop_assert_eq!(counts[group], start[group], "who has more than is due was given nothing");
            }
        }

        #[test]
        fn groups_left_out_get_nothing(groups in groups(), mask in any::<u32>()) {
            let policy = policy(&groups, Tie::First);
            let set: GroupSet = (0..groups.len()).filter(|i| mask >> i & 1 == 1).collect();
            let mut sequence = Sequence::new(&policy, set);
            for slot in 0..50 {
                prop_assert!(sequence.group(slot).is_none_or(|group| set.contains(group)));
            }
        }
    }
}
