//! From a size to the patch of the pod.

use podshaper_core::patch::Patch;
use podshaper_core::pod::{AnnotationsTooLarge, Pod, PodPatch, ResourceField, ResourceTarget, Resources};

use crate::original_requests::{ANNOTATION, OriginalRequests};
use crate::resource::{PerResource, RequestAndLimit, SizedResource};
use crate::sizing::Sizing;

/// The patch that gives `pod` its size and records its original requests. `earlier` is the record of an earlier pass.
pub fn patch(
    pod: &Pod<'_>,
    sizing: &Sizing<'_>,
    template: &str,
    node: &str,
    earlier: Option<&OriginalRequests<'_>>,
) -> Result<Patch, AnnotationsTooLarge> {
    let mut patch = PodPatch::new(pod);
    patch.set_annotation(ANNOTATION, &OriginalRequests::record(pod, template, node, earlier));
    for container in &sizing.containers {
        let resources = container.container.resources.as_ref();
        set_resources(&mut patch, container.place, resources, &container.current, &container.sized);
    }
    let pod_level = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    set_resources(&mut patch, ResourceTarget::Pod, pod_level, &sizing.pod.current, &sizing.pod.sized);
    patch.finish()
}

/// Changes `resources`, which parse to `current`. Single quantities are set, so that resources which aren't sized, and
/// fields that this version doesn't know, stay.
fn set_resources(
    patch: &mut PodPatch<'_, '_>,
    place: ResourceTarget,
    resources: Option<&Resources<'_>>,
    current: &PerResource<RequestAndLimit>,
    sized: &PerResource<Option<RequestAndLimit>>,
) {
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    for resource in SizedResource::ALL {
        let Some(sized) = *sized.get(resource) else { continue };
        let current = current.get(resource);
        // A request that defaults to its limit is set, or it would change with the limit.
        let is_explicit = requests.is_some_and(|list| list.get(resource.name()).is_some());
        for (field, sized, current) in [
            (ResourceField::Requests, sized.request, current.request.filter(|_| is_explicit)),
            (ResourceField::Limits, sized.limit, current.limit),
        ] {
            match sized {
                Some(amount) if current == Some(amount) => {}
                Some(amount) => patch.set_quantity(place, field, resource.name(), &resource.format(amount)),
                None => patch.remove_quantity(place, field, resource.name()),
            }
        }
    }
}
