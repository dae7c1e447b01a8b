//! The fields of an owner, of whatever kind, that concern its pods.

use std::collections::BTreeMap;

use podshaper_core::object::{Object, ObjectMeta, lenient};
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::selector::LabelSelector;
use podshaper_placement::owners::OwnerObject;
use serde::Deserialize;

/// Bytes of the longest label selector that fits into a URL.
const MAX_SELECTOR: usize = 8 << 10;
/// Bytes that are kept of an annotation. None that is valid is so long, so a parser notices that it is cut.
const MAX_ANNOTATION: usize = 32 << 10;

/// `spec` of an owner. A custom kind may use these names for something else: a field of another type counts as absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OwnerSpec {
    #[serde(deserialize_with = "lenient")]
    replicas: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    parallelism: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    selector: Option<LabelSelector>,
    #[serde(deserialize_with = "lenient")]
    ordinals: Option<Ordinals>,
    #[serde(deserialize_with = "lenient")]
    template: Option<Template>,
    #[serde(deserialize_with = "lenient")]
    job_template: Option<JobTemplate>,
}

/// `status` of an owner.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OwnerStatus {
    #[serde(deserialize_with = "lenient")]
    replicas: Option<u32>,
}

/// `v1.PodTemplateSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: Option<ObjectMeta>,
}

/// `batchv1.JobTemplateSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: Option<Box<OwnerSpec>>,
}

/// `appsv1.StatefulSetOrdinals`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Ordinals {
    start: u32,
}

impl OwnerSpec {
    /// How many pods the owner may have at a time, if its kind says so.
    pub(crate) fn pods(&self, owner: &OwnerReference) -> Option<u32> {
        if owner.is_kind("batch", "Job") { Some(self.parallelism.unwrap_or(1)) } else { self.replicas }
    }

    fn template_annotations(self) -> BTreeMap<String, String> {
        let template = match self.job_template.and_then(|jobs| jobs.spec) {
            Some(job) => job.template,
            None => self.template,
        };
        template.and_then(|template| template.metadata?.annotations).unwrap_or_default()
    }

    /// As in a URL, not encoded.
    fn selector(&self) -> Option<String> {
        let selector = self.selector.as_ref()?.query();
        (1..=MAX_SELECTOR).contains(&selector.len()).then_some(selector)
    }
}

/// Reads the owner that `owner` names, and those of its annotations and of its pod template's that have these keys.
pub(crate) fn owner_object(
    object: Object<OwnerSpec, OwnerStatus>,
    owner: &OwnerReference,
    annotations: &[&str],
) -> OwnerObject {
    let keep = |mut all: BTreeMap<String, String>| {
        all.retain(|key, _| annotations.contains(&&**key));
        for text in all.values_mut() {
            text.truncate(text.floor_char_boundary(MAX_ANNOTATION));
        }
        all
    };
    let metadata = object.metadata;
    let controller = metadata.controller().filter(|controller| controller.is_valid());
    let spec = object.spec.unwrap_or_default();
    OwnerObject {
        version: metadata.resource_version.parse().unwrap_or(0),
        controller: controller.map(OwnerReference::coordinates),
        pods: spec.pods(owner),
        created: object.status.and_then(|status| status.replicas),
        selector: spec.selector(),
        first_ordinal: spec.ordinals.as_ref().map_or(0, |ordinals| ordinals.start),
        template: keep(spec.template_annotations()),
        annotations: keep(metadata.annotations.unwrap_or_default()),
        uid: metadata.uid,
    }
}
