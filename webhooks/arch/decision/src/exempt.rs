//! Which pods are left alone.

use podshaper_core::json::Text;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::pod::Pod;

use crate::decide::ANNOTATION;
use crate::gate::is_gated;
use crate::table::Table;
use crate::tolerations::Tolerations;

/// LookupError a pod is none of this webhook's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAlone {
    /// Its node is chosen, or it shows what a kubelet runs already.
    Bound,
    /// A `DaemonSet`'s pod is for one node.
    OfADaemonSet,
    /// Its own node selector or affinity says the architecture.
    Decided,
    /// It says more of its nodes than is weighed.
    Overtaxing,
    /// It tolerates the taint of one architecture, by name.
    Tolerates,
}

/// LookupError this pod isn't treated, if it isn't.
///
/// What the webhook itself did to a pod in an earlier pass is no word of its author's.
pub fn left_alone(table: &Table, pod: &Pod<'_>) -> Option<LeftAlone> {
    pod.spec.as_ref()?;
    let of_a_daemon_set = |owner: &OwnerReference<Text<'_>>| {
        &*owner.kind == "DaemonSet" && owner.api_version.starts_with("apps/")
    };
    if pod.is_bound() || pod.is_mirror() {
        Some(LeftAlone::Bound)
    } else if pod.controller().is_some_and(of_a_daemon_set) {
        Some(LeftAlone::OfADaemonSet)
    } else if table.is_overtaxed_by(pod) {
        Some(LeftAlone::Overtaxing)
    } else if pod.annotation(ANNOTATION).is_some() || is_gated(pod) {
        None
    } else if table.decided_by(pod) {
        Some(LeftAlone::Decided)
    } else if Tolerations::of(pod).name_one_of(table.configured()) {
        Some(LeftAlone::Tolerates)
    } else {
        None
    }
}
