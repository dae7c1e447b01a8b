//! Which waiting pods of closed groups are evicted, so that the pods that replace them go to groups that are open.

use std::collections::{BTreeMap, VecDeque};

use podshaper_core::object::OwnerReference;
use podshaper_placement::pod_object::{Scheduling, WaitingPod};
use podshaper_placement::policy::GroupSet;

use crate::spec::TakeBack;

/// Why a waiting pod is not taken back. The names are those in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeptReason {
    /// `takeBack: Never`, or the administrator has switched evictions off.
    Disabled,
    /// The API server calls the webhook for no pods of the namespace.
    ExcludedNamespace,
    /// It has scheduling gates.
    Gated,
    /// The scheduler has chosen a node that is not free yet, or has not tried the pod.
    Scheduling,
    /// Kueue manages the pod.
    Kueue,
    /// A Job counts a deleted pod as a failure (`isPodFailed` of k8s.io/kubernetes/pkg/controller/job).
    Job,
    /// The controller of the pod is a pod.
    OwnedByPod,
    /// The controller is not known to replace a deleted pod without harm.
    NotReplaced,
    /// The controller cannot be read.
    OwnerUnreadable,
    /// A claim of the pod has a volume, which may be tied to the nodes of the group.
    BoundClaim,
    /// A claim of the pod cannot be read.
    ClaimUnreadable,
    /// The pod fits into no other open group.
    FitsNoOtherGroup,
}

impl KeptReason {
    /// The name in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "Disabled",
            Self::ExcludedNamespace => "ExcludedNamespace",
            Self::Gated => "Gated",
            Self::Scheduling => "Scheduling",
            Self::Kueue => "Kueue",
            Self::Job => "Job",
            Self::OwnedByPod => "OwnedByPod",
            Self::NotReplaced => "NotReplaced",
            Self::OwnerUnreadable => "OwnerUnreadable",
            Self::BoundClaim => "BoundClaim",
            Self::ClaimUnreadable => "ClaimUnreadable",
            Self::FitsNoOtherGroup => "FitsNoOtherGroup",
        }
    }
}

/// The reaction of a controller to the deletion of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// The controller creates another pod.
    Replaced,
    /// The controller is a Job, which counts the pod as failed.
    Job {
        /// Whether its `podFailurePolicy` ignores `DisruptionTarget`.
        ignores_disruptions: bool,
    },
    /// The controller is a pod.
    Pod,
    /// The kind of the controller is not known to replace pods without harm.
    Unknown,
}

impl Replacement {
    /// The reaction of a controller of a built-in kind. `None` if another one may be known to the administrator.
    pub fn of_built_in(controller: &OwnerReference, ignores_disruptions: bool) -> Option<Self> {
        let replaces = controller.is_kind("apps", "ReplicaSet")
            || controller.is_kind("apps", "StatefulSet")
            || controller.is_kind("", "ReplicationController");
        match () {
            () if replaces => Some(Self::Replaced),
            () if controller.is_kind("batch", "Job") => Some(Self::Job { ignores_disruptions }),
            () if controller.is_kind("", "Pod") => Some(Self::Pod),
            () => None,
        }
    }
}

/// The state of the claims of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimState {
    /// No claim is bound.
    Unbound,
    /// A claim is bound.
    Bound,
    /// A claim cannot be read.
    Unreadable,
}

/// The facts, beside the pod, that decide whether a waiting pod is taken back.
#[derive(Clone, Copy, Debug)]
pub struct WaitingFacts {
    /// The reaction of its controller; `None` if the controller cannot be read.
    pub replacement: Option<Replacement>,
    /// Its claims.
    pub claims: ClaimState,
    /// The groups that a pod of its template fits into.
    pub fitting: GroupSet,
}

/// Why the pod itself excludes it, before its controller and its claims are read.
pub fn kept_by_pod(pod: &WaitingPod) -> Option<KeptReason> {
    match pod.scheduling {
        Scheduling::Gated => Some(KeptReason::Gated),
        Scheduling::Nominated | Scheduling::Untried => Some(KeptReason::Scheduling),
        Scheduling::Unschedulable if pod.queued => Some(KeptReason::Kueue),
        Scheduling::Unschedulable => None,
    }
}

/// Why the pod is not taken back while the groups of `open` are open; `None` if it may be.
pub fn kept(facts: &WaitingFacts, take_back: TakeBack, open: GroupSet) -> Option<KeptReason> {
    let by_owner = match facts.replacement {
        None => Some(KeptReason::OwnerUnreadable),
        Some(Replacement::Unknown) => Some(KeptReason::NotReplaced),
        Some(Replacement::Pod) => Some(KeptReason::OwnedByPod),
        Some(Replacement::Job { ignores_disruptions: true }) if take_back == TakeBack::Always => None,
        Some(Replacement::Job { .. }) => Some(KeptReason::Job),
        Some(Replacement::Replaced) => None,
    };
    let by_claims = || match facts.claims {
        ClaimState::Unbound => None,
        ClaimState::Bound => Some(KeptReason::BoundClaim),
        ClaimState::Unreadable => Some(KeptReason::ClaimUnreadable),
    };
    let by_groups = || facts.fitting.intersection(open).is_empty().then_some(KeptReason::FitsNoOtherGroup);
    by_owner.or_else(by_claims).or_else(by_groups)
}

