//! The order in which the groups of a policy get slots.
//!
//! First the base slots, group by group; then Tijdeman's chairman assignment (R. Tijdeman, *The chairman assignment problem*,
//! Discrete Mathematics 32, 1980): of m groups with positive weight, the k-th slot goes, among the groups that are behind
//! their share by at least c = 1/(2m − 2), to the one that will first be behind it by 1 − c. No prefix is then off by more
//! than 1 − c of a pod from any group's exact share. Nothing here depends on how many pods a workload has.
//!
//! Exact shares are those of water poured into vessels as wide as the groups' weights: at the level θ a group holds
//! min(weight · θ, max − base). Tijdeman's theorem holds for shares that change on the way, so a group that is full keeps the
//! others exact as well. In terms of levels "will first be behind by 1 − c" is the least (placed + 1 − c) / weight,
//! and everything can be counted in integers.

use super::policy::{GroupSet, Policy, Tie};

/// Yields the group of slot 0, of slot 1, and so on; ends where every group is full.
#[derive(Clone, Debug)]
pub(super) struct SlotOrder {
    /// The slot of the next item.
    next: u64,
    /// Groups with a base, and the slot at which it ends.
    bases: Vec<(u8, u64)>,
    shares: Vec<WeightedShare>,
    /// Indexes into `shares` in the order in which groups become full.
    filling: Vec<usize>,
    /// How many of `filling` are full at the last slot.
    full: usize,
    tie: Tie,
    /// 2m − 2, which is 1/c.
    spread: u64,
}

/// One group's part of the slots after the bases.
#[derive(Clone, Debug)]
struct WeightedShare {
    group: u8,
    weight: u64,
    /// The most slots after the base.
    room: Option<u64>,
    placed: u64,
}

impl SlotOrder {
    /// The order of those groups of `policy` that are in `groups`.
    pub(super) fn new(policy: &Policy, groups: GroupSet) -> Self {
        let members = || (0u8..).zip(policy.groups()).filter(|(index, _)| groups.contains((*index).into()));
        let mut end = 0;
        let bases = members().filter(|(_, group)| group.base > 0).map(|(index, group)| {
            end += u64::from(group.base);
            (index, end)
        });
        let bases = bases.collect();
        // Stand-ins have no weight. Among themselves they share equally.
        let among_stand_ins = members().all(|(_, group)| group.stand_in);
        let shares: Vec<WeightedShare> = members()
            .map(|(index, group)| {
                let weight = if among_stand_ins { 1 } else { group.weight.into() };
                let room = group.max.map(|max| u64::from(max.saturating_sub(group.base)));
                WeightedShare { group: index, weight, room, placed: 0 }
            })
            .filter(|share| share.weight > 0 && share.room != Some(0))
            .collect();
        let mut filling: Vec<_> =
            (0..).zip(&shares).filter_map(|(i, share)| Some((share.room?, share.weight, i))).collect();
        // By room / weight.
        filling.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
        Self {
            next: 0,
            bases,
            filling: filling.into_iter().map(|(_, _, index)| index).collect(),
            full: 0,
            tie: policy.tie(),
            spread: (shares.len() as u64 * 2).saturating_sub(2),
            shares,
        }
    }

    /// Gives the slot at this distance from the end of the bases to a group.
    fn assign(&mut self, distance: u64) -> Option<u8> {
        let level = self.pour(distance + 1)?;
        let spread = self.spread;
        let claims = self.shares.iter_mut().enumerate().filter(|(_, share)| share.is_behind(&level, spread));
        // (placed + 1 − c) / weight, compared crosswise.
        let deadline = |share: &WeightedShare| ((share.placed + 1) * spread).saturating_sub(1);
        let (_, share) = claims.min_by(|(i, a), (j, b)| {
            let tie = if self.tie == Tie::First { i.cmp(j) } else { j.cmp(i) };
            (deadline(a) * b.weight).cmp(&(deadline(b) * a.weight)).then(tie)
        })?;
        share.placed += 1;
        Some(share.group)
    }

    /// Pours `total` slots, no fewer than the last time; `None` where that is more than there is room for.
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

impl Iterator for SlotOrder {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let slot = self.next;
        let group = match self.bases.iter().find(|(_, end)| slot < *end) {
            Some((group, _)) => *group,
            None => self.assign(slot - self.bases.last().map_or(0, |(_, end)| *end))?,
        };
        self.next += 1;
        Some(group)
    }
}

/// The level of the groups that aren't full: poured / width.
struct Level {
    /// How many slots they share.
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

impl WeightedShare {
    /// Whether the group is behind its share by at least c.
    fn is_behind(&self, level: &Level, spread: u64) -> bool {
        match self.room {
            Some(room) if level.fills(self.weight, room) => self.placed < room,
            // A group alone gets every slot.
            _ if spread == 0 => true,
            // weight · poured / width − placed ≥ 1 / spread
            _ => self.weight * level.poured * spread >= level.width * (self.placed * spread + 1),
        }
    }
}
