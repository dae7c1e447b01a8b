//! A modelled cluster: its state, what can happen in it, and what happens then.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::action::{Action, Age, Fault};
use super::api_server::ApiServer;
use super::setup::Setup;
use crate::ledger::{
    Assignment, Call, Effect, Event, Ledger, LedgerContent, Now, PodName, PodPlacement, PodRecord, PodState,
    ResourceVersion, SlotReply, SlotRequest, Token,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) clock: Duration,
    pub(super) server: ApiServer,
    pub(super) replicas: Vec<Replica>,
    pub(super) admissions: Vec<Admission>,
    /// Pods that are to get another assignment, if they still have this version.
    reassignments: Vec<(PodName, ResourceVersion, Assignment)>,
    /// Writes that failed, and may still be executed.
    delayed_writes: Vec<(Option<ResourceVersion>, LedgerContent)>,
    /// How many pods the controller keeps.
    pub(super) desired: usize,
    /// How many pods of the current batch the controller has still to create.
    batch: usize,
    pub(super) created: u64,
    /// Whether some pods are copies of others, with their annotations.
    pub(super) copies: bool,
    /// How many pods may be off their share, because of faults that no ledger can compensate.
    pub(super) tolerated: usize,
    /// Whether a replica reads the owner after a list of its pods.
    pub(super) reads_owner: bool,
}

/// One replica of the webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) ledger: Ledger,
    pub(super) call: Option<Call>,
    /// The response of the list that is under way, if it was executed.
    delayed_list: Option<(ResourceVersion, BTreeMap<PodName, PodRecord>)>,
    /// How many events of pods it has received.
    pub(super) received: usize,
    /// How many pods the owner wanted when the replica last read it.
    wanted: usize,
}

/// A pod between its creation and its storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Admission {
    token: Token,
    existing: Option<Assignment>,
    pub(super) reply: Reply,
    /// Whether the controller no longer waits for it.
    abandoned: bool,
}

/// The change of the webhook to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Pending,
    Placed(Assignment),
    Unplaced,
}

/// A pod that may go to all groups.
pub(super) fn request(token: Token, setup: &Setup) -> SlotRequest {
    SlotRequest {
        token,
        fitting: setup.allocator.policy().all(),
        existing: None,
        dry_run: false,
        over_time: false,
    }
}

impl World {
    pub(super) fn new(replicas: usize, desired: usize, setup: &Setup) -> Self {
        let mut ledger = setup.ledger();
        setup.handle(&mut ledger, Event::MaxPods(Some(max_pods(desired))), &Now::default());
        Self {
            clock: Duration::ZERO,
            server: ApiServer::new(),
            replicas: vec![
                Replica { ledger, call: None, delayed_list: None, received: 0, wanted: desired };
                replicas
            ],
            admissions: Vec::new(),
            reassignments: Vec::new(),
            delayed_writes: Vec::new(),
            desired,
            batch: desired,
            created: 0,
            copies: false,
            tolerated: 0,
            reads_owner: true,
        }
    }

    /// A hash of what distinguishes this world from others, whatever the order of its replicas.
    pub(super) fn key(&self) -> u64 {
        fn hash(of: impl Hash) -> u64 {
            let mut hasher = DefaultHasher::new();
            of.hash(&mut hasher);
            hasher.finish()
        }
        let mut replicas: Vec<_> = self.replicas.iter().map(hash).collect();
        replicas.sort_unstable();
        let ApiServer { ledger, ledger_version, pods, pod_version, events, .. } = &self.server;
        // A previous ledger that all replicas know or have passed is no longer shown.
        let previous = self.server.previous_ledger.as_ref();
        let previous = previous.filter(|(version, _)| {
            self.replicas.iter().any(|replica| replica.ledger.latest_version() < *version)
        });
        let server = (ledger, ledger_version, previous, pods, pod_version, events);
        let controller = (self.desired, self.batch, self.tolerated);
        hash((
            self.clock,
            server,
            controller,
            &self.admissions,
            &self.reassignments,
            &self.delayed_writes,
            replicas,
        ))
    }

