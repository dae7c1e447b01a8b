//! `PodDistributor.spec`: how a workload's pods are distributed over groups of nodes.
//!
//! The schema of the `CustomResourceDefinition` is derived from these types, and their comments are its descriptions.

use std::collections::BTreeMap;
use std::fmt;

use podshaper_core::selector::LabelSelector;
use podshaper_crd::{rule, rule_at};
use podshaper_placement::policy::{Group, MAX_GROUPS, MAX_NUMBER, Policy, PolicyError, Tie};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pod_selector::PodSelector;
use crate::scheduling::{self, GroupToleration, NodeSelectorTerm, label_keys_rule, label_value_schema};

/// The most values in the node affinities of all groups together. Each takes about a hundred bytes for as long as the object exists.
const MAX_VALUES: usize = 1024;

/// The longest name of a group: it is the value of an annotation and of a column.
const MAX_GROUP_NAME: u32 = 63;

/// How a workload's pods are distributed over groups of nodes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "required" = ["distribution", "target"],
    "x-kubernetes-validations" = [
        rule_at(
            ".unschedulableAfter",
            "!has(self.unschedulableAfter) || !has(self.whenUnavailable) || self.whenUnavailable != 'Wait'",
            "unschedulableAfter has no effect with whenUnavailable: Wait; remove it, or set whenUnavailable: UseOthers",
        ),
        rule_at(
            ".rebalance",
            "!has(self.target.selector) || !has(self.rebalance) || !has(self.rebalance.mode) || self.rebalance.mode == 'Never'",
            "mode must be Never with target.selector: no object says how many pods there should be",
        ),
        rule_at(
            ".takeBack",
            "!has(self.takeBack) || self.takeBack == 'Never' || !has(self.whenUnavailable) || self.whenUnavailable != 'Wait'",
            "takeBack has no effect with whenUnavailable: Wait; remove it, or set whenUnavailable: UseOthers",
        ),
    ],
))]
pub struct PodDistributorSpec {
    /// Groups of nodes and the share of each. If a pod belongs to two groups equally, the first one gets it.
    #[schemars(length(min = 1, max = MAX_GROUPS))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            &format!(
                "self.map(g, has(g.nodeAffinity) ? g.nodeAffinity.map(t, has(t.matchExpressions) ? \
                 t.matchExpressions.map(e, has(e.values) ? size(e.values) : 0).sum() : 0).sum() : 0).sum() <= {MAX_VALUES}"
            ),
            "node affinities must have at most 1024 values together",
        ),
        rule(
            "self.exists(g, (has(g.weight) && g.weight > 0) || (has(g.base) && g.base > 0))",
            "at least one group must have a weight or a base",
        ),
        rule(
            "self.all(g, !has(g.name) || self.exists_one(other, has(other.name) && other.name == g.name))",
            "names must be unique",
        ),
        rule(
            "self.all(g, has(g.name) || !has(g.nodeLabel) || self.exists_one(other, !has(other.name) && has(other.nodeLabel) && \
             other.nodeLabel == g.nodeLabel))",
            "groups with the same labels must have names",
        ),
    ]))]
    pub distribution: Vec<GroupSpec>,
    /// The workload, or a selector of pods, in the namespace of the PodDistributor. If two PodDistributors select one workload or one pod, the older
    /// one applies. If one selects the workload and another one its owner, the one nearer to the pods applies. One that selects a workload applies
    /// before one that selects pods.
    pub target: Target,
    /// The treatment of pods of a group that takes no pods.
    pub when_unavailable: WhenUnavailable,
    /// How long a pod of a group may be unschedulable before the group is closed, as in 5m. Defaults to 5m with UseOthers. Set it above the time
    /// in which the autoscaler adds a node.
    #[schemars(length(max = 32), regex(pattern = "^([0-9]+(h|m|s))+$"))]
    pub unschedulable_after: Option<String>,
    /// The evidence by which a group is available.
    pub availability: Availability,
    /// Whether pods that wait for nodes of a closed group are evicted, so that the pods that replace them go to other groups. Defaults to Safe
    /// with UseOthers.
    pub take_back: Option<TakeBack>,
    /// Whether running pods of groups with too many pods are evicted, so that the pods that replace them go to groups with too few.
    /// PodDisruptionBudgets are respected.
    pub rebalance: Rebalance,
}

