//! What the ledger lives in: an API server, replicas, and a controller that creates pods.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::setup::Setup;
use super::turn::Action;
use crate::ledger::{
    Assignment, Call, Effect, Event, Ledger, LedgerContent, Now, PodName, PodPlacement, PodRecord, PodState,
    ResourceVersion, SlotReply, SlotRequest, Token,
};

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) wanted: usize,
    pub(super) clock: Duration,
    /// Of the ledger, which has a count of its own.
    pub(super) edition: ResourceVersion,
    pub(super) ledger: Option<(ResourceVersion, LedgerContent)>,
    /// The ledger before its last change.
    pub(super) before: Option<(ResourceVersion, Option<LedgerContent>)>,
    /// Of the pods.
    pub(super) version: ResourceVersion,
    pub(super) pods: BTreeMap<PodName, PodRecord>,
    /// What watches see, in order.
    pub(super) log: Vec<(PodName, PodRecord)>,
    /// Everybody has seen everything up to here.
    pub(super) forgotten: ResourceVersion,
    pub(super) replicas: Vec<Replica>,
    pub(super) creations: Vec<Creation>,
    pub(super) moves: Vec<(PodName, ResourceVersion, Assignment)>,
    /// Writes that seemed to fail.
    pub(super) late_writes: Vec<(Option<ResourceVersion>, LedgerContent)>,
    /// How many pods the controller has still to create in this batch.
    pub(super) batch: usize,
    pub(super) created: u64,
    /// Whether some pods are copied from others, with all that they bear.
    pub(super) copying: bool,
    /// How many pods may be where they shouldn't be, because of something that nobody can make good.
    pub(super) excused: usize,
}

/// A pod that may go to all groups.
pub(super) fn request(token: Token, setup: &Setup) -> SlotRequest {
    SlotRequest { token, fitting: setup.allocator.policy().all(), existing: None, dry_run: false }
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) ledger: Ledger,
    pub(super) call: Option<Call>,
    /// What the list found that is under way, where it was executed and its answer takes its time.
    pub(super) found: Option<(ResourceVersion, BTreeMap<PodName, PodRecord>)>,
    /// How many entries of the log its API server has shown it.
    pub(super) seen: usize,
}

/// A pod on its way through admission.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Creation {
    pub(super) token: Token,
    pub(super) existing: Option<Assignment>,
    pub(super) reply: Reply,
    /// Whether the controller waits for it no more.
    pub(super) given_up: bool,
}

/// What admission said of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Due,
    Placed(Assignment),
    Unplaced,
}

