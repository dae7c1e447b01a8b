//! The allocator of a ledger's policy.

use std::sync::Arc;

use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::ledgers::{Policies, Standing, Workload};
use podshaper_placement_kube::owners::Owners;

use custom_scheduler_annotations_decision::WEBHOOK;
use custom_scheduler_annotations_decision::annotations::governing;
use custom_scheduler_annotations_decision::strategies::Strategies;

/// What strategies govern.
#[derive(Clone)]
pub(super) struct Governed {
    pub(super) owners: Arc<Owners>,
    pub(super) strategies: Arc<Strategies>,
    /// Namespaces that are left alone: nothing is put in order there either.
    pub(super) blocklist: Arc<[String]>,
}

impl Governed {
    /// The owners of an owner's pods, and the allocator that places these, if a strategy governs them.
    pub(super) async fn of(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> (OwnerChain, Option<Arc<SlotAllocator>>) {
        let mut chain = OwnerChain::from(Some(owner.clone()));
        if self.blocklist.iter().any(|blocked| blocked == namespace) {
            return (chain, None);
        }
        self.owners.climb(namespace, &mut chain, |_| false).await;
        let allocator = governing(&chain).and_then(|(_, told)| self.strategies.allocator(told.text).ok());
        (chain, allocator)
    }

    /// What the ledger of a chain is about; none where nobody can tell now.
    pub(super) async fn workload(&self, namespace: &str, chain: &OwnerChain) -> Option<Arc<Workload>> {
        self.owners.workload(WEBHOOK, namespace, chain).await.ok()?.map(Arc::new)
    }
}

impl Policies for Governed {
    async fn find(&self, standing: &Standing) -> Option<(Arc<Workload>, Arc<SlotAllocator>)> {
        let (chain, allocator) = self.of(&standing.namespace, &standing.owner).await;
        Some((self.workload(&standing.namespace, &chain).await?, allocator?))
    }
}
