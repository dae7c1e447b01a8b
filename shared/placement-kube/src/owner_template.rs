//! The pod template of a controller, read when one of its pods may be evicted.

use std::sync::Arc;

use podshaper_core::object::{Lookup, Object, OwnerReference};
use podshaper_core::pod::Pod;
use podshaper_kube::error::describe;
use podshaper_kube::request::get;
use podshaper_placement::annotations::fitting_groups;
use podshaper_placement::policy::{GroupSet, Policy};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::owner_reader::OwnerReader;

/// The spec of a controller of pods.
#[derive(Debug)]
pub struct OwnerTemplate {
    /// API group and plural of its kind, such as `apps/replicasets`.
    pub resource: String,
    spec: Box<RawValue>,
}

/// The template in the spec of a controller.
#[derive(Default, Deserialize)]
struct ControllerSpec<'a> {
    #[serde(borrow, default)]
    template: Option<Pod<'a>>,
}

/// The part of `batchv1.JobSpec` that says which disruptions are no failures.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobSpec {
    pod_failure_policy: Option<PodFailurePolicy>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodFailurePolicy {
    rules: Vec<PodFailureRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodFailureRule {
    action: String,
    on_pod_conditions: Option<Vec<PodConditionPattern>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodConditionPattern {
    r#type: String,
    status: Option<String>,
}

impl PodFailureRule {
    fn ignores_disruptions(&self) -> bool {
        let disruption = |pattern: &PodConditionPattern| {
            pattern.r#type == "DisruptionTarget"
                && pattern.status.as_deref().is_none_or(|status| status == "True")
        };
        self.action == "Ignore" && self.on_pod_conditions.iter().flatten().any(disruption)
    }
}

impl OwnerTemplate {
    /// The groups that a pod of the template fits into; all if there is no template.
    pub fn fitting_groups(&self, policy: &Policy) -> GroupSet {
        let spec: ControllerSpec<'_> = serde_json::from_str(self.spec.get()).unwrap_or_default();
        spec.template.map_or_else(|| policy.all(), |pod| fitting_groups(&pod, policy))
    }

    /// Whether the first rule of the `podFailurePolicy` of a Job that concerns `DisruptionTarget` ignores it.
    pub fn ignores_disruptions(&self) -> bool {
        let spec: JobSpec = serde_json::from_str(self.spec.get()).unwrap_or_default();
        let rules = spec.pod_failure_policy.map(|policy| policy.rules).unwrap_or_default();
        // Rules count in their order. A rule about exit codes does not concern a pod that never ran.
        let by_condition = |rule: &&PodFailureRule| {
            rule.on_pod_conditions.iter().flatten().any(|pattern| pattern.r#type == "DisruptionTarget")
        };
        rules.iter().find(by_condition).is_some_and(PodFailureRule::ignores_disruptions)
    }
}

impl OwnerReader {
    /// Reads the template of the controller that `owner` names.
    pub async fn read_template(&self, namespace: &str, owner: &OwnerReference) -> Lookup<OwnerTemplate> {
        let path = match self.path(namespace, owner).await {
            Ok(Some(path)) => path,
            Ok(None) => return Lookup::NotFound,
            Err(_) => return Lookup::Unavailable,
        };
        match get::<Object<Box<RawValue>, IgnoredAny>>(self.client(), &path).await {
            Ok(Some(object)) if object.metadata.uid == owner.uid => match object.spec {
                Some(spec) => Lookup::Found(Arc::new(OwnerTemplate { resource: resource(&path), spec })),
                None => Lookup::NotFound,
            },
            Ok(_) => Lookup::NotFound,
            Err(kube::Error::Api(failure)) if failure.code == 403 => Lookup::Forbidden,
            Err(error) => {
                let kind = &owner.kind;
                let name = &owner.name;
                let error = describe(&error);
                tracing::warn!(namespace, kind, name, error, "cannot read the template of a pod");
                Lookup::Unavailable
            }
        }
    }
}

/// `/apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME` as `GROUP/PLURAL`.
fn resource(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').collect();
    match &*segments {
        [_, "apis", group, .., plural, _] => format!("{group}/{plural}"),
        [.., plural, _] => format!("/{plural}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use podshaper_placement::policy::{Group, Tie};
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn template(spec: &Value) -> OwnerTemplate {
        OwnerTemplate { resource: String::new(), spec: to_raw_value(spec).unwrap() }
    }

    #[test]
    fn first_rule_about_disruptions_decides() {
        let ignores =
            |rules: Value| template(&json!({"podFailurePolicy": {"rules": rules}})).ignores_disruptions();
        let rule = |action: &str, kind: &str, status: Value| json!({"action": action, "onPodConditions": [{"type": kind, "status": status}]});
        let exit_codes = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}});
        let disruption = rule("Ignore", "DisruptionTarget", json!("True"));
        assert!(ignores(json!([exit_codes, disruption])));
        assert!(ignores(json!([rule("Ignore", "DisruptionTarget", json!(null))])));
        assert!(!ignores(json!([rule("FailJob", "DisruptionTarget", json!("True")), disruption])));
        assert!(!ignores(json!([rule("Ignore", "Other", json!("True"))])));
        assert!(!ignores(json!([rule("Ignore", "DisruptionTarget", json!("False"))])));
        assert!(!template(&json!({})).ignores_disruptions());
    }

    #[test]
    fn template_selects_the_groups_of_successors() {
        let group = |name: &str| Group {
            name: name.into(),
            node_labels: [("type".to_owned(), name.to_owned())].into(),
            weight: 1,
            ..Group::default()
        };
        let policy = Policy::new(["a", "b"].map(group).into(), Tie::First).unwrap();
        let selects = |spec: Value| template(&json!({"template": {"spec": spec}})).fitting_groups(&policy);
        assert_eq!(selects(json!({"containers": []})), policy.all());
        assert_eq!(selects(json!({"nodeSelector": {"type": "b"}})), [1].into_iter().collect());
        assert_eq!(template(&json!({})).fitting_groups(&policy), policy.all());
        assert_eq!(resource("/apis/apps/v1/namespaces/shop/replicasets/web"), "apps/replicasets");
        assert_eq!(resource("/api/v1/namespaces/shop/replicationcontrollers/web"), "/replicationcontrollers");
    }
}
