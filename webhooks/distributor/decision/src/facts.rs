//! The facts of a decision, in addition to the pod.

use std::sync::Arc;
use std::time::Instant;

use podshaper_core::object::Lookup;
use podshaper_core::pod::{Pod, Toleration};
use podshaper_placement::admit::{PlaceOutcome, PlacementBackend};
use podshaper_placement::ledger::Token;
use podshaper_placement::namespace::NamespaceRestrictions;
use podshaper_placement::policy::{GroupSet, Policy};

use crate::distributor::{Distributor, ValidSpec};
use crate::node::Node;
use crate::volumes::VolumeNodes;

/// The cluster, or files in its place.
pub trait DistributorFacts: Send + Sync + 'static {
    /// Reads owners and allocates slots.
    type Backend: PlacementBackend;
    /// The backend.
    fn backend(&self) -> &Self::Backend;
    /// The distributors of a namespace.
    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>>;
    /// The groups that have a node for their pods, which also have these tolerations of their own.
    fn groups_with_nodes(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        tolerations: &[Toleration],
    ) -> GroupSet;
    /// Claims the probe of a closed group for the pod with this token. At most one pod gets it; false if another pod has it, or if that is
    /// unknown at the deadline.
    fn claim_probe(
        &self,
        distributor: &Distributor,
        group: usize,
        token: Token,
        deadline: Instant,
    ) -> impl Future<Output = bool> + Send;
    /// The groups that suit the pod by the labels of their nodes.
    fn suitable_groups(&self, _pod: &Pod<'_>, policy: &Policy) -> GroupSet {
        policy.all()
    }
    /// The nodes that the volume of a claim can be mounted on; [`Lookup::NotFound`] if the claim has no volume.
    fn volume_nodes(
        &self,
        _namespace: &str,
        _claim: &str,
        _deadline: Instant,
    ) -> impl Future<Output = Lookup<VolumeNodes>> + Send {
        std::future::ready(Lookup::NotFound)
    }
    /// The restrictions that a namespace puts on its pods; `None` if it has none, or if they may not be read.
    fn namespace_restrictions(&self, _namespace: &str) -> Option<Arc<NamespaceRestrictions>> {
        None
    }
    /// The groups in which a volume cannot be mounted.
    fn groups_without_volume(&self, volume: &VolumeNodes, policy: &Policy) -> GroupSet {
        volume.excluded_groups(policy, std::iter::empty::<&Node>())
    }
    /// Counts a pod that a distributor governs, or may govern.
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
