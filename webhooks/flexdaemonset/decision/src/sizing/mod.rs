//! The size of a pod: a pure function of the pod, its template, its node and the LimitRanges of its namespace.
//!
//! ```text
//! template × node ──▶ budget ──▶ requests of the containers ──▶ limits
//!                                 (Replicate or Split)
//! ```
//!
//! All amounts are whole millicores or bytes.

mod apportion;
mod container;
mod distribute;
mod limit;

pub(crate) use container::requests_and_limits;

pub use container::SizedContainer;

use std::convert::Infallible;

use podshaper_core::pod::{Pod, ResourceList, aggregate};

use crate::limit_range::LimitRange;
use crate::node::Node;
use crate::original_requests::OriginalRequests;
use crate::resource::{PerResource, RequestAndLimit, SizedResource};
use crate::rules::Template;

use distribute::{Budget, distribute};
use limit::limit;

/// A pod with its size.
#[derive(Debug)]
pub struct Sizing<'p> {
    /// Containers, then init containers.
    pub containers: Vec<SizedContainer<'p>>,
    /// The new `spec.resources` of a pod that has them: cpu and memory at most.
    pub pod: PerResource<Option<RequestAndLimit>>,
    /// The requests of the sized pod in total, overhead included.
    pub effective: PerResource<i64>,
    /// For the pod's author, a line each.
    pub warnings: Vec<String>,
}

/// The size of `pod` by `template` on `node`. `original` has the original requests of a pod that was sized before.
pub fn size<'p>(
    template: &Template,
    node: &Node,
    limit_range: &LimitRange,
    pod: &'p Pod<'p>,
    original: Option<&OriginalRequests<'_>>,
) -> Result<Sizing<'p>, String> {
    let spec = pod.spec.as_ref();
    let pod_level = requests_and_limits(spec.and_then(|spec| spec.resources.as_ref()), "the pod")?;
    let mut sizing = Sizing {
        containers: SizedContainer::all(pod, original)?,
        pod: PerResource::default(),
        effective: PerResource::default(),
        warnings: Vec::new(),
    };
    for resource in SizedResource::ALL {
        let overhead = overhead(spec.and_then(|spec| spec.overhead.as_ref()), resource);
        if let Some(amount) = template.budget(resource, node) {
            let (container, pod) = (*limit_range.container.get(resource), *limit_range.pod.get(resource));
            sizing.size_containers(template, &Budget { resource, amount, overhead, container, pod });
        }
        sizing.size_pod(resource, *pod_level.get(resource), overhead);
        sizing.warn_of_short_node(resource, node);
    }
    Ok(sizing)
}

impl Sizing<'_> {
    fn size_containers(&mut self, template: &Template, budget: &Budget) {
        let policy = *template.limits.get(budget.resource);
        let requests = distribute(template, budget, &self.containers, &mut self.warnings);
        for (container, request) in self.containers.iter_mut().zip(requests) {
            *container.sized.get_mut(budget.resource) = request.map(|request| {
                let original = *container.original.get(budget.resource);
                RequestAndLimit {
                    request: Some(request),
                    limit: limit(policy, request, original, budget.container),
                }
            });
        }
    }

    /// Sets `spec.resources` where the pod has them, and the pod's total.
    fn size_pod(&mut self, resource: SizedResource, current: RequestAndLimit, overhead: i64) {
        let requests =
            self.containers.iter().map(|one| Ok((one.role, one.target(resource).request.unwrap_or(0))));
        let Ok(total) = aggregate(requests, |a, b| Ok::<_, Infallible>(a.saturating_add(b)));
        let is_sized = self.is_sized(resource);
        // Ephemeral-storage isn't allowed there (IsSupportedPodLevelResource of k8s.io/component-helpers/resource).
        if is_sized && resource != SizedResource::Storage && current != RequestAndLimit::default() {
            let largest_limit = self.containers.iter().filter_map(|one| one.target(resource).limit).max();
            let limit = current.limit.map(|_| largest_limit.unwrap_or(0).max(total));
            *self.pod.get_mut(resource) = Some(RequestAndLimit { request: Some(total), limit });
        }
        let requested = if is_sized { total } else { current.request.unwrap_or(total) };
        *self.effective.get_mut(resource) = requested.saturating_add(overhead);
    }

    fn warn_of_short_node(&mut self, resource: SizedResource, node: &Node) {
        let requested = *self.effective.get(resource);
        if let Some(allocatable) = *node.allocatable.get(resource)
            && self.is_sized(resource)
            && requested > allocatable
        {
            self.warnings.push(format!(
                "the pod requests {} {}, the node has {}: it stays Pending",
                resource.format(requested),
                resource.name(),
                resource.format(allocatable)
            ));
        }
    }

    fn is_sized(&self, resource: SizedResource) -> bool {
        self.containers.iter().any(|container| container.sized.get(resource).is_some())
    }

    /// Whether any resource of any container is sized.
    pub fn sizes_anything(&self) -> bool {
        SizedResource::ALL.into_iter().any(|resource| self.is_sized(resource))
    }

    /// Whether the pod requests more than the node has, whatever else runs there.
    pub fn is_short(&self, node: &Node) -> bool {
        SizedResource::ALL.into_iter().any(|resource| {
            node.allocatable
                .get(resource)
                .is_some_and(|allocatable| *self.effective.get(resource) > allocatable)
        })
    }
}

fn overhead(overhead: Option<&ResourceList<'_>>, resource: SizedResource) -> i64 {
    let text = overhead.and_then(|list| list.get(resource.name()));
    text.and_then(|text| resource.parse(text).ok()).map_or(0, |amount| amount.max(0))
}
