//! `metav1.LabelSelector`. `kube::core::Selector` needs kube, which the decision crates do without.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::label::{check, check_key};

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
    pub fn matches<L: AsRef<str>>(&self, label: impl Fn(&str) -> Option<L>) -> bool {
        let has =
            |(key, value): (&String, &String)| label(key).is_some_and(|own| own.as_ref() == value.as_str());
        let meets = |SelectorRequirement { key, operator, values }: &SelectorRequirement| {
            let value = label(key);
            let is_listed =
                value.as_ref().is_some_and(|value| values.iter().flatten().any(|one| one == value.as_ref()));
            match operator.as_str() {
                "In" => is_listed,
                "NotIn" => !is_listed,
                "DoesNotExist" => value.is_none(),
                _ => value.is_some(),
            }
        };
        self.match_labels.iter().flatten().all(has) && self.match_expressions.iter().flatten().all(meets)
    }

    /// Why the API server would reject the selector (`ValidateLabelSelector` of k8s.io/apimachinery): the field, and the problem.
    pub fn validate(&self) -> Result<(), (String, String)> {
        for (key, value) in self.match_labels.iter().flatten() {
            check(key, value).map_err(|problem| ("matchLabels".to_owned(), problem))?;
        }
        for (index, requirement) in self.match_expressions.iter().flatten().enumerate() {
            let error = |problem| (format!("matchExpressions[{index}]"), problem);
            requirement.validate().map_err(error)?;
        }
        Ok(())
    }

    /// The keys of the labels that it depends on.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let expressions = self.match_expressions.iter().flatten().map(|requirement| requirement.key.as_str());
        self.match_labels.iter().flatten().map(|(key, _)| key.as_str()).chain(expressions)
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

impl SelectorRequirement {
    fn validate(&self) -> Result<(), String> {
        let Self { key, operator, values } = self;
        check_key(key)?;
        for value in values.iter().flatten() {
            check(key, value)?;
        }
        let has_values = values.iter().flatten().count() > 0;
        match (operator.as_str(), has_values) {
            ("In" | "NotIn", true) | ("Exists" | "DoesNotExist", false) => Ok(()),
            ("In" | "NotIn", false) => Err(format!("operator {operator} requires values")),
            ("Exists" | "DoesNotExist", true) => Err(format!("operator {operator} allows no values")),
            _ => Err(format!("{operator:?} is not In, NotIn, Exists or DoesNotExist")),
        }
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
        assert_eq!(selector.keys().collect::<Vec<_>>(), ["app", "a", "b", "c", "d"]);
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
        assert!(LabelSelector::default().matches(|_| None::<&str>));
    }

    #[test]
    fn invalid_selector_names_its_field() {
        let problem = |selector: serde_json::Value| {
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            selector.validate().err().map(|(field, _)| field)
        };
        let expression =
            |operator: &str, values: &[&str]| json!({"key": "app", "operator": operator, "values": values});
        assert_eq!(problem(json!({"matchLabels": {"app": "web"}})), None);
        for valid in [expression("In", &["a"]), expression("Exists", &[])] {
            assert_eq!(problem(json!({"matchExpressions": [valid]})), None);
        }
        assert_eq!(problem(json!({})), None, "it selects every object");
        assert_eq!(problem(json!({"matchLabels": {"app": "a b"}})).as_deref(), Some("matchLabels"));
        for invalid in [expression("In", &[]), expression("Exists", &["a"]), expression("Is", &["a"])] {
            let problem = problem(json!({"matchExpressions": [expression("In", &["a"]), invalid]}));
            assert_eq!(problem.as_deref(), Some("matchExpressions[1]"));
        }
    }
}
