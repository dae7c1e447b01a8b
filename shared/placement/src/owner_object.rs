//! An owner of pods, of whatever kind.

use std::collections::BTreeMap;

use serde::Deserialize;

use podshaper_core::object::{Object, ObjectMeta, OwnerReference, lenient};
use podshaper_core::pod::Toleration;
use podshaper_core::selector::LabelSelector;

use super::ledger::ResourceVersion;

/// Bytes of the longest label selector that fits into a URL.
const MAX_SELECTOR: usize = 8 << 10;
/// Bytes that are kept of an annotation. A valid one is shorter, so the parser rejects one that is cut.
const MAX_ANNOTATION: usize = 32 << 10;

/// More tolerations than a template has in practice.
const MAX_TOLERATIONS: usize = 32;

/// An owner, as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerObject {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: ResourceVersion,
    /// The owner's own controller.
    pub controller: Option<OwnerReference>,
    /// How many pods the owner may have at a time, if its kind has such a field.
    pub pods: Option<u32>,
    /// `status.replicas`.
    pub created: Option<u32>,
    /// The label selector of its pods, as the query parameter of a list, not encoded.
    pub selector: Option<String>,
    /// `spec.ordinals.start` of a `StatefulSet`: the ordinal of its first pod.
    pub first_ordinal: u32,
    /// The annotations that were asked for.
    pub annotations: BTreeMap<String, String>,
    /// Those of the pod template.
    pub template: BTreeMap<String, String>,
    /// The tolerations of the pod template.
    pub tolerations: Vec<Toleration>,
}

/// `spec` of an owner. A custom kind may use these names for something else: a field of another type counts as absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerSpec {
    #[serde(deserialize_with = "lenient")]
    replicas: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    parallelism: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    selector: Option<LabelSelector>,
    #[serde(deserialize_with = "lenient")]
    ordinals: Option<Ordinals>,
    #[serde(deserialize_with = "lenient")]
    template: Option<PodTemplate>,
    #[serde(deserialize_with = "lenient")]
    job_template: Option<JobTemplate>,
}

/// `status` of an owner.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerStatus {
    #[serde(deserialize_with = "lenient")]
    replicas: Option<u32>,
}

/// `v1.PodTemplateSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodTemplate {
    metadata: Option<ObjectMeta>,
    spec: Option<OwnedPodSpec>,
}

/// The fields of `v1.PodSpec` that are the same for all pods of a template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OwnedPodSpec {
    #[serde(deserialize_with = "lenient")]
    tolerations: Option<Vec<Toleration>>,
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
    /// How many pods the owner may have at a time, if its kind has such a field.
    pub fn pods(&self, owner: &OwnerReference) -> Option<u32> {
        if owner.is_kind("batch", "Job") { Some(self.parallelism.unwrap_or(1)) } else { self.replicas }
    }

    fn template(self) -> PodTemplate {
        let template = match self.job_template.and_then(|jobs| jobs.spec) {
            Some(job) => job.template,
            None => self.template,
        };
        template.unwrap_or_default()
    }

    fn selector(&self) -> Option<String> {
        let selector = self.selector.as_ref()?.query();
        (1..=MAX_SELECTOR).contains(&selector.len()).then_some(selector)
    }
}

impl OwnerObject {
    /// Projects the object that `owner` names, with those annotations of the owner and of its pod template that `keeps` accepts.
    pub fn from_object(
        object: Object<OwnerSpec, OwnerStatus>,
        owner: &OwnerReference,
        keeps: impl Fn(&str) -> bool,
    ) -> Self {
        let keep = |mut all: BTreeMap<String, String>| {
            all.retain(|key, _| keeps(key));
            for text in all.values_mut() {
                text.truncate(text.floor_char_boundary(MAX_ANNOTATION));
            }
            all
        };
        let metadata = object.metadata;
        let controller = metadata.controller().filter(|controller| controller.is_valid());
        let spec = object.spec.unwrap_or_default();
        let pods = spec.pods(owner);
        let selector = spec.selector();
        let first_ordinal = spec.ordinals.as_ref().map_or(0, |ordinals| ordinals.start);
        let template = spec.template();
        let tolerations = template.spec.and_then(|spec| spec.tolerations).unwrap_or_default();
        Self {
            version: metadata.resource_version.parse().unwrap_or(0),
            controller: controller.map(OwnerReference::coordinates),
            pods,
            created: object.status.and_then(|status| status.replicas),
            selector,
            first_ordinal,
            template: keep(template.metadata.and_then(|metadata| metadata.annotations).unwrap_or_default()),
            tolerations: tolerations.into_iter().filter(Toleration::is_short).take(MAX_TOLERATIONS).collect(),
            annotations: keep(metadata.annotations.unwrap_or_default()),
            uid: metadata.uid,
        }
    }
}
