//! How a running pod differs from the size that its template gives it.

use flexdaemonset_decision::namespace_limits::NamespaceLimits;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::original_requests::OriginalRequests;
use flexdaemonset_decision::refit::{Difference, compare};
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::sizing::size;

use super::running_pods::{ResizeStatus, RunningPod};

/// The drift of one pod.
#[derive(Debug)]
pub(super) struct Drift {
    /// Whether the pod was sized, at its creation or later.
    pub(super) is_sized: bool,
    /// Whether the pod requests more than its node has.
    pub(super) is_short: bool,
    pub(super) difference: Option<Difference>,
    /// Why the pod isn't refitted now.
    pub(super) infeasible: Option<String>,
    /// The annotation's value for a pod that wasn't sized.
    pub(super) record: Option<String>,
}

impl Drift {
    /// The drift of `pod` from the template `name`. `None` if a quantity or the annotation of the pod can't be parsed.
    pub(super) fn of(
        pod: &RunningPod,
        name: &str,
        template: &Template,
        node: &Node,
        limits: &NamespaceLimits,
        hysteresis: u8,
    ) -> Option<Self> {
        let view = pod.parse()?;
        let original = OriginalRequests::from_pod(&view).ok()?;
        let sizing = size(template, node, limits, &view, original.as_ref()).ok()?;
        let is_sized = original.is_some() || !sizing.sizes_anything();
        let infeasible = match pod.resize() {
            Some(ResizeStatus::Infeasible(reason)) => Some(reason.to_string()),
            Some(ResizeStatus::InProgress) | None => None,
        };
        Some(Self {
            is_sized,
            is_short: sizing.is_short(node),
            difference: compare(&sizing, original.is_some(), pod.qos_class(), hysteresis),
            infeasible,
            record: (!is_sized).then(|| OriginalRequests::record(&view, name, pod.node(), None)),
        })
    }
}
