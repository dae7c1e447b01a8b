//! The strategy that governs the pods of an owner.

use std::sync::Arc;

use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::{LedgerId, NamespacedOwner, OwnerReader, PlacedWorkload, PolicySource};

use custom_scheduler_annotations_decision::WEBHOOK;
use custom_scheduler_annotations_decision::annotations::{governing, set_target};
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

    /// The allocator of the strategy that governs the pods of a chain, if it is valid. The chain gets its target.
    pub(super) fn allocator(&self, chain: &mut OwnerChain) -> Option<Arc<SlotAllocator>> {
        let read = chain.clone();
        let (source, strategy) = governing(&read)?;
        set_target(chain, source);
        self.strategies.allocator(strategy.text).ok()
    }

    /// The owner of the ledger that the pods of a chain count in, if it is known.
    pub(super) async fn workload(
        &self,
        namespace: &str,
        chain: &OwnerChain,
        allocator: &Arc<SlotAllocator>,
    ) -> Option<Arc<PlacedWorkload>> {
        self.owners.workload(WEBHOOK, namespace, chain, allocator).await.ok()?
    }
}

impl PolicySource for StrategyPolicies {
    async fn find(&self, _: &LedgerId, owner: &NamespacedOwner) -> Option<Arc<PlacedWorkload>> {
        let NamespacedOwner { namespace, owner } = owner;
        if self.is_blocked(namespace) {
            return None;
        }
        let mut chain = OwnerChain::from(Some(owner.clone()));
        self.owners.read_chain(namespace, &mut chain, |_| false).await;
        let allocator = self.allocator(&mut chain)?;
        self.workload(namespace, &chain, &allocator).await
    }
}
