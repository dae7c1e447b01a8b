//! A `DaemonSet`, and the template that it names.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use podshaper_core::selector::LabelSelector;
use serde::Deserialize;
use serde::de::IgnoredAny;

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

impl FromObject for DaemonSet {
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
