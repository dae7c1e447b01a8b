//! The facts of a decision, in addition to the pod.

use podshaper_core::object::OwnerReference;
use podshaper_placement::admit::{PlaceOutcome, PlacementBackend};
use podshaper_placement::offline;

/// The cluster, or files with objects of a cluster.
pub trait Facts: Send + Sync + 'static {
    /// Reads owners and places pods.
    type Backend: PlacementBackend;
    /// The backend of these facts.
    fn backend(&self) -> &Self::Backend;
    /// Called with the outcome of each pod that has a strategy.
    fn record_outcome(&self, _outcome: &PodOutcome<'_>) {}
    /// Whether the answer describes the strategy.
    fn explains(&self) -> bool {
        false
    }
    /// The reason why the webhook cannot decide yet, if there is one.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// The outcome for a pod.
#[derive(Clone, Copy, Debug)]
pub struct PodOutcome<'n> {
    /// The pod's namespace.
    pub namespace: &'n str,
    /// The topmost owner that was read.
    pub workload: Option<&'n OwnerReference>,
    /// The outcome.
    pub outcome: PlaceOutcome,
    /// The reason why the pod was not placed; else empty.
    pub reason: &'n str,
    /// Whether the request is a dry run.
    pub dry_run: bool,
}

impl Facts for offline::FileBackend {
    type Backend = Self;

    fn backend(&self) -> &Self {
        self
    }

    fn explains(&self) -> bool {
        true
    }
}

impl Facts for offline::SelfTestBackend {
    type Backend = Self;

    fn backend(&self) -> &Self {
        self
    }
}
