//! What brings requests and the API server's answers to the ledgers, and does what they ask for.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::api::{Api, Listing};
use super::pods::{self, Health, Origin, Others};
use super::{LedgerId, Standing, Told, Workload};
use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::ledger::{Call, Effect, Event, Ledger, Now, PodName, SlotReply, SlotRequest, Token};
use podshaper_placement::spread::Spread;

/// The workload that a ledger is bound to, and the allocator of its policy.
pub(super) type Bound = (Arc<Workload>, Arc<SlotAllocator>);

/// All ledgers of one webhook in this process.
pub struct Ledgers {
    api: Api,
    /// When the clock of the ledgers began.
    begun: Instant,
    /// How far the watch has come.
    pub(super) watched: AtomicU64,
    pub(super) filled: AtomicBool,
    entries: Mutex<HashMap<LedgerId, Arc<Entry>>>,
}

/// One ledger, and who deals with it.
#[derive(Default)]
pub(super) struct Entry {
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) ledger: Ledger,
    /// `None` until the first request for a slot.
    bound: Option<Bound>,
    /// Whether pods from before the ledger are known, and the list of them that is under way.
    acquainted: bool,
    acquainting: Option<Shared<BoxFuture<'static, ()>>>,
    /// Who waits for an answer.
    waiting: HashMap<Token, Vec<oneshot::Sender<SlotReply>>>,
    /// When it will be told the time.
    armed: Option<Instant>,
    /// So many calls have failed in a row.
    failed: u32,
    /// Whether something has changed that the leader may have to put in order.
    pub(super) changed: bool,
    /// Pods that aren't ready.
    pub(super) unready: BTreeMap<PodName, Health>,
    /// Where the chain of the pods' owners begins; none until a pod was seen.
    pub(super) origin: Option<Origin>,
}

impl Ledgers {
    /// The ledgers of `webhook`; begins to watch its pods. Needs a runtime.
    ///
    /// Rights: `get`, `create`, `patch`, `delete` Placements; `list`, `watch` and `patch` pods; `get` owners.
    pub fn start(client: Client, webhook: &'static str) -> Arc<Self> {
        let ledgers = Self::new(client.clone(), webhook);
        tokio::spawn(pods::follow(client, Arc::clone(&ledgers)));
        ledgers
    }

    pub(super) fn new(client: Client, webhook: &'static str) -> Arc<Self> {
        Arc::new(Self {
            api: Api { client, webhook },
            begun: Instant::now(),
            watched: AtomicU64::new(0),
            filled: AtomicBool::new(false),
            entries: Mutex::default(),
        })
    }

    /// Whether all placed pods have been seen once.
    pub fn filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Finds a place for a pod of `workload`, by its deadline at the latest. None where the process ends, or
    /// the policy changes, meanwhile.
    pub async fn place(
        self: &Arc<Self>,
        workload: &Arc<Workload>,
        allocator: &Arc<SlotAllocator>,
        request: SlotRequest,
        deadline: Instant,
    ) -> Option<SlotReply> {
        let SlotRequest { token, fitting, .. } = request;
        let (sender, answer) = oneshot::channel();
        let entry = self.of(workload);
        if workload.created.is_some_and(|pods| pods > 0) {
            // The ledger wants time, too.
            let now = Instant::now();
            let half = now + deadline.saturating_duration_since(now) / 2;
            let _ = timeout_at(half, self.acquaint(&entry, workload, allocator)).await;
        }
        {
            let mut state = entry.lock();
            if state.bind(workload, allocator) {
                self.handle(&entry, &mut state, Event::MaxPods(workload.pods));
            }
            state.waiting.entry(token).or_default().push(sender);
            let deadline = deadline.saturating_duration_since(self.begun);
            self.handle(&entry, &mut state, Event::Requested(request, deadline));
        }
        let leave = Leave { ledgers: self, entry: &entry, token };
        let answer = answer.await.ok();
        drop(leave);
        // The policy may have become another meanwhile, and its groups others than those that the pod fits into.
        let stands = |group: &str| allocator.policy().index(group).is_some_and(|own| fitting.contains(own));
        answer.filter(|answer| match answer {
            SlotReply::Placed(stamp) | SlotReply::Estimated(stamp) => stands(&stamp.group),
            SlotReply::Kept | SlotReply::Unplaced => true,
        })
    }

