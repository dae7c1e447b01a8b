//! The owners of placed pods, remembered between reconciliations.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::owners::{ChainEnd, OwnerChain};
use podshaper_placement_kube::OwnerReader;
use podshaper_placement_kube::{LedgerId, LedgerInventory};
use tokio::time::Instant;

/// After this time a chain is read again: an owner may be orphaned and adopted, and RBAC rules change.
const LIFETIME: Duration = Duration::from_mins(2);
/// How many chains are read again in one reconciliation.
const REFRESHES: usize = 16;

pub(super) struct ChainCache {
    owners: Arc<OwnerReader>,
    chains: HashMap<LedgerId, CachedChain>,
    /// Refreshes that are left in this reconciliation.
    refreshes: usize,
}

struct CachedChain {
    read_at: Instant,
    /// The first owner: the controller of a pod.
    controller: OwnerReference,
    chain: OwnerChain,
}

impl ChainCache {
    pub(super) fn new(owners: Arc<OwnerReader>) -> Self {
        Self { owners, chains: HashMap::new(), refreshes: 0 }
    }

    /// Begins a reconciliation of these pods, and forgets the owners of others.
    pub(super) fn begin(&mut self, pods: &[LedgerInventory]) {
        let ledgers: HashSet<&LedgerId> = pods.iter().map(|census| &census.ledger).collect();
        self.chains.retain(|ledger, _| ledgers.contains(ledger));
        self.refreshes = REFRESHES;
    }

    /// The owners of these pods.
    pub(super) async fn get(&mut self, census: &LedgerInventory) -> OwnerChain {
        let controller = &census.controller.owner;
        // Where the controller is gone another pod may have one that isn't.
        let is_valid = |cached: &&CachedChain| {
            cached.chain.end() != Some(ChainEnd::Gone) || cached.controller == *controller
        };
        if let Some(cached) = self.chains.get(&census.ledger).filter(is_valid) {
            if self.refreshes == 0 || cached.read_at.elapsed() < LIFETIME {
                return cached.chain.clone();
            }
            self.refreshes -= 1;
        }
        let mut chain = OwnerChain::from(Some(controller.clone()));
        self.owners.read_chain(&census.controller.namespace, &mut chain, |_| false).await;
        if chain.end() != Some(ChainEnd::Unknown) {
            let cached =
                CachedChain { read_at: Instant::now(), controller: controller.clone(), chain: chain.clone() };
            self.chains.insert(census.ledger.clone(), cached);
        }
        chain
    }
}
