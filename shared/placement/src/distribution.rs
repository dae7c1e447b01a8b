//! `PodDistributor.spec`: which share of a workload's pods goes to which nodes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::policy::{Group, Policy, PolicyError, Tie};

/// `spec` of a `PodDistributor` (versprei.versprei.io/v1beta1).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Distribution {
    /// The groups of nodes
    pub distribution: Vec<GroupSpec>,
    /// The workload whose pods are placed
    pub target: Target,
    /// What becomes of the pods of a group without a node that is ready
    pub when_unavailable: WhenUnavailable,
    /// How long pods of a group may be unschedulable until the group counts as unavailable, as in `5m`
    pub unschedulable_after: Option<String>,
    /// Whether pods that stand in for other groups are evicted
    pub rebalance: Rebalance,
}

/// Nodes, and their share.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSpec {
    /// Names the group for people; its labels do, where it has no name
    pub name: Option<String>,
    /// The labels of the group's nodes
    pub node_label: BTreeMap<String, String>,
    /// The group's share, in proportion to the sum of all weights
    pub weight: i64,
    /// So many of the first pods, before weights count
    pub base: i64,
    /// At most so many pods
    pub max: Option<i64>,
    /// Tolerations that the group's pods are given
    pub tolerations: Vec<Value>,
    /// Node selector terms of which a node must meet one, besides the labels
    pub node_affinity: Vec<Value>,
    /// Whether the nodes are preferred only
    pub preferred: bool,
}

/// A workload in the distributor's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "WrittenTarget")]
pub struct Target {
    /// `apiVersion`; by default that of the kind, where Kubernetes has it
    pub api_version: String,
    /// `kind`
    pub kind: String,
    /// `name`
    pub name: String,
}

/// A target as people write it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "a target")]
struct WrittenTarget {
    api_version: Option<String>,
    kind: Option<String>,
    name: String,
}

impl From<WrittenTarget> for Target {
    fn from(written: WrittenTarget) -> Self {
        let kind = written.kind.unwrap_or_else(|| "Deployment".to_owned());
        let version = if BATCH.contains(&&*kind) { "batch/v1" } else { "apps/v1" };
        let api_version = written.api_version.unwrap_or_else(|| version.to_owned());
        Self { api_version, kind, name: written.name }
    }
}

impl Default for Target {
    fn default() -> Self {
        WrittenTarget::default().into()
    }
}

/// Kinds of the group `batch`.
const BATCH: [&str; 2] = ["Job", "CronJob"];

/// What becomes of the pods of a group without a node that is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum WhenUnavailable {
    /// They wait for its nodes.
    Wait,
    /// They go to the other groups until it comes back.
    #[default]
    UseOthers,
}

/// Whether pods that stand in for other groups are evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rebalance {
    /// When
    pub mode: RebalanceMode,
    /// How many pods may be missing at a time, a number or percents
    pub max_unavailable: Option<MaxUnavailable>,
}

/// When pods are evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RebalanceMode {
    /// Never: only new pods are placed.
    #[default]
    Never,
    /// When a group has come back.
    OnRecovery,
    /// Whenever a group is off its share by a pod or more.
    Always,
}

/// A number of pods, or a part of all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MaxUnavailable {
    /// So many.
    Pods(u32),
    /// `10%`
    Percent(String),
}

/// Why a spec makes no policy, and which field is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct DistributionError {
    /// Below `spec`, as in `distribution[0].weight`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

impl DistributionError {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl Distribution {
    /// The policy that it comes to.
    ///
    /// # Errors
    /// It doesn't come to any; the schema of the kind refuses most of that before.
    pub fn policy(&self) -> Result<Policy, DistributionError> {
        self.target.check()?;
        if self.rebalance.max_unavailable.as_ref().is_some_and(|max| !max.makes_sense()) {
            let problem = "must be a number from 1 on, or percents from 1% to 100%";
            return Err(DistributionError::new("rebalance.maxUnavailable", problem));
        }
        let shares = self.distribution.iter().enumerate();
        let groups = shares.map(|(index, share)| {
            let prefix = |field: &str| format!("distribution[{index}].{field}");
            let number = |field, number| {
                let problem = || format!("{number} isn't a whole number from 0 on");
                u32::try_from(number).map_err(|_| DistributionError::new(prefix(field), problem()))
            };
            Ok(Group {
                name: share.name().into(),
                node_labels: share.node_label.clone(),
                base: number("base", share.base)?,
                weight: number("weight", share.weight)?,
                max: share.max.map(|max| number("max", max)).transpose()?,
                tolerations: share.tolerations.clone(),
                node_affinity: share.node_affinity.clone(),
                preferred: share.preferred,
            })
        });
        let groups = groups.collect::<Result<_, _>>()?;
        let problem = |error: PolicyError| DistributionError::new("distribution", error.to_string());
        Policy::new(groups, Tie::First).map_err(problem)
    }
}

impl GroupSpec {
    /// The group's name: the one it was given, or its labels.
    pub fn name(&self) -> String {
        let labels = || self.node_label.iter().map(|(key, value)| format!("{key}={value}"));
        self.name
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| labels().collect::<Vec<_>>().join(","))
    }
}

