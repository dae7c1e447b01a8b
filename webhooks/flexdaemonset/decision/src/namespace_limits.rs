//! Demands of a namespace on the amounts of its pods.

use crate::limit_range::{Bounds, LimitRange};
use crate::resource::SizedResource;
use crate::resource_quota::ResourceQuota;

/// The LimitRanges and the ResourceQuotas of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceLimits {
    /// All LimitRanges as one.
    pub limit_range: LimitRange,
    /// All ResourceQuotas as one.
    pub quota: ResourceQuota,
}

/// The demands for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourceBounds {
    /// LimitRange bounds of each container.
    pub(crate) container: Bounds,
    /// LimitRange bounds of the pod in total, without overhead.
    pub(crate) pod: Bounds,
    /// Whether a ResourceQuota demands a limit of each container.
    pub(crate) quota_requires_limit: bool,
}

impl NamespaceLimits {
    pub(crate) fn bounds(&self, resource: SizedResource) -> ResourceBounds {
        ResourceBounds {
            container: *self.limit_range.container.get(resource),
            pod: *self.limit_range.pod.get(resource),
            quota_requires_limit: *self.quota.requires_limit.get(resource),
        }
    }
}
