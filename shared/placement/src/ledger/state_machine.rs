//! The state of one replica's ledger, and how events change it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::content::{Assignment, LedgerContent, PodName, Reservation, ResourceVersion, Token};
use super::messages::{Call, Effect, Event, LedgerConfig, Now, SlotReply, SlotRequest};
use super::pods::{PodRecord, PodView};
use super::queue::{Progress, Queue, Waiting, WaitingRequest};
use super::reassign;
use super::reservations::Reservations;
use crate::allocator::{Occupancy, SlotAllocator};
use crate::policy::Policy;

/// The longest pause between the beginnings of two writes, however slow the API server is.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// What one replica knows of one owner's pods, and what it has under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    config: LedgerConfig,
    pods: PodView,
    /// How many pods the owner may have at a time; `None`: unknown.
    max_pods: Option<u32>,
    reservations: Reservations,
    /// The last watch event of the object that came while a call was under way.
    noticed: Option<(ResourceVersion, Option<LedgerContent>)>,
    under_way: Option<UnderWay>,
    queue: Queue,
    reconciling: Reconciling,
    /// No call begins before this time, so that requests that arrive meanwhile share the next write.
    paused_until: Duration,
    /// Effects of the event that is being handled.
    effects: Vec<Effect>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum UnderWay {
    Read,
    Write(LedgerContent),
    Delete,
    /// A list no older than the fence.
    ListToFence,
    /// A list of the pods as they are, which began at this time.
    ListNow(Duration),
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
            Event::Requested(request, deadline) => self.queue.push_request(request, deadline),
            Event::Cancelled(token) => self.queue.cancel(token),
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
                if matches!(self.finish(false), Some(UnderWay::Write(_) | UnderWay::Delete)) {
                    self.reservations.invalidate();
                }
            }
            Event::Listed { version, pods, max_pods } => {
                self.observe(Event::PodsListed { version, pods }, now);
                if let Some(UnderWay::ListNow(since)) = self.finish(true) {
                    self.max_pods = max_pods;
                    self.find_lost(since);
                }
            }
            Event::ObjectChanged(version, content) => {
                self.observe(Event::ObjectChanged(version, content.clone()), now);
                self.noticed = Some((version, content));
            }
            event => self.observe(event, now),
        }
        self.advance(allocator, now);
        debug_assert!(self.reservations.is_consistent());
        debug_assert!(
            self.is_calling() || self.queue.is_empty() || now.clock < self.paused_until,
            "requests wait for nothing"
        );
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

    /// Whether this replica can forget the ledger: it knows nothing that it wouldn't learn again.
    pub fn can_be_dropped(&self, clock: Duration) -> bool {
        !self.is_calling()
            && self.queue.is_empty()
            && self.pods.pods().is_empty()
            && self.reservations.can_be_dropped(clock)
    }

    /// The owner's pods that are known and not gone.
    pub fn pods(&self) -> &BTreeMap<PodName, PodRecord> {
        self.pods.pods()
    }

    /// How many slots are reserved for pods that weren't seen yet.
    pub fn reserved(&self) -> usize {
        self.reservations.pending_new_pods().count()
    }

    /// When the ledger needs an [`Event::Tick`], if no event comes before.
    pub fn next_tick(&self) -> Option<Duration> {
        let idle = self.queue.is_empty() && self.reconciling == Reconciling::No;
        let pause = (!self.is_calling() && !idle).then_some(self.paused_until);
        self.queue.requests().map(|waiting| waiting.deadline).chain(pause).min()
    }

    fn is_calling(&self) -> bool {
        self.under_way.is_some()
    }

    /// Notes which reservations these pods confirm.
    fn confirm<'p>(&mut self, pods: impl IntoIterator<Item = &'p PodRecord>, now: &Now) {
        for (pod, assignment) in pods.into_iter().filter_map(|pod| Some((pod, pod.assignment()?))) {
            self.reservations.confirm(assignment.token, pod.version, now.clock);
            // The API server sent the request twice, and one reply was enough.
            if self.queue.remove(assignment.token) {
                self.reply(assignment.token, SlotReply::Placed(assignment.clone()));
            }
        }
    }

    /// Takes in the object as it was read.
    fn take_object(&mut self, version: ResourceVersion, content: Option<LedgerContent>, now: &Now) {
        self.reservations.set(version, content, &self.pods, now.clock);
        self.queue.update_lists(Progress::reset);
        self.reply_to_known();
    }

    /// A write or a deletion has succeeded.
    fn written(&mut self, version: Option<ResourceVersion>, now: &Now) {
        self.extend_pause(now);
        let content = self.finish(true).and_then(|call| match call {
            UnderWay::Write(content) => Some(content),
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

    /// After a list that began at `since`: reservations whose pods it should have and doesn't are lost.
    ///
    /// Requests that came since don't count: what makes room for them may have happened after the list.
    fn find_lost(&mut self, since: Duration) {
        self.reservations.lose_overdue(since, self.config.expiry);
        let surplus = self.surplus(WaitingRequest::is_listed);
        self.reservations.lose_oldest(surplus);
    }

    /// By how many pods the owner would exceed its maximum, if all came that have a reservation or are among these requests.
    fn surplus(&self, requests: impl Fn(&WaitingRequest) -> bool) -> usize {
        let Some(max_pods) = self.max_pods else { return 0 };
        let new = self.queue.requests().filter(|waiting| waiting.adds_pod() && requests(waiting)).count();
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
            return self.read();
        }
        if self.queue.is_empty() && self.reconciling == Reconciling::No {
            return;
        }
        if self.reservations.is_unknown() {
            return self.read();
        }
        let fence = self.reservations.content().map_or(0, |content| content.fence);
        if self.pods.complete_up_to(now.watched) < fence {
            return self.begin(UnderWay::ListToFence, Call::List(Some(fence)));
        }
        if self.queue.requests().any(WaitingRequest::needs_read) {
            return self.read();
        }
        let unlisted = |waiting: &WaitingRequest| waiting.adds_pod() && !waiting.is_listed();
        if self.queue.requests().any(unlisted) && self.surplus(|_| true) > 0 {
            return self.list_now(now);
        }
        if self.reconciling == Reconciling::Begun {
            if self.reservations.overdue(now.clock, self.config.expiry).next().is_some() {
                return self.list_now(now);
            }
            self.queue_moves(allocator);
            self.reply_to_known();
        }
        self.assign(allocator, now);
        self.reconciling = Reconciling::No;
    }

    /// Replies to requests whose slots the object has: it was written for them, or they were sent before.
    fn reply_to_known(&mut self) {
        let Self { reservations, effects, .. } = self;
        if reservations.version().is_none() {
            return;
        }
        self.queue.retain(|waiting| {
            let waiting = match waiting {
                Waiting::Request(waiting) => waiting,
                Waiting::Move(to_move) => {
                    let Some(known) = reservations.assignment(to_move.token) else { return true };
                    effects.push(Effect::Reassign(to_move.pod.clone(), to_move.version, known.clone()));
                    return false;
                }
            };
            let SlotRequest { token, existing, dry_run, .. } = &waiting.request;
            let is_ours = |existing: &Assignment| {
                // If a pod was seen with it, this one is a copy.
                reservations.assignment(existing.token) == Some(existing)
                    && !reservations.is_confirmed(existing.token)
            };
            if existing.as_ref().is_some_and(is_ours) {
                effects.push(Effect::Reply(*token, SlotReply::Kept));
                return false;
            }
            let known = reservations.assignment(*token).filter(|_| !dry_run);
            effects.extend(known.map(|known| Effect::Reply(*token, SlotReply::Placed(known.clone()))));
            waiting.forget_copied();
            known.is_none()
        });
    }

    /// Queues the pods that should have another slot.
    fn queue_moves(&mut self, allocator: &SlotAllocator) {
        let occupancy =
            self.is_complete().then(|| self.occupancy(self.reservations.content(), allocator.policy()));
        let mut moves = reassign::moves(self.pods.pods(), occupancy.as_ref(), allocator);
        moves.truncate(self.config.max_moves);
        self.queue.push_moves(moves);
    }

    /// Whether all pods exist that the owner wants, and no more are on their way.
    fn is_complete(&self) -> bool {
        self.reservations.pending().next().is_none()
            && self.queue.is_empty()
            && self.max_pods.is_none_or(|max_pods| max_pods as usize == self.pods.active())
    }

    /// Gives a slot to all that wait, and writes the object if it has changed.
    fn assign(&mut self, allocator: &SlotAllocator, now: &Now) {
        let mut content = self.reservations.unsettled(now.clock, &self.config);
        let mut occupancy = self.occupancy(self.reservations.content(), allocator.policy());
        let before = occupancy.clone();
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|waiting| {
            let is_full = content.reservations.len() >= self.config.max_reservations;
            let (assignment, pod) = match waiting {
                Waiting::Request(WaitingRequest { request, .. }) if request.dry_run => {
                    let assignment = assignment(request, &before, allocator);
                    self.reply(request.token, assignment.map_or(SlotReply::Unplaced, SlotReply::Placed));
                    return false;
                }
                Waiting::Request(WaitingRequest { request, .. }) => {
                    let Some(assignment) = assignment(request, &occupancy, allocator) else {
                        self.reply(request.token, SlotReply::Unplaced);
                        return false;
                    };
                    debug_assert!(occupancy.is_free(assignment.slot), "two pods get one slot");
                    occupy(&mut occupancy, &assignment, allocator.policy());
                    if is_full {
                        self.estimate(assignment, now);
                        return false;
                    }
                    (assignment, None)
                }
                Waiting::Move(to_move) => {
                    let Some(assignment) = to_move.assignment(&occupancy, allocator).filter(|_| !is_full)
                    else {
                        return false;
                    };
                    occupancy.take_slot(assignment.slot);
                    (assignment, Some(to_move.pod.clone()))
                }
            };
            content.reservations.push(Reservation { assignment, pod, at: now.wall });
            true
        });
        self.queue = queue;
        self.write_if_changed(content, now);
    }

    /// Writes the object, if it has changed; deletes it when the owner has no pods any more.
    fn write_if_changed(&mut self, content: LedgerContent, now: &Now) {
        let is_reconciling = self.reconciling == Reconciling::Begun;
        let version = self.reservations.version();
        let is_over =
            content.reservations.is_empty() && self.pods.pods().is_empty() && self.max_pods == Some(0);
        if let Some(version) = version.filter(|_| is_over && is_reconciling) {
            return self.begin(UnderWay::Delete, Call::Delete(version));
        }
        let is_changed = content != self.reservations.content().cloned().unwrap_or_default();
        if !is_changed || self.queue.is_empty() && !is_reconciling {
            return;
        }
        debug_assert!(content.tokens().collect::<BTreeSet<_>>().len() == content.reservations.len());
        if self.config.pause > Duration::ZERO {
            self.paused_until = now.clock + self.config.pause;
        }
        self.begin(UnderWay::Write(content.clone()), Call::Write(version, content));
    }

    /// Gives requests whose deadline has come a slot by what is known here.
    fn estimate_late_requests(&mut self, allocator: &SlotAllocator, now: &Now) {
        let late = self.queue.take_late(now.clock);
        if late.is_empty() {
            return;
        }
        let newer = self.noticed.as_ref().filter(|(version, _)| *version > self.reservations.latest());
        let (content, reserved) = match (newer, &self.under_way) {
            // The watch has shown what the write that is under way conflicts with.
            (Some((_, content)), _) => (content.as_ref(), content.as_ref()),
            // The write that is under way may well succeed.
            (None, Some(UnderWay::Write(content))) => (self.reservations.content(), Some(content)),
            (None, _) => (self.reservations.content(), self.reservations.content()),
        };
        let mut occupancy = self.occupancy(content, allocator.policy());
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
                let new = assignment(&request, &occupancy, allocator);
                new.map_or(SlotReply::Unplaced, SlotReply::Estimated)
            };
            if let SlotReply::Estimated(assignment) = &reply
                && !request.dry_run
                && content.and_then(of_request).is_none()
            {
                occupy(&mut occupancy, assignment, allocator.policy());
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
                occupy(&mut occupancy, assignment, policy);
            } else {
                occupancy.take_slot(assignment.slot);
            }
        }
        for pod in self.pods.pods().values() {
            // The replica that reserved the slot for another pod has seen that this one is gone.
            if pod.assignment().is_some_and(|assignment| reserved.contains(&assignment.slot)) {
                continue;
            }
            if let Some(assignment) = pod.assignment() {
                occupancy.take_slot(assignment.slot);
            }
            if let Some(group) = pod.group().and_then(|group| policy.index(group)) {
                occupancy.add_pod(group);
            }
        }
        occupancy
    }

    /// After a write, leaves so much time before the next that a replica whose write conflicted can read and write: else
    /// one replica alone would go on if the API server takes longer than the pause.
    fn extend_pause(&mut self, now: &Now) {
        let pause = self.config.pause;
        if pause > Duration::ZERO {
            let begun = self.paused_until.saturating_sub(pause);
            let extended = (now.clock.saturating_sub(begun) * 3).min(MAX_PAUSE).max(pause);
            self.paused_until = begun + extended;
        }
    }

    fn read(&mut self) {
        self.queue.update_reads(Progress::begin);
        self.begin(UnderWay::Read, Call::Read);
    }

    fn list_now(&mut self, now: &Now) {
        self.queue.update_lists(Progress::begin);
        self.begin(UnderWay::ListNow(now.clock), Call::List(None));
    }

    fn begin(&mut self, under_way: UnderWay, call: Call) {
        debug_assert!(!self.is_calling(), "a second call beside {:?}", self.under_way);
        self.under_way = Some(under_way);
        self.effects.push(Effect::Call(call));
    }

    /// The call that is under way has ended.
    fn finish(&mut self, succeeded: bool) -> Option<UnderWay> {
        debug_assert!(self.is_calling(), "a response without a call");
        let ended = self.under_way.take();
        match ended {
            Some(UnderWay::Read) => self.queue.update_reads(|read| read.end(succeeded)),
            Some(UnderWay::ListNow(_)) => self.queue.update_lists(|list| list.end(succeeded)),
            _ => {}
        }
        ended
    }
}

