//! The state of one replica's ledger, and how events change it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::content::{Assignment, LedgerContent, PodName, Reservation, ResourceVersion, Token};
use super::messages::{Call, Effect, Event, LedgerConfig, Now, SlotReply, SlotRequest};
use super::pods::{PodMap, PodRecord, PodView};
use super::reassign::{Move, moves};
use super::reservations::Reservations;
use crate::allocator::{Occupancy, SlotAllocator};
use crate::cycle::Cursor;
use crate::policy::{GroupName, Policy};

/// The longest pause between the beginnings of two writes, however slow the API server is.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// The state of one replica about one owner's pods, and its pending calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    config: LedgerConfig,
    pods: PodView,
    /// How many pods the owner may have at a time; `None`: unknown.
    max_pods: Option<u32>,
    reservations: Reservations,
    /// The last watch event of the object that came while a call was under way.
    noticed: Option<(ResourceVersion, Option<LedgerContent>)>,
    under_way: Option<Call>,
    /// When the list of the pods as they are that is under way began.
    list_began: Duration,
    /// Requests in order of arrival.
    requests: Vec<WaitingRequest>,
    /// Pods that are to get another slot.
    moves: Vec<Move>,
    reconciling: Reconciling,
    /// No call begins before this time, so that requests that arrive meanwhile share the next write.
    paused_until: Duration,
    /// Effects of the event that is being handled.
    effects: Vec<Effect>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Reconciling {
    #[default]
    No,
    /// The object is to be read first.
    Requested,
    Begun,
}

impl Ledger {
    /// A ledger that knows nothing yet.
    pub fn new(config: LedgerConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes in an event, and returns what is to be done.
    pub fn handle(&mut self, event: Event, allocator: &SlotAllocator, now: &Now) -> Vec<Effect> {
        self.reservations.expire_estimates(now.clock, self.config.expiry);
        match event {
            Event::Requested(request, _) if request.dry_run && request.existing.is_some() => {
                self.reply(request.token, SlotReply::Kept);
            }
            Event::Requested(request, deadline) => {
                if !self.awaits(request.token) {
                    self.requests.push(WaitingRequest::new(request, deadline));
                }
            }
            Event::Cancelled(token) => self.requests.retain(|waiting| waiting.request.token != token),
            Event::Tick => self.estimate_late_requests(allocator, now),
            Event::Reconcile => self.reconciling = Reconciling::Requested,
            Event::Read(object) => {
                self.finish(true);
                let (version, content) =
                    object.map_or((0, None), |(version, content)| (version, Some(content)));
                self.take_object(version, content, now);
            }
            Event::Written(version) => self.written(version, now),
            Event::Conflict => {
                self.finish(false);
                self.reservations.invalidate();
                // The watch event of the write that it lost to comes soon, and spares a read.
                self.paused_until = now.clock + self.config.pause;
            }
            Event::Failed => {
                if matches!(self.finish(false), Some(Call::Write(..) | Call::Delete(_))) {
                    self.reservations.invalidate();
                }
            }
            Event::Listed { version, pods, max_pods } => {
                self.observe(Event::PodsListed { version, pods }, now);
                let began = self.list_began;
                if let Some(Call::List(None)) = self.finish(true) {
                    self.max_pods = max_pods;
                    self.find_lost(began);
                }
            }
            Event::ObjectChanged(version, content) => {
                self.observe(Event::ObjectChanged(version, content.clone()), now);
                self.noticed = Some((version, content));
            }
            event => self.observe(event, now),
        }
        self.advance(allocator, now);
        let waits_for_nothing = !self.is_idle() && !self.is_calling() && now.clock >= self.paused_until;
        debug_assert!(!waits_for_nothing, "no call is under way for {:?} {:?}", self.requests, self.moves);
        std::mem::take(&mut self.effects)
    }

    /// Takes in what watches and lists show, also before the first request.
    pub fn observe(&mut self, event: Event, now: &Now) {
        match event {
            Event::PodsListed { version, pods } => {
                self.confirm(pods.values(), now);
                self.pods.apply_list(version, now.watched, pods);
            }
            Event::WatchRestarted { version, pods } => {
                self.confirm(pods.values(), now);
                self.pods.apply_restart(version, now.watched, pods);
            }
            Event::PodChanged(name, pod) => {
                self.confirm([&pod], now);
                self.pods.apply_event(name, pod);
            }
            Event::MaxPods(max_pods) => self.max_pods = max_pods,
            // Most likely the owner was deleted, and its pods with it.
            Event::ObjectChanged(_, None) => self.pods.forget_unmarked(),
            _ => {}
        }
    }

    /// The groups of pods have changed, with the policy or with the nodes: takes those that `group_of` finds.
    pub fn regroup(&mut self, group_of: impl Fn(&PodName) -> Option<GroupName>) {
        self.pods.regroup(group_of);
    }

    /// Whether this replica can forget the ledger: it knows nothing that it wouldn't learn again.
    pub fn can_be_dropped(&self, clock: Duration) -> bool {
        !self.is_calling()
            && self.is_idle()
            && self.pods.pods().is_empty()
            && self.reservations.can_be_dropped(clock)
    }

    /// The owner's pods that are known and not gone.
    pub fn pods(&self) -> &PodMap {
        self.pods.pods()
    }

    /// How many slots are reserved for pods that weren't seen yet.
    pub fn reserved(&self) -> usize {
        self.reservations.pending_new_pods().count()
    }

    /// When the ledger needs an [`Event::Tick`], if no event comes before.
    pub fn next_tick(&self) -> Option<Duration> {
        let has_work = !self.is_idle() || self.reconciling != Reconciling::No;
        let pause = (!self.is_calling() && has_work).then_some(self.paused_until);
        self.requests.iter().map(|waiting| waiting.deadline).chain(pause).min()
    }

    /// Whether no pod waits for a slot.
    fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.moves.is_empty()
    }

