//! How a running pod differs from the size that its template gives it.

use k8s_openapi::jiff::Timestamp;

use flexdaemonset_decision::namespace_limits::NamespaceLimits;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::original_requests::OriginalRequests;
use flexdaemonset_decision::refit::{Difference, Remedy, compare};
use flexdaemonset_decision::resource::PerResource;
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::sizing::size;

use super::running_pods::{ResizeStatus, RunningPod};

/// Why a pod isn't refitted, whatever its template says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefitHold {
    /// The pod needs a new one, and the update strategy of its DaemonSet is `OnDelete`.
    OnDelete,
    /// The pod needs a new one, and evictions are disabled.
    EvictionsDisabled,
    /// The pod wasn't sized, and match conditions may exclude it.
    NotSeenByWebhook,
}

/// The drift of one pod.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// Whether the pod was sized, at its creation or later.
    pub(super) is_sized: bool,
    /// Whether the pod requests more than its node has.
    pub(super) is_short: bool,
    /// The requests of the pod in total by its template.
    pub(super) requests: PerResource<i64>,
    pub(super) difference: Option<Difference>,
    /// Why the pod isn't refitted now.
    pub(super) infeasible: Option<String>,
    /// Why no refit of the pod may be tried.
    pub(super) hold: Option<RefitHold>,
    /// Whether the scheduler finds no place for the pod.
    pub(super) is_unschedulable: bool,
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
            Some(ResizeStatus::Infeasible(reason) | ResizeStatus::Deferred(reason, _)) => {
                Some(reason.to_string())
            }
            Some(ResizeStatus::InProgress) | None => None,
        };
        let mut difference = compare(&sizing, original.is_some(), pod.qos_class(), hysteresis);
        let is_hopeless = pod.resize().is_some_and(|resize| resize.is_hopeless(Timestamp::now()));
        // Another size than the one that the node can't give is tried.
        if is_hopeless && difference.is_none() {
            let summary = "resize to its size".to_owned();
            let remedy = Remedy::Recreate("the node can't resize the pod");
            difference = Some(Difference { summary, remedy });
        } else if let (true, Some(difference)) = (pod.is_peer(), &mut difference) {
            difference.remedy = Remedy::Recreate("the VM of a peer pod isn't resized");
        }
        Some(Self {
            is_sized,
            is_short: sizing.is_short(node),
            requests: sizing.effective,
            difference,
            infeasible,
            hold: None,
            is_unschedulable: pod.is_unschedulable(),
            record: (!is_sized).then(|| OriginalRequests::record(&view, name, pod.node(), None)),
        })
    }
}
