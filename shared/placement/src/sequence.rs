//! Which group each slot belongs to: `SlotOrder`, kept as far as it was asked for.

use std::ops::Range;
use std::sync::OnceLock;

use super::policy::{GroupSet, Policy};
use super::slot_order::SlotOrder;

/// The number of slots: more than any cluster has pods. Each takes a byte, up to the highest that a pod's annotation claims.
pub const MAX_SLOTS: u32 = FIRST_CHUNK << (CHUNKS - 1);
/// Slots of the first chunk. Each further chunk has as many as all before it together.
const FIRST_CHUNK: u32 = 64;
/// Chunks of a sequence.
const CHUNKS: usize = 13;
/// Slots that are counted together: few enough for a count in one byte, which the compiler turns into SIMD.
const BLOCK: usize = u8::MAX as usize;

/// The slots of some groups of a policy.
///
/// Slots are only ever appended, a chunk at a time, so that readers share the sequence without a lock.
#[derive(Debug)]
pub struct Sequence {
    order: SlotOrder,
    /// How many groups the policy has.
    group_count: usize,
    chunks: [OnceLock<Chunk>; CHUNKS],
}

/// Consecutive slots.
#[derive(Debug)]
struct Chunk {
    /// The group of each slot; fewer than the chunk's length where the sequence ends in it.
    groups: Vec<u8>,
    /// How many slots each group of the policy has in earlier chunks.
    earlier: Vec<u32>,
    /// The order of the slots after this chunk.
    rest: SlotOrder,
}

impl Sequence {
    /// The sequence of those groups of `policy` that are in `groups`.
    pub fn new(policy: &Policy, groups: GroupSet) -> Self {
        let order = SlotOrder::new(policy, groups);
        Self { order, group_count: policy.groups().len(), chunks: Default::default() }
    }

    /// The group of `slot`; `None` where every group is full before it, or from [`MAX_SLOTS`] on.
    pub fn group(&self, slot: u32) -> Option<usize> {
        let number = (slot / FIRST_CHUNK).checked_ilog2().map_or(0, |log| log as usize + 1);
        let offset = slot - first_slot(number);
        self.chunk(number)?.groups.get(offset as usize).map(|group| usize::from(*group))
    }

    /// How many of the first `slots` slots belong to each group of the policy.
    pub fn counts(&self, slots: u32) -> Vec<u32> {
        let last = self.chunks(slots).last();
        last.map_or_else(
            || vec![0; self.group_count],
            |(first, chunk)| chunk.counts((slots - first) as usize),
        )
    }

    /// The group that is to get the next pod when each has as many as `counts` says: the one with the earliest next slot.
    ///
    /// From any prefix of the sequence this is the next slot's group. From anything else it is the group that is furthest
    /// behind, so that shares come right with every pod that is added. Reads no slot beyond the sum of `counts`.
    pub fn next(&self, counts: &[u32]) -> Option<usize> {
        let pods = counts.iter().fold(0u32, |sum, count| sum.saturating_add(*count));
        // The slot is in the last chunk before which no group has more slots than pods.
        let chunks = self.chunks(pods.saturating_add(1));
        let (_, chunk) = chunks
            .take_while(|(_, chunk)| chunk.earlier.iter().zip(counts).all(|(slots, pods)| slots <= pods))
            .last()?;
        let left = counts.iter().zip(&chunk.earlier).map(|(pods, slots)| pods - slots);
        let next = (0..).zip(left).filter_map(|(group, left)| Some((chunk.nth_slot_of(group, left)?, group)));
        next.min().map(|(_, group)| usize::from(group))
    }

    /// The slots of a group in this range, in ascending order.
    pub fn slots_of(&self, group: usize, slots: Range<u32>) -> impl Iterator<Item = u32> {
        let Range { start, end } = slots;
        self.chunks(end).flat_map(move |(first, chunk)| {
            let skipped = start.saturating_sub(first);
            let groups = chunk.groups.get(skipped as usize..).unwrap_or_default();
            let slots = (first.saturating_add(skipped)..end).zip(groups);
            slots.filter(move |(_, own)| usize::from(**own) == group).map(|(slot, _)| slot)
        })
    }

    /// The chunks that begin below `end`, each with its first slot.
    fn chunks(&self, end: u32) -> impl Iterator<Item = (u32, &Chunk)> {
        let numbers = (0..CHUNKS).take_while(move |number| first_slot(*number) < end);
        numbers.map_while(|number| Some((first_slot(number), self.chunk(number)?)))
    }

