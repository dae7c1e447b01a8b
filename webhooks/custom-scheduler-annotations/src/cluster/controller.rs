//! The leader's controller: it counts pods, writes the status of Placements, and finds pods that no webhook has placed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::object::OwnerReference;
use podshaper_kube::error::describe;
use podshaper_kube::lease::{Leadership, while_leading};
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::identity::UnknownNodes;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::{
    ChainCache, ClusterBackend, LedgerId, LedgerInventory, NamespacedOwner, PlacementMetrics,
};
use tokio::time::sleep;

use super::policies::StrategyPolicies;

/// After this time the owners of pods are read again, those of at most one ledger a second. A ReplicaSet and its Deployment are two requests.
const CHAIN_LIFETIME: Duration = Duration::from_secs(30);

pub(super) struct StrategyController {
    policies: StrategyPolicies,
    placing: ClusterBackend,
    metrics: PlacementMetrics,
    period: Duration,
}

/// The pods that share a sequence, counted.
struct CountedPods {
    namespace: String,
    /// The last owner that was read.
    workload: OwnerReference,
    allocator: Arc<SlotAllocator>,
    spread: Spread,
}

impl StrategyController {
    pub(super) fn new(
        policies: StrategyPolicies,
        placing: ClusterBackend,
        metrics: PlacementMetrics,
        period: Duration,
    ) -> Self {
        Self { policies, placing, metrics, period }
    }

    /// Reconciles while this replica leads.
    pub(super) async fn run(self, leadership: Leadership) {
        while_leading(leadership, || self.lead(), |leads| self.metrics.set_leader(leads)).await;
    }

    async fn lead(&self) {
        let max_refreshes = usize::try_from(self.period.as_secs().max(1)).unwrap_or(usize::MAX);
        let mut chains = ChainCache::new(Arc::clone(self.placing.owners()), CHAIN_LIFETIME, max_refreshes);
        let mut counted = HashMap::new();
        loop {
            if self.placing.ledgers().has_synced() {
                counted = self.reconcile_all(&mut chains, &counted).await;
            }
            sleep(self.period).await;
        }
    }

    async fn reconcile_all(
        &self,
        chains: &mut ChainCache,
        before: &HashMap<LedgerId, CountedPods>,
    ) -> HashMap<LedgerId, CountedPods> {
        let inventories = self.placing.ledgers().inventory();
        chains.start_pass(&inventories);
        let mut counted = HashMap::new();
        for mut inventory in inventories {
            let namespace = inventory.controller.namespace.clone();
            if inventory.pods.is_empty() || self.policies.is_blocked(&namespace) {
                continue;
            }
            let (mut chain, is_new) = chains.get(&inventory).await;
            let Some(allocator) = self.policies.allocator(&mut chain) else { continue };
            inventory.regroup(allocator.policy(), &UnknownNodes);
            let spread = inventory.spread(&allocator);
            let steady = before.get(&inventory.ledger).is_some_and(|before| before.spread == spread);
            // While pods change, a write of the status would conflict with writes of the ledger.
            if steady {
                self.placing.ledgers().patch_status(&inventory.ledger, &spread).await;
            }
            if steady && is_new {
                self.take_in(&inventory, &chain, &allocator).await;
            }
            let workload = chain.read().last().map_or(&inventory.controller.owner, |(owner, _)| owner);
            let pods = CountedPods { namespace, workload: workload.clone(), allocator, spread };
            counted.insert(inventory.ledger, pods);
        }
        self.metrics.set_pods(counted.values().map(
            |CountedPods { namespace, workload, allocator, spread }| {
                let labels =
                    [("namespace", &**namespace), ("kind", &*workload.kind), ("workload", &*workload.name)];
                (labels, allocator.policy(), spread)
            },
        ));
        counted
    }

    /// Has the ledger take in pods that no webhook has placed, if the owner has more pods than are known.
    async fn take_in(&self, inventory: &LedgerInventory, chain: &OwnerChain, allocator: &Arc<SlotAllocator>) {
        // The pods of a StatefulSet have no ledger: their slots are their ordinals.
        let owner = chain.sequence_owner().filter(|(owner, _)| owner.kind != "StatefulSet");
        let owner = owner.and_then(|(_, owner)| owner);
        let pods = owner.and_then(|owner| owner.created.or(owner.pods)).unwrap_or(0);
        let NamespacedOwner { namespace, .. } = &inventory.controller;
        if pods as usize > inventory.pods.len()
            && let Some(workload) = self.policies.workload(namespace, chain, allocator).await
            && let Err(error) = self.placing.ledgers().reconcile(&workload).await
        {
            tracing::warn!(
                namespace,
                error = describe(&error),
                "can't take in pods that no webhook has placed"
            );
        }
    }
}
