//! What a replica does next, whenever no call is under way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::machine::{Call, Ledger, Moved, Stored, Tending, Waiting};
use super::stored::{Content, PodName, Reservation, Stamp, Token, Version};
use super::view::{Phase, Pod};
use super::{Answer, Effect, Now, Request};
use crate::rules::{Mechanism, Occupied, Rules};

/// The most pods that are moved at a time.
const MAX_MOVES: usize = 64;

impl Ledger {
    /// Answers who can be answered, and begins the call that the others need.
    pub(super) fn advance(&mut self, rules: &mut Rules, now: &Now, effects: &mut Vec<Effect>) {
        if self.busy() {
            return;
        }
        self.notice(now, effects);
        if now.clock < self.paused {
            return;
        }
        self.answer_known(effects);
        if self.tending == Tending::Asked {
            self.tending = Tending::Begun;
            return self.read(effects);
        }
        if self.waiting.is_empty() && self.tending == Tending::No {
            return;
        }
        if self.stored == Stored::Unread {
            return self.read(effects);
        }
        let fence = self.content().map_or(0, |content| content.fence);
        if self.view.reaches(now.watched) < fence && rules.has(Mechanism::Fence) {
            return self.list_since(fence, effects);
        }
        // Perhaps another replica has only just given it what it bears.
        if self.waiting.iter().any(|waiting| waiting.request.bears.is_some() && waiting.read != Call::Done) {
            return self.read(effects);
        }
        if self.too_many() && rules.has(Mechanism::Bound) {
            return self.list_now(now, effects);
        }
        if self.tending == Tending::Begun {
            if self.overdue(now.clock, rules).next().is_some() {
                return self.list_now(now, effects);
            }
            if rules.has(Mechanism::Restamping) {
                self.find_misplaced(rules);
                self.answer_known(effects);
            }
        }
        self.place(rules, now, effects);
        self.tending = Tending::No;
    }

    /// Answers those whose place is in the ledger already: it was written for them, or an earlier call of theirs was answered.
    pub(super) fn answer_known(&mut self, effects: &mut Vec<Effect>) {
        let Stored::At(_, content) = &self.stored else { return };
        let (lost, confirmed) = (&self.lost, &self.confirmed);
        let stands = |token: Token| content.reservation(token).filter(|_| !lost.contains(&token));
        self.waiting.retain_mut(|waiting| {
            let token = waiting.request.token;
            if let Some(bears) = &waiting.request.bears {
                // One whose pod was seen is a copy.
                if stands(bears.token)
                    .is_some_and(|known| known.stamp == *bears && !confirmed.contains_key(&bears.token))
                {
                    effects.push(Effect::Answer(token, Answer::Kept));
                    return false;
                }
                if waiting.read == Call::Done {
                    waiting.request.bears = None;
                }
            }
            let Some(known) = stands(token) else { return true };
            if waiting.request.dry_run {
                return true;
            }
            effects.push(match &waiting.moved {
                Some(moved) => Effect::Stamp(moved.name.clone(), moved.version, known.stamp.clone()),
                None => Effect::Answer(token, Answer::Placed(known.stamp.clone())),
            });
            false
        });
    }

