//! The owners of placed pods, cached between reconciliations of a controller.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::object::OwnerReference;
use podshaper_placement::owners::{ChainEnd, OwnerChain};
use tokio::time::Instant;

use crate::inventory::LedgerInventory;
use crate::owner_reader::OwnerReader;
use crate::placement_object::{LedgerId, NamespacedOwner};

/// Chains of owners by ledger. A chain is read again after a while: an owner may be orphaned and adopted, and RBAC rules change.
pub struct ChainCache {
    owners: Arc<OwnerReader>,
    lifetime: Duration,
    max_refreshes: usize,
    chains: HashMap<LedgerId, CachedChain>,
    /// How many more chains are read again in this reconciliation.
    refreshes: usize,
}

struct CachedChain {
    read_at: Instant,
    /// The first owner: the controller of a pod.
    controller: OwnerReference,
    chain: OwnerChain,
}

impl ChainCache {
    /// An empty cache. Chains are read again after `lifetime`, so many of them in one reconciliation.
    pub fn new(owners: Arc<OwnerReader>, lifetime: Duration, max_refreshes: usize) -> Self {
        Self { owners, lifetime, max_refreshes, chains: HashMap::new(), refreshes: 0 }
    }

    /// Starts a reconciliation of these ledgers. Chains of others are dropped.
    pub fn start_pass(&mut self, inventories: &[LedgerInventory]) {
        let ledgers: HashSet<&LedgerId> = inventories.iter().map(|inventory| &inventory.ledger).collect();
        self.chains.retain(|ledger, _| ledgers.contains(ledger));
        self.refreshes = self.max_refreshes;
    }

    /// The owners of the pods of a ledger, and whether they were read just now.
    pub async fn get(&mut self, inventory: &LedgerInventory) -> (OwnerChain, bool) {
        let NamespacedOwner { namespace, owner: controller } = &inventory.controller;
        // If a controller is deleted, the other pods of the ledger may have another one: those of a CronJob have one for each Job.
        let valid = |cached: &&CachedChain| {
            cached.chain.end() != Some(ChainEnd::Gone) || cached.controller == *controller
        };
        if let Some(cached) = self.chains.get(&inventory.ledger).filter(valid) {
            if self.refreshes == 0 || cached.read_at.elapsed() < self.lifetime {
                return (cached.chain.clone(), false);
            }
            self.refreshes -= 1;
        }
        let mut chain = OwnerChain::from(Some(controller.clone()));
        self.owners.read_chain(namespace, &mut chain, |_| false).await;
        if chain.end() != Some(ChainEnd::Unknown) {
            let read_at = Instant::now();
            let controller = controller.clone();
            let cached = CachedChain { read_at, controller, chain: chain.clone() };
            self.chains.insert(inventory.ledger.clone(), cached);
        }
        (chain, true)
    }
}
