//! A `DaemonSet`, and the template that it names.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use podshaper_core::selector::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

/// The annotation of a `DaemonSet`, its pod template, or a pod that names the template.
pub const RESOURCE_TEMPLATE: &str = "flexdaemonsets.xai/resource-template";
/// The annotation of a pod that names the template. The original flexdaemonset sets it.
pub const APPLY_TEMPLATE: &str = "flexdaemonsets.xai/apply-template";

/// The template that these annotations of a pod or pod template name.
pub fn named_template<'a>(annotation: impl Fn(&'static str) -> Option<&'a str>) -> Option<&'a str> {
    [RESOURCE_TEMPLATE, APPLY_TEMPLATE].into_iter().find_map(annotation)
}

/// A `DaemonSet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSet {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// The template that its pod template names, or else the `DaemonSet` itself.
    pub template: Option<Box<str>>,
    /// The value of `labelSelector` for its pods.
    pub selector: Box<str>,
    /// Whether `updateStrategy` is `OnDelete`.
    pub on_delete: bool,
    /// Whether, and how far, `updateStrategy.rollingUpdate` has pods unavailable.
    pub max_unavailable: MaxUnavailable,
    /// Nodes that should have a pod and have none. Zero for a `DaemonSet` without a template.
    pub missing_pods: u32,
}

/// `updateStrategy.rollingUpdate.maxUnavailable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxUnavailable {
    /// A number of pods.
    Count(usize),
    /// Percent of the pods.
    Percent(usize),
}

impl Default for MaxUnavailable {
    /// As in `SetDefaults_DaemonSet`.
    fn default() -> Self {
        Self::Count(1)
    }
}

impl MaxUnavailable {
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Percent(text.strip_suffix('%')?.parse().ok()?)),
            number => Some(Self::Count(number.as_u64()?.try_into().ok()?)),
        }
    }

    /// The number of `pods` that may be unavailable. A percentage is rounded up, as the controller does.
    pub fn of(self, pods: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => pods.saturating_mul(percent).div_ceil(100),
        }
    }
}

/// `appsv1.DaemonSetSpec`.
#[derive(Clone, Debug, Deserialize)]
pub struct DaemonSetSpec {
    selector: Option<LabelSelector>,
    template: Option<PodTemplate>,
    #[serde(rename = "updateStrategy")]
    update_strategy: Option<UpdateStrategy>,
}

/// `appsv1.DaemonSetStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    desired_number_scheduled: u32,
    current_number_scheduled: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UpdateStrategy {
    r#type: Option<String>,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RollingUpdate {
    max_unavailable: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodTemplate {
    metadata: Option<PodTemplateMetadata>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodTemplateMetadata {
    annotations: Option<BTreeMap<String, String>>,
}

impl FromObject for DaemonSet {
    type Spec = DaemonSetSpec;
    type Status = DaemonSetStatus;
    const PLURAL: &'static str = "daemonsets";
    const API: &'static str = "/apis/apps/v1";

    fn from_object(object: Object<DaemonSetSpec, DaemonSetStatus>) -> Option<Self> {
        let spec = object.spec.as_ref();
        let pods = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.annotations.as_ref());
        let template = named_template(|key| pods?.get(key).map(String::as_str))
            .or_else(|| object.metadata.annotation(RESOURCE_TEMPLATE));
        let status = object.status.as_ref().filter(|_| template.is_some());
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        Some(Self {
            template: template.map(Into::into),
            selector: spec
                .and_then(|spec| spec.selector.as_ref())
                .map(LabelSelector::query)
                .unwrap_or_default()
                .into(),
            on_delete: strategy.is_some_and(|strategy| strategy.r#type.as_deref() == Some("OnDelete")),
            max_unavailable: strategy
                .and_then(|strategy| {
                    MaxUnavailable::parse(strategy.rolling_update.as_ref()?.max_unavailable.as_ref()?)
                })
                .unwrap_or_default(),
            missing_pods: status.map_or(0, |status| {
                status.desired_number_scheduled.saturating_sub(status.current_number_scheduled)
            }),
            uid: object.metadata.uid.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn update_strategy_limits_unavailable_pods() {
        let daemon_set = |strategy: Value| {
            let object = json!({"metadata": {}, "spec": {"updateStrategy": strategy}});
            DaemonSet::from_object(serde_json::from_value(object).unwrap()).unwrap()
        };
        let rolling = |max: Value| {
            daemon_set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max}}))
        };
        assert_eq!(daemon_set(json!(null)).max_unavailable.of(100), 1);
        assert_eq!(rolling(json!(3)).max_unavailable.of(100), 3);
        assert_eq!(rolling(json!("10%")).max_unavailable.of(11), 2);
        assert_eq!(rolling(json!(0)).max_unavailable.of(100), 0);
        assert!(daemon_set(json!({"type": "OnDelete"})).on_delete && !rolling(json!(1)).on_delete);
    }
}
