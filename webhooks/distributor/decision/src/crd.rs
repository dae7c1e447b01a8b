//! The `CustomResourceDefinition`.
//!
//! What is made here stands in `crds/`; a test compares the two, and the chart and `distributor crd` take that file. Besides the
//! schema there are CEL rules, so that a distributor that can't work is refused when it is applied, with the field's name.

use podshaper_crd::{Definition, conditions, rule, rule_of};
use podshaper_placement::policy::{MAX_GROUPS, MAX_NUMBER};
use serde_json::{Value, json};

use crate::distributor::{GROUP, KIND, PLURAL, VERSION};

/// Labels and their keys (`IsQualifiedName`, `IsValidLabelValue` of k8s.io/apimachinery).
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
const MAX_VALUE: u32 = 63;
const MAX_KEY: u32 = 317;
/// So long a group's name may be: it stands in an annotation, and in a column.
const MAX_NAME: u32 = 63;

/// The `CustomResourceDefinition`.
pub fn crd() -> Value {
    Definition {
        api_version: &format!("{GROUP}/{VERSION}"),
        scope: "Namespaced",
        kind: KIND,
        plural: PLURAL,
        short_names: &["pd"],
        description: "PodDistributor says which share of a workload's pods goes to which nodes.",
        columns: &[
            ("Kind", "string", ".spec.target.kind"),
            ("Target", "string", ".spec.target.name"),
            ("Pods", "string", ".status.pods"),
            ("Due", "string", ".status.due"),
            ("Unplaced", "integer", ".status.unplaced"),
            ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
            ("Balanced", "string", ".status.conditions[?(@.type=='Balanced')].status"),
        ],
        needs_spec: true,
        spec: spec(),
        status: status(),
    }
    .into_object()
}

fn number(description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_NUMBER, "description": description})
}

fn spec() -> Value {
    json!({
        "type": "object",
        "description": "Which pods go where",
        "required": ["distribution", "target"],
        "properties": {
            "distribution": {
                "type": "array",
                "description": "The groups of nodes, and the share of each. Of pods that belong to two groups equally the first gets more",
                "minItems": 1,
                "maxItems": MAX_GROUPS,
                "items": group(),
                "x-kubernetes-validations": [
                    rule(
                        "self.exists(g, (has(g.weight) && g.weight > 0) || (has(g.base) && g.base > 0))",
                        "one group at least needs a weight or a base",
                    ),
                    rule(
                        "self.all(g, !has(g.name) || self.exists_one(other, has(other.name) && other.name == g.name))",
                        "no two groups may have one name",
                    ),
                    rule(
                        "self.all(g, has(g.name) || self.exists_one(other, !has(other.name) && other.nodeLabel == g.nodeLabel))",
                        "groups with the same labels need names",
                    ),
                ],
            },
            "target": {
                "type": "object",
                "description": "The workload, in the distributor's namespace. Of two distributors for one workload the oldest counts, \
                                and of one for it and one for what owns it the nearer to the pods",
                "required": ["name"],
                "properties": {
                    "apiVersion": {
                        "type": "string", "maxLength": 317, "pattern": "^[a-z0-9.-]+(/[a-z0-9]+)?$",
                        "description": "API group and version of the workload, as in argoproj.io/v1alpha1. Without it apps/v1, \
                                        and batch/v1 for a Job or CronJob",
                    },
                    "kind": {
                        "type": "string", "default": "Deployment", "maxLength": 63, "pattern": "^[A-Z][A-Za-z0-9]*$",
                        "description": "Kind of the workload: Deployment, StatefulSet, ReplicaSet, Job, CronJob, or any other whose \
                                        pods name it, or an owner that it has, as their controller",
                    },
                    "name": {"type": "string", "minLength": 1, "maxLength": 253, "description": "Name of the workload"},
                },
                "x-kubernetes-validations": [
                    rule_of(
                        "self.kind != 'DaemonSet'",
                        "a DaemonSet has a pod on each of its nodes: there is nothing to spread",
                        ".kind",
                    ),
                    rule_of(
                        "!(self.kind in ['Job', 'CronJob']) || !has(self.apiVersion) || !self.apiVersion.startsWith('apps/')",
                        "Jobs and CronJobs are batch/v1: say that, or leave it out",
                        ".apiVersion",
                    ),
                ],
            },
            "whenUnavailable": {
                "type": "string", "enum": ["UseOthers", "Wait"], "default": "UseOthers",
                "description": "What becomes of new pods of a group without a node that is ready and not cordoned.\n\
                                UseOthers: they go to the other groups until it has one again.\nWait: they wait for its nodes.",
            },
            "unschedulableAfter": {
                "type": "string", "maxLength": 32, "pattern": "^([0-9]+(h|m|s))+$",
                "description": "A group whose pods are unschedulable for longer, as in 5m, counts as unavailable. Without it only nodes count",
            },
            "rebalance": {
                "type": "object",
                "description": "Whether pods that stand in for other groups are evicted, so that new ones take their own places. \
                                PodDisruptionBudgets hold",
                "properties": {
                    "mode": {
                        "type": "string", "enum": ["Never", "OnRecovery", "Always"], "default": "Never",
                        "description": "When.\nNever: only new pods are placed.\nOnRecovery: once a group that was unavailable has nodes again.\n\
                                        Always: whenever a group is off its share.",
                    },
                    "maxUnavailable": {
                        "anyOf": [{"type": "integer"}, {"type": "string"}],
                        "x-kubernetes-int-or-string": true,
                        "description": "How many of the workload's pods may be missing at a time: a number, or percents as in 10%. 1 without it",
                        "x-kubernetes-validations": [rule(
                            "type(self) == int ? self >= 1 && self <= 1000000 : self.matches('^([1-9][0-9]?|100)%$')",
                            "must be a number from 1 on, or percents from 1% to 100%",
                        )],
                    },
                },
            },
        },
    })
}

