//! The model of a sequence without an owner that bounds it: pods that a policy selects by their labels. No number says how many pods there
//! should be, so a reservation ends when its pod was seen, or by time alone.
//!
//! Faults: an answer to a call is lost, a pod is rejected after its slot was reserved, pods are deleted, and watches lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::allocator::SlotAllocator;
use crate::ledger::{
    Assignment, Call, Effect, Event, Ledger, LedgerConfig, LedgerContent, Now, PodMap, PodName, PodPlacement,
    PodRecord, PodState, ResourceVersion, SlotReply, SlotRequest, Token,
};
use crate::policy::{Group, Policy, Tie};

use super::dice::Dice;

const REPLICAS: usize = 3;
/// So far in the future that no request is late.
const DEADLINE: Duration = Duration::from_hours(1000);

struct World {
    config: LedgerConfig,
    allocator: SlotAllocator,
    replicas: Vec<Ledger>,
    calls: Vec<Option<Call>>,
    version: ResourceVersion,
    object: Option<(ResourceVersion, LedgerContent)>,
    pods: PodMap,
    /// The events of the watch, and how many of them each replica has received.
    events: Vec<(PodName, PodRecord)>,
    received: [usize; REPLICAS],
    clock: Duration,
    /// When each reservation was written first.
    reserved: BTreeMap<Token, Duration>,
    requested: Vec<Token>,
    /// Every fourth pod is rejected.
    rejected: Vec<Token>,
    created: Vec<Token>,
}

impl World {
    fn new(config: LedgerConfig) -> Self {
        let group = |(name, weight): (&str, u32)| Group {
            name: name.into(),
            node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
            weight,
            ..Group::default()
        };
        let policy = Policy::new([("default", 80), ("spot", 20)].map(group).into(), Tie::First).unwrap();
        Self {
            config,
            allocator: SlotAllocator::new(policy),
            replicas: vec![Ledger::new(config); REPLICAS],
            calls: vec![None; REPLICAS],
            version: 0,
            object: None,
            pods: PodMap::new(),
            events: Vec::new(),
            received: [0; REPLICAS],
            clock: Duration::ZERO,
            reserved: BTreeMap::new(),
            requested: Vec::new(),
            rejected: Vec::new(),
            created: Vec::new(),
        }
    }

