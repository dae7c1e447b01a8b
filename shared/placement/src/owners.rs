//! The owners of a pod: its controller, the controller of that, and so on.
//!
//! ```text
//! pod ──▶ ReplicaSet ──▶ Deployment        pod ──▶ Job ──▶ CronJob        pod ──▶ ReplicaSet ──▶ Rollout
//! ```
//!
//! Each step needs one read of the API server, which the caller does: [`OwnerChain::next_to_read`] returns the owner to read, and
//! [`OwnerChain::record_read`] adds the result. Any client may write any owner into a pod, so an owner counts only after it was read and has
//! the uid of the reference.

use std::sync::Arc;

use super::owner_object::OwnerObject;
use podshaper_core::object::{Lookup, OwnerReference, is_uid};
use podshaper_core::pod::Pod;

const STATEFUL_SET: &str = "StatefulSet";

/// The most owners of a chain. Real chains are shorter; the limit ends a chain that goes in circles.
const MAX_OWNERS: usize = 8;

/// The reason for the end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainEnd {
    /// The last owner has no controller.
    Top,
    /// An owner doesn't exist, or another object has its name.
    Gone,
    /// RBAC doesn't allow the read of an owner.
    Forbidden,
    /// An owner couldn't be read in time.
    Unknown,
    /// The chain has more owners than the limit of 8.
    TooLong,
}

/// The owners of a pod, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerChain {
    /// The nearest first.
    owners: Vec<OwnerReference>,
    /// The first of them, as they were read. Each has the uid of its reference.
    read: Vec<Arc<OwnerObject>>,
    end: Option<ChainEnd>,
    /// The index of the owner that the policy selects.
    target: Option<usize>,
    /// The policy's object, if the policy selects pods by their labels: it owns the sequence of pods of any controllers, and of none.
    selecting: Option<OwnerReference>,
}

impl OwnerChain {
    /// The chain that begins with the controller of `pod`.
    pub fn of_pod(pod: &Pod<'_>) -> Self {
        Self::from(pod.controller().map(OwnerReference::coordinates))
    }

    /// The owner to read next; `None` at the end of the chain.
    pub fn next_to_read(&self) -> Option<&OwnerReference> {
        self.unread().filter(|_| self.end.is_none())
    }

    /// The first owner that wasn't read, or that has another uid than its reference.
    pub fn unread(&self) -> Option<&OwnerReference> {
        self.owners.get(self.read.len())
    }

    /// Adds the result of reading [`Self::next_to_read`].
    pub fn record_read(&mut self, found: Lookup<OwnerObject>) {
        let Some(reference) = self.next_to_read() else { return };
        let owner = match found {
            Lookup::Found(owner) if owner.uid == reference.uid && !owner.uid.is_empty() => owner,
            Lookup::Found(_) | Lookup::NotFound => return self.end = Some(ChainEnd::Gone),
            Lookup::Forbidden => return self.end = Some(ChainEnd::Forbidden),
            Lookup::Unavailable => return self.end = Some(ChainEnd::Unknown),
        };
        match &owner.controller {
            None => self.end = Some(ChainEnd::Top),
            Some(_) if self.owners.len() == MAX_OWNERS => self.end = Some(ChainEnd::TooLong),
            Some(controller) => self.owners.push(controller.clone()),
        }
        self.read.push(owner);
    }

    /// The reason for the end; `None` while there is an owner to read.
    pub fn end(&self) -> Option<ChainEnd> {
        self.end
    }

    /// The owners that a verified object names, the nearest first; none before the first was read.
    pub fn owners(&self) -> &[OwnerReference] {
        if self.read.is_empty() { &[] } else { &self.owners }
    }

    /// The owners that were read, the nearest first.
    pub fn read(&self) -> impl Iterator<Item = (&OwnerReference, &Arc<OwnerObject>)> {
        self.owners.iter().zip(&self.read)
    }

    /// The pod's own controller, as its owner reference names it.
    pub fn named_controller(&self) -> Option<&OwnerReference> {
        self.owners.first()
    }

    /// The pod's own controller, once it was read.
    pub fn controller(&self) -> Option<(&OwnerReference, &Arc<OwnerObject>)> {
        self.read().next()
    }

    /// Sets the owner that the policy selects, by its index in [`Self::owners`].
    pub fn set_target(&mut self, index: usize) {
        self.target = Some(index);
    }

    /// Sets the policy's object as the owner of the sequence: the policy selects the pod by its labels.
    pub fn set_selecting(&mut self, policy: OwnerReference) {
        self.selecting = Some(policy);
    }

    /// Whether the policy selects the pod by its labels, and not by an owner.
    pub fn is_selected(&self) -> bool {
        self.selecting.is_some()
    }