impl Target {
    fn check(&self) -> Result<(), DistributionError> {
        let (kind, in_apps) = (self.kind.as_str(), self.api_version.starts_with("apps/"));
        let (field, problem) = if self.name.is_empty() {
            ("target.name", "must name the workload".to_owned())
        } else if kind == "DaemonSet" {
            (
                "target.kind",
                "a DaemonSet has a pod on each of its nodes: there is nothing to spread".to_owned(),
            )
        } else if BATCH.contains(&kind) && in_apps {
            ("target.apiVersion", "Jobs and CronJobs are batch/v1".to_owned())
        } else if !kind.starts_with(|c: char| c.is_ascii_uppercase()) {
            ("target.kind", format!("{kind:?} is no kind: one looks like Deployment"))
        } else {
            return Ok(());
        };
        Err(DistributionError::new(field, problem))
    }
}

impl MaxUnavailable {
    fn makes_sense(&self) -> bool {
        self.exactly(100).is_some_and(|most| most > 0)
    }

    /// How many of `pods` pods that is, at least one (percents are rounded down); none where it isn't understood.
    pub fn of(&self, pods: u32) -> Option<u32> {
        self.exactly(pods).map(|number| number.max(1))
    }

    fn exactly(&self, pods: u32) -> Option<u32> {
        match self {
            Self::Pods(number) => Some(*number),
            Self::Percent(text) => {
                let percent: u32 = text.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100)?;
                u32::try_from(u64::from(pods) * u64::from(percent) / 100).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::allocator::SlotAllocator;

    fn read(spec: Value) -> Result<Distribution, serde_json::Error> {
        serde_json::from_value(spec)
    }

    fn policy(distribution: &Value) -> Result<Policy, String> {
        let spec = read(json!({"distribution": distribution, "target": {"name": "web"}}));
        spec.map_err(|error| error.to_string())?.policy().map_err(|error| error.to_string())
    }

    #[test]
    fn the_originals_sample() {
        let spec = read(json!({
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-deployment"},
        }))
        .unwrap();
        assert_eq!(spec.target, Target { name: "nginx-deployment".to_owned(), ..Target::default() });
        assert_eq!(
            (spec.when_unavailable, spec.rebalance.mode),
            (WhenUnavailable::UseOthers, RebalanceMode::Never)
        );
        let policy = spec.policy().unwrap();
        let names: Vec<&str> = policy.groups().iter().map(|group| &*group.name).collect();
        assert_eq!(names, ["type=default", "type=spot"]);
        let allocator = SlotAllocator::new(policy);
        assert_eq!([10, 5, 100].map(|pods| allocator.desired(pods)), [[8, 2], [4, 1], [80, 20]]);
    }

    #[test]
    fn targets() {
        let target = |target: Value| read(json!({"target": target})).unwrap().target;
        for (kind, version) in [("StatefulSet", "apps/v1"), ("Job", "batch/v1"), ("CronJob", "batch/v1")] {
            assert_eq!(target(json!({"kind": kind, "name": "a"})).api_version, version);
        }
        assert_eq!(target(json!({"kind": "Job", "apiVersion": "volcano/v1"})).api_version, "volcano/v1");
        for (mut spec, error) in [
            (json!({"target": {"kind": "Job", "apiVersion": "apps/v1"}}), "spec.target.apiVersion: Jobs and"),
            (json!({"target": {"kind": "deployment"}}), "spec.target.kind: \"deployment\" is no kind"),
            (json!({"target": {"kind": "DaemonSet"}}), "spec.target.kind: a DaemonSet has"),
            (
                json!({"target": {}, "rebalance": {"maxUnavailable": 0}}),
                "spec.rebalance.maxUnavailable: must",
            ),
            (
                json!({"target": {}, "rebalance": {"maxUnavailable": "x"}}),
                "spec.rebalance.maxUnavailable: must",
            ),
        ] {
            spec["target"]["name"] = json!("web");
            let refused = read(spec).unwrap().policy().unwrap_err().to_string();
            assert!(refused.starts_with(error), "{refused}");
        }
    }

    #[test]
    fn everything_of_a_group() {
        let zone = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
        let policy = policy(&json!([
            {"name": "od", "nodeLabel": {"b": "1", "a": "2"}, "base": 2, "max": 5, "preferred": true},
            {"nodeLabel": {"b": "1", "a": "3"}, "weight": 1, "tolerations": [{"operator": "Exists"}], "nodeAffinity": [zone]},
        ]));
        let policy = policy.unwrap();
        let [od, other] = policy.groups() else { panic!("two groups") };
        assert_eq!((&*od.name, od.base, od.weight, od.max, od.preferred), ("od", 2, 0, Some(5), true));
        assert_eq!(
            (&*other.name, other.tolerations.len(), &other.node_affinity[..]),
            ("a=3,b=1", 1, &[zone][..])
        );
    }

    #[test]
    fn what_makes_no_policy() {
        let group = |more: Value| {
            let mut group = json!({"nodeLabel": {"type": "a"}, "weight": 1});
            group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            group
        };
        for (distribution, error) in [
            (json!([]), "spec.distribution: there is no group"),
            (
                json!([group(json!({"weight": -1}))]),
                "spec.distribution[0].weight: -1 isn't a whole number from 0 on",
            ),
            (json!([group(json!({"weight": 1.5}))]), "invalid type: floating point"),
            (
                json!([group(json!({})), group(json!({"base": 4_294_967_296_i64}))]),
                "spec.distribution[1].base: 4294967296 isn't",
            ),
            (
                json!([group(json!({"weight": 2_000_000}))]),
                "spec.distribution: group type=a: weight is 2000000, the highest",
            ),
            (json!([group(json!({"max": -3}))]), "spec.distribution[0].max: -3"),
            (json!([group(json!({"base": 3, "max": 2}))]), "spec.distribution: group type=a: max is 2"),
            (json!([group(json!({"weight": 0}))]), "spec.distribution: no group has a weight or a base"),
            (json!([group(json!({})), group(json!({}))]), "spec.distribution: two groups are named type=a"),
            (json!([group(json!({"nodeLabel": {}}))]), "spec.distribution: group  has no node label"),
            (
                json!([group(json!({"nodeLabel": {"a b": ""}}))]),
                "spec.distribution: group a b=: nodeLabel: \"a b\" is no",
            ),
            (
                json!([group(json!({"tolerations": [{}]}))]),
                "spec.distribution: group type=a: tolerations: without key",
            ),
            (
                json!([group(json!({"nodeAffinity": [{}]}))]),
                "spec.distribution: group type=a: nodeAffinity: it requires",
            ),
        ] {
            let told = policy(&distribution).unwrap_err();
            assert!(told.starts_with(error), "{distribution}: {told}");
        }
        let nobody = Distribution { distribution: vec![GroupSpec::default()], ..Distribution::default() };
        assert_eq!(nobody.policy().unwrap_err().to_string(), "spec.target.name: must name the workload");
        let each_node =
            |target: Value| read(json!({"distribution": [group(json!({}))], "target": target})).unwrap();
        let problem =
            "spec.target.kind: a DaemonSet has a pod on each of its nodes: there is nothing to spread";
        for foreign in ["apps/v1", "apps.kruise.io/v1alpha1"] {
            let target = json!({"apiVersion": foreign, "kind": "DaemonSet", "name": "web"});
            assert_eq!(each_node(target).policy().unwrap_err().to_string(), problem);
        }
        for unknown in [json!({"whenUnavailable": "Never"}), json!({"rebalance": {"mode": "Sometimes"}})] {
            assert!(read(unknown.clone()).is_err(), "{unknown}");
        }
    }

    #[test]
    fn parts_of_pods() {
        let of = |value: Value, pods| serde_json::from_value::<MaxUnavailable>(value).unwrap().of(pods);
        assert_eq!(of(json!(3), 100), Some(3));
        assert_eq!(of(json!(0), 100), Some(1));
        assert_eq!(of(json!("25%"), 10), Some(2));
        assert_eq!(of(json!("1%"), 10), Some(1));
        assert_eq!([of(json!("101%"), 10), of(json!("-1%"), 10), of(json!("5"), 10)], [None; 3]);
    }
}
