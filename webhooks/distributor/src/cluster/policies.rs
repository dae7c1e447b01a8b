//! The `PodDistributor` that governs the pods of an owner.

use std::sync::Arc;

use podshaper_core::object::OwnerReference;
use podshaper_kube::store::Store;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::OwnerReader;
use podshaper_placement_kube::{NamespacedOwner, PlacedWorkload, PolicySource};

use distributor_decision::WEBHOOK;
use distributor_decision::distributor::{Distributor, govern, governing};

#[derive(Clone)]
pub(super) struct DistributorPolicies {
    distributors: Arc<Store<Distributor>>,
    owners: Arc<OwnerReader>,
}

impl DistributorPolicies {
    pub(super) fn new(distributors: Arc<Store<Distributor>>, owners: Arc<OwnerReader>) -> Self {
        Self { distributors, owners }
    }

    /// The distributor that governs the pods of an owner, and the owner's owners as far as they had to be read.
    pub(super) async fn governing(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Option<(Arc<Distributor>, OwnerChain)> {
        let distributors = self.distributors.in_namespace(namespace);
        if distributors.is_empty() {
            // A Placement exists as long as its owner does, even without any distributor: the owner isn't read for nothing.
            return None;
        }
        let mut chain = OwnerChain::from(Some(owner.clone()));
        self.owners
            .read_chain(namespace, &mut chain, |chain| governing(&distributors, chain).is_some())
            .await;
        let distributor = Arc::clone(govern(&distributors, &mut chain)?);
        Some((distributor, chain))
    }
}

impl PolicySource for DistributorPolicies {
    async fn find(&self, owner: &NamespacedOwner) -> Option<Arc<PlacedWorkload>> {
        let (distributor, chain) = self.governing(&owner.namespace, &owner.owner).await?;
        let allocator = &distributor.spec.as_ref().ok()?.allocator;
        self.owners.workload(WEBHOOK, &owner.namespace, &chain, allocator).await.ok()?
    }
}
