//! Demands of a namespace on the amounts of its pods.

use crate::limit_range::LimitRange;
use crate::resource_quota::ResourceQuota;

/// The LimitRanges and the ResourceQuotas of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceLimits {
    /// All LimitRanges as one.
    pub limit_range: LimitRange,
    /// All ResourceQuotas as one.
    pub quota: ResourceQuota,
}
