//! The allocator of a ledger's policy.

use std::sync::Arc;

use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::{NamespacedOwner, OwnerReader, PlacedWorkload, PolicySource};

use custom_scheduler_annotations_decision::WEBHOOK;
use custom_scheduler_annotations_decision::annotations::governing;
use custom_scheduler_annotations_decision::strategies::Strategies;

/// What strategies govern.
#[derive(Clone)]
pub(super) struct Governed {
    pub(super) owners: Arc<OwnerReader>,
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
        self.owners.read_chain(namespace, &mut chain, |_| false).await;
        let allocator = governing(&chain).and_then(|(_, told)| self.strategies.allocator(told.text).ok());
        (chain, allocator)
    }

    /// What the ledger of a chain is about; none where nobody can tell now.
    pub(super) async fn workload(&self, namespace: &str, chain: &OwnerChain) -> Option<Arc<PlacedWorkload>> {
        self.owners.workload(WEBHOOK, namespace, chain).await.ok()?.map(Arc::new)
    }
}

impl PolicySource for Governed {
    async fn find(&self, owner: &NamespacedOwner) -> Option<(Arc<PlacedWorkload>, Arc<SlotAllocator>)> {
        let (chain, allocator) = self.of(&owner.namespace, &owner.owner).await;
        Some((self.workload(&owner.namespace, &chain).await?, allocator?))
    }
}
