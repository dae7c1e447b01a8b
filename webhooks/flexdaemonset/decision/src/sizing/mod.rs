//! The size of a pod: a pure function of the pod, its template, its node and the limits of its namespace.
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
mod limits;

pub use container::{PodLevel, SizedContainer};

use std::convert::Infallible;

use podshaper_core::pod::{Pod, ResourceList, aggregate};

use crate::limit_range::Bounds;
use crate::namespace_limits::NamespaceLimits;
use crate::node::Node;
use crate::original_requests::OriginalRequests;
use crate::resource::{PerResource, RequestAndLimit, SizedResource};
use crate::rules::Template;
use crate::template::Floor;

use distribute::distribute;
use limits::LimitPlan;

/// A pod with its size.
#[derive(Debug)]
pub struct Sizing<'p> {
    /// Containers, then init containers.
    pub containers: Vec<SizedContainer<'p>>,
    /// `spec.resources`: cpu and memory at most.
    pub pod: PodLevel,
    /// The requests of the sized pod in total, overhead included.
    pub effective: PerResource<i64>,
    /// For the pod's author, a line each.
    pub warnings: Vec<String>,
}

/// The amount of one resource that a pod may request.
struct Budget {
    resource: SizedResource,
    /// Millicores or bytes.
    amount: i64,
    /// `spec.overhead`, which the pod requests beside its containers.
    overhead: i64,
    /// The smallest request of a container, besides `bounds`.
    floor: Floor,
    bounds: ResourceBounds,
}

/// The demands of a namespace for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ResourceBounds {
    /// LimitRange bounds of each container.
    container: Bounds,
    /// LimitRange bounds of the pod in total, without overhead.
    pod: Bounds,
    /// Whether a ResourceQuota demands a limit of each container.
    quota_requires_limit: bool,
}

impl ResourceBounds {
    fn of(namespace: &NamespaceLimits, resource: SizedResource) -> Self {
        Self {
            container: *namespace.limit_range.container.get(resource),
            pod: *namespace.limit_range.pod.get(resource),
            quota_requires_limit: *namespace.quota.requires_limit.get(resource),
        }
    }
}

/// The new amounts of one resource.
#[derive(Debug)]
struct Amounts {
    /// Those of each container; `None` for one that keeps its own.
    containers: Vec<Option<RequestAndLimit>>,
    /// Those of the pod as a whole, if it has some.
    pod: Option<RequestAndLimit>,
}

/// The size of `pod` by `template` on `node`. `original` has the original requests of a pod that was sized before.
pub fn size<'p>(
    template: &Template,
    node: &Node,
    namespace: &NamespaceLimits,
    pod: &'p Pod<'p>,
    original: Option<&OriginalRequests<'_>>,
) -> Result<Sizing<'p>, String> {
    let overhead_list = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref());
    let mut sizing = Sizing {
        containers: SizedContainer::all(pod, original)?,
        pod: PodLevel::of(pod, original)?,
        effective: PerResource::default(),
        warnings: Vec::new(),
    };
    sizing.warn_of_unknown_containers(template);
    for resource in SizedResource::ALL {
        let overhead = overhead(overhead_list, resource);
        if let Some(amount) = template.budget(resource, node) {
            let floor = *template.floors.get(resource);
            let bounds = ResourceBounds::of(namespace, resource);
            sizing.size_resource(template, &Budget { resource, amount, overhead, floor, bounds });
        }
        sizing.set_effective(resource, overhead);
        sizing.warn_of_node(template, resource, node);
    }
    Ok(sizing)
}

impl Sizing<'_> {
    fn size_resource(&mut self, template: &Template, budget: &Budget) {
        let resource = budget.resource;
        let warnings = self.warnings.len();
        let Some(requests) = distribute(template, budget, &self.containers, &mut self.warnings) else {
            return self.restore(resource);
        };
        let original = *self.pod.original.get(resource);
        let plan = LimitPlan::new(template, budget, &self.containers, &requests, original);
        let Some(amounts) = plan.amounts(&mut self.warnings) else {
            // Those of the requests that no container gets.
            self.warnings.truncate(warnings);
            self.warnings.push(format!(
                "the namespace's LimitRange admits no size of {}: all containers keep their own",
                resource.name()
            ));
            return self.restore(resource);
        };
        for (container, amounts) in self.containers.iter_mut().zip(amounts.containers) {
            *container.sized.get_mut(resource) = amounts;
        }
        *self.pod.sized.get_mut(resource) = amounts.pod;
    }

    /// Gives all containers, and the pod as a whole, the original amounts: an earlier pass may have set others.
    fn restore(&mut self, resource: SizedResource) {
        for container in &mut self.containers {
            let original = *container.original.get(resource);
            *container.sized.get_mut(resource) =
                (original != *container.current.get(resource)).then_some(original);
        }
        let original = *self.pod.original.get(resource);
        *self.pod.sized.get_mut(resource) = (original != *self.pod.current.get(resource)).then_some(original);
    }

    fn set_effective(&mut self, resource: SizedResource, overhead: i64) {
        let requests =
            self.containers.iter().map(|one| Ok((one.role, one.target(resource).request.unwrap_or(0))));
        let Ok(total) = aggregate(requests, |a, b| Ok::<_, Infallible>(a.saturating_add(b)));
        let requested = self.pod.target(resource).request.unwrap_or(total);
        *self.effective.get_mut(resource) = requested.saturating_add(overhead);
    }

    fn warn_of_node(&mut self, template: &Template, resource: SizedResource, node: &Node) {
        let requested = *self.effective.get(resource);
        let name = resource.name();
        let allocatable = *node.allocatable.get(resource);
        if allocatable.is_none() && template.sizes(resource, node) {
            self.warnings.push(format!("the node reports no allocatable {name}, which counts as zero"));
        }
        let allocatable = allocatable.unwrap_or(0);
        if self.is_sized(resource) && requested > allocatable {
            self.warnings.push(format!(
                "the pod requests {} {name}, the node has {}: it stays Pending",
                resource.format(requested),
                resource.format(allocatable)
            ));
        }
    }

    /// A share of a container that doesn't exist has no effect.
    fn warn_of_unknown_containers(&mut self, template: &Template) {
        let exists = |name: &str| self.containers.iter().any(|container| &*container.container.name == name);
        let unknown = template.containers.iter().map(|share| &*share.name).filter(|name| !exists(name));
        let unknown: Vec<_> = unknown.collect();
        if !unknown.is_empty() {
            let names: Vec<_> = self.containers.iter().map(|container| &*container.container.name).collect();
            self.warnings.push(format!(
                "the pod has no container {}, which the template names; it has {}",
                unknown.join(", "),
                names.join(", ")
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
            let allocatable = node.allocatable.get(resource).unwrap_or(0);
            *self.effective.get(resource) > allocatable
        })
    }
}

fn overhead(overhead: Option<&ResourceList<'_>>, resource: SizedResource) -> i64 {
    let text = overhead.and_then(|list| list.get(resource.name()));
    text.and_then(|text| resource.parse(text).ok()).map_or(0, |amount| amount.max(0))
}