    /// Whether the request with this token waits here.
    pub(crate) fn awaits(&self, token: Token) -> bool {
        self.requests.iter().any(|waiting| waiting.request.token == token)
    }

    fn is_calling(&self) -> bool {
        self.under_way.is_some()
    }

    /// Notes which reservations these pods confirm.
    fn confirm<'p>(&mut self, pods: impl IntoIterator<Item = &'p PodRecord>, now: &Now) {
        for (pod, assignment) in pods.into_iter().filter_map(|pod| Some((pod, pod.assignment()?))) {
            self.reservations.confirm(assignment.token, pod.version, now.clock);
            // The API server sent the request twice, and one reply was enough.
            if self.requests.extract_if(.., |waiting| waiting.request.token == assignment.token).count() > 0 {
                self.reply(assignment.token, SlotReply::Placed(assignment.clone()));
            }
        }
    }

    /// Takes in the object as it was read.
    fn take_object(&mut self, version: ResourceVersion, content: Option<LedgerContent>, now: &Now) {
        self.reservations.set(version, content, &self.pods, now.clock);
        // Only a later list shows which of these reservations are lost.
        self.requests.iter_mut().for_each(|waiting| waiting.list = Progress::Due);
        self.reply_to_known();
    }

    /// A write or a deletion has succeeded.
    fn written(&mut self, version: Option<ResourceVersion>, now: &Now) {
        self.extend_pause(now);
        let content = self.finish(true).and_then(|call| match call {
            Call::Write(_, content) => Some(content),
            _ => None,
        });
        self.reservations.clear_lost();
        self.reservations.set(version.unwrap_or(0), content, &self.pods, now.clock);
        self.reply_to_known();
    }

    /// Takes in the last watch event of the object, if it is newer than what is known. The watch may lag: a write that is based on
    /// its event conflicts then, as one does that is based on an old read.
    fn take_noticed(&mut self, now: &Now) {
        let newer = self.noticed.take().filter(|(version, _)| *version > self.reservations.latest());
        let Some((version, content)) = newer else { return };
        if self.reservations.is_unknown() {
            self.paused_until = now.clock;
        }
        self.take_object(version, content, now);
    }

    /// After a list that began at `since`: reservations without a pod that the list should have are lost.
    ///
    /// Requests that came since don't count: what makes room for them may have happened after the list.
    fn find_lost(&mut self, since: Duration) {
        self.reservations.lose_overdue(since, self.config.expiry);
        let surplus = self.surplus(|waiting| waiting.list == Progress::Done);
        self.reservations.lose_oldest(surplus);
    }

    /// By how many pods the owner would exceed its maximum, if all came that have a reservation or are among these requests.
    fn surplus(&self, requests: impl Fn(&WaitingRequest) -> bool) -> usize {
        let Some(max_pods) = self.max_pods else { return 0 };
        let new =
            self.requests.iter().filter(|waiting| !waiting.request.dry_run && requests(waiting)).count();
        let pods = self.pods.active() + self.reservations.pending_new_pods().count() + new;
        pods.saturating_sub(max_pods as usize)
    }

    /// Replies to requests, and begins the call that the others need.
    fn advance(&mut self, allocator: &SlotAllocator, now: &Now) {
        if self.is_calling() {
            return;
        }
        self.take_noticed(now);
        if now.clock < self.paused_until {
            return;
        }
        self.reply_to_known();
        if self.reconciling == Reconciling::Requested {
            self.reconciling = Reconciling::Begun;
            return self.begin(Call::Read, now);
        }
        if self.is_idle() && self.reconciling == Reconciling::No {
            return;
        }
        if self.reservations.is_unknown() {
            return self.begin(Call::Read, now);
        }
        let fence = self.reservations.content().map_or(0, |content| content.fence);
        if self.pods.complete_up_to(now.watched) < fence {
            return self.begin(Call::List(Some(fence)), now);
        }
        if self.requests.iter().any(WaitingRequest::needs_read) {
            return self.begin(Call::Read, now);
        }
        if self.requests.iter().any(WaitingRequest::needs_list) && self.surplus(|_| true) > 0 {
            return self.begin(Call::List(None), now);
        }
        if self.reconciling == Reconciling::Begun {
            if self.reservations.overdue(now.clock, self.config.expiry).next().is_some() {
                return self.begin(Call::List(None), now);
            }
            self.queue_moves(allocator);
            self.reply_to_known();
        }
        self.assign(allocator, now);
        self.reconciling = Reconciling::No;
    }

    /// Replies to requests with slots in the object: it was written for them, or they were sent before.
    fn reply_to_known(&mut self) {
        let Self { reservations, effects, .. } = self;
        if reservations.version().is_none() {
            return;
        }
        self.moves.retain(|to_move| {
            let known = reservations.assignment(to_move.token).cloned();
            let reassign = |known| Effect::Reassign(to_move.pod.clone(), to_move.version, known);
            effects.extend(known.clone().map(reassign));
            known.is_none()
        });
        self.requests.retain_mut(|waiting| {
            let SlotRequest { token, existing, dry_run, .. } = &waiting.request;
            let is_ours = |existing: &Assignment| {
                // If a pod was seen with it, this one is a copy.
                reservations.assignment(existing.token) == Some(existing)
                    && !reservations.is_confirmed(existing.token)
            };
            let known = reservations.assignment(*token).filter(|_| !dry_run);
            let reply = match existing {
                Some(existing) if is_ours(existing) => Some(SlotReply::Kept),
                _ => known.cloned().map(SlotReply::Placed),
            };
            let is_waiting = reply.is_none();
            effects.extend(reply.map(|reply| Effect::Reply(*token, reply)));
            if waiting.read == Progress::Done {
                // The object was read since, and no other replica has given the assignment to this pod.
                waiting.request.existing = None;
            }
            is_waiting
        });
    }

    /// Queues the pods that should have another slot.
    fn queue_moves(&mut self, allocator: &SlotAllocator) {
        // Over time, several live pods have one slot, and none moves down.
        if self.reservations.content().is_some_and(|content| content.cursor != Cursor::default()) {
            return;
        }
        let occupancy =
            self.is_complete().then(|| self.occupancy(self.reservations.content(), allocator.policy()));
        for to_move in
            moves(self.pods.pods(), occupancy.as_ref(), allocator).into_iter().take(self.config.max_moves)
        {
            if self.moves.iter().all(|waiting| waiting.token != to_move.token) {
                self.moves.push(to_move);
            }
        }
    }

    /// Whether all pods exist that the owner wants, and no more are on their way.
    fn is_complete(&self) -> bool {
        self.reservations.pending().next().is_none()
            && self.is_idle()
            && self.max_pods.is_none_or(|max_pods| max_pods as usize == self.pods.active())
    }

    /// Gives a slot to all that wait, and writes the object if it has changed.
    fn assign(&mut self, allocator: &SlotAllocator, now: &Now) {
        let mut content = self.reservations.unsettled(now.clock, &self.config);
        let mut occupancy = self.occupancy(self.reservations.content(), allocator.policy());
        let before = occupancy.clone();
        let first = allocator.cycle().resume(content.cursor, occupancy.last_slot());
        let mut next = first;
        let at = now.wall;
        let mut requests = std::mem::take(&mut self.requests);
        requests.retain(|WaitingRequest { request, .. }| {
            let occupancy_for = if request.dry_run { &before } else { &occupancy };
            let slot_over_time = if request.dry_run { first } else { next };
            let Some(assignment) = assignment(request, occupancy_for, slot_over_time, allocator) else {
                self.reply(request.token, SlotReply::Unplaced);
                return false;
            };
            if request.dry_run {
                self.reply(request.token, SlotReply::Placed(assignment));
                return false;
            }
            debug_assert!(request.over_time || occupancy.is_free(assignment.slot), "two pods get one slot");
            assignment.occupy(&mut occupancy, allocator.policy());
            if request.over_time {
                next = allocator.cycle().after(next);
                content.cursor = allocator.cycle().cursor(next);
            }
            if content.reservations.len() >= self.config.max_reservations {
                self.estimate(assignment, now);
                return false;
            }
            content.reservations.push(Reservation { assignment, pod: None, at });
            true
        });
        self.requests = requests;
        self.moves.retain(|to_move| {
            let is_full = content.reservations.len() >= self.config.max_reservations;
            let assignment = to_move.assignment(&occupancy, allocator).filter(|_| !is_full);
            let Some(assignment) = assignment else { return false };
            occupancy.take_slot(assignment.slot);
            content.reservations.push(Reservation { assignment, pod: Some(to_move.pod.clone()), at });
            true
        });
        self.write_if_changed(content, now);
    }

    /// Writes the object, if it has changed; deletes it when the owner has no pods any more.
    fn write_if_changed(&mut self, content: LedgerContent, now: &Now) {
        let is_reconciling = self.reconciling == Reconciling::Begun;
        let version = self.reservations.version();
        let is_over =
            content.reservations.is_empty() && self.pods.pods().is_empty() && self.max_pods == Some(0);
        // A cursor is kept as long as the owner exists: with the owner, the garbage collector deletes the object.
        let is_over = is_over && content.cursor == Cursor::default();
        if let Some(version) = version.filter(|_| is_over && is_reconciling) {
            return self.begin(Call::Delete(version), now);
        }
        let is_changed = content != self.reservations.content().cloned().unwrap_or_default();
        if !is_changed || self.is_idle() && !is_reconciling {
            return;
        }
        debug_assert_eq!(content.tokens().collect::<BTreeSet<_>>().len(), content.reservations.len());
        if self.config.pause > Duration::ZERO {
            self.paused_until = now.clock + self.config.pause;
        }
        self.begin(Call::Write(version, content), now);
    }

    /// Gives requests at their deadline a slot by the state of this replica.
    fn estimate_late_requests(&mut self, allocator: &SlotAllocator, now: &Now) {
        let late = self.requests.extract_if(.., |waiting| waiting.deadline <= now.clock);
        let late: Vec<SlotRequest> = late.map(|waiting| waiting.request).collect();
        if late.is_empty() {
            return;
        }
        let newer = self.noticed.as_ref().filter(|(version, _)| *version > self.reservations.latest());
        let (content, reserved) = match (newer, &self.under_way) {
            // The watch has shown what the write that is under way conflicts with.
            (Some((_, content)), _) => (content.as_ref(), content.as_ref()),
            // The write that is under way may well succeed.
            (None, Some(Call::Write(_, content))) => (self.reservations.content(), Some(content)),
            (None, _) => (self.reservations.content(), self.reservations.content()),
        };
        let mut occupancy = self.occupancy(content, allocator.policy());
        let cursor = content.map(|content| content.cursor).unwrap_or_default();
        let mut next = allocator.cycle().resume(cursor, occupancy.last_slot());
        // Pods that stood in for others are not made up for: the object's cursor does not move.
        for _ in 0..self.reservations.estimates() {
            next = allocator.cycle().after(next);
        }
        let mut replies = Vec::new();
        for request in late {
            let of_request =
                |content: &LedgerContent| Some(content.reservation(request.token)?.assignment.clone());
            let is_seen = |existing: &Assignment| self.pods.tokens().any(|token| token == existing.token);
            let reply = if request.existing.as_ref().is_some_and(|existing| !is_seen(existing)) {
                SlotReply::Kept
            } else if let Some(known) = reserved.and_then(of_request) {
                SlotReply::Estimated(known)
            } else {
                let new = assignment(&request, &occupancy, next, allocator);
                next = allocator.cycle().after(next);
                new.map_or(SlotReply::Unplaced, SlotReply::Estimated)
            };
            if let SlotReply::Estimated(assignment) = &reply
                && !request.dry_run
                && content.and_then(of_request).is_none()
            {
                assignment.occupy(&mut occupancy, allocator.policy());
            }
            replies.push((request, reply));
        }
        for (request, reply) in replies {
            match reply {
                SlotReply::Estimated(assignment) if !request.dry_run => self.estimate(assignment, now),
                reply => self.reply(request.token, reply),
            }
        }
    }

    /// Replies with a slot that the object doesn't have, and remembers it here.
    fn estimate(&mut self, assignment: Assignment, now: &Now) {
        let estimate = Reservation { assignment: assignment.clone(), pod: None, at: now.wall };
        self.reservations.push_estimate(estimate, now.clock, &self.config);
        self.reply(assignment.token, SlotReply::Estimated(assignment));
    }

    fn reply(&mut self, token: Token, reply: SlotReply) {
        self.effects.push(Effect::Reply(token, reply));
    }

    /// Slots that are taken, and pods by group, if `content` is the object.
    fn occupancy(&self, content: Option<&LedgerContent>, policy: &Policy) -> Occupancy {
        let mut occupancy = Occupancy::default();
        let mut reserved = BTreeSet::new();
        for Reservation { assignment, pod, .. } in self.reservations.pending_in(content) {
            if pod.is_none() {
                reserved.insert(assignment.slot);
                assignment.occupy(&mut occupancy, policy);
            } else {
                occupancy.take_slot(assignment.slot);
            }
        }
        for pod in self.pods.pods().values() {
            // The replica that reserved the slot for another pod has seen that this one is gone.
            if pod.assignment().is_none_or(|assignment| !reserved.contains(&assignment.slot)) {
                pod.placement.occupy(&mut occupancy, policy);
            }
        }
        occupancy
    }

    /// After a write, leaves so much time before the next that a replica with a conflict can read and write: else
    /// one replica alone would go on if the API server takes longer than the pause.
    fn extend_pause(&mut self, now: &Now) {
        let pause = self.config.pause;
        if pause > Duration::ZERO {
            let begun = self.paused_until.saturating_sub(pause);
            let extended = (now.clock.saturating_sub(begun) * 3).min(MAX_PAUSE).max(pause);
            self.paused_until = begun + extended;
        }
    }

    fn begin(&mut self, call: Call, now: &Now) {
        debug_assert!(!self.is_calling(), "{call:?} during {:?}", self.under_way);
        for waiting in &mut self.requests {
            match call {
                Call::Read => waiting.read.begin(),
                Call::List(None) => waiting.list.begin(),
                _ => {}
            }
        }
        self.list_began = if call == Call::List(None) { now.clock } else { Duration::ZERO };
        self.under_way = Some(call.clone());
        self.effects.push(Effect::Call(call));
    }

    /// The call that is under way has ended.
    fn finish(&mut self, succeeded: bool) -> Option<Call> {
        debug_assert!(self.is_calling(), "a response without a call");
        for waiting in &mut self.requests {
            match self.under_way {
                Some(Call::Read) => waiting.read.end(succeeded),
                Some(Call::List(None)) => waiting.list.end(succeeded),
                _ => {}
            }
        }
        self.list_began = Duration::ZERO;
        self.under_way.take()
    }
}

