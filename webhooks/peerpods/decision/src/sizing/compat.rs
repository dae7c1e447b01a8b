//! The sum over all containers, init containers among them.

use podshaper_core::pod::ResourceField;
use podshaper_core::quantity::Quantity;

use super::{Resource, add};
use crate::demand::Demand;
use crate::refusal::Refusal;

/// The limits where there are requests and the limits aren't lower; else the requests.
pub(super) fn total(demand: &Demand<'_>, resource: Resource<'_>) -> Result<Quantity, Refusal> {
    let requests = sum(demand, ResourceField::Requests, resource.name())?;
    match resource {
        Resource::Compute(name) if requests > Quantity::ZERO => {
            Ok(requests.max(sum(demand, ResourceField::Limits, name)?))
        }
        _ => Ok(requests),
    }
}

fn sum(demand: &Demand<'_>, side: ResourceField, name: &str) -> Result<Quantity, Refusal> {
    demand.members.iter().try_fold(Quantity::ZERO, |sum, member| add(sum, member.asked(side, name)?))
}
