//! The pods of one ledger, for controllers, statuses and metrics.

use std::sync::Arc;

use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::identity::NodeLabels;
use podshaper_placement::ledger::{PodName, ResourceVersion, Token};
use podshaper_placement::pod_object::WaitingPod;
use podshaper_placement::policy::{GroupName, Policy};
use podshaper_placement::spread::Spread;

use crate::observed_pod::Health;
use crate::placement_object::{LedgerId, NamespacedOwner};
use crate::pod_evidence::PodEvidence;

/// The state of this replica about the pods of one ledger.
#[derive(Clone, Debug)]
pub struct LedgerInventory {
    /// The ledger.
    pub ledger: LedgerId,
    /// The controller of one of the pods: their chain of owners begins there. Of a pod without a controller, it has only the uid of the owner of
    /// the ledger.
    pub controller: NamespacedOwner,
    /// The pods that have not ended.
    pub pods: Vec<InventoryPod>,
    /// How many slots are reserved for pods that no watch event has shown yet.
    pub reserved: usize,
    /// Whether pods have taken slots over time.
    pub over_time: bool,
}

/// One pod of an inventory.
#[derive(Clone, Debug)]
pub struct InventoryPod {
    /// Its name.
    pub name: PodName,
    /// Its slot, if it is placed.
    pub slot: Option<u32>,
    /// Its group, if known. It is one of the policy that this replica last placed pods by; [`LedgerInventory::regroup`] finds it by another.
    pub group: Option<GroupName>,
    /// The evidence of its group.
    pub evidence: Option<PodEvidence>,
    /// Its health.
    pub health: Health,
    /// The token of its admission request, if it is placed.
    pub token: Option<Token>,
    /// Its `resourceVersion`.
    pub version: ResourceVersion,
    /// Whether another controller has removed its deletion cost.
    pub lacks_cost: bool,
    /// Set while it has no node.
    pub waiting: Option<Arc<WaitingPod>>,
}

impl LedgerInventory {
    /// Finds the groups of the pods by this policy.
    pub fn regroup(&mut self, policy: &Policy, nodes: &dyn NodeLabels) {
        for pod in &mut self.pods {
            pod.group = pod.evidence.as_ref().and_then(|evidence| evidence.group(policy, nodes));
        }
    }

    /// The pods by group, by the policy of `allocator`.
    pub fn spread(&self, allocator: &SlotAllocator) -> Spread {
        let pods = self.pods.iter().map(|pod| (pod.group.as_deref(), pod.health == Health::Ready));
        Spread::of(pods, allocator)
    }
}
