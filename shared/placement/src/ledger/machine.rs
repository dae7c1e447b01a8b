//! The state of one replica's ledger, and how events change it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::LedgerConfig;
use super::stored::{Assignment, LedgerContent, PodName, Reservation, ResourceVersion, Token};
use super::view::{PodPlacement, PodRecord, View};
use super::{Effect, Event, Now, SlotReply, SlotRequest};
use crate::allocator::{Occupancy, SlotAllocator};
use crate::policy::GroupName;

/// A write is begun so long after the one before at the latest, however slow the API server is.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Who puts things in order has dropped a reservation after this time, unless the API server can't be reached.
const REMEMBERED: Duration = Duration::from_mins(10);

/// One replica's knowledge of one controller's pods, and what it has under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    pub(super) config: LedgerConfig,
    pub(super) view: View,
    /// How many pods the owner may have at a time.
    pub(super) owner: Option<u32>,
    pub(super) stored: Stored,
    /// The last version of the object that is known of, whether or not it still stands.
    last: ResourceVersion,
    /// What the watch has shown of the object while a call was under way.
    noticed: Option<(ResourceVersion, Option<LedgerContent>)>,
    under_way: UnderWay,
    /// In the order of arrival.
    pub(super) waiting: Vec<Waiting>,
    /// Places given without the ledger, and when.
    pub(super) estimates: Vec<(Reservation, Duration)>,
    /// Reservations whose pods were seen: at which version, and when.
    pub(super) confirmed: BTreeMap<Token, (ResourceVersion, Duration)>,
    /// Reservations whose pods will not come.
    pub(super) lost: BTreeSet<Token>,
    /// When each reservation was first read here.
    pub(super) first_read: BTreeMap<Token, Duration>,
    pub(super) tending: Tending,
    /// Until when nothing is begun, so that those who come meanwhile share the next write.
    pub(super) paused: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerConfig::default())
    }
}

/// The object, as last read or written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Stored {
    /// Not read, or changed since.
    #[default]
    Unread,
    Absent,
    At(ResourceVersion, LedgerContent),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum UnderWay {
    #[default]
    Nothing,
    Read,
    Write(LedgerContent),
    Remove,
    /// Since when, if it is to be as of now.
    List(Option<Duration>),
}

/// Someone who waits for a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) request: SlotRequest,
    /// When it must have its answer.
    pub(super) deadline: Duration,
    /// The pod, if it is there already and is to be moved.
    pub(super) moved: Option<Moved>,
    /// A read of the ledger since it arrived.
    pub(super) read: Call,
    /// A list of the pods as they are, since it arrived and the ledger was last read.
    pub(super) listed: Call,
}

/// A pod that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Moved {
    pub(super) name: PodName,
    pub(super) version: ResourceVersion,
    pub(super) group: GroupName,
    /// To this slot; `None`: to one of its group, or any.
    pub(super) to: Option<u32>,
}

/// How far a call is that must begin after something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Call {
    #[default]
    Due,
    UnderWay,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Tending {
    #[default]
    No,
    /// The ledger is to be read first.
    Asked,
    Begun,
}

impl Ledger {
    /// A ledger that knows nothing yet.
    pub fn new(config: LedgerConfig) -> Self {
        Self {
            config,
            view: View::default(),
            owner: None,
            stored: Stored::default(),
            last: 0,
            noticed: None,
            under_way: UnderWay::default(),
            waiting: Vec::new(),
            estimates: Vec::new(),
            confirmed: BTreeMap::new(),
            lost: BTreeSet::new(),
            first_read: BTreeMap::new(),
            tending: Tending::default(),
            paused: Duration::ZERO,
        }
    }

