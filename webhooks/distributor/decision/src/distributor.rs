//! `PodDistributor`: what one says, and which one governs a pod.

use std::sync::Arc;
use std::time::Duration;

use podshaper_core::duration;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::distribution::{Distribution, Target};
use podshaper_placement::owners::OwnerChain;
use serde::Deserialize;
use serde_json::Value;

/// The API group.
pub const GROUP: &str = "versprei.versprei.io";
/// The version of the API.
pub const VERSION: &str = "v1beta1";
/// The kind.
pub const KIND: &str = "PodDistributor";
/// The plural, as paths have it.
pub const PLURAL: &str = "poddistributors";

/// A `PodDistributor` object.
#[derive(Clone, Debug)]
pub struct Distributor {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`, RFC 3339: texts that sort by time.
    pub created: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The workload that it is about, also where the rest makes no sense.
    pub target: Target,
    /// `spec`.
    pub spec: Value,
    /// `status`.
    pub status: Value,
    /// What it comes to, or what is wrong with it.
    pub plan: Result<Plan, String>,
}

/// What a spec that makes sense comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As it was read.
    pub distribution: Distribution,
    /// `unschedulableAfter`.
    pub unschedulable_after: Option<Duration>,
    /// Who goes where.
    pub allocator: Arc<SlotAllocator>,
}

impl Distributor {
    /// Takes `spec` for what it is; the other fields are up to the caller.
    pub fn from_spec(spec: Value) -> Self {
        let target = spec.get("target").cloned().map(Target::deserialize);
        let [name, namespace, uid, created] = [(); 4].map(|()| String::new());
        let target = target.and_then(Result::ok).unwrap_or_default();
        let plan = plan(&spec);
        Self { name, namespace, uid, created, generation: 0, target, spec, status: Value::Null, plan }
    }

    /// Whether `owner` is its target.
    pub fn is_about(&self, owner: &OwnerReference) -> bool {
        owner.names(&self.target.api_version, &self.target.kind, &self.target.name)
    }

    /// Whether both are about one workload.
    pub fn rivals(&self, other: &Self) -> bool {
        let Target { api_version, kind, name } = &other.target;
        self.namespace == other.namespace && self.is_about(&OwnerReference::new(api_version, kind, name, ""))
    }

    /// Whether of two that are about one workload this one counts: the oldest does.
    pub fn precedes(&self, other: &Self) -> bool {
        (&self.created, &self.name) < (&other.created, &other.name)
    }
}

/// A status that is written changes no plan.
impl PartialEq for Distributor {
    fn eq(&self, other: &Self) -> bool {
        let of = |this: &Self| (this.uid.clone(), this.generation);
        of(self) == of(other) && self.spec == other.spec && self.status == other.status
    }
}

fn plan(spec: &Value) -> Result<Plan, String> {
    let distribution: Distribution =
        serde_path_to_error::deserialize(spec).map_err(|error| match error.path().to_string().as_str() {
            "." => format!("spec: {}", error.inner()),
            path => format!("spec.{path}: {}", error.inner()),
        })?;
    let policy = distribution.policy().map_err(|error| error.to_string())?;
    let after = distribution
        .unschedulable_after
        .as_deref()
        .map(|text| duration::parse(text).map_err(|error| format!("spec.unschedulableAfter: {error}")));
    let allocator = Arc::new(SlotAllocator::new(policy));
    Ok(Plan { unschedulable_after: after.transpose()?, distribution, allocator })
}

/// The one that governs the pods at the end of `chain`: of the nearest owner that has one, and of several the oldest.
pub fn governing<'d>(
    distributors: &'d [Arc<Distributor>],
    chain: &OwnerChain,
) -> Option<&'d Arc<Distributor>> {
    chain.owners().iter().find_map(|owner| {
        let about = distributors.iter().filter(|distributor| distributor.is_about(owner));
        about.reduce(|oldest, other| if other.precedes(oldest) { other } else { oldest })
    })
}

#[cfg(test)]
mod tests {
    use podshaper_core::lookup::Lookup;
    use podshaper_placement::owners::OwnerObject;
    use serde_json::json;

    use super::*;

    fn distributor(name: &str, created: &str, target: &Value) -> Arc<Distributor> {
        let groups = json!([{"nodeLabel": {"type": "a"}, "weight": 1}]);
        let distributor = Distributor::from_spec(json!({"distribution": groups, "target": target}));
        Arc::new(Distributor { name: name.to_owned(), created: created.to_owned(), ..distributor })
    }

    fn owner(kind: &str) -> OwnerReference {
        OwnerReference::new("apps/v1", kind, "web", kind)
    }

    /// A ReplicaSet that belongs to a Deployment.
    fn chain() -> OwnerChain {
        let mut chain = OwnerChain::from(Some(owner("ReplicaSet")));
        let [uid, controller] = ["ReplicaSet".to_owned(), "Deployment".to_owned()];
        let set = OwnerObject { uid, controller: Some(owner(&controller)), ..OwnerObject::default() };
        chain.looked(Lookup::Found(set.into()));
        chain
    }

    fn governs(distributors: &[Arc<Distributor>]) -> Option<&str> {
        governing(distributors, &chain()).map(|distributor| &*distributor.name)
    }

    #[test]
    fn the_oldest_of_the_nearest() {
        let deployment = json!({"name": "web"});
        let of = |name, created| distributor(name, created, &deployment);
        let (young, old) = (of("young", "2026-02-01T00:00:00Z"), of("old", "2026-01-01T00:00:00Z"));
        let twin = of("a-twin", "2026-01-01T00:00:00Z");
        assert_eq!(governs(&[young.clone(), old.clone()]), Some("old"));
        assert_eq!(governs(&[young.clone(), old.clone(), twin]), Some("a-twin"));
        assert!(young.rivals(&old) && !old.precedes(&old));
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"});
        assert_eq!(governs(&[old, distributor("set", "2026-03-01T00:00:00Z", &set)]), Some("set"));
        for other in [json!({"name": "other"}), json!({"kind": "Rollout", "name": "web"}), json!(null)] {
            assert_eq!(governs(&[distributor("other", "", &other)]), None);
        }
    }

    #[test]
    fn one_that_makes_no_sense_still_has_a_target() {
        let senseless = Distributor::from_spec(json!({"distribution": 3, "target": {"name": "web"}}));
        assert_eq!(senseless.target.name, "web");
        assert!(senseless.plan.unwrap_err().starts_with("spec.distribution: invalid type"));
        let empty = Distributor::from_spec(json!({"distribution": [], "target": {"name": "web"}}));
        assert_eq!(empty.plan.unwrap_err(), "spec.distribution: there is no group");
    }
}
