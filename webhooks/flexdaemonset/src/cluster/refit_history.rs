//! Earlier refits: none is repeated before its result is visible, and none again and again in vain.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::running_pods::RunningPod;

/// The watch shows a write within this time.
const VISIBLE_WITHIN: Duration = Duration::from_secs(30);
/// A DaemonSet replaces an evicted pod within this time, unless the node is no longer eligible.
const REPLACED_WITHIN: Duration = Duration::from_mins(5);
/// A refit that the API server rejected for good is retried after this time.
const RETRY_AFTER: Duration = Duration::from_mins(5);
/// A refit that failed for the moment, such as by a conflict or a disruption budget, is retried after this time.
const RETRY_SOON_AFTER: Duration = Duration::from_secs(30);
/// A resize that this replica began counts as in progress for at most this time.
const RESIZES_WITHIN: Duration = Duration::from_hours(1);
/// A pod that replaced an evicted one and needs the same change is evicted after this time.
const EVICT_AGAIN_AFTER: Duration = Duration::from_hours(1);

const REPLACED_IN_VAIN: &str = "the pod replaced an evicted one and needs the same change: check whether the webhook is called for it, or another one changes it";

const EVICTED_ALREADY: &str = "the pod is evicted, and doesn't terminate";

/// How a pod gets its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefitMethod {
    /// By a resize in place.
    Resize,
    /// By an eviction: the DaemonSet creates another pod.
    Evict,
}

/// The cause of a refit: a `DaemonSet` and the state of its template.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefitCause<'c> {
    /// The uid of the DaemonSet: one of the same name is another one.
    pub(super) daemon_set: &'c str,
    /// The name of the template.
    pub(super) template: &'c str,
    /// `metadata.generation` of the template.
    pub(super) generation: i64,
}

/// The refits since this replica leads.
#[derive(Default)]
pub(super) struct RefitHistory {
    /// By the pod's uid.
    refitted: HashMap<Box<str>, Instant>,
    /// By the pod's uid.
    resized: HashMap<Box<str>, Instant>,
    /// By the pod's uid.
    rejected: HashMap<Box<str>, Rejection>,
    /// By the uid of the DaemonSet and the node.
    evicted: BTreeMap<(Box<str>, Box<str>), Eviction>,
}

struct Rejection {
    method: RefitMethod,
    change: String,
    reason: String,
    at: Instant,
    is_permanent: bool,
}

struct Eviction {
    uid: Box<str>,
    change: String,
    generation: i64,
    at: Instant,
}

impl RefitHistory {
    /// Removes refits that no longer matter.
    pub(super) fn prune(&mut self) {
        self.refitted.retain(|_, at| at.elapsed() < VISIBLE_WITHIN);
        self.resized.retain(|_, at| at.elapsed() < RESIZES_WITHIN);
        self.rejected.retain(|_, rejection| {
            rejection.at.elapsed() < if rejection.is_permanent { RETRY_AFTER } else { RETRY_SOON_AFTER }
        });
        self.evicted.retain(|_, eviction| eviction.at.elapsed() < EVICT_AGAIN_AFTER);
    }

    /// Records that the API server accepted `change` of the pod.
    pub(super) fn add_refit(
        &mut self,
        cause: RefitCause<'_>,
        pod: &RunningPod,
        method: RefitMethod,
        change: String,
    ) {
        let uid: Box<str> = pod.uid().into();
        let at = Instant::now();
        self.refitted.insert(uid.clone(), at);
        if method == RefitMethod::Evict {
            let RefitCause { daemon_set, generation, .. } = cause;
            let eviction = Eviction { uid, change, generation, at };
            self.evicted.insert((daemon_set.into(), pod.node().into()), eviction);
        } else {
            self.resized.insert(uid, at);
        }
    }

    /// Records that the API server rejected `change` of the pod.
    pub(super) fn add_rejection(
        &mut self,
        pod: &RunningPod,
        method: RefitMethod,
        change: String,
        reason: String,
        is_permanent: bool,
    ) {
        let rejection = Rejection { method, change, reason, at: Instant::now(), is_permanent };
        self.rejected.insert(pod.uid().into(), rejection);
    }

    /// Whether this replica began a resize of the pod.
    pub(super) fn has_resized(&self, pod: &RunningPod) -> bool {
        self.resized.contains_key(pod.uid())
    }

    /// Whether the API server rejected this resize of the pod for good.
    pub(super) fn is_resize_refused(&self, pod: &RunningPod, change: &str) -> bool {
        self.rejected.get(pod.uid()).is_some_and(|rejection| {
            rejection.is_permanent && rejection.method == RefitMethod::Resize && rejection.change == change
        })
    }

    /// Whether the watch may not show the last refit of the pod yet.
    pub(super) fn is_refitting(&self, pod: &RunningPod) -> bool {
        self.refitted.contains_key(pod.uid())
    }

    /// Why `change` of the pod must wait, if it must.
    pub(super) fn blocked(
        &self,
        cause: RefitCause<'_>,
        pod: &RunningPod,
        method: Option<RefitMethod>,
        change: &str,
    ) -> Option<&str> {
        let is_same =
            |one: &&Rejection| one.change == change && method.is_none_or(|method| method == one.method);
        if let Some(rejection) = self.rejected.get(pod.uid()).filter(is_same) {
            return Some(&rejection.reason);
        }
        let RefitCause { daemon_set, generation, .. } = cause;
        let eviction = self.evicted.get(&(daemon_set.into(), pod.node().into()))?;
        if method != Some(RefitMethod::Evict) {
            None
        } else if *eviction.uid == *pod.uid() {
            (eviction.generation == generation).then_some(EVICTED_ALREADY)
        } else {
            (eviction.change == change).then_some(REPLACED_IN_VAIN)
        }
    }