/// Nodes that belong together, and their share of the pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "x-kubernetes-validations" = [
        rule_at(".max", "!has(self.max) || !has(self.base) || self.max >= self.base", "must be at least base"),
        rule_at(
            ".standIn",
            "!has(self.standIn) || !self.standIn || ((!has(self.weight) || self.weight == 0) && (!has(self.base) || self.base == 0))",
            "requires weight 0 and base 0",
        ),
        rule_at(
            ".nodeLabel",
            "(has(self.nodeLabel) && size(self.nodeLabel) > 0) || (has(self.nodeAffinity) && size(self.nodeAffinity) > 0)",
            "must have a label unless nodeAffinity has a term",
        ),
        rule_at(
            ".preferred",
            "!has(self.preferred) || !self.preferred || (has(self.nodeLabel) && size(self.nodeLabel) > 0)",
            "requires nodeLabel: the labels are what pods prefer",
        ),
    ],
))]
pub struct GroupSpec {
    /// Name of the group. Defaults to its labels, as in type=spot, or without labels to its affinity, as in !spot.
    #[schemars(length(min = 1, max = MAX_GROUP_NAME), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub name: Option<String>,
    /// Labels of the group's nodes. They are added to the node selector of its pods. They may be left out if nodeAffinity defines the group.
    #[schemars(extend(
        "maxProperties" = 8,
        "additionalProperties" = label_value_schema(),
        "x-kubernetes-validations" = [label_keys_rule()],
    ))]
    pub node_label: BTreeMap<String, String>,
    /// Share of the pods that remain after all bases, in proportion to the sum of all weights. The sum may be any number.
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub weight: i64,
    /// How many of the first pods of each revision the group gets before weights apply.
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub base: i64,
    /// The most pods of each revision that the group gets, including its base. The other groups get the rest.
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub max: Option<i64>,
    /// Tolerations that are added to the group's pods, for taints of its nodes.
    #[schemars(with = "Vec<GroupToleration>", length(max = 16))]
    pub tolerations: Vec<Value>,
    /// Node selector terms in addition to the labels. A node belongs to the group if it has the labels and matches one of them. Pods of the
    /// group require that, and whatever they require themselves.
    #[schemars(with = "Vec<NodeSelectorTerm>", length(max = 8))]
    pub node_affinity: Vec<Value>,
    /// Prefer the labels (node affinity with weight 100) instead of requiring them. If the group's nodes are full, its pods run elsewhere.
    pub preferred: bool,
    /// Use the group only while no other group that the pod fits into is open. It requires weight 0.
    pub stand_in: bool,
}

/// A workload, or a selector of pods, in the namespace of the PodDistributor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, expecting = "a target")]
#[schemars(extend(
    "x-kubernetes-validations" = [
        rule("has(self.name) != has(self.selector)", "must have either a name or a selector"),
        rule_at(".kind", "!has(self.selector) || !has(self.kind)", "has no effect with selector"),
        rule_at(".apiVersion", "!has(self.selector) || !has(self.apiVersion)", "has no effect with selector"),
        rule_at(
            ".kind",
            "!has(self.kind) || self.kind != 'DaemonSet'",
            "a DaemonSet runs one pod on each node: there is nothing to distribute",
        ),
        rule_at(
            ".apiVersion",
            "!has(self.kind) || !(self.kind in ['Job', 'CronJob']) || !has(self.apiVersion) || !self.apiVersion.startsWith('apps/')",
            "must be batch/v1 for Job and CronJob",
        ),
    ],
))]
pub struct Target {
    /// API group and version of the workload, as in argoproj.io/v1alpha1. Defaults to batch/v1 for a Job or CronJob, else to apps/v1.
    #[schemars(length(max = 317), regex(pattern = "^[a-z0-9.-]+(/[a-z0-9]+)?$"))]
    pub api_version: Option<String>,
    /// Kind of the workload: Deployment (the default), StatefulSet, ReplicaSet, Job, CronJob, or any other kind that is the controller of
    /// pods, directly or through other owners.
    #[schemars(length(max = 63), regex(pattern = "^[A-Z][A-Za-z0-9]*$"))]
    pub kind: Option<String>,
    /// Name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Labels of pods, instead of a workload. All pods of the namespace that match share one sequence, whatever owns them.
    #[schemars(with = "Option<PodSelector>")]
    pub selector: Option<LabelSelector>,
}