impl World {
    pub(super) fn new(replicas: usize, wanted: usize, setup: &Setup) -> Self {
        let owner = u32::try_from(wanted).unwrap();
        let mut ledger = setup.ledger();
        setup.handle(&mut ledger, Event::MaxPods(Some(owner)), &Now::default());
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
            .filter(|(version, _)| self.replicas.iter().any(|one| one.ledger.latest_version() < *version));
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
    pub(super) fn act(&mut self, action: Action, setup: &Setup) -> Result<(), String> {
        match action {
            Action::Arrive(r) => {
                self.created += 1;
                self.batch -= 1;
                let token = Token(self.created);
                let original = self.pods.values().find_map(PodRecord::assignment);
                let existing = original.filter(|_| self.copying && self.created.is_multiple_of(7)).cloned();
                self.creations.push(Creation {
                    token,
                    existing: existing.clone(),
                    reply: Reply::Due,
                    given_up: false,
                });
                self.arrive(r, token, existing, setup)?;
            }
            Action::Serve(r) => self.serve(r, setup)?,
            Action::Watch(r) => {
                let (name, pod) = self.log[self.replicas[r].seen].clone();
                self.replicas[r].seen += 1;
                self.handle(r, Event::PodChanged(name, pod), setup)?;
            }
            Action::Notice(r, age) => {
                let (version, content) = self.notice(r, age).ok_or("nothing is new")?;
                self.handle(r, Event::ObjectChanged(version, content), setup)?;
            }
            Action::Persist(i) => {
                let Creation { token, reply, .. } = self.creations.remove(i);
                let place = if let Reply::Placed(assignment) = reply {
                    PodPlacement::Assigned(assignment)
                } else {
                    PodPlacement::Unknown
                };
                self.store(format!("p{:05}", token.0).into(), place, PodState::Active);
                self.control();
            }
            Action::Move(i) => {
                let (name, version, assignment) = self.moves.remove(i);
                if self.pods.get(&name).is_some_and(|pod| pod.version == version) {
                    self.store(name, PodPlacement::Assigned(assignment), PodState::Active);
                }
            }
            Action::Tend(r) => self.handle(r, Event::Reconcile, setup)?,
            Action::ScaleDown => {
                // Whoever has no slot has the lowest cost.
                let cost = |pod: &PodRecord| pod.assignment().map_or(u32::MAX, |assignment| assignment.slot);
                let (_, name) = self.pods.iter().map(|(name, pod)| (cost(pod), name.clone())).max().unwrap();
                self.delete(&name);
            }
            Action::Succeed(i) => {
                let (name, pod) =
                    self.pods.iter().nth(i).map(|(name, pod)| (name.clone(), pod.clone())).unwrap();
                self.store(name, pod.placement, PodState::Succeeded);
                self.control();
            }
            Action::Fault(fault) => self.fail(fault, setup)?,
        }
        Ok(())
    }

    pub(super) fn arrive(
        &mut self,
        r: usize,
        token: Token,
        existing: Option<Assignment>,
        setup: &Setup,
    ) -> Result<(), String> {
        let request = SlotRequest { existing, ..request(token, setup) };
        self.handle(r, Event::Requested(request, self.deadline()), setup)
    }

    /// When a request that arrives now must have its answer.
    pub(super) fn deadline(&self) -> Duration {
        self.clock + Duration::from_secs(2)
    }

    pub(super) fn handle(&mut self, r: usize, event: Event, setup: &Setup) -> Result<(), String> {
        let now = Now { clock: self.clock, wall: 0, watched: self.watched(r) };
        for effect in setup.handle(&mut self.replicas[r].ledger, event, &now) {
            match effect {
                Effect::Reply(token, answer) => self.answer(r, token, answer)?,
                Effect::Reassign(name, version, assignment) => self.moves.push((name, version, assignment)),
                Effect::Call(call) => {
                    let before = self.replicas[r].call.replace(call);
                    if let Some(before) = before {
                        return Err(format!("a second call beside {before:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, r: usize, token: Token, answer: SlotReply) -> Result<(), String> {
        let watched = self.watched(r);
        let Some(creation) = self.creations.iter_mut().find(|creation| creation.token == token) else {
            return Ok(());
        };
        let reply = match answer {
            SlotReply::Placed(assignment) | SlotReply::Estimated(assignment) => Reply::Placed(assignment),
            SlotReply::Unplaced => Reply::Unplaced,
            SlotReply::Kept => {
                // A copy looks like a second call for its original until that was seen.
                let copied = creation.existing.clone().ok_or("a new pod existing nothing to be kept")?;
                let original = |pod: &PodRecord| pod.assignment() == Some(&copied) && pod.version <= watched;
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
        self.pods.values().filter(|pod| pod.state == PodState::Active).count()
    }

    /// Those among all pods.
    pub(super) fn live_indexes(&self) -> impl Iterator<Item = usize> {
        let pods = self.pods.values().enumerate();
        pods.filter(|(_, pod)| pod.state == PodState::Active).map(|(index, _)| index)
    }

    /// The controller creates what is missing, when everything that it has begun has ended.
    pub(super) fn control(&mut self) {
        if self.batch == 0 && self.creations.iter().all(|creation| creation.given_up) {
            self.batch = self.wanted.saturating_sub(self.live());
        }
    }

    pub(super) fn store(&mut self, name: PodName, placement: PodPlacement, state: PodState) {
        self.version += 1;
        let pod = PodRecord { version: self.version, state, placement, costed: false, marked: true };
        self.pods.insert(name.clone(), pod.clone());
        self.log.push((name, pod));
    }

    pub(super) fn delete(&mut self, name: &PodName) {
        self.version += 1;
        let pod = self.pods.remove(name).unwrap();
        self.log.push((name.clone(), PodRecord { version: self.version, state: PodState::Gone, ..pod }));
    }

    /// The controller is to keep so many pods.
    pub(super) fn scale(&mut self, wanted: usize, setup: &Setup) -> Result<(), String> {
        self.wanted = wanted;
        for r in 0..self.replicas.len() {
            self.handle(r, Event::MaxPods(Some(u32::try_from(wanted).unwrap())), setup)?;
        }
        self.control();
        Ok(())
    }

    /// What nobody will end any more ends.
    pub(super) fn finish(&mut self, setup: &Setup) -> Result<(), String> {
        if let Some(end) = self.loose_ends().first() {
            return self.act(Action::Fault(*end), setup);
        }
        self.control();
        Ok(())
    }

    /// Does what there is to do, until nothing is.
    pub(super) fn run(&mut self, setup: &Setup) -> Result<(), String> {
        for _ in 0..100_000 {
            let Some(action) = self.regular().pop() else { return Ok(()) };
            self.act(action, setup)?;
        }
        Err("it never comes to rest".into())
    }
}