    /// The chunk with this number, computed on its first use.
    fn chunk(&self, number: usize) -> Option<&Chunk> {
        let chunk = self.chunks.get(number)?;
        if let Some(known) = chunk.get() {
            return Some(known);
        }
        let before = number.checked_sub(1).and_then(|before| self.chunk(before));
        Some(chunk.get_or_init(|| {
            let (mut rest, earlier) = match before {
                Some(before) => (before.rest.clone(), before.counts(before.groups.len())),
                None => (self.order.clone(), vec![0; self.group_count]),
            };
            let length = first_slot(number + 1) - first_slot(number);
            Chunk { earlier, groups: rest.by_ref().take(length as usize).collect(), rest }
        }))
    }

    #[cfg(test)]
    pub(super) fn kept_slots(&self) -> usize {
        self.chunks.iter().filter_map(OnceLock::get).map(|chunk| chunk.groups.len()).sum()
    }
}

impl Chunk {
    /// How many slots each group of the policy has in earlier chunks and among the first `slots` of this one.
    fn counts(&self, slots: usize) -> Vec<u32> {
        let mut counts = self.earlier.clone();
        for group in self.groups.iter().take(slots) {
            if let Some(count) = counts.get_mut(usize::from(*group)) {
                *count += 1;
            }
        }
        counts
    }

    /// The position of the slot of a group that comes after `n` others of it.
    fn nth_slot_of(&self, group: u8, n: u32) -> Option<usize> {
        let mut left = n as usize;
        self.groups.chunks(BLOCK).enumerate().find_map(|(number, block)| {
            let own = usize::from(block.iter().map(|own| u8::from(*own == group)).sum::<u8>());
            if own <= left {
                left -= own;
                return None;
            }
            let mut positions = block.iter().enumerate().filter(|(_, own)| **own == group);
            positions.nth(left).map(|(position, _)| number * BLOCK + position)
        })
    }
}

/// The first slot of a chunk.
fn first_slot(chunk: usize) -> u32 {
    if chunk == 0 { 0 } else { FIRST_CHUNK << (chunk - 1) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::shares::exact_shares;
    use crate::policy::{Group, Tie};

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
            let sequence = sequence(&[(0, 80, None), (0, 20, None)], tie);
            let prefixes = [[1, 0], [2, 0], [2, 1], [3, 1], [4, 1], [5, 1], [6, 1], [6, 2], [7, 2], [8, 2]];
            for (slots, counts) in (1..).zip(prefixes) {
                assert_eq!(sequence.counts(slots), counts);
            }
            assert_eq!(sequence.counts(100), [80, 20]);
            assert_eq!(sequence.counts(500), [400, 100]);
        }
    }

    #[test]
    fn pods_beyond_the_base_follow_the_weights() {
        let last = sequence(&OD_AND_TWO_SPOT, Tie::Last);
        for (pods, counts) in [(1, [1, 0, 0]), (5, [1, 2, 2]), (10, [1, 4, 5]), (30, [1, 14, 15])] {
            assert_eq!(last.counts(pods), counts);
        }
        assert_eq!(sequence(&OD_AND_TWO_SPOT, Tie::First).counts(10), [1, 5, 4]);
        assert_eq!(sequence(&[(2, 1, None), (0, 3, None)], Tie::Last).counts(10), [4, 6]);
    }

    #[test]
    fn pod_without_room_stays_unchanged() {
        let bases = sequence(&[(2, 0, None), (1, 0, None)], Tie::First);
        assert_eq!(
            (0..5).map(|slot| bases.group(slot)).collect::<Vec<_>>(),
            [Some(0), Some(0), Some(1), None, None]
        );
        assert_eq!(bases.next(&[2, 1]), None);
        assert_eq!(bases.next(&[1, 5]), Some(0));
        let full = sequence(&[(0, 3, Some(2)), (0, 1, Some(1))], Tie::First);
        assert_eq!(full.counts(10), [2, 1]);
    }

    #[test]
    fn full_group_leaves_its_share() {
        let sequence = sequence(&[(0, 50, Some(2)), (0, 30, None), (0, 20, None)], Tie::First);
        assert_eq!(sequence.counts(12), [2, 6, 4]);
        assert_eq!(sequence.counts(1002), [2, 600, 400]);
    }

    #[test]
    fn group_furthest_behind_is_next() {
        let sequence = sequence(&[(0, 80, None), (0, 20, None)], Tie::First);
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
        let one = sequence(&[(0, 1, None)], Tie::First);
        assert_eq!(one.group(MAX_SLOTS - 1), Some(0));
        assert_eq!(one.group(MAX_SLOTS), None);
        let bases = sequence(&[(1_000_000, 0, None); 32], Tie::First);
        assert_eq!(bases.group(0), Some(0));
        assert_eq!(bases.kept_slots(), FIRST_CHUNK as usize);
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
            let sequence = sequence(&groups, tie);
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
            let sequence = sequence(&groups, Tie::First);
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
            let sequence = Sequence::new(&policy, set);
            for slot in 0..50 {
                prop_assert!(sequence.group(slot).is_none_or(|group| set.contains(group)));
            }
        }
    }
}