    /// Takes in what happened, and returns what is to be done.
    pub fn handle(&mut self, event: Event, allocator: &SlotAllocator, now: &Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let expiry = self.config.expiry;
        self.estimates.retain(|(_, since)| now.clock < *since + expiry);
        match event {
            Event::Arrived(request, deadline) => self.arrived(request, deadline, &mut effects),
            Event::Read(object) => {
                self.ended(&UnderWay::Read, true);
                self.found(object, now, &mut effects);
            }
            Event::Noticed(version, content) => {
                self.learn(Event::Noticed(version, content.clone()), now);
                self.noticed = Some((version, content));
            }
            Event::Written(version) => {
                self.make_room(now);
                let under_way = std::mem::take(&mut self.under_way);
                self.last = self.last.max(version.unwrap_or(0));
                self.stored = match (version, under_way) {
                    (None, _) => Stored::Absent,
                    (Some(version), UnderWay::Write(content)) => Stored::At(version, content),
                    _ => Stored::Unread,
                };
                // Whatever was lost isn't in there any more; a token may have been given a new place.
                self.lost.clear();
                self.reread(now);
                self.answer_known(&mut effects);
            }
            Event::Conflict => {
                self.under_way = UnderWay::Nothing;
                self.stored = Stored::Unread;
                // The watch is about to show what it has lost to, which spares it a read.
                self.paused = now.clock + self.config.pause;
            }
            Event::Failed => {
                let under_way = std::mem::take(&mut self.under_way);
                if matches!(under_way, UnderWay::Write(_) | UnderWay::Remove) {
                    self.stored = Stored::Unread;
                }
                self.ended(&under_way, false);
            }
            Event::Listed { version, pods, owner } => {
                self.listed(version, pods, now, &mut effects);
                let under_way = std::mem::take(&mut self.under_way);
                if let UnderWay::List(Some(since)) = under_way {
                    self.ended(&under_way, true);
                    self.owner = owner;
                    self.find_lost(since);
                } else {
                    self.ended(&under_way, true);
                }
            }
            Event::Left(token) => {
                self.waiting.retain(|waiting| waiting.moved.is_some() || waiting.request.token != token);
            }
            Event::Surveyed { version, pods } => self.listed(version, pods, now, &mut effects),
            Event::Relisted { version, pods } => {
                for pod in pods.values() {
                    self.confirm(pod, now, &mut effects);
                }
                self.view.relisted(version, now.watched, pods);
            }
            Event::Watched(name, pod) => {
                self.confirm(&pod, now, &mut effects);
                self.view.watched(name, pod);
            }
            Event::Owner(owner) => self.owner = owner,
            Event::Tick => self.tick(allocator, now, &mut effects),
            Event::Tend => self.tending = Tending::Asked,
        }
        self.advance(allocator, now, &mut effects);
        effects
    }

    /// Takes in what is known of pods and of the owner, where nobody asks for a place yet.
    pub fn learn(&mut self, event: Event, now: &Now) {
        match event {
            Event::Surveyed { version, pods } => self.view.listed(version, now.watched, pods),
            Event::Relisted { version, pods } => self.view.relisted(version, now.watched, pods),
            Event::Watched(name, pod) => self.view.watched(name, pod),
            Event::Owner(owner) => self.owner = owner,
            // The owner has gone, most likely, and its pods with it.
            Event::Noticed(_, None) => self.view.forget_unmarked(),
            _ => {}
        }
    }

    /// Takes in the object as it was read.
    fn found(
        &mut self,
        object: Option<(ResourceVersion, LedgerContent)>,
        now: &Now,
        effects: &mut Vec<Effect>,
    ) {
        self.last = self.last.max(object.as_ref().map_or(0, |(version, _)| *version));
        self.stored = object.map_or(Stored::Absent, |(version, content)| Stored::At(version, content));
        self.reread(now);
        // A list tells which reservations are lost only among those that were known before it.
        for waiting in &mut self.waiting {
            waiting.listed = Call::Due;
        }
        self.answer_known(effects);
    }

