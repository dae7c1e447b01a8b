//! A placed workload, and the key of its ledger.

use std::sync::Arc;

use podshaper_core::owner_reference::OwnerReference;
use podshaper_kube::error::describe;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::ledger::ResourceVersion;

/// The owner of a sequence of slots and a ledger, with its policy.
#[derive(Clone, Debug)]
pub struct PlacedWorkload {
    /// The namespace of its pods.
    pub namespace: String,
    /// The owner. It was read, and has this uid.
    pub owner: OwnerReference,
    /// Its path, such as `/apis/apps/v1/namespaces/NAMESPACE/replicasets/NAME`, made of checked names.
    pub path: String,
    /// A label selector that matches all of its pods, and perhaps others.
    pub selector: String,
    /// How many pods it may have at a time, if known.
    pub pods: Option<u32>,
    /// How many pods it has according to its status, if known.
    pub created: Option<u32>,
    /// The `resourceVersion` that both numbers are from.
    pub version: ResourceVersion,
    /// The allocator of the policy.
    pub allocator: Arc<SlotAllocator>,
}

impl PlacedWorkload {
    /// The key of its ledger.
    pub fn ledger_id(&self) -> LedgerId {
        LedgerId::new(&self.namespace, &self.owner.uid)
    }

    /// Logs an API error that concerns its ledger.
    pub(crate) fn warn(&self, error: &kube::Error, message: &str) {
        let (namespace, kind, owner) = (&self.namespace, &self.owner.kind, &self.owner.name);
        tracing::warn!(namespace, kind, owner, error = describe(error), "{message}");
    }
}

/// The key of a ledger: the owner's uid, and the namespace of the pods, because a pod can name an owner of any namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerId(Box<str>);

impl LedgerId {
    /// The ledger of the owner with this uid in `namespace`.
    pub fn new(namespace: &str, uid: &str) -> Self {
        Self([namespace, "/", uid].concat().into())
    }
}

/// An owner, and the namespace of the pods that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacedOwner {
    /// The namespace.
    pub namespace: String,
    /// The owner.
    pub owner: OwnerReference,
}

impl NamespacedOwner {
    /// The key of the ledger of its pods.
    pub fn ledger_id(&self) -> LedgerId {
        LedgerId::new(&self.namespace, &self.owner.uid)
    }
}
