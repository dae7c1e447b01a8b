//! The owners of a pod: its controller, the controller of that, and so on.
//!
//! ```text
//! pod ──▶ ReplicaSet ──▶ Deployment        pod ──▶ Job ──▶ CronJob        pod ──▶ ReplicaSet ──▶ Rollout
//! ```
//!
//! Each step needs one read of the API server, which the caller does: [`OwnerChain::wants`] returns the owner to read, and
//! [`OwnerChain::looked`] takes the result. Any client may write any owner into a pod, so an owner counts only after it was read and has
//! the uid of the reference.

use std::sync::Arc;

use super::owner_object::OwnerObject;
use podshaper_core::object::{Lookup, OwnerReference, is_uid};
use podshaper_core::pod::Pod;

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
    /// The chain has more than [`MAX_OWNERS`] owners.
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
}

impl OwnerChain {
    /// The chain that begins with the controller of `pod`.
    pub fn of_pod(pod: &Pod<'_>) -> Self {
        Self::from(pod.controller().map(OwnerReference::coordinates))
    }

    /// The owner to read next; `None` at the end of the chain.
    pub fn wants(&self) -> Option<&OwnerReference> {
        self.unread().filter(|_| self.end.is_none())
    }

    /// The first owner that wasn't read, or that has another uid than its reference.
    pub fn unread(&self) -> Option<&OwnerReference> {
        self.owners.get(self.read.len())
    }

    /// Takes the result of the read of [`Self::wants`].
    pub fn looked(&mut self, found: Lookup<OwnerObject>) {
        let Some(wanted) = self.wants() else { return };
        let owner = match found {
            Lookup::Found(owner) if owner.uid == wanted.uid && !owner.uid.is_empty() => owner,
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

    /// The pod's own controller, once it was read.
    pub fn controller(&self) -> Option<(&OwnerReference, &Arc<OwnerObject>)> {
        self.read().next()
    }

    /// The owner of the sequence of slots, and its object if it was read. It is the controller, so that each revision of a rollout has exact
    /// shares. The Jobs of a `CronJob` share the sequence of the `CronJob`.
    pub fn sequence_owner(&self) -> Option<(&OwnerReference, Option<&Arc<OwnerObject>>)> {
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

impl From<Option<OwnerReference>> for OwnerChain {
    /// The chain that begins with this owner.
    fn from(owner: Option<OwnerReference>) -> Self {
        let end = if owner.is_none() { Some(ChainEnd::Top) } else { None };
        Self { owners: owner.into_iter().collect(), read: Vec::new(), end }
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
    fn a_deployments_pod() {
        let (set, deployment) = (owner("apps/v1", "ReplicaSet"), owner("apps/v1", "Deployment"));
        let mut chain = chain(&set);
        assert_eq!((chain.wants(), chain.owners()), (Some(&set), &[][..]));
        chain.looked(object(&set, Some(deployment.clone())));
        assert!(chain.owners()[1].names("apps/v1beta1", "Deployment", "deployment"), "before it is read");
        assert_eq!(chain.wants(), Some(&deployment));
        chain.looked(object(&deployment, None));
        assert_eq!((chain.wants(), chain.end()), (None, Some(ChainEnd::Top)));
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
    fn the_jobs_of_a_cron_job_share() {
        let (job, cron_job) = (owner("batch/v1", "Job"), owner("batch/v1", "CronJob"));
        let mut with = chain(&job);
        with.looked(object(&job, Some(cron_job.clone())));
        assert_eq!(with.sequence_owner(), Some((&cron_job, None)), "named by one that was read");
        let mut alone = chain(&job);
        alone.looked(object(&job, Some(owner("example.com/v1", "CronJob"))));
        assert_eq!(alone.sequence_owner().unwrap().0, &job);
        // A uid becomes part of a path, and a Job may name any.
        let mut made_up = chain(&job);
        made_up.looked(object(&job, Some(OwnerReference { uid: "uid?dryRun=All".to_owned(), ..cron_job })));
        assert_eq!(made_up.sequence_owner().unwrap().0, &job);
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
            chain.looked(found);
            assert_eq!((chain.end(), chain.wants(), chain.sequence_owner()), (Some(end), None, None));
        }
        let mut nameless = chain(&OwnerReference::default());
        nameless.looked(Lookup::Found(Arc::default()));
        assert_eq!(nameless.end(), Some(ChainEnd::Gone));
    }

    #[test]
    fn circular_owners_end() {
        let set = owner("apps/v1", "ReplicaSet");
        let mut chain = chain(&set);
        let mut reads = 0;
        while chain.wants().is_some() {
            chain.looked(object(&set, Some(set.clone())));
            reads += 1;
        }
        assert_eq!((reads, chain.end()), (MAX_OWNERS, Some(ChainEnd::TooLong)));
    }

    #[test]
    fn pod_without_owner() {
        let chain = OwnerChain::of_pod(&Pod::default());
        assert_eq!((chain.wants(), chain.end(), chain.sequence_owner()), (None, Some(ChainEnd::Top), None));
    }
}
