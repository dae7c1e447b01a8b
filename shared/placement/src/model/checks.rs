//! Invariants: of a settled world, and of a repeated request.

use super::action::{Action, Fault};
use super::setup::Setup;
use super::shares::exact_shares;
use super::world::{Reply, World, request};
use crate::ledger::{Assignment, Call, Effect, Event, PodRecord, SlotReply, SlotRequest, Token};

/// Reconciles until nothing changes, and checks the result. Returns the world then, without its past.
pub(super) fn check_settled(world: &World, setup: &Setup) -> Result<World, String> {
    let mut world = world.clone();
    reconcile(&mut world, setup)?;
    let reserved = world.server.ledger.iter().flat_map(|(_, content)| &content.reservations);
    if let Some(reservation) = reserved.into_iter().next() {
        return Err(format!("never dropped: {reservation:?}"));
    }
    let pods = world.server.pods.values();
    let mut slots: Vec<u32> = pods.filter_map(|pod| Some(pod.assignment()?.slot)).collect();
    slots.sort_unstable();
    if slots.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("two pods in one slot: {slots:?}"));
    }
    if world.server.active() != world.desired {
        return Err(format!("{} pods instead of {}", world.server.active(), world.desired));
    }
    let deviation = deviation(&world, setup);
    if deviation > world.tolerated {
        let pods = world.server.pods.values();
        let pods: Vec<_> = pods.map(|pod| pod.assignment().map(|own| (own.slot, &own.group))).collect();
        return Err(format!("off by {deviation} pods where {} are tolerated: {pods:?}", world.tolerated));
    }
    world.tolerated = world.tolerated.min(out_of_order(&world, setup));
    if world.replicas.iter().all(|replica| replica.received == world.server.events.len()) {
        world.server.compact();
        for replica in &mut world.replicas {
            replica.received = world.server.events.len();
        }
    }
    Ok(world)
}

fn reconcile(world: &mut World, setup: &Setup) -> Result<(), String> {
    for round in 1..=50 {
        let before = (world.server.ledger_version, world.server.pod_version);
        for r in 0..world.replicas.len() {
            world.act(Action::Reconcile(r), setup)?;
            world.run(setup)?;
        }
        world.act(Action::Fault(Fault::PassMinute), setup)?;
        if round > 2 && before == (world.server.ledger_version, world.server.pod_version) {
            return Ok(());
        }
    }
    Err("reconciling never ends".into())
}

/// By how many whole pods some group is off its exact share.
pub(super) fn deviation(world: &World, setup: &Setup) -> usize {
    let pods = pods_by_group(world, setup);
    let shares = exact_shares(setup.allocator.policy(), pods.iter().sum());
    let deviations = pods.iter().zip(shares).map(|(pods, share)| (f64::from(*pods) - share).abs());
    let most = deviations.fold(0.0, f64::max) + 1e-6;
    (1..=pods.iter().sum()).take_while(|whole| f64::from(*whole) <= most).count()
}

/// How many pods have another slot or group than if all had been created in order.
fn out_of_order(world: &World, setup: &Setup) -> usize {
    let pods = u32::try_from(world.server.pods.len()).unwrap();
    let in_order = |pod: &&PodRecord| {
        pod.assignment().is_some_and(|Assignment { slot, group, .. }| {
            *slot < pods && setup.allocator.group_of(*slot) == setup.allocator.policy().index(group)
        })
    };
    world.server.pods.len() - world.server.pods.values().filter(in_order).count()
}

pub(super) fn pods_by_group(world: &World, setup: &Setup) -> Vec<u32> {
    let mut counts = vec![0; setup.allocator.policy().groups().len()];
    for group in world.server.pods.values().filter_map(PodRecord::group) {
        counts[setup.allocator.policy().index(group).unwrap()] += 1;
    }
    counts
}

/// Neither a dry run nor a repeated request writes anything, and a pod that has a reservation keeps its assignment.
pub(super) fn check_repeated(world: &World, setup: &Setup) -> Result<(), String> {
    for r in 0..world.replicas.len() {
        let dry_run = SlotRequest { dry_run: true, ..request(Token(u64::MAX), setup) };
        reply_to(world, r, dry_run, setup)?;
        for admission in world.admissions.iter().filter(|_| world.tolerated == 0) {
            let Reply::Placed(assignment) = &admission.reply else { continue };
            let stored = world.server.ledger.as_ref();
            if stored.is_none_or(|(_, content)| content.reservation(assignment.token).is_none()) {
                continue;
            }
            let repeated =
                SlotRequest { existing: Some(assignment.clone()), ..request(Token(u64::MAX), setup) };
            let reply = reply_to(world, r, repeated, setup)?;
            if reply != SlotReply::Kept {
                return Err(format!("a repeated request for {assignment:?} got {reply:?}"));
            }
        }
    }
    Ok(())
}

/// The reply to a request that is the only one at this replica, for which nothing may be written.
fn reply_to(world: &World, r: usize, request: SlotRequest, setup: &Setup) -> Result<SlotReply, String> {
    let mut world = world.clone();
    let token = request.token;
    let deadline = world.deadline();
    let now = world.now(r);
    let mut ledger = world.replicas[r].ledger.at_rest();
    let mut event = Event::Requested(request, deadline);
    for _ in 0..10 {
        match setup.handle(&mut ledger, event, &now).pop() {
            Some(Effect::Reply(to, reply)) if to == token => return Ok(reply),
            Some(Effect::Call(call @ (Call::Read | Call::List(_)))) => {
                world.replicas[r].call = Some(call);
                event = world.execute(r);
            }
            other => return Err(format!("a request that must not write has the effect {other:?}")),
        }
    }
    Err("a request gets no reply".into())
}
