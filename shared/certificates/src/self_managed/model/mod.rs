//! A model of the state machine's environment: replicas that read and write at any time, conflict, crash and have different
//! clocks, operators who request rotations, other writers, and API servers that see a caBundle late.

mod invariants;
mod world;

use proptest::prelude::*;
use tokio::time::Duration;

use self::invariants::check_all;
use self::world::{Action, HOLD, HOUR, SKEW, START, WEBHOOKS, World, service};

const REPLICAS: usize = 3;

fn actions(with_resets: bool) -> impl Strategy<Value = Vec<Action>> {
    let replica = || 0..REPLICAS;
    let other = prop_oneof![
        6 => (1..HOLD + 20).prop_map(Action::Advance),
        1 => (1..5 * HOUR).prop_map(Action::Advance),
        4 => replica().prop_map(Action::ReadSecret),
        4 => replica().prop_map(Action::ReadConfiguration),
        4 => replica().prop_map(Action::Plan),
        4 => replica().prop_map(Action::WriteBundles),
        4 => replica().prop_map(Action::WriteSecret),
        16 => replica().prop_map(Action::Sync),
        2 => replica().prop_map(Action::Crash),
        2 => prop_oneof![Just("ca"), Just("leaf")].prop_map(Action::Rotate),
        1 => Just(Action::WipeSecret),
        1 => Just(Action::DeleteSecret),
    ];
    let reset = (0..WEBHOOKS, prop_oneof![0..4_usize, 4..100_usize])
        .prop_map(|(i, back)| Action::ResetBundle(i, back));
    let action = prop_oneof![12 => other, u32::from(with_resets) => reset];
    prop::collection::vec(action, 1..80)
}

fn foreign() -> impl Strategy<Value = String> {
    let ca = service().issue_ca(START, Duration::from_secs(1000 * HOUR)).unwrap();
    let bundle = format!("# another writer\n{}", ca.certificate().to_pem());
    prop_oneof![3 => Just(String::new()), 1 => Just(bundle)]
}

fn skews() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(-SKEW..SKEW, REPLICAS)
}

proptest! {
    #[test]
    fn leaf_in_service_is_always_trusted(actions in actions(false), skews in skews(), bundle in foreign()) {
        check_all(World::new(&skews, &bundle), &actions);
    }

    #[test]
    fn change_of_leaf_keeps_trust_while_others_reset_bundles(
        actions in actions(true), skews in skews(), bundle in foreign(),
    ) {
        check_all(World::new(&skews, &bundle), &actions);
    }
}

/// Between the preparation of a CA and the expiry of the old CA's last leaf no replica reconciled.
#[test]
fn ca_that_was_replaced_too_late_leaves_the_bundles() {
    let zero = Action::Sync(0);
    let one = Action::Sync(1);
    let late = [Action::Advance(16_100), Action::Advance(16_739), one.clone()];
    let before = [
        zero.clone(),
        zero.clone(),
        zero.clone(),
        Action::Advance(2468),
        Action::Rotate("ca"),
        zero.clone(),
        zero,
        one,
    ];
    check_all(World::new(&[-219, 474, 0], ""), before.iter().chain(&late));
}

/// Another writer emptied the Secret and reset a caBundle while the next replica to reconcile served an expired leaf.
#[test]
fn leaf_missing_in_the_secret_keeps_its_ca() {
    let zero = Action::Sync(0);
    let one = Action::Sync(1);
    let renewed = [zero.clone(), zero.clone(), one.clone(), Action::Advance(24_243), one.clone()];
    let wiped = [Action::Advance(11_757), zero, Action::WipeSecret, Action::Advance(1)];
    let reset = [Action::ResetBundle(0, 4), one];
    check_all(World::new(&[0, 0, 0], ""), renewed.iter().chain(&wiped).chain(&reset));
}

#[test]
fn first_certificate_is_served_without_a_hold() {
    let mut world = World::new(&[0, 0], "\n");
    for _ in 0..4 {
        world.act(&Action::Sync(0));
        world.act(&Action::Sync(1));
    }
    let served: Vec<_> = world.replicas.iter().map(|process| process.served.clone().unwrap()).collect();
    assert_eq!(served[0], served[1]);
    assert_eq!(world.elapsed, 0);
    assert_eq!(world.stored().retired(), []);
}