fn group() -> Value {
    json!({
        "type": "object",
        "description": "Nodes that belong together, and their share",
        "required": ["nodeLabel"],
        "properties": {
            "name": {
                "type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": "^[^\\x00-\\x1f\\x7f]+$",
                "description": "Names the group for people. Without it the labels do, as in type=spot",
            },
            "nodeLabel": {
                "type": "object",
                "description": "Labels that all nodes of the group bear. They are added to the node selector of its pods",
                "minProperties": 1,
                "maxProperties": 8,
                "additionalProperties": {"type": "string", "maxLength": MAX_VALUE, "pattern": LABEL_VALUE},
                "x-kubernetes-validations": [rule(
                    &format!("self.all(key, size(key) <= {MAX_KEY} && key.matches('{LABEL_KEY}'))"),
                    "a label's key is [PREFIX/]NAME",
                )],
            },
            "weight": number("The group's share of the pods that bases leave, in proportion to the sum of all weights; they needn't sum to 100"),
            "base": number("So many of the first pods of each revision go to the group, before weights count"),
            "max": number("At most so many pods of each revision go to the group, its base among them; the others get what it doesn't"),
            "tolerations": {
                "type": "array",
                "description": "Tolerations that the group's pods are given, for taints of its nodes",
                "maxItems": 16,
                "items": toleration(),
            },
            "nodeAffinity": {
                "type": "array",
                "description": "Node selector terms, one of which a node must meet besides the labels. They are required in addition to \
                                what the pod requires itself",
                "maxItems": 8,
                "items": term(),
            },
            "preferred": {
                "type": "boolean",
                "description": "The labels are preferred (node affinity of weight 100) instead of required: where the group's nodes are \
                                full its pods run elsewhere",
            },
        },
        "x-kubernetes-validations": [rule_of(
            "!has(self.max) || !has(self.base) || self.max >= self.base",
            "must be at least base",
            ".max",
        )],
    })
}

fn toleration() -> Value {
    json!({
        "type": "object",
        "description": "A toleration, as in a pod",
        "properties": {
            "key": {"type": "string", "maxLength": MAX_KEY, "pattern": format!("^$|{LABEL_KEY}"), "description": "The taint's key; empty, with operator Exists, for any"},
            "operator": {"type": "string", "enum": ["Equal", "Exists"], "description": "Equal, which is meant without it, or Exists, for any value"},
            "value": {"type": "string", "maxLength": MAX_VALUE, "pattern": LABEL_VALUE, "description": "The taint's value, for operator Equal"},
            "effect": {"type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"], "description": "The taint's effect; any without it"},
            "tolerationSeconds": {"type": "integer", "format": "int64", "description": "For effect NoExecute: how long the pod stays"},
        },
        "x-kubernetes-validations": [
            rule_of(
                "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
                "must be Exists where there is no key",
                ".operator",
            ),
            rule_of(
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "must be empty with operator Exists",
                ".value",
            ),
            rule_of(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "is for effect NoExecute",
                ".tolerationSeconds",
            ),
        ],
    })
}