    /// Whether nothing is under way but watch events.
    pub(super) fn is_settled(&self) -> bool {
        self.batch == 0
            && self.admissions.is_empty()
            && self.reassignments.is_empty()
            && self.replicas.iter().all(|replica| replica.call.is_none())
    }

    /// The possible next actions without a fault.
    pub(super) fn actions(&self) -> Vec<Action> {
        let replicas = || 0..self.replicas.len();
        let mut actions = Vec::new();
        let events = replicas().flat_map(|r| [(r, Age::Current), (r, Age::Previous)]);
        let new = events.filter(|(r, age)| self.ledger_event(*r, *age).is_some());
        actions.extend(new.map(|(r, age)| Action::WatchLedger(r, age)));
        actions.extend(replicas().filter(|_| self.batch > 0).map(Action::Create));
        actions.extend(replicas().filter(|r| self.replicas[*r].call.is_some()).map(Action::Respond));
        let behind = replicas().filter(|r| self.replicas[*r].received < self.server.events.len());
        actions.extend(behind.map(Action::WatchPod));
        actions.extend(self.replied().map(Action::Store));
        actions.extend((0..self.reassignments.len()).map(Action::Reassign));
        let surplus = self.is_settled() && self.server.active() > self.desired;
        actions.extend(surplus.then_some(Action::ScaleDown));
        actions
    }

    /// The possible next faults, with at most this number of abandoned pods at a time.
    pub(super) fn faults(&self, max_abandoned: usize) -> Vec<Fault> {
        let replicas = || 0..self.replicas.len();
        let calls = |r: usize| self.replicas[r].call.as_ref();
        let mut faults = Vec::new();
        faults.extend(replicas().map(Fault::Crash));
        let writing = replicas().filter(|r| matches!(calls(*r), Some(Call::Write(..))));
        faults.extend(writing.flat_map(|r| [Fault::CrashAfterWrite(r), Fault::DelayWrite(r)]));
        faults.extend(replicas().filter(|r| calls(*r).is_some()).map(Fault::LoseResponse));
        let listing = replicas().filter(|r| matches!(calls(*r), Some(Call::List(_))));
        faults.extend(listing.filter(|r| self.replicas[*r].delayed_list.is_none()).map(Fault::DelayList));
        let behind = replicas().filter(|r| self.replicas[*r].received + 1 < self.server.events.len());
        faults.extend(behind.map(Fault::RestartWatch));
        faults.extend(self.replied().map(Fault::Refuse));
        let pending = (0..self.admissions.len()).filter(|i| self.admissions[*i].reply == Reply::Pending);
        faults.extend(pending.flat_map(|i| replicas().map(move |r| Fault::Retry(i, r))));
        faults.extend((0..self.server.pods.len()).map(Fault::DeletePod));
        let abandoned = self.admissions.len();
        faults.extend((abandoned > 0 && abandoned <= max_abandoned).then_some(Fault::PassMinute));
        faults.extend(self.server.ledger.is_some().then_some(Fault::DeleteLedger));
        faults
    }

    /// Faults that have begun and must still end.
    pub(super) fn loose_ends(&self) -> Vec<Fault> {
        let abandoned = (0..self.admissions.len()).filter(|i| self.admissions[*i].abandoned);
        let writes = (0..self.delayed_writes.len()).map(Fault::ExecuteDelayedWrite);
        writes.chain(abandoned.map(Fault::DropAbandoned)).collect()
    }

    /// Admissions that have their reply.
    fn replied(&self) -> impl Iterator<Item = usize> {
        (0..self.admissions.len()).filter(|i| self.admissions[*i].reply != Reply::Pending)
    }

