//! Kubernetes' own formula: `PodRequests` and `PodLimits` of k8s.io/component-helpers/resource.

use podshaper_core::pod::{ContainerList, ResourceField};
use podshaper_core::quantity::Quantity;

use super::{Resource, add};
use crate::demand;
use crate::demand::Demand;
use crate::refusal::Refusal;

/// What the pod needs at once: its containers and sidecars together, or the init container that needs most beside the
/// sidecars that were started before it. What is given to the pod as a whole replaces that.
pub(super) fn total(
    demand: &Demand<'_>,
    side: ResourceField,
    resource: Resource<'_>,
    overhead: bool,
) -> Result<Quantity, Refusal> {
    let name = resource.name();
    let of_pod = match (&demand.pod, resource) {
        (Some(pod), Resource::Compute(_)) => demand::quantity(pod, side, name, || "the pod".into())?,
        _ => None,
    };
    let total = match of_pod {
        Some(total) => total,
        None => of_containers(demand, side, name)?,
    };
    if !overhead || (side == ResourceField::Limits && total == Quantity::ZERO) {
        return Ok(total);
    }
    let Some(text) = demand.overhead.and_then(|list| list.get(name)) else { return Ok(total) };
    let overhead = demand::parse(text, || format!("spec.overhead[{name}]"))?;
    add(total, overhead)
}

fn of_containers(demand: &Demand<'_>, side: ResourceField, name: &str) -> Result<Quantity, Refusal> {
    let mut running = Quantity::ZERO;
    let mut sidecars = Quantity::ZERO;
    let mut starting = Quantity::ZERO;
    for member in &demand.members {
        let asked = member.asked(side, name)?;
        if member.list == ContainerList::Containers {
            running = add(running, asked)?;
        } else if member.sidecar {
            running = add(running, asked)?;
            sidecars = add(sidecars, asked)?;
        } else {
            starting = starting.max(add(sidecars, asked)?);
        }
    }
    // A sidecar that starts needs no more than all of them running.
    Ok(running.max(starting))
}
