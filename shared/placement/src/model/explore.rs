//! Every turn that a small world can take.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{available_parallelism, scope};
use std::time::Instant;

use super::setup::{Mechanism, Setup};
use super::turn::Action;
use super::world::World;

/// What was seen is kept in so many parts, so that explorers rarely wait for each other.
const PARTS: u64 = 64;
/// So often the long exploration tells how far it is.
const TOLD: usize = 10_000_000;

/// How far to explore.
#[derive(Clone, Copy)]
struct Bounds {
    pods: usize,
    /// How many things may go wrong in one history.
    faults: usize,
    /// How many pods may be late at once.
    late: usize,
    /// How often a replica may put things in order before all is at rest.
    tends: usize,
}

/// What has happened, the last first.
struct Trail(Action, Option<Arc<Trail>>);

/// A world on the way, what may still go wrong in it, and how it came about.
struct State {
    world: World,
    faults: usize,
    tends: usize,
    trail: Option<Arc<Trail>>,
}

impl State {
    /// What distinguishes this state from others. (A hash: among a thousand million two may share one with a chance of one in twenty,
    /// and kept whole they would take more memory than machines have.)
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.world.key(), self.faults, self.tends).hash(&mut hasher);
        hasher.finish()
    }

    /// Every turn that it can take.
    fn turns(&self, bounds: Bounds, setup: &Setup) -> Result<Vec<Self>, String> {
        let Self { world, faults, tends, trail } = self;
        let wrong = |wrong: String| story(&wrong, trail.as_deref());
        let loose_ends = world.loose_ends();
        if world.settled() && loose_ends.is_empty() {
            world.judge_rest(setup).map_err(wrong)?;
        }
        let tend = (0..2).filter(|_| *tends > 0).map(Action::Tend);
        let turns = world.regular().into_iter().map(|action| (action, *faults, *tends));
        let turns = turns.chain(tend.map(|action| (action, *faults, tends - 1)));
        let turns = turns.chain(loose_ends.into_iter().map(|end| (Action::Fault(end), *faults, *tends)));
        let mishaps = world.faults(bounds.late).into_iter().filter(|_| *faults > 0);
        let mishaps = mishaps.map(|fault| (Action::Fault(fault), faults - 1, *tends));
        let after = turns.chain(mishaps).map(|(action, faults, tends)| {
            let mut world = world.clone();
            let trail = Some(Arc::new(Trail(action, trail.clone())));
            let acted = world.act(action, setup);
            // Here, as the same may come about in another way, too.
            let judged = acted.and_then(|()| match action {
                Action::Serve(_) => world.judge_repetition(setup),
                _ => Ok(()),
            });
            judged.map_err(|wrong| story(&wrong, trail.as_deref()))?;
            Ok(Self { world, faults, tends, trail })
        });
        after.collect()
    }
}

/// What all explorers of one world share.
struct Exploration {
    explorers: usize,
    seen: Vec<Mutex<HashSet<u64>>>,
    states: AtomicUsize,
    work: Mutex<Work>,
    changed: Condvar,
    /// Whether an explorer waits for work.
    hungry: AtomicBool,
    ended: AtomicBool,
}

#[derive(Default)]
struct Work {
    open: Vec<State>,
    waiting: usize,
    wrong: Option<String>,
}

impl Exploration {
    /// Whether nobody has come here before.
    fn is_new(&self, state: &State) -> bool {
        let key = state.key();
        let part = usize::try_from(key % PARTS).unwrap();
        let new = self.seen[part].lock().unwrap().insert(key);
        if new && (self.states.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TOLD) {
            println!("{} million states so far", self.states.load(Ordering::Relaxed) / 1_000_000);
        }
        new
    }

