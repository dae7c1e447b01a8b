//! Worlds too large to explore, at random.

use super::setup::{Mechanism, Setup};
use super::turn::{Action, Fault};
use super::world::World;

/// `SplitMix64`: the same history for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut roll = self.0;
        roll = (roll ^ (roll >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        roll = (roll ^ (roll >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((roll ^ (roll >> 31)) % sides as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.roll(of.len())])
    }
}

/// Has a controller create at least `pods` pods through three replicas, wanting now more and now fewer at a time, and judges
/// what stands whenever it has come to rest.
fn run(pods: u64, seed: u64, setup: &Setup) -> Result<(), String> {
    let mut dice = Dice(seed);
    let mut world = World::new(3, 0, setup);
    world.copying = dice.roll(2) == 0;
    while world.created < pods {
        world.scale(1 + dice.roll(80), setup)?;
        let wild = dice.roll(3) == 0;
        while !world.settled() || world.live() != world.wanted || !world.loose_ends().is_empty() {
            let regular = world.regular();
            let action = match dice.roll(100) {
                0 if wild => rare(&mut dice, &world.faults(usize::MAX)),
                1 => dice.pick(&world.loose_ends()),
                2..5 => Some(Fault::Delete(dice.roll(world.pods.len().max(1))))
                    .filter(|_| !world.pods.is_empty() && wild),
                5 => {
                    world.act(Action::Tend(dice.roll(3)), setup)?;
                    None
                }
                _ => None,
            };
            match action.map(Action::Fault).or_else(|| dice.pick(&regular)) {
                Some(action) => world.act(action, setup)?,
                None => world.finish(setup)?,
            }
        }
        world = world
            .judge_rest(setup)
            .map_err(|wrong| format!("{wrong}, at pod {}, seed {seed}", world.created))?;
    }
    Ok(())
}

/// Something that goes wrong, each sort as likely as the others.
fn rare(dice: &mut Dice, faults: &[Fault]) -> Option<Fault> {
    let first = dice.pick(faults)?;
    let sort = |fault: &Fault| std::mem::discriminant(fault);
    let mut sorts: Vec<_> = Vec::new();
    for fault in faults {
        if !sorts.contains(&sort(fault)) {
            sorts.push(sort(fault));
        }
    }
    let one = dice.pick(&sorts).unwrap_or(sort(&first));
    dice.pick(&faults.iter().copied().filter(|fault| sort(fault) == one).collect::<Vec<_>>())
}

fn pods() -> u64 {
    if super::long() { 10_000 } else { 1_000 }
}

#[test]
fn nothing_goes_wrong() {
    let seeds = if super::long() { 20 } else { 2 };
    for groups in [
        &[(0, 80), (0, 20)][..],
        &[(0, 1), (0, 1)],
        &[(0, 50), (0, 30), (0, 20)],
        &[(3, 0), (0, 7), (0, 1), (2, 1)],
    ] {
        for seed in 0..seeds {
            run(pods(), seed, &Setup::new(groups)).unwrap_or_else(|wrong| panic!("{groups:?}: {wrong}"));
        }
    }
}

#[test]
fn each_mechanism_is_needed() {
    for mechanism in [Mechanism::Fence, Mechanism::SurplusCheck, Mechanism::Reassignment] {
        let found = (0..2).any(|seed| {
            run(1000, seed, &Setup::new(&[(0, 50), (0, 30), (0, 20)]).without(mechanism)).is_err()
        });
        assert!(found, "nobody misses the mechanism {mechanism:?}");
    }
}

/// A Job keeps the share over all that it completes, two at a time.
#[test]
fn a_job_completes() {
    let setup = &Setup::new(&[(0, 80), (0, 20)]);
    for seed in 0..20 {
        let mut dice = Dice(seed);
        let mut world = World::new(2, 2, setup);
        for completed in 0..10 {
            world.wanted = 2.min(10 - completed);
            world.run(setup).unwrap();
            let live: Vec<_> = world.live_indexes().collect();
            assert_eq!(live.len(), world.wanted, "seed {seed}");
            world.wanted = world.wanted.min(9 - completed);
            world.act(Action::Succeed(dice.pick(&live).unwrap()), setup).unwrap();
        }
        assert_eq!(world.counts(setup), [8, 2], "seed {seed}");
    }
}
