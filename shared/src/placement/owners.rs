//! Whose a pod is: its controller, that one's controller, and so on.
//!
//! ```text
//! pod ──▶ ReplicaSet ──▶ Deployment        pod ──▶ Job ──▶ CronJob        pod ──▶ ReplicaSet ──▶ Rollout
//! ```
//!
//! Each step needs one read of the API server, which somebody else does: [`Chain::wants`] says what, [`Chain::looked`] takes
//! what was found. Anybody may write any owner into a pod, so an owner counts only once it was read and has that uid.

use crate::pod::Pod;

/// No chain of controllers that exists is longer; one that goes in circles ends.
const MAX_OWNERS: usize = 8;

/// One owner, as what it owns names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnerRef {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `name`; it is in the pod's namespace.
    pub name: String,
    /// `uid`.
    pub uid: String,
}

/// What was found where an owner should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// An object.
    Object {
        /// Its `uid`.
        uid: String,
        /// Its own controller.
        controller: Option<OwnerRef>,
    },
    /// There is none.
    Nothing,
    /// Nobody could tell in time, or it may not be read.
    Unknown,
}

/// Why a chain goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last has no controller.
    Top,
    /// An owner isn't there, or is another one of that name by now.
    Gone,
    /// An owner couldn't be read.
    Unknown,
    /// It is too long.
    TooLong,
}

/// The owners of a pod, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The nearest first.
    owners: Vec<OwnerRef>,
    /// So many of them were read and are who they were said to be.
    verified: usize,
    end: Option<End>,
}

impl Chain {
    /// The chain that begins with the controller of `pod`.
    pub fn of(pod: &Pod<'_>) -> Self {
        let controller = pod.controller().map(|owner| OwnerRef {
            api_version: owner.api_version.to_string(),
            kind: owner.kind.to_string(),
            name: owner.name.to_string(),
            uid: owner.uid.to_string(),
        });
        let end = if controller.is_none() { Some(End::Top) } else { None };
        Self { owners: controller.into_iter().collect(), verified: 0, end }
    }

    /// The owner that is to be read next; none at the end.
    pub fn wants(&self) -> Option<&OwnerRef> {
        self.owners.get(self.verified).filter(|_| self.end.is_none())
    }

    /// Takes what was found of the owner that was wanted.
    pub fn looked(&mut self, found: Looked) {
        let Some(wanted) = self.wants() else { return };
        let controller = match found {
            Looked::Object { uid, controller } if uid == wanted.uid && !uid.is_empty() => controller,
            Looked::Object { .. } | Looked::Nothing => return self.end = Some(End::Gone),
            Looked::Unknown => return self.end = Some(End::Unknown),
        };
        self.verified += 1;
        match controller {
            None => self.end = Some(End::Top),
            Some(_) if self.owners.len() == MAX_OWNERS => self.end = Some(End::TooLong),
            Some(controller) => self.owners.push(controller),
        }
    }

    /// Why it goes no further; none while something is wanted.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The owners that somebody verified names, the nearest first; none while not even the first was read.
    pub fn owners(&self) -> &[OwnerRef] {
        if self.verified == 0 { &[] } else { &self.owners }
    }

    /// Whether an object is among the owners. Of `api_version` the group counts: an object is the same in each version.
    pub fn contains(&self, api_version: &str, kind: &str, name: &str) -> bool {
        let is = |owner: &OwnerRef| {
            group(&owner.api_version) == group(api_version) && owner.kind == kind && owner.name == name
        };
        self.owners().iter().any(is)
    }

    /// Whose pods share the sequence of slots: the controller's, so that each revision of a rollout is exact by itself; but those of
    /// all Jobs of a `CronJob`.
    pub fn sharer(&self) -> Option<&OwnerRef> {
        let batch = |owner: &OwnerRef, kind: &str| group(&owner.api_version) == "batch" && owner.kind == kind;
        match self.owners() {
            [job, cron_job, ..] if batch(job, "Job") && batch(cron_job, "CronJob") => Some(cron_job),
            owners => owners.first(),
        }
    }
}