fn term() -> Value {
    let requirements = |of: &str, operators: &[&str], value: Value, rules: Value| {
        json!({
            "type": "array",
            "description": format!("Requirements on the node's {of}, all of which must be met"),
            "maxItems": 8,
            "items": {
                "type": "object",
                "required": ["key", "operator"],
                "properties": {
                    "key": {"type": "string", "maxLength": MAX_KEY, "pattern": LABEL_KEY, "description": "The label or field"},
                    "operator": {"type": "string", "enum": operators, "description": "How it relates to the values"},
                    "values": {
                        "type": "array", "maxItems": 32, "description": "What the label, or field, is compared with: label values, or one whole number for Gt and Lt",
                        "items": value,
                    },
                },
                "x-kubernetes-validations": rules,
            },
        })
    };
    let expressions = requirements(
        "labels",
        &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"],
        json!({"type": "string", "maxLength": MAX_VALUE, "pattern": LABEL_VALUE}),
        json!([
            rule_of(
                "(self.operator in ['Exists', 'DoesNotExist']) == (!has(self.values) || size(self.values) == 0)",
                "are for In, NotIn, Gt and Lt",
                ".values",
            ),
            rule_of(
                "!(self.operator in ['Gt', 'Lt']) || (has(self.values) && size(self.values) == 1 && self.values[0].matches('^-?[0-9]{1,18}$'))",
                "must be one whole number for Gt and Lt",
                ".values",
            ),
        ]),
    );
    let fields = requirements(
        "name",
        &["In", "NotIn"],
        json!({"type": "string", "maxLength": 253}),
        json!([rule(
            "self.key == 'metadata.name' && has(self.values) && size(self.values) == 1",
            "must be metadata.name with one value",
        )]),
    );
    json!({
        "type": "object",
        "description": "A node selector term, as in a pod's node affinity",
        "properties": {"matchExpressions": expressions, "matchFields": fields},
        "x-kubernetes-validations": [rule(
            "(has(self.matchExpressions) && size(self.matchExpressions) > 0) || (has(self.matchFields) && size(self.matchFields) > 0)",
            "requires nothing, and no node meets such a term",
        )],
    })
}

/// Counts of pods by group, for the whole workload and for each of its revisions.
fn counts(name: &str) -> Value {
    let count = |description: &str| json!({"type": "integer", "format": "int32", "description": description});
    json!({
        "type": "array",
        "description": name,
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "description": "The group's name, or its labels where it has none, as in type=spot"},
                "desired": count("Pods that belong to the group, by its share of those that are placed"),
                "actual": count("Pods that were placed in the group"),
                "pending": count("Those of them that aren't ready"),
                "deviation": count("How many pods the group has too many; negative: too few"),
                "available": {"type": "boolean", "description": "Whether the group has a node that is ready and not cordoned, and its pods don't wait for longer than unschedulableAfter"},
                "recovering": {"type": "boolean", "description": "Whether the group has been without nodes, and its pods have been elsewhere since"},
            },
        },
    })
}

fn status() -> Value {
    let count = |description: &str| json!({"type": "integer", "format": "int32", "description": description});
    json!({
        "type": "object",
        "description": "How the pods are spread; kept by the webhook",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation of the spec that this is about"},
            "pods": {"type": "string", "description": "Placed pods by group, in the order of the groups, as in 8/2"},
            "due": {"type": "string", "description": "What they should be, as in 8/2"},
            "replicas": count("Pods that the workload wants"),
            "placed": count("Pods that have a place"),
            "unplaced": count("Pods of the workload that have none: created before the distributor, or while no webhook answered, or no group was left for them. They are the first to go"),
            "groups": counts("The groups, over all revisions of the workload"),
            "revisions": {
                "type": "array",
                "description": "The owners of pods, such as a Deployment's ReplicaSets; the shares of each are exact by themselves",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "kind": {"type": "string", "description": "The kind of the pods' owner, as in ReplicaSet"},
                        "name": {"type": "string", "description": "The name of the pods' owner"},
                        "pods": count("Its placed pods"),
                        "groups": counts("Its pods by group, in the order of the distribution"),
                    },
                },
            },
            "conditions": conditions(
                "Ready, Balanced or Available",
                "Ready: pods are placed. Balanced: no group is off its share by a pod or more, and every pod has a place. Available: every group has nodes",
            ),
        },
    })
}