/// An admission request that waits for its slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct WaitingRequest {
    request: SlotRequest,
    deadline: Duration,
    /// A read of the object since the request arrived.
    read: Progress,
    /// A list of the pods as they are now, since the request arrived and the object was last read.
    list: Progress,
}

/// How far a call is that must begin after something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Progress {
    Due,
    UnderWay,
    Done,
}

impl WaitingRequest {
    fn new(request: SlotRequest, deadline: Duration) -> Self {
        Self { request, deadline, read: Progress::Due, list: Progress::Due }
    }

    /// Whether another replica may have given the pod the assignment that it has since this one read the object.
    fn needs_read(&self) -> bool {
        self.request.existing.is_some() && self.read != Progress::Done
    }

    /// Whether it is for an additional pod, and the pods were not listed since it arrived.
    fn needs_list(&self) -> bool {
        !self.request.dry_run && self.list != Progress::Done
    }
}

impl Progress {
    fn begin(&mut self) {
        if *self == Self::Due {
            *self = Self::UnderWay;
        }
    }

    fn end(&mut self, succeeded: bool) {
        if *self == Self::UnderWay {
            *self = if succeeded { Self::Done } else { Self::Due };
        }
    }
}

/// The slot and group of a new pod. `next` is its slot if it takes slots over time.
fn assignment(
    request: &SlotRequest,
    occupancy: &Occupancy,
    next: u32,
    allocator: &SlotAllocator,
) -> Option<Assignment> {
    let (slot, group) = if request.over_time {
        (next, allocator.group_over_time(next, occupancy, request.fitting)?)
    } else {
        allocator.allocate(occupancy, request.fitting)?
    };
    let group = allocator.policy().groups().get(group)?.name.clone();
    Some(Assignment { token: request.token, slot, group })
}

#[cfg(test)]
mod model_access {
    use super::*;

    impl Ledger {
        /// The highest version of the object that this replica knows of.
        pub(crate) fn latest_version(&self) -> ResourceVersion {
            self.noticed.as_ref().map_or(0, |(version, _)| *version).max(self.reservations.latest())
        }

        /// The same without requests and calls under way.
        pub(crate) fn at_rest(&self) -> Self {
            Self {
                under_way: None,
                requests: Vec::new(),
                moves: Vec::new(),
                list_began: Duration::ZERO,
                reconciling: Reconciling::No,
                ..self.clone()
            }
        }
    }
}