    pub(super) fn act(&mut self, action: Action, setup: &Setup) -> Result<(), String> {
        match action {
            Action::Create(r) => {
                self.created += 1;
                self.batch -= 1;
                let token = Token(self.created);
                let original = self.server.pods.values().find_map(PodRecord::assignment);
                let existing = original.filter(|_| self.copies && self.created.is_multiple_of(7)).cloned();
                let reply = Reply::Pending;
                self.admissions.push(Admission {
                    token,
                    existing: existing.clone(),
                    reply,
                    abandoned: false,
                });
                self.admit(r, token, existing, setup)?;
            }
            Action::Respond(r) => {
                let event = self.execute(r);
                self.respond(r, event, setup)?;
            }
            Action::WatchPod(r) => {
                let (name, pod) = self.server.events[self.replicas[r].received].clone();
                self.replicas[r].received += 1;
                self.handle(r, Event::PodChanged(name, pod), setup)?;
            }
            Action::WatchLedger(r, age) => {
                let (version, content) = self.ledger_event(r, age).ok_or("no event")?;
                self.handle(r, Event::ObjectChanged(version, content), setup)?;
            }
            Action::Store(i) => {
                let Admission { token, reply, .. } = self.admissions.remove(i);
                let placement = match reply {
                    Reply::Placed(assignment) => PodPlacement::Assigned(assignment),
                    Reply::Unplaced | Reply::Pending => PodPlacement::Unknown,
                };
                self.server.store_pod(format!("p{:05}", token.0).into(), placement, PodState::Active);
                self.control();
            }
            Action::Reassign(i) => {
                let (name, version, assignment) = self.reassignments.remove(i);
                if self.server.pods.get(&name).is_some_and(|pod| pod.version == version) {
                    self.server.store_pod(name, PodPlacement::Assigned(assignment), PodState::Active);
                }
            }
            Action::Reconcile(r) => self.handle(r, Event::Reconcile, setup)?,
            Action::ScaleDown => {
                // A pod without a slot has the lowest deletion cost.
                let slot = |pod: &PodRecord| pod.assignment().map_or(u32::MAX, |assignment| assignment.slot);
                let pods = self.server.pods.iter().map(|(name, pod)| (slot(pod), name.clone()));
                let (_, highest) = pods.max().unwrap();
                self.server.delete_pod(&highest);
            }
            Action::Succeed(i) => {
                let (name, pod) = self.server.pods.iter().nth(i).unwrap();
                let name = name.clone();
                let placement = pod.placement.clone();
                self.server.store_pod(name, placement, PodState::Succeeded);
                self.control();
            }
            Action::Fault(fault) => self.fail(fault, setup)?,
        }
        Ok(())
    }

