//! The model of pods without a place: they were created before the policy, or while no webhook answered. Their node or their selector shows
//! their group.

use crate::ledger::{PodPlacement, PodState};

use super::checks::check_settled;
use super::dice::Dice;
use super::setup::Setup;
use super::shares::exact_shares;
use super::world::World;

/// A workload of which some pods are unplaced: at most half of the pods of each group. The others are created through three replicas while
/// the leader reconciles. `infers` says whether the groups of unplaced pods are known.
fn run(seed: u64, setup: &Setup, infers: bool) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let desired = 10 + dice.roll(30);
    let mut world = World::new(3, 0, setup);
    let shares = exact_shares(setup.allocator.policy(), u32::try_from(desired).unwrap());
    let mut unplaced = Vec::new();
    for (group, share) in shares.iter().enumerate() {
        let half = (1..=40u32).filter(|pods| f64::from(2 * pods) <= *share).count();
        let pods = dice.roll(half + 1);
        unplaced.push(pods);
        for pod in 0..pods {
            let placement =
                if infers { PodPlacement::Inferred(group.to_string().into()) } else { PodPlacement::Unknown };
            world.server.store_pod(format!("b{group}-{pod}").into(), placement, PodState::Active);
        }
    }
    // The replicas list the pods of an owner before they place the first one.
    world.run(setup)?;
    world.scale(desired, setup)?;
    while !world.is_settled() || world.server.active() != world.desired {
        match dice.pick(&world.actions()) {
            Some(action) => world.act(action, setup)?,
            None => world.finish(setup)?,
        }
    }
    let settled = check_settled(&world, setup);
    if infers {
        let settled = settled?;
        let without_slot = settled.server.pods.values().filter(|pod| pod.assignment().is_none()).count();
        if without_slot > 0 {
            return Err(format!("{without_slot} pods have no slot"));
        }
    }
    // The webhook does not know the groups of some pods, but this model does.
    let mut pods = super::checks::pods_by_group(&world, setup);
    if !infers {
        pods.iter_mut().zip(&unplaced).for_each(|(pods, more)| *pods += u32::try_from(*more).unwrap());
    }
    let off = pods.iter().zip(&shares).map(|(pods, share)| (f64::from(*pods) - share).abs());
    match off.fold(0.0, f64::max) {
        off if off < 1.0 => Ok(()),
        off => Err(format!("off by {off} pods: {pods:?}, seed {seed}")),
    }
}

const POLICIES: [&[(u32, u32)]; 3] = [&[(0, 80), (0, 20)], &[(0, 1), (0, 1)], &[(3, 0), (0, 7), (0, 3)]];

#[test]
fn unplaced_pods_of_known_groups_count_and_get_slots() {
    for groups in POLICIES {
        for seed in 0..50 {
            let ended = run(seed, &Setup::new(groups), true);
            ended.unwrap_or_else(|failure| panic!("{groups:?}, seed {seed}: {failure}"));
        }
    }
}

#[test]
fn without_known_groups_shares_are_missed() {
    for groups in POLICIES {
        assert!((0..50).any(|seed| run(seed, &Setup::new(groups), false).is_err()), "{groups:?}");
    }
}
