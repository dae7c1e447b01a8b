//! The warnings about resources that the VM doesn't get.

use podshaper_core::json::Entries;
use podshaper_core::pod::{ContainerList, ResourceField, Resources};

use crate::original_requests::{ContainerRequests, OriginalRequests};
use crate::remaining_resources::CLAIMS;
use crate::runtime_class::RuntimeClass;

/// Resources that are named; more get one line together. The API server cuts off warnings beyond 4 KiB.
const MAX_RESOURCES: usize = 8;
/// Containers that are named for each resource; more are counted.
const MAX_CONTAINERS: usize = 3;

/// A line for each resource that this pass removes and no annotation passes on.
///
/// An earlier pass has warned about the containers that it recorded.
pub(crate) fn warnings(class: &RuntimeClass, requests: &OriginalRequests<'_>) -> Vec<String> {
    let mut dropped = DroppedResources::default();
    for container in requests.containers().iter().filter(|container| !container.is_recorded()) {
        let requested = container.requested();
        for (resource, _) in lists(requested) {
            if !class.sizing.counts(resource) && !class.remaining.keeps(resource) {
                dropped.add(resource, container);
            }
        }
        if requested.claims.as_ref().is_some_and(|c| !c.is_empty()) && !class.remaining.keeps(CLAIMS) {
            dropped.add(CLAIMS, container);
        }
    }
    let mut lines: Vec<String> = dropped.resources.iter().map(DroppedResource::line).collect();
    if dropped.more {
        lines.push("not given to the VM: more resources than are named here".into());
    }
    if !requests.is_recorded() {
        lines.extend(pod_level(class, requests));
    }
    lines
}

fn pod_level(class: &RuntimeClass, requests: &OriginalRequests<'_>) -> Option<String> {
    let pod = requests.pod().filter(|pod| !pod.is_empty())?;
    if !class.sizing.moves_pod_resources() {
        let line = "spec.resources stays and counts on the node: only sizing effective gives it to the VM";
        return Some(line.into());
    }
    let (first, _) = lists(pod).find(|(resource, _)| !class.sizing.counts(resource))?;
    Some(format!("not given to the VM: {first} of spec.resources"))
}

fn lists<'r>(resources: &'r Resources<'_>) -> impl Iterator<Item = (&'r str, &'r str)> {
    let lists = [ResourceField::Requests.of(resources), ResourceField::Limits.of(resources)];
    lists.into_iter().flatten().flat_map(Entries::iter).map(|(resource, quantity)| (resource, &**quantity))
}

#[derive(Default)]
struct DroppedResources<'r> {
    resources: Vec<DroppedResource<'r>>,
    more: bool,
}

struct DroppedResource<'r> {
    name: &'r str,
    containers: Vec<&'r str>,
    more: usize,
    /// The container added last: it may have both a request and a limit.
    last: (ContainerList, usize),
}

impl<'r> DroppedResources<'r> {
    fn add(&mut self, name: &'r str, container: &'r ContainerRequests<'_>) {
        let place = container.place();
        let container = &*container.container().name;
        if let Some(resource) = self.resources.iter_mut().find(|resource| resource.name == name) {
            if resource.last == place {
                return;
            }
            resource.last = place;
            if resource.containers.len() < MAX_CONTAINERS {
                resource.containers.push(container);
            } else {
                resource.more += 1;
            }
        } else if self.resources.len() < MAX_RESOURCES {
            self.resources.push(DroppedResource { name, containers: vec![container], more: 0, last: place });
        } else {
            self.more = true;
        }
    }
}

impl DroppedResource<'_> {
    fn line(&self) -> String {
        let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        format!("not given to the VM: {} of {}{more}", self.name, self.containers.join(", "))
    }
}
