//! What must hold: after every turn, at rest, and when something is asked twice.

use super::shares::exact_shares;
use super::turn::{Action, Fault};
use super::world::{Replica, Reply, World};
use crate::ledger::{Answer, Content, Effect, Event, Now, Pod, Request, Stamp, Token, Version};
use crate::rules::Rules;

impl World {
    /// What holds after every turn.
    pub(super) fn judge_turn(&self) -> Result<(), String> {
        let stuck = |replica: &&Replica| replica.ledger.waits() > 0 && replica.call.is_none();
        match self.replicas.iter().find(stuck) {
            Some(replica) => Err(format!("requests wait for nothing: {replica:?}")),
            None => Ok(()),
        }
    }

    /// Lets everything come to rest, and judges what has come of it.
    pub(super) fn judge_rest(&self, rules: &mut Rules) -> Result<Self, String> {
        let mut world = self.clone();
        let mut rounds = 0;
        loop {
            let before = (world.edition, world.version);
            for r in 0..world.replicas.len() {
                world.act(Action::Tend(r), rules)?;
                world.run(rules)?;
            }
            world.act(Action::Fault(Fault::Minute), rules)?;
            rounds += 1;
            if rounds > 2 && before == (world.edition, world.version) {
                break;
            }
            if rounds == 50 {
                return Err("it is never in order".into());
            }
        }
        if let Some((_, Content { reservations, .. })) =
            world.ledger.as_ref().filter(|(_, content)| !content.reservations.is_empty())
        {
            return Err(format!("held for ever: {reservations:?}"));
        }
        let mut slots: Vec<u32> = world.pods.values().filter_map(|pod| Some(pod.stamp()?.slot)).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("one slot, two pods: {slots:?}"));
        }
        if world.live() != world.wanted {
            return Err(format!("{} pods of {}", world.live(), world.wanted));
        }
        let off = world.deviation(rules);
        if off > world.excused {
            let pods: Vec<_> =
                world.pods.values().map(|pod| pod.stamp().map(|at| (at.slot, &at.group))).collect();
            return Err(format!("off by {off} whole pods, where {} are excused: {pods:?}", world.excused));
        }
        world.excused = world.excused.min(world.misfits(rules));
        world.forget();
        Ok(world)
    }

    /// By how many whole pods some group is off its share.
    fn deviation(&self, rules: &Rules) -> usize {
        let pods = self.counts(rules);
        let shares = exact_shares(rules.policy(), pods.iter().sum());
        let off = pods.iter().zip(shares).map(|(pods, share)| (f64::from(*pods) - share).abs());
        let most = off.fold(0.0, f64::max) + 1e-6;
        (1..=pods.iter().sum()).take_while(|whole| f64::from(*whole) <= most).count()
    }

    /// How many pods aren't where they would be if all had come in order: they stand beside holes.
    fn misfits(&self, rules: &mut Rules) -> usize {
        let pods = u32::try_from(self.pods.len()).unwrap();
        let fits = |pod: &&Pod| {
            pod.stamp().is_some_and(|Stamp { slot, group, .. }| {
                *slot < pods && rules.group(*slot) == rules.policy().index(group)
            })
        };
        self.pods.len() - self.pods.values().filter(fits).count()
    }

    /// How many pods each group has.
    pub(super) fn counts(&self, rules: &Rules) -> Vec<u32> {
        let mut counts = vec![0; rules.policy().groups().len()];
        for group in self.pods.values().filter_map(Pod::group) {
            counts[rules.policy().index(group).unwrap()] += 1;
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
    pub(super) fn judge_repetition(&self, rules: &mut Rules) -> Result<(), String> {
        for r in 0..self.replicas.len() {
            let mut dry = self.clone();
            dry.replicas[r].call = None;
            dry.replicas[r].ledger = dry.replicas[r].ledger.at_rest();
            let request = Request { dry_run: true, ..dry.request(Token(u64::MAX), rules) };
            dry.alone(r, request, rules)?;
            for creation in self.creations.iter().filter(|_| self.excused == 0) {
                let Reply::Placed(stamp) = &creation.reply else { continue };
                let known = |(_, content): &(Version, Content)| content.reservation(stamp.token).is_some();
                if !self.ledger.as_ref().is_some_and(known) {
                    continue;
                }
                let mut again = self.clone();
                again.replicas[r].call = None;
                again.replicas[r].ledger = again.replicas[r].ledger.at_rest();
                let request = Request { bears: Some(stamp.clone()), ..again.request(Token(u64::MAX), rules) };
                let answer = again.alone(r, request, rules)?;
                if answer != Answer::Kept {
                    return Err(format!("what was placed at {stamp:?} was asked about again: {answer:?}"));
                }
            }
        }
        Ok(())
    }

    /// Answers one request at a replica that has nothing else to do, and checks that nothing is written.
    fn alone(&mut self, r: usize, request: Request, rules: &mut Rules) -> Result<Answer, String> {
        let token = request.token;
        let now = Now { clock: self.clock, wall: 0, watched: self.watched(r) };
        let mut effects = self.replicas[r].ledger.handle(Event::Arrived(request), rules, &now);
        for _ in 0..10 {
            match effects.pop() {
                Some(Effect::Answer(answered, answer)) if answered == token => return Ok(answer),
                Some(call @ (Effect::Read | Effect::List(_))) => {
                    self.replicas[r].call = Some(call);
                    let event = self.execute(r);
                    effects = self.replicas[r].ledger.handle(event, rules, &now);
                }
                other => return Err(format!("nothing should be done, but {other:?} is")),
            }
        }
        Err("no answer".into())
    }
}
