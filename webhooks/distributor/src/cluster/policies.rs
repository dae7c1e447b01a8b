//! The `PodDistributor` that governs the pods of an owner.

use std::sync::Arc;

use podshaper_core::object::OwnerReference;
use podshaper_kube::store::Store;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::OwnerReader;
use podshaper_placement_kube::{LedgerId, NamespacedOwner, PlacedWorkload, PolicySource};

use distributor_decision::WEBHOOK;
use distributor_decision::distributor::{Distributor, govern, governing, selects_by_labels_only};

#[derive(Clone)]
pub(super) struct DistributorPolicies {
    distributors: Arc<Store<Distributor>>,
    owners: Arc<OwnerReader>,
}

impl DistributorPolicies {
    pub(super) fn new(distributors: Arc<Store<Distributor>>, owners: Arc<OwnerReader>) -> Self {
        Self { distributors, owners }
    }

    /// The distributors of a namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> Vec<Arc<Distributor>> {
        self.distributors.in_namespace(namespace)
    }

    /// The owners of a pod, as far as they decide which of these distributors governs it.
    pub(super) async fn chain(
        &self,
        namespace: &str,
        distributors: &[Arc<Distributor>],
        controller: Option<&OwnerReference>,
    ) -> OwnerChain {
        let mut chain = OwnerChain::from(controller.cloned());
        if !selects_by_labels_only(distributors) {
            self.owners
                .read_chain(namespace, &mut chain, |chain| governing(distributors, chain).is_some())
                .await;
        }
        chain
    }

    /// The distributor that owns this ledger, because it selects pods by their labels, and their chain.
    fn selecting(&self, ledger: &LedgerId, namespace: &str) -> Option<(Arc<Distributor>, OwnerChain)> {
        let mut distributors = self.of_namespace(namespace).into_iter();
        let distributor = distributors.find(|distributor| {
            distributor.target.selector.is_some()
                && LedgerId::new(namespace, &distributor.sequence_owner().uid) == *ledger
        })?;
        let mut chain = OwnerChain::from(None);
        chain.set_selecting(distributor.sequence_owner());
        Some((distributor, chain))
    }

    /// The distributor that governs the pods of an owner, and the owner's owners as far as they had to be read.
    pub(super) async fn governing(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Option<(Arc<Distributor>, OwnerChain)> {
        let distributors = self.of_namespace(namespace);
        // A Placement exists as long as its owner does, even without any distributor: the owner isn't read for nothing.
        let mut chain = self.chain(namespace, &distributors, Some(owner)).await;
        let distributor = Arc::clone(govern(&distributors, &mut chain)?);
        Some((distributor, chain))
    }
}

impl PolicySource for DistributorPolicies {
    async fn find(&self, ledger: &LedgerId, owner: &NamespacedOwner) -> Option<Arc<PlacedWorkload>> {
        let (distributor, chain) = match self.selecting(ledger, &owner.namespace) {
            Some(selecting) => selecting,
            None => self.governing(&owner.namespace, &owner.owner).await?,
        };
        let allocator = &distributor.spec.as_ref().ok()?.allocator;
        self.owners.workload(WEBHOOK, &owner.namespace, &chain, allocator).await.ok()?
    }
}
