//! All histories of small worlds.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{available_parallelism, scope};
use std::time::Instant;

use super::action::Action;
use super::checks::{check_repeated, check_settled};
use super::setup::{Mechanism, Setup};
use super::world::World;

/// Parts of the set of known states, so that explorers rarely wait for each other.
const PARTS: u64 = 64;
/// States between two progress messages of the long exploration.
const PROGRESS: usize = 10_000_000;

/// How far to explore.
#[derive(Clone, Copy)]
struct Bounds {
    pods: usize,
    /// Faults of one history.
    faults: usize,
    /// Pods that may be abandoned at a time.
    abandoned: usize,
    /// How often a replica may reconcile before the world has settled.
    reconciles: usize,
}

/// The actions so far, the last first.
struct Trail(Action, Option<Arc<Trail>>);

/// A world, what may still happen in it, and its history.
struct State {
    world: World,
    faults: usize,
    reconciles: usize,
    trail: Option<Arc<Trail>>,
}

impl State {
    /// A hash of what distinguishes this state from others. Of a thousand million states two share one with a probability of 1/20;
    /// whole states would take more memory than machines have.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.world.key(), self.faults, self.reconciles).hash(&mut hasher);
        hasher.finish()
    }

    /// The states after each action that can happen next.
    fn successors(&self, bounds: Bounds, setup: &Setup) -> Result<Vec<Self>, String> {
        let Self { world, faults, reconciles, trail } = self;
        let failure = |failure: String| with_history(&failure, trail.as_deref());
        let loose_ends = world.loose_ends();
        if world.is_settled() && loose_ends.is_empty() {
            check_settled(world, setup).map_err(failure)?;
        }
        let reconcile = (0..2).filter(|_| *reconciles > 0).map(Action::Reconcile);
        let successors = world.actions().into_iter().map(|action| (action, *faults, *reconciles));
        let successors = successors.chain(reconcile.map(|action| (action, *faults, reconciles - 1)));
        let successors =
            successors.chain(loose_ends.into_iter().map(|end| (Action::Fault(end), *faults, *reconciles)));
        let with_fault = world.faults(bounds.abandoned).into_iter().filter(|_| *faults > 0);
        let with_fault = with_fault.map(|fault| (Action::Fault(fault), faults - 1, *reconciles));
        let after = successors.chain(with_fault).map(|(action, faults, reconciles)| {
            let mut world = world.clone();
            let trail = Some(Arc::new(Trail(action, trail.clone())));
            let acted = world.act(action, setup);
            // Before it is known whether the state is new: another history may lead to it without this response.
            let checked = acted.and_then(|()| match action {
                Action::Respond(_) => check_repeated(&world, setup),
                _ => Ok(()),
            });
            checked.map_err(|failure| with_history(&failure, trail.as_deref()))?;
            Ok(Self { world, faults, reconciles, trail })
        });
        after.collect()
    }
}

/// State that all explorers of one world share.
struct Exploration {
    explorers: usize,
    seen: Vec<Mutex<HashSet<u64>>>,
    states: AtomicUsize,
    work: Mutex<Work>,
    changed: Condvar,
    /// Whether an explorer waits for work.
    starving: AtomicBool,
    ended: AtomicBool,
}

#[derive(Default)]
struct Work {
    open: Vec<State>,
    waiting: usize,
    failure: Option<String>,
}

