//! Tolerations and node selector terms of a group, validated as the API server validates those of a pod
//! (`ValidateTolerations` and `ValidateNodeSelectorTerm` of k8s.io/kubernetes/pkg/apis/core/validation): a pod that gets an invalid one
//! would be rejected.

use podshaper_core::label::{check, check_key};
use podshaper_crd::{rule, rule_at};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// Patterns of a label's value and key (`IsValidLabelValue` and `IsQualifiedName` of k8s.io/apimachinery).
pub(crate) const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
pub(crate) const LABEL_KEY: &str =
    "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
pub(crate) const MAX_LABEL_VALUE: u32 = 63;
/// 253 for the prefix, a slash, and 63 for the name.
pub(crate) const MAX_LABEL_KEY: u32 = 317;

/// The schema of a label's value.
pub(crate) fn label_value_schema() -> Value {
    json!({"type": "string", "maxLength": MAX_LABEL_VALUE, "pattern": LABEL_VALUE})
}

/// The rule about the keys of a map of labels.
pub(crate) fn label_keys_rule() -> Value {
    let keys = format!("self.all(key, size(key) <= {MAX_LABEL_KEY} && key.matches('{LABEL_KEY}'))");
    rule(&keys, "keys must have the form [PREFIX/]NAME")
}

/// A toleration, as in a pod.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(
        ".operator",
        "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
        "must be Exists if key is empty",
    ),
    rule_at(
        ".value",
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
        "must be empty with operator Exists",
    ),
    rule_at(
        ".tolerationSeconds",
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "requires effect NoExecute",
    ),
]))]
pub(crate) struct GroupToleration {
    /// Key of the taint. Empty, with operator Exists, matches all keys.
    #[schemars(length(max = MAX_LABEL_KEY), regex(pattern = format!("^$|{LABEL_KEY}")))]
    key: Option<String>,
    /// How the key relates to the value. Defaults to Equal; Exists matches all values.
    operator: Option<TolerationOperator>,
    /// Value of the taint, for operator Equal.
    #[schemars(length(max = MAX_LABEL_VALUE), regex(pattern = LABEL_VALUE))]
    value: Option<String>,
    /// Effect of the taint. If not set, all effects match.
    effect: Option<TaintEffect>,
    /// How long the pod stays, for effect NoExecute.
    #[serde(rename = "tolerationSeconds")]
    seconds: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum TolerationOperator {
    Equal,
    Exists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// A node selector term, as in the node affinity of a pod.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "(has(self.matchExpressions) && size(self.matchExpressions) > 0) || (has(self.matchFields) && size(self.matchFields) > 0)",
    "must have a requirement: an empty term matches no node",
)]))]
pub(crate) struct NodeSelectorTerm {
    /// Requirements on the node's labels. All of them must be met.
    #[schemars(length(max = 8))]
    match_expressions: Option<Vec<LabelRequirement>>,
    /// Requirements on the node's name. All of them must be met.
    #[schemars(length(max = 8))]
    match_fields: Option<Vec<NameRequirement>>,
}

/// A requirement on a label of the node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(
        ".values",
        "(self.operator in ['Exists', 'DoesNotExist']) == (!has(self.values) || size(self.values) == 0)",
        "must be set for In, NotIn, Gt and Lt, and only for those",
    ),
    rule_at(
        ".values",
        "!(self.operator in ['Gt', 'Lt']) || (has(self.values) && size(self.values) == 1 && self.values[0].matches('^-?[0-9]{1,18}$'))",
        "must be one integer for Gt and Lt",
    ),
]))]
struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(max = MAX_LABEL_KEY), regex(pattern = LABEL_KEY))]
    key: String,
    /// How the label relates to the values.
    operator: LabelOperator,
    /// Values of the label, or one whole number for Gt and Lt.
    #[schemars(length(max = 32), inner(length(max = MAX_LABEL_VALUE), regex(pattern = LABEL_VALUE)))]
    values: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// A requirement on the name of the node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "self.key == 'metadata.name' && has(self.values) && size(self.values) == 1",
    "must be metadata.name with one value",
)]))]
struct NameRequirement {
    /// Path of the field: metadata.name.
    #[schemars(length(max = MAX_LABEL_KEY), regex(pattern = LABEL_KEY))]
    key: String,
    /// How the name relates to the value.
    #[expect(dead_code, reason = "either operator is valid")]
    operator: NameOperator,
    /// The name.
    #[schemars(length(max = 32), inner(length(max = 253)))]
    values: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum NameOperator {
    In,
    NotIn,
}

impl GroupToleration {
    /// Whether `value` is a valid `v1.Toleration`.
    pub(crate) fn validate(value: &Value) -> Result<(), String> {
        let Self { key, operator, value, effect, seconds } =
            Self::deserialize(value).map_err(|error| error.to_string())?;
        let key = key.unwrap_or_default();
        let value = value.unwrap_or_default();
        if !key.is_empty() {
            check_key(&key)?;
        }
        match operator.unwrap_or(TolerationOperator::Equal) {
            TolerationOperator::Equal if key.is_empty() => {
                return Err("without a key the operator must be Exists".into());
            }
            TolerationOperator::Equal => check(&key, &value)?,
            TolerationOperator::Exists if !value.is_empty() => {
                return Err("operator Exists must have no value".into());
            }
            TolerationOperator::Exists => {}
        }
        if seconds.is_some() && effect != Some(TaintEffect::NoExecute) {
            return Err("tolerationSeconds requires effect NoExecute".into());
        }
        Ok(())
    }
}

impl NodeSelectorTerm {
    /// Whether `value` is a valid `v1.NodeSelectorTerm` that a node can match.
    pub(crate) fn validate(value: &Value) -> Result<(), String> {
        let term = Self::deserialize(value).map_err(|error| error.to_string())?;
        let expressions = term.match_expressions.unwrap_or_default();
        let fields = term.match_fields.unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return Err("an empty term matches no node".into());
        }
        expressions.iter().try_for_each(LabelRequirement::validate)?;
        fields.iter().try_for_each(NameRequirement::validate)
    }
}

