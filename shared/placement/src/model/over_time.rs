//! The model of slots over time: three replicas, one object, and pods that each take the next slot.
//!
//! Faults: an answer to a write is lost, the admission of a pod fails after its slot was reserved, a request is sent twice, and the object
//! is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::allocator::{Occupancy, SlotAllocator};
use crate::cycle::Cursor;
use crate::ledger::{
    Call, Effect, Event, Ledger, LedgerConfig, LedgerContent, Now, ResourceVersion, SlotReply, SlotRequest,
    Token,
};
use crate::policy::{Group, Policy, Tie};

use super::dice::Dice;

const REPLICAS: usize = 3;
/// So far in the future that no request is late.
const DEADLINE: Duration = Duration::from_hours(1000);

struct World {
    allocator: SlotAllocator,
    replicas: Vec<Ledger>,
    calls: Vec<Option<Call>>,
    version: ResourceVersion,
    object: Option<LedgerContent>,
    clock: Duration,
    /// Token and slot of each reservation, in the order of the writes since the object was last created.
    reserved: Vec<(Token, u32)>,
    /// The slots of the replies to each pod.
    replies: BTreeMap<Token, BTreeSet<u32>>,
    /// Whether a write stores the cursor.
    has_cursor: bool,
}

impl World {
    fn new(weights: &[u32], has_cursor: bool) -> Self {
        let group = |(index, weight): (usize, &u32)| Group {
            name: index.to_string().into(),
            node_labels: BTreeMap::from([("group".to_owned(), index.to_string())]),
            weight: *weight,
            ..Group::default()
        };
        let policy = Policy::new(weights.iter().enumerate().map(group).collect(), Tie::First).unwrap();
        Self {
            allocator: SlotAllocator::new(policy),
            replicas: vec![Ledger::new(LedgerConfig::default()); REPLICAS],
            calls: vec![None; REPLICAS],
            version: 0,
            object: None,
            clock: Duration::ZERO,
            reserved: Vec::new(),
            replies: BTreeMap::new(),
            has_cursor,
        }
    }

    fn handle(&mut self, replica: usize, event: Event) {
        let now = Now { clock: self.clock, wall: 0, watched: self.version };
        for effect in self.replicas[replica].handle(event, &self.allocator, &now) {
            match effect {
                Effect::Call(call) => self.calls[replica] = Some(call),
                Effect::Reply(token, SlotReply::Placed(assignment)) => {
                    self.replies.entry(token).or_default().insert(assignment.slot);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn request(&mut self, replica: usize, token: Token) {
        let fitting = self.allocator.policy().all();
        let request = SlotRequest { token, fitting, existing: None, dry_run: false, over_time: true };
        self.handle(replica, Event::Requested(request, DEADLINE));
    }

    /// Makes the pending call of a replica. The answer is lost if `lost`.
    fn answer(&mut self, replica: usize, lost: bool) {
        let Some(call) = self.calls[replica].take() else { return };
        let event = match call {
            Call::Read => Event::Read(self.object.clone().map(|object| (self.version, object))),
            Call::List(_) => Event::Listed { version: self.version, pods: BTreeMap::new(), max_pods: None },
            Call::Write(at, content) if at == self.object.as_ref().map(|_| self.version) => {
                self.version += 1;
                self.log(&content);
                let cursor = if self.has_cursor { content.cursor } else { Cursor::default() };
                self.object = Some(LedgerContent { cursor, ..content });
                Event::Written(Some(self.version))
            }
            Call::Write(..) | Call::Delete(_) => Event::Conflict,
        };
        self.handle(replica, if lost { Event::Failed } else { event });
    }

    fn log(&mut self, content: &LedgerContent) {
        if self.object.is_none() {
            self.reserved.clear();
        }
        for reservation in &content.reservations {
            let token = reservation.assignment.token;
            if self.reserved.iter().all(|(known, _)| *known != token) {
                self.reserved.push((token, reservation.assignment.slot));
            }
        }
        let next = self.reserved.last().map(|(_, slot)| self.allocator.cycle().after(*slot));
        assert_eq!(Some(content.cursor), next.map(|next| self.allocator.cycle().cursor(next)));
    }

    /// The slots that were reserved follow one another, whatever became of the pods.
    fn check(&self) {
        for pair in self.reserved.windows(2) {
            assert_eq!(pair[1].1, self.allocator.cycle().after(pair[0].1), "{:?}", self.reserved);
        }
        for (token, slots) in &self.replies {
            assert!(
                slots.len() == 1 || self.reserved.iter().all(|(known, _)| known != token),
                "{token:?} {slots:?}"
            );
        }
    }

    fn tick(&mut self) {
        self.clock += Duration::from_millis(600);
        for replica in 0..REPLICAS {
            self.handle(replica, Event::Tick);
        }
    }
}

/// Runs `pods` pods, and returns how often each group was reserved since the object was created.
fn run(seed: u64, weights: &[u32], pods: u64, deletes: bool) -> Vec<u32> {
    explore(World::new(weights, true), seed, pods, deletes)
}

fn explore(mut world: World, seed: u64, pods: u64, deletes: bool) -> Vec<u32> {
    let mut dice = Dice::new(seed);
    let mut next = 0;
    while next < pods
        || world.calls.iter().any(Option::is_some)
        || world.replies.len() < usize::try_from(next).unwrap()
    {
        match dice.roll(8) {
            0 | 1 if next < pods => {
                world.request(dice.roll(REPLICAS), Token(next));
                next += 1;
            }
            // The API server sends a request again, to any replica.
            2 if next > 0 && !deletes => {
                let token = Token(next - 1);
                world.request(dice.roll(REPLICAS), token);
            }
            3 => world.tick(),
            4 if deletes && dice.roll(10) == 0 => {
                world.version += 1;
                world.object = None;
            }
            5 => world.answer(dice.roll(REPLICAS), true),
            _ => world.answer(dice.roll(REPLICAS), false),
        }
        world.check();
    }
    let mut counts = vec![0; world.allocator.policy().groups().len()];
    for (_, slot) in &world.reserved {
        let all = world.allocator.policy().all();
        counts[world.allocator.group_over_time(*slot, &Occupancy::default(), all).unwrap()] += 1;
    }
    counts
}

#[test]
fn every_pod_takes_the_next_slot_once() {
    for seed in 0..200 {
        assert_eq!(run(seed, &[9, 1], 40, false), [36, 4], "seed {seed}");
        assert_eq!(run(seed, &[80, 20], 20, false), [16, 4], "seed {seed}");
    }
}

#[test]
fn without_a_cursor_slots_do_not_follow_one_another() {
    let found = std::panic::catch_unwind(|| explore(World::new(&[9, 1], false), 1, 40, false)).is_err();
    assert!(found, "no history fails without a cursor");
}

#[test]
fn deleted_ledger_begins_anew() {
    for seed in 0..200 {
        run(seed, &[4, 1], 30, true);
    }
}