    /// Whether the controller has a sequence of its own below any target: a revision of a rollout, or a set of numbered pods.
    pub fn has_own_sequence(&self) -> bool {
        self.owners()
            .first()
            .is_some_and(|controller| is_revision(controller) || controller.kind == STATEFUL_SET)
    }

    /// Whether the pods of several controllers share the sequence.
    pub fn is_shared(&self) -> bool {
        let controller = self.owners().first();
        self.is_selected() || self.sequence_owner().is_some_and(|(owner, _)| Some(owner) != controller)
    }

    /// Whether pods take the slots of the sequence one after the other, over time: those of Jobs that share it. Each Job ends, so that the
    /// slots that are free show nothing.
    pub fn is_over_time(&self) -> bool {
        self.is_shared()
            && self.named_controller().is_some_and(|controller| controller.is_kind("batch", "Job"))
    }

    /// The Pod that owns the pod's `StatefulSet`: the leader of a group of a `LeaderWorkerSet`. Its workers run where it does.
    pub fn leader(&self) -> Option<(&OwnerReference, &Arc<OwnerObject>)> {
        let set = self.owners().first().filter(|controller| controller.kind == STATEFUL_SET);
        set.and_then(|_| self.read().nth(1)).filter(|(owner, _)| owner.is_kind("", "Pod"))
    }

    /// The owner of the sequence of slots. With it what was read of it, if it was.
    ///
    /// A `ReplicaSet`, a `ReplicationController` and a `StatefulSet` have sequences of their own, so that each revision of a rollout has exact
    /// shares. The pods of every other controller share the sequence of the target: a custom resource may have a controller for each pod. All pods
    /// that a policy selects by their labels share its sequence.
    pub fn sequence_owner(&self) -> Option<(&OwnerReference, Option<&Arc<OwnerObject>>)> {
        if let Some(policy) = &self.selecting {
            return Some((policy, None));
        }
        if let Some(target) = self.target {
            let shared =
                self.owners().get(target).filter(|owner| is_uid(&owner.uid) && !self.has_own_sequence());
            let sequence_owner = if shared.is_some() { target } else { 0 };
            return Some((self.owners().get(sequence_owner)?, self.read.get(sequence_owner)));
        }
        let sequence_owner = match self.owners() {
            [job, cron_job, ..]
                if job.is_kind("batch", "Job")
                    && cron_job.is_kind("batch", "CronJob")
                    && is_uid(&cron_job.uid) =>
            {
                1
            }
            _ => 0,
        };
        Some((self.owners().get(sequence_owner)?, self.read.get(sequence_owner)))
    }
}

/// Whether the owner is a revision of a rollout.
fn is_revision(owner: &OwnerReference) -> bool {
    owner.is_kind("apps", "ReplicaSet") || owner.is_kind("", "ReplicationController")
}

impl From<Option<OwnerReference>> for OwnerChain {
    /// The chain that begins with this owner.
    fn from(owner: Option<OwnerReference>) -> Self {
        let end = if owner.is_none() { Some(ChainEnd::Top) } else { None };
        Self { owners: owner.into_iter().collect(), read: Vec::new(), end, target: None, selecting: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(api_version: &str, kind: &str) -> OwnerReference {
        OwnerReference::new(api_version, kind, kind.to_lowercase(), format!("uid-of-{kind}"))
    }

    fn chain(controller: &OwnerReference) -> OwnerChain {
        let OwnerReference { api_version, kind, name, uid, .. } = controller;
        let owner = serde_json::json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true});
        let other = serde_json::json!({"kind": "Other", "name": "other", "uid": "other"});
        let pod = serde_json::json!({"metadata": {"ownerReferences": [other, owner]}}).to_string();
        OwnerChain::of_pod(&serde_json::from_str(&pod).unwrap())
    }

    fn object(of: &OwnerReference, controller: Option<OwnerReference>) -> Lookup<OwnerObject> {
        Lookup::Found(Arc::new(OwnerObject { uid: of.uid.clone(), controller, ..OwnerObject::default() }))
    }

    #[test]
    fn chain_of_deployment_pod_ends_at_the_deployment() {
        let set = owner("apps/v1", "ReplicaSet");
        let deployment = owner("apps/v1", "Deployment");
        let mut chain = chain(&set);
        assert_eq!((chain.next_to_read(), chain.owners()), (Some(&set), &[][..]));
        chain.record_read(object(&set, Some(deployment.clone())));
        assert!(chain.owners()[1].names("apps/v1beta1", "Deployment", "deployment"), "before it is read");
        assert_eq!(chain.next_to_read(), Some(&deployment));
        chain.record_read(object(&deployment, None));
        assert_eq!((chain.next_to_read(), chain.end()), (None, Some(ChainEnd::Top)));
        assert_eq!(chain.sequence_owner().unwrap().0, &set);
        for (api_version, kind, name) in [
            ("v1", "Deployment", "deployment"),
            ("apps/v1", "Deployment", "other"),
            ("apps/v1", "DaemonSet", "deployment"),
        ] {
            assert!(!chain.owners()[1].names(api_version, kind, name));
        }
    }

