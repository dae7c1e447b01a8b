//! What a replica does next, whenever no call is under way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::machine::{Call, Ledger, Moved, Stored, Tending, Waiting};
use super::stored::{Assignment, LedgerContent, PodName, Reservation, ResourceVersion, Token};
use super::view::{PodRecord, PodState};
use super::{Effect, Now, SlotReply, SlotRequest};
use crate::allocator::{Occupancy, SlotAllocator};

impl Ledger {
    /// Answers who can be answered, and begins the call that the others need.
    pub(super) fn advance(&mut self, allocator: &SlotAllocator, now: &Now, effects: &mut Vec<Effect>) {
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
        if self.view.reaches(now.watched) < fence {
            return self.list_since(fence, effects);
        }
        // Perhaps another replica has only just given it the assignment that it has.
        if self.waiting.iter().any(|waiting| waiting.request.existing.is_some() && waiting.read != Call::Done)
        {
            return self.read(effects);
        }
        if self.too_many() {
            return self.list_now(now, effects);
        }
        if self.tending == Tending::Begun {
            if self.overdue(now.clock).next().is_some() {
                return self.list_now(now, effects);
            }
            self.find_misplaced(allocator);
            self.answer_known(effects);
        }
        self.place(allocator, now, effects);
        self.tending = Tending::No;
    }

    /// Answers those whose place is in the ledger already: it was written for them, or an earlier call of theirs was answered.
    pub(super) fn answer_known(&mut self, effects: &mut Vec<Effect>) {
        let Stored::At(_, content) = &self.stored else { return };
        let (lost, confirmed) = (&self.lost, &self.confirmed);
        let stands = |token: Token| content.reservation(token).filter(|_| !lost.contains(&token));
        self.waiting.retain_mut(|waiting| {
            let token = waiting.request.token;
            if let Some(existing) = &waiting.request.existing {
                // One whose pod was seen is a copy.
                if stands(existing.token).is_some_and(|known| {
                    known.assignment == *existing && !confirmed.contains_key(&existing.token)
                }) {
                    effects.push(Effect::Reply(token, SlotReply::Kept));
                    return false;
                }
                if waiting.read == Call::Done {
                    waiting.request.existing = None;
                }
            }
            let Some(known) = stands(token) else { return true };
            if waiting.request.dry_run {
                return true;
            }
            effects.push(match &waiting.moved {
                Some(moved) => Effect::Reassign(moved.name.clone(), moved.version, known.assignment.clone()),
                None => Effect::Reply(token, SlotReply::Placed(known.assignment.clone())),
            });
            false
        });
    }

