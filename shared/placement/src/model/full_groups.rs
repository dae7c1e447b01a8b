//! The model of groups with a maximum: pods are not placed while every group is full.

use super::checks::{deviation, pods_by_group};
use super::dice::Dice;
use super::setup::{Mechanism, Setup};
use super::world::World;

/// Base, weight and maximum of each group.
type Groups = [(u32, u32, Option<u32>)];

/// A controller creates at least 300 pods through three replicas while the workload is scaled up and down.
fn run(seed: u64, groups: &Groups, setup: &Setup) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut world = World::new(3, 0, setup);
    while world.created < 300 {
        world.scale(1 + dice.roll(30), setup)?;
        while !world.is_settled() || world.server.active() != world.desired {
            match dice.pick(&world.actions()) {
                Some(action) => world.act(action, setup)?,
                None => world.finish(setup)?,
            }
        }
        world.run(setup)?;
        check(&world, groups, setup).map_err(|failure| format!("{failure}, seed {seed}"))?;
    }
    Ok(())
}

/// No group has more pods than it may, and no pod is unplaced while a group has room.
fn check(world: &World, groups: &Groups, setup: &Setup) -> Result<(), String> {
    let pods = pods_by_group(world, setup);
    for (pods, (.., max)) in pods.iter().zip(groups) {
        if max.is_some_and(|max| *pods > max) {
            return Err(format!("{pods} pods in a group of at most {max:?}"));
        }
    }
    let room = groups.iter().try_fold(0, |room, (.., max)| Some(room + max.as_ref()?));
    let desired = u32::try_from(world.desired).unwrap();
    let placed = pods.iter().sum::<u32>();
    let expected = room.map_or(desired, |room| desired.min(room));
    if placed != expected {
        return Err(format!("{placed} pods are placed instead of {expected}"));
    }
    match deviation(world, setup) {
        0 => Ok(()),
        deviation => Err(format!("off by {deviation} pods: {pods:?}")),
    }
}

const CASES: [&Groups; 3] = [
    &[(0, 80, None), (0, 20, Some(3))],
    &[(0, 1, Some(8)), (0, 1, Some(4))],
    &[(2, 1, Some(6)), (0, 3, Some(5)), (0, 1, Some(2))],
];

#[test]
fn full_groups_take_no_pod_and_others_take_theirs() {
    for groups in CASES {
        for seed in 0..30 {
            let ended = run(seed, groups, &Setup::with_limits(groups));
            ended.unwrap_or_else(|failure| panic!("{groups:?}: {failure}"));
        }
    }
}

#[test]
fn histories_without_a_limit_fail() {
    for groups in CASES {
        let setup = Setup::with_limits(groups).without(Mechanism::Limit);
        assert!((0..3).any(|seed| run(seed, groups, &setup).is_err()), "{groups:?}");
    }
}
