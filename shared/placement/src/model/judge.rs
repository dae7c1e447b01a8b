//! What must hold: after every turn, at rest, and when something is asked twice.

use super::setup::Setup;
use super::shares::exact_shares;
use super::turn::{Action, Fault};
use super::world::{Reply, World, request};
use crate::ledger::{
    Assignment, Call, Effect, Event, LedgerContent, Now, PodRecord, ResourceVersion, SlotReply, SlotRequest,
    Token,
};

impl World {
    /// Lets everything come to rest, and judges what has come of it.
    pub(super) fn judge_rest(&self, setup: &Setup) -> Result<Self, String> {
        let mut world = self.clone();
        let mut rounds = 0;
        loop {
            let before = (world.edition, world.version);
            for r in 0..world.replicas.len() {
                world.act(Action::Tend(r), setup)?;
                world.run(setup)?;
            }
            world.act(Action::Fault(Fault::Minute), setup)?;
            rounds += 1;
            if rounds > 2 && before == (world.edition, world.version) {
                break;
            }
            if rounds == 50 {
                return Err("it is never in order".into());
            }
        }
        if let Some((_, LedgerContent { reservations, .. })) =
            world.ledger.as_ref().filter(|(_, content)| !content.reservations.is_empty())
        {
            return Err(format!("held for ever: {reservations:?}"));
        }
        let mut slots: Vec<u32> =
            world.pods.values().filter_map(|pod| Some(pod.assignment()?.slot)).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("one slot, two pods: {slots:?}"));
        }
        if world.live() != world.wanted {
            return Err(format!("{} pods of {}", world.live(), world.wanted));
        }
        let off = world.deviation(setup);
        if off > world.excused {
            let pods: Vec<_> =
                world.pods.values().map(|pod| pod.assignment().map(|at| (at.slot, &at.group))).collect();
            return Err(format!("off by {off} whole pods, where {} are excused: {pods:?}", world.excused));
        }
        world.excused = world.excused.min(world.misfits(setup));
        world.forget();
        Ok(world)
    }

    /// By how many whole pods some group is off its share.
    fn deviation(&self, setup: &Setup) -> usize {
        let pods = self.counts(setup);
        let shares = exact_shares(setup.allocator.policy(), pods.iter().sum());
        let off = pods.iter().zip(shares).map(|(pods, share)| (f64::from(*pods) - share).abs());
        let most = off.fold(0.0, f64::max) + 1e-6;
        (1..=pods.iter().sum()).take_while(|whole| f64::from(*whole) <= most).count()
    }

    /// How many pods aren't where they would be if all had come in order: they stand beside holes.
    fn misfits(&self, setup: &Setup) -> usize {
        let pods = u32::try_from(self.pods.len()).unwrap();
        let fits = |pod: &&PodRecord| {
            pod.assignment().is_some_and(|Assignment { slot, group, .. }| {
                *slot < pods && setup.allocator.group_of(*slot) == setup.allocator.policy().index(group)
            })
        };
        self.pods.len() - self.pods.values().filter(fits).count()
    }

    /// How many pods each group has.
    pub(super) fn counts(&self, setup: &Setup) -> Vec<u32> {
        let mut counts = vec![0; setup.allocator.policy().groups().len()];
        for group in self.pods.values().filter_map(PodRecord::group) {
            counts[setup.allocator.policy().index(group).unwrap()] += 1;
        }
        counts
    }

    /// Forgets the past, which everybody has seen.
    fn forget(&mut self) {
        if self.replicas.iter().all(|replica| replica.seen == self.log.len()) {
            self.log = self.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
            self.log.sort_by_key(|(_, pod)| pod.version);
            self.forgotten = self.version;
            for replica in &mut self.replicas {
                replica.seen = self.log.len();
            }
        }
    }

    /// A dry run and a repeated call, which change nothing.
    pub(super) fn judge_repetition(&self, setup: &Setup) -> Result<(), String> {
        for r in 0..self.replicas.len() {
            let mut dry = self.clone();
            dry.replicas[r].call = None;
            dry.replicas[r].ledger = dry.replicas[r].ledger.at_rest();
            let dry_run = SlotRequest { dry_run: true, ..request(Token(u64::MAX), setup) };
            dry.alone(r, dry_run, setup)?;
            for creation in self.creations.iter().filter(|_| self.excused == 0) {
                let Reply::Placed(assignment) = &creation.reply else { continue };
                let known = |(_, content): &(ResourceVersion, LedgerContent)| {
                    content.reservation(assignment.token).is_some()
                };
                if !self.ledger.as_ref().is_some_and(known) {
                    continue;
                }
                let mut again = self.clone();
                again.replicas[r].call = None;
                again.replicas[r].ledger = again.replicas[r].ledger.at_rest();
                let repeated =
                    SlotRequest { existing: Some(assignment.clone()), ..request(Token(u64::MAX), setup) };
                let answer = again.alone(r, repeated, setup)?;
                if answer != SlotReply::Kept {
                    return Err(format!(
                        "what was placed at {assignment:?} was asked about again: {answer:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Answers one request at a replica that has nothing else to do, and checks that nothing is written.
    fn alone(&mut self, r: usize, request: SlotRequest, setup: &Setup) -> Result<SlotReply, String> {
        let (token, deadline) = (request.token, self.deadline());
        let now = Now { clock: self.clock, wall: 0, watched: self.watched(r) };
        let mut effects =
            setup.handle(&mut self.replicas[r].ledger, Event::Requested(request, deadline), &now);
        for _ in 0..10 {
            match effects.pop() {
                Some(Effect::Reply(answered, answer)) if answered == token => return Ok(answer),
                Some(Effect::Call(call @ (Call::Read | Call::List(_)))) => {
                    self.replicas[r].call = Some(call);
                    let event = self.execute(r);
                    effects = setup.handle(&mut self.replicas[r].ledger, event, &now);
                }
                other => return Err(format!("nothing should be done, but {other:?} is")),
            }
        }
        Err("no answer".into())
    }
}