    /// Explores with the others, until nothing is left.
    fn explore(&self, bounds: Bounds, setup: &Setup) {
        while let Some(mut open) = self.take() {
            while let Some(state) = open.pop().filter(|_| !self.ended.load(Ordering::Relaxed)) {
                let turns = catch_unwind(AssertUnwindSafe(|| state.turns(bounds, setup)));
                match turns.unwrap_or_else(|_| Err(story("a panic", state.trail.as_deref()))) {
                    Ok(after) => open.extend(after.into_iter().filter(|state| self.is_new(state))),
                    Err(wrong) => {
                        let mut work = self.work.lock().unwrap();
                        work.wrong.get_or_insert(wrong);
                        self.end(&work);
                    }
                }
                if open.len() > 1 && self.hungry.swap(false, Ordering::Relaxed) {
                    // The oldest lead farthest.
                    self.work.lock().unwrap().open.extend(open.drain(..open.len() / 2));
                    self.changed.notify_all();
                }
            }
        }
    }

    /// What others have left; none when there is nothing more.
    fn take(&self) -> Option<Vec<State>> {
        let mut work = self.work.lock().unwrap();
        work.waiting += 1;
        while work.open.is_empty() && !self.ended.load(Ordering::Relaxed) {
            if work.waiting == self.explorers {
                self.end(&work);
                break;
            }
            self.hungry.store(true, Ordering::Relaxed);
            work = self.changed.wait(work).unwrap();
        }
        work.waiting -= 1;
        (!self.ended.load(Ordering::Relaxed)).then(|| std::mem::take(&mut work.open))
    }

    /// Has all stop. (Under the lock: else somebody could begin to wait just then.)
    fn end(&self, _: &Work) {
        self.ended.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

/// Explores all histories on all processors; the number of states, or a history that ends badly.
fn explore(bounds: Bounds, setup: &Setup) -> Result<usize, String> {
    let Bounds { pods, faults, tends, .. } = bounds;
    let start = State { world: World::new(2, pods, setup), faults, tends, trail: None };
    let exploration = Exploration {
        explorers: available_parallelism().map_or(1, usize::from),
        seen: (0..PARTS).map(|_| Mutex::default()).collect(),
        states: AtomicUsize::new(0),
        work: Mutex::default(),
        changed: Condvar::new(),
        hungry: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    };
    exploration.is_new(&start);
    exploration.work.lock().unwrap().open.push(start);
    scope(|scope| {
        for _ in 0..exploration.explorers {
            scope.spawn(|| exploration.explore(bounds, setup));
        }
    });
    let wrong = exploration.work.into_inner().unwrap().wrong;
    wrong.map_or_else(|| Ok(exploration.states.into_inner()), Err)
}

fn story(wrong: &str, mut trail: Option<&Trail>) -> String {
    let mut actions = Vec::new();
    while let Some(Trail(action, before)) = trail {
        actions.push(*action);
        trail = before.as_deref();
    }
    actions.reverse();
    format!("{wrong}, after {actions:?}")
}

#[test]
fn nothing_goes_wrong() {
    let small = [(3, 0, 0), (2, 1, 0), (2, 0, 1)];
    let large = [(4, 0, 0), (3, 0, 1), (2, 1, 1), (2, 2, 0), (3, 1, 0), (4, 1, 0)];
    let worlds = small.into_iter().chain(large.into_iter().filter(|_| super::long()));
    for (pods, faults, tends) in worlds {
        let begun = Instant::now();
        let explored = explore(Bounds { pods, faults, late: 1, tends }, &Setup::new(&[(0, 1), (0, 1)]));
        let states = explored.unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{pods} pods, {faults} faults, {tends} tends: {states} states in {:?}", begun.elapsed());
    }
}

#[test]
fn each_mechanism_is_needed() {
    for (mechanism, pods, faults, tends) in
        [(Mechanism::Fence, 2, 0, 1), (Mechanism::SurplusCheck, 2, 1, 0), (Mechanism::Reassignment, 2, 1, 0)]
    {
        let explored = explore(
            Bounds { pods, faults, late: 1, tends },
            &Setup::new(&[(0, 1), (0, 1)]).without(mechanism),
        );
        let wrong = explored.expect_err(&format!("nobody misses the mechanism {mechanism:?}"));
        println!("without {mechanism:?}: {wrong}");
    }
}
