//! The resources that containers still have after the patch.

use podshaper_core::json::{Entries, Scalar, Text};
use podshaper_core::pod::{ResourceField, ResourceList, Resources};
use podshaper_core::quantity::Quantity;

/// The name of `resources.claims` in `keepResources`.
pub(crate) const CLAIMS: &str = "claims";

/// The resources that containers have beside the VM's. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemainingResources {
    /// Resources that containers keep.
    pub keep: Vec<String>,
    /// Resources that every container gets, for a ResourceQuota or LimitRange that requires them.
    pub placeholders: Vec<Placeholder>,
}

/// A resource that every container gets unless it keeps its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The resource's name.
    pub resource: String,
    /// The quantity of the request.
    pub request: String,
    /// The quantity of the limit, if there is one.
    pub limit: Option<String>,
}

impl RemainingResources {
    /// Whether containers keep `resource`.
    pub(crate) fn keeps(&self, resource: &str) -> bool {
        self.keep.iter().any(|kept| kept == resource)
    }

    /// The resources of a container that requested `requested`. `vm_resource` is for the one container that requests
    /// the VM.
    pub(crate) fn of_container<'r>(
        &'r self,
        requested: &'r Resources<'_>,
        vm_resource: Option<&'r str>,
    ) -> Resources<'r> {
        let mut requests = List::default();
        let mut limits = List::default();
        for resource in &self.keep {
            let quantity = |field: ResourceField| field.of(requested).and_then(|list| list.get(resource));
            let limit = quantity(ResourceField::Limits);
            if let Some(limit) = limit {
                limits.add(resource, limit);
            }
            // SetDefaults_Pod: a request defaults to its limit.
            if let Some(request) = quantity(ResourceField::Requests).or(limit) {
                requests.add(resource, request);
            }
        }
        for placeholder in &self.placeholders {
            if requests.lacks(&placeholder.resource) {
                requests.add(&placeholder.resource, &placeholder.request);
                if let Some(limit) = &placeholder.limit {
                    limits.add(&placeholder.resource, limit);
                }
            }
        }
        if let Some(vm_resource) = vm_resource {
            requests.add(vm_resource, "1");
            limits.add(vm_resource, "1");
        }
        let claims = if self.keeps(CLAIMS) { requested.claims.clone() } else { None };
        Resources { requests: requests.into_resource_list(), limits: limits.into_resource_list(), claims }
    }
}

/// Whether both mean the same. The API server respells quantities between passes.
pub(crate) fn equivalent(a: &Resources<'_>, b: &Resources<'_>) -> bool {
    let same_list = |field: ResourceField| match (field.of(a), field.of(b)) {
        (Some(a), Some(b)) => {
            let same_quantity = |(resource, quantity): (&str, &Scalar<'_>)| {
                a.get(resource).is_some_and(|other| same_quantity(other, quantity))
            };
            a.iter().all(|(resource, _)| b.get(resource).is_some()) && b.iter().all(same_quantity)
        }
        (list, None) | (None, list) => list.is_none_or(Entries::is_empty),
    };
    same_list(ResourceField::Requests)
        && same_list(ResourceField::Limits)
        && a.claims.as_deref().unwrap_or_default() == b.claims.as_deref().unwrap_or_default()
}

fn same_quantity(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<Quantity>(), b.parse::<Quantity>()), (Ok(a), Ok(b)) if a == b)
}

#[derive(Default)]
struct List<'r>(Vec<(Text<'r>, Scalar<'r>)>);

impl<'r> List<'r> {
    fn add(&mut self, resource: &'r str, quantity: &'r str) {
        self.0.push((resource.into(), Scalar(quantity.into())));
    }

    fn lacks(&self, resource: &str) -> bool {
        self.0.iter().all(|(name, _)| &**name != resource)
    }

    fn into_resource_list(self) -> Option<ResourceList<'r>> {
        if self.0.is_empty() { None } else { Some(Entries(self.0)) }
    }
}