/// Kinds of the group `batch`.
const BATCH: [&str; 2] = ["Job", "CronJob"];

/// The treatment of pods of a group that takes no pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum WhenUnavailable {
    /// New pods go to the other groups until the group takes pods again.
    #[default]
    UseOthers,
    /// Pods wait for nodes of their group.
    Wait,
}

/// The evidence by which a group is available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Availability {
    /// Its pods: a group is available until one of its pods has been unschedulable for longer than unschedulableAfter. A group without
    /// nodes is available, because a pod that waits is what makes an autoscaler add a node.
    #[default]
    Pods,
    /// Its nodes, too: a group is available only while it has a node that is ready and schedulable, matches the labels and node affinity of
    /// the group, and has no taint that the group's pods do not tolerate. For clusters without an autoscaler.
    Nodes,
}

/// Whether pods that wait for nodes of a closed group are evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TakeBack {
    /// They wait.
    Never,
    /// Pods of controllers that replace them without harm: ReplicaSet, ReplicationController, StatefulSet, and those that the administrator
    /// has listed.
    #[default]
    Safe,
    /// In addition, pods of Jobs with a podFailurePolicy that ignores DisruptionTarget.
    Always,
}

/// Whether running pods of groups with too many pods are evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rebalance {
    /// When pods are evicted.
    pub mode: RebalanceMode,
    /// How many of the workload's pods may be unavailable at the same time: a number, or a percentage as in 10%. Defaults to 1.
    pub max_unavailable: Option<MaxUnavailable>,
}

/// When pods are evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RebalanceMode {
    /// No pod is evicted. Only new pods are placed.
    #[default]
    Never,
    /// When a group that was closed takes pods again, and to try a closed group.
    OnRecovery,
    /// Whenever a group has too many or too few pods.
    Always,
}

/// A number of pods, or a percentage of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend(
    "x-kubernetes-int-or-string" = true,
    "x-kubernetes-validations" = [rule(
        "type(self) == int ? self >= 1 && self <= 1000000 : self.matches('^([1-9][0-9]?|100)%$')",
        "must be a number of at least 1, or a percentage from 1% to 100%",
    )],
))]
pub enum MaxUnavailable {
    /// A number.
    Pods(u32),
    /// A percentage, such as `10%`.
    Percent(String),
}

/// Why a spec is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct SpecError {
    /// Path below `spec`, as in `distribution[0].weight`.
    pub field: String,
    /// The reason.
    pub problem: String,
}

impl SpecError {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl PodDistributorSpec {
    /// How many values the node affinities of all groups have together.
    pub fn affinity_values(&self) -> usize {
        let of_term = |term: &Value| {
            let lists =
                ["matchExpressions", "matchFields"].map(|member| term.get(member).and_then(Value::as_array));
            let requirements = lists.into_iter().flatten().flatten();
            let values =
                |requirement: &Value| requirement.get("values").and_then(Value::as_array).map_or(0, Vec::len);
            requirements.map(values).sum::<usize>()
        };
        self.distribution.iter().flat_map(|group| &group.node_affinity).map(of_term).sum()
    }

    /// The policy that the spec describes. The schema rejects most of what is invalid before.
    pub fn policy(&self) -> Result<Policy, SpecError> {
        self.target.validate()?;
        if self.target.selector.is_some() && self.rebalance.mode != RebalanceMode::Never {
            let problem = "must be Never with target.selector: no object says how many pods there should be";
            return Err(SpecError::new("rebalance.mode", problem));
        }
        let values = self.affinity_values();
        if values > MAX_VALUES {
            let problem = format!("{values} values in node affinities; the maximum is {MAX_VALUES}");
            return Err(SpecError::new("distribution", problem));
        }
        if self.rebalance.max_unavailable.as_ref().is_some_and(|max| !max.is_valid()) {
            let problem = "must be a number of at least 1, or a percentage from 1% to 100%";
            return Err(SpecError::new("rebalance.maxUnavailable", problem));
        }
        let groups = self.distribution.iter().enumerate();
        let groups = groups.map(|(index, group)| group.policy_group(&format!("distribution[{index}]")));
        let policy = Policy::new(groups.collect::<Result<_, _>>()?, Tie::First);
        policy.map_err(|error: PolicyError| SpecError::new("distribution", error.to_string()))
    }
}

impl GroupSpec {
    /// The name of the group: its own, its labels, or its node affinity.
    pub fn name(&self) -> String {
        let labels = || self.node_label.iter().map(|(key, value)| format!("{key}={value}"));
        let definition = || match &self.node_affinity[..] {
            terms if self.node_label.is_empty() => {
                terms.iter().map(scheduling::describe_term).collect::<Vec<_>>().join(" or ")
            }
            _ => labels().collect::<Vec<_>>().join(","),
        };
        self.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(definition)
    }

