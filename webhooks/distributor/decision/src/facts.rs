//! What decisions are made by, besides the pod.

use std::sync::Arc;

use podshaper_placement::admit::{PlaceOutcome, PlacementBackend};
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::GroupSet;

use crate::distributor::{Distributor, ValidSpec};

/// A cluster, or files that stand for one.
pub trait Facts: Send + Sync + 'static {
    /// Owners, and places.
    type Surroundings: PlacementBackend;
    /// The same.
    fn surroundings(&self) -> &Self::Surroundings;
    /// The distributors of a namespace.
    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>>;
    /// The groups that have a node which could take a pod with these owners.
    fn available(&self, namespace: &str, chain: &OwnerChain, spec: &ValidSpec) -> GroupSet;
    /// Hears of each pod that a distributor governs.
    fn heard(&self, _distributor: &Distributor, _outcome: PlaceOutcome) {}
    /// What to say about a pod that stands for many, being of a template.
    fn hint(&self) -> Option<&'static str> {
        None
    }
    /// Why nothing can be decided yet, if so.
    fn not_ready(&self) -> Option<String> {
        None
    }
}
