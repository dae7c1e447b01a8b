//! The facts of a decision, in addition to the pod.

use podshaper_core::object::OwnerReference;
use podshaper_placement::admit::{PlaceOutcome, PlacementBackend};
use podshaper_placement::offline;

/// A cluster, or files that stand for one.
pub trait Facts: Send + Sync + 'static {
    /// Owners, and places.
    type Surroundings: PlacementBackend;
    /// The same.
    fn surroundings(&self) -> &Self::Surroundings;
    /// Hears of each pod that a strategy governs.
    fn record_outcome(&self, _outcome: &PodOutcome<'_>) {}
    /// Whether the caller wants a description of the strategy.
    fn explains(&self) -> bool {
        false
    }
    /// Why nothing can be decided yet, if so.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// The outcome for a pod.
#[derive(Clone, Copy, Debug)]
pub struct PodOutcome<'n> {
    /// The pod's namespace.
    pub namespace: &'n str,
    /// The topmost of its owners that was read.
    pub workload: Option<&'n OwnerReference>,
    /// The outcome.
    pub outcome: PlaceOutcome,
    /// Why, where it wasn't placed.
    pub reason: &'n str,
    /// Whether it never was to be stored.
    pub dry_run: bool,
}

impl Facts for offline::FileBackend {
    type Surroundings = Self;

    fn surroundings(&self) -> &Self {
        self
    }

    fn explains(&self) -> bool {
        true
    }
}

impl Facts for offline::SelfTestBackend {
    type Surroundings = Self;

    fn surroundings(&self) -> &Self {
        self
    }
}
