//! What the ledger lives in. It answers the machine's calls as the API server does, and judges what comes of it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::shares::exact_shares;
use crate::placement::ledger::{
    Answer, Content, Effect, Event, Ledger, Now, Phase, Place, Pod, PodName, Request, Settings, Stamp, Token,
    Version,
};
use crate::placement::policy::{Group, Policy, Tie};
use crate::placement::rules::Rules;

/// One turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The controller's next pod comes before this replica.
    Arrive(usize),
    /// The call that the replica has under way is executed and answered.
    Serve(usize),
    /// The replica sees the next event of its watch.
    Watch(usize),
    /// The pod that this request asked for is stored.
    Persist(usize),
    /// A pod is moved.
    Move(usize),
    /// The replica puts things in order.
    Tend(usize),
    /// The controller removes what is too much.
    ScaleDown,
    /// The pod with this index has done its work.
    Succeed(usize),
    /// What may go wrong.
    Fault(Fault),
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The replica dies, and another takes its place.
    Crash(usize),
    /// The replica dies when its write has been executed, before it knows.
    CrashAfterWrite(usize),
    /// The write is executed, and its answer is lost.
    LoseAnswer(usize),
    /// The write seems to fail, and may be executed later.
    Delay(usize),
    /// A write that seemed to fail is executed.
    LateWrite(usize),
    /// The watch breaks; what happened meanwhile is seen as its result alone.
    Relist(usize),
    /// The pod is refused after it was placed.
    Reject(usize),
    /// The connection breaks, and the request is sent again, to this replica.
    Retry(usize, usize),
    /// The pod with this index is deleted.
    Delete(usize),
    /// A minute passes: who waits is answered, and the controller gives up what isn't stored yet.
    Minute,
    /// The ledger is deleted.
    DeleteLedger,
    /// What the controller gave up never comes.
    Vanish(usize),
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) wanted: usize,
    clock: Duration,
    /// Of the ledger; only equal or not matters of it, so that it has a count of its own.
    edition: Version,
    ledger: Option<(Version, Content)>,
    /// Of the pods.
    version: Version,
    pub(super) pods: BTreeMap<PodName, Pod>,
    /// What watches see, in order.
    log: Vec<(PodName, Pod)>,
    /// Everybody has seen everything up to here.
    forgotten: Version,
    pub(super) replicas: Vec<Replica>,
    pub(super) creations: Vec<Creation>,
    moves: Vec<(PodName, Version, Stamp)>,
    /// Writes that seemed to fail.
    late_writes: Vec<(Option<Version>, Content)>,
    /// How many pods the controller has still to create in this batch.
    batch: usize,
    pub(super) created: u64,
    /// Whether some pods are copied from others, with all that they bear.
    pub(super) copying: bool,
    /// How many pods may be where they shouldn't be, because of something that nobody can make good.
    pub(super) excused: usize,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    ledger: Ledger,
    call: Option<Effect>,
    /// How many entries of the log its API server has shown it.
    seen: usize,
}

/// A pod on its way through admission.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Creation {
    token: Token,
    bears: Option<Stamp>,
    reply: Reply,
    /// Whether the controller waits for it no more.
    given_up: bool,
}

/// What admission said of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reply {
    Due,
    Placed(Stamp),
    Unplaced,
}

/// The rules of groups with these bases and weights, named by their index.
pub(super) fn rules(groups: &[(u32, u32)]) -> Rules {
    let group = |(index, (base, weight)): (usize, &(u32, u32))| Group {
        name: index.to_string().into(),
        node_labels: BTreeMap::from([("group".to_owned(), index.to_string())]),
        base: *base,
        weight: *weight,
        ..Group::default()
    };
    let policy = Policy::new(groups.iter().enumerate().map(group).collect(), Tie::First).unwrap();
    let at_once = Settings { settle: Duration::ZERO, pause: Duration::ZERO, ..Settings::default() };
    Rules::new(policy).with_settings(at_once)
}

