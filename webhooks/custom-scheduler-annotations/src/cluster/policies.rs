//! The strategy that governs the pods of an owner.

use std::sync::Arc;

use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::{NamespacedOwner, OwnerReader, PlacedWorkload, PolicySource};

use custom_scheduler_annotations_decision::WEBHOOK;
use custom_scheduler_annotations_decision::annotations::governing;
use custom_scheduler_annotations_decision::strategies::Strategies;

#[derive(Clone)]
pub(super) struct StrategyPolicies {
    owners: Arc<OwnerReader>,
    strategies: Arc<Strategies>,
    blocklist: Arc<[String]>,
}

impl StrategyPolicies {
    pub(super) fn new(
        owners: Arc<OwnerReader>,
        strategies: Arc<Strategies>,
        blocklist: Arc<[String]>,
    ) -> Self {
        Self { owners, strategies, blocklist }
    }

    /// Whether pods of the namespace are neither placed nor counted.
    pub(super) fn is_blocked(&self, namespace: &str) -> bool {
        self.blocklist.iter().any(|blocked| blocked == namespace)
    }

    /// The allocator of the strategy that governs the pods of a chain, if it is valid.
    pub(super) fn allocator(&self, chain: &OwnerChain) -> Option<Arc<SlotAllocator>> {
        governing(chain).and_then(|(_, told)| self.strategies.allocator(told.text).ok())
    }

    /// The workload whose ledger the pods of a chain count in, if it can be told.
    pub(super) async fn workload(&self, namespace: &str, chain: &OwnerChain) -> Option<Arc<PlacedWorkload>> {
        self.owners.workload(WEBHOOK, namespace, chain).await.ok()?.map(Arc::new)
    }
}

impl PolicySource for StrategyPolicies {
    async fn find(&self, owner: &NamespacedOwner) -> Option<(Arc<PlacedWorkload>, Arc<SlotAllocator>)> {
        let NamespacedOwner { namespace, owner } = owner;
        if self.is_blocked(namespace) {
            return None;
        }
        let mut chain = OwnerChain::from(Some(owner.clone()));
        self.owners.read_chain(namespace, &mut chain, |_| false).await;
        let allocator = self.allocator(&chain)?;
        Some((self.workload(namespace, &chain).await?, allocator))
    }
}