    fn fail(&mut self, fault: Fault, setup: &Setup) -> Result<(), String> {
        match fault {
            Fault::Crash(r) => self.crash(r, setup),
            Fault::CrashAfterWrite(r) => {
                self.execute(r);
                self.crash(r, setup);
            }
            Fault::LoseResponse(r) => {
                self.execute(r);
                self.respond(r, Event::Failed, setup)?;
            }
            Fault::DelayWrite(r) => {
                if let Some(Call::Write(version, content)) = self.replicas[r].call.clone() {
                    self.delayed_writes.push((version, content));
                }
                self.respond(r, Event::Failed, setup)?;
            }
            Fault::DelayList(r) => {
                if let Event::Listed { version, pods, .. } = self.execute(r) {
                    self.replicas[r].delayed_list = Some((version, pods));
                }
            }
            Fault::ExecuteDelayedWrite(i) => {
                let (version, content) = self.delayed_writes.remove(i);
                self.server.write(version, content);
            }
            Fault::RestartWatch(r) => {
                self.replicas[r].received = self.server.events.len();
                let version = self.server.pod_version;
                let pods = self.server.pods.clone();
                self.handle(r, Event::WatchRestarted { version, pods }, setup)?;
            }
            Fault::Refuse(i) | Fault::DropAbandoned(i) => {
                self.admissions.remove(i);
                if matches!(fault, Fault::Refuse(_)) {
                    self.control();
                }
            }
            Fault::Retry(i, r) => {
                let Admission { token, existing, .. } = self.admissions[i].clone();
                for other in 0..self.replicas.len() {
                    self.handle(other, Event::Cancelled(token), setup)?;
                }
                self.admit(r, token, existing, setup)?;
            }
            Fault::DeletePod(i) => {
                let name = self.server.pods.keys().nth(i).unwrap().clone();
                self.server.delete_pod(&name);
                // A pod that the controller doesn't replace leaves a hole.
                self.tolerated += usize::from(self.server.active() >= self.desired);
                self.control();
            }
            Fault::PassMinute => {
                self.clock += Duration::from_secs(61);
                self.tolerated += self.admissions.len() + self.batch;
                for r in 0..self.replicas.len() {
                    self.handle(r, Event::Tick, setup)?;
                }
                for admission in &mut self.admissions {
                    admission.abandoned = true;
                }
                self.control();
            }
            Fault::DeleteLedger => {
                let (_, content) = self.server.ledger.clone().unwrap();
                self.server.set_ledger(None);
                // The reservations are lost, and the fence. A replica that found no ledger before this one was created can create
                // one now.
                self.tolerated += content.reservations.len() + self.lag() + self.admissions.len();
            }
        }
        Ok(())
    }

    fn crash(&mut self, r: usize, setup: &Setup) {
        let now = self.now(r);
        let pods = self.server.snapshot(self.replicas[r].received);
        let mut ledger = setup.ledger();
        setup.handle(&mut ledger, Event::MaxPods(Some(max_pods(self.desired))), &now);
        setup.handle(&mut ledger, Event::WatchRestarted { version: now.watched, pods }, &now);
        let received = self.replicas[r].received;
        let wanted = self.desired;
        self.replicas[r] = Replica { ledger, call: None, delayed_list: None, received, wanted };
        // The API server admits the pods of broken calls unplaced, but their reservations remain for a while.
        let Self { replicas, admissions, tolerated, .. } = self;
        for admission in admissions.iter_mut().filter(|admission| admission.reply == Reply::Pending) {
            if replicas.iter().all(|replica| !replica.ledger.awaits(admission.token)) {
                admission.reply = Reply::Unplaced;
                *tolerated += 1;
            }
        }
    }

    fn admit(
        &mut self,
        r: usize,
        token: Token,
        existing: Option<Assignment>,
        setup: &Setup,
    ) -> Result<(), String> {
        let request = SlotRequest { existing, ..request(token, setup) };
        self.handle(r, Event::Requested(request, self.deadline()), setup)
    }

    /// The deadline of a request that arrives now.
    pub(super) fn deadline(&self) -> Duration {
        self.clock + Duration::from_secs(2)
    }

    pub(super) fn now(&self, r: usize) -> Now {
        Now { clock: self.clock, wall: 0, watched: self.server.version_at(self.replicas[r].received) }
    }

