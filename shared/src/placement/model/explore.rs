//! Every turn that a small world can take.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use super::turn::Action;
use super::world::{World, rules};
use crate::placement::rules::{Mechanism, Rules};

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
struct Trail(Action, Option<Rc<Trail>>);

/// Explores all histories; the number of states, or a history that ends badly.
fn explore(bounds: Bounds, rules: &mut Rules) -> Result<usize, String> {
    let start = (World::new(2, bounds.pods), bounds.faults, bounds.tends, None::<Rc<Trail>>);
    let mut seen = HashSet::from([(start.0.key(), start.1, start.2)]);
    let mut open = vec![start];
    while let Some((world, faults, tends, trail)) = open.pop() {
        let mut judged = Ok(());
        if world.settled() && world.loose_ends().is_empty() {
            judged = world.judge_rest(rules).map(drop);
        }
        if trail.as_deref().is_some_and(|Trail(last, _)| matches!(last, Action::Serve(_))) {
            judged = judged.and_then(|()| world.judge_repetition(rules));
        }
        judged.map_err(|wrong| story(&wrong, trail.as_deref()))?;
        let loose_ends = world.loose_ends();
        let tend = (0..2).filter(|_| tends > 0).map(Action::Tend);
        let turns = world.regular().into_iter().map(|action| (action, faults, tends));
        let turns = turns.chain(tend.map(|action| (action, faults, tends - 1)));
        let turns = turns.chain(loose_ends.into_iter().map(|end| (Action::Fault(end), faults, tends)));
        let mishaps = world.faults(bounds.late).into_iter().filter(|_| faults > 0);
        let mishaps = mishaps.map(|fault| (Action::Fault(fault), faults - 1, tends));
        for (action, faults, tends) in turns.chain(mishaps) {
            let mut next = world.clone();
            let trail = Some(Rc::new(Trail(action, trail.clone())));
            next.act(action, rules).map_err(|wrong| story(&wrong, trail.as_deref()))?;
            if seen.insert((next.key(), faults, tends)) {
                open.push((next, faults, tends, trail));
            }
        }
    }
    Ok(seen.len())
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
    let whole = |(pods, faults, tends)| {
        let begun = Instant::now();
        let explored = explore(Bounds { pods, faults, late: 1, tends }, &mut rules(&[(0, 1), (0, 1)]));
        let states = explored.unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{pods} pods, {faults} faults, {tends} tends: {states} states in {:?}", begun.elapsed());
    };
    // Beside one another: the large ones take an hour of a processor.
    std::thread::scope(|scope| worlds.for_each(|world| drop(scope.spawn(move || whole(world)))));
}

#[test]
fn each_mechanism_is_needed() {
    for (mechanism, pods, faults, tends) in
        [(Mechanism::Fence, 2, 0, 1), (Mechanism::Bound, 2, 1, 0), (Mechanism::Restamping, 2, 1, 0)]
    {
        let explored = explore(
            Bounds { pods, faults, late: 1, tends },
            &mut rules(&[(0, 1), (0, 1)]).without(mechanism),
        );
        let wrong = explored.expect_err(&format!("nobody misses the mechanism {mechanism:?}"));
        println!("without {mechanism:?}: {wrong}");
    }
}
