//! What the API server would refuse a pod for, if it were patched in.
//!
//! The rules are those of k8s.io/kubernetes/pkg/apis/core/validation and k8s.io/apimachinery/pkg/util/validation.

use serde_json::{Map, Value};

use podshaper_core::label::{check, check_key};

/// Why a `v1.Toleration` can't be one (`ValidateTolerations`).
pub(super) fn toleration(toleration: &Value) -> Result<(), String> {
    let fields = object(toleration, &["key", "operator", "value", "effect", "tolerationSeconds"])?;
    let [key, operator, value, effect] =
        ["key", "operator", "value", "effect"].map(|field| text(fields, field));
    let (key, operator, value, effect) = (key?, operator?, value?, effect?);
    if !key.is_empty() {
        check_key(key)?;
    }
    match operator {
        "" | "Equal" if key.is_empty() => return Err("without key the operator must be Exists".into()),
        "" | "Equal" => check(key, value)?,
        "Exists" if !value.is_empty() => return Err("operator Exists takes no value".into()),
        "Exists" => {}
        other => return Err(format!("operator {other:?} is none of Equal and Exists")),
    }
    if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!("effect {effect:?} is none of NoSchedule, PreferNoSchedule and NoExecute"));
    }
    match fields.get("tolerationSeconds").filter(|seconds| !seconds.is_null()) {
        Some(seconds) if !seconds.is_i64() => Err("tolerationSeconds must be a whole number".into()),
        Some(_) if effect != "NoExecute" => Err("tolerationSeconds are for effect NoExecute".into()),
        _ => Ok(()),
    }
}

/// Why a `v1.NodeSelectorTerm` can't be one that some node meets (`ValidateNodeSelectorTerm`).
pub(super) fn node_selector_term(term: &Value) -> Result<(), String> {
    let fields = object(term, &["matchExpressions", "matchFields"])?;
    let (expressions, names) = (list(fields, "matchExpressions")?, list(fields, "matchFields")?);
    if expressions.is_empty() && names.is_empty() {
        return Err("it requires nothing, and no node meets it".into());
    }
    for requirement in expressions {
        let (key, operator, values) = parts(requirement)?;
        check_key(key)?;
        match operator {
            "In" | "NotIn" if values.is_empty() => return Err(format!("operator {operator} needs values")),
            "In" | "NotIn" => values.iter().try_for_each(|value| check(key, value))?,
            "Exists" | "DoesNotExist" if values.is_empty() => {}
            "Exists" | "DoesNotExist" => return Err(format!("operator {operator} takes no values")),
            "Gt" | "Lt" if values.len() == 1 && values.iter().all(|value| value.parse::<i64>().is_ok()) => {}
            "Gt" | "Lt" => return Err(format!("operator {operator} takes one whole number")),
            other => return Err(format!("there is no operator {other:?}")),
        }
    }
    for requirement in names {
        if !matches!(parts(requirement)?, ("metadata.name", "In" | "NotIn", values) if values.len() == 1) {
            return Err("matchFields take metadata.name, In or NotIn, and one name".into());
        }
    }
    Ok(())
}

fn parts(requirement: &Value) -> Result<(&str, &str, Vec<&str>), String> {
    let fields = object(requirement, &["key", "operator", "values"])?;
    let values = list(fields, "values")?.iter().map(|value| value.as_str().ok_or("values must be texts"));
    Ok((text(fields, "key")?, text(fields, "operator")?, values.collect::<Result<_, _>>()?))
}

fn object<'v>(value: &'v Value, known: &[&str]) -> Result<&'v Map<String, Value>, String> {
    let fields = value.as_object().ok_or("it isn't an object")?;
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(unknown) => Err(format!("unknown field {unknown:?}; there are {}", known.join(", "))),
        None => Ok(fields),
    }
}

fn text<'v>(fields: &'v Map<String, Value>, field: &str) -> Result<&'v str, String> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| format!("{field} must be text")),
    }
}

fn list<'v>(fields: &'v Map<String, Value>, field: &str) -> Result<&'v [Value], String> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(&[]),
        Some(value) => value.as_array().map(Vec::as_slice).ok_or_else(|| format!("{field} must be a list")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations() {
        for (value, good) in [
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
            assert_eq!(toleration(&value).is_ok(), good, "{value}");
        }
    }

    #[test]
    fn node_selector_terms() {
        let expression = |requirement: Value| json!({"matchExpressions": [requirement]});
        let zone = |operator: &str, values: Value| {
            expression(json!({"key": "zone", "operator": operator, "values": values}))
        };
        for (value, good) in [
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
            assert_eq!(node_selector_term(&value).is_ok(), good, "{value}");
        }
    }
}
