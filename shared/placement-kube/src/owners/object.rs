//! An owner of whatever kind, as far as it tells of its pods.

use std::collections::BTreeMap;

use serde::Deserialize;

use podshaper_core::object::ObjectMeta;
use podshaper_core::object::lenient;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::selector::LabelSelector;

/// A label selector that is longer is one that no URL takes.
const LONGEST_SELECTOR: usize = 8 << 10;

/// As much of an owner's `spec` as tells of its pods.
///
/// A foreign kind may mean something else by these names: what isn't of the expected shape says nothing.
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
    pub ordinals: Option<Ordinals>,
    #[serde(deserialize_with = "lenient")]
    template: Option<Template>,
    #[serde(deserialize_with = "lenient")]
    job_template: Option<JobTemplate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnerStatus {
    #[serde(deserialize_with = "lenient")]
    pub replicas: Option<u32>,
}

/// `v1.PodTemplateSpec`, for what its pods are annotated with.
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

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ordinals {
    pub start: u32,
}

impl OwnerSpec {
    /// How many pods the owner may have at a time, where it says so.
    pub(crate) fn pods(&self, owner: &OwnerReference) -> Option<u32> {
        if owner.is_kind("batch", "Job") { Some(self.parallelism.unwrap_or(1)) } else { self.replicas }
    }

    /// The annotations that its pods are created with.
    pub(super) fn template(&mut self) -> BTreeMap<String, String> {
        let jobs = self.job_template.take().and_then(|jobs| jobs.spec);
        let template = jobs.map_or_else(|| self.template.take(), |mut job| job.template.take());
        template.and_then(|template| template.metadata?.annotations).unwrap_or_default()
    }

    pub(super) fn selector(&self) -> Option<String> {
        let selector = self.selector.as_ref()?.query();
        (1..=LONGEST_SELECTOR).contains(&selector.len()).then_some(selector)
    }
}
