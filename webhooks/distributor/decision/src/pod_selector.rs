//! The schema of `spec.target.selector`. [`podshaper_core::selector::LabelSelector`] is the type of its values.

use std::collections::BTreeMap;

use podshaper_crd::rule_at;
use schemars::JsonSchema;

use crate::scheduling::{
    LABEL_KEY, LABEL_VALUE, MAX_LABEL_KEY, MAX_LABEL_VALUE, label_keys_rule, label_value_schema,
};

/// Labels of pods, as in a label selector of Kubernetes. An empty selector matches all pods.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct PodSelector {
    /// Labels that the pods have.
    #[schemars(extend(
        "maxProperties" = 8,
        "additionalProperties" = label_value_schema(),
        "x-kubernetes-validations" = [label_keys_rule()],
    ))]
    match_labels: Option<BTreeMap<String, String>>,
    /// Requirements on the labels of the pods. All of them must be met.
    #[schemars(length(max = 8))]
    match_expressions: Option<Vec<PodRequirement>>,
}

/// A requirement on a label of the pod.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [rule_at(
    ".values",
    "(self.operator in ['Exists', 'DoesNotExist']) == (!has(self.values) || size(self.values) == 0)",
    "must be set for In and NotIn, and only for those",
)]))]
#[expect(dead_code, reason = "only its schema is used")]
struct PodRequirement {
    /// Key of the label.
    #[schemars(length(max = MAX_LABEL_KEY), regex(pattern = LABEL_KEY))]
    key: String,
    /// How the label relates to the values.
    operator: PodOperator,
    /// Values of the label.
    #[schemars(length(max = 32), inner(length(max = MAX_LABEL_VALUE), regex(pattern = LABEL_VALUE)))]
    values: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
enum PodOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}
