//! How much a pod needs of one resource.

mod compat;
mod effective;

use podshaper_core::pod::ResourceField;
use podshaper_core::quantity::Quantity;
use serde::Deserialize;

use crate::demand::Demand;
use crate::refusal::Refusal;

/// How the containers' resources add up to those of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sizing {
    /// As the peer-pods webhook of cloud-api-adaptor adds them up.
    #[default]
    Compat,
    /// As Kubernetes itself does, for its scheduler and quotas.
    Effective {
        /// Which of requests and limits counts.
        basis: Basis,
        /// Whether `spec.overhead` comes on top.
        overhead: bool,
    },
}

/// Which of a pod's effective requests and limits counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// The greater one.
    #[default]
    Max,
    /// The requests.
    Requests,
    /// The limits.
    Limits,
}

/// A resource of the guest, by how it is sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'r> {
    /// `cpu` or `memory`: may be overcommitted, and given to the pod as a whole.
    Compute(&'r str),
    /// One whose requests and limits are equal.
    Device(&'r str),
}

impl Sizing {
    /// How much `demand` comes to.
    pub(crate) fn total(self, demand: &Demand<'_>, resource: Resource<'_>) -> Result<Quantity, Refusal> {
        match self {
            Self::Compat => compat::total(demand, resource),
            Self::Effective { basis, overhead } => {
                let side = |side| effective::total(demand, side, resource, overhead);
                match basis {
                    Basis::Requests => side(ResourceField::Requests),
                    Basis::Limits => side(ResourceField::Limits),
                    Basis::Max => Ok(side(ResourceField::Requests)?.max(side(ResourceField::Limits)?)),
                }
            }
        }
    }
}

impl<'r> Resource<'r> {
    fn name(self) -> &'r str {
        match self {
            Self::Compute(name) | Self::Device(name) => name,
        }
    }
}

fn add(a: Quantity, b: Quantity) -> Result<Quantity, Refusal> {
    a.checked_add(&b).ok_or(Refusal::TooMuch("total of a resource"))
}
