//! A `DaemonSet`, and the template that it names.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use podshaper_core::selector::LabelSelector;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Names the template, on a `DaemonSet`, on its pod template, or on a pod.
pub const RESOURCE_TEMPLATE: &str = "flexdaemonsets.xai/resource-template";
/// Names the template on a pod: how the original marks those that it has seen.
pub const APPLY_TEMPLATE: &str = "flexdaemonsets.xai/apply-template";

/// The template that a pod, or a pod template, names by one of its annotations.
pub fn named_template<'a>(annotation: impl Fn(&'static str) -> Option<&'a str>) -> Option<&'a str> {
    [RESOURCE_TEMPLATE, APPLY_TEMPLATE].into_iter().find_map(annotation)
}

/// A `DaemonSet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// The template that its pods name, or else it itself.
    pub template: Option<Box<str>>,
    /// The selector of its pods, as a URL has it.
    pub selector: Box<str>,
}

/// `appsv1.DaemonSetSpec`.
#[derive(Clone, Debug, Deserialize)]
pub struct DaemonSetSpec {
    selector: Option<LabelSelector>,
    template: Option<PodTemplate>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodTemplate {
    metadata: Option<PodTemplateMetadata>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodTemplateMetadata {
    annotations: Option<BTreeMap<String, String>>,
}

impl FromObject for Owner {
    type Spec = DaemonSetSpec;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "daemonsets";
    const API: &'static str = "/apis/apps/v1";

    fn from_object(object: Object<DaemonSetSpec, IgnoredAny>) -> Option<Self> {
        let spec = object.spec.as_ref();
        let pods = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.annotations.as_ref());
        let template = named_template(|key| pods?.get(key).map(String::as_str))
            .or_else(|| object.metadata.annotation(RESOURCE_TEMPLATE));
        Some(Self {
            template: template.map(Into::into),
            selector: spec
                .and_then(|spec| spec.selector.as_ref())
                .map(LabelSelector::query)
                .unwrap_or_default()
                .into(),
            uid: object.metadata.uid.into(),
        })
    }
}