    /// Takes in what the watch has shown of the object, if that is news. (It may lag behind: what is written by it loses then, as by
    /// what was read long ago.)
    pub(super) fn notice(&mut self, now: &Now, effects: &mut Vec<Effect>) {
        let Some((version, content)) = self.noticed.take().filter(|(version, _)| *version > self.last) else {
            return;
        };
        if self.stored == Stored::Unread {
            self.paused = now.clock;
        }
        self.last = version;
        self.found(content.map(|content| (version, content)), now, effects);
    }

    /// Whether it knows nothing that another wouldn't learn by itself. Reservations that were read long ago don't count: another
    /// has dropped them meanwhile, which this one needn't ever have read.
    pub fn is_blank(&self, clock: Duration) -> bool {
        let awaited = |since: &Duration| clock < *since + REMEMBERED;
        !self.busy()
            && self.waiting.is_empty()
            && self.view.pods().is_empty()
            && !self.first_read.values().chain(self.estimates.iter().map(|(_, since)| since)).any(awaited)
    }

    /// The owner's pods that are known and count, by name.
    pub fn pods(&self) -> &BTreeMap<PodName, PodRecord> {
        self.view.pods()
    }

    /// How many places are reserved for pods that nobody has seen.
    pub fn reserved(&self) -> usize {
        self.pending().filter(|reservation| reservation.pod.is_none()).count()
    }

    /// Whether a call is under way.
    pub fn busy(&self) -> bool {
        self.under_way != UnderWay::Nothing
    }

    /// When it wants an [`Event::Tick`], if nothing happens before.
    pub fn wakes(&self) -> Option<Duration> {
        let deadlines = self.waiting.iter().map(|waiting| waiting.deadline);
        let idle = self.waiting.is_empty() && self.tending == Tending::No;
        let pause = (!self.busy() && !idle).then_some(self.paused);
        deadlines.filter(|deadline| *deadline < Duration::MAX).chain(pause).min()
    }

    /// How many requests wait for an answer.
    pub fn waits(&self) -> usize {
        self.waiting.iter().filter(|waiting| waiting.moved.is_none()).count()
    }

    /// The last version of the object that it has heard of.
    #[cfg(test)]
    pub(crate) fn heard(&self) -> ResourceVersion {
        self.noticed.as_ref().map_or(self.last, |(version, _)| self.last.max(*version))
    }

    /// Whether the request with this token waits here.
    #[cfg(test)]
    pub(crate) fn awaits(&self, token: Token) -> bool {
        self.waiting.iter().any(|waiting| waiting.request.token == token)
    }

    /// The same with nobody waiting and nothing under way.
    #[cfg(test)]
    pub(crate) fn at_rest(&self) -> Self {
        Self { under_way: UnderWay::Nothing, waiting: Vec::new(), tending: Tending::No, ..self.clone() }
    }

    fn arrived(&mut self, request: SlotRequest, deadline: Duration, effects: &mut Vec<Effect>) {
        if request.dry_run && request.existing.is_some() {
            effects.push(Effect::Reply(request.token, SlotReply::Kept));
        } else if self.waiting.iter().all(|waiting| waiting.request.token != request.token) {
            self.waiting.push(Waiting { request, deadline, moved: None, read: Call::Due, listed: Call::Due });
        }
    }

    fn listed(
        &mut self,
        version: ResourceVersion,
        pods: BTreeMap<PodName, PodRecord>,
        now: &Now,
        effects: &mut Vec<Effect>,
    ) {
        for pod in pods.values() {
            self.confirm(pod, now, effects);
        }
        self.view.listed(version, now.watched, pods);
    }