    #[test]
    fn jobs_of_one_cron_job_share_its_sequence() {
        let job = owner("batch/v1", "Job");
        let cron_job = owner("batch/v1", "CronJob");
        let mut with = chain(&job);
        with.record_read(object(&job, Some(cron_job.clone())));
        assert_eq!(with.sequence_owner(), Some((&cron_job, None)), "named by one that was read");
        let mut alone = chain(&job);
        alone.record_read(object(&job, Some(owner("example.com/v1", "CronJob"))));
        assert_eq!(alone.sequence_owner().unwrap().0, &job);
        // A uid becomes part of a path, and a Job may name any.
        let mut made_up = chain(&job);
        made_up
            .record_read(object(&job, Some(OwnerReference { uid: "uid?dryRun=All".to_owned(), ..cron_job })));
        assert_eq!(made_up.sequence_owner().unwrap().0, &job);
    }

    #[test]
    fn sequence_belongs_to_the_revision_or_to_the_target() {
        let scaled_job = owner("keda.sh/v1alpha1", "ScaledJob");
        for (controller, shared, over_time) in [
            (owner("apps/v1", "ReplicaSet"), false, false),
            (owner("v1", "ReplicationController"), false, false),
            (owner("apps/v1", "StatefulSet"), false, false),
            (owner("apps.kruise.io/v1beta1", "StatefulSet"), false, false),
            (owner("batch/v1", "Job"), true, true),
            (owner("v1", "Pod"), true, false),
            (owner("actions.github.com/v1alpha1", "EphemeralRunner"), true, false),
        ] {
            let mut chain = chain(&controller);
            chain.record_read(object(&controller, Some(scaled_job.clone())));
            chain.set_target(1);
            let expected = if shared { &scaled_job } else { &controller };
            assert_eq!(chain.sequence_owner().unwrap().0, expected);
            assert_eq!((chain.is_shared(), chain.is_over_time()), (shared, over_time), "{controller:?}");
            chain.set_target(0);
            assert_eq!((chain.sequence_owner().unwrap().0, chain.is_shared()), (&controller, false));
        }
    }

    #[test]
    fn leader_owns_the_stateful_set_of_its_workers() {
        let set = owner("apps/v1", "StatefulSet");
        let leader = owner("v1", "Pod");
        let mut worker = chain(&set);
        worker.record_read(object(&set, Some(leader.clone())));
        assert_eq!(worker.leader(), None, "not read yet");
        worker.record_read(object(&leader, None));
        assert_eq!(worker.leader().unwrap().0, &leader);
        let mut executor = chain(&leader);
        executor.record_read(object(&leader, None));
        assert_eq!(executor.leader(), None);
    }

    #[test]
    fn owner_with_another_uid_does_not_count() {
        let set = owner("apps/v1", "ReplicaSet");
        let impostor = OwnerReference { uid: "another".to_owned(), ..set.clone() };
        for (found, end) in [
            (object(&impostor, None), ChainEnd::Gone),
            (Lookup::NotFound, ChainEnd::Gone),
            (Lookup::Forbidden, ChainEnd::Forbidden),
            (Lookup::Unavailable, ChainEnd::Unknown),
        ] {
            let mut chain = chain(&set);
            chain.record_read(found);
            assert_eq!((chain.end(), chain.next_to_read(), chain.sequence_owner()), (Some(end), None, None));
        }
        let mut nameless = chain(&OwnerReference::default());
        nameless.record_read(Lookup::Found(Arc::default()));
        assert_eq!(nameless.end(), Some(ChainEnd::Gone));
    }

    #[test]
    fn circular_owners_end() {
        let set = owner("apps/v1", "ReplicaSet");
        let mut chain = chain(&set);
        let mut reads = 0;
        while chain.next_to_read().is_some() {
            chain.record_read(object(&set, Some(set.clone())));
            reads += 1;
        }
        assert_eq!((reads, chain.end()), (MAX_OWNERS, Some(ChainEnd::TooLong)));
    }

    #[test]
    fn pod_without_owner() {
        let chain = OwnerChain::of_pod(&Pod::default());
        assert_eq!(
            (chain.next_to_read(), chain.end(), chain.sequence_owner()),
            (None, Some(ChainEnd::Top), None)
        );
    }
}
