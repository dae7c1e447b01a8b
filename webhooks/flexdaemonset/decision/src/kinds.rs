//! What is kept of the kinds that are watched.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use podshaper_core::selector::LabelSelector;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::facts::{Owner, RESOURCE_TEMPLATE, TemplateFact, named_template};
use crate::node::Node;
use crate::range::Range;
use crate::rules::Template;
use crate::template::TemplateStatus;

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeStatus {
    allocatable: Option<BTreeMap<String, String>>,
}

impl FromObject for Node {
    type Spec = IgnoredAny;
    type Status = NodeStatus;
    const PLURAL: &'static str = "nodes";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<IgnoredAny, NodeStatus>) -> Option<Self> {
        let labels = object.metadata.labels.unwrap_or_default();
        let allocatable = object.status.and_then(|status| status.allocatable).unwrap_or_default();
        let labels = labels.iter().map(|(key, value)| (&**key, &**value));
        Some(Self::new(labels, |name| allocatable.get(name).map(String::as_str)))
    }
}

impl FromObject for TemplateFact {
    type Spec = Value;
    type Status = Value;
    const PLURAL: &'static str = crate::template::PLURAL;
    const API: &'static str = "/apis/flexdaemonsets.xai/v1alpha1";

    fn from_object(object: Object<Value, Value>) -> Option<Self> {
        Some(Self {
            uid: object.metadata.uid.into(),
            generation: object.metadata.generation,
            rules: Template::from_spec(&object.spec.unwrap_or_default()),
            // A status of another version counts as none, and is written anew.
            status: TemplateStatus::deserialize(object.status.unwrap_or_default()).unwrap_or_default(),
        })
    }
}

impl FromObject for Range {
    type Spec = Value;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "limitranges";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<Value, IgnoredAny>) -> Option<Self> {
        Some(Self::from_spec(&object.spec.unwrap_or_default()))
    }
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