    fn handle(&mut self, r: usize, event: Event, setup: &Setup) -> Result<(), String> {
        let now = self.now(r);
        for effect in setup.handle(&mut self.replicas[r].ledger, event, &now) {
            match effect {
                Effect::Reply(token, reply) => self.reply(r, token, reply)?,
                Effect::Reassign(name, version, assignment) => {
                    self.reassignments.push((name, version, assignment));
                }
                Effect::Call(call) => {
                    if let Some(other) = self.replicas[r].call.replace(call) {
                        return Err(format!("a second call during {other:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn reply(&mut self, r: usize, token: Token, reply: SlotReply) -> Result<(), String> {
        let watched = self.now(r).watched;
        let Some(admission) = self.admissions.iter_mut().find(|admission| admission.token == token) else {
            return Ok(());
        };
        let reply = match reply {
            SlotReply::Placed(assignment) | SlotReply::Estimated(assignment) => Reply::Placed(assignment),
            SlotReply::Unplaced => Reply::Unplaced,
            SlotReply::Kept => {
                // Until the original was seen, a copy looks the same as a second call for the original.
                let existing = admission.existing.clone().ok_or("a new pod has no assignment to keep")?;
                let is_seen = |pod: &PodRecord| pod.assignment() == Some(&existing) && pod.version <= watched;
                if self.server.pods.values().any(is_seen) {
                    return Err(format!("a copy keeps {existing:?}"));
                }
                self.tolerated += 1;
                Reply::Placed(existing)
            }
        };
        let before = std::mem::replace(&mut admission.reply, reply);
        if before != Reply::Pending && before != admission.reply && self.tolerated == 0 {
            return Err(format!("one request got {before:?} and {:?}", admission.reply));
        }
        Ok(())
    }

    /// Executes the replica's call. The owner is read after a list of its pods.
    pub(super) fn execute(&mut self, r: usize) -> Event {
        let replica = &self.replicas[r];
        let max_pods = max_pods(if self.reads_owner { self.desired } else { replica.wanted });
        match (replica.call.clone().unwrap(), replica.delayed_list.clone()) {
            (Call::List(_), Some((version, pods))) => {
                Event::Listed { version, pods, max_pods: Some(max_pods) }
            }
            (call, _) => self.server.execute(call, max_pods),
        }
    }

    fn respond(&mut self, r: usize, event: Event, setup: &Setup) -> Result<(), String> {
        self.replicas[r].call = None;
        self.replicas[r].delayed_list = None;
        self.handle(r, event, setup)
    }

    /// A watch event of the ledger that is newer than what the replica knows.
    fn ledger_event(&self, r: usize, age: Age) -> Option<(ResourceVersion, Option<LedgerContent>)> {
        let latest = self.replicas[r].ledger.latest_version();
        self.server.ledger_event(age).filter(|(version, _)| *version > latest)
    }

    /// How many events of pods some replica has not received.
    fn lag(&self) -> usize {
        let lag = self.replicas.iter().map(|replica| self.server.events.len() - replica.received);
        lag.max().unwrap_or(0)
    }

    /// The controller begins a batch of the missing pods, if the last one has ended.
    fn control(&mut self) {
        if self.batch == 0 && self.admissions.iter().all(|admission| admission.abandoned) {
            self.batch = self.desired.saturating_sub(self.server.active());
        }
    }

    /// Scales the workload. Each replica reads the owner.
    pub(super) fn scale(&mut self, desired: usize, setup: &Setup) -> Result<(), String> {
        self.desired = desired;
        for r in 0..self.replicas.len() {
            self.read_owner(r, setup)?;
        }
        self.control();
        Ok(())
    }

    /// Scales the workload. No replica reads the owner yet.
    pub(super) fn scale_unread(&mut self, desired: usize) {
        self.desired = desired;
        self.control();
    }

    /// The replica reads the owner.
    pub(super) fn read_owner(&mut self, r: usize, setup: &Setup) -> Result<(), String> {
        self.replicas[r].wanted = self.desired;
        self.handle(r, Event::MaxPods(Some(max_pods(self.desired))), setup)
    }

    /// Ends what a fault has begun, or lets the controller create pods.
    pub(super) fn finish(&mut self, setup: &Setup) -> Result<(), String> {
        if let Some(end) = self.loose_ends().first() {
            return self.act(Action::Fault(*end), setup);
        }
        self.control();
        Ok(())
    }

    /// Acts until nothing can happen without a fault.
    pub(super) fn run(&mut self, setup: &Setup) -> Result<(), String> {
        for _ in 0..100_000 {
            let Some(action) = self.actions().pop() else { return Ok(()) };
            self.act(action, setup)?;
        }
        Err("the world never settles".into())
    }
}

fn max_pods(desired: usize) -> u32 {
    u32::try_from(desired).unwrap()
}
