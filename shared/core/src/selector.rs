//! `metav1.LabelSelector`. `kube::core::Selector` needs kube, which the decision crates do without.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Selects objects by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<SelectorRequirement>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct SelectorRequirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let has = |(key, value): (&String, &String)| label(key) == Some(value);
        let meets = |SelectorRequirement { key, operator, values }: &SelectorRequirement| {
            let value = label(key);
            let is_listed = value.is_some_and(|value| values.iter().flatten().any(|one| one == value));
            match operator.as_str() {
                "In" => is_listed,
                "NotIn" => !is_listed,
                "DoesNotExist" => value.is_none(),
                _ => value.is_some(),
            }
        };
        self.match_labels.iter().flatten().all(has) && self.match_expressions.iter().flatten().all(meets)
    }

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
        let matches = |labels: &[(&str, &'static str)]| {
            selector.matches(|key| labels.iter().find(|(own, _)| *own == key).map(|(_, value)| *value))
        };
        assert!(matches(&[("app", "web"), ("a", "y"), ("d", "")]));
        for missed in [
            &[("app", "db"), ("a", "y"), ("d", "")][..],
            &[("app", "web"), ("a", "z"), ("d", "")],
            &[("app", "web"), ("a", "x")],
        ] {
            assert!(!matches(missed), "{missed:?}");
        }
        assert!(!matches(&[("app", "web"), ("a", "x"), ("d", ""), ("b", "z")]));
        assert!(!matches(&[("app", "web"), ("a", "x"), ("d", ""), ("c", "")]));
        assert!(LabelSelector::default().matches(|_| None));
    }
}
