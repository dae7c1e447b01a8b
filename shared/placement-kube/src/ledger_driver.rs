//! One ledger at work: its state machine, the requests that wait for it, and the API calls that it asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::jiff::Timestamp;
use podshaper_placement::identity::NodeLabels;
use podshaper_placement::ledger::{
    Call, Effect, Event, Ledger, LedgerContent, Now, PodName, PodPlacement, PodRecord, PodState,
    ResourceVersion, SlotReply, SlotRequest, Token,
};
use podshaper_placement::pod_object::WaitingPod;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::inventory::{InventoryPod, LedgerInventory};
use crate::ledger_client::{HandedOverPod, LedgerClient};
use crate::observed_pod::{Health, ObservedPod};
use crate::placement_object::{LedgerId, NamespacedOwner, PlacedWorkload};
use crate::pod_evidence::EvidenceByPod;

/// Pauses after failed calls: the ledger itself tries again at once. They end soon after the API server is back, since requests wait.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(1))
    .without_max_times();

/// The state that all ledgers of one webhook share.
pub(crate) struct LedgerContext {
    client: LedgerClient,
    nodes: Arc<dyn NodeLabels>,
    /// The zero of the ledgers' clock.
    started: Instant,
    /// The version that the watch of pods has reached.
    watched: AtomicU64,
}

impl LedgerContext {
    pub(crate) fn new(client: LedgerClient, nodes: Arc<dyn NodeLabels>) -> Self {
        Self { client, nodes, started: Instant::now(), watched: AtomicU64::new(0) }
    }

    pub(crate) fn client(&self) -> &LedgerClient {
        &self.client
    }

    /// Records that the ledgers have received each watch event up to this version.
    pub(crate) fn set_watched(&self, version: ResourceVersion) {
        self.watched.fetch_max(version, Ordering::AcqRel);
    }

    fn now(&self) -> Now {
        Now {
            clock: self.started.elapsed(),
            wall: Timestamp::now().as_second(),
            watched: self.watched.load(Ordering::Acquire),
        }
    }
}

/// The pods that are not ready. Those that have no node have a value.
type UnreadyPods = BTreeMap<PodName, Option<Arc<WaitingPod>>>;

/// The pods of one ledger, as a list of the watch returns them.
#[derive(Default)]
pub(crate) struct ListedPods {
    records: BTreeMap<PodName, PodRecord>,
    evidence: EvidenceByPod,
    unready: UnreadyPods,
    without_cost: BTreeSet<PodName>,
    controller: Option<NamespacedOwner>,
    newest: ResourceVersion,
}

impl ListedPods {
    pub(crate) fn add(&mut self, pod: ObservedPod) {
        if pod.health != Health::Ready {
            self.unready.insert(Arc::clone(&pod.name), pod.waiting);
        }
        if pod.lacks_cost {
            self.without_cost.insert(Arc::clone(&pod.name));
        }
        // The controller of the newest pod exists most likely: the first Jobs of a CronJob are deleted.
        if pod.record.version > self.newest {
            (self.newest, self.controller) = (pod.record.version, Some(pod.controller));
        }
        self.evidence.insert(Arc::clone(&pod.name), pod.evidence, pod.node.as_deref());
        self.records.insert(pod.name, pod.record);
    }
}

/// One ledger. Pods reach it before [`LedgerContext::set_watched`] names their version, so that it never decides by a version with pods that it
/// has not seen.
pub(crate) struct LedgerDriver {
    context: Arc<LedgerContext>,
    state: Mutex<DriverState>,
}