    fn handle(&mut self, replica: usize, event: Event) {
        let next = self.events.get(self.received[replica]);
        let watched = next.map_or(self.version, |(_, pod)| pod.version - 1);
        let now = Now { clock: self.clock, wall: 0, watched };
        for effect in self.replicas[replica].handle(event, &self.allocator, &now) {
            match effect {
                Effect::Call(call) => self.calls[replica] = Some(call),
                Effect::Reply(token, SlotReply::Placed(assignment)) => self.admit(token, &assignment),
                Effect::Reassign(pod, version, assignment) => {
                    if self.pods.get(&pod).is_some_and(|pod| pod.version == version) {
                        self.put(pod, Some(&assignment));
                    }
                }
                other @ Effect::Reply(..) => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The pod is created with its slot, or rejected by a later webhook or a quota.
    fn admit(&mut self, token: Token, assignment: &Assignment) {
        if self.created.contains(&token) || self.rejected.contains(&token) {
            return;
        }
        if token.0 % 4 == 3 {
            self.rejected.push(token);
            return;
        }
        self.created.push(token);
        self.put(format!("pod-{}", token.0).into(), Some(assignment));
    }

    /// Writes a pod; `None` deletes it.
    fn put(&mut self, name: PodName, assignment: Option<&Assignment>) {
        self.version += 1;
        let record = PodRecord {
            version: self.version,
            state: if assignment.is_some() { PodState::Active } else { PodState::Gone },
            placement: assignment.cloned().map_or(PodPlacement::Unknown, PodPlacement::Assigned),
            costed: false,
            marked: true,
        };
        self.events.push((Arc::clone(&name), record.clone()));
        if assignment.is_some() {
            self.pods.insert(name, record)
        } else {
            self.pods.remove(&name)
        };
    }

    fn request(&mut self, replica: usize, token: Token) {
        self.requested.push(token);
        let fitting = self.allocator.policy().all();
        let request = SlotRequest { token, fitting, existing: None, dry_run: false, over_time: false };
        self.handle(replica, Event::Requested(request, DEADLINE));
    }

    /// Delivers the next event of the watch.
    fn deliver(&mut self, replica: usize) {
        let Some((name, pod)) = self.events.get(self.received[replica]).cloned() else { return };
        self.received[replica] += 1;
        self.handle(replica, Event::PodChanged(name, pod));
    }

    /// Makes the pending call of a replica. The answer is lost if `lost`.
    fn answer(&mut self, replica: usize, lost: bool) {
        let Some(call) = self.calls[replica].take() else { return };
        let event = match call {
            Call::Read => Event::Read(self.object.clone()),
            Call::List(_) => Event::Listed { version: self.version, pods: self.pods.clone(), max_pods: None },
            Call::Write(at, content) if at == self.object.as_ref().map(|(version, _)| *version) => {
                self.check_write(&content);
                self.version += 1;
                self.object = Some((self.version, content));
                Event::Written(Some(self.version))
            }
            Call::Write(..) | Call::Delete(_) => Event::Conflict,
        };
        self.handle(replica, if lost { Event::Failed } else { event });
    }

    /// A reservation ends only when its pod was created, or by time.
    fn check_write(&mut self, content: &LedgerContent) {
        let before = self.object.as_ref().map(|(_, content)| content.tokens().collect::<Vec<_>>());
        let ended: Vec<Token> = before
            .unwrap_or_default()
            .into_iter()
            .filter(|token| content.reservation(*token).is_none())
            .collect();
        for token in ended {
            let age = self.clock.saturating_sub(self.reserved[&token]);
            let is_seen =
                self.events.iter().any(|(_, pod)| pod.assignment().is_some_and(|own| own.token == token));
            assert!(is_seen || age >= self.config.expiry, "{token:?} ended after {age:?}");
        }
        for token in content.tokens() {
            self.reserved.entry(token).or_insert(self.clock);
        }
    }

    fn check(&self) {
        let mut slots: Vec<u32> = self.pods.values().filter_map(|pod| Some(pod.assignment()?.slot)).collect();
        slots.sort_unstable();
        assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "two pods have one slot: {slots:?}");
    }

    fn advance(&mut self, time: Duration) {
        self.clock += time;
        for replica in 0..REPLICAS {
            self.handle(replica, Event::Tick);
        }
    }

    /// Delivers all events and answers all calls.
    fn settle(&mut self) {
        loop {
            let waits = (0..REPLICAS)
                .any(|replica| self.calls[replica].is_some() || self.received[replica] < self.events.len());
            if !waits && self.replicas.iter().all(|ledger| ledger.next_tick().is_none()) {
                let is_answered =
                    |token: &Token| self.created.contains(token) || self.rejected.contains(token);
                assert!(self.requested.iter().all(is_answered), "a request waits for ever");
                return;
            }
            for replica in 0..REPLICAS {
                self.deliver(replica);
                self.answer(replica, false);
            }
            self.advance(Duration::from_millis(20));
        }
    }

    /// The leader reconciles until nothing changes.
    fn reconcile(&mut self) {
        for _ in 0..8 {
            self.handle(0, Event::Reconcile);
            self.settle();
            self.advance(self.config.settle);
        }
    }

    fn reserved(&self) -> usize {
        self.object.as_ref().map_or(0, |(_, content)| content.reservations.len())
    }
}

/// Runs a random history in which `pods` pods are requested, of which a quarter is rejected.
fn run(seed: u64, pods: u64, deletes: bool, config: LedgerConfig) -> World {
    let mut world = World::new(config);
    let mut dice = Dice::new(seed);
    let mut next = 0;
    while next < pods {
        match dice.roll(12) {
            0 | 1 => {
                world.request(dice.roll(REPLICAS), Token(next));
                next += 1;
            }
            // The API server sends a request again, to any replica.
            2 if next > 0 => world.request(dice.roll(REPLICAS), Token(next - 1)),
            3 => world.advance(Duration::from_millis(600)),
            4 if deletes && !world.pods.is_empty() => {
                let name = world.pods.keys().nth(dice.roll(world.pods.len())).cloned();
                world.put(name.unwrap(), None);
            }
            5 if world.calls[0].is_none() => world.handle(0, Event::Reconcile),
            6 => world.answer(dice.roll(REPLICAS), true),
            7..=9 => world.deliver(dice.roll(REPLICAS)),
            _ => world.answer(dice.roll(REPLICAS), false),
        }
        world.check();
    }
    world.settle();
    world.check();
    world
}

#[test]
fn reservation_of_rejected_pod_ends_by_time_alone() {
    for seed in 0..200 {
        let mut world = run(seed, 20, false, LedgerConfig::default());
        world.reconcile();
        let age = |token: &Token| world.clock.saturating_sub(world.reserved[token]);
        let young = world.rejected.iter().filter(|token| age(token) < world.config.expiry).count();
        assert!(world.reserved() >= young, "seed {seed}: {} of {young}", world.reserved());
        world.advance(world.config.expiry);
        world.reconcile();
        world.check();
        assert_eq!(world.reserved(), 0, "seed {seed}");
        // The next pods make up for those that were rejected.
        assert_eq!(world.pods.len(), 15);
        for token in (100..).filter(|token| token % 4 != 3).take(10) {
            world.request(usize::try_from(token).unwrap() % REPLICAS, Token(token));
            world.settle();
        }
        world.reconcile();
        world.check();
        let mut counts = [0, 0];
        for pod in world.pods.values() {
            counts[world.allocator.policy().index(pod.group().unwrap()).unwrap()] += 1;
        }
        assert_eq!(counts[..], world.allocator.desired(25), "seed {seed}");
    }
}

#[test]
fn deleted_pods_leave_no_reservation() {
    for seed in 0..200 {
        let mut world = run(seed, 30, true, LedgerConfig::default());
        // The second time is for reservations of pods that were moved, and deleted before.
        for _ in 0..2 {
            world.advance(world.config.expiry);
            world.reconcile();
        }
        world.check();
        assert_eq!(world.reserved(), 0, "seed {seed}");
    }
}

#[test]
fn without_expiry_reservations_of_rejected_pods_stay() {
    let config = LedgerConfig { expiry: Duration::from_hours(1000), ..LedgerConfig::default() };
    let mut world = run(1, 20, false, config);
    world.advance(Duration::from_mins(10));
    world.reconcile();
    assert_eq!(world.reserved(), world.rejected.len());
}
