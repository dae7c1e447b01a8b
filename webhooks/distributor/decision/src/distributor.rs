//! `PodDistributor` objects, and which one governs a pod.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::duration;
use podshaper_core::object::{FromObject, Object, OwnerReference, group_of, lenient};
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::{ChainEnd, OwnerChain};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::crd::{API_VERSION, KIND, PLURAL};
use crate::spec::{Availability, PodDistributorSpec, Rebalance, TakeBack, Target, WhenUnavailable};
use crate::status::PodDistributorStatus;

/// The default of `unschedulableAfter`: longer than Karpenter and the cluster autoscaler usually take to add a node.
pub const UNSCHEDULABLE_AFTER: Duration = Duration::from_mins(5);

/// Bytes of the longest spec, as compact JSON.
const MAX_SPEC: usize = 64 << 10;
/// Bytes of a distributor without its spec, and of one value of a node affinity, which is kept as JSON and parsed.
const BASE_WEIGHT: usize = 2 << 10;
const VALUE_WEIGHT: usize = 112;

/// A `PodDistributor` object.
#[derive(Clone, Debug)]
pub struct Distributor {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`, RFC 3339: the texts sort by time.
    pub created: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// The workload that it selects, even if the rest of the spec is invalid.
    pub target: Target,
    /// `spec`, or why it is invalid.
    pub spec: Result<ValidSpec, String>,
    /// `status`.
    pub status: PodDistributorStatus,
}

/// A valid spec, and what follows from it.
#[derive(Clone, Debug)]
pub struct ValidSpec {
    /// The fields that are not part of the policy.
    pub options: SpecOptions,
    /// Which slots belong to which group.
    pub allocator: Arc<SlotAllocator>,
    /// The approximate number of bytes that it takes.
    weight: usize,
}

/// The target of a spec, whatever else it has.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecTarget {
    #[serde(deserialize_with = "lenient")]
    target: Option<Target>,
}

/// The fields of a spec that are not part of the policy, with their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecOptions {
    /// `whenUnavailable`.
    pub when_unavailable: WhenUnavailable,
    /// `availability`.
    pub availability: Availability,
    /// `unschedulableAfter`; `None` if pods wait for as long as it takes.
    pub unschedulable_after: Option<Duration>,
    /// `takeBack`.
    pub take_back: TakeBack,
    /// `rebalance`.
    pub rebalance: Rebalance,
}

impl Distributor {
    /// A distributor with this spec; the other fields are up to the caller.
    pub fn from_spec(spec: &Value) -> Self {
        Self::from_text(&spec.to_string())
    }

    /// A distributor with this spec as JSON. Tenants write it: a tree of values would take sixty times its size.
    fn from_text(spec: &str) -> Self {
        let target = serde_json::from_str::<SpecTarget>(spec).ok().and_then(|spec| spec.target);
        Self {
            name: String::new(),
            namespace: String::new(),
            uid: String::new(),
            created: String::new(),
            generation: 0,
            version: String::new(),
            target: target.unwrap_or_default(),
            spec: ValidSpec::parse(spec),
            status: PodDistributorStatus::default(),
        }
    }

    /// The approximate number of bytes that it takes.
    pub fn weight(&self) -> usize {
        self.spec.as_ref().map_or(BASE_WEIGHT, |spec| BASE_WEIGHT + spec.weight)
    }

    /// Whether it selects this workload.
    pub fn targets(&self, owner: &OwnerReference) -> bool {
        let target = &self.target;
        target.selector.is_none() && owner.names(target.api_version(), target.kind(), target.name())
    }

    /// Whether it selects an object of a custom kind, which may own pods through owners of any kind.
    pub fn has_custom_target(&self) -> bool {
        self.target.selector.is_none()
            && !["apps", "batch", ""].contains(&group_of(self.target.api_version()))
    }

    /// Whether it selects pods with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.target.selector.as_ref().is_some_and(|selector| selector.matches(|key| labels.get(key)))
    }

    /// The owner of the sequence of the pods that it selects by their labels: the object itself.
    pub fn sequence_owner(&self) -> OwnerReference {
        // An object in a file has no uid.
        let uid = if self.uid.is_empty() { &self.name } else { &self.uid };
        OwnerReference::new(API_VERSION, KIND, &*self.name, uid)
    }

    /// Whether both select the same workload, or pods by the same selector.
    pub fn has_target_of(&self, other: &Self) -> bool {
        let target = &other.target;
        let same = match &target.selector {
            Some(selector) => self.target.selector.as_ref() == Some(selector),
            None => {
                self.targets(&OwnerReference::new(target.api_version(), target.kind(), target.name(), ""))
            }
        };
        self.namespace == other.namespace && same
    }

    /// Whether it applies instead of `other`, which selects the same workload: the older one does.
    pub fn precedes(&self, other: &Self) -> bool {
        (&self.created, &self.name) < (&other.created, &other.name)
    }
}

/// Specs are equal if their generations are.
impl PartialEq for Distributor {
    fn eq(&self, other: &Self) -> bool {
        (&self.uid, self.generation, &self.version) == (&other.uid, other.generation, &other.version)
            && self.spec.as_ref().err() == other.spec.as_ref().err()
            && self.status == other.status
    }
}

impl FromObject for Distributor {
    type Spec = Box<RawValue>;
    type Status = Box<RawValue>;
    const PLURAL: &'static str = PLURAL;
    const API: &'static str = "/apis/versprei.versprei.io/v1beta1";

    fn from_object(object: Object<Box<RawValue>, Box<RawValue>>) -> Option<Self> {
        let metadata = object.metadata;
        if metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(Self {
            name: metadata.name,
            namespace: metadata.namespace?,
            uid: metadata.uid,
            created: metadata.creation_timestamp.unwrap_or_default(),
            generation: metadata.generation,
            version: metadata.resource_version,
            // A status of another version counts as none, and is written anew.
            status: object.status.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default(),
            ..Self::from_text(object.spec.as_ref().map_or("null", |raw| raw.get()))
        })
    }
}

impl ValidSpec {
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_SPEC {
            return Err(format!("spec: it has {} bytes; the maximum is {MAX_SPEC}", text.len()));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields: PodDistributorSpec =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
                let problem = error.inner().to_string();
                // The position is in the compact JSON, which the user does not see.
                let problem = problem.split(" at line ").next().unwrap_or_default();
                match error.path().to_string().as_str() {
                    "." => format!("spec: {problem}"),
                    path => format!("spec.{path}: {problem}"),
                }
            })?;
        let policy = fields.policy().map_err(|error| error.to_string())?;
        let options = SpecOptions::new(&fields)?;
        let weight = 2 * text.len() + VALUE_WEIGHT * fields.affinity_values();
        Ok(Self { options, allocator: Arc::new(SlotAllocator::new(policy)), weight })
    }
}

impl SpecOptions {
    /// A stored object can have both `Wait` and a time, which a newer definition refuses: pods then wait.
    fn new(fields: &PodDistributorSpec) -> Result<Self, String> {
        let after = fields.unschedulable_after.as_deref();
        let after = after
            .map(|text| duration::parse(text).map_err(|error| format!("spec.unschedulableAfter: {error}")));
        let after = after.transpose()?.unwrap_or(UNSCHEDULABLE_AFTER);
        let waits = fields.when_unavailable == WhenUnavailable::Wait;
        Ok(Self {
            when_unavailable: fields.when_unavailable,
            availability: fields.availability,
            unschedulable_after: (!waits).then_some(after),
            take_back: if waits { TakeBack::Never } else { fields.take_back.unwrap_or_default() },
            rebalance: fields.rebalance.clone(),
        })
    }
}

/// The distributor that governs the pods of `chain`: the oldest of those that select the owner nearest to the pods.
pub fn governing<'d>(
    distributors: &'d [Arc<Distributor>],
    chain: &OwnerChain,
) -> Option<&'d Arc<Distributor>> {
    chain
        .owners()
        .iter()
        .find_map(|owner| oldest(distributors.iter().filter(|distributor| distributor.targets(owner))))
}

fn oldest<'d>(distributors: impl Iterator<Item = &'d Arc<Distributor>>) -> Option<&'d Arc<Distributor>> {
    distributors.reduce(|oldest, other| if other.precedes(oldest) { other } else { oldest })
}

/// The distributor that governs a pod with these labels because it selects pods by them: the oldest of those, where none selects an owner of the
/// pod. The distributor becomes the owner of the sequence.
///
/// A distributor may select an owner that was not read: then none governs the pod by its labels ([`has_unread_target`]).
pub fn govern_by_labels<'d>(
    distributors: &'d [Arc<Distributor>],
    labels: &BTreeMap<String, String>,
    chain: &mut OwnerChain,
) -> Option<&'d Arc<Distributor>> {
    // A DaemonSet or a kubelet creates a pod for a node.
    let is_of_node = |owner: &OwnerReference| owner.is_kind("apps", "DaemonSet") || owner.is_kind("", "Node");
    if chain.named_controller().is_some_and(is_of_node)
        || governing(distributors, chain).is_some()
        || has_unread_target(distributors, chain)
    {
        return None;
    }
    let distributor = oldest(distributors.iter().filter(|distributor| distributor.selects(labels)))?;
    chain.set_selecting(distributor.sequence_owner());
    Some(distributor)
}

/// Whether a distributor may select an owner that could not be read, or an owner of that.
pub fn has_unread_target(distributors: &[Arc<Distributor>], chain: &OwnerChain) -> bool {
    let Some(unread) = chain.unread() else { return false };
    match chain.end() {
        Some(ChainEnd::Unknown) => !selects_by_labels_only(distributors),
        // Only custom kinds are forbidden, and their owners are of custom kinds.
        Some(ChainEnd::Forbidden) => {
            distributors.iter().any(|own| own.targets(unread) || own.has_custom_target())
        }
        _ => false,
    }
}

/// Whether no distributor selects pods by an owner, so that owners need not be read.
pub fn selects_by_labels_only(distributors: &[Arc<Distributor>]) -> bool {
    distributors.iter().all(|distributor| distributor.target.selector.is_some())
}

/// [`governing`], and sets the owner that it selects as the target of the chain.
pub fn govern<'d>(
    distributors: &'d [Arc<Distributor>],
    chain: &mut OwnerChain,
) -> Option<&'d Arc<Distributor>> {
    let distributor = governing(distributors, chain)?;
    set_target(distributor, chain);
    Some(distributor)
}

/// Sets the owner that this distributor selects as the target of the chain.
pub fn set_target(distributor: &Distributor, chain: &mut OwnerChain) {
    if let Some(target) = chain.owners().iter().position(|owner| distributor.targets(owner)) {
        chain.set_target(target);
    }
}

#[cfg(test)]
mod tests {
    use podshaper_core::object::Lookup;
    use podshaper_placement::owner_object::OwnerObject;
    use serde_json::json;

    use super::*;

    fn distributor(name: &str, created: &str, target: &Value) -> Arc<Distributor> {
        let groups = json!([{"nodeLabel": {"type": "a"}, "weight": 1}]);
        let distributor = Distributor::from_spec(&json!({"distribution": groups, "target": target}));
        Arc::new(Distributor { name: name.to_owned(), created: created.to_owned(), ..distributor })
    }

    fn owner(kind: &str) -> OwnerReference {
        OwnerReference::new("apps/v1", kind, "web", kind)
    }

    /// A ReplicaSet that belongs to a Deployment.
    fn chain() -> OwnerChain {
        let mut chain = OwnerChain::from(Some(owner("ReplicaSet")));
        let set = OwnerObject {
            uid: "ReplicaSet".to_owned(),
            controller: Some(owner("Deployment")),
            ..OwnerObject::default()
        };
        chain.record_read(Lookup::Found(set.into()));
        chain
    }

    fn governs(distributors: &[Arc<Distributor>]) -> Option<&str> {
        governing(distributors, &chain()).map(|distributor| &*distributor.name)
    }

    #[test]
    fn oldest_distributor_of_nearest_owner_governs() {
        let deployment = json!({"name": "web"});
        let of = |name, created| distributor(name, created, &deployment);
        let young = of("young", "2026-02-01T00:00:00Z");
        let old = of("old", "2026-01-01T00:00:00Z");
        let twin = of("a-twin", "2026-01-01T00:00:00Z");
        assert_eq!(governs(&[young.clone(), old.clone()]), Some("old"));
        assert_eq!(governs(&[young.clone(), old.clone(), twin]), Some("a-twin"));
        assert!(young.has_target_of(&old) && !old.precedes(&old));
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"});
        assert_eq!(governs(&[old, distributor("set", "2026-03-01T00:00:00Z", &set)]), Some("set"));
        for other in [json!({"name": "other"}), json!({"kind": "Rollout", "name": "web"}), json!(null)] {
            assert_eq!(governs(&[distributor("other", "", &other)]), None);
        }
    }

    #[test]
    fn invalid_spec_keeps_its_target() {
        let invalid = Distributor::from_spec(&json!({"distribution": 3, "target": {"name": "web"}}));
        assert_eq!(invalid.target.name(), "web");
        assert!(invalid.spec.unwrap_err().starts_with("spec.distribution: invalid type"));
        let empty = Distributor::from_spec(&json!({"distribution": [], "target": {"name": "web"}}));
        assert_eq!(empty.spec.unwrap_err(), "spec.distribution: there is no group");
    }

    #[test]
    fn spec_with_too_many_values_is_invalid() {
        let of = |values: usize, length: usize| {
            let values: Vec<String> = (0..values).map(|value| format!("{value:0length$}")).collect();
            let terms: Vec<Value> = values
                .chunks(32)
                .map(|values| json!({"matchExpressions": [{"key": "a", "operator": "In", "values": values}]}))
                .collect();
            let group = |(index, terms): (usize, &[Value])| json!({"name": index.to_string(), "nodeLabel": {"type": "a"}, "weight": 1, "nodeAffinity": terms});
            let groups: Vec<Value> = terms.chunks(8).enumerate().map(group).collect();
            Distributor::from_spec(&json!({"distribution": groups, "target": {"name": "web"}}))
        };
        let largest = of(1024, 4);
        assert!(largest.spec.is_ok(), "{:?}", largest.spec);
        assert!(largest.weight() > 100 << 10 && of(32, 4).weight() < 10 << 10);
        let more = of(1056, 4);
        assert_eq!(
            more.spec.unwrap_err(),
            "spec.distribution: 1056 values in node affinities; the maximum is 1024"
        );
        assert_eq!(more.target.name(), "web");
        let longer = of(4096, 12).spec.unwrap_err();
        assert!(longer.ends_with("bytes; the maximum is 65536"), "{longer}");
    }
}