impl Exploration {
    /// Remembers the state; whether it was unknown.
    fn is_new(&self, state: &State) -> bool {
        let key = state.key();
        let part = usize::try_from(key % PARTS).unwrap();
        let new = self.seen[part].lock().unwrap().insert(key);
        if new && (self.states.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(PROGRESS) {
            println!("{} million states so far", self.states.load(Ordering::Relaxed) / 1_000_000);
        }
        new
    }

    /// Explores, together with the other explorers, until no state is left.
    fn explore(&self, bounds: Bounds, setup: &Setup) {
        while let Some(mut open) = self.take() {
            while let Some(state) = open.pop().filter(|_| !self.ended.load(Ordering::Relaxed)) {
                let successors = catch_unwind(AssertUnwindSafe(|| state.successors(bounds, setup)));
                match successors.unwrap_or_else(|_| Err(with_history("a panic", state.trail.as_deref()))) {
                    Ok(after) => open.extend(after.into_iter().filter(|state| self.is_new(state))),
                    Err(failure) => {
                        let mut work = self.work.lock().unwrap();
                        work.failure.get_or_insert(failure);
                        self.end(&work);
                    }
                }
                if open.len() > 1 && self.starving.swap(false, Ordering::Relaxed) {
                    // The oldest states have the most successors.
                    self.work.lock().unwrap().open.extend(open.drain(..open.len() / 2));
                    self.changed.notify_all();
                }
            }
        }
    }

    /// States that another explorer has handed over; `None` at the end.
    fn take(&self) -> Option<Vec<State>> {
        let mut work = self.work.lock().unwrap();
        work.waiting += 1;
        while work.open.is_empty() && !self.ended.load(Ordering::Relaxed) {
            if work.waiting == self.explorers {
                self.end(&work);
                break;
            }
            self.starving.store(true, Ordering::Relaxed);
            work = self.changed.wait(work).unwrap();
        }
        work.waiting -= 1;
        (!self.ended.load(Ordering::Relaxed)).then(|| std::mem::take(&mut work.open))
    }

    /// Stops all explorers. Needs the lock, because an explorer could begin to wait just now.
    fn end(&self, _: &Work) {
        self.ended.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

/// Explores all histories on all processors. Returns the number of states, or a history that fails.
fn explore(bounds: Bounds, setup: &Setup) -> Result<usize, String> {
    let Bounds { pods, faults, reconciles, .. } = bounds;
    let start = State { world: World::new(2, pods, setup), faults, reconciles, trail: None };
    let exploration = Exploration {
        explorers: available_parallelism().map_or(1, usize::from),
        seen: (0..PARTS).map(|_| Mutex::default()).collect(),
        states: AtomicUsize::new(0),
        work: Mutex::default(),
        changed: Condvar::new(),
        starving: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    };
    exploration.is_new(&start);
    exploration.work.lock().unwrap().open.push(start);
    scope(|scope| {
        for _ in 0..exploration.explorers {
            scope.spawn(|| exploration.explore(bounds, setup));
        }
    });
    let failure = exploration.work.into_inner().unwrap().failure;
    failure.map_or_else(|| Ok(exploration.states.into_inner()), Err)
}

fn with_history(failure: &str, mut trail: Option<&Trail>) -> String {
    let mut actions = Vec::new();
    while let Some(Trail(action, before)) = trail {
        actions.push(*action);
        trail = before.as_deref();
    }
    actions.reverse();
    format!("{failure}, after {actions:?}")
}

#[test]
fn small_worlds_keep_all_guarantees() {
    let small = [(3, 0, 0), (2, 1, 0), (2, 0, 1)];
    let large = [(4, 0, 0), (3, 0, 1), (2, 1, 1), (2, 2, 0), (3, 1, 0), (4, 1, 0)];
    let worlds = small.into_iter().chain(large.into_iter().filter(|_| super::is_long()));
    for (pods, faults, reconciles) in worlds {
        let begun = Instant::now();
        let explored =
            explore(Bounds { pods, faults, abandoned: 1, reconciles }, &Setup::new(&[(0, 1), (0, 1)]));
        let states = explored.unwrap_or_else(|failure| panic!("{failure}"));
        println!(
            "{pods} pods, {faults} faults, {reconciles} reconciles: {states} states in {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn world_without_a_mechanism_fails() {
    for (mechanism, pods, faults, reconciles) in
        [(Mechanism::Fence, 2, 0, 1), (Mechanism::SurplusCheck, 2, 1, 0), (Mechanism::Reassignment, 2, 1, 0)]
    {
        let explored = explore(
            Bounds { pods, faults, abandoned: 1, reconciles },
            &Setup::new(&[(0, 1), (0, 1)]).without(mechanism),
        );
        let failure = explored.expect_err(&format!("no history fails without {mechanism:?}"));
        println!("without {mechanism:?}: {failure}");
    }
}
