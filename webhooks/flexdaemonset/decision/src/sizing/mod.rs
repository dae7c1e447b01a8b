//! The size of a pod: a pure function of the pod, its template, its node and its namespace's LimitRanges.
//!
//! ```text
//! template × node ──▶ budget ──▶ requests of the containers ──▶ limits
//!                                 (Replicate or Split)
//! ```
//!
//! All in integers: millicores and bytes.

mod apportion;
mod limits;
mod member;
mod shares;

pub use member::{Ask, Member, asks};

use std::convert::Infallible;

use podshaper_core::pod::{ContainerRole, Pod, aggregate};

use crate::memory::Memory;
use crate::node::Node;
use crate::range::Range;
use crate::resource::{Each, Resource};
use crate::rules::{Budget, Template};
use shares::Lot;

/// A pod with its size.
#[derive(Debug)]
pub struct Sizing<'p> {
    /// Containers, then init containers, each with its size.
    pub members: Vec<(Member<'p>, Each<Option<Ask>>)>,
    /// What `spec.resources` is to be, where the pod has such: at most cpu and memory.
    pub pod: Each<Option<Ask>>,
    /// What the pod requests then, by Kubernetes' formula, overhead included.
    pub effective: Each<i64>,
    /// What the author should know, each a line.
    pub warnings: Vec<String>,
}

/// The size of `pod` by `template` on `node`. What `memory` holds of its containers is what their author asked for.
///
/// # Errors
/// A quantity in the pod that can't be read.
pub fn size<'p>(
    template: &Template,
    node: &Node,
    range: &Range,
    pod: &'p Pod<'p>,
    memory: Option<&Memory<'_>>,
) -> Result<Sizing<'p>, String> {
    let members = member::members(pod, memory)?;
    let spec = pod.spec.as_ref();
    let overheads = shares::overhead(spec.and_then(|spec| spec.overhead.as_ref()));
    let pod_level = spec.and_then(|spec| spec.resources.as_ref());
    let pod_asks = asks(pod_level, "the pod")?;

    let mut sizes = vec![Each::<Option<Ask>>::default(); members.len()];
    let mut sizing = Sizing {
        members: Vec::new(),
        pod: Each::default(),
        effective: Each::default(),
        warnings: Vec::new(),
    };
    for resource in Resource::ALL {
        let overhead = *overheads.get(resource);
        let bounds = *range.container.get(resource);
        let policy = *template.limits.get(resource);
        if let Budget::Amount(budget) = template.budget(resource, node) {
            let lot = Lot { resource, budget, overhead, container: bounds, pod: *range.pod.get(resource) };
            let (requests, warnings) = shares::requests(template, &lot, &members);
            sizing.warnings.extend(warnings);
            for ((request, size), member) in requests.into_iter().zip(&mut sizes).zip(&members) {
                *size.get_mut(resource) = request.map(|request| {
                    let limit = limits::limit(policy, request, *member.own.get(resource), bounds);
                    Ask { request: Some(request), limit }
                });
            }
        }
        let ask = |(member, size): (&Member<'_>, &Each<Option<Ask>>)| {
            (member.role, size.get(resource).unwrap_or(*member.has.get(resource)))
        };
        let asked: Vec<(ContainerRole, Ask)> = members.iter().zip(&sizes).map(ask).collect();
        let requests = asked.iter().map(|(role, ask)| Ok((*role, ask.request.unwrap_or(0))));
        let Ok(together) = aggregate(requests, |a, b| Ok::<_, Infallible>(a.saturating_add(b)));
        let any = sizes.iter().any(|size| size.get(resource).is_some());
        let own = *pod_asks.get(resource);
        if any && resource != Resource::Storage && (own.request.is_some() || own.limit.is_some()) {
            let most = asked.iter().filter_map(|(_, ask)| ask.limit).max().unwrap_or(0).max(together);
            let limit = own.limit.map(|_| most);
            *sizing.pod.get_mut(resource) = Some(Ask { request: Some(together), limit });
        }
        let requested = if any { together } else { own.request.unwrap_or(together) };
        let effective = requested.saturating_add(overhead);
        *sizing.effective.get_mut(resource) = effective;
        if let Some(allocatable) = *node.allocatable.get(resource)
            && any
            && effective > allocatable
        {
            let (requests, has) = (resource.write(effective), resource.write(allocatable));
            sizing.warnings.push(format!(
                "the pod requests {requests} {}, the node has {has}: it stays Pending",
                resource.name()
            ));
        }
    }
    sizing.members = members.into_iter().zip(sizes).collect();
    Ok(sizing)
}

impl Sizing<'_> {
    /// Whether any resource of any container is sized.
    pub fn sizes_anything(&self) -> bool {
        self.members
            .iter()
            .any(|(_, size)| Resource::ALL.iter().any(|resource| size.get(*resource).is_some()))
    }

    /// Whether the node is too small for the pod, whatever else runs there.
    pub fn is_short(&self, node: &Node) -> bool {
        Resource::ALL.iter().any(|resource| {
            node.allocatable.get(*resource).is_some_and(|has| *self.effective.get(*resource) > has)
        })
    }
}
