//! `metav1.Condition`, in the status of a custom resource.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest message, in characters. Kubernetes allows 32,768; these are for people.
const MAX_MESSAGE: usize = 1024;

/// An aspect of an object's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// Status of the condition.
    pub status: ConditionStatus,
    /// The metadata.generation that the condition is about.
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Reason for the status, as one word for programs.
    pub reason: String,
    /// Details for people.
    pub message: String,
}

/// `metav1.ConditionStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the API's own words")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// The result of a reconciliation for one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// Type of the condition.
    pub kind: &'static str,
    /// Status of the condition.
    pub status: ConditionStatus,
    /// Reason for the status.
    pub reason: &'static str,
    /// Details for people.
    pub message: String,
}

/// `status.conditions`: one of each type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
pub struct Conditions(Vec<Condition>);

impl Conditions {
    /// The condition of this type.
    pub fn get(&self, kind: &str) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.kind == kind)
    }

    /// The conditions.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// The conditions that replace these. `lastTransitionTime` changes with `status` alone (`meta.SetStatusCondition` of
    /// k8s.io/apimachinery); `now` is in RFC 3339.
    #[must_use]
    pub fn replaced_by(
        &self,
        conditions: impl IntoIterator<Item = NewCondition>,
        generation: i64,
        now: &str,
    ) -> Self {
        let replace = |new: NewCondition| {
            let same = self.get(new.kind).filter(|before| before.status == new.status);
            Condition {
                kind: new.kind.to_owned(),
                status: new.status,
                observed_generation: Some(generation),
                last_transition_time: same.map_or(now, |before| &before.last_transition_time).to_owned(),
                reason: new.reason.to_owned(),
                message: new.message.chars().take(MAX_MESSAGE).collect(),
            }
        };
        Self(conditions.into_iter().map(replace).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: ConditionStatus, message: &str) -> NewCondition {
        NewCondition { kind: "Ready", status, reason: "Tested", message: message.to_owned() }
    }

    #[test]
    fn transition_time_changes_only_with_status() {
        let first = Conditions::default().replaced_by([ready(ConditionStatus::False, "a")], 1, "then");
        let same = first.replaced_by([ready(ConditionStatus::False, "b")], 2, "now");
        let condition = same.get("Ready").unwrap();
        assert_eq!((&*condition.last_transition_time, &*condition.message), ("then", "b"));
        assert_eq!(condition.observed_generation, Some(2));
        let changed = same.replaced_by([ready(ConditionStatus::True, "b")], 2, "now");
        assert_eq!(changed.get("Ready").unwrap().last_transition_time, "now");
        assert_eq!(changed.get("Other"), None);
    }

    #[test]
    fn long_message_is_truncated() {
        let long = "ü".repeat(MAX_MESSAGE + 1);
        let conditions = Conditions::default().replaced_by([ready(ConditionStatus::True, &long)], 1, "now");
        assert_eq!(conditions.get("Ready").unwrap().message.chars().count(), MAX_MESSAGE);
    }
}