    /// Notes a pod's proof that its place has become its own.
    fn confirm(&mut self, pod: &PodRecord, now: &Now, effects: &mut Vec<Effect>) {
        let PodPlacement::Assigned(assignment) = &pod.place else { return };
        if self.content().is_some_and(|content| content.reservation(assignment.token).is_some()) {
            self.confirmed.entry(assignment.token).or_insert((pod.version, now.clock));
        }
        self.estimates.retain(|(estimate, _)| estimate.assignment.token != assignment.token);
        // A call that was sent twice and answered once.
        let twice = |waiting: &mut Waiting| waiting.request.token == assignment.token;
        for waiting in self.waiting.extract_if(.., twice).filter(|waiting| waiting.moved.is_none()) {
            effects.push(Effect::Reply(waiting.request.token, SlotReply::Placed(assignment.clone())));
        }
    }

    /// Brings what is known of reservations into line with the object as it is now.
    fn reread(&mut self, now: &Now) {
        let Some(content) = self.content() else {
            if self.stored == Stored::Absent {
                self.confirmed.clear();
                self.lost.clear();
                self.first_read.clear();
            }
            return;
        };
        let tokens: BTreeSet<Token> =
            content.reservations.iter().map(|reservation| reservation.assignment.token).collect();
        let seen = self
            .view
            .pods()
            .values()
            .filter_map(|pod| Some((pod.assignment()?.token, (pod.version, now.clock))));
        for (token, when) in seen.filter(|(token, _)| tokens.contains(token)) {
            self.confirmed.entry(token).or_insert(when);
        }
        self.confirmed.retain(|token, _| tokens.contains(token));
        self.lost.retain(|token| tokens.contains(token));
        self.first_read.retain(|token, _| tokens.contains(token));
        for token in tokens {
            self.first_read.entry(token).or_insert(now.clock);
        }
    }

    /// Requests whose deadline has come are placed by what is known here.
    fn tick(&mut self, allocator: &SlotAllocator, now: &Now, effects: &mut Vec<Effect>) {
        let late = |waiting: &mut Waiting| waiting.deadline <= now.clock;
        let late: Vec<_> = self.waiting.extract_if(.., late).collect();
        let news =
            self.noticed.as_ref().filter(|(version, _)| !late.is_empty() && *version > self.last).cloned();
        let decided = news.is_some();
        // Only while they are placed: the call that is under way is about what was known before.
        let stored = news.map(|(version, content)| {
            std::mem::replace(
                &mut self.stored,
                content.map_or(Stored::Absent, |content| Stored::At(version, content)),
            )
        });
        let mut occupied = if late.is_empty() { Occupancy::default() } else { self.occupied(allocator) };
        for Waiting { request, .. } in late {
            let copied = |existing: &Assignment| {
                self.view
                    .pods()
                    .values()
                    .filter_map(PodRecord::assignment)
                    .any(|own| own.token == existing.token)
            };
            let effect = if request.existing.as_ref().is_some_and(|existing| !copied(existing)) {
                Effect::Reply(request.token, SlotReply::Kept)
            } else {
                self.estimate(&request, decided, &mut occupied, allocator, now)
            };
            effects.push(effect);
        }
        if let Some(stored) = stored {
            self.stored = stored;
        }
    }

    /// A place by what is known here, beside those that are `occupied`; `decided`: the watch has shown what became of the write that is
    /// under way.
    fn estimate(
        &mut self,
        request: &SlotRequest,
        decided: bool,
        occupied: &mut Occupancy,
        allocator: &SlotAllocator,
        now: &Now,
    ) -> Effect {
        let written = match &self.under_way {
            // What is being written may well come to stand.
            UnderWay::Write(content) if !decided => Some(content),
            _ => None,
        };
        let reservation = written.or(self.content()).and_then(|content| content.reservation(request.token));
        let assignment = reservation.map(|reservation| reservation.assignment.clone()).or_else(|| {
            let (slot, group) = allocator.allocate(occupied, request.fitting)?;
            let group = allocator.policy().groups().get(group)?.name.clone();
            Some(Assignment { token: request.token, slot, group })
        });
        let Some(assignment) = assignment else { return Effect::Reply(request.token, SlotReply::Unplaced) };
        if request.dry_run {
            return Effect::Reply(request.token, SlotReply::Estimated(assignment));
        }
        if self.content().is_none_or(|content| content.reservation(request.token).is_none()) {
            occupied.take_slot(assignment.slot);
            if let Some(group) = allocator.policy().index(&assignment.group) {
                occupied.add_pod(group);
            }
        }
        self.estimated(Reservation { assignment, pod: None, at: now.wall }, now)
    }