/// The group of an `apiVersion`; the core group is empty.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(api_version: &str, kind: &str) -> OwnerRef {
        let [api_version, kind] = [api_version, kind].map(str::to_owned);
        OwnerRef { name: kind.to_lowercase(), uid: format!("uid of {kind}"), api_version, kind }
    }

    fn chain(controller: &OwnerRef) -> Chain {
        let OwnerRef { api_version, kind, name, uid } = controller;
        let owner = serde_json::json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true});
        let other = serde_json::json!({"kind": "Other", "name": "other", "uid": "other"});
        let pod = serde_json::json!({"metadata": {"ownerReferences": [other, owner]}}).to_string();
        Chain::of(&serde_json::from_str(&pod).unwrap())
    }

    fn object(of: &OwnerRef, controller: Option<OwnerRef>) -> Looked {
        Looked::Object { uid: of.uid.clone(), controller }
    }

    #[test]
    fn a_deployments_pod() {
        let (set, deployment) = (owner("apps/v1", "ReplicaSet"), owner("apps/v1", "Deployment"));
        let mut chain = chain(&set);
        assert_eq!((chain.wants(), chain.owners()), (Some(&set), &[][..]));
        chain.looked(object(&set, Some(deployment.clone())));
        assert!(chain.contains("apps/v1beta1", "Deployment", "deployment"), "before it is read");
        assert_eq!(chain.wants(), Some(&deployment));
        chain.looked(object(&deployment, None));
        assert_eq!((chain.wants(), chain.end()), (None, Some(End::Top)));
        assert_eq!(chain.sharer(), Some(&set));
        for (api_version, kind, name) in [
            ("v1", "Deployment", "deployment"),
            ("apps/v1", "Deployment", "other"),
            ("apps/v1", "DaemonSet", "deployment"),
        ] {
            assert!(!chain.contains(api_version, kind, name));
        }
    }

    #[test]
    fn the_jobs_of_a_cron_job_share() {
        let (job, cron_job) = (owner("batch/v1", "Job"), owner("batch/v1", "CronJob"));
        let mut with = chain(&job);
        with.looked(object(&job, Some(cron_job.clone())));
        assert_eq!(with.sharer(), Some(&cron_job));
        let mut alone = chain(&job);
        alone.looked(object(&job, Some(owner("example.com/v1", "CronJob"))));
        assert_eq!(alone.sharer(), Some(&job));
    }

    #[test]
    fn an_owner_that_is_another_counts_for_nothing() {
        let set = owner("apps/v1", "ReplicaSet");
        let impostor = OwnerRef { uid: "another".to_owned(), ..set.clone() };
        for (found, end) in [
            (object(&impostor, None), End::Gone),
            (Looked::Nothing, End::Gone),
            (Looked::Unknown, End::Unknown),
        ] {
            let mut chain = chain(&set);
            chain.looked(found);
            assert_eq!((chain.end(), chain.wants(), chain.sharer()), (Some(end), None, None));
        }
        let mut nameless = chain(&OwnerRef::default());
        nameless.looked(Looked::Object { uid: String::new(), controller: None });
        assert_eq!(nameless.end(), Some(End::Gone));
    }

    #[test]
    fn a_circle_ends() {
        let set = owner("apps/v1", "ReplicaSet");
        let mut chain = chain(&set);
        let mut reads = 0;
        while chain.wants().is_some() {
            chain.looked(object(&set, Some(set.clone())));
            reads += 1;
        }
        assert_eq!((reads, chain.end()), (MAX_OWNERS, Some(End::TooLong)));
    }

    #[test]
    fn a_pod_of_nobody() {
        let chain = Chain::of(&Pod::default());
        assert_eq!((chain.wants(), chain.end(), chain.sharer()), (None, Some(End::Top), None));
    }
}
