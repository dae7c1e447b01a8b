//! What the ledger lives in: an API server, replicas, and a controller that creates pods.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::turn::Action;
use crate::ledger::{
    Answer, Content, Effect, Event, Ledger, Now, Phase, Place, Pod, PodName, Request, Settings, Stamp, Token,
    Version,
};
use crate::policy::{Group, Policy, Tie};
use crate::rules::Rules;

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) wanted: usize,
    pub(super) clock: Duration,
    /// Of the ledger, which has a count of its own.
    pub(super) edition: Version,
    pub(super) ledger: Option<(Version, Content)>,
    /// The ledger before its last change.
    pub(super) before: Option<(Version, Option<Content>)>,
    /// Of the pods.
    pub(super) version: Version,
    pub(super) pods: BTreeMap<PodName, Pod>,
    /// What watches see, in order.
    pub(super) log: Vec<(PodName, Pod)>,
    /// Everybody has seen everything up to here.
    pub(super) forgotten: Version,
    pub(super) replicas: Vec<Replica>,
    pub(super) creations: Vec<Creation>,
    pub(super) moves: Vec<(PodName, Version, Stamp)>,
    /// Writes that seemed to fail.
    pub(super) late_writes: Vec<(Option<Version>, Content)>,
    /// How many pods the controller has still to create in this batch.
    pub(super) batch: usize,
    pub(super) created: u64,
    /// Whether some pods are copied from others, with all that they bear.
    pub(super) copying: bool,
    /// How many pods may be where they shouldn't be, because of something that nobody can make good.
    pub(super) excused: usize,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) ledger: Ledger,
    pub(super) call: Option<Effect>,
    /// What the list found that is under way, where it was executed and its answer takes its time.
    pub(super) found: Option<(Version, BTreeMap<PodName, Pod>)>,
    /// How many entries of the log its API server has shown it.
    pub(super) seen: usize,
}

/// A pod on its way through admission.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Creation {
    pub(super) token: Token,
    pub(super) bears: Option<Stamp>,
    pub(super) reply: Reply,
    /// Whether the controller waits for it no more.
    pub(super) given_up: bool,
}

/// What admission said of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
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
            edition: 0,
            ledger: None,
            before: None,
            version: 1,
            pods: BTreeMap::new(),
            log: Vec::new(),
            forgotten: 0,
            replicas: vec![Replica { ledger, call: None, found: None, seen: 0 }; replicas],
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
        let shown = self
            .before
            .as_ref()
            .filter(|(version, _)| self.replicas.iter().any(|one| one.ledger.heard() < *version));
        let world = (wanted, clock, edition, version, ledger, shown, pods, log);
        hash((world, creations, moves, late_writes, batch, self.excused, replicas))
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
            Action::Notice(r, age) => {
                let (version, content) = self.notice(r, age).ok_or("nothing is new")?;
                self.handle(r, Event::Noticed(version, content), rules)?;
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

    pub(super) fn arrive(
        &mut self,
        r: usize,
        token: Token,
        bears: Option<Stamp>,
        rules: &mut Rules,
    ) -> Result<(), String> {
        let request = Request { bears, ..self.request(token, rules) };
        self.handle(r, Event::Arrived(request), rules)
    }

    pub(super) fn request(&self, token: Token, rules: &Rules) -> Request {
        let deadline = self.clock + Duration::from_secs(2);
        Request { token, fitting: rules.policy().all(), bears: None, dry_run: false, deadline }
    }

    pub(super) fn handle(&mut self, r: usize, event: Event, rules: &mut Rules) -> Result<(), String> {
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

    pub(super) fn answer(&mut self, r: usize, token: Token, answer: Answer) -> Result<(), String> {
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

    pub(super) fn store(&mut self, name: PodName, place: Place, phase: Phase) {
        self.version += 1;
        let pod = Pod { version: self.version, phase, place, costed: false, marked: true };
        self.pods.insert(name.clone(), pod.clone());
        self.log.push((name, pod));
    }

    pub(super) fn delete(&mut self, name: &PodName) {
        self.version += 1;
        let pod = self.pods.remove(name).unwrap();
        self.log.push((name.clone(), Pod { version: self.version, phase: Phase::Gone, ..pod }));
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
}