    /// Reservations that count: their pods weren't seen yet and may come.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Reservation> {
        let stored = self.content().map_or(&[][..], |content| &content.reservations);
        let pending = stored.iter().filter(|reservation| {
            let token = &reservation.assignment.token;
            !self.confirmed.contains_key(token) && !self.lost.contains(token)
        });
        // Looked up by each estimate: of many there may be as many.
        let tokens: BTreeSet<Token> = match self.estimates[..] {
            [] => BTreeSet::new(),
            _ => stored.iter().map(|reservation| reservation.assignment.token).collect(),
        };
        let estimates = self.estimates.iter().map(|(estimate, _)| estimate);
        pending.chain(estimates.filter(move |estimate| !tokens.contains(&estimate.assignment.token)))
    }

    /// Slots that are taken, and pods by group.
    pub(super) fn occupied(&self, allocator: &SlotAllocator) -> Occupancy {
        let mut occupied = Occupancy::default();
        let count_in = |occupied: &mut Occupancy, group: &str| {
            if let Some(group) = allocator.policy().index(group) {
                occupied.add_pod(group);
            }
        };
        let mut reserved = BTreeSet::new();
        for Reservation { assignment, pod, .. } in self.pending() {
            occupied.take_slot(assignment.slot);
            if pod.is_none() {
                reserved.insert(assignment.slot);
                count_in(&mut occupied, &assignment.group);
            }
        }
        for pod in self.view.pods().values() {
            // Whoever reserved its slot for another saw it go.
            if pod.assignment().is_some_and(|assignment| reserved.contains(&assignment.slot)) {
                continue;
            }
            if let Some(assignment) = pod.assignment() {
                occupied.take_slot(assignment.slot);
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
        let live = self.view.pods().values().filter(|pod| pod.state == PodState::Active).count();
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
    fn overdue(&self, clock: Duration) -> impl Iterator<Item = Token> {
        let expiry = self.config.expiry;
        let old =
            move |token: &Token| self.first_read.get(token).is_some_and(|since| *since + expiry <= clock);
        self.pending().map(|reservation| reservation.assignment.token).filter(old)
    }

    /// After a list that began at `since`: reservations whose pods it should show and doesn't.
    ///
    /// None was read while it was under way, so that each is older than the list. Requests that came since don't count: what
    /// makes room for them may have happened after it.
    pub(super) fn find_lost(&mut self, since: Duration) {
        let overdue: Vec<_> = self.overdue(since).collect();
        self.lost.extend(overdue);
        let surplus = self.surplus(|waiting| waiting.listed == Call::Done);
        let pending = self.pending().filter(|reservation| reservation.pod.is_none());
        let oldest: Vec<_> = pending.take(surplus).map(|reservation| reservation.assignment.token).collect();
        self.estimates.retain(|(estimate, _)| !oldest.contains(&estimate.assignment.token));
        self.lost.extend(oldest);
    }

    /// Pods that aren't where they should be wait to be moved from now on.
    fn find_misplaced(&mut self, allocator: &SlotAllocator) {
        let mut holders = BTreeSet::new();
        let mut misplaced = Vec::new();
        let mut settled: BTreeMap<usize, Vec<(u32, &PodName, &PodRecord)>> = BTreeMap::new();
        for (name, pod) in self.view.pods() {
            let Some(group) = pod.group().and_then(|group| allocator.policy().index(group)) else { continue };
            match pod.assignment() {
                Some(assignment) if holders.insert(assignment.slot) => {
                    settled.entry(group).or_default().push((assignment.slot, name, pod));
                }
                // Another has its slot, or it has none.
                assignment => misplaced.extend(Waiting::to_move(
                    name,
                    pod,
                    assignment.map(|assignment| assignment.slot),
                    None,
                )),
            }
        }
        if self.complete() {
            let occupied = self.occupied(allocator);
            for (group, mut pods) in settled {
                // Those that stand in for others, then the highest.
                let foreign = |slot| allocator.group_of(slot) != Some(group);
                pods.sort_by_key(|(slot, ..)| Reverse((foreign(*slot), *slot)));
                let free = allocator.free_slots(&occupied, group);
                let down =
                    free.into_iter().zip(pods).take_while(|(to, (slot, ..))| foreign(*slot) || to < slot);
                let moves: Vec<_> = down
                    .filter_map(|(to, (slot, name, pod))| Waiting::to_move(name, pod, Some(slot), Some(to)))
                    .collect();
                misplaced.extend(moves);
            }
        }
        misplaced.truncate(self.config.max_moves);
        misplaced
            .retain(|moved| self.waiting.iter().all(|waiting| waiting.request.token != moved.request.token));
        self.waiting.extend(misplaced);
    }

    /// Whether all pods are there that the owner wants, and no more are on their way.
    fn complete(&self) -> bool {
        let live = self.view.pods().values().filter(|pod| pod.state == PodState::Active).count();
        self.pending().next().is_none()
            && self.waiting.is_empty()
            && self.owner.is_none_or(|owner| owner as usize == live)
    }

    /// Gives everyone who waits a place, and writes it down; drops what needn't be reserved any more.
    fn place(&mut self, allocator: &SlotAllocator, now: &Now, effects: &mut Vec<Effect>) {
        let mut content = self.kept(now);
        let mut occupied = self.occupied(allocator);
        let before = occupied.clone();
        let mut stay = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let SlotRequest { token, fitting, dry_run, .. } = waiting.request;
            let place = match &waiting.moved {
                _ if dry_run => allocator.allocate(&before, fitting),
                None => allocator.allocate(&occupied, fitting),
                Some(moved) => moved.place(&occupied, allocator),
            };
            let place = place.and_then(|(slot, group)| {
                Some((slot, group, allocator.policy().groups().get(group)?.name.clone()))
            });
            let Some((slot, index, group)) = place else {
                if waiting.moved.is_none() {
                    effects.push(Effect::Reply(token, SlotReply::Unplaced));
                }
                continue;
            };
            let assignment = Assignment { token, slot, group };
            if dry_run {
                effects.push(Effect::Reply(token, SlotReply::Placed(assignment)));
                continue;
            }
            let pod = waiting.moved.as_ref().map(|moved| moved.name.clone());
            let fits = content.reservations.len() < self.config.max_reservations;
            if !fits && pod.is_some() {
                continue;
            }
            occupied.take_slot(slot);
            if pod.is_none() {
                occupied.add_pod(index);
            }
            let reservation = Reservation { assignment, pod, at: now.wall };
            if fits {
                content.reservations.push(reservation);
                stay.push(waiting);
            } else {
                effects.push(self.estimated(reservation, now));
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
            _ => content == LedgerContent::default(),
        };
        let due = !self.waiting.is_empty() || self.tending == Tending::Begun;
        if due && !unchanged {
            self.write(content, now, effects);
        }
    }

    /// The object without the reservations that are settled.
    fn kept(&self, now: &Now) -> LedgerContent {
        let mut content = self.content().cloned().unwrap_or_default();
        let full = content.reservations.len() * 2 >= self.config.max_reservations;
        let settled = |since: Duration| full || since + self.config.settle <= now.clock;
        let mut fence: ResourceVersion = content.fence;
        content.reservations.retain(|reservation| match self.confirmed.get(&reservation.assignment.token) {
            Some((version, since)) if settled(*since) => {
                fence = fence.max(*version);
                false
            }
            Some(_) => true,
            None => !self.lost.contains(&reservation.assignment.token),
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
    fn to_move(name: &PodName, pod: &PodRecord, slot: Option<u32>, to: Option<u32>) -> Option<Self> {
        // The same for every replica that finds it there.
        let token = Token::of(&format!("{name}/{slot:?}"));
        let fitting = std::iter::empty().collect();
        let request = SlotRequest { token, fitting, existing: None, dry_run: false };
        let moved = Moved { name: name.clone(), version: pod.version, group: pod.group()?.clone(), to };
        Some(Self {
            request,
            deadline: Duration::MAX,
            moved: Some(moved),
            read: Call::Done,
            listed: Call::Done,
        })
    }
}

impl Moved {
    fn place(&self, occupied: &Occupancy, allocator: &SlotAllocator) -> Option<(u32, usize)> {
        let group = allocator.policy().index(&self.group)?;
        let slot = match self.to {
            Some(to) => Some(to).filter(|to| occupied.is_free(*to))?,
            None => allocator.slot_in(occupied, group),
        };
        Some((slot, group))
    }
}