impl World {
    pub(super) fn new(replicas: usize, wanted: usize) -> Self {
        let owner = u32::try_from(wanted).unwrap();
        let mut ledger = Ledger::default();
        ledger.handle(Event::Owner(Some(owner)), &mut rules(&[(0, 1)]), &Now::default());
        Self {
            wanted,
            clock: Duration::ZERO,
            edition: 1,
            ledger: None,
            version: 1,
            pods: BTreeMap::new(),
            log: Vec::new(),
            forgotten: 0,
            replicas: vec![Replica { ledger, call: None, seen: 0 }; replicas],
            creations: Vec::new(),
            moves: Vec::new(),
            late_writes: Vec::new(),
            batch: wanted,
            created: 0,
            copying: false,
            excused: 0,
        }
    }

    /// What distinguishes this world from others, whichever replica is which.
    pub(super) fn key(&self) -> u64 {
        fn hash(of: impl Hash) -> u64 {
            let mut hasher = DefaultHasher::new();
            of.hash(&mut hasher);
            hasher.finish()
        }
        let Self {
            wanted,
            clock,
            edition,
            version,
            ledger,
            pods,
            log,
            creations,
            moves,
            late_writes,
            batch,
            ..
        } = self;
        let mut replicas: Vec<_> = self.replicas.iter().map(hash).collect();
        replicas.sort_unstable();
        let world = (wanted, clock, edition, version, ledger, pods, log);
        hash((world, creations, moves, late_writes, batch, self.excused, replicas))
    }

    /// What the machinery itself may do next.
    pub(super) fn regular(&self) -> Vec<Action> {
        let replicas = || 0..self.replicas.len();
        let mut actions = Vec::new();
        actions.extend(replicas().filter(|_| self.batch > 0).map(Action::Arrive));
        actions.extend(replicas().filter(|r| self.replicas[*r].call.is_some()).map(Action::Serve));
        actions.extend(replicas().filter(|r| self.replicas[*r].seen < self.log.len()).map(Action::Watch));
        actions.extend(
            (0..self.creations.len()).filter(|i| self.creations[*i].reply != Reply::Due).map(Action::Persist),
        );
        actions.extend((0..self.moves.len()).map(Action::Move));
        actions.extend((self.settled() && self.live() > self.wanted).then_some(Action::ScaleDown));
        actions
    }

    /// What may go wrong next, with at most so many pods that are late at once.
    pub(super) fn faults(&self, most_late: usize) -> Vec<Fault> {
        let replicas = || 0..self.replicas.len();
        let writing = |r: &usize| matches!(self.replicas[*r].call, Some(Effect::Write(..)));
        let creations = || 0..self.creations.len();
        let mut faults = Vec::new();
        faults.extend(replicas().map(Fault::Crash));
        faults.extend(
            replicas()
                .filter(writing)
                .flat_map(|r| [Fault::CrashAfterWrite(r), Fault::LoseAnswer(r), Fault::Delay(r)]),
        );
        faults.extend(replicas().filter(|r| self.replicas[*r].seen + 1 < self.log.len()).map(Fault::Relist));
        faults.extend(creations().filter(|i| self.creations[*i].reply != Reply::Due).map(Fault::Reject));
        let unanswered = creations().filter(|i| self.creations[*i].reply == Reply::Due);
        faults.extend(unanswered.flat_map(|i| replicas().map(move |r| Fault::Retry(i, r))));
        faults.extend((0..self.pods.len()).map(Fault::Delete));
        let late = self.creations.len();
        faults.extend((late > 0 && late <= most_late).then_some(Fault::Minute));
        faults.extend(self.ledger.is_some().then_some(Fault::DeleteLedger));
        faults
    }

    /// What was begun by a fault and is still to end.
    pub(super) fn loose_ends(&self) -> Vec<Fault> {
        let given_up = (0..self.creations.len()).filter(|i| self.creations[*i].given_up).map(Fault::Vanish);
        (0..self.late_writes.len()).map(Fault::LateWrite).chain(given_up).collect()
    }

    /// Whether nothing is under way but what watches still have to show.
    pub(super) fn settled(&self) -> bool {
        self.batch == 0
            && self.creations.is_empty()
            && self.moves.is_empty()
            && self.replicas.iter().all(|replica| replica.call.is_none())
    }