impl LabelRequirement {
    fn validate(&self) -> Result<(), String> {
        let Self { key, operator, values } = self;
        let values = values.as_deref().unwrap_or_default();
        check_key(key)?;
        match operator {
            LabelOperator::In | LabelOperator::NotIn if values.is_empty() => {
                Err(format!("operator {operator:?} must have values"))
            }
            LabelOperator::In | LabelOperator::NotIn => values.iter().try_for_each(|value| check(key, value)),
            LabelOperator::Exists | LabelOperator::DoesNotExist if !values.is_empty() => {
                Err(format!("operator {operator:?} must have no values"))
            }
            LabelOperator::Exists | LabelOperator::DoesNotExist => Ok(()),
            LabelOperator::Gt | LabelOperator::Lt => match values {
                [number] if number.parse::<i64>().is_ok() => Ok(()),
                _ => Err(format!("operator {operator:?} must have one integer")),
            },
        }
    }
}

impl NameRequirement {
    fn validate(&self) -> Result<(), String> {
        match self.values.as_deref() {
            Some([_]) if self.key == "metadata.name" => Ok(()),
            _ => {
                Err("matchFields must have the key metadata.name, operator In or NotIn, and one name".into())
            }
        }
    }
}

/// A term in the syntax of label selectors, as in `kubectl get nodes -l`.
pub(crate) fn describe_term(term: &Value) -> String {
    let lists = ["matchExpressions", "matchFields"].into_iter();
    let requirements = lists.filter_map(|list| term.get(list)?.as_array()).flatten();
    let describe = |requirement: &Value| {
        let text = |member: &str| requirement.get(member).and_then(Value::as_str).unwrap_or_default();
        let values = requirement.get("values").and_then(Value::as_array).into_iter().flatten();
        let values = values.filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        let key = text("key");
        match text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            "Gt" => format!("{key}>{values}"),
            "Lt" => format!("{key}<{values}"),
            _ => key.to_owned(),
        }
    };
    requirements.map(describe).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn invalid_toleration_is_rejected() {
        for (value, valid) in [
            (json!({"key": "spot", "operator": "Exists", "effect": "NoSchedule"}), true),
            (json!({"key": "spot", "value": "true"}), true),
            (json!({"operator": "Exists", "key": null}), true),
            (json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}), true),
            (json!({"value": "true"}), false),
            (json!({"key": "a", "operator": "Exists", "value": "x"}), false),
            (json!({"key": "a", "operator": "In"}), false),
            (json!({"key": "a", "effect": "Never"}), false),
            (json!({"key": "a", "tolerationSeconds": 3}), false),
            (json!({"key": "a", "effect": "NoExecute", "tolerationSeconds": "3"}), false),
            (json!({"key": "a b"}), false),
            (json!({"key": "a", "value": 1}), false),
            (json!({"keys": "a"}), false),
            (json!([]), false),
        ] {
            assert_eq!(GroupToleration::validate(&value).is_ok(), valid, "{value}");
        }
    }

    #[test]
    fn invalid_node_selector_term_is_rejected() {
        let expression = |requirement: Value| json!({"matchExpressions": [requirement]});
        let zone = |operator: &str, values: Value| {
            expression(json!({"key": "zone", "operator": operator, "values": values}))
        };
        for (value, valid) in [
            (zone("In", json!(["a", "b"])), true),
            (zone("Exists", json!(null)), true),
            (zone("Gt", json!(["5"])), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}), true),
            (json!({}), false),
            (json!({"matchExpressions": [], "matchFields": null}), false),
            (zone("In", json!([])), false),
            (zone("In", json!(["a b"])), false),
            (zone("In", json!([1])), false),
            (zone("In", json!("a")), false),
            (zone("Exists", json!(["a"])), false),
            (zone("Lt", json!(["x"])), false),
            (zone("Lt", json!(["1", "2"])), false),
            (zone("Like", json!(["1"])), false),
            (expression(json!({"key": "", "operator": "Exists"})), false),
            (expression(json!({"key": "a", "operator": "Exists", "later": 1})), false),
            (json!({"matchFields": [{"key": "metadata.uid", "operator": "In", "values": ["n"]}]}), false),
        ] {
            assert_eq!(NodeSelectorTerm::validate(&value).is_ok(), valid, "{value}");
        }
    }
}
