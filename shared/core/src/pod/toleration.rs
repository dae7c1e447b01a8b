//! Taints of nodes, and tolerations of pods.

use serde::Deserialize;

/// `v1.Taint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// `key`.
    pub key: String,
    /// `value`.
    pub value: String,
    /// `effect`.
    pub effect: String,
}

/// `v1.Toleration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Toleration {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
}

impl Taint {
    /// Whether the scheduler keeps pods that do not tolerate the taint away (`DoNotScheduleTaintsFilterFunc` of
    /// k8s.io/component-helpers). `PreferNoSchedule` does not.
    pub fn repels(&self) -> bool {
        matches!(&*self.effect, "NoSchedule" | "NoExecute")
    }
}

impl Toleration {
    /// Whether it is as short as valid ones are: 317 bytes for a key (`IsQualifiedName`), and 63 for a value.
    pub fn is_short(&self) -> bool {
        [&self.key, &self.operator, &self.value, &self.effect]
            .into_iter()
            .flatten()
            .all(|text| text.len() <= 317)
    }

    /// Whether it tolerates the taint (`v1.Toleration.ToleratesTaint` of k8s.io/api). An operator that this version does not know
    /// tolerates nothing.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().to_owned();
        let key = text(&self.key);
        let effect = text(&self.effect);
        let matches = |own: &str, other: &str| own.is_empty() || own == other;
        matches(&effect, &taint.effect)
            && matches(&key, &taint.key)
            && match &*text(&self.operator) {
                "" | "Equal" => text(&self.value) == taint.value,
                "Exists" => true,
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn toleration_matches_key_operator_value_and_effect() {
        let taint = Taint { key: "spot".into(), value: "true".into(), effect: "NoSchedule".into() };
        let tolerates = |toleration: Value| Toleration::deserialize(toleration).unwrap().tolerates(&taint);
        for (toleration, expected) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "spot", "operator": "Exists", "effect": null}), true),
            (json!({"key": "spot", "value": "true", "effect": "NoSchedule"}), true),
            (json!({"key": "spot", "operator": "Equal", "value": "true"}), true),
            (json!({"key": "spot", "value": "false"}), false),
            (json!({"key": "spot"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "spot", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "spot", "operator": "Later", "value": "true"}), false),
        ] {
            assert_eq!(tolerates(toleration.clone()), expected, "{toleration}");
        }
        assert!(taint.repels() && !Taint { effect: "PreferNoSchedule".into(), ..taint }.repels());
    }
}
