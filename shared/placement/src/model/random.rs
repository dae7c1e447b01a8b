//! Random histories of worlds that are too large to explore.

use std::mem::discriminant;

use super::action::{Action, Fault};
use super::checks::{check_settled, pods_by_group};
use super::dice::Dice;
use super::setup::{Mechanism, Setup};
use super::world::World;

/// When the replicas read the owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnerReads {
    /// As soon as it is scaled.
    AtOnce,
    /// Each at another time, and after each list of its pods.
    Late,
    /// Each at another time.
    LateWithoutLists,
}

/// A controller creates at least `pods` pods through three replicas while the workload is scaled up and down. The world is checked
/// each time that it has settled.
fn run(pods: u64, seed: u64, setup: &Setup, reads: OwnerReads) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut world = World::new(3, 0, setup);
    world.copies = dice.roll(2) == 0;
    world.reads_owner = reads != OwnerReads::LateWithoutLists;
    while world.created < pods {
        match reads {
            OwnerReads::AtOnce => world.scale(1 + dice.roll(80), setup)?,
            _ => world.scale_unread(1 + dice.roll(80)),
        }
        // Rejected pods leave holes where a replica knows a larger number of pods than the owner has.
        let has_faults = dice.roll(3) == 0 && reads == OwnerReads::AtOnce;
        while !world.is_settled() || world.server.active() != world.desired || !world.loose_ends().is_empty()
        {
            let regular = world.actions();
            let action = match dice.roll(100) {
                0 if has_faults => random_fault(&mut dice, &world.faults(usize::MAX)),
                1 => dice.pick(&world.loose_ends()),
                2..5 => Some(Fault::DeletePod(dice.roll(world.server.pods.len().max(1))))
                    .filter(|_| !world.server.pods.is_empty() && has_faults),
                5 => {
                    world.act(Action::Reconcile(dice.roll(3)), setup)?;
                    None
                }
                6 if reads != OwnerReads::AtOnce => {
                    world.read_owner(dice.roll(3), setup)?;
                    None
                }
                _ => None,
            };
            match action.map(Action::Fault).or_else(|| dice.pick(&regular)) {
                Some(action) => world.act(action, setup)?,
                None => world.finish(setup)?,
            }
        }
        for replica in 0..3 {
            world.read_owner(replica, setup)?;
        }
        world = check_settled(&world, setup)
            .map_err(|failure| format!("{failure}, at pod {}, seed {seed}", world.created))?;
    }
    Ok(())
}

/// A fault, each kind with the same probability.
fn random_fault(dice: &mut Dice, faults: &[Fault]) -> Option<Fault> {
    let mut kinds = Vec::new();
    for kind in faults.iter().map(discriminant) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let kind = dice.pick(&kinds)?;
    let of_kind: Vec<_> = faults.iter().copied().filter(|fault| discriminant(fault) == kind).collect();
    dice.pick(&of_kind)
}

fn pods() -> u64 {
    if super::is_long() { 10_000 } else { 1_000 }
}

#[test]
fn random_histories_keep_all_guarantees() {
    let seeds = if super::is_long() { 20 } else { 2 };
    for groups in [
        &[(0, 80), (0, 20)][..],
        &[(0, 1), (0, 1)],
        &[(0, 50), (0, 30), (0, 20)],
        &[(3, 0), (0, 7), (0, 1), (2, 1)],
    ] {
        for seed in 0..seeds {
            run(pods(), seed, &Setup::new(groups), OwnerReads::AtOnce)
                .unwrap_or_else(|failure| panic!("{groups:?}: {failure}"));
        }
    }
}

#[test]
fn random_histories_without_a_mechanism_fail() {
    for mechanism in [Mechanism::Fence, Mechanism::SurplusCheck, Mechanism::Reassignment] {
        let found = (0..2).any(|seed| {
            let setup = Setup::new(&[(0, 50), (0, 30), (0, 20)]).without(mechanism);
            run(1000, seed, &setup, OwnerReads::AtOnce).is_err()
        });
        assert!(found, "no history fails without {mechanism:?}");
    }
}

#[test]
fn replicas_that_read_the_owner_at_different_times_keep_all_guarantees() {
    let groups = [(0, 80), (0, 20)];
    for seed in 0..if super::is_long() { 20 } else { 4 } {
        let ended = run(pods() / 2, seed, &Setup::new(&groups), OwnerReads::Late);
        ended.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn histories_without_a_read_of_the_owner_after_a_list_fail() {
    let setup = Setup::new(&[(0, 50), (0, 30), (0, 20)]);
    assert!((0..4).any(|seed| run(500, seed, &setup, OwnerReads::LateWithoutLists).is_err()));
}

/// Completed pods of a Job keep their slots.
#[test]
fn job_with_two_active_pods_keeps_shares_of_all_pods() {
    let setup = &Setup::new(&[(0, 80), (0, 20)]);
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut world = World::new(2, 2, setup);
        for completed in 0..10 {
            world.desired = 2.min(10 - completed);
            world.run(setup).unwrap();
            let live: Vec<_> = world.server.active_indexes().collect();
            assert_eq!(live.len(), world.desired, "seed {seed}");
            world.desired = world.desired.min(9 - completed);
            world.act(Action::Succeed(dice.pick(&live).unwrap()), setup).unwrap();
        }
        assert_eq!(pods_by_group(&world, setup), [8, 2], "seed {seed}");
    }
}