    /// Where the owner has pods of which the watch shows none, has them known before its first pod is placed: nobody placed them,
    /// but they may tell their groups, as those that another scheduler or webhook has chosen. The list goes on when who waits for it
    /// leaves, so that the next needn't begin anew.
    async fn acquaint(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        workload: &Arc<Workload>,
        allocator: &Arc<SlotAllocator>,
    ) {
        let list = {
            let mut state = entry.lock();
            state.acquainted |= !state.ledger.pods().is_empty();
            if state.acquainted {
                return;
            }
            let under_way = state.acquainting.take().filter(|list| list.peek().is_none());
            let list = under_way.unwrap_or_else(|| {
                let (ledgers, entry) = (Arc::clone(self), Arc::clone(entry));
                let (workload, allocator) = (Arc::clone(workload), Arc::clone(allocator));
                let list = tokio::spawn(async move { ledgers.survey(&entry, &workload, &allocator).await });
                list.map(drop).boxed().shared()
            });
            state.acquainting.insert(list).clone()
        };
        list.await;
    }

    /// Lists the pods of an owner.
    async fn survey(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        workload: &Workload,
        allocator: &Arc<SlotAllocator>,
    ) {
        match self.api.list(workload, allocator, None).await {
            Ok(Listing { version, pods, .. }) => {
                let mut state = entry.lock();
                state.acquainted = true;
                self.handle(entry, &mut state, Event::PodsListed { version, pods });
            }
            Err(error) => {
                let (namespace, owner) = (&workload.namespace, &workload.owner.name);
                tracing::warn!(namespace, owner, %error, "can't list pods that nobody placed");
            }
        }
    }

    /// Those of a selector's pods that this webhook hasn't placed.
    pub async fn others(&self, namespace: &str, selector: &str) -> kube::Result<Others> {
        self.api.others(namespace, selector).await
    }

    /// Writes into a ledger, for people, how the pods are spread that it is about, unless that stands there.
    pub async fn tell(&self, standing: &Standing, spread: &Spread) {
        let told = Told { pods: spread.pods(), due: spread.desired() };
        if standing.told != told
            && let Err(error) = self.api.tell(standing, &told).await
        {
            tracing::warn!(namespace = standing.namespace, %error, "can't write the status of a ledger");
        }
    }

    /// Puts the ledger of this owner in order.
    ///
    /// Reads the owner first, and lists its pods where the watch doesn't show all: nobody may have placed them. Those that don't tell
    /// their group are marked as the first to go.
    pub async fn tend(
        self: &Arc<Self>,
        workload: &Arc<Workload>,
        allocator: &Arc<SlotAllocator>,
    ) -> kube::Result<()> {
        let entry = self.of(workload);
        let known = {
            let mut state = entry.lock();
            state.bind(workload, allocator);
            state.changed = false;
            state.ledger.pods().values().filter(|pod| pod.marked).count()
        };
        let mut unfinished = Unfinished(Some(&entry));
        let owner = self.api.bound(workload).await?;
        let listing = if owner.is_some_and(|pods| pods as usize > known) {
            Some(self.api.list(workload, allocator, None).await?)
        } else {
            None
        };
        unfinished.0 = None;
        let unplaced = {
            let mut state = entry.lock();
            self.handle(&entry, &mut state, Event::MaxPods(owner));
            // Before they are marked: the watch shows what is marked, and overtakes the list by that.
            let unplaced = listing.map(|Listing { version, pods, unplaced }| {
                self.handle(&entry, &mut state, Event::PodsListed { version, pods });
                unplaced
            });
            self.handle(&entry, &mut state, Event::Tick);
            self.handle(&entry, &mut state, Event::Reconcile);
            unplaced.unwrap_or_default()
        };
        for (pod, costed) in unplaced {
            if let Err(error) = self.api.mark_unplaced(workload, &pod, costed).await {
                tracing::warn!(namespace = workload.namespace, %pod, %error, "a pod can't be marked");
            }
        }
        Ok(())
    }

    /// Whether something has changed since the ledger of this owner was last put in order.
    pub(super) fn changed(&self, namespace: &str, owner: &OwnerReference) -> bool {
        self.known(namespace, owner).is_none_or(|entry| entry.lock().changed)
    }

    /// Forgets ledgers of which nothing is left.
    pub(super) fn sweep(&self) {
        let clock = self.begun.elapsed();
        self.all()
            .retain(|_, entry| Arc::strong_count(entry) > 1 || !entry.lock().ledger.can_be_dropped(clock));
    }