/// The slot and group of a new pod.
fn assignment(request: &SlotRequest, occupancy: &Occupancy, allocator: &SlotAllocator) -> Option<Assignment> {
    let (slot, group) = allocator.allocate(occupancy, request.fitting)?;
    let group = allocator.policy().groups().get(group)?.name.clone();
    Some(Assignment { token: request.token, slot, group })
}

/// A new pod takes its slot, and counts in its group.
fn occupy(occupancy: &mut Occupancy, assignment: &Assignment, policy: &Policy) {
    occupancy.take_slot(assignment.slot);
    if let Some(group) = policy.index(&assignment.group) {
        occupancy.add_pod(group);
    }
}

#[cfg(test)]
mod model_access {
    use super::*;

    impl Ledger {
        /// The highest version of the object that this replica knows of.
        pub(crate) fn latest_version(&self) -> ResourceVersion {
            self.noticed.as_ref().map_or(0, |(version, _)| *version).max(self.reservations.latest())
        }

        /// Whether the request with this token waits here.
        pub(crate) fn awaits(&self, token: Token) -> bool {
            self.queue.contains(token)
        }

        /// The same without requests and calls under way.
        pub(crate) fn at_rest(&self) -> Self {
            Self { under_way: None, queue: Queue::default(), reconciling: Reconciling::No, ..self.clone() }
        }
    }
}