    /// Reservations that count: their pods weren't seen yet and may come.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Reservation> {
        let stored = self.content().map_or(&[][..], |content| &content.reservations);
        let pending = stored.iter().filter(|reservation| {
            let token = &reservation.stamp.token;
            !self.confirmed.contains_key(token) && !self.lost.contains(token)
        });
        // Looked up by each estimate: of many there may be as many.
        let tokens: BTreeSet<Token> = match self.estimates[..] {
            [] => BTreeSet::new(),
            _ => stored.iter().map(|reservation| reservation.stamp.token).collect(),
        };
        let estimates = self.estimates.iter().map(|(estimate, _)| estimate);
        pending.chain(estimates.filter(move |estimate| !tokens.contains(&estimate.stamp.token)))
    }

    /// Slots that are taken, and pods by group.
    pub(super) fn occupied(&self, rules: &Rules) -> Occupied {
        let mut occupied = Occupied::default();
        let count_in = |occupied: &mut Occupied, group: &str| {
            if let Some(group) = rules.policy().index(group) {
                occupied.count_in(group);
            }
        };
        let mut reserved = BTreeSet::new();
        for Reservation { stamp, pod, .. } in self.pending() {
            occupied.take(stamp.slot);
            if pod.is_none() {
                reserved.insert(stamp.slot);
                count_in(&mut occupied, &stamp.group);
            }
        }
        for pod in self.view.pods().values() {
            // Whoever reserved its slot for another saw it go.
            if pod.stamp().is_some_and(|stamp| reserved.contains(&stamp.slot)) {
                continue;
            }
            if let Some(stamp) = pod.stamp() {
                occupied.take(stamp.slot);
            }
            if let Some(group) = pod.group() {
                count_in(&mut occupied, group);
            }
        }
        occupied
    }

    /// How many pods the owner would have beyond its number, if all came that were promised a place or wait for one.
    fn surplus(&self, waiting: impl Fn(&&Waiting) -> bool) -> usize {
        let Some(owner) = self.owner else { return 0 };
        let live = self.view.pods().values().filter(|pod| pod.phase == Phase::Live).count();
        let pending = self.pending().filter(|reservation| reservation.pod.is_none()).count();
        let waiting = self.waiting.iter().filter(|waiting| waiting.counts()).filter(waiting).count();
        (live + pending + waiting).saturating_sub(owner as usize)
    }

    /// Whether there seem to be too many pods, for someone for whom no list was made.
    fn too_many(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.counts() && waiting.listed != Call::Done)
            && self.surplus(|_| true) > 0
    }

    /// Reservations that were first read so long before `clock` that their pods should have come.
    fn overdue(&self, clock: Duration, rules: &Rules) -> impl Iterator<Item = Token> {
        let expiry = rules.settings().expiry;
        let old =
            move |token: &Token| self.first_read.get(token).is_some_and(|since| *since + expiry <= clock);
        self.pending().map(|reservation| reservation.stamp.token).filter(old)
    }

    /// After a list that began at `since`: reservations whose pods it should show and doesn't.
    ///
    /// None was read while it was under way, so that each is older than the list. Requests that came since don't count: what
    /// makes room for them may have happened after it.
    pub(super) fn find_lost(&mut self, since: Duration, rules: &Rules) {
        let overdue: Vec<_> = self.overdue(since, rules).collect();
        self.lost.extend(overdue);
        let surplus = if rules.has(Mechanism::Bound) {
            self.surplus(|waiting| waiting.listed == Call::Done)
        } else {
            0
        };
        let pending = self.pending().filter(|reservation| reservation.pod.is_none());
        let oldest: Vec<_> = pending.take(surplus).map(|reservation| reservation.stamp.token).collect();
        self.estimates.retain(|(estimate, _)| !oldest.contains(&estimate.stamp.token));
        self.lost.extend(oldest);
    }

    /// Pods that aren't where they should be wait to be moved from now on.
    fn find_misplaced(&mut self, rules: &mut Rules) {
        let mut holders = BTreeSet::new();
        let mut misplaced = Vec::new();
        let mut settled: BTreeMap<usize, Vec<(u32, &PodName, &Pod)>> = BTreeMap::new();
        for (name, pod) in self.view.pods() {
            let Some(group) = pod.group().and_then(|group| rules.policy().index(group)) else { continue };
            match pod.stamp() {
                Some(stamp) if holders.insert(stamp.slot) => {
                    settled.entry(group).or_default().push((stamp.slot, name, pod));
                }
                // Another has its slot, or it has none.
                stamp => misplaced.extend(Waiting::to_move(name, pod, stamp.map(|stamp| stamp.slot), None)),
            }
        }
        if self.complete() {
            let occupied = self.occupied(rules);
            for (group, mut pods) in settled {
                // Those that stand in for others, then the highest.
                let foreign = |slot, rules: &mut Rules| rules.group(slot) != Some(group);
                pods.sort_by_key(|(slot, ..)| Reverse((foreign(*slot, rules), *slot)));
                let free = rules.free_slots(&occupied, group);
                let down = free
                    .into_iter()
                    .zip(pods)
                    .take_while(|(to, (slot, ..))| foreign(*slot, rules) || to < slot);
                let moves: Vec<_> = down
                    .filter_map(|(to, (slot, name, pod))| Waiting::to_move(name, pod, Some(slot), Some(to)))
                    .collect();
                misplaced.extend(moves);
            }
        }
        misplaced.truncate(MAX_MOVES);
        misplaced
            .retain(|moved| self.waiting.iter().all(|waiting| waiting.request.token != moved.request.token));
        self.waiting.extend(misplaced);
    }

    /// Whether all pods are there that the owner wants, and no more are on their way.
    fn complete(&self) -> bool {
        let live = self.view.pods().values().filter(|pod| pod.phase == Phase::Live).count();
        self.pending().next().is_none()
            && self.waiting.is_empty()
            && self.owner.is_none_or(|owner| owner as usize == live)
    }

    /// Gives everyone who waits a place, and writes it down; drops what needn't be reserved any more.
    fn place(&mut self, rules: &mut Rules, now: &Now, effects: &mut Vec<Effect>) {
        let mut content = self.kept(rules, now);
        let mut occupied = self.occupied(rules);
        let before = occupied.clone();
        let mut stay = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let Request { token, fitting, dry_run, .. } = waiting.request;
            let place = match &waiting.moved {
                _ if dry_run => rules.next(&before, fitting),
                None => rules.next(&occupied, fitting),
                Some(moved) => moved.place(&occupied, rules),
            };
            let place = place.and_then(|(slot, group)| {
                Some((slot, group, rules.policy().groups().get(group)?.name.clone()))
            });
            let Some((slot, index, group)) = place else {
                if waiting.moved.is_none() {
                    effects.push(Effect::Answer(token, Answer::Unplaced));
                }
                continue;
            };
            let stamp = Stamp { token, slot, group };
            if dry_run {
                effects.push(Effect::Answer(token, Answer::Placed(stamp)));
                continue;
            }
            let pod = waiting.moved.as_ref().map(|moved| moved.name.clone());
            let fits = content.reservations.len() < rules.settings().max_reservations;
            if !fits && pod.is_some() {
                continue;
            }
            occupied.take(slot);
            if pod.is_none() {
                occupied.count_in(index);
            }
            let reservation = Reservation { stamp, pod, at: now.wall };
            if fits {
                content.reservations.push(reservation);
                stay.push(waiting);
            } else {
                effects.push(self.estimated(reservation, rules, now));
            }
        }
        self.waiting = stay;
        let unchanged = match &self.stored {
            Stored::At(version, stored) => {
                let empty =
                    content.reservations.is_empty() && self.view.pods().is_empty() && self.owner == Some(0);
                if empty && self.tending == Tending::Begun {
                    return self.remove(*version, effects);
                }
                *stored == content
            }
            _ => content == Content::default(),
        };
        let due = !self.waiting.is_empty() || self.tending == Tending::Begun;
        if due && !unchanged {
            self.write(content, rules, now, effects);
        }
    }

    /// The object without the reservations that are settled.
    fn kept(&self, rules: &Rules, now: &Now) -> Content {
        let mut content = self.content().cloned().unwrap_or_default();
        let full = content.reservations.len() * 2 >= rules.settings().max_reservations;
        let settled = |since: Duration| full || since + rules.settings().settle <= now.clock;
        let mut fence: Version = content.fence;
        content.reservations.retain(|reservation| match self.confirmed.get(&reservation.stamp.token) {
            Some((version, since)) if settled(*since) => {
                fence = fence.max(*version);
                false
            }
            Some(_) => true,
            None => !self.lost.contains(&reservation.stamp.token),
        });
        content.fence = fence;
        content
    }
}

impl Waiting {
    /// Whether it is a pod more.
    fn counts(&self) -> bool {
        self.moved.is_none() && !self.request.dry_run
    }

    /// A pod that is to be moved away from `slot`.
    fn to_move(name: &PodName, pod: &Pod, slot: Option<u32>, to: Option<u32>) -> Option<Self> {
        // The same for every replica that finds it there.
        let token = Token::of(&format!("{name}/{slot:?}"));
        let fitting = std::iter::empty().collect();
        let request = Request { token, fitting, bears: None, dry_run: false, deadline: Duration::MAX };
        let moved = Moved { name: name.clone(), version: pod.version, group: pod.group()?.clone(), to };
        Some(Self { request, moved: Some(moved), read: Call::Done, listed: Call::Done })
    }
}

impl Moved {
    fn place(&self, occupied: &Occupied, rules: &mut Rules) -> Option<(u32, usize)> {
        let group = rules.policy().index(&self.group)?;
        let slot = match self.to {
            Some(to) => Some(to).filter(|to| occupied.free(*to))?,
            None => rules.slot(occupied, group),
        };
        Some((slot, group))
    }
}