    /// The group in a policy. `path` leads here from `spec`.
    fn policy_group(&self, path: &str) -> Result<Group, SpecError> {
        let number = |field: &str, number: i64| {
            let problem = || format!("{number} is not a number from 0 to {MAX_NUMBER}");
            u32::try_from(number).map_err(|_| SpecError::new(format!("{path}.{field}"), problem()))
        };
        for (index, toleration) in self.tolerations.iter().enumerate() {
            let error = |problem| SpecError::new(format!("{path}.tolerations[{index}]"), problem);
            GroupToleration::validate(toleration).map_err(error)?;
        }
        for (index, term) in self.node_affinity.iter().enumerate() {
            let error = |problem| SpecError::new(format!("{path}.nodeAffinity[{index}]"), problem);
            NodeSelectorTerm::validate(term).map_err(error)?;
        }
        Ok(Group {
            name: self.name().into(),
            node_labels: self.node_label.clone(),
            base: number("base", self.base)?,
            weight: number("weight", self.weight)?,
            max: self.max.map(|max| number("max", max)).transpose()?,
            tolerations: self.tolerations.clone(),
            node_affinity: self.node_affinity.clone(),
            preferred: self.preferred,
            stand_in: self.stand_in,
        })
    }
}

impl Target {
    /// `apiVersion`, or its default for the kind.
    pub fn api_version(&self) -> &str {
        let default = if BATCH.contains(&self.kind()) { "batch/v1" } else { "apps/v1" };
        self.api_version.as_deref().unwrap_or(default)
    }

    /// `kind`, or its default.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Deployment")
    }

    /// `name`; empty for a selector of pods.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The name, or the text of the selector, as in `app=web`.
    pub fn text(&self) -> String {
        match self.selector.as_ref().map(LabelSelector::query) {
            Some(query) if query.is_empty() => "(all pods)".to_owned(),
            Some(query) => query,
            None => self.name().to_owned(),
        }
    }

    fn validate(&self) -> Result<(), SpecError> {
        if let Some(selector) = &self.selector {
            return self.validate_selector(selector);
        }
        let kind = self.kind();
        let (field, problem) = if self.name().is_empty() {
            ("target.name", "must name the workload, unless there is a selector".to_owned())
        } else if kind == "DaemonSet" {
            (
                "target.kind",
                "a DaemonSet runs one pod on each node: there is nothing to distribute".to_owned(),
            )
        } else if BATCH.contains(&kind) && self.api_version().starts_with("apps/") {
            ("target.apiVersion", "must be batch/v1 for Job and CronJob".to_owned())
        } else if !kind.starts_with(|c: char| c.is_ascii_uppercase()) {
            ("target.kind", format!("{kind:?} is not a kind, such as Deployment"))
        } else {
            return Ok(());
        };
        Err(SpecError::new(field, problem))
    }

    fn validate_selector(&self, selector: &LabelSelector) -> Result<(), SpecError> {
        let others = [("name", &self.name), ("kind", &self.kind), ("apiVersion", &self.api_version)];
        if let Some((field, _)) = others.iter().find(|(_, value)| value.is_some()) {
            return Err(SpecError::new(format!("target.{field}"), "has no effect with selector"));
        }
        selector
            .validate()
            .map_err(|(field, problem)| SpecError::new(format!("target.selector.{field}"), problem))
    }
}

/// As in `Deployment web` or `selector app=web`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.selector.is_some() { "selector" } else { self.kind() };
        write!(f, "{kind} {}", self.text())
    }
}

impl MaxUnavailable {
    fn is_valid(&self) -> bool {
        self.exact(100).is_some_and(|most| most > 0)
    }

