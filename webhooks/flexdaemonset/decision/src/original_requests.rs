//! The original requests of a sized pod's containers, recorded in an annotation with the template and the node.
//!
//! A second pass, and a refit much later, start from this record and never from a size that an earlier pass wrote. So
//! the result doesn't depend on the number of passes.

use podshaper_core::json::{Entries, Scalar, Text};
use podshaper_core::pod::{Pod, ResourceField, ResourceList, Resources};
use serde::{Deserialize, Serialize};

use crate::resource::SizedResource;

/// The annotation that records the original requests.
pub const ANNOTATION: &str = "podshaper.dev/flexdaemonset";

/// The annotation's value, as JSON.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct OriginalRequests<'p> {
    /// The template that sized the pod.
    #[serde(borrow, default)]
    pub template: Text<'p>,
    /// The node that the pod was sized for.
    #[serde(borrow, default)]
    pub node: Text<'p>,
    /// The original requests and limits of each container and init container, by its name; of sized resources alone.
    #[serde(borrow, default)]
    pub containers: Entries<'p, Resources<'p>>,
    /// The original `spec.resources` of the pod as a whole; of sized resources alone.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Resources<'p>>,
}

impl<'p> OriginalRequests<'p> {
    /// Parses the annotation of `pod`; `None` for a pod that hasn't been sized.
    pub fn from_pod(pod: &'p Pod<'_>) -> Result<Option<Self>, String> {
        let parsed = pod.annotation(ANNOTATION).map(serde_json::from_str).transpose();
        parsed.map_err(|error| format!("annotation {ANNOTATION} can't be read: {error}"))
    }

    /// The value of the annotation for `pod`. `earlier` is its current annotation: a container that it names may have the
    /// resources of an earlier pass by now.
    pub fn record(
        pod: &Pod<'_>,
        template: &str,
        node: &str,
        earlier: Option<&OriginalRequests<'_>>,
    ) -> String {
        let mut containers = Vec::new();
        for (_, _, container) in pod.containers() {
            let recorded = earlier.and_then(|earlier| earlier.containers.get(&container.name));
            let original = recorded.or(container.resources.as_ref()).map(sized_resources).unwrap_or_default();
            containers.push((container.name.clone(), original));
        }
        let pod_level = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let recorded = earlier.and_then(|earlier| earlier.pod.as_ref());
        let record = OriginalRequests {
            template: template.into(),
            node: node.into(),
            containers: Entries(containers),
            pod: recorded.or(pod_level).map(sized_resources),
        };
        // Serializing strings can't fail.
        serde_json::to_string(&record).unwrap_or_default()
    }
}

fn sized_resources<'r>(resources: &'r Resources<'_>) -> Resources<'r> {
    let list = |field: ResourceField| -> Option<ResourceList<'r>> {
        let list = field.of(resources)?;
        let entry = |resource: SizedResource| {
            let quantity = list.get(resource.name())?;
            Some((resource.name().into(), Scalar((&**quantity).into())))
        };
        let sized: Vec<_> = SizedResource::ALL.into_iter().filter_map(entry).collect();
        (!sized.is_empty()).then_some(Entries(sized))
    };
    Resources { requests: list(ResourceField::Requests), limits: list(ResourceField::Limits), claims: None }
}
