//! The facts of a decision, in addition to the pod.

use std::sync::Arc;

use podshaper_placement::admit::{PlaceOutcome, PlacementBackend};
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::GroupSet;

use crate::distributor::{Distributor, ValidSpec};

/// The cluster, or files in its place.
pub trait DistributorFacts: Send + Sync + 'static {
    /// Reads owners and allocates slots.
    type Backend: PlacementBackend;
    /// The backend.
    fn backend(&self) -> &Self::Backend;
    /// The distributors of a namespace.
    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>>;
    /// The groups that take pods with these owners now.
    fn available_groups(&self, namespace: &str, chain: &OwnerChain, spec: &ValidSpec) -> GroupSet;
    /// Counts a pod that a distributor governs.
    fn record(&self, _outcome: PlaceOutcome) {}
    /// The warning about a pod template. The server gets none: it is asked about pods.
    fn template_warning(&self) -> Option<&'static str> {
        None
    }
    /// Why no decision is possible yet.
    fn not_ready(&self) -> Option<String> {
        None
    }
}