#[derive(Default)]
struct DriverState {
    ledger: Ledger,
    /// The workload, once a request or a reconciliation has named it, and the newest version of its numbers.
    workload: Option<Arc<PlacedWorkload>>,
    version: Option<ResourceVersion>,
    /// Whether the pods without the label that the watch selects by are known, and the list that reads them.
    listed: bool,
    listing: Option<Shared<BoxFuture<'static, ()>>>,
    waiting: HashMap<Token, Vec<oneshot::Sender<SlotReply>>>,
    /// When the next [`Event::Tick`] is due.
    timer: Option<Instant>,
    /// Set while calls fail.
    backoff: Option<ExponentialBackoff>,
    /// Changes of pods, and how many of them the last reconciliation has seen.
    changes: u64,
    reconciled: u64,
    unready: UnreadyPods,
    /// Placed pods without a deletion cost.
    without_cost: BTreeSet<PodName>,
    evidence: EvidenceByPod,
    controller: Option<NamespacedOwner>,
}

impl LedgerDriver {
    pub(crate) fn new(context: Arc<LedgerContext>) -> Self {
        Self { context, state: Mutex::default() }
    }

    /// Requests a slot. `None` if the policy changes meanwhile and the slot's group no longer fits.
    pub(crate) async fn place(
        self: &Arc<Self>,
        workload: &Arc<PlacedWorkload>,
        request: SlotRequest,
        deadline: Instant,
    ) -> Option<SlotReply> {
        let SlotRequest { token, fitting, .. } = request;
        if workload.created.is_some_and(|pods| pods > 0) {
            // The second half of the time is the ledger's.
            let now = Instant::now();
            let half = now + deadline.saturating_duration_since(now) / 2;
            let _ = timeout_at(half, self.ensure_listed(workload)).await;
        }
        let (sender, reply) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.bind(workload, &*self.context.nodes) {
                self.handle(&mut state, Event::MaxPods(workload.pods));
            }
            state.waiting.entry(token).or_default().push(sender);
            let deadline = deadline.saturating_duration_since(self.context.started);
            self.handle(&mut state, Event::Requested(request, deadline));
        }
        let _waiting = WaitingRequest { driver: self, token };
        let reply = reply.await.ok()?;
        match &reply {
            SlotReply::Placed(assignment) | SlotReply::Estimated(assignment) => {
                let group = workload.allocator.policy().index(&assignment.group)?;
                fitting.contains(group).then_some(reply)
            }
            SlotReply::Kept | SlotReply::Unplaced => Some(reply),
        }
    }

    /// Lists the pods of an owner before its first pod is placed, if the watch shows none of them: no webhook has placed them, but their
    /// groups may be known. The list goes on if the request that waits for it is cancelled.
    async fn ensure_listed(self: &Arc<Self>, workload: &Arc<PlacedWorkload>) {
        let list = {
            let mut state = self.lock();
            state.listed |= !state.ledger.pods().is_empty();
            if state.listed {
                return;
            }
            let pending = state.listing.take().filter(|list| list.peek().is_none());
            let list = pending.unwrap_or_else(|| {
                let driver = Arc::clone(self);
                let workload = Arc::clone(workload);
                let list = tokio::spawn(async move { driver.list(&workload).await });
                list.map(drop).boxed().shared()
            });
            state.listing.insert(list).clone()
        };
        list.await;
    }

    async fn list(self: &Arc<Self>, workload: &PlacedWorkload) {
        match self.context.client.list_pods(workload, None).await {
            Ok((version, pods)) => {
                let mut state = self.lock();
                state.listed = true;
                let pods = state.records(pods, &*self.context.nodes);
                self.handle(&mut state, Event::PodsListed { version, pods });
            }
            Err(error) => workload.warn(&error, "cannot list the pods of an owner"),
        }
    }

    /// Reads the owner, lists its pods if it may have more than the watch shows, and has the ledger reconciled.
    pub(crate) async fn reconcile(self: &Arc<Self>, workload: &Arc<PlacedWorkload>) -> kube::Result<()> {
        let (changes, watched) = {
            let mut state = self.lock();
            state.bind(workload, &*self.context.nodes);
            state.regroup(&*self.context.nodes);
            (state.changes, state.ledger.pods().values().filter(|pod| pod.marked).count())
        };
        let client = &self.context.client;
        let limit = client.pod_limit(workload).await?;
        let listed = if limit.is_some_and(|pods| pods as usize > watched) {
            Some(client.list_pods(workload, None).await?)
        } else {
            None
        };
        let mut unplaced = Vec::new();
        {
            let mut state = self.lock();
            state.reconciled = changes;
            self.handle(&mut state, Event::MaxPods(limit));
            // Before the pods are labelled: the watch delivers labelled pods, and its version overtakes the list's.
            if let Some((version, pods)) = listed {
                let pods = state.records(pods, &*self.context.nodes);
                let unknown = pods.iter().filter(|(_, pod)| is_unplaced(pod));
                unplaced.extend(unknown.map(|(name, pod)| (Arc::clone(name), pod.costed)));
                self.handle(&mut state, Event::PodsListed { version, pods });
            }
            self.handle(&mut state, Event::Tick);
            self.handle(&mut state, Event::Reconcile);
        }
        for (pod, costed) in unplaced {
            client.label_unplaced(workload, &pod, costed).await;
        }
        Ok(())
    }

    /// A watch event of a pod.
    pub(crate) fn pod_changed(self: &Arc<Self>, pod: ObservedPod) {
        let mut state = self.lock();
        let ended = pod.record.state == PodState::Gone;
        state.changes += 1;
        if !ended || state.controller.is_none() {
            state.controller = Some(pod.controller);
        }
        if ended || pod.health == Health::Ready {
            state.unready.remove(&pod.name);
        } else {
            state.unready.insert(Arc::clone(&pod.name), pod.waiting);
        }
        if pod.lacks_cost && !ended {
            state.without_cost.insert(Arc::clone(&pod.name));
        } else {
            state.without_cost.remove(&pod.name);
        }
        if ended {
            state.evidence.remove(&pod.name);
        } else {
            state.evidence.insert(Arc::clone(&pod.name), pod.evidence, pod.node.as_deref());
        }
        let record = state.grouped(&pod.name, pod.record, &*self.context.nodes);
        self.handle(&mut state, Event::PodChanged(pod.name, record));
    }

    /// A watch event shows that a pod, if it was one of the owner's, no longer is.
    pub(crate) fn pod_released(self: &Arc<Self>, name: &str, version: ResourceVersion) {
        let mut state = self.lock();
        if !state.ledger.pods().contains_key(name) {
            return;
        }
        state.changes += 1;
        state.unready.remove(name);
        state.without_cost.remove(name);
        state.evidence.remove(name);
        let record = PodRecord {
            version,
            state: PodState::Gone,
            placement: PodPlacement::Unknown,
            costed: false,
            marked: true,
        };
        self.handle(&mut state, Event::PodChanged(name.into(), record));
    }

    /// The watch has listed the pods again.
    pub(crate) fn pods_listed(self: &Arc<Self>, version: ResourceVersion, listed: ListedPods) {
        let mut state = self.lock();
        state.changes += 1;
        state.unready = listed.unready;
        state.without_cost = listed.without_cost;
        state.controller = listed.controller.or_else(|| state.controller.take());
        state.evidence = listed.evidence;
        let nodes = &*self.context.nodes;
        let pods = listed.records.into_iter().map(|(name, record)| {
            let record = state.grouped(&name, record, nodes);
            (name, record)
        });
        let pods = pods.collect();
        self.handle(&mut state, Event::WatchRestarted { version, pods });
    }

    /// A watch event of the object; `None` if it was deleted.
    pub(crate) fn object_changed(self: &Arc<Self>, version: ResourceVersion, content: Option<LedgerContent>) {
        self.handle(&mut self.lock(), Event::ObjectChanged(version, content));
    }

    pub(crate) fn inventory(&self, ledger: LedgerId, over_time: bool) -> Option<LedgerInventory> {
        let state = self.lock();
        let pod = |(name, pod): (&PodName, &PodRecord)| InventoryPod {
            name: Arc::clone(name),
            slot: pod.assignment().map(|assignment| assignment.slot),
            group: pod.group().cloned(),
            evidence: state.evidence.get(name).cloned(),
            health: if state.unready.contains_key(name) { Health::Unready } else { Health::Ready },
            token: pod.assignment().map(|assignment| assignment.token),
            version: pod.version,
            lacks_cost: state.without_cost.contains(name),
            waiting: state.unready.get(name).cloned().flatten(),
        };
        let pods = state.ledger.pods().iter().map(pod).collect();
        Some(LedgerInventory {
            ledger,
            controller: state.controller.clone()?,
            pods,
            reserved: state.ledger.reserved(),
            over_time,
        })
    }

    /// Whether a pod has changed since the last reconciliation.
    pub(crate) fn changed(&self) -> bool {
        self.lock().changed()
    }

    /// The controller of the pods, if two of them have one slot and that may be new.
    pub(crate) fn slot_conflict(&self) -> Option<NamespacedOwner> {
        let state = self.lock();
        let mut slots = BTreeSet::new();
        let mut assignments = state.ledger.pods().values().filter_map(PodRecord::assignment);
        let conflicts = state.changed() && assignments.any(|assignment| !slots.insert(assignment.slot));
        state.controller.clone().filter(|_| conflicts)
    }

    /// The pods that the watch shows, for another webhook.
    pub(crate) fn pods_to_hand_over(&self) -> Vec<HandedOverPod> {
        let state = self.lock();
        let marked = state.ledger.pods().iter().filter(|(_, pod)| pod.marked);
        let pod = |(name, pod): (&PodName, &PodRecord)| HandedOverPod {
            name: Arc::clone(name),
            version: pod.version,
            costed: pod.costed,
        };
        marked.map(pod).collect()
    }

    /// Whether nothing would be lost with the ledger.
    pub(crate) fn can_be_dropped(&self) -> bool {
        self.lock().ledger.can_be_dropped(self.context.started.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, DriverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the ledger, and does what it asks for.
    fn handle(self: &Arc<Self>, state: &mut DriverState, event: Event) {
        let Some(workload) = state.workload.clone() else {
            // No request has come yet: the ledger only keeps the pods.
            return state.ledger.observe(event, &self.context.now());
        };
        let effects = state.ledger.handle(event, &workload.allocator, &self.context.now());
        for effect in effects {
            let driver = Arc::clone(self);
            let workload = Arc::clone(&workload);
            match effect {
                Effect::Reply(token, reply) => {
                    for sender in state.waiting.remove(&token).into_iter().flatten() {
                        // A cancelled request needs no reply.
                        let _ = sender.send(reply.clone());
                    }
                }
                Effect::Reassign(pod, version, assignment) => {
                    let costed = state.ledger.pods().get(&pod).is_some_and(|pod| pod.costed);
                    tokio::spawn(async move {
                        driver.context.client.assign(&workload, &pod, version, &assignment, costed).await;
                    });
                }
                Effect::Call(call) => {
                    tokio::spawn(async move {
                        let event = driver.call(&workload, call).await;
                        driver.handle(&mut driver.lock(), event);
                    });
                }
            }
        }
        self.set_timer(state);
    }

    /// Makes an API call, and waits if it fails.
    async fn call(&self, workload: &PlacedWorkload, call: Call) -> Event {
        let client = &self.context.client;
        let response = async {
            match call {
                Call::Read => client.read(workload).await.map(Event::Read),
                Call::Write(at, content) => client.write(workload, at, &content).await,
                Call::Delete(at) => client.delete(workload, at).await,
                Call::List(at_least) => {
                    let (version, pods) = client.list_pods(workload, at_least).await?;
                    let max_pods = if at_least.is_none() { client.pod_limit(workload).await? } else { None };
                    let pods = self.lock().records(pods, &*self.context.nodes);
                    Ok(Event::Listed { version, pods, max_pods })
                }
            }
        };
        match response.await {
            Ok(event) => {
                self.lock().backoff = None;
                event
            }
            Err(error) => {
                workload.warn(&error, "cannot read or write a ledger");
                let pause = self.lock().backoff.get_or_insert_with(|| BACKOFF.build()).next();
                sleep(pause.unwrap_or_default()).await;
                Event::Failed
            }
        }
    }

    /// Sets a timer for the next time that the ledger waits for.
    fn set_timer(self: &Arc<Self>, state: &mut DriverState) {
        let Some(wakes) = state.ledger.next_tick().and_then(|clock| self.context.started.checked_add(clock))
        else {
            return;
        };
        if state.timer.is_some_and(|timer| timer <= wakes) {
            return;
        }
        state.timer = Some(wakes);
        let driver = Arc::clone(self);
        tokio::spawn(async move {
            sleep_until(wakes).await;
            let mut state = driver.lock();
            if state.timer == Some(wakes) {
                state.timer = None;
                driver.handle(&mut state, Event::Tick);
            }
        });
    }
}

impl DriverState {
    /// Whether a pod has changed since the last reconciliation.
    fn changed(&self) -> bool {
        self.changes != self.reconciled
    }

    /// Takes the workload and its policy. Returns whether its numbers are newer than those known.
    fn bind(&mut self, workload: &Arc<PlacedWorkload>, nodes: &dyn NodeLabels) -> bool {
        let before = self.workload.replace(Arc::clone(workload));
        let is_same = |before: &PlacedWorkload| {
            Arc::ptr_eq(&before.allocator, &workload.allocator)
                || before.allocator.policy() == workload.allocator.policy()
        };
        if !before.is_some_and(|before| is_same(&before)) {
            self.regroup(nodes);
        }
        let newer = self.version.is_none_or(|version| version < workload.version);
        if newer {
            self.version = Some(workload.version);
        }
        newer
    }

    /// Finds the group of each pod by the policy and the nodes as they are now.
    fn regroup(&mut self, nodes: &dyn NodeLabels) {
        let Self { workload: Some(workload), ledger, evidence, .. } = self else { return };
        let policy = workload.allocator.policy();
        evidence.retain(|name| ledger.pods().contains_key(name));
        ledger.regroup(|name| evidence.get(name).and_then(|evidence| evidence.group(policy, nodes)));
    }

    /// The record with its group by the policy, if that is known.
    fn grouped(&self, name: &PodName, record: PodRecord, nodes: &dyn NodeLabels) -> PodRecord {
        let Some(workload) = &self.workload else { return record };
        let evidence = self.evidence.get(name);
        let group = evidence.and_then(|evidence| evidence.group(workload.allocator.policy(), nodes));
        PodRecord { placement: PodPlacement::new(record.assignment(), group), ..record }
    }

    /// The records of listed pods, with their groups.
    fn records(&mut self, pods: Vec<ObservedPod>, nodes: &dyn NodeLabels) -> BTreeMap<PodName, PodRecord> {
        let record = |pod: ObservedPod| {
            self.evidence.insert(Arc::clone(&pod.name), pod.evidence, pod.node.as_deref());
            let record = self.grouped(&pod.name, pod.record, nodes);
            (pod.name, record)
        };
        pods.into_iter().map(record).collect()
    }
}

/// Whether a pod runs without a slot, a group or the label that the watch selects by.
fn is_unplaced(pod: &PodRecord) -> bool {
    !pod.marked && pod.state == PodState::Active && pod.placement == PodPlacement::Unknown
}

/// Notifies the ledger when no request with this token waits any longer.
struct WaitingRequest<'a> {
    driver: &'a Arc<LedgerDriver>,
    token: Token,
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        let mut state = self.driver.lock();
        let Some(senders) = state.waiting.get_mut(&self.token) else { return };
        senders.retain(|sender| !sender.is_closed());
        if senders.is_empty() {
            state.waiting.remove(&self.token);
            self.driver.handle(&mut state, Event::Cancelled(self.token));
        }
    }
}
