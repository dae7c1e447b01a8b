//! `metav1.LabelSelector`. `kube::core::Selector` needs kube, which the decision crates do without.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Selects objects by their labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<SelectorRequirement>>,
}

#[derive(Clone, Debug, Deserialize)]
struct SelectorRequirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl LabelSelector {
    /// The text of the query parameter `labelSelector`, not yet percent-encoded.
    pub fn query(&self) -> String {
        let labels = self.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        let expressions = self.match_expressions.iter().flatten().map(|requirement| {
            let SelectorRequirement { key, operator, values } = requirement;
            let values = values.as_deref().unwrap_or_default().join(",");
            match operator.as_str() {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.clone(),
            }
        });
        labels.chain(expressions).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn query_has_all_requirements() {
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            expression("a", "In", &["x", "y"]), expression("b", "NotIn", &["z"]), expression("c", "DoesNotExist", &[]),
            expression("d", "Exists", &[]),
        ]});
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        assert_eq!(selector.query(), "app=web,a in (x,y),b notin (z),!c,d");
        assert_eq!(LabelSelector::default().query(), "");
    }
}
