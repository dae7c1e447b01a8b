//! The owners of placed pods, cached between reconciliations of a controller.

use std::collections::{HashMap, HashSet};
use std::mem;
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
    /// The chains that are read again in this reconciliation.
    due: HashSet<LedgerId>,
    /// The chains that were used after their lifetime, and when they were read.
    expired: Vec<(Instant, LedgerId)>,
}

struct CachedChain {
    read_at: Instant,
    /// The first owner: the controller of a pod.
    controller: OwnerReference,
    chain: OwnerChain,
}

impl ChainCache {
    /// An empty cache. Chains are read again after `lifetime`, at most `max_refreshes` of them in a reconciliation, the oldest first.
    pub fn new(owners: Arc<OwnerReader>, lifetime: Duration, max_refreshes: usize) -> Self {
        Self {
            owners,
            lifetime,
            max_refreshes,
            chains: HashMap::new(),
            due: HashSet::new(),
            expired: Vec::new(),
        }
    }

    /// Starts a reconciliation of these ledgers. Chains of others are dropped.
    pub fn start_pass(&mut self, inventories: &[LedgerInventory]) {
        let ledgers: HashSet<&LedgerId> = inventories.iter().map(|inventory| &inventory.ledger).collect();
        self.chains.retain(|ledger, _| ledgers.contains(ledger));
        let mut expired = mem::take(&mut self.expired);
        expired.sort_by_key(|(read_at, _)| *read_at);
        self.due = expired.into_iter().take(self.max_refreshes).map(|(_, ledger)| ledger).collect();
    }

    /// The owners of the pods of a ledger, and whether they were read just now.
    pub async fn get(&mut self, inventory: &LedgerInventory) -> (OwnerChain, bool) {
        let NamespacedOwner { namespace, owner: controller } = &inventory.controller;
        // If a controller is deleted, the other pods of the ledger may have another one: those of a CronJob have one for each Job.
        let valid = |cached: &&CachedChain| {
            cached.chain.end() != Some(ChainEnd::Gone) || cached.controller == *controller
        };
        let cached = self.chains.get(&inventory.ledger).filter(valid);
        if let Some(cached) = cached.filter(|_| !self.due.remove(&inventory.ledger)) {
            if cached.read_at.elapsed() >= self.lifetime {
                self.expired.push((cached.read_at, inventory.ledger.clone()));
            }
            return (cached.chain.clone(), false);
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

#[cfg(test)]
mod tests {
    use podshaper_testing::{MockResponse, client};
    use serde_json::json;

    use super::*;

    fn inventory(number: usize) -> LedgerInventory {
        let owner = OwnerReference::new("apps/v1", "ReplicaSet", format!("web-{number}"), "u");
        LedgerInventory {
            ledger: LedgerId::new("ns", &number.to_string()),
            controller: NamespacedOwner { namespace: "ns".to_owned(), owner },
            pods: Vec::new(),
            reserved: 0,
            over_time: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_chain_is_read_again_first() {
        let lifetime = Duration::from_mins(2);
        let set = json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"replicas": 1}});
        let client = client(move |_| std::future::ready(MockResponse::json(200, &set)));
        let mut chains = ChainCache::new(Arc::new(OwnerReader::new(client, &[])), lifetime, 1);
        let inventories: Vec<_> = (0..4).map(inventory).collect();
        let mut reads = Vec::new();
        for pass in 0..8 {
            chains.start_pass(&inventories);
            for (number, inventory) in inventories.iter().enumerate() {
                let (_, was_read) = chains.get(inventory).await;
                if was_read && pass > 0 {
                    reads.push(number);
                }
            }
            tokio::time::advance(lifetime).await;
        }
        assert_eq!(reads, [0, 1, 2, 3, 0, 1]);
    }
}
