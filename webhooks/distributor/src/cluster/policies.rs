//! The allocator of a ledger's policy.

use std::sync::Arc;

use podshaper_core::owner_reference::OwnerReference;
use podshaper_kube::store::Store;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::{NamespacedOwner, OwnerReader, PlacedWorkload, PolicySource};

use distributor_decision::WEBHOOK;
use distributor_decision::distributor::{Distributor, governing};

/// Distributors, and what they govern.
#[derive(Clone)]
pub(super) struct Governed {
    pub(super) distributors: Arc<Store<Distributor>>,
    pub(super) owners: Arc<OwnerReader>,
}

impl Governed {
    /// The distributor that governs the pods of an owner, and the owner's owners as far as it took to tell.
    pub(super) async fn of(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Option<(Arc<Distributor>, OwnerChain)> {
        let distributors = self.distributors.in_namespace(namespace);
        if distributors.is_empty() {
            // Ledgers stay as long as their owners do: nobody's owner is read for nothing.
            return None;
        }
        let mut chain = OwnerChain::from(Some(owner.clone()));
        self.owners
            .read_chain(namespace, &mut chain, |chain| governing(&distributors, chain).is_some())
            .await;
        let distributor = Arc::clone(governing(&distributors, &chain)?);
        Some((distributor, chain))
    }
}

impl PolicySource for Governed {
    async fn find(&self, owner: &NamespacedOwner) -> Option<(Arc<PlacedWorkload>, Arc<SlotAllocator>)> {
        let (distributor, chain) = self.of(&owner.namespace, &owner.owner).await?;
        let allocator = Arc::clone(&distributor.spec.as_ref().ok()?.allocator);
        let workload = self.owners.workload(WEBHOOK, &owner.namespace, &chain).await.ok()??;
        Some((Arc::new(workload), allocator))
    }
}