    /// How many of `pods` pods that is, at least one (a percentage is rounded down); none if it is invalid.
    pub fn of(&self, pods: u32) -> Option<u32> {
        self.exact(pods).map(|number| number.max(1))
    }

    fn exact(&self, pods: u32) -> Option<u32> {
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
    use podshaper_placement::allocator::SlotAllocator;
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> Result<PodDistributorSpec, serde_json::Error> {
        serde_json::from_value(spec)
    }

    fn policy(distribution: &Value) -> Result<Policy, String> {
        let spec = read(json!({"distribution": distribution, "target": {"name": "web"}}));
        spec.map_err(|error| error.to_string())?.policy().map_err(|error| error.to_string())
    }

    #[test]
    fn versprei_sample_is_a_policy() {
        let spec = read(json!({
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-deployment"},
        }))
        .unwrap();
        assert_eq!(
            (spec.target.kind(), spec.target.api_version(), spec.target.name()),
            ("Deployment", "apps/v1", "nginx-deployment")
        );
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
    fn target_has_defaults_and_errors() {
        let target = |target: Value| read(json!({"target": target})).unwrap().target;
        for (kind, version) in [("StatefulSet", "apps/v1"), ("Job", "batch/v1"), ("CronJob", "batch/v1")] {
            assert_eq!(target(json!({"kind": kind, "name": "a"})).api_version(), version);
        }
        assert_eq!(target(json!({"kind": "Job", "apiVersion": "volcano/v1"})).api_version(), "volcano/v1");
        for (mut spec, error) in [
            (
                json!({"target": {"kind": "Job", "apiVersion": "apps/v1"}}),
                "spec.target.apiVersion: must be batch/v1",
            ),
            (json!({"target": {"kind": "deployment"}}), "spec.target.kind: \"deployment\" is not a kind"),
            (json!({"target": {"kind": "DaemonSet"}}), "spec.target.kind: a DaemonSet runs"),
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
            let message = read(spec).unwrap().policy().unwrap_err().to_string();
            assert!(message.starts_with(error), "{message}");
        }
    }

    #[test]
    fn selector_excludes_the_fields_of_a_workload() {
        let problem = |target: Value, mode: &str| {
            let group = json!({"nodeLabel": {"type": "a"}, "weight": 1});
            let spec = json!({"distribution": [group], "target": target, "rebalance": {"mode": mode}});
            read(spec).unwrap().policy().err().map(|error| error.to_string())
        };
        let selector = json!({"matchLabels": {"app": "web"}});
        assert_eq!(problem(json!({"selector": selector}), "Never"), None);
        assert_eq!(problem(json!({"selector": {}}), "Never"), None, "all pods");
        for field in ["name", "kind", "apiVersion"] {
            let mut target = json!({"selector": selector});
            target[field] = json!("Deployment");
            let expected = format!("spec.target.{field}: has no effect with selector");
            assert_eq!(problem(target, "Never"), Some(expected));
        }
        let rebalances = problem(json!({"selector": selector}), "Always").unwrap();
        assert!(
            rebalances.starts_with("spec.rebalance.mode: must be Never with target.selector"),
            "{rebalances}"
        );
        let invalid = json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}});
        let expected =
            "spec.target.selector.matchExpressions[0]: \"Is\" is not In, NotIn, Exists or DoesNotExist";
        assert_eq!(problem(invalid, "Never").as_deref(), Some(expected));
        let text = |target: Value| read(json!({"target": target})).unwrap().target.to_string();
        assert_eq!(text(json!({"name": "web"})), "Deployment web");
        assert_eq!(text(json!({"selector": selector})), "selector app=web");
        assert_eq!(text(json!({"selector": {}})), "selector (all pods)");
    }

    #[test]
    fn group_fields_are_in_the_policy() {
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
    fn group_without_labels_is_named_by_its_affinity() {
        let requirement = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let terms = json!([
            {"matchExpressions": [requirement("spot", "DoesNotExist", &[]), requirement("zone", "In", &["a", "b"])]},
            {"matchExpressions": [requirement("size", "Gt", &["4"])], "matchFields": [requirement("metadata.name", "NotIn", &["n"])]},
        ]);
        let policy = policy(
            &json!([{"weight": 1, "nodeAffinity": terms}, {"nodeLabel": {"spot": "true"}, "weight": 1}]),
        )
        .unwrap();
        assert_eq!(&*policy.groups()[0].name, "!spot,zone in (a,b) or size>4,metadata.name notin (n)");
    }

    #[test]
    fn invalid_spec_names_its_field() {
        let group = |more: Value| {
            let mut group = json!({"nodeLabel": {"type": "a"}, "weight": 1});
            group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            group
        };
        for (distribution, error) in [
            (json!([]), "spec.distribution: there is no group"),
            (
                json!([group(json!({"weight": -1}))]),
                "spec.distribution[0].weight: -1 is not a number from 0 to 1000000",
            ),
            (json!([group(json!({"weight": 1.5}))]), "invalid type: floating point"),
            (
                json!([group(json!({})), group(json!({"base": 4_294_967_296_i64}))]),
                "spec.distribution[1].base: 4294967296 is not",
            ),
            (
                json!([group(json!({"weight": 2_000_000}))]),
                "spec.distribution: group type=a: weight is 2000000, the maximum",
            ),
            (json!([group(json!({"max": -3}))]), "spec.distribution[0].max: -3"),
            (json!([group(json!({"base": 3, "max": 2}))]), "spec.distribution: group type=a: max is 2"),
            (json!([group(json!({"weight": 0}))]), "spec.distribution: no group has a weight or a base"),
            (json!([group(json!({})), group(json!({}))]), "spec.distribution: two groups are named type=a"),
            (
                json!([group(json!({"nodeLabel": {}}))]),
                "spec.distribution: group : nodeLabel: there is no label",
            ),
            (
                json!([group(
                    json!({"nodeLabel": {}, "nodeAffinity": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}], "preferred": true})
                )]),
                "spec.distribution: group a: nodeLabel: there is no label",
            ),
            (
                json!([group(
                    json!({"nodeAffinity": [{"matchExpressions": [{"key": "type", "operator": "DoesNotExist"}]}]})
                )]),
                "spec.distribution: group type=a: nodeAffinity: no node can match a term and have the labels",
            ),
            (
                json!([group(json!({"nodeLabel": {"a b": ""}}))]),
                "spec.distribution: group a b=: nodeLabel: \"a b\" is no",
            ),
            (
                json!([group(json!({"tolerations": [{}]}))]),
                "spec.distribution[0].tolerations[0]: without a key",
            ),
            (
                json!([group(json!({"nodeAffinity": [{}]}))]),
                "spec.distribution[0].nodeAffinity[0]: an empty term",
            ),
        ] {
            let message = policy(&distribution).unwrap_err();
            assert!(message.starts_with(error), "{distribution}: {message}");
        }
        let nameless =
            PodDistributorSpec { distribution: vec![GroupSpec::default()], ..PodDistributorSpec::default() };
        assert_eq!(
            nameless.policy().unwrap_err().to_string(),
            "spec.target.name: must name the workload, unless there is a selector"
        );
        let with_target =
            |target: Value| read(json!({"distribution": [group(json!({}))], "target": target})).unwrap();
        let problem =
            "spec.target.kind: a DaemonSet runs one pod on each node: there is nothing to distribute";
        for api_version in ["apps/v1", "apps.kruise.io/v1alpha1"] {
            let target = json!({"apiVersion": api_version, "kind": "DaemonSet", "name": "web"});
            assert_eq!(with_target(target).policy().unwrap_err().to_string(), problem);
        }
        for unknown in [json!({"whenUnavailable": "Never"}), json!({"rebalance": {"mode": "Sometimes"}})] {
            assert!(read(unknown.clone()).is_err(), "{unknown}");
        }
    }

    #[test]
    fn max_unavailable_is_rounded_down() {
        let of = |value: Value, pods| serde_json::from_value::<MaxUnavailable>(value).unwrap().of(pods);
        assert_eq!(of(json!(3), 100), Some(3));
        assert_eq!(of(json!(0), 100), Some(1));
        assert_eq!(of(json!("25%"), 10), Some(2));
        assert_eq!(of(json!("1%"), 10), Some(1));
        assert_eq!([of(json!("101%"), 10), of(json!("-1%"), 10), of(json!("5"), 10)], [None; 3]);
    }
}