    /// Answers with a place that the ledger doesn't hold, and remembers it here.
    pub(super) fn estimated(&mut self, place: Reservation, now: &Now) -> Effect {
        let assignment = place.assignment.clone();
        if self.estimates.len() < self.config.max_reservations {
            self.estimates.push((place, now.clock));
        }
        Effect::Reply(assignment.token, SlotReply::Estimated(assignment))
    }

    pub(super) fn content(&self) -> Option<&LedgerContent> {
        match &self.stored {
            Stored::At(_, content) => Some(content),
            Stored::Unread | Stored::Absent => None,
        }
    }

    pub(super) fn read(&mut self, effects: &mut Vec<Effect>) {
        self.begin(UnderWay::Read, Effect::Read, effects);
    }

    pub(super) fn write(&mut self, content: LedgerContent, now: &Now, effects: &mut Vec<Effect>) {
        let pause = self.config.pause;
        if pause > Duration::ZERO {
            self.paused = now.clock + pause;
        }
        let version = if let Stored::At(version, _) = self.stored { Some(version) } else { None };
        self.begin(UnderWay::Write(content.clone()), Effect::Write(version, content), effects);
    }

    /// After a write, leaves so much time before the next that another replica, which has just lost to it, can read and write: else
    /// one replica alone would go on where the API server takes longer than the pause.
    fn make_room(&mut self, now: &Now) {
        let pause = self.config.pause;
        if pause > Duration::ZERO {
            let begun = self.paused.saturating_sub(pause);
            let room = (now.clock.saturating_sub(begun) * 3).min(LONGEST_PAUSE).max(pause);
            self.paused = begun + room;
        }
    }

    pub(super) fn remove(&mut self, version: ResourceVersion, effects: &mut Vec<Effect>) {
        self.begin(UnderWay::Remove, Effect::Remove(version), effects);
    }

    /// Lists pods no older than `version`.
    pub(super) fn list_since(&mut self, version: ResourceVersion, effects: &mut Vec<Effect>) {
        self.begin(UnderWay::List(None), Effect::List(Some(version)), effects);
    }

    /// Lists pods as they are now.
    pub(super) fn list_now(&mut self, now: &Now, effects: &mut Vec<Effect>) {
        self.begin(UnderWay::List(Some(now.clock)), Effect::List(None), effects);
    }

    fn begin(&mut self, call: UnderWay, effect: Effect, effects: &mut Vec<Effect>) {
        for progress in self.calls(&call).filter(|progress| **progress == Call::Due) {
            *progress = Call::UnderWay;
        }
        self.under_way = call;
        effects.push(effect);
    }

    fn ended(&mut self, call: &UnderWay, done: bool) {
        let after = if done { Call::Done } else { Call::Due };
        for progress in self.calls(call).filter(|progress| **progress == Call::UnderWay) {
            *progress = after;
        }
        self.under_way = UnderWay::Nothing;
    }

    /// How far this sort of call is, for each who waits.
    fn calls(&mut self, call: &UnderWay) -> impl Iterator<Item = &mut Call> {
        let (read, listed) = (*call == UnderWay::Read, matches!(call, UnderWay::List(Some(_))));
        self.waiting.iter_mut().filter_map(move |waiting| match (read, listed) {
            (true, _) => Some(&mut waiting.read),
            (_, true) => Some(&mut waiting.listed),
            _ => None,
        })
    }
}
