//! What decisions are made by, besides the pod.

use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::admit::{PlaceOutcome, PlacementBackend};
use podshaper_placement::offline;

/// A cluster, or files that stand for one.
pub trait Facts: Send + Sync + 'static {
    /// Owners, and places.
    type Surroundings: PlacementBackend;
    /// The same.
    fn surroundings(&self) -> &Self::Surroundings;
    /// Hears of each pod that a strategy governs.
    fn heard(&self, _news: &News<'_>) {}
    /// Whether who asks wants to know what a strategy comes to.
    fn explains(&self) -> bool {
        false
    }
    /// Why nothing can be decided yet, if so.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// What became of a pod.
#[derive(Clone, Copy, Debug)]
pub struct News<'n> {
    /// The pod's namespace.
    pub namespace: &'n str,
    /// The topmost of its owners that was read.
    pub workload: Option<&'n OwnerReference>,
    /// In a word.
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
