//! From a size to the patch of the pod.

use podshaper_core::json::Entries;
use podshaper_core::patch::Patch;
use podshaper_core::pod::{AnnotationsTooLarge, ContainerList, Pod, PodPatch, ResourceField, ResourceTarget};

use crate::memory::{ANNOTATION, Memory, sized};
use crate::resource::{Each, Resource};
use crate::sizing::{Ask, Sizing};

/// The patch that gives `pod` the size, and has it remember `template`, `node`, and what it had asked for.
pub fn patch(
    pod: &Pod<'_>,
    sizing: &Sizing<'_>,
    template: &str,
    node: &str,
    before: Option<&Memory<'_>>,
) -> Result<Patch, AnnotationsTooLarge> {
    let mut patch = PodPatch::new(pod);
    patch.set_annotation(ANNOTATION, &memory(pod, template, node, before));
    for (member, size) in &sizing.members {
        resources(&mut patch, pod, member.holder, &member.has, size);
    }
    let pod_level = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    // What can't be read was refused before.
    let has = crate::sizing::asks(pod_level, "the pod").unwrap_or_default();
    resources(&mut patch, pod, ResourceTarget::Pod, &has, &sizing.pod);
    patch.finish()
}

/// The value of the annotation. What an earlier pass remembers of a container is what counts.
pub fn memory(pod: &Pod<'_>, template: &str, node: &str, before: Option<&Memory<'_>>) -> String {
    let mut containers = Vec::new();
    for (_, _, container) in pod.containers() {
        let known = before.and_then(|before| before.containers.get(&container.name));
        let own = known.or(container.resources.as_ref()).map(sized).unwrap_or_default();
        containers.push((container.name.clone(), own));
    }
    let memory = Memory { template: template.into(), node: node.into(), containers: Entries(containers) };
    // Strings only: this can't fail.
    serde_json::to_string(&memory).unwrap_or_default()
}

fn resources(
    patch: &mut PodPatch<'_, '_>,
    pod: &Pod<'_>,
    holder: ResourceTarget,
    has: &Each<Ask>,
    size: &Each<Option<Ask>>,
) {
    for resource in Resource::ALL {
        let Some(wanted) = *size.get(resource) else { continue };
        let has = has.get(resource);
        // A request that only a limit stands for isn't written down.
        let requested = writes(pod, holder, ResourceField::Requests, resource);
        for (field, wanted, has) in [
            (ResourceField::Requests, wanted.request, has.request.filter(|_| requested)),
            (ResourceField::Limits, wanted.limit, has.limit),
        ] {
            match wanted {
                Some(amount) if has == Some(amount) => {}
                Some(amount) => {
                    patch.set_quantity(holder, field, resource.name(), &resource.write(amount));
                }
                None => patch.remove_quantity(holder, field, resource.name()),
            }
        }
    }
}

/// Whether the pod spells this quantity out.
fn writes(pod: &Pod<'_>, holder: ResourceTarget, field: ResourceField, resource: Resource) -> bool {
    let resources = match holder {
        ResourceTarget::Container(list, index) => container(pod, list, index),
        ResourceTarget::Pod => pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()),
    };
    resources
        .and_then(|resources| field.of(resources))
        .is_some_and(|list| list.get(resource.name()).is_some())
}

fn container<'p, 'a>(
    pod: &'p Pod<'a>,
    list: ContainerList,
    index: usize,
) -> Option<&'p podshaper_core::pod::Resources<'a>> {
    pod.list(list).get(index)?.resources.as_ref()
}
