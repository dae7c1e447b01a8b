//! Demands of the ResourceQuotas of a namespace on every pod.

use std::collections::BTreeMap;

use podshaper_core::object::{FromObject, Object};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::resource::{PerResource, SizedResource};

/// `v1.ResourceQuota`, or all of a namespace as one. Its amounts and scopes don't matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceQuota {
    /// Whether every container needs a limit of the resource (`Constraints` of
    /// k8s.io/kubernetes/pkg/quota/v1/evaluator/core).
    pub requires_limit: PerResource<bool>,
}

/// `v1.ResourceQuotaSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ResourceQuotaSpec {
    hard: Option<BTreeMap<String, Value>>,
}

impl ResourceQuota {
    /// Both as one.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let requires = |resource| *self.requires_limit.get(resource) || *other.requires_limit.get(resource);
        Self { requires_limit: PerResource::from_fn(requires) }
    }
}

impl FromObject for ResourceQuota {
    type Spec = ResourceQuotaSpec;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "resourcequotas";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<ResourceQuotaSpec, IgnoredAny>) -> Option<Self> {
        let hard = object.spec.unwrap_or_default().hard.unwrap_or_default();
        let requires = |resource: SizedResource| hard.contains_key(&format!("limits.{}", resource.name()));
        Some(Self { requires_limit: PerResource::from_fn(requires) })
    }
}