/// Picks candidates in a fair order over namespaces: the first of each namespace, then the second of each, and so on. `budget` is called once for
/// each pick that the namespace's order allows, and says whether that candidate may be taken now.
pub fn select<C>(
    candidates: impl IntoIterator<Item = C>,
    namespace: impl Fn(&C) -> &str,
    most: usize,
    mut allows: impl FnMut(&C) -> bool,
) -> Vec<C> {
    let mut queues: BTreeMap<String, VecDeque<C>> = BTreeMap::new();
    for candidate in candidates {
        queues.entry(namespace(&candidate).to_owned()).or_default().push_back(candidate);
    }
    let mut selected = Vec::new();
    while selected.len() < most && !queues.is_empty() {
        queues.retain(|_, queue| {
            while let Some(candidate) = queue.pop_front() {
                if selected.len() < most && allows(&candidate) {
                    selected.push(candidate);
                    break;
                }
            }
            !queue.is_empty()
        });
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(replacement: Replacement) -> WaitingFacts {
        let fitting = [0, 1].into_iter().collect();
        WaitingFacts { replacement: Some(replacement), claims: ClaimState::Unbound, fitting }
    }

    #[test]
    fn only_pods_that_are_replaced_without_harm_are_taken_back() {
        let open: GroupSet = [0].into_iter().collect();
        let (replaced, job) = (facts(Replacement::Replaced), |ignores_disruptions| {
            facts(Replacement::Job { ignores_disruptions })
        });
        for (facts, take_back, expected) in [
            (replaced, TakeBack::Safe, None),
            (facts(Replacement::Unknown), TakeBack::Always, Some(KeptReason::NotReplaced)),
            (facts(Replacement::Pod), TakeBack::Always, Some(KeptReason::OwnedByPod)),
            (job(true), TakeBack::Safe, Some(KeptReason::Job)),
            (job(false), TakeBack::Always, Some(KeptReason::Job)),
            (job(true), TakeBack::Always, None),
            (
                WaitingFacts { replacement: None, ..replaced },
                TakeBack::Always,
                Some(KeptReason::OwnerUnreadable),
            ),
            (
                WaitingFacts { claims: ClaimState::Bound, ..replaced },
                TakeBack::Safe,
                Some(KeptReason::BoundClaim),
            ),
            (
                WaitingFacts { claims: ClaimState::Unreadable, ..replaced },
                TakeBack::Safe,
                Some(KeptReason::ClaimUnreadable),
            ),
            (
                WaitingFacts { fitting: [1].into_iter().collect(), ..replaced },
                TakeBack::Safe,
                Some(KeptReason::FitsNoOtherGroup),
            ),
        ] {
            assert_eq!(kept(&facts, take_back, open), expected, "{facts:?}");
        }
    }

    #[test]
    fn pod_that_the_scheduler_may_still_bind_is_kept() {
        let pod = |scheduling, queued| WaitingPod { scheduling, queued, ..WaitingPod::default() };
        for (pod, expected) in [
            (pod(Scheduling::Unschedulable, false), None),
            (pod(Scheduling::Unschedulable, true), Some(KeptReason::Kueue)),
            (pod(Scheduling::Gated, false), Some(KeptReason::Gated)),
            (pod(Scheduling::Nominated, false), Some(KeptReason::Scheduling)),
            (pod(Scheduling::Untried, false), Some(KeptReason::Scheduling)),
        ] {
            assert_eq!(kept_by_pod(&pod), expected, "{pod:?}");
        }
    }

    #[test]
    fn controllers_that_replace_pods_are_known() {
        let of = |api_version: &str, kind: &str| {
            Replacement::of_built_in(&OwnerReference::new(api_version, kind, "a", "u"), false)
        };
        for (api_version, kind) in
            [("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet"), ("v1", "ReplicationController")]
        {
            assert_eq!(of(api_version, kind), Some(Replacement::Replaced), "{kind}");
        }
        assert_eq!(of("batch/v1", "Job"), Some(Replacement::Job { ignores_disruptions: false }));
        assert_eq!(of("v1", "Pod"), Some(Replacement::Pod));
        assert_eq!(of("apps.kruise.io/v1beta1", "StatefulSet"), None);
    }

    #[test]
    fn namespaces_take_turns() {
        let candidates = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)];
        let picked = |most, allows: &dyn Fn(&(&str, u32)) -> bool| {
            let picked = select(candidates, |candidate| candidate.0, most, allows);
            picked.into_iter().map(|(_, number)| number).collect::<Vec<_>>()
        };
        assert_eq!(picked(4, &|_| true), [1, 4, 5, 2]);
        assert_eq!(picked(9, &|_| true), [1, 4, 5, 2, 3]);
        assert_eq!(picked(9, &|(_, number)| *number != 1), [2, 4, 5, 3]);
    }
}
