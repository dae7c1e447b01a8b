//! What the leader does: it counts, tells in ledgers how pods are spread, and takes in those that nobody placed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::owner_reference::OwnerReference;
use podshaper_kube::error::describe;
use podshaper_kube::lease::{Leadership, while_leading};
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::{LedgerId, LedgerInventory, Ledgers, NamespacedOwner, PlacementMetrics};
use tokio::time::{Instant, sleep};

use super::governed::Governed;

/// Without a change owners are read again after this.
const LONGEST: Duration = Duration::from_secs(30);

pub(super) struct Controller {
    pub(super) governed: Governed,
    pub(super) ledgers: Arc<Ledgers>,
    pub(super) metrics: PlacementMetrics,
    pub(super) period: Duration,
}

/// What was seen of the pods that share a sequence.
struct Seen {
    at: Instant,
    namespace: String,
    /// The topmost owner that there is.
    workload: OwnerReference,
    /// None where no strategy governs them.
    allocator: Option<Arc<SlotAllocator>>,
    spread: Spread,
}

/// What was seen at the last look.
type All = HashMap<LedgerId, Seen>;

impl Controller {
    /// Works while this replica leads.
    pub(super) async fn run(self, leadership: Leadership) {
        while_leading(leadership, || self.lead(), |leads| self.metrics.set_leader(leads)).await;
    }

    async fn lead(&self) {
        let mut all = All::new();
        loop {
            if self.ledgers.has_synced() {
                all = self.look(all).await;
            }
            sleep(self.period).await;
        }
    }

    /// Looks at everything once.
    async fn look(&self, mut before: All) -> All {
        let mut all = All::new();
        for census in self.ledgers.inventory().into_iter().filter(|census| !census.pods.is_empty()) {
            let known = before.remove(&census.ledger);
            let steady = known.as_ref().is_some_and(|seen| seen.spread == seen.of(&census));
            // A status that is written while pods are placed would cross their ledger's writes.
            if let Some(seen) = known.as_ref().filter(|seen| steady && seen.allocator.is_some()) {
                self.ledgers.patch_status(&census.ledger, &seen.spread).await;
            }
            let seen = match known.filter(|seen| steady && seen.at.elapsed() < LONGEST) {
                Some(seen) => seen,
                None => self.see(&census, steady).await,
            };
            all.insert(census.ledger, seen);
        }
        self.metrics.clear_pods();
        for Seen { namespace, workload, allocator, spread, .. } in all.values() {
            let Some(allocator) = allocator else { continue };
            let whose =
                [("namespace", &**namespace), ("kind", &*workload.kind), ("workload", &*workload.name)];
            // The revisions of a workload count together.
            self.metrics.add_pods(&whose, allocator.policy(), spread);
        }
        all
    }

    /// Reads the owners of the pods, and the allocator that places them.
    async fn see(&self, census: &LedgerInventory, steady: bool) -> Seen {
        let NamespacedOwner { namespace, owner: controller } = &census.controller;
        let (chain, allocator) = self.governed.of(namespace, controller).await;
        let workload = chain.read().last().map_or(controller, |(owner, _)| owner).clone();
        let mut seen = Seen {
            at: Instant::now(),
            namespace: namespace.clone(),
            workload,
            allocator,
            spread: Spread::default(),
        };
        seen.spread = seen.of(census);
        if let Some(allocator) = seen.allocator.as_ref().filter(|_| steady) {
            self.take_in(census, &chain, allocator).await;
        }
        seen
    }

    /// Looks for pods that nobody placed, where the owner has more than are known.
    async fn take_in(&self, census: &LedgerInventory, chain: &OwnerChain, allocator: &Arc<SlotAllocator>) {
        // Those that are numbered have no ledger, and their controller looks at no cost.
        let shared = chain.sequence_owner().filter(|(owner, _)| owner.kind != "StatefulSet");
        let owner = shared.and_then(|(_, owner)| owner);
        let pods = owner.and_then(|owner| owner.created.or(owner.pods)).unwrap_or(0);
        let namespace = &census.controller.namespace;
        if pods as usize > census.pods.len()
            && let Some(workload) = self.governed.workload(namespace, chain).await
            && let Err(error) = self.ledgers.reconcile(&workload, allocator).await
        {
            tracing::warn!(namespace, error = describe(&error), "can't take in pods that nobody placed");
        }
    }
}

impl Seen {
    /// How these pods are spread over the groups.
    fn of(&self, census: &LedgerInventory) -> Spread {
        self.allocator.as_ref().map(|allocator| census.spread(allocator)).unwrap_or_default()
    }
}