    /// Takes a turn.
    pub(super) fn act(&mut self, action: Action, rules: &mut Rules) -> Result<(), String> {
        match action {
            Action::Arrive(r) => {
                self.created += 1;
                self.batch -= 1;
                let token = Token(self.created);
                let original = self.pods.values().find_map(Pod::stamp);
                let bears = original.filter(|_| self.copying && self.created.is_multiple_of(7)).cloned();
                self.creations.push(Creation {
                    token,
                    bears: bears.clone(),
                    reply: Reply::Due,
                    given_up: false,
                });
                self.arrive(r, token, bears, rules)?;
            }
            Action::Serve(r) => self.serve(r, rules)?,
            Action::Watch(r) => {
                let (name, pod) = self.log[self.replicas[r].seen].clone();
                self.replicas[r].seen += 1;
                self.handle(r, Event::Watched(name, pod), rules)?;
            }
            Action::Persist(i) => {
                let Creation { token, reply, .. } = self.creations.remove(i);
                let place =
                    if let Reply::Placed(stamp) = reply { Place::Stamped(stamp) } else { Place::Unknown };
                self.store(format!("p{:05}", token.0).into(), place, Phase::Live);
                self.control();
            }
            Action::Move(i) => {
                let (name, version, stamp) = self.moves.remove(i);
                if self.pods.get(&name).is_some_and(|pod| pod.version == version) {
                    self.store(name, Place::Stamped(stamp), Phase::Live);
                }
            }
            Action::Tend(r) => self.handle(r, Event::Tend, rules)?,
            Action::ScaleDown => {
                // Whoever has no slot has the lowest cost.
                let cost = |pod: &Pod| pod.stamp().map_or(u32::MAX, |stamp| stamp.slot);
                let (_, name) = self.pods.iter().map(|(name, pod)| (cost(pod), name.clone())).max().unwrap();
                self.delete(&name);
            }
            Action::Succeed(i) => {
                let (name, pod) =
                    self.pods.iter().nth(i).map(|(name, pod)| (name.clone(), pod.clone())).unwrap();
                self.store(name, pod.place, Phase::Succeeded);
                self.control();
            }
            Action::Fault(fault) => self.fail(fault, rules)?,
        }
        self.judge_turn()
    }

    fn fail(&mut self, fault: Fault, rules: &mut Rules) -> Result<(), String> {
        match fault {
            Fault::Crash(r) => self.crash(r, rules),
            Fault::CrashAfterWrite(r) => {
                self.execute(r);
                self.crash(r, rules);
            }
            Fault::LoseAnswer(r) => {
                self.execute(r);
                self.answered(r, Event::Failed, rules)?;
            }
            Fault::Delay(r) => {
                if let Some(Effect::Write(version, content)) = self.replicas[r].call.clone() {
                    self.late_writes.push((version, content));
                }
                self.answered(r, Event::Failed, rules)?;
            }
            Fault::LateWrite(i) => {
                let (version, content) = self.late_writes.remove(i);
                self.write(version, content);
            }
            Fault::Relist(r) => {
                self.replicas[r].seen = self.log.len();
                let (version, pods) = (self.version, self.pods.clone());
                self.handle(r, Event::Relisted { version, pods }, rules)?;
            }
            Fault::Reject(i) => {
                self.creations.remove(i);
                self.control();
            }
            Fault::Retry(i, r) => {
                let Creation { token, bears, .. } = self.creations[i].clone();
                for other in 0..self.replicas.len() {
                    self.handle(other, Event::Left(token), rules)?;
                }
                self.arrive(r, token, bears, rules)?;
            }
            Fault::Delete(i) => {
                let name = self.pods.keys().nth(i).unwrap().clone();
                self.delete(&name);
                // One that nobody replaces leaves a hole.
                self.excused += usize::from(self.live() >= self.wanted);
                self.control();
            }
            Fault::Minute => {
                self.clock += Duration::from_secs(61);
                self.excused += self.creations.len() + self.batch;
                for r in 0..self.replicas.len() {
                    self.handle(r, Event::Tick, rules)?;
                }
                for creation in &mut self.creations {
                    creation.given_up = true;
                }
                self.control();
            }
            Fault::DeleteLedger => {
                self.edition += 1;
                let (_, content) = self.ledger.take().unwrap();
                // Reservations are forgotten, and so is how far replicas must have seen. And who had found no ledger before
                // there was one can create it now.
                self.excused += content.reservations.len() + self.lag() + self.creations.len();
            }
            Fault::Vanish(i) => {
                self.creations.remove(i);
            }
        }
        Ok(())
    }