    pub(super) fn webhook(&self) -> &'static str {
        self.api.webhook
    }

    pub(super) fn all(&self) -> MutexGuard<'_, HashMap<LedgerId, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<Entry>> {
        self.all().get(&LedgerId::new(namespace, &owner.uid)).cloned()
    }

    fn of(&self, workload: &Workload) -> Arc<Entry> {
        self.entry(workload.ledger())
    }

    pub(super) fn entry(&self, ledger: LedgerId) -> Arc<Entry> {
        Arc::clone(self.all().entry(ledger).or_default())
    }

    fn now(&self) -> Now {
        Now {
            clock: self.begun.elapsed(),
            wall: Timestamp::now().as_second(),
            watched: self.watched.load(Ordering::Acquire),
        }
    }

    /// Tells a ledger what happened, and does what it asks for.
    pub(super) fn handle(self: &Arc<Self>, entry: &Arc<Entry>, state: &mut State, event: Event) {
        let Some((workload, allocator)) = state.bound.clone() else {
            // Nobody waits for it: it only takes in what it is told.
            return state.ledger.observe(event, &self.now());
        };
        match event {
            Event::Failed => state.failed = state.failed.saturating_add(1),
            Event::Read(_) | Event::Written(_) | Event::Conflict | Event::Listed { .. } => state.failed = 0,
            _ => {}
        }
        let effects = state.ledger.handle(event, &allocator, &self.now());
        for effect in effects {
            match effect {
                Effect::Reply(token, answer) => {
                    for sender in state.waiting.remove(&token).into_iter().flatten() {
                        // Who has left needs none.
                        let _ = sender.send(answer.clone());
                    }
                }
                Effect::Reassign(pod, version, stamp) => {
                    let (ledgers, workload) = (Arc::clone(self), Arc::clone(&workload));
                    let costed = state.ledger.pods().get(&pod).is_some_and(|pod| pod.costed);
                    tokio::spawn(
                        async move { ledgers.api.stamp(&workload, &pod, version, &stamp, costed).await },
                    );
                }
                Effect::Call(call) => self.call(entry, &workload, &allocator, state.failed, call),
            }
        }
        self.arm(entry, state);
    }

    fn call(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        workload: &Arc<Workload>,
        allocator: &Arc<SlotAllocator>,
        failed: u32,
        call: Call,
    ) {
        let (ledgers, entry) = (Arc::clone(self), Arc::clone(entry));
        let (workload, allocator) = (Arc::clone(workload), Arc::clone(allocator));
        tokio::spawn(async move {
            let event = ledgers.api.call(&workload, &allocator, failed, call).await;
            ledgers.handle(&entry, &mut entry.lock(), event);
        });
    }

    /// Has the ledger told the time when it wants to be.
    fn arm(self: &Arc<Self>, entry: &Arc<Entry>, state: &mut State) {
        let Some(wakes) = state.ledger.next_tick().and_then(|clock| self.begun.checked_add(clock)) else {
            return;
        };
        if state.armed.is_some_and(|armed| armed <= wakes) {
            return;
        }
        state.armed = Some(wakes);
        let (ledgers, entry) = (Arc::clone(self), Arc::clone(entry));
        tokio::spawn(async move {
            sleep_until(wakes).await;
            let mut state = entry.lock();
            if state.armed == Some(wakes) {
                state.armed = None;
                ledgers.handle(&entry, &mut state, Event::Tick);
            }
        });
    }
}

impl Entry {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the current allocator and the workload; returns whether the workload is newer than the one known.
    fn bind(&mut self, workload: &Arc<Workload>, allocator: &Arc<SlotAllocator>) -> bool {
        let known = self.bound.take().map(|(known, _)| known);
        let (workload, news) = match known.filter(|known| known.version >= workload.version) {
            Some(known) => (known, false),
            None => (Arc::clone(workload), true),
        };
        self.bound = Some((workload, Arc::clone(allocator)));
        news
    }
}

/// A ledger that was to be put in order counts as changed again, where that ends before its time.
struct Unfinished<'a>(Option<&'a Entry>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.0 {
            entry.lock().changed = true;
        }
    }
}

/// Tells the ledger when nobody waits for the answer any more.
struct Leave<'a> {
    ledgers: &'a Arc<Ledgers>,
    entry: &'a Arc<Entry>,
    token: Token,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut state = self.entry.lock();
        let Some(senders) = state.waiting.get_mut(&self.token) else { return };
        senders.retain(|sender| !sender.is_closed());
        if senders.is_empty() {
            state.waiting.remove(&self.token);
            self.ledgers.handle(self.entry, &mut state, Event::Cancelled(self.token));
        }
    }
}