    /// Records that the pod has its size: an eviction on its node was not in vain.
    pub(super) fn add_success(&mut self, daemon_set: &str, pod: &RunningPod) {
        let key = (daemon_set.into(), pod.node().into());
        if self.evicted.get(&key).is_some_and(|eviction| *eviction.uid != *pod.uid()) {
            self.evicted.remove(&key);
        }
    }

    /// The uids of evicted pods of a DaemonSet that none of its `pods` has replaced yet.
    pub(super) fn unreplaced<'h>(
        &'h self,
        daemon_set: &str,
        pods: &[(Box<str>, Arc<RunningPod>)],
    ) -> impl Iterator<Item = &'h str> {
        self.evicted.iter().filter_map(move |((of, node), eviction)| {
            let replaces =
                |(_, pod): &(Box<str>, Arc<RunningPod>)| *pod.node() == **node && *pod.uid() != *eviction.uid;
            let is_unreplaced =
                **of == *daemon_set && eviction.at.elapsed() < REPLACED_WITHIN && !pods.iter().any(replaces);
            is_unreplaced.then_some(&*eviction.uid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSE: RefitCause<'static> = RefitCause { daemon_set: "a", template: "t", generation: 1 };

    fn pod(uid: &str) -> RunningPod {
        RunningPod::for_test(uid, "n")
    }

    #[tokio::test(start_paused = true)]
    async fn replacement_with_same_change_is_not_evicted_for_an_hour() {
        let mut history = RefitHistory::default();
        let blocked = |history: &RefitHistory, uid, method, change| {
            history.blocked(CAUSE, &pod(uid), Some(method), change).is_some()
        };
        history.add_refit(CAUSE, &pod("old"), RefitMethod::Evict, "cpu 1 → 2".into());
        assert!(history.is_refitting(&pod("old")));
        assert!(blocked(&history, "old", RefitMethod::Evict, "cpu 1 → 3"), "one eviction of a pod");
        assert!(blocked(&history, "new", RefitMethod::Evict, "cpu 1 → 2"));
        assert!(!blocked(&history, "new", RefitMethod::Resize, "cpu 1 → 2"));
        assert!(!blocked(&history, "new", RefitMethod::Evict, "cpu 1 → 3"), "another change");
        let other = RefitCause { daemon_set: "b", ..CAUSE };
        let of_other = history.blocked(other, &pod("new"), Some(RefitMethod::Evict), "cpu 1 → 2");
        assert_eq!(of_other, None, "a DaemonSet of the same name");
        let mut returned = RefitHistory::default();
        returned.add_refit(CAUSE, &pod("old"), RefitMethod::Evict, "cpu 1 → 2".into());
        returned.add_success("a", &pod("old"));
        assert!(blocked(&returned, "new", RefitMethod::Evict, "cpu 1 → 2"));
        returned.add_success("a", &pod("new"));
        assert!(
            !blocked(&returned, "new", RefitMethod::Evict, "cpu 1 → 2"),
            "the template went back and forth"
        );
        tokio::time::advance(EVICT_AGAIN_AFTER).await;
        history.prune();
        assert!(!blocked(&history, "new", RefitMethod::Evict, "cpu 1 → 2"));
    }

    #[tokio::test(start_paused = true)]
    async fn evicted_pod_is_unreplaced_until_another_comes() {
        let mut history = RefitHistory::default();
        history.add_refit(CAUSE, &pod("old"), RefitMethod::Evict, String::new());
        history.add_refit(CAUSE, &pod("resized"), RefitMethod::Resize, String::new());
        let unreplaced = |history: &RefitHistory, daemon_set, pods: &[&str]| {
            let pods: Vec<_> = pods.iter().map(|uid| ("ns/p".into(), Arc::new(pod(uid)))).collect();
            history.unreplaced(daemon_set, &pods).count()
        };
        assert_eq!(unreplaced(&history, "a", &[]), 1);
        assert_eq!(unreplaced(&history, "a", &["old"]), 1);
        assert_eq!(unreplaced(&history, "a", &["old", "new"]), 0);
        assert_eq!(unreplaced(&history, "b", &[]), 0);
        tokio::time::advance(REPLACED_WITHIN).await;
        assert_eq!(unreplaced(&history, "a", &[]), 0, "the node may be gone too");
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_refit_is_retried_later() {
        let mut history = RefitHistory::default();
        history.add_rejection(&pod("a"), RefitMethod::Resize, "cpu 1 → 2".into(), "no".into(), true);
        let blocked = |history: &RefitHistory, change| {
            history.blocked(CAUSE, &pod("a"), Some(RefitMethod::Resize), change).map(str::to_owned)
        };
        assert_eq!(blocked(&history, "cpu 1 → 2").as_deref(), Some("no"));
        assert!(history.is_resize_refused(&pod("a"), "cpu 1 → 2"));
        let evicts = history.blocked(CAUSE, &pod("a"), Some(RefitMethod::Evict), "cpu 1 → 2");
        assert_eq!(evicts, None, "a refused resize leads to an eviction");
        history.add_rejection(&pod("b"), RefitMethod::Evict, "cpu 1 → 2".into(), "budget".into(), false);
        tokio::time::advance(RETRY_SOON_AFTER).await;
        history.prune();
        assert_eq!(history.blocked(CAUSE, &pod("b"), Some(RefitMethod::Evict), "cpu 1 → 2"), None);
        assert_eq!(blocked(&history, "cpu 1 → 3"), None);
        tokio::time::advance(RETRY_AFTER).await;
        history.prune();
        assert_eq!(blocked(&history, "cpu 1 → 2"), None);
    }
}