    /// How many pods' events some replica hasn't seen.
    fn lag(&self) -> usize {
        self.replicas.iter().map(|replica| self.log.len() - replica.seen).max().unwrap_or(0)
    }

    fn arrive(
        &mut self,
        r: usize,
        token: Token,
        bears: Option<Stamp>,
        rules: &mut Rules,
    ) -> Result<(), String> {
        let request = Request { bears, ..self.request(token, rules) };
        self.handle(r, Event::Arrived(request), rules)
    }

    fn request(&self, token: Token, rules: &Rules) -> Request {
        let deadline = self.clock + Duration::from_secs(2);
        Request { token, fitting: rules.policy().all(), bears: None, dry_run: false, deadline }
    }

    fn handle(&mut self, r: usize, event: Event, rules: &mut Rules) -> Result<(), String> {
        let now = Now { clock: self.clock, wall: 0, watched: self.watched(r) };
        for effect in self.replicas[r].ledger.handle(event, rules, &now) {
            match effect {
                Effect::Answer(token, answer) => self.answer(r, token, answer)?,
                Effect::Stamp(name, version, stamp) => self.moves.push((name, version, stamp)),
                call => {
                    let before = self.replicas[r].call.replace(call);
                    if let Some(before) = before {
                        return Err(format!("a second call beside {before:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, r: usize, token: Token, answer: Answer) -> Result<(), String> {
        let watched = self.watched(r);
        let Some(creation) = self.creations.iter_mut().find(|creation| creation.token == token) else {
            return Ok(());
        };
        let reply = match answer {
            Answer::Placed(stamp) | Answer::Estimated(stamp) => Reply::Placed(stamp),
            Answer::Unplaced => Reply::Unplaced,
            Answer::Kept => {
                // A copy looks like a second call for its original until that was seen.
                let copied = creation.bears.clone().ok_or("a new pod bears nothing to be kept")?;
                let original = |pod: &Pod| pod.stamp() == Some(&copied) && pod.version <= watched;
                if self.pods.values().any(original) {
                    return Err(format!("a copy was kept at {copied:?}"));
                }
                self.excused += 1;
                Reply::Placed(copied)
            }
        };
        let before = std::mem::replace(&mut creation.reply, reply);
        if before != Reply::Due && before != creation.reply && self.excused == 0 {
            return Err(format!("one call was answered by {before:?} and by {:?}", creation.reply));
        }
        Ok(())
    }

    /// Executes the call under way and answers it.
    fn serve(&mut self, r: usize, rules: &mut Rules) -> Result<(), String> {
        let event = self.execute(r);
        self.answered(r, event, rules)
    }

    fn answered(&mut self, r: usize, event: Event, rules: &mut Rules) -> Result<(), String> {
        self.replicas[r].call = None;
        self.handle(r, event, rules)
    }

    fn execute(&mut self, r: usize) -> Event {
        match self.replicas[r].call.clone().unwrap() {
            Effect::Read => Event::Read(self.ledger.clone()),
            Effect::Write(version, content) => {
                if self.write(version, content) {
                    Event::Written(Some(self.edition))
                } else {
                    Event::Conflict
                }
            }
            Effect::Remove(version) => {
                if self.ledger.as_ref().is_none_or(|(at, _)| *at != version) {
                    return Event::Conflict;
                }
                self.edition += 1;
                self.ledger = None;
                Event::Written(None)
            }
            Effect::List(at_least) => {
                // As old as it may be.
                let seen = match at_least {
                    Some(version) => {
                        let reached = self.log.iter().position(|(_, pod)| pod.version >= version);
                        reached.map_or(self.log.len(), |last| last + 1)
                    }
                    None => self.log.len(),
                };
                let version = at_least.unwrap_or(self.version);
                let owner = Some(u32::try_from(self.wanted).unwrap());
                Event::Listed { version, pods: self.snapshot(seen), owner }
            }
            Effect::Answer(..) | Effect::Stamp(..) => unreachable!("no call"),
        }
    }

    fn write(&mut self, version: Option<Version>, content: Content) -> bool {
        let stands = self.ledger.as_ref().map(|(version, _)| *version);
        let fits = stands == version;
        if fits {
            self.edition += 1;
            self.ledger = Some((self.edition, content));
        }
        fits
    }

    fn crash(&mut self, r: usize, rules: &mut Rules) {
        let replica = &mut self.replicas[r];
        // Pods whose calls break off are admitted unplaced, but what was reserved for them stands for a while.
        replica.call = None;
        replica.ledger = Ledger::default();
        let now = Now { clock: self.clock, wall: 0, watched: self.watched(r) };
        let known = self.snapshot(self.replicas[r].seen);
        let ledger = &mut self.replicas[r].ledger;
        let wanted = u32::try_from(self.wanted).unwrap();
        ledger.handle(Event::Owner(Some(wanted)), rules, &now);
        for (name, pod) in known {
            ledger.handle(Event::Watched(name, pod), rules, &now);
        }
        let mut lost = 0;
        let replicas = &self.replicas;
        for creation in self.creations.iter_mut().filter(|creation| creation.reply == Reply::Due) {
            if replicas.iter().all(|replica| !replica.ledger.awaits(creation.token)) {
                creation.reply = Reply::Unplaced;
                lost += 1;
            }
        }
        self.excused += lost;
    }

    /// How many pods the controller has.
    pub(super) fn live(&self) -> usize {
        self.pods.values().filter(|pod| pod.phase == Phase::Live).count()
    }

    /// Those among all pods.
    pub(super) fn live_indexes(&self) -> impl Iterator<Item = usize> {
        let pods = self.pods.values().enumerate();
        pods.filter(|(_, pod)| pod.phase == Phase::Live).map(|(index, _)| index)
    }

    /// The controller creates what is missing, when everything that it has begun has ended.
    pub(super) fn control(&mut self) {
        if self.batch == 0 && self.creations.iter().all(|creation| creation.given_up) {
            self.batch = self.wanted.saturating_sub(self.live());
        }
    }

    fn store(&mut self, name: PodName, place: Place, phase: Phase) {
        self.version += 1;
        let pod = Pod { version: self.version, phase, place };
        self.pods.insert(name.clone(), pod.clone());
        self.log.push((name, pod));
    }

    pub(super) fn delete(&mut self, name: &PodName) {
        self.version += 1;
        let pod = self.pods.remove(name).unwrap();
        self.log.push((name.clone(), Pod { version: self.version, phase: Phase::Gone, ..pod }));
    }

    /// The version of what the replica's watch has shown it last.
    fn watched(&self, r: usize) -> Version {
        let seen = self.replicas[r].seen;
        seen.checked_sub(1).map_or(0, |last| self.log[last].1.version).max(self.forgotten)
    }

    /// The pods after so many entries of the log.
    fn snapshot(&self, seen: usize) -> BTreeMap<PodName, Pod> {
        let mut pods = BTreeMap::new();
        for (name, pod) in &self.log[..seen] {
            match pod.phase {
                Phase::Gone => pods.remove(name),
                _ => pods.insert(name.clone(), pod.clone()),
            };
        }
        pods
    }

    /// What holds after every turn.
    fn judge_turn(&self) -> Result<(), String> {
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

    /// The controller is to keep so many pods.
    pub(super) fn scale(&mut self, wanted: usize, rules: &mut Rules) -> Result<(), String> {
        self.wanted = wanted;
        for r in 0..self.replicas.len() {
            self.handle(r, Event::Owner(Some(u32::try_from(wanted).unwrap())), rules)?;
        }
        self.control();
        Ok(())
    }

    /// What nobody will end any more ends.
    pub(super) fn finish(&mut self, rules: &mut Rules) -> Result<(), String> {
        if let Some(end) = self.loose_ends().first() {
            return self.act(Action::Fault(*end), rules);
        }
        self.control();
        Ok(())
    }

    /// Does what there is to do, until nothing is.
    pub(super) fn run(&mut self, rules: &mut Rules) -> Result<(), String> {
        for _ in 0..100_000 {
            let Some(action) = self.regular().pop() else { return Ok(()) };
            self.act(action, rules)?;
        }
        Err("it never comes to rest".into())
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
