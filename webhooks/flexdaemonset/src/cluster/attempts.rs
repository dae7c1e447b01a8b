//! What was tried with running pods: so that nothing is done twice, or again and again in vain.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::pods::RunningPod;

/// Within this time the watch shows what was written.
const SHOWN: Duration = Duration::from_secs(30);
/// Within this time a `DaemonSet` has a new pod in place of one that was evicted, or its node isn't for it any more.
const REPLACED: Duration = Duration::from_mins(5);
/// What the API server refused is tried again after this.
const REFUSED: Duration = Duration::from_mins(5);
/// A pod that was created anew and has the same fault is evicted again after this.
const VAIN: Duration = Duration::from_hours(1);
/// Why it isn't sooner.
const AGAIN: &str = "a new pod came in place of one with the same fault: is the webhook called for it, does another change it?";

/// How a pod follows its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is resized as it runs.
    Resize,
    /// It is evicted, and another comes.
    Evict,
}

/// What was tried, while this replica leads.
#[derive(Default)]
pub(super) struct Attempts {
    /// Pods that were written to, by uid.
    written: HashMap<Box<str>, Instant>,
    /// Pods whose change was refused, by uid.
    refused: HashMap<Box<str>, Refusal>,
    /// Pods that were evicted last, by the key of their `DaemonSet` and by their node.
    evicted: BTreeMap<(Box<str>, Box<str>), Eviction>,
}

struct Refusal {
    /// The change, in words.
    change: String,
    reason: String,
    at: Instant,
}

struct Eviction {
    /// The pod that went.
    uid: Box<str>,
    /// What for, in words.
    change: String,
    at: Instant,
}

impl Attempts {
    /// Forgets what is over.
    pub(super) fn pass(&mut self) {
        self.written.retain(|_, at| at.elapsed() < SHOWN);
        self.refused.retain(|_, refusal| refusal.at.elapsed() < REFUSED);
        self.evicted.retain(|_, eviction| eviction.at.elapsed() < VAIN);
    }

    /// `change` of the pod was made.
    pub(super) fn made(&mut self, owner: &str, pod: &RunningPod, way: Way, change: String) {
        let (uid, at) = (pod.uid.clone(), Instant::now());
        self.written.insert(uid.clone(), at);
        if way == Way::Evict {
            self.evicted.insert((owner.into(), pod.node.clone()), Eviction { uid, change, at });
        }
    }

    /// `change` of the pod was refused.
    pub(super) fn refuse(&mut self, pod: &RunningPod, change: String, reason: String) {
        self.refused.insert(pod.uid.clone(), Refusal { change, reason, at: Instant::now() });
    }

    /// Whether the pod was written to just now, and the watch may not show it yet.
    pub(super) fn is_written(&self, pod: &RunningPod) -> bool {
        self.written.contains_key(&pod.uid)
    }

    /// Why `change` of the pod isn't made, if there is a reason not to.
    pub(super) fn refusal(
        &self,
        owner: &str,
        pod: &RunningPod,
        way: Option<Way>,
        change: &str,
    ) -> Option<&str> {
        if let Some(refusal) = self.refused.get(&pod.uid).filter(|refusal| refusal.change == change) {
            return Some(&refusal.reason);
        }
        let before = self.evicted.get(&(owner.into(), pod.node.clone()))?;
        let in_vain = way == Some(Way::Evict) && before.uid != pod.uid && before.change == change;
        in_vain.then_some(AGAIN)
    }

    /// The pods of a `DaemonSet` that were evicted, and that none of `pods` has come in place of yet.
    pub(super) fn missing<'a>(
        &'a self,
        owner: &str,
        pods: &[(Box<str>, Arc<RunningPod>)],
    ) -> impl Iterator<Item = &'a Box<str>> {
        self.evicted.iter().filter_map(move |((other, node), eviction)| {
            let came = |(_, pod): &(_, Arc<RunningPod>)| pod.node == *node && pod.uid != eviction.uid;
            let missing = **other == *owner && eviction.at.elapsed() < REPLACED && !pods.iter().any(came);
            missing.then_some(&eviction.uid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> RunningPod {
        RunningPod { uid: uid.into(), node: "n".into(), ..RunningPod::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pod_with_the_same_fault_stays() {
        let mut attempts = Attempts::default();
        let refusal = |attempts: &Attempts, uid, way, change| {
            attempts.refusal("ns/a", &pod(uid), Some(way), change).is_some()
        };
        attempts.made("ns/a", &pod("old"), Way::Evict, "cpu 1 → 2".into());
        assert!(attempts.is_written(&pod("old")));
        assert!(!refusal(&attempts, "old", Way::Evict, "cpu 1 → 2"), "it is still going");
        assert!(refusal(&attempts, "new", Way::Evict, "cpu 1 → 2"));
        assert!(!refusal(&attempts, "new", Way::Resize, "cpu 1 → 2"));
        assert!(!refusal(&attempts, "new", Way::Evict, "cpu 1 → 3"), "another template, another change");
        assert!(attempts.refusal("ns/b", &pod("new"), Some(Way::Evict), "cpu 1 → 2").is_none());
        tokio::time::advance(VAIN).await;
        attempts.pass();
        assert!(!refusal(&attempts, "new", Way::Evict, "cpu 1 → 2"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_went_is_missed_until_another_comes() {
        let mut attempts = Attempts::default();
        attempts.made("ns/a", &pod("old"), Way::Evict, String::new());
        attempts.made("ns/a", &pod("resized"), Way::Resize, String::new());
        let missing = |attempts: &Attempts, owner, pods: &[&str]| {
            let pods: Vec<_> = pods.iter().map(|uid| ("ns/p".into(), Arc::new(pod(uid)))).collect();
            attempts.missing(owner, &pods).count()
        };
        assert_eq!(missing(&attempts, "ns/a", &[]), 1);
        assert_eq!(missing(&attempts, "ns/a", &["old"]), 1);
        assert_eq!(missing(&attempts, "ns/a", &["old", "new"]), 0);
        assert_eq!(missing(&attempts, "ns/b", &[]), 0);
        tokio::time::advance(REPLACED).await;
        assert_eq!(missing(&attempts, "ns/a", &[]), 0, "the node may have gone too");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_tried_again_later() {
        let mut attempts = Attempts::default();
        attempts.refuse(&pod("a"), "cpu 1 → 2".into(), "no".into());
        let refusal = |attempts: &Attempts, change| {
            attempts.refusal("ns/a", &pod("a"), Some(Way::Resize), change).map(str::to_owned)
        };
        assert_eq!(refusal(&attempts, "cpu 1 → 2").as_deref(), Some("no"));
        assert_eq!(refusal(&attempts, "cpu 1 → 3"), None);
        tokio::time::advance(REFUSED).await;
        attempts.pass();
        assert_eq!(refusal(&attempts, "cpu 1 → 2"), None);
    }
}
